//! What sidecars are told of a service's `TrafficPolicy`.

use pillion_api::wire;

use crate::resource::{
    duration::wire_ms,
    policy::{HashOn, LoadBalancer, faults, rate, request_limits::RequestLimits},
    references::Policy,
};

pub(super) fn to_wire((key, policy): Policy<'_>, now_ms: i64) -> wire::TrafficPolicy {
    let (spec, namespace) = (&policy.spec, key.namespace.as_str());
    wire::TrafficPolicy {
        source: format!("{}/{}", key.namespace, key.name),
        load_balancer: spec.load_balancer.as_ref().map(load_balancer),
        circuit_breaker: spec.circuit_breaker.as_ref().map(|breaker| {
            let ratio = breaker.failure_ratio.clone().unwrap_or_default();
            let open = breaker.open_time.clone().unwrap_or_default();
            wire::CircuitBreaker {
                consecutive_failures: breaker.consecutive_failures.unwrap_or(0),
                failure_percent: ratio.percent.unwrap_or(0),
                window_ms: wire_ms(ratio.window.as_ref()),
                minimum_requests: ratio.minimum_requests.unwrap_or(0),
                base_open_ms: wire_ms(open.base.as_ref()),
                max_open_ms: wire_ms(open.max.as_ref()),
                half_open_requests: breaker.half_open_requests.unwrap_or(0),
                panic_percent: breaker.panic_percent,
                disabled: breaker.disabled.unwrap_or(false),
            }
        }),
        connections: spec.connections.as_ref().map(|connections| wire::Connections {
            connect_timeout_ms: wire_ms(connections.connect_timeout.as_ref()),
            idle_timeout_ms: wire_ms(connections.idle_timeout.as_ref()),
            max_requests: connections.max_requests.unwrap_or(0),
            max_pending: connections.max_pending.unwrap_or(0),
        }),
        rate_limits: rate::to_wire(spec.rate_limits.as_deref().unwrap_or_default(), namespace),
        concurrency: spec.concurrency.as_ref().map(|concurrency| concurrency.to_wire(namespace)),
        request_limits: spec.request_limits.as_ref().map(RequestLimits::to_wire),
        faults: faults::to_wire(spec.faults.as_deref().unwrap_or_default(), namespace, now_ms),
        request_timeout_ms: wire_ms(spec.timeouts.as_ref().and_then(|timeouts| timeouts.request.as_ref())),
    }
}

fn load_balancer(balancer: &LoadBalancer) -> wire::LoadBalancer {
    use wire::{load_balancer::Algorithm, locality::Mode};
    let algorithm = match balancer.r#type.as_deref() {
        Some("LeastRequest") => Algorithm::LeastRequest,
        Some("RoundRobin") => Algorithm::RoundRobin,
        Some("Random") => Algorithm::Random,
        Some("RingHash") => Algorithm::RingHash,
        Some("Maglev") => Algorithm::Maglev,
        _ => Algorithm::PeakEwma,
    };
    let ring = balancer.ring_hash.clone().unwrap_or_default();
    wire::LoadBalancer {
        algorithm: algorithm.into(),
        decay_ms: wire_ms(balancer.decay.as_ref()),
        hash_on: balancer.hash_on.iter().map(hash_on).collect(),
        bounded_load_percent: balancer.bounded_load_percent.unwrap_or(0),
        minimum_ring_size: ring.minimum_size.unwrap_or(0),
        maximum_ring_size: ring.maximum_size.unwrap_or(0),
        table_size: balancer.maglev.as_ref().and_then(|maglev| maglev.table_size).unwrap_or(0),
        slow_start: balancer.slow_start.as_ref().map(|slow_start| wire::SlowStart {
            window_ms: wire_ms(slow_start.window.as_ref()),
            minimum_percent: slow_start.minimum_percent.unwrap_or(0),
        }),
        locality: balancer.locality.as_ref().map(|locality| wire::Locality {
            mode: match locality.mode.as_deref() {
                Some("PreferZone") => Mode::PreferZone,
                _ => Mode::Off,
            }
            .into(),
            overprovisioning_percent: locality.overprovisioning_percent.unwrap_or(0),
        }),
    }
}

fn hash_on(key: &HashOn) -> wire::HashOn {
    use wire::hash_on::Kind;
    let kind = match key.r#type.as_str() {
        "Cookie" => Kind::Cookie,
        "QueryParameter" => Kind::QueryParameter,
        "Source" => Kind::Source,
        _ => Kind::Header,
    };
    wire::HashOn {
        kind: kind.into(),
        name: key.name.clone().unwrap_or_default(),
        ttl_ms: key.ttl.as_ref().map(|ttl| wire_ms(Some(ttl))),
    }
}
