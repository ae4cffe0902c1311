//! External sort: more records than memory holds, in order.

mod run;

use std::path::{Path, PathBuf};

use bytes::Bytes;

use self::run::{Merge, Run, RunWriter};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::manifest::{Entry, codec};

/// Most runs that are merged at once, and so nearly the most files that are open.
const FAN_IN: usize = 64;

/// A record: what it is sorted by, and what travels along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Sorted as bytes.
    pub key: Bytes,
    /// Anything.
    pub payload: Bytes,
}

/// Sorts records by key, and those of one key in the order in which they came.
///
/// Memory stays within the limit, plus 4 MiB while runs are merged, or one record where that is larger than the limit.
/// What does not fit goes to files that have no name and vanish with the sorter, whatever happens.
#[derive(Debug)]
pub struct Sorter {
    directory: PathBuf,
    memory_bytes: usize,
    /// Keys and payloads, one after another.
    arena: Vec<u8>,
    slots: Vec<Slot>,
    /// From the oldest to the newest; the levels never rise.
    runs: Vec<Run>,
}

/// Where a record lies in the arena.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The first bytes of the key, as a number that sorts like them: saves most looks into the arena.
    prefix: u64,
    start: usize,
    key_len: u32,
    payload_len: u32,
}

impl Sorter {
    /// A sorter that takes about `memory_bytes` and puts what does not fit in files in `directory`.
    pub fn new(directory: &Path, memory_bytes: usize) -> Self {
        Self { directory: directory.to_owned(), memory_bytes, arena: Vec::new(), slots: Vec::new(), runs: Vec::new() }
    }

    /// Adds a record.
    pub fn push(&mut self, key: &[u8], payload: &[u8]) -> Result<()> {
        let long = |_| Error::usage("a record of 4 GiB or more cannot be sorted");
        let slot = Slot {
            prefix: prefix(key),
            start: self.arena.len(),
            key_len: u32::try_from(key.len()).map_err(long)?,
            payload_len: u32::try_from(payload.len()).map_err(long)?,
        };
        let held = self.arena.len() + (self.slots.len() + 1) * size_of::<Slot>();
        if !self.slots.is_empty() && held + key.len() + payload.len() > self.memory_bytes {
            self.spill()?;
            return self.push(key, payload);
        }
        self.arena.extend_from_slice(key);
        self.arena.extend_from_slice(payload);
        self.slots.push(slot);
        Ok(())
    }

    /// Everything that was added, in order.
    pub fn finish(mut self) -> Result<Sorted> {
        if self.runs.is_empty() {
            self.sort_slots();
            return Ok(Sorted(Source::Memory { arena: self.arena.into(), slots: self.slots.into_iter() }));
        }
        self.spill()?;
        self.arena = Vec::new();
        self.slots = Vec::new();
        while self.runs.len() > FAN_IN {
            // The newest are the smallest.
            self.merge_newest(FAN_IN.min(self.runs.len() - FAN_IN + 1))?;
        }
        Ok(Sorted(Source::Files(Merge::open(self.runs, &self.directory)?)))
    }

    fn sort_slots(&mut self) {
        let arena = &self.arena;
        let key = |slot: &Slot| &arena[slot.start..][..slot.key_len as usize];
        self.slots.sort_unstable_by(|a, b| {
            a.prefix.cmp(&b.prefix).then_with(|| key(a).cmp(key(b))).then_with(|| a.start.cmp(&b.start))
        });
    }

    /// Moves what is in memory to a run.
    fn spill(&mut self) -> Result<()> {
        if self.slots.is_empty() {
            return Ok(());
        }
        self.sort_slots();
        let mut run = RunWriter::create(&self.directory, 0)?;
        for slot in &self.slots {
            let (key, rest) = self.arena[slot.start..].split_at(slot.key_len as usize);
            run.write(key, &rest[..slot.payload_len as usize])?;
        }
        self.runs.push(run.finish()?);
        self.arena.clear();
        self.slots.clear();
        let level = |run: &Run| run.level;
        while let Some(newest) = self.runs.last().map(level)
            && self.runs.iter().rev().take_while(|run| run.level == newest).count() >= FAN_IN
        {
            self.merge_newest(FAN_IN)?;
        }
        Ok(())
    }

    fn merge_newest(&mut self, count: usize) -> Result<()> {
        let runs = self.runs.split_off(self.runs.len() - count);
        let level = runs.iter().map(|run| run.level).max().unwrap_or(0) + 1;
        let mut merged = RunWriter::create(&self.directory, level)?;
        for record in Merge::open(runs, &self.directory)? {
            let Record { key, payload } = record?;
            merged.write(&key, &payload)?;
        }
        self.runs.push(merged.finish()?);
        Ok(())
    }
}

