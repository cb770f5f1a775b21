//! What is counted about one edge of the mesh, in cells of one thread.

mod delta;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::SystemTime,
};

use pillion_api::{
    hops::{self, Split},
    latency,
};

pub use self::delta::{EdgeDelta, LatencyDelta};
pub use super::outcome::Outcome;
use super::{
    exchange::Exchange,
    exemplars::{Exemplar, Exemplars},
    hops::Hops,
    listeners::{Carried, End, Listeners},
    outcome::OUTCOMES,
    repeats::{Repeat, Repeats},
};
use crate::error::{Hop, Reason, Refusal};

/// Edges that one worker keeps apart; all further ones are counted together.
const MAX_EDGES: usize = 4096;
/// Stands for everything beyond that.
const OTHER: &str = "other";

/// Who calls whom, as far as it is told apart. Every part is a name the mesh knows, never what a client sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    /// Seen from the caller's sidecar or the callee's.
    pub direction: Hop,
    /// The calling service or workload.
    pub source: Arc<str>,
    /// The service called.
    pub target: Arc<str>,
    /// The service that a route chose, often the same.
    pub backend: Arc<str>,
    /// The workload that served; empty where none was reached.
    pub workload: Arc<str>,
    /// Carried by mutual TLS.
    pub mtls: bool,
}

impl EdgeKey {
    /// Whether mutual TLS carried it; `None`: no callee was reached, so nothing did. What goes outside has no workload either.
    pub fn carried(&self) -> Option<bool> {
        hops::carried(super::hops::side(self.direction), self.mtls, &self.workload)
    }
}

type Buckets = [(u32, u64); latency::BUCKETS];

/// The counts of one edge since they were last taken.
#[derive(Debug)]
pub struct Edge {
    key: Arc<EdgeKey>,
    outcomes: [Cell<u64>; OUTCOMES],
    failures: Cell<u64>,
    /// Count and sum of microseconds by bucket; made with the first request.
    latencies: RefCell<Option<Box<Buckets>>>,
    exemplars: RefCell<Exemplars>,
    refusals: RefCell<Vec<(Reason, u64)>>,
    refusals_by_callee: RefCell<Vec<(Reason, u64)>>,
    in_flight: Cell<u32>,
    connections: Cell<u64>,
    sent: Cell<u64>,
    received: Cell<u64>,
    repeats: Repeats,
    /// `None`: durations are not split.
    hops: Option<RefCell<Hops>>,
    touched: Cell<bool>,
    listeners: Rc<Listeners>,
}

impl Edge {
    fn new(key: EdgeKey, splits: bool, listeners: Rc<Listeners>) -> Self {
        Self {
            key: Arc::new(key),
            outcomes: Default::default(),
            failures: Cell::default(),
            latencies: RefCell::default(),
            exemplars: RefCell::default(),
            refusals: RefCell::default(),
            refusals_by_callee: RefCell::default(),
            in_flight: Cell::default(),
            connections: Cell::default(),
            sent: Cell::default(),
            received: Cell::default(),
            repeats: Repeats::default(),
            hops: splits.then(RefCell::default),
            touched: Cell::default(),
            listeners,
        }
    }

    /// Who calls whom.
    pub fn key(&self) -> &Arc<EdgeKey> {
        &self.key
    }

    /// Those who want to hear of its requests and connections.
    pub fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// Whether what it counts is carried by mutual TLS.
    pub fn mtls(&self) -> bool {
        self.key.mtls
    }

    /// Seen from the caller's sidecar or the callee's.
    pub fn direction(&self) -> Hop {
        self.key.direction
    }

    /// Whether its requests' durations are split by where they went.
    pub fn splits(&self) -> bool {
        self.hops.is_some()
    }

    /// Counts where the time of a request went that has ended.
    pub fn split(&self, split: &Split) {
        if let Some(hops) = &self.hops {
            hops.borrow_mut().count(split);
            self.touched.set(true);
        }
    }

    /// Counts a request that has ended.
    pub fn request(&self, outcome: Outcome, took_us: u64) {
        add(&self.outcomes[outcome.slot()], 1);
        if outcome.is_failure() {
            add(&self.failures, 1);
        }
        if let Outcome::Refused(reason) = outcome {
            self.refusal(reason);
        }
        let mut latencies = self.latencies.borrow_mut();
        let bucket = &mut latencies.get_or_insert_with(|| Box::new([(0, 0); latency::BUCKETS]))
            [latency::index(took_us)];
        bucket.0 += 1;
        bucket.1 += took_us;
        self.touched.set(true);
    }

    /// Tells those who listen of a request that has ended. One whose trace is recorded is an example of what was counted.
    pub fn tell(
        &self,
        mut exchange: Box<Exchange>,
        outcome: Outcome,
        took_us: u64,
        split: Option<Split>,
        received: u64,
    ) {
        if let Some(trace) = &exchange.trace {
            let (trace, span, ended) = (trace.id(), trace.span(), SystemTime::now());
            exchange.ended = Some(ended);
            self.exemplars.borrow_mut().put(Exemplar { trace, span, took_us, ended });
        }
        let end = End { edge: &self.key, outcome: Some(outcome), took_us, split, received };
        self.listeners.ended(exchange, &end);
    }

    /// Tells those who listen of a connection that is refused, without counting it here.
    pub fn tell_refused(&self, carried: Carried, refusal: &Refusal) {
        carried.ended(&self.listeners, &self.key, Some(refusal), (0, 0));
    }

