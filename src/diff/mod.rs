//! What changed between two snapshots, from their manifests.

pub(crate) mod native;
mod renames;

use std::sync::Arc;

pub use renames::{MatchedChanges, match_renames};

use crate::error::Result;
use crate::key::Key;
use crate::manifest::reader::read_segments;
use crate::manifest::{Entry, Kind, Manifest, Segment, SegmentSource};
use crate::merge::{Entries, merge_by_key};

/// One difference between two snapshots.
///
/// Changes are a set: first every old entry that they name leaves, then every new one arrives.
/// No old and no new entry is named twice.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "changes are streamed, and an entry is what most of them are")]
pub enum Change {
    /// A key that was not there before, or whose old entry leaves by another change.
    Created(Entry),
    /// A key that stays with something else under it.
    Modified {
        /// What was there.
        from: Entry,
        /// What is there now.
        to: Entry,
        /// True when the bytes may differ; false when only mode, time or attributes do.
        content: bool,
    },
    /// A key that is there no more, or whose new entry arrives by another change.
    Deleted(Entry),
    /// The content of an object that has another key now. Mode, time and attributes may differ too.
    Renamed {
        /// The object under its old key.
        from: Entry,
        /// The object under its new key.
        to: Entry,
    },
}

impl Change {
    /// The key that changed: of a rename the new one.
    pub fn key(&self) -> &Key {
        match self {
            Self::Created(entry) | Self::Deleted(entry) => &entry.key,
            Self::Modified { to, .. } | Self::Renamed { to, .. } => &to.key,
        }
    }
}

/// The changes that make `base` into `new`, in the order of their keys, without renames: those are found by
/// [`match_renames`].
///
/// Segments that both manifests share are never fetched. The first error ends the changes.
pub fn diff(
    base: &Manifest,
    base_source: Arc<dyn SegmentSource>,
    new: &Manifest,
    new_source: Arc<dyn SegmentSource>,
) -> impl Iterator<Item = Result<Change>> + Send + use<> {
    let base_segments = segments_not_in(base, new);
    let new_segments = segments_not_in(new, base);
    diff_entries(Box::new(read_segments(base_segments, base_source)), Box::new(read_segments(new_segments, new_source)))
}

/// A shared segment holds every key between its first and last on both sides, so that it can be left out of both.
fn segments_not_in(manifest: &Manifest, other: &Manifest) -> Vec<Segment> {
    let shared = |segment: &Segment| {
        let same_first = other.segments().binary_search_by(|candidate| candidate.first.cmp(&segment.first));
        same_first.is_ok_and(|index| other.segments()[index] == *segment)
    };
    manifest.segments().iter().filter(|segment| !shared(segment)).cloned().collect()
}

/// As [`diff`], of any two sorted streams of entries.
pub fn diff_entries<'a>(base: Entries<'a>, new: Entries<'a>) -> impl Iterator<Item = Result<Change>> + Send + 'a {
    merge_by_key([base, new]).filter_map(|row| match row {
        Ok((_, [from, to])) => change(from, to).map(Ok),
        Err(error) => Some(Err(error)),
    })
}

fn change(from: Option<Entry>, to: Option<Entry>) -> Option<Change> {
    match (from, to) {
        (None, None) => None,
        (None, Some(to)) => Some(Change::Created(to)),
        (Some(from), None) => Some(Change::Deleted(from)),
        (Some(from), Some(to)) => {
            let content = !same_content(&from, &to);
            // The time of a directory follows what is in it and says nothing of its own.
            let time = to.kind == Kind::Object && from.mtime_ns != to.mtime_ns;
            let changed = content || time || from.mode != to.mode || from.attributes != to.attributes;
            changed.then_some(Change::Modified { from, to, content })
        }
    }
}

