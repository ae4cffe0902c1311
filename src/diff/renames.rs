//! Finds what was renamed: content that left one key and arrived at another.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::path::Path;

use super::Change;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::manifest::{Entry, Kind, codec};
use crate::sort::{Sorted, Sorter};

/// Of one content this many renames are found at a time; the rest leaves and arrives separately, which is right too.
const SAME_CONTENT_MAX: usize = 1024;

/// What an object's content is known by; of a fixed length for each kind of identity.
type Identity = Option<Vec<u8>>;

/// The kinds of identity, the strongest first.
const IDENTITIES: [fn(&Entry) -> Identity; 4] = [by_blocks, by_file, by_digest, by_etag];

/// Joins what leaves with what arrives by its content, one to one.
///
/// A modified object takes part with both sides, so that swaps and chains are found. Where only its new side has a
/// match, it becomes a `Deleted` and a `Renamed`; where only its old side has one, a `Created` beside the `Renamed`.
/// The changes come in the order of their keys, `Deleted` before `Renamed`.
///
/// Content is the same by the blocks that hold it, else by the file's identity, else by digest, else by an ETag that is an MD5, always with the size.
/// Equal input gives equal output. Takes about `memory_bytes`; what does not fit goes to files in `directory`.
/// Reads `changes` to the end before it returns; the first error among them is returned.
pub fn match_renames(
    changes: impl Iterator<Item = Result<Change>>,
    directory: &Path,
    memory_bytes: usize,
) -> Result<MatchedChanges> {
    let sorter = || Sorter::new(directory, memory_bytes / (IDENTITIES.len() + 1));
    let mut join = Join { rounds: IDENTITIES.map(|_| Some(sorter())), done: sorter(), buffer: Vec::new() };
    for change in changes {
        join.add(change?)?;
    }
    for round in 0..IDENTITIES.len() {
        join.run(round)?;
    }
    Ok(MatchedChanges { records: join.done.finish()?.peekable(), waiting: None })
}

fn by_blocks(entry: &Entry) -> Identity {
    let blocks = entry.pin.blocks().filter(|_| entry.size > 0)?;
    // Of one length, however many blocks there are.
    Some([blake3::hash(blocks.as_bytes()).as_bytes(), &entry.size.to_be_bytes()[..]].concat())
}

fn by_file(entry: &Entry) -> Identity {
    let file = entry.pin.file.as_ref()?;
    let numbers = [file.inode, file.birth_ns.cast_unsigned(), file.mtime_ns.cast_unsigned(), entry.size];
    Some(numbers.map(u64::to_be_bytes).concat())
}

fn by_digest(entry: &Entry) -> Identity {
    // Creating an empty object costs no more than renaming one.
    let digest = entry.digest.filter(|_| entry.size > 0)?;
    Some([digest.as_bytes(), &entry.size.to_be_bytes()[..]].concat())
}

fn by_etag(entry: &Entry) -> Identity {
    // The ETag of an object that was written in parts has a `-` and depends on the parts.
    let mut md5 = [0; 16];
    hex::decode_to_slice(entry.pin.etag.as_deref()?, &mut md5).ok()?;
    (entry.size > 0).then(|| [&md5[..], &entry.size.to_be_bytes()].concat())
}

/// Half of a change: an object that leaves its key, or arrives at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Leaves = 0,
    Arrives = 1,
}

/// How a record of the result begins; the entries follow.
mod tag {
    pub(super) const LEAVES: u8 = 0;
    pub(super) const ARRIVES: u8 = 1;
    pub(super) const RENAMED: u8 = 2;
    pub(super) const MODIFIED: u8 = 3;
    pub(super) const MODIFIED_CONTENT: u8 = 4;
}

struct Join {
    /// For each identity the halves that have it: sorted by identity, then what leaves before what arrives, then key.
    rounds: [Option<Sorter>; IDENTITIES.len()],
    /// What needs no more matching, sorted by key.
    done: Sorter,
    buffer: Vec<u8>,
}