    /// Counts a refused connection; requests are counted by [`Self::request`].
    pub fn refuse(&self, carried: Carried, refusal: &Refusal) {
        self.refusal(refusal.reason);
        self.tell_refused(carried, refusal);
    }

    /// Counts an attempt that the callee's sidecar has refused.
    pub fn refusal_by_callee(&self, reason: Reason) {
        add_reason(&mut self.refusals_by_callee.borrow_mut(), reason, 1);
        self.touched.set(true);
    }

    fn refusal(&self, reason: Reason) {
        add_reason(&mut self.refusals.borrow_mut(), reason, 1);
        self.touched.set(true);
    }

    /// Counts an opaque connection that has ended. `broken`: how, if not well.
    pub fn connection(
        &self,
        mut carried: Carried,
        sent: u64,
        received: u64,
        broken: Option<&std::io::Error>,
    ) {
        if let Some(error) = broken {
            carried.note(|exchange, _| exchange.detail = error.to_string());
        }
        carried.ended(&self.listeners, &self.key, None, (sent, received));
        add(&self.connections, 1);
        add(&self.sent, sent);
        add(&self.received, received);
        self.touched.set(true);
    }

    /// Counts something about a request that is sent more than once.
    pub fn repeat(&self, repeat: Repeat) {
        self.repeats.count(repeat);
        self.touched.set(true);
    }

    /// One more request under way, until the guard is dropped.
    pub fn enter(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        self.touched.set(true);
        InFlight(self.clone())
    }

    fn take(&self) -> Option<EdgeDelta> {
        if !self.touched.replace(self.in_flight.get() > 0) {
            return None;
        }
        let mut latencies = Vec::new();
        if let Some(buckets) = self.latencies.borrow_mut().as_mut() {
            for (index, bucket) in buckets.iter_mut().enumerate().filter(|(_, bucket)| bucket.0 > 0) {
                let (count, sum_us) = std::mem::take(bucket);
                latencies.push(LatencyDelta { bucket: index, count: count.into(), sum_us });
            }
        }
        let outcomes = (0..OUTCOMES)
            .map(|slot| (slot, self.outcomes[slot].take()))
            .filter(|(_, count)| *count > 0)
            .collect();
        Some(EdgeDelta {
            key: self.key.clone(),
            outcomes,
            failures: self.failures.take(),
            latencies,
            exemplars: self.exemplars.borrow_mut().drain(),
            refusals: self.refusals.take(),
            refusals_by_callee: self.refusals_by_callee.take(),
            in_flight: self.in_flight.get(),
            connections: self.connections.take(),
            sent: self.sent.take(),
            received: self.received.take(),
            repeats: self.repeats.take(),
            hops: self.hops.as_ref().map(|hops| hops.borrow_mut().take()).unwrap_or_default(),
        })
    }
}

fn add_reason(all: &mut Vec<(Reason, u64)>, reason: Reason, more: u64) {
    match all.iter_mut().find(|(known, _)| *known == reason) {
        Some((_, count)) => *count += more,
        None => all.push((reason, more)),
    }
}

fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

/// A request under way.
#[derive(Debug)]
pub struct InFlight(Rc<Edge>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        self.0.touched.set(true);
    }
}

/// All edges of one worker.
#[derive(Debug, Default)]
pub struct Edges {
    splits: bool,
    listeners: Rc<Listeners>,
    edges: RefCell<HashMap<EdgeKey, Rc<Edge>>>,
    /// Taken, but not delivered.
    left: RefCell<Vec<EdgeDelta>>,
}

impl Edges {
    /// Without any. `splits`: whether requests' durations are split by where they went.
    pub fn new(splits: bool, listeners: Rc<Listeners>) -> Self {
        Self { splits, listeners, ..Self::default() }
    }

    /// Whether requests' durations are split by where they went.
    pub fn splits(&self) -> bool {
        self.splits
    }

    /// The edge of this key; to be kept by whoever counts often. Beyond a bound, strangers share one edge per
    /// direction.
    pub fn edge(&self, key: EdgeKey) -> Rc<Edge> {
        let mut edges = self.edges.borrow_mut();
        if let Some(edge) = edges.get(&key) {
            return edge.clone();
        }
        let key = if edges.len() < MAX_EDGES { key } else { overflow(key) };
        let new = || Rc::new(Edge::new(key.clone(), self.splits, self.listeners.clone()));
        edges.entry(key.clone()).or_insert_with(new).clone()
    }

    /// Takes what has gathered, and forgets edges that nobody holds any more.
    pub fn take(&self) -> Vec<EdgeDelta> {
        let mut edges = self.edges.borrow_mut();
        let fresh: Vec<_> = edges.values().filter_map(|edge| edge.take()).collect();
        edges.retain(|_, edge| Rc::strong_count(edge) > 1 || edge.touched.get());
        let mut deltas = self.left.take();
        if deltas.is_empty() {
            return fresh;
        }
        for delta in fresh {
            match deltas.iter_mut().find(|left| left.key == delta.key) {
                Some(left) => left.merge(delta),
                None => deltas.push(delta),
            }
        }
        deltas
    }

    /// Keeps what was taken but could not be delivered, for the next time.
    pub fn put_back(&self, deltas: Vec<EdgeDelta>) {
        *self.left.borrow_mut() = deltas;
    }
}

fn overflow(key: EdgeKey) -> EdgeKey {
    let other: Arc<str> = OTHER.into();
    EdgeKey { source: other.clone(), target: other.clone(), backend: other.clone(), workload: other, ..key }
}

#[cfg(test)]
mod tests;
