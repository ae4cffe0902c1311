//! The job catalogue: a file that several processes share, each for a moment at a time.
//!
//! redb locks its file for one process, so every call opens it, does one small transaction and closes it, and waits a
//! little where another has it open. A damaged file is set aside and a new one begun: nothing but convenience is lost.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand::Rng;
use redb::{Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Cancel, Job, Line, Shown, unknown};
use crate::error::{Error, Kind, Result};
use crate::file;

/// Jobs by name, as JSON.
const JOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("jobs");

/// Lines of their logs, as JSON, by name and number.
const LOGS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("logs");

/// Jobs that are kept.
const JOBS_MAX: usize = 1000;

/// Lines that are kept of each job's log.
const LINES_MAX: u64 = 1000;

/// How long to wait for another process to close the file.
const WAIT: Duration = Duration::from_secs(5);

/// What redb may keep of the file in memory, in bytes.
const CACHE_BYTES: usize = 1 << 20;

/// The jobs of this machine. Every call blocks on a disk.
#[derive(Debug, Clone)]
pub struct Jobs {
    path: PathBuf,
    jobs_max: usize,
}

/// Why one try did not succeed.
enum Trouble {
    /// Another process has the file open.
    Busy,
    /// What is in the file makes no sense.
    Damaged(String),
    /// The file cannot be read or written.
    File(Error),
    /// The answer is no.
    Refused(Error),
}

impl Jobs {
    /// The catalogue in this state directory. Nothing is made there before there is something to write.
    pub fn at(state_dir: &Path) -> Self {
        Self { path: state_dir.join("jobs.redb"), jobs_max: JOBS_MAX }
    }

    /// Adds jobs. Those that are there already stay as they are, and the oldest ended ones go where there are too many.
    ///
    /// # Errors
    /// When the file cannot be written, or another process does not let go of it.
    pub fn add(&self, jobs: &[Job]) -> Result<()> {
        self.write(true, |transaction| {
            {
                let mut table = transaction.open_table(JOBS)?;
                for job in jobs {
                    if table.get(job.id.as_str())?.is_none() {
                        table.insert(job.id.as_str(), json(job)?.as_slice())?;
                    }
                }
            }
            self.make_room(transaction)
        })
    }

    /// Writes how a job stands, and more lines of its log. Gives back the wish that it should end, if there is one.
    ///
    /// # Errors
    /// When the file cannot be written, or another process does not let go of it.
    pub fn update(&self, job: &Job, lines: &[Line]) -> Result<Option<Cancel>> {
        self.write(false, |transaction| {
            let mut table = transaction.open_table(JOBS)?;
            let there = table.get(job.id.as_str())?.map(|there| parsed::<Job>(there.value())).transpose()?;
            let cancel = there.and_then(|there| there.cancel).or_else(|| job.cancel.clone());
            table.insert(job.id.as_str(), json(&Job { cancel: cancel.clone(), ..job.clone() })?.as_slice())?;
            append(transaction, &job.id, lines)?;
            Ok(cancel)
        })
    }

    /// Marks that a job should end. Its process looks for the mark about once a second.
    ///
    /// # Errors
    /// `Refused` for a job that has ended, or whose process is gone.
    pub fn cancel(&self, id: &str, wish: &Cancel) -> Result<Job> {
        let found = self.write(false, |transaction| {
            let mut table = transaction.open_table(JOBS)?;
            let there = table.get(id)?.map(|there| parsed::<Job>(there.value())).transpose()?;
            let Some(mut job) = there else { return Err(Trouble::Refused(unknown(id))) };
            refuse_ended(&job, wish.at).map_err(Trouble::Refused)?;
            job.cancel.get_or_insert_with(|| wish.clone());
            table.insert(id, json(&job)?.as_slice())?;
            Ok(job)
        });
        found.map_err(|error| if error.kind() == Kind::Denied { error.hint(NEEDS_WRITE) } else { error })
    }

    /// The wish that a job should end.
    ///
    /// # Errors
    /// When the file cannot be read, or another process does not let go of it.
    pub fn wish(&self, id: &str) -> Result<Option<Cancel>> {
        Ok(self.get(id)?.and_then(|job| job.cancel))
    }

    /// A job by its whole name.
    ///
    /// # Errors
    /// When the file cannot be read, or another process does not let go of it.
    pub fn get(&self, id: &str) -> Result<Option<Job>> {
        let found = self.read(|transaction| {
            let table = match transaction.open_table(JOBS) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            table.get(id)?.map(|job| parsed(job.value())).transpose()
        })?;
        Ok(found.flatten())
    }

