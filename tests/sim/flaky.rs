//! One of ten replicas fails half of its requests.

use std::rc::Rc;

use pillion_api::model::{Retry, TrafficPolicy};
use pillion_proxy::telemetry::report::BreakerState;

use super::{
    SEEDS,
    figures::{Record, picture},
    sidecar::{Callers, Sidecar, until},
    world::{Mood, Nature, World, run},
};

/// Of one sidecar.
const RATE: f64 = 200.0;
const TURNS: u64 = 15;
const ENDS: u64 = 35;

/// Retries and a breaker, as they are by default.
fn policy() -> TrafficPolicy {
    TrafficPolicy { retry: Some(Retry::default()), ..TrafficPolicy::default() }
}

#[test]
fn a_replica_that_fails_half_is_left_alone_and_nobody_notices() {
    println!(
        "one of ten replicas fails 50 % from second {TURNS} on, {RATE} requests/s of one sidecar, retries on"
    );
    println!("seed  breaker opens after  errors seen  share of its requests by the second");
    for seed in SEEDS {
        let (opened, errors, offered) = run(async {
            let world = World::new(seed, 10, &[""], Nature::default());
            let record = Rc::new(Record::default());
            let sidecar = Sidecar::new(&world, &policy(), "", &record);
            let _callers = Callers::start(vec![sidecar.clone()], RATE);
            until(&world, TURNS).await;
            world.replicas[0].set(Mood::Failing(0.5));
            let began = tokio::time::Instant::now();
            let mut opened = None;
            while world.began.elapsed().as_secs() < ENDS {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                let endpoints = sidecar.balancer.endpoints();
                let bad = endpoints.iter().find(|endpoint| endpoint.uid() == "u0").expect("it is listed");
                if opened.is_none() && bad.breaker().0 == BreakerState::Open {
                    opened = Some(began.elapsed());
                }
            }
            let errors = record.within(TURNS as f64..ENDS as f64).errors();
            (opened, errors, world.replicas[0].offered.get())
        });
        let shares: Vec<_> = offered.iter().map(|count| f64::from(*count) / RATE).collect();
        let opened = opened.map_or(f64::INFINITY, |after| after.as_secs_f64());
        println!("{seed:4} {:18.2} s {:10.2} %  {}", opened, 100.0 * errors, picture(&shares));
        assert!(opened <= 2.0, "seed {seed}: {opened}");
        assert!(errors < 0.005, "seed {seed}: {errors}");
    }
}
