//! Every metric, once: its name, what it means, its labels.

pub use pillion_api::metric::Kind;

pillion_api::metrics! {
    /// The metrics of a sidecar.
    pub enum Metric;

    Requests = "pillion_requests_total", Counter, ["direction", "source", "target", "backend", "workload", "status"], "Requests by how they ended: 1xx to 5xx, grpc-<code>, refused (by this sidecar), cancelled (by the caller).";
    Failures = "pillion_request_failures_total", Counter, ["direction", "source", "target", "backend", "workload"], "Requests that count as failed: 5xx, gRPC codes that blame the server, refusals that do.";
    Duration = "pillion_request_duration_seconds", Histogram, ["direction", "source", "target", "backend"], "From a request's head to the last byte of its response.";
    HopDuration = "pillion_hop_duration_seconds", Histogram, ["direction", "source", "target", "backend", "segment"], "Where a request's time went: caller (waiting for its request's body, or to take the response), client-sidecar (waiting for a connection included), retries, network, server-sidecar, application (until it began to answer), application-body (until its end), upstream (beyond the caller's sidecar, where nobody tells it apart). The segments of a request add up to its duration; the callee's sidecar knows its own part.";
    Refusals = "pillion_refusals_total", Counter, ["direction", "source", "target", "reason"], "Requests and connections that this sidecar refused, by reason.";
    InFlight = "pillion_requests_in_flight", Gauge, ["direction", "target"], "Requests under way.";
    Malformed = "pillion_malformed_requests_total", Counter, ["direction", "reason"], "Messages refused by the codec before they became requests.";
    ConnectionsOpen = "pillion_connections_open", Gauge, ["direction"], "Connections accepted and still open.";
    ServiceConnections = "pillion_service_connections", Gauge, ["target"], "Connections to a service's endpoints that are open: what its connections.maxConnections bounds.";
    ServicePending = "pillion_service_pending_requests", Gauge, ["target"], "Requests to a service that wait for a connection, or for an endpoint: what its connections.maxPending bounds.";
    OpaqueConnections = "pillion_opaque_connections_total", Counter, ["direction", "source", "target", "backend", "workload"], "Connections carried as bytes.";
    OpaqueBytes = "pillion_opaque_bytes_total", Counter, ["direction", "source", "target", "flow"], "Bytes of opaque connections, from the caller (sent) and to it (received).";
    Detections = "pillion_protocol_detections_total", Counter, ["direction", "outcome"], "What connections were found to carry: http1, http2, tls (the application's own), opaque, server-first (opaque, the server spoke first), undecided (in time), nothing (ended without a byte).";
    DetectionTime = "pillion_protocol_detection_duration_seconds", Histogram, ["direction", "outcome"], "From a connection's beginning until it was told what it carries, its client's silence included.";
    Handshakes = "pillion_tls_handshakes_total", Counter, ["side", "result"], "TLS handshakes: full, resumed, or why they failed.";
    Retries = "pillion_retries_total", Counter, ["source", "target", "backend", "reason"], "Attempts beyond a request's first, by what the attempt before came to: not-processed, reset, timeout, status, grpc-status.";
    RetriesRefused = "pillion_retries_refused_total", Counter, ["source", "target", "backend", "reason"], "Attempts that were not made although the one before had failed: budget (spent), body (no longer kept), deadline (too near), attempts (enough), retry-after (longer than the policy grants).";
    Recovered = "pillion_retries_recovered_total", Counter, ["source", "target", "backend"], "Requests that ended well, and not by their first attempt.";
    Hedges = "pillion_hedges_total", Counter, ["source", "target", "backend", "outcome"], "Requests that were slow enough for a second endpoint, by what came of it: won (its answer was taken), lost, budget (spent: none sent), no-other-endpoint (none sent).";
    RetryBudget = "pillion_retry_budget_left", Gauge, ["target", "kind"], "Attempts that the budget would allow at this moment: kind retry or hedge.";
    BreakerState = "pillion_breaker_state", Gauge, ["target", "workload"], "Circuit breaker of an endpoint: 0 closed, 1 open, 2 half-open; the worst of the workers.";
    BreakerOpened = "pillion_breaker_opened_total", Counter, ["target", "workload"], "Times that an endpoint's circuit breaker opened.";
    Fallbacks = "pillion_fallbacks_total", Counter, ["target", "reason", "to", "result"], "Requests and connections that a fallback took over: why, what (a service, or the fixed response), and whether it did (served) or could not either (failed).";
    PanicPicks = "pillion_balancer_panic_picks_total", Counter, ["target"], "Endpoints chosen whatever their breakers say, because too many of them are open.";
    BreakersSpared = "pillion_breaker_spared_total", Counter, ["target"], "Times that a breaker would have opened, but as many endpoints were left alone already as the policy allows.";
    Picks = "pillion_balancer_picks_total", Counter, ["target", "by", "zone"], "Endpoints chosen for a try of a request, or for a connection: by which algorithm, by its session, or by the address that the caller named; of the caller's own zone, an other one, or where one of both is unknown.";
    RouteRequests = "pillion_route_requests_total", Counter, ["target", "route", "rule"], "Requests by the rule that they took: the route's namespace and name, the rule's name or else its place.";
    Mirrored = "pillion_mirrored_requests_total", Counter, ["target", "outcome"], "Copies of requests by what became of them: answered, failed (by 5xx), refused (nobody to send it to), timeout, truncated (the mirror did not keep up with the body, or the caller broke off), overloaded (too many under way).";
    Endpoints = "pillion_endpoints", Gauge, ["target", "state"], "Endpoints of a service in use here: ready, unready, or with an open breaker.";
    RateLimitRequests = "pillion_rate_limit_requests_total", Counter, ["service", "limit", "client", "result"], "Requests that a rate limit of this workload was for, by client and result: admitted or limited.";
    ConcurrencyLimit = "pillion_concurrency_limit", Gauge, ["service", "port"], "Requests that this workload may work on at a time, by policy.";
    ConcurrencyInFlight = "pillion_concurrency_in_flight", Gauge, ["service", "port"], "Requests that it works on.";
    ConcurrencyQueued = "pillion_concurrency_queued", Gauge, ["service", "port"], "Requests that wait for others to end.";
    ConcurrencyMinRtt = "pillion_concurrency_min_rtt_seconds", Gauge, ["service", "port"], "The best latency, against which an adaptive limit is held.";
    ConcurrencyShed = "pillion_concurrency_shed_total", Counter, ["service", "port", "priority"], "Requests refused as more than the workload can work on, by priority.";
    FaultsInjected = "pillion_faults_injected_total", Counter, ["target", "fault", "kind"], "Requests that were made to see a fault: delay or abort.";
    AccessLogLines = "pillion_access_log_lines_total", Counter, ["result"], "Lines of the access log by what became of them: written, or dropped because the log was not taken in time.";
    SpansExported = "pillion_trace_spans_exported_total", Counter, [], "Spans that the receiver of traces has taken.";
    SpansDropped = "pillion_trace_spans_dropped_total", Counter, [], "Spans left out because as many were waiting to be sent as may.";
    SpansFailed = "pillion_trace_spans_failed_total", Counter, ["reason"], "Spans given up: refused by the receiver, or unavailable (not taken within half a minute, or until the process ended).";
    CertificateExpiry = "pillion_certificate_expiry_timestamp_seconds", Gauge, [], "When this workload's certificate ends, seconds since the Unix epoch.";
    CertificateRenewals = "pillion_certificate_renewals_total", Counter, ["result"], "Renewals of this workload's certificate.";
    ControlPlaneConnected = "pillion_control_plane_connected", Gauge, [], "1 while the control plane's stream is up.";
    ControlPlaneStale = "pillion_control_plane_stale_seconds", Gauge, [], "How long nothing has been heard from the control plane.";
    ControlPlaneConnects = "pillion_control_plane_connects_total", Counter, ["result"], "Attempts to open a stream to the control plane; `replaced`: one in the place of another, with the next certificate.";
    ControlPlaneUpdates = "pillion_control_plane_updates_total", Counter, ["kind", "result"], "Updates received: applied or refused.";
    ClockSkew = "pillion_clock_skew_seconds", Gauge, [], "The control plane's clock minus this host's.";
    Subscriptions = "pillion_subscriptions", Gauge, [], "Services that this sidecar follows.";
    Taps = "pillion_taps", Gauge, [], "Watches of live requests that this sidecar has a part in.";
    TapEvents = "pillion_tap_events_total", Counter, ["result"], "Live requests that somebody watches, by what became of them: told, limited (beyond the rate), overflowed (could not be passed on).";
    HealthChecks = "pillion_health_checks_total", Counter, ["service", "result"], "Checks of the application by what came of them: passed or failed; of the service whose policy asks for them, empty where it is the settings.";
    AppHealthy = "pillion_application_ready", Gauge, [], "1 while the application passes its health check.";
    Redirected = "pillion_redirected", Gauge, [], "1 while what the workload sends is redirected to this sidecar, and the sidecar's own connections are not; absent where the settings do not ask for it.";
    DnsQueries = "pillion_dns_queries_total", Counter, ["outcome"], "Questions to mesh DNS by what came of them: mesh, no-such-name, forwarded, failed, malformed, overload.";
    BuildInfo = "pillion_build_info", Gauge, ["version"], "Always 1.";
    StartTime = "process_start_time_seconds", Gauge, [], "When this process started, seconds since the Unix epoch.";
    ResidentMemory = "process_resident_memory_bytes", Gauge, [], "Resident memory.";
    CpuSeconds = "process_cpu_seconds_total", Counter, [], "User and system time.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        pillion_api::metric::check(Metric::ALL.iter().map(|metric| metric.declared()));
    }
}
