//! The way back: a snapshot, or some keys of it, proved: into a new place, or in place over what is there.

use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::bounds::Bounds;
use crate::bucket::Bucket;
use crate::catalog::{Job, Lease, Restore};
use crate::error::{Error, Kind, Result, Side};
use crate::hold::RestoreHold;
use crate::key::{Key, RESERVED};
use crate::origin::Origin;
use crate::plan::Plan;
use crate::progress::{Phase, Progress};
use crate::provenance::Provenance;
use crate::report::{Report, State};
use crate::run::{Run, Unfinished};
use crate::selection::Selection;
use crate::snapshot::Name;
use crate::store::{ListOptions, remove_all};

/// What is to be restored.
#[derive(Debug, Clone)]
pub struct Request {
    /// The snapshot.
    pub snapshot: Name,
    /// Which keys of it.
    pub selection: Selection,
    /// How, where the target has content that becomes as the snapshot says. None: the target is a new place.
    pub in_place: Option<Manner>,
    /// The job's name, of [`crate::job::new_id`].
    pub job: String,
    /// The moment of the run.
    pub moment: Timestamp,
    /// What bounds the run.
    pub bounds: Bounds,
}

/// How a restore goes about in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manner {
    /// What the target is called in the command that undoes it.
    pub target: String,
    /// Take a snapshot of what is there first.
    pub safety_snapshot: bool,
    /// Restore once more what was restored already.
    pub again: bool,
    /// Only plan.
    pub dry_run: bool,
    /// Name the plan's steps.
    pub steps: bool,
}

