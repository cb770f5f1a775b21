//! `TrafficPolicy` (`pillion.dev/v1alpha1`): how calls to a service are balanced, limited, and kept from what fails.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Key, Kind, duration,
    fault::{Faults, Path},
    metadata,
};

/// Everything but `targetRefs` is optional; what is absent has the mesh's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicySpec {
    /// The services of the same namespace that it is for (Gateway API policy attachment, GEP-713).
    pub target_refs: Vec<TargetReference>,
    /// Which of the service's endpoints gets a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// When an endpoint that fails is left alone, and for how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Limits of each sidecar towards the whole service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    /// How long a call may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}

/// A service that a policy is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetReference {
    /// Empty: Kubernetes' core group, where `Service` is; `pillion.dev` for `ExternalService`.
    pub group: String,
    /// `Service` or `ExternalService`.
    pub kind: String,
    /// The service's name.
    pub name: String,
}

/// Peak-EWMA: the less loaded of two endpoints picked at random.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// `PeakEwma`. Default: PeakEwma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Time constant of the latency average. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay: Option<String>,
}

/// Per endpoint: closed, then open, then half-open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Opens after so many failures in a row. Default: 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<u32>,
    /// Opens when too large a part of a window's requests failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_ratio: Option<FailureRatio>,
    /// How long it stays open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_time: Option<OpenTime>,
    /// Requests let through at a time to try an endpoint again. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_open_requests: Option<u32>,
    /// When less than this percentage of endpoints is available, breakers are ignored; 0: never. Default: 50.
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
    /// 1 to 100. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// The time looked at. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// With fewer requests in the window the ratio means nothing. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_requests: Option<u32>,
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

/// Of each sidecar, to the whole service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connections {
    /// For TCP and TLS together. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<String>,
    /// How long an unused connection is kept. Default: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// Requests under way. Default: 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// Requests waiting for a connection or an endpoint. Default: 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pending: Option<u32>,
}

/// How long a call may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// The whole request, all tries of it, where no route says otherwise. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MANY: i64 = 1_000_000;

impl TrafficPolicySpec {
    pub(super) fn check(&self, faults: &mut Faults) {
        let at = Path::root().field("spec");
        let targets = at.field("targetRefs");
        if self.target_refs.is_empty() {
            faults.add(&targets, "must name at least one Service or ExternalService");
        }
        faults.check_length(&targets, self.target_refs.len(), 16);
        for (index, target) in self.target_refs.iter().enumerate() {
            target.check(faults, &targets.index(index));
            if self.target_refs[..index].contains(target) {
                faults.add(
                    &targets.index(index).field("name"),
                    format!("{:?} is in the list already", target.name),
                );
            }
        }
        if let Some(balancer) = &self.load_balancer {
            balancer.check(faults, &at.field("loadBalancer"));
        }
        if let Some(breaker) = &self.circuit_breaker {
            breaker.check(faults, &at.field("circuitBreaker"));
        }
        if let Some(connections) = &self.connections {
            connections.check(faults, &at.field("connections"));
        }
        if let Some(timeouts) = &self.timeouts {
            let at = at.field("timeouts").field("request");
            duration::check(faults, &at, timeouts.request.as_ref(), MILLISECOND, DAY);
        }
    }
}

/// The kinds that a policy can be for.
const TARGETS: [Kind; 2] = [Kind::Service, Kind::ExternalService];

impl TargetReference {
    /// The kind that it is for; `None`: one that no policy can be for.
    fn target(&self) -> Option<Kind> {
        TARGETS.into_iter().find(|kind| kind.name() == self.kind)
    }

    /// The document that it names in the policy's namespace.
    pub fn key(&self, namespace: &str) -> Key {
        Key::new(self.target().unwrap_or(Kind::Service), namespace, self.name.as_str())
    }

    fn check(&self, faults: &mut Faults, at: &Path) {
        match self.target() {
            None => {
                let kinds = TARGETS.map(|kind| format!("{:?}", kind.name())).join(" or ");
                faults.add(&at.field("kind"), format!("must be {kinds}, is {:?}", self.kind));
                if !TARGETS.iter().any(|kind| self.group == kind.group()) {
                    let groups =
                        TARGETS.map(|kind| format!("{:?}, the group of {kind}", kind.group())).join(", or ");
                    faults.add(&at.field("group"), format!("must be {groups}, is {:?}", self.group));
                }
            }
            Some(kind) if self.group != kind.group() => {
                let group = kind.group();
                faults.add(
                    &at.field("group"),
                    format!("must be {group:?}, the group of {kind}, is {:?}", self.group),
                );
            }
            Some(_) => {}
        }
        if let Err(message) = metadata::service_name(&self.name) {
            faults.add(&at.field("name"), message);
        }
    }
}

