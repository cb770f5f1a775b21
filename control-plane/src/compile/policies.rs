//! What sidecars are told of a service's `TrafficPolicy`.

use pillion_api::wire;

use crate::resource::{
    duration::{given_ms, wire_ms},
    policy::{
        Budget, Fallback, HashOn, HealthCheck, Hedge, LoadBalancer, Retry, faults, rate,
        request_limits::RequestLimits,
    },
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
            let statuses = breaker.failure_statuses.clone().unwrap_or_default();
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
                slow_threshold_ms: wire_ms(breaker.slow_calls.as_ref().map(|slow| &slow.threshold)),
                slow_percent: breaker.slow_calls.as_ref().and_then(|slow| slow.percent).unwrap_or(0),
                consecutive_connect_failures: breaker.consecutive_connect_failures.unwrap_or(0),
                max_ejected_percent: breaker.max_ejected_percent.unwrap_or(0),
                failure_http_statuses: statuses.http.unwrap_or_default(),
                failure_grpc_statuses: statuses.grpc.unwrap_or_default(),
            }
        }),
        connections: spec.connections.as_ref().map(|connections| wire::Connections {
            connect_timeout_ms: wire_ms(connections.connect_timeout.as_ref()),
            idle_timeout_ms: wire_ms(connections.idle_timeout.as_ref()),
            max_requests: connections.max_requests.unwrap_or(0),
            max_pending: connections.max_pending.unwrap_or(0),
            max_connections: connections.max_connections.unwrap_or(0),
            max_requests_per_connection: connections.max_requests_per_connection.unwrap_or(0),
            queue_timeout_ms: wire_ms(connections.queue_timeout.as_ref()),
        }),
        rate_limits: rate::to_wire(spec.rate_limits.as_deref().unwrap_or_default(), namespace),
        concurrency: spec.concurrency.as_ref().map(|concurrency| concurrency.to_wire(namespace)),
        request_limits: spec.request_limits.as_ref().map(RequestLimits::to_wire),
        faults: faults::to_wire(spec.faults.as_deref().unwrap_or_default(), namespace, now_ms),
        retry: spec.retry.as_ref().map(retry),
        hedge: spec.hedge.as_ref().map(hedge),
        timeouts: spec.timeouts.as_ref().map(|timeouts| wire::Timeouts {
            attempt_ms: wire_ms(timeouts.attempt.as_ref()),
            stream_idle_ms: wire_ms(timeouts.idle.as_ref()),
        }),
        request_timeout_ms: wire_ms(spec.timeouts.as_ref().and_then(|timeouts| timeouts.request.as_ref())),
        fallback: spec.fallback.as_ref().map(|fallback| to_fallback(fallback, &key.namespace)),
        health_check: spec.health_check.as_ref().map(health_check),
    }
}

fn to_fallback(fallback: &Fallback, namespace: &str) -> wire::Fallback {
    let backend = fallback.backend_ref.as_ref();
    wire::Fallback {
        on: fallback.on().map(Into::into).collect(),
        service: backend.map(|backend| format!("{}.{namespace}", backend.name)).unwrap_or_default(),
        port: backend.map_or(0, |backend| backend.port),
        response: fallback.response.as_ref().map(|response| wire::FixedResponse {
            status: response.status.unwrap_or(503),
            content_type: match &response.content_type {
                Some(content_type) => content_type.clone(),
                None if response.body.is_none() => String::new(),
                None => "text/plain; charset=utf-8".to_owned(),
            },
            body: response.body.clone().unwrap_or_default().into_bytes(),
            headers: (response.headers.iter().flatten())
                .map(|header| wire::Header { name: header.name.clone(), value: header.value.clone() })
                .collect(),
            grpc_status: response.grpc_status.unwrap_or(14),
            grpc_message: response.grpc_message.clone().unwrap_or_default(),
        }),
    }
}

fn health_check(check: &HealthCheck) -> wire::HealthCheck {
    let http = check.http.as_ref();
    let port = http.map(|http| http.port).or(check.grpc.as_ref().map(|grpc| grpc.port));
    let port = port.or(check.tcp.as_ref().map(|tcp| tcp.port));
    wire::HealthCheck {
        http: http.map(|http| wire::HttpCheck {
            path: http.path.clone(),
            host: http.host.clone().unwrap_or_default(),
            expected_statuses: http.expected_statuses.clone().unwrap_or_default(),
        }),
        grpc: (check.grpc.as_ref())
            .map(|grpc| wire::GrpcCheck { service: grpc.service.clone().unwrap_or_default() }),
        tcp: check.tcp.as_ref().map(|_| wire::TcpCheck {}),
        port: port.flatten().unwrap_or(0),
        interval_ms: wire_ms(check.interval.as_ref()),
        timeout_ms: wire_ms(check.timeout.as_ref()),
        unhealthy_threshold: check.unhealthy_threshold.unwrap_or(0),
        healthy_threshold: check.healthy_threshold.unwrap_or(0),
        initial_delay_ms: wire_ms(check.initial_delay.as_ref()),
    }
}

fn retry(retry: &Retry) -> wire::RetryPolicy {
    let backoff = retry.backoff.clone().unwrap_or_default();
    wire::RetryPolicy {
        attempts: retry.attempts.unwrap_or(0),
        on: retry.on.clone(),
        codes: retry.codes.clone(),
        backoff_base_ms: wire_ms(backoff.base.as_ref()),
        backoff_max_ms: wire_ms(backoff.max.as_ref()),
        max_retry_after_ms: given_ms(retry.max_retry_after.as_ref()),
        non_idempotent: retry.non_idempotent.unwrap_or(false),
        budget: retry.budget.as_ref().map(budget),
        max_body_bytes: retry.max_body_bytes,
    }
}

fn hedge(hedge: &Hedge) -> wire::HedgePolicy {
    wire::HedgePolicy {
        after_ms: wire_ms(hedge.after.as_ref()),
        percentile: hedge.percentile.unwrap_or(0),
        attempts: hedge.attempts.unwrap_or(0),
        non_idempotent: hedge.non_idempotent.unwrap_or(false),
        budget: hedge.budget.as_ref().map(budget),
    }
}

fn budget(budget: &Budget) -> wire::Budget {
    wire::Budget {
        percent: budget.percent,
        min_per_second: budget.min_per_second,
        window_s: wire_ms(budget.window.as_ref()) / 1000,
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
        ttl_ms: given_ms(key.ttl.as_ref()),
    }
}
