//! Encoding, decoding and comparing manifests, and external sort.

#![allow(clippy::unwrap_used, reason = "a bench that fails should stop")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use snapferry::diff::diff;
use snapferry::error::Result;
use snapferry::manifest::{Entry, SegmentSource, segment};
use snapferry::sort::sort_entries;

#[allow(dead_code, reason = "shared with the tests")]
#[path = "../tests/generator/mod.rs"]
mod generator;

const SEGMENT_ENTRIES: u64 = 16_384;
const BUCKET_ENTRIES: u64 = 200_000;

fn segments(c: &mut Criterion) {
    let entries: Vec<Entry> = generator::base(SEGMENT_ENTRIES).collect();
    let file = segment::encode(&entries).unwrap();
    let mut group = c.benchmark_group("segment");
    group.throughput(Throughput::Elements(SEGMENT_ENTRIES)).sample_size(20);
    group.bench_function("encode", |b| b.iter(|| segment::encode(black_box(&entries)).unwrap()));
    group.bench_function("decode", |b| b.iter(|| segment::decode(black_box(file.clone())).unwrap()));
    group.finish();
}

fn diffs(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let source: Arc<dyn SegmentSource> = Arc::new(generator::Directory(directory.path().to_owned()));
    let base = generator::write(directory.path(), generator::base(BUCKET_ENTRIES));
    let scattered = generator::write(directory.path(), generator::changed(BUCKET_ENTRIES));
    let one = generator::base(BUCKET_ENTRIES).skip(1);
    let one = generator::write(directory.path(), one);
    let mut group = c.benchmark_group("diff");
    group.throughput(Throughput::Elements(BUCKET_ENTRIES)).sample_size(10);
    for (name, new) in [("one percent changed everywhere", &scattered), ("one object changed", &one)] {
        group.bench_function(name, |b| b.iter(|| diff(&base, source.clone(), new, source.clone()).count()));
    }
    group.finish();
}

fn sorts(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let shuffled: Vec<Entry> =
        (0..BUCKET_ENTRIES).map(|i| generator::object(i * 7919 % BUCKET_ENTRIES, "data", 0)).collect();
    let mut group = c.benchmark_group("sort");
    group.throughput(Throughput::Elements(BUCKET_ENTRIES)).sample_size(10);
    for (name, memory_bytes) in [("in memory", 1 << 30), ("in files", 4 << 20)] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || shuffled.clone().into_iter().map(Ok),
                |entries| sort_entries(entries, directory.path(), memory_bytes).unwrap().map(Result::unwrap).count(),
                BatchSize::LargeInput,
            )
        });
    }
    group.finish();
}

criterion_group!(benches, segments, diffs, sorts);
criterion_main!(benches);
