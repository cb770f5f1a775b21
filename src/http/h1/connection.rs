//! What the task that serves a connection shares with whoever reads its request's body, which may be another task: the body
//! reads for itself, and nobody else reads meanwhile; only the server writes.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};

use super::{
    Duplex, Fault, Malformed, body, encode,
    framing::Decoder,
    head::{self, Facts},
    names::Lists,
    wire::{Out, Wire},
};
use crate::http::InterimSink;

/// Interim responses that may wait to be written, bytes.
const MAX_INTERIM: usize = 16 * 1024;
/// Of a body that nobody wants, so much is read over, bytes, to keep the connection for further requests.
const MAX_DISCARDED: usize = 64 * 1024;

/// One caller's connection.
#[derive(Debug)]
pub(super) struct Connection {
    input: RefCell<Input>,
    output: RefCell<Out>,
}

#[derive(Debug)]
struct Input {
    wire: Wire,
    lists: Lists,
    decoder: Decoder,
    /// Who reads the body.
    reader: Reader,
    /// The caller waits to be told to go on (`Expect: 100-continue`), and has neither been told nor begun by itself.
    waits: bool,
    /// The caller knows interim responses (RFC 9110 15.2: never to HTTP/1.0).
    interim: bool,
    /// Of a body that nobody wants, what has been read over.
    discarded: usize,
    fault: Option<Malformed>,
    /// The caller went away amid its body.
    lost: bool,
    /// The task that serves the connection, where the body's reader must wake it.
    server: Option<Waker>,
}

#[derive(Debug)]
enum Reader {
    Nobody,
    /// With the task that waits for more, if one does.
    Body(Option<Waker>),
}

/// A request's head, with what it says of the connection.
type Taken = (Request<()>, Facts);

/// Why a request is not answered.
#[derive(Debug)]
pub(super) enum Beside {
    /// The caller has gone.
    Gone,
    /// Its body is malformed.
    Malformed(Malformed),
}

impl Connection {
    pub(super) fn new(io: Box<dyn Duplex>) -> Rc<Self> {
        let input = Input {
            wire: Wire::new(io),
            lists: Lists::default(),
            decoder: Decoder::Done,
            reader: Reader::Nobody,
            waits: false,
            interim: false,
            discarded: 0,
            fault: None,
            lost: false,
            server: None,
        };
        Rc::new(Self { input: RefCell::new(input), output: RefCell::default() })
    }

    /// Waits for a request's head. `Ok(None)`: the caller has ended the connection.
    pub(super) fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Taken>, Fault>> {
        let mut input = self.input.borrow_mut();
        let input = &mut *input;
        loop {
            let Some(bytes) = ready!(input.wire.poll_head(cx, head::check_request_beginning))? else {
                return Poll::Ready(Ok(None));
            };
            // An empty line before a request is none (RFC 9112 2.2).
            if bytes.len() == 2 {
                continue;
            }
            let (request, mut facts) = head::request(&bytes, &mut input.lists)?;
            input.decoder = std::mem::replace(&mut facts.decoder, Decoder::Done);
            input.interim = request.version() >= http::Version::HTTP_11;
            // Who has sent some of it does not wait.
            input.waits = facts.expects_continue && !input.decoder.is_done() && input.wire.is_empty();
            input.discarded = 0;
            return Poll::Ready(Ok(Some((request, facts))));
        }
    }

    /// Whether nothing has come of a further request.
    pub(super) fn is_idle(&self) -> bool {
        self.input.borrow().wire.is_empty()
    }

    /// Whether the request's body has been read whole.
    pub(super) fn is_body_read(&self) -> bool {
        self.input.borrow().decoder.is_done()
    }

    /// Whether the rest of the request's body will not come, or is too much to read over: nobody wants it.
    pub(super) fn is_body_unwanted(&self) -> bool {
        let input = self.input.borrow();
        // Whoever still waits to be told to go on may send the body, or the next request: nobody could tell which.
        input.waits
            || matches!(input.reader, Reader::Nobody)
                && input.decoder.left().is_some_and(|left| left > MAX_DISCARDED as u64)
    }

    /// What the body's reader found wrong.
    pub(super) fn fault(&self) -> Option<Malformed> {
        self.input.borrow().fault
    }

    /// What the body's reader has found, which the handler is not to blame anybody for.
    pub(super) fn broken(&self) -> Option<Beside> {
        let input = self.input.borrow();
        match input.fault {
            Some(malformed) => Some(Beside::Malformed(malformed)),
            None => input.lost.then_some(Beside::Gone),
        }
    }

    /// What goes on beside the handler: interim responses are written, and the caller is watched. Ready when there is no
    /// use in going on.
    pub(super) fn poll_beside(&self, cx: &mut Context<'_>) -> Poll<Beside> {
        let mut input = self.input.borrow_mut();
        let mut output = self.output.borrow_mut();
        if let Poll::Ready(Err(_)) = input.wire.poll_flush(cx, &mut output) {
            return Poll::Ready(Beside::Gone);
        }
        drop(output);
        input.poll_watch(cx)
    }

    /// The same while a response is being written.
    pub(super) fn poll_watch(&self, cx: &mut Context<'_>) -> Poll<Beside> {
        self.input.borrow_mut().poll_watch(cx)
    }

