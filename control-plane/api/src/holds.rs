//! Whose policy says what of a request that a route leads to another service than the one called. The same for a sidecar that
//! acts on it and a control plane that explains it.

use std::time::Duration;

use crate::{
    model::{Hedge, RouteRule, TrafficPolicy, timeout},
    retry::Rules,
};

/// Who has a say in a matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// The policy of the service called.
    Called,
    /// That of the service that serves the request; where it says nothing of the matter, that of the one called.
    ServingFirst,
    /// That of the service that serves the request.
    Serving,
    /// Both, one after the other.
    Both,
    /// Those of the services that the workload belongs to which serves the request; see [`own`](crate::own).
    Workload,
}

/// By the fields of a `TrafficPolicy`, as people write them; the first that a field is or is in decides.
pub const TABLE: [(&str, Say); 15] = [
    ("timeouts.request", Say::Called),
    ("timeouts.idle", Say::Called),
    ("timeouts.attempt", Say::ServingFirst),
    ("retry", Say::ServingFirst),
    ("hedge", Say::ServingFirst),
    ("connections.maxRequests", Say::Both),
    ("connections", Say::Serving),
    ("loadBalancer", Say::Serving),
    ("circuitBreaker", Say::Serving),
    // The one called has one more, for a limit of its own.
    ("fallback", Say::Serving),
    ("faults", Say::Both),
    ("healthCheck", Say::Workload),
    ("rateLimits", Say::Workload),
    ("concurrency", Say::Workload),
    ("requestLimits", Say::Workload),
];

/// The row of the table that is for a field of a policy, such as `circuitBreaker.openTime.base`. `None`: there is no such field.
pub fn say(field: &str) -> Option<(&'static str, Say)> {
    let is_in = |section: &str| {
        let rest = field.strip_prefix(section);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    TABLE.into_iter().find(|(section, _)| is_in(section))
}

/// Which of the two policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// That of the service called.
    Called,
    /// That of the service that serves the request.
    Serving,
}

/// The policies that hold for a request; often one and the same.
#[derive(Debug, Clone, Copy)]
pub struct Policies<'a> {
    /// Of the service called.
    pub called: &'a TrafficPolicy,
    /// Of the service that serves it.
    pub serving: &'a TrafficPolicy,
}

impl<'a> Policies<'a> {
    /// Whose holds, of a section that is [`Say::ServingFirst`]; where neither says anything, the defaults are the serving one's.
    pub fn side(self, section: &str) -> Side {
        let side = match section {
            "timeouts.attempt" => self.first(|policy| policy.attempt_timeout).map(|(side, _)| side),
            "retry" => self.first(|policy| policy.retry.as_ref()).map(|(side, _)| side),
            "hedge" => self.first(|policy| policy.hedge.as_ref()).map(|(side, _)| side),
            _ => None,
        };
        side.unwrap_or(Side::Serving)
    }

