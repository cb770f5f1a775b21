//! How a service's endpoints are balanced, broken and limited.

use std::time::Duration;

use super::{
    Concurrency, Faults, InjectedFault, LoadBalancer, RateLimit, RequestLimits, limits::request_limits,
    milliseconds, or,
};
use crate::wire;

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
    /// Requests under way to the whole service from one sidecar; more are refused.
    pub max_requests: u32,
    /// Requests waiting for an endpoint from one sidecar; more are refused.
    pub max_pending: u32,
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
}

impl Default for TrafficPolicy {
    fn default() -> Self {
        Self {
            source: String::new(),
            load_balancer: LoadBalancer::default(),
            breaker: Some(CircuitBreaker::default()),
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(60),
            max_requests: 1024,
            max_pending: 1024,
            request_timeout: None,
            rate_limits: Vec::new(),
            concurrency: None,
            request_limits: None,
            faults: Vec::new(),
        }
    }
}

/// When an endpoint is left alone, and how it is let back in.
#[derive(Debug, Clone, PartialEq)]
pub struct CircuitBreaker {
    /// Opens after as many failures in a row.
    pub consecutive_failures: u32,
    /// Opens when this share of the window's requests failed, 0 to 1.
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
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            consecutive_failures: 7,
            failure_ratio: 0.5,
            window: Duration::from_secs(10),
            minimum_requests: 10,
            base_open: Duration::from_secs(1),
            max_open: Duration::from_secs(60),
            half_open_requests: 1,
            panic_share: 0.5,
        }
    }
}

impl Faults {
    pub(super) fn policy(&mut self, policy: wire::TrafficPolicy) -> TrafficPolicy {
        let default = TrafficPolicy::default();
        let connections = policy.connections.unwrap_or_default();
        TrafficPolicy {
            source: policy.source,
            load_balancer: self.load_balancer(policy.load_balancer.unwrap_or_default()),
            breaker: self.breaker(policy.circuit_breaker.unwrap_or_default()),
            connect_timeout: milliseconds(connections.connect_timeout_ms).unwrap_or(default.connect_timeout),
            idle_timeout: milliseconds(connections.idle_timeout_ms).unwrap_or(default.idle_timeout),
            max_requests: or(connections.max_requests, default.max_requests),
            max_pending: or(connections.max_pending, default.max_pending),
            request_timeout: milliseconds(policy.request_timeout_ms),
            rate_limits: (policy.rate_limits.into_iter().enumerate())
                .map(|(i, limit)| self.rate_limit(&format!("policy.rate_limits[{i}]"), limit))
                .collect(),
            concurrency: policy.concurrency.map(|it| self.concurrency("policy.concurrency", it)),
            request_limits: policy.request_limits.map(request_limits),
            faults: (policy.faults.into_iter().enumerate())
                .map(|(i, fault)| self.injected(&format!("policy.faults[{i}]"), fault))
                .collect(),
        }
    }

    pub(super) fn breaker(&mut self, breaker: wire::CircuitBreaker) -> Option<CircuitBreaker> {
        let default = CircuitBreaker::default();
        let mut share = |field: &str, percent: Option<u32>, default: f64| match percent {
            None => default,
            Some(percent @ 0..=100) => f64::from(percent) / 100.0,
            Some(percent) => {
                self.say(&format!("policy.circuit_breaker.{field}"), format_args!("{percent} is above 100"));
                default
            }
        };
        let failure_percent = (breaker.failure_percent != 0).then_some(breaker.failure_percent);
        let checked = CircuitBreaker {
            consecutive_failures: or(breaker.consecutive_failures, default.consecutive_failures),
            failure_ratio: share("failure_percent", failure_percent, default.failure_ratio),
            window: milliseconds(breaker.window_ms).unwrap_or(default.window),
            minimum_requests: or(breaker.minimum_requests, default.minimum_requests),
            base_open: milliseconds(breaker.base_open_ms).unwrap_or(default.base_open),
            max_open: milliseconds(breaker.max_open_ms).unwrap_or(default.max_open),
            half_open_requests: or(breaker.half_open_requests, default.half_open_requests),
            panic_share: share("panic_percent", breaker.panic_percent, default.panic_share),
        };
        (!breaker.disabled).then_some(checked)
    }
}
