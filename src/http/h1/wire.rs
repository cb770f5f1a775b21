//! One connection's bytes: what has been read and not yet taken, and what has not been written yet. Neither holds a buffer
//! while the connection is idle.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::{
    Duplex, Fault, MAX_HEAD, Malformed,
    framing::{Decoder, Step},
    head,
};

/// What one read takes at most, bytes, until a body turns out to be large.
const SCRATCH: usize = 16 * 1024;
/// What one read of a large body takes at most, bytes.
const BULK: usize = 64 * 1024;
/// What may be read ahead of its turn, bytes: further requests of a caller that does not wait for answers.
const MAX_AHEAD: usize = MAX_HEAD;
/// Smaller pieces of a body are copied next to what they go with; larger ones are written from where they are.
const COPIED: usize = 8 * 1024;
/// So much is put together before it is written, bytes.
const ENOUGH: usize = 16 * 1024;

thread_local! {
    /// What all connections of a thread read into, one at a time; each keeps only the bytes that came.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
    /// A buffer for heads that is not in use.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The reading side, and the connection itself.
pub(super) struct Wire {
    /// `None`: it has ended for us.
    io: Option<Box<dyn Duplex>>,
    /// Read, and not yet taken.
    ahead: BytesMut,
    /// How much of `ahead` is known to hold no whole head.
    seen: usize,
    /// After this many bytes the beginning of a head is looked at again: seldom, so that one that comes byte by byte
    /// costs no more than its length.
    check_at: usize,
    /// A large body is being read.
    bulk: bool,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("open", &self.io.is_some()).field("ahead", &self.ahead.len()).finish()
    }
}

impl Wire {
    pub(super) fn new(io: Box<dyn Duplex>) -> Self {
        Self { io: Some(io), ahead: BytesMut::new(), seen: 0, check_at: 0, bulk: false }
    }

    /// Whether nothing has been read that was not taken.
    pub(super) fn is_empty(&self) -> bool {
        self.ahead.is_empty()
    }

    /// The connection, to be served by somebody else, with what has been read of it.
    pub(super) fn hand_over(&mut self) -> Option<(Box<dyn Duplex>, Bytes)> {
        self.io.take().map(|io| (io, std::mem::take(&mut self.ahead).freeze()))
    }

    /// The connection is not read from or written to any more.
    pub(super) fn end(&mut self) -> Option<Box<dyn Duplex>> {
        self.ahead = BytesMut::new();
        self.io.take()
    }

    /// Whether an idle connection can still be used: the peer has neither ended it nor said anything. Costs no system
    /// call unless something has happened.
    pub(super) fn is_fresh(&mut self) -> bool {
        self.ahead.is_empty() && self.poll_read(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Waits for a whole head. `Ok(None)`: the connection has ended, and nothing of one had come.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        check: fn(&[u8]) -> Result<(), Malformed>,
    ) -> Poll<Result<Option<Bytes>, Fault>> {
        loop {
            if !self.ahead.is_empty() {
                let end = head::end(&self.ahead, self.seen);
                // Of what is too large, only its beginning says what it is.
                if end.is_err() {
                    check(&self.ahead)?;
                }
                if let Some(end) = end? {
                    self.seen = 0;
                    self.check_at = 0;
                    let head = self.ahead.split_to(end).freeze();
                    self.release();
                    return Poll::Ready(Ok(Some(head)));
                }
                self.seen = self.ahead.len();
                if self.seen >= self.check_at {
                    check(&self.ahead)?;
                    self.check_at = 2 * self.seen;
                }
            }
            if ready!(self.poll_read(cx))? == 0 {
                check(&self.ahead)?;
                return Poll::Ready(match self.ahead.is_empty() {
                    true => Ok(None),
                    false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                });
            }
        }
    }

    /// Waits for the next piece of a body. `None`: it has ended.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &mut Decoder,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        loop {
            let frame = match decoder.step(&mut self.ahead) {
                Ok(Step::More) => None,
                Ok(Step::Data(data)) => Some(Ok(Frame::data(data))),
                Ok(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Ok(Step::End) => {
                    self.end_body();
                    return Poll::Ready(None);
                }
                Err(malformed) => Some(Err(malformed.into())),
            };
            if frame.is_some() {
                if decoder.is_done() {
                    self.end_body();
                }
                return Poll::Ready(frame);
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) if decoder.end_of_connection() => {}
                Ok(0) => {
                    return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())));
                }
                // As large pieces as it comes in.
                Ok(length) => self.bulk = length >= SCRATCH,
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// Reads and drops bytes of a body. Gives how many; 0 at its end.
    pub(super) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &mut Decoder,
    ) -> Poll<Result<usize, Fault>> {
        Poll::Ready(match ready!(self.poll_body(cx, decoder)) {
            None => Ok(0),
            Some(frame) => frame.map(|frame| frame.data_ref().map_or(0, Bytes::len)),
        })
    }

    /// Reads ahead, only to notice when the peer goes away; ready when it has. What it says meanwhile is kept, up to a bound.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.ahead.len() < MAX_AHEAD {
            match ready!(self.poll_read(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Writes what waits in `out`.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, out: &mut Out) -> Poll<io::Result<()>> {
        match &mut self.io {
            Some(io) => out.poll_flush(cx, io),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn end_body(&mut self) {
        self.bulk = false;
        self.release();
    }

    fn release(&mut self) {
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(0)) };
        if self.bulk {
            // What is left of the buffer after a piece was taken off it serves as long as it is not small.
            if self.ahead.capacity() - self.ahead.len() < SCRATCH {
                self.ahead.reserve(BULK);
            }
            return pin!(io.read_buf(&mut self.ahead)).poll(cx);
        }
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        READ.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
            self.ahead.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }
}