impl Join {
    fn add(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Created(to) => self.match_from(0, Half::Arrives, &to),
            Change::Deleted(from) => self.match_from(0, Half::Leaves, &from),
            Change::Renamed { from, to } => self.done(tag::RENAMED, &[&from, &to]),
            Change::Modified { from, to, content: false } => self.done(tag::MODIFIED, &[&from, &to]),
            Change::Modified { from, to, content: true } => {
                let same = IDENTITIES.iter().any(|of| of(&from).is_some() && of(&from) == of(&to));
                if same {
                    return self.done(tag::MODIFIED_CONTENT, &[&from, &to]);
                }
                self.match_from(0, Half::Leaves, &from)?;
                self.match_from(0, Half::Arrives, &to)
            }
        }
    }

    /// Puts half a change where it is matched next: in a round from this one on, else among what is done.
    fn match_from(&mut self, round: usize, half: Half, entry: &Entry) -> Result<()> {
        if entry.kind == Kind::Object {
            for (identity, sorter) in IDENTITIES.iter().zip(&mut self.rounds).skip(round) {
                let (Some(identity), Some(sorter)) = (identity(entry), sorter) else { continue };
                let key = [&identity[..], &[half as u8], entry.key.as_bytes()].concat();
                self.buffer.clear();
                codec::encode(entry, &mut self.buffer);
                return sorter.push(&key, &self.buffer);
            }
        }
        match half {
            Half::Leaves => self.done(tag::LEAVES, &[entry]),
            Half::Arrives => self.done(tag::ARRIVES, &[entry]),
        }
    }

    fn done(&mut self, tag: u8, entries: &[&Entry]) -> Result<()> {
        self.buffer.clear();
        self.buffer.push(tag);
        for entry in entries {
            codec::encode(entry, &mut self.buffer);
        }
        let key = entries.last().map_or(&[][..], |entry| entry.key.as_bytes());
        self.done.push(key, &self.buffer)
    }

    /// Matches all that has this round's identity; what finds no match goes on to the next round.
    fn run(&mut self, round: usize) -> Result<()> {
        let Some(sorter) = self.rounds[round].take() else { return Ok(()) };
        let mut leaving: VecDeque<Entry> = VecDeque::new();
        let mut current = None;
        for record in sorter.finish()? {
            let record = record?;
            let entry = codec::decode(&mut &record.payload[..])?;
            let (identity, arrives) = split(&record.key, entry.key.len())?;
            if current.as_deref() != Some(identity) {
                current = Some(identity.to_vec());
                self.pass_on(round, &mut leaving)?;
            }
            match arrives {
                false if leaving.len() < SAME_CONTENT_MAX => leaving.push_back(entry),
                false => self.match_from(round + 1, Half::Leaves, &entry)?,
                true => match leaving.pop_front() {
                    Some(from) => self.done(tag::RENAMED, &[&from, &entry])?,
                    None => self.match_from(round + 1, Half::Arrives, &entry)?,
                },
            }
        }
        self.pass_on(round, &mut leaving)
    }

    fn pass_on(&mut self, round: usize, leaving: &mut VecDeque<Entry>) -> Result<()> {
        leaving.drain(..).try_for_each(|entry| self.match_from(round + 1, Half::Leaves, &entry))
    }
}

/// The identity in a round's sort key, and whether the object arrives.
fn split(sort_key: &[u8], key_len: usize) -> Result<(&[u8], bool)> {
    let (identity, half) = sort_key
        .len()
        .checked_sub(key_len)
        .and_then(|end| sort_key[..end].split_last())
        .map(|(half, identity)| (identity, *half))
        .ok_or_else(unreadable)?;
    Ok((identity, half == Half::Arrives as u8))
}

fn unreadable() -> Error {
    Error::new(ErrorKind::Damaged, "a record that was put aside for sorting reads back wrong")
        .hint("check the disk that holds the state directory, then run the command again")
}

/// Changes with renames, in the order of their keys. The first error ends them.
#[derive(Debug)]
pub struct MatchedChanges {
    records: Peekable<Sorted>,
    /// The second change of the key at hand.
    waiting: Option<Change>,
}

impl Iterator for MatchedChanges {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(change) = self.waiting.take() {
            return Some(Ok(change));
        }
        let record = match self.records.next()? {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        let mut change = read(&record.payload);
        // Both halves of a modified object have the same key; more than two records never do.
        if let Some(other) = self.records.next_if(|next| next.as_ref().is_ok_and(|next| next.key == record.key)) {
            change = other.and_then(|other| self.join(change?, read(&other.payload)?));
        }
        Some(change)
    }
}

impl MatchedChanges {
    /// Two changes of one key as one, or the first of the two.
    fn join(&mut self, a: Change, b: Change) -> Result<Change> {
        match (a, b) {
            (Change::Deleted(from), Change::Created(to)) | (Change::Created(to), Change::Deleted(from)) => {
                Ok(Change::Modified { from, to, content: true })
            }
            (deleted @ Change::Deleted(_), renamed @ Change::Renamed { .. })
            | (renamed @ Change::Renamed { .. }, deleted @ Change::Deleted(_)) => {
                self.waiting = Some(renamed);
                Ok(deleted)
            }
            (a, _) => Err(Error::internal("two changes of one key contradict each other").key(a.key())),
        }
    }
}

