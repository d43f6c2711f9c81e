//! What counting costs: values in a histogram, as the data path records them.
//!
//! A leader records three values for each entry (proposal wait, requests, commit) and every node three for each flush batch
//! (bytes, records, time); all else that is counted is one addition.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringraft_engine::metrics::histogram::Histogram;

/// Values of one iteration: from a microsecond to a second, in a scattered order.
const VALUES: usize = 1_024;

fn recording(criterion: &mut Criterion) {
    let values: Vec<u64> = (0..VALUES as u64).map(|number| ((number * 7_919) % 1_000_003) >> (number % 20)).collect();
    let mut histogram = Histogram::default();
    let mut group = criterion.benchmark_group("metrics");
    group.throughput(Throughput::Elements(VALUES as u64));
    group.bench_function("1024 values into a histogram", |bench| {
        bench.iter(|| values.iter().for_each(|value| black_box(&mut histogram).record(black_box(*value))));
    });
    group.finish();
}

criterion_group!(benches, recording);
criterion_main!(benches);
