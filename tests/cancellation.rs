//! A request that nobody waits for any more ends at every hop.

use bytes::Bytes;
use http::{Request, StatusCode};

use crate::support::apps::{HttpApp, Version};
use crate::support::pair::Pair;
use crate::support::{eventually, http2, raw, soon};

#[tokio::test]
async fn when_http1_callers_leave_their_requests_end_at_both_sidecars() {
    const CALLERS: usize = 5;
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        let request = "GET /after-ms/60000 HTTP/1.1\r\nhost: app.demo.mesh\r\n\r\n";
        callers.push(raw::begin(pair.caller.outbound(), request).await);
    }
    let all = CALLERS as f64;
    eventually("all requests are under way", async || (pair.in_flight().await == (all, all)).then_some(()))
        .await;
    drop(callers);
    eventually("no request is under way", async || (pair.in_flight().await == (0.0, 0.0)).then_some(()))
        .await;
    eventually("they count as cancelled", async || {
        let cancelled = [("direction", "outbound"), ("status", "cancelled")];
        (pair.caller.metrics().await.sum("pillion_requests_total", &cancelled) == all).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_has_timed_out_ends_at_both_sidecars_though_its_caller_goes_on() {
    let app = HttpApp::start("app-1", Version::Http2).await;
    let pair = Pair::with(app.address(), "kubernetes.io/h2c", &["timeouts: { request: 300ms }"], &[]).await;
    let connection = http2::connect(pair.caller.outbound()).await;
    let mut sender = soon("room for a stream", connection.clone().ready()).await.expect("it is open");
    let request = Request::post("http://app.demo.mesh/sum").body(()).expect("a valid request");
    let (response, mut upload) = sender.send_request(request, false).expect("the connection is open");
    upload.send_data(Bytes::from("the beginning"), false).expect("the stream is open");
    let response = soon("an answer", response).await.expect("an answer, not a reset");
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(app.requests(), 1, "the request was under way");
    eventually("no request is under way", async || (pair.in_flight().await == (0.0, 0.0)).then_some(()))
        .await;
    drop(upload);
}

#[tokio::test]
async fn callers_who_leave_amid_their_uploads_are_nobodys_failure() {
    // One more than open a breaker.
    const CALLERS: usize = 8;
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    for _ in 0..CALLERS {
        let request = "POST /sum HTTP/1.1\r\nhost: app.demo.mesh\r\ncontent-length: 100\r\n\r\nthe beginning";
        let caller = raw::begin(pair.caller.outbound(), request).await;
        eventually("it is under way", async || (pair.in_flight().await.0 >= 1.0).then_some(())).await;
        drop(caller);
        eventually("it is not any more", async || (pair.in_flight().await == (0.0, 0.0)).then_some(())).await;
    }
    let outbound = |status| [("direction", "outbound"), ("status", status)];
    eventually("they count as cancelled", async || {
        let metrics = pair.caller.metrics().await;
        let cancelled = metrics.sum("pillion_requests_total", &outbound("cancelled"));
        (cancelled == CALLERS as f64).then_some(())
    })
    .await;
    let request = raw::get("app.demo.mesh", "/who");
    assert_eq!(raw::status(&raw::exchange(pair.caller.outbound(), &request).await), 200);
}
