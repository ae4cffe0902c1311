//! What the line from snapshot to seal is made of: planning, small files, and the whole of it without a wire.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use snapferry::bounds::{Bounds, MaxDelete, OnDrift};
use snapferry::bucket::{Bucket, OpenOptions};
use snapferry::error::Result;
use snapferry::manifest::{Attributes, Entry, FileId, Pin};
use snapferry::plan::{Circumstances, Inputs, Options, Trees, plan};
use snapferry::replicate::{Proof, Request, replicate};
use snapferry::snapshot::clone::CloneMode;
use snapferry::store::local::LocalStore;
use snapferry::store::memory::MemoryStore;
use snapferry::store::{Condition, Store};
use snapferry::transfer::Limits;

const ENTRIES: u64 = 100_000;
const OBJECTS: u64 = 500;

/// An entry of a bucket in which every hundredth object changes from one `night` to the next.
fn entry(number: u64, night: u64) -> Entry {
    let version = if number.is_multiple_of(100) { night } else { 0 };
    let pin = |at: u64| Pin {
        file: Some(FileId { inode: number + at, birth_ns: 1, mtime_ns: version as i64 }),
        ..Pin::default()
    };
    let object = Entry::object(format!("directory-{:03}/object-{number:06}", number / 1000), 4096);
    Entry { pin: pin(0), origin: Some(pin(0)), ..object }
}

fn planning(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (capabilities, trees) = (MemoryStore::like_files(), Trees::default());
    let night = |night| move || (0..ENTRIES).map(move |number| Ok(entry(number, night)));
    let mut group = c.benchmark_group("plan");
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("100k, 1 % changed", |b| {
        b.iter(|| {
            let inputs = Inputs {
                source: Box::new(night(1)()),
                base: Box::new(night(0)()),
                actual: Box::new(night(0)()),
                landed: Box::new(std::iter::empty()),
                pending: Box::new(std::iter::empty()),
            };
            let options = Options {
                target: &capabilities,
                accepts: &|_| Ok(()),
                leaves: &|_| false,
                run: Circumstances::default(),
                trees: &trees,
                folder: folder.path(),
            };
            black_box(plan(inputs, &options).expect("a plan"))
        });
    });
    group.finish();
}

fn small_files(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let store = LocalStore::open(folder.path(), false).expect("the directory");
    let data = Bytes::from(vec![7; 4096]);
    let attributes = Attributes::default();
    c.bench_function("local: write and read 4 KiB", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let pin = store.write(&"file".into(), data.clone(), &attributes, &Condition::Any).await?;
                store.read(&Entry { pin, ..Entry::object("file", 4096) }, None).await
            })
        });
    });
}

fn whole_line(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let options =
        OpenOptions { create: false, create_link: false, clone: CloneMode::Auto, folder: folder.path().into() };
    let bucket = |name: &str| Bucket::of_store(Arc::new(MemoryStore::versioned(name)), &options);
    let filled = || {
        let (source, target) = (bucket("source"), bucket("target"));
        let fill: Result<()> = runtime.block_on(async {
            for number in 0..OBJECTS {
                let data = Bytes::from(vec![number as u8; 4096]);
                source.store().write(&entry(number, 0).key, data, &Attributes::default(), &Condition::Any).await?;
            }
            Ok(())
        });
        fill.expect("a store in memory takes what it is given");
        (source, target)
    };
    let request = || Request {
        snapshot: None,
        dry_run: false,
        steps: false,
        proof: Proof::Listing,
        allow_unversioned: false,
        policy: None,
        source_catalog: None,
        job: snapferry::job::new_id(jiff::Timestamp::UNIX_EPOCH),
        moment: jiff::Timestamp::UNIX_EPOCH,
        bounds: Bounds {
            max_delete: MaxDelete::Percent(50.0),
            on_drift: OnDrift::Refuse,
            limits: Limits { concurrency: 16, memory_bytes: 64 << 20, ..Limits::default() },
            folder: folder.path().into(),
            lease_term: Duration::from_secs(60),
        },
    };
    let mut group = c.benchmark_group("line");
    group.throughput(Throughput::Elements(OBJECTS));
    group.bench_function("500 × 4 KiB in memory, snapshot to seal", |b| {
        b.iter_batched(
            filled,
            |(source, target)| {
                let run = replicate(source, target, request(), Arc::default(), Default::default());
                let (report, outcome) = runtime.block_on(run);
                outcome.expect("a sealed snapshot");
                assert_eq!(report.objects_copied, OBJECTS);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(5));
    targets = planning, small_files, whole_line
}
criterion_main!(benches);
