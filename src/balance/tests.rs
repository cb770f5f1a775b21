//! The balancer as a whole: with time paused and chance seeded.

mod algorithms;
mod zones;

use std::time::Duration;

use proptest::prelude::*;
use rand::{SeedableRng, rngs::SmallRng};

use super::*;
use crate::error::Reason;

fn model(uid: usize, ready: bool) -> model::Endpoint {
    model::Endpoint {
        uid: format!("u{uid}"),
        workload: format!("w{uid}"),
        address: ([127, 0, 0, 1], 1000).into(),
        identity: Some("spiffe://mesh.local/ns/demo/sa/a".parse().expect("an identity")),
        ready,
        zone: String::new(),
        weight: model::USUAL_WEIGHT,
    }
}

fn balancer(count: usize) -> Rc<Balancer<()>> {
    let balancer = Rc::new(Balancer::new(Arc::new(TrafficPolicy::default()), Here::default()));
    let list: Vec<_> = (0..count).map(|uid| model(uid, true)).collect();
    balancer.update(&list, |_| ());
    balancer
}

#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_gets_little() {
    let balancer = balancer(4);
    let mut rng = SmallRng::seed_from_u64(1);
    let mut counts = HashMap::new();
    for _ in 0..4000 {
        let mut pick = balancer.pick(Instant::now(), &mut rng, &Wanted::default()).expect("ready ones");
        let uid = pick.endpoint().uid().to_owned();
        let took = Duration::from_millis(if uid == "u0" { 100 } else { 5 });
        *counts.entry(uid).or_insert(0) += 1;
        pick.first_byte(Instant::now() + took);
        pick.settle(Verdict::Good, Instant::now());
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert!(counts["u0"] < 100, "{counts:?}");
    assert!(counts["u1"] > 800, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn state_survives_updates_by_uid_only() {
    let balancer = balancer(2);
    let before = balancer.endpoints();
    balancer.update(&[model(0, true), model(1, false), model(2, true)], |_| ());
    let after = balancer.all.borrow();
    let same = |uid: &str| before.iter().any(|endpoint| Rc::ptr_eq(endpoint, &after[uid]));
    assert!(same("u0") && same("u1") && !same("u2"));
    // The same UID at another address is another place.
    drop(after);
    let moved = model::Endpoint { address: ([127, 0, 0, 1], 2000).into(), ..model(0, true) };
    balancer.update(&[moved], |_| ());
    assert!(!before.iter().any(|endpoint| Rc::ptr_eq(endpoint, &balancer.all.borrow()["u0"])));
}

#[tokio::test(start_paused = true)]
async fn refusals_are_told_apart() {
    let mut rng = SmallRng::seed_from_u64(1);
    let none = balancer(0);
    assert_eq!(none.pick(Instant::now(), &mut rng, &Wanted::default()).err(), Some(Reason::NoEndpoints));
    none.update(&[model(0, false)], |_| ());
    assert_eq!(none.pick(Instant::now(), &mut rng, &Wanted::default()).err(), Some(Reason::NoReadyEndpoints));
}

fn pick_past(balancer: &Rc<Balancer<()>>, rng: &mut SmallRng, avoid: &str) -> Result<Pick<()>, Reason> {
    let avoid = [balancer.all.borrow()[avoid].clone()];
    balancer.pick(Instant::now(), rng, &Wanted { avoid: &avoid, ..Wanted::default() })
}

fn fail(balancer: &Rc<Balancer<()>>, uid: &str, times: usize) {
    let endpoint = balancer.all.borrow()[uid].clone();
    for _ in 0..times {
        Pick::new(balancer.clone(), endpoint.clone(), Instant::now()).settle(Verdict::Failed, Instant::now());
    }
}

#[tokio::test(start_paused = true)]
async fn broken_ones_are_passed_over_then_probed_then_back() {
    let balancer = balancer(3);
    let mut rng = SmallRng::seed_from_u64(7);
    fail(&balancer, "u1", 7);
    for _ in 0..200 {
        let mut pick = balancer.pick(Instant::now(), &mut rng, &Wanted::default()).expect("two are left");
        assert_ne!(pick.endpoint().uid(), "u1");
        pick.settle(Verdict::Good, Instant::now());
    }
    tokio::time::advance(Duration::from_secs(2)).await;
    let mut held = Vec::new();
    let mut probes = 0;
    for _ in 0..50 {
        let pick = balancer.pick(Instant::now(), &mut rng, &Wanted::default()).expect("some are left");
        probes += usize::from(pick.endpoint().uid() == "u1");
        held.push(pick);
    }
    assert_eq!(probes, 1, "one probe at a time");
    for pick in &mut held {
        pick.settle(Verdict::Good, Instant::now());
    }
    assert!(balancer.all.borrow()["u1"].is_closed());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_is_left_alone_although_its_callers_gave_up() {
    let balancer = balancer(2);
    let mut rng = SmallRng::seed_from_u64(5);
    let mut to_the_hanging_one = 0;
    for _ in 0..100 {
        let mut pick = balancer.pick(Instant::now(), &mut rng, &Wanted::default()).expect("ready ones");
        if pick.endpoint().uid() == "u0" {
            to_the_hanging_one += 1;
            tokio::time::advance(Duration::from_millis(200)).await;
        } else {
            tokio::time::advance(Duration::from_millis(1)).await;
            pick.first_byte(Instant::now());
            pick.settle(Verdict::Good, Instant::now());
        }
    }
    assert!(to_the_hanging_one <= 3, "{to_the_hanging_one} of 100");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_goes_on_does_not_keep_its_endpoint_out() {
    let balancer = balancer(2);
    let mut rng = SmallRng::seed_from_u64(5);
    fail(&balancer, "u0", 7);
    tokio::time::advance(Duration::from_secs(2)).await;
    let mut probe = Pick::new(balancer.clone(), balancer.all.borrow()["u0"].clone(), Instant::now());
    assert!(probe.is_probe());
    probe.settle(Verdict::Good, Instant::now());
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert!(balancer.all.borrow()["u0"].is_closed());
    assert_eq!(balancer.all.borrow()["u0"].in_flight(), 1);
    assert!(pick_past(&balancer, &mut rng, "u1").expect("u0").endpoint().uid() == "u0");
}

#[tokio::test(start_paused = true)]
async fn panic_keeps_balancing_and_can_be_switched_off() {
    let balancer = balancer(3);
    let mut rng = SmallRng::seed_from_u64(7);
    let mut policy = TrafficPolicy::default();
    policy.breaker.as_mut().expect("on by default").max_ejected_share = Some(1.0);
    balancer.set_policy(Arc::new(policy));
    for uid in ["u0", "u1", "u2"] {
        fail(&balancer, uid, 7);
    }
    assert!(
        balancer.pick(Instant::now(), &mut rng, &Wanted::default()).is_ok(),
        "panic: breakers are ignored"
    );
    let mut policy = TrafficPolicy::default();
    let breaker = policy.breaker.as_mut().expect("on by default");
    (breaker.panic_share, breaker.max_ejected_share) = (0.0, Some(1.0));
    balancer.set_policy(Arc::new(policy));
    assert_eq!(balancer.pick(Instant::now(), &mut rng, &Wanted::default()).err(), Some(Reason::BreakersOpen));
}

#[tokio::test(start_paused = true)]
async fn the_avoided_one_is_the_last_resort() {
    let mut rng = SmallRng::seed_from_u64(3);
    let two = balancer(2);
    for _ in 0..50 {
        let pick = pick_past(&two, &mut rng, "u0").expect("another one");
        assert_eq!(pick.endpoint().uid(), "u1");
    }
    let one = balancer(1);
    assert_eq!(pick_past(&one, &mut rng, "u0").expect("better than none").endpoint().uid(), "u0");
}

proptest! {
    #[test]
    fn a_pick_is_ready_and_counts_return_to_zero(
        ready in proptest::collection::vec(any::<bool>(), 1..20), seed in any::<u64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _entered = runtime.enter();
        let balancer = Rc::new(Balancer::new(Arc::new(TrafficPolicy::default()), Here::default()));
        let list: Vec<_> = ready.iter().enumerate().map(|(uid, ready)| model(uid, *ready)).collect();
        balancer.update(&list, |_| ());
        let mut rng = SmallRng::seed_from_u64(seed);
        let picks: Vec<_> = (0..20).filter_map(|_| balancer.pick(Instant::now(), &mut rng, &Wanted::default()).ok()).collect();
        prop_assert_eq!(picks.is_empty(), !ready.contains(&true));
        for pick in &picks { prop_assert!(pick.endpoint().is_ready()); }
        drop(picks);
        for endpoint in balancer.endpoints() { prop_assert_eq!(endpoint.in_flight(), 0); }
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_one_is_not_left_alone() {
    let balancer = balancer(3);
    let mut rng = SmallRng::seed_from_u64(7);
    for uid in ["u0", "u1", "u2"] {
        fail(&balancer, uid, 9);
    }
    assert!(balancer.all.borrow()["u2"].is_closed());
    let (panics, spared) = balancer.counts().take_breakers();
    assert_eq!((panics, spared), (0, 3));
    // One of three is less than half.
    balancer.pick(Instant::now(), &mut rng, &Wanted::default()).expect("panic");
    assert_eq!(balancer.counts().take_breakers(), (1, 0));
    let mut policy = TrafficPolicy::default();
    policy.breaker.as_mut().expect("on by default").panic_share = 0.0;
    balancer.set_policy(Arc::new(policy));
    for _ in 0..20 {
        let pick = balancer.pick(Instant::now(), &mut rng, &Wanted::default()).expect("one is left");
        assert_eq!(pick.endpoint().uid(), "u2");
    }
}

#[tokio::test(start_paused = true)]
async fn a_recovered_one_gets_its_share_back_over_as_long_as_it_was_away() {
    let mut policy = TrafficPolicy::default();
    policy.load_balancer.algorithm = model::Algorithm::Random;
    policy.breaker.as_mut().expect("on by default").base_open = Duration::from_secs(10);
    let balancer = balancer(2);
    balancer.set_policy(Arc::new(policy));
    let mut rng = SmallRng::seed_from_u64(7);
    fail(&balancer, "u0", 7);
    tokio::time::advance(Duration::from_secs(12)).await;
    Pick::new(balancer.clone(), balancer.all.borrow()["u0"].clone(), Instant::now())
        .settle(Verdict::Good, Instant::now());
    assert!(balancer.all.borrow()["u0"].is_closed());
    let mut share = || {
        let mut count = 0;
        for _ in 0..2000 {
            let mut pick = balancer.pick(Instant::now(), &mut rng, &Wanted::default()).expect("two");
            count += u32::from(pick.endpoint().uid() == "u0");
            pick.settle(Verdict::Good, Instant::now());
        }
        count
    };
    let first = share();
    tokio::time::advance(Duration::from_secs(5)).await;
    let half = share();
    tokio::time::advance(Duration::from_secs(6)).await;
    let whole = share();
    assert!(first < 250 && half < whole && whole > 900, "{first} {half} {whole}");
}

#[tokio::test(start_paused = true)]
async fn a_fast_failure_attracts_nobody() {
    let balancer = balancer(4);
    // Its breaker does not count here.
    let policy = TrafficPolicy { breaker: None, ..TrafficPolicy::default() };
    balancer.set_policy(Arc::new(policy));
    let mut rng = SmallRng::seed_from_u64(3);
    let mut to_the_failing_one = 0;
    for round in 0..4000 {
        let mut pick = balancer.pick(Instant::now(), &mut rng, &Wanted::default()).expect("ready ones");
        // Two of five fail, at once; what goes well takes as long as everywhere.
        let fails = pick.endpoint().uid() == "u0" && round % 5 < 2;
        to_the_failing_one += u32::from(pick.endpoint().uid() == "u0");
        tokio::time::advance(Duration::from_millis(if fails { 1 } else { 20 })).await;
        pick.first_byte(Instant::now());
        pick.begun(if fails { Verdict::Failed } else { Verdict::Good });
        pick.settle(Verdict::Good, Instant::now());
    }
    assert!((900..1100).contains(&to_the_failing_one), "{to_the_failing_one} of 4000");
}

#[tokio::test(start_paused = true)]
async fn whoever_was_kept_waiting_for_long_has_seen_a_failure_though_he_gave_up_himself() {
    let usual = Duration::from_millis(50);
    for (answered_before, waited, opens) in [
        (true, usual * 2, false),
        (true, Duration::from_millis(250), true),
        // Without any answer yet, it is the time for which a breaker is open.
        (false, Duration::from_millis(250), false),
        (false, Duration::from_secs(1), true),
    ] {
        let balancer = balancer(2);
        let endpoint = balancer.all.borrow()["u0"].clone();
        let pick = || Pick::new(balancer.clone(), endpoint.clone(), Instant::now());
        for _ in 0..10 {
            let mut pick = pick();
            tokio::time::advance(usual).await;
            if answered_before {
                pick.first_byte(Instant::now());
                pick.settle(Verdict::Good, Instant::now());
            }
        }
        for _ in 0..7 {
            let mut pick = pick();
            tokio::time::advance(waited).await;
            pick.given_up(Instant::now());
        }
        assert_eq!(!endpoint.is_closed(), opens, "answered before: {answered_before}, waited {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_never_tried_says_nothing() {
    let balancer = balancer(2);
    let endpoint = balancer.all.borrow()["u0"].clone();
    for _ in 0..20 {
        let mut pick = Pick::new(balancer.clone(), endpoint.clone(), Instant::now());
        pick.settle(Verdict::Untried, Instant::now());
        // Its status alone would say otherwise.
        pick.begun(Verdict::Failed);
    }
    assert!(endpoint.is_closed());
    assert_eq!(endpoint.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn there_is_another_while_one_may_be_chosen() {
    let balancer = balancer(3);
    let all = ["u0", "u1", "u2"].map(|uid| balancer.all.borrow()[uid].clone());
    let now = Instant::now();
    assert!(balancer.has_other(now, &all[..2]) && !balancer.has_other(now, &all));
    fail(&balancer, "u2", 7);
    assert!(!balancer.has_other(now, &all[..2]), "its breaker is open");
    assert!(balancer.has_other(now, &all[..1]));
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_broken_ones_gets_no_more_than_its_share() {
    // Luck finds nobody among so many broken ones: every one is looked at.
    let count = 60;
    let balancer = balancer(count);
    let policy = TrafficPolicy {
        breaker: Some(model::CircuitBreaker { panic_share: 0.0, ..model::CircuitBreaker::default() }),
        ..TrafficPolicy::default()
    };
    balancer.set_policy(Arc::new(policy));
    for uid in 0..count - 3 {
        fail(&balancer, &format!("u{uid}"), 7);
    }
    let mut rng = SmallRng::seed_from_u64(11);
    let mut counts = HashMap::new();
    for _ in 0..3000 {
        let mut pick = balancer.pick(Instant::now(), &mut rng, &Wanted::default()).expect("three are left");
        *counts.entry(pick.endpoint().uid().to_owned()).or_insert(0_u32) += 1;
        pick.settle(Verdict::Good, Instant::now());
    }
    assert!(counts.len() == 3 && counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
}
