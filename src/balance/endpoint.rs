//! One endpoint with all that is known about it.

mod hold;

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use pillion_api::{
    hash::hash,
    model::{self, CircuitBreaker},
};
use pillion_certs::SpiffeId;
use tokio::time::Instant;

pub use self::hold::Pick;
use super::{
    breaker::Breaker,
    choose::{Candidate, turns::Phase},
    ewma::PeakEwma,
};
use crate::telemetry::{exchange::Callee, report::BreakerState};

/// Who was kept waiting for so many times as long as usual, and no less than this, has learned something of the endpoint by
/// going away; anybody else, that he was in a hurry.
const IN_VAIN: (f64, Duration) = (4.0, Duration::from_millis(100));
/// The part of a new answer in what is usual.
const NEWS: f64 = 1.0 / 16.0;

/// A workload that serves. Lives as long as the workload is listed, or a request is under way to it.
#[derive(Debug)]
pub struct Endpoint<T> {
    /// Its name and place, also for those who hear of its requests.
    callee: Arc<Callee>,
    identity: Option<SpiffeId>,
    ready: Cell<bool>,
    zone: RefCell<Arc<str>>,
    weight: Cell<u32>,
    /// The mean weight by its own.
    lightness: Cell<f64>,
    token: u64,
    hash: Cell<u64>,
    phase: Cell<Phase>,
    appeared: Cell<Option<Instant>>,
    /// When its breaker closed, and over how long it gets its share back.
    recovered: Cell<Option<(Instant, Duration)>>,
    in_flight: Cell<u32>,
    latency: Cell<PeakEwma>,
    /// How long good answers take, microseconds: unlike `latency`, not moved by those that never came. Zero: there was none.
    usual_us: Cell<f64>,
    breaker: RefCell<Option<Breaker>>,
    reach: T,
}

impl<T> Endpoint<T> {
    pub(super) fn new(
        model: &model::Endpoint,
        reach: T,
        breaker: Option<CircuitBreaker>,
        latency_us: f64,
        phase: Phase,
    ) -> Self {
        let token = hash(model.uid.as_bytes());
        Self {
            callee: Arc::new(Callee {
                uid: model.uid.as_str().into(),
                workload: model.workload.as_str().into(),
                address: model.address,
                identity: model.identity.as_ref().map(|identity| identity.to_string().into()),
            }),
            identity: model.identity.clone(),
            ready: Cell::new(false),
            zone: RefCell::new(model.zone.as_str().into()),
            weight: Cell::new(model.weight),
            lightness: Cell::new(1.0),
            token,
            hash: Cell::new(token),
            phase: Cell::new(phase),
            appeared: Cell::default(),
            recovered: Cell::default(),
            in_flight: Cell::default(),
            latency: Cell::new(PeakEwma::new(latency_us, Instant::now())),
            usual_us: Cell::default(),
            breaker: RefCell::new(breaker.map(Breaker::new)),
            reach,
        }
    }

    /// The workload instance.
    pub fn uid(&self) -> &str {
        &self.callee.uid
    }

    /// What people call it.
    pub fn workload(&self) -> &Arc<str> {
        &self.callee.workload
    }

    /// Of its sidecar.
    pub fn address(&self) -> SocketAddr {
        self.callee.address
    }

    /// The same, for those who hear of its requests.
    pub fn callee(&self) -> &Arc<Callee> {
        &self.callee
    }

    /// What reaches it.
    pub fn reach(&self) -> &T {
        &self.reach
    }

    /// As its own sidecar sees its application.
    pub fn is_ready(&self) -> bool {
        self.ready.get()
    }

