//! Whether a request is sent again after a failed attempt: pure, and the same for a sidecar that acts on it and a control
//! plane that explains it.
//!
//! What was surely not processed goes to another endpoint, whatever it is. What may have been processed is sent again only
//! where a policy or route asks for it, and only if the method is idempotent or the policy says that this does not matter.

use std::{ops::RangeInclusive, sync::LazyLock, time::Duration};

use http::{Method, StatusCode};

use crate::model::{Budget, Conditions, Retry, RouteRetry};

/// Attempts in all that a request has, of which nobody has processed anything yet.
pub const UNPROCESSED_ATTEMPTS: u32 = 3;

/// How an attempt ended, as far as that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nobody has processed anything of the request.
    Unprocessed,
    /// The request was sent, and the connection ended before an answer began.
    Reset,
    /// The time for one attempt was over before an answer began.
    Timeout,
    /// With an answer whose status is this, not gRPC's.
    Status(StatusCode),
    /// With a gRPC status before any message.
    Grpc(u32),
    /// In a way that is never repeated: it is about the request itself.
    Final,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Another attempt, if budget, body and deadline allow it.
    Again,
    /// The answer goes to the caller.
    Answer(Why),
}

/// Why there is no other attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It ended well, or in a way for which nothing asks for another.
    NotAFailure,
    /// There is no retry policy, and it may have been processed.
    NoPolicy,
    /// The method is not idempotent, and the policy does not say that this does not matter.
    Method,
    /// There have been as many as there may be.
    Attempts,
}

/// What holds for a request: the rule's own words first, then the policy's, then the defaults.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    rule: Option<&'a RouteRetry>,
    policy: &'a Retry,
}

static DEFAULT: LazyLock<Retry> = LazyLock::new(Retry::default);

impl<'a> Rules<'a> {
    /// `policy`: that which [`holds`](crate::holds). `None`: there is nothing that asks for retries.
    pub fn of(rule: Option<&'a RouteRetry>, policy: Option<&'a Retry>) -> Option<Self> {
        match (rule, policy) {
            (None, None) => None,
            (rule, policy) => Some(Self { rule, policy: policy.unwrap_or(&DEFAULT) }),
        }
    }

    /// After the first.
    pub fn attempts(&self) -> u32 {
        self.rule.and_then(|rule| rule.attempts).unwrap_or(self.policy.attempts)
    }

    /// On all retries of the service.
    pub fn budget(&self) -> &'a Budget {
        &self.policy.budget
    }

    /// The policy, for what a rule has no words for.
    pub fn policy(&self) -> &'a Retry {
        self.policy
    }

    /// How long to wait before attempt `next` (2 is the first retry); `random`, in 0..1, says where between the ends.
    ///
    /// A rule's is the least that is waited (GEP-1731); the policy's doubles, and anything from zero to it is waited, so that
    /// those who failed together do not come back together.
    pub fn backoff(&self, next: u32, random: f64) -> Duration {
        if let Some(least) = self.rule.and_then(|rule| rule.backoff) {
            return least + least.mul_f64(random);
        }
        let doublings = next.saturating_sub(2).min(16);
        let most = self.policy.backoff.saturating_mul(1 << doublings).min(self.policy.max_backoff);
        most.mul_f64(random)
    }

    fn asks_for(&self, ended: Ended) -> bool {
        let Conditions { statuses, reset, timeout, grpc } = &self.policy.on;
        match (ended, self.rule) {
            // A rule that retries does so for connections that fail, too; and whoever asks for a status means also those that
            // the caller's own sidecar would answer with.
            (Ended::Reset, rule) => *reset || rule.is_some() || lists(statuses, StatusCode::BAD_GATEWAY),
            (Ended::Timeout, rule) => {
                *timeout || rule.is_some() || lists(statuses, StatusCode::GATEWAY_TIMEOUT)
            }
            (Ended::Status(status), Some(rule)) if !rule.codes.is_empty() => {
                rule.codes.contains(&status.as_u16())
            }
            (Ended::Status(status), _) => lists(statuses, status),
            (Ended::Grpc(code), _) => code < 32 && grpc & (1 << code) != 0,
            (Ended::Unprocessed, _) => true,
            (Ended::Final, _) => false,
        }
    }
}

fn lists(statuses: &[RangeInclusive<u16>], status: StatusCode) -> bool {
    statuses.iter().any(|range| range.contains(&status.as_u16()))
}

