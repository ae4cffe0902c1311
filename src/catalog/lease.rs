//! One job at a time on a target: a lease with a fencing token, kept beside the data.
//!
//! The lease is one small document that only ever changes by a conditional write, so of two takers one fails. Its token
//! counts up with every taking. A holder renews it; one that could not for a whole term must assume that it is lost, and
//! the seal itself is preceded by one more conditional write, which fails for whoever was overtaken.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Catalog, Restore, document_attributes, steadily};
use crate::error::{Error, Kind, Result};
use crate::key::Key;
use crate::manifest::Pin;
use crate::process::Process;
use crate::snapshot::Name;
use crate::store::{Condition, Store};

/// How long giving the lease back may take where it only spares the next job some waiting.
const RELEASE_WAIT: Duration = Duration::from_secs(5);

/// A job that has begun to change the target and has not sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub id: String,
    /// The snapshot it works towards.
    pub snapshot: Name,
    /// The source's address.
    pub source: String,
    /// The start of the machine it ran on: after another start, unsynced writes may be gone.
    pub boot: String,
}

impl Job {
    /// True for a restore in place.
    pub fn is_restore(&self) -> bool {
        Restore::is_name(&self.id)
    }

    /// What it does, in a word.
    pub fn work(&self) -> &'static str {
        if self.is_restore() { "restore" } else { "sync" }
    }

    /// The refusal of what it is in the way of since it was left half-way.
    pub(crate) fn left_unfinished(&self) -> Error {
        let Self { id, snapshot, source, .. } = self;
        let what = format!("a {} of {snapshot} from {source} was left unfinished there ({id})", self.work());
        Error::new(Kind::Refused, what)
    }
}

/// The document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseState {
    /// The fencing token.
    pub token: u64,
    /// Who holds it.
    pub holder: Option<Holder>,
    /// When it is free unless renewed.
    pub expires: Timestamp,
    /// The job that began to change the target and has not sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Job>,
}

/// A process that holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    #[serde(flatten)]
    pub process: Process,
    /// The job's name.
    pub job: String,
    /// It is soon done: whoever wants the lease had better wait a moment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub brief: bool,
}

/// The lease, held.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    _renewal: DropGuard,
    _lock: Option<File>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    key: Key,
    term: Duration,
    lost: AtomicBool,
    /// When the term ends, in milliseconds after `since`.
    until_ms: AtomicU64,
    since: Instant,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    state: LeaseState,
    pin: Pin,
}

impl Lease {
    /// Takes the lease for `term`, renewed until it is dropped; `brief` says that it is given back within seconds.
    /// `directory` is the bucket's root where it is a local directory: there the kernel's file lock decides, which dies with
    /// the process.
    ///
    /// # Errors
    /// `Held` while somebody else holds it.
    pub async fn take(
        catalog: &Catalog,
        job: &str,
        term: Duration,
        brief: bool,
        directory: Option<&Path>,
    ) -> Result<Self> {
        let lock = directory.map(lock).transpose()?;
        let store = catalog.store().clone();
        let key = catalog.key("lease.json");
        let found = read(&*store, &key).await?;
        let (token, unfinished) = match &found {
            Some((state, _)) => {
                if let Some(holder) = &state.holder {
                    let gone = holder.process.is_dead() || (lock.is_some() && holder.process.is_visible());
                    if !gone && state.expires > Timestamp::now() {
                        return Err(held_by(holder, state).at(store.address()));
                    }
                }
                (state.token + 1, state.unfinished.clone())
            }
            None => (1, None),
        };
        let state = LeaseState {
            token,
            holder: Some(Holder { process: Process::this(), job: job.into(), brief }),
            expires: Timestamp::now() + term,
            unfinished,
        };
        let condition = found.as_ref().map_or(Condition::Absent, |(_, pin)| Condition::Matches(pin.clone()));
        let since = Instant::now();
        let pin = put(&*store, &key, &state, &condition).await.map_err(overtaken)?;
        if found.is_none() && store.capabilities().conditional {
            check_conditions(&*store, &key, &state).await?;
        }
        let (held, until_ms) = (Mutex::new(Held { state, pin }), AtomicU64::new(term.as_millis() as u64));
        let shared = Arc::new(Shared { store, key, term, lost: AtomicBool::new(false), until_ms, since, held });
        let stop = CancellationToken::new();
        tokio::spawn(renew(shared.clone(), stop.clone()));
        Ok(Self { shared, _renewal: stop.drop_guard(), _lock: lock })
    }

    /// The job that was left half-way, as anybody can see it.
    pub async fn left_unfinished(catalog: &Catalog) -> Result<Option<Job>> {
        let found = read(&**catalog.store(), &catalog.key("lease.json")).await?;
        Ok(found.and_then(|(state, _)| state.unfinished))
    }

    /// Whether who holds it has said to be soon done; none where nobody holds it.
    pub async fn is_brief(catalog: &Catalog) -> Result<Option<bool>> {
        let found = read(&**catalog.store(), &catalog.key("lease.json")).await?;
        Ok(found.and_then(|(state, _)| state.holder).map(|holder| holder.brief))
    }

    /// The job that was left half-way when the lease was taken.
    pub async fn unfinished(&self) -> Option<Job> {
        self.shared.held.lock().await.state.unfinished.clone()
    }

    /// The fencing token.
    pub async fn token(&self) -> u64 {
        self.shared.held.lock().await.state.token
    }

