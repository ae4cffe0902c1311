//! The memory of manifests, sorting and diffs does not grow with the bucket.
//!
//! `scripts/scale` runs this with a million objects and more; by itself it takes a size that is quick without
//! optimisation.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use snapferry::diff::{Change, diff, match_renames};
use snapferry::error::Result;
use snapferry::manifest::SegmentSource;
use snapferry::sort::sort_entries;

#[allow(dead_code, reason = "shared with the benches")]
#[path = "generator/mod.rs"]
mod generator;

/// What the whole program may take.
const PEAK_BYTES_MAX: u64 = 256 << 20;

/// What sorting may take; the rest goes to disk.
const SORT_BYTES: usize = 32 << 20;

#[test]
fn a_diff_of_two_large_manifests_takes_bounded_memory() {
    let count = std::env::var("SNAPFERRY_SCALE_ENTRIES").map_or(100_000, |text| text.parse().unwrap());
    let state = tempfile::tempdir().unwrap();
    let source: Arc<dyn SegmentSource> = Arc::new(generator::Directory(state.path().to_owned()));

    let begun = Instant::now();
    let base = generator::write(state.path(), generator::base(count));
    report("write the base", count, begun);
    let new = generator::write(state.path(), generator::changed(count));
    assert_eq!(base.totals().entries, count);

    let begun = Instant::now();
    let changes = diff(&base, source.clone(), &new, source.clone());
    let mut found = [0; 4];
    for change in match_renames(changes, state.path(), SORT_BYTES).unwrap() {
        let kind = match change.unwrap() {
            Change::Modified { .. } => 0,
            Change::Deleted(_) => 1,
            Change::Renamed { .. } => 2,
            Change::Created(_) => 3,
        };
        found[kind] += 1;
    }
    assert_eq!(found, generator::changes(count));
    report("diff with renames, every segment changed", 2 * count, begun);

    let begun = Instant::now();
    let shuffled = (0..count).map(|i| Ok(generator::object(i * 7919 % count, "data", 0)));
    let sorted = sort_entries(shuffled, state.path(), SORT_BYTES).unwrap();
    assert!(sorted.map(Result::unwrap).eq(generator::base(count)), "7919 divides the count, or sorting is wrong");
    report("sort what came in no order", count, begun);

    let peak = peak_bytes();
    let disk: u64 = base.segments().iter().map(|segment| segment.file_bytes).sum();
    println!(
        "{count} entries: {} segments, {disk} bytes on disk; peak memory {} MiB",
        base.segments().len(),
        peak >> 20
    );
    assert!(peak < PEAK_BYTES_MAX, "peak memory is {peak} bytes");
}

fn report(what: &str, entries: u64, begun: Instant) {
    let seconds = begun.elapsed().as_secs_f64();
    println!("{what}: {seconds:.2} s, {:.0} entries/s", entries as f64 / seconds);
}

/// The most memory that this process ever had, by the kernel's account.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
