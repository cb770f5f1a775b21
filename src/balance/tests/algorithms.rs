//! Each algorithm in the balancer: who gets what, who is passed over, and what stays when the list changes.

use pillion_api::model::{Algorithm, HashOn, Hashing, LoadBalancer, RingSize, SlowStart};

use super::*;

fn hashing(bounded_load: Option<f64>) -> Hashing {
    Hashing { on: vec![HashOn::Source], bounded_load }
}

fn ring(bounded_load: Option<f64>) -> Algorithm {
    Algorithm::RingHash(hashing(bounded_load), RingSize::default())
}

fn maglev(bounded_load: Option<f64>) -> Algorithm {
    Algorithm::Maglev(hashing(bounded_load), 2039)
}

fn every() -> [Algorithm; 6] {
    let hashes = [ring(None), maglev(None)];
    let [ring, maglev] = hashes;
    [Algorithm::PeakEwma, Algorithm::LeastRequest, Algorithm::RoundRobin, Algorithm::Random, ring, maglev]
}

pub(super) fn with(load_balancer: LoadBalancer, zone: &str) -> Rc<Balancer<()>> {
    let policy = TrafficPolicy { load_balancer, ..TrafficPolicy::default() };
    Rc::new(Balancer::new(Arc::new(policy), Here { zone: zone.into(), seed: 7 }))
}

fn by(algorithm: Algorithm, list: &[model::Endpoint]) -> Rc<Balancer<()>> {
    let balancer = with(LoadBalancer { algorithm, ..LoadBalancer::default() }, "");
    balancer.update(list, |_| ());
    balancer
}

fn list(count: usize) -> Vec<model::Endpoint> {
    (0..count).map(|uid| model(uid, true)).collect()
}

fn key(number: usize) -> Option<u64> {
    Some(hash::hash(format!("key-{number}").as_bytes()))
}

