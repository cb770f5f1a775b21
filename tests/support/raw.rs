//! HTTP/1 written by hand, byte for byte, for what a well-behaved client would never send.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::soon;

/// Sends `request` and reads until the other side closes or the answer is complete enough for `enough`.
pub(crate) async fn exchange_until(to: SocketAddr, request: &[u8], enough: impl Fn(&str) -> bool) -> String {
    soon("an answer to a hand-written request", async {
        let mut stream = TcpStream::connect(to).await.expect("somebody listens");
        // Whoever refuses need not read to the end.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..length]);
            if enough(&String::from_utf8_lossy(&answer)) {
                break;
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    })
    .await
}

/// Sends `request` and leaves its answer unread.
pub(crate) async fn begin(to: SocketAddr, request: &str) -> TcpStream {
    soon("a connection that takes a hand-written request", async {
        let mut stream = TcpStream::connect(to).await.expect("somebody listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        stream
    })
    .await
}

/// A GET of `path` at `host`, the last on its connection.
pub(crate) fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
}

/// Sends `request`, which should ask for `connection: close`, and reads until it is.
pub(crate) async fn exchange(to: SocketAddr, request: &str) -> String {
    exchange_until(to, request.as_bytes(), |_| false).await
}

/// The same, for a request that outlives whoever made it.
pub(crate) async fn exchange_owned(to: SocketAddr, request: String) -> String {
    exchange(to, &request).await
}

/// The reason that a sidecar gives for its refusal; empty where it did not refuse.
pub(crate) fn refusal(answer: &str) -> &str {
    header(answer, "pillion-error").and_then(|error| error.split(';').next()).unwrap_or_default()
}

/// One header's value from the head of an answer.
pub(crate) fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The status code of an answer.
pub(crate) fn status(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"))
}

/// What follows the head.
pub(crate) fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}
