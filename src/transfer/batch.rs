//! From directory to directory: many small files, and the pieces of large ones, in one turn of a thread that may block.
//!
//! Only what is plain goes this way. Whatever fails here is left to the way that every store knows, which retries, pins
//! again and says what is wrong.

use std::sync::Arc;

use super::parts::Landed;
use super::whole::damaged;
use super::{Transfer, landed_as};
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};
use crate::journal::Event;
use crate::key::Key;
use crate::manifest::{BlockHasher, Entry, Kind as EntryKind};
use crate::plan::{Landing, Method, staging_key};
use crate::progress::Progress;
use crate::store::local::LocalStore;
use crate::store::local::batch::Near;
use crate::store::{Part, Upload};

/// Up to this size a turn of its own costs a file more than its bytes do.
const FILE_BYTES_MAX: u64 = 64 << 10;

impl Transfer {
    /// Both sides, where both are directories.
    pub(super) fn directories(&self) -> Option<(LocalStore, LocalStore)> {
        Some((self.source.local()?.clone(), self.target.local()?.clone()))
    }

    /// Lands these, the plain ones together.
    pub(super) async fn land_batch(self: &Arc<Self>, batch: Vec<Landing>) -> Vec<Error> {
        let (plain, mut others): (Vec<_>, Vec<_>) = match self.directories() {
            Some(_) => batch.into_iter().partition(|landing| self.is_plain(landing)),
            None => (Vec::new(), batch),
        };
        let mut failures = Vec::new();
        match self.land_plain(plain).await {
            Ok(failed) => others.extend(failed),
            Err(error) => failures.push(error),
        }
        for landing in others {
            let key = landing.source.key.clone();
            failures.extend(self.land(landing).await.err().map(|error| error.standing_for(&key)));
        }
        failures
    }

    fn is_plain(&self, landing: &Landing) -> bool {
        landing.method == Method::Read
            && landing.staged
            && !landing.compare
            && !self.resuming
            && landing.source.kind == EntryKind::Object
            && landing.source.size <= FILE_BYTES_MAX
    }

    /// Reads, hashes and writes; gives back what has not landed.
    async fn land_plain(self: &Arc<Self>, batch: Vec<Landing>) -> Result<Vec<Landing>> {
        let (Some((source, target)), false) = (self.directories(), batch.is_empty()) else { return Ok(batch) };
        self.lease.check()?;
        if self.cancel.is_cancelled() {
            return Err(Error::new(Kind::Cancelled, "stopped"));
        }
        // One file is in memory at a time.
        let room = self.budget.take(FILE_BYTES_MAX).await;
        self.bandwidth.pass(batch.iter().map(|landing| landing.source.size).sum()).await;
        let transfer = self.clone();
        let (landed, others) = blocking(move || {
            let (mut near, mut data) = (Near::default(), Vec::with_capacity(FILE_BYTES_MAX as usize));
            let (mut landed, mut others) = (Vec::with_capacity(batch.len()), Vec::new());
            for landing in batch {
                match transfer.carry(&source, &target, &landing.source, &mut near, &mut data) {
                    Ok(entry) => landed.push(entry),
                    Err(error) => {
                        tracing::debug!("not the short way: {error}");
                        others.push(landing);
                    }
                }
            }
            drop(room);
            Ok((landed, others))
        })
        .await?;
        for entry in landed {
            let size = entry.size;
            self.journal.append(Event::Landed(entry)).await?;
            self.crossed(size);
            self.finished(0, |progress| Progress::add(&progress.objects_copied, 1));
        }
        Ok(others)
    }

    /// One small file, on a thread that may block.
    fn carry(
        &self,
        from: &LocalStore,
        to: &LocalStore,
        source: &Entry,
        near: &mut Near,
        data: &mut Vec<u8>,
    ) -> Result<Entry> {
        let read = from.read_now(source, data)?;
        let digest = blake3::hash(data);
        if source.digest.is_some_and(|known| known != digest) {
            return Err(damaged(source));
        }
        let attributes = self.attributes(source, read);
        let pin = to.stage_now(near, &staging_key(source), data, &attributes)?;
        let mode = attributes.mode.or(source.mode);
        Ok(Entry { pin, mode, digest: Some(digest), attributes: self.kept(&attributes), ..landed_as(source) })
    }

    /// A part of a large file; none if it has to come the other way.
    pub(super) async fn carry_part(
        &self,
        source: &Entry,
        upload: &Upload,
        number: u32,
        (offset, size): (u64, u64),
    ) -> Option<Landed> {
        let (from, to) = self.directories()?;
        self.bandwidth.pass(size).await;
        let (source, upload, block_bytes) = (source.clone(), upload.clone(), self.policy.block_bytes);
        let copied = blocking(move || {
            let mut hasher = BlockHasher::new(offset, block_bytes);
            to.write_range_now(&upload, &from, &source, offset..offset + size, |data| hasher.update(data))?;
            let part = Part { number, offset, size, etag: String::new(), checksum: String::new() };
            Ok((part, hasher.finish()))
        });
        copied.await.inspect_err(|error| tracing::debug!("not the short way: {error}")).ok()
    }

    /// Renames together what can be; true for those that were.
    pub(super) async fn rename_batch(&self, pairs: Vec<(Key, Key)>) -> Result<Vec<bool>> {
        let Some(target) = self.target.local().cloned() else { return self.target.rename_all(&pairs).await };
        blocking(move || {
            let mut near = Default::default();
            Ok(pairs.iter().map(|(from, to)| target.rename_now(&mut near, from, to).is_ok()).collect())
        })
        .await
    }
}