/// Restores a snapshot of `bucket` to `to`. Unless it is to happen in place, that must be empty, or hold what an earlier
/// try of the same restore left.
pub async fn restore(
    bucket: Bucket,
    to: Bucket,
    request: Request,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> (Report, Result<()>) {
    let mut run = Run::new(bucket, to, request.bounds.clone(), progress, cancel, request.job.clone());
    run.report.snapshot = Some(request.snapshot.clone());
    run.selection = request.selection.clone();
    let outcome = match &request.in_place {
        Some(manner) => in_place(&mut run, &request, manner).await,
        None => to_new_place(&mut run, &request).await,
    };
    (run.conclude(&outcome), outcome)
}

async fn origin(run: &mut Run, request: &Request) -> Result<Origin> {
    let name = &request.snapshot;
    let found = run.source.existing(name).await?;
    run.report.path = run.source.path_of(&found.record, request.selection.only().as_ref());
    let manifest = found.catalog.manifest(name).await?;
    Ok(Origin { name: name.clone(), snapshot: Some((found, manifest)), derived: false })
}

/// To be taken under the lease, so that two runs of one restore do not have it at once.
fn hold(run: &Run, origin: &Origin) -> RestoreHold {
    RestoreHold::new(&run.source, &origin.name, &run.report.job, run.target.address())
}

async fn to_new_place(run: &mut Run, request: &Request) -> Result<()> {
    let origin = origin(run, request).await.map_err(|error| error.on(Side::Source))?;
    let lease = run.lease().await.map_err(|error| error.on(Side::Target))?;
    let (cancel, hold) = (run.cancel.clone(), hold(run, &origin));
    let outcome = hold.during(&cancel, Box::pin(fill(run, &origin, &lease))).await;
    let begun = lease.unfinished().await.is_some();
    let released = lease.release(outcome.is_ok()).await.map_err(|error| error.on(Side::Target));
    drop(lease);
    let tidied = if outcome.is_ok() || !begun { tidy(&run.target).await } else { Ok(()) };
    outcome.and(released).and(tidied.map_err(|error| error.on(Side::Target)))?;
    run.report.state = State::Restored;
    Ok(())
}

/// What was restored is the user's: nothing of the job stays in it. The snapshots of a bucket that has some do stay.
async fn tidy(target: &Bucket) -> Result<()> {
    let (store, folder) = (target.store(), Key::from(RESERVED));
    let jobs = ["lease.json", "lock", "staging/"].map(|name| target.catalog().key(name));
    let mut listing = store.list(ListOptions { prefix: folder.clone(), ..ListOptions::default() }).await?;
    while let Some(batch) = listing.next().await {
        if batch?
            .iter()
            .any(|entry| entry.key != folder && !jobs.iter().any(|job| entry.key.starts_with(job.as_bytes())))
        {
            return Ok(());
        }
    }
    remove_all(&**store, &folder).await?;
    if store.capabilities().directories { store.delete(&[folder]).await } else { Ok(()) }
}

/// Brings a snapshot into a place that has nothing.
async fn fill(run: &mut Run, origin: &Origin, lease: &Arc<Lease>) -> Result<()> {
    let unfinished = run.unfinished(lease).await?;
    let ours = |job: &Job| job.snapshot == origin.name && job.source == run.source.address() && !job.is_restore();
    if let Some(job) = unfinished.as_ref().map(|unfinished| &unfinished.job).filter(|job| !ours(job)) {
        let error = job.left_unfinished().on(Side::Target).at(run.target.address());
        return Err(error.hint("restore to another place"));
    }
    let mut memory = run.recall().await?;
    let plan = Box::pin(run.plan(origin, None, unfinished.as_ref(), &mut memory)).await?;
    if plan.totals.drift > 0 {
        let held = plan.tell_drift(|drifted| format!("`{}`", drifted.key));
        return Err(Error::new(Kind::Refused, format!("it is not empty: it holds {held}"))
            .on(Side::Target)
            .at(run.target.address())
            .hint("restore to a new or empty place, or over what is there with --in-place"));
    }
    run.guard(&plan)?;
    check_chosen(run, &plan)?;
    lease.begin(run.job(&origin.name)).await.map_err(|error| error.on(Side::Target))?;
    run.progress.enter(Phase::Copying);
    Box::pin(run.transfer(origin, plan, lease, unfinished.as_ref(), memory)).await?;
    prove(run, origin).await?;
    run.forget()
}

async fn prove(run: &mut Run, origin: &Origin) -> Result<()> {
    run.progress.enter(Phase::Proving);
    Box::pin(run.prove(origin, None, false)).await?;
    run.target.store().sync().await.map_err(|error| error.on(Side::Target))
}

/// Refuses a choice that is of nothing.
fn check_chosen(run: &Run, plan: &Plan) -> Result<()> {
    let totals = &plan.totals;
    let there =
        totals.unchanged + totals.deleted + totals.directories_deleted + plan.directories.len() + plan.finish.len();
    if run.selection.is_all() || !plan.landings.is_empty() || there > 0 {
        return Ok(());
    }
    Err(Error::new(Kind::NotFound, "no key of the snapshot matches")
        .on(Side::Source)
        .hint("globs match whole keys: `dir/**` is all in dir, `**/name` is that name anywhere"))
}

/// Makes the target what the snapshot says.
async fn in_place(run: &mut Run, request: &Request, manner: &Manner) -> Result<()> {
    let origin = origin(run, request).await.map_err(|error| error.on(Side::Source))?;
    check_keeps(&run.target, manner)?;
    let provenance = Provenance::of(&run.source, &run.target, &origin).await;
    run.in_place = Some(provenance.map_err(|error| error.on(Side::Target))?);
    if manner.dry_run {
        let plan = Box::pin(run.plan(&origin, None, None, &mut Default::default())).await?;
        run.guard(&plan)?;
        check_chosen(run, &plan)?;
        return run.rehearsed(&plan, manner.steps);
    }
    let lease = run.lease().await.map_err(|error| error.on(Side::Target))?;
    let (cancel, hold) = (run.cancel.clone(), hold(run, &origin));
    let outcome = hold.during(&cancel, Box::pin(replace(run, request, manner, &origin, &lease))).await;
    let released = lease.release(outcome.is_ok()).await.map_err(|error| error.on(Side::Target));
    outcome.and(released)?;
    run.report.state = State::Restored;
    Ok(())
}

/// A snapshot that keeps nothing is no way back.
fn check_keeps(target: &Bucket, manner: &Manner) -> Result<()> {
    if !manner.safety_snapshot || target.keeps_snapshots() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Refused,
        "the bucket keeps no versions, so no snapshot can keep what is there before it is replaced",
    )
    .on(Side::Target)
    .at(target.address())
    .hint("switch versioning on, restore to a new place, or do without with --no-safety-snapshot"))
}

