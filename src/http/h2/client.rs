//! The calling side of an HTTP/2 connection.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{CONNECTION_WINDOW, MAX_FRAME, MAX_HEADER_LIST, RecvBody, SEND_BUFFER, STREAM_WINDOW, pump};
use crate::{
    error::{Reason, Refusal},
    http::InterimSink,
};

/// An idle connection is asked for a sign of life this often; a busy one tells by itself.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Without an answer to a ping for so long the connection counts as lost.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A handle to one connection; clones share it. The connection ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct Http2 {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: Cell<bool>,
    streams: Cell<usize>,
}

/// One request's share of a connection.
struct StreamGuard(Rc<State>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

impl Http2 {
    /// Sets up HTTP/2 on a fresh connection and drives it on this thread until it ends.
    pub async fn handshake<T>(io: T) -> Result<Self, Refusal>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
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
        let state = Rc::new(State::default());
        let ping = connection.ping_pong();
        let driven = state.clone();
        tokio::task::spawn_local(async move {
            let mut connection = pin!(connection);
            let mut alive = pin!(watch_for_life(ping));
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
            driven.closed.set(true);
        });
        Ok(Self { sender, state })
    }

    /// Requests under way on this connection.
    pub fn streams(&self) -> usize {
        self.state.streams.get()
    }

    /// Whether it can take no more requests, ever.
    pub fn is_closed(&self) -> bool {
        self.state.closed.get()
    }

    /// Waits until the connection takes a request. False: it takes no more, and counts as closed.
    pub async fn ready(&self) -> bool {
        let mut sender = self.sender.clone();
        let ready = poll_fn(|cx| sender.poll_ready(cx)).await;
        if ready.is_err() {
            self.state.closed.set(true);
        }
        ready.is_ok()
    }

    /// Sends a request in HTTP/2's form (see [`crate::http::headers::to_http2`]) and waits for the head of its response.
    ///
    /// # Errors
    /// [`Reason::NotProcessed`] when the peer surely did nothing with it, [`Reason::Reset`] when it may have.
    pub async fn send<B>(
        &self,
        request: Request<B>,
        interim: &dyn InterimSink,
    ) -> Result<Response<RecvBody>, Refusal>
    where
        B: http_body::Body<Data = Bytes, Error: std::fmt::Display> + 'static,
    {
        self.state.streams.set(self.state.streams.get() + 1);
        let guard = StreamGuard(self.state.clone());
        let mut sender = self.sender.clone();
        poll_fn(|cx| sender.poll_ready(cx)).await.map_err(|error| {
            self.state.closed.set(true);
            Refusal::new(Reason::NotProcessed, error)
        })?;
        let (head, body) = request.into_parts();
        let bodiless = body.is_end_stream();
        let (mut response, mut stream) = sender
            .send_request(Request::from_parts(head, ()), bodiless)
            .map_err(|error| Refusal::new(Reason::NotProcessed, error))?;
        if !bodiless {
            // On a task of its own, since a response may begin, and even end, before the request does.
            tokio::task::spawn_local(async move {
                pump(body, &mut stream).await;
                drop(guard);
            });
        }
        let response = poll_fn(|cx| {
            while let Poll::Ready(Some(Ok(response))) = response.poll_informational(cx) {
                if response.status() != StatusCode::CONTINUE {
                    interim.interim(response);
                }
            }
            std::pin::Pin::new(&mut response).poll(cx)
        })
        .await
        .map_err(|error| Refusal::new(failure_reason(&error), error))?;
        let (head, stream) = response.into_parts();
        let body = RecvBody::new(stream, &head.headers);
        Ok(Response::from_parts(head, body))
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

/// Pings now and then; ends when an answer stays out.
async fn watch_for_life(ping: Option<h2::PingPong>) {
    let Some(mut ping) = ping else { return std::future::pending().await };
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        match tokio::time::timeout(PING_TIMEOUT, ping.ping(h2::Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::info!("an HTTP/2 connection no longer answers pings; closing it");
                return;
            }
        }
    }
}
