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
use crate::bucket::{Bucket, OpenOptions};
use crate::error::{Result, Side};
use crate::job::{Job, Jobs, Kind, new_id, recorded};
use crate::pair::{job_folder, refuse_nested, refuse_overlap};
use crate::progress::Progress;
use crate::restore::{Request, restore};
use crate::run::{Bounds, MaxDelete, OnDrift};
use crate::snapshot::Name;
use crate::snapshot::clone::CloneMode;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The bucket that has the snapshot.
    bucket: String,
    /// Where to: a new or empty place.
    to: String,
    /// The snapshot.
    #[arg(long, value_name = "NAME")]
    snapshot: Name,
    /// Only keys that match; `*` stays within a level, `**` does not. May be given several times.
    #[arg(long = "key", value_name = "GLOB")]
    keys: Vec<String>,
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
    let options =
        OpenOptions { create: false, create_link: false, clone: CloneMode::Auto, folder: common.folder("tmp")? };
    let bucket =
        Bucket::open(&common.resolve(&arguments.bucket)?, &options).await.map_err(|error| error.on(Side::Source))?;
    let url = common.resolve(&arguments.to)?;
    refuse_nested(&bucket, &url)?;
    // A place for nothing is not made.
    bucket.existing(&arguments.snapshot).await.map_err(|error| error.on(Side::Source))?;
    let to = OpenOptions { create: true, create_link: arguments.create_link, ..options };
    let to = Bucket::open(&url, &to).await.map_err(|error| error.on(Side::Target))?;
    refuse_overlap(&bucket, &to)?;
    let moment = Timestamp::now();
    let request = Request {
        snapshot: arguments.snapshot,
        keys: arguments.keys,
        job: new_id(moment),
        moment,
        bounds: Bounds {
            max_delete: MaxDelete::Count(0),
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
    let (report, outcome) = recorded(&Jobs::at(&common.state_dir()?), job, &progress, &cancel, work).await;
    drop(bars);
    output.result(&report, outcome.as_ref().err())?;
    outcome
}
