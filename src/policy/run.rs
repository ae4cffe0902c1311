//! A whole night of a policy: the snapshot, its replication, the seal, and pruning on both sides.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Policy;
use crate::blocking::blocking;
use crate::bounds::Bounds;
use crate::bucket::{Bucket, OpenOptions};
use crate::catalog::{Catalog, Ledger, Record};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result, Side};
use crate::hook::{Event, On, tell};
use crate::job::{Job, Jobs, Kind as JobKind, State as JobState, new_id, recorded};
use crate::pair::{Pair, Sides, folder};
use crate::place::directory_path;
use crate::progress::Progress;
use crate::prune::{Context, Pruned, prune};
use crate::replicate::{Request, replicate};
use crate::report::{Report, State};
use crate::snapshot::Name;

/// How long the lease on a target lasts unless renewed.
const LEASE_TERM: Duration = Duration::from_secs(60);

/// Where policies are run.
#[derive(Debug, Clone)]
pub struct Host {
    /// Where running jobs keep their files.
    pub state_dir: PathBuf,
    /// The job catalogue.
    pub jobs: Jobs,
    /// The time.
    pub clock: Clock,
}

/// What a run of a policy did.
#[derive(Debug, Clone, Serialize)]
pub struct Ran {
    /// The policy.
    pub policy: String,
    /// What the replication did.
    #[serde(flatten)]
    pub report: Report,
    /// What was pruned, the target first.
    pub pruned: Vec<Pruned>,
    /// What could not be done beside the seal.
    pub missing: Vec<String>,
}

impl Host {
    /// The one at this state directory, by the machine's clock.
    pub fn at(state_dir: PathBuf) -> Self {
        Self { jobs: Jobs::at(&state_dir), state_dir, clock: Clock::default() }
    }

    /// How this machine opens a policy's buckets.
    pub(crate) fn options(&self, policy: &Policy) -> Result<OpenOptions> {
        Ok(OpenOptions {
            create: false,
            create_link: policy.settings.create_link,
            clone: policy.settings.clone,
            folder: folder(&self.state_dir, "tmp")?,
        })
    }
}

