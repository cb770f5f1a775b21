//! The calling side of an HTTP/1 connection.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex},
    task::Waker,
};

use http::{Request, Response, StatusCode};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{MAX_HEAD, MAX_HEADERS};
use crate::{
    error::{Reason, Refusal},
    http::{Body, InterimSink},
};

/// One connection; carries one request at a time.
#[derive(Debug)]
pub struct Http1(SendRequest<Body>);

/// What a failed request leaves behind.
#[derive(Debug)]
pub struct Failure {
    /// [`Reason::NotProcessed`] when nothing of the request was sent, else [`Reason::Reset`] or [`Reason::PeerProtocol`].
    pub refusal: Refusal,
    /// The request, if nothing of it was sent.
    pub unsent: Option<Request<Body>>,
    /// It was another request's attempt to connect that failed; it counts once.
    pub shared: bool,
}

impl Http1 {
    /// Drives HTTP/1 on a fresh connection, on this thread, until it ends.
    pub async fn handshake<T>(io: T) -> Result<Self, Refusal>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| Refusal::new(Reason::Connect, error))?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an HTTP/1 connection ended");
            }
        });
        Ok(Self(sender))
    }

    /// Whether the previous exchange is wholly over, in both directions.
    pub fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Sends a request in HTTP/1's origin form (see [`crate::http::headers::to_http1`]) and waits for the head of
    /// its response. The body is still hyper's: the caller decides when this connection is free again.
    pub async fn send(
        &mut self,
        mut request: Request<Body>,
        sink: &dyn InterimSink,
    ) -> Result<Response<hyper::body::Incoming>, Failure> {
        let interims = Interims::default();
        hyper::ext::on_informational(&mut request, {
            let interims = interims.clone();
            move |interim| interims.push(interim.status(), interim.headers())
        });
        let mut sent = pin!(self.0.try_send_request(request));
        poll_fn(|cx| {
            let response = sent.as_mut().poll(cx);
            interims.drain(cx.waker(), sink);
            response
        })
        .await
        .map_err(|mut error| {
            let unsent = error.take_message();
            let reason = match (&unsent, error.error()) {
                (Some(_), _) => Reason::NotProcessed,
                (None, error) if error.is_parse() => Reason::PeerProtocol,
                (None, _) => Reason::Reset,
            };
            Failure { refusal: Refusal::new(reason, error.into_error()), unsent, shared: false }
        })
    }
}

/// Interim responses between hyper's connection task and the request. Both run on this thread; hyper's callback must
/// be `Send` all the same.
#[derive(Clone, Default)]
struct Interims(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Response<()>>,
    waker: Option<Waker>,
}

impl Interims {
    fn push(&self, status: StatusCode, headers: &http::HeaderMap) {
        // Each hop answers `Expect: 100-continue` for itself, and switching protocols is a final answer.
        if matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            return;
        }
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers.clone();
        let mut inner = self.0.lock().expect("nothing panics while holding it");
        inner.waiting.push_back(response);
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }

    fn drain(&self, waker: &Waker, sink: &dyn InterimSink) {
        let mut inner = self.0.lock().expect("nothing panics while holding it");
        for response in inner.waiting.drain(..) {
            sink.interim(response);
        }
        inner.waker = Some(waker.clone());
    }
}
