//! Two buckets, a state directory, and what is in them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use snapferry::bounds::{Bounds, MaxDelete, OnDrift};
use snapferry::bucket::{Bucket, OpenOptions};
use snapferry::delta::Delta;
use snapferry::error::Result;
use snapferry::job::new_id;
use snapferry::key::Key;
use snapferry::manifest::{Attributes, Entry, Kind};
use snapferry::progress::Progress;
use snapferry::replicate::{Proof, Request, replicate};
use snapferry::report::Report;
use snapferry::restore::{self, Manner, restore};
use snapferry::snapshot::clone::CloneMode;
use snapferry::store::local::LocalStore;
use snapferry::store::memory::MemoryStore;
use snapferry::store::{Condition, ListOptions, Store};
use snapferry::transfer::Limits;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Operations at once: what may be in flight when a run dies.
pub(crate) const CONCURRENCY: usize = 4;

/// Length of a block: what is longer than two goes in parts.
pub(crate) const BLOCK_BYTES: u64 = 1 << 10;

/// How a bucket acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Like {
    /// A file system, in memory.
    Files,
    /// Objects with versions.
    Versioned,
    /// Objects without.
    Plain,
    /// Real directories that have an identity, and objects without times or permission bits.
    Trees,
    /// A real directory.
    Directory,
}

/// A store to be replicated from or to.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) like: Like,
    pub(crate) store: Arc<dyn Store>,
    directory: Option<Arc<TempDir>>,
}

impl Place {
    pub(crate) fn new(like: Like, name: &str) -> Self {
        let mut directory = None;
        let store: Arc<dyn Store> = match like {
            Like::Files => Arc::new(MemoryStore::files(name)),
            Like::Trees => Arc::new(MemoryStore::trees(name)),
            Like::Versioned => Arc::new(MemoryStore::versioned(name)),
            Like::Plain => Arc::new(MemoryStore::objects(name)),
            Like::Directory => {
                let root = directory.insert(Arc::new(tempfile::tempdir().unwrap()));
                Arc::new(LocalStore::open(root.path(), false).unwrap())
            }
        };
        Self { like, store, directory }
    }

    /// Older snapshots stay when newer ones are sealed.
    pub(crate) fn keeps(&self) -> bool {
        matches!(self.like, Like::Versioned | Like::Directory)
    }

    pub(crate) fn has_directories(&self) -> bool {
        self.store.capabilities().directories
    }

    pub(crate) async fn bucket(&self, state: &TempDir) -> Bucket {
        let options =
            OpenOptions { create: false, create_link: false, clone: CloneMode::Auto, folder: state.path().into() };
        match &self.directory {
            Some(directory) => Bucket::open(directory.path().to_str().unwrap(), &options).await.unwrap(),
            None => Bucket::of_store(self.store.clone(), &options),
        }
    }

    /// The same bucket through another store, which wraps its own.
    pub(crate) fn through(&self, store: Arc<dyn Store>) -> Self {
        assert!(self.directory.is_none(), "a directory is opened by its path");
        Self { store, ..self.clone() }
    }

    pub(crate) async fn put(&self, key: &str, data: impl Into<Bytes>) {
        self.store.write(&key.into(), data.into(), &Attributes::default(), &Condition::Any).await.unwrap();
    }

    pub(crate) async fn delete(&self, key: &str) {
        self.store.delete(&[key.into()]).await.unwrap();
    }

    pub(crate) async fn entries(&self) -> Vec<Entry> {
        let mut entries = self.store.list(ListOptions::default()).await.unwrap().collect().await.unwrap();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries
    }

    /// What the bucket holds, read from it.
    pub(crate) async fn content(&self) -> Content {
        let mut content = BTreeMap::new();
        for entry in self.entries().await {
            let data = match entry.kind {
                Kind::Directory => Bytes::new(),
                _ => self.store.read(&entry, None).await.unwrap().data,
            };
            let Entry { key, kind, mode, mtime_ns, .. } = entry;
            content.insert(key, Held { kind, data, mode, mtime_ns });
        }
        content
    }

