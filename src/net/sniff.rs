//! Tells a connection's protocol from its first bytes, and gives those bytes back to whoever serves it.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    time::Instant,
};

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
/// A request line that is longer is one, whatever it ends with.
const LONGEST_LINE: usize = 2048;
/// Room for the first bytes: more than any decision needs, so that a whole request head comes with one read.
const FIRST_READ: usize = 4096;

/// Decides from the bytes so far; `None`: more are needed. However they come in pieces, it is the same.
pub fn decide(bytes: &[u8]) -> Option<Detected> {
    // Servers of HTTP ignore empty lines before a request (RFC 9112 2.2). What they take for HTTP must not pass as bytes.
    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let bytes = &bytes[blank..];
    if bytes.is_empty() {
        return (blank > LONGEST_METHOD).then_some(Detected::Opaque);
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
    let method = bytes.iter().take_while(|byte| is_token(**byte)).count();
    if method == 0 || method > LONGEST_METHOD {
        return Some(Detected::Opaque);
    }
    match &bytes[method..] {
        [] | [b' ' | b'\t'] => None,
        [b' ' | b'\t', target, ..] if target.is_ascii_graphic() || matches!(target, b' ' | b'\t') => {
            // `GET /x HTTP/1.1` and `ok hello` differ only at the line's end: wait for it, within reason.
            let line = bytes.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n');
            match line {
                Some(end) => {
                    Some(if is_request_line(&bytes[..end]) { Detected::Http1 } else { Detected::Opaque })
                }
                None => (bytes.len() >= LONGEST_LINE).then_some(Detected::Http1),
            }
        }
        _ => Some(Detected::Opaque),
    }
}

/// RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What was begun and not gone on with in time: more likely a slow request than anything else that begins like one.
fn unfinished(bytes: &[u8]) -> Detected {
    let method = bytes.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    if method > 0 && bytes[method..].starts_with(b" /") { Detected::Http1 } else { Detected::Undecided }
}

fn is_request_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.windows(6)
        .any(|window| matches!(window[0], b' ' | b'\t') && window[1..].eq_ignore_ascii_case(b"HTTP/"))
}

/// How long a connection may take to show what it carries.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Without a byte. `None`: for ever; whoever connects early and speaks later does no harm.
    pub silent: Option<Duration>,
    /// From the first byte on.
    pub partial: Duration,
}

/// Reads until the protocol is told, the peer ends, or time is over.
pub async fn sniff<T: AsyncRead + Unpin>(
    mut io: T,
    patience: Patience,
) -> io::Result<(Detected, Prefixed<T>)> {
    let mut first = BytesMut::new();
    let detected = read_first(&mut io, &mut first, patience).await?;
    Ok((detected, Prefixed { prefix: first.freeze(), io }))
}

async fn read_first<T: AsyncRead + Unpin>(
    io: &mut T,
    first: &mut BytesMut,
    patience: Patience,
) -> io::Result<Detected> {
    let mut until = patience.silent.map(|silent| Instant::now() + silent);
    loop {
        first.reserve(FIRST_READ);
        let begun = !first.is_empty();
        let reading = io.read_buf(first);
        let read = match until {
            None => reading.await?,
            Some(until) => match tokio::time::timeout_at(until, reading).await {
                Ok(read) => read?,
                Err(_) => return Ok(unfinished(first)),
            },
        };
        match decide(first) {
            Some(detected) => return Ok(detected),
            None if read > 0 && begun => {}
            None if read > 0 => until = Some(Instant::now() + patience.partial),
            None if first.is_empty() => return Ok(Detected::Nothing),
            // What began like the preface is served as HTTP/2, which says what is wrong with it.
            None if PREFACE.starts_with(first) && first.len() >= 4 => return Ok(Detected::Http2),
            None => return Ok(Detected::Opaque),
        }
    }
}

/// How long a client may be silent before the server's side is opened to see whether it speaks first: not at all on ports
/// where servers usually do, else as long as a client that has something to say hardly takes.
pub fn early(port: u16) -> Duration {
    // FTP, SSH, SMTP, POP3, IMAP, submission, MySQL, NATS, VNC.
    match port {
        21 | 22 | 25 | 110 | 143 | 587 | 3306 | 4222 | 5900 => Duration::ZERO,
        _ => Duration::from_millis(10),
    }
}

