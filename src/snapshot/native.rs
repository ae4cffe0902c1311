//! Snapshots that the store itself takes and keeps: Ozone's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use tokio::runtime::Handle;

use super::listed::listed;
use super::{Name, Others, Provider, SnapshotKind, Taken};
use crate::blocking::{blocking, stream};
use crate::catalog::{Catalog, write_manifest};
use crate::diff::native::{each_once, marks, renewed};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Entry, Kind, Manifest};
use crate::merge::{Entries, merge_by_key};
use crate::plan::{Spool, SpoolWriter};
use crate::sort::sort_entries;
use crate::store::ozone::{NativeSnapshot, OzoneStore};
use crate::store::{ListOptions, Listing, ListingSender, Store};

/// Memory for sorting what changed, in bytes.
const SORT_MEMORY: usize = 16 << 20;

/// Names that are asked for at once.
const LOOKUPS_AT_ONCE: usize = 16;

/// Asking for one name costs about as much as listing this many.
const ENTRIES_PER_LOOKUP: u64 = 8;

/// As many lookups as this are made however little a listing would be.
const LOOKUPS_MIN: u64 = 256;

/// Keeps Ozone's own snapshots. What is in one is listed from it when that is needed, so nothing has to be written to a
/// bucket that is only read.
#[derive(Debug)]
pub struct Native {
    store: Arc<OzoneStore>,
    /// Where the lists are: on this machine, for as long as the program runs.
    lists: Catalog,
    folder: PathBuf,
}

impl Native {
    /// Snapshots of `store`, with lists of what is in them in `lists`; sorting may use files in `folder`.
    pub fn new(store: Arc<OzoneStore>, lists: Catalog, folder: &Path) -> Self {
        Self { store, lists, folder: folder.into() }
    }

    /// Takes a snapshot without looking into it.
    pub async fn create(&self, name: &Name, as_of_ns: Option<i64>) -> Result<NativeSnapshot> {
        if as_of_ns.is_some() {
            return Err(Error::usage("a bucket of Ozone cannot be taken as it was at another time")
                .at(self.store.address())
                .hint("leave out --as-of"));
        }
        self.check_name(name)?;
        self.store.create_snapshot(name).await
    }

    /// What is in a snapshot that is there.
    pub async fn list(&self, name: &Name) -> Result<Manifest> {
        let (entries, lists) = (self.entries(name).await?, self.lists.clone());
        blocking(move || write_manifest(&lists, Handle::current(), None, entries)).await
    }

