//! Two of ten replicas take requests and never answer: what a timeout for each attempt makes of it, and what hedging.

use std::{rc::Rc, time::Duration};

use pillion_api::model::{Hedge, Retry, TrafficPolicy};

use super::{
    SEEDS,
    figures::{Counts, Record, most_offered, picture},
    sidecar::{Arrivals, Callers, Sidecar, until},
    world::{Mood, Nature, World, run},
};

/// Together, of four sidecars.
const RATE: f64 = 400.0;
const TURNS: u64 = 10;
const ENDS: u64 = 25;
/// Twenty times what an answer takes.
const PATIENCE: Duration = Duration::from_millis(200);

struct Told {
    record: Rc<Record>,
    /// By the tenth of a second.
    offered: Vec<u32>,
    /// To the hanging ones, by the second.
    lost: Vec<f64>,
}

fn story(seed: u64, policy: &TrafficPolicy) -> Told {
    run(async {
        let world = World::new(seed, 10, &[""], Nature::default());
        let record = Rc::new(Record::default());
        let sidecars = (0..4).map(|_| Sidecar::new(&world, policy, "", &record)).collect();
        let callers = Callers::start(sidecars, Arrivals::Independent, RATE);
        until(&world, TURNS).await;
        world.replicas[..2].iter().for_each(|replica| replica.set(Mood::Hanging));
        until(&world, ENDS).await;
        drop(callers);
        until(&world, ENDS + 1).await;
        let lost = Counts::seconds(world.offered().take(2));
        Told { record, offered: Counts::tenths(world.offered()), lost }
    })
}

#[test]
fn replicas_that_hang_cost_some_a_timeout_or_with_hedging_hardly_that() {
    let timeout = TrafficPolicy {
        attempt_timeout: Some(PATIENCE),
        retry: Some(Retry::default()),
        ..TrafficPolicy::default()
    };
    let hedging = Hedge { percentile: Some(95), ..Hedge::default() };
    let hedging = TrafficPolicy { hedge: Some(hedging), ..timeout.clone() };
    println!(
        "two of ten replicas hang from second {TURNS} on, {RATE} requests/s of 4 sidecars, {PATIENCE:?} for an attempt, retries on"
    );
    println!(
        "seed  policy   errors  p99 before, after (ms)  slow  most offered in 2 s  offered to them by the second"
    );
    for seed in SEEDS {
        let [plain, hedged] = [("timeout", &timeout), ("hedging", &hedging)].map(|(name, policy)| {
            let told = story(seed, policy);
            let (before, after) =
                (told.record.within(1.0..TURNS as f64), told.record.within(TURNS as f64..ENDS as f64));
            let slow = after.slower(PATIENCE);
            let asked = told.record.asked();
            let from = 10..((ENDS - 2) * 10) as usize;
            let most = most_offered(&told.offered, &asked, from, 20);
            println!(
                "{seed:4}  {name} {:6.2} % {:11.1} {:9.1} {slow:8} {most:19.3}×  {}",
                100.0 * after.errors(),
                before.percentile(0.99),
                after.percentile(0.99),
                picture(&told.lost)
            );
            assert!(after.errors() < 0.005, "seed {seed}, {name}: {}", after.errors());
            // Seven in a row open a breaker, of each sidecar for each of the two; then there are probes.
            assert!(slow * 50 < after.len(), "seed {seed}, {name}: {slow} of {}", after.len());
            (slow, most)
        });
        assert!(hedged.0 < plain.0, "seed {seed}: {} and {} waited for a timeout", hedged.0, plain.0);
        // 20 % of retries, 10 % of hedges.
        assert!(plain.1 <= 1.2 && hedged.1 <= 1.3, "seed {seed}: {} and {}", plain.1, hedged.1);
    }
}
