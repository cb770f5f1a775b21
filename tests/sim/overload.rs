//! Replicas become slow for a while and are overwhelmed, and callers give up and try again: does it end when the cause has?

use std::{rc::Rc, time::Duration};

use pillion_api::model::{Budget, Retry, TrafficPolicy};

use super::{
    SEEDS,
    figures::{Counts, Record, picture},
    sidecar::{Arrivals, Callers, Sidecar, until},
    world::{Mood, Nature, World, run},
};

/// Together, of four sidecars: two thirds of what the replicas can do. So much fits into what is left, and twice as much does not.
const RATE: f64 = 250.0;
const TURNS: u64 = 10;
const RETURNS: u64 = 25;
const ENDS: u64 = 45;
/// As much can wait in line at a replica as it does in a second, longer than anybody's patience.
const NATURE: Nature = Nature { median: Duration::from_millis(20), spread: 0.4, at_once: 2, waiting: 100 };

fn story(seed: u64, budget: Budget) -> (Rc<Record>, Vec<f64>) {
    let policy = TrafficPolicy {
        attempt_timeout: Some(Duration::from_millis(400)),
        request_timeout: Some(Duration::from_secs(1)),
        retry: Some(Retry { attempts: 3, budget, ..Retry::default() }),
        ..TrafficPolicy::default()
    };
    run(async {
        let world = World::new(seed, 4, &[""], NATURE);
        let record = Rc::new(Record::default());
        let sidecars = (0..4).map(|_| Sidecar::new(&world, &policy, "", &record)).collect();
        let callers = Callers::start(sidecars, Arrivals::Independent, RATE);
        until(&world, TURNS).await;
        world.set_all(Mood::Slow(10.0));
        until(&world, RETURNS).await;
        world.set_all(Mood::Well);
        until(&world, ENDS).await;
        drop(callers);
        until(&world, ENDS + 2).await;
        (record, Counts::seconds(world.offered()))
    })
}

#[test]
fn an_overload_ends_soon_after_its_cause() {
    println!(
        "four replicas ×10 slow from second {TURNS} to {RETURNS}, {RATE} requests/s of what they can do 370 of, 400 ms for an attempt, up to 3 retries"
    );
    println!("seed  budget      errors meanwhile  well again after  in the last 5 s  offered by the second");
    let none = Budget { percent: 100, min_per_second: 10_000, window: 10 };
    for seed in SEEDS {
        for (name, budget) in [("default", Budget::RETRY), ("unlimited", none)] {
            let (record, offered) = story(seed, budget);
            let meanwhile = record.within((TURNS + 5) as f64..RETURNS as f64).errors();
            let errors = record.by_second(|part| part.errors());
            // With three seconds in a row in which at most one request of a hundred fails.
            let well = errors[RETURNS as usize..].windows(3).position(|it| it.iter().all(|it| *it <= 0.01));
            let well = well.map_or(u64::MAX, |after| after as u64);
            let at_last = record.within((ENDS - 5) as f64..ENDS as f64).errors();
            println!(
                "{seed:4}  {name:9} {:16.1} % {:>15} s {:14.1} %  {}",
                100.0 * meanwhile,
                if well == u64::MAX { "never".into() } else { well.to_string() },
                100.0 * at_last,
                picture(&offered)
            );
            assert!(meanwhile > 0.5, "seed {seed}: it is to hurt, {meanwhile}");
            match name {
                "default" => assert!(well <= 10 && at_last < 0.05, "seed {seed}: {well} s, {at_last}"),
                // What the budget is for: without one it goes on by itself.
                _ => assert!(at_last > 0.5, "seed {seed}: {at_last}"),
            }
        }
    }
}
