//! The straight line: snapshot → diff → plan → transfer → prove → seal.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::blocking::blocking;
use crate::bounds::{Bounds, OnDrift};
use crate::bucket::Bucket;
use crate::catalog::{Catalog, FORMAT, Job, Lease, Receipt, ReceiptTotals, Record, write_manifest};
use crate::error::{Error, Kind, Result, Side};
use crate::journal::Memory;
use crate::manifest::Manifest;
use crate::origin::{Base, Origin};
use crate::progress::{Level, Phase, Progress};
use crate::report::{Report, State};
use crate::run::{Run, Unfinished, stopped};
use crate::seal::seal;
use crate::snapshot::{Name, SnapshotKind};
use crate::verify::read_back;

/// How the result is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proof {
    /// Both sides listed and compared entry by entry.
    #[default]
    Listing,
    /// That, and the target read back.
    Read,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The snapshot's name; none: one by the time of day.
    pub snapshot: Option<Name>,
    /// Only plan.
    pub dry_run: bool,
    /// Name the plan's steps.
    pub steps: bool,
    /// How the result is proved.
    pub proof: Proof,
    /// The target may be one that keeps no versions.
    pub allow_unversioned: bool,
    /// Where the source's snapshots are remembered, if not with the source.
    pub source_catalog: Option<Catalog>,
    /// The policy by which it is done, for the receipt.
    pub policy: Option<String>,
    /// The job's name, of [`crate::job::new_id`].
    pub job: String,
    /// The moment of the run, which names the snapshot if nothing else does.
    pub moment: Timestamp,
    /// What bounds the run.
    pub bounds: Bounds,
}

/// Replicates `source` to `target`. The report says what was done, also when it failed.
pub async fn replicate(
    source: Bucket,
    target: Bucket,
    request: Request,
    progress: Arc<Progress>,
    cancel: CancellationToken,
) -> (Report, Result<()>) {
    let run = Run::new(source, target, request.bounds.clone(), progress, cancel, request.job.clone());
    let mut replication = Replication { run, request };
    let outcome = Box::pin(replication.replicate()).await;
    (replication.run.conclude(&outcome), outcome)
}

/// A replication under way.
struct Replication {
    run: Run,
    request: Request,
}

impl Replication {
    async fn replicate(&mut self) -> Result<()> {
        let name = &match self.request.snapshot.clone() {
            Some(name) => name,
            None => self.free_name().await?,
        };
        self.run.report.snapshot = Some(name.clone());
        self.run.source.provider().check_name(name).map_err(|error| error.on(Side::Source))?;
        self.run.target.provider().check_name(name).map_err(|error| error.on(Side::Target))?;
        self.run.progress.works_on(name);
        if self.is_sealed(name).await? {
            return Ok(());
        }
        self.check_target().await?;
        if self.request.dry_run {
            return Box::pin(self.rehearse(name)).await;
        }
        let lease = self.run.lease().await.map_err(|error| error.on(Side::Target))?;
        let cancel = self.run.cancel.clone();
        let outcome = cancel
            .run_until_cancelled(Box::pin(self.under_lease(name, &lease)))
            .await
            .unwrap_or_else(|| Err(stopped()));
        // What was not sealed stays marked as unfinished, so that the next run knows what it finds.
        let released = lease.release(outcome.is_ok()).await;
        outcome.and(released.map_err(|error| error.on(Side::Target)))
    }

    /// The name of a snapshot that was given none: free at the target, for a later run's snapshot is not an earlier one's.
    async fn free_name(&self) -> Result<Name> {
        let name = |moment| Ok(self.run.source.provider().fitting(Name::at(moment)));
        self.run.target.free_name(self.request.moment, name).await.map_err(|error| error.on(Side::Target))
    }

