//! The calling side of an HTTP/2 connection.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{Request, Response};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    CONNECTION_WINDOW, MAX_FRAME, MAX_HEADER_LIST, Pumped, RecvBody, SEND_BUFFER, STREAM_WINDOW, pump,
    pump_ready,
};
use crate::{
    error::{Reason, Refusal},
    http::{InterimSink, body::Progress, headers},
    net::io::Io,
    telemetry::hops::Timeline,
};

/// An idle connection is asked for a sign of life this often; a busy one tells by itself.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Without an answer to a ping for so long the connection counts as lost.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that a request has waited on in vain is asked at once. Without an answer for so long it gets no more requests:
/// a new connection tells sooner that the network has healed than this one, whose packets TCP repeats ever more seldom.
const DOUBT: Duration = Duration::from_secs(1);

/// A handle to one connection; clones share it. The connection ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct Http2 {
    sender: SendRequest<Bytes>,
    state: Arc<State>,
}

/// Used by one thread only; atomic because gRPC's client wants response bodies that can be sent elsewhere.
#[derive(Debug, Default)]
struct State {
    closed: AtomicBool,
    streams: AtomicUsize,
    /// Requests that were given to it, ever.
    taken: AtomicUsize,
    used: AtomicBool,
    /// A request was given up before its answer began.
    doubted: Notify,
}

/// Doubts the connection if it is dropped.
struct Unanswered<'a>(&'a State);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.doubted.notify_one();
    }
}

/// One stream of a connection, from the request's head until both bodies have ended.
#[derive(Debug)]
pub(super) struct Share(Arc<State>);

impl Share {
    fn of(state: &Arc<State>) -> Arc<Self> {
        state.streams.fetch_add(1, Relaxed);
        state.used.store(true, Relaxed);
        Arc::new(Self(state.clone()))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
        self.0.used.store(true, Relaxed);
    }
}

impl Http2 {
    /// Sets up HTTP/2 on a fresh connection and drives it on this thread until it ends.
    pub async fn handshake(io: Io) -> Result<Self, Refusal> {
        let (sender, mut connection) = client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_send_buffer_size(SEND_BUFFER)
            // Small DATA frames are normal here: streaming gRPC sends little else.
            .data_frame_budget(usize::MAX)
            .handshake(io)
            .await
            .map_err(|error| Refusal::new(Reason::Connect, format_args!("HTTP/2: {error}")))?;
        let state = Arc::new(State::default());
        let ping = connection.ping_pong();
        let driven = state.clone();
        crate::task::start(async move {
            let mut connection = pin!(connection);
            let mut alive = pin!(watch_for_life(ping, &driven));
            // Whichever ends first ends the connection: dropping it closes every stream with an error.
            poll_fn(|cx| {
                if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "an HTTP/2 connection ended");
                    }
                    return Poll::Ready(());
                }
                alive.as_mut().poll(cx)
            })
            .await;
            driven.closed.store(true, Relaxed);
        });
        Ok(Self { sender, state })
    }

    /// Requests under way on this connection.
    pub fn streams(&self) -> usize {
        self.state.streams.load(Relaxed)
    }

    /// Requests that the peer allows at a time (RFC 9113 5.1.2).
    pub fn most_streams(&self) -> usize {
        self.sender.current_max_send_streams()
    }

    /// Notes that a request is given to it.
    pub fn take(&self) {
        self.state.taken.fetch_add(1, Relaxed);
    }

    /// Requests that were given to it, ever.
    pub fn taken(&self) -> usize {
        self.state.taken.load(Relaxed)
    }

    /// Whether it has been used since it was last asked.
    pub fn take_used(&self) -> bool {
        self.state.used.swap(self.streams() > 0, Relaxed)
    }

    /// Whether it can take no more requests, ever.
    pub fn is_closed(&self) -> bool {
        self.state.closed.load(Relaxed)
    }

    /// Waits until the connection takes a request.
    ///
    /// # Errors
    /// [`Reason::NotProcessed`]: it takes no more, and counts as closed.
    pub async fn ready(&self) -> Result<Ready, Refusal> {
        let mut sender = self.sender.clone();
        match poll_fn(|cx| sender.poll_ready(cx)).await {
            Ok(()) => Ok(Ready { sender, share: Share::of(&self.state) }),
            Err(error) => {
                self.state.closed.store(true, Relaxed);
                Err(Refusal::new(Reason::NotProcessed, error))
            }
        }
    }

    /// Sends a request as soon as the connection takes it; see [`Ready::send`].
    ///
    /// # Errors
    /// Also [`Reason::NotProcessed`] when it takes no more.
    pub async fn send<B>(
        &self,
        request: Request<B>,
        interim: &dyn InterimSink,
        timeline: &Timeline,
    ) -> Result<Response<RecvBody>, Refusal>
    where
        B: http_body::Body<Data = Bytes, Error: std::fmt::Display> + Progress + Unpin + 'static,
    {
        self.ready().await?.send(request, interim, timeline).await
    }
}