    fn first<T>(self, part: impl Fn(&'a TrafficPolicy) -> Option<T>) -> Option<(Side, T)> {
        let policies = [(Side::Serving, self.serving), (Side::Called, self.called)];
        policies.into_iter().find_map(|(side, policy)| Some((side, part(policy)?)))
    }

    /// For the whole request.
    pub fn request_timeout(self, rule: Option<&RouteRule>) -> Option<Duration> {
        timeout(rule.and_then(|rule| rule.request_timeout), self.called.request_timeout)
    }

    /// Whose word that is, for people.
    pub fn request_timeout_by(self, rule: Option<&RouteRule>) -> String {
        match rule.filter(|rule| rule.request_timeout.is_some()) {
            Some(rule) => format!("timeouts.request of HTTPRoute {}", rule.route),
            None => format!("timeouts.request of TrafficPolicy {}", self.called.source),
        }
    }

    /// Whose word [`attempt_timeout`](Self::attempt_timeout) is, for people.
    pub fn attempt_timeout_by(self, rule: Option<&RouteRule>) -> String {
        let by =
            match (rule.filter(|rule| rule.backend_request_timeout.is_some()), self.side("timeouts.attempt"))
            {
                (Some(rule), _) => return format!("timeouts.backendRequest of HTTPRoute {}", rule.route),
                (None, Side::Called) => self.called,
                (None, Side::Serving) => self.serving,
            };
        format!("timeouts.attempt of TrafficPolicy {}", by.source)
    }

    /// For each attempt.
    pub fn attempt_timeout(self, rule: Option<&RouteRule>) -> Option<Duration> {
        let policies = self.first(|policy| policy.attempt_timeout).map(|(_, each)| each);
        timeout(rule.and_then(|rule| rule.backend_request_timeout), policies)
    }

    /// What a request is sent again for. `None`: nothing asks for that.
    pub fn retry(self, rule: Option<&'a RouteRule>) -> Option<Rules<'a>> {
        let policy = self.first(|policy| policy.retry.as_ref()).map(|(_, retry)| retry);
        Rules::of(rule.and_then(|rule| rule.retry.as_ref()), policy)
    }

    /// When a request is sent to a second endpoint, too.
    pub fn hedge(self) -> Option<&'a Hedge> {
        self.first(|policy| policy.hedge.as_ref()).map(|(_, hedge)| hedge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Retry, RouteRetry};

    #[test]
    fn the_nearest_section_says_who_has_a_say() {
        for (field, expected) in [
            ("connections.maxRequests", Some(Say::Both)),
            ("connections.maxRequestsPerConnection", Some(Say::Serving)),
            ("circuitBreaker.openTime.base", Some(Say::Serving)),
            ("rateLimits[0].total.requests", Some(Say::Workload)),
            ("retry", Some(Say::ServingFirst)),
            ("retries", None),
        ] {
            assert_eq!(say(field).map(|(_, say)| say), expected, "{field}");
        }
    }

    #[test]
    fn the_serving_services_policy_goes_before_that_of_the_one_called() {
        let policy = |attempts: Option<u32>, attempt_s: Option<u64>| TrafficPolicy {
            retry: attempts.map(|attempts| Retry { attempts, ..Retry::default() }),
            attempt_timeout: attempt_s.map(Duration::from_secs),
            request_timeout: attempt_s.map(|seconds| Duration::from_secs(10 * seconds)),
            ..TrafficPolicy::default()
        };
        for (serving, called, attempts, each, whole) in [
            ((Some(5), Some(1)), (Some(7), Some(2)), Some(5), Some(1), Some(20)),
            ((None, None), (Some(7), Some(2)), Some(7), Some(2), Some(20)),
            ((Some(5), Some(1)), (None, None), Some(5), Some(1), None),
            ((None, None), (None, None), None, None, None),
        ] {
            let (serving, called) = (policy(serving.0, serving.1), policy(called.0, called.1));
            let policies = Policies { called: &called, serving: &serving };
            assert_eq!(policies.retry(None).map(|rules| rules.attempts()), attempts);
            assert_eq!(policies.attempt_timeout(None).map(|each| each.as_secs()), each);
            assert_eq!(policies.request_timeout(None).map(|whole| whole.as_secs()), whole);
        }
    }

    #[test]
    fn a_rules_own_words_go_before_all_policies() {
        let policy = TrafficPolicy {
            retry: Some(Retry { attempts: 5, ..Retry::default() }),
            attempt_timeout: Some(Duration::from_secs(1)),
            ..TrafficPolicy::default()
        };
        let wire = crate::wire::RouteRule::default();
        let config =
            crate::wire::ServiceConfig { service: "a.b".into(), routes: vec![wire], ..Default::default() };
        let mut service = crate::model::Service::try_from(config).expect("a valid service");
        let rule = &mut service.routes[0];
        rule.retry = Some(RouteRetry { attempts: Some(1), ..RouteRetry::default() });
        rule.backend_request_timeout = Some(Duration::ZERO);
        let policies = Policies { called: &policy, serving: &policy };
        assert_eq!(policies.retry(Some(rule)).map(|rules| rules.attempts()), Some(1));
        assert_eq!(policies.attempt_timeout(Some(rule)), None);
    }
}