    /// Waits until the request's body has been read, or given up.
    pub(super) fn poll_body_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut input = self.input.borrow_mut();
        if matches!(input.reader, Reader::Nobody) {
            return Poll::Ready(());
        }
        input.wake_server_from(cx);
        Poll::Pending
    }

    /// Reads over what is left of the body. False: it is too much.
    pub(super) fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<Result<bool, Fault>> {
        self.input.borrow_mut().poll_discard(cx)
    }

    /// What is to be written, with the way to write it.
    pub(super) fn write<R>(
        &self,
        write: impl FnOnce(&mut Out, &mut dyn FnMut(&mut Context<'_>, &mut Out) -> Poll<std::io::Result<()>>) -> R,
    ) -> R {
        let mut flush =
            |cx: &mut Context<'_>, out: &mut Out| self.input.borrow_mut().wire.poll_flush(cx, out);
        write(&mut self.output.borrow_mut(), &mut flush)
    }

    /// The connection, for another protocol, with what has been read of it.
    pub(super) fn hand_over(&self) -> Option<(Box<dyn Duplex>, Bytes)> {
        self.input.borrow_mut().wire.hand_over()
    }

    /// The connection ends, also for a body that is still being read.
    pub(super) fn end(&self) -> Option<Box<dyn Duplex>> {
        let mut input = self.input.borrow_mut();
        if let Reader::Body(Some(waker)) = &mut input.reader {
            waker.wake_by_ref();
        }
        input.wire.end()
    }

    /// The body has a reader from now on.
    pub(super) fn lend(&self) {
        self.input.borrow_mut().reader = Reader::Body(None);
    }

    /// The body's next frame, and whether nothing comes after it.
    pub(super) fn poll_body(&self, cx: &mut Context<'_>) -> Poll<body::Next> {
        let mut input = self.input.borrow_mut();
        let input = &mut *input;
        let Poll::Ready(frame) = input.wire.poll_body(cx, &mut input.decoder) else {
            match &mut input.reader {
                Reader::Body(Some(waker)) if waker.will_wake(cx.waker()) => {}
                reader => *reader = Reader::Body(Some(cx.waker().clone())),
            }
            return Poll::Pending;
        };
        match &frame {
            Some(Err(Fault::Malformed(malformed))) => input.fault = Some(*malformed),
            Some(Err(Fault::Lost(_))) => input.lost = true,
            // Callers need not wait for ever (RFC 9110 10.1.1).
            _ => input.waits = false,
        }
        let ended = input.decoder.is_done();
        Poll::Ready((frame.map(|frame| frame.map_err(Into::into)), ended))
    }

    /// The body has been read, or has failed.
    pub(super) fn take_back(&self, cx: &Context<'_>) {
        let mut input = self.input.borrow_mut();
        input.reader = Reader::Nobody;
        input.wake_server(cx);
    }

    /// The body is not wanted any more.
    pub(super) fn drop_body(&self) {
        let mut input = self.input.borrow_mut();
        input.reader = Reader::Nobody;
        if let Some(server) = input.server.take() {
            server.wake();
        }
    }

    /// What is left of the body, bytes, where that is known.
    pub(super) fn body_left(&self) -> Option<u64> {
        self.input.borrow().decoder.left()
    }
}

impl Input {
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Beside> {
        if let Some(malformed) = self.fault {
            return Poll::Ready(Beside::Malformed(malformed));
        }
        if matches!(self.reader, Reader::Body(_)) {
            // The reader notices when the caller goes, as soon as it reads on.
            self.wake_server_from(cx);
            return Poll::Pending;
        }
        if !self.decoder.is_done() && !self.waits {
            match ready!(self.poll_discard(cx)) {
                Ok(true) => {}
                // The connection ends with the answer.
                Ok(false) => return Poll::Pending,
                Err(Fault::Malformed(malformed)) => return Poll::Ready(Beside::Malformed(malformed)),
                Err(Fault::Lost(_)) => return Poll::Ready(Beside::Gone),
            }
        }
        self.wire.poll_gone(cx).map(|()| Beside::Gone)
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Fault>> {
        while self.discarded <= MAX_DISCARDED {
            match ready!(self.wire.poll_discard(cx, &mut self.decoder))? {
                0 => return Poll::Ready(Ok(true)),
                length => self.discarded += length,
            }
        }
        Poll::Ready(Ok(false))
    }

    /// The task of `cx` serves the connection, and wants to know of the body's end.
    fn wake_server_from(&mut self, cx: &Context<'_>) {
        if !self.server.as_ref().is_some_and(|server| server.will_wake(cx.waker())) {
            self.server = Some(cx.waker().clone());
        }
    }

    /// Unless it is the one that runs just now: it looks again by itself.
    fn wake_server(&mut self, cx: &Context<'_>) {
        if let Some(server) = &self.server
            && !server.will_wake(cx.waker())
        {
            server.wake_by_ref();
        }
    }
}

impl InterimSink for Connection {
    fn interim(&self, response: Response<()>) {
        let (mut input, mut output) = (self.input.borrow_mut(), self.output.borrow_mut());
        // Hints that a caller does not read are not worth keeping.
        if input.interim && output.has_room() && output.buffer().len() <= MAX_INTERIM {
            encode::interim(output.buffer(), &response);
            input.waits &= response.status() != StatusCode::CONTINUE;
        }
    }
}
