//! How a service's endpoints are balanced, broken and limited.

use std::time::Duration;

use super::{
    Concurrency, Fallback, Faults, HealthCheck, Hedge, InjectedFault, LoadBalancer, On, RateLimit,
    RequestLimits, Retry, limits::request_limits, milliseconds, or, some,
};
use crate::wire;

/// Requests under way to a service from one sidecar, where no policy says how many.
pub const MAX_REQUESTS: u32 = 1024;
/// Requests waiting for an endpoint, likewise.
pub const MAX_PENDING: u32 = 1024;

/// How a service's endpoints are balanced, broken and limited.
#[derive(Debug, Clone)]
pub struct TrafficPolicy {
    /// `<namespace>/<name>` of the `TrafficPolicy`; empty: all defaults.
    pub source: String,
    /// Which endpoint gets a request.
    pub load_balancer: LoadBalancer,
    /// `None`: switched off.
    pub breaker: Option<CircuitBreaker>,
    /// For TCP and TLS together.
    pub connect_timeout: Duration,
    /// After which an unused connection is closed.
    pub idle_timeout: Duration,
    /// Requests under way to the whole service from one sidecar; more are refused. `None`: [`MAX_REQUESTS`].
    pub max_requests: Option<u32>,
    /// Requests waiting for an endpoint from one sidecar; more are refused. `None`: [`MAX_PENDING`].
    pub max_pending: Option<u32>,
    /// Connections open to the whole service from one sidecar. `None`: no limit.
    pub max_connections: Option<u32>,
    /// A connection takes no more, and is closed after its last. `None`: no limit.
    pub max_requests_per_connection: Option<u32>,
    /// How long a request waits for an endpoint, or for a connection to be allowed.
    pub queue_timeout: Duration,
    /// For the whole request where no route says otherwise. `None`: no limit.
    pub request_timeout: Option<Duration>,
    /// Held by the service's own sidecars; all that are for a request.
    pub rate_limits: Vec<RateLimit>,
    /// Held by the service's own sidecars.
    pub concurrency: Option<Concurrency>,
    /// Held by the service's own sidecars.
    pub request_limits: Option<RequestLimits>,
    /// Made by callers' sidecars.
    pub faults: Vec<InjectedFault>,
    /// For each attempt, from its beginning to the head of its response, where no route says otherwise. `None`: no limit.
    pub attempt_timeout: Option<Duration>,
    /// Without a byte of the response's body, or of the request's, once the response has begun. `None`: no limit.
    pub stream_idle_timeout: Option<Duration>,
    /// `None`: only what was surely not processed is sent again.
    pub retry: Option<Retry>,
    /// `None`: never.
    pub hedge: Option<Hedge>,
    /// What answers where the service cannot. `None`: a refusal that says why.
    pub fallback: Option<std::sync::Arc<Fallback>>,
    /// For the sidecars of the service's own workloads.
    pub health_check: Option<Box<HealthCheck>>,
}

impl Default for TrafficPolicy {
    fn default() -> Self {
        Self {
            source: String::new(),
            load_balancer: LoadBalancer::default(),
            breaker: Some(CircuitBreaker::default()),
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(60),
            max_requests: None,
            max_pending: None,
            max_connections: None,
            max_requests_per_connection: None,
            queue_timeout: Duration::from_secs(1),
            request_timeout: None,
            rate_limits: Vec::new(),
            concurrency: None,
            request_limits: None,
            faults: Vec::new(),
            attempt_timeout: None,
            stream_idle_timeout: None,
            retry: None,
            hedge: None,
            fallback: None,
            health_check: None,
        }
    }
}

