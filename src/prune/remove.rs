//! How a snapshot goes.

use tokio_util::sync::CancellationToken;

use super::removed::Removed;
use super::turns::Turns;
use super::versions::{Unreferenced, remove_versions};
use crate::bucket::Bucket;
use crate::catalog::Record;
use crate::error::{Kind, Result, Side};
use crate::manifest::Manifest;
use crate::snapshot::{Name, SnapshotKind};

/// Removes one snapshot, whatever rules say; versions that it pinned stay. Holds the lease meanwhile.
pub async fn remove(bucket: &Bucket, record: &Record) -> Result<()> {
    let name = &record.name;
    if !record.is_counted() {
        return bucket.provider().remove(name).await;
    }
    let lease = bucket.lease_soon(&format!("delete {name}")).await?;
    let removed = async {
        bucket.catalog().set_going(name, &Manifest::default()).await?;
        take_away(bucket, name).await?;
        bucket.catalog().sweep().await?;
        bucket.catalog().set_gone(name).await
    };
    let removed = removed.await;
    removed.and(lease.release(false).await)
}

/// The record goes first, so that the snapshot is never half there. Done again, it takes away what is left.
async fn take_away(bucket: &Bucket, name: &Name) -> Result<()> {
    bucket.catalog().remove(name).await?;
    match bucket.provider().remove(name).await {
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Removes these snapshots and what only they needed, and what an earlier run that died was about to remove.
pub(super) async fn remove_decided(
    bucket: &Bucket,
    side: Side,
    names: Vec<Name>,
    removed: &mut Removed,
    cancel: CancellationToken,
) -> Result<()> {
    let mut turns = Turns::new(bucket, "prune".into(), cancel);
    let outcome = Pruning { bucket, side, turns: &mut turns, removed }.run(names).await;
    outcome.and(turns.end().await)
}

/// One bucket being pruned.
struct Pruning<'a, 'b> {
    bucket: &'b Bucket,
    side: Side,
    turns: &'a mut Turns<'b>,
    removed: &'a mut Removed,
}

impl Pruning<'_, '_> {
    async fn run(&mut self, names: Vec<Name>) -> Result<()> {
        for name in names {
            self.remove_one(name).await?;
        }
        let going = self.finish_others().await?;
        match self.side {
            // What goes there does not depend on what went before; and so the catalog's own old versions are among it.
            Side::Target => {
                self.forget(&going).await?;
                if self.with_versions() {
                    self.removed.put_off = self.remove_versions(&[]).await?;
                }
            }
            Side::Source => {
                if self.with_versions() && !going.is_empty() {
                    self.removed.put_off = self.remove_versions(&going).await?;
                }
                // Else what went is still to be known the next time.
                if self.removed.put_off.is_none() {
                    self.forget(&going).await?;
                }
            }
        }
        Ok(())
    }

    /// True where snapshots are lists of versions, and all that refer to them are known.
    fn with_versions(&self) -> bool {
        self.bucket.provider().kind() == SnapshotKind::Versions && self.bucket.keeps_own_catalog()
    }

    async fn remove_versions(&mut self, going: &[(Name, Manifest)]) -> Result<Option<String>> {
        let work = Unreferenced { bucket: self.bucket, side: self.side, going };
        remove_versions(work, self.turns, self.removed).await
    }

    /// Nothing is left of these snapshots but segments.
    async fn forget(&mut self, going: &[(Name, Manifest)]) -> Result<()> {
        let Some(((last, _), others)) = going.split_last() else { return Ok(()) };
        let catalog = self.bucket.catalog();
        for (name, _) in others {
            self.turns.next().await?;
            catalog.set_gone(name).await?;
        }
        // One is remembered until the segments are gone, too.
        self.turns.next().await?;
        catalog.set_going(last, &Manifest::default()).await?;
        catalog.sweep().await?;
        catalog.set_gone(last).await
    }

    /// Removes a snapshot, unless somebody removed it, made it anew or holds it since it was decided on.
    async fn remove_one(&mut self, name: Name) -> Result<()> {
        let catalog = self.bucket.catalog();
        let Some(record) = self.bucket.record(&name).await? else { return Ok(()) };
        if !record.is_counted() {
            // It is the store's alone, and nothing is to be written for it.
            if catalog.hold(&name).await?.is_none() {
                self.bucket.provider().remove(&name).await?;
                self.removed.names.push(name);
            }
            return Ok(());
        }
        self.turns.next().await?;
        let now = self.bucket.record(&name).await?;
        if now.as_ref() != Some(&record) || catalog.hold(&name).await?.is_some() {
            return Ok(());
        }
        let content = match self.side {
            Side::Source if self.with_versions() => catalog.manifest(&name).await?,
            _ => Manifest::default(),
        };
        catalog.set_going(&name, &content).await?;
        take_away(self.bucket, &name).await?;
        self.removed.names.push(name);
        Ok(())
    }

    /// What is being removed: by this run, or by an earlier one that died, whose work is done again. One that died before
    /// the record went has removed nothing.
    async fn finish_others(&mut self) -> Result<Vec<(Name, Manifest)>> {
        let catalog = self.bucket.catalog();
        let mut going = Vec::new();
        for (name, manifest) in catalog.going().await? {
            self.turns.next().await?;
            if catalog.record(&name).await?.is_some() {
                catalog.set_gone(&name).await?;
                continue;
            }
            if !self.removed.names.contains(&name) {
                take_away(self.bucket, &name).await?;
            }
            going.push((name, manifest));
        }
        Ok(going)
    }
}