    /// A document under `.snapferry/`, as JSON.
    pub(crate) async fn document(&self, key: &str) -> Option<serde_json::Value> {
        let found = self.store.fetch(&key.into()).await.unwrap();
        found.map(|(bytes, _)| serde_json::from_slice(&bytes).unwrap())
    }

    pub(crate) async fn is_sealed(&self, name: &str) -> bool {
        self.document(&format!(".snapferry/snapshots/{name}/snapshot.json")).await.is_some()
    }

    /// Lets the lease run out, as it does when its holder has died.
    pub(crate) async fn expire_lease(&self) {
        let Some(mut lease) = self.document(".snapferry/lease.json").await else { return };
        lease["expires"] = "1970-01-01T00:00:00Z".into();
        self.put(".snapferry/lease.json", serde_json::to_vec(&lease).unwrap()).await;
    }
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) kind: Kind,
    pub(crate) data: Bytes,
    pub(crate) mode: Option<u32>,
    pub(crate) mtime_ns: i64,
}

pub(crate) type Content = BTreeMap<Key, Held>;

/// Says how `found`, in a store like `target`, is not exactly `wanted`, from one like `source`; none if it is.
/// Directories that a file system needs for what is in them are no difference.
pub(crate) fn difference(wanted: &Content, source: &Place, found: &Content, target: &Place) -> Option<String> {
    let files = [source, target].iter().all(|place| place.store.capabilities().file_attributes);
    for (key, want) in wanted {
        let Some(have) = found.get(key) else { return Some(format!("{key:?} is missing")) };
        if (want.kind, &want.data) != (have.kind, &have.data) {
            return Some(format!("{key:?} is {have:?}, not {want:?}"));
        }
        if files && (want.mode, want.mtime_ns) != (have.mode, have.mtime_ns) {
            return Some(format!("{key:?} has attributes of {have:?}, not of {want:?}"));
        }
    }
    let implied = |key: &Key, held: &Held| {
        held.kind == Kind::Directory && target.has_directories() && wanted.keys().any(|wanted| wanted.is_under(key))
    };
    let extra = found.iter().find(|(key, held)| !wanted.contains_key(*key) && !implied(key, held));
    extra.map(|(key, held)| format!("{key:?} is extra: {held:?}"))
}

/// What a run is asked for, by default: everything allowed but drift.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) on_drift: OnDrift,
    pub(crate) max_delete: MaxDelete,
    pub(crate) proof: Proof,
    pub(crate) strict: bool,
    pub(crate) concurrency: usize,
    pub(crate) delta: Delta,
    pub(crate) learn_target: bool,
    pub(crate) memory_bytes: u64,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            on_drift: OnDrift::Refuse,
            max_delete: MaxDelete::Percent(100.0),
            proof: Proof::Listing,
            strict: false,
            concurrency: CONCURRENCY,
            delta: Delta::Auto,
            learn_target: false,
            memory_bytes: 64 << 20,
        }
    }
}

/// Both sides, and where the program keeps its files.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) source: Place,
    pub(crate) target: Place,
    pub(crate) state: TempDir,
}

impl World {
    pub(crate) fn new(source: Like, target: Like) -> Self {
        let state = tempfile::tempdir().unwrap();
        Self { source: Place::new(source, "source"), target: Place::new(target, "target"), state }
    }

    /// Another machine: the state directory is gone.
    pub(crate) fn lose_state(&mut self) {
        self.state = tempfile::tempdir().unwrap();
    }

    /// The machine died before the end of the journal was on its disk.
    pub(crate) fn cut_journal(&self) {
        let path = self.state.path().join("journal");
        if let Ok(file) = std::fs::File::options().write(true).open(path) {
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }
    }

    pub(crate) async fn run(&self, name: &str) -> (Report, Result<()>) {
        Box::pin(self.ask(name, Ask::default())).await
    }

