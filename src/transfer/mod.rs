//! Brings content to the target: many objects at once, in bounded memory, each proved as it passes.
//!
//! Two lanes run side by side over the same plan, so that neither starves the other: whole small objects, and parts of
//! large ones. Bytes are taken from one budget before they are read and given back when the target has acknowledged
//! the write.

mod assemble;
mod bandwidth;
mod batch;
mod budget;
mod compare;
mod content;
mod hashing;
mod lanes;
mod limiter;
mod marks;
mod parts;
mod staging;
mod switch;
mod timetable;
mod whole;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use self::assemble::Assembled;
use self::bandwidth::Bandwidth;
pub(crate) use self::budget::Budget;
use self::compare::Likeness;
pub(crate) use self::content::content;
use self::hashing::Hashing;
use self::limiter::Limiter;
use self::marks::Marks;
pub(crate) use self::staging::empty_staging;
pub use self::timetable::{Days, Period, Timetable};

use crate::catalog::{Catalog, Lease};
use crate::clock::Clock;
use crate::delta::{Delta, Policy};
use crate::error::{Error, Kind, Result, Side};
use crate::journal::{Event, Journal, OpenUpload};
use crate::key::Key;
use crate::manifest::{Attributes, Digest, Entry, Kind as EntryKind, Pin};
use crate::plan::{Landing, Method, same_mode, staging_key};
use crate::progress::Progress;
use crate::retry::retry;
use crate::snapshot::{Name, Provider};
use crate::store::{Condition, Store};

/// Up to this size an object goes in one request unless it is set, in bytes.
const WHOLE_BYTES_MAX: u64 = 8 << 20;

/// The length of a block unless it is set, in bytes.
pub(crate) const BLOCK_BYTES: u64 = 8 << 20;

/// How often an object that keeps changing is pinned again before that is an error.
const REPINS_MAX: u32 = 3;

/// What limits a transfer.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most operations at once, in each lane.
    pub concurrency: usize,
    /// Bytes of content in flight.
    pub memory_bytes: u64,
    /// Bytes per second, over all.
    pub bandwidth: Timetable,
    /// An object that changed at the source is an error, not pinned again.
    pub strict: bool,
    /// When only changed blocks of large objects move.
    pub delta: Delta,
    /// The target may be read for block digests that are not known.
    pub learn_target: bool,
    /// Length of a block, in bytes: a power of two from 1,024.
    pub block_bytes: u64,
    /// Up to this size an object goes in one request, in bytes.
    pub whole_bytes_max: u64,
}

impl Default for Limits {
    /// What the command line has without options.
    fn default() -> Self {
        Self {
            concurrency: 64,
            memory_bytes: (256 << 20) / 3,
            bandwidth: Timetable::default(),
            strict: false,
            delta: Delta::Auto,
            learn_target: false,
            block_bytes: BLOCK_BYTES,
            whole_bytes_max: WHOLE_BYTES_MAX,
        }
    }
}

impl Limits {
    /// Limits for a process that stays within this many bytes. Memory is for more than content in flight: what the stores
    /// receive it in and send it from, sorting, listings, and what the allocator keeps.
    pub fn within(memory_bytes: u64) -> Self {
        Self { memory_bytes: (memory_bytes / 3).max(16 << 20), ..Self::default() }
    }

    /// What they say of when only changed blocks move.
    pub fn policy(&self) -> Policy {
        let Self { delta, learn_target, whole_bytes_max, block_bytes, .. } = *self;
        // What has one block has nothing to be put together from.
        Policy { delta, learn_target, whole_bytes_max: whole_bytes_max.max(block_bytes), block_bytes }
    }
}

