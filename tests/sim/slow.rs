//! One of ten replicas answers twenty times as slowly as the others.

use std::rc::Rc;

use pillion_api::model::TrafficPolicy;

use super::{
    SEEDS,
    figures::{Record, picture},
    sidecar::{Callers, Sidecar, until},
    world::{Mood, Nature, World, run},
};

/// Together, of four sidecars: a third of what ten replicas can do.
const RATE: f64 = 400.0;
const TURNS: u64 = 10;
const ENDS: u64 = 30;

fn story(seed: u64, policy: &TrafficPolicy) -> Rc<Record> {
    run(async {
        let world = World::new(seed, 10, &[""], Nature::default());
        let record = Rc::new(Record::default());
        let sidecars = (0..4).map(|_| Sidecar::new(&world, policy.clone(), &record)).collect();
        let _callers = Callers::start(sidecars, RATE);
        until(&world, TURNS).await;
        world.replicas[0].set(Mood::Slow(20.0));
        until(&world, ENDS).await;
        record
    })
}

#[test]
fn one_slow_replica_of_ten_hardly_shows() {
    println!("one of ten replicas ×20 slow from second {TURNS} on, {RATE} requests/s of 4 sidecars; ms");
    println!("seed  balancing    p50 well  p50 slow  p99 well  p99 slow  ratio  p99 by the second");
    for seed in SEEDS {
        let record = story(seed, &TrafficPolicy::default());
        let well = record.within(1.0..TURNS as f64);
        let slow = record.within(TURNS as f64..ENDS as f64);
        let ratio = slow.percentile(0.99) / well.percentile(0.99);
        println!(
            "{seed:4}  {:11} {:9.1} {:9.1} {:9.1} {:9.1} {ratio:6.2}  {}",
            "peak-ewma",
            well.percentile(0.5),
            slow.percentile(0.5),
            well.percentile(0.99),
            slow.percentile(0.99),
            picture(&record.by_second(|part| part.percentile(0.99))),
        );
        assert!(ratio <= 1.5, "seed {seed}: {ratio}");
    }
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let [one, other] = [(); 2].map(|()| story(13, &TrafficPolicy::default()).within(0.0..ENDS as f64));
    assert!(one.len() > 10_000);
    assert!(one == other);
}
