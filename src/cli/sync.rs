//! `snapferry sync`

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::bars::Bars;
use super::options::Common;
use super::output::Output;
use crate::bounds::{Bounds, MaxDelete, OnDrift};
use crate::bucket::OpenOptions;
use crate::delta::Delta;
use crate::error::Result;
use crate::job::{Job, Jobs, Kind, new_id, recorded};
use crate::pair::{Pair, Sides};
use crate::progress::Progress;
use crate::replicate::{Proof, Request, replicate};
use crate::snapshot::Name;
use crate::snapshot::clone::CloneMode;
use crate::transfer::{Limits, Timetable};
use crate::units::{Size, block_size};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The bucket to replicate.
    source: String,
    /// The bucket that becomes its copy.
    target: String,
    /// The snapshot; taken now if the source has none of that name [default: snapshot-YYYY-MM-DDTHHMMSSZ].
    #[arg(long, value_name = "NAME")]
    snapshot: Option<Name>,
    /// Plan only; touch nothing.
    #[arg(long)]
    dry_run: bool,
    /// Refuse to delete more objects of the target than this number or share.
    #[arg(long, value_name = "N|P%", default_value = "50%")]
    max_delete: MaxDelete,
    /// What to do when somebody else wrote to the target.
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    on_drift: Drift,
    /// How to prove the result: list and compare both sides, or read the target back as well.
    #[arg(long, value_name = "HOW", default_value = "listing")]
    verify: Verify,
    /// Refuse links and special files at the source, and files that changed after their snapshot.
    #[arg(long)]
    strict: bool,
    /// How a directory's snapshot shares its files: auto, reflink, hardlink or copy.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    clone: CloneMode,
    /// Accept a target that keeps no versions, and so no snapshot but the newest.
    #[arg(long)]
    allow_unversioned: bool,
    /// Make the link through which Ozone's S3 Gateway serves the target's bucket, if there is none.
    #[arg(long)]
    create_link: bool,
    /// The bucket that remembers the source's snapshots, if the source must not be written.
    #[arg(long, value_name = "URL")]
    catalog: Option<String>,
    #[command(flatten)]
    limits: LimitArguments,
    /// How long the lease on the target lasts unless renewed, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "60", hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    lease_term: u64,
}

/// What limits a transfer.
#[derive(Debug, Args)]
pub(super) struct LimitArguments {
    /// Most operations at once.
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// Memory to stay within.
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    memory: Size,
    /// Bytes per second to stay within.
    #[arg(long, value_name = "RATE")]
    bandwidth: Option<Size>,
    /// Whether only the changed blocks of a large object move, where the target has an older version of it.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    delta: When,
    /// Read the target's older version where nothing is known of its blocks, to move only what changed.
    #[arg(long)]
    learn_target: bool,
    /// The length of a block: a power of two from 1 MiB to 64 MiB.
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = block_size)]
    block_size: Size,
}

impl LimitArguments {
    /// What they come to.
    pub(super) fn limits(&self, strict: bool) -> Limits {
        Limits {
            concurrency: self.concurrency.into(),
            bandwidth: self.bandwidth.map_or_else(Timetable::default, |rate| Timetable::constant(rate.0)),
            strict,
            delta: match self.delta {
                When::Auto => Delta::Auto,
                When::Always => Delta::Always,
                When::Never => Delta::Never,
            },
            learn_target: self.learn_target,
            block_bytes: self.block_size.0,
            ..Limits::within(self.memory.0)
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Drift {
    Refuse,
    Repair,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Verify {
    Listing,
    Read,
}

pub(super) async fn run(
    arguments: Arguments,
    common: &Common,
    output: &Output,
    cancel: CancellationToken,
) -> Result<()> {
    let options = OpenOptions {
        create: false,
        create_link: arguments.create_link,
        clone: arguments.clone,
        folder: common.folder("tmp")?,
    };
    let (source, target) = (common.resolve(&arguments.source)?, common.resolve(&arguments.target)?);
    let catalog = arguments.catalog.as_deref().map(|url| common.resolve(url)).transpose()?;
    let sides = Sides { source: &source, target: &target, catalog: catalog.as_deref() };
    let pair = Pair::open(sides, &options, !arguments.dry_run).await?;
    let folder = pair.folder(&common.state_dir()?)?;
    let Pair { source, target, source_catalog } = pair;
    let (moment, dry_run) = (Timestamp::now(), arguments.dry_run);
    let request = Request {
        snapshot: arguments.snapshot,
        dry_run: arguments.dry_run,
        steps: common.verbose > 0,
        proof: match arguments.verify {
            Verify::Listing => Proof::Listing,
            Verify::Read => Proof::Read,
        },
        allow_unversioned: arguments.allow_unversioned,
        source_catalog,
        policy: None,
        job: new_id(moment),
        moment,
        bounds: Bounds {
            max_delete: arguments.max_delete,
            on_drift: match arguments.on_drift {
                Drift::Refuse => OnDrift::Refuse,
                Drift::Repair => OnDrift::Repair,
            },
            limits: arguments.limits.limits(arguments.strict),
            folder,
            lease_term: Duration::from_secs(arguments.lease_term),
        },
    };
    let progress = Arc::new(Progress::default());
    let bars = Bars::follow(&progress, output.is_quiet());
    let job = Job {
        source: Some(source.address().into()),
        snapshot: request.snapshot.clone(),
        ..Job::new(request.job.clone(), Kind::Sync, target.address(), moment)
    };
    let work = Box::pin(replicate(source, target, request, progress.clone(), cancel.clone()));
    let (report, outcome) = match dry_run {
        // A rehearsal leaves no trace.
        true => work.await,
        false => recorded(&Jobs::at(&common.state_dir()?), job, &progress, &cancel, work).await,
    };
    drop(bars);
    output.result(&report, outcome.as_ref().err())?;
    outcome
}
