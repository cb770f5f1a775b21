//! A request that takes longer than its policy allows is answered, and held against the endpoint that took so long.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::apps::{App, HttpApp, Version};
use crate::support::mesh::{Mesh, Sidecar, SidecarSpec, service};
use crate::support::pair::{Pair, policy};
use crate::support::{eventually, http2, raw, soon};

/// Answered long after every timeout here.
const NEVER: &str = "/after-ms/60000";

async fn opened(caller: &Sidecar, workload: &str) -> f64 {
    caller.metrics().await.sum("pillion_breaker_opened_total", &[("workload", workload)])
}

/// Waits until one timeout counts as a failure of `app-1`.
async fn until_failed(pair: &Pair) {
    eventually("the timeout counts as a failure of the endpoint", async || {
        let metrics = pair.caller.metrics().await;
        let of_endpoint = [("direction", "outbound"), ("target", "app.demo"), ("workload", "app-1")];
        let failures = metrics.sum("pillion_request_failures_total", &of_endpoint);
        let refusals = metrics.sum("pillion_refusals_total", &[("reason", "request-timeout")]);
        (failures == 1.0 && refusals == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_http1_caller_is_told_and_the_endpoint_has_failed() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::with(app.address(), "http", &["timeouts: { request: 200ms }"], &[]).await;
    let answer = pair.get(NEVER).await;
    assert_eq!((raw::status(&answer), raw::refusal(&answer)), (504, "request-timeout"), "{answer}");
    assert!(answer.contains("200ms, timeouts.request of TrafficPolicy demo/app"), "{answer}");
    until_failed(&pair).await;
}

#[tokio::test]
async fn an_http2_caller_is_told_and_the_endpoint_has_failed() {
    let app = HttpApp::start("app-1", Version::Http2).await;
    let lines = ["timeouts: { request: 200ms }"];
    let pair = Pair::with(app.address(), "kubernetes.io/h2c", &lines, &[]).await;
    let connection = http2::connect(pair.caller.outbound()).await;
    let response = http2::request(&connection, Method::GET, &format!("http://app.demo.mesh{NEVER}")).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    let reason = response.headers().get("pillion-error").and_then(|value| value.to_str().ok());
    assert!(reason.is_some_and(|reason| reason.starts_with("request-timeout;")), "{reason:?}");
    until_failed(&pair).await;
}

/// GEP-1742: a rule goes before the policy, and its zero lifts a limit.
#[tokio::test]
async fn a_rule_sets_and_lifts_what_the_policy_says() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair =
        Pair::with(app.address(), "http", &["timeouts: { request: 300ms, attempt: 200ms }"], &[]).await;
    let rule = |path: &str, timeouts: &str| {
        format!(
            "{{matches: [{{path: {{value: {path}}}}}], timeouts: {{{timeouts}}}, backendRefs: [{{name: app, port: 80}}]}}"
        )
    };
    let rules = [
        rule("/after-ms/700", "request: 0s, backendRequest: 0s"),
        rule("/after-ms/701", "request: 0s"),
        rule("/after-ms/60001", "request: 60s, backendRequest: 50ms"),
        rule("/after-ms/60002", "request: 50ms, backendRequest: 0s"),
    ];
    let route = format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: app, namespace: demo}}, spec: \
         {{parentRefs: [{{group: '', kind: Service, name: app}}], rules: [{}]}}}}\n",
        rules.join(", ")
    );
    pair.mesh.apply(&route).await;
    eventually("the route is known", async || (raw::status(&pair.get("/other").await) == 404).then_some(()))
        .await;
    for (path, status, within) in [
        ("/after-ms/700", 200, ""),
        ("/after-ms/701", 504, "200ms, timeouts.attempt of TrafficPolicy demo/app"),
        ("/after-ms/60001", 504, "50ms, timeouts.backendRequest of HTTPRoute demo/app"),
        ("/after-ms/60002", 504, "50ms, timeouts.request of HTTPRoute demo/app"),
    ] {
        let answer = pair.get(path).await;
        assert_eq!(raw::status(&answer), status, "{path}: {answer}");
        assert!(answer.contains(within), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_cut_off_and_one_that_moves_is_not() {
    // Four words, one every 100 ms; then silence, with more promised.
    let app = App::start(|mut stream| async move {
        let mut buffer = [0; 1024];
        let Ok(1..) = stream.read(&mut buffer).await else { return };
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n").await;
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..4 {
            ticks.tick().await;
            let _ = stream.write_all(b"word").await;
        }
        while let Ok(1..) = stream.read(&mut buffer).await {}
    })
    .await;
    // No timeout of requests is in force, so nothing else ends it.
    let pair = Pair::with(app.address, "http", &["timeouts: { idle: 1s }"], &[]).await;
    let answer = pair.get("/").await;
    assert_eq!((raw::status(&answer), raw::body(&answer)), (200, "wordwordwordword"), "{answer}");
    eventually("it is counted as what it is", async || {
        let metrics = pair.caller.metrics().await;
        (metrics.sum("pillion_refusals_total", &[("reason", "idle-timeout")]) == 1.0).then_some(())
    })
    .await;
    eventually("nothing is left of it", async || (pair.in_flight().await == (0.0, 0.0)).then_some(())).await;
}

#[tokio::test]
async fn work_that_comes_too_late_never_reaches_the_application() {
    let app = HttpApp::start("app-1", Version::Http2).await;
    let pair = Pair::around(app.address(), "kubernetes.io/h2c").await;
    // The test is the caller's sidecar: a real one would not have sent it.
    let mut connection = http2::handshake(pair.member().await).await;
    for (patience, status, reason) in
        [("0", StatusCode::GATEWAY_TIMEOUT, "deadline-exceeded"), ("60000", StatusCode::OK, "")]
    {
        let (response, _) = connection
            .send_request(
                http::Request::get("http://app.demo.mesh/who")
                    .header("x-pillion-timeout-ms", patience)
                    .body(())
                    .expect("a valid request"),
                true,
            )
            .expect("the connection is open");
        let response = soon("an answer", response).await.expect("an answer");
        assert_eq!(response.status(), status, "{response:?}");
        let error = response.headers().get("pillion-error").and_then(|value| value.to_str().ok());
        assert_eq!(error.and_then(|error| error.split(';').next()).unwrap_or_default(), reason);
    }
    assert_eq!(app.requests(), 1);
    let metrics = pair.callee.metrics().await;
    let refused = [("direction", "inbound"), ("reason", "deadline-exceeded")];
    assert_eq!(metrics.sum("pillion_refusals_total", &refused), 1.0);
}

#[tokio::test]
async fn timeouts_open_the_breaker_of_their_endpoint() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let lines =
        ["timeouts: { request: 100ms }", "circuitBreaker: { consecutiveFailures: 3, panicPercent: 1 }"];
    let pair = Pair::with(app.address(), "http", &lines, &[]).await;
    for _ in 0..3 {
        let answer = pair.get(NEVER).await;
        assert_eq!(raw::refusal(&answer), "request-timeout", "{answer}");
    }
    eventually("its breaker opens", async || (opened(&pair.caller, "app-1").await >= 1.0).then_some(()))
        .await;
}

#[tokio::test]
async fn a_replica_that_never_answers_is_left_alone_while_the_other_serves() {
    let good = HttpApp::start("app-1", Version::Http1).await;
    let silent = App::start(|mut stream| async move {
        let mut buffer = [0; 1024];
        while let Ok(1..) = stream.read(&mut buffer).await {}
    })
    .await;
    let mesh = Mesh::start().await;
    let lines = [
        "timeouts: { request: 200ms }",
        "circuitBreaker: { consecutiveFailures: 3, openTime: { base: 1m, max: 1m }, panicPercent: 10 }",
    ];
    mesh.apply(&(service("app", "http") + &policy(&lines))).await;
    let first = mesh.sidecar(SidecarSpec::serving("app-1", "app", good.address())).await;
    let second = mesh.sidecar(SidecarSpec::serving("app-2", "app", silent.address)).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &first, &second]).await;
    caller.until_endpoints("app", 2).await;

    let mut statuses = Vec::new();
    for _ in 0..100 {
        statuses
            .push(raw::status(&raw::exchange(caller.outbound(), &raw::get("app.demo.mesh", "/who")).await));
    }
    let late = statuses.iter().filter(|status| **status == 504).count();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count() + late, 100, "{statuses:?}");
    // By its latency it is seldom chosen, and by its breaker then not at all.
    assert!(late <= 10, "{late} of 100 requests went to it: {statuses:?}");
    assert_eq!(opened(&caller, "app-1").await, 0.0);
}
