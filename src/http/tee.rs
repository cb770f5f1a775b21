//! A body that is read twice: by its receiver as ever, and by somebody else as far as that one keeps up.
//!
//! No reader of a [`Replay`](super::replay::Replay): that one keeps a body from its beginning, and any reader fetches more of it;
//! a copy follows one of any length, and never has more fetched than its receiver takes.

use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::{
    Body,
    body::{BodyError, Progress},
    through::{Hook, Passing},
};

/// What may wait for the second reader, bytes. One that falls further behind has lost the rest.
const MOST_WAITING: usize = 256 * 1024;

/// The body's receiver never waits for the other one.
#[derive(Debug)]
struct Teed(Rc<RefCell<Shared>>);

/// The body for the second reader.
#[derive(Debug)]
pub struct Copied(Rc<RefCell<Shared>>);

/// Tells whether the second reader gets all of it.
#[derive(Debug)]
pub struct Whole(Rc<RefCell<Shared>>);

#[derive(Debug)]
struct Shared {
    waiting: VecDeque<Frame<Bytes>>,
    bytes: usize,
    state: State,
    /// Of what is yet to be read, if that was known.
    hint: SizeHint,
    reader: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    /// The original broke off, or the second reader fell behind.
    Broken,
    /// The second reader is gone.
    Unread,
}

/// Makes two of a body that has not ended.
pub fn tee(body: Body) -> (Body, Copied) {
    let shared = Rc::new(RefCell::new(Shared {
        waiting: VecDeque::new(),
        bytes: 0,
        state: State::Open,
        hint: body.size_hint(),
        reader: None,
    }));
    (body.through(Teed(shared.clone())), Copied(shared))
}

impl Copied {
    /// To ask later.
    pub fn whole(&self) -> Whole {
        Whole(self.0.clone())
    }
}

impl Whole {
    /// `false`: what the second reader got is not all.
    pub fn is_it(&self) -> bool {
        self.0.borrow().state != State::Broken
    }
}

impl Shared {
    fn push(&mut self, frame: &Frame<Bytes>) {
        if self.state != State::Open {
            return;
        }
        let copy = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => {
                self.bytes += data.len();
                Frame::data(data.clone())
            }
            (None, Some(trailers)) => Frame::trailers(trailers.clone()),
            (None, None) => return,
        };
        if self.bytes > MOST_WAITING {
            self.end(State::Broken);
            return;
        }
        self.waiting.push_back(copy);
        self.wake();
    }

    fn end(&mut self, state: State) {
        if self.state == State::Open {
            self.state = state;
            if state == State::Broken {
                self.waiting.clear();
            }
            self.wake();
        }
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Hook for Teed {
    fn pass(&mut self, passing: Passing, rest: &mut Body) -> Passing {
        let mut shared = self.0.borrow_mut();
        match &passing {
            Some(Ok(frame)) => {
                shared.push(frame);
                if rest.is_end_stream() {
                    shared.end(State::Ended);
                }
            }
            Some(Err(_)) => shared.end(State::Broken),
            None => shared.end(State::Ended),
        }
        drop(shared);
        passing
    }

    fn leave(&mut self, rest: &Body) {
        let state = if rest.is_end_stream() { State::Ended } else { State::Broken };
        self.0.borrow_mut().end(state);
    }
}

impl http_body::Body for Copied {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = self.0.borrow_mut();
        if let Some(frame) = shared.waiting.pop_front() {
            let read = frame.data_ref().map_or(0, Bytes::len);
            shared.bytes -= read;
            if let Some(left) = shared.hint.exact() {
                shared.hint = SizeHint::with_exact(left.saturating_sub(read as u64));
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        match shared.state {
            State::Ended => Poll::Ready(None),
            State::Broken | State::Unread => {
                Poll::Ready(Some(Err("the rest of what was copied is lost".into())))
            }
            State::Open => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.0.borrow();
        shared.waiting.is_empty() && shared.state == State::Ended
    }

    fn size_hint(&self) -> SizeHint {
        let hint = &self.0.borrow().hint;
        hint.exact().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Progress for Copied {}

impl Drop for Copied {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.end(State::Unread);
        shared.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn full(length: usize) -> Body {
        Body::Full(Bytes::from(vec![b'x'; length]))
    }

    #[tokio::test]
    async fn both_read_the_same() {
        let (teed, copied) = tee(full(1000));
        assert_eq!(copied.size_hint().exact(), Some(1000));
        let whole = copied.whole();
        let original = teed.collect().await.expect("a body").to_bytes();
        let copy = copied.collect().await.expect("the same").to_bytes();
        assert_eq!(original, copy);
        assert!(whole.is_it());
    }

    #[tokio::test]
    async fn who_falls_behind_loses_the_rest_and_holds_up_nobody() {
        let (teed, copied) = tee(full(MOST_WAITING + 1));
        let whole = copied.whole();
        assert_eq!(teed.collect().await.expect("a body").to_bytes().len(), MOST_WAITING + 1);
        assert!(!whole.is_it());
        copied.collect().await.expect_err("there is no more of it");
    }

    #[tokio::test]
    async fn an_original_that_breaks_off_is_no_whole_copy() {
        let (teed, copied) = tee(full(10));
        drop(teed);
        copied.collect().await.expect_err("nothing came");
        let (teed, copied) = tee(full(10));
        drop(copied);
        assert_eq!(teed.collect().await.expect("a body").to_bytes().len(), 10);
    }
}
