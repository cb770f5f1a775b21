//! A request's body that can be sent again, by a retry, a hedge or a fallback: what has been sent of it is kept, up to a bound.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use super::body::{Body, BodyError, Progress};

/// The most of a body that is kept where no policy says how much, bytes.
pub const USUAL: usize = 64 * 1024;
/// What a frame counts for at least: keeping many small ones costs, too.
const LEAST: usize = 64;

/// Room for all the bodies that one thread keeps, bytes.
#[derive(Debug)]
pub struct Room(Cell<usize>);

impl Room {
    /// So much.
    pub fn new(bytes: usize) -> Rc<Self> {
        Rc::new(Self(Cell::new(bytes)))
    }

    fn take(&self, bytes: usize) -> bool {
        let rest = self.0.get().checked_sub(bytes);
        rest.inspect(|rest| self.0.set(*rest)).is_some()
    }

    fn give_back(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes);
    }
}

/// A body of which each attempt has a reader of its own. When the last of them is dropped, there will be no other reader.
#[derive(Debug)]
pub struct Replay(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    source: Body,
    /// From the beginning, as long as `keeping`.
    kept: Vec<Kept>,
    keeping: bool,
    size: usize,
    most: usize,
    room: Rc<Room>,
    /// Who may want another reader.
    replays: usize,
    /// Frames that the source has given.
    passed: usize,
    ended: bool,
    /// Readers that wait for the source: it wakes only whoever asked last.
    waiting: Vec<Waker>,
}

#[derive(Debug, Clone)]
enum Kept {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Replay {
    /// Keeps at most `most` bytes of a body, if there is `room`, or more where somebody else wants more of it. Gives its first
    /// reader, too.
    pub fn of(body: Body, most: usize, room: &Rc<Room>) -> (Body, Self) {
        let reader = match body {
            Body::Kept(reader) if reader.next == 0 => reader,
            source => Reader { state: Rc::new(RefCell::new(State::new(source, room.clone()))), next: 0 },
        };
        let replay = Self(reader.state.clone());
        {
            let mut state = reader.state.borrow_mut();
            state.most = state.most.max(most);
            state.replays += 1;
        }
        (Body::Kept(reader), replay)
    }

    /// The whole body, from its beginning. `None`: more of it has been sent than is kept.
    pub fn reader(&self) -> Option<Body> {
        let state = self.0.borrow();
        let whole = state.keeping || state.passed == 0;
        whole.then(|| Body::Kept(Reader { state: self.0.clone(), next: 0 }))
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        let mut state = self.0.borrow_mut();
        state.replays -= 1;
        state.keeping &= state.replays > 0;
    }
}

impl State {
    fn new(source: Body, room: Rc<Room>) -> Self {
        Self {
            source,
            kept: Vec::new(),
            keeping: true,
            size: 0,
            most: 0,
            room,
            replays: 0,
            passed: 0,
            ended: false,
            waiting: Vec::new(),
        }
    }

    fn forget(&mut self) {
        self.keeping = false;
        self.kept = Vec::new();
        self.room.give_back(std::mem::take(&mut self.size));
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        let kept = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Kept::Data(data.clone()),
            (_, Some(trailers)) => Kept::Trailers(trailers.clone()),
            (None, None) => return self.forget(),
        };
        let size = match &kept {
            Kept::Data(data) => data.len().max(LEAST),
            Kept::Trailers(trailers) => LEAST * (trailers.len() + 1),
        };
        if self.size + size > self.most || !self.room.take(size) {
            return self.forget();
        }
        self.size += size;
        self.kept.push(kept);
    }

