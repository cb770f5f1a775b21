//! One of ten replicas fails half of its requests.

use std::{rc::Rc, time::Duration};

use pillion_api::model::{Retry, TrafficPolicy};
use pillion_proxy::telemetry::report::BreakerState;

use super::{
    SEEDS,
    figures::{Counts, Record, picture},
    sidecar::{Arrivals, Callers, Sidecar, until},
    world::{Mood, Nature, World, run},
};

/// Of one sidecar: 40 to each replica, more or less.
const RATE: f64 = 400.0;
const TURNS: u64 = 15;
const ENDS: u64 = 35;

#[derive(Debug, PartialEq)]
struct Told {
    record: Rc<Record>,
    /// Since it began to fail: when its breaker was first seen open.
    opened: Option<Duration>,
    /// What came to each replica, by the tenth of a second.
    offered: Vec<Vec<u32>>,
    /// The same for the bad one, by the second.
    bad: Vec<f64>,
}

/// Retries and breakers are as they are by default.
fn story(seed: u64) -> Told {
    let policy = TrafficPolicy { retry: Some(Retry::default()), ..TrafficPolicy::default() };
    run(async {
        let world = World::new(seed, 10, &[""], Nature::default());
        let record = Rc::new(Record::default());
        let sidecar = Sidecar::new(&world, &policy, "", &record);
        let callers = Callers::start(vec![sidecar.clone()], Arrivals::Independent, RATE);
        until(&world, TURNS).await;
        world.replicas[0].set(Mood::Failing(0.5));
        let began = tokio::time::Instant::now();
        let mut opened = None;
        while world.began.elapsed().as_secs() < ENDS {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let endpoints = sidecar.balancer.endpoints();
            let bad = endpoints.iter().find(|endpoint| endpoint.uid() == "u0").expect("it is listed");
            if opened.is_none() && bad.breaker().0 == BreakerState::Open {
                opened = Some(began.elapsed());
            }
        }
        drop(callers);
        let offered = world.offered().map(|counts| Counts::tenths(std::iter::once(counts))).collect();
        Told { record, opened, offered, bad: Counts::seconds(world.offered().take(1)) }
    })
}

#[test]
fn a_replica_that_fails_half_is_left_alone_and_nobody_notices() {
    println!(
        "one of ten replicas fails 50 % from second {TURNS} on, {RATE} requests/s of one sidecar, retries on"
    );
    println!("seed  breaker opens after  errors seen  share of its requests by the second");
    for seed in SEEDS {
        let told = story(seed);
        let errors = told.record.within(TURNS as f64..ENDS as f64).errors();
        let shares: Vec<_> = told.bad.iter().map(|count| count / RATE).collect();
        let opened = told.opened.map_or(f64::INFINITY, |after| after.as_secs_f64());
        println!("{seed:4} {opened:18.2} s {:10.2} %  {}", 100.0 * errors, picture(&shares));
        assert!(opened <= 2.0, "seed {seed}: {opened}");
        assert!(errors < 0.005, "seed {seed}: {errors}");
    }
}

/// Of chance there is retries' backoff, breakers' jitter and the choice itself: everything is to be the seed's.
#[test]
fn the_same_seed_gives_the_same_story() {
    let [one, other] = [(); 2].map(|()| story(13));
    assert!(one.opened.is_some() && one.record.within(0.0..ENDS as f64).len() > 5000);
    assert!(one == other, "{:?} and {:?}", one.opened, other.opened);
    assert!(one != story(14));
}
