//! Adds up what the workers report: into the Prometheus registry, and for the control plane.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use pillion_api::{hops::Segment, wire};
use tokio::time::Instant;

use super::{
    edge::{EdgeDelta, EdgeKey, Outcome},
    hops::SegmentDelta,
    names::Metric,
    prometheus::Registry,
    repeats::Repeat,
    report::{BreakerState, CertificateStatus, ConcurrencyStatus, EndpointStatus, WorkerReport},
    stalls::StallCount,
};
use crate::error::{Hop, Reason};

/// Rounds after which an endpoint that nobody mentions is forgotten.
const FORGET: u32 = 60;

/// What has been reported and not told to the control plane yet, and how things stand.
#[derive(Debug)]
pub struct Gathered {
    registry: Arc<Registry>,
    since: Instant,
    edges: HashMap<Arc<EdgeKey>, EdgeDelta>,
    /// By service and UID, joined over workers.
    endpoints: BTreeMap<(Arc<str>, Arc<str>), EndpointStatus>,
    concurrency: Vec<ConcurrencyStatus>,
    stalls: StallCount,
    /// Openings already counted, and for how many rounds nobody has mentioned the endpoint.
    opened: HashMap<(Arc<str>, Arc<str>), (u64, u32)>,
}

impl Gathered {
    /// Nothing yet.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            since: Instant::now(),
            edges: HashMap::new(),
            endpoints: BTreeMap::new(),
            concurrency: Vec::new(),
            stalls: StallCount::default(),
            opened: HashMap::new(),
        }
    }

    /// Every endpoint as the workers see it.
    pub fn endpoints(&self) -> impl Iterator<Item = &EndpointStatus> {
        self.endpoints.values()
    }

    /// Takes in one round of reports, one from each worker.
    pub fn add(&mut self, reports: Vec<WorkerReport>) {
        let open = |count: fn(&WorkerReport) -> usize| reports.iter().map(count).sum::<usize>() as f64;
        let connections = |hop: Hop| self.registry.gauge(Metric::ConnectionsOpen, &[hop.as_str()]);
        connections(Hop::Inbound).set(open(|report| report.inbound_connections));
        connections(Hop::Outbound).set(open(|report| report.outbound_connections));
        self.show_budgets(&reports);
        self.show_loads(&reports);
        self.endpoints.clear();
        let mut services = BTreeSet::new();
        let mut in_flight = BTreeMap::<(Hop, Arc<str>), u32>::new();
        for report in reports {
            self.stalls.add(report.stalls);
            for mut delta in report.edges {
                *in_flight.entry((delta.key.direction, delta.key.target.clone())).or_default() +=
                    delta.in_flight;
                count(&self.registry, &delta);
                // The control plane has no use for them.
                delta.exemplars.clear();
                match self.edges.get_mut(&delta.key) {
                    Some(known) => known.merge(delta),
                    None => drop(self.edges.insert(delta.key.clone(), delta)),
                }
            }
            services.extend(report.services);
            for status in report.endpoints {
                let key = (status.service.clone(), status.uid.clone());
                match self.endpoints.get_mut(&key) {
                    Some(known) => join(known, status),
                    None => drop(self.endpoints.insert(key, status)),
                }
            }
        }
        for ((hop, target), count) in in_flight {
            self.registry.gauge(Metric::InFlight, &[hop.as_str(), &target]).set(count);
        }
        self.show_endpoints(services);
    }

    /// Takes in how the workload's limits of concurrency stand.
    pub fn see(&mut self, concurrency: Vec<ConcurrencyStatus>) {
        self.concurrency = concurrency;
    }

    fn show_budgets(&self, reports: &[WorkerReport]) {
        let mut left = BTreeMap::<(&str, &str), u64>::new();
        for status in reports.iter().flat_map(|report| &report.budgets) {
            for (kind, budget) in [("retry", status.retries), ("hedge", status.hedges)] {
                if let Some(budget) = budget {
                    *left.entry((&status.service, kind)).or_default() += budget;
                }
            }
        }
        for ((service, kind), left) in left {
            self.registry.gauge(Metric::RetryBudget, &[service, kind]).set(left as f64);
        }
    }

    fn show_loads(&self, reports: &[WorkerReport]) {
        let mut loads = BTreeMap::<&str, (u32, u32)>::new();
        for load in reports.iter().flat_map(|report| &report.loads) {
            // They count together, each a moment after the other.
            let (connections, pending) = loads.entry(&load.service).or_default();
            (*connections, *pending) = (load.connections.max(*connections), load.pending.max(*pending));
        }
        for (service, (connections, pending)) in loads {
            self.registry.gauge(Metric::ServiceConnections, &[service]).set(connections);
            self.registry.gauge(Metric::ServicePending, &[service]).set(pending);
        }
    }

    fn show_endpoints(&mut self, services: BTreeSet<Arc<str>>) {
        // A service without endpoints has zeros, or an alert on them could never fire.
        let mut states: BTreeMap<_, _> = services.into_iter().map(|service| (service, [0u32; 3])).collect();
        for (key, status) in &self.endpoints {
            let labels = [&*status.service, &*status.workload];
            let number = match status.breaker {
                BreakerState::Closed => 0.0,
                BreakerState::Open => 1.0,
                BreakerState::HalfOpen => 2.0,
            };
            self.registry.gauge(Metric::BreakerState, &labels).set(number);
            let (counted, unmentioned) = self.opened.entry(key.clone()).or_default();
            let more = status.opened.saturating_sub(*counted);
            // A worker that is late with its report makes the sum less for once.
            *counted = status.opened.max(*counted);
            *unmentioned = 0;
            self.registry.counter(Metric::BreakerOpened, &labels).increment(more);
            let state = match (status.ready, status.breaker) {
                (false, _) => 1,
                (true, BreakerState::Closed) => 0,
                (true, _) => 2,
            };
            states.entry(status.service.clone()).or_default()[state] += 1;
        }
        self.opened.retain(|_, (_, unmentioned)| {
            *unmentioned += 1;
            *unmentioned < FORGET
        });
        for (service, counts) in states {
            for (state, count) in ["ready", "unready", "open"].into_iter().zip(counts) {
                self.registry.gauge(Metric::Endpoints, &[&service, state]).set(count);
            }
        }
    }

    /// Takes everything for the control plane.
    pub fn take(&mut self, certificate: CertificateStatus, clock_ms: i64) -> wire::Telemetry {
        let now = Instant::now();
        let interval = now - std::mem::replace(&mut self.since, now);
        let stalls = std::mem::take(&mut self.stalls);
        wire::Telemetry {
            interval_ms: interval.as_millis() as u32,
            edges: self.edges.drain().map(|(_, delta)| to_wire(delta)).collect(),
            endpoints: self.endpoints.values().map(gauge).collect(),
            certificate_not_before: certificate.not_before,
            certificate_not_after: certificate.not_after,
            certificates_renewed: certificate.renewed,
            clock_ms,
            policies: self.registry.take_told(),
            concurrency: self.concurrency.iter().map(limit).collect(),
            watched_us: stalls.watched.as_micros() as u64,
            stalled_us: stalls.stalled.as_micros() as u64,
            losses: self.registry.losses.take(now),
        }
    }
}

