//! Jobs: what each run on this machine did or does.
//!
//! The job catalogue ([`Jobs`]) is a convenience, never a truth that a run builds on: a lost one is made anew from the
//! receipts on the target ([`rebuild()`]), and one that cannot be written is a warning. A [`Recorder`] follows one run.

mod catalogue;
mod rebuild;
mod recorder;
mod shown;

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::catalogue::Jobs;
pub use self::rebuild::rebuild;
pub use self::recorder::{Recorder, recorded};
pub use self::shown::{Left, Shown};

use crate::error::{Error, Kind as ErrorKind};
use crate::process::Process;
use crate::progress::{Level, Phase, Progress};
use crate::snapshot::Name;

/// A name for a job that begins at this moment, which no other job on this machine has: `job-20261121T030000Z-4711-1`, of
/// the moment, the process and a number that counts up in it.
pub fn new_id(moment: Timestamp) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("job-{}-{}-{number}", moment.strftime("%Y%m%dT%H%M%SZ"), std::process::id())
}

/// What kind of run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A replication.
    Sync,
    /// The way back.
    Restore,
    /// Snapshots that go.
    Prune,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sync => "sync",
            Self::Restore => "restore",
            Self::Prune => "prune",
        })
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs, or did so when its process died.
    Running(Phase),
    /// Done.
    Finished,
    /// It failed, or a guard forbade it.
    Failed,
    /// Stopped on request.
    Cancelled,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 11] = [
        Self::Running(Phase::Pending),
        Self::Running(Phase::Snapshotting),
        Self::Running(Phase::Diffing),
        Self::Running(Phase::Planning),
        Self::Running(Phase::Copying),
        Self::Running(Phase::Committing),
        Self::Running(Phase::Proving),
        Self::Running(Phase::Sealing),
        Self::Finished,
        Self::Failed,
        Self::Cancelled,
    ];

    /// True when nothing will happen any more.
    pub fn is_ended(self) -> bool {
        !matches!(self, Self::Running(_))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running(phase) => phase.fmt(f),
            Self::Finished => f.pad("FINISHED"),
            Self::Failed => f.pad("FAILED"),
            Self::Cancelled => f.pad("CANCELLED"),
        }
    }
}

impl FromStr for State {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|state| state.to_string().eq_ignore_ascii_case(text));
        found.ok_or_else(|| {
            let all: Vec<String> = Self::ALL.iter().map(Self::to_string).collect();
            Error::usage(format!("`{text}` is no state of a job: write one of {}", all.join(", ")))
        })
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub id: String,
    /// What kind of run it is.
    pub kind: Kind,
    /// The policy that it runs for.
    #[serde(default)]
    pub policy: Option<String>,
    /// The source's address, without secrets.
    #[serde(default)]
    pub source: Option<String>,
    /// The target's address, without secrets.
    pub target: String,
    /// The snapshot, once it has a name.
    #[serde(default)]
    pub snapshot: Option<Name>,
    /// Where it stands, as its process last wrote it.
    pub state: State,
    /// When it was made.
    pub created: Timestamp,
    /// When its process last wrote this.
    pub seen: Timestamp,
    /// When it ended.
    #[serde(default)]
    pub ended: Option<Timestamp>,
    /// What it has done so far, in order; the last is under way while the job runs.
    #[serde(default)]
    pub phases: Vec<PhaseTime>,
    /// How much of it.
    #[serde(default)]
    pub progress: Counts,
    /// The last errors that were followed by another try.
    #[serde(default)]
    pub retried: Vec<Retried>,
    /// The error it ended with.
    #[serde(default)]
    pub error: Option<Failure>,
    /// How long it may take, in seconds.
    #[serde(default)]
    pub timeout_s: Option<u64>,
    /// The job that was left half-way and that this one goes on with.
    #[serde(default)]
    pub goes_on: Option<String>,
    /// Who asked for its end.
    #[serde(default)]
    pub cancel: Option<Cancel>,
    /// What runs it; none where it was rebuilt from a receipt.
    #[serde(default)]
    pub process: Option<Process>,
}

