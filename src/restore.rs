//! The way back: a snapshot, or some keys of it, into a new place, proved.

use std::sync::Arc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::bucket::Bucket;
use crate::catalog::{Job, Lease};
use crate::error::{Error, Kind, Result, Side};
use crate::key::{Key, RESERVED};
use crate::progress::{Phase, Progress};
use crate::report::{Report, State};
use crate::run::{Bounds, Origin, Run, stopped};
use crate::snapshot::Name;
use crate::store::{ListOptions, remove_all};

/// What is to be restored.
#[derive(Debug, Clone)]
pub struct Request {
    /// The snapshot.
    pub snapshot: Name,
    /// Only keys that match one of these globs; all if there are none.
    pub keys: Vec<String>,
    /// The job's name, of [`crate::job::new_id`].
    pub job: String,
    /// The moment of the run.
    pub moment: Timestamp,
    /// What bounds the run.
    pub bounds: Bounds,
}

/// Restores a snapshot of `bucket` to `to`, which must be empty, or hold what an earlier try of the same restore left.
pub async fn restore(
    bucket: Bucket,
    to: Bucket,
    request: Request,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> (Report, Result<()>) {
    let mut run = Run::new(bucket, to, request.bounds.clone(), progress, cancel, request.job.clone());
    run.report.snapshot = Some(request.snapshot.clone());
    let outcome = under_way(&mut run, &request).await;
    (run.conclude(&outcome), outcome)
}

async fn under_way(run: &mut Run, request: &Request) -> Result<()> {
    let origin = origin(run, request).await.map_err(|error| error.on(Side::Source))?;
    let lease = run.lease().await.map_err(|error| error.on(Side::Target))?;
    let cancel = run.cancel.clone();
    let outcome = cancel.run_until_cancelled(under_lease(run, &origin, &lease)).await.unwrap_or_else(|| Err(stopped()));
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

async fn origin(run: &Run, request: &Request) -> Result<Origin> {
    let name = &request.snapshot;
    let found = run.source.existing(name).await?;
    let manifest = found.catalog.manifest(name).await?;
    let keys = (!request.keys.is_empty()).then(|| globs(&request.keys)).transpose()?;
    Ok(Origin { name: name.clone(), snapshot: Some((found, manifest)), keys, derived: false })
}

/// `*` and `?` stay within one level, `**` does not.
fn globs(patterns: &[String]) -> Result<GlobSet> {
    let mut globs = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
        globs.add(glob.map_err(|error| Error::usage(format!("`{pattern}` is no glob")).caused_by(error))?);
    }
    globs.build().map_err(|error| Error::usage("the globs cannot be used together").caused_by(error))
}

async fn under_lease(run: &mut Run, origin: &Origin, lease: &Arc<Lease>) -> Result<()> {
    let unfinished = run.unfinished(lease).await?;
    let ours = |job: &Job| job.snapshot == origin.name && job.source == run.source.address();
    if unfinished.as_ref().is_some_and(|unfinished| !ours(&unfinished.job)) {
        return Err(Error::new(Kind::Refused, "another job was left unfinished there")
            .on(Side::Target)
            .at(run.target.address())
            .hint("restore to another place"));
    }
    run.progress.enter(Phase::Diffing);
    let mut memory = run.recall().await?;
    let plan = Box::pin(run.plan(origin, None, unfinished.as_ref(), &mut memory)).await?;
    if plan.totals.drift > 0 {
        let named: Vec<String> = plan.drift.iter().map(|drifted| format!("`{}`", drifted.key)).collect();
        let more = plan.totals.drift - named.len() as u64;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return Err(Error::new(Kind::Refused, format!("it is not empty: it holds {}{more}", named.join(", ")))
            .on(Side::Target)
            .at(run.target.address())
            .hint("restore to a new or empty place"));
    }
    run.guard(&plan)?;
    if origin.keys.is_some() && plan.landings.is_empty() && plan.totals.unchanged == 0 {
        return Err(Error::new(Kind::NotFound, "no key of the snapshot matches")
            .on(Side::Source)
            .hint("globs match whole keys: `dir/**` is all in dir, `**/name` is that name anywhere"));
    }
    lease.begin(run.job(&origin.name)).await.map_err(|error| error.on(Side::Target))?;
    run.progress.enter(Phase::Copying);
    run.report.objects = plan.totals.created + plan.totals.modified + plan.totals.unchanged;
    run.report.bytes = plan.totals.bytes_planned;
    Box::pin(run.transfer(origin, plan, lease, unfinished.as_ref(), memory)).await?;
    run.progress.enter(Phase::Proving);
    Box::pin(run.prove(origin, None, false)).await?;
    run.target.store().sync().await.map_err(|error| error.on(Side::Target))?;
    run.forget()
}
