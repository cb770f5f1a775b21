//! How many instructions each case takes, under valgrind: the same on a busy machine, and nearly the same on another.

#![expect(missing_docs, reason = "iai-callgrind's macros write modules without any")]

use std::hint::black_box;

use iai_callgrind::{library_benchmark, library_benchmark_group, main};
use pillion_micro::{
    Case,
    balance::{Pick, Record},
    chain::Chain,
    identity::{Parse, Verify},
    route::Choose,
    sniff::Decide,
    telemetry::Count,
};

/// Done before counting, so that what happens only the first time is not counted.
fn warm<C: Case>(mut case: C) -> C {
    black_box(case.run());
    case
}

/// Repeated, so that what happens only now and then has its share.
const TIMES: usize = 100;

fn repeat<C: Case>(mut case: C) -> C {
    for _ in 0..TIMES {
        black_box(case.run());
    }
    // Given back, so that its end is not counted.
    case
}

fn choose(rules: usize) -> Choose {
    warm(Choose::among(rules))
}

fn pick(endpoints: usize) -> Pick {
    warm(Pick::among(endpoints))
}

fn decide(index: usize) -> Decide {
    let (_, case) = Decide::each().into_iter().nth(index).expect("one of four");
    warm(case)
}

#[library_benchmark]
#[bench::one(choose(1))]
#[bench::ten(choose(10))]
#[bench::thousand(choose(1000))]
fn route(case: Choose) -> Choose {
    repeat(case)
}

#[library_benchmark]
#[bench::three(pick(3))]
#[bench::hundred(pick(100))]
#[bench::ten_thousand(pick(10_000))]
fn balance(case: Pick) -> Pick {
    repeat(case)
}

#[library_benchmark]
#[bench::http1(decide(0))]
#[bench::http2(decide(1))]
#[bench::tls(decide(2))]
#[bench::opaque(decide(3))]
fn sniff(case: Decide) -> Decide {
    repeat(case)
}

#[library_benchmark]
#[bench::bare(warm(Chain::bare()))]
#[bench::everything(warm(Chain::with_everything()))]
#[bench::heard(warm(Chain::heard()))]
#[bench::watched(warm(Chain::watched()))]
fn chain(case: Chain) -> Chain {
    repeat(case)
}

#[library_benchmark]
#[bench::record(warm(Record::new()))]
fn breaker(case: Record) -> Record {
    repeat(case)
}

#[library_benchmark]
#[bench::count(warm(Count::new()))]
fn edge(case: Count) -> Count {
    repeat(case)
}

#[library_benchmark]
#[bench::verify(warm(Verify::new()))]
fn identity(case: Verify) -> Verify {
    repeat(case)
}

#[library_benchmark]
#[bench::parse(warm(Parse))]
fn spiffe(case: Parse) -> Parse {
    repeat(case)
}

library_benchmark_group!(
    name = steps;
    benchmarks = route, balance, sniff, chain, breaker, edge, identity, spiffe
);
main!(library_benchmark_groups = steps);
