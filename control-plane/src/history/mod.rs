//! What sidecars measured, kept for thirty minutes in bounded memory: figures by edge, by service and by instance, the state of
//! breakers, and what happened lately.
//!
//! Figures and events are written to disk now and then ([`Snapshots`]), so that they outlive a restart. Breakers and certificates need not be:
//! sidecars say all of that again in their next report. Nor need what is known by the workload that served: it is for what is slow now.

mod actions;
mod breakers;
mod counts;
mod events;
mod hops;
mod losses;
mod packed;
mod ring;
mod series;
mod snapshot;
mod snapshot_file;
mod ways;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pillion_api::wire::{
    ConcurrencyGauge, EdgeDelta, EndpointGauge, PolicyCount, Telemetry, edge_delta::Direction,
};

#[cfg(test)]
pub(crate) use self::ring::READ;
pub use self::{
    actions::{Action, Actions},
    counts::{Counts, Tally},
    events::{Event, EventKind, KEPT as EVENTS_KEPT},
    hops::{Spent, SpentSums},
    losses::Loss,
    series::{COARSE_STEP_S, FINE_SPAN_S, SPAN_S, Series},
    snapshot_file::Snapshots,
    ways::Served,
};
use crate::{compile::Name, said};

/// Series of each kind; what is beyond counts together under [`OVERFLOW`].
const MAX_SERIES: usize = 2048;
/// Edges taken from one report.
const MAX_EDGES_PER_REPORT: usize = 4096;
/// Counts of policies taken from one report.
const MAX_POLICY_COUNTS: usize = 1024;
/// Limits of concurrency taken from one report.
const MAX_CONCURRENCY: usize = 64;
/// What counts for everything that there is no room for.
pub const OVERFLOW: &str = "other";
/// A service's name, two DNS labels and a dot.
const MAX_NAME: usize = 127;

/// Requests from one service to another, by the service that served them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EdgeKey {
    /// The caller's service, else its workload, with its namespace.
    pub from: String,
    /// The service called.
    pub to: String,
    /// The service that served it, where a route chose another; else empty.
    pub backend: String,
}

impl EdgeKey {
    /// Whether its requests are for a service: it is called, or a route chose it.
    pub fn leads_to(&self, service: &str) -> bool {
        self.to == service || self.backend == service
    }

    /// The service that serves its requests.
    pub fn serving(&self) -> &str {
        if self.backend.is_empty() { &self.to } else { &self.backend }
    }
}

/// Who reported.
#[derive(Debug, Clone, Copy)]
pub struct Reporter<'a> {
    /// The workload's UID.
    pub uid: &'a str,
    /// What people call it.
    pub workload: &'a str,
    /// What others see as the source of its requests.
    pub source: &'a str,
    /// The services it serves.
    pub services: &'a [Name],
    /// Whether it is still registered. One that has said goodbye goes on reporting its last requests, which count; what
    /// it says of itself would stay for ever.
    pub registered: bool,
}

/// What a sidecar says of its own certificate, and its breakers.
#[derive(Debug, Clone, Default)]
pub struct Sidecar {
    /// What others see as the source of its requests.
    pub source: String,
    /// What people call it.
    pub workload: String,
    /// Milliseconds since the Unix epoch; zero while unknown.
    pub certificate_not_after_ms: i64,
    /// When it began to hold; zero: unknown.
    pub certificate_not_before_ms: i64,
    /// Since it started.
    pub certificates_renewed: u64,
    /// The control plane's clock minus its host's, milliseconds. `None`: it does not say its own.
    pub clock_skew_ms: Option<i64>,
    /// By service and port of the application.
    pub concurrency: Vec<ConcurrencyGauge>,
    /// When it said so.
    pub reported_ms: i64,
    /// Which of its telemetry does not reach whoever is to have it.
    pub losses: Vec<Loss>,
    gauges: breakers::Gauges,
    stalls: ways::Stalls,
}

impl Sidecar {
    /// Of the last minute, as far as it had anything to do: the share in which it could not run. That is for want of CPU.
    pub fn stalled(&self, now_ms: i64) -> f64 {
        self.stalls.share(now_ms)
    }

    /// Its breaker and load estimate for an endpoint, one for each service by which it calls it.
    pub fn gauges_of<'a>(&'a self, endpoint_uid: &'a str) -> impl Iterator<Item = &'a EndpointGauge> {
        self.gauges.values().filter(move |gauge| gauge.uid == endpoint_uid)
    }
}

/// Thirty minutes of figures and the latest events.
#[derive(Default)]
pub struct History {
    state: Mutex<State>,
}

/// What [`History`] holds; readable through [`History::read`].
#[derive(Default)]
pub struct State {
    edges: BTreeMap<EdgeKey, Series>,
    /// Inbound requests by service, or by workload where it belongs to none.
    services: BTreeMap<String, Series>,
    /// What policies of a service did, as its callers' sidecars and its own tell it. Nothing else is counted there.
    policies: BTreeMap<String, Series>,
    /// Inbound requests by instance UID.
    instances: BTreeMap<String, Series>,
    ways: ways::Ways,
    sidecars: BTreeMap<String, Sidecar>,
    events: events::Events,
}

