//! Which directories have changed their name, and where they are now.

use std::collections::HashMap;
use std::path::Path;

use super::join::{Half, Join};
use super::settle::{Ground, settle};
use super::{Identity, TREES_MAX, TreeMove, Trees, staged_trees};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Entry, Kind};
use crate::merge::{Entries, merge_by_key};
use crate::plan::spool::{Record, Spool, SpoolWriter};
use crate::sort::Sorter;

/// Memory for sorting what was found, in bytes.
const SORT_MEMORY: usize = 8 << 20;

/// What is looked at: four streams in byte order.
pub struct Streams<'a> {
    /// The snapshot that is being replicated.
    pub source: Entries<'a>,
    /// The target's sealed base, of the same source.
    pub base: Entries<'a>,
    /// The target as it is, with what is in the folder of [`staged_trees`].
    pub actual: Entries<'a>,
    /// The snapshot that an unfinished job was replicating, where it is another one.
    pub pending: Entries<'a>,
}

/// What came of it.
#[derive(Debug)]
pub struct Found {
    /// The trees to move.
    pub trees: Trees,
    actual: Spool<Entry>,
}

impl Found {
    /// The target as it was listed, to be planned with.
    pub fn actual(&self) -> Result<Entries<'static>> {
        let entries = self.actual.iter()?;
        if !self.trees.is_empty() {
            return Ok(Box::new(entries));
        }
        // No tree that waits in the staging folder is wanted any more.
        let staged = staged_trees();
        let is_staged = move |entry: &Entry| entry.key.starts_with(staged.as_bytes());
        Ok(Box::new(entries.filter(move |entry| !entry.as_ref().is_ok_and(&is_staged))))
    }
}

/// Finds the directories that only changed their name. `resuming`: an earlier job stopped half-way, and may have moved
/// some of them. Memory does not grow with the number of directories; what is over the limit moves object by object.
pub fn find(streams: Streams<'_>, resuming: bool, folder: &Path) -> Result<Found> {
    let mut survey = Survey::new(resuming, folder)?;
    for row in merge_by_key([streams.source, streams.base, streams.actual, streams.pending]) {
        let (key, [source, base, actual, pending]) = row?;
        survey.pass(&key, source, base, actual, pending.is_some())?;
    }
    survey.finish(folder)
}

struct Survey {
    resuming: bool,
    actual: SpoolWriter<Entry>,
    /// The base's directories.
    directories: SpoolWriter<Entry>,
    /// Base and source, by what identifies directories at the source.
    by_origin: Join,
    /// What came of that, and the target, by what identifies them there.
    by_identity: Join,
    staged: HashMap<Identity, Key>,
    buffer: Vec<u8>,
}

impl Survey {
    fn new(resuming: bool, folder: &Path) -> Result<Self> {
        Ok(Self {
            resuming,
            actual: SpoolWriter::new(folder)?,
            directories: SpoolWriter::new(folder)?,
            by_origin: Join::new(folder),
            by_identity: Join::new(folder),
            staged: HashMap::new(),
            buffer: Vec::new(),
        })
    }

    fn pass(
        &mut self,
        key: &Key,
        source: Option<Entry>,
        base: Option<Entry>,
        actual: Option<Entry>,
        pending: bool,
    ) -> Result<()> {
        if let Some(actual) = &actual {
            self.actual.push(actual)?;
        }
        if !key.is_directory() {
            return Ok(());
        }
        if let Some(base) = &base {
            self.directories.push(base)?;
        }
        let identity = |entry: &Option<Entry>| {
            entry.as_ref().filter(|entry| entry.kind == Kind::Directory).and_then(|entry| Identity::of(&entry.pin))
        };
        let (there, held) = (identity(&source), identity(&base));
        let (here, origin) = (identity(&actual), base.and_then(|base| Identity::of(&base.origin?)));
        if there == origin && here == held && held.is_some() {
            return Ok(());
        }
        if let Some(there) = there {
            self.by_origin.push(there, Half::Right, key.as_bytes())?;
        }
        if let (Some(origin), Some(held)) = (origin, held) {
            self.by_origin.push(origin, Half::Left, &[&held.to_bytes()[..], key.as_bytes()].concat())?;
        }
        if let Some(here) = here {
            if key.parent() == Some(staged_trees()) && self.staged.len() < 2 * TREES_MAX {
                self.staged.insert(here, key.clone());
            }
            self.by_identity.push(here, Half::Right, &[&[u8::from(pending)][..], key.as_bytes()].concat())?;
        }
        Ok(())
    }

    fn finish(self, folder: &Path) -> Result<Found> {
        let Self { resuming, actual, directories, by_origin, mut by_identity, staged, mut buffer } = self;
        let (actual, directories) = (actual.finish()?, directories.finish()?);
        by_origin.pairs(|_, base, source| {
            let (held, base) = base.split_first_chunk().ok_or_else(unreadable)?;
            buffer.clear();
            [Key::copy_from(base), Key::copy_from(source)].iter().for_each(|key| key.encode(&mut buffer));
            by_identity.push(Identity::from_bytes(*held), Half::Left, &buffer)
        })?;
        let mut sorter = Sorter::new(folder, SORT_MEMORY);
        by_identity.pairs(|identity, mut names, actual| {
            let (base, to) = (Key::decode(&mut names)?, Key::decode(&mut names)?);
            let (&pending, from) = actual.split_first().ok_or_else(unreadable)?;
            let from = Key::copy_from(from);
            // Only we put trees in the staging folder; elsewhere it is where we left it, or somebody else moved it.
            let ours = from.is_reserved() || from == base || resuming && (from == to || pending != 0);
            if !ours || (base == to && from == to) {
                return Ok(());
            }
            let tree = TreeMove::new(base, from, to, identity);
            buffer.clear();
            tree.encode(&mut buffer);
            sorter.push(tree.base.as_bytes(), &buffer)
        })?;
        let found = outermost(sorter)?;
        let ground = Ground { directories: &directories, actual: &actual, staged: &staged, resuming };
        Ok(Found { trees: Trees::new(settle(found, &ground)?), actual })
    }
}

/// The trees that do not move with another one. They come in the order of their names in the base.
fn outermost(sorter: Sorter) -> Result<Vec<TreeMove>> {
    let (mut found, mut outer): (Vec<TreeMove>, Vec<TreeMove>) = (Vec::new(), Vec::new());
    for record in sorter.finish()? {
        let tree = TreeMove::decode(&mut &record?.payload[..])?;
        while outer.pop_if(|outer| !tree.base.starts_with(outer.base.as_bytes())).is_some() {}
        let carried = outer.last().is_some_and(|outer| tree.is_carried_by(outer));
        if !carried && found.len() < TREES_MAX {
            found.push(tree.clone());
        }
        outer.push(tree);
    }
    Ok(found)
}

fn unreadable() -> Error {
    Error::new(ErrorKind::Damaged, "a record that was put aside for sorting reads back wrong")
        .hint("check the disk that holds the state directory, then run the command again")
}