    fn poll(
        &mut self,
        next: &mut usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(kept) = self.kept.get(*next) {
            *next += 1;
            return Poll::Ready(Some(Ok(match kept.clone() {
                Kept::Data(data) => Frame::data(data),
                Kept::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        if *next < self.passed {
            return Poll::Ready(Some(Err("what was sent of the body is no longer kept".into())));
        }
        if !self.keeping && self.size > 0 {
            self.forget();
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match Pin::new(&mut self.source).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    self.waiting.push(cx.waker().clone());
                }
                return Poll::Pending;
            }
        };
        self.wake();
        match &frame {
            Some(Ok(frame)) => {
                if self.keeping {
                    self.keep(frame);
                }
                self.passed += 1;
                *next = self.passed;
                self.ended = self.source.is_end_stream();
            }
            Some(Err(_)) => {
                self.forget();
                self.passed += 1;
            }
            None => self.ended = true,
        }
        Poll::Ready(frame)
    }

    fn wake(&mut self) {
        for waker in self.waiting.drain(..) {
            waker.wake();
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.room.give_back(self.size);
    }
}

/// One attempt's body.
#[derive(Debug)]
pub struct Reader {
    state: Rc<RefCell<State>>,
    next: usize,
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It may have been the one that the source would wake.
        self.state.borrow_mut().wake();
    }
}

impl Progress for Reader {
    fn poll_progress(&mut self, cx: &mut Context<'_>) {
        self.state.borrow_mut().source.poll_progress(cx);
    }
}

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        this.state.borrow_mut().poll(&mut this.next, cx)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        state.ended && self.next == state.passed
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.state.borrow();
        if state.passed == 0 { state.source.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// Gives its frames one by one, each only when asked twice.
    #[derive(Debug)]
    struct Slowly(Vec<&'static [u8]>, bool);

    impl Progress for Slowly {}

    impl http_body::Body for Slowly {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            self.1 = !self.1;
            if self.1 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.0.remove(0))))))
        }
    }

    fn slowly(frames: &[&'static [u8]]) -> Body {
        Body::Wrapped(Box::new(Slowly(frames.to_vec(), false)))
    }

    fn replay(source: Body, most: usize, room: &Rc<Room>) -> Replay {
        Replay::of(source, most, room).1
    }

    async fn all(body: Body) -> Result<Bytes, BodyError> {
        Ok(body.collect().await?.to_bytes())
    }

    #[tokio::test]
    async fn every_reader_gets_all_of_it_also_two_at_a_time() {
        let room = Room::new(1000);
        let replay = replay(slowly(&[b"one", b"two", b"three"]), 1000, &room);
        let (first, second) = (replay.reader().expect("whole"), replay.reader().expect("whole"));
        let (first, second) = tokio::join!(all(first), all(second));
        assert_eq!(first.expect("whole"), "onetwothree");
        assert_eq!(second.expect("whole"), "onetwothree");
        assert_eq!(all(replay.reader().expect("still whole")).await.expect("whole"), "onetwothree");
        assert_eq!(room.0.get(), 1000 - 3 * LEAST);
        drop(replay);
        assert_eq!(room.0.get(), 1000);
    }

    #[tokio::test]
    async fn a_reader_that_is_dropped_leaves_nobody_asleep() {
        let replay = replay(slowly(&[b"one", b"two"]), 1000, &Room::new(1000));
        let (first, second) = (replay.reader().expect("whole"), replay.reader().expect("whole"));
        let mut reading = Box::pin(all(second));
        assert!(futures_util::poll!(&mut reading).is_pending());
        drop(first);
        assert_eq!(reading.await.expect("whole"), "onetwo");
    }

    #[tokio::test]
    async fn beyond_a_bound_it_is_sent_once_only() {
        const BIG: &[u8] = &[7; 200];
        for (most, room) in [(300, 1000), (1000, 300)] {
            let room = Room::new(room);
            let whole = room.0.get();
            let replay = replay(slowly(&[BIG, BIG, BIG]), most, &room);
            let (first, behind) = (replay.reader().expect("whole"), replay.reader().expect("whole"));
            assert_eq!(all(first).await.expect("whole").len(), 600);
            assert!(replay.reader().is_none());
            assert!(all(behind).await.is_err(), "half a body is none");
            assert_eq!(room.0.get(), whole, "nothing is kept any more");
        }
    }

    #[tokio::test]
    async fn what_is_released_is_kept_no_longer_than_needed() {
        let room = Room::new(1000);
        let replay = replay(slowly(&[b"one", b"two"]), 1000, &room);
        let mut reader = replay.reader().expect("whole");
        reader.frame().await.expect("a frame").expect("data");
        drop(replay);
        assert_eq!(room.0.get(), 1000 - LEAST);
        assert_eq!(all(reader).await.expect("the rest"), "two");
        assert_eq!(room.0.get(), 1000);
    }

    #[tokio::test]
    async fn two_who_may_repeat_it_keep_it_once_and_for_the_one_who_wants_more() {
        let room = Room::new(1000);
        let (body, fallback) = Replay::of(slowly(&[b"one", b"two"]), 100, &room);
        let (body, retries) = Replay::of(body, 1000, &room);
        assert_eq!(all(body).await.expect("whole"), "onetwo");
        assert_eq!(room.0.get(), 1000 - 2 * LEAST);
        drop(retries);
        let body = fallback.reader().expect("still whole");
        drop(fallback);
        assert_eq!(all(body).await.expect("whole"), "onetwo");
        assert_eq!(room.0.get(), 1000);
    }
}
