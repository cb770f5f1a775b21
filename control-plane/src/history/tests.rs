//! Whether reports become the right figures and events.

use pillion_api::{
    latency,
    wire::{SegmentDelta, endpoint_gauge::Breaker, policy_count},
};

use super::*;

pub(super) const NOW_MS: i64 = 1_000_000_000_000;

/// A busy second: requests of several durations, retries, refusals and a split.
pub(super) fn delta(requests: u64, spread: u32) -> EdgeDelta {
    let buckets: Vec<u32> = (0..spread).map(|index| latency::index(10_000) as u32 + index).collect();
    let segment = |segment| SegmentDelta {
        segment,
        sum_us: requests * 1000,
        buckets: buckets.clone(),
        counts: vec![requests; buckets.len()],
    };
    EdgeDelta {
        requests,
        failures: requests / 7,
        mtls: true,
        retries: requests / 3,
        refusals: [("no-endpoints".to_owned(), requests)].into(),
        refusals_by_callee: [("rate-limited".to_owned(), 1)].into(),
        latency_counts: vec![requests; buckets.len()],
        split_requests: requests,
        segments: (0..5).map(segment).collect(),
        latency_buckets: buckets,
        ..EdgeDelta::default()
    }
}

pub(super) fn count(series: &mut Series, at_ms: i64, interval_ms: u32, delta: &EdgeDelta) {
    let mut counts = Counts::of(delta);
    counts.actions.count(Action::Shed, "low", delta.requests);
    series.add(at_ms, interval_ms, &counts);
    series.add_hops(at_ms, &Spent::of(delta).unwrap_or_default());
}

/// As many seconds as given, up to now.
pub(super) fn busy(seconds: i64) -> Series {
    let mut series = Series::new(NOW_MS - seconds * 1000);
    let delta = delta(20, 6);
    (0..=seconds).rev().for_each(|ago| count(&mut series, NOW_MS - ago * 1000, 1000, &delta));
    series
}

impl History {
    /// Of services and edges that have been busy for half an hour until [`NOW_MS`].
    pub(crate) fn busy(
        services: impl IntoIterator<Item = String>,
        edges: impl IntoIterator<Item = EdgeKey>,
    ) -> Self {
        let (history, series) = (Self::default(), busy(SPAN_S));
        let mut state = history.state();
        state.services = services.into_iter().map(|name| (name, series.clone())).collect();
        state.edges = edges.into_iter().map(|key| (key, series.clone())).collect();
        drop(state);
        history
    }
}

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
            "web-1 opened its breaker for payments-3 of payments.demo: 5 failures in a row",
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
fn nothing_that_a_terminal_obeys_gets_into_what_is_shown() {
    let history = History::default();
    let bad = "\u{1b}[2J\n";
    let gauge = |service: String, uid: String| EndpointGauge {
        service,
        uid,
        breaker: Breaker::Open.into(),
        opened: 1,
        opened_reason: format!("gone{bad}"),
        ..EndpointGauge::default()
    };
    let edge = |peer: String, backend: String| EdgeDelta {
        direction: Direction::Outbound.into(),
        peer,
        backend,
        workload: format!("pay-1{bad}"),
        refusals: [(format!("refused{bad}"), 1)].into(),
        ..delta(1, 1)
    };
    let policy = PolicyCount {
        service: format!("payments{bad}"),
        action: policy_count::Action::RateLimitedClient.into(),
        about: format!("somebody{bad}"),
        count: 1,
    };
    let limit = |service: String| ConcurrencyGauge { service, ..ConcurrencyGauge::default() };
    let telemetry = Telemetry {
        endpoints: vec![
            gauge("payments.demo".into(), "p3".into()),
            gauge(format!("payments{bad}"), "p3".into()),
            gauge("payments.demo".into(), format!("p3{bad}")),
        ],
        edges: vec![edge(format!("payments{bad}"), format!("pay{bad}"))],
        policies: vec![policy],
        concurrency: vec![limit("payments.demo".into()), limit(format!("payments{bad}"))],
        ..Telemetry::default()
    };
    history.record(reporter(&[]), &telemetry, NOW_MS, |_| None);
    history.read(|state| {
        assert_eq!((state.edges().len(), state.policies.len(), state.events(10).len()), (1, 1, 1));
        let said = format!(
            "{:?} {:?} {:?} {:?}",
            state.events(10),
            state.sidecars()["uid-web"].gauges,
            state.sidecars()["uid-web"].concurrency,
            state.edges().keys(),
        );
        let counted = |series: &Series| series.recent(NOW_MS + 1000, 10).0;
        let counts: Vec<Counts> =
            state.edges().values().chain(state.policies.values()).map(counted).collect();
        let (edge, _) = state.edges().first_key_value().expect("one");
        let workloads: Vec<&str> =
            state.served(edge, NOW_MS + 1000, 10).map(|(workload, _)| workload).collect();
        let said = format!("{said} {counts:?} {workloads:?}");
        assert!(said.contains("gone [2J") && !said.contains("\\u{1b}") && !said.contains("\\n"), "{said}");
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

#[test]
fn what_is_always_busy_takes_little_memory() {
    let series = busy(SPAN_S);
    let hops = series.hops.as_deref().expect("time was split");
    let bytes = series.fine.bytes()
        + series.coarse.bytes()
        + hops.fine.bytes()
        + hops.coarse.bytes()
        + hops.sums.bytes();
    println!("{bytes} bytes");
    assert!(bytes < 50_000, "{bytes} bytes");
}

#[test]
#[ignore = "a measurement: cargo test --workspace --lib history::tests::one_report -- --ignored --nocapture"]
fn one_report_of_a_hundred_edges() {
    let services = ["payments.demo".into()];
    let edge = |index: usize| EdgeDelta {
        peer: format!("s{}.demo", index / 2),
        direction: if index.is_multiple_of(2) { Direction::Outbound } else { Direction::Inbound }.into(),
        ..delta(20, 6)
    };
    let history = History::default();
    let report = |at_s: i64, interval_ms: u32| {
        let edges = (0..100).map(edge).collect();
        let telemetry = Telemetry { interval_ms, edges, ..Telemetry::default() };
        let started = std::time::Instant::now();
        history.record(reporter(&services), &telemetry, NOW_MS + at_s * 1000, names);
        started.elapsed()
    };
    for (what, interval_ms) in [("each second", 1000), ("late by two minutes", 120_000)] {
        let mut times: Vec<_> = (0..30).map(|second| report(second, interval_ms)).collect();
        times.sort();
        println!("{what}: {:?}, {:?} at its most", times[15], times[29]);
    }
}
