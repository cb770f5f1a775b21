//! Whether each figure is of the right requests, and how much is read for it.

use std::{sync::Arc, time::Instant};

use pillion_api::{
    hops::Segment,
    wire::{EdgeDelta, Hello, SegmentDelta, Telemetry, edge_delta::Direction},
};

use super::*;
use crate::{
    compile::{Name, Workload},
    history::{History, READ, Reporter},
    registry::{Member, Presence, Waiting},
};

const NOW_MS: i64 = 1_000_000_000_000;

fn member(name: &str) -> Member {
    let hello = Hello { instance_uid: name.into(), workload: name.into(), ..Hello::default() };
    let presence = Presence::Lost { expires: tokio::time::Instant::now() };
    let workload = Workload { hello, spiffe_id: String::new(), namespace: "demo".into() };
    Member { workload: Arc::new(workload), presence, since_ms: 0, waiting: Waiting::default() }
}

fn wanted(window: i64) -> Wanted {
    Wanted { kind: StatKind::Services, window, namespace: None, of: None, from: None, to: None }
}

fn told(peer: &str, backend: &str, requests: u64, retries: u64) -> EdgeDelta {
    EdgeDelta {
        peer: peer.into(),
        backend: backend.into(),
        requests,
        retries,
        split_requests: requests,
        segments: vec![SegmentDelta {
            segment: Segment::Network as i32,
            sum_us: requests * 1000,
            ..SegmentDelta::default()
        }],
        ..EdgeDelta::default()
    }
}

fn record(history: &History, name: &str, services: &[Name], edges: Vec<EdgeDelta>) {
    let source = format!("{name}.demo");
    let reporter = Reporter { uid: name, workload: name, source: &source, services, registered: true };
    let telemetry = Telemetry { interval_ms: 1000, edges, ..Telemetry::default() };
    history.record(reporter, &telemetry, NOW_MS - 5000, |_| None);
}

#[test]
fn a_service_is_told_by_itself_else_by_its_callers_who_know_the_way_and_repeat() {
    let history = History::default();
    let v1: Name = "v1.demo".into();
    record(
        &history,
        "web",
        &[],
        vec![
            told("pay.demo", "v1.demo", 10, 3),
            told("pay.demo", "v2.demo", 5, 1),
            told("v1.demo", "", 2, 0),
        ],
    );
    let inbound = EdgeDelta { direction: Direction::Inbound.into(), ..told("web.demo", "", 11, 0) };
    record(&history, "v1-1", &[v1], vec![inbound]);
    let nodes = Nodes::of_services(
        [("pay.demo", vec![]), ("v1.demo", vec![member("v1-1")]), ("v2.demo", vec![]), ("web.demo", vec![])]
            .map(|(name, members)| (name.to_owned(), members))
            .into(),
    );
    let rows = |wanted: Wanted| -> Vec<(String, u64, Option<u64>, Option<u64>)> {
        let rows = history.read(|state| services(&nodes, state, &wanted, NOW_MS));
        let row = |row: StatRow| {
            (row.name, row.requests, row.hops.map(|hops| hops.requests), row.repeats.map(|it| it.retries))
        };
        rows.into_iter().map(row).collect()
    };
    for window in [60, SPAN_S] {
        assert_eq!(
            rows(wanted(window)),
            [
                ("pay.demo".into(), 15, Some(15), Some(4)),
                ("v1.demo".into(), 11, Some(12), Some(3)),
                ("v2.demo".into(), 5, Some(5), Some(1)),
                ("web.demo".into(), 0, None, None),
            ]
        );
        let from = Wanted { from: Some("web.demo".into()), ..wanted(window) };
        assert_eq!(
            rows(from),
            [("pay.demo".into(), 15, Some(15), Some(4)), ("v1.demo".into(), 2, Some(2), None)]
        );
    }
}

/// So many services with as many edges each as they have been busy with for half an hour.
fn large(count: usize, edges: usize) -> (Nodes, History) {
    let name = |index: usize| format!("s-{}.demo", index % count);
    let by_name = (0..count).map(|index| (name(index), vec![member(&format!("s-{index}-1"))]));
    let edge = |index: usize| EdgeKey {
        from: name(index),
        to: name(index + 1 + index / count * 7),
        backend: String::new(),
    };
    let history = History::busy((0..count).map(name), (0..count * edges).map(edge));
    (Nodes::of_services(by_name.collect()), history)
}

#[test]
fn what_is_counted_of_an_edge_or_a_service_is_read_once_for_an_answer() {
    let (nodes, history) = large(20, 5);
    // The thirty minutes in ten seconds and in minutes, of which the first is a part.
    let (of_counts, of_split) = (179, 31);
    let read = |look: &dyn Fn(&history::State) -> usize, rows: usize| {
        READ.set(0);
        assert_eq!(history.read(look), rows);
        READ.get()
    };
    let of_edges = 100 * (of_counts + of_split);
    let long = || wanted(SPAN_S);
    let by_service = read(&|state| services(&nodes, state, &long(), NOW_MS).len(), 20);
    assert!(by_service <= of_edges + 20 * (of_counts + of_split), "{by_service}");
    let by_edge = read(&|state| edges(state, &long(), NOW_MS).len(), 100);
    assert!(by_edge <= of_edges + 20 * of_split, "{by_edge}");
    let of_one = Wanted { to: Some("s-3.demo".into()), ..long() };
    let callers = read(&|state| services(&nodes, state, &of_one, NOW_MS).len(), 5);
    // With what it calls itself.
    assert!(callers <= 5 * (of_counts + 2 * of_split) + of_split, "{callers}");
}

#[test]
#[ignore = "a measurement: cargo test --workspace --lib stat::tests::long -- --ignored --nocapture"]
fn long_windows_of_a_large_mesh() {
    let (nodes, history) = large(200, 5);
    for window in [10, 60, SPAN_S] {
        let mut times = Vec::new();
        for _ in 0..3 {
            let started = Instant::now();
            let rows = history.read(|state| services(&nodes, state, &wanted(window), NOW_MS));
            let by_service = started.elapsed();
            let started = Instant::now();
            let edges = history.read(|state| edges(state, &wanted(window), NOW_MS));
            times.push((by_service, started.elapsed()));
            assert_eq!((rows.len(), edges.len()), (200, 1000));
        }
        println!("{window} s, of services and edges: {:?}", times.iter().min());
    }
}