    /// The line.
    async fn under_lease(&mut self, name: &Name, lease: &Arc<Lease>) -> Result<()> {
        // Another job may have sealed it while this one waited.
        if self.is_sealed(name).await? {
            return Ok(());
        }
        self.run.progress.enter(Phase::Snapshotting);
        let mut unfinished = self.run.unfinished(lease).await?;
        self.respect_restore(unfinished.as_ref())?;
        if let Some(unfinished) = &mut unfinished
            && !self.goes_on(name, &unfinished.job).await?
        {
            self.run.remember(unfinished).await?;
        }
        let base = self.base().await.map_err(|error| error.on(Side::Target))?;
        let mut from = Box::pin(self.snapshot(name, base.as_ref())).await.map_err(|error| error.on(Side::Source))?;
        let manifest = match Box::pin(self.over_the_wire(&from, base.as_ref(), unfinished.as_ref(), lease)).await {
            Err(error) if error.kind() == Kind::Differ && from.derived => {
                let what = "the store's own diff left something out, so the snapshots are listed";
                self.run.progress.warn(format!("{what}: {error}"));
                self.run.report.diff = Some("listing");
                from = self.listed_snapshot(name).await.map_err(|error| error.on(Side::Source))?;
                let unfinished = self.run.unfinished(lease).await?;
                Box::pin(self.over_the_wire(&from, base.as_ref(), unfinished.as_ref(), lease)).await?
            }
            outcome => outcome?,
        };
        Box::pin(self.read_back(&manifest)).await?;
        self.run.progress.enter(Phase::Sealing);
        Box::pin(self.seal(&from, base.as_ref(), &manifest, lease)).await?;
        if unfinished.is_some() {
            self.run.target.catalog().set_pending(None).await.map_err(|error| error.on(Side::Target))?;
        }
        Ok(())
    }

    /// plan → transfer → prove: the target's manifest. Each step is on the heap, for together they are more than the stack
    /// of a thread should hold.
    async fn over_the_wire(
        &mut self,
        from: &Origin,
        base: Option<&Base>,
        unfinished: Option<&Unfinished>,
        lease: &Arc<Lease>,
    ) -> Result<Manifest> {
        self.run.progress.enter(Phase::Diffing);
        let mut memory = self.run.recall().await?;
        let plan = Box::pin(self.run.plan(from, base, unfinished, &mut memory)).await?;
        self.run.guard(&plan)?;
        if plan.is_empty()
            && plan.keeps_base
            && !from.derived
            && let Some(base) = base.filter(|base| base.same_source)
        {
            // Nothing to do, and the plan has just compared both sides entry by entry.
            return Ok(base.manifest.clone());
        }
        if !(plan.is_empty() && from.derived && unfinished.is_none()) {
            lease.begin(self.run.job(&from.name)).await.map_err(|error| error.on(Side::Target))?;
            self.run.progress.enter(Phase::Copying);
            Box::pin(self.run.transfer(from, plan, lease, unfinished, memory)).await?;
        }
        self.run.progress.enter(Phase::Proving);
        Box::pin(self.run.prove(from, base, true)).await
    }

    /// Somebody wanted the target as it was: who would make it something else has to say so.
    fn respect_restore(&self, unfinished: Option<&Unfinished>) -> Result<()> {
        match unfinished.map(|unfinished| &unfinished.job) {
            Some(job) if job.is_restore() && self.run.bounds.on_drift == OnDrift::Refuse => {
                let error = job.left_unfinished().on(Side::Target).at(self.run.target.address());
                Err(error.hint(
                    "finish it with the same restore command, or run again with --on-drift repair to make the target \
                     what the snapshot says",
                ))
            }
            _ => Ok(()),
        }
    }

    /// True when this run is another try of the very snapshot that `job` died on.
    async fn goes_on(&self, name: &Name, job: &Job) -> Result<bool> {
        let found = self.run.source.snapshot(name).await.map_err(|error| error.on(Side::Source))?;
        Ok(job.snapshot == *name && found.is_some_and(|found| !is_passing(&found.record)))
    }

