//! Requests share connections, and yet none waits for another: not for its reader, its upload, or a free stream.

use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, interval};

use crate::support::apps::{App, HttpApp, Version};
use crate::support::pair::Pair;
use crate::support::{http2, raw, resident, soon, stalled};

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

#[tokio::test]
async fn bodies_larger_than_memory_go_through_little_of_it() {
    const BODY: usize = 256 << 20;
    const ROOM: u64 = 32 << 20;
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    let before = [resident(&pair.caller), resident(&pair.callee)];
    let download = format!("GET /bytes/{BODY} HTTP/1.1\r\nhost: app.demo.mesh\r\nconnection: close\r\n\r\n");
    let upload = format!(
        "POST /sum HTTP/1.1\r\nhost: app.demo.mesh\r\ncontent-length: {BODY}\r\nconnection: close\r\n\r\n"
    );
    let mut down = raw::begin(pair.caller.outbound(), &download).await;
    let (mut answer, mut up) = raw::begin(pair.caller.outbound(), &upload).await.into_split();
    let uploading = async {
        let piece = vec![b'u'; 1 << 20];
        for _ in 0..BODY / piece.len() {
            up.write_all(&piece).await.expect("it is taken");
        }
        let mut text = String::new();
        answer.read_to_string(&mut text).await.expect("an answer");
        assert!(raw::body(&text).contains(&BODY.to_string()), "{text}");
    };
    let downloading = async {
        let (mut buffer, mut received) = (vec![0; 1 << 20], 0);
        while let length @ 1.. = down.read(&mut buffer).await.expect("it goes on") {
            received += length;
        }
        assert!(received > BODY, "{received} bytes");
    };
    // Longer than others may take: so much goes slowly through programs that are not optimised.
    let both = async { tokio::join!(uploading, downloading) };
    tokio::time::timeout(Duration::from_secs(120), both).await.expect("both bodies within two minutes");
    for (sidecar, before) in [&pair.caller, &pair.callee].into_iter().zip(before) {
        let grown = resident(sidecar).saturating_sub(before);
        assert!(grown < ROOM, "{}: {} MiB more", sidecar.workload, grown >> 20);
    }
}
