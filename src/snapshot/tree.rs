//! Snapshots of a local directory: clone trees with their manifests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::runtime::Handle;

use super::clone::{self, CloneMode, Outcome};
use super::listed::{Seen, content, newest_manifest, settled, sorted};
use super::{Name, Provider, SnapshotKind, Taken};
use crate::blocking::blocking;
use crate::catalog::{Catalog, manifest_writer};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::manifest::Entry;
use crate::merge::Entries;
use crate::store::local::LocalStore;
use crate::store::{ListOptions, Listing, Store};

/// Keeps clone trees of a directory.
#[derive(Debug)]
pub struct Tree {
    store: Arc<LocalStore>,
    catalog: Catalog,
    mode: CloneMode,
    folder: PathBuf,
}

impl Tree {
    /// Snapshots of `store`, with their manifests in `catalog`; sorting may use files in `folder`.
    pub fn new(store: Arc<LocalStore>, catalog: Catalog, mode: CloneMode, folder: &Path) -> Self {
        Self { store, catalog, mode, folder: folder.into() }
    }
}

#[async_trait]
impl Provider for Tree {
    fn kind(&self) -> SnapshotKind {
        SnapshotKind::Clone
    }

    async fn take(&self, name: &Name, as_of_ns: Option<i64>) -> Result<Taken> {
        if as_of_ns.is_some() {
            return Err(Error::usage("a directory cannot be taken as it was at another time")
                .at(self.store.address())
                .hint("leave out --as-of"));
        }
        let listing = self.peek().await?;
        let like = newest_manifest(&self.catalog).await?;
        let (store, catalog, mode) = (self.store.clone(), self.catalog.clone(), self.mode);
        let (name, folder) = (name.clone(), self.folder.clone());
        blocking(move || {
            // A tree without a record is what a run left that was killed in between.
            clone::remove(&store, name.as_str())?;
            let mut seen = Seen::default();
            let entries = settled(content(sorted(listing, true, &folder)?, &mut seen));
            let mut writer = manifest_writer(&catalog, Handle::current(), like.as_ref());
            clone::create(&store, name.as_str(), mode, entries, |outcome| match outcome {
                Outcome::Pinned(entry) | Outcome::Repinned(entry) => writer.push(entry),
                // Deleted while the snapshot was being taken: it is as if it had been before.
                Outcome::Gone(_) => Ok(()),
            })?;
            let (manifest, _) = writer.finish()?;
            Ok(Taken { manifest, others: seen.others, others_named: seen.named })
        })
        .await
    }

    async fn peek(&self) -> Result<Listing> {
        self.store.list(ListOptions::default()).await
    }

    async fn keep(&self, name: &Name, entries: Entries<'static>) -> Result<()> {
        let (store, mode, name) = (self.store.clone(), self.mode, name.clone());
        blocking(move || {
            clone::remove(&store, name.as_str())?;
            clone::create(&store, name.as_str(), mode, entries, |outcome| match outcome {
                Outcome::Pinned(_) => Ok(()),
                Outcome::Repinned(entry) | Outcome::Gone(entry) => {
                    Err(Error::new(ErrorKind::Differ, "somebody changed it between the proof and the seal")
                        .at(store.address())
                        .key(&entry.key)
                        .hint("run the same command again"))
                }
            })
            .map(drop)
        })
        .await
    }

    async fn reader(&self, name: &Name) -> Result<Arc<dyn Store>> {
        let (store, name) = (self.store.clone(), name.clone());
        let clone = blocking(move || clone::open(&store, name.as_str())).await?;
        Ok(Arc::new(clone))
    }

    async fn repin(&self, name: &Name, entry: &Entry) -> Result<Entry> {
        let (store, name, key) = (self.store.clone(), name.clone(), entry.key.clone());
        blocking(move || clone::repin(&store, name.as_str(), &key)).await
    }

    async fn remove(&self, name: &Name) -> Result<()> {
        let (store, name) = (self.store.clone(), name.clone());
        blocking(move || clone::remove(&store, name.as_str())).await
    }
}
