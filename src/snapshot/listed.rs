//! Snapshots that are nothing but a list: of version ids where the store keeps versions, else guarded by entity tag,
//! or by size, modification time and inode.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::runtime::Handle;

use super::{Name, Others, Provider, SnapshotKind, Taken};
use crate::blocking::blocking;
use crate::catalog::{Catalog, write_manifest};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Entry, Kind, Manifest};
use crate::merge::Entries;
use crate::sort::sort_entries;
use crate::store::listing::in_order;
use crate::store::{ListOptions, Listing, Store};

/// How many links and special files are named one by one.
const NAMED_MAX: usize = 20;

/// Longer than a tick of any Linux file system's clock (10 ms at 100 Hz), in nanoseconds.
const CLOCK_TICK_NS: i128 = 12_000_000;

/// Memory for sorting a listing, in bytes.
const SORT_MEMORY: usize = 32 << 20;

/// Keeps lists of what a bucket holds.
#[derive(Debug)]
pub struct Listed {
    store: Arc<dyn Store>,
    catalog: Catalog,
    folder: PathBuf,
}

impl Listed {
    /// Snapshots of `store`, with their manifests in `catalog`; sorting may use files in `folder`.
    pub fn new(store: Arc<dyn Store>, catalog: Catalog, folder: &Path) -> Self {
        Self { store, catalog, folder: folder.into() }
    }

    fn versions(&self) -> bool {
        self.store.capabilities().versions
    }
}

#[async_trait]
impl Provider for Listed {
    fn kind(&self) -> SnapshotKind {
        if self.versions() { SnapshotKind::Versions } else { SnapshotKind::Guarded }
    }

    async fn take(&self, _name: &Name, as_of_ns: Option<i64>) -> Result<Taken> {
        if as_of_ns.is_some() && !self.versions() {
            return Err(Error::usage("only a bucket that keeps versions can be taken as it was at another time")
                .at(self.store.address())
                .hint("switch versioning on, or leave out --as-of"));
        }
        let listing =
            self.store.list(ListOptions { versions: self.versions(), as_of_ns, ..ListOptions::default() }).await?;
        let ordered = self.store.capabilities().ordered;
        let catalog = self.catalog.clone();
        let folder = self.folder.clone();
        let like = newest_manifest(&catalog).await?;
        blocking(move || {
            let mut seen = Seen::default();
            let entries = settled(content(sorted(listing, ordered, &folder)?, &mut seen));
            let manifest = write_manifest(&catalog, Handle::current(), like.as_ref(), entries)?;
            Ok(Taken { manifest, others: seen.others, others_named: seen.named })
        })
        .await
    }

    async fn peek(&self) -> Result<Listing> {
        self.store.list(ListOptions { versions: self.versions(), ..ListOptions::default() }).await
    }

    async fn keep(&self, _name: &Name, _entries: Entries<'static>) -> Result<()> {
        Ok(())
    }

    async fn reader(&self, _name: &Name) -> Result<Arc<dyn Store>> {
        Ok(self.store.clone())
    }

    async fn repin(&self, _name: &Name, entry: &Entry) -> Result<Entry> {
        let now = self.store.stat(&entry.key).await?;
        now.filter(|now| now.kind == entry.kind).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "it was removed after the snapshot was taken, and nothing keeps it")
                .at(self.store.address())
                .key(&entry.key)
                .hint("run the same command again: an unsealed snapshot of this kind is taken anew")
        })
    }

    async fn remove(&self, _name: &Name) -> Result<()> {
        Ok(())
    }
}

/// What a listing had beside content.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) others: Others,
    pub(super) named: Vec<Key>,
}

/// Passes content on and counts the rest.
pub(super) fn content<'a>(
    entries: impl Iterator<Item = Result<Entry>> + 'a,
    seen: &'a mut Seen,
) -> impl Iterator<Item = Result<Entry>> + 'a {
    entries.filter(move |entry| {
        let Ok(entry) = entry else { return true };
        match entry.kind {
            Kind::Object | Kind::Directory => return true,
            Kind::Link => seen.others.links += 1,
            Kind::Special => seen.others.special += 1,
        }
        if seen.named.len() < NAMED_MAX {
            seen.named.push(entry.key.clone());
        }
        false
    })
}

/// Passes entries on when their files' modification times are past: a file that is written twice within one tick of the
/// file system's clock looks the same both times, so nothing is pinned in the tick in which it was written.
pub(super) fn settled(entries: impl Iterator<Item = Result<Entry>>) -> impl Iterator<Item = Result<Entry>> {
    entries.inspect(|entry| {
        let Some(file) = entry.as_ref().ok().and_then(|entry| entry.pin.file.as_ref()) else { return };
        let now_ns = Timestamp::now().as_nanosecond();
        let past_ns = i128::from(file.mtime_ns) + CLOCK_TICK_NS;
        // A time far ahead was set by hand, and waiting for it would not end.
        if now_ns < past_ns && past_ns - now_ns <= CLOCK_TICK_NS {
            std::thread::sleep(Duration::from_nanos((past_ns - now_ns) as u64));
        }
    })
}

/// A listing in byte order: checked where the store lists so, sorted where it does not.
pub fn sorted(listing: Listing, ordered: bool, folder: &Path) -> Result<Entries<'static>> {
    if ordered {
        return Ok(Box::new(in_order(listing.entries())));
    }
    let sorted = sort_entries(listing.entries(), folder, SORT_MEMORY)?;
    Ok(Box::new(in_order(sorted)))
}

/// What a store lists, in byte order; sorting may use files in `folder`.
pub(crate) async fn listed(store: &dyn Store, options: ListOptions, folder: &Path) -> Result<Entries<'static>> {
    let listing = store.list(options).await?;
    let (ordered, folder) = (store.capabilities().ordered, folder.to_owned());
    blocking(move || sorted(listing, ordered, &folder)).await
}

/// The manifest of the newest snapshot: most of its segments are likely to be in the next one, too.
pub(super) async fn newest_manifest(catalog: &Catalog) -> Result<Option<Manifest>> {
    match catalog.newest(|_| true).await? {
        Some(record) => catalog.manifest(&record.name).await.map(Some),
        None => Ok(None),
    }
}
