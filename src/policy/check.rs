//! Whether a policy can run: tried, not guessed.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;

use super::{Host, Policy};
use crate::bucket::{Bucket, OpenOptions};
use crate::error::{Error, Kind, Result, Side};
use crate::key::Key;
use crate::pair::{refuse_nested, refuse_overlap};
use crate::snapshot::SnapshotKind;
use crate::store::{Condition, ListOptions};

/// Whether a policy can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// Everything that a run needs works.
    Enabled,
    /// Something is missing.
    Partial,
    /// It is switched off, or a side cannot be reached.
    Disabled,
}

/// One thing that was tried.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The side.
    pub side: Side,
    /// What was tried.
    pub what: &'static str,
    /// Whether it works.
    pub works: bool,
    /// What was seen.
    pub detail: String,
    /// How to mend it.
    pub hint: Option<String>,
}

/// What was tried of a policy.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// The policy.
    pub policy: String,
    /// What it comes to.
    pub state: Readiness,
    /// One by one.
    pub findings: Vec<Finding>,
}

/// Tries what a run of this policy needs: both sides are reached and listed, a snapshot can be taken of each, the target
/// can be written to (a document of our own, removed again), keeps versions where it has to, and heeds conditions.
pub async fn check(policy: &Policy, host: &Host) -> Result<Check> {
    let options = host.options(policy)?;
    let mut findings = Vec::new();
    let source = reach(&policy.source, Side::Source, &options, &mut findings).await;
    let target = reach(&policy.target, Side::Target, &options, &mut findings).await;
    if let Some(source) = &source {
        let mut outcome = refuse_nested(source, &policy.target);
        if let Some(target) = &target {
            outcome = outcome.and(refuse_overlap(source, target));
        }
        if outcome.is_err() {
            note(&mut findings, Side::Target, "apart from the source", outcome.map(|()| String::new()));
        }
        look(source, Side::Source, &mut findings).await;
    }
    if let Some(target) = &target {
        look(target, Side::Target, &mut findings).await;
        let written = write(target).await;
        note(&mut findings, Side::Target, "write", written);
        let keeps = keeps(target, policy.settings.allow_unversioned);
        note(&mut findings, Side::Target, "keep snapshots", keeps);
    }
    let reached = !findings.iter().any(|finding| finding.what == "reach" && !finding.works);
    let state = match (policy.settings.enabled && reached, findings.iter().all(|finding| finding.works)) {
        (false, _) => Readiness::Disabled,
        (true, true) => Readiness::Enabled,
        (true, false) => Readiness::Partial,
    };
    Ok(Check { policy: policy.name.clone(), state, findings })
}

fn note(findings: &mut Vec<Finding>, side: Side, what: &'static str, outcome: Result<String>) {
    findings.push(match outcome {
        Ok(detail) => Finding { side, what, works: true, detail, hint: None },
        Err(error) => {
            Finding { side, what, works: false, detail: error.to_string(), hint: error.way_out().map(str::to_owned) }
        }
    });
}

/// Opens one side. A directory that the first run will make is as good as there.
async fn reach(url: &str, side: Side, options: &OpenOptions, findings: &mut Vec<Finding>) -> Option<Bucket> {
    match Bucket::open(url, options).await {
        Ok(bucket) => {
            note(findings, side, "reach", Ok(bucket.address().to_owned()));
            Some(bucket)
        }
        Err(error) if side == Side::Target && error.kind() == Kind::NotFound && is_to_be_made(url) => {
            note(findings, side, "reach", Ok("is not there yet; the first run makes it".into()));
            None
        }
        Err(error) => {
            note(findings, side, "reach", Err(error));
            None
        }
    }
}

/// True for a directory that is not there and can be made.
fn is_to_be_made(url: &str) -> bool {
    let Some(path) = crate::place::directory_path(url) else { return false };
    let Ok(path) = std::path::absolute(path) else { return false };
    let parent = path.ancestors().find(|parent| parent.exists());
    parent.is_some_and(|parent| rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_ok())
}

/// Lists a little, and asks whether snapshots can be taken.
async fn look(bucket: &Bucket, side: Side, findings: &mut Vec<Finding>) {
    let listed = async {
        let mut listing = bucket.store().list(ListOptions::default()).await?;
        let first = listing.next().await.transpose()?;
        Ok(if first.is_some_and(|entries| !entries.is_empty()) { "has content" } else { "is empty" }.to_owned())
    };
    note(findings, side, "list", listed.await);
    let kind = bucket.provider().kind();
    let ready = bucket.provider().ready().await.map(|()| {
        let kept = match kind {
            SnapshotKind::Clone => "trees of clones under .snapshot/",
            SnapshotKind::Native => "the store's own snapshots",
            SnapshotKind::Versions => "versions of objects",
            SnapshotKind::Guarded => "lists only: what changes before it is copied is pinned again",
        };
        kept.to_owned()
    });
    note(findings, side, "snapshot", ready);
}

/// Writes a document of our own where nobody else's are, reads it back and removes it. Conditions are tried with it.
async fn write(target: &Bucket) -> Result<String> {
    let store = target.store();
    let key = Key::from(format!(".snapferry/check-{}", crate::job::new_id(target.clock().now())));
    let (text, attributes) = (Bytes::from_static(b"a trial\n"), Default::default());
    store.write(&key, text.clone(), &attributes, &Condition::Absent).await?;
    let tried = async {
        match store.fetch(&key).await? {
            Some((found, _)) if found == text => {}
            _ => return Err(Error::new(Kind::Damaged, "what was written cannot be read back").key(&key)),
        }
        if !store.capabilities().conditional {
            return Ok("works; conditions are not heeded, so see to it that one job runs at a time".to_owned());
        }
        match store.write(&key, text.clone(), &attributes, &Condition::Absent).await {
            Err(error) if error.kind() == Kind::AlreadyExists => Ok("works, conditions are heeded".to_owned()),
            Err(error) => Err(error),
            Ok(_) => {
                Err(Error::new(Kind::Unsupported, "conditional writes are ignored, so nothing keeps two jobs apart")
                    .hint("add `conditional=false` to its URL and see to it yourself that only one job runs"))
            }
        }
    };
    let tried = tried.await;
    let removed = store.delete(&[key]).await;
    tried.and_then(|detail| removed.map(|()| detail)).map_err(|error| error.at(target.address()))
}

fn keeps(target: &Bucket, allow_unversioned: bool) -> Result<String> {
    match target.keeps_snapshots() {
        true => Ok("works".into()),
        false if allow_unversioned => Ok("only the newest, for it keeps no versions".into()),
        false => {
            Err(Error::new(Kind::Refused, "it keeps no versions, so each sync would destroy the snapshot before it")
                .at(target.address())
                .hint("switch versioning on, or accept one snapshot only with allow_unversioned = true"))
        }
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Enabled => "enabled",
            Self::Partial => "partial",
            Self::Disabled => "disabled",
        })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", self.state, self.policy)?;
        for Finding { side, what, works, detail, hint } in &self.findings {
            let mark = if *works { "ok" } else { "NO" };
            write!(f, "\n  {mark}  {side} {what}: {detail}", side = format_args!("{side:6}"))?;
            if let Some(hint) = hint {
                write!(f, "\n      what to do: {hint}")?;
            }
        }
        Ok(())
    }
}
