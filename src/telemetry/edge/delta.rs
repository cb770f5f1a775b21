//! What one edge has gathered, on its way to those who show it.

use std::sync::Arc;

use super::{EdgeKey, Outcome, add_reason};
use crate::{
    error::Reason,
    telemetry::{exemplars::Exemplar, hops::HopsDelta, repeats::RepeatsDelta},
};

/// What one edge has gathered; goes to the main thread.
#[derive(Debug, Clone)]
pub struct EdgeDelta {
    /// Which edge.
    pub key: Arc<EdgeKey>,
    /// Slot of [`Outcome::label`] and count.
    pub outcomes: Vec<(usize, u64)>,
    /// Of these, failed.
    pub failures: u64,
    /// Only the buckets that have any.
    pub latencies: Vec<LatencyDelta>,
    /// Requests among them whose traces are recorded, at most one for each bucket that is shown.
    pub exemplars: Vec<Exemplar>,
    /// By reason.
    pub refusals: Vec<(Reason, u64)>,
    /// Those by the callee's sidecar, of attempts.
    pub refusals_by_callee: Vec<(Reason, u64)>,
    /// Under way now.
    pub in_flight: u32,
    /// Opaque connections ended.
    pub connections: u64,
    /// Their bytes from the caller.
    pub sent: u64,
    /// Their bytes to the caller.
    pub received: u64,
    /// Requests sent more than once.
    pub repeats: RepeatsDelta,
    /// Where their time went.
    pub hops: HopsDelta,
}

impl EdgeDelta {
    /// Requests that ended.
    pub fn requests(&self) -> u64 {
        self.outcomes.iter().map(|(_, count)| count).sum()
    }

    /// Those of them that were not answered as asked, whoever is to blame.
    pub fn errors(&self) -> u64 {
        let errors = self.outcomes.iter().filter(|(slot, _)| Outcome::is_error(*slot));
        errors.map(|(_, count)| count).sum()
    }

    /// Joins a later delta of the same edge.
    pub fn merge(&mut self, later: Self) {
        for (slot, count) in later.outcomes {
            match self.outcomes.iter_mut().find(|(known, _)| *known == slot) {
                Some((_, total)) => *total += count,
                None => self.outcomes.push((slot, count)),
            }
        }
        for latency in later.latencies {
            match self.latencies.iter_mut().find(|known| known.bucket == latency.bucket) {
                Some(known) => {
                    known.count += latency.count;
                    known.sum_us += latency.sum_us;
                }
                None => self.latencies.push(latency),
            }
        }
        for exemplar in later.exemplars {
            match self.exemplars.iter_mut().find(|known| known.place() == exemplar.place()) {
                Some(known) => *known = exemplar,
                None => self.exemplars.push(exemplar),
            }
        }
        for (all, later) in
            [(&mut self.refusals, later.refusals), (&mut self.refusals_by_callee, later.refusals_by_callee)]
        {
            later.into_iter().for_each(|(reason, count)| add_reason(all, reason, count));
        }
        self.failures += later.failures;
        self.in_flight = later.in_flight;
        self.connections += later.connections;
        self.sent += later.sent;
        self.received += later.received;
        self.repeats.merge(later.repeats);
        self.hops.merge(later.hops);
    }
}

/// One bucket's share.
#[derive(Debug, Clone, Copy)]
pub struct LatencyDelta {
    /// Index into [`pillion_api::latency`]'s buckets.
    pub bucket: usize,
    /// Requests.
    pub count: u64,
    /// Their durations together, microseconds.
    pub sum_us: u64,
}
