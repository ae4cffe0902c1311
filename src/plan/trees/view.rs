//! Streams as they will be when all trees are in place.

use std::path::Path;

use super::{TreeMove, Trees, renamed, staged_trees};
use crate::error::Result;
use crate::key::Key;
use crate::manifest::Entry;
use crate::merge::{Entries, merge_by_key};
use crate::plan::spool::SpoolWriter;
use crate::sort::sort_entries;
use crate::store::listing::in_order;

/// Memory for sorting what is in the trees, in bytes.
const SORT_MEMORY: usize = 16 << 20;

impl Trees {
    /// The base's entries under the names that they have when all trees are in place.
    pub(crate) fn of_base<'a>(&self, entries: Entries<'a>, folder: &Path) -> Result<Entries<'a>> {
        if self.is_empty() {
            return Ok(entries);
        }
        let names = self.iter().map(|tree| (tree.base.clone(), tree.to.clone()));
        rekeyed(entries, Prefixes::new(names), folder, |_, moved| if moved { Fate::Moves } else { Fate::Stays })
    }

    /// The target's entries under the names that they have when all trees are in place; what else is in the staging
    /// folder is left out.
    pub(crate) fn of_actual<'a>(&self, entries: Entries<'a>, folder: &Path) -> Result<Entries<'a>> {
        if self.is_empty() {
            return Ok(entries);
        }
        let staged = staged_trees();
        let names = self.iter().map(|tree| (tree.from.clone(), tree.to.clone()));
        rekeyed(entries, Prefixes::new(names), folder, |key, moved| match moved {
            true => Fate::Moves,
            false if key.starts_with(staged.as_bytes()) => Fate::Goes,
            false => Fate::Stays,
        })
    }

    /// What an earlier job was working towards: beside its own names, those that its trees will have.
    pub(crate) fn of_pending<'a>(&self, entries: Entries<'a>, folder: &Path) -> Result<Entries<'a>> {
        let left = self.iter().filter(|tree| tree.from != tree.to && !tree.from.is_reserved());
        let names: Vec<(Key, Key)> = left.map(|tree| (tree.from.clone(), tree.to.clone())).collect();
        if names.is_empty() {
            return Ok(entries);
        }
        rekeyed(entries, Prefixes::new(names), folder, |_, moved| if moved { Fate::Both } else { Fate::Stays })
    }

    /// Says of keys in byte order which tree they are in when all are in place.
    pub(in crate::plan) fn places(&self) -> Prefixes<TreeMove> {
        Prefixes::new(self.iter().map(|tree| (tree.to.clone(), tree.clone())))
    }
}

/// What becomes of an entry.
enum Fate {
    Stays,
    Moves,
    /// Stays, and is under its new name too.
    Both,
    Goes,
}

/// Gives entries the names that they will have. What stays waits in a file meanwhile, for what moves may come first.
fn rekeyed<'a>(
    entries: Entries<'a>,
    mut names: Prefixes<Key>,
    folder: &Path,
    fate: impl Fn(&Key, bool) -> Fate,
) -> Result<Entries<'a>> {
    let mut staying = SpoolWriter::new(folder)?;
    let mut place = |mut entry: Entry| -> Result<Option<Entry>> {
        let moved = names.seek(&entry.key).filter(|(old, new)| old != new);
        let renamed = moved.map(|(old, new)| renamed(&entry.key, old, new));
        // What is in its place already counts as moved: it is one of the trees, wherever it is.
        let is_in_tree = renamed.is_some() || names.is_in_any();
        match (fate(&entry.key, is_in_tree), renamed) {
            (Fate::Goes, _) => Ok(None),
            (Fate::Moves, Some(key)) => {
                entry.key = key;
                Ok(Some(entry))
            }
            (Fate::Both, Some(key)) => {
                staying.push(&entry)?;
                entry.key = key;
                Ok(Some(entry))
            }
            (_, _) => staying.push(&entry).map(|()| None),
        }
    };
    let moving = in_order(entries).filter_map(|entry| entry.and_then(&mut place).transpose());
    let moving = sort_entries(moving, folder, SORT_MEMORY)?;
    // Where two come under one name, the first of them does: only what is known of the base can be so.
    let rows = merge_by_key([Box::new(staying.finish()?.iter()?), Box::new(once_each(moving))]);
    Ok(Box::new(rows.filter_map(|row| row.map(|(_, [stays, moved])| stays.or(moved)).transpose())))
}

/// Leaves out what has the key of the entry before it.
fn once_each(entries: impl Iterator<Item = Result<Entry>>) -> impl Iterator<Item = Result<Entry>> {
    let mut last: Option<Key> = None;
    entries.filter(move |entry| {
        let Ok(entry) = entry else { return true };
        last.replace(entry.key.clone()).is_none_or(|last| last != entry.key)
    })
}

/// Directories in byte order, to be asked for with keys in byte order.
#[derive(Debug)]
pub(in crate::plan) struct Prefixes<T> {
    sorted: Vec<(Key, T)>,
    next: usize,
    open: Vec<usize>,
}

impl<T> Prefixes<T> {
    fn new(names: impl IntoIterator<Item = (Key, T)>) -> Self {
        let mut sorted: Vec<(Key, T)> = names.into_iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        Self { sorted, next: 0, open: Vec::new() }
    }

    /// The innermost directory that `key` is, or is in.
    pub(in crate::plan) fn seek(&mut self, key: &Key) -> Option<&(Key, T)> {
        while self.open.pop_if(|&mut at| !key.starts_with(self.sorted[at].0.as_bytes())).is_some() {}
        while let Some((prefix, _)) = self.sorted.get(self.next)
            && prefix <= key
        {
            if key.starts_with(prefix.as_bytes()) {
                self.open.push(self.next);
            }
            self.next += 1;
        }
        self.open.last().map(|&at| &self.sorted[at])
    }

    fn is_in_any(&self) -> bool {
        !self.open.is_empty()
    }
}
