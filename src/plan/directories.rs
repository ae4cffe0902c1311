//! What happens to directories, where the target has real ones: known only when all that lies in them has passed.

use super::judge::{Drift, Drifted};
use super::steps::Finish;
use crate::key::Key;
use crate::manifest::Entry;

/// The directories that the current key lies in.
#[derive(Debug, Default)]
pub(super) struct Directories {
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    key: Key,
    source: Option<Entry>,
    actual: Option<Entry>,
    /// The base, or an unfinished job, has it or something in it.
    known: bool,
    /// The snapshot has something in it.
    needed: bool,
    /// Something in it changes, and with it its modification time.
    touched: bool,
}

/// What became of a directory when all in it had passed.
#[derive(Debug, Default)]
pub(super) struct Closed {
    pub(super) finish: Option<Finish>,
    pub(super) drift: Option<Drifted>,
    pub(super) modified: bool,
}

impl Directories {
    /// Closes the directories that `key` is not in, innermost first; all of them if there is no further key.
    pub(super) fn close_before(&mut self, key: Option<&Key>) -> Vec<Closed> {
        let mut closed = Vec::new();
        while let Some(last) = self.open.last()
            && !key.is_some_and(|key| key.starts_with(last.key.as_bytes()))
            && let Some(open) = self.open.pop()
        {
            closed.push(self.close(open));
        }
        closed
    }

    fn close(&mut self, open: Open) -> Closed {
        let kept = open.source.is_some() || open.needed;
        let mut closed = Closed::default();
        if let Some(actual) = &open.actual {
            if !kept {
                closed.finish = Some(Finish::Remove(actual.key.clone()));
                if !open.known {
                    closed.drift = Some(Drifted { key: actual.key.clone(), how: Drift::Added });
                }
            } else if let Some(source) = &open.source {
                closed.modified = matches!((source.mode, actual.mode), (Some(a), Some(b)) if a != b);
            }
        }
        if let Some(source) = open.source
            && (open.touched
                || closed.modified
                || open.actual.as_ref().is_none_or(|actual| actual.mtime_ns != source.mtime_ns))
        {
            closed.finish = Some(Finish::Attributes(Box::new(source)));
        }
        if let Some(parent) = self.open.last_mut() {
            parent.known |= open.known;
            parent.needed |= kept;
            parent.touched |= !kept;
        }
        closed
    }

    /// Enters a directory.
    pub(super) fn enter(&mut self, key: &Key, source: Option<Entry>, actual: Option<Entry>, known: bool) {
        let made = source.is_some() && actual.is_none();
        if let Some(parent) = self.open.last_mut() {
            parent.touched |= made;
        }
        self.open.push(Open { key: key.clone(), source, actual, known, needed: false, touched: made });
    }

    /// An object inside the innermost directory passed.
    pub(super) fn pass(&mut self, needed: bool, known: bool, touched: bool) {
        if let Some(open) = self.open.last_mut() {
            open.needed |= needed;
            open.known |= known;
            open.touched |= touched;
        }
    }
}
