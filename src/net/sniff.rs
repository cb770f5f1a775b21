//! Tells a connection's protocol from its first bytes, and gives those bytes back to whoever serves it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detected {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// The application's own TLS.
    Tls,
    /// Anything else: bytes.
    Opaque,
    /// The peer ended it without a byte.
    Nothing,
    /// The peer said nothing, or too little, in time.
    Undecided,
}

impl Detected {
    /// As it stands in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Tls => "tls",
            Self::Opaque => "opaque",
            Self::Nothing => "nothing",
            Self::Undecided => "undecided",
        }
    }
}

/// The connection preface of HTTP/2 (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest method in use is `UPDATEREDIRECTREF` (17); nothing longer is taken for one.
const LONGEST_METHOD: usize = 24;
/// Room for the first bytes: more than any decision needs, so that a whole request head comes with one read.
const FIRST_READ: usize = 4096;

/// Decides from the bytes so far; `None`: more are needed.
pub fn decide(bytes: &[u8]) -> Option<Detected> {
    if bytes.is_empty() {
        return None;
    }
    if bytes.len() >= PREFACE.len() && bytes.starts_with(PREFACE) {
        return Some(Detected::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return None;
    }
    // A handshake record of TLS 1.0 or later (RFC 8446 5.1).
    match bytes {
        [0x16, 0x03, ..] => return Some(Detected::Tls),
        [0x16] => return None,
        _ => {}
    }
    // A method is a token (RFC 9110 5.6.2), then a space and the target. `PRI ` goes on as HTTP/2 that went wrong.
    if bytes.starts_with(&PREFACE[..6]) {
        return Some(Detected::Http2);
    }
    let method = bytes.iter().take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'-').count();
    if method == 0 || method > LONGEST_METHOD {
        return Some(Detected::Opaque);
    }
    match &bytes[method..] {
        [] | [b' '] => None,
        [b' ', target, ..] if target.is_ascii_graphic() => {
            // `GET /x HTTP/1.1` and `ok hello` differ only at the line's end: wait for it, within reason.
            match bytes.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    Some(if is_request_line(&bytes[..end]) { Detected::Http1 } else { Detected::Opaque })
                }
                None if bytes[method + 1] == b'/' || bytes.len() > 512 => Some(Detected::Http1),
                None => None,
            }
        }
        _ => Some(Detected::Opaque),
    }
}

fn is_request_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.windows(8).any(|window| window.starts_with(b" HTTP/") || window.starts_with(b" http/"))
}

/// Reads until the protocol is told, the peer ends, or `within` is over.
pub async fn sniff<T: AsyncRead + Unpin>(mut io: T, within: Duration) -> io::Result<(Detected, Prefixed<T>)> {
    let mut first = BytesMut::new();
    let reading = async {
        loop {
            first.reserve(FIRST_READ);
            let ended = io.read_buf(&mut first).await? == 0;
            match decide(&first) {
                Some(detected) => return Ok::<_, io::Error>(detected),
                None if !ended => {}
                None if first.is_empty() => return Ok(Detected::Nothing),
                // What began like the preface is served as HTTP/2, which says what is wrong with it.
                None if PREFACE.starts_with(&first) && first.len() >= 4 => return Ok(Detected::Http2),
                None => return Ok(Detected::Opaque),
            }
        }
    };
    let detected = match tokio::time::timeout(within, reading).await {
        Ok(detected) => detected?,
        Err(_) => Detected::Undecided,
    };
    Ok((detected, Prefixed { prefix: first.freeze(), io }))
}

/// A connection whose first bytes have been read already; they are read again first.
#[derive(Debug)]
pub struct Prefixed<T> {
    prefix: Bytes,
    io: T,
}

impl<T> Prefixed<T> {
    /// With nothing read yet.
    pub fn fresh(io: T) -> Self {
        Self::with(Bytes::new(), io)
    }

    /// With `prefix` read already.
    pub fn with(prefix: Bytes, io: T) -> Self {
        Self { prefix, io }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let taken = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix[..taken]);
        self.prefix.advance(taken);
        if self.prefix.is_empty() {
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

write_through!(Prefixed);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn first_bytes() {
        let table: &[(&[u8], Option<Detected>)] = &[
            (b"", None),
            (b"GET", None),
            (b"GET /", Some(Detected::Http1)),
            (b"GET http://x/ HTTP/1.1\r\n", Some(Detected::Http1)),
            (b"CONNECT a:1 HTTP/1.1\r\n", Some(Detected::Http1)),
            (b"OPTIONS * HTTP/1.1\r\n", Some(Detected::Http1)),
            (b"M-SEARCH * HTTP/1.1\r\n", Some(Detected::Http1)),
            (b"PRI * HT", None),
            (PREFACE, Some(Detected::Http2)),
            (b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n", Some(Detected::Http2)),
            (b"PRIVATE /x HTTP/1.1\r\n", Some(Detected::Http1)),
            (b"\x16", None),
            (b"\x16\x03\x01", Some(Detected::Tls)),
            (b"\x00\x00", Some(Detected::Opaque)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Detected::Opaque)),
            (b"PING\r\n", Some(Detected::Opaque)),
            (b"EHLO example.com\r\n", Some(Detected::Opaque)),
            (b"SET key value\r\n", Some(Detected::Opaque)),
            (b"\r\n", Some(Detected::Opaque)),
        ];
        for (bytes, expected) in table {
            assert_eq!(decide(bytes), *expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_is_read_again() {
        let (mut peer, io) = tokio::io::duplex(64);
        peer.write_all(b"GET /x HTTP/1.1\r\n").await.expect("room");
        drop(peer);
        let (detected, mut io) = sniff(io, Duration::from_secs(1)).await.expect("readable");
        assert_eq!(detected, Detected::Http1);
        let mut all = String::new();
        io.read_to_string(&mut all).await.expect("readable");
        assert_eq!(all, "GET /x HTTP/1.1\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_undecided_and_an_end_is_nothing() {
        let (peer, io) = tokio::io::duplex(64);
        let (detected, _io) = sniff(io, Duration::from_secs(5)).await.expect("no error");
        assert_eq!(detected, Detected::Undecided);
        drop(peer);
        let (peer, io) = tokio::io::duplex(64);
        drop(peer);
        assert_eq!(sniff(io, Duration::from_secs(5)).await.expect("no error").0, Detected::Nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn a_truncated_preface_is_http2() {
        let (mut peer, io) = tokio::io::duplex(64);
        peer.write_all(b"PRI * HTTP/2.0\r\n").await.expect("room");
        drop(peer);
        assert_eq!(sniff(io, Duration::from_secs(5)).await.expect("no error").0, Detected::Http2);
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_decision(bytes in proptest::collection::vec(any::<u8>(), 1..64)) {
            let mut decided = None;
            for end in 1..=bytes.len() {
                let now = decide(&bytes[..end]);
                if decided.is_some() { prop_assert!(now.is_some()); }
                decided = now;
            }
        }
    }
}
