//! Sorted entries into segments.

use bytes::Bytes;

use super::root::{Manifest, Segment, Totals};
use super::segment::{ENTRIES_MAX, encode, flaw};
use super::{Entry, Pin};
use crate::error::{Error, Kind, Result};
use crate::key::Key;

/// An entry weighs one for each of these bytes that are begun, so that segments of large entries stay small too.
const WEIGHT_BYTES: usize = 512;

/// Only after this weight may a segment end at a border.
const WEIGHT_MIN: usize = 4_096;

/// At this weight a segment ends wherever it is.
const WEIGHT_MAX: usize = ENTRIES_MAX;

/// Borders are this far apart on average, counted from the least weight on: 16,384 in all.
const BORDER_DISTANCE: u64 = 16_384 - WEIGHT_MIN as u64;

/// Takes finished segments.
pub trait SegmentSink {
    /// Keeps a segment's file. May block. The same segment may come again in another manifest.
    fn put(&mut self, segment: &Segment, file: Bytes) -> Result<()>;
}

/// Cuts sorted entries into segments.
///
/// Where a segment ends is decided by the key that follows and by nothing else, if the segment has a sensible size:
/// so a change moves the borders near it at most, and two manifests of almost the same entries share almost all
/// segments.
#[derive(Debug)]
pub struct ManifestWriter<S> {
    sink: S,
    run: Vec<Entry>,
    weight: usize,
    last: Option<Key>,
    manifest: Manifest,
}

impl<S: SegmentSink> ManifestWriter<S> {
    /// A writer of a manifest that has no entries yet.
    pub fn new(sink: S) -> Self {
        Self { sink, run: Vec::new(), weight: 0, last: None, manifest: Manifest::default() }
    }

    /// Adds the next entry. Keys that do not strictly rise, and entries that a manifest cannot hold, fail with
    /// `BadListing`.
    pub fn push(&mut self, entry: Entry) -> Result<()> {
        if let Some(flaw) = flaw(&entry, self.last.as_ref()) {
            let error = Error::new(Kind::BadListing, format!("cannot be in a manifest: it {flaw}")).key(&entry.key);
            return Err(error.hint("run the command again; if it repeats, the store's listing is broken"));
        }
        let weight = weight(&entry);
        let full = self.weight + weight > WEIGHT_MAX;
        if full || (self.weight >= WEIGHT_MIN && is_border(&entry.key, weight)) {
            self.cut()?;
        }
        self.last = Some(entry.key.clone());
        self.weight += weight;
        self.run.push(entry);
        Ok(())
    }

    /// Ends the last segment.
    pub fn finish(mut self) -> Result<(Manifest, S)> {
        self.cut()?;
        Ok((self.manifest, self.sink))
    }

    fn cut(&mut self) -> Result<()> {
        let (Some(first), Some(last)) = (self.run.first(), self.run.last()) else { return Ok(()) };
        let file = encode(&self.run)?;
        let totals = self.run.iter().try_fold(Totals::default(), |totals, entry| totals.with(entry));
        let segment = Segment {
            digest: blake3::hash(&file),
            first: first.key.clone(),
            last: last.key.clone(),
            totals: totals.ok_or_else(|| {
                Error::new(Kind::BadListing, "sizes add up to more than a number holds").key(&last.key)
            })?,
            file_bytes: file.len() as u64,
        };
        self.sink.put(&segment, file)?;
        self.manifest.push(segment)?;
        self.run.clear();
        self.weight = 0;
        Ok(())
    }
}

fn is_border(key: &Key, weight: usize) -> bool {
    let [first, ..] = *blake3::hash(key.as_bytes()).as_bytes().as_chunks::<8>().0 else { return false };
    u64::from_le_bytes(first) < (u64::MAX / BORDER_DISTANCE).saturating_mul(weight as u64)
}

/// How many times [`WEIGHT_BYTES`] this entry takes, rounded up.
fn weight(entry: &Entry) -> usize {
    let text = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
    let pin = |pin: &Pin| text(&pin.etag) + text(&pin.version) + 24 * usize::from(pin.file.is_some());
    let pairs = |pairs: &[(String, String)]| pairs.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    let attributes = entry.attributes.as_deref().map_or(0, |attributes| {
        let parts: [usize; 3] = [pairs(&attributes.headers), pairs(&attributes.metadata), pairs(&attributes.tags)];
        64 + parts.iter().sum::<usize>()
    });
    let bytes = entry.key.len()
        + 24
        + pin(&entry.pin)
        + entry.origin.as_ref().map_or(0, pin)
        + entry.digest.map_or(0, |_| 32)
        + entry.blocks.as_ref().map_or(0, |blocks| blocks.as_bytes().len())
        + attributes;
    bytes.div_ceil(WEIGHT_BYTES)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::manifest::Blocks;
    use crate::manifest::memory::Memory;

    #[test]
    fn a_few_changes_leave_most_segments_as_they_are() {
        let memory = Memory::default();
        let entries: Vec<Entry> = (0..200_000).map(|i| Entry::object(format!("data/{i:08}"), i)).collect();
        let base = memory.write(entries.clone());
        let mut changed = entries;
        changed.remove(150_000);
        changed[50_000].size += 1;
        changed.insert(20_000, Entry::object("data/00019999-inserted", 1));
        let new = memory.write(changed);

        let known: HashSet<_> = base.segments().iter().map(|segment| segment.digest).collect();
        let fresh = new.segments().iter().filter(|segment| !known.contains(&segment.digest)).count();
        assert!(base.segments().len() >= 8, "{} segments", base.segments().len());
        assert!(fresh <= 6, "{fresh} of {} segments are new", new.segments().len());
    }

    #[test]
    fn large_entries_make_small_segments_that_find_their_borders_again() {
        let memory = Memory::default();
        let entry = |i: usize| {
            let mut entry = Entry::object(format!("large/{i:04}"), 1);
            entry.blocks = Some(Blocks::new(1 << 23, &vec![[i as u8; 32]; 12_500]));
            entry
        };
        let base = memory.write((0..400).map(entry));
        let new = memory.write((1..400).map(entry));
        let known: HashSet<_> = base.segments().iter().map(|segment| segment.digest).collect();
        let fresh = new.segments().iter().filter(|segment| !known.contains(&segment.digest)).count();
        assert!(base.segments().iter().all(|segment| segment.totals.entries <= 84));
        assert!(fresh * 2 <= new.segments().len(), "{fresh} of {} segments are new", new.segments().len());
    }

    #[test]
    fn what_a_manifest_cannot_hold_is_refused() {
        let link = Entry { kind: crate::manifest::Kind::Link, ..Entry::object("z", 0) };
        let nameless_directory = Entry { kind: crate::manifest::Kind::Directory, ..Entry::object("z", 0) };
        for bad in
            [Entry::object("a", 0), Entry::object("b", 0), link, nameless_directory, Entry::object("z", u64::MAX)]
        {
            let mut writer = ManifestWriter::new(Memory::default());
            writer.push(Entry::object("b", 0)).unwrap();
            let error = writer.push(bad.clone()).unwrap_err();
            assert_eq!(error.kind(), Kind::BadListing);
            assert_eq!(error.failed_key(), Some(&bad.key));
        }
    }
}
