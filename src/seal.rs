//! The last step: after the proof, the target's snapshot of the same name, and the receipt beside it.

use jiff::Timestamp;

use crate::bucket::Bucket;
use crate::catalog::{FORMAT, Lease, Receipt, Record};
use crate::error::Result;
use crate::manifest::Manifest;
use crate::merge::Entries;
use crate::snapshot::{Name, Others, SnapshotKind};

/// Makes the proved content of `target` its snapshot `name`.
///
/// What keeps the content is made first, then receipt and manifest are written, and the record, which is the snapshot's
/// existence, is written last. The lease is confirmed by the store right before: whoever lost it seals nothing.
pub(crate) async fn seal(
    target: &Bucket,
    name: &Name,
    manifest: &Manifest,
    entries: Entries<'static>,
    lease: &Lease,
    receipt: impl FnOnce(Timestamp) -> Receipt,
) -> Result<Receipt> {
    if target.provider().kind() == SnapshotKind::Native {
        // The store's own snapshot is seen as soon as it is made.
        lease.confirm().await?;
    }
    target.provider().keep(name, entries).await?;
    target.store().sync().await?;
    let newest = target.catalog().newest(|_| true).await?;
    let now = target.clock().now();
    let receipt = receipt(now);
    let totals = manifest.totals();
    let record = Record {
        format: FORMAT,
        name: name.clone(),
        kind: target.provider().kind(),
        created: now,
        sequence: newest.map_or(0, |newest| newest.sequence) + 1,
        root: manifest.root_digest().to_hex().to_string(),
        objects: totals.objects,
        directories: totals.directories,
        bytes: totals.bytes,
        others: Others::default(),
        sealed_from: Some(receipt.source.clone()),
    };
    lease.confirm().await?;
    target.catalog().publish(&record, manifest, Some(&receipt)).await?;
    target.store().sync().await?;
    Ok(receipt)
}