    /// True when there is nothing to do: then nothing is written either.
    async fn is_sealed(&mut self, name: &Name) -> Result<bool> {
        let found = self.run.target.record(name).await.map_err(|error| error.on(Side::Target))?;
        let Some(record) = found else { return Ok(false) };
        if !record.is_counted() && self.died_sealing(name).await? {
            return Ok(false);
        }
        match record.sealed_from.as_deref() {
            Some(source) if source == self.run.source.address() => {
                self.run.report.state = State::Sealed;
                self.run.report.already_sealed = true;
                self.run.report.objects = record.objects;
                self.run.report.bytes = record.bytes;
                Ok(true)
            }
            other => Err(Error::new(
                Kind::Refused,
                match other {
                    Some(other) => format!("it has a snapshot {name} already, sealed from {other}"),
                    None => format!("it has a snapshot {name} of its own already"),
                },
            )
            .on(Side::Target)
            .at(self.run.target.address())
            .hint("choose another name with --snapshot, or another target")),
        }
    }

    /// True when a job of ours may have made the target's own snapshot `name` and died before it could say so.
    async fn died_sealing(&self, name: &Name) -> Result<bool> {
        let left = Lease::left_unfinished(self.run.target.catalog()).await.map_err(|error| error.on(Side::Target))?;
        Ok(left.is_some_and(|job| job.snapshot == *name && job.source == self.run.source.address()))
    }

    async fn check_target(&self) -> Result<()> {
        let target = &self.run.target;
        target.provider().ready().await.map_err(|error| error.on(Side::Target))?;
        if target.keeps_snapshots() || self.request.allow_unversioned {
            return Ok(());
        }
        Err(Error::new(
            Kind::Refused,
            "the bucket keeps no versions, so each sync would destroy the snapshot before it",
        )
        .on(Side::Target)
        .at(self.run.target.address())
        .hint("switch versioning on, or accept one snapshot only with --allow-unversioned"))
    }

    /// The snapshot of this name, which the source's store keeps itself, taken now if there is none. What is in it comes
    /// from the store's own diff where there is one against the base, else from a listing.
    async fn native_snapshot(&mut self, name: &Name, base: Option<&Base>) -> Result<Origin> {
        let source = self.run.source.clone();
        if source.record(name).await?.is_none() {
            source.create_snapshot(name, None).await?;
        }
        let mut derived = None;
        if let Some(base) = base.filter(|base| base.same_source) {
            let objects = base.manifest.totals().objects;
            derived = source.since(name, &base.record.name, self.run.base_at_source(base), objects).await?;
        }
        self.run.report.diff = Some(if derived.is_some() { "native" } else { "listing" });
        if let Some(snapshot) = derived {
            return Ok(Origin { name: name.clone(), snapshot: Some(snapshot), derived: true });
        }
        self.listed_snapshot(name).await
    }

    async fn listed_snapshot(&self, name: &Name) -> Result<Origin> {
        let found = self.run.source.existing(name).await?;
        let manifest = found.catalog.manifest(name).await?;
        Ok(Origin { name: name.clone(), snapshot: Some((found, manifest)), derived: false })
    }

