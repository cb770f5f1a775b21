//! The calling side of an HTTP/1 connection. It is a value, not a task: whoever waits for a response, or reads one, drives
//! it, and sends what is left of the request meanwhile.

use std::{
    future::poll_fn,
    rc::Weak,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use tokio::time::Instant;

use super::{
    Duplex, Fault, Malformed,
    body::{self, Incoming},
    encode,
    framing::Decoder,
    head::{self, Facts},
    names::Lists,
    sending::{Sending, Unsent},
    wire::{Out, Wire},
};
use crate::{
    error::{Reason, Refusal},
    http::{Body, InterimSink, body::BodyError, headers, upgrade},
    telemetry::hops::Timeline,
};

/// Where a connection goes when its exchange is over.
pub trait Home {
    /// It can carry another one.
    fn take_back(&self, connection: Box<Http1>);
}

/// One connection; carries one request at a time. Dropped amid an exchange, the connection ends.
pub struct Http1 {
    wire: Wire,
    out: Out,
    lists: Lists,
    /// The request's body, while it is being sent.
    upload: Option<Sending<Body>>,
    /// How long it was waited for, once it has been sent.
    uploaded: Option<Duration>,
    /// Why that did not come to its end.
    failed: Option<BodyError>,
    /// What is left of the response's body.
    decoder: Decoder,
    /// Whether another exchange may follow.
    keep_alive: bool,
    /// Requests that it has carried.
    taken: u32,
    home: Option<Weak<dyn Home>>,
}

impl std::fmt::Debug for Http1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http1")
            .field("wire", &self.wire)
            .field("decoder", &self.decoder)
            .finish_non_exhaustive()
    }
}

/// What a failed request leaves behind.
#[derive(Debug)]
pub struct Failed {
    /// [`Reason::NotProcessed`] when nothing of the request was sent, else [`Reason::Reset`] or [`Reason::PeerProtocol`].
    pub refusal: Refusal,
    /// The request, if nothing was taken from its body and no byte of an answer has come: it could be sent once more.
    pub request: Option<Request<Body>>,
}

impl Http1 {
    /// On a fresh connection.
    pub fn new<T>(io: T) -> Box<Self>
    where
        T: Duplex + 'static,
    {
        Box::new(Self {
            wire: Wire::new(Box::new(io)),
            out: Out::default(),
            lists: Lists::default(),
            upload: None,
            uploaded: None,
            failed: None,
            decoder: Decoder::Done,
            keep_alive: true,
            taken: 0,
            home: None,
        })
    }

    /// Requests that it has carried.
    pub fn taken(&self) -> u32 {
        self.taken
    }

    /// Whether it can carry a request: the peer has not ended it, nor said anything that nobody had asked for. To be
    /// asked of an idle connection only; costs no system call unless something has happened on it.
    pub fn is_usable(&mut self) -> bool {
        self.wire.is_fresh()
    }

    /// Sends a request in HTTP/1's origin form (see [`crate::http::headers::to_http1`]) and waits for the head of its
    /// response. The response's body holds the connection until both bodies have ended; then it goes home.
    ///
    /// # Errors
    /// With the request, if nothing was taken from its body and no byte of an answer has come.
    pub async fn send(
        mut self: Box<Self>,
        mut request: Request<Body>,
        sink: &dyn InterimSink,
        home: Weak<dyn Home>,
        timeline: &Timeline,
    ) -> Result<Response<Body>, Failed> {
        let to_head = request.method() == Method::HEAD;
        self.home = Some(home);
        self.taken = self.taken.saturating_add(1);
        let bodiless = request.body().is_end_stream();
        timeline.sent(Instant::now());
        let mut heard = false;
        self.begin(&mut request);
        loop {
            let (response, facts) = match poll_fn(|cx| self.poll_response(cx, to_head)).await {
                Ok(response) => response,
                Err(refusal) => {
                    let body = match self.upload.take() {
                        Some(upload) => upload.untouched(),
                        None => bodiless.then_some(Body::Empty),
                    };
                    heard |= refusal.reason == Reason::PeerProtocol || !self.wire.is_empty();
                    let body = body.filter(|_| !heard);
                    return Err(Failed { refusal, request: body.map(|body| request.map(|_| body)) });
                }
            };
            match response.status() {
                StatusCode::SWITCHING_PROTOCOLS => {
                    let mut response = response.map(|()| Body::Empty);
                    if let Some((io, ahead)) = self.wire.hand_over() {
                        upgrade::attach(response.extensions_mut(), io, ahead);
                    }
                    return Ok(response);
                }
                status if status.is_informational() => {
                    heard = true;
                    let mut response = response;
                    headers::clean_interim(response.headers_mut());
                    sink.interim(response);
                }
                _ => {
                    if let Some(waited) = self.uploaded.take() {
                        timeline.uploaded(waited);
                    }
                    self.keep_alive = facts.keep_alive;
                    self.decoder = facts.decoder;
                    if self.decoder.is_done() {
                        self.finish();
                        return Ok(response.map(|()| Body::Empty));
                    }
                    let body = Incoming::of_response(self);
                    return Ok(response.map(|()| Body::Http1(body)));
                }
            }
        }
    }