impl History {
    /// Takes one report in. `endpoint_name` gives what people call the endpoint of a UID.
    pub fn record(
        &self,
        reporter: Reporter<'_>,
        telemetry: &Telemetry,
        now_ms: i64,
        endpoint_name: impl Fn(&str) -> Option<String>,
    ) {
        let mut state = self.state();
        for delta in telemetry.edges.iter().take(MAX_EDGES_PER_REPORT) {
            state.count(reporter, delta, telemetry.interval_ms, now_ms);
        }
        state.count_policies(&telemetry.policies, telemetry.interval_ms, now_ms);
        if !reporter.registered {
            return;
        }
        let known = state.sidecars.get(reporter.uid);
        let was_renewed = known.map(|known| known.certificates_renewed);
        let gauges = breakers::gauges(&telemetry.endpoints);
        let no_gauges = breakers::Gauges::new();
        let happened: Vec<Event> =
            breakers::transitions(known.map_or(&no_gauges, |known| &known.gauges), &gauges)
                .into_iter()
                .map(|(kind, gauge)| breaker_event(reporter, kind, gauge, now_ms, &endpoint_name))
                .collect();
        let named = |gauge: &&ConcurrencyGauge| said::is_name(&gauge.service, MAX_NAME);
        let mut stalls = known.map(|known| known.stalls.clone()).unwrap_or_default();
        let Telemetry { watched_us, stalled_us, .. } = *telemetry;
        if is_of_now(telemetry.interval_ms) {
            stalls.add(now_ms, ways::Stalled { watched_us, stalled_us });
        }
        let sidecar = Sidecar {
            source: reporter.source.to_owned(),
            workload: reporter.workload.to_owned(),
            certificate_not_after_ms: telemetry.certificate_not_after.saturating_mul(1000),
            certificate_not_before_ms: telemetry.certificate_not_before.saturating_mul(1000),
            certificates_renewed: telemetry.certificates_renewed,
            clock_skew_ms: (telemetry.clock_ms > 0).then(|| now_ms - telemetry.clock_ms),
            concurrency: telemetry.concurrency.iter().take(MAX_CONCURRENCY).filter(named).cloned().collect(),
            reported_ms: now_ms,
            losses: losses::after(known.map_or(&[], |known| &known.losses), &telemetry.losses, now_ms),
            gauges,
            stalls,
        };
        state.sidecars.insert(reporter.uid.to_owned(), sidecar);
        if was_renewed.is_some_and(|was| telemetry.certificates_renewed > was) {
            let text =
                format!("{} has a new certificate; no connection was closed for it", reporter.workload);
            state.events.add(event(EventKind::CertificateRenewed, reporter, text, now_ms));
        }
        happened.into_iter().for_each(|event| state.events.add(event));
    }

    /// The workload is not registered any more: what its sidecar said of its breakers and certificate is over.
    pub fn workload_left(&self, uid: &str) {
        self.state().sidecars.remove(uid);
    }

    /// Adds to the list of what happened.
    pub fn happened(
        &self,
        kind: EventKind,
        service: Option<String>,
        workload: Option<String>,
        text: String,
        time_ms: i64,
    ) {
        self.state().events.add(Event { id: 0, time_ms, kind, service, workload, text });
    }

    /// Forgets series in which nothing was counted for as long as anything is kept. Called now and then.
    pub fn forget_idle(&self, now_ms: i64) {
        let mut state = self.state();
        state.edges.retain(|_, series| !series.idle_for(now_ms, SPAN_S));
        state.services.retain(|_, series| !series.idle_for(now_ms, SPAN_S));
        state.policies.retain(|_, series| !series.idle_for(now_ms, SPAN_S));
        state.instances.retain(|_, series| !series.idle_for(now_ms, SPAN_S));
        state.ways.forget_idle(now_ms);
    }

    /// Looks at everything at one moment. `look` should be quick: reports wait for it.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What it guards is whole at every step, also after a panic elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Every edge of the last thirty minutes.
    pub fn edges(&self) -> &BTreeMap<EdgeKey, Series> {
        &self.edges
    }

    /// A service's inbound requests.
    pub fn service(&self, name: &str) -> Option<&Series> {
        self.services.get(name)
    }

    /// What policies of a service did.
    pub fn policies(&self, service: &str) -> Option<&Series> {
        self.policies.get(service)
    }

    /// An instance's inbound requests.
    pub fn instance(&self, uid: &str) -> Option<&Series> {
        self.instances.get(uid)
    }

    /// Who served the requests of an edge, and where their time went by that, in about the last `seconds` before some moment.
    pub fn served(&self, edge: &EdgeKey, at_ms: i64, seconds: i64) -> impl Iterator<Item = (&str, Served)> {
        self.ways.of(edge, at_ms, seconds)
    }

