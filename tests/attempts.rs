//! When an attempt begins, and what it says of the endpoint: not what happened before it, nor what a sidecar spares its application.

use std::time::Duration;

use crate::support::apps::{HttpApp, Version};
use crate::support::pair::Pair;
use crate::support::{eventually, raw};

/// Nobody is called once more before the test is over.
const BREAKER: &str = "circuitBreaker: { consecutiveFailures: 1, openTime: { base: 30s }, panicPercent: 0 }";

#[tokio::test]
async fn the_time_of_an_attempt_begins_with_it() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let lines = ["faults: [{ delay: { duration: 1300ms }, for: 10m }]", "timeouts: { attempt: 1s }", BREAKER];
    let pair = Pair::with(app.address(), "http", &lines, &[]).await;
    for _ in 0..2 {
        let answer = pair.get("/who").await;
        assert_eq!(raw::status(&answer), 200, "what was held up on purpose is not late: {answer}");
    }
}

#[tokio::test]
async fn an_endpoint_that_sheds_load_is_not_broken() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let lines = ["concurrency: { type: fixed, limit: 1, queue: { maxRequests: 0 } }", BREAKER];
    let pair = Pair::with(app.address(), "http", &lines, &[]).await;
    eventually("the callee has been told", async || {
        let labels = [("kind", "config"), ("result", "applied")];
        let metrics = pair.callee.metrics().await;
        (metrics.sum("pillion_control_plane_updates_total", &labels) >= 1.0).then_some(())
    })
    .await;
    let to = pair.caller.outbound();
    let slow = raw::begin(to, &raw::get("app.demo.mesh", "/after-ms/20000")).await;
    eventually("it is under way", async || {
        let in_flight = pair.callee.metrics().await.max("pillion_concurrency_in_flight", &[]);
        (in_flight == Some(1.0)).then_some(())
    })
    .await;
    for _ in 0..3 {
        let answer = pair.get("/who").await;
        assert_eq!((raw::status(&answer), raw::refusal(&answer)), (503, "overloaded"), "{answer}");
    }
    drop(slow);
}

#[tokio::test]
async fn an_endpoint_that_never_answers_is_left_alone_although_its_callers_set_the_time() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::with(app.address(), "http", &[BREAKER], &[]).await;
    let ask = async |path: &str, patience: Duration| {
        let patience = patience.as_millis();
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: app.demo.mesh\r\nx-pillion-timeout-ms: {patience}\r\n");
        pair.exchange(&(head + "connection: close\r\n\r\n")).await
    };
    let answer = pair.get("/who").await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    // Who is in a hurry says nothing of it.
    let answer = ask("/after-ms/20000", Duration::from_millis(20)).await;
    assert_eq!(raw::refusal(&answer), "deadline-exceeded", "{answer}");
    let answer = pair.get("/who").await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    let answer = ask("/after-ms/20000", Duration::from_secs(2)).await;
    assert_eq!(raw::refusal(&answer), "deadline-exceeded", "{answer}");
    let answer = pair.get("/who").await;
    assert_eq!(raw::refusal(&answer), "breakers-open", "{answer}");
}
