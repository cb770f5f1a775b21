//! How long each case takes. Noisy on a busy machine; `instructions` is not.

use criterion::{Criterion, criterion_group, criterion_main};
use pillion_micro::{
    Case,
    balance::{Pick, Record},
    chain::Chain,
    identity::{Parse, Verify},
    route::Choose,
    sniff::Decide,
    telemetry::Count,
};

fn measure(criterion: &mut Criterion, name: &str, mut case: impl Case) {
    criterion.bench_function(name, |bencher| bencher.iter(|| case.run()));
}

fn all(criterion: &mut Criterion) {
    for rules in [1, 10, 1000] {
        measure(criterion, &format!("route/{rules}"), Choose::among(rules));
    }
    for endpoints in [3, 100, 10_000] {
        measure(criterion, &format!("pick/{endpoints}"), Pick::among(endpoints));
    }
    for (name, case) in Decide::each() {
        measure(criterion, &format!("sniff/{name}"), case);
    }
    measure(criterion, "chain/bare", Chain::bare());
    measure(criterion, "chain/everything", Chain::with_everything());
    measure(criterion, "chain/heard", Chain::heard());
    measure(criterion, "chain/watched", Chain::watched());
    measure(criterion, "breaker/record", Record::new());
    measure(criterion, "edge/count", Count::new());
    measure(criterion, "identity/verify", Verify::new());
    measure(criterion, "identity/parse", Parse);
}

criterion_group!(benches, all);
criterion_main!(benches);
