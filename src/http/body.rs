//! A message body on its way through: whichever codec it comes from, as one type.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{h1, h2::RecvBody, replay::Reader};

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
    /// One of which what is read is kept.
    Kept(Reader),
    /// One whose first frame has come already.
    Peeked(Box<Peeked>),
}

/// A body, and what it begins with.
#[derive(Debug)]
pub struct Peeked {
    first: Option<Result<Frame<Bytes>, BodyError>>,
    body: Body,
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

impl Body {
    /// Of a message received over HTTP/2.
    pub fn from_http2(body: RecvBody) -> Self {
        if http_body::Body::is_end_stream(&body) { Self::Empty } else { Self::Http2(body) }
    }

    /// Ready once its first frame is there, or its end. It is still to be read.
    pub fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Empty | Self::Peeked(_) = self {
            return Poll::Ready(());
        }
        let first = ready!(http_body::Body::poll_frame(Pin::new(&mut *self), cx));
        let body = std::mem::replace(self, Self::Empty);
        if first.is_some() {
            *self = Self::Peeked(Box::new(Peeked { first, body }));
        }
        Poll::Ready(())
    }

    /// Its trailers, where it is known to begin with them: nothing else will come.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        match self {
            Self::Peeked(peeked) => peeked.first.as_ref()?.as_ref().ok()?.trailers_ref(),
            _ => None,
        }
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
            Self::Kept(reader) => reader.poll_progress(cx),
            Self::Peeked(peeked) => peeked.body.poll_progress(cx),
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
            Self::Kept(reader) => Pin::new(reader).poll_frame(cx),
            Self::Peeked(peeked) => match peeked.first.take() {
                Some(first) => Poll::Ready(Some(first)),
                None => {
                    *this = std::mem::replace(&mut peeked.body, Self::Empty);
                    Pin::new(this).poll_frame(cx)
                }
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
            Self::Kept(reader) => reader.is_end_stream(),
            Self::Peeked(peeked) => peeked.first.is_none() && peeked.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(recv) => recv.size_hint(),
            Self::Wrapped(body) => body.size_hint(),
            Self::Kept(reader) => reader.size_hint(),
            // Of what has been read, only its length is known now.
            Self::Peeked(peeked) if peeked.first.is_none() => peeked.body.size_hint(),
            Self::Peeked(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn who_looks_at_the_first_frame_takes_nothing_away() {
        let mut body = Body::Full(Bytes::from_static(b"abc"));
        std::future::poll_fn(|cx| body.poll_first(cx)).await;
        std::future::poll_fn(|cx| body.poll_first(cx)).await;
        assert!(body.trailers().is_none() && !http_body::Body::is_end_stream(&body));
        assert_eq!(body.collect().await.expect("a body").to_bytes(), "abc");

        let mut empty = Body::Full(Bytes::new());
        std::future::poll_fn(|cx| empty.poll_first(cx)).await;
        assert_eq!(empty.collect().await.expect("a body").to_bytes(), "");

        let trailers = HeaderMap::from_iter([(http::header::AGE, http::HeaderValue::from_static("7"))]);
        let first = Some(Ok(Frame::trailers(trailers.clone())));
        let mut body = Body::Peeked(Box::new(Peeked { first, body: Body::Empty }));
        assert_eq!(body.trailers(), Some(&trailers));
        assert!(!http_body::Body::is_end_stream(&body));
        let frame = body.frame().await.expect("trailers").expect("trailers");
        assert_eq!(frame.trailers_ref(), Some(&trailers));
        assert!(http_body::Body::is_end_stream(&body) && body.frame().await.is_none());
    }
}
