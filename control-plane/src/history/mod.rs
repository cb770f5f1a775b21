//! What sidecars measured, kept for thirty minutes in bounded memory: figures by edge, by service and by instance, the state of
//! breakers, and what happened lately.
//!
//! Figures are written to disk now and then ([`Snapshots`]), so that they outlive a restart. Breakers and certificates need not be: sidecars say
//! all of that again in their next report. Nor need what is known by the workload that served: it is for what is slow now.

mod actions;
mod breakers;
mod events;
mod hops;
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

pub use self::{
    actions::{Action, Actions},
    events::{Event, EventKind, KEPT as EVENTS_KEPT},
    hops::{Spent, SpentSums},
    series::{COARSE_STEP_S, Counts, FINE_SPAN_S, SPAN_S, Series, Tally},
    snapshot_file::Snapshots,
};
use crate::compile::Name;

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
        let named = |gauge: &&ConcurrencyGauge| gauge.service.len() <= MAX_NAME;
        let mut stalls = known.map(|known| known.stalls.clone()).unwrap_or_default();
        let Telemetry { watched_us, stalled_us, .. } = *telemetry;
        stalls.add(now_ms, ways::Stalled { watched_us, stalled_us });
        let sidecar = Sidecar {
            source: reporter.source.to_owned(),
            workload: reporter.workload.to_owned(),
            certificate_not_after_ms: telemetry.certificate_not_after.saturating_mul(1000),
            certificate_not_before_ms: telemetry.certificate_not_before.saturating_mul(1000),
            certificates_renewed: telemetry.certificates_renewed,
            clock_skew_ms: (telemetry.clock_ms > 0).then(|| now_ms - telemetry.clock_ms),
            concurrency: telemetry.concurrency.iter().take(MAX_CONCURRENCY).filter(named).cloned().collect(),
            reported_ms: now_ms,
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
    pub fn served(
        &self,
        edge: &EdgeKey,
        at_ms: i64,
        seconds: i64,
    ) -> impl Iterator<Item = (&str, SpentSums)> {
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
                of_service.actions.count(action, &count.about, count.count);
            }
        }
        for (service, counts) in counts {
            let series = slot(&mut self.policies, bounded(service), || OVERFLOW.to_owned(), now_ms);
            series.add(now_ms, interval_ms, &counts);
        }
    }

    fn count(&mut self, reporter: Reporter<'_>, delta: &EdgeDelta, interval_ms: u32, now_ms: i64) {
        let (counts, spent) = (Counts::of(delta), Spent::of(delta));
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
                to: bounded(&delta.peer),
                backend: bounded(backend),
            };
            if let Some(spent) = &spent {
                self.ways.add(&key, &delta.workload, now_ms, &SpentSums::of(spent));
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

fn bounded(name: &str) -> String {
    if name.len() <= MAX_NAME { name.to_owned() } else { OVERFLOW.to_owned() }
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
            format!("{caller} stopped sending to {endpoint} of {service}")
        }
        EventKind::BreakerOpened => {
            let reason = &gauge.opened_reason;
            format!("{caller} stopped sending to {endpoint} of {service}: {reason}")
        }
        EventKind::BreakerHalfOpened => format!("{caller} tries {endpoint} of {service} again"),
        _ => format!("{caller} sends to {endpoint} of {service} as usual again"),
    };
    Event { id: 0, time_ms, kind, service: Some(service.clone()), workload: Some(endpoint), text }
}

#[cfg(test)]
mod tests {
    use pillion_api::wire::endpoint_gauge::Breaker;

    use super::*;

    const NOW_MS: i64 = 1_000_000_000_000;