/// Which of the two sides of a connection spoke first.
#[derive(Debug)]
pub enum Spoken<T, U, E> {
    /// The client, or nobody in time. The server's side may have been opened meanwhile.
    Client(Detected, Prefixed<T>, Option<Prefixed<U>>),
    /// The server, which no client of HTTP or TLS would have waited for: bytes.
    Server(Prefixed<T>, Prefixed<U>),
    /// Nobody: the client waits, and there is no server.
    Nobody(Prefixed<T>, E),
}

/// Whether a server's first bytes are, or may become, the SETTINGS frame of an HTTP/2 connection (RFC 9113 3.4, 6.5): many
/// send it before they have heard anything, and their clients have the first word all the same.
fn is_settings(bytes: &[u8]) -> bool {
    let kind = bytes.get(3).is_none_or(|kind| *kind == 4);
    let flags = bytes.get(4).is_none_or(|flags| *flags == 0);
    // A multiple of 6, and not many.
    let length = bytes.len() < 3 || bytes[..2] == [0, 0] && bytes[2].is_multiple_of(6);
    kind && flags && length && bytes.iter().skip(5).take(4).all(|byte| *byte == 0)
}

/// Tells a connection's protocol where the server may be the first to speak: after `early`, the server's side is opened
/// with `open` while we wait, and whichever side speaks first decides. Where it cannot be opened, the client's bytes do.
pub async fn either<T, U, E>(
    mut io: T,
    patience: Patience,
    early: Duration,
    open: impl Future<Output = Result<U, E>>,
) -> io::Result<Spoken<T, U, E>>
where
    T: AsyncRead + Unpin,
    U: AsyncRead + Unpin,
{
    let (mut first, mut answer) = (BytesMut::new(), BytesMut::new());
    let (mut upstream, mut fault) = (None, None);
    let mut opened = false;
    // The server's first bytes say no more than that it speaks HTTP/2, or it has ended before anything was said.
    let mut waits = false;
    let mut give_up = pin!(tokio::time::sleep(Duration::MAX));
    let told = {
        let mut reading = pin!(read_first(&mut io, &mut first, patience));
        let mut opening = pin!(async {
            tokio::time::sleep(early).await;
            open.await
        });
        loop {
            tokio::select! {
                biased;
                detected = &mut reading => break Some(detected?),
                result = &mut opening, if !opened => {
                    opened = true;
                    match result {
                        Ok(server) => upstream = Some(server),
                        // A client that has something to say may yet, and hears by name what is wrong.
                        Err(error) => {
                            fault = Some(error);
                            let patience = if early.is_zero() { Duration::ZERO } else { patience.partial };
                            give_up.as_mut().reset(Instant::now() + patience);
                        }
                    }
                }
                // That it ended or failed without a word is its word, too: copying finds the same.
                read = read_some(&mut upstream, &mut answer), if upstream.is_some() && !waits => {
                    waits = read.is_ok_and(|read| read > 0) && is_settings(&answer);
                    if !waits {
                        break None;
                    }
                }
                () = &mut give_up, if fault.is_some() => break None,
            }
        }
    };
    let io = Prefixed { prefix: first.freeze(), io };
    let upstream = upstream.map(|io| Prefixed { prefix: answer.freeze(), io });
    Ok(match (told, upstream, fault) {
        (Some(detected), upstream, _) => Spoken::Client(detected, io, upstream),
        (None, Some(upstream), _) => Spoken::Server(io, upstream),
        (None, None, Some(fault)) => Spoken::Nobody(io, fault),
        (None, None, None) => unreachable!("either it was read from, or it failed"),
    })
}

async fn read_some<U: AsyncRead + Unpin>(io: &mut Option<U>, answer: &mut BytesMut) -> io::Result<usize> {
    answer.reserve(FIRST_READ);
    match io {
        Some(io) => io.read_buf(answer).await,
        None => std::future::pending().await,
    }
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

    /// What was read and not read again yet.
    pub fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// The same over another form of the connection.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Prefixed<U> {
        Prefixed { prefix: self.prefix, io: change(self.io) }
    }

    /// Both for themselves.
    pub fn into_parts(self) -> (Bytes, T) {
        (self.prefix, self.io)
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
mod tests;
