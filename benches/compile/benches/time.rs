//! How long compiling takes.

use criterion::{Criterion, criterion_group, criterion_main};
use pillion_compile_bench::Mesh;

fn all(criterion: &mut Criterion) {
    for services in [10, 100, 1000] {
        let mesh = Mesh::of(services);
        criterion.bench_function(&format!("compile/{services}"), |bencher| bencher.iter(|| mesh.compile()));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = all
}
criterion_main!(benches);
