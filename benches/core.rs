//! Times of the core without Python, one thread, on every instruction set of the machine; the rival is a loop that calls
//! `step` for every configuration. Equal answers are asserted before anything is timed.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use roofsim_bench::{Columns, MODELS, best, best_by_step, categorical, front, space};
use roofsim_core::sweep::{Isa, Runner, Space};

fn rows(space: &Space) -> Throughput {
    Throughput::Elements(u64::try_from(space.num_configurations().unwrap_or(0)).unwrap_or(0))
}

#[expect(clippy::expect_used, reason = "a bench that cannot run must stop")]
fn sweeps(criterion: &mut Criterion) {
    let long = space(&MODELS, 256, 8192).expect("the catalogue's models compile");
    let short = categorical(256, 64).expect("the catalogue's models compile");
    let few = space(&MODELS, 16, 256).expect("the catalogue's models compile");
    let mut columns = Columns::of(&long).expect("memory for three columns");
    let mut group = criterion.benchmark_group("sweep");
    group.sampling_mode(SamplingMode::Flat).sample_size(10).measurement_time(Duration::from_millis(800));
    group.warm_up_time(Duration::from_millis(200));
    for isa in Isa::available() {
        let runner = Runner { num_threads: 1, isa };
        let name = isa.name();
        group.throughput(rows(&long));
        group.bench_function(format!("best/{name}"), |b| b.iter(|| best(black_box(&long), runner, 1)));
        group.bench_function(format!("top-100/{name}"), |b| b.iter(|| best(black_box(&long), runner, 100)));
        group.bench_function(format!("front/{name}"), |b| b.iter(|| front(black_box(&long), runner)));
        group.bench_function(format!("columns/{name}"), |b| b.iter(|| columns.fill(black_box(&long), runner)));
        group.throughput(rows(&short));
        group.bench_function(format!("categorical/{name}"), |b| b.iter(|| best(black_box(&short), runner, 1)));
    }
    let runner = Runner { num_threads: 1, isa: Isa::detect() };
    let (ours, theirs) = (best(&few, runner, 1).expect("a sweep"), best_by_step(&few).expect("a loop"));
    assert_eq!(ours.rows.first(), theirs.as_ref(), "the loop over steps finds the same row with the same bits");
    group.throughput(rows(&few));
    group.bench_function("best/step loop", |b| b.iter(|| best_by_step(black_box(&few))));
    group.finish();
}

criterion_group!(benches, sweeps);
criterion_main!(benches);
