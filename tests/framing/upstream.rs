//! Applications that keep what reaches them, and answer what a case makes them answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::responses;
use crate::support::apps::App;

/// What has reached an application.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Vec<Arrived>>>);

/// One message, as far as it has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrived {
    pub(super) bytes: Vec<u8>,
    /// To its end.
    pub(super) whole: bool,
}

impl Kept {
    /// The messages with this in them.
    pub(super) fn with(&self, token: &str) -> Vec<Arrived> {
        let mut all = self.0.lock().expect("nothing panics while holding it").clone();
        all.retain(|arrived| contains(&arrived.bytes, token.as_bytes()));
        all
    }

    fn keep(&self, arrived: Arrived) {
        self.0.lock().expect("nothing panics while holding it").push(arrived);
    }
}

/// An application with what it keeps.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    pub(super) kept: Kept,
    _app: App,
}

impl Upstream {
    /// It speaks HTTP/1, and says what [`responses::CASES`] have it say.
    pub(super) async fn http1() -> Self {
        let kept = Kept::default();
        let keeping = kept.clone();
        let app = App::start(move |stream| http1(stream, keeping.clone())).await;
        Self { address: app.address, kept, _app: app }
    }

    /// It speaks HTTP/2.
    pub(super) async fn http2() -> Self {
        let kept = Kept::default();
        let keeping = kept.clone();
        let app = App::start(move |stream| http2(stream, keeping.clone())).await;
        Self { address: app.address, kept, _app: app }
    }
}

async fn http1(mut stream: TcpStream, kept: Kept) {
    let mut ahead = Vec::new();
    loop {
        let mut arrived = Arrived::default();
        let answer = loop {
            if let Some(length) = length(&ahead) {
                arrived.bytes = ahead.drain(..length).collect();
                arrived.whole = true;
                break Some(answer(&arrived.bytes));
            }
            if !matches!(stream.read_buf(&mut ahead).await, Ok(1..)) {
                arrived.bytes = std::mem::take(&mut ahead);
                break None;
            }
        };
        if !arrived.bytes.is_empty() {
            kept.keep(arrived);
        }
        let Some((answer, closes)) = answer else { return };
        if stream.write_all(&answer).await.is_err() {
            return;
        }
        if closes {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

/// How long the message is that begins here, read as trustingly as anybody might. `None`: it has not come whole.
fn length(bytes: &[u8]) -> Option<usize> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let field = |name: &str| {
        let mut values =
            text.lines().filter_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
        values.next().map(|value| value.trim().to_owned())
    };
    if field("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        let mut at = head;
        loop {
            let line = at + find(&bytes[at..], b"\n")?;
            let digits = bytes[at..line].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + digits]).ok()?, 16).ok()?;
            if size == 0 {
                // The last line, and the trailers, end with an empty line.
                return Some(line - 1 + find(&bytes[line - 1..], b"\r\n\r\n")? + 4);
            }
            at = line + 1 + size + 2;
            if at > bytes.len() {
                return None;
            }
        }
    }
    let end = head + field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0_usize);
    (bytes.len() >= end).then_some(end)
}

/// What to answer to a message, and whether the connection ends with it.
fn answer(message: &[u8]) -> (Vec<u8>, bool) {
    let text = String::from_utf8_lossy(message);
    let path = text.split(' ').nth(1).unwrap_or_default();
    let number = |prefix: &str| path.strip_prefix(prefix).and_then(|number| number.parse::<usize>().ok());
    if let Some(case) = number("/r").and_then(|number| responses::CASES.get(number)) {
        return (case.answer.to_vec(), case.closes);
    }
    let body = number("/n").map_or("ok".to_owned(), |number| format!("next-{number}-"));
    (format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes(), false)
}

async fn http2(stream: TcpStream, kept: Kept) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut requests = tokio::task::JoinSet::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let kept = kept.clone();
        requests.spawn(async move {
            let mut arrived = Arrived { bytes: shown(&request), whole: false };
            let mut body = request.into_body();
            arrived.whole = loop {
                match body.data().await {
                    Some(Ok(data)) => {
                        // It was received, so it fits.
                        let _ = body.flow_control().release_capacity(data.len());
                        arrived.bytes.extend_from_slice(&data);
                    }
                    Some(Err(_)) => break false,
                    None => match body.trailers().await {
                        Ok(trailers) => {
                            arrived.bytes.extend(format!("\r\n{trailers:?}").replace('"', "").bytes());
                            break true;
                        }
                        Err(_) => break false,
                    },
                }
            };
            let whole = arrived.whole;
            kept.keep(arrived);
            if whole && let Ok(mut stream) = respond.send_response(Response::new(()), false) {
                let _ = stream.send_data(Bytes::from_static(b"ok"), true);
            }
        });
    }
}

/// As HTTP/1 would have written it.
fn shown<T>(request: &Request<T>) -> Vec<u8> {
    let mut text = format!("{} {}\r\n", request.method(), request.uri()).into_bytes();
    for (name, value) in request.headers() {
        text.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    text
}

/// Where `part` is in `bytes`.
pub(super) fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Whether `part` is in `bytes`, in any case.
pub(super) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || find(&bytes.to_ascii_lowercase(), &part.to_ascii_lowercase()).is_some()
}

/// `bytes` with `new` in place of every `old`.
pub(super) fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let (mut rest, mut all) = (bytes, Vec::new());
    while let Some(at) = find(rest, old) {
        all.extend_from_slice(&rest[..at]);
        all.extend_from_slice(new);
        rest = &rest[at + old.len()..];
    }
    all.extend_from_slice(rest);
    all
}
