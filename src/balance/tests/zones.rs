//! The caller's own zone, and the others when it fails.

use pillion_api::model::{Algorithm, HashOn, Hashing, LoadBalancer, Locality, RingSize};

use super::{
    algorithms::{spread, with},
    *,
};

/// Four endpoints in each of the zones `a` and `b`: u0 to u3, and u4 to u7.
fn two_zones() -> Vec<model::Endpoint> {
    let zone = |uid| if uid < 4 { "a" } else { "b" };
    (0..8).map(|uid| model::Endpoint { zone: zone(uid).into(), ..model(uid, true) }).collect()
}

fn in_zone(zone: &str, algorithm: Algorithm, list: &[model::Endpoint]) -> Rc<Balancer<()>> {
    let locality = Some(Locality::default());
    let balancer = with(LoadBalancer { algorithm, locality, ..LoadBalancer::default() }, zone);
    balancer.update(list, |_| ());
    balancer
}

/// The share of requests that stays with u0 to u3.
fn share(balancer: &Rc<Balancer<()>>) -> f64 {
    let counts = spread(balancer, &mut SmallRng::seed_from_u64(4), 4000);
    let own = |uid: &str| ["u0", "u1", "u2", "u3"].contains(&uid);
    counts.iter().filter(|(uid, _)| own(uid)).map(|(_, count)| *count).sum::<usize>() as f64 / 4000.0
}

fn every() -> [Algorithm; 3] {
    let hashing = Hashing { on: vec![HashOn::Source], bounded_load: None };
    [Algorithm::PeakEwma, Algorithm::RoundRobin, Algorithm::RingHash(hashing, RingSize::default())]
}

#[tokio::test(start_paused = true)]
async fn requests_stay_in_the_zone_and_spill_over_by_its_healthy_share() {
    for algorithm in every() {
        let name = algorithm.name();
        let mut list = two_zones();
        let balancer = in_zone("a", algorithm, &list);
        assert_eq!(share(&balancer), 1.0, "{name}");
        // One of four is what the factor makes good.
        list[0].ready = false;
        balancer.update(&list, |_| ());
        assert_eq!(share(&balancer), 1.0, "{name}");
        // Half of it is worth 70 %.
        list[1].ready = false;
        balancer.update(&list, |_| ());
        let spilling = share(&balancer);
        assert!((0.66..0.74).contains(&spilling), "{name}: {spilling}");
        // Its breaker open is as good as not ready.
        fail(&balancer, "u2", 7);
        let spilling = share(&balancer);
        assert!((0.31..0.39).contains(&spilling), "{name}: {spilling}");
        let shares: HashMap<_, _> = balancer
            .shares(Instant::now())
            .into_iter()
            .map(|(endpoint, share)| (endpoint.uid().to_owned(), (share * 1000.0).round()))
            .collect();
        assert_eq!(
            [shares["u0"], shares["u2"], shares["u3"], shares["u4"]],
            [0.0, 0.0, 350.0, 163.0],
            "{name}"
        );
        // A lost zone.
        balancer.update(&list[4..], |_| ());
        assert_eq!(share(&balancer), 0.0, "{name}");
        balancer.update(&two_zones(), |_| ());
        assert_eq!(share(&balancer), 1.0, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_all_fail_the_own_zone_is_still_preferred() {
    let balancer = in_zone("a", Algorithm::Random, &two_zones());
    for uid in 0..8 {
        fail(&balancer, &format!("u{uid}"), 7);
    }
    // Nobody is well, so that breakers are ignored: choices that settle nothing.
    let mut rng = SmallRng::seed_from_u64(4);
    let picks: Vec<_> = (0..100)
        .map(|_| balancer.pick(Instant::now(), &mut rng, &Wanted::default()).expect("panic"))
        .collect();
    assert!(picks.iter().all(|pick| &**pick.endpoint().zone() == "a"));
}

#[tokio::test(start_paused = true)]
async fn without_zones_all_are_alike() {
    for (here, there) in [("", "a"), ("c", "a"), ("a", "")] {
        let list: Vec<_> = two_zones()
            .into_iter()
            .map(|endpoint| {
                if endpoint.zone == "a" {
                    model::Endpoint { zone: there.into(), ..endpoint }
                } else {
                    endpoint
                }
            })
            .collect();
        let even = share(&in_zone(here, Algorithm::Random, &list));
        assert!((0.45..0.55).contains(&even), "{here:?} {there:?}: {even}");
    }
}

#[tokio::test(start_paused = true)]
async fn choices_are_counted_by_zone() {
    let mut list = two_zones();
    list.truncate(5);
    list[0].ready = false;
    list[1].ready = false;
    list[2].ready = false;
    let balancer = in_zone("a", Algorithm::RoundRobin, &list);
    spread(&balancer, &mut SmallRng::seed_from_u64(4), 1000);
    let counts: HashMap<_, _> = balancer.counts().take().map(|(_, zone, count)| (zone, count)).collect();
    assert_eq!(counts["own"] + counts["other"], 1000);
    assert!((300..400).contains(&counts["own"]), "{counts:?}");
    assert_eq!(balancer.counts().take().count(), 0);
}
