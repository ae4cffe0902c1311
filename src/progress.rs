//! The numbers of a running job, counted where things happen and read by whoever shows them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::key::Key;

/// How many keys are named one by one.
const NAMED_MAX: usize = 20;

/// What a job is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Phase {
    /// It has not begun.
    #[default]
    Pending,
    /// Takes the source's snapshot.
    Snapshotting,
    /// Finds what changed.
    Diffing,
    /// Orders what is to be done.
    Planning,
    /// Brings content over.
    Copying,
    /// Puts what landed in its place: renames, then deletes.
    Committing,
    /// Compares both sides.
    Proving,
    /// Makes the target's snapshot.
    Sealing,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "PENDING",
            Self::Snapshotting => "SNAPSHOTTING",
            Self::Diffing => "DIFFING",
            Self::Planning => "PLANNING",
            Self::Copying => "COPYING",
            Self::Committing => "COMMITTING",
            Self::Proving => "PROVING",
            Self::Sealing => "SEALING",
        })
    }
}

/// Counters of one job. Cheap to count with from many tasks.
#[derive(Debug, Default)]
pub struct Progress {
    /// Objects to bring over.
    pub objects_planned: AtomicU64,
    /// Bytes to bring over.
    pub bytes_planned: AtomicU64,
    /// Objects that are through, whatever it took.
    pub objects_done: AtomicU64,
    /// Bytes that are through.
    pub bytes_done: AtomicU64,
    /// Objects whose bytes crossed to the target.
    pub objects_copied: AtomicU64,
    /// Bytes that crossed to the target.
    pub bytes_copied: AtomicU64,
    /// Bytes that the target had already.
    pub bytes_reused: AtomicU64,
    /// Operations that were tried again.
    pub retries: AtomicU64,
    /// Objects that had changed at the source and were pinned again.
    pub repinned: AtomicU64,
    /// The first of those by name.
    pub repinned_named: Mutex<Vec<Key>>,
    /// What the job is doing.
    phase: Mutex<Phase>,
    /// Large objects under way, the longest first.
    large: Mutex<Vec<Key>>,
}

/// A large object under way; it is no more when this is dropped.
#[derive(Debug)]
pub struct Large<'a> {
    progress: &'a Progress,
    key: Key,
}

impl Drop for Large<'_> {
    fn drop(&mut self) {
        let mut large = self.progress.large.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = large.iter().position(|key| *key == self.key) {
            large.remove(place);
        }
    }
}

impl Progress {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    /// Reads a counter.
    pub fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// Notes an object that was pinned again.
    pub fn repinned(&self, key: &Key) {
        Self::add(&self.repinned, 1);
        let mut named = self.repinned_named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() < NAMED_MAX {
            named.push(key.clone());
        }
    }

    /// Notes a large object for as long as it is under way.
    pub fn large(&self, key: &Key) -> Large<'_> {
        self.large.lock().unwrap_or_else(PoisonError::into_inner).push(key.clone());
        Large { progress: self, key: key.clone() }
    }

    /// The large object that has been under way for the longest time: what a person waits for.
    pub fn slowest(&self) -> Option<Key> {
        self.large.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }

    /// Says what the job does now.
    pub fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        tracing::debug!("{phase}");
    }

    /// What the job does now.
    pub fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