/// The line of a restore in place.
async fn replace(run: &mut Run, request: &Request, manner: &Manner, origin: &Origin, lease: &Arc<Lease>) -> Result<()> {
    let unfinished = run.unfinished(lease).await?;
    let mut marker = mark(run, request, manner, unfinished.as_ref()).await.map_err(|error| error.on(Side::Target))?;
    let mut memory = run.recall().await?;
    let plan = Box::pin(run.plan(origin, None, unfinished.as_ref(), &mut memory)).await?;
    run.guard(&plan)?;
    check_chosen(run, &plan)?;
    let begun = async {
        run.target.catalog().set_restore(&marker).await?;
        lease.begin(Job { id: marker.name(), ..run.job(&origin.name) }).await?;
        keep_what_is_there(run, manner, &mut marker).await
    };
    begun.await.map_err(|error| error.on(Side::Target))?;
    tell_the_way_back(run, manner, &marker);
    run.progress.enter(Phase::Copying);
    Box::pin(run.transfer(origin, plan, lease, unfinished.as_ref(), memory)).await?;
    prove(run, origin).await?;
    marker.finished = Some(run.target.clock().now());
    run.target.catalog().set_restore(&marker).await.map_err(|error| error.on(Side::Target))?;
    run.forget()
}

/// The marker of this restore: that of an earlier run that was stopped half-way, or a new one.
async fn mark(run: &Run, request: &Request, manner: &Manner, unfinished: Option<&Unfinished>) -> Result<Restore> {
    let source = run.source.address();
    let marker = Restore::begin(source, &request.snapshot, &request.selection, &run.report.job, request.moment);
    let found = run.target.catalog().restore(&marker.id).await?;
    match (unfinished, found) {
        (Some(unfinished), _) if unfinished.job.id != marker.name() => {
            let (job, work) = (&unfinished.job, unfinished.job.work());
            Err(job
                .left_unfinished()
                .at(run.target.address())
                .hint(format!("let that {work} run to its end first, or restore to a new place")))
        }
        (Some(_), Some(found)) => Ok(Restore { finished: None, ..found }),
        (None, Some(Restore { finished: Some(finished), job, .. })) if !manner.again => Err(Error::new(
            Kind::Refused,
            format!("{} was restored there already: {job} finished it at {finished}", request.snapshot),
        )
        .at(run.target.address())
        .hint("if it is to be restored once more, add --again")),
        _ => {
            let safety_snapshot = match manner.safety_snapshot {
                true => Some(safety_name(&run.target, request.moment).await?),
                false => None,
            };
            Ok(Restore { safety_snapshot, ..marker })
        }
    }
}

/// The name of a snapshot of what is there before a restore that begins at this moment.
async fn safety_name(target: &Bucket, moment: Timestamp) -> Result<Name> {
    let name = |moment: Timestamp| format!("before-restore-{}", moment.strftime("%Y-%m-%dT%H%M%SZ")).parse();
    target.free_name(moment, name).await
}

/// Takes the safety snapshot, unless an earlier run of the same restore has: since then nothing but our own work was done.
async fn keep_what_is_there(run: &Run, manner: &Manner, marker: &mut Restore) -> Result<()> {
    let Some(name) = &marker.safety_snapshot else { return Ok(()) };
    if run.target.record(name).await?.is_some() {
        return Ok(());
    }
    if manner.safety_snapshot {
        run.progress.enter(Phase::Snapshotting);
        return run.target.create_held(name).await;
    }
    marker.safety_snapshot = None;
    run.target.catalog().set_restore(marker).await
}

fn tell_the_way_back(run: &mut Run, manner: &Manner, marker: &Restore) {
    let Some(name) = &marker.safety_snapshot else { return };
    let target = &manner.target;
    run.report.way_back = Some(format!("snapferry restore '{target}' --snapshot {name} --in-place --confirm {name}"));
    run.report.safety_snapshot = Some(name.clone());
}
