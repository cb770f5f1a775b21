//! HTTP through two sidecars is still HTTP: bodies of every framing, trailers, streams both ways, and back-pressure.

use bytes::Bytes;
use http::{Method, Request, StatusCode, Version as HttpVersion};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::apps::{App, HttpApp, Version};
use crate::support::mesh::{Mesh, SidecarSpec};
use crate::support::pair::Pair;
use crate::support::{http2, raw, soon, stalled};

#[tokio::test]
async fn answers_without_a_body_end_where_they_should() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    // All on one connection: had an answer left bytes behind, the next would be garbled.
    let request = "HEAD /who HTTP/1.1\r\nhost: app.demo.mesh\r\n\r\n\
                   GET /status/204 HTTP/1.1\r\nhost: app.demo.mesh\r\n\r\n\
                   GET /status/304 HTTP/1.1\r\nhost: app.demo.mesh\r\n\r\n\
                   GET /status/404 HTTP/1.1\r\nhost: app.demo.mesh\r\nconnection: close\r\n\r\n";
    let answer = pair.exchange(request).await;
    let statuses: Vec<&str> = answer.matches("HTTP/1.1 ").collect();
    assert_eq!(statuses.len(), 4, "{answer}");
    let codes: Vec<u16> =
        answer.split("HTTP/1.1 ").skip(1).map(|part| part[..3].parse().expect("a status code")).collect();
    assert_eq!(codes, [200, 204, 304, 404], "{answer}");
    let head = answer.split("HTTP/1.1 ").nth(1).expect("it has one");
    assert!(head.to_ascii_lowercase().contains("content-length: 5\r\n"), "HEAD tells the length: {head}");
    assert!(answer.ends_with("body"), "{answer}");
    assert_eq!(app.requests(), 4);
}

#[tokio::test]
async fn chunked_requests_and_their_length() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    let answer = pair
        .exchange(
            "POST /sum HTTP/1.1\r\nhost: app.demo.mesh\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
             5\r\nhello\r\n6;extension=1\r\n world\r\n0\r\n\r\n",
        )
        .await;
    assert_eq!((raw::status(&answer), raw::body(&answer).contains("11")), (200, true), "{answer}");
}

#[tokio::test]
async fn trailers_arrive() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    let answer = pair
        .exchange(
            "GET /trailers HTTP/1.1\r\nhost: app.demo.mesh\r\nte: trailers\r\nconnection: close, te\r\n\r\n",
        )
        .await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    assert!(raw::body(&answer).contains("app-1"), "{answer}");
    assert!(raw::body(&answer).ends_with("0\r\nx-checksum: abc123\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_body_streams_both_ways_at_once() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    soon("a conversation in one request", async {
        let mut stream = TcpStream::connect(pair.caller.outbound()).await.expect("the sidecar listens");
        let head = b"POST /echo HTTP/1.1\r\nhost: app.demo.mesh\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
        stream.write_all(head).await.expect("the sidecar reads");
        let mut seen = String::new();
        for word in ["one", "two", "three"] {
            // The next is said only once the last has been heard.
            let chunk = format!("{:x}\r\n{word}\r\n", word.len());
            stream.write_all(chunk.as_bytes()).await.expect("the sidecar reads");
            while !seen.contains(word) {
                let mut buffer = [0; 1024];
                let length = stream.read(&mut buffer).await.expect("the answer goes on");
                assert!(length > 0, "it ended after {seen:?}");
                seen += &String::from_utf8_lossy(&buffer[..length]);
            }
        }
        stream.write_all(b"0\r\n\r\n").await.expect("the sidecar reads");
        stream.read_to_string(&mut seen).await.expect("the answer ends");
        assert!(seen.ends_with("0\r\n\r\n"), "{seen}");
    })
    .await;
}