fn read(payload: &[u8]) -> Result<Change> {
    let (&tag, mut rest) = payload.split_first().ok_or_else(unreadable)?;
    let rest = &mut rest;
    let mut pair = || Ok::<_, Error>((codec::decode(rest)?, codec::decode(rest)?));
    Ok(match tag {
        tag::LEAVES => Change::Deleted(codec::decode(rest)?),
        tag::ARRIVES => Change::Created(codec::decode(rest)?),
        tag::RENAMED => {
            let (from, to) = pair()?;
            Change::Renamed { from, to }
        }
        tag::MODIFIED | tag::MODIFIED_CONTENT => {
            let (from, to) = pair()?;
            Change::Modified { from, to, content: tag == tag::MODIFIED_CONTENT }
        }
        _ => return Err(unreadable()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::diff::tests::{apply, changes, listing};
    use crate::manifest::{FileId, Pin};

    fn matched(base: &[Entry], new: &[Entry], memory_bytes: usize) -> Vec<Change> {
        let directory = tempfile::tempdir().unwrap();
        let changes = changes(base, new).into_iter().map(Ok);
        match_renames(changes, directory.path(), memory_bytes).unwrap().collect::<Result<_>>().unwrap()
    }

    fn file(key: &str, inode: u64) -> Entry {
        let file = Some(FileId { inode, birth_ns: 0, mtime_ns: 0 });
        Entry { pin: Pin { file, ..Pin::default() }, ..Entry::object(key, 1) }
    }

    fn renamed(from: &Entry, to: &Entry) -> Change {
        Change::Renamed { from: from.clone(), to: to.clone() }
    }

    /// How many contents leave some key and arrive at another.
    fn renames_possible(changes: &[Change]) -> usize {
        let mut counts: BTreeMap<Vec<u8>, [usize; 2]> = BTreeMap::new();
        let mut count = |entry: &Entry, side: usize| {
            if let Some(identity) = by_file(entry).filter(|_| entry.kind == Kind::Object) {
                counts.entry(identity).or_default()[side] += 1;
            }
        };
        for change in changes {
            match change {
                Change::Deleted(from) => count(from, 0),
                Change::Created(to) => count(to, 1),
                Change::Modified { from, to, content: true } => {
                    count(from, 0);
                    count(to, 1);
                }
                Change::Modified { .. } | Change::Renamed { .. } => {}
            }
        }
        counts.into_values().map(|[leaving, arriving]| leaving.min(arriving)).sum()
    }

    proptest! {
        #[test]
        fn changes_with_renames_make_the_base_into_the_new(
            (base, new) in (0u8..4).prop_flat_map(|store| (listing(store), listing(store))),
            memory_bytes in prop_oneof![Just(0), Just(1 << 20)],
        ) {
            let matched = matched(&base, &new, memory_bytes);
            prop_assert!(matched.is_sorted_by_key(Change::key));
            prop_assert_eq!(apply(&base, &matched), new);
        }

        #[test]
        fn every_moved_file_is_found((base, new) in (listing(0), listing(0))) {
            let found = matched(&base, &new, 1 << 20).iter().filter(|c| matches!(c, Change::Renamed { .. })).count();
            prop_assert_eq!(found, renames_possible(&changes(&base, &new)));
        }
    }

    #[test]
    fn swaps_chains_and_overwrites() {
        let [a, b] = [file("a", 1), file("b", 2)];
        let swapped = [file("a", 2), file("b", 1)];
        assert_eq!(matched(&[a.clone(), b.clone()], &swapped, 0), [renamed(&b, &swapped[0]), renamed(&a, &swapped[1])]);

        let over = file("b", 1);
        let expected = [Change::Deleted(b.clone()), renamed(&a, &over)];
        assert_eq!(matched(&[a.clone(), b.clone()], std::slice::from_ref(&over), 0), expected);

        let replaced = [file("a", 3), file("b", 1)];
        let expected = [Change::Created(replaced[0].clone()), renamed(&a, &replaced[1])];
        assert_eq!(matched(std::slice::from_ref(&a), &replaced, 0), expected);
    }

    #[test]
    fn content_is_known_by_digest_or_md5_but_not_by_the_etag_of_parts() {
        let object = |key: &str, size: u64, etag: &str, digest: Option<&[u8]>| Entry {
            pin: Pin { etag: Some(etag.into()), ..Pin::default() },
            digest: digest.map(blake3::hash),
            ..Entry::object(key, size)
        };
        let md5 = "d41d8cd98f00b204e9800998ecf8427e";
        let is_rename = |from: Entry, to: Entry| matched(&[from], &[to], 0).len() == 1;
        assert!(is_rename(object("a", 1, md5, None), object("b", 1, md5, None)));
        assert!(is_rename(object("a", 1, "1", Some(b"x")), object("b", 1, "2", Some(b"x"))));
        assert!(is_rename(object("a", 1, md5, Some(b"x")), object("b", 1, md5, None)), "one side lacks the digest");
        assert!(!is_rename(object("a", 0, md5, None), object("b", 0, md5, None)));
        assert!(!is_rename(object("a", 1, md5, None), object("b", 2, md5, None)));
        let parts = format!("{md5}-2");
        assert!(!is_rename(object("a", 1, &parts, None), object("b", 1, &parts, None)));
    }

    #[test]
    fn much_of_one_content_stays_right() {
        let many =
            |prefix: &str| (0..SAME_CONTENT_MAX + 50).map(|i| file(&format!("{prefix}{i:05}"), 1)).collect::<Vec<_>>();
        let (base, new) = (many("a"), many("b"));
        let matched = matched(&base, &new, 100_000);
        let renames = matched.iter().filter(|change| matches!(change, Change::Renamed { .. })).count();
        assert_eq!(renames, SAME_CONTENT_MAX);
        assert_eq!(apply(&base, &matched), new);
    }

    #[test]
    fn an_error_among_the_changes_is_returned() {
        let changes = [Ok(Change::Created(file("a", 1))), Err(Error::internal("stop"))].into_iter();
        assert!(match_renames(changes, Path::new("."), 1 << 20).is_err());
    }
}