    fn reporter<'a>(services: &'a [Name]) -> Reporter<'a> {
        Reporter { uid: "uid-web", workload: "web-1", source: "web.demo", services, registered: true }
    }

    fn outbound(peer: &str) -> Telemetry {
        let delta = EdgeDelta { peer: peer.to_owned(), requests: 10, mtls: true, ..EdgeDelta::default() };
        Telemetry { interval_ms: 1000, edges: vec![delta], ..Telemetry::default() }
    }

    fn names(uid: &str) -> Option<String> {
        (uid == "p3").then(|| "payments-3".to_owned())
    }

    #[test]
    fn outbound_reports_make_edges_and_inbound_ones_golden_figures() {
        let history = History::default();
        let services = ["payments.demo".into(), "payments-v1.demo".into()];
        history.record(reporter(&[]), &outbound("payments.demo"), NOW_MS, names);
        let mut inbound = outbound("spiffe://mesh.local/ns/demo/sa/web");
        inbound.edges[0].direction = Direction::Inbound.into();
        history.record(reporter(&services), &inbound, NOW_MS, names);
        history.read(|state| {
            let requests =
                |series: Option<&Series>| series.map(|series| series.recent(NOW_MS + 1000, 10).0.requests);
            assert_eq!(state.edges().len(), 1);
            assert_eq!(requests(state.edges().values().next()), Some(10));
            assert_eq!(requests(state.service("payments.demo")), Some(10));
            assert_eq!(requests(state.service("payments-v1.demo")), Some(10));
            assert_eq!(requests(state.instance("uid-web")), Some(10));
            assert_eq!(requests(state.service("web.demo")), None);
        });
    }

    #[test]
    fn what_policies_did_is_kept_by_service_and_edge() {
        use pillion_api::wire::policy_count::Action as Told;
        let history = History::default();
        let mut telemetry = outbound("payments.demo");
        telemetry.edges[0].retries = 4;
        let count = |service: &str, action: Told, about: &str, count| PolicyCount {
            service: service.into(),
            action: action.into(),
            about: about.into(),
            count,
        };
        telemetry.policies = vec![
            count("payments.demo", Told::FallbackServed, "no-endpoints", 3),
            count("payments.demo", Told::PanicPick, "", 2),
            count("web.demo", Told::Shed, "low", 1),
            count("web.demo", Told::Unspecified, "", 9),
        ];
        telemetry.concurrency = vec![ConcurrencyGauge { limit: 20, ..ConcurrencyGauge::default() }; 100];
        history.record(reporter(&[]), &telemetry, NOW_MS, names);
        history.read(|state| {
            let lately =
                |series: Option<&Series>| series.map(|series| series.recent(NOW_MS + 1000, 60).0.actions);
            let edge = lately(state.edges().values().next()).expect("an edge");
            assert_eq!(edge.total(Action::Retry), 4);
            let payments = lately(state.policies("payments.demo")).expect("its policies did something");
            assert_eq!(payments.by(Action::FallbackServed).collect::<Vec<_>>(), [("no-endpoints", 3)]);
            assert_eq!((payments.total(Action::PanicPick), payments.total(Action::Shed)), (2, 0));
            let web = lately(state.policies("web.demo")).expect("its policies did something");
            assert_eq!(web.total(Action::Shed), 1);
            let sidecar = &state.sidecars()["uid-web"];
            assert_eq!((sidecar.concurrency.len(), sidecar.concurrency[0].limit), (MAX_CONCURRENCY, 20));
        });
        history.forget_idle(NOW_MS + 2 * SPAN_S * 1000);
        history.read(|state| assert!(state.policies.is_empty()));
    }

    #[test]
    fn edges_are_bounded_and_the_rest_counts_together() {
        let history = History::default();
        for index in 0..MAX_SERIES + 100 {
            history.record(reporter(&[]), &outbound(&format!("s{index}.x")), NOW_MS, names);
        }
        history.read(|state| {
            assert_eq!(state.edges().len(), MAX_SERIES + 1);
            let key = EdgeKey { from: OVERFLOW.into(), to: OVERFLOW.into(), backend: String::new() };
            assert_eq!(state.edges()[&key].recent(NOW_MS + 1000, 10).0.requests, 1000);
        });
        history.forget_idle(NOW_MS + 2 * SPAN_S * 1000);
        history.read(|state| assert!(state.edges().is_empty()));
    }

    #[test]
    fn breakers_and_renewals_become_events_in_plain_words() {
        let history = History::default();
        let mut telemetry = Telemetry {
            certificates_renewed: 1,
            endpoints: vec![EndpointGauge {
                service: "payments.demo".into(),
                uid: "p3".into(),
                breaker: Breaker::Open.into(),
                opened: 1,
                opened_reason: "5 failures in a row".into(),
                ..EndpointGauge::default()
            }],
            ..Telemetry::default()
        };
        history.record(reporter(&[]), &telemetry, NOW_MS, names);
        telemetry.certificates_renewed = 2;
        telemetry.endpoints[0].breaker = Breaker::Closed.into();
        history.record(reporter(&[]), &telemetry, NOW_MS, names);
        let texts: Vec<String> =
            history.read(|state| state.events(10)).into_iter().rev().map(|event| event.text).collect();
        assert_eq!(
            texts,
            [
                "web-1 stopped sending to payments-3 of payments.demo: 5 failures in a row",
                "web-1 has a new certificate; no connection was closed for it",
                "web-1 sends to payments-3 of payments.demo as usual again",
            ]
        );
    }

    #[test]
    fn the_last_reports_of_one_that_left_count_and_leave_nothing_of_itself() {
        let history = History::default();
        history.record(reporter(&[]), &outbound("payments.demo"), NOW_MS, names);
        history.workload_left("uid-web");
        let leaving = Reporter { registered: false, ..reporter(&[]) };
        let mut telemetry = outbound("payments.demo");
        let open = EndpointGauge { breaker: Breaker::Open.into(), opened: 1, ..EndpointGauge::default() };
        telemetry.endpoints.push(open);
        history.record(leaving, &telemetry, NOW_MS, names);
        history.read(|state| {
            let edge = state.edges().values().next().expect("an edge");
            assert_eq!(edge.recent(NOW_MS + 1000, 10).0.requests, 20);
            assert!(state.sidecars().is_empty() && state.events(1).is_empty());
        });
    }

    #[test]
    fn what_a_sidecar_says_is_kept_at_bounded_length() {
        let history = History::default();
        let gauge = |service: String, reason: String| EndpointGauge {
            service,
            uid: "p3".into(),
            breaker: Breaker::Open.into(),
            opened: 1,
            opened_reason: reason,
            ..EndpointGauge::default()
        };
        let long = "x".repeat(1 << 20);
        let endpoints = vec![gauge(long.clone(), String::new()), gauge("payments.demo".into(), long)];
        history.record(reporter(&[]), &Telemetry { endpoints, ..Telemetry::default() }, NOW_MS, names);
        history.read(|state| {
            assert_eq!(state.events(10).len(), 1, "what has no possible name is left out");
            assert!(state.events(1)[0].text.len() < 1000);
            let gauges: Vec<_> = state.sidecars()["uid-web"].gauges_of("p3").collect();
            assert!(gauges.len() == 1 && gauges[0].opened_reason.len() < 1000);
        });
    }

    #[test]
    fn events_are_bounded_and_numbered() {
        let history = History::default();
        for index in 0..EVENTS_KEPT + 3 {
            history.happened(EventKind::WorkloadJoined, None, None, format!("{index}"), NOW_MS);
        }
        let events = history.read(|state| state.events(usize::MAX));
        assert_eq!(events.len(), EVENTS_KEPT);
        assert_eq!((events[0].id, events[EVENTS_KEPT - 1].id), (EVENTS_KEPT as u64 + 3, 4));
    }
}
