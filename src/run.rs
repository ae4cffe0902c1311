//! One run on a target: the steps that replication and restore share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::blocking::blocking;
use crate::bounds::{Bounds, MaxDelete, OnDrift};
use crate::bucket::Bucket;
use crate::catalog::{Catalog, Job, Lease, StoreSegments, manifest_writer, write_manifest};
use crate::error::{Error, Kind, Result, Side};
use crate::journal::{Header, Journal, Memory};
use crate::key::Key;
use crate::manifest::{Entry, Kind as EntryKind, Manifest};
use crate::merge::{Entries, merge_by_key};
use crate::origin::{Base, Origin};
use crate::plan::{Circumstances, Inputs, Options, Plan, Streams, Trees, find_trees, plan, staged_trees};
use crate::process::boot;
use crate::progress::{Phase, Progress};
use crate::provenance::Provenance;
use crate::report::{Report, State};
use crate::selection::Selection;
use crate::snapshot::{Name, listed, sorted};
use crate::store::ListOptions;
use crate::transfer::{Limits, Setup, Transfer, empty_staging};
use crate::verify::{Differences, Evidence, prove};

/// How long a listing that may lag is given to catch up, before what it shows counts: longer each time.
const SETTLING_MS: [u64; 4] = [100, 400, 1500, 4000];

/// A run under way.
pub(crate) struct Run {
    pub(crate) source: Bucket,
    pub(crate) target: Bucket,
    pub(crate) bounds: Bounds,
    pub(crate) progress: Arc<Progress>,
    pub(crate) cancel: CancellationToken,
    pub(crate) report: Report,
    /// Which keys count.
    pub(crate) selection: Selection,
    /// Where the target is to become as it was.
    pub(crate) in_place: Option<Provenance>,
    /// Directories that change their name with all in them, from the plan on.
    trees: Trees,
    started: Instant,
}

/// What earlier jobs left half-way on the target.
pub(crate) struct Unfinished {
    /// The last of them.
    pub(crate) job: Job,
    /// The snapshot that it was replicating, as far as that is still known.
    towards: Option<(Catalog, Manifest)>,
    /// The keys of those before it.
    earlier: Option<Manifest>,
}

impl Run {
    pub(crate) fn new(
        source: Bucket,
        target: Bucket,
        bounds: Bounds,
        progress: Arc<Progress>,
        cancel: CancellationToken,
        job: String,
    ) -> Self {
        let (report, started) = (Report::new(job), Instant::now());
        Self {
            source,
            target,
            bounds,
            progress,
            cancel,
            report,
            selection: Selection::default(),
            in_place: None,
            trees: Trees::default(),
            started,
        }
    }

    /// The report, with the counters of how it ended.
    pub(crate) fn conclude(mut self, outcome: &Result<()>) -> Report {
        if let Err(error) = outcome {
            self.report.state = if error.exit_code() == 3 { State::Refused } else { State::Failed };
        }
        let elapsed_ms = self.elapsed_ms();
        let (report, progress) = (&mut self.report, &self.progress);
        report.objects_copied = Progress::read(&progress.objects_copied);
        report.bytes_copied = Progress::read(&progress.bytes_copied);
        if report.state != State::Planned {
            report.bytes_reused = Progress::read(&progress.bytes_reused);
        }
        report.retries = Progress::read(&progress.retries);
        report.repinned = Progress::read(&progress.repinned);
        report.repinned_keys =
            progress.repinned_named.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        report.requests = self.source.store().requests() + self.target.store().requests();
        report.elapsed_ms = elapsed_ms;
        self.report
    }

