//! The proof: what the target lists against what the snapshot says, entry by entry; and, if asked, byte by byte.

mod differences;
mod prove;
mod read_back;

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tokio::runtime::Handle;

pub use differences::{Difference, Differences, Differing};
pub(crate) use prove::{Evidence, prove};
pub use read_back::ReadBack;
pub(crate) use read_back::read_back;

use crate::blocking::blocking;
use crate::bucket::{Bucket, Snapshot};
use crate::catalog::{Catalog, Record, StoreSegments};
use crate::error::{Kind as ErrorKind, Result, Side};
use crate::manifest::{Entry, Kind, Manifest};
use crate::merge::{Entries, merge_by_key};
use crate::plan::{Spool, SpoolWriter, same_content};
use crate::snapshot::{Name, SnapshotKind, sorted};
use crate::store::{ListOptions, Store};

/// The outcome of comparing a snapshot on both sides.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// Objects in the snapshot.
    pub objects: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// What was read back, if that was asked for.
    pub read: Option<ReadBack>,
    /// What differs.
    pub differences: Differences,
}

/// Compares a snapshot on both sides: the manifests with each other, each manifest with what its store still has, and,
/// if `read` names a share in percent, the target's content with the recorded digests. Sorting may use files in `folder`.
pub async fn verify(
    source: &Bucket,
    target: &Bucket,
    name: &Name,
    read: Option<f64>,
    folder: &Path,
) -> Result<Verified> {
    let (ours, theirs) = (Opened::open(source, target, name).await?, Opened::of(target, name).await);
    let theirs = theirs.map_err(|error| error.on(Side::Target))?;
    let (a, b) = (ours.entries(), theirs.entries());
    let mut differences = blocking(move || compare(a, b)).await?;
    for (opened, side) in [(&ours, Side::Source), (&theirs, Side::Target)] {
        differences.append(opened.check(folder, side).await.map_err(|error| error.on(side))?);
    }
    let mut back = None;
    if let Some(percent) = read {
        let (read, wrong) = read_back(theirs.reader.clone(), theirs.entries(), percent, |_| {})
            .await
            .map_err(|error| error.on(Side::Target))?;
        back = Some(read);
        differences.append(wrong);
    }
    let Record { objects, bytes, .. } = theirs.snapshot.record;
    Ok(Verified { objects, bytes, read: back, differences })
}

/// A snapshot with its manifest and the way to its content.
struct Opened {
    snapshot: Snapshot,
    manifest: Manifest,
    reader: Arc<dyn Store>,
}

impl Opened {
    /// The source's snapshot, from its own catalog or from where a read-only source's are remembered: with the target.
    async fn open(source: &Bucket, target: &Bucket, name: &Name) -> Result<Self> {
        let own = Self::of(source, name).await;
        match own {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let away = Catalog::of_other(target.store().clone(), source.address());
                Self::of(&source.read_only(away), name).await.map_err(|_| error)
            }
            own => own,
        }
        .map_err(|error| error.on(Side::Source))
    }

    async fn of(bucket: &Bucket, name: &Name) -> Result<Self> {
        let snapshot = bucket.existing(name).await?;
        let manifest = snapshot.catalog.manifest(name).await?;
        let reader = snapshot.provider.reader(name).await?;
        Ok(Self { snapshot, manifest, reader })
    }

    fn entries(&self) -> Entries<'static> {
        let segments = StoreSegments::new(&self.snapshot.catalog, Handle::current());
        Box::new(self.manifest.entries(Arc::new(segments)))
    }

    /// Compares the manifest with what the store lists; what does not show there is asked for by its pin.
    async fn check(&self, folder: &Path, side: Side) -> Result<Differences> {
        let capabilities = self.reader.capabilities();
        let listing =
            self.reader.list(ListOptions { versions: capabilities.versions, ..ListOptions::default() }).await?;
        let (entries, ordered, folder) = (self.entries(), capabilities.ordered, folder.to_owned());
        let kind = self.snapshot.record.kind;
        let (mut differences, doubtful) =
            blocking(move || doubts(entries, sorted(listing, ordered, &folder)?, kind, &folder, side)).await?;
        for entry in doubtful.iter()? {
            let entry = entry?;
            let first = entry.size.min(1);
            match crate::retry::retry(|| self.reader.read(&entry, Some(0..first)), |_| {}).await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => differences.add(&entry.key, Difference::Missing),
                Err(error) if error.kind() == ErrorKind::Changed => differences.add(&entry.key, Difference::Different),
                Err(error) => return Err(error.key(&entry.key)),
            }
        }
        Ok(differences)
    }
}

/// What a listing does not confirm. A clone tree, or a snapshot that the store keeps, is all there is, so what is more in
/// it counts; a bucket that keeps versions has moved on.
fn doubts(
    entries: Entries<'static>,
    listed: Entries<'static>,
    kind: SnapshotKind,
    folder: &Path,
    side: Side,
) -> Result<(Differences, Spool<Entry>)> {
    let tree = kind == SnapshotKind::Clone;
    let all = matches!(kind, SnapshotKind::Clone | SnapshotKind::Native);
    let (mut differences, mut doubtful) = (Differences::on(side), SpoolWriter::new(folder)?);
    for row in merge_by_key([entries, listed]) {
        match row? {
            (_, [Some(entry), Some(actual)]) if tree => {
                let mtime = |entry: &Entry| entry.pin.file.as_ref().map(|file| file.mtime_ns);
                let same = entry.kind == actual.kind
                    && entry.size == actual.size
                    && (entry.kind == Kind::Directory || mtime(&entry) == mtime(&actual));
                if !same {
                    differences.add(&entry.key, Difference::Different);
                }
            }
            (_, [Some(entry), actual]) => {
                let confirmed =
                    actual.is_some_and(|actual| entry.size == actual.size && entry.pin.matches(&actual.pin));
                if !confirmed {
                    doubtful.push(&entry)?;
                }
            }
            // Directories may be there that only their content asks for.
            (key, [None, Some(actual)]) if all && actual.kind != Kind::Directory => {
                differences.add(&key, Difference::Extra)
            }
            _ => {}
        }
    }
    Ok((differences, doubtful.finish()?))
}

/// Compares the manifests of both sides.
fn compare(source: Entries<'static>, target: Entries<'static>) -> Result<Differences> {
    let mut differences = Differences::on(Side::Target);
    for row in merge_by_key([source, target]) {
        match row? {
            (key, [Some(_), None]) => differences.add(&key, Difference::Missing),
            (key, [None, Some(_)]) => differences.add(&key, Difference::Extra),
            (key, [Some(source), Some(target)]) => match same_content(&source, &target) {
                Some(true) => {}
                Some(false) => differences.add(&key, Difference::Different),
                None => differences.add(&key, Difference::Unproved),
            },
            (_, [None, None]) => {}
        }
    }
    Ok(differences)
}
