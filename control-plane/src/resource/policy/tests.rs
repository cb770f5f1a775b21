//! Policies as people write them: what is refused, and what is taken.

use pillion_api::model;

use crate::resource::{Kind, schema};

#[test]
fn what_is_documented_as_the_default_is_what_sidecars_take() {
    // Every field by its name, so that a new one is missed here.
    let model::TrafficPolicy {
        source: _,
        load_balancer,
        breaker,
        connect_timeout,
        idle_timeout,
        max_requests,
        max_pending,
        max_connections,
        max_requests_per_connection,
        queue_timeout,
        request_timeout,
        rate_limits,
        concurrency,
        request_limits,
        faults,
        attempt_timeout,
        stream_idle_timeout,
        retry,
        hedge,
        fallback,
        health_check,
    } = model::TrafficPolicy::default();
    assert!(rate_limits.is_empty() && concurrency.is_none() && request_limits.is_none() && faults.is_empty());
    let model::Concurrency { adaptive, limit, max_queue, queue_timeout: wait, priority_header, clients } =
        model::Concurrency::default();
    assert!(priority_header.is_none() && clients.is_empty());
    let model::Adaptive { max_limit, window: adaptive_window, min_rtt_interval, min_rtt_requests, buffer } =
        adaptive.expect("it is adaptive");
    assert_eq!((request_timeout, attempt_timeout, stream_idle_timeout), (None, None, None));
    assert_eq!((&retry, &hedge), (&None, &None));
    let model::Retry {
        attempts,
        on: _,
        backoff,
        max_backoff,
        max_retry_after,
        non_idempotent,
        budget,
        max_body,
    } = retry.unwrap_or_default();
    let model::Hedge {
        after: _,
        percentile: _,
        attempts: hedges,
        non_idempotent: hedges_non_idempotent,
        budget: hedge_budget,
    } = hedge.unwrap_or_default();
    assert_eq!((max_connections, max_requests_per_connection), (None, None));
    assert_eq!((fallback, health_check), (None, None));
    let model::LoadBalancer { algorithm, decay, slow_start, locality } = load_balancer;
    assert_eq!((slow_start, &locality, algorithm.hashing()), (None, &None, None));
    let model::SlowStart { window: slow_start_window, minimum: slow_start_minimum } = Default::default();
    let model::Locality { overprovisioning } = Default::default();
    let model::RingSize { minimum: minimum_ring, maximum: maximum_ring } = Default::default();
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
        slow_calls,
        consecutive_connect_failures,
        max_ejected_share,
        failures,
    } = breaker.unwrap_or_default();
    assert_eq!((slow_calls, max_ejected_share), (None, None));
    assert_eq!(failures, model::FailureStatuses::default());
    let pace = model::Pace::default();
    let time = |duration| humantime::format_duration(duration).to_string();
    let percent = |share: f64| (share * 100.0).to_string();
    let table = [
        ("loadBalancer.type", algorithm.name().to_owned()),
        ("loadBalancer.decay", time(decay)),
        ("loadBalancer.boundedLoadPercent", "none".to_owned()),
        ("loadBalancer.ringHash.minimumSize", minimum_ring.to_string()),
        ("loadBalancer.ringHash.maximumSize", maximum_ring.to_string()),
        ("loadBalancer.maglev.tableSize", model::TABLE_SIZE.to_string()),
        ("loadBalancer.slowStart.window", time(slow_start_window)),
        ("loadBalancer.slowStart.minimumPercent", percent(slow_start_minimum)),
        ("loadBalancer.locality.mode", if locality.is_none() { "Off" } else { "PreferZone" }.to_owned()),
        ("loadBalancer.locality.overprovisioningPercent", percent(overprovisioning)),
        ("circuitBreaker.consecutiveFailures", consecutive_failures.to_string()),
        ("circuitBreaker.failureRatio.percent", percent(failure_ratio)),
        ("circuitBreaker.failureRatio.window", time(window)),
        ("circuitBreaker.failureRatio.minimumRequests", minimum_requests.to_string()),
        ("circuitBreaker.openTime.base", time(base_open)),
        ("circuitBreaker.openTime.max", time(max_open)),
        ("circuitBreaker.halfOpenRequests", half_open_requests.to_string()),
        ("circuitBreaker.panicPercent", percent(panic_share)),
        ("circuitBreaker.disabled", disabled.to_string()),
        ("circuitBreaker.slowCalls.percent", percent(model::SlowCalls::SHARE)),
        ("circuitBreaker.consecutiveConnectFailures", consecutive_connect_failures.to_string()),
        ("circuitBreaker.maxEjectedPercent", "all but one".to_owned()),
        ("circuitBreaker.failureStatuses.http", "500 to 599".to_owned()),
        ("circuitBreaker.failureStatuses.grpc", "2, 4, 13, 14, 15".to_owned()),
        ("connections.maxConnections", "none".to_owned()),
        ("connections.maxRequestsPerConnection", "none".to_owned()),
        ("connections.queueTimeout", time(queue_timeout)),
        ("fallback.on", model::FALLBACK_ON.map(|on| format!("{on:?}")).join(", ")),
        ("healthCheck.interval", time(pace.interval)),
        ("healthCheck.timeout", time(pace.timeout)),
        ("healthCheck.unhealthyThreshold", pace.unhealthy.to_string()),
        ("healthCheck.healthyThreshold", pace.healthy.to_string()),
        ("healthCheck.initialDelay", time(pace.initial_delay)),
        ("connections.connectTimeout", time(connect_timeout)),
        ("connections.idleTimeout", time(idle_timeout)),
        ("connections.maxRequests", max_requests.unwrap_or(model::MAX_REQUESTS).to_string()),
        ("connections.maxPending", max_pending.unwrap_or(model::MAX_PENDING).to_string()),
        ("timeouts.request", "none".to_owned()),
        ("concurrency.limit", limit.to_string()),
        ("concurrency.maxLimit", max_limit.to_string()),
        ("concurrency.adaptive.window", time(adaptive_window)),
        ("concurrency.adaptive.minRttInterval", time(min_rtt_interval)),
        ("concurrency.adaptive.minRttRequests", min_rtt_requests.to_string()),
        ("concurrency.adaptive.bufferPercent", percent(buffer)),
        ("concurrency.queue.maxRequests", max_queue.to_string()),
        ("concurrency.queue.timeout", time(wait)),
        ("concurrency.priority.header", "none".to_owned()),
        ("timeouts.attempt", "none".to_owned()),
        ("timeouts.idle", "none".to_owned()),
        ("retry.attempts", attempts.to_string()),
        ("retry.on", "gatewayError, reset, timeout, unavailable".to_owned()),
        ("retry.backoff.base", time(backoff)),
        ("retry.backoff.max", time(max_backoff)),
        ("retry.maxRetryAfter", time(max_retry_after)),
        ("retry.nonIdempotent", non_idempotent.to_string()),
        ("retry.budget.window", time(std::time::Duration::from_secs(budget.window.into()))),
        ("retry.maxBodyBytes", max_body.to_string()),
        ("hedge.attempts", hedges.to_string()),
        ("hedge.nonIdempotent", hedges_non_idempotent.to_string()),
    ];
    let spec = &schema::schema(Kind::TrafficPolicy)["properties"]["spec"];
    for (field, budget) in [("retry", budget), ("hedge", hedge_budget)] {
        let text = spec["properties"][field]["properties"]["budget"]["description"].as_str();
        let says = format!("{} percent, but at least {} per second", budget.percent, budget.min_per_second);
        assert!(text.is_some_and(|text| text.contains(&says)), "{field}: {text:?}, not {says}");
    }
    for (field, default) in table {
        let found = field.split('.').fold(spec, |object, name| &object["properties"][name]);
        let text = found["description"].as_str().unwrap_or_default();
        assert!(text.ends_with(&format!(" Default: {default}.")), "{field}: {text:?}, not {default}");
    }
}
