//! A message body on its way through: whichever codec it comes from, as one type.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{h1, h2::RecvBody};
use crate::error::Reason;

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
    /// Something is done to another body on its way.
    Wrapped(Box<dyn Wrapped>),
    /// Any of these, which can be had back until it is read from.
    Lent(Lent),
}

/// A body that may only be so long, and does not say how long it is.
#[derive(Debug)]
pub struct Limited {
    body: Body,
    left: u64,
    too_large: Rc<Cell<bool>>,
}

impl Limited {
    /// It fails, and sets `too_large`, with the first byte beyond `most`.
    pub fn new(body: Body, most: u64, too_large: Rc<Cell<bool>>) -> Self {
        Self { body, left: most, too_large }
    }
}

impl Progress for Limited {
    fn poll_progress(&mut self, cx: &mut Context<'_>) {
        self.body.poll_progress(cx);
    }
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            match this.left.checked_sub(data.len() as u64) {
                Some(left) => this.left = left,
                None => {
                    this.too_large.set(true);
                    this.body = Body::Empty;
                    return Poll::Ready(Some(Err(Reason::BodyTooLarge.text().into())));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that does something to another one.
pub trait Wrapped:
    http_body::Body<Data = Bytes, Error = BodyError> + Progress + std::fmt::Debug + Unpin + 'static
{
}

impl<B> Wrapped for B where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Progress + std::fmt::Debug + Unpin + 'static
{
}

/// What is left to whoever lent a body.
#[derive(Debug, Clone)]
pub struct Lent(Rc<RefCell<Option<Box<Body>>>>);

impl Lent {
    /// The body, if nobody has begun to read it.
    pub fn back(&self) -> Option<Body> {
        self.with(Option::take).map(|body| *body)
    }

    fn with<T>(&self, what: impl FnOnce(&mut Option<Box<Body>>) -> T) -> T {
        what(&mut self.0.borrow_mut())
    }
}

impl Body {
    /// Of a message received over HTTP/2.
    pub fn from_http2(body: RecvBody) -> Self {
        if http_body::Body::is_end_stream(&body) { Self::Empty } else { Self::Http2(body) }
    }

    /// Makes it one that can be had back.
    pub fn lend(&mut self) -> Lent {
        let lent = Lent(Rc::new(RefCell::new(Some(Box::new(std::mem::replace(self, Self::Empty))))));
        *self = Self::Lent(lent.clone());
        lent
    }
}

/// A body that has something to do also while nobody reads it.
pub trait Progress {
    /// Does what is possible now, and asks to be woken for more. To be called wherever a body waits for its reader: what
    /// is left of a request goes on while its response cannot be passed on.
    fn poll_progress(&mut self, _cx: &mut Context<'_>) {}

    /// What the sidecar itself has to say at the end, to another one. Asked for when the body has ended, by whoever can write
    /// trailers that are not the application's.
    fn last_words(&mut self) -> Option<HeaderMap> {
        None
    }
}

impl Progress for Body {
    fn poll_progress(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Http1(incoming) => incoming.poll_progress(cx),
            Self::Wrapped(body) => body.poll_progress(cx),
            Self::Lent(lent) => lent.with(|body| {
                if let Some(body) = body {
                    body.poll_progress(cx);
                }
            }),
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
            Self::Wrapped(body) => Pin::new(body).poll_frame(cx),
            Self::Lent(lent) => match lent.back() {
                Some(body) => {
                    *this = body;
                    Pin::new(this).poll_frame(cx)
                }
                None => Poll::Ready(Some(Err("the body was taken back".into()))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(recv) => recv.is_end_stream(),
            Self::Wrapped(body) => body.is_end_stream(),
            Self::Lent(lent) => lent.with(|body| body.as_ref().is_some_and(|body| body.is_end_stream())),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(recv) => recv.size_hint(),
            Self::Wrapped(body) => body.size_hint(),
            Self::Lent(lent) => {
                lent.with(|body| body.as_ref().map_or_else(SizeHint::default, |body| body.size_hint()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_body_comes_back_until_it_is_read_from() {
        let full = || Body::Full(Bytes::from_static(b"abc"));
        let mut body = full();
        let lent = body.lend();
        assert_eq!(
            (http_body::Body::size_hint(&body).exact(), http_body::Body::is_end_stream(&body)),
            (Some(3), false)
        );
        drop(body);
        let back = lent.back().expect("nobody has read it");
        assert_eq!(back.collect().await.expect("a body").to_bytes(), "abc");

        let mut body = full();
        let lent = body.lend();
        assert_eq!(body.collect().await.expect("a body").to_bytes(), "abc");
        assert!(lent.back().is_none());

        let mut empty = Body::Empty;
        empty.lend();
        assert!(http_body::Body::is_end_stream(&empty));
    }
}