    pub(crate) async fn ask(&self, name: &str, ask: Ask) -> (Report, Result<()>) {
        Box::pin(self.between(&self.source, &self.target, name, ask)).await
    }

    /// Replicates between these, which are this world's places or wrap them.
    pub(crate) async fn between(&self, source: &Place, target: &Place, name: &str, ask: Ask) -> (Report, Result<()>) {
        let moment = "2026-11-21T03:00:00Z".parse().unwrap();
        let request = Request {
            snapshot: Some(name.parse().unwrap()),
            dry_run: false,
            steps: false,
            proof: ask.proof,
            allow_unversioned: true,
            policy: None,
            source_catalog: None,
            job: new_id(moment),
            moment,
            bounds: self.bounds(ask),
        };
        let (from, to) = (source.bucket(&self.state).await, target.bucket(&self.state).await);
        Box::pin(replicate(from, to, request, Arc::new(Progress::default()), CancellationToken::new())).await
    }

    fn bounds(&self, ask: Ask) -> Bounds {
        Bounds {
            max_delete: ask.max_delete,
            on_drift: ask.on_drift,
            limits: Limits {
                concurrency: ask.concurrency,
                memory_bytes: ask.memory_bytes,
                strict: ask.strict,
                block_bytes: BLOCK_BYTES,
                whole_bytes_max: 2 * BLOCK_BYTES,
                delta: ask.delta,
                learn_target: ask.learn_target,
                ..Limits::default()
            },
            folder: self.state.path().into(),
            lease_term: Duration::from_secs(60),
        }
    }

    /// What a snapshot of the target restores to.
    pub(crate) async fn restored(&self, name: &str) -> (Place, Content) {
        let like = if self.target.has_directories() { Like::Files } else { Like::Versioned };
        let to = Place::new(like, "restored");
        let state = tempfile::tempdir().unwrap();
        let moment = "2026-11-22T03:00:00Z".parse().unwrap();
        let request = restore::Request {
            snapshot: name.parse().unwrap(),
            selection: Default::default(),
            in_place: None,
            job: new_id(moment),
            moment,
            bounds: Bounds { folder: state.path().into(), ..self.bounds(Ask::default()) },
        };
        let (from, bucket) = (self.target.bucket(&state).await, to.bucket(&state).await);
        let (_, outcome) =
            restore(from, bucket, request, Arc::new(Progress::default()), CancellationToken::new()).await;
        outcome.unwrap();
        let content = to.content().await;
        (to, content)
    }

    /// Restores a snapshot of `from` over what is in `to`, which are this world's places or wrap them.
    pub(crate) async fn restore_in_place(&self, from: &Place, to: &Place, name: &str) -> (Report, Result<()>) {
        let moment = "2026-11-22T03:00:00Z".parse().unwrap();
        let manner =
            Manner { target: "target".into(), safety_snapshot: to.keeps(), again: false, dry_run: false, steps: false };
        let request = restore::Request {
            snapshot: name.parse().unwrap(),
            selection: Default::default(),
            in_place: Some(manner),
            job: new_id(moment),
            moment,
            bounds: self.bounds(Ask { strict: true, ..Ask::default() }),
        };
        let (from, to) = (from.bucket(&self.state).await, to.bucket(&self.state).await);
        restore(from, to, request, Arc::new(Progress::default()), CancellationToken::new()).await
    }

    /// Says how the target does not hold exactly this, sealed under this name.
    pub(crate) async fn check_sealed(&self, name: &str, wanted: &Content) -> Result<(), String> {
        let found = self.target.content().await;
        match difference(wanted, &self.source, &found, &self.target) {
            Some(difference) => Err(format!("after {name}: {difference}")),
            None if !self.target.is_sealed(name).await => Err(format!("there is no record of {name}")),
            None => Ok(()),
        }
    }
}

/// Runs a test's future on the threads that all tests share.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    // On the heap: without optimisation each call on the way would have a copy of it on the stack.
    RUNTIME.get_or_init(|| Runtime::new().unwrap()).block_on(Box::pin(work))
}