    /// Marks that `job` is about to change the target.
    pub async fn begin(&self, job: Job) -> Result<()> {
        self.shared.change(|state| state.unfinished = Some(job)).await
    }

    /// Asks the store whether the lease is still ours.
    pub async fn confirm(&self) -> Result<()> {
        self.shared.change(|_| {}).await
    }

    /// Fails as soon as the lease is known or must be assumed to be lost. Costs no request.
    pub fn check(&self) -> Result<()> {
        self.shared.check()
    }

    /// Gives the lease back; `done` says that no job is half-way any more. Where nothing is to be said but that, a server that
    /// does not answer is not waited for: the lease ends by itself.
    pub async fn release(&self, done: bool) -> Result<()> {
        let released = self.shared.change(|state| {
            state.holder = None;
            if done {
                state.unfinished = None;
            }
        });
        if done {
            return released.await;
        }
        tokio::time::timeout(RELEASE_WAIT, released).await.unwrap_or_else(|_| {
            Err(Error::new(Kind::Unavailable, "the lease could not be given back; it ends by itself soon"))
        })
    }
}

impl Shared {
    /// A holder that was held up for a whole term, with its renewals, must assume that another has the lease.
    fn check(&self) -> Result<()> {
        if self.since.elapsed().as_millis() as u64 >= self.until_ms.load(Ordering::Relaxed) {
            self.lost.store(true, Ordering::Relaxed);
        }
        if self.lost.load(Ordering::Relaxed) { Err(lost()) } else { Ok(()) }
    }

    async fn change(&self, change: impl FnOnce(&mut LeaseState)) -> Result<()> {
        let mut held = self.held.lock().await;
        self.check()?;
        let mut state = held.state.clone();
        change(&mut state);
        state.expires = Timestamp::now() + self.term;
        let until = self.since.elapsed() + self.term;
        match put(&*self.store, &self.key, &state, &Condition::Matches(held.pin.clone())).await {
            Ok(pin) => {
                *held = Held { state, pin };
                self.until_ms.store(until.as_millis() as u64, Ordering::Relaxed);
                Ok(())
            }
            Err(error) if error.kind() == Kind::Changed => {
                self.lost.store(true, Ordering::Relaxed);
                Err(lost())
            }
            Err(error) => Err(error),
        }
    }
}

async fn renew(shared: Arc<Shared>, stop: CancellationToken) {
    let pause = shared.term / 4;
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        match shared.change(|_| {}).await {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::LeaseLost => return,
            Err(error) => tracing::warn!("renewing the lease failed, trying again: {error}"),
        }
    }
}

fn lost() -> Error {
    Error::new(Kind::LeaseLost, "the lease on the target was lost to another job; this one stops without sealing")
        .hint("run the same command again when the other job is done")
}

fn held_by(holder: &Holder, state: &LeaseState) -> Error {
    Error::new(
        Kind::Held,
        format!(
            "another job works on this target: {}, process {} on {}, until {} unless renewed",
            holder.job, holder.process.pid, holder.process.host, state.expires
        ),
    )
    .hint("wait until it is done, or until its lease has run out, and run the same command again")
}

fn overtaken(error: Error) -> Error {
    match error.kind() {
        Kind::AlreadyExists | Kind::Changed => {
            Error::new(Kind::Held, "another job took the lease on this target at the same moment")
                .hint("wait until it is done and run the same command again")
        }
        _ => error,
    }
}

/// A store that writes whatever the condition would let two jobs in.
async fn check_conditions(store: &dyn Store, key: &Key, state: &LeaseState) -> Result<()> {
    match write(store, key, state, &Condition::Absent).await {
        Err(error) if error.kind() == Kind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(_) => {
            Err(Error::new(Kind::Unsupported, "the store ignores conditional writes, so nothing keeps two jobs apart")
                .at(store.address())
                .hint("add `conditional=false` to its URL and see to it yourself that only one job runs"))
        }
    }
}

async fn read(store: &dyn Store, key: &Key) -> Result<Option<(LeaseState, Pin)>> {
    let Some((bytes, pin)) = steadily(|| store.fetch(key)).await? else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(state) => Ok(Some((state, pin))),
        Err(error) => Err(Error::new(Kind::Damaged, "the lease cannot be read")
            .at(store.address())
            .key(key)
            .hint("if no other job is running, delete it")
            .caused_by(error)),
    }
}

/// Writes the document in spite of answers that got lost: when the write took place all the same, what is there is what
/// we wrote.
async fn put(store: &dyn Store, key: &Key, state: &LeaseState, condition: &Condition) -> Result<Pin> {
    match steadily(|| write(store, key, state, condition)).await {
        Err(error) if matches!(error.kind(), Kind::AlreadyExists | Kind::Changed) => match read(store, key).await? {
            Some((found, pin)) if found == *state => Ok(pin),
            _ => Err(error),
        },
        outcome => outcome,
    }
}

async fn write(store: &dyn Store, key: &Key, state: &LeaseState, condition: &Condition) -> Result<Pin> {
    let json = serde_json::to_vec(state).map_err(|error| Error::internal("the lease is not JSON").caused_by(error))?;
    store.write(key, Bytes::from(json), &document_attributes(), condition).await
}

fn lock(directory: &Path) -> Result<File> {
    let folder = directory.join(".snapferry");
    std::fs::create_dir_all(&folder)?;
    let file = File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Error::new(Kind::Held, "another job on this machine works on this target")
                .at(directory.display().to_string())
                .hint("wait until it is done and run the same command again"))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(Error::from(error).at(directory.display().to_string())),
    }
}