    /// The snapshot of this name, taken now if there is none.
    async fn snapshot(&mut self, name: &Name, base: Option<&Base>) -> Result<Origin> {
        if self.run.source.provider().kind() == SnapshotKind::Native {
            return Box::pin(self.native_snapshot(name, base)).await;
        }
        let away = self
            .request
            .source_catalog
            .clone()
            .unwrap_or_else(|| Catalog::of_other(self.run.target.store().clone(), self.run.source.address()));
        let remote = self.run.source.read_only(away);
        let mut found = self.run.source.snapshot(name).await?;
        if found.is_none() {
            found = remote.snapshot(name).await?;
        }
        let stale = found.as_ref().is_some_and(|found| is_passing(&found.record));
        let snapshot = match found {
            Some(found) if !stale => found,
            _ => {
                let elsewhere = self.request.source_catalog.is_some() || self.run.source.is_read_only();
                if elsewhere {
                    remote.take(name, None).await?
                } else {
                    match self.run.source.take(name, None).await {
                        Err(error) if error.kind() == Kind::Denied => {
                            tracing::info!("the source cannot be written, so its snapshots are remembered elsewhere");
                            remote.take(name, None).await?
                        }
                        outcome => outcome?,
                    }
                }
            }
        };
        let others = snapshot.record.others;
        if others.total() > 0 {
            let text = || format!("not copied: {} links, {} special files", others.links, others.special);
            self.run.progress.note(Level::Warning, text);
        }
        self.run.report.others = others;
        if self.run.bounds.limits.strict && snapshot.record.others.total() > 0 {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "it has {} links and {} special files, which are no content",
                    snapshot.record.others.links, snapshot.record.others.special
                ),
            )
            .at(self.run.source.address())
            .hint("remove them, or run without --strict to have them counted and left out"));
        }
        let manifest = snapshot.catalog.manifest(name).await?;
        Ok(Origin { name: name.clone(), snapshot: Some((snapshot, manifest)), derived: false })
    }

    /// The target's newest sealed snapshot, of this source if there is one.
    async fn base(&mut self) -> Result<Option<Base>> {
        let catalog = self.run.target.catalog();
        let address = self.run.source.address().to_owned();
        let newest = catalog.newest(Record::is_sealed).await?;
        let Some(record) = newest else { return Ok(None) };
        let same_source = record.sealed_from.as_deref() == Some(&address);
        self.run.report.base = same_source.then(|| record.name.clone());
        let manifest = catalog.manifest(&record.name).await?;
        Ok(Some(Base { record, manifest, same_source }))
    }

    /// Plans without a lease, a snapshot or any other trace.
    async fn rehearse(&mut self, name: &Name) -> Result<()> {
        let found = self.run.source.snapshot(name).await.map_err(|error| error.on(Side::Source))?;
        let snapshot = match found {
            Some(found) => {
                let manifest = found.catalog.manifest(name).await.map_err(|error| error.on(Side::Source))?;
                Some((found, manifest))
            }
            None => None,
        };
        let from = Origin { name: name.clone(), snapshot, derived: false };
        let base = self.base().await.map_err(|error| error.on(Side::Target))?;
        let plan = Box::pin(self.run.plan(&from, base.as_ref(), None, &mut Memory::default())).await?;
        self.run.guard(&plan)?;
        self.run.rehearsed(&plan, self.request.steps)
    }

    async fn read_back(&mut self, manifest: &Manifest) -> Result<()> {
        self.run.report.verified = Some("listing");
        if self.request.proof == Proof::Read {
            self.run.progress.enter(Phase::Proving);
            let entries = self.run.entries(self.run.target.catalog(), manifest);
            let progress = self.run.progress.clone();
            let retried = move |error: &Error| progress.retried(error);
            let (_, differences) = read_back(self.run.target.store().clone(), entries, 100.0, retried)
                .await
                .map_err(|error| error.on(Side::Target))?;
            differences.into_result().map_err(|error| error.at(self.run.target.address()))?;
            self.run.report.verified = Some("read");
        }
        Ok(())
    }

    async fn seal(&mut self, from: &Origin, base: Option<&Base>, manifest: &Manifest, lease: &Lease) -> Result<()> {
        let source_root = self.settle_source(from).await.map_err(|error| error.on(Side::Source))?;
        let entries = self.run.entries(self.run.target.catalog(), manifest);
        let totals = ReceiptTotals {
            created: self.run.report.created,
            modified: self.run.report.modified,
            renamed: self.run.report.renamed,
            deleted: self.run.report.deleted,
        };
        let (content, taken) = (manifest.totals(), from.taken()?.0.record.created);
        let receipt = |sealed| Receipt {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            job: self.run.report.job.clone(),
            snapshot: from.name.clone(),
            source: self.run.source.address().into(),
            target: self.run.target.address().into(),
            base: self.run.report.base.clone(),
            source_root,
            root: manifest.root_digest().to_hex().to_string(),
            objects: content.objects,
            directories: content.directories,
            bytes: content.bytes,
            totals,
            bytes_copied: Progress::read(&self.run.progress.bytes_copied),
            bytes_reused: Progress::read(&self.run.progress.bytes_reused),
            repinned: Progress::read(&self.run.progress.repinned),
            verified: self.run.report.verified.unwrap_or_default().into(),
            policy: self.request.policy.clone(),
            taken: Some(taken),
            elapsed_ms: self.run.elapsed_ms(),
            sealed,
        };
        seal(&self.run.target, &from.name, manifest, entries, lease, receipt)
            .await
            .map_err(|error| error.on(Side::Target))?;
        if let Some(base) = base
            && !self.run.target.keeps_snapshots()
        {
            // Nothing keeps what the older snapshot listed.
            self.run.target.catalog().remove(&base.record.name).await.map_err(|error| error.on(Side::Target))?;
        }
        self.run.forget()?;
        self.run.report.objects = content.objects;
        self.run.report.bytes = content.bytes;
        self.run.report.state = State::Sealed;
        Ok(())
    }

    /// The root of the source's manifest, which is written anew if objects were pinned again.
    async fn settle_source(&self, from: &Origin) -> Result<String> {
        let (snapshot, manifest) = from.taken()?;
        if Progress::read(&self.run.progress.repinned) == 0 && !self.run.journal_path().exists() {
            return Ok(snapshot.record.root.clone());
        }
        let (path, header, folder) = (self.run.journal_path(), self.run.header(), self.run.bounds.folder.clone());
        let mut memory = blocking(move || Memory::load(&path, &header, &folder)).await?;
        if memory.repinned_count == 0 {
            return Ok(snapshot.record.root.clone());
        }
        let entries = self.run.source_entries(from, &mut memory).await?;
        let (catalog, like) = (snapshot.catalog.clone(), manifest.clone());
        let manifest = blocking(move || write_manifest(&catalog, Handle::current(), Some(&like), entries)).await?;
        let root = manifest.root_digest().to_hex().to_string();
        let totals = *manifest.totals();
        let record = Record { root: root.clone(), bytes: totals.bytes, ..snapshot.record.clone() };
        snapshot.catalog.publish(&record, &manifest, None).await?;
        Ok(root)
    }
}

