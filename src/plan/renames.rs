//! Which new names are content that the target has under an old one.

use std::iter::Peekable;
use std::path::Path;

use super::change::Change;
use super::judge::Verdict;
use super::spool::Spool;
use crate::diff::{self, MatchedChanges, match_renames};
use crate::error::Result;
use crate::key::Key;
use crate::manifest::Entry;

/// Memory for finding renames, in bytes.
const SORT_MEMORY: usize = 32 << 20;

/// The renames among a plan's changes, in the order of the keys.
pub(super) struct Renames(Option<Peekable<MatchedChanges>>);

/// What renames have to do with one key.
#[derive(Debug, Default)]
pub(super) struct Renamed {
    /// The target's entry whose content comes to the key.
    pub(super) from: Option<Entry>,
    /// The key's own old content stays behind, for no other key wants it.
    pub(super) leaves: bool,
}

impl Renames {
    /// No renames: for plans in which nothing comes, or nothing leaves.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Finds them by content. Sorting may use files in `folder`.
    pub(super) fn among(changes: &Spool<Change>, folder: &Path) -> Result<Self> {
        let candidates = changes.iter()?.filter_map(|change| change.map(candidate).transpose());
        Ok(Self(Some(match_renames(candidates, folder, SORT_MEMORY)?.peekable())))
    }

    /// What there is for `key`. Ask in the order of the keys.
    pub(super) fn of(&mut self, key: &Key) -> Result<Renamed> {
        let Some(changes) = &mut self.0 else { return Ok(Renamed { from: None, leaves: true }) };
        let mut renamed = Renamed::default();
        while let Some(change) = changes.next_if(|change| change.as_ref().map_or(true, |change| change.key() <= key)) {
            match change? {
                change if change.key() < key => {}
                diff::Change::Renamed { from, .. } => renamed.from = Some(turned(from)),
                diff::Change::Deleted(_) | diff::Change::Modified { .. } => renamed.leaves = true,
                diff::Change::Created(_) => {}
            }
        }
        Ok(renamed)
    }
}

/// A change as far as it can take part in a rename.
fn candidate(change: Change) -> Option<diff::Change> {
    let held = change.target.filter(|_| change.known).map(turned);
    match (change.verdict, change.source, held) {
        (Verdict::Create, Some(to), _) | (Verdict::Replace, Some(to), None) => Some(diff::Change::Created(to)),
        (Verdict::Replace, Some(to), Some(from)) => Some(diff::Change::Modified { from, to, content: true }),
        (Verdict::Delete, _, Some(from)) => Some(diff::Change::Deleted(from)),
        _ => None,
    }
}

/// The target's entry as the source would list it, and the reverse: contents are compared by the source's pins.
fn turned(mut entry: Entry) -> Entry {
    let pin = entry.origin.take().unwrap_or_default();
    entry.origin = Some(std::mem::replace(&mut entry.pin, pin));
    entry
}