/// True when two entries of one store are known to have the same bytes.
pub fn same_content(a: &Entry, b: &Entry) -> bool {
    a.kind == b.kind
        && a.size == b.size
        && (a.kind == Kind::Directory || a.pin.matches(&b.pin) || (a.digest.is_some() && a.digest == b.digest))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::manifest::memory::Memory;
    use crate::manifest::{Digest, FileId, Pin, arbitrary};

    /// `base` with the changes: each old entry must be there, each new key free.
    pub(crate) fn apply(base: &[Entry], changes: &[Change]) -> Vec<Entry> {
        let mut entries: BTreeMap<Key, Entry> = base.iter().map(|entry| (entry.key.clone(), entry.clone())).collect();
        let mut arriving = Vec::new();
        for change in changes {
            let (from, to) = match change {
                Change::Created(to) => (None, Some(to)),
                Change::Deleted(from) => (Some(from), None),
                Change::Modified { from, to, .. } | Change::Renamed { from, to } => (Some(from), Some(to)),
            };
            if let Some(from) = from {
                assert_eq!(entries.remove(&from.key).as_ref(), Some(from), "an old entry that was not there");
            }
            arriving.extend(to);
        }
        for to in arriving {
            assert!(entries.insert(to.key.clone(), to.clone()).is_none(), "a new entry where one is");
        }
        entries.into_values().collect()
    }

    /// What a store would list for one of a few contents: so few that content moves, swaps and repeats.
    fn stored_entry(store: u8, content: u8, mtime_ns: i64, key: Key) -> Entry {
        let mut entry = Entry::object(key, u64::from(content / 2));
        let digest = blake3::hash(&[content]);
        match store {
            0 => entry.pin.file = Some(FileId { inode: content.into(), birth_ns: 7, mtime_ns: 9 }),
            1 => entry.pin.etag = Some(digest.to_hex()[..32].into()),
            2 => entry.pin.version = Some(format!("{content}-{mtime_ns}").into()),
            _ => entry.digest = Some(digest),
        }
        entry.mtime_ns = mtime_ns;
        entry
    }

    /// A sorted listing of a store in which little changes from one to the next.
    pub(crate) fn listing(store: u8) -> impl Strategy<Value = Vec<Entry>> {
        let line = (arbitrary::key(), 0u8..8, 0i64..2, any::<bool>());
        proptest::collection::vec(line, 0..20).prop_map(move |lines| {
            let entries = lines.into_iter().map(|(key, content, mtime_ns, directory)| {
                let entry = match directory && key.is_directory() {
                    true => Entry { mode: Some(content.into()), ..Entry::directory(key) },
                    false => stored_entry(store, content, mtime_ns, key),
                };
                (entry.key.clone(), entry)
            });
            entries.collect::<BTreeMap<_, _>>().into_values().collect()
        })
    }

    pub(crate) fn changes(base: &[Entry], new: &[Entry]) -> Vec<Change> {
        let memory = Memory::default();
        let (base, new) = (memory.write(base.to_vec()), memory.write(new.to_vec()));
        diff(&base, memory.source(), &new, memory.source()).collect::<Result<_>>().unwrap()
    }

    proptest! {
        #[test]
        fn changes_make_the_base_into_the_new(
            (base, new) in (0u8..4).prop_flat_map(|store| (listing(store), listing(store))),
        ) {
            let changes = changes(&base, &new);
            prop_assert!(changes.is_sorted_by(|a, b| a.key() < b.key()));
            let same = |key: &Key| {
                let find = |entries: &[Entry]| entries.iter().find(|entry| entry.key == *key).cloned();
                find(&base).is_some_and(|from| find(&new).as_ref() == Some(&from) && same_content(&from, &from))
            };
            prop_assert!(!changes.iter().any(|change| same(change.key())), "a change where nothing changed");
            prop_assert_eq!(apply(&base, &changes), new);
        }

        #[test]
        fn nothing_changed_between_a_manifest_and_itself(entries in arbitrary::entries(20)) {
            let memory = Memory::default();
            let manifest = memory.write(entries);
            prop_assert_eq!(diff(&manifest, memory.source(), &manifest, memory.source()).count(), 0);
            prop_assert_eq!(memory.fetches(), 0);
        }
    }

    #[test]
    fn unchanged_segments_are_never_fetched() {
        let entry = |i: u64| Entry {
            pin: Pin { etag: Some("e".into()), ..Pin::default() },
            ..Entry::object(format!("{i:08}"), i)
        };
        let memory = Memory::default();
        let mut entries: Vec<_> = (0..150_000).map(entry).collect();
        let base = memory.write(entries.clone());
        entries[70_000].size += 1;
        let new = memory.write(entries.clone());
        let changes: Vec<_> = diff(&base, memory.source(), &new, memory.source()).collect::<Result<_>>().unwrap();
        let expected = Change::Modified { from: entry(70_000), to: entries[70_000].clone(), content: true };
        assert_eq!(changes, [expected]);
        assert!(base.segments().len() > 4);
        assert_eq!(memory.fetches(), 2, "one segment of each side");
    }

    #[test]
    fn what_counts_as_a_change() {
        let digest: Option<Digest> = Some(blake3::hash(b"x"));
        let etag = |etag: &str| Pin { etag: Some(etag.into()), ..Pin::default() };
        let base = Entry { pin: etag("1"), mode: Some(0o644), mtime_ns: 1, digest, ..Entry::object("a", 1) };
        let one = std::slice::from_ref::<Entry>;
        let verdict = |to: Entry| match &changes(one(&base), &[to])[..] {
            [] => None,
            [Change::Modified { content, .. }] => Some(*content),
            other => panic!("{other:?}"),
        };
        assert_eq!(verdict(base.clone()), None);
        assert_eq!(verdict(Entry { mtime_ns: 2, ..base.clone() }), Some(false));
        assert_eq!(verdict(Entry { mode: Some(0o600), ..base.clone() }), Some(false));
        assert_eq!(verdict(Entry { attributes: Some(Box::default()), ..base.clone() }), Some(false));
        assert_eq!(verdict(Entry { size: 2, ..base.clone() }), Some(true));
        assert_eq!(verdict(Entry { pin: etag("2"), ..base.clone() }), None);
        assert_eq!(verdict(Entry { pin: etag("2"), digest: None, ..base.clone() }), Some(true));
        assert_eq!(verdict(Entry { pin: Pin::default(), digest: None, ..base.clone() }), Some(true));

        let directory = Entry { mode: Some(0o755), mtime_ns: 1, ..Entry::directory("d/") };
        assert_eq!(changes(one(&directory), &[Entry { mtime_ns: 2, ..directory.clone() }]), []);
        assert_eq!(changes(one(&directory), &[Entry { mode: Some(0o700), ..directory.clone() }]).len(), 1);
    }

    #[test]
    fn a_damaged_segment_ends_the_diff_with_its_error() {
        let memory = Memory::default();
        let base = memory.write([Entry::object("a", 1)]);
        let new = memory.write([Entry::object("b", 1)]);
        memory.replace(&new.segments()[0], "no segment".into());
        let last = diff(&base, memory.source(), &new, memory.source()).last().unwrap();
        assert_eq!(last.unwrap_err().kind(), crate::error::Kind::Damaged);
    }
}
