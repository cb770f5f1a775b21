//! A request's body that can be sent again, by a retry, a hedge or a fallback: what has been sent of it is kept, up to a bound.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::body::{Body, BodyError, Progress};

/// The most of a body that is kept where no policy says how much, bytes.
pub const USUAL: usize = 64 * 1024;
/// What a frame counts for at least: keeping many small ones costs, too.
const LEAST: usize = 64;
/// Whoever is ahead waits for readers that are behind, since no more is kept than may be; but no longer than this in all, or one
/// that is slow would slow down the others to the end.
const PATIENCE: Duration = Duration::from_millis(250);

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
    /// From the beginning, as long as `keeping`; then, what readers that are behind have yet to read.
    kept: VecDeque<Kept>,
    /// Frames before those that are kept.
    gone: usize,
    keeping: bool,
    size: usize,
    most: usize,
    room: Rc<Room>,
    /// Who may want another reader.
    replays: usize,
    readers: Vec<Seat>,
    /// Frames that the source has given.
    passed: usize,
    ended: bool,
    /// Readers that wait for the source, which wakes only whoever asked last, or for one another.
    waiting: Vec<Waker>,
}

#[derive(Debug)]
struct Seat {
    place: Place,
    /// Told when others do not wait for that reader any longer.
    overtaken: Option<Rc<Cell<bool>>>,
}

/// Where a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It has read so many frames.
    At(usize),
    /// What it would read next is gone.
    Overtaken,
    /// There is none any more.
    Free,
}

#[derive(Debug)]
struct Kept {
    frame: Part,
    /// Room that it takes.
    size: usize,
}

