//! `snapferry restore`

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::bars::Bars;
use super::options::Common;
use super::output::Output;
use super::sync::LimitArguments;
use crate::bounds::{Bounds, MaxDelete, OnDrift};
use crate::bucket::{Bucket, OpenOptions};
use crate::error::{Error, Kind as ErrorKind, Result, Side};
use crate::job::{Job, Jobs, Kind, new_id, recorded};
use crate::key::Key;
use crate::pair::{job_folder, refuse_nested, refuse_overlap};
use crate::progress::Progress;
use crate::restore::{Manner, Request, restore};
use crate::selection::Selection;
use crate::snapshot::Name;
use crate::snapshot::clone::CloneMode;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The bucket that has the snapshot.
    bucket: String,
    /// Where to: a new or empty place; with --in-place a bucket that becomes as it was, or BUCKET itself if there is none.
    #[arg(required_unless_present_any = ["list", "in_place"])]
    to: Option<String>,
    /// List what can be restored, the newest first.
    #[arg(long, conflicts_with_all = ["to", "snapshot", "keys", "prefixes", "in_place"])]
    list: bool,
    /// The snapshot.
    #[arg(long, value_name = "NAME", required_unless_present = "list")]
    snapshot: Option<Name>,
    /// Only keys that match; `*` stays within a level, `**` does not, `\` escapes. May be given several times.
    #[arg(long = "key", value_name = "GLOB")]
    keys: Vec<String>,
    /// Only keys that begin so, taken as it is. May be given several times.
    #[arg(long = "prefix", value_name = "PREFIX")]
    prefixes: Vec<String>,
    /// Restore over what is there.
    #[arg(long)]
    in_place: bool,
    /// The snapshot's name once more, for a restore in place.
    #[arg(long, value_name = "NAME", requires = "in_place")]
    confirm: Option<String>,
    /// In place: take no snapshot of what is there first.
    #[arg(long, requires = "in_place")]
    no_safety_snapshot: bool,
    /// In place: restore once more what was restored already.
    #[arg(long, requires = "in_place")]
    again: bool,
    /// In place: plan only, touch nothing; with -v step by step.
    #[arg(long, requires = "in_place")]
    dry_run: bool,
    /// In place: refuse to delete more objects than this number, or share of those that are there [default: 50%].
    #[arg(long, value_name = "N|P%", requires = "in_place")]
    max_delete: Option<MaxDelete>,
    /// Make the link through which Ozone's S3 Gateway serves the bucket that is written, if there is none.
    #[arg(long)]
    create_link: bool,
    #[command(flatten)]
    limits: LimitArguments,
}

pub(super) async fn run(
    arguments: Arguments,
    common: &Common,
    output: &Output,
    cancel: CancellationToken,
) -> Result<()> {
    if arguments.list {
        return super::snapshot::list(&arguments.bucket, common, output).await;
    }
    let Some(snapshot) = arguments.snapshot.clone() else { return Err(Error::usage("name a --snapshot")) };
    let prefixes = arguments.prefixes.iter().map(|prefix| Key::from(prefix.as_str())).collect();
    let selection = Selection::new(arguments.keys.clone(), prefixes)?;
    check_confirmation(&arguments, &snapshot)?;
    let (bucket, to) = open(&arguments, &snapshot, common).await?;
    let in_place = arguments.in_place.then(|| Manner {
        target: arguments.to.clone().unwrap_or_else(|| arguments.bucket.clone()),
        safety_snapshot: !arguments.no_safety_snapshot,
        again: arguments.again,
        dry_run: arguments.dry_run,
        steps: common.verbose > 0,
    });
    let moment = Timestamp::now();
    let request = Request {
        snapshot,
        selection,
        in_place,
        job: new_id(moment),
        moment,
        bounds: Bounds {
            max_delete: match arguments.in_place {
                true => arguments.max_delete.unwrap_or(MaxDelete::Percent(50.0)),
                false => MaxDelete::Count(0),
            },
            on_drift: OnDrift::Refuse,
            limits: arguments.limits.limits(true),
            folder: job_folder(&common.state_dir()?, bucket.address(), to.address())?,
            lease_term: Duration::from_secs(60),
        },
    };
    let progress = Arc::new(Progress::default());
    let bars = Bars::follow(&progress, output.is_quiet());
    let job = Job {
        source: Some(bucket.address().into()),
        snapshot: Some(request.snapshot.clone()),
        ..Job::new(request.job.clone(), Kind::Restore, to.address(), moment)
    };
    let work = Box::pin(restore(bucket, to, request, progress.clone(), cancel.clone()));
    let (report, outcome) = match arguments.dry_run {
        // A rehearsal leaves no trace.
        true => work.await,
        false => recorded(&Jobs::at(&common.state_dir()?), job, &progress, &cancel, work).await,
    };
    drop(bars);
    output.result(&report, outcome.as_ref().err())?;
    outcome
}

/// Who replaces what is there says twice what with. A rehearsal replaces nothing.
fn check_confirmation(arguments: &Arguments, snapshot: &Name) -> Result<()> {
    let to = arguments.to.as_deref().unwrap_or(&arguments.bucket);
    let wrong = match arguments.confirm.as_deref() {
        Some(confirmed) if confirmed == snapshot.as_str() => return Ok(()),
        Some(confirmed) => format!("--confirm {confirmed} is not --snapshot {snapshot}"),
        None if !arguments.in_place || arguments.dry_run => return Ok(()),
        None => "--in-place needs --confirm".into(),
    };
    Err(Error::new(ErrorKind::Refused, format!("{wrong}: what is in {to} now would become what {snapshot} holds"))
        .hint(format!("if that is meant, say --in-place --confirm {snapshot}; --dry-run shows what it would do")))
}

/// Opens both sides, which are one where a bucket is restored to a snapshot of its own.
async fn open(arguments: &Arguments, snapshot: &Name, common: &Common) -> Result<(Bucket, Bucket)> {
    let options =
        OpenOptions { create: false, create_link: false, clone: CloneMode::Auto, folder: common.folder("tmp")? };
    let bucket =
        Bucket::open(&common.resolve(&arguments.bucket)?, &options).await.map_err(|error| error.on(Side::Source))?;
    // A place for nothing is not made.
    bucket
        .record(snapshot)
        .await
        .and_then(|found| found.ok_or_else(|| bucket.no_snapshot(snapshot)))
        .map_err(|error| error.on(Side::Source))?;
    let writable = OpenOptions { create: !arguments.in_place, create_link: arguments.create_link, ..options };
    let url = common.resolve(arguments.to.as_deref().unwrap_or(&arguments.bucket))?;
    if !arguments.in_place {
        refuse_nested(&bucket, &url)?;
    }
    let to = Bucket::open(&url, &writable).await.map_err(|error| error.on(Side::Target))?;
    if !arguments.in_place || bucket.address() != to.address() {
        refuse_nested(&bucket, &url)?;
        refuse_overlap(&bucket, &to)?;
    }
    Ok((bucket, to))
}