    /// How long it has taken so far, in milliseconds.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    pub(crate) async fn lease(&self) -> Result<Arc<Lease>> {
        let lease = self.target.lease(&self.report.job, self.bounds.lease_term);
        let lease = self.cancel.run_until_cancelled(lease).await.unwrap_or_else(|| Err(stopped()));
        lease.map(Arc::new)
    }

    pub(crate) fn job(&self, name: &Name) -> Job {
        Job { id: self.report.job.clone(), snapshot: name.clone(), source: self.source.address().into(), boot: boot() }
    }

    /// What limits its transfer.
    pub(crate) fn limits(&self) -> Limits {
        let mut limits = self.bounds.limits.clone();
        // What is there was somebody's once, and reading it costs less than bringing it.
        limits.learn_target |= self.in_place.is_some();
        limits
    }

    /// Says what on the target is left alone: what was not chosen and, where it is to become as it was, what no snapshot
    /// holds.
    fn leaves(&self) -> impl Fn(&Entry) -> bool + Send + Sync + 'static {
        let (selection, in_place) = (self.selection.clone(), self.in_place.is_some());
        move |there| !selection.is_match(&there.key) || (in_place && !there.is_content())
    }

    pub(crate) fn header(&self) -> Header {
        // What landed in a directory without a sync is only as safe as the machine's memory.
        let boot = if self.target.directory().is_some() { boot() } else { String::new() };
        Header { source: self.source.address().into(), target: self.target.address().into(), boot }
    }

    pub(crate) fn journal_path(&self) -> PathBuf {
        self.bounds.folder.join("journal")
    }

    /// Lets go of what this machine remembers: the job is done.
    pub(crate) fn forget(&self) -> Result<()> {
        match std::fs::remove_file(self.journal_path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::from(error).at(self.journal_path().display().to_string()))
            }
            _ => Ok(()),
        }
    }

    /// What this machine remembers of an unfinished job.
    pub(crate) async fn recall(&self) -> Result<Memory> {
        let (path, header, folder) = (self.journal_path(), self.header(), self.bounds.folder.clone());
        blocking(move || Memory::load(&path, &header, &folder)).await
    }

    /// Compares source, base and the target as it is, and plans. Touches nothing.
    pub(crate) async fn plan(
        &mut self,
        from: &Origin,
        base: Option<&Base>,
        unfinished: Option<&Unfinished>,
        memory: &mut Memory,
    ) -> Result<Plan> {
        let source = self.source_entries(from, memory).await.map_err(|error| error.on(Side::Source))?;
        let (actual, trees) = match base.filter(|base| base.same_source && self.target.store().capabilities().trees) {
            Some(base) => self.find_trees(from, base, unfinished).await?,
            None => (self.target_entries().await.map_err(|error| error.on(Side::Target))?, Trees::default()),
        };
        self.trees = trees.clone();
        let (actual, base) = match &self.in_place {
            Some(provenance) => {
                provenance.recognise(actual, &self.bounds.folder).await.map_err(|error| error.on(Side::Target))?
            }
            None => (actual, self.base_entries(base)),
        };
        let (landed, pending) = (memory.landed()?, self.pending(from, unfinished));
        let inputs = Inputs { source, base, actual, landed, pending };
        let run = Circumstances {
            resuming: unfinished.is_some(),
            in_place: self.in_place.is_some(),
            own: self.in_place.as_ref().is_some_and(|provenance| provenance.own),
        };
        let leaves = self.leaves();
        let store = self.target.store().clone();
        let folder = self.bounds.folder.clone();
        self.progress.enter(Phase::Planning);
        let plan = blocking(move || {
            let (target, accepts) = (store.capabilities(), |key: &Key| store.accepts(key));
            plan(inputs, &Options { target, accepts: &accepts, leaves: &leaves, run, trees: &trees, folder: &folder })
        })
        .await?;
        let totals = &plan.totals;
        let report = &mut self.report;
        report.created = totals.created;
        report.modified = totals.modified;
        report.renamed = totals.renamed;
        report.deleted = totals.deleted;
        report.directories_created = totals.directories_created;
        report.directories_renamed = totals.directories_renamed;
        report.directories_deleted = totals.directories_deleted;
        report.bytes_planned = totals.bytes_planned;
        report.drift = totals.drift;
        report.drift_keys = plan.drift.clone();
        self.progress.objects_planned.store(plan.landings.len(), std::sync::atomic::Ordering::Relaxed);
        let bytes = totals.bytes_planned + totals.bytes_reused;
        self.progress.bytes_planned.store(bytes, std::sync::atomic::Ordering::Relaxed);
        Ok(plan)
    }

    /// Finds the directories that changed their name with all in them, and gives back the target's listing.
    async fn find_trees(
        &self,
        from: &Origin,
        base: &Base,
        unfinished: Option<&Unfinished>,
    ) -> Result<(Entries<'static>, Trees)> {
        // What was pinned again are objects, which matter only to the plan itself.
        let source = self.source_entries(from, &mut Memory::default()).await.map_err(|error| error.on(Side::Source))?;
        let staged = ListOptions { prefix: staged_trees(), ..ListOptions::default() };
        let staged = self.listed(staged).await.map_err(|error| error.on(Side::Target))?;
        let live = self.target_entries().await.map_err(|error| error.on(Side::Target))?;
        let rows = merge_by_key([staged, live]);
        let actual = Box::new(rows.filter_map(|row| row.map(|(_, [a, b])| a.or(b)).transpose()));
        let (base, pending) = (self.base_entries(Some(base)), self.pending(from, unfinished));
        let (resuming, folder) = (unfinished.is_some(), self.bounds.folder.clone());
        let found = blocking(move || find_trees(Streams { source, base, actual, pending }, resuming, &folder)).await?;
        Ok((found.actual()?, found.trees))
    }

    /// The guards between a plan and the first change.
    pub(crate) fn guard(&self, plan: &Plan) -> Result<()> {
        let totals = &plan.totals;
        if totals.drift > 0 && self.bounds.on_drift == OnDrift::Refuse {
            return Err(drifted(plan, self.report.base.is_some()).at(self.target.address()));
        }
        let (deleted, there) = (totals.deleted, totals.target_objects);
        let too_many = match self.bounds.max_delete {
            MaxDelete::Count(max) => deleted > max,
            MaxDelete::Percent(max) => deleted as f64 * 100.0 > max * there as f64,
        };
        if deleted > 0 && too_many {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "{deleted} of {there} objects would be deleted, more than --max-delete allows ({})",
                    self.bounds.max_delete
                ),
            )
            .on(Side::Target)
            .at(self.target.address())
            .hint("look at the source; if it is right, run again with a larger --max-delete"));
        }
        Ok(())
    }

    /// Brings all content over, then changes the names.
    pub(crate) async fn transfer(
        &mut self,
        from: &Origin,
        mut plan: Plan,
        lease: &Arc<Lease>,
        unfinished: Option<&Unfinished>,
        memory: Memory,
    ) -> Result<()> {
        let (snapshot, _) = from.taken()?;
        let mut limits = self.limits();
        // What was proved once is not to become something else.
        limits.strict |= snapshot.record.is_sealed();
        let staged = self.target.store().capabilities().rename || self.in_place.is_some();
        let stale = match unfinished {
            // Trees that wait there are the target's own content.
            None => !plan.trees.any_staged(),
            // Nothing vouches for what an earlier start of the machine left unsynced in a directory.
            Some(unfinished) => {
                let target = self.target.store().capabilities();
                target.rename && !target.trees && unfinished.job.boot != boot()
            }
        };
        if staged && stale {
            empty_staging(&**self.target.store(), lease).await.map_err(|error| error.on(Side::Target))?;
        }
        let (path, header) = (self.journal_path(), self.header());
        let journal = Arc::new(blocking(move || Journal::open(&path, &header)).await?);
        let transfer = Arc::new(Transfer::new(Setup {
            source: snapshot.provider.reader(&from.name).await.map_err(|error| error.on(Side::Source))?,
            target: self.target.store().clone(),
            provider: snapshot.provider.clone(),
            snapshot: from.name.clone(),
            catalog: self.target.catalog().clone(),
            journal: journal.clone(),
            lease: lease.clone(),
            progress: self.progress.clone(),
            cancel: self.cancel.clone(),
            resuming: unfinished.is_some(),
            uploads: memory.uploads,
            clock: self.target.clock().clone(),
            limits,
        }));
        let landings = Arc::new(std::mem::replace(&mut plan.landings, crate::plan::Spool::empty(&self.bounds.folder)?));
        let outcome = async {
            transfer.run(&landings).await?;
            self.progress.enter(Phase::Committing);
            // Renames and deletes have no conditions of their own that would stop a job which was overtaken.
            lease.confirm().await.map_err(|error| error.on(Side::Target))?;
            transfer.switch(&plan, &landings, &self.report.job).await?;
            // Who died may have staged where this run does not.
            if staged || unfinished.is_some() {
                empty_staging(&**self.target.store(), lease).await.map_err(|error| error.on(Side::Target))?;
            }
            Ok(())
        };
        let outcome: Result<()> = outcome.await;
        drop(transfer);
        let closed = match Arc::into_inner(journal) {
            Some(journal) => blocking(move || journal.close()).await,
            None => Ok(()),
        };
        outcome.and(closed)
    }

    /// Lists the target again and compares it with the snapshot, entry by entry. What was proved is its manifest, whose
    /// segments are written if it is to be kept.
    pub(crate) async fn prove(&mut self, from: &Origin, base: Option<&Base>, keep: bool) -> Result<Manifest> {
        let mut pauses = match self.target.store().capabilities().steady {
            true => [].iter(),
            false => SETTLING_MS.iter(),
        };
        loop {
            let (proved, differences) = self.compare(from, base, keep).await?;
            match (differences.into_result(), pauses.next()) {
                (Ok(()), _) => {
                    self.report.verified = Some("listing");
                    (self.report.objects, self.report.bytes) = (proved.objects, proved.bytes);
                    return Ok(proved.manifest);
                }
                (Err(error), None) => return Err(error.at(self.target.address())),
                (Err(error), Some(pause)) => {
                    tracing::debug!("listed again, for the target's listing may not show all yet: {error}");
                    tokio::time::sleep(Duration::from_millis(*pause)).await;
                }
            }
        }
    }

    async fn compare(&self, from: &Origin, base: Option<&Base>, keep: bool) -> Result<(Proved, Differences)> {
        let (path, header, folder) = (self.journal_path(), self.header(), self.bounds.folder.clone());
        let mut memory = blocking(move || Memory::load(&path, &header, &folder)).await?;
        // Where listings have to be sorted, each is at its end before it is used.
        let source = async {
            let entries = match from.derived {
                true => self.source.listed(&from.name).await,
                false => self.source_entries(from, &mut memory).await,
            };
            entries.map_err(|error| error.on(Side::Source))
        };
        let actual = async { self.target_entries().await.map_err(|error| error.on(Side::Target)) };
        let (source, actual) = tokio::try_join!(source, actual)?;
        let (actual, base_entries) = match &self.in_place {
            Some(provenance) => {
                provenance.recognise(actual, &self.bounds.folder).await.map_err(|error| error.on(Side::Target))?
            }
            None => (actual, self.base_in_place(base).await?),
        };
        let evidence = Evidence { source, actual, landed: memory.landed()?, base: base_entries };
        let catalog = self.target.catalog().clone();
        let like = base.map(|base| base.manifest.clone());
        let directories = self.target.store().capabilities().directories;
        let leaves = self.leaves();
        blocking(move || {
            let mut writer = keep.then(|| manifest_writer(&catalog, Handle::current(), like.as_ref()));
            let mut proved = Proved::default();
            let differences = prove(evidence, directories, leaves, |entry| {
                if entry.kind == EntryKind::Object {
                    proved.objects += 1;
                    proved.bytes += entry.size;
                }
                writer.as_mut().map_or(Ok(()), |writer| writer.push(entry))
            })?;
            if let Some(writer) = writer {
                proved.manifest = writer.finish()?.0;
            }
            Ok((proved, differences))
        })
        .await
        .map_err(|error| error.on(Side::Target))
    }

    pub(crate) fn entries(&self, catalog: &Catalog, manifest: &Manifest) -> Entries<'static> {
        Box::new(manifest.entries(Arc::new(StoreSegments::new(catalog, Handle::current()))))
    }

    /// The snapshot's entries, with what was pinned again in place of what it was before.
    pub(crate) async fn source_entries(&self, from: &Origin, memory: &mut Memory) -> Result<Entries<'static>> {
        let Some((snapshot, manifest)) = &from.snapshot else {
            let ordered = self.source.store().capabilities().ordered;
            let (listing, folder) = (self.source.provider().peek().await?, self.bounds.folder.clone());
            let listed = blocking(move || sorted(listing, ordered, &folder)).await?;
            return Ok(Box::new(listed.filter(|entry| entry.as_ref().map_or(true, |entry| entry.is_content()))));
        };
        let entries = self.entries(&snapshot.catalog, manifest);
        let rows = merge_by_key([entries, memory.repinned()?]);
        let entries = rows.filter_map(|row| match row {
            Ok((_, [Some(entry), again])) => Some(Ok(again.unwrap_or(entry))),
            Ok((_, [None, _])) => None,
            Err(error) => Some(Err(error)),
        });
        match self.selection.is_all() {
            true => Ok(Box::new(entries)),
            false => {
                let selection = self.selection.clone();
                Ok(Box::new(
                    entries.filter(move |entry| entry.as_ref().map_or(true, |one| selection.is_match(&one.key))),
                ))
            }
        }
    }

    pub(crate) fn base_entries(&self, base: Option<&Base>) -> Entries<'static> {
        let Some(base) = base else { return Box::new(std::iter::empty()) };
        let entries = self.entries(self.target.catalog(), &base.manifest);
        if base.same_source {
            return entries;
        }
        // Another source's pins mean nothing here: only content counts.
        Box::new(entries.map(|entry| {
            entry.map(|mut entry| {
                entry.origin = None;
                entry
            })
        }))
    }

    /// The base as the source had it: its keys, with the pins that they had there.
    pub(crate) fn base_at_source(&self, base: &Base) -> Entries<'static> {
        let entries = self.entries(self.target.catalog(), &base.manifest);
        Box::new(entries.map(|entry| {
            entry.map(|entry| Entry { pin: entry.origin.unwrap_or_default(), origin: None, digest: None, ..entry })
        }))
    }

    /// The base's entries under the names that they have since the plan's trees are in place.
    async fn base_in_place(&self, base: Option<&Base>) -> Result<Entries<'static>> {
        let (entries, trees, folder) = (self.base_entries(base), self.trees.clone(), self.bounds.folder.clone());
        blocking(move || trees.of_base(entries, &folder)).await
    }

    pub(crate) async fn target_entries(&self) -> Result<Entries<'static>> {
        self.listed(ListOptions::default()).await
    }

    async fn listed(&self, options: ListOptions) -> Result<Entries<'static>> {
        listed(&**self.target.store(), options, &self.bounds.folder).await
    }

    /// The job that was left half-way when the lease was taken. To be asked before a snapshot is taken: where nothing
    /// keeps the content, one of the same name takes the place of what that job was working towards.
    pub(crate) async fn unfinished(&self, lease: &Lease) -> Result<Option<Unfinished>> {
        let Some(job) = lease.unfinished().await else { return Ok(None) };
        let ours = Some(&job.snapshot) == self.report.snapshot.as_ref() && job.source == self.source.address();
        if ours && job.id != self.report.job {
            self.progress.goes_on_with(&job.id);
        }
        let earlier = self.target.catalog().pending().await?;
        let away = Catalog::of_other(self.target.store().clone(), self.source.address());
        let found = match self.source.snapshot(&job.snapshot).await? {
            Some(found) => Some(found.catalog),
            None => away.record(&job.snapshot).await?.map(|_| away),
        };
        let towards = match found {
            Some(catalog) => {
                let manifest = catalog.manifest(&job.snapshot).await?;
                Some((catalog, manifest))
            }
            None => None,
        };
        Ok(Some(Unfinished { job, towards, earlier }))
    }

    /// Adds the keys that the unfinished job may have landed to those of the jobs before it, with the target: its
    /// snapshot may be taken anew, and the mark that it left is about to be another's.
    pub(crate) async fn remember(&self, unfinished: &mut Unfinished) -> Result<()> {
        let Some((catalog, manifest)) = unfinished.towards.take() else { return Ok(()) };
        let target = self.target.catalog().clone();
        let (earlier, last) = (self.keys(&target, unfinished.earlier.as_ref()), self.keys(&catalog, Some(&manifest)));
        let (known, like) = (target.clone(), unfinished.earlier.take());
        let keys = blocking(move || {
            let rows = merge_by_key([earlier, last]);
            let keys = rows.filter_map(|row| row.map(|(_, [a, b])| a.or(b)).transpose());
            write_manifest(&known, Handle::current(), like.as_ref(), keys)
        })
        .await?;
        target.set_pending(Some(&keys)).await?;
        unfinished.earlier = Some(keys);
        Ok(())
    }

    /// A manifest's entries without what is known of them.
    fn keys(&self, catalog: &Catalog, manifest: Option<&Manifest>) -> Entries<'static> {
        let Some(manifest) = manifest else { return Box::new(std::iter::empty()) };
        let bare = |entry: Entry| match entry.kind {
            crate::manifest::Kind::Directory => Entry::directory(entry.key),
            _ => Entry::object(entry.key, 0),
        };
        Box::new(self.entries(catalog, manifest).map(move |entry| entry.map(bare)))
    }

    /// The keys that unfinished jobs may have landed, but for those of `from`.
    fn pending(&self, from: &Origin, unfinished: Option<&Unfinished>) -> Entries<'static> {
        let Some(Unfinished { towards, earlier, .. }) = unfinished else { return Box::new(std::iter::empty()) };
        let now = from.snapshot.as_ref().map(|(_, manifest)| manifest.root_digest());
        let last = towards.as_ref().filter(|(_, manifest)| Some(manifest.root_digest()) != now);
        let last: Entries<'static> = match last {
            Some((catalog, manifest)) => self.entries(catalog, manifest),
            None => Box::new(std::iter::empty()),
        };
        let rows = merge_by_key([self.keys(self.target.catalog(), earlier.as_ref()), last]);
        Box::new(rows.filter_map(|row| row.map(|(_, [a, b])| a.or(b)).transpose()))
    }
}

/// What a proof has found.
#[derive(Default)]
struct Proved {
    manifest: Manifest,
    objects: u64,
    bytes: u64,
}

/// Somebody asked the program to stop.
pub(crate) fn stopped() -> Error {
    Error::new(Kind::Cancelled, "stopped on request").hint("run the same command again to go on")
}

fn drifted(plan: &Plan, has_base: bool) -> Error {
    let drift = plan.tell_drift(|drifted| format!("`{}` {}", drifted.key, format!("{:?}", drifted.how).to_lowercase()));
    let what = if has_base { "was changed since the last seal" } else { "holds keys that no seal vouches for" };
    Error::new(Kind::Refused, format!("the target {what}: {drift}"))
        .on(Side::Target)
        .hint("save what is worth keeping, then run again with --on-drift repair to make it what the snapshot says")
}