/// What waits to be written: small things put together, then at most one large piece, then what ends it.
#[derive(Debug, Default)]
pub(super) struct Out {
    buffer: Vec<u8>,
    /// Of `buffer`, how much has been written.
    sent: usize,
    piece: Bytes,
    tail: &'static [u8],
    /// Something has been written that the connection may hold back.
    unflushed: bool,
    /// Anything at all has been written since the last [`Self::reset`].
    written: bool,
}

impl Out {
    /// A message begins.
    pub(super) fn reset(&mut self) {
        self.written = false;
    }

    /// Whether the connection has taken anything of the message.
    pub(super) fn has_written(&self) -> bool {
        self.written
    }

    /// Whether everything has been written.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.piece.is_empty() && self.tail.is_empty() && !self.unflushed
    }

    /// Whether more may be added before this is written.
    pub(super) fn has_room(&self) -> bool {
        self.piece.is_empty() && self.tail.is_empty() && self.buffer.len() - self.sent < ENOUGH
    }

    /// Where small things are written to; only while there is room.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        debug_assert!(
            self.piece.is_empty() && self.tail.is_empty(),
            "what is added now would come too early"
        );
        if self.buffer.capacity() == 0 {
            self.buffer = SPARE.take();
        }
        &mut self.buffer
    }

    /// A piece of a body and what follows it; only while there is room.
    pub(super) fn push_data(&mut self, data: Bytes, tail: &'static [u8]) {
        if data.len() <= COPIED {
            let buffer = self.buffer();
            buffer.extend_from_slice(&data);
            buffer.extend_from_slice(tail);
        } else {
            self.piece = data;
            self.tail = tail;
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, io: &mut Box<dyn Duplex>) -> Poll<io::Result<()>> {
        while !(self.buffer.is_empty() && self.piece.is_empty() && self.tail.is_empty()) {
            let first = &self.buffer[self.sent..];
            let written = if self.piece.is_empty() && self.tail.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, first))?
            } else if io.is_write_vectored() {
                let slices = [IoSlice::new(first), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices))?
            } else {
                let slice = [first, &self.piece, self.tail].into_iter().find(|slice| !slice.is_empty());
                ready!(Pin::new(&mut *io).poll_write(cx, slice.expect("something waits")))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.written = true;
            self.advance(written);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        let of_buffer = written.min(self.buffer.len() - self.sent);
        self.sent += of_buffer;
        written -= of_buffer;
        if self.sent == self.buffer.len() {
            self.sent = 0;
            self.buffer.clear();
            if self.buffer.capacity() > 0 && self.buffer.capacity() <= MAX_HEAD {
                SPARE.set(std::mem::take(&mut self.buffer));
            } else {
                self.buffer = Vec::new();
            }
        }
        let of_piece = written.min(self.piece.len());
        self.piece.advance(of_piece);
        if self.piece.is_empty() {
            self.piece = Bytes::new();
        }
        self.tail = &self.tail[written - of_piece..];
    }
}
