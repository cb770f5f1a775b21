//! Begins to note what those who listen want to know of a request.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Body as _, Frame, SizeHint};

use super::Policy;
use crate::{
    http::{
        Body,
        body::{BodyError, Progress},
    },
    telemetry::exchange,
};

/// Asks whether anybody wants to hear of a request. As it came from its caller.
pub(super) fn begin(request: &mut Request<Body>, policy: &Policy<'_>, grpc: bool) {
    let listeners = policy.edge.listeners();
    let trace = listeners.trace(request.headers_mut());
    let Some(mut exchange) = listeners.begin(request, trace) else { return };
    exchange.grpc = grpc;
    if let Some(caller) = policy.caller {
        exchange.peer.clone_from(&caller.identity);
        exchange.peer_address = Some(caller.address);
    }
    if let Some(rule) = policy.rule {
        exchange::put(&mut exchange.route, &rule.route);
        exchange::put(&mut exchange.rule, &rule.rule);
    }
    if !request.body().is_end_stream() {
        let sent = Arc::<AtomicU64>::default();
        exchange.sent = Some(sent.clone());
        let body = std::mem::replace(request.body_mut(), Body::Empty);
        *request.body_mut() = Body::Wrapped(Box::new(Counted { body, sent }));
    }
    policy.timeline.notes().begin(Some(exchange));
}

/// A body whose bytes are counted as they are read.
#[derive(Debug)]
struct Counted {
    body: Body,
    sent: Arc<AtomicU64>,
}

impl Progress for Counted {
    fn poll_progress(&mut self, cx: &mut Context<'_>) {
        self.body.poll_progress(cx);
    }

    fn last_words(&mut self) -> Option<HeaderMap> {
        self.body.last_words()
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
