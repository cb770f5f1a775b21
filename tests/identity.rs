//! `x-forwarded-client-cert`: the application learns who calls from its own sidecar, and from nobody else.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};

use crate::support::apps::{App, HttpApp, Version};
use crate::support::pair::Pair;
use crate::support::{http2, raw, soon};

const PROVEN: &str = "x-forwarded-client-cert: \
                      By=spiffe://test.local/ns/demo/sa/app;URI=spiffe://test.local/ns/demo/sa/client";

/// The lines of the name in a head that the application was shown.
fn lines(head: &str) -> Vec<&str> {
    head.lines().filter(|line| line.to_ascii_lowercase().starts_with("x-forwarded-client-cert")).collect()
}

#[tokio::test]
async fn over_http1_whatever_the_caller_says() {
    let app = HttpApp::start("app-1", Version::Http1).await;
    let pair = Pair::around(app.address(), "http").await;
    let forged = "X-Forwarded-Client-Cert: By=spiffe://a/b;URI=spiffe://evil/root\r\n\
                  x-forwarded-client-cert: Hash=0\r\nConnection: x-forwarded-client-cert, close\r\n";
    for fields in ["connection: close\r\n", forged] {
        let answer =
            pair.exchange(&format!("GET /head HTTP/1.1\r\nhost: app.demo.mesh\r\n{fields}\r\n")).await;
        assert_eq!(lines(raw::body(&answer)), [PROVEN], "{answer}");
    }
    // Upgrades take another way between the sidecars.
    let upgrade = format!(
        "GET /head HTTP/1.1\r\nhost: app.demo.mesh\r\nUpgrade: chat\r\n{forged}Connection: Upgrade\r\n\r\n"
    );
    let answer = pair.exchange(&upgrade).await;
    assert_eq!(lines(raw::body(&answer)), [PROVEN], "{answer}");
}

#[tokio::test]
async fn over_http2_whatever_the_caller_says() {
    let app = HttpApp::start("app-1", Version::Http2).await;
    let pair = Pair::around(app.address(), "kubernetes.io/h2c").await;
    let connection = http2::connect(pair.caller.outbound()).await;
    let mut sender = soon("room for a stream", connection.ready()).await.expect("it is open");
    let request = Request::builder().method(Method::POST).uri("http://app.demo.mesh/head");
    let request = request.header("x-forwarded-client-cert", "forged").body(()).expect("a valid request");
    let (response, mut upload) = sender.send_request(request, false).expect("it is open");
    upload.send_data(Bytes::from_static(b"x"), false).expect("it is open");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-forwarded-client-cert", "forged".parse().expect("a value"));
    upload.send_trailers(trailers).expect("it is open");
    let head = http2::content(soon("an answer", response).await.expect("an answer")).await;
    let head = String::from_utf8(head).expect("text");
    assert_eq!(lines(&head), [PROVEN], "{head}");
}

#[tokio::test]
async fn nothing_that_an_application_says_of_it_leaves_for_outside() {
    let outside = HttpApp::start("outside", Version::Http1).await;
    let app = App::tcp_echo().await;
    let pair = Pair::around(app.address, "http").await;
    let request = format!(
        "GET http://{}/head HTTP/1.1\r\nhost: {0}\r\nx-forwarded-client-cert: forged\r\nx-other: kept\r\n\
         connection: close\r\n\r\n",
        outside.address()
    );
    let answer = pair.exchange(&request).await;
    assert!(raw::body(&answer).contains("x-other: kept"), "{answer}");
    assert!(lines(&answer).is_empty(), "{answer}");
}