impl LoadBalancer {
    fn check(&self, faults: &mut Faults, at: &Path) {
        if let Some(other) = self.r#type.as_deref().filter(|it| *it != "PeakEwma") {
            faults.add(&at.field("type"), format!("must be \"PeakEwma\", is {other:?}"));
        }
        duration::check(faults, &at.field("decay"), self.decay.as_ref(), 10 * MILLISECOND, HOUR);
    }
}

impl CircuitBreaker {
    fn check(&self, faults: &mut Faults, at: &Path) {
        check_number(faults, &at.field("consecutiveFailures"), self.consecutive_failures, 1, MANY);
        check_number(faults, &at.field("halfOpenRequests"), self.half_open_requests, 1, MANY);
        check_number(faults, &at.field("panicPercent"), self.panic_percent, 0, 100);
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

impl Connections {
    fn check(&self, faults: &mut Faults, at: &Path) {
        duration::check(
            faults,
            &at.field("connectTimeout"),
            self.connect_timeout.as_ref(),
            MILLISECOND,
            MINUTE,
        );
        duration::check(faults, &at.field("idleTimeout"), self.idle_timeout.as_ref(), SECOND, DAY);
        check_number(faults, &at.field("maxRequests"), self.max_requests, 1, MANY);
        check_number(faults, &at.field("maxPending"), self.max_pending, 1, MANY);
    }
}

fn check_number(faults: &mut Faults, at: &Path, number: Option<u32>, minimum: i64, maximum: i64) {
    if let Some(number) = number {
        faults.check_range(at, number.into(), minimum, maximum);
    }
}

#[cfg(test)]
mod tests {
    use pillion_api::model;

    use super::*;
    use crate::resource::{Kind, schema};

    #[test]
    fn what_is_documented_as_the_default_is_what_sidecars_take() {
        // Every field by its name, so that a new one is missed here.
        let model::TrafficPolicy {
            source: _,
            decay,
            breaker,
            connect_timeout,
            idle_timeout,
            max_requests,
            max_pending,
            request_timeout,
        } = model::TrafficPolicy::default();
        assert_eq!(request_timeout, None);
        let disabled = breaker.is_none();
        let model::CircuitBreaker {
            consecutive_failures,
            failure_ratio,
            window,
            minimum_requests,
            base_open,
            max_open,
            half_open_requests,
            panic_share,
        } = breaker.unwrap_or_default();
        let time = |duration| humantime::format_duration(duration).to_string();
        let percent = |share: f64| (share * 100.0).to_string();
        let table = [
            ("loadBalancer.type", "PeakEwma".to_owned()),
            ("loadBalancer.decay", time(decay)),
            ("circuitBreaker.consecutiveFailures", consecutive_failures.to_string()),
            ("circuitBreaker.failureRatio.percent", percent(failure_ratio)),
            ("circuitBreaker.failureRatio.window", time(window)),
            ("circuitBreaker.failureRatio.minimumRequests", minimum_requests.to_string()),
            ("circuitBreaker.openTime.base", time(base_open)),
            ("circuitBreaker.openTime.max", time(max_open)),
            ("circuitBreaker.halfOpenRequests", half_open_requests.to_string()),
            ("circuitBreaker.panicPercent", percent(panic_share)),
            ("circuitBreaker.disabled", disabled.to_string()),
            ("connections.connectTimeout", time(connect_timeout)),
            ("connections.idleTimeout", time(idle_timeout)),
            ("connections.maxRequests", max_requests.to_string()),
            ("connections.maxPending", max_pending.to_string()),
            ("timeouts.request", "none".to_owned()),
        ];
        let spec = &schema::schema(Kind::TrafficPolicy)["properties"]["spec"];
        for (field, default) in table {
            let found = field.split('.').fold(spec, |object, name| &object["properties"][name]);
            let text = found["description"].as_str().unwrap_or_default();
            assert!(text.ends_with(&format!(" Default: {default}.")), "{field}: {text:?}, not {default}");
        }
    }

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
