//! What stands between hyper's HTTP/1 server and its connection, to say two things that hyper has no words for:
//! interim responses (103 and the like), and refusals of malformed requests in our own name.
//!
//! hyper answers a request that it cannot parse with a bare status line of its own. Such an answer can be told
//! apart: it is the only thing hyper ever writes while no request is being handled.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use http::{Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    error::{Reason, Refusal},
    http::{InterimSink, refusal::Voice},
};

/// Interim responses that may wait to be written, bytes.
const MAX_FIRST: usize = 16 * 1024;

/// What the handler and the guard know together of one connection. Only ever used by one thread: it is `Sync`
/// because hyper wants to be able to send an upgraded connection elsewhere.
#[derive(Debug)]
pub(super) struct Shared {
    voice: Voice,
    /// A request has been taken and its response is not wholly written yet.
    busy: AtomicBool,
    /// The response's body is done; once it is flushed, the connection is idle.
    answered: AtomicBool,
    /// The caller knows interim responses (RFC 9110 15.2: never to HTTP/1.0).
    interim: AtomicBool,
    /// Whether there is anything in `first`.
    has_first: AtomicBool,
    /// Written before anything that hyper writes.
    first: Mutex<Vec<u8>>,
    refused: OnceLock<Reason>,
}

impl Shared {
    pub(super) fn new(voice: Voice) -> Arc<Self> {
        Arc::new(Self {
            voice,
            busy: AtomicBool::default(),
            answered: AtomicBool::default(),
            interim: AtomicBool::default(),
            has_first: AtomicBool::default(),
            first: Mutex::default(),
            refused: OnceLock::new(),
        })
    }

    pub(super) fn request_taken(&self, version: Version) {
        self.interim.store(version >= Version::HTTP_11, Relaxed);
        self.busy.store(true, Relaxed);
        self.answered.store(false, Relaxed);
    }

    pub(super) fn response_ended(&self) {
        self.answered.store(true, Relaxed);
    }

    fn first(&self) -> MutexGuard<'_, Vec<u8>> {
        self.has_first.store(true, Relaxed);
        self.first.lock().expect("nothing panics while holding it")
    }

    /// Why a request was refused below the handler, if one was.
    pub(super) fn refused(&self) -> Option<Reason> {
        self.refused.get().copied()
    }

    /// Turns hyper's own refusal into one that says who and why. `None`: it is none.
    fn refusal(&self, written: &[u8]) -> Option<()> {
        if self.busy.load(Relaxed) || self.refused.get().is_some() {
            return None;
        }
        let status = written.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
        let status = StatusCode::from_bytes(status).ok().filter(StatusCode::is_client_error)?;
        let reason = match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Reason::HeadersTooLarge,
            StatusCode::URI_TOO_LONG => Reason::UriTooLong,
            _ => Reason::MalformedRequest,
        };
        self.refused.set(reason).ok()?;
        *self.first() = self.voice.http1_text(status, &Refusal::from(reason));
        Some(())
    }
}

impl InterimSink for Shared {
    fn interim(&self, response: Response<()>) {
        if !self.interim.load(Relaxed) {
            return;
        }
        let mut first = self.first();
        // Hints that a caller does not read are not worth keeping.
        if first.len() > MAX_FIRST {
            return;
        }
        first.extend_from_slice(format!("HTTP/1.1 {}\r\n", response.status()).as_bytes());
        for (name, value) in response.headers() {
            first.extend_from_slice(name.as_str().as_bytes());
            first.extend_from_slice(b": ");
            first.extend_from_slice(value.as_bytes());
            first.extend_from_slice(b"\r\n");
        }
        first.extend_from_slice(b"\r\n");
    }
}

/// The guarded connection.
pub(super) struct Guarded<T> {
    io: T,
    shared: Arc<Shared>,
}

impl<T> Guarded<T> {
    pub(super) fn new(io: T, shared: Arc<Shared>) -> Self {
        Self { io, shared }
    }

    pub(super) fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncWrite + Unpin> Guarded<T> {
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shared.has_first.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let mut first = self.shared.first();
        while !first.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &first))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            first.drain(..written);
        }
        self.shared.has_first.store(false, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        if self.shared.refusal(buffer).is_some() {
            return Poll::Ready(Ok(buffer.len()));
        }
        ready!(self.poll_first(cx))?;
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if buffers.first().is_some_and(|buffer| self.shared.refusal(buffer).is_some()) {
            return Poll::Ready(Ok(buffers.iter().map(|buffer| buffer.len()).sum()));
        }
        ready!(self.poll_first(cx))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_first(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        if self.shared.answered.load(Relaxed) {
            self.shared.answered.store(false, Relaxed);
            self.shared.busy.store(false, Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_first(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
