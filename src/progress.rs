//! The numbers of a running job, counted where things happen and read by whoever shows them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::error::Error;
use crate::key::Key;
use crate::snapshot::Name;

/// How many keys are named one by one.
const NAMED_MAX: usize = 20;

/// How many errors that were followed by another try are kept.
const RETRIED_MAX: usize = 10;

/// Notes that wait for a reader. What comes while so many wait is only counted.
const NOTES_MAX: usize = 100;

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

/// How much a note matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// How it goes.
    Info,
    /// Worth knowing afterwards.
    Warning,
    /// Why it ended.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Something that a job says.
#[derive(Debug, Clone)]
pub struct Note {
    /// When.
    pub at: Instant,
    /// How much it matters.
    pub level: Level,
    /// What.
    pub text: String,
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
    /// The snapshot, once it has a name.
    snapshot: OnceLock<Name>,
    /// The job that this one goes on with.
    goes_on: OnceLock<String>,
    /// What the job has done, and since when; the last is what it does.
    phases: Mutex<Vec<(Phase, Instant)>>,
    /// The last errors that were followed by another try.
    retried: Mutex<VecDeque<(Instant, String)>>,
    notes: Mutex<Notes>,
    /// Wakes whoever follows the job.
    changed: Notify,
    /// Large objects under way, the longest first.
    large: Mutex<Vec<Key>>,
}

/// What the job said and nobody has read.
#[derive(Debug, Default)]
struct Notes {
    waiting: VecDeque<Note>,
    /// Notes that found no room.
    missed: u64,
}

/// A large object under way; it is no more when this is dropped.
#[derive(Debug)]
pub struct Large<'a> {
    progress: &'a Progress,
    key: Key,
}

impl Drop for Large<'_> {
    fn drop(&mut self) {
        let mut large = lock(&self.progress.large);
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
        self.note(Level::Warning, || {
            format!("`{key}` had changed since the snapshot and was pinned again as it is now")
        });
        let mut named = lock(&self.repinned_named);
        if named.len() < NAMED_MAX {
            named.push(key.clone());
        }
    }

    /// Notes a large object for as long as it is under way.
    pub fn large(&self, key: &Key) -> Large<'_> {
        lock(&self.large).push(key.clone());
        Large { progress: self, key: key.clone() }
    }

    /// The large object that has been under way for the longest time: what a person waits for.
    pub fn slowest(&self) -> Option<Key> {
        lock(&self.large).first().cloned()
    }

    /// Counts an operation that failed and is tried again.
    pub fn retried(&self, error: &Error) {
        Self::add(&self.retries, 1);
        let text = error.to_string();
        let mut retried = lock(&self.retried);
        if retried.len() == RETRIED_MAX {
            retried.pop_front();
        }
        retried.push_back((Instant::now(), text.clone()));
        drop(retried);
        self.note(Level::Warning, || format!("tried again: {text}"));
    }

    /// The last errors that were followed by another try, the oldest first.
    pub fn last_retried(&self) -> Vec<(Instant, String)> {
        lock(&self.retried).iter().cloned().collect()
    }

    /// Says what the job does now.
    pub fn enter(&self, phase: Phase) {
        tracing::debug!("{phase}");
        let mut phases = lock(&self.phases);
        if phases.last().is_some_and(|(last, _)| *last == phase) {
            return;
        }
        phases.push((phase, Instant::now()));
        drop(phases);
        self.note(Level::Info, || phase.to_string());
        self.changed.notify_one();
    }

    /// What the job does now.
    pub fn phase(&self) -> Phase {
        lock(&self.phases).last().map(|(phase, _)| *phase).unwrap_or_default()
    }

    /// What the job has done, and since when; the last is what it does.
    pub fn phases(&self) -> Vec<(Phase, Instant)> {
        lock(&self.phases).clone()
    }

    /// Says which snapshot the job works on.
    pub fn works_on(&self, snapshot: &Name) {
        let _ = self.snapshot.set(snapshot.clone());
    }

    /// The snapshot that the job works on, once it has a name.
    pub fn snapshot(&self) -> Option<&Name> {
        self.snapshot.get()
    }

    /// Says which job this one goes on with.
    pub fn goes_on_with(&self, job: &str) {
        let _ = self.goes_on.set(job.to_owned());
    }

    /// The job that this one goes on with.
    pub fn goes_on(&self) -> Option<&str> {
        self.goes_on.get().map(String::as_str)
    }

    /// Warns whoever looks on, and whoever reads the job's log afterwards.
    pub fn warn(&self, text: String) {
        tracing::warn!("{text}");
        self.note(Level::Warning, || text);
    }

    /// Notes something for the job's log.
    pub fn note(&self, level: Level, text: impl FnOnce() -> String) {
        let mut notes = lock(&self.notes);
        if notes.waiting.len() < NOTES_MAX {
            notes.waiting.push_back(Note { at: Instant::now(), level, text: text() });
        } else {
            notes.missed += 1;
        }
    }

    /// Takes the notes that wait, the oldest first.
    pub fn take_notes(&self) -> Vec<Note> {
        let mut notes = lock(&self.notes);
        let mut taken: Vec<Note> = std::mem::take(&mut notes.waiting).into();
        let missed = std::mem::take(&mut notes.missed);
        if missed > 0 {
            taken.push(Note {
                at: Instant::now(),
                level: Level::Warning,
                text: format!("and {missed} more like these"),
            });
        }
        taken
    }

    /// Waits until the job does something else. For one follower.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