/// Whom each of so many requests goes to, each done at once; its number is its key.
pub(super) fn spread(
    balancer: &Rc<Balancer<()>>,
    rng: &mut SmallRng,
    requests: usize,
) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for number in 0..requests {
        let wanted = Wanted { key: key(number), ..Wanted::default() };
        let mut pick = balancer.pick(Instant::now(), rng, &wanted).expect("somebody is ready");
        pick.settle(Verdict::Good, Instant::now());
        *counts.entry(pick.endpoint().uid().to_owned()).or_insert(0) += 1;
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn each_spreads_by_weight() {
    let mut list = list(4);
    list[0].weight = 300;
    for algorithm in every() {
        let balancer = by(algorithm.clone(), &list);
        let counts = spread(&balancer, &mut SmallRng::seed_from_u64(1), 6000);
        for (uid, expected) in [("u0", 3000), ("u1", 1000), ("u2", 1000), ("u3", 1000)] {
            let allowed = if matches!(algorithm, Algorithm::RoundRobin) { 3 } else { 250 };
            assert!(counts[uid].abs_diff(expected) <= allowed, "{} {counts:?}", algorithm.name());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_least_loaded_have_requests_under_way_by_their_weight() {
    let mut list = list(4);
    list[0].weight = 200;
    let balancer = by(Algorithm::LeastRequest, &list);
    let mut rng = SmallRng::seed_from_u64(3);
    let picks: Vec<_> = (0..1000)
        .map(|_| balancer.pick(Instant::now(), &mut rng, &Wanted::default()).expect("somebody"))
        .collect();
    let counts = |uid: &str| picks.iter().filter(|pick| pick.endpoint().uid() == uid).count();
    assert!(counts("u0").abs_diff(400) <= 12, "{}", counts("u0"));
    assert!(counts("u1").abs_diff(200) <= 8, "{}", counts("u1"));
}

#[tokio::test(start_paused = true)]
async fn every_algorithm_passes_over_broken_and_avoided_ones() {
    for algorithm in every() {
        let balancer = by(algorithm.clone(), &list(5));
        let mut rng = SmallRng::seed_from_u64(9);
        fail(&balancer, "u1", 7);
        let avoid = [balancer.all.borrow()["u2"].clone(), balancer.all.borrow()["u4"].clone()];
        let mut seen = std::collections::HashSet::new();
        for number in 0..200 {
            let wanted = Wanted { key: key(number), avoid: &avoid, ..Wanted::default() };
            let pick = balancer.pick(Instant::now(), &mut rng, &wanted).expect("two are left");
            seen.insert(pick.endpoint().uid().to_owned());
        }
        let mut seen: Vec<_> = seen.into_iter().collect();
        seen.sort();
        assert_eq!(seen, ["u0", "u3"], "{}", algorithm.name());
        // All of them avoided is no reason to refuse, a broken one still is.
        let all = balancer.endpoints();
        for number in 0..50 {
            let wanted = Wanted { key: key(number), avoid: &all, ..Wanted::default() };
            let pick = balancer.pick(Instant::now(), &mut rng, &wanted).expect("better than nobody");
            assert_ne!(pick.endpoint().uid(), "u1", "{}", algorithm.name());
        }
        // It is tried when its time has come.
        tokio::time::advance(Duration::from_secs(2)).await;
        let probed = (0..400).any(|number| {
            let wanted = Wanted { key: key(number), ..Wanted::default() };
            let mut pick = balancer.pick(Instant::now(), &mut rng, &wanted).expect("somebody");
            pick.settle(Verdict::Good, Instant::now());
            pick.endpoint().uid() == "u1"
        });
        assert!(probed, "{}", algorithm.name());
    }
}

#[tokio::test(start_paused = true)]
async fn turns_are_exact_and_go_on_when_the_list_changes() {
    let balancer = by(Algorithm::RoundRobin, &list(3));
    let mut rng = SmallRng::seed_from_u64(1);
    assert_eq!(spread(&balancer, &mut rng, 3000).values().copied().collect::<Vec<_>>(), [1000; 3]);
    let first = |rng: &mut SmallRng| {
        let pick = balancer.pick(Instant::now(), rng, &Wanted::default()).expect("somebody");
        pick.endpoint().uid().to_owned()
    };
    let order = [first(&mut rng), first(&mut rng), first(&mut rng)];
    assert_eq!(first(&mut rng), order[0]);
    // One that comes and goes turns nothing back.
    balancer.update(&list(4), |_| ());
    balancer.update(&list(3), |_| ());
    assert_eq!([first(&mut rng), first(&mut rng), first(&mut rng)], [&order[1..], &order[..1]].concat()[..]);
    assert_eq!(first(&mut rng), order[1]);
}

#[tokio::test(start_paused = true)]
async fn a_key_keeps_to_its_endpoint_through_a_restart_under_the_same_name() {
    for (algorithm, is_ring) in [(ring(None), true), (maglev(None), false)] {
        // So many that the ring is larger than its minimum, also when one is gone.
        let balancer = by(algorithm, &list(9));
        let mut rng = SmallRng::seed_from_u64(1);
        let mut owners = |balancer: &Rc<Balancer<()>>| -> Vec<String> {
            let one = |number| {
                let wanted = Wanted { key: key(number), ..Wanted::default() };
                let pick = balancer.pick(Instant::now(), &mut rng, &wanted).expect("somebody");
                pick.endpoint().workload().to_string()
            };
            (0..500).map(one).collect()
        };
        let before = owners(&balancer);
        assert_eq!(before, owners(&balancer));
        let mut changed = list(9);
        changed[3].uid = "another-run".into();
        changed.reverse();
        balancer.update(&changed, |_| ());
        assert_eq!(before, owners(&balancer));
        // One that goes takes its own keys along, and few others.
        changed.retain(|endpoint| endpoint.workload != "w5");
        balancer.update(&changed, |_| ());
        let moved = before.iter().zip(owners(&balancer)).filter(|(a, b)| **a != "w5" && *a != b).count();
        let own = before.iter().filter(|owner| *owner == "w5").count();
        assert!(moved <= if is_ring { 0 } else { own }, "{moved} beside {own}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hash_without_a_key_is_chance() {
    for algorithm in [ring(None), maglev(None)] {
        let balancer = by(algorithm, &list(4));
        let mut rng = SmallRng::seed_from_u64(1);
        let mut counts = HashMap::new();
        for _ in 0..4000 {
            let pick = balancer.pick(Instant::now(), &mut rng, &Wanted::default()).expect("somebody");
            *counts.entry(pick.endpoint().uid().to_owned()).or_insert(0_usize) += 1;
        }
        assert!(counts.values().all(|count| count.abs_diff(1000) < 200), "{counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_start_gives_little_at_first() {
    let slow_start = Some(SlowStart { window: Duration::from_secs(10), minimum: 0.1 });
    for algorithm in [Algorithm::PeakEwma, Algorithm::LeastRequest, Algorithm::RoundRobin, Algorithm::Random]
    {
        let name = algorithm.name();
        let balancer = with(LoadBalancer { algorithm, slow_start, ..LoadBalancer::default() }, "");
        let mut rng = SmallRng::seed_from_u64(5);
        // Those that are there first are not new to anybody.
        balancer.update(&list(3), |_| ());
        assert!(spread(&balancer, &mut rng, 300).values().all(|count| *count > 60), "{name}");
        balancer.update(&list(4), |_| ());
        let mut share = |balancer: &Rc<Balancer<()>>| spread(balancer, &mut rng, 4000)["u3"] as f64 / 4000.0;
        let first = share(&balancer);
        assert!((0.01..0.06).contains(&first), "{name}: {first}");
        tokio::time::advance(Duration::from_secs(5)).await;
        let half = share(&balancer);
        assert!((0.08..0.19).contains(&half), "{name}: {half}");
        tokio::time::advance(Duration::from_secs(5)).await;
        let whole = share(&balancer);
        assert!((0.21..0.29).contains(&whole), "{name}: {whole}");
        assert!(balancer.all.borrow().values().all(|it| it.appeared().is_none()), "{name}: it is over");
        // Unready and ready again is new again.
        let mut unready = list(4);
        unready[3].ready = false;
        balancer.update(&unready, |_| ());
        balancer.update(&list(4), |_| ());
        let again = share(&balancer);
        assert!((0.01..0.06).contains(&again), "{name}: {again}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_kept_while_its_endpoint_is_ready() {
    for algorithm in every() {
        let balancer = by(algorithm, &list(4));
        let mut rng = SmallRng::seed_from_u64(2);
        let session = Some(balancer.all.borrow()["u2"].token());
        let mut pick = |avoid: &[Rc<Endpoint<()>>]| {
            let wanted = Wanted { session, avoid, ..Wanted::default() };
            let pick = balancer.pick(Instant::now(), &mut rng, &wanted).expect("somebody");
            pick.endpoint().uid().to_owned()
        };
        assert!((0..50).all(|_| pick(&[]) == "u2"));
        let avoid = [balancer.all.borrow()["u2"].clone()];
        assert!((0..50).all(|_| pick(&avoid) != "u2"));
        let mut unready = list(4);
        unready[2].ready = false;
        balancer.update(&unready, |_| ());
        assert!((0..50).all(|_| pick(&[]) != "u2"));
        balancer.update(&list(4), |_| ());
        fail(&balancer, "u2", 7);
        assert!((0..50).all(|_| pick(&[]) != "u2"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Consistent hashing with bounded loads: whatever the keys, nobody has more under way than the bound, rounded up, while
    /// somebody else has room.
    #[test]
    fn loads_are_bounded(
        by_table in any::<bool>(), percent in 100u32..300, weights in proptest::collection::vec(1u32..=300, 1..8),
        keys in proptest::collection::vec(0usize..3, 1..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let _entered = runtime.enter();
        let factor = f64::from(percent) / 100.0;
        let algorithm = if by_table { maglev(Some(factor)) } else { ring(Some(factor)) };
        let mut endpoints = list(weights.len());
        for (endpoint, weight) in endpoints.iter_mut().zip(&weights) {
            endpoint.weight = *weight;
        }
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let balancer = by(algorithm, &endpoints);
        let mut rng = SmallRng::seed_from_u64(1);
        let mut picks = Vec::new();
        for number in keys {
            let wanted = Wanted { key: key(number), ..Wanted::default() };
            picks.push(balancer.pick(Instant::now(), &mut rng, &wanted).expect("somebody"));
            for endpoint in balancer.endpoints() {
                // A product that is a whole number may come out a little above it, depending on the order.
                let share = factor * picks.len() as f64 * f64::from(endpoint.weight()) / sum;
                let bound = (share + 1e-9).ceil();
                prop_assert!(f64::from(endpoint.in_flight()) <= bound.max(1.0));
            }
        }
    }

    /// By every algorithm, a choice is ready and not avoided where it can be, and the same seed chooses the same.
    #[test]
    fn choices_are_good_and_repeat(
        which in 0usize..6, ready in proptest::collection::vec(any::<bool>(), 1..12), avoided in 0usize..12, seed in any::<u64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let _entered = runtime.enter();
        let list: Vec<_> = ready.iter().enumerate().map(|(uid, ready)| model(uid, *ready)).collect();
        let avoided = format!("u{avoided}");
        let run = || {
            let balancer = by(every()[which].clone(), &list);
            let mut rng = SmallRng::seed_from_u64(seed);
            let avoid: Vec<_> = balancer.endpoints().into_iter().filter(|endpoint| endpoint.uid() == avoided).collect();
            let choices: Vec<_> = (0..40).map(|number| {
                let wanted = Wanted { key: key(number), avoid: &avoid, ..Wanted::default() };
                balancer.pick(Instant::now(), &mut rng, &wanted).ok().map(|pick| pick.endpoint().clone())
            }).collect();
            choices
        };
        let choices = run();
        let others = list.iter().any(|endpoint| endpoint.ready && endpoint.uid != avoided);
        for choice in &choices {
            prop_assert_eq!(choice.is_some(), ready.contains(&true));
            if let Some(endpoint) = choice {
                prop_assert!(endpoint.is_ready());
                prop_assert!(!others || endpoint.uid() != avoided);
            }
        }
        let uids = |choices: Vec<Option<Rc<Endpoint<()>>>>| -> Vec<_> {
            choices.iter().map(|choice| choice.as_ref().map(|endpoint| endpoint.uid().to_owned())).collect()
        };
        let first = uids(choices);
        prop_assert_eq!(first, uids(run()));
    }
}
