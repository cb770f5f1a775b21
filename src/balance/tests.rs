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
