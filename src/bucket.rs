//! A bucket: a root of objects named by a URL, with its catalog and its way of keeping snapshots.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::blocking::blocking;
use crate::catalog::{Catalog, FORMAT, Job, Lease, Record};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::key::{Key, SNAPSHOTS};
use crate::manifest::Manifest;
use crate::merge::Entries;
use crate::place::Place;
use crate::snapshot::clone::CloneMode;
use crate::snapshot::{Listed, Name, Native, Others, Provider, SnapshotKind, Tree};
use crate::store::Store;
use crate::store::local::LocalStore;
use crate::store::memory::MemoryStore;
use crate::store::ozone::OzoneStore;
use crate::store::s3::S3Store;

/// How long the lease for a short piece of work lasts unless renewed.
const LEASE_TERM: Duration = Duration::from_secs(60);

/// How long a short piece of work waits for the lease, and how long between two tries.
const LEASE_WAIT: Duration = Duration::from_secs(20);
const LEASE_PAUSE: Duration = Duration::from_millis(250);

/// How long anybody waits for who has said that it is soon done: it may have a large tree to remove.
const BRIEF_WAIT: Duration = Duration::from_secs(600);

/// How a bucket is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Make a local directory that does not exist.
    pub create: bool,
    /// Make the link through which Ozone's S3 Gateway serves a bucket that is to be written.
    pub create_link: bool,
    /// How snapshots of a local directory are cloned.
    pub clone: CloneMode,
    /// Where sorting may put files.
    pub folder: PathBuf,
}

/// A bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    store: Arc<dyn Store>,
    directory: Option<PathBuf>,
    /// The directory that the lease locks: the bucket's own, where its catalog is in it.
    locked: Option<PathBuf>,
    catalog: Catalog,
    provider: Arc<dyn Provider>,
    /// Where the store takes snapshots itself.
    native: Option<Arc<Natives>>,
    folder: PathBuf,
    clock: Clock,
}

/// The snapshots that a store keeps itself, of which the catalog knows those that were sealed.
#[derive(Debug)]
struct Natives {
    store: Arc<OzoneStore>,
    provider: Arc<Native>,
    /// What is in those that were looked into.
    lists: Catalog,
    _folder: tempfile::TempDir,
}

/// A snapshot with the way to its content.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its record.
    pub record: Record,
    /// The catalog that has its manifest.
    pub catalog: Catalog,
    /// Keeps it.
    pub provider: Arc<dyn Provider>,
}

impl Bucket {
    /// Opens the bucket that a URL, or a plain path, names.
    pub async fn open(url: &str, options: &OpenOptions) -> Result<Self> {
        match Place::of(url)? {
            Place::S3 => Ok(Self::of_store(Arc::new(S3Store::open(url).await?), options)),
            Place::Ozone => Self::open_ozone(url, options).await,
            Place::Memory(name) => Ok(Self::of_store(Arc::new(MemoryStore::versioned(name)), options)),
            Place::Directory(path) => Self::open_directory(Path::new(path), options).await,
        }
    }

    async fn open_directory(path: &Path, options: &OpenOptions) -> Result<Self> {
        let (path, create) = (path.to_owned(), options.create);
        let opened = blocking(move || LocalStore::open(&path, create)).await;
        let local = Arc::new(opened.map_err(|error| match error.kind() {
            Kind::NotFound => error.hint("check the path; a directory that does not exist is not an empty one"),
            _ => error,
        })?);
        let directory = local.path().to_owned();
        let catalog = Catalog::of(local.clone());
        let provider = Arc::new(Tree::new(local.clone(), catalog.clone(), options.clone, &options.folder));
        let folder = options.folder.clone();
        Ok(Self {
            store: local,
            locked: Some(directory.clone()),
            directory: Some(directory),
            catalog,
            provider,
            native: None,
            folder,
            clock: Clock::default(),
        })
    }

    async fn open_ozone(url: &str, options: &OpenOptions) -> Result<Self> {
        let store = Arc::new(OzoneStore::open(url, options.create_link).await?);
        let folder = tempfile::tempdir_in(&options.folder).map_err(|error| {
            Error::from(error).at(options.folder.display().to_string()).hint("name another folder with --state-dir")
        })?;
        let path = folder.path().to_owned();
        let lists = Catalog::of(Arc::new(blocking(move || LocalStore::open(&path, false)).await?));
        let provider = Arc::new(Native::new(store.clone(), lists.clone(), &options.folder));
        let natives = Natives { store: store.clone(), provider: provider.clone(), lists, _folder: folder };
        Ok(Self { provider, native: Some(Arc::new(natives)), ..Self::of_store(store, options) })
    }