#[tokio::test]
async fn interim_answers_arrive() {
    let hints: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n\
                         HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";
    let scripted = App::scripted(hints).await;
    let pair = Pair::around(scripted.address, "http").await;
    let answer = pair.exchange("GET / HTTP/1.1\r\nhost: app.demo.mesh\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 103 Early Hints\r\n"), "{answer}");
    assert!(answer.contains("</a.css>"), "{answer}");
    assert!(answer.contains("HTTP/1.1 200 OK") && answer.ends_with("done"), "{answer}");

    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    soon("an answer to `expect: 100-continue`", async {
        let mut stream = TcpStream::connect(pair.caller.outbound()).await.expect("the sidecar listens");
        let head = b"POST /sum HTTP/1.1\r\nhost: app.demo.mesh\r\ncontent-length: 5\r\n\
                     expect: 100-continue\r\nconnection: close\r\n\r\n";
        stream.write_all(head).await.expect("the sidecar reads");
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.expect("an interim answer");
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"hello").await.expect("the sidecar reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer of text");
        assert!(raw::status(&answer) == 200 && raw::body(&answer).contains('5'), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn large_bodies_arrive_whole() {
    const LENGTH: usize = 32 << 20;
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    let client = pair.caller.client();
    soon("32 MiB each way", async {
        let download = client.get(format!("http://app.demo.mesh/bytes/{LENGTH}")).send().await;
        let body = download.expect("an answer").bytes().await.expect("a whole body");
        assert_eq!(body.len(), LENGTH);
        assert!(body.iter().all(|byte| *byte == b'p'));
        let upload = client.post("http://app.demo.mesh/sum").body(body).send().await;
        let counted = upload.expect("an answer").text().await.expect("a whole body");
        assert_eq!(counted, LENGTH.to_string());
    })
    .await;
}

#[tokio::test]
async fn a_slow_reader_slows_the_application_down() {
    const LENGTH: u64 = 256 << 20;
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    soon("a large answer, read with a pause", async {
        let mut stream = TcpStream::connect(pair.caller.outbound()).await.expect("the sidecar listens");
        let head =
            format!("GET /bytes/{LENGTH} HTTP/1.1\r\nhost: app.demo.mesh\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("the sidecar reads");
        let mut buffer = vec![0; 64 << 10];
        let mut received = stream.read(&mut buffer).await.expect("the answer begins");
        // Nobody reads now: what the application can still send is what fits into the buffers in between.
        let stalled_at = stalled(|| app.produced()).await;
        assert!(stalled_at < 48 << 20, "the sidecars took {stalled_at} bytes that nobody asked for");
        loop {
            match stream.read(&mut buffer).await.expect("the answer goes on") {
                0 => break,
                length => received += length,
            }
        }
        // The head and the chunks' framing come on top.
        assert!(received as u64 >= LENGTH, "{received} bytes of {LENGTH}");
        assert_eq!(app.produced(), LENGTH);
    })
    .await;
}

#[tokio::test]
async fn http2_end_to_end() {
    let app = HttpApp::start("app-1", Version::Http2).await;
    let pair = Pair::around(app.address(), "kubernetes.io/h2c").await;
    soon("requests over one HTTP/2 connection", async {
        let stream = TcpStream::connect(pair.caller.outbound()).await.expect("the sidecar listens");
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("the sidecar speaks HTTP/2");
        tokio::spawn(connection);
        let request = |path: &str| {
            let request = Request::get(format!("http://app.demo.mesh{path}")).version(HttpVersion::HTTP_2);
            request.body(Empty::<Bytes>::new()).expect("a valid request")
        };
        let responses =
            futures_util::future::join_all((0..20).map(|_| sender.clone().send_request(request("/who"))))
                .await;
        for response in responses {
            let body = response.expect("an answer").into_body().collect().await.expect("a whole body");
            assert_eq!(body.to_bytes(), "app-1");
        }
        let response = sender.send_request(request("/head")).await.expect("an answer");
        let seen = response.into_body().collect().await.expect("a whole body").to_bytes();
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(seen.contains("HTTP/2.0"), "the application is spoken to in HTTP/2: {seen}");
        let response = sender.send_request(request("/trailers")).await.expect("an answer");
        let collected = response.into_body().collect().await.expect("a whole body");
        let trailers = collected.trailers().cloned().unwrap_or_default();
        assert_eq!(trailers.get("x-checksum").map(|value| value.as_bytes()), Some(b"abc123".as_slice()));
    })
    .await;
}

#[tokio::test]
async fn an_application_declared_http1_is_never_spoken_to_in_http2() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    soon("requests over HTTP/2 to an application of HTTP/1", async {
        let connection = http2::connect(pair.caller.outbound()).await;
        let mut sender = connection.ready().await.expect("it is open");
        let request =
            Request::get("http://app.demo.mesh/head?q=1").header("cookie", "a=1").header("cookie", "b=2");
        let (response, _) = sender.send_request(request.body(()).expect("valid"), true).expect("it is sent");
        let seen = http2::content(response.await.expect("an answer")).await;
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(seen.starts_with("GET /head?q=1 HTTP/1.1\n"), "{seen}");
        assert!(seen.contains("host: app.demo.mesh\n") && seen.contains("cookie: a=1; b=2\n"), "{seen}");

        let request = Request::post("http://app.demo.mesh/echo").body(()).expect("valid");
        let mut sender = sender.ready().await.expect("it is open");
        let (response, mut upload) = sender.send_request(request, false).expect("it is sent");
        upload.send_data(Bytes::from_static(b"of no length that is known before"), true).expect("it is open");
        let response = response.await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        assert!(
            !response.headers().keys().any(|name| name.as_str().starts_with("x-pillion")),
            "{response:?}"
        );
        assert_eq!(http2::content(response).await, b"of no length that is known before");
    })
    .await;
    assert_eq!(app.requests(), 2);
}

#[tokio::test]
async fn an_offer_to_change_to_http2_is_for_this_hop_only() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    // RFC 7540, 3.2: had the application taken it, the sidecars would not understand what follows.
    let answer = pair
        .exchange(
            "GET /head HTTP/1.1\r\nhost: app.demo.mesh\r\nconnection: close, Upgrade, HTTP2-Settings\r\n\
             upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
        )
        .await;
    assert_eq!(raw::status(&answer), 200, "{answer}");
    let seen = raw::body(&answer).to_ascii_lowercase();
    assert!(seen.contains("host: app.demo.mesh"), "{seen}");
    assert!(!seen.contains("h2c") && !seen.contains("http2-settings"), "{seen}");
}

#[tokio::test]
async fn a_request_with_two_host_fields_is_refused() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    // RFC 9112, 3.2: who reads the first and who reads the second would see different requests.
    let answer = pair
        .exchange(
            "GET /who HTTP/1.1\r\nhost: app.demo.mesh\r\nhost: other.demo.mesh\r\nconnection: close\r\n\r\n",
        )
        .await;
    assert_eq!(raw::status(&answer), 400, "{answer}");
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn a_refused_head_request_gets_no_content() {
    let mesh = Mesh::start().await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller]).await;
    let connection = http2::connect(caller.outbound()).await;
    let response = http2::request(&connection, Method::HEAD, "http://nobody.demo.mesh/").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(http2::content(response).await, b"", "RFC 9110, 9.3.2");
    let request = "HEAD / HTTP/1.1\r\nhost: nobody.demo.mesh\r\nconnection: close\r\n\r\n";
    let answer = raw::exchange(caller.outbound(), request).await;
    assert_eq!((raw::status(&answer), raw::body(&answer)), (404, ""), "{answer}");
}
