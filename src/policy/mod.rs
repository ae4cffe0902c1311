//! A configured pair of buckets: source, target, schedule, naming, retention, limits.

mod check;
mod family;
mod run;

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

pub use self::check::{Check, Finding, Readiness, check};
pub use self::family::Family;
pub(crate) use self::family::check_bucket;
pub use self::run::{Host, Ran, open, prune_both, run, run_as};
use crate::bounds::{MaxDelete, OnDrift};
use crate::error::Result;
use crate::hook::{Event, FORMAT, Hook, On};
use crate::place::{address, check_name};
use crate::replicate::Proof;
use crate::retention::Rules;
use crate::schedule::Schedule;
use crate::snapshot::clone::CloneMode;
use crate::snapshot::{Name, Pattern};
use crate::transfer::Limits;

/// A policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// The URL of the bucket to replicate.
    pub source: String,
    /// The URL of the bucket that becomes its copy.
    pub target: String,
    /// What else it says.
    pub settings: Settings,
}

/// What policies say beside their two buckets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// It runs by itself.
    pub enabled: bool,
    /// When it runs by itself.
    pub schedule: Option<Schedule>,
    /// The zone of its schedule, of its names, and of the days and weeks of its retention.
    pub zone: TimeZone,
    /// How its snapshots are named.
    pub pattern: Pattern,
    /// Which snapshots stay at the source.
    pub keep_source: Rules,
    /// Which snapshots stay at the target.
    pub keep_target: Rules,
    /// How old the newest sealed content may be.
    pub rpo: Option<Duration>,
    /// How long a run may take.
    pub timeout: Option<Duration>,
    /// How many deletes are believed.
    pub max_delete: MaxDelete,
    /// What to do about drift.
    pub on_drift: OnDrift,
    /// How the result is proved.
    pub proof: Proof,
    /// How snapshots of a directory are cloned.
    pub clone: CloneMode,
    /// The target may be one that keeps no versions.
    pub allow_unversioned: bool,
    /// Make the link through which Ozone's S3 Gateway serves the target, if there is none.
    pub create_link: bool,
    /// The URL of the bucket that remembers the source's snapshots, if the source must not be written.
    pub catalog: Option<String>,
    /// What limits its transfers.
    pub limits: Limits,
    /// What is told how it went.
    pub hooks: Vec<Hook>,
}

impl Policy {
    /// What hooks are told of it, with nothing known beside the message.
    pub fn event(&self, event: On, time: Timestamp, message: String) -> Event {
        Event {
            format: FORMAT,
            event,
            policy: self.name.clone(),
            time,
            message,
            hint: None,
            source: self.source_address(),
            target: self.target_address(),
            job: None,
            snapshot: None,
            age_seconds: None,
            report: None,
        }
    }

    /// The name of the snapshot that is due at this moment.
    pub fn snapshot_name(&self, moment: Timestamp) -> Result<Name> {
        self.settings.pattern.name(&moment.to_zoned(self.settings.zone.clone()))
    }

    /// The source's address, without secrets.
    pub fn source_address(&self) -> String {
        address(&self.source).unwrap_or_default()
    }

    /// The target's address, without secrets.
    pub fn target_address(&self) -> String {
        address(&self.target).unwrap_or_default()
    }

    /// The scheduled time after this moment, where it runs by itself.
    pub fn next_run(&self, after: Timestamp) -> Option<Zoned> {
        self.settings.schedule.as_ref().filter(|_| self.settings.enabled)?.next(after)
    }

    /// How old the newest sealed content may be when it was taken at `taken`: its `rpo`, else until a scheduled run was
    /// missed.
    pub fn patience(&self, taken: Timestamp) -> Option<SignedDuration> {
        match self.settings.rpo {
            Some(rpo) => SignedDuration::try_from(rpo).ok(),
            None => self.settings.schedule.as_ref()?.patience(taken),
        }
    }
}

/// Checks that a URL names a bucket that can have snapshots named after this pattern. Asks nobody.
///
/// # Errors
/// `Usage` names what is wrong.
pub(crate) fn check_url(url: &str, pattern: &Pattern) -> Result<()> {
    address(url)?;
    pattern.example().map_or(Ok(()), |name| check_name(url, &name))
}