#[derive(Debug, Clone)]
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Replay {
    /// Keeps at most `most` bytes of a body, if there is `room`, or more where somebody else wants more of it. Gives its first
    /// reader, too.
    pub fn of(body: Body, most: usize, room: &Rc<Room>) -> (Body, Self) {
        let reader = match body {
            Body::Kept(reader) if reader.place() == Place::At(0) => reader,
            source => Reader::of(&Rc::new(RefCell::new(State::new(source, room.clone())))),
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
        let whole = {
            let state = self.0.borrow();
            state.keeping || state.passed == 0
        };
        whole.then(|| Body::Kept(Reader::of(&self.0)))
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        let mut state = self.0.borrow_mut();
        state.replays -= 1;
        state.keeping &= state.replays > 0;
    }
}

/// What a reader gets.
enum Polled {
    Frame(Poll<Option<Result<Frame<Bytes>, BodyError>>>),
    /// Another one has to go on first.
    HeldBack,
}

impl State {
    fn new(source: Body, room: Rc<Room>) -> Self {
        Self {
            source,
            kept: VecDeque::new(),
            gone: 0,
            keeping: true,
            size: 0,
            most: 0,
            room,
            replays: 0,
            readers: Vec::with_capacity(1),
            passed: 0,
            ended: false,
            waiting: Vec::new(),
        }
    }

    fn enter(&mut self) -> usize {
        let free = self.readers.iter().position(|seat| seat.place == Place::Free);
        let reader = free.unwrap_or(self.readers.len());
        let seat = Seat { place: Place::At(0), overtaken: None };
        match free {
            Some(free) => self.readers[free] = seat,
            None => self.readers.push(seat),
        }
        reader
    }

    /// How far the last reader is. `None`: there is none.
    fn last(&self) -> Option<usize> {
        let places = self.readers.iter().filter_map(|seat| match seat.place {
            Place::At(read) => Some(read),
            Place::Overtaken | Place::Free => None,
        });
        places.min()
    }

    /// Lets go of what everybody has read.
    fn trim(&mut self) {
        if self.keeping {
            return;
        }
        let last = self.last().unwrap_or(self.passed);
        while self.gone < last
            && let Some(kept) = self.kept.pop_front()
        {
            self.gone += 1;
            self.size -= kept.size;
            self.room.give_back(kept.size);
        }
    }

    /// Leaves behind whoever is not here yet.
    fn overtake(&mut self) {
        self.keeping = false;
        let passed = self.passed;
        for seat in &mut self.readers {
            if matches!(seat.place, Place::At(read) if read < passed) {
                seat.place = Place::Overtaken;
                if let Some(overtaken) = &seat.overtaken {
                    overtaken.set(true);
                }
            }
        }
        self.trim();
    }

    /// Keeps a frame that one of the readers gets now.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let part = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Part::Data(data.clone()),
            (_, Some(trailers)) => Part::Trailers(trailers.clone()),
            (None, None) => return,
        };
        let size = match &part {
            Part::Data(data) => data.len().max(LEAST),
            Part::Trailers(trailers) => LEAST * (trailers.len() + 1),
        };
        let alone = self.readers.iter().filter(|seat| matches!(seat.place, Place::At(_))).count() == 1;
        if alone && !self.keeping {
            return;
        }
        let fits = self.size + size <= self.most && self.room.take(size);
        self.keeping &= fits;
        self.trim();
        if fits || !alone {
            // One frame beyond the bound, for those beside; there is no other before all of them have read it.
            let size = if fits { size } else { 0 };
            self.size += size;
            self.kept.push_back(Kept { frame: part, size });
        }
    }

    fn poll(&mut self, reader: usize, cx: &mut Context<'_>) -> Polled {
        let Place::At(read) = self.readers[reader].place else {
            return Polled::Frame(Poll::Ready(Some(Err(
                "what was sent of the body is no longer kept".into()
            ))));
        };
        if let Some(kept) = read.checked_sub(self.gone).and_then(|place| self.kept.get(place)) {
            let frame = match kept.frame.clone() {
                Part::Data(data) => Frame::data(data),
                Part::Trailers(trailers) => Frame::trailers(trailers),
            };
            self.readers[reader].place = Place::At(read + 1);
            self.trim();
            self.wake();
            return Polled::Frame(Poll::Ready(Some(Ok(frame))));
        }
        self.trim();
        if self.ended {
            return Polled::Frame(Poll::Ready(None));
        }
        let full = self.size >= self.most || self.kept.back().is_some_and(|kept| kept.size == 0);
        if full && self.last().is_some_and(|last| last < read) {
            self.wait(cx);
            return Polled::HeldBack;
        }
        let Poll::Ready(frame) = Pin::new(&mut self.source).poll_frame(cx) else {
            self.wait(cx);
            return Polled::Frame(Poll::Pending);
        };
        self.wake();
        match &frame {
            Some(Ok(frame)) => {
                self.readers[reader].place = Place::At(read + 1);
                self.keep(frame);
                self.passed += 1;
                self.gone = self.passed - self.kept.len();
                self.ended = self.source.is_end_stream();
            }
            Some(Err(_)) => {
                self.passed += 1;
                self.readers[reader].place = Place::At(self.passed);
                self.overtake();
                self.gone = self.passed;
            }
            None => self.ended = true,
        }
        Polled::Frame(Poll::Ready(frame))
    }

    fn wait(&mut self, cx: &mut Context<'_>) {
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
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
    /// Which of them.
    number: usize,
    /// For how long it still waits for others.
    patience: Duration,
    /// Since when it waits for one, and until when.
    held_back: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Reader {
    fn of(state: &Rc<RefCell<State>>) -> Self {
        let number = state.borrow_mut().enter();
        Self { state: state.clone(), number, patience: PATIENCE, held_back: None }
    }

    fn place(&self) -> Place {
        self.state.borrow().readers[self.number].place
    }

    /// Whether others have not waited for it, so that it ends too soon, which is the fault of nobody who got it.
    pub fn overtaken(&self) -> Rc<Cell<bool>> {
        self.state.borrow_mut().readers[self.number].overtaken.get_or_insert_default().clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        state.readers[self.number] = Seat { place: Place::Free, overtaken: None };
        state.trim();
        // It may have been the one that the source would wake, or that others wait for.
        state.wake();
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
        let mut state = this.state.borrow_mut();
        loop {
            match state.poll(this.number, cx) {
                Polled::Frame(frame) => {
                    if let Some((since, _)) = this.held_back.take() {
                        this.patience = this.patience.saturating_sub(since.elapsed());
                    }
                    return frame;
                }
                Polled::HeldBack => {}
            }
            let patience = this.patience;
            let (_, until) =
                this.held_back.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(patience))));
            if until.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            state.overtake();
            state.wake();
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        state.ended && state.readers[self.number].place == Place::At(state.passed)
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.state.borrow();
        if state.passed == 0 { state.source.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests;