    /// The reporting sidecars by UID.
    pub fn sidecars(&self) -> &BTreeMap<String, Sidecar> {
        &self.sidecars
    }

    /// The newest events first.
    pub fn events(&self, count: usize) -> Vec<Event> {
        self.events.latest(count)
    }

    fn count_policies(&mut self, told: &[PolicyCount], interval_ms: u32, now_ms: i64) {
        let mut counts = BTreeMap::<&str, Counts>::new();
        for count in told.iter().take(MAX_POLICY_COUNTS) {
            if let Some(action) = Action::of(count.action()) {
                let of_service = counts.entry(&count.service).or_default();
                of_service.actions.count(action, bounded(&count.about), count.count);
            }
        }
        for (service, counts) in counts {
            let series =
                slot(&mut self.policies, bounded(service).to_owned(), || OVERFLOW.to_owned(), now_ms);
            series.add(now_ms, interval_ms, &counts);
        }
    }

    fn count(&mut self, reporter: Reporter<'_>, delta: &EdgeDelta, interval_ms: u32, now_ms: i64) {
        let counts = Counts::of(delta);
        let spent = Spent::of(delta).filter(|_| is_of_now(interval_ms));
        let add = |series: &mut Series| {
            series.add(now_ms, interval_ms, &counts);
            if let Some(spent) = &spent {
                series.add_hops(now_ms, spent);
            }
        };
        if delta.direction() == Direction::Outbound {
            let backend = if delta.backend == delta.peer { "" } else { &delta.backend };
            let key = EdgeKey {
                from: reporter.source.to_owned(),
                to: bounded(&delta.peer).to_owned(),
                backend: bounded(backend).to_owned(),
            };
            if let Some(spent) = &spent {
                let refused =
                    delta.refusals_by_callee.values().fold(0, |sum: u64, it| sum.saturating_add(*it));
                let failed = u32::try_from(delta.failures.max(delta.errors).max(refused)).unwrap_or(u32::MAX);
                self.ways.add(&key, &delta.workload, now_ms, &Served { spent: SpentSums::of(spent), failed });
            }
            let overflow =
                || EdgeKey { from: OVERFLOW.to_owned(), to: OVERFLOW.to_owned(), backend: String::new() };
            add(slot(&mut self.edges, key, overflow, now_ms));
            return;
        }
        let overflow = || OVERFLOW.to_owned();
        add(slot(&mut self.instances, reporter.uid.to_owned(), overflow, now_ms));
        for service in reporter.services {
            add(slot(&mut self.services, service.to_string(), overflow, now_ms));
        }
        if reporter.services.is_empty() {
            add(slot(&mut self.services, reporter.source.to_owned(), overflow, now_ms));
        }
    }
}

/// What a sidecar has gathered for long, while it was not connected, says nothing of where time goes now.
fn is_of_now(interval_ms: u32) -> bool {
    interval_ms <= 60_000
}

/// The series of a key; that of everything else when there is no room for one more.
fn slot<K: Ord>(
    all: &mut BTreeMap<K, Series>,
    key: K,
    overflow: impl FnOnce() -> K,
    now_ms: i64,
) -> &mut Series {
    let key = if all.len() < MAX_SERIES || all.contains_key(&key) { key } else { overflow() };
    all.entry(key).or_insert_with(|| Series::new(now_ms))
}

/// Of a service or workload, or what an action was about.
fn bounded(name: &str) -> &str {
    if said::is_name(name, MAX_NAME) { name } else { OVERFLOW }
}

fn event(kind: EventKind, reporter: Reporter<'_>, text: String, time_ms: i64) -> Event {
    let service = reporter.services.first().map(ToString::to_string);
    Event { id: 0, time_ms, kind, service, workload: Some(reporter.workload.to_owned()), text }
}

fn breaker_event(
    reporter: Reporter<'_>,
    kind: EventKind,
    gauge: &EndpointGauge,
    time_ms: i64,
    endpoint_name: &impl Fn(&str) -> Option<String>,
) -> Event {
    let endpoint = endpoint_name(&gauge.uid).unwrap_or_else(|| gauge.uid.clone());
    let (service, caller) = (&gauge.service, reporter.workload);
    let text = match kind {
        EventKind::BreakerOpened if gauge.opened_reason.is_empty() => {
            format!("{caller} opened its breaker for {endpoint} of {service}")
        }
        EventKind::BreakerOpened => {
            let reason = &gauge.opened_reason;
            format!("{caller} opened its breaker for {endpoint} of {service}: {reason}")
        }
        EventKind::BreakerHalfOpened => format!("{caller} tries {endpoint} of {service} again"),
        _ => format!("{caller} sends to {endpoint} of {service} as usual again"),
    };
    Event { id: 0, time_ms, kind, service: Some(service.clone()), workload: Some(endpoint), text }
}

#[cfg(test)]
mod tests;
