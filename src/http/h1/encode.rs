//! Writes the head of a message: every field as it was written where that is known, and the framing as it is.

use http::{
    HeaderMap, HeaderName, Method, Request, Response, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use http_body::Body;

use super::{names, sending::Encoder};

/// What an answer depends on besides itself.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) takes_trailers: bool,
    /// Whether the connection goes on after the answer, as far as we are concerned.
    pub(super) keep_alive: bool,
}

/// Writes a request's head, in origin form (see [`crate::http::headers::to_http1`]); gives how its body goes on.
pub(super) fn request<B: Body>(out: &mut Vec<u8>, request: &Request<B>) -> Encoder {
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    match request.uri().path_and_query() {
        _ if request.method() == Method::CONNECT => {
            out.extend_from_slice(
                request.uri().authority().map_or("", |authority| authority.as_str()).as_bytes(),
            );
        }
        // A target in absolute form may have a query only.
        Some(target) if target.as_str().starts_with('?') => {
            out.push(b'/');
            out.extend_from_slice(target.as_str().as_bytes());
        }
        Some(target) => out.extend_from_slice(target.as_str().as_bytes()),
        None => out.push(b'/'),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let declared = declared_length(request.headers());
    let encoder = match declared {
        Some(length) => Encoder::Length(length),
        None if request.body().is_end_stream() => Encoder::Length(0),
        None => Encoder::Chunked { trailers: true },
    };
    fields(out, request.headers(), declared.is_some());
    if declared.is_none() && matches!(encoder, Encoder::Chunked { .. }) {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
    encoder
}

/// Writes a response's head; gives how its body goes on, and whether the connection may.
pub(super) fn response<B: Body>(
    out: &mut Vec<u8>,
    head: &http::response::Parts,
    body: &B,
    asked: &Asked,
) -> (Encoder, bool) {
    status_line(out, head.status);
    let tunnel = asked.method == Method::CONNECT && head.status.is_success();
    if tunnel || head.status.is_informational() {
        fields(out, &head.headers, false);
        out.extend_from_slice(b"\r\n");
        return (Encoder::Nothing, false);
    }
    let declared = declared_length(&head.headers);
    let is_http10 = asked.version == Version::HTTP_10;
    let (encoder, length) = match declared {
        _ if head.status == StatusCode::NO_CONTENT => (Encoder::Nothing, None),
        _ if asked.method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED => {
            (Encoder::Nothing, declared)
        }
        Some(length) => (Encoder::Length(length), declared),
        None => match body.size_hint().exact() {
            Some(length) => (Encoder::Length(length), Some(length)),
            None if is_http10 => (Encoder::UntilClose, None),
            None => (Encoder::Chunked { trailers: asked.takes_trailers }, None),
        },
    };
    fields(out, &head.headers, declared.is_some() && length.is_some());
    match (length, &encoder) {
        (Some(length), _) if declared.is_none() => {
            out.extend_from_slice(b"content-length: ");
            decimal(out, length);
            out.extend_from_slice(b"\r\n");
        }
        (_, Encoder::Chunked { .. }) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        _ => {}
    }
    let keep_alive = asked.keep_alive && !matches!(encoder, Encoder::UntilClose);
    match (keep_alive, is_http10) {
        (false, _) => out.extend_from_slice(b"connection: close\r\n"),
        (true, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
        (true, false) => {}
    }
    out.extend_from_slice(b"\r\n");
    (encoder, keep_alive)
}

/// Writes an interim response.
pub(super) fn interim(out: &mut Vec<u8>, response: &Response<()>) {
    status_line(out, response.status());
    fields(out, response.headers(), false);
    out.extend_from_slice(b"\r\n");
}

/// Writes one field.
pub(super) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes a chunk's size, in hexadecimal, and the line's end.
pub(super) fn chunk_size(out: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(size >> (4 * digit)) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// All fields but the framing's, which is this connection's own; `length` says whether the one that is there holds.
fn fields(out: &mut Vec<u8>, headers: &HeaderMap, length: bool) {
    names::as_written(headers, |written, name: &HeaderName, value| {
        if *name != TRANSFER_ENCODING && (length || *name != CONTENT_LENGTH) {
            field(out, written, value.as_bytes());
        }
    });
}

/// The one length that the message declares, if it is one.
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next()?;
    let digits = length.as_bytes().iter().all(u8::is_ascii_digit);
    if !digits || lengths.next().is_some() {
        return None;
    }
    length.to_str().ok()?.parse().ok()
}

fn decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let (mut at, mut left) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