    /// Where it runs; empty: unknown.
    pub fn zone(&self) -> std::cell::Ref<'_, Arc<str>> {
        self.zone.borrow()
    }

    /// Its share beside the others'.
    pub fn weight(&self) -> u32 {
        self.weight.get()
    }

    /// Stands for it where it is not to be named, and is the same for all callers.
    pub fn token(&self) -> u64 {
        self.token
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

    fn observe(&self, took: Duration, now: Instant, decay: Duration) {
        let mut latency = self.latency.get();
        latency.observe(took.as_secs_f64() * 1e6, now, decay);
        self.latency.set(latency);
    }

    fn answered(&self, took: Duration, now: Instant, decay: Duration) {
        self.observe(took, now, decay);
        let (before, us) = (self.usual_us.get(), took.as_secs_f64() * 1e6);
        self.usual_us.set(if before == 0.0 { us } else { before + (us - before) * NEWS });
    }

    /// From which on a wait was in vain.
    fn in_vain(&self) -> Duration {
        let (times, least) = IN_VAIN;
        match self.usual_us.get() {
            0.0 => self.breaker.borrow().as_ref().map_or(Duration::MAX, |breaker| breaker.config().base_open),
            usual => Duration::from_secs_f64(usual * times / 1e6).max(least),
        }
    }

    /// Takes in what is said of it. `appeared`: now, if it counts as new where it is ready and was not.
    pub(super) fn take(&self, model: &model::Endpoint, appeared: Option<Instant>) {
        if model.ready && !self.ready.replace(model.ready) {
            self.appeared.set(appeared);
        }
        self.ready.set(model.ready);
        self.weight.set(model.weight);
        if **self.zone.borrow() != *model.zone {
            *self.zone.borrow_mut() = model.zone.as_str().into();
        }
    }

    /// As an algorithm sees it.
    pub(super) fn candidate(&self) -> Candidate {
        Candidate { hash: self.hash.get(), weight: self.weight.get(), phase: self.phase.get() }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.get()
    }

    pub(super) fn set_hash(&self, hash: u64) {
        self.hash.set(hash);
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.set(phase);
    }

    pub(super) fn set_lightness(&self, lightness: f64) {
        self.lightness.set(lightness);
    }

    /// When it came to others that were there before; nothing when it has its share.
    pub(super) fn appeared(&self) -> Option<Instant> {
        self.appeared.get()
    }

    pub(super) fn set_appeared(&self, appeared: Option<Instant>) {
        self.appeared.set(appeared);
    }

    /// When its breaker closed, and over how long it gets its share back; nothing when it has it.
    pub(super) fn recovered(&self) -> Option<(Instant, Duration)> {
        self.recovered.get()
    }

    pub(super) fn set_recovered(&self, recovered: Option<(Instant, Duration)>) {
        self.recovered.set(recovered);
    }

    /// Until when its breaker is open.
    pub fn open_until(&self) -> Option<Instant> {
        self.breaker.borrow().as_ref().and_then(Breaker::open_until)
    }

    pub(super) fn set_breaker(&self, config: Option<CircuitBreaker>) {
        let mut breaker = self.breaker.borrow_mut();
        match (breaker.as_mut(), config) {
            (Some(breaker), Some(config)) => breaker.reconfigure(config),
            (_, config) => *breaker = config.map(Breaker::new),
        }
    }

    pub(super) fn is_same_place(&self, model: &model::Endpoint) -> bool {
        self.callee.address == model.address && self.identity == model.identity
    }

    pub(super) fn available(&self, now: Instant) -> bool {
        self.breaker.borrow().as_ref().is_none_or(|breaker| breaker.available(now))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.breaker.borrow().as_ref().is_none_or(|breaker| breaker.state() == BreakerState::Closed)
    }

    /// What one more request would meet: the expected latency, times those already there.
    pub(super) fn load(&self, now: Instant, decay: Duration) -> f64 {
        (self.latency.get().current(now, decay) + 1.0) * (self.requests() + 1.0)
    }

    /// Requests under way, as many as an endpoint of the mean weight would have.
    pub(super) fn requests(&self) -> f64 {
        f64::from(self.in_flight.get()) * self.lightness.get()
    }
}