/// Where nothing keeps the content, a snapshot that nobody has sealed is best taken anew.
fn is_passing(record: &Record) -> bool {
    record.kind == SnapshotKind::Guarded && !record.is_sealed()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::bounds::MaxDelete;
    use crate::bucket::OpenOptions;
    use crate::job::new_id;
    use crate::snapshot::clone::CloneMode;
    use crate::store::Condition;
    use crate::transfer::Limits;

    fn unnamed(moment: Timestamp, folder: &Path) -> Request {
        Request {
            snapshot: None,
            dry_run: false,
            steps: false,
            proof: Proof::Listing,
            allow_unversioned: false,
            policy: None,
            source_catalog: None,
            job: new_id(moment),
            moment,
            bounds: Bounds {
                max_delete: MaxDelete::Count(0),
                on_drift: OnDrift::Refuse,
                limits: Limits { concurrency: 2, memory_bytes: 16 << 20, strict: true, ..Limits::default() },
                folder: folder.to_owned(),
                lease_term: Duration::from_secs(60),
            },
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_runs_within_a_second_make_two_snapshots() {
        let folder = tempfile::tempdir().unwrap();
        let options =
            OpenOptions { create: true, create_link: false, clone: CloneMode::Auto, folder: folder.path().into() };
        let source = Bucket::open("memory:source", &options).await.unwrap();
        let target = Bucket::open("memory:target", &options).await.unwrap();
        let moment = "2026-11-21T10:00:00Z".parse().unwrap();
        for (content, name) in [("old", "snapshot-2026-11-21T100000Z"), ("new", "snapshot-2026-11-21T100001Z")] {
            source.store().write(&"key".into(), content.into(), &Default::default(), &Condition::Any).await.unwrap();
            let request = unnamed(moment, folder.path());
            let (progress, cancel) = (Arc::default(), CancellationToken::new());
            let (report, outcome) = replicate(source.clone(), target.clone(), request, progress, cancel).await;
            outcome.unwrap();
            assert_eq!((report.snapshot.unwrap().as_str(), report.objects_copied), (name, 1));
            let (landed, _) = target.store().fetch(&"key".into()).await.unwrap().unwrap();
            assert_eq!(landed, content);
        }
    }
}