/// Both sides of a transfer and all that it shares.
#[derive(Debug)]
pub struct Transfer {
    /// Reads the source's snapshot.
    source: Arc<dyn Store>,
    target: Arc<dyn Store>,
    provider: Arc<dyn Provider>,
    snapshot: Name,
    journal: Arc<Journal>,
    lease: Arc<Lease>,
    progress: Arc<Progress>,
    cancel: CancellationToken,
    /// An earlier run stopped half-way: look for what it has staged.
    resuming: bool,
    strict: bool,
    policy: Policy,
    uploads: Mutex<HashMap<String, OpenUpload>>,
    marks: Marks,
    budget: Budget,
    bandwidth: Bandwidth,
    hashing: Hashing,
    small: Limiter,
    large: Limiter,
}

/// What a [`Transfer`] is made of.
#[derive(Debug)]
pub struct Setup {
    /// Reads the source's snapshot.
    pub source: Arc<dyn Store>,
    /// Is written.
    pub target: Arc<dyn Store>,
    /// Pins again what changed.
    pub provider: Arc<dyn Provider>,
    /// The snapshot that is being transferred.
    pub snapshot: Name,
    /// Remembers, with the target, what uploads are under way.
    pub catalog: Catalog,
    /// Remembers what landed.
    pub journal: Arc<Journal>,
    /// Says whether we may still write.
    pub lease: Arc<Lease>,
    /// Counts.
    pub progress: Arc<Progress>,
    /// Stops everything.
    pub cancel: CancellationToken,
    /// An earlier run stopped half-way.
    pub resuming: bool,
    /// Uploads that it left open.
    pub uploads: HashMap<String, OpenUpload>,
    /// Says which limit on bytes per second holds now.
    pub clock: Clock,
    /// What limits the transfer.
    pub limits: Limits,
}

impl Transfer {
    /// A transfer that is ready to start.
    pub fn new(setup: Setup) -> Self {
        let Setup {
            source,
            target,
            provider,
            snapshot,
            catalog,
            journal,
            lease,
            progress,
            cancel,
            resuming,
            uploads,
            clock,
            limits,
        } = setup;
        let start = limits.concurrency.min(16);
        Self {
            source,
            target,
            provider,
            snapshot,
            journal,
            lease,
            progress,
            cancel,
            resuming,
            strict: limits.strict,
            policy: limits.policy(),
            uploads: Mutex::new(uploads),
            marks: Marks::new(catalog),
            budget: Budget::new(limits.memory_bytes),
            bandwidth: Bandwidth::new(limits.bandwidth, clock),
            hashing: Hashing::default(),
            small: Limiter::new(start, limits.concurrency),
            large: Limiter::new(start, limits.concurrency),
        }
    }

    /// Lands one object, however that takes.
    async fn land(&self, landing: Landing) -> Result<()> {
        self.lease.check()?;
        let size = landing.source.size;
        if landing.method == Method::Copy && self.copy(&landing).await? {
            self.finished(size, |progress| Progress::add(&progress.bytes_reused, size));
            return Ok(());
        }
        if landing.staged && self.resuming && self.adopt_staged(&landing).await? {
            self.finished(size, |progress| Progress::add(&progress.bytes_reused, size));
            return Ok(());
        }
        if landing.compare
            && let Some(there) = &landing.replaces
        {
            let reused = match self.likeness(&landing.source, there).await? {
                Likeness::Whole => true,
                Likeness::Content(from) if landing.staged && self.target.capabilities().copy => {
                    self.copy(&Landing { method: Method::Copy, from: Some(*from), ..landing.clone() }).await?
                }
                _ => false,
            };
            if reused {
                self.finished(size, |progress| Progress::add(&progress.bytes_reused, size));
                return Ok(());
            }
        }
        let landed = self.read(landing).await?;
        self.journal.append(Event::Landed(landed)).await?;
        // Its bytes were counted as they passed.
        self.finished(0, |progress| Progress::add(&progress.objects_copied, 1));
        Ok(())
    }

    fn finished(&self, size: u64, count: impl Fn(&Progress)) {
        Progress::add(&self.progress.objects_done, 1);
        Progress::add(&self.progress.bytes_done, size);
        count(&self.progress);
    }