    /// What is in a snapshot that is there, from `base`, the `objects` objects of an older one that is there too, and what the
    /// store says has changed since. None where it does not say, or where so much has changed that listing is less work.
    pub async fn since(
        &self,
        name: &Name,
        older: &Name,
        base: Entries<'static>,
        objects: u64,
    ) -> Result<Option<Manifest>> {
        let marked = match self.marked(older, name).await {
            Ok(marked) => marked,
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::NotFound) => {
                tracing::warn!("the snapshots are listed, for there is no diff of them: {error}");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // Each name has two marks.
        if marked.len() / 2 > LOOKUPS_MIN.max(objects / ENTRIES_PER_LOOKUP) {
            return Ok(None);
        }
        let marked = Arc::new(marked);
        let fresh = self.fresh(name, marked.clone());
        let (lists, folder) = (self.lists.clone(), self.folder.clone());
        let manifest = blocking(move || {
            let fresh = Box::new(each_once(sort_entries(fresh.entries(), &folder, SORT_MEMORY)?));
            let entries = renewed(base, Box::new(marked.iter()?), fresh);
            write_manifest(&lists, Handle::current(), None, entries)
        });
        manifest.await.map(Some)
    }

    /// Marks of what the store says is not the same in two snapshots, in byte order.
    async fn marked(&self, older: &Name, newer: &Name) -> Result<Spool<Entry>> {
        let mut pages = self.store.touched(older, newer);
        // Where there are no directories, nothing lies under a name.
        let directories = self.store.capabilities().directories;
        let (sender, listing) = Listing::channel();
        tokio::spawn(async move {
            let outcome = loop {
                match pages.next().await {
                    Ok(Some(touched)) => {
                        let marks = touched
                            .iter()
                            .flat_map(|touched| marks(&touched.path, touched.deep && directories))
                            .collect();
                        if sender.send(marks).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            sender.close(outcome).await;
        });
        let folder = self.folder.clone();
        blocking(move || {
            let mut spool = SpoolWriter::new(&folder)?;
            for mark in each_once(sort_entries(listing.entries(), &folder, SORT_MEMORY)?) {
                spool.push(&mark?)?;
            }
            spool.finish()
        })
        .await
    }

    /// What is under the marked names in a snapshot, in no order.
    fn fresh(&self, name: &Name, marked: Arc<Spool<Entry>>) -> Listing {
        let store = self.store.at_snapshot(name.as_str());
        let (sender, listing) = Listing::channel();
        tokio::spawn(async move {
            let mut covered: Option<Key> = None;
            let directories = stream(move || marked.iter()).try_filter(move |mark| {
                let inside = covered.as_ref().is_some_and(|covered| mark.key.starts_with(covered.as_bytes()));
                let wanted = mark.kind == Kind::Directory && !inside;
                if wanted && mark.size > 0 {
                    covered = Some(mark.key.clone());
                }
                std::future::ready(wanted)
            });
            let looked_up = directories.try_for_each_concurrent(LOOKUPS_AT_ONCE, |mark| look_up(&store, mark, &sender));
            let outcome = looked_up.await;
            sender.close(outcome).await;
        });
        listing
    }

    /// What a snapshot that is there lists, in byte order.
    pub async fn entries(&self, name: &Name) -> Result<Entries<'static>> {
        listed(&self.store.at_snapshot(name.as_str()), ListOptions::default(), &self.folder).await
    }
}

/// Sends what is under one marked name: an object, or a directory, with all in it if the mark says so.
async fn look_up(store: &OzoneStore, mark: Entry, sender: &ListingSender) -> Result<()> {
    // Who does not listen any more has an error of its own.
    let object = Key::copy_from(&mark.key.as_bytes()[..mark.key.len() - 1]);
    if !object.is_empty()
        && let Some(found) = store.stat(&object).await?
    {
        let _ = sender.send(vec![found]).await;
        return Ok(());
    }
    let Some(directory) = store.stat(&mark.key).await? else { return Ok(()) };
    let _ = sender.send(vec![directory]).await;
    if mark.size > 0 && store.capabilities().directories {
        let mut inside = store.list(ListOptions { prefix: mark.key, ..ListOptions::default() }).await?;
        while let Some(batch) = inside.next().await {
            let _ = sender.send(batch?).await;
        }
    }
    Ok(())
}

#[async_trait]
impl Provider for Native {
    fn kind(&self) -> SnapshotKind {
        SnapshotKind::Native
    }

    async fn ready(&self) -> Result<()> {
        self.store.check_snapshots().await
    }

    fn check_name(&self, name: &Name) -> Result<()> {
        name.check_for_ozone().map_err(|error| error.at(self.store.address()))
    }

    fn fitting(&self, name: Name) -> Name {
        name.lowercase()
    }

    async fn take(&self, name: &Name, as_of_ns: Option<i64>) -> Result<Taken> {
        self.create(name, as_of_ns).await?;
        Ok(Taken { manifest: self.list(name).await?, others: Others::default(), others_named: Vec::new() })
    }

    async fn peek(&self) -> Result<Listing> {
        self.store.list(ListOptions::default()).await
    }

    /// A snapshot of this name that is there already is what a run left that died between the two halves of its seal,
    /// for anybody else's was refused before: it is kept if it holds exactly these entries.
    async fn keep(&self, name: &Name, entries: Entries<'static>) -> Result<()> {
        match self.store.create_snapshot(name).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            outcome => return outcome.map(drop),
        }
        if self.store.snapshot(name).await?.is_none() {
            let what = format!("its snapshot {name} was deleted, and Ozone has not let go of the name yet");
            return Err(Error::new(ErrorKind::Unavailable, what).at(self.store.address()).hint(
                "run the same command again when Ozone has purged it (ozone.snapshot.deleting.service.interval), or \
                 choose another name with --snapshot",
            ));
        }
        let (there, address) = (self.entries(name).await?, self.store.address().to_owned());
        let name = name.clone();
        blocking(move || {
            for row in merge_by_key([entries, there]) {
                let (key, [proved, there]) = row?;
                let same = match (&proved, &there) {
                    (Some(proved), Some(there)) => crate::plan::is_same_entry(proved, there),
                    _ => false,
                };
                if !same {
                    return Err(Error::new(
                        ErrorKind::Refused,
                        format!("it has a snapshot {name} already that holds something else"),
                    )
                    .at(address)
                    .key(&key)
                    .hint("delete that snapshot, or choose another name with --snapshot"));
                }
            }
            Ok(())
        })
        .await
    }

    async fn reader(&self, name: &Name) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(self.store.at_snapshot(name.as_str())))
    }

    async fn repin(&self, name: &Name, entry: &Entry) -> Result<Entry> {
        Err(Error::new(ErrorKind::Damaged, format!("snapshot {name} does not have what it listed"))
            .at(self.store.address())
            .key(&entry.key)
            .hint("was the snapshot deleted while it was read? take another one"))
    }

    async fn remove(&self, name: &Name) -> Result<()> {
        self.store.delete_snapshot(name).await
    }
}