    /// Puts the head where it waits to be written, and the body beside it.
    fn begin(&mut self, request: &mut Request<Body>) {
        self.out.reset();
        self.uploaded = None;
        let encoder = encode::request(self.out.buffer(), request);
        let body = std::mem::replace(request.body_mut(), Body::Empty);
        self.upload = Some(Sending::new(body, encoder));
    }

    /// Waits for the head of a response, interim or final, and sends the request meanwhile: a response need not wait for
    /// its end.
    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        to_head: bool,
    ) -> Poll<Result<(Response<()>, Facts), Refusal>> {
        match self.poll_upload(cx) {
            Ok(()) => {}
            // Nobody is there any more to be answered.
            Err(Unsent::Body(error)) => return Poll::Ready(Err(Refusal::new(Reason::Reset, error))),
            Err(Unsent::Io(error)) if !self.out.has_written() => {
                return Poll::Ready(Err(Refusal::new(Reason::NotProcessed, error)));
            }
            // The peer may have answered before it stopped listening.
            Err(Unsent::Io(_)) => self.stop_upload(),
        }
        let malformed = |malformed: Malformed| Refusal::new(Reason::PeerProtocol, malformed.detail);
        Poll::Ready(match ready!(self.wire.poll_head(cx, head::check_response_beginning)) {
            Ok(Some(head)) => head::response(&head, to_head, &mut self.lists).map_err(malformed),
            Ok(None) => Err(Refusal::new(Reason::Reset, "before an answer")),
            Err(Fault::Malformed(fault)) => Err(malformed(fault)),
            Err(Fault::Lost(error)) => Err(Refusal::new(Reason::Reset, error)),
        })
    }

    /// Sends what is left of the request, as far as that is possible now.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Unsent> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        match upload.poll(cx, &mut self.out, |cx, out| self.wire.poll_flush(cx, out)) {
            Poll::Ready(Ok(())) => {
                self.uploaded = Some(upload.waited());
                self.upload = None;
            }
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => {}
        }
        Ok(())
    }

    /// Goes on with the request while nobody takes the response's body.
    pub(super) fn poll_progress(&mut self, cx: &mut Context<'_>) {
        match self.poll_upload(cx) {
            Ok(()) => {}
            Err(Unsent::Body(error)) => {
                self.stop_upload();
                self.failed = Some(error);
            }
            Err(Unsent::Io(_)) => self.stop_upload(),
        }
    }

    fn stop_upload(&mut self) {
        self.upload = None;
        self.keep_alive = false;
    }

    /// The response body's next frame, and whether nothing comes after it.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<body::Next> {
        self.poll_progress(cx);
        if let Some(error) = self.failed.take() {
            return Poll::Ready((Some(Err(error)), true));
        }
        let frame = ready!(self.wire.poll_body(cx, &mut self.decoder));
        Poll::Ready((frame.map(|frame| frame.map_err(Into::into)), self.decoder.is_done()))
    }

    /// What is left of the response's body, bytes, where that is known.
    pub(super) fn body_left(&self) -> Option<u64> {
        self.decoder.left()
    }

    /// The response has ended. Goes home, if the request has ended, too, and the peer keeps to its turn.
    pub(super) fn finish(mut self: Box<Self>) {
        let usable = self.keep_alive && self.upload.is_none() && self.out.is_empty() && self.wire.is_empty();
        if let Some(home) = self.home.take().filter(|_| usable).and_then(|home| home.upgrade()) {
            home.take_back(self);
        }
    }
}
