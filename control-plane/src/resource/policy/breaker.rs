//! When an endpoint that fails is left alone, and for how long.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DAY, HOUR, MANY, MILLISECOND, MINUTE, SECOND, check_number};
use crate::resource::{
    duration,
    fault::{Faults, Path},
};

/// Per endpoint: closed, then open, then half-open. A policy that changes keeps what is known of endpoints: a breaker that is open
/// stays so for the time that it had, and is judged by the new values from then on; only another `window` begins empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Opens after so many failures in a row. Default: 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<u32>,
    /// Opens when too large a part of a window's requests failed. As soon as 11 have, the latest part of the window is judged by
    /// itself as well, however short (but at least a thirtieth): what went well before does not hide what has begun since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_ratio: Option<FailureRatio>,
    /// How long it stays open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_time: Option<OpenTime>,
    /// Requests let through at a time to try an endpoint again. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_open_requests: Option<u32>,
    /// Opens when too large a part of the calls in the window of `failureRatio` were slow to answer, of at least its
    /// `minimumRequests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_calls: Option<SlowCalls>,
    /// Opens after so many attempts to connect (TCP, TLS, the peer's identity) that failed in a row: they may be the caller's
    /// fault, and are kept apart from what the endpoint answers. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_connect_failures: Option<u32>,
    /// Which answers count as failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_statuses: Option<FailureStatuses>,
    /// At most this percentage of the ready endpoints, but always one of several, is left alone at a time; a breaker that would
    /// open beyond that stays closed. Absent, it is all but one of several (and an only one, which `panicPercent` keeps in use);
    /// 100 where a `fallback` is for BreakersOpen. Default: all but one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ejected_percent: Option<u32>,
    /// When less than this percentage of endpoints is available, breakers are ignored; 0: never, also where a `fallback` is for
    /// BreakersOpen. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic_percent: Option<u32>,
    /// Leaves every endpoint in use, whatever it answers. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// A share of failures over a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureRatio {
    /// 1 to 100. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// The time looked at. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// With fewer requests in the window the ratio means nothing. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_requests: Option<u32>,
}

/// Calls whose answer takes too long to begin, judged as `failureRatio` is: over its `window` and the latest part of that, and not
/// before there have been its `minimumRequests`. They count as failed for the breaker only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlowCalls {
    /// From a try's beginning to the head of its answer.
    pub threshold: String,
    /// Of all calls, 1 to 100. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
}

/// The answers that count as failed, for the breaker. Resets and answers that never come always do; what the endpoint's own sidecar
/// refuses to spare its application never does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureStatuses {
    /// HTTP statuses. Default: 500 to 599.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Vec<u32>>,
    /// gRPC codes: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS. Default: 2, 4, 13, 14, 15.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<Vec<u32>>,
}

/// Doubles from `base` with each opening, up to `max`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenTime {
    /// The first time. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The longest time. Default: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
}

impl CircuitBreaker {
    pub(super) fn check(&self, faults: &mut Faults, at: &Path) {
        check_number(faults, &at.field("consecutiveFailures"), self.consecutive_failures, 1, MANY);
        check_number(faults, &at.field("halfOpenRequests"), self.half_open_requests, 1, MANY);
        check_number(faults, &at.field("panicPercent"), self.panic_percent, 0, 100);
        check_number(
            faults,
            &at.field("consecutiveConnectFailures"),
            self.consecutive_connect_failures,
            1,
            MANY,
        );
        check_number(faults, &at.field("maxEjectedPercent"), self.max_ejected_percent, 1, 100);
        if let Some(slow) = &self.slow_calls {
            let at = at.field("slowCalls");
            duration::check(faults, &at.field("threshold"), Some(&slow.threshold), MILLISECOND, HOUR);
            check_number(faults, &at.field("percent"), slow.percent, 1, 100);
        }
        if let Some(statuses) = &self.failure_statuses {
            let at = at.field("failureStatuses");
            let lists = [("http", &statuses.http, 100, 599), ("grpc", &statuses.grpc, 0, 16)];
            for (name, list, least, most) in lists {
                let (at, list) = (at.field(name), list.as_deref().unwrap_or_default());
                faults.check_length(&at, list.len(), 64);
                for (index, status) in list.iter().enumerate() {
                    faults.check_range(&at.index(index), (*status).into(), least, most);
                }
            }
        }
        if let Some(ratio) = &self.failure_ratio {
            let at = at.field("failureRatio");
            check_number(faults, &at.field("percent"), ratio.percent, 1, 100);
            check_number(faults, &at.field("minimumRequests"), ratio.minimum_requests, 1, MANY);
            duration::check(faults, &at.field("window"), ratio.window.as_ref(), SECOND, 10 * MINUTE);
        }
        if let Some(open) = &self.open_time {
            let at = at.field("openTime");
            // What is absent has its default, so one alone can be wrong too.
            let default = pillion_api::model::CircuitBreaker::default();
            let base = match &open.base {
                None => Some(default.base_open),
                base => duration::check(faults, &at.field("base"), base.as_ref(), MILLISECOND, HOUR),
            };
            let max = match &open.max {
                None => Some(default.max_open),
                max => duration::check(faults, &at.field("max"), max.as_ref(), MILLISECOND, DAY),
            };
            if let (Some(base), Some(max)) = (base, max)
                && max < base
            {
                let [base, max] = [base, max].map(humantime::format_duration);
                match (&open.base, &open.max) {
                    (_, None) => faults.add(
                        &at.field("base"),
                        format!("must not be longer than max, which is {max} by default"),
                    ),
                    (None, _) => faults.add(
                        &at.field("max"),
                        format!("must not be less than base, which is {base} by default"),
                    ),
                    _ => faults.add(&at.field("max"), "must not be less than base"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_end_of_the_open_time_is_held_against_the_others_default() {
        let faults = |base: Option<&str>, max: Option<&str>| {
            let open = OpenTime { base: base.map(Into::into), max: max.map(Into::into) };
            let breaker = CircuitBreaker { open_time: Some(open), ..CircuitBreaker::default() };
            let mut faults = Faults::default();
            breaker.check(&mut faults, &Path::root());
            faults.into_vec().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(faults(Some("30s"), None), [""; 0]);
        assert_eq!(
            faults(Some("2m"), None),
            ["openTime.base: must not be longer than max, which is 1m by default"]
        );
        assert_eq!(
            faults(None, Some("500ms")),
            ["openTime.max: must not be less than base, which is 1s by default"]
        );
    }
}
