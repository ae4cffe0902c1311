//! A manifest's entries, segment after segment.

use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::Entry;
use super::root::{Manifest, Segment, Totals};
use super::segment::Batches;
use crate::error::{Error, Kind, Result};
use crate::key::Key;

/// Batches of entries that may wait for the reader: about one segment is read ahead.
const BATCHES_WAITING_MAX: usize = 8;

/// Gives back the files of segments.
pub trait SegmentSource: Send + Sync {
    /// The bytes of a segment's file. May block. What they are is checked by who asks.
    fn get(&self, segment: &Segment) -> Result<Bytes>;
}

impl Manifest {
    /// All entries in order.
    ///
    /// Each segment is fetched once, on a thread that reads ahead, and checked against its digest, its keys and its
    /// totals; what is not what the manifest says fails with `Damaged`. The first error ends it.
    pub fn entries(&self, source: Arc<dyn SegmentSource>) -> impl Iterator<Item = Result<Entry>> + Send + use<> {
        read_segments(self.segments().to_vec(), source)
    }

    /// As [`Self::entries`], from the first key that is not before `from`. Segments before it are not fetched.
    pub fn entries_from(
        &self,
        from: Key,
        source: Arc<dyn SegmentSource>,
    ) -> impl Iterator<Item = Result<Entry>> + Send + use<> {
        let begin = self.segments().partition_point(|segment| segment.last < from);
        read_segments(self.segments()[begin..].to_vec(), source)
            .skip_while(move |entry| entry.as_ref().is_ok_and(|entry| entry.key < from))
    }
}

/// The entries of these segments, which are in order.
pub(crate) fn read_segments(
    segments: Vec<Segment>,
    source: Arc<dyn SegmentSource>,
) -> impl Iterator<Item = Result<Entry>> + Send + use<> {
    let (sender, batches) = bounded(BATCHES_WAITING_MAX);
    let left = segments.iter().map(|segment| segment.totals.entries).sum();
    if left > 0 {
        thread::spawn(move || {
            for segment in &segments {
                match read_segment(segment, &*source, &sender) {
                    Ok(()) => {}
                    Err(Stopped::Failed(error)) => {
                        let _ = sender.send(Err(error));
                        return;
                    }
                    Err(Stopped::ReaderGone) => return,
                }
            }
        });
    }
    Entries { batches, batch: Vec::new().into_iter(), left }
}

