//! When a request is sent again, or to two endpoints.

use pillion_api::model::{self, Conditions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MILLISECOND, MINUTE, SECOND, check_number};
use crate::resource::{
    duration,
    fault::{Faults, Path},
};

/// The most attempts after the first.
const ATTEMPTS: i64 = 10;
/// The most attempts beside the first.
const HEDGES: i64 = 3;
/// The largest body kept to be sent again, bytes.
const BODY: i64 = 1024 * 1024;

/// What was surely not processed is sent to another endpoint with or without this. Here: what else is sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Attempts after the first, 1 to 10. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// How an attempt must have failed: `5xx`, `gatewayError` (502, 503, 504), `reset` (the connection ended before the answer
    /// began), `timeout` (`timeouts.attempt` was over), or a gRPC code: `cancelled`, `deadlineExceeded`, `internal`,
    /// `resourceExhausted`, `unavailable`. An answer that has begun is never taken back. Default: gatewayError, reset, timeout, unavailable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<String>,
    /// HTTP statuses beside those, 400 to 599. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<u32>,
    /// How long to wait before another attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// The longest `Retry-After` (`grpc-retry-pushback-ms`) that is waited for; with a longer one the
    /// answer goes to the caller. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retry_after: Option<String>,
    /// Whether methods are repeated that are not idempotent, such as POST, and so all of gRPC: an application must expect to see
    /// a request twice. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub non_idempotent: Option<bool>,
    /// How many retries there may be, of each sidecar to the whole service: 20 percent, but at least 10 per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// A request is not repeated after more than this much of its body has been sent, bytes, at most 1048576. Default: 65536.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u32>,
}

/// Doubles from `base` with each attempt, up to `max`; where between zero and that is chance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// Before the first retry. Default: 25ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The most. Default: 250ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
}

/// Whichever of `percent` and `minPerSecond` allows more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// Of the requests, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// However few requests there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_per_second: Option<u32>,
    /// Over which both are taken, whole seconds, 1s to 1m; no second has more than its own part. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
}

/// A request that has no answer after a while is sent to a second endpoint as well; the first answer counts, and the other
/// attempt is cancelled. Needs `after`, `percentile` or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hedge {
    /// How long to wait for the first. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// As long as this percentage of the service's answers take, 50 to 99, once there have been enough of them. With `after`, whichever is
    /// later. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentile: Option<u32>,
    /// Attempts beside the first, 1 to 3. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// As in `retry`. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub non_idempotent: Option<bool>,
    /// How many hedges there may be, of each sidecar to the whole service: 10 percent, but at least 1 per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

impl Retry {
    pub(super) fn check(&self, faults: &mut Faults, at: &Path) {
        check_number(faults, &at.field("attempts"), self.attempts, 1, ATTEMPTS);
        let on = at.field("on");
        faults.check_length(&on, self.on.len(), 16);
        for (index, name) in self.on.iter().enumerate() {
            if !Conditions::default().add(name) {
                let known = Conditions::names().collect::<Vec<_>>().join(", ");
                faults.add(&on.index(index), format!("must be one of {known}, is {name:?}"));
            }
        }
        let codes = at.field("codes");
        faults.check_length(&codes, self.codes.len(), 64);
        for (index, code) in self.codes.iter().enumerate() {
            faults.check_range(&codes.index(index), (*code).into(), 400, 599);
        }
        if let Some(backoff) = &self.backoff {
            backoff.check(faults, &at.field("backoff"));
        }
        let longest = at.field("maxRetryAfter");
        duration::check(faults, &longest, self.max_retry_after.as_ref(), std::time::Duration::ZERO, MINUTE);
        if let Some(budget) = &self.budget {
            budget.check(faults, &at.field("budget"));
        }
        check_number(faults, &at.field("maxBodyBytes"), self.max_body_bytes, 0, BODY);
    }
}

impl Backoff {
    fn check(&self, faults: &mut Faults, at: &Path) {
        let default = model::Retry::default();
        let base = match &self.base {
            None => Some(default.backoff),
            base => duration::check(faults, &at.field("base"), base.as_ref(), MILLISECOND, MINUTE),
        };
        let max = match &self.max {
            None => Some(default.max_backoff),
            max => duration::check(faults, &at.field("max"), max.as_ref(), MILLISECOND, MINUTE),
        };
        if let (Some(base), Some(max)) = (base, max)
            && max < base
        {
            let [base, max] = [base, max].map(humantime::format_duration);
            faults.add(&at.field("max"), format!("must not be less than base: {max} is less than {base}"));
        }
    }
}

impl Budget {
    fn check(&self, faults: &mut Faults, at: &Path) {
        check_number(faults, &at.field("percent"), self.percent, 0, 100);
        check_number(faults, &at.field("minPerSecond"), self.min_per_second, 0, super::MANY);
        let window = duration::check(faults, &at.field("window"), self.window.as_ref(), SECOND, MINUTE);
        if window.is_some_and(|window| window.subsec_nanos() != 0) {
            faults.add(&at.field("window"), "must be whole seconds");
        }
    }
}

impl Hedge {
    pub(super) fn check(&self, faults: &mut Faults, at: &Path) {
        if self.after.is_none() && self.percentile.is_none() {
            faults.add(at, "needs after, percentile or both");
        }
        duration::check(faults, &at.field("after"), self.after.as_ref(), MILLISECOND, MINUTE);
        check_number(faults, &at.field("percentile"), self.percentile, 50, 99);
        check_number(faults, &at.field("attempts"), self.attempts, 1, HEDGES);
        if let Some(budget) = &self.budget {
            budget.check(faults, &at.field("budget"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_said() {
        let retry: Retry = serde_json::from_value(serde_json::json!({
            "attempts": 11, "on": ["5xx", "connectFailure"], "codes": [200], "backoff": { "base": "1s" },
            "maxRetryAfter": "2m", "budget": { "percent": 101, "window": "1500ms" }, "maxBodyBytes": 2_000_000,
        }))
        .expect("the types are right");
        let mut faults = Faults::default();
        retry.check(&mut faults, &Path::root());
        Hedge::default().check(&mut faults, &Path::root().field("hedge"));
        let faults: Vec<_> = faults.into_vec().iter().map(ToString::to_string).collect();
        for start in [
            "attempts: ",
            "on[1]: must be one of 5xx, gatewayError, ",
            "codes[0]: ",
            "backoff.max: must not be less than base: 250ms is less than 1s",
            "maxRetryAfter: ",
            "budget.percent: ",
            "budget.window: must be whole seconds",
            "maxBodyBytes: ",
            "hedge: needs after, percentile or both",
        ] {
            assert!(faults.iter().any(|fault| fault.starts_with(start)), "{start} in {faults:#?}");
        }
        assert_eq!(faults.len(), 9, "{faults:#?}");
    }
}