/// When an endpoint is left alone, and how it is let back in.
#[derive(Debug, Clone, PartialEq)]
pub struct CircuitBreaker {
    /// Opens after as many failures in a row.
    pub consecutive_failures: u32,
    /// Opens when this share of the window's requests failed, or of those of its latest part where enough have, 0 to 1.
    pub failure_ratio: f64,
    /// Over which the ratio is taken.
    pub window: Duration,
    /// Fewer requests in the window say nothing.
    pub minimum_requests: u32,
    /// How long it stays open the first time; doubles while it keeps failing.
    pub base_open: Duration,
    /// The most it stays open.
    pub max_open: Duration,
    /// Requests let through at a time to see whether it has recovered.
    pub half_open_requests: u32,
    /// With less than this share of endpoints available, 0 to 1, breakers are ignored.
    pub panic_share: f64,
    /// `None`: no call is too slow.
    pub slow_calls: Option<SlowCalls>,
    /// Opens after as many attempts in a row that did not get as far as the application.
    pub consecutive_connect_failures: u32,
    /// At most this share of the ready endpoints, but always one, are left alone at a time. `None`: all but one.
    pub max_ejected_share: Option<f64>,
    /// Which answers are failures.
    pub failures: FailureStatuses,
}

/// When calls are too slow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowCalls {
    /// An answer that takes as long to begin is slow.
    pub threshold: Duration,
    /// Opens when this share of the window's calls were slow, 0 to 1.
    pub share: f64,
}

impl SlowCalls {
    /// Where the policy does not say.
    pub const SHARE: f64 = 0.5;
}

/// The answers that are failures. Empty: the usual ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailureStatuses {
    /// Empty: 500 to 599.
    pub http: Vec<u16>,
    /// Empty: UNKNOWN (2), DEADLINE_EXCEEDED (4), INTERNAL (13), UNAVAILABLE (14) and DATA_LOSS (15).
    pub grpc: Vec<u8>,
}

impl FailureStatuses {
    /// Whether an HTTP status is one.
    pub fn has_http(&self, status: u16) -> bool {
        if self.http.is_empty() { (500..=599).contains(&status) } else { self.http.contains(&status) }
    }

    /// Whether a gRPC status is one. Codes that gRPC does not have are UNKNOWN.
    pub fn has_grpc(&self, code: u8) -> bool {
        let code = if code > 16 { 2 } else { code };
        if self.grpc.is_empty() { matches!(code, 2 | 4 | 13..=15) } else { self.grpc.contains(&code) }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            consecutive_failures: 7,
            failure_ratio: 0.3,
            window: Duration::from_secs(30),
            minimum_requests: 30,
            base_open: Duration::from_secs(1),
            max_open: Duration::from_secs(60),
            half_open_requests: 1,
            panic_share: 0.5,
            slow_calls: None,
            consecutive_connect_failures: 5,
            max_ejected_share: None,
            failures: FailureStatuses::default(),
        }
    }
}

impl Faults {
    pub(super) fn policy(&mut self, policy: wire::TrafficPolicy) -> TrafficPolicy {
        let default = TrafficPolicy::default();
        let connections = policy.connections.unwrap_or_default();
        let timeouts = policy.timeouts.unwrap_or_default();
        let fallback = policy.fallback.and_then(|fallback| self.fallback(fallback));
        let broken = fallback.as_ref().is_some_and(|fallback| fallback.on.contains(&On::BreakersOpen));
        TrafficPolicy {
            source: policy.source,
            load_balancer: self.load_balancer(policy.load_balancer.unwrap_or_default()),
            breaker: self.breaker(policy.circuit_breaker.unwrap_or_default(), broken),
            connect_timeout: milliseconds(connections.connect_timeout_ms).unwrap_or(default.connect_timeout),
            idle_timeout: milliseconds(connections.idle_timeout_ms).unwrap_or(default.idle_timeout),
            max_requests: some(connections.max_requests),
            max_pending: some(connections.max_pending),
            max_connections: some(connections.max_connections),
            max_requests_per_connection: some(connections.max_requests_per_connection),
            queue_timeout: milliseconds(connections.queue_timeout_ms).unwrap_or(default.queue_timeout),
            request_timeout: milliseconds(policy.request_timeout_ms),
            rate_limits: (policy.rate_limits.into_iter().enumerate())
                .map(|(i, limit)| self.rate_limit(&format!("policy.rate_limits[{i}]"), limit))
                .collect(),
            concurrency: policy.concurrency.map(|it| self.concurrency("policy.concurrency", it)),
            request_limits: policy.request_limits.map(request_limits),
            faults: (policy.faults.into_iter().enumerate())
                .map(|(i, fault)| self.injected(&format!("policy.faults[{i}]"), fault))
                .collect(),
            attempt_timeout: milliseconds(timeouts.attempt_ms),
            stream_idle_timeout: milliseconds(timeouts.stream_idle_ms),
            retry: policy.retry.map(|retry| self.retry(retry)),
            hedge: policy.hedge.map(|hedge| self.hedge(hedge)),
            fallback: fallback.map(std::sync::Arc::new),
            health_check: policy.health_check.and_then(|check| self.health_check(check)).map(Box::new),
        }
    }

