//! The state of a run as plain data: what is printed, as text or as JSON, is a view of it.

use std::fmt;

use serde::Serialize;

use crate::key::Key;
use crate::plan::Drifted;
use crate::snapshot::{Name, Others};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The target has the snapshot.
    Sealed,
    /// The content was restored and proved.
    Restored,
    /// Only the plan was wanted.
    Planned,
    /// A guard forbade it; nothing was touched.
    Refused,
    /// It failed; the same command goes on.
    Failed,
}

/// What a run did. The fields are those of `--json`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The job's name.
    pub job: String,
    /// How it ended.
    pub state: State,
    /// The snapshot.
    pub snapshot: Option<Name>,
    /// The snapshot that both sides had.
    pub base: Option<Name>,
    /// Where the changes are known from, where a store may tell them itself: `native`, or `listing`.
    pub diff: Option<&'static str>,
    /// Objects that the target did not have.
    pub created: u64,
    /// Objects that differed.
    pub modified: u64,
    /// Objects that only changed their name.
    pub renamed: u64,
    /// Objects that went.
    pub deleted: u64,
    /// Directories that were made.
    pub directories_created: u64,
    /// Directories that only changed their name, with all in them, where the target renames them in one step.
    pub directories_renamed: u64,
    /// Directories that went.
    pub directories_deleted: u64,
    /// Objects whose bytes crossed to the target.
    pub objects_copied: u64,
    /// Bytes to read from the source.
    pub bytes_planned: u64,
    /// Of a plan: bytes that cross to the target at least, where of large objects only what changed does.
    pub bytes_planned_delta: Option<u64>,
    /// Bytes that crossed to the target.
    pub bytes_copied: u64,
    /// Bytes that the target had already.
    pub bytes_reused: u64,
    /// Requests to both stores.
    pub requests: u64,
    /// Operations that were tried again.
    pub retries: u64,
    /// Keys that were left out: none, ever.
    pub skipped: u64,
    /// Links and special files at the source, which are no content.
    pub others: Others,
    /// Objects that had changed since the snapshot and were pinned again.
    pub repinned: u64,
    /// The first of them by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repinned_keys: Vec<Key>,
    /// Keys on the target that were not as the base says.
    pub drift: u64,
    /// The first of them by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drift_keys: Vec<Drifted>,
    /// How it was proved: `listing`, `read`, or nothing.
    pub verified: Option<&'static str>,
    /// Objects in the snapshot.
    pub objects: u64,
    /// Bytes in the snapshot.
    pub bytes: u64,
    /// The sealed snapshot was there before the run.
    pub already_sealed: bool,
    /// Of a restore in place: the snapshot of what was there before.
    pub safety_snapshot: Option<Name>,
    /// Where the snapshot that is restored can be read without restoring it, where that can be done.
    pub path: Option<String>,
    /// The command that undoes a restore in place.
    #[serde(skip)]
    pub way_back: Option<String>,
    /// The plan's steps, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

impl Report {
    /// The report of a job that has done nothing yet.
    pub fn new(job: String) -> Self {
        Self {
            job,
            state: State::Failed,
            snapshot: None,
            base: None,
            diff: None,
            created: 0,
            modified: 0,
            renamed: 0,
            deleted: 0,
            directories_created: 0,
            directories_renamed: 0,
            directories_deleted: 0,
            objects_copied: 0,
            bytes_planned: 0,
            bytes_planned_delta: None,
            bytes_copied: 0,
            bytes_reused: 0,
            requests: 0,
            retries: 0,
            skipped: 0,
            others: Others::default(),
            repinned: 0,
            repinned_keys: Vec::new(),
            drift: 0,
            drift_keys: Vec::new(),
            verified: None,
            objects: 0,
            bytes: 0,
            already_sealed: false,
            safety_snapshot: None,
            path: None,
            way_back: None,
            steps: Vec::new(),
            elapsed_ms: 0,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.snapshot.as_ref().map_or("", Name::as_str);
        if self.already_sealed {
            return write!(f, "{name} is sealed already: {} objects, {}", self.objects, Bytes(self.bytes));
        }
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        match self.state {
            State::Sealed => write!(f, "sealed {name}")?,
            State::Restored => write!(f, "restored {name}")?,
            State::Planned => write!(f, "planned {name}")?,
            State::Refused => write!(f, "refused {name}")?,
            State::Failed => write!(f, "failed {name}")?,
        }
        match &self.base {
            None if self.state == State::Restored => writeln!(f)?,
            Some(base) => writeln!(f, " from {base}")?,
            None => writeln!(f, " in full")?,
        }
        writeln!(
            f,
            "  created {}  modified {}  renamed {}  deleted {}",
            self.created, self.modified, self.renamed, self.deleted
        )?;
        if self.state == State::Planned {
            write!(f, "  to copy {}, already there {}", Bytes(self.bytes_planned), Bytes(self.bytes_reused))?;
            if let Some(least) = self.bytes_planned_delta {
                write!(f, "; with changed blocks only, from {}", Bytes(least))?;
            }
        } else {
            write!(
                f,
                "  copied {} objects, {}; already there {}{}",
                self.objects_copied,
                Bytes(self.bytes_copied),
                Bytes(self.bytes_reused),
                Share(self.bytes_reused, self.bytes_copied + self.bytes_reused)
            )?;
            write!(f, "\n  {} requests, {} retries", self.requests, self.retries)?;
        }
        if self.others.total() > 0 {
            write!(f, "\n  not copied: {} links, {} special files", self.others.links, self.others.special)?;
        }
        if self.repinned > 0 {
            let named: Vec<String> = self.repinned_keys.iter().map(|key| format!("`{key}`")).collect();
            write!(f, "\n  changed since the snapshot and pinned again: {} ({})", self.repinned, named.join(", "))?;
        }
        if self.drift > 0 {
            write!(f, "\n  drift mended: {} keys", self.drift)?;
        }
        if let Some(verified) = self.verified {
            write!(f, "\n  proved by {verified}: {} objects, {}", self.objects, Bytes(self.bytes))?;
        }
        if let Some(path) = &self.path {
            write!(f, "\n  to be read at {path}")?;
        }
        if let (Some(snapshot), Some(way_back)) = (&self.safety_snapshot, &self.way_back) {
            write!(f, "\n  what was there before is {snapshot}; to go back: {way_back}")?;
        }
        write!(f, "\n  took {:.1} s", self.elapsed_ms as f64 / 1000.0)
    }
}

/// What share one number is of another, in brackets; nothing of nothing.
struct Share(u64, u64);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(0, _) | Self(_, 0) => Ok(()),
            Self(part, whole) => write!(f, " ({:.1}%)", 100.0 * *part as f64 / *whole as f64),
        }
    }
}

/// Bytes for people.
#[derive(Debug, Clone, Copy)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        indicatif::BinaryBytes(self.0).fmt(f)
    }
}
