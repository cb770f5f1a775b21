//! What holds for all attempts of a request: until when, and what may follow one or go beside it.

use std::time::Duration;

use ::http::Request;
use pillion_api::{
    holds::Policies,
    model::{Hedge, RouteRule},
    retry::Rules,
};
use tokio::time::Instant;

use crate::{
    error::{Reason, Refusal},
    http::{Body, headers::ATTEMPT, replay},
    middleware::Timeout,
    telemetry::hops::Timeline,
};

/// How long a request may take.
#[derive(Clone, Copy)]
pub(in crate::outbound) struct Times {
    /// Until when, and which limit that is.
    pub(in crate::outbound) whole: Option<(Instant, Timeout)>,
    /// For each attempt.
    pub(in crate::outbound) each: Option<Duration>,
}

impl Times {
    /// Until when an attempt that begins now may take. The second: whether that is the end of the whole request.
    pub(super) fn of_an_attempt(self, now: Instant) -> Option<(Instant, bool)> {
        let whole = self.whole.map(|(at, _)| (at, true));
        let each = self.each.map(|each| (now + each, false));
        [whole, each].into_iter().flatten().min()
    }
}

/// What may follow an attempt, or go beside it.
#[derive(Clone, Copy)]
pub(in crate::outbound) struct Plan<'a> {
    pub(in crate::outbound) times: Times,
    pub(in crate::outbound) rules: Option<Rules<'a>>,
    pub(in crate::outbound) hedge: Option<&'a Hedge>,
    /// Where it is noted when what happens.
    pub(in crate::outbound) timeline: &'a Timeline,
    /// Whose words all that is. `None`: nobody's document.
    pub(in crate::outbound) by: Option<(Policies<'a>, Option<&'a RouteRule>)>,
}

impl<'a> Plan<'a> {
    pub(in crate::outbound) fn of(
        rule: Option<&'a RouteRule>,
        policies: Policies<'a>,
        request: &Request<Body>,
        whole: Option<(Instant, Timeout)>,
        timeline: &'a Timeline,
    ) -> Self {
        let times = Times { whole, each: policies.attempt_timeout(rule) };
        let (rules, hedge, by) = (policies.retry(rule), policies.hedge(), Some((policies, rule)));
        // Whoever makes a request for one that is an attempt after the first has it repeated there, not here, too.
        if (rules.is_some() || hedge.is_some()) && request.headers().contains_key(ATTEMPT) {
            return Self { times, rules: None, hedge: None, timeline, by };
        }
        Self { times, rules, hedge, timeline, by }
    }

    /// `workload` has not answered in time: the whole request's, or the attempt's.
    pub(super) fn late(&self, whole: bool, workload: &str) -> Refusal {
        let Timeout { after, reason } = match self.times {
            Times { whole: Some((_, timeout)), .. } if whole => timeout,
            Times { each, .. } => Timeout { after: each.unwrap_or_default(), reason: Reason::RequestTimeout },
        };
        // Else it is the caller's own will.
        let by = match self.by.filter(|_| reason == Reason::RequestTimeout) {
            None => String::new(),
            Some((policies, rule)) if whole => format!(", {}", policies.request_timeout_by(rule)),
            Some((policies, rule)) => format!(", {}", policies.attempt_timeout_by(rule)),
        };
        Refusal::new(reason, format_args!("{workload} has not answered within {after:?}{by}"))
    }

    /// The most of a request's body that is kept to be sent again, bytes.
    pub(in crate::outbound) fn kept(&self) -> usize {
        let most = self.rules.map_or(replay::USUAL, |rules| rules.policy().max_body);
        if self.hedge.is_some() { most.max(replay::USUAL) } else { most }
    }

    /// Whether there is nothing but to send again what was surely not processed.
    pub(super) fn is_plain(&self) -> bool {
        self.rules.is_none() && self.hedge.is_none()
    }
}
