//! What is counted about an edge, and taken of it.

use http::StatusCode;

use super::*;

fn key(target: &str) -> EdgeKey {
    EdgeKey {
        direction: Hop::Outbound,
        source: "a.n".into(),
        target: target.into(),
        backend: target.into(),
        workload: "".into(),
        mtls: true,
    }
}

#[test]
fn counts_are_taken_once_and_exactly() {
    let edges = Edges::default();
    let edge = edges.edge(key("b.n"));
    edge.request(Outcome::Status(StatusCode::OK), 100);
    edge.request(Outcome::Status(StatusCode::BAD_GATEWAY), 300);
    edge.request(Outcome::Refused(Reason::NoEndpoints), 1);
    edge.request(Outcome::Grpc(14), 100);
    edge.request(Outcome::Cancelled, 100);
    let [delta] = edges.take().try_into().expect("one edge");
    assert_eq!(delta.requests(), 5);
    assert_eq!(delta.failures, 3);
    assert_eq!(delta.refusals, [(Reason::NoEndpoints, 1)]);
    assert_eq!(delta.latencies.iter().map(|latency| latency.sum_us).sum::<u64>(), 601);
    assert!(edges.take().is_empty());
}

#[test]
fn what_is_in_flight_is_reported_until_it_ends() {
    let edges = Edges::default();
    let edge = edges.edge(key("b.n"));
    let guard = edge.enter();
    for _ in 0..2 {
        assert_eq!(edges.take()[0].in_flight, 1);
    }
    drop(guard);
    assert_eq!(edges.take()[0].in_flight, 0);
    assert!(edges.take().is_empty());
}

#[test]
fn what_could_not_be_delivered_is_not_lost() {
    let edges = Edges::default();
    let edge = edges.edge(key("b.n"));
    edge.request(Outcome::Status(StatusCode::OK), 1);
    edges.put_back(edges.take());
    edge.request(Outcome::Status(StatusCode::OK), 1);
    let [delta] = edges.take().try_into().expect("one edge");
    assert_eq!(delta.requests(), 2);
}

#[test]
fn edges_are_bounded() {
    let edges = Edges::default();
    let held: Vec<_> = (0..MAX_EDGES + 10).map(|i| edges.edge(key(&format!("s{i}.n")))).collect();
    for edge in &held {
        edge.request(Outcome::Status(StatusCode::OK), 1);
    }
    let deltas = edges.take();
    assert_eq!(deltas.len(), MAX_EDGES + 1);
    let other = deltas.iter().find(|delta| &*delta.key.target == OTHER).expect("the overflow edge");
    assert_eq!(other.requests(), 10);
}

#[test]
fn merging_is_adding() {
    let edges = Edges::default();
    let edge = edges.edge(key("b.n"));
    edge.request(Outcome::Status(StatusCode::OK), 100);
    let mut first = edges.take().remove(0);
    edge.request(Outcome::Status(StatusCode::OK), 100);
    edge.request(Outcome::Refused(Reason::Reset), 1 << 20);
    first.merge(edges.take().remove(0));
    assert_eq!(first.requests(), 3);
    assert_eq!(first.latencies.len(), 2);
    assert_eq!(first.failures, 1);
}
