//! Gates and a server of known capacity, by a paused clock.

use std::{cell::RefCell, rc::Rc};

use pillion_api::model::Adaptive;
use tokio::{sync::Semaphore, task::LocalSet};

use super::*;

const MS: Duration = Duration::from_millis(1);

fn fixed(limit: u32, max_queue: u32) -> Concurrency {
    Concurrency { adaptive: None, limit, max_queue, ..Concurrency::default() }
}

#[tokio::test(start_paused = true)]
async fn as_many_as_the_limit_and_the_queue_no_more() {
    let gate = Gate::new(fixed(2, 1), Instant::now());
    let one = gate.enter(Priority::Default).await.expect("a place");
    let _two = gate.enter(Priority::Default).await.expect("a place");
    let (third, fourth) = tokio::join!(gate.enter(Priority::Default), async {
        let fourth = gate.enter(Priority::Default).await;
        drop(one);
        fourth
    });
    assert!(third.is_ok(), "it waited for the first to end");
    let refusal = fourth.expect_err("the queue was full");
    assert_eq!(refusal.reason, Reason::Overloaded);
    assert_eq!(refusal.more.expect("it says when").retry_after, Some(RETRY_AFTER));
    assert_eq!(gate.take_refused(), [("default", 1)]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever_and_who_goes_away_leaves_no_trace() {
    let gate = Gate::new(fixed(1, 10), Instant::now());
    let held = gate.enter(Priority::Default).await.expect("a place");
    let began = Instant::now();
    assert!(gate.enter(Priority::Critical).await.is_err());
    assert_eq!(began.elapsed(), 100 * MS);
    // Its caller goes away while it waits.
    let _ = tokio::time::timeout(MS, gate.enter(Priority::Default)).await;
    assert_eq!(gate.standing(), Standing { limit: 1, under_way: 1, queued: 0, min_rtt: None });
    drop(held);
    assert_eq!(gate.standing().under_way, 0);
    drop(gate.enter(Priority::Sheddable).await.expect("a place"));
}

#[tokio::test(start_paused = true)]
async fn the_critical_go_first_and_the_sheddable_are_refused_first() {
    let gate = Gate::new(fixed(1, 3), Instant::now());
    let held = gate.enter(Priority::Default).await.expect("a place");
    let order: Rc<RefCell<Vec<String>>> = Rc::default();
    let local = LocalSet::new();
    for (name, priority) in [
        ("s1", Priority::Sheddable),
        ("s2", Priority::Sheddable),
        ("d1", Priority::Default),
        ("c1", Priority::Critical),
        ("d2", Priority::Default),
        ("s3", Priority::Sheddable),
        ("d3", Priority::Default),
    ] {
        let (gate, order) = (gate.clone(), order.clone());
        local.spawn_local(async move {
            let entered = gate.enter(priority).await;
            let refused = if entered.is_ok() { "" } else { " refused" };
            order.borrow_mut().push(format!("{name}{refused}"));
        });
    }
    local
        .run_until(async {
            tokio::time::sleep(MS).await;
            drop(held);
            tokio::time::sleep(MS).await;
        })
        .await;
    // c1 takes the place of s2, d2 that of s1; s3 and d3 find nobody less important.
    let mut refused: Vec<String> =
        order.borrow().iter().filter(|it| it.ends_with("refused")).cloned().collect();
    refused.sort();
    assert_eq!(refused, ["d3 refused", "s1 refused", "s2 refused", "s3 refused"]);
    let served: Vec<String> = order.borrow().iter().filter(|it| !it.ends_with("refused")).cloned().collect();
    assert_eq!(served, ["c1", "d1", "d2"]);
    assert_eq!(gate.take_refused(), [("default", 1), ("sheddable", 3)]);
}

/// What a run of load came to.
#[derive(Debug, Default)]
struct Run {
    served: u32,
    refused: u32,
    /// In the application, microseconds.
    latencies: Vec<u128>,
}

/// Offers `rate` requests/s for `seconds` to a server that works on `capacity` at a time, 10 ms each.
async fn load(gate: &Arc<Gate>, capacity: usize, rate: u32, seconds: u32) -> Run {
    let server = Rc::new(Semaphore::new(capacity));
    let run: Rc<RefCell<Run>> = Rc::default();
    let local = LocalSet::new();
    local
        .run_until(async {
            for _ in 0..seconds * 100 {
                for _ in 0..rate / 100 {
                    let (gate, server, run) = (gate.clone(), server.clone(), run.clone());
                    tokio::task::spawn_local(async move {
                        match gate.enter(Priority::Default).await {
                            Err(_) => run.borrow_mut().refused += 1,
                            Ok(mut permit) => {
                                let began = Instant::now();
                                let worker = server.acquire().await.expect("it is open");
                                tokio::time::sleep(10 * MS).await;
                                drop(worker);
                                permit.answered(true, Instant::now());
                                drop(permit);
                                let mut run = run.borrow_mut();
                                run.served += 1;
                                run.latencies.push(began.elapsed().as_micros());
                            }
                        }
                    });
                }
                tokio::time::sleep(10 * MS).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        })
        .await;
    let mut run = run.take();
    run.latencies.sort_unstable();
    run
}

#[tokio::test(start_paused = true)]
async fn it_finds_what_a_server_can_do_and_keeps_its_latency_under_three_times_the_load() {
    let settings = Concurrency { max_queue: 20, ..Concurrency::default() };
    for capacity in [10, 40] {
        // Far from right in both directions.
        for limit in [3, 400] {
            let gate = Gate::new(Concurrency { limit, ..settings.clone() }, Instant::now());
            let full = capacity as u32 * 100;
            load(&gate, capacity, 3 * full, 10).await;
            let found = gate.standing();
            let run = load(&gate, capacity, 3 * full, 10).await;
            let p99 = run.latencies[run.latencies.len() * 99 / 100];
            let share = f64::from(run.served) / f64::from(full * 10);
            println!(
                "capacity {capacity}, from {limit}: {found:?}, {share:.3} of what it can do, p99 {p99} µs, {} refused",
                run.refused
            );
            assert!(share > 0.95, "capacity {capacity} from {limit}: {share}");
            assert!(p99 <= 40_000, "capacity {capacity} from {limit}: {p99} µs");
            assert!(found.limit >= capacity as u32 && found.limit <= 3 * capacity as u32, "{found:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn little_load_is_not_touched_also_while_the_best_latency_is_measured_again() {
    let adaptive = Adaptive { min_rtt_interval: Duration::from_secs(1), ..Adaptive::default() };
    let gate = Gate::new(Concurrency { adaptive: Some(adaptive), ..Concurrency::default() }, Instant::now());
    let run = load(&gate, 10, 500, 10).await;
    assert_eq!((run.served, run.refused), (5000, 0));
    assert_eq!(gate.standing().under_way, 0);
}

#[tokio::test(start_paused = true)]
async fn streams_hold_no_adaptive_gate_shut() {
    let gate = Gate::new(Concurrency::default(), Instant::now());
    let mut streams = Vec::new();
    for number in 0..1000 {
        let mut permit = gate.enter(Priority::Default).await.unwrap_or_else(|it| panic!("{number}: {it}"));
        permit.answered(true, Instant::now());
        streams.push(permit);
    }
    assert_eq!(gate.standing().under_way, 0);
    drop(streams);
    assert_eq!(gate.standing().under_way, 0);
}

#[tokio::test(start_paused = true)]
async fn a_fixed_limit_is_for_all_that_is_under_way_to_the_last_byte() {
    let gate = Gate::new(fixed(1, 0), Instant::now());
    let mut permit = gate.enter(Priority::Default).await.expect("a place");
    permit.answered(true, Instant::now());
    assert!(gate.enter(Priority::Default).await.is_err());
    drop(permit);
    assert!(gate.enter(Priority::Default).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_measurement_without_any_answer_ends() {
    let gate = Gate::new(Concurrency { max_queue: 0, ..Concurrency::default() }, Instant::now());
    let mut held = Vec::new();
    while let Ok(permit) = gate.enter(Priority::Default).await {
        held.push(permit);
    }
    assert_eq!(held.len(), 3, "as many as are let in while the best latency is measured");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(gate.enter(Priority::Default).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_let_in_by_a_higher_limit() {
    let gate = Gate::new(fixed(1, 10), Instant::now());
    let _held = gate.enter(Priority::Default).await.expect("a place");
    let (entered, ()) = tokio::join!(gate.enter(Priority::Default), async {
        tokio::time::sleep(MS).await;
        gate.set(&fixed(2, 10), Instant::now());
    });
    assert!(entered.is_ok());
}

#[tokio::test(start_paused = true)]
async fn callers_who_all_give_up_lower_the_limit() {
    let settings = Concurrency { limit: 50, max_queue: 0, ..Concurrency::default() };
    let gate = Gate::new(settings, Instant::now());
    for _ in 0..100 {
        let mut permit = gate.enter(Priority::Default).await.expect("a place");
        tokio::time::sleep(10 * MS).await;
        permit.answered(true, Instant::now());
    }
    let before = gate.standing().limit;
    for _ in 0..10 {
        let mut waiting = Vec::new();
        while let Ok(permit) = gate.enter(Priority::Default).await {
            waiting.push(permit);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(waiting);
    }
    assert!(gate.standing().limit < before / 4, "{before} became {}", gate.standing().limit);
}

#[test]
fn only_the_proven_are_critical_because_they_say_so() {
    let header = http::HeaderName::from_static("x-priority");
    let settings = Concurrency { priority_header: Some(header.clone()), ..fixed(1, 1) };
    let gate = Gate::new(settings.clone(), Instant::now());
    let proven: SpiffeId = "spiffe://t/ns/n/sa/web".parse().expect("an identity");
    for (identity, said, expected) in [
        (Some(&proven), "critical", Priority::Critical),
        (None, "critical", Priority::Default),
        (Some(&proven), "sheddable", Priority::Sheddable),
        (None, "sheddable", Priority::Sheddable),
        (None, "else", Priority::Default),
    ] {
        let headers = HeaderMap::from_iter([(header.clone(), http::HeaderValue::from_static(said))]);
        let client = OfClient::new(gate.clone(), &settings, identity);
        assert_eq!(client.said(&headers), expected, "{said} of {identity:?}");
    }
}
