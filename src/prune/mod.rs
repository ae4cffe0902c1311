//! Pruning: lets go of a bucket's snapshots that no rule keeps, and of what only they needed.
//!
//! ```text
//! survey → decide → remove
//! ```
//!
//! It never stands in the way of a replication: the lease is held for seconds and given back, and while a job has it,
//! pruning is put off. Killed anywhere, it is finished by the next run: what is being removed is written down first.

mod remove;
mod removed;
mod turns;
mod versions;

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use remove::remove;

use self::remove::remove_decided;
use self::removed::Removed;
use crate::bucket::Bucket;
use crate::error::{Kind, Result, Side};
use crate::report::Bytes;
use crate::retention::{Candidate, Rules, Verdict, decide};
use crate::snapshot::{Name, Pattern};

/// What a policy knows of a bucket whose snapshots are to be pruned.
#[derive(Debug, Clone)]
pub struct Context {
    /// How the policy names its snapshots.
    pub pattern: Pattern,
    /// The snapshots that it made. Another's, and one that does not match the pattern, is never removed.
    pub made: BTreeSet<Name>,
    /// The snapshot on which the next sync builds.
    pub base: Option<Name>,
    /// The moment at which is decided.
    pub now: Timestamp,
    /// The policy's time zone, of whose calendar days, weeks, months and years are.
    pub zone: TimeZone,
}

/// What pruning did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// The bucket's address.
    pub bucket: String,
    /// Which side it is of the policy.
    pub side: Side,
    /// Nothing was to be removed.
    pub dry_run: bool,
    /// What was decided of each snapshot, the newest first.
    pub verdicts: Vec<Verdict>,
    /// The snapshots that were removed.
    pub removed: Vec<Name>,
    /// Versions, and removals, of keys that were removed because no snapshot refers to them any more.
    pub versions_removed: u64,
    /// Bytes of content in them. What a directory or a store of its own snapshots frees is not known.
    pub bytes_freed: u64,
    /// Why something was left for the next time, where something was.
    pub put_off: Option<String>,
}

/// Prunes one bucket, which is this side of a policy.
///
/// On a bucket that keeps versions it also removes versions of keys. A target is ours: everything that is not current, that
/// no remaining snapshot refers to and that is older than the newest sealed one goes, and so do removals with nothing left
/// behind them; so does what was before the documents under `.snapferry/`. A source is the user's: only those versions
/// go that a snapshot which was pruned referred to, that are not current and that no remaining snapshot refers to. Where the
/// records are not kept with the bucket, others may refer to its versions, and none is touched.
///
/// # Errors
/// `Cancelled` on request. That a job is at work, or was left unfinished, is no error: see [`Pruned::put_off`].
pub async fn prune(
    bucket: &Bucket,
    side: Side,
    rules: &Rules,
    context: &Context,
    dry_run: bool,
    cancel: CancellationToken,
) -> Result<Pruned> {
    let named = |error: crate::error::Error| error.on(side).at(bucket.address());
    let candidates = survey(bucket, side, context).await.map_err(named)?;
    let verdicts = decide(&candidates, rules, context.now, &context.zone);
    let mut removed = Removed::default();
    if !dry_run {
        let going = verdicts.iter().rev().filter(|verdict| !verdict.keep).map(|verdict| verdict.name.clone());
        match remove_decided(bucket, side, going.collect(), &mut removed, cancel).await {
            Err(error) if matches!(error.kind(), Kind::Refused | Kind::Held | Kind::LeaseLost) => {
                removed.put_off = Some(error.to_string());
            }
            outcome => outcome.map_err(named)?,
        }
    }
    let Removed { names, versions, bytes, put_off } = removed;
    Ok(Pruned {
        bucket: bucket.address().into(),
        side,
        dry_run,
        verdicts,
        removed: names,
        versions_removed: versions,
        bytes_freed: bytes,
        put_off,
    })
}

/// What there is to decide on. On a target what was sealed counts; on a source everything does.
async fn survey(bucket: &Bucket, side: Side, context: &Context) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    for record in bucket.records().await? {
        candidates.push(Candidate {
            held: bucket.catalog().hold(&record.name).await?.is_some(),
            base: context.base.as_ref() == Some(&record.name),
            ours: context.pattern.matches(&record.name) && context.made.contains(&record.name),
            sealed: side == Side::Source || record.is_sealed(),
            taken: record.created,
            sequence: record.sequence,
            name: record.name,
        });
    }
    Ok(candidates)
}

impl fmt::Display for Pruned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.side, self.bucket)?;
        let width = self.verdicts.iter().map(|verdict| verdict.name.as_str().len()).max().unwrap_or(0);
        for Verdict { name, taken, keep, reasons } in &self.verdicts {
            let word = if *keep { "KEEP" } else { "GO" };
            let taken = taken.strftime("%Y-%m-%dT%H:%M:%SZ");
            write!(f, "\n{word:4}  {:width$}  {taken}  ", name.as_str())?;
            for (i, reason) in reasons.iter().enumerate() {
                write!(f, "{}{reason}", if i > 0 { ", " } else { "" })?;
            }
        }
        let all = self.verdicts.len();
        if self.dry_run {
            let going = self.verdicts.iter().filter(|verdict| !verdict.keep).count();
            return write!(f, "\n{going} of {all} snapshots would go");
        }
        write!(f, "\n{} of {all} snapshots removed", self.removed.len())?;
        if self.versions_removed > 0 {
            write!(f, ", {} versions, {} freed", self.versions_removed, Bytes(self.bytes_freed))?;
        }
        match &self.put_off {
            Some(why) => write!(f, "\nput off: {why}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retention::Reason;

    #[test]
    fn as_people_read_it() {
        let verdict = |name: &str, keep, reasons: &[Reason]| Verdict {
            name: name.parse().unwrap(),
            taken: "2026-11-21T03:00:00Z".parse().unwrap(),
            keep,
            reasons: reasons.to_vec(),
        };
        let mut pruned = Pruned {
            bucket: "s3://dr".into(),
            side: Side::Target,
            dry_run: true,
            verdicts: vec![
                verdict("night-10", true, &[Reason::NewestSealed, Reason::KeepLast { keep: 3, place: 1 }]),
                verdict("night-9", false, &[Reason::BeyondEveryRule]),
            ],
            removed: Vec::new(),
            versions_removed: 0,
            bytes_freed: 0,
            put_off: None,
        };
        let table = "target s3://dr\n\
                     KEEP  night-10  2026-11-21T03:00:00Z  the newest sealed, keep_last 3 (1st)\n\
                     GO    night-9   2026-11-21T03:00:00Z  beyond every rule\n";
        assert_eq!(pruned.to_string(), format!("{table}1 of 2 snapshots would go"));
        pruned.dry_run = false;
        pruned.removed = vec!["night-9".parse().unwrap()];
        (pruned.versions_removed, pruned.bytes_freed) = (7, 2048);
        pruned.put_off = Some("a job is at work".into());
        let end = "1 of 2 snapshots removed, 7 versions, 2.00 KiB freed\nput off: a job is at work";
        assert_eq!(pruned.to_string(), format!("{table}{end}"));
        let json = serde_json::to_value(&pruned).unwrap();
        assert_eq!(
            (&json["side"], &json["verdicts"][1]["reasons"][0]),
            (&"target".into(), &"beyond every rule".into())
        );
    }
}
