//! A message body on its way through: whichever codec it comes from, as one type.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{
    h1,
    h2::RecvBody,
    tee::{Copied, Teed},
};

/// What a body failed with; only ever logged or turned into a reset.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body that is handed on frame by frame, never collected.
#[derive(Debug)]
pub enum Body {
    /// None at all.
    Empty,
    /// Our own few words.
    Full(Bytes),
    /// From an HTTP/1 connection.
    Http1(h1::Incoming),
    /// From an HTTP/2 connection.
    Http2(RecvBody),
    /// One that somebody else reads as well.
    Teed(Box<Teed>),
    /// What that one reads.
    Copied(Copied),
}

impl Body {
    /// Of a message received over HTTP/2.
    pub fn from_http2(body: RecvBody) -> Self {
        if http_body::Body::is_end_stream(&body) { Self::Empty } else { Self::Http2(body) }
    }
}

/// A body that has something to do also while nobody reads it.
pub trait Progress {
    /// Does what is possible now, and asks to be woken for more. To be called wherever a body waits for its reader: what
    /// is left of a request goes on while its response cannot be passed on.
    fn poll_progress(&mut self, _cx: &mut Context<'_>) {}
}

impl Progress for Body {
    fn poll_progress(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Http1(incoming) => incoming.poll_progress(cx),
            Self::Teed(teed) => teed.poll_progress(cx),
            _ => {}
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Http1(incoming) => incoming.poll_frame(cx),
            Self::Http2(recv) => Pin::new(recv).poll_frame(cx),
            Self::Teed(teed) => Pin::new(&mut **teed).poll_frame(cx),
            Self::Copied(copied) => Pin::new(copied).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(recv) => recv.is_end_stream(),
            Self::Teed(teed) => teed.is_end_stream(),
            Self::Copied(copied) => copied.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(recv) => recv.size_hint(),
            Self::Teed(teed) => teed.size_hint(),
            Self::Copied(copied) => copied.size_hint(),
        }
    }
}
