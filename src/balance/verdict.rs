//! What a request's outcome says about the endpoint that it went to. Pure.

use std::time::Duration;

use pillion_api::model::CircuitBreaker;

use crate::{error::Reason, telemetry::edge::Outcome};

/// What a request has shown of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Whether it was well.
    pub verdict: Verdict,
    /// Until the head of the answer, or until there was no more hope of one.
    pub took: Duration,
}

/// Whether an endpoint was well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answered as it should.
    Good,
    /// It answered what counts as a failure, or broke off, or did not answer in time.
    Failed,
    /// No connection was made: the fault may be on our own side.
    Unreached,
    /// It was not even tried: a limit of our own side.
    Untried,
}

impl Verdict {
    /// Of an outcome, by a breaker's rules (the usual ones where there is no breaker).
    pub fn of(outcome: Outcome, breaker: Option<&CircuitBreaker>) -> Self {
        let failed = match (outcome, breaker) {
            (Outcome::Status(status), Some(breaker)) => breaker.failures.has_http(status.as_u16()),
            (Outcome::Grpc(code), Some(breaker)) => breaker.failures.has_grpc(code),
            (Outcome::Refused(reason), _) if is_unreached(reason) => return Self::Unreached,
            (Outcome::Refused(Reason::ConnectionLimit | Reason::QueueFull), _) => return Self::Untried,
            _ => outcome.is_failure(),
        };
        if failed { Self::Failed } else { Self::Good }
    }
}

/// Whether a request did not get as far as to a peer that proved to be the right one.
fn is_unreached(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Connect
            | Reason::ConnectTimeout
            | Reason::TlsHandshake
            | Reason::PeerIdentity
            | Reason::NoAddress
            | Reason::NotProcessed
    )
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use pillion_api::model::FailureStatuses;

    use super::*;

    #[test]
    fn outcomes_are_judged_by_the_policy() {
        use Verdict::{Failed, Good, Unreached, Untried};
        let usual = CircuitBreaker::default();
        let failures = FailureStatuses { http: vec![429, 503], grpc: vec![8] };
        let own = CircuitBreaker { failures, ..usual.clone() };
        let status = |code| Outcome::Status(StatusCode::from_u16(code).expect("a status"));
        for (outcome, by_usual, by_own) in [
            (status(200), Good, Good),
            (status(404), Good, Good),
            (status(429), Good, Failed),
            (status(500), Failed, Good),
            (status(503), Failed, Failed),
            (Outcome::Grpc(0), Good, Good),
            (Outcome::Grpc(2), Failed, Good),
            (Outcome::Grpc(4), Failed, Good),
            (Outcome::Grpc(5), Good, Good),
            (Outcome::Grpc(8), Good, Failed),
            (Outcome::Grpc(13), Failed, Good),
            (Outcome::Grpc(14), Failed, Good),
            (Outcome::Grpc(15), Failed, Good),
            (Outcome::Grpc(99), Failed, Good),
            (Outcome::Refused(Reason::Reset), Failed, Failed),
            (Outcome::Refused(Reason::RequestTimeout), Failed, Failed),
            (Outcome::Refused(Reason::PeerProtocol), Failed, Failed),
            (Outcome::Refused(Reason::Connect), Unreached, Unreached),
            (Outcome::Refused(Reason::ConnectTimeout), Unreached, Unreached),
            (Outcome::Refused(Reason::PeerIdentity), Unreached, Unreached),
            (Outcome::Refused(Reason::HeadersTooLarge), Good, Good),
            (Outcome::Refused(Reason::ConnectionLimit), Untried, Untried),
        ] {
            assert_eq!(Verdict::of(outcome, Some(&usual)), by_usual, "{outcome:?}");
            assert_eq!(Verdict::of(outcome, Some(&own)), by_own, "{outcome:?} by own rules");
        }
    }
}
