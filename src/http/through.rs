//! A body that something is done to on its way: a hook sees what passes, all else stays the body's own.

use std::{
    fmt::Debug,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{
    Body,
    body::{BodyError, Progress},
};

/// What passes: a frame, a failure, or the end.
pub type Passing = Option<Result<Frame<Bytes>, BodyError>>;

/// What is done to a body.
pub trait Hook: Debug + Unpin + 'static {
    /// Something passes, and `rest` is to come. What is given instead goes on.
    fn pass(&mut self, passing: Passing, rest: &mut Body) -> Passing;

    /// Nobody reads any further.
    fn leave(&mut self, _rest: &Body) {}
}

impl Body {
    /// The same with something done to it.
    #[must_use]
    pub fn through(self, hook: impl Hook) -> Self {
        Self::Wrapped(Box::new(Through { body: self, hook }))
    }
}

#[derive(Debug)]
struct Through<H: Hook> {
    body: Body,
    hook: H,
}

impl<H: Hook> http_body::Body for Through<H> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Passing> {
        let Self { body, hook } = self.get_mut();
        let passing = ready!(Pin::new(&mut *body).poll_frame(cx));
        Poll::Ready(hook.pass(passing, body))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<H: Hook> Progress for Through<H> {
    fn poll_progress(&mut self, cx: &mut Context<'_>) {
        self.body.poll_progress(cx);
    }

    fn last_words(&mut self) -> Option<HeaderMap> {
        self.body.last_words()
    }
}

impl<H: Hook> Drop for Through<H> {
    fn drop(&mut self) {
        self.hook.leave(&self.body);
    }
}
