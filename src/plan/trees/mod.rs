//! Directories that only changed their name: where the target renames one with all in it in one request, so does a run.
//!
//! A target's manifest knows for every directory what identifies it on the target and what identified it at the source.
//! Base and source joined by the one, base and target by the other, say which directory goes where and where it is now,
//! whatever an earlier run left half-way. The plan is then made of streams in which those trees are in place already.
//!
//! A tree is taken to the staging folder before any is put in its place, so swaps, cycles and nests need no order.
//! What a tree finds in its place goes there too, if the base knows it: a directory that was replaced by another one.
//! Leaving out any of the trees is always right: what is in them then moves object by object.

mod find;
mod join;
mod settle;
#[cfg(test)]
mod tests;
mod view;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

pub use find::{Found, Streams, find};
pub(super) use view::Prefixes;

use super::spool::Record;
use crate::error::{Error, Kind, Result};
use crate::key::{Key, RESERVED};
use crate::manifest::Pin;

/// Most trees that one plan moves; they are held in memory.
const TREES_MAX: usize = 10_000;

/// What stays the same when a directory is renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    inode: u64,
    birth_ns: i64,
}

impl Identity {
    /// The identity in a directory's pin, where its store gives one.
    pub fn of(pin: &Pin) -> Option<Self> {
        pin.file.as_ref().map(|file| Self { inode: file.inode, birth_ns: file.birth_ns })
    }

    fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.inode) << 64 | u128::from(self.birth_ns.cast_unsigned())).to_be_bytes()
    }

    fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self { inode: (both >> 64) as u64, birth_ns: (both as u64).cast_signed() }
    }

    /// Where the directory waits between its old name and its new one.
    fn staging(self) -> Key {
        match self {
            Self { inode, birth_ns: 0 } => Key::from(format!("{}{inode:x}/", staged_trees())),
            Self { inode, birth_ns } => Key::from(format!("{}{inode:x}-{birth_ns:x}/", staged_trees())),
        }
    }
}

/// The folder of trees that are between two names.
pub fn staged_trees() -> Key {
    Key::from(format!("{RESERVED}staging/trees/"))
}

/// A directory that changes its name, with all in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeMove {
    /// Its name in the base.
    pub base: Key,
    /// Its name on the target now.
    pub from: Key,
    /// Its name in the snapshot; that in the staging folder where it goes for good.
    pub to: Key,
    /// What it is known by on the target.
    pub identity: Identity,
    /// It has to be renamed, and is not where it belongs already.
    moves: bool,
}

impl TreeMove {
    fn new(base: Key, from: Key, to: Key, identity: Identity) -> Self {
        Self { base, from, to, identity, moves: true }
    }

    /// A directory that gives way to another one.
    fn gone(base: Key, from: Key, identity: Identity) -> Self {
        Self::new(base, from, identity.staging(), identity)
    }

    /// Where it waits between its two names.
    pub fn staging(&self) -> Key {
        self.identity.staging()
    }

    fn is_gone(&self) -> bool {
        self.to == self.staging()
    }

    /// It moves with this one, in which it is, in base, target and snapshot alike.
    fn is_carried_by(&self, outer: &Self) -> bool {
        let inside = |inner: &Key, outer: &Key| inner.as_bytes().strip_prefix(outer.as_bytes()).map(<[u8]>::to_vec);
        let rest = inside(&self.base, &outer.base);
        rest.is_some() && rest == inside(&self.from, &outer.from) && rest == inside(&self.to, &outer.to)
    }
}

impl fmt::Display for TreeMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_gone() {
            write!(f, "remove   {}", self.base)
        } else {
            write!(f, "rename   {} -> {}", self.base, self.to)
        }
    }
}

impl Record for TreeMove {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.identity.to_bytes());
        [&self.base, &self.from, &self.to].into_iter().for_each(|key| key.encode(out));
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        let damaged = || Error::new(Kind::Damaged, "a record of a plan makes no sense");
        let (identity, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
        *bytes = rest;
        let identity = Identity::from_bytes(*identity);
        Ok(Self::new(Key::decode(bytes)?, Key::decode(bytes)?, Key::decode(bytes)?, identity))
    }
}

/// The trees that a plan moves.
#[derive(Debug, Clone, Default)]
pub struct Trees(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    moves: Vec<TreeMove>,
    by_to: HashMap<Key, usize>,
}

impl Trees {
    /// These trees, of which no two have a name in common.
    fn new(mut moves: Vec<TreeMove>) -> Self {
        moves.sort_by(|a, b| a.from.cmp(&b.from));
        let mut outer: Vec<usize> = Vec::new();
        for at in 0..moves.len() {
            outer.retain(|&outer| moves[at].from.starts_with(moves[outer].from.as_bytes()));
            // What is where it belongs, but in a tree that moves, must not move along.
            let carried = outer.last().is_some_and(|&outer| moves[outer].moves);
            moves[at].moves = moves[at].from != moves[at].to || carried;
            outer.push(at);
        }
        let by_to = moves.iter().enumerate().map(|(at, tree)| (tree.to.clone(), at)).collect();
        Self(Arc::new(Inner { moves, by_to }))
    }

    /// True when no directory changes its name.
    pub fn is_empty(&self) -> bool {
        self.0.moves.is_empty()
    }

    /// All of them, those included that an earlier run has moved already.
    pub fn iter(&self) -> std::slice::Iter<'_, TreeMove> {
        self.0.moves.iter()
    }

    /// True when an earlier run left one in the staging folder.
    pub fn any_staged(&self) -> bool {
        self.iter().any(|tree| tree.from.is_reserved())
    }

    /// Those to be taken to the staging folder, inner ones first.
    pub fn to_take_away(&self) -> impl Iterator<Item = &TreeMove> {
        self.iter().rev().filter(|tree| tree.moves && tree.from != tree.staging())
    }

    /// Those to be put in their places from there, outer ones first.
    pub fn to_place(&self) -> Vec<&TreeMove> {
        let mut trees: Vec<&TreeMove> = self.iter().filter(|tree| tree.moves && !tree.is_gone()).collect();
        trees.sort_by(|a, b| a.to.cmp(&b.to));
        trees
    }

    /// What the target calls now what will be `key` when all trees are in place.
    pub fn physical(&self, key: &Key) -> Key {
        match longest(&self.0.by_to, key) {
            Some(at) => renamed(key, &self.0.moves[at].to, &self.0.moves[at].from),
            None => key.clone(),
        }
    }
}

/// The innermost of the directories in `map` that `key` is, or is in.
fn longest<T: Copy>(map: &HashMap<Key, T>, key: &Key) -> Option<T> {
    prefixes(key).find_map(|prefix| map.get(&prefix).copied())
}

/// The names of the directories that `key` is, or is in, the innermost first.
fn prefixes(key: &Key) -> impl Iterator<Item = Key> {
    let bytes = key.as_bytes();
    (1..=bytes.len()).rev().filter(|&end| bytes[end - 1] == b'/').map(|end| key.prefix(end))
}

/// `key`, which begins with `from`, with `to` in its place.
fn renamed(key: &Key, from: &Key, to: &Key) -> Key {
    Key::new([to.as_bytes(), &key.as_bytes()[from.len()..]].concat())
}
