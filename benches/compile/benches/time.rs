//! How long compiling and publishing take.

use criterion::{Criterion, criterion_group, criterion_main};
use pillion_compile_bench::{Mesh, Published};

fn all(criterion: &mut Criterion) {
    for services in [10, 100, 1000] {
        let mesh = Mesh::of(services);
        criterion.bench_function(&format!("compile/{services}"), |bencher| bencher.iter(|| mesh.compile()));
    }
    // A tenth and ten times of the same: 20 are told each time.
    for services in [50, 500, 5000] {
        let mut published = Published::of(services, services * 2, 10);
        let name = format!("publish/{services}");
        criterion.bench_function(&name, |bencher| bencher.iter(|| published.change()));
        assert!(published.is_quiet());
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = all
}
criterion_main!(benches);
