//! Ends a response that has begun, when nothing moves any more: no byte of it, and none of its request.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::http::{
    Body,
    body::{BodyError, Progress},
};

/// For how long nothing may move, and when something last did.
#[derive(Debug, Clone)]
pub struct Idle {
    most: Duration,
    last: Rc<Cell<Instant>>,
}

impl Idle {
    /// At `now` something has moved.
    pub fn new(most: Duration, now: Instant) -> Self {
        Self { most, last: Rc::new(Cell::new(now)) }
    }

    /// Has a request's body say when it moves.
    pub fn watch(&self, body: Body) -> Body {
        match body {
            Body::Empty => Body::Empty,
            body => Body::Wrapped(Box::new(Watched { body, last: self.last.clone() })),
        }
    }
}

/// The clock of a response under way.
#[derive(Debug)]
pub(super) struct Watch {
    idle: Idle,
    sleep: Pin<Box<Sleep>>,
}

impl Watch {
    pub(super) fn new(idle: Idle) -> Self {
        idle.last.set(Instant::now());
        let sleep = Box::pin(tokio::time::sleep(idle.most));
        Self { idle, sleep }
    }

    pub(super) fn moved(&self) {
        self.idle.last.set(Instant::now());
    }

    /// Ready when nothing has moved for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            let end = self.idle.last.get() + self.idle.most;
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(end);
        }
        Poll::Pending
    }
}

/// A request's body that says when it moves.
#[derive(Debug)]
struct Watched {
    body: Body,
    last: Rc<Cell<Instant>>,
}

impl Progress for Watched {
    fn poll_progress(&mut self, cx: &mut Context<'_>) {
        self.body.poll_progress(cx);
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.last.set(Instant::now());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whatever_moves_puts_off_the_end() {
        let start = Instant::now();
        let idle = Idle::new(Duration::from_secs(10), start);
        let mut watch = Watch::new(idle.clone());
        let moving = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(6)).await;
                idle.last.set(Instant::now());
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = poll_fn(|cx| watch.poll(cx)) => {}
            () = moving => {}
        }
        assert_eq!(start.elapsed().as_secs(), 28);
    }
}
