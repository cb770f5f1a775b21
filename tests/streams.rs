//! Requests share connections, and yet none waits for another: not for its reader, its upload, or a free stream.

use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, interval};

use crate::support::apps::{App, HttpApp, Version};
use crate::support::pair::Pair;
use crate::support::{http2, raw, soon, stalled};

#[tokio::test]
async fn downloads_that_nobody_reads_do_not_hold_up_others() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    let mut unread = Vec::new();
    for _ in 0..24 {
        let request = "GET /bytes/100000000 HTTP/1.1\r\nhost: app.demo.mesh\r\n\r\n";
        unread.push(raw::begin(pair.caller.outbound(), request).await);
    }
    let produced = stalled(|| app.produced()).await;
    assert!((1..24 * 100_000_000).contains(&produced), "the downloads stand still after {produced} bytes");
    let answer = pair.get("/who").await;
    assert_eq!((raw::status(&answer), raw::body(&answer)), (200, "app-1"), "{answer}");
    drop(unread);
}

#[tokio::test]
async fn more_requests_than_a_connection_to_the_application_takes_go_over_more_connections() {
    const STREAMS: u32 = 20;
    let app = App::http2_with_few_streams(STREAMS).await;
    let pair = Pair::around(app.address, "kubernetes.io/h2c").await;
    let connection = http2::connect(pair.caller.outbound()).await;
    let mut endless = Vec::new();
    for _ in 0..STREAMS {
        let response = http2::request(&connection, Method::GET, "http://app.demo.mesh/stream").await;
        assert_eq!(response.status(), 200);
        endless.push(response);
    }
    for _ in 0..STREAMS {
        let response = http2::request(&connection, Method::GET, "http://app.demo.mesh/stream").await;
        assert_eq!(response.status(), 200);
        endless.push(response);
    }
    let response = http2::request(&connection, Method::GET, "http://app.demo.mesh/short").await;
    assert_eq!(http2::content(response).await, b"word");
    assert!(app.connections() >= 3, "{} connections", app.connections());
}

/// Answers every head at once, whatever content is still to come, and goes on reading.
async fn hasty() -> App {
    App::start(|mut stream| async move {
        let mut head = Vec::new();
        while let Ok(byte) = stream.read_u8().await {
            head.push(byte);
            if head.ends_with(b"\r\n\r\n") {
                head.clear();
                if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_before_the_end_of_an_upload_does_not_block_the_next_caller() {
    let app = hasty().await;
    let pair = Pair::around(app.address, "http").await;
    let request = "POST / HTTP/1.1\r\nhost: app.demo.mesh\r\ncontent-length: 100000\r\n\r\nthe beginning";
    let mut uploading = raw::begin(pair.caller.outbound(), request).await;
    let mut first = [0; 12];
    soon("the early answer", uploading.read_exact(&mut first)).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    let answer = pair.get("/").await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    drop(uploading);
}

#[tokio::test]
async fn a_connection_in_steady_use_is_not_closed_as_idle() {
    // Longer than the four seconds after which a connection to an application counts as idle.
    const USE: Duration = Duration::from_secs(6);
    let app = App::http2_with_few_streams(20).await;
    let pair = Pair::around(app.address, "kubernetes.io/h2c").await;
    let connection = http2::connect(pair.caller.outbound()).await;
    // In use often, and yet almost always between two requests when somebody looks.
    let (began, mut pace) = (Instant::now(), interval(Duration::from_millis(100)));
    while began.elapsed() < USE {
        pace.tick().await;
        let response = http2::request(&connection, Method::GET, "http://app.demo.mesh/short").await;
        assert_eq!(http2::content(response).await, b"word");
    }
    assert_eq!(app.connections(), 1);
}