fn prefix(key: &[u8]) -> u64 {
    let mut first = [0; 8];
    let len = key.len().min(8);
    first[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(first)
}

/// Sorted records. The first error ends them.
#[derive(Debug)]
pub struct Sorted(Source);

#[derive(Debug)]
enum Source {
    Memory { arena: Bytes, slots: std::vec::IntoIter<Slot> },
    Files(Merge),
}

impl Iterator for Sorted {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Memory { arena, slots } => {
                let slot = slots.next()?;
                let middle = slot.start + slot.key_len as usize;
                let key = arena.slice(slot.start..middle);
                Some(Ok(Record { key, payload: arena.slice(middle..middle + slot.payload_len as usize) }))
            }
            Source::Files(merge) => merge.next(),
        }
    }
}

/// The entries of a listing that is in no order, in order of their keys. A key that comes twice stays twice.
///
/// Reads `entries` to the end before it returns; the first error among them is returned.
pub fn sort_entries(
    entries: impl Iterator<Item = Result<Entry>>,
    directory: &Path,
    memory_bytes: usize,
) -> Result<SortedEntries> {
    let mut sorter = Sorter::new(directory, memory_bytes);
    let mut payload = Vec::new();
    for entry in entries {
        let mut entry = entry?;
        // The key is kept once only: as the key.
        let key = std::mem::take(&mut entry.key);
        payload.clear();
        codec::encode(&entry, &mut payload);
        sorter.push(key.as_bytes(), &payload)?;
    }
    Ok(SortedEntries(sorter.finish()?))
}

/// Entries in order of their keys. The first error ends them.
#[derive(Debug)]
pub struct SortedEntries(Sorted);

impl Iterator for SortedEntries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let decoded = self.0.next()?.and_then(|record| {
            let mut entry = codec::decode(&mut &record.payload[..])?;
            // A copy, because the record may be a slice of all that is in memory.
            entry.key = Key::copy_from(&record.key);
            Ok(entry)
        });
        Some(decoded)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::arbitrary;

    type Pair = (Vec<u8>, Vec<u8>);

    fn sort(records: &[Pair], memory_bytes: usize) -> (Vec<Pair>, usize) {
        let directory = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(directory.path(), memory_bytes);
        for (key, payload) in records {
            sorter.push(key, payload).unwrap();
        }
        let runs = sorter.runs.len();
        assert_eq!(directory.path().read_dir().unwrap().count(), 0, "runs have names");
        let sorted = sorter.finish().unwrap();
        let sorted = sorted.map(|record| record.map(|record| (record.key.to_vec(), record.payload.to_vec())));
        (sorted.collect::<Result<_>>().unwrap(), runs)
    }

    proptest! {
        #[test]
        fn sorted_by_key_and_then_as_they_came(
            keys in proptest::collection::vec(proptest::collection::vec(0u8..3, 0..12), 0..200),
            memory_bytes in 0usize..2000,
        ) {
            let records: Vec<_> = keys.into_iter().enumerate().map(|(i, key)| (key, i.to_le_bytes().to_vec())).collect();
            let mut expected = records.clone();
            expected.sort_by(|a, b| a.0.cmp(&b.0));
            prop_assert_eq!(sort(&records, memory_bytes).0, expected);
        }

        #[test]
        fn entries_survive_sorting(entries in arbitrary::entries(30), memory_bytes in 0usize..4000) {
            let directory = tempfile::tempdir().unwrap();
            let shuffled = entries.iter().rev().cloned().map(Ok);
            let sorted = sort_entries(shuffled, directory.path(), memory_bytes).unwrap();
            prop_assert_eq!(sorted.collect::<Result<Vec<_>>>().unwrap(), entries);
        }
    }

    #[test]
    fn more_runs_than_are_merged_at_once() {
        // With no memory at all each record is a run: two rounds of merging and a rest.
        let count = (FAN_IN * FAN_IN + 3 * FAN_IN + 5) as u32;
        let records: Vec<_> = (0..count)
            .map(|i| ((i.wrapping_mul(2_654_435_761) % 500).to_be_bytes().to_vec(), i.to_le_bytes().to_vec()))
            .collect();
        let mut expected = records.clone();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        let (sorted, runs) = sort(&records, 0);
        assert_eq!(sorted, expected);
        assert!(runs <= 3 * FAN_IN, "{runs} runs are open");
    }

    #[test]
    fn what_fits_touches_no_disk() {
        let mut sorter = Sorter::new(Path::new("/nonexistent"), 1 << 20);
        sorter.push(b"b", b"1").unwrap();
        sorter.push(b"a", b"2").unwrap();
        let keys: Vec<_> = sorter.finish().unwrap().map(|record| record.unwrap().key).collect();
        assert_eq!(keys, [&b"a"[..], b"b"]);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let mut sorter = Sorter::new(Path::new("/nonexistent"), 0);
        sorter.push(b"a", b"").unwrap();
        let error = sorter.push(b"b", b"").unwrap_err();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
        assert!(error.way_out().is_some());
    }
}
