//! One of three zones is lost, and returns.

use std::rc::Rc;

use pillion_api::model::{LoadBalancer, Locality, TrafficPolicy};

use super::{
    SEEDS,
    figures::{Counts, Record, highest, picture},
    sidecar::{Arrivals, Callers, Sidecar, until},
    world::{Mood, Nature, Replica, World, run},
};

/// Together, of one sidecar in each zone: 40 % of what nine replicas can do, 60 % of what six can.
const RATE: f64 = 1200.0;
const ZONES: [&str; 3] = ["a", "b", "c"];
const TURNS: u64 = 10;
/// When the control plane has heard.
const HEARD: u64 = 13;
const RETURNS: u64 = 30;
const ENDS: u64 = 45;

#[test]
fn a_lost_zone_is_served_by_the_others_until_it_is_back() {
    let load_balancer =
        LoadBalancer { locality: Some(Locality { overprovisioning: 1.4 }), ..LoadBalancer::default() };
    let policy = TrafficPolicy { load_balancer, ..TrafficPolicy::default() };
    println!(
        "zone a of three is gone from second {TURNS} to {RETURNS}; the sidecars hear of it 3 s later; {RATE} requests/s"
    );
    println!("seed  errors  p99 before, without, after (ms)  a's replicas, by the second");
    for seed in SEEDS {
        let (record, offered) = run(async {
            let world = World::new(seed, 9, &ZONES, Nature::default());
            let record = Rc::new(Record::default());
            let sidecars: Vec<_> =
                ZONES.iter().map(|zone| Sidecar::new(&world, &policy, zone, &record)).collect();
            let _callers = Callers::start(sidecars.clone(), Arrivals::Independent, RATE);
            let lost = |replica: &&Rc<Replica>| replica.zone == "a";
            until(&world, TURNS).await;
            world.replicas.iter().filter(lost).for_each(|replica| replica.set(Mood::Gone));
            until(&world, HEARD).await;
            sidecars.iter().for_each(|sidecar| sidecar.endpoints(|replica| replica.zone != "a"));
            until(&world, RETURNS).await;
            world.replicas.iter().filter(lost).for_each(|replica| replica.set(Mood::Well));
            sidecars.iter().for_each(|sidecar| sidecar.endpoints(|_| true));
            until(&world, ENDS).await;
            let of_a = world.replicas.iter().filter(lost).map(|replica| &replica.offered);
            (record, Counts::seconds(of_a))
        });
        let part = |from: u64, to: u64| record.within(from as f64..to as f64);
        let errors = part(TURNS, RETURNS).errors();
        let p99 =
            [part(1, TURNS), part(HEARD + 1, RETURNS), part(RETURNS + 5, ENDS)].map(|it| it.percentile(0.99));
        assert_eq!(offered.len(), ENDS as usize, "zone a serves in the last second");
        println!(
            "{seed:4} {:6.2} %  {:10.1} {:8.1} {:8.1}           {}",
            100.0 * errors,
            p99[0],
            p99[1],
            p99[2],
            picture(&offered)
        );
        assert!(errors < 0.005, "seed {seed}: {errors}");
        assert!(p99[1] < 5.0 * p99[0] && p99[2] < 2.0 * p99[0], "seed {seed}: {p99:?}");
        // While it was gone nobody was sent there; before and afterwards it serves its own.
        assert_eq!(highest(offered[HEARD as usize + 1..RETURNS as usize].iter().copied()), 0.0);
        let own = RATE / 3.0;
        for second in [TURNS as usize - 2, ENDS as usize - 2] {
            assert!(
                (offered[second] / own - 1.0).abs() < 0.35,
                "seed {seed}, second {second}: {}",
                offered[second]
            );
        }
    }
}