    /// Reads from the source and writes to the target, pinning again what changed meanwhile.
    async fn read(&self, landing: Landing) -> Result<Entry> {
        let at = landing.lands_at();
        let condition = landing.condition();
        let mut source = landing.source.clone();
        for _ in 0..REPINS_MAX {
            let outcome = if source.size <= self.policy.whole_bytes_max {
                self.whole(&source, &at, &condition).await
            } else {
                self.in_pieces(&landing, &source, &at, &condition).await
            };
            match outcome {
                Err(error) if error.side() == Some(Side::Source) && is_repinnable(&error) && !self.strict => {
                    source = self.repin(&source).await?;
                }
                outcome => return outcome,
            }
        }
        Err(Error::new(Kind::Changed, "it changes faster than it can be read")
            .on(Side::Source)
            .key(&source.key)
            .hint("stop its writer for a moment, or run the same command again"))
    }

    /// A large object, in parts; only what changed of it where the target has an older version that serves.
    async fn in_pieces(&self, landing: &Landing, source: &Entry, at: &Key, condition: &Condition) -> Result<Entry> {
        match self.assemble(landing, source, at, condition).await? {
            Assembled::Landed(entry) => Ok(*entry),
            Assembled::Whole(condition) => self.in_parts(source, at, &condition).await,
        }
    }

    async fn repin(&self, entry: &Entry) -> Result<Entry> {
        let pinned = self.provider.repin(&self.snapshot, entry).await.map_err(|error| error.on(Side::Source))?;
        self.journal.append(Event::Repinned(pinned.clone())).await?;
        self.progress.repinned(&pinned.key);
        tracing::info!("`{}` had changed since the snapshot and was pinned again as it is now", pinned.key);
        Ok(pinned)
    }

    /// Copies on the target's own side. False when that cannot be done and the content has to come from the source.
    async fn copy(&self, landing: &Landing) -> Result<bool> {
        let Some(from) = &landing.from else { return Ok(false) };
        let at = landing.lands_at();
        let condition = landing.condition();
        let source = &landing.source;
        let wanted = Attributes { mtime_ns: Some(source.mtime_ns), mode: source.mode, ..Attributes::default() };
        let files = self.target.capabilities().file_attributes && self.source.capabilities().file_attributes;
        let differs = !same_mode(source, from) || (files && source.mtime_ns != from.mtime_ns);
        let attributes = differs.then(|| merged(from.attributes.as_deref(), wanted));
        let copy = async |condition: &Condition| {
            self.retrying(|| self.target.copy(from, &at, attributes.as_ref(), condition)).await
        };
        let mut copied = copy(&condition).await;
        if matches!(&copied, Err(error) if error.kind() == Kind::AlreadyExists) {
            // versitygw takes the mark of a removal for an object.
            let there = self.retrying(|| self.target.stat(&at)).await.map_err(|error| error.on(Side::Target))?;
            if there.is_none() {
                copied = copy(&Condition::Any).await;
            }
        }
        match copied {
            Ok(pin) => {
                let landed = Entry {
                    pin,
                    mode: source.mode.or(from.mode),
                    attributes: from.attributes.clone(),
                    digest: from.digest,
                    blocks: from.blocks.clone(),
                    ..landed_as(source)
                };
                self.journal.append(Event::Landed(landed)).await?;
                Ok(true)
            }
            Err(error)
                if matches!(error.kind(), Kind::NotFound | Kind::Changed | Kind::Unsupported | Kind::AlreadyExists) =>
            {
                tracing::debug!("copying on the target failed, so the source is read: {error}");
                Ok(false)
            }
            Err(error) => Err(error.on(Side::Target)),
        }
    }

