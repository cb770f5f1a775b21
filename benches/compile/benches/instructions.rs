//! How many instructions compiling takes, under valgrind.

#![expect(missing_docs, reason = "iai-callgrind's macros write modules without any")]

use iai_callgrind::{library_benchmark, library_benchmark_group, main};
use pillion::compile::Compiled;
use pillion_compile_bench::Mesh;

// The mesh is given back, so that its end is not counted.
#[library_benchmark]
#[bench::ten(Mesh::of(10))]
#[bench::hundred(Mesh::of(100))]
fn compile(mesh: Mesh) -> (Compiled, Mesh) {
    (mesh.compile(), mesh)
}

library_benchmark_group!(
    name = documents;
    benchmarks = compile
);
main!(library_benchmark_groups = documents);