    /// A directory that does not exist, for a rehearsal: as if it were there and empty.
    pub fn empty_directory(url: &str, options: &OpenOptions) -> Self {
        let directory = Some(PathBuf::from(url));
        Self { directory, ..Self::of_store(Arc::new(MemoryStore::files(url)), options) }
    }

    /// The bucket that this store is, with its catalog in it.
    pub fn of_store(store: Arc<dyn Store>, options: &OpenOptions) -> Self {
        let catalog = Catalog::of(store.clone());
        let provider = Arc::new(Listed::new(store.clone(), catalog.clone(), &options.folder));
        let folder = options.folder.clone();
        Self { store, directory: None, locked: None, catalog, provider, native: None, folder, clock: Clock::default() }
    }

    /// The same bucket when nothing may be written to it: its snapshots are lists, kept in `catalog`.
    #[must_use]
    pub fn read_only(&self, catalog: Catalog) -> Self {
        let provider = Arc::new(Listed::new(self.store.clone(), catalog.clone(), &self.folder));
        Self { provider, catalog, locked: None, native: None, ..self.clone() }
    }

    /// The same bucket by this clock, which says when its snapshots are made.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// What tells the time here.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The objects.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The directory, where it is one; canonical.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// The records.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The way of keeping snapshots.
    pub fn provider(&self) -> &Arc<dyn Provider> {
        &self.provider
    }

    /// Where sorting may put files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// True when its records are with its objects, so that all who make snapshots of it are known there.
    pub(crate) fn keeps_own_catalog(&self) -> bool {
        Arc::ptr_eq(&self.store, self.catalog.store()) && self.catalog.is_of_bucket()
    }

    /// The URL without secrets.
    pub fn address(&self) -> &str {
        self.store.address()
    }

    /// True where nothing can be written, as far as that shows without trying.
    pub fn is_read_only(&self) -> bool {
        let Some(directory) = &self.directory else { return false };
        rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_err()
    }

    /// Takes the bucket's lease: nobody else changes its content, or its snapshots, until it is given back. Waits a little
    /// for who has it briefly, and for no other job.
    pub async fn lease(&self, job: &str, term: Duration) -> Result<Lease> {
        self.lease_after(job, term, false, false).await
    }

    /// As [`Self::lease`] for a short piece of work, waiting a little for any holder.
    pub async fn lease_soon(&self, job: &str) -> Result<Lease> {
        self.lease_after(job, LEASE_TERM, false, true).await
    }

    /// As [`Self::lease`], to be given back within seconds: others wait for that.
    pub async fn lease_briefly(&self, job: &str) -> Result<Lease> {
        self.lease_after(job, LEASE_TERM, true, false).await
    }

    async fn lease_after(&self, job: &str, term: Duration, brief: bool, patient: bool) -> Result<Lease> {
        let since = Instant::now();
        loop {
            let taken = Lease::take(&self.catalog, job, term, brief, self.locked.as_deref()).await;
            let Some(error) = taken.as_ref().err().filter(|error| error.kind() == Kind::Held) else { return taken };
            let wait = match Lease::is_brief(&self.catalog).await? {
                Some(true) => BRIEF_WAIT,
                Some(false) if !patient => return taken,
                // Given back, or taken and not yet said by whom.
                _ => LEASE_WAIT,
            };
            if since.elapsed() >= wait {
                return taken;
            }
            tracing::debug!("waiting for the lease: {error}");
            tokio::time::sleep(LEASE_PAUSE).await;
        }
    }

    /// True where a snapshot keeps its content while the bucket goes on.
    pub fn keeps_snapshots(&self) -> bool {
        self.directory.is_some() || self.provider.kind() != SnapshotKind::Guarded
    }