    /// Takes what an earlier run has staged, if it is whole. Staging names stand for key and content, and appear only
    /// when all bytes are there.
    async fn adopt_staged(&self, landing: &Landing) -> Result<bool> {
        let at = staging_key(&landing.source);
        let Some(staged) = self.retrying(|| self.target.stat(&at)).await.map_err(|error| error.on(Side::Target))?
        else {
            return Ok(false);
        };
        let source = &landing.source;
        let keeps_mtime = self.target.capabilities().file_attributes && self.source.capabilities().file_attributes;
        if staged.size != source.size || (keeps_mtime && staged.mtime_ns != source.mtime_ns) {
            return Ok(false);
        }
        let digest = match &landing.landed {
            Some(landed) if landed.pin.matches(&staged.pin) => return Ok(true),
            _ => self.digest_of(&*self.target, &staged, Side::Target).await?,
        };
        let landed = Entry { pin: staged.pin, mode: staged.mode, digest: Some(digest), ..landed_as(source) };
        self.journal.append(Event::Landed(landed)).await?;
        Ok(true)
    }

    async fn retrying<T, F>(&self, work: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let work = retry(work, |error| self.failed(error));
        match self.cancel.run_until_cancelled(work).await {
            Some(outcome) => outcome,
            None => Err(Error::new(Kind::Cancelled, "stopped")),
        }
    }

    /// Bytes crossed to the target.
    fn crossed(&self, bytes: u64) {
        Progress::add(&self.progress.bytes_copied, bytes);
        Progress::add(&self.progress.bytes_done, bytes);
    }

    /// An operation failed and is tried again.
    fn failed(&self, error: &Error) {
        self.progress.retried(error);
        if error.kind() == Kind::Throttled {
            self.small.throttled();
            self.large.throttled();
        }
    }

    /// What travels with the object to the target: as read, completed by what the manifest knows.
    fn attributes(&self, source: &Entry, read: Attributes) -> Attributes {
        let mut attributes = merged(source.attributes.as_deref(), read);
        if let (Some(_), Some(file)) = (source.digest, &source.pin.file) {
            // A sealed file's own times and bits may have been touched since; what was sealed is in the manifest.
            attributes.mtime_ns = Some(file.mtime_ns);
            attributes.mode = source.mode.or(attributes.mode);
        }
        if self.target.capabilities().file_attributes || self.source.capabilities().file_attributes {
            attributes.mtime_ns = attributes.mtime_ns.or(Some(source.mtime_ns));
            attributes.mode = attributes.mode.or(source.mode);
        }
        attributes
    }

    /// What the journal and the manifest keep of the attributes: what the target cannot hold itself.
    fn kept(&self, attributes: &Attributes) -> Option<Box<Attributes>> {
        let target = self.target.capabilities();
        let keeps = (target.file_attributes && attributes.beyond_files())
            || (!target.headers && !attributes.headers.is_empty());
        keeps.then(|| Box::new(Attributes { mtime_ns: None, mode: None, ..attributes.clone() }))
    }
}

/// True for failures that a fresh pin can mend.
fn is_repinnable(error: &Error) -> bool {
    error.kind() == Kind::Changed
}

/// The target's entry for content of this source entry; its own pin is still to be filled in.
fn landed_as(source: &Entry) -> Entry {
    Entry {
        key: source.key.clone(),
        kind: source.kind,
        size: source.size,
        mtime_ns: source.mtime_ns,
        mode: source.mode,
        pin: Pin::default(),
        origin: Some(source.pin.clone()),
        digest: source.digest,
        blocks: None,
        attributes: None,
    }
}

/// Attributes from a manifest win over what a store could hold itself, but for file attributes.
fn merged(manifest: Option<&Attributes>, read: Attributes) -> Attributes {
    match manifest {
        None => read,
        Some(known) => {
            Attributes { mtime_ns: read.mtime_ns.or(known.mtime_ns), mode: read.mode.or(known.mode), ..known.clone() }
        }
    }
}

/// The digest, where it is worth keeping: directories have none.
fn digest_if(entry: &Entry, digest: Digest) -> Option<Digest> {
    (entry.kind == EntryKind::Object).then_some(digest)
}

fn source_gone(error: Error, key: &Key) -> Error {
    match error.kind() {
        Kind::NotFound => error
            .on(Side::Source)
            .key(key)
            .hint("it was removed after the snapshot was taken; run the same command again to go on"),
        _ => error.on(Side::Source).key(key),
    }
}