    /// `fallback`: something takes over when all breakers are open, which is better than calls to what is broken.
    fn breaker(&mut self, breaker: wire::CircuitBreaker, fallback: bool) -> Option<CircuitBreaker> {
        let mut default = CircuitBreaker::default();
        if fallback {
            default.panic_share = 0.0;
            default.max_ejected_share = Some(1.0);
        }
        let failures = self.failure_statuses(&breaker);
        let mut share = |field: &str, percent: Option<u32>, default: f64| match percent {
            None => default,
            Some(percent @ 0..=100) => f64::from(percent) / 100.0,
            Some(percent) => {
                self.say(&format!("policy.circuit_breaker.{field}"), format_args!("{percent} is above 100"));
                default
            }
        };
        let ejected =
            some(breaker.max_ejected_percent).map(|percent| share("max_ejected_percent", Some(percent), 1.0));
        let slow = share("slow_percent", some(breaker.slow_percent), SlowCalls::SHARE);
        let slow_calls =
            milliseconds(breaker.slow_threshold_ms).map(|threshold| SlowCalls { threshold, share: slow });
        let failure_percent = some(breaker.failure_percent);
        let checked = CircuitBreaker {
            consecutive_failures: or(breaker.consecutive_failures, default.consecutive_failures),
            failure_ratio: share("failure_percent", failure_percent, default.failure_ratio),
            window: milliseconds(breaker.window_ms).unwrap_or(default.window),
            minimum_requests: or(breaker.minimum_requests, default.minimum_requests),
            base_open: milliseconds(breaker.base_open_ms).unwrap_or(default.base_open),
            max_open: milliseconds(breaker.max_open_ms).unwrap_or(default.max_open),
            half_open_requests: or(breaker.half_open_requests, default.half_open_requests),
            panic_share: share("panic_percent", breaker.panic_percent, default.panic_share),
            slow_calls,
            consecutive_connect_failures: or(
                breaker.consecutive_connect_failures,
                default.consecutive_connect_failures,
            ),
            max_ejected_share: ejected.or(default.max_ejected_share),
            failures,
        };
        (!breaker.disabled).then_some(checked)
    }

    fn failure_statuses(&mut self, breaker: &wire::CircuitBreaker) -> FailureStatuses {
        let mut numbers = |field: &str, numbers: &[u32], known: std::ops::RangeInclusive<u32>| {
            let mut checked = Vec::with_capacity(numbers.len());
            for number in numbers {
                if known.contains(number) {
                    checked.push(*number as u16);
                } else {
                    self.say(
                        &format!("policy.circuit_breaker.{field}"),
                        format_args!("{number} is no such status"),
                    );
                }
            }
            checked
        };
        FailureStatuses {
            http: numbers("failure_http_statuses", &breaker.failure_http_statuses, 100..=599),
            grpc: numbers("failure_grpc_statuses", &breaker.failure_grpc_statuses, 0..=16)
                .into_iter()
                .map(|code| code as u8)
                .collect(),
        }
    }
}
