//! Whether an attempt that failed is really followed by another: what the policy allows must be possible, too.

use std::time::{Duration, SystemTime};

use ::http::Request;
use pillion_api::{model::Budget, retry::Ended};
use rand::Rng;
use tokio::time::Instant;

use super::{
    Kind, Outgoing, Sending, Tried,
    pushback::{self, Pushback},
};
use crate::{http::Body, outbound::Outbound, telemetry::repeats::Repeat};

/// With less time left than this, nobody can answer.
const LEAST_LEFT: Duration = Duration::from_millis(1);

/// The next attempt.
pub(super) struct Next {
    /// `None`: the one that was not sent.
    pub(super) request: Option<Request<Body>>,
    /// Before it.
    pub(super) wait: Duration,
    /// What it is counted as.
    pub(super) why: Repeat,
}

impl Outbound {
    /// What follows a failed attempt. `None`: nothing.
    pub(super) fn again(
        &self,
        tried: &Tried,
        outgoing: &Outgoing,
        sending: &Sending<'_>,
        number: u32,
    ) -> Option<Next> {
        let refuse = |why| {
            tried.edge.repeat(why);
            None
        };
        let next = match &tried.unsent {
            Some(_) => None,
            None => match outgoing.next(number + 1) {
                Some(next) => Some(next),
                // Without a policy nobody has promised to keep bodies.
                None if sending.plan.is_plain() => return None,
                None => return refuse(Repeat::Body),
            },
        };
        let rules = sending.plan.rules.as_ref();
        // Another endpoint need not be spared for what this one has not even seen.
        let backoff = match (rules, tried.ended) {
            (_, Ended::Unprocessed) | (None, _) => Duration::ZERO,
            (Some(rules), _) => rules.backoff(number + 1, self.random.borrow_mut().random()),
        };
        let asked = match &tried.result {
            Ok(response) => pushback::of(response.headers(), response.body().trailers(), SystemTime::now),
            Err(_) => Pushback::None,
        };
        let wait = match asked {
            Pushback::None => backoff,
            Pushback::After(least) => {
                let most = rules.map_or(Duration::ZERO, |rules| rules.policy().max_retry_after);
                if least > most {
                    return refuse(Repeat::Pushback);
                }
                backoff.max(pushback::spread(least, self.random.borrow_mut().random()))
            }
            Pushback::Never => return refuse(Repeat::Pushback),
        };
        let now = Instant::now();
        if sending.plan.times.whole.is_some_and(|(end, _)| now + wait + LEAST_LEFT > end) {
            return refuse(Repeat::Deadline);
        }
        // Who could not be reached has no load from it.
        let reached = tried.result.is_ok() || tried.unsent.is_none();
        let budget = rules.map_or(&Budget::RETRY, |rules| rules.budget());
        if reached && !sending.to.backend.budgets.take(Kind::Retry, budget, now) {
            return refuse(Repeat::Budget);
        }
        let why = match tried.ended {
            Ended::Unprocessed | Ended::Final => Repeat::Unprocessed,
            Ended::Reset => Repeat::Reset,
            Ended::Timeout => Repeat::Timeout,
            Ended::Status(_) => Repeat::Status,
            Ended::Grpc(_) => Repeat::Grpc,
        };
        Some(Next { request: next, wait, why })
    }
}