/// Two workers' views of one endpoint.
fn join(known: &mut EndpointStatus, other: EndpointStatus) {
    known.in_flight += other.in_flight;
    known.latency_us = known.latency_us.max(other.latency_us);
    known.opened += other.opened;
    if other.breaker > known.breaker {
        known.breaker = other.breaker;
        known.opened_reason = other.opened_reason;
    }
    known.open_ms = known.open_ms.max(other.open_ms);
}

fn count(registry: &Registry, delta: &EdgeDelta) {
    let key = &*delta.key;
    let (hop, workload) = (key.direction.as_str(), &*key.workload);
    for (slot, count) in &delta.outcomes {
        let labels = [hop, &key.source, &key.target, &key.backend, workload, Outcome::label(*slot)];
        registry.counter(Metric::Requests, &labels).increment(*count);
    }
    if delta.failures > 0 {
        let labels = [hop, &key.source, &key.target, &key.backend, workload];
        registry.counter(Metric::Failures, &labels).increment(delta.failures);
    }
    for (reason, count) in &delta.refusals {
        let labels = [hop, &key.source, &key.target, reason.as_str()];
        registry.counter(Metric::Refusals, &labels).increment(*count);
    }
    let recovered = [(Repeat::Recovered, "recovered")];
    for (metric, repeats) in [
        (Metric::Retries, &Repeat::RETRIES[..]),
        (Metric::RetriesRefused, &Repeat::REFUSED),
        (Metric::Recovered, &recovered),
        (Metric::Hedges, &Repeat::HEDGES),
    ] {
        for (repeat, label) in repeats {
            let count = delta.repeats.of(*repeat);
            if count > 0 {
                let labels = [&*key.source, &key.target, &key.backend, label];
                registry.counter(metric, &labels[..metric.labels().len()]).increment(count);
            }
        }
    }
    if !delta.latencies.is_empty() {
        let counts = delta.latencies.iter().map(|latency| (latency.bucket, latency.count));
        let sum_us = delta.latencies.iter().map(|latency| latency.sum_us).sum();
        let labels = [hop, &key.source, &key.target, &key.backend];
        registry.tally(Metric::Duration, &labels, counts, sum_us);
        if !delta.exemplars.is_empty() {
            registry.exemplify(Metric::Duration, &labels, &delta.exemplars);
        }
    }
    for segment in Segment::ALL.into_iter().filter(|_| delta.hops.requests > 0) {
        let labels = [hop, &key.source, &key.target, &key.backend, segment.name()];
        let (counts, sum_us) = delta.hops.of(segment);
        // Requests that spent no time there count, too, so that a quantile is one of all requests; but not where none ever did.
        let rest = delta.hops.requests - counts.iter().map(|(_, count)| count).sum::<u64>();
        if sum_us > 0 || registry.has_tally(Metric::HopDuration, &labels) {
            registry.tally(Metric::HopDuration, &labels, counts.iter().copied().chain([(0, rest)]), sum_us);
        }
    }
    if delta.connections > 0 {
        let labels = [hop, &key.source, &key.target, &key.backend, workload];
        registry.counter(Metric::OpaqueConnections, &labels).increment(delta.connections);
        for (flow, bytes) in [("sent", delta.sent), ("received", delta.received)] {
            registry.counter(Metric::OpaqueBytes, &[hop, &key.source, &key.target, flow]).increment(bytes);
        }
    }
}

