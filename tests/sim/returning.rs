//! A replica comes back, as new, and gets its share little by little.

use std::{rc::Rc, time::Duration};

use pillion_api::model::{LoadBalancer, SlowStart, TrafficPolicy};

use super::{
    SEEDS,
    figures::{Counts, Record, picture},
    sidecar::{Arrivals, Callers, Sidecar, until},
    world::{Nature, World, run},
};

/// Together, of two sidecars.
const RATE: f64 = 200.0;
const GOES: u64 = 3;
const RETURNS: u64 = 6;
const ENDS: u64 = 30;

#[test]
fn a_replica_that_returns_warms_up() {
    let slow_start = SlowStart { window: Duration::from_secs(10), minimum: 0.1 };
    let load_balancer = LoadBalancer { slow_start: Some(slow_start), ..LoadBalancer::default() };
    let policy = TrafficPolicy { load_balancer, ..TrafficPolicy::default() };
    println!(
        "one of ten replicas is away from second {GOES} to {RETURNS}, slow start of 10 s, {RATE} requests/s of 2 sidecars"
    );
    println!("seed  of its fair share at first, half way, at last  its requests by the second");
    for seed in SEEDS {
        let offered = run(async {
            let world = World::new(seed, 10, &[""], Nature::default());
            let record = Rc::new(Record::default());
            let sidecars: Vec<_> = (0..2).map(|_| Sidecar::new(&world, &policy, "", &record)).collect();
            let _callers = Callers::start(sidecars.clone(), Arrivals::Independent, RATE);
            let first = world.replicas[0].clone();
            until(&world, GOES).await;
            sidecars.iter().for_each(|sidecar| sidecar.endpoints(|replica| !std::ptr::eq(replica, &*first)));
            until(&world, RETURNS).await;
            sidecars.iter().for_each(|sidecar| sidecar.endpoints(|_| true));
            until(&world, ENDS).await;
            assert_eq!(record.within(0.0..ENDS as f64).errors(), 0.0);
            Counts::seconds(world.offered().take(1))
        });
        let fair = |seconds: std::ops::Range<u64>| {
            let length = (seconds.end - seconds.start) as f64;
            offered[seconds.start as usize..seconds.end as usize].iter().sum::<f64>() / length / (RATE / 10.0)
        };
        let [first, half, last] =
            [RETURNS..RETURNS + 2, RETURNS + 4..RETURNS + 6, RETURNS + 14..ENDS].map(fair);
        println!("{seed:4} {first:26.2} {half:9.2} {last:8.2}  {}", picture(&offered));
        assert_eq!(offered[GOES as usize + 1], 0.0, "nobody calls it while it is away");
        assert!(first < 0.35 && first < half && half < last, "seed {seed}: {first}, {half}, {last}");
        assert!((0.7..1.3).contains(&last), "seed {seed}: {last}");
    }
}
