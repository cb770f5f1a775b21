//! How many instructions compiling and publishing take, under valgrind.

#![expect(missing_docs, reason = "iai-callgrind's macros write modules without any")]

use iai_callgrind::{library_benchmark, library_benchmark_group, main};
use pillion::compile::Compiled;
use pillion_compile_bench::{Mesh, Published};

// What a case works on is given back, so that its end is not counted.
#[library_benchmark]
#[bench::ten(Mesh::of(10))]
#[bench::five_hundred(Mesh::of(500))]
fn compile(mesh: Mesh) -> (Compiled, Mesh) {
    (mesh.compile(), mesh)
}

/// Repeated, so that what happens only now and then has its share.
const TIMES: usize = 100;

/// 500 services and 1,000 subscribers to 10 each: 20 are told.
fn big_mesh() -> Published {
    let mut published = Published::of(500, 1000, 10);
    assert_eq!(published.change(), 20);
    assert!(published.is_quiet());
    published
}

#[library_benchmark]
#[bench::five_hundred(big_mesh())]
fn publish(mut published: Published) -> Published {
    for _ in 0..TIMES {
        published.change();
    }
    published
}

library_benchmark_group!(
    name = documents;
    benchmarks = compile, publish
);
main!(library_benchmark_groups = documents);