/// Runs a policy for the moment at which it was due, which names its snapshot; otherwise as [`run_as`].
pub async fn run(
    policy: &Policy,
    due: Timestamp,
    host: &Host,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> (Ran, Result<()>) {
    run_as(policy, policy.snapshot_name(due), host, progress, cancel).await
}

/// Runs a policy towards the snapshot of this name, as a job of the catalogue, and tells its hooks. The report says what was
/// done, also when it failed.
pub async fn run_as(
    policy: &Policy,
    name: Result<Name>,
    host: &Host,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> (Ran, Result<()>) {
    let now = host.clock.now();
    let id = new_id(now);
    let job = Job {
        policy: Some(policy.name.clone()),
        source: Some(policy.source_address()),
        snapshot: name.as_ref().ok().cloned(),
        timeout_s: policy.settings.timeout.map(|timeout| timeout.as_secs()),
        ..Job::new(id.clone(), JobKind::Sync, &policy.target_address(), now)
    };
    let work = Box::pin(night(policy, name, host, id, progress.clone(), cancel.clone()));
    let (ran, outcome) = recorded(&host.jobs, job, &progress, &cancel, work).await;
    for missing in &ran.missing {
        tracing::error!("{}: sealed, but: {missing}", policy.name);
    }
    if let Some(event) = ran.event(policy, host.clock.now(), outcome.as_ref().err()) {
        tell(&policy.settings.hooks, &event).await;
    }
    (ran, outcome)
}

async fn night(
    policy: &Policy,
    name: Result<Name>,
    host: &Host,
    job: String,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> (Ran, Result<()>) {
    let failed = |report: Report| Ran { policy: policy.name.clone(), report, pruned: Vec::new(), missing: Vec::new() };
    let (pair, name) = match ready(policy, name, host).await {
        Ok(ready) => ready,
        Err(error) => {
            let state = if error.exit_code() == 3 { State::Refused } else { State::Failed };
            return (failed(Report { state, ..Report::new(job) }), Err(error));
        }
    };
    let settings = &policy.settings;
    let request = Request {
        snapshot: Some(name.clone()),
        dry_run: false,
        steps: false,
        proof: settings.proof,
        allow_unversioned: settings.allow_unversioned,
        source_catalog: pair.source_catalog.clone(),
        policy: Some(policy.name.clone()),
        job,
        moment: host.clock.now(),
        bounds: Bounds {
            max_delete: settings.max_delete,
            on_drift: settings.on_drift,
            limits: settings.limits.clone(),
            folder: pair.folder(&host.state_dir).unwrap_or_default(),
            lease_term: LEASE_TERM,
        },
    };
    let (source, target) = (pair.source.clone(), pair.target.clone());
    let (report, outcome) = replicate(source, target, request, progress, cancel.clone()).await;
    let mut ran = failed(report);
    if outcome.is_ok() {
        // What is sealed stays so, whatever becomes of what is left to do.
        match prune_both(policy, &pair, host.clock.now(), false, &cancel).await {
            Ok((pruned, missing)) => {
                ran.pruned = pruned;
                ran.missing.extend(missing.iter().map(ToString::to_string));
            }
            Err(error) => ran.missing.push(error.to_string()),
        }
    }
    (ran, outcome)
}

/// Both buckets, with the name of the snapshot written down as the policy's if it is not there yet.
async fn ready(policy: &Policy, name: Result<Name>, host: &Host) -> Result<(Pair, Name)> {
    let name = name?;
    let pair = match sealed_before(policy, host).await {
        Some(job) => {
            let pair = open(policy, host, false).await?;
            refuse_empty(&pair, &job).await.map_err(|error| error.on(Side::Target))?;
            pair
        }
        None => open(policy, host, true).await?,
    };
    pair.folder(&host.state_dir)?;
    let mut known = false;
    for view in pair.source_views() {
        known |= view.record(&name).await.map_err(|error| error.on(Side::Source))?.is_some();
    }
    if !known {
        let catalog = pair.target.catalog();
        let noted = catalog.change_ledger(&policy.name, |ledger: &mut Ledger| {
            ledger.made.insert(name.clone());
        });
        noted.await.map_err(|error| error.on(Side::Target))?;
    }
    Ok((pair, name))
}

/// The job that sealed something in this policy's directory before, as far as this machine remembers. Only a directory can
/// be missing because a disk is.
async fn sealed_before(policy: &Policy, host: &Host) -> Option<Job> {
    directory_path(&policy.target)?;
    let (jobs, name, target) = (host.jobs.clone(), policy.name.clone(), policy.target_address());
    let ours = blocking(move || jobs.of_policy(&name)).await.unwrap_or_default();
    ours.into_iter().find(|job| job.target == target && job.state == JobState::Finished)
}

/// Where a disk is not mounted, its mount point must not be filled in its place.
async fn refuse_empty(pair: &Pair, job: &Job) -> Result<()> {
    if pair.target.catalog().newest(Record::is_sealed).await?.is_some() {
        return Ok(());
    }
    let snapshot = job.snapshot.as_ref().map_or("a snapshot", Name::as_str);
    Err(Error::new(Kind::Refused, format!("nothing is sealed there, though {} sealed {snapshot}", job.id))
        .at(&job.target)
        .hint("is its disk mounted? To begin anew, run `snapferry sync SOURCE TARGET` once"))
}

/// Opens a policy's buckets.
pub async fn open(policy: &Policy, host: &Host, create: bool) -> Result<Pair> {
    let sides = Sides { source: &policy.source, target: &policy.target, catalog: policy.settings.catalog.as_deref() };
    let pair = Pair::open(sides, &host.options(policy)?, create).await?;
    Ok(pair.with_clock(&host.clock))
}

/// Prunes both sides of a policy, the target first. What could not be done on one side does not keep the other from it.
pub async fn prune_both(
    policy: &Policy,
    pair: &Pair,
    now: Timestamp,
    dry_run: bool,
    cancel: &CancellationToken,
) -> Result<(Vec<Pruned>, Vec<Error>)> {
    let (settings, catalog) = (&policy.settings, pair.target.catalog());
    let (mut pruned, mut missing) = (Vec::new(), Vec::new());
    let base = catalog.newest(Record::is_sealed).await.map_err(|error| error.on(Side::Target))?;
    let context = Context {
        pattern: settings.pattern.clone(),
        made: catalog.ledger(&policy.name).await.map_err(|error| error.on(Side::Target))?.made,
        base: base.map(|base| base.name),
        now,
        zone: settings.zone.clone(),
    };
    let mut buckets = vec![(pair.target.clone(), Side::Target, &settings.keep_target)];
    for view in pair.source_views() {
        if !dry_run || has_any(&view, &context).await? {
            buckets.push((view, Side::Source, &settings.keep_source));
        }
    }
    for (bucket, side, rules) in buckets {
        if dry_run || !rules.is_empty() {
            match prune(&bucket, side, rules, &context, dry_run, cancel.clone()).await {
                Ok(done) => pruned.push(done),
                Err(error) => missing.push(error),
            }
        }
    }
    if pruned.iter().any(|pruned| !pruned.removed.is_empty())
        && let Err(error) = forget(policy, pair, catalog).await
    {
        missing.push(error);
    }
    Ok((pruned, missing))
}

async fn has_any(bucket: &Bucket, context: &Context) -> Result<bool> {
    let records = bucket.records().await.map_err(|error| error.on(Side::Source))?;
    Ok(records.iter().any(|record| context.made.contains(&record.name)))
}

/// Takes the snapshots out of the ledger that neither side has any more.
async fn forget(policy: &Policy, pair: &Pair, catalog: &Catalog) -> Result<()> {
    let before = catalog.ledger(&policy.name).await?.made;
    let mut there = std::collections::HashSet::new();
    for bucket in pair.source_views().into_iter().chain([pair.target.clone()]) {
        there.extend(bucket.records().await?.into_iter().map(|record| record.name));
    }
    let gone = |ledger: &mut Ledger| ledger.made.retain(|name| there.contains(name) || !before.contains(name));
    catalog.change_ledger(&policy.name, gone).await
}

impl Ran {
    /// What the hooks are told, if there is something to tell.
    fn event(&self, policy: &Policy, now: Timestamp, error: Option<&Error>) -> Option<Event> {
        let name = self.report.snapshot.as_ref().map_or("", Name::as_str);
        let (on, message) = match (error, self.missing.as_slice()) {
            // Who has the target has it in hand; if it takes too long, the copy goes stale, and that is told.
            (Some(error), _) if error.kind() == Kind::Held => return None,
            (Some(error), _) => (On::Failure, error.to_string()),
            (None, [_, ..]) => (On::Partial, format!("sealed {name}, but: {}", self.missing.join("; "))),
            // Whoever sealed it has told.
            (None, []) if self.report.already_sealed => return None,
            (None, []) => (On::Success, format!("sealed {name}")),
        };
        Some(Event {
            hint: error.and_then(Error::way_out).map(str::to_owned),
            job: Some(self.report.job.clone()),
            snapshot: self.report.snapshot.as_ref().map(ToString::to_string),
            report: serde_json::to_value(&self.report).ok(),
            ..policy.event(on, now, message)
        })
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.policy, self.report)?;
        for pruned in self.pruned.iter().filter(|pruned| !pruned.removed.is_empty()) {
            let names: Vec<&str> = pruned.removed.iter().map(Name::as_str).collect();
            write!(f, "\n  pruned at the {}: {}", pruned.side, names.join(", "))?;
        }
        for put_off in self.pruned.iter().filter_map(|pruned| pruned.put_off.as_ref()) {
            write!(f, "\n  pruning was put off: {put_off}")?;
        }
        for missing in &self.missing {
            write!(f, "\n  not done: {missing}")?;
        }
        Ok(())
    }
}
