//! What is held for a request whose connection goes on after its response, as WebSocket's do, until that has ended.

use std::{rc::Rc, sync::Arc};

use http::StatusCode;
use tokio::time::Instant;

use super::{limit::Place, record::End};
use crate::telemetry::{
    edge::{Edge, InFlight, Outcome},
    exchange::Exchange,
};

/// Those who listen hear of it when it is dropped: only then it is known what was carried.
pub(super) struct Outliving<E: End> {
    edge: Rc<Edge>,
    began: Instant,
    exchange: Option<Box<Exchange>>,
    received: u64,
    _held: (InFlight, Option<Place>, Option<E>),
}

impl<E: End> Outliving<E> {
    pub(super) fn new(
        edge: Rc<Edge>,
        began: Instant,
        exchange: Option<Box<Exchange>>,
        (place, mut end): (Option<Place>, Option<E>),
    ) -> Self {
        if let Some(end) = &mut end {
            end.begun(Outcome::Status(StatusCode::SWITCHING_PROTOCOLS));
        }
        let in_flight = edge.enter();
        Self { edge, began, exchange, received: 0, _held: (in_flight, place, end) }
    }

    /// So many bytes were carried, from the caller and to it.
    pub(super) fn carried(&mut self, sent: u64, received: u64) {
        self.received = received;
        if let Some(exchange) = &mut self.exchange {
            exchange.sent = Some(Arc::new(sent.into()));
        }
    }
}

impl<E: End> Drop for Outliving<E> {
    fn drop(&mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.status = Some(StatusCode::SWITCHING_PROTOCOLS);
            let took_us = self.began.elapsed().as_micros() as u64;
            let outcome = Outcome::Status(StatusCode::SWITCHING_PROTOCOLS);
            self.edge.tell(exchange, outcome, took_us, None, self.received);
        }
    }
}
