//! Small objects: one read, one write.

use super::{Transfer, digest_if, landed_as, source_gone};
use crate::error::{Error, Kind, Result, Side};
use crate::key::Key;
use crate::manifest::{Digest, Entry, Pin};
use crate::store::Condition;

impl Transfer {
    /// Reads an object whole, hashes it and writes it to `at`.
    pub(super) async fn whole(&self, source: &Entry, at: &Key, condition: &Condition) -> Result<Entry> {
        let _room = self.budget.take(source.size).await;
        let object =
            self.retrying(|| self.source.read(source, None)).await.map_err(|error| source_gone(error, &source.key))?;
        let (digest, blocks) = self.hashing.whole(&object.data, self.policy.block_bytes).await?;
        if let Some(known) = source.digest
            && known != digest
        {
            return Err(damaged(source));
        }
        let attributes = self.attributes(source, object.attributes);
        self.bandwidth.pass(source.size).await;
        let written = self.retrying(|| self.target.write(at, object.data.clone(), &attributes, condition)).await;
        self.crossed(source.size);
        let pin = match written {
            Ok(pin) => pin,
            Err(error) => match self.settle(error, at, source, digest).await? {
                Some(pin) => pin,
                None => self
                    .retrying(|| self.target.write(at, object.data.clone(), &attributes, &Condition::Any))
                    .await
                    .map_err(|error| error.on(Side::Target).key(&source.key))?,
            },
        };
        let mode = attributes.mode.or(source.mode);
        Ok(Entry {
            pin,
            mode,
            digest: digest_if(source, digest),
            blocks,
            attributes: self.kept(&attributes),
            ..landed_as(source)
        })
    }

    /// A conditional write failed: either somebody else wrote the key, or an earlier try of ours took place and only
    /// its answer was lost. What is there decides. None: nothing is there at all, which servers that keep keys as paths
    /// of a file system deny when they have a folder of that name; then an unconditional write overwrites nothing.
    pub(super) async fn settle(&self, error: Error, at: &Key, source: &Entry, digest: Digest) -> Result<Option<Pin>> {
        if !crate::retry::may_have_happened(&error) {
            return Err(error.on(Side::Target).key(&source.key));
        }
        let there = self.retrying(|| self.target.stat(at)).await.map_err(|error| error.on(Side::Target))?;
        let Some(there) = there else {
            return if error.kind() == Kind::NotFound {
                Err(error.on(Side::Target).key(&source.key))
            } else {
                Ok(None)
            };
        };
        if there.size == source.size
            && there.kind == source.kind
            && self.digest_of(&*self.target, &there, Side::Target).await? == digest
        {
            return Ok(Some(there.pin));
        }
        Err(Error::new(Kind::Changed, "somebody else wrote it while this job was running")
            .on(Side::Target)
            .key(&source.key)
            .hint("run again: it will be named as drift; --on-drift repair overwrites it")
            .caused_by(error))
    }
}

/// The source's content is not what its manifest says.
pub(super) fn damaged(source: &Entry) -> Error {
    Error::new(Kind::Damaged, "the content does not match its recorded digest")
        .on(Side::Source)
        .key(&source.key)
        .hint("restore it from another snapshot or another copy; `snapferry verify --read` finds all such objects")
}
