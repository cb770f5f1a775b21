//! The answering side of an HTTP/2 connection.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use http::{Request, Response};
use http_body::Body as HttpBody;

use super::{
    CONNECTION_WINDOW, MAX_FRAME, MAX_HEADER_LIST, Pumped, RecvBody, SEND_BUFFER, STREAM_WINDOW,
    frames::Watched, pump, pump_ready,
};
use crate::{
    drain::{Drain, Phase},
    http::{Body, InterimSink, serve::Handler},
    net::{io::Io, sniff::Prefixed},
};

/// Streams that one peer may have open.
const MAX_STREAMS: u32 = 1024;
/// A peer has so long to complete the preface and settings.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams reset by the peer before they were looked at that are remembered before it counts as an attack (CVE-2023-44487).
/// As many as may be open: another sidecar gives up all that it has when one of its callers goes away, and its other callers'
/// streams are on the same connection.
const MAX_RESET_STREAMS: usize = MAX_STREAMS as usize;

/// Serves requests until the peer leaves or, after the drain began, until the last one is answered.
pub async fn serve<H: Handler>(io: Prefixed<Io>, handler: Rc<H>, mut drain: Drain) -> Result<(), h2::Error> {
    let (io, flood) = Watched::new(io);
    let handshake = server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(handler.max_streams().map_or(MAX_STREAMS, |most| most.min(MAX_STREAMS)))
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .data_frame_budget(usize::MAX)
        .handshake::<_, Bytes>(io);
    let mut connection = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(connection) => connection?,
        Err(_) => return Err(h2::Reason::SETTINGS_TIMEOUT.into()),
    };
    let mut closing = pin!(drain.reached(Phase::Closing));
    let mut going_away = false;
    loop {
        let accepted = poll_fn(|cx| {
            if !going_away && closing.as_mut().poll(cx).is_ready() {
                going_away = true;
                connection.graceful_shutdown();
            }
            let accepted = connection.poll_accept(cx);
            if !flood.is_on() || accepted.is_ready() {
                return accepted;
            }
            connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            connection.poll_accept(cx)
        });
        match accepted.await {
            Some(Ok((request, respond))) => {
                // Boxed first: a task's future is moved several times before it has its place.
                tokio::task::spawn_local(Box::pin(exchange(request, respond, handler.clone())));
            }
            Some(Err(error)) => return Err(error),
            None if flood.is_on() => return Err(h2::Reason::ENHANCE_YOUR_CALM.into()),
            None => return Ok(()),
        }
    }
}

/// One request and its response. Ends early when the peer resets the stream: what is being done for it is dropped.
async fn exchange<H: Handler>(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    handler: Rc<H>,
) {
    let (head, stream) = request.into_parts();
    let body = Body::from_http2(RecvBody::new(stream, &head.headers, None));
    let request = Request::from_parts(head, body);
    let interims = Interims::default();
    let handled = async {
        let mut handled = pin!(handler.handle(request, &interims));
        poll_fn(|cx| poll_exchange(cx, &mut respond, &interims, handled.as_mut())).await
    };
    let Some(response) = handled.await else { return };
    let (head, body) = response.into_parts();
    let bodiless = body.is_end_stream();
    match respond.send_response(Response::from_parts(head, ()), bodiless) {
        Ok(mut stream) if !bodiless => {
            let mut body = body;
            if poll_fn(|cx| Poll::Ready(pump_ready(cx, &mut body, &mut stream))).await == Pumped::Waits {
                pump(body, &mut stream).await;
            }
        }
        Ok(_) => drop(body),
        Err(error) => tracing::debug!(%error, "the response could not be sent"),
    }
}

fn poll_exchange<B>(
    cx: &mut Context<'_>,
    respond: &mut SendResponse<Bytes>,
    interims: &Interims,
    handled: std::pin::Pin<&mut impl Future<Output = Response<B>>>,
) -> Poll<Option<Response<B>>> {
    if respond.poll_reset(cx).is_ready() {
        return Poll::Ready(None);
    }
    let response = handled.poll(cx);
    for interim in interims.0.borrow_mut().drain(..) {
        let _ = respond.send_informational(interim);
    }
    response.map(Some)
}

/// Interim responses between the handler and the connection; both are polled by the same task.
#[derive(Default)]
struct Interims(RefCell<VecDeque<Response<()>>>);

impl InterimSink for Interims {
    fn interim(&self, response: Response<()>) {
        self.0.borrow_mut().push_back(response);
    }
}
