//! Begins to note what those who listen want to know of a request.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use http::Request;
use http_body::Body as _;

use super::Policy;
use crate::{
    http::{
        Body,
        through::{Hook, Passing},
    },
    telemetry::exchange,
};

/// Asks whether anybody wants to hear of a request. As it came from its caller.
pub(super) fn begin(request: &mut Request<Body>, policy: &Policy<'_>, grpc: bool) {
    let listeners = policy.edge.listeners();
    let trace = listeners.trace(request.headers_mut());
    let Some(mut exchange) = listeners.begin(request, trace, policy.edge.key()) else { return };
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
        *request.body_mut() = body.through(Counted(sent));
    }
    policy.timeline.notes().begin(Some(exchange));
}

/// A body's bytes are counted as they are read.
#[derive(Debug)]
struct Counted(Arc<AtomicU64>);

impl Hook for Counted {
    fn pass(&mut self, passing: Passing, _: &mut Body) -> Passing {
        if let Some(Ok(frame)) = &passing
            && let Some(data) = frame.data_ref()
        {
            self.0.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        passing
    }
}
