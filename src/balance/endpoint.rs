//! One endpoint with all that is known about it, and a request's hold on it.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use pillion_api::model::{self, CircuitBreaker};
use pillion_certs::SpiffeId;
use tokio::time::Instant;

use super::{
    Balancer,
    breaker::{Breaker, Change, Permit},
    ewma::PeakEwma,
};
use crate::telemetry::report::BreakerState;

/// A workload that serves. Lives as long as the workload is listed, or a request is under way to it.
#[derive(Debug)]
pub struct Endpoint<T> {
    uid: Rc<str>,
    workload: std::sync::Arc<str>,
    address: SocketAddr,
    identity: SpiffeId,
    ready: Cell<bool>,
    in_flight: Cell<u32>,
    latency: Cell<PeakEwma>,
    breaker: RefCell<Option<Breaker>>,
    reach: T,
}

impl<T> Endpoint<T> {
    pub(super) fn new(
        model: &model::Endpoint,
        reach: T,
        breaker: Option<CircuitBreaker>,
        latency_us: f64,
    ) -> Self {
        Self {
            uid: model.uid.as_str().into(),
            workload: model.workload.as_str().into(),
            address: model.address,
            identity: model.identity.clone(),
            ready: Cell::new(model.ready),
            in_flight: Cell::default(),
            latency: Cell::new(PeakEwma::new(latency_us, Instant::now())),
            breaker: RefCell::new(breaker.map(Breaker::new)),
            reach,
        }
    }

    /// The workload instance.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// What people call it.
    pub fn workload(&self) -> &std::sync::Arc<str> {
        &self.workload
    }

    /// Of its sidecar.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What reaches it.
    pub fn reach(&self) -> &T {
        &self.reach
    }

    /// As its own sidecar sees its application.
    pub fn is_ready(&self) -> bool {
        self.ready.get()
    }

    /// Requests under way to it.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// The last estimate of its latency, microseconds.
    pub fn latency_us(&self) -> f64 {
        self.latency.get().last()
    }

    /// Its breaker: where it stands, how often it opened, why it last did.
    pub fn breaker(&self) -> (BreakerState, u64, String) {
        self.breaker.borrow().as_ref().map_or((BreakerState::Closed, 0, String::new()), |breaker| {
            let (opened, reason) = breaker.history();
            (breaker.state(), opened, reason.to_owned())
        })
    }

    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.set(ready);
    }

    pub(super) fn set_breaker(&self, config: Option<CircuitBreaker>) {
        let mut breaker = self.breaker.borrow_mut();
        match (breaker.as_mut(), config) {
            (Some(breaker), Some(config)) => breaker.reconfigure(config),
            (_, config) => *breaker = config.map(Breaker::new),
        }
    }

    pub(super) fn is_same_place(&self, model: &model::Endpoint) -> bool {
        self.address == model.address && self.identity == model.identity
    }

    pub(super) fn available(&self, now: Instant) -> bool {
        self.breaker.borrow().as_ref().is_none_or(|breaker| breaker.available(now))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.breaker.borrow().as_ref().is_none_or(|breaker| breaker.state() == BreakerState::Closed)
    }

    /// What one more request would meet: the expected latency, times those already there.
    pub(super) fn load(&self, now: Instant, decay: Duration) -> f64 {
        (self.latency.get().current(now, decay) + 1.0) * f64::from(self.in_flight.get() + 1)
    }
}

/// One request's hold on an endpoint. Dropped without [`Pick::end`], the request counts as cancelled.
#[derive(Debug)]
pub struct Pick<T> {
    balancer: Rc<Balancer<T>>,
    endpoint: Rc<Endpoint<T>>,
    permit: Option<Permit>,
}

impl<T> Pick<T> {
    pub(super) fn new(balancer: Rc<Balancer<T>>, endpoint: Rc<Endpoint<T>>, now: Instant) -> Self {
        endpoint.in_flight.set(endpoint.in_flight.get() + 1);
        let was_closed = endpoint.is_closed();
        let permit =
            endpoint.breaker.borrow_mut().as_mut().map_or(Permit::Pass, |breaker| breaker.admit(now));
        if was_closed != endpoint.is_closed() {
            balancer.recount();
        }
        Self { balancer, endpoint, permit: Some(permit) }
    }

    /// The chosen one.
    pub fn endpoint(&self) -> &Rc<Endpoint<T>> {
        &self.endpoint
    }

    /// Takes in how long the response's head took.
    pub fn first_byte(&self, took: Duration) {
        let mut latency = self.endpoint.latency.get();
        latency.observe(took.as_secs_f64() * 1e6, Instant::now(), self.balancer.decay());
        self.endpoint.latency.set(latency);
    }

    /// Takes in how the request ended.
    pub fn end(mut self, success: bool, now: Instant) {
        let Some(permit) = self.permit.take() else { return };
        let change = {
            let mut breaker = self.endpoint.breaker.borrow_mut();
            // Only the rare opening draws a random number.
            let random = if success { 0.0 } else { rand::random() };
            breaker.as_mut().and_then(|breaker| breaker.record(now, permit, success, random))
        };
        if let Some(change) = change {
            self.balancer.recount();
            let (_, _, reason) = self.endpoint.breaker();
            match change {
                Change::Opened => {
                    tracing::info!(workload = %self.endpoint.workload, reason, "circuit breaker opened")
                }
                Change::Closed => {
                    tracing::info!(workload = %self.endpoint.workload, "circuit breaker closed")
                }
            }
        }
    }
}

impl<T> Drop for Pick<T> {
    fn drop(&mut self) {
        self.endpoint.in_flight.set(self.endpoint.in_flight.get() - 1);
        if let Some(permit) = self.permit
            && let Some(breaker) = self.endpoint.breaker.borrow_mut().as_mut()
        {
            breaker.cancel(permit);
        }
    }
}