/// How long a phase took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// The phase.
    pub phase: Phase,
    /// When it began.
    pub began: Timestamp,
    /// How long it took, or has taken so far, in milliseconds.
    pub took_ms: u64,
}

/// How much was done, of how much.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Objects to bring over.
    pub objects_planned: u64,
    /// Objects that are through, whatever it took.
    pub objects_done: u64,
    /// Objects whose bytes crossed to the target.
    pub objects_copied: u64,
    /// Bytes to bring over.
    pub bytes_planned: u64,
    /// Bytes that are through.
    pub bytes_done: u64,
    /// Bytes that crossed to the target.
    pub bytes_copied: u64,
    /// Bytes that the target had already.
    pub bytes_reused: u64,
    /// Operations that were tried again.
    pub retries: u64,
    /// Objects that had changed at the source and were pinned again.
    pub repinned: u64,
}

impl From<&Progress> for Counts {
    fn from(progress: &Progress) -> Self {
        let read = Progress::read;
        Self {
            objects_planned: read(&progress.objects_planned),
            objects_done: read(&progress.objects_done),
            objects_copied: read(&progress.objects_copied),
            bytes_planned: read(&progress.bytes_planned),
            bytes_done: read(&progress.bytes_done),
            bytes_copied: read(&progress.bytes_copied),
            bytes_reused: read(&progress.bytes_reused),
            retries: read(&progress.retries),
            repinned: read(&progress.repinned),
        }
    }
}

/// An error that was followed by another try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {
    /// When.
    pub at: Timestamp,
    /// What happened, and where.
    pub message: String,
}

/// An error that ended a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened, and where.
    pub message: String,
    /// What to do next.
    #[serde(default)]
    pub hint: Option<String>,
    /// What the program exits with on it.
    pub exit_code: u8,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let hint = error.way_out().map(str::to_owned);
        Self { message: error.to_string(), hint, exit_code: error.exit_code() }
    }
}

/// A wish that a job should end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// Whose.
    pub by: String,
    /// Since when.
    pub at: Timestamp,
}

/// A line of a job's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// What.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}  {:7}  {}", self.at, self.level, self.text)
    }
}

impl Job {
    /// A job of this process that begins now.
    pub fn new(id: String, kind: Kind, target: &str, now: Timestamp) -> Self {
        Self {
            id,
            kind,
            policy: None,
            source: None,
            target: target.into(),
            snapshot: None,
            state: State::Running(Phase::Pending),
            created: now,
            seen: now,
            ended: None,
            phases: Vec::new(),
            progress: Counts::default(),
            retried: Vec::new(),
            error: None,
            timeout_s: None,
            goes_on: None,
            cancel: None,
            process: Some(Process::this()),
        }
    }

    /// How long it may take.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_s.map(Duration::from_secs)
    }
}

/// There is no such job.
fn unknown(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no job `{id}`")).hint("`snapferry job list` names them")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn states_read_back() {
        for state in State::ALL {
            assert_eq!(state.to_string().parse::<State>().unwrap(), state);
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(json, format!("\"{state}\""));
            assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
        }
        assert_eq!("finished".parse::<State>().unwrap(), State::Finished);
        assert_eq!("DONE".parse::<State>().unwrap_err().exit_code(), 2);
    }

    #[test]
    fn no_two_jobs_share_a_name() {
        let moment = "2026-11-21T03:00:00.5Z".parse().unwrap();
        let ids: HashSet<String> = (0..100).map(|_| new_id(moment)).collect();
        assert_eq!(ids.len(), 100);
        let process = std::process::id().to_string();
        assert!(ids.iter().all(|id| id.starts_with(&format!("job-20261121T030000Z-{process}-"))));
    }
}
