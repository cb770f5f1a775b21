//! `TrafficPolicy` (`pillion.dev/v1alpha1`): how calls to a service are balanced, limited, and kept from what fails.

mod balancer;
mod breaker;
pub mod concurrency;
mod fallback;
pub mod faults;
mod health;
pub mod matching;
pub mod rate;
pub mod request_limits;
mod retry;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    balancer::{HashOn, LoadBalancer, Locality, Maglev, RingHash, SlowStart},
    breaker::{CircuitBreaker, FailureRatio, FailureStatuses, OpenTime, SlowCalls},
    fallback::{Fallback, FallbackBackend, FixedResponse, ON, ResponseHeader},
    health::{GrpcProbe, HealthCheck, HttpProbe, TcpProbe},
    retry::{Backoff, Budget, Hedge, Retry},
};
use self::{concurrency::Concurrency, faults::Fault, rate::RateLimit, request_limits::RequestLimits};
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
    /// Which of the service's endpoints gets a request. Each worker of a sidecar balances by itself: turns, loads, breakers and slow
    /// start are its own.
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
    /// How many requests a workload takes in a time; all that are for a request must let it pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limits: Option<Vec<RateLimit>>,
    /// How many requests a workload works on at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// How large a request may be, and how many connections a client may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_limits: Option<RequestLimits>,
    /// Faults that callers are made to see, for a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<Vec<Fault>>,
    /// What is sent again beside what was surely not processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// When a request is sent to a second endpoint, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
    /// What takes over where the service cannot serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// How the sidecars of the service's own workloads ask their applications whether they are well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
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

/// Of each sidecar, over all of its workers, to the whole service. Workers do not share connections.
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
    /// Open, of HTTP and TCP together; a request that needs one more waits for one to end, for at most `queueTimeout`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// After so many an HTTP connection takes no more, and ends with its last answer. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests_per_connection: Option<u32>,
    /// How long each request waits for a first ready endpoint, or for a connection to be allowed. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<String>,
}

/// How long a call may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// The whole request, all tries of it, where no route says otherwise. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Each attempt, until its response begins, where no route says otherwise. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
    /// Without a byte of the response's body, or of the request's, once the response has begun. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<String>,
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
            let at = at.field("timeouts");
            for (name, text) in
                [("request", &timeouts.request), ("attempt", &timeouts.attempt), ("idle", &timeouts.idle)]
            {
                duration::check(faults, &at.field(name), text.as_ref(), MILLISECOND, DAY);
            }
        }
        if let Some(retry) = &self.retry {
            retry.check(faults, &at.field("retry"));
        }
        if let Some(hedge) = &self.hedge {
            hedge.check(faults, &at.field("hedge"));
        }
        rate::check(self.rate_limits.as_deref().unwrap_or_default(), faults, &at.field("rateLimits"));
        if let Some(concurrency) = &self.concurrency {
            concurrency.check(faults, &at.field("concurrency"));
        }
        if let Some(limits) = &self.request_limits {
            limits.check(faults, &at.field("requestLimits"));
        }
        faults::check(self.faults.as_deref().unwrap_or_default(), faults, &at.field("faults"));
        let outside = self.target_refs.iter().any(|target| target.target() == Some(Kind::ExternalService));
        let held_by_callee = [
            ("rateLimits", self.rate_limits.is_some()),
            ("concurrency", self.concurrency.is_some()),
            ("requestLimits", self.request_limits.is_some()),
        ];
        for (field, _) in held_by_callee.iter().filter(|(_, given)| outside && *given) {
            let why = "is held by the service's own sidecars, and an ExternalService has none";
            faults.add(&at.field(field), why);
        }
        if let Some(fallback) = &self.fallback {
            let at = at.field("fallback");
            fallback.check(faults, &at);
            for target in &self.target_refs {
                let backend = fallback.backend_ref.as_ref().filter(|backend| backend.name == target.name);
                if let Some(backend) = backend.filter(|_| target.kind == "Service") {
                    faults.add(
                        &at.field("backendRef").field("name"),
                        format!("must not be a target of the policy itself, is {:?}", backend.name),
                    );
                }
            }
        }
        if let Some(check) = &self.health_check {
            let at = at.field("healthCheck");
            check.check(faults, &at);
            if self.target_refs.iter().any(|target| target.kind == Kind::ExternalService.name()) {
                faults.add(&at, "is for workloads of the mesh; an ExternalService has none");
            }
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
        check_number(faults, &at.field("maxConnections"), self.max_connections, 1, MANY);
        check_number(
            faults,
            &at.field("maxRequestsPerConnection"),
            self.max_requests_per_connection,
            1,
            i64::from(u32::MAX),
        );
        duration::check(faults, &at.field("queueTimeout"), self.queue_timeout.as_ref(), MILLISECOND, HOUR);
    }
}

fn check_number(faults: &mut Faults, at: &Path, number: Option<u32>, minimum: i64, maximum: i64) {
    if let Some(number) = number {
        faults.check_range(at, number.into(), minimum, maximum);
    }
}

#[cfg(test)]
mod tests;
