//! All replicas fail: for a minute, with retries on; and what panic and a fallback make of it.

use std::rc::Rc;
use std::{sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode};
use pillion_api::model::{
    CircuitBreaker, FALLBACK_ON, Fallback, FallbackTo, FixedResponse, Retry, TrafficPolicy,
};

use super::{
    SEEDS,
    figures::{Counts, Outcome, Record, most_offered, picture},
    sidecar::{Arrivals, Callers, Sidecar, until},
    world::{Mood, Nature, World, run},
};

/// Together, of four sidecars.
const RATE: f64 = 400.0;
const TURNS: u64 = 15;
const RETURNS: u64 = 75;
const ENDS: u64 = 100;
const LATER: Duration = Duration::from_millis(430);

struct Told {
    record: Rc<Record>,
    /// By the tenth of a second.
    offered_tenths: Vec<u32>,
    offered: Vec<f64>,
}

fn story(seed: u64, policy: &TrafficPolicy, fails: Mood) -> Told {
    run(async {
        let world = World::new(seed, 10, &[""], Nature::default());
        let record = Rc::new(Record::default());
        let sidecars = (0..4).map(|_| Sidecar::new(&world, policy, "", &record)).collect();
        let callers = Callers::start(sidecars, Arrivals::Even, RATE);
        until(&world, TURNS).await;
        // Nothing is to depend on when a second begins.
        tokio::time::sleep(LATER).await;
        world.set_all(fails);
        until(&world, RETURNS).await;
        world.set_all(Mood::Well);
        until(&world, ENDS).await;
        drop(callers);
        until(&world, ENDS + 1).await;
        let mut offered = Counts::seconds(world.offered());
        offered.truncate(ENDS as usize);
        Told { record, offered_tenths: Counts::tenths(world.offered()), offered }
    })
}

fn retrying() -> TrafficPolicy {
    TrafficPolicy { retry: Some(Retry { attempts: 3, ..Retry::default() }), ..TrafficPolicy::default() }
}

#[test]
fn an_outage_is_not_made_worse_by_retries_and_ends_when_it_ends() {
    println!(
        "all of ten replicas fail from second {TURNS} to {RETURNS}, {RATE} requests/s of 4 sidecars, up to 3 retries"
    );
    println!("seed  most offered in 1 s and 2 s  well again after  offered by the second");
    for seed in SEEDS {
        let told = story(seed, &retrying(), Mood::Failing(1.0));
        // As a multiple of what users asked for in the same time, which is the normal rate: they come evenly.
        let asked = told.record.asked();
        let [in_one, in_two] = [10, 20].map(|tenths| {
            let from = (TURNS * 10) as usize..((RETURNS - 2) * 10) as usize;
            most_offered(&told.offered_tenths, &asked, from, tenths)
        });
        let errors = told.record.by_second(|part| part.errors());
        let last = errors.iter().rposition(|errors| *errors > 0.01).unwrap_or_default();
        let well = (last as u64 + 1).saturating_sub(RETURNS);
        println!("{seed:4} {in_one:19.3}× {in_two:7.3}× {well:15} s  {}", picture(&told.offered));
        assert!(in_one <= 1.2 && in_two <= 1.2, "seed {seed}: {in_one}, {in_two}");
        assert!(well <= 10, "seed {seed}: {well} s");
        let failed = told.record.within((TURNS + 1) as f64..RETURNS as f64).share(|it| it == Outcome::Failed);
        assert!(failed > 0.99, "seed {seed}: nothing but failures is to be had, {failed}");
    }
}

#[test]
fn where_all_fail_breakers_are_ignored_or_the_fallback_answers() {
    println!(
        "all of ten replicas fail from second {TURNS} to {RETURNS}; users' answers from second {} on",
        TURNS + 5
    );
    println!("seed  policy      failed  fallback  offered to the replicas  offered by the second");
    // What a fallback for open breakers makes of the breaker's defaults.
    let breaker =
        CircuitBreaker { panic_share: 0.0, max_ejected_share: Some(1.0), ..CircuitBreaker::default() };
    let response = FixedResponse {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: "later".into(),
        grpc_status: 0,
        grpc_message: String::new(),
    };
    let falling_back = TrafficPolicy {
        breaker: Some(breaker),
        fallback: Some(Arc::new(Fallback { on: FALLBACK_ON.to_vec(), to: FallbackTo::Response(response) })),
        ..TrafficPolicy::default()
    };
    for seed in SEEDS {
        for (name, policy) in [("panic", &TrafficPolicy::default()), ("fallback", &falling_back)] {
            let told = story(seed, policy, Mood::Failing(1.0));
            let during = told.record.within((TURNS + 5) as f64..RETURNS as f64);
            let failed = during.share(|it| it == Outcome::Failed);
            let fell = during.share(|it| it == Outcome::FellBack);
            let offered: f64 = told.offered[(TURNS + 5) as usize..RETURNS as usize].iter().sum();
            let offered = offered / during.len() as f64;
            println!(
                "{seed:4}  {name:9} {:6.1} % {:7.1} % {:22.1} %  {}",
                100.0 * failed,
                100.0 * fell,
                100.0 * offered,
                picture(&told.offered)
            );
            match name {
                "panic" => assert!(failed == 1.0 && offered > 0.95, "seed {seed}: {failed}, {offered}"),
                _ => assert!(fell > 0.98 && offered < 0.02, "seed {seed}: {fell}, {offered}"),
            }
            let errors = told.record.within((RETURNS + 10) as f64..ENDS as f64).errors();
            println!("      {name:9} errors from 10 s after the return on: {:.2} %", 100.0 * errors);
        }
    }
}