    /// All jobs, the newest first.
    ///
    /// # Errors
    /// When the file cannot be read, or another process does not let go of it.
    pub fn all(&self) -> Result<Vec<Job>> {
        let found = self.read(|transaction| {
            let table = match transaction.open_table(JOBS) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            every(&table)
        })?;
        let mut jobs = found.unwrap_or_default();
        jobs.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| b.id.cmp(&a.id)));
        Ok(jobs)
    }

    /// All jobs of this policy, the newest first.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub fn of_policy(&self, policy: &str) -> Result<Vec<Job>> {
        let mut jobs = self.all()?;
        jobs.retain(|job| job.policy.as_deref() == Some(policy));
        Ok(jobs)
    }

    /// The job that this stands for: its name, the beginning of its name if no other's begins so, or `last` for the newest.
    ///
    /// # Errors
    /// `NotFound` when it stands for none, `Usage` when it stands for several.
    pub fn find(&self, text: &str) -> Result<Job> {
        let mut jobs = self.all()?;
        if text == "last" {
            let newest = jobs.into_iter().next();
            return newest.ok_or_else(|| Error::new(Kind::NotFound, "no job has run on this machine"));
        }
        if let Some(place) = jobs.iter().position(|job| job.id == text) {
            return Ok(jobs.swap_remove(place));
        }
        jobs.retain(|job| job.id.starts_with(text));
        match jobs.len() {
            0 => Err(unknown(text)),
            1 => Ok(jobs.swap_remove(0)),
            many => Err(Error::usage(format!("`{text}` begins the names of {many} jobs")).hint("write more of it")),
        }
    }

    /// The lines of a job's log after the one of this number, the oldest first, with their numbers.
    ///
    /// # Errors
    /// When the file cannot be read, or another process does not let go of it.
    pub fn log(&self, id: &str, after: Option<u64>) -> Result<Vec<(u64, Line)>> {
        let first = after.map_or(0, |number| number.saturating_add(1));
        let found = self.read(|transaction| {
            let table = match transaction.open_table(LOGS) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            let mut lines = Vec::new();
            for line in table.range((id, first)..=(id, u64::MAX))? {
                let (key, line) = line?;
                lines.push((key.value().1, parsed(line.value())?));
            }
            Ok(lines)
        })?;
        Ok(found.unwrap_or_default())
    }

    /// Lets the oldest jobs go that are over, with their logs, until there are not too many.
    fn make_room(&self, transaction: &WriteTransaction) -> Result<(), Trouble> {
        let (mut jobs, mut logs) = (transaction.open_table(JOBS)?, transaction.open_table(LOGS)?);
        let mut all: Vec<Job> = every(&jobs)?;
        let surplus = all.len().saturating_sub(self.jobs_max);
        if surplus == 0 {
            return Ok(());
        }
        let now = Timestamp::now();
        all.retain(|job| Shown::of(job.clone(), now).is_over());
        all.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.id.cmp(&b.id)));
        for Job { id, .. } in &all[..surplus.min(all.len())] {
            jobs.remove(id.as_str())?;
            logs.retain_in((id.as_str(), 0)..=(id.as_str(), u64::MAX), |_, _| false)?;
        }
        Ok(())
    }

    /// One transaction that writes. `check` looks through the whole file first.
    fn write<T>(&self, check: bool, work: impl Fn(&WriteTransaction) -> Result<T, Trouble>) -> Result<T> {
        let done = self.steadily(|| {
            self.begin()?;
            let database = builder().set_check_integrity_on_open(check).create(&self.path)?;
            let transaction = database.begin_write()?;
            let done = work(&transaction)?;
            transaction.commit()?;
            database.close()?;
            Ok(Some(done))
        })?;
        done.ok_or_else(|| Error::internal("the job catalogue was not written"))
    }

    /// Makes the file where there is none. It is there whole or not at all: whoever is killed at it damages nothing.
    fn begin(&self) -> Result<(), Trouble> {
        let failed = |error: std::io::Error| Trouble::File(error.into());
        // What is there but leads nowhere is not to be replaced.
        if self.path.symlink_metadata().is_ok() {
            return Ok(());
        }
        // The first job of a machine is written down before it makes its own folder.
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let new = file::beside(&self.path).map_err(failed)?;
        builder().create(new.path())?.close()?;
        match new.persist_noclobber(&self.path) {
            Err(lost) if lost.error.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(lost.error)),
            _ => Ok(()),
        }
    }

    /// One transaction that reads; none where there is no file.
    fn read<T>(&self, work: impl Fn(&ReadTransaction) -> Result<T, Trouble>) -> Result<Option<T>> {
        self.steadily(|| {
            if !self.path.try_exists().map_err(|error| Trouble::File(error.into()))? {
                return Ok(None);
            }
            match builder().open_read_only(&self.path) {
                Ok(database) => work(&database.begin_read()?).map(Some),
                // Its last writer was killed.
                Err(redb::DatabaseError::RepairAborted) => {
                    let database: Database = builder().open(&self.path)?;
                    work(&database.begin_read()?).map(Some)
                }
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Waits while another process has the file open, and begins a new one where it is damaged.
    fn steadily<T>(&self, work: impl Fn() -> Result<Option<T>, Trouble>) -> Result<Option<T>> {
        let since = Instant::now();
        let mut set_aside = false;
        loop {
            let found = identity(&self.path);
            // redb panics on some of what it cannot have written itself.
            let outcome = catch_unwind(AssertUnwindSafe(&work))
                .unwrap_or_else(|_| Err(Trouble::Damaged("it was not written by redb".into())));
            match outcome {
                Ok(done) => return Ok(done),
                Err(Trouble::Busy) if since.elapsed() < WAIT => {
                    std::thread::sleep(Duration::from_millis(rand::rng().random_range(2..20)));
                }
                Err(Trouble::Busy) => {
                    return Err(Error::new(Kind::Unavailable, "another process keeps the job catalogue open")
                        .at(self.path.display().to_string())
                        .hint("try again in a moment"));
                }
                Err(Trouble::Damaged(how)) if !set_aside => {
                    set_aside = true;
                    self.set_aside(found, &how)?;
                }
                Err(Trouble::Damaged(how)) => {
                    return Err(Error::new(Kind::Damaged, format!("the job catalogue cannot be read: {how}"))
                        .at(self.path.display().to_string())
                        .hint("remove it: nothing but the list of past jobs is lost"));
                }
                Err(Trouble::File(error)) => return Err(error.at(self.path.display().to_string())),
                Err(Trouble::Refused(error)) => return Err(error),
            }
        }
    }

    /// Renames the damaged file, unless another process has done so meanwhile.
    fn set_aside(&self, found: Option<(u64, u64)>, how: &str) -> Result<()> {
        if found.is_none() || identity(&self.path) != found {
            return Ok(());
        }
        let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        let aside = self.path.with_file_name(format!("jobs.redb.damaged-{now}-{}", std::process::id()));
        fs::rename(&self.path, &aside).map_err(|error| Error::from(error).at(self.path.display().to_string()))?;
        tracing::warn!("the job catalogue was damaged ({how}) and is begun anew; the old one is {}", aside.display());
        Ok(())
    }
}

/// What to do where the catalogue may be read only.
const NEEDS_WRITE: &str = "ask as the user that runs the job";

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Device and inode: two files of one name are not the same.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// A job that has ended, or whose process is gone, cannot be told to stop.
fn refuse_ended(job: &Job, now: Timestamp) -> Result<()> {
    let (id, state) = (&job.id, job.state);
    if state.is_ended() {
        return Err(Error::new(Kind::Refused, format!("job {id} has ended: {state}")));
    }
    match Shown::of(job.clone(), now).interrupted_why {
        Some(why) => Err(Error::new(Kind::Refused, format!("job {id} was interrupted in {state}: {why}"))
            .hint("there is nothing to stop; the same command run again goes on with it")),
        None => Ok(()),
    }
}

fn append(transaction: &WriteTransaction, id: &str, lines: &[Line]) -> Result<(), Trouble> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut logs = transaction.open_table(LOGS)?;
    let last = logs.range((id, 0)..=(id, u64::MAX))?.next_back().transpose()?.map(|(key, _)| key.value().1);
    let mut next = last.map_or(0, |last| last + 1);
    for line in lines {
        logs.insert((id, next), json(line)?.as_slice())?;
        next += 1;
    }
    logs.retain_in((id, 0)..(id, next.saturating_sub(LINES_MAX)), |_, _| false)?;
    Ok(())
}

/// Every job that can be read: one that a newer program wrote in another way is left alone.
fn every(table: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Vec<Job>, Trouble> {
    let mut jobs = Vec::new();
    for job in table.iter()? {
        let (id, job) = job?;
        match serde_json::from_slice(job.value()) {
            Ok(job) => jobs.push(job),
            Err(error) => tracing::debug!("job {} cannot be read: {error}", id.value()),
        }
    }
    Ok(jobs)
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, Trouble> {
    let json = serde_json::to_vec(value);
    json.map_err(|error| Trouble::File(Error::internal("a job cannot be written as JSON").caused_by(error)))
}

fn parsed<T: DeserializeOwned>(json: &[u8]) -> Result<T, Trouble> {
    serde_json::from_slice(json).map_err(|error| {
        Trouble::File(
            Error::new(Kind::Damaged, "a job's record cannot be read")
                .hint("it is damaged, or written by a newer snapferry")
                .caused_by(error),
        )
    })
}

impl<E: Into<redb::Error>> From<E> for Trouble {
    fn from(error: E) -> Self {
        use std::io::ErrorKind;
        let error: redb::Error = error.into();
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::Busy,
            redb::Error::Io(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::File(error.into()),
            redb::Error::Corrupted(_)
            | redb::Error::UpgradeRequired(_)
            | redb::Error::RepairAborted
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. } => Self::Damaged(error.to_string()),
            other => Self::File(Error::new(Kind::Io, "the job catalogue failed").caused_by(other)),
        }
    }
}

#[cfg(test)]
mod tests;