    /// A name after this moment, or a little later one, of which there is no snapshot yet: names have the grain of a second.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub(crate) async fn free_name(
        &self,
        mut moment: Timestamp,
        name: impl Fn(Timestamp) -> Result<Name>,
    ) -> Result<Name> {
        loop {
            let name = self.provider.fitting(name(moment)?);
            if self.record(&name).await?.is_none() {
                return Ok(name);
            }
            moment = moment.checked_add(Duration::from_secs(1)).map_err(|_| Error::usage("the clock is at its end"))?;
        }
    }

    /// The record of a snapshot, if there is one. Where the store keeps snapshots itself, one that somebody deleted there
    /// is gone, and one that was not sealed has an empty root: nothing has looked into it.
    pub async fn record(&self, name: &Name) -> Result<Option<Record>> {
        let Some(native) = &self.native else { return self.catalog.record(name).await };
        let Some(found) = native.store.snapshot(name).await? else { return Ok(None) };
        let record = self.catalog.record(name).await?;
        Ok(Some(record.unwrap_or_else(|| unseen(name, found.created_ms))))
    }

    /// The records of all snapshots, the newest first, as [`Self::record`] gives them.
    pub async fn records(&self) -> Result<Vec<Record>> {
        let mut records = self.catalog.records().await?;
        if let Some(native) = &self.native {
            let mut known: HashMap<Name, Record> =
                records.drain(..).map(|record| (record.name.clone(), record)).collect();
            for found in native.store.snapshots().await? {
                // A name that is none of ours was given by a tool of Ozone's, and cannot be asked for here.
                let Ok(name) = found.name.parse::<Name>() else { continue };
                let record = known.remove(&name);
                records.push(record.unwrap_or_else(|| unseen(&name, found.created_ms)));
            }
            records.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| b.name.cmp(&a.name)));
        }
        Ok(records)
    }

    /// The snapshot of this name, if there is one; of one that the store keeps itself, what is in it is listed.
    pub async fn snapshot(&self, name: &Name) -> Result<Option<Snapshot>> {
        let Some(record) = self.record(name).await? else { return Ok(None) };
        let provider = self.provider.clone();
        let native = self.native.as_ref().filter(|_| !record.is_counted());
        let Some(native) = native else {
            return Ok(Some(Snapshot { record, catalog: self.catalog.clone(), provider }));
        };
        let catalog = native.lists.clone();
        let record = match catalog.record(name).await? {
            Some(listed) => listed,
            None => {
                let manifest = native.provider.list(name).await?;
                let record = counted(record, &manifest);
                catalog.publish(&record, &manifest, None).await?;
                record
            }
        };
        Ok(Some(Snapshot { record, catalog, provider }))
    }

    /// The snapshot of this name, which has to be there.
    pub async fn existing(&self, name: &Name) -> Result<Snapshot> {
        self.snapshot(name).await?.ok_or_else(|| self.no_snapshot(name))
    }

    /// The error of who asked for a snapshot that is not there.
    pub fn no_snapshot(&self, name: &Name) -> Error {
        Error::new(Kind::NotFound, format!("it has no snapshot {name}"))
            .at(self.address())
            .hint("`snapferry snapshot list` shows which there are")
    }

    /// As [`Self::take`], for who does not want to know what is in it: where the store takes snapshots itself, that costs
    /// one request however much there is.
    pub async fn create_snapshot(&self, name: &Name, as_of_ns: Option<i64>) -> Result<Record> {
        let Some(native) = &self.native else { return Ok(self.take_listed(name, as_of_ns).await?.record) };
        // The store takes it in one step, so nothing has to be kept away meanwhile, and nothing is written.
        self.refuse_unfinished().await?;
        let made = native.provider.create(name, as_of_ns).await?;
        Ok(unseen(name, made.created_ms))
    }

    /// Of a snapshot that the store keeps itself: what is in it, from the entries of an older one with so many objects and
    /// what the store says has changed since. None where only a listing tells. To be proved by one in the end.
    pub(crate) async fn since(
        &self,
        name: &Name,
        older: &Name,
        entries: Entries<'static>,
        objects: u64,
    ) -> Result<Option<(Snapshot, Manifest)>> {
        let Some(native) = &self.native else { return Ok(None) };
        let (Some(record), Some(_)) = (self.record(name).await?, native.store.snapshot(older).await?) else {
            return Ok(None);
        };
        let Some(manifest) = native.provider.since(name, older, entries, objects).await? else { return Ok(None) };
        let record = counted(record, &manifest);
        let snapshot = Snapshot { record, catalog: native.lists.clone(), provider: self.provider.clone() };
        Ok(Some((snapshot, manifest)))
    }

    /// What a snapshot that the store keeps itself lists, in byte order.
    pub(crate) async fn listed(&self, name: &Name) -> Result<Entries<'static>> {
        match &self.native {
            Some(native) => native.provider.entries(name).await,
            None => Err(Error::internal("the store keeps no snapshots itself").at(self.address())),
        }
    }

    /// What a dead job has left is neither its base nor its snapshot, and no state worth a name.
    async fn refuse_unfinished(&self) -> Result<()> {
        match Lease::left_unfinished(&self.catalog).await? {
            Some(job) => Err(unfinished(&job).at(self.address())),
            None => Ok(()),
        }
    }

    /// As [`Self::create_snapshot`] of the bucket as it is, for who holds its lease.
    pub(crate) async fn create_held(&self, name: &Name) -> Result<()> {
        match &self.native {
            Some(native) => native.provider.create(name, None).await.map(drop),
            None => self.take_under_lease(name, None).await.map(drop),
        }
    }

    /// Where a snapshot can be read by a path, or `key` in it, where that can be done: in a directory, and in Ozone by its own
    /// clients.
    pub fn path_of(&self, record: &Record, key: Option<&Key>) -> Option<String> {
        let root = match (record.kind, &self.directory) {
            (SnapshotKind::Clone, Some(directory)) => directory.display().to_string(),
            (SnapshotKind::Native, _) => {
                let place = self.address().split('?').next()?;
                format!("ofs://{}", place.split_once("://")?.1.trim_end_matches('/'))
            }
            _ => return None,
        };
        let key = key.map(|key| format!("/{key}")).unwrap_or_default();
        Some(format!("{root}/{SNAPSHOTS}{}{key}", record.name))
    }

    /// Takes a snapshot, replacing the record of one of the same name. Holds the lease meanwhile: a bucket that a job
    /// is writing to has no state worth a name.
    pub async fn take(&self, name: &Name, as_of_ns: Option<i64>) -> Result<Snapshot> {
        if self.native.is_some() {
            self.create_snapshot(name, as_of_ns).await?;
            return self.existing(name).await;
        }
        self.take_listed(name, as_of_ns).await
    }

    async fn take_listed(&self, name: &Name, as_of_ns: Option<i64>) -> Result<Snapshot> {
        let lease = self.lease_soon(&format!("snapshot {name}")).await?;
        let taken = match lease.unfinished().await {
            None => self.take_under_lease(name, as_of_ns).await,
            Some(job) => Err(unfinished(&job).at(self.address())),
        };
        let released = lease.release(false).await;
        let taken = taken?;
        released.map(|()| taken)
    }

    async fn take_under_lease(&self, name: &Name, as_of_ns: Option<i64>) -> Result<Snapshot> {
        let newest = self.catalog.newest(|_| true).await?;
        let taken = self.provider.take(name, as_of_ns).await?;
        for key in &taken.others_named {
            tracing::warn!("`{key}` is a link, socket, pipe or device: counted, not copied");
        }
        let record = Record {
            kind: self.provider.kind(),
            created: self.clock.now(),
            sequence: newest.map_or(0, |newest| newest.sequence) + 1,
            others: taken.others,
            ..unseen(name, 0)
        };
        let record = counted(record, &taken.manifest);
        self.catalog.publish(&record, &taken.manifest, None).await?;
        let (catalog, provider) = (self.catalog.clone(), self.provider.clone());
        Ok(Snapshot { record, catalog, provider })
    }
}

fn unfinished(job: &Job) -> Error {
    let work = job.work();
    job.left_unfinished()
        .hint(format!("let that {work} run to its end first: what is there now is neither what was nor what is to be"))
}

/// The record of a snapshot that the store keeps and that nothing has looked into.
fn unseen(name: &Name, created_ms: u64) -> Record {
    Record {
        format: FORMAT,
        name: name.clone(),
        kind: SnapshotKind::Native,
        created: i64::try_from(created_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default(),
        sequence: 0,
        root: String::new(),
        objects: 0,
        directories: 0,
        bytes: 0,
        others: Others::default(),
        sealed_from: None,
    }
}

/// The record when what is in the snapshot is known.
fn counted(record: Record, manifest: &Manifest) -> Record {
    let totals = manifest.totals();
    Record {
        root: manifest.root_digest().to_hex().to_string(),
        objects: totals.objects,
        directories: totals.directories,
        bytes: totals.bytes,
        ..record
    }
}
