//! A bucket: a root of objects named by a URL, with its catalog and its way of keeping snapshots.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::blocking::blocking;
use crate::catalog::{Catalog, FORMAT, Lease, Record};
use crate::error::{Error, Kind, Result};
use crate::snapshot::clone::CloneMode;
use crate::snapshot::{Listed, Name, Provider, Tree};
use crate::store::Store;
use crate::store::local::LocalStore;
use crate::store::memory::MemoryStore;
use crate::store::s3::S3Store;

/// How long the lease for a short piece of work lasts unless renewed.
const LEASE_TERM: Duration = Duration::from_secs(60);

/// How long a short piece of work waits for the lease, and how long between two tries.
const LEASE_WAIT: Duration = Duration::from_secs(20);
const LEASE_PAUSE: Duration = Duration::from_millis(250);

/// How a bucket is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Make a local directory that does not exist.
    pub create: bool,
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
    folder: PathBuf,
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
        match url.split_once(':') {
            Some(("s3", _)) => Ok(Self::of_store(Arc::new(S3Store::open(url).await?), options)),
            Some(("memory", name)) => Ok(Self::of_store(Arc::new(MemoryStore::versioned(name)), options)),
            Some(("file", rest)) => match rest.strip_prefix("//") {
                Some(path) if path.starts_with('/') => Self::open_directory(Path::new(path), options).await,
                _ => Err(Error::usage(format!("`{url}` is no file URL")).hint("write file:///absolute/path")),
            },
            Some((scheme @ ("gs" | "az" | "hdfs" | "o3" | "ofs" | "o3fs"), _)) => {
                Err(Error::new(Kind::Usage, format!("this version does not serve {scheme}:// yet"))
                    .hint("it serves local directories and s3://"))
            }
            Some((scheme, rest)) if rest.starts_with("//") => {
                Err(Error::usage(format!("`{scheme}` is no kind of store that is known"))
                    .hint("use a path, file:///… or s3://bucket/prefix?endpoint=…"))
            }
            _ => Self::open_directory(Path::new(url), options).await,
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
            folder,
        })
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
        Self { store, directory: None, locked: None, catalog, provider, folder: options.folder.clone() }
    }

    /// The same bucket when nothing may be written to it: its snapshots are lists, kept in `catalog`.
    #[must_use]
    pub fn read_only(&self, catalog: Catalog) -> Self {
        let provider = Arc::new(Listed::new(self.store.clone(), catalog.clone(), &self.folder));
        Self { provider, catalog, locked: None, ..self.clone() }
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

    /// The URL without secrets.
    pub fn address(&self) -> &str {
        self.store.address()
    }

    /// True where nothing can be written, as far as that shows without trying.
    pub fn is_read_only(&self) -> bool {
        let Some(directory) = &self.directory else { return false };
        rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_err()
    }

    /// Takes the bucket's lease: nobody else changes its content, or its snapshots, until it is given back.
    pub async fn lease(&self, job: &str, term: Duration) -> Result<Lease> {
        Lease::take(&self.catalog, job, term, self.locked.as_deref()).await
    }

    /// As [`Self::lease`], waiting a little for a holder that is soon done.
    pub async fn lease_soon(&self, job: &str) -> Result<Lease> {
        let deadline = Instant::now() + LEASE_WAIT;
        loop {
            match self.lease(job, LEASE_TERM).await {
                Err(error) if error.kind() == Kind::Refused && Instant::now() < deadline => {
                    tokio::time::sleep(LEASE_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// The snapshot of this name, if there is one.
    pub async fn snapshot(&self, name: &Name) -> Result<Option<Snapshot>> {
        let Some(record) = self.catalog.record(name).await? else { return Ok(None) };
        let (catalog, provider) = (self.catalog.clone(), self.provider.clone());
        Ok(Some(Snapshot { record, catalog, provider }))
    }

    /// The snapshot of this name, which has to be there.
    pub async fn existing(&self, name: &Name) -> Result<Snapshot> {
        self.snapshot(name).await?.ok_or_else(|| {
            Error::new(Kind::NotFound, format!("it has no snapshot {name}"))
                .at(self.address())
                .hint("`snapferry snapshot list` shows which there are")
        })
    }

    /// Takes a snapshot, replacing the record of one of the same name. Holds the lease meanwhile: a bucket that a job
    /// is writing to has no state worth a name.
    pub async fn take(&self, name: &Name, as_of_ns: Option<i64>) -> Result<Snapshot> {
        let lease = self.lease_soon(&format!("snapshot {name}")).await?;
        let taken = match lease.unfinished().await {
            None => self.take_under_lease(name, as_of_ns).await,
            Some(job) => {
                Err(Error::new(Kind::Refused, format!("a sync from {} was left unfinished there", job.source))
                    .at(self.address())
                    .hint("let that sync run to its end first: what is there now is neither its base nor its snapshot"))
            }
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
        let totals = taken.manifest.totals();
        let record = Record {
            format: FORMAT,
            name: name.clone(),
            kind: self.provider.kind(),
            created: Timestamp::now(),
            sequence: newest.map_or(0, |newest| newest.sequence) + 1,
            root: taken.manifest.root_digest().to_hex().to_string(),
            objects: totals.objects,
            directories: totals.directories,
            bytes: totals.bytes,
            others: taken.others,
            sealed_from: None,
        };
        self.catalog.publish(&record, &taken.manifest, None).await?;
        let (catalog, provider) = (self.catalog.clone(), self.provider.clone());
        Ok(Snapshot { record, catalog, provider })
    }
}