enum Stopped {
    Failed(Error),
    ReaderGone,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn read_segment(
    segment: &Segment,
    source: &dyn SegmentSource,
    sender: &Sender<Result<Vec<Entry>>>,
) -> Result<(), Stopped> {
    let damaged = |how: &str| Error::new(Kind::Damaged, format!("manifest segment {} {how}", segment.name()));
    let file = source.get(segment)?;
    if file.len() as u64 != segment.file_bytes || blake3::hash(&file) != segment.digest {
        return Err(damaged("is not the file that the manifest names").hint(super::WAY_OUT).into());
    }
    let mut totals = Totals::default();
    let mut last = None;
    for batch in Batches::open(file)? {
        let batch = batch?;
        for entry in &batch {
            if last.is_none() && entry.key != segment.first {
                return Err(damaged("begins with another key than the manifest says").key(&entry.key).into());
            }
            totals = totals.with(entry).ok_or_else(|| damaged("has sizes beyond all numbers").key(&entry.key))?;
            last = Some(entry.key.clone());
        }
        sender.send(Ok(batch)).map_err(|_| Stopped::ReaderGone)?;
    }
    if totals != segment.totals || last.as_ref() != Some(&segment.last) {
        return Err(damaged("holds other entries than the manifest says").into());
    }
    Ok(())
}

struct Entries {
    batches: Receiver<Result<Vec<Entry>>>,
    batch: std::vec::IntoIter<Entry>,
    /// Entries that must still come.
    left: u64,
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.batch.next() {
                self.left = self.left.saturating_sub(1);
                return Some(Ok(entry));
            }
            let error = match self.batches.recv() {
                Ok(Ok(batch)) => {
                    self.batch = batch.into_iter();
                    continue;
                }
                Ok(Err(error)) => error,
                Err(_) if self.left == 0 => return None,
                Err(_) => Error::internal("the thread that reads a manifest ended early"),
            };
            self.left = 0;
            return Some(Err(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::arbitrary;
    use crate::manifest::memory::Memory;
    use crate::manifest::segment::encode;

    fn numbered(count: u64) -> Vec<Entry> {
        (0..count).map(|i| Entry::object(format!("data/{i:08}"), i)).collect()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_from_any_key_on(entries in arbitrary::entries(30), from in arbitrary::key()) {
            let memory = Memory::default();
            let manifest = memory.write(entries.clone());
            prop_assert_eq!(manifest.totals().entries, entries.len() as u64);
            let all: Vec<_> = manifest.entries(memory.source()).collect::<Result<_>>().unwrap();
            prop_assert_eq!(&all, &entries);
            let tail: Vec<_> = manifest.entries_from(from.clone(), memory.source()).collect::<Result<_>>().unwrap();
            prop_assert!(tail.iter().eq(entries.iter().filter(|entry| entry.key >= from)));
        }
    }

    #[test]
    fn segments_before_the_first_key_are_not_fetched() {
        let memory = Memory::default();
        let entries = numbered(60_000);
        let manifest = memory.write(entries.clone());
        assert!(manifest.segments().len() > 2, "{} segments", manifest.segments().len());
        let last = manifest.segments().last().unwrap().clone();
        let tail: Vec<_> = manifest.entries_from(last.first, memory.source()).collect::<Result<_>>().unwrap();
        assert_eq!(tail, entries[entries.len() - tail.len()..]);
        assert_eq!(tail.len() as u64, last.totals.entries);
        assert_eq!(memory.fetches(), 1);
        assert_eq!(manifest.entries(memory.source()).count(), 60_000);
    }

    #[test]
    fn a_file_that_is_not_the_named_one_is_damage() {
        let memory = Memory::default();
        let manifest = memory.write(numbered(10));
        memory.replace(&manifest.segments()[0], encode(&numbered(9)).unwrap());
        let results: Vec<_> = manifest.entries(memory.source()).collect();
        assert_eq!(results.len(), 1);
        let error = results[0].as_ref().unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged);
        assert!(error.to_string().contains(&manifest.segments()[0].name()));
    }

    #[test]
    fn a_manifest_that_lies_about_its_segments_is_damage() {
        let memory = Memory::default();
        let honest = memory.write(numbered(10)).segments()[0].clone();
        let mut fewer = honest.clone();
        fewer.totals.entries = 9;
        fewer.totals.objects = 9;
        let mut bytes = honest.clone();
        bytes.totals.bytes += 1;
        let lies =
            [fewer, bytes, Segment { first: "data".into(), ..honest.clone() }, Segment { last: "z".into(), ..honest }];
        for lie in lies {
            let manifest = Manifest::new(vec![lie]).unwrap();
            let last = manifest.entries(memory.source()).last().unwrap();
            assert_eq!(last.unwrap_err().kind(), Kind::Damaged);
        }
    }

    #[test]
    fn no_more_is_read_ahead_than_a_little() {
        let memory = Memory::default();
        let manifest = memory.write(numbered(150_000));
        let mut entries = manifest.entries(memory.source());
        entries.next().unwrap().unwrap();
        thread::sleep(std::time::Duration::from_millis(50));
        // A segment has 4,096 entries or more, and 10 batches of 1,024 fit between here and there.
        assert!(memory.fetches() <= 4, "{} of {} segments", memory.fetches(), manifest.segments().len());
        assert!(manifest.segments().len() > 6);
    }

    #[test]
    fn a_missing_segment_is_an_error() {
        let manifest = Memory::default().write(numbered(10));
        let results: Vec<_> = manifest.entries(Memory::default().source()).collect();
        assert_eq!(results.len(), 1);
        assert_eq!(results[0].as_ref().unwrap_err().kind(), Kind::NotFound);
    }
}