fn to_wire(delta: EdgeDelta) -> wire::EdgeDelta {
    use wire::edge_delta::Direction;
    let requests = delta.requests();
    let key = &*delta.key;
    let (direction, peer) = match key.direction {
        Hop::Outbound => (Direction::Outbound, &key.target),
        Hop::Inbound => (Direction::Inbound, &key.source),
    };
    wire::EdgeDelta {
        direction: direction.into(),
        peer: peer.to_string(),
        backend: key.backend.to_string(),
        workload: key.workload.to_string(),
        mtls: key.mtls,
        requests,
        failures: delta.failures,
        errors: delta.errors(),
        refusals: by_reason(&delta.refusals),
        refusals_by_callee: by_reason(&delta.refusals_by_callee),
        latency_buckets: delta.latencies.iter().map(|latency| latency.bucket as u32).collect(),
        latency_counts: delta.latencies.iter().map(|latency| latency.count).collect(),
        latency_sum_us: delta.latencies.iter().map(|latency| latency.sum_us).sum(),
        connections: delta.connections,
        sent_bytes: delta.sent,
        received_bytes: delta.received,
        retries: delta.repeats.sum(&Repeat::RETRIES),
        retries_recovered: delta.repeats.of(Repeat::Recovered),
        retries_over_budget: delta.repeats.of(Repeat::Budget),
        hedges: delta.repeats.of(Repeat::Hedged),
        hedges_won: delta.repeats.of(Repeat::HedgeWon),
        hedges_over_budget: delta.repeats.of(Repeat::HedgeBudget),
        split_requests: delta.hops.requests,
        segments: delta.hops.segments.iter().map(segment).collect(),
    }
}

fn by_reason(refusals: &[(Reason, u64)]) -> std::collections::HashMap<String, u64> {
    refusals.iter().map(|(reason, count)| (reason.as_str().to_owned(), *count)).collect()
}

fn segment(delta: &SegmentDelta) -> wire::SegmentDelta {
    wire::SegmentDelta {
        // The wire has them in the same order; a test says so.
        segment: delta.segment as i32,
        sum_us: delta.sum_us,
        buckets: delta.counts.iter().map(|(bucket, _)| *bucket as u32).collect(),
        counts: delta.counts.iter().map(|(_, count)| *count).collect(),
    }
}

fn gauge(status: &EndpointStatus) -> wire::EndpointGauge {
    use wire::endpoint_gauge::Breaker;
    let breaker = match status.breaker {
        BreakerState::Closed => Breaker::Closed,
        BreakerState::Open => Breaker::Open,
        BreakerState::HalfOpen => Breaker::HalfOpen,
    };
    wire::EndpointGauge {
        service: status.service.to_string(),
        uid: status.uid.to_string(),
        breaker: breaker.into(),
        in_flight: status.in_flight,
        latency_us: status.latency_us,
        opened: status.opened,
        opened_reason: status.opened_reason.clone(),
        share: status.share,
        open_ms: status.open_ms,
    }
}

fn limit(status: &ConcurrencyStatus) -> wire::ConcurrencyGauge {
    let min_rtt = status.min_rtt.map_or(0, |rtt| rtt.as_micros());
    wire::ConcurrencyGauge {
        service: status.service.to_string(),
        port: status.port.into(),
        limit: status.limit,
        in_flight: status.under_way,
        queued: status.queued,
        min_rtt_us: u32::try_from(min_rtt).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_the_same_on_the_wire() {
        use wire::segment_delta::Segment as Wire;
        for segment in Segment::ALL {
            let wire = Wire::try_from(segment as i32).expect("the wire has it");
            assert_eq!(wire.as_str_name().to_lowercase().replace('_', "-"), segment.name());
        }
        Wire::try_from(Segment::ALL.len() as i32).expect_err("it has no more");
    }
}
