//! Several sorted streams of entries, read side by side.

use std::array;

use crate::error::Result;
use crate::key::Key;
use crate::manifest::Entry;
use crate::store::listing::in_order;

/// A sorted stream of entries.
pub(crate) type Entries<'a> = Box<dyn Iterator<Item = Result<Entry>> + Send + 'a>;

/// A key and what each stream has under it.
pub(crate) type Row<const N: usize> = (Key, [Option<Entry>; N]);

/// Joins sorted streams by key: every key that is in any of them comes once, in byte order, with the entry of each
/// stream that has it. Keeps one entry of each stream in memory.
///
/// The first error ends the join; a stream whose keys do not strictly rise fails with `BadListing`.
pub(crate) fn merge_by_key<'a, const N: usize>(
    streams: [Entries<'a>; N],
) -> impl Iterator<Item = Result<Row<N>>> + Send + 'a {
    Merge { streams: streams.map(|stream| Box::new(in_order(stream)) as Entries<'a>), heads: None, failed: false }
}

struct Merge<'a, const N: usize> {
    streams: [Entries<'a>; N],
    /// The next entry of each stream; absent before the first step.
    heads: Option<[Option<Entry>; N]>,
    failed: bool,
}

impl<const N: usize> Merge<'_, N> {
    fn step(&mut self) -> Result<Option<Row<N>>> {
        let heads = match &mut self.heads {
            Some(heads) => heads,
            none => {
                let mut first = array::from_fn(|_| None);
                for (head, stream) in first.iter_mut().zip(&mut self.streams) {
                    *head = stream.next().transpose()?;
                }
                none.insert(first)
            }
        };
        let Some(key) = heads.iter().flatten().map(|entry| &entry.key).min().cloned() else { return Ok(None) };
        let mut row = array::from_fn(|_| None);
        for ((head, stream), cell) in heads.iter_mut().zip(&mut self.streams).zip(&mut row) {
            if head.as_ref().is_some_and(|entry| entry.key == key) {
                let next = stream.next().transpose()?;
                *cell = std::mem::replace(head, next);
            }
        }
        Ok(Some((key, row)))
    }
}

impl<const N: usize> Iterator for Merge<'_, N> {
    type Item = Result<Row<N>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step();
        self.failed = step.is_err();
        step.transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::error::{Error, Kind};

    fn stream(entries: Vec<Result<Entry>>) -> Entries<'static> {
        Box::new(entries.into_iter())
    }

    fn object(key: &[u8], size: u64) -> Entry {
        Entry::object(key.to_vec(), size)
    }

    fn keys() -> impl Strategy<Value = BTreeSet<Vec<u8>>> {
        proptest::collection::btree_set(proptest::collection::vec(prop_oneof![0u8..3, 253u8..=255], 0..4), 0..40)
    }

    proptest! {
        #[test]
        fn every_key_comes_once_with_what_each_stream_has(sets in [keys(), keys(), keys()]) {
            let streams = array::from_fn(|i| {
                stream(sets[i].iter().map(|key| Ok(object(key, i as u64))).collect())
            });
            let mut expected: BTreeMap<Key, [Option<Entry>; 3]> = BTreeMap::new();
            for (i, set) in sets.iter().enumerate() {
                for key in set {
                    expected.entry(Key::copy_from(key)).or_insert([None, None, None])[i] = Some(object(key, i as u64));
                }
            }
            let merged: Vec<Row<3>> = merge_by_key(streams).collect::<Result<_>>().unwrap();
            prop_assert_eq!(merged, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_stream_out_of_order_ends_the_join() {
        let good = stream(vec![Ok(object(b"a", 0)), Ok(object(b"z", 0))]);
        let bad = stream(vec![Ok(object(b"c", 0)), Ok(object(b"b", 0)), Ok(object(b"y", 0))]);
        let rows: Vec<_> = merge_by_key([good, bad]).collect();
        let error = rows.last().unwrap().as_ref().unwrap_err();
        assert_eq!(error.kind(), Kind::BadListing);
        assert_eq!(error.failed_key(), Some(&Key::from("b")));
        assert!(rows.len() <= 2, "rows after the error");
    }

    #[test]
    fn a_failed_stream_is_never_taken_for_its_end() {
        let good = stream(vec![Ok(object(b"a", 0)), Ok(object(b"b", 0))]);
        let failed = stream(vec![Err(Error::new(Kind::Unavailable, "gone"))]);
        let rows: Vec<_> = merge_by_key([good, failed]).collect();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].as_ref().unwrap_err().kind(), Kind::Unavailable);
    }
}