/// A connection's promise to take a request now. Its place on the connection is taken already.
#[derive(Debug)]
pub struct Ready {
    sender: SendRequest<Bytes>,
    share: Arc<Share>,
}

impl Ready {
    /// Sends a request in HTTP/2's form (see [`crate::http::headers::to_http2`]) and waits for the head of its response.
    ///
    /// # Errors
    /// [`Reason::NotProcessed`] when the peer surely did nothing with it, [`Reason::Reset`] when it may have.
    pub async fn send<B>(
        self,
        request: Request<B>,
        interim: &dyn InterimSink,
        timeline: &Timeline,
    ) -> Result<Response<RecvBody>, Refusal>
    where
        B: http_body::Body<Data = Bytes, Error: std::fmt::Display> + Progress + Unpin + 'static,
    {
        let Self { mut sender, share } = self;
        let unanswered = Unanswered(&share.0);
        let (head, mut body) = request.into_parts();
        let bodiless = body.is_end_stream();
        timeline.sent(Instant::now());
        let (mut response, mut stream) = sender
            .send_request(Request::from_parts(head, ()), bodiless)
            .map_err(|error| Refusal::new(Reason::NotProcessed, error))?;
        drop(sender);
        let mut upload = None;
        let mut uploaded = None;
        // What is there already goes at once; most bodies are whole by now.
        if !bodiless
            && poll_fn(|cx| Poll::Ready(pump_ready(cx, &mut body, &mut stream))).await == Pumped::Waits
        {
            // On a task of its own, since a response may begin, and even end, before the request does.
            let (share, waited) = (share.clone(), Rc::new(Cell::new(None)));
            uploaded = Some(waited.clone());
            let uploading = tokio::task::spawn_local(async move {
                waited.set(Some(pump(body, &mut stream).await));
                drop(share);
            });
            upload = Some(Upload(Some(uploading.abort_handle())));
        }
        let response = poll_fn(|cx| {
            while let Poll::Ready(Some(Ok(mut response))) = response.poll_informational(cx) {
                headers::clean_interim(response.headers_mut());
                interim.interim(response);
            }
            std::pin::Pin::new(&mut response).poll(cx)
        })
        .await
        .map_err(|error| Refusal::new(failure_reason(&error), error))?;
        std::mem::forget(unanswered);
        if let Some(waited) = uploaded.and_then(|waited| waited.get()) {
            timeline.uploaded(waited);
        }
        let (head, stream) = response.into_parts();
        let body = RecvBody::new(stream, &head.headers, Some((share, upload)));
        Ok(Response::from_parts(head, body))
    }
}

/// A request body being sent. Dropped before the response has ended, nobody wants the answer any more: the stream is
/// reset.
#[derive(Debug)]
pub(super) struct Upload(Option<tokio::task::AbortHandle>);

impl Upload {
    /// Lets it go on by itself.
    pub(super) fn finish(mut self) {
        self.0.take();
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(uploading) = &self.0 {
            uploading.abort();
        }
    }
}

/// What an error says about whether the peer has done anything (RFC 9113 8.7).
fn failure_reason(error: &h2::Error) -> Reason {
    let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
    // GOAWAY names the last stream that was taken; h2 fails later ones with the GOAWAY itself, and earlier ones only
    // when the connection ends.
    let left_out = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    if refused || left_out { Reason::NotProcessed } else { Reason::Reset }
}

/// Pings now and then, and when there is doubt; ends when an answer stays out.
async fn watch_for_life(ping: Option<h2::PingPong>, state: &State) {
    let Some(mut ping) = ping else { return std::future::pending().await };
    loop {
        // Nobody minds which of the two it was.
        let _ = timeout(PING_INTERVAL, state.doubted.notified()).await;
        let mut pong = pin!(ping.ping(h2::Ping::opaque()));
        let answered = match timeout(DOUBT, &mut pong).await {
            Ok(answered) => Ok(answered),
            Err(_) => {
                // Requests that are under way may still be answered.
                state.closed.store(true, Relaxed);
                timeout(PING_TIMEOUT - DOUBT, pong).await
            }
        };
        match answered {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::info!("an HTTP/2 connection no longer answers pings; closing it");
                return;
            }
        }
    }
}