/// Whether repeating a request has the effect of one (RFC 9110 9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Decides after attempt `attempt` (the first is 1).
pub fn decide(rules: Option<&Rules<'_>>, method: &Method, attempt: u32, ended: Ended) -> Verdict {
    if ended == Ended::Unprocessed {
        let most = rules.map_or(0, |rules| rules.attempts().saturating_add(1)).max(UNPROCESSED_ATTEMPTS);
        return if attempt < most { Verdict::Again } else { Verdict::Answer(Why::Attempts) };
    }
    let Some(rules) = rules else { return Verdict::Answer(Why::NoPolicy) };
    if !rules.asks_for(ended) {
        Verdict::Answer(Why::NotAFailure)
    } else if !is_idempotent(method) && !rules.policy.non_idempotent {
        Verdict::Answer(Why::Method)
    } else if attempt > rules.attempts() {
        Verdict::Answer(Why::Attempts)
    } else {
        Verdict::Again
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Ended; 9] = [
        Ended::Unprocessed,
        Ended::Reset,
        Ended::Timeout,
        Ended::Status(StatusCode::OK),
        Ended::Status(StatusCode::NOT_FOUND),
        Ended::Status(StatusCode::SERVICE_UNAVAILABLE),
        Ended::Grpc(0),
        Ended::Grpc(14),
        Ended::Final,
    ];
    const METHODS: [Method; 5] = [Method::GET, Method::PUT, Method::DELETE, Method::POST, Method::PATCH];

    #[test]
    fn without_a_policy_only_what_was_not_processed_is_repeated() {
        for method in METHODS {
            for ended in ALL {
                let again = decide(None, &method, 1, ended) == Verdict::Again;
                assert_eq!(again, ended == Ended::Unprocessed, "{method} {ended:?}");
            }
        }
        assert_eq!(decide(None, &Method::GET, 3, Ended::Unprocessed), Verdict::Answer(Why::Attempts));
    }

    #[test]
    fn what_is_repeated_by_default_conditions() {
        let policy = Retry::default();
        let rules = Rules::of(None, Some(&policy)).expect("a policy");
        for (ended, expected) in [
            (Ended::Unprocessed, Verdict::Again),
            (Ended::Reset, Verdict::Again),
            (Ended::Timeout, Verdict::Again),
            (Ended::Status(StatusCode::OK), Verdict::Answer(Why::NotAFailure)),
            (Ended::Status(StatusCode::INTERNAL_SERVER_ERROR), Verdict::Answer(Why::NotAFailure)),
            (Ended::Status(StatusCode::BAD_GATEWAY), Verdict::Again),
            (Ended::Status(StatusCode::GATEWAY_TIMEOUT), Verdict::Again),
            (Ended::Grpc(14), Verdict::Again),
            (Ended::Grpc(13), Verdict::Answer(Why::NotAFailure)),
            (Ended::Grpc(99), Verdict::Answer(Why::NotAFailure)),
            (Ended::Final, Verdict::Answer(Why::NotAFailure)),
        ] {
            assert_eq!(decide(Some(&rules), &Method::GET, 1, ended), expected, "{ended:?}");
        }
    }

    #[test]
    fn a_rule_says_which_statuses_and_how_often() {
        let rule =
            RouteRetry { codes: vec![500], attempts: Some(1), backoff: Some(Duration::from_millis(100)) };
        let rules = Rules::of(Some(&rule), None).expect("a rule");
        let status = |code| Ended::Status(StatusCode::from_u16(code).expect("a status"));
        assert_eq!(decide(Some(&rules), &Method::GET, 1, status(500)), Verdict::Again);
        assert_eq!(decide(Some(&rules), &Method::GET, 2, status(500)), Verdict::Answer(Why::Attempts));
        assert_eq!(decide(Some(&rules), &Method::GET, 1, status(503)), Verdict::Answer(Why::NotAFailure));
        assert_eq!(decide(Some(&rules), &Method::POST, 1, status(500)), Verdict::Answer(Why::Method));
        assert_eq!(decide(Some(&rules), &Method::GET, 1, Ended::Reset), Verdict::Again);
        assert_eq!(rules.backoff(5, 0.0), Duration::from_millis(100));
        assert_eq!(rules.backoff(5, 0.5), Duration::from_millis(150));
        // Without statuses of its own, the policy's.
        let rule = RouteRetry::default();
        let rules = Rules::of(Some(&rule), None).expect("a rule");
        assert_eq!(decide(Some(&rules), &Method::GET, 2, status(503)), Verdict::Again);
    }

    #[test]
    fn backoff_doubles_up_to_its_bound() {
        let policy = Retry::default();
        let rules = Rules::of(None, Some(&policy)).expect("a policy");
        let waits: Vec<u128> = (2..8).map(|next| rules.backoff(next, 1.0).as_millis()).collect();
        assert_eq!(waits, [25, 50, 100, 200, 250, 250]);
        assert_eq!(rules.backoff(u32::MAX, 0.5).as_millis(), 125);
        assert_eq!(rules.backoff(u32::MAX, 0.0).as_millis(), 0);
    }

    proptest! {
        #[test]
        fn what_is_not_idempotent_is_repeated_only_where_that_is_said(
            method in proptest::sample::select(METHODS.to_vec()), ended in proptest::sample::select(ALL.to_vec()),
            non_idempotent in any::<bool>(), attempts in 1u32..10, attempt in 1u32..20, names in any::<[bool; 9]>(),
        ) {
            let mut on = Conditions::default();
            for (name, _) in Conditions::names().zip(names).filter(|(_, chosen)| *chosen) {
                assert!(on.add(name));
            }
            let policy = Retry { attempts, non_idempotent, on, ..Retry::default() };
            let rules = Rules::of(None, Some(&policy)).expect("a policy");
            let verdict = decide(Some(&rules), &method, attempt, ended);
            if verdict == Verdict::Again {
                prop_assert!(ended == Ended::Unprocessed || is_idempotent(&method) || non_idempotent);
                prop_assert!(attempt < (attempts + 1).max(UNPROCESSED_ATTEMPTS));
                prop_assert!(!matches!(ended, Ended::Status(StatusCode::OK) | Ended::Grpc(0) | Ended::Final));
            }
        }
    }
}
