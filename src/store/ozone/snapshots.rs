//! The bucket's own snapshots.

use std::time::Duration;

use super::OzoneStore;
use super::om::{DiffOptions, DiffPages, Difference, DifferenceKind, SnapshotInfo};
use crate::error::{Kind, Result};
use crate::snapshot::Name;

/// A snapshot as Ozone keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeSnapshot {
    /// Its name: not every one that Ozone takes is one of ours.
    pub name: String,
    /// When it was taken, in milliseconds since 1970.
    pub created_ms: u64,
}

impl From<SnapshotInfo> for NativeSnapshot {
    fn from(info: SnapshotInfo) -> Self {
        Self { name: info.name, created_ms: info.created_ms }
    }
}

/// A name that is not the same in two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// The name, of a directory without the slash.
    pub path: String,
    /// What lies under it may be touched, too: it came, went or took another name.
    pub deep: bool,
}

/// What the Ozone Manager finds to differ between two snapshots, page by page.
#[derive(Debug)]
pub struct TouchedPages(DiffPages);

impl TouchedPages {
    /// The next names, in no order; none at the end. A page may be empty.
    ///
    /// # Errors
    /// `Unsupported` where the Ozone Manager comes to no report: the snapshots are to be listed instead. `NotFound` where
    /// one of them is gone.
    pub async fn next(&mut self) -> Result<Option<Vec<Touched>>> {
        let Some(differences) = self.0.next().await? else { return Ok(None) };
        let mut touched = Vec::with_capacity(differences.len());
        for Difference { kind, source, target } in differences {
            let deep = kind != DifferenceKind::Modify;
            let paths = [Some(source), target].into_iter().flatten();
            touched.extend(paths.map(|path| Touched { path: path.trim_start_matches('/').to_owned(), deep }));
        }
        Ok(Some(touched))
    }
}

/// How long the Ozone Manager may take over a diff before listing is thought to be faster.
const DIFF_PATIENCE: Duration = Duration::from_secs(600);

/// What no snapshot is called: Ozone's names have no such characters.
const NO_SNAPSHOT: &str = "/none/";

/// Snapshots that one request asks for.
const PAGE: u32 = 1000;

impl OzoneStore {
    /// Takes a snapshot of the bucket as it is.
    ///
    /// # Errors
    /// `AlreadyExists` where there is one of this name.
    pub async fn create_snapshot(&self, name: &Name) -> Result<NativeSnapshot> {
        self.live()?;
        let made = self.shared.bucket.create_snapshot(name.as_str()).await;
        made.map(NativeSnapshot::from).map_err(|error| error.at(&*self.address))
    }

    /// Fails where snapshots are switched off, which the Ozone Manager says only to who takes or deletes one.
    ///
    /// # Errors
    /// `Unsupported` where they are.
    pub async fn check_snapshots(&self) -> Result<()> {
        match self.shared.bucket.delete_snapshot(NO_SNAPSHOT).await {
            Err(error) if error.kind() == Kind::Unsupported => Err(error.at(&*self.address)),
            // Whatever else stands in the way is said by the request that meets it.
            _ => Ok(()),
        }
    }

    /// The snapshot of this name, if there is one.
    pub async fn snapshot(&self, name: &Name) -> Result<Option<NativeSnapshot>> {
        let info = self.shared.bucket.snapshot(name.as_str()).await.map_err(|error| error.at(&*self.address))?;
        let info = info.filter(|info| info.active);
        Ok(info.map(NativeSnapshot::from))
    }

    /// All snapshots, the newest first.
    pub async fn snapshots(&self) -> Result<Vec<NativeSnapshot>> {
        let mut all = Vec::new();
        let mut previous = None;
        loop {
            let page = self.shared.bucket.snapshots("", previous.as_deref(), PAGE).await;
            let page = page.map_err(|error| error.at(&*self.address))?;
            all.extend(page.snapshots.into_iter().filter(|info| info.active).map(NativeSnapshot::from));
            if page.next.is_none() {
                break;
            }
            if page.next <= previous {
                let what = "the Ozone Manager's list of snapshots goes on nowhere";
                return Err(self.fail(Kind::BadListing, what).hint("run the command again"));
            }
            previous = page.next;
        }
        all.sort_by(|a: &NativeSnapshot, b| b.created_ms.cmp(&a.created_ms).then_with(|| b.name.cmp(&a.name)));
        Ok(all)
    }

    /// What differs between two snapshots, as far as the Ozone Manager knows: a report may leave names out, so it saves
    /// work and proves nothing.
    pub fn touched(&self, from: &Name, to: &Name) -> TouchedPages {
        let options = DiffOptions::default();
        TouchedPages(self.shared.bucket.diff_pages(from.as_str(), to.as_str(), options, DIFF_PATIENCE))
    }

    /// Deletes a snapshot. One that is gone already is no error.
    pub async fn delete_snapshot(&self, name: &Name) -> Result<()> {
        self.shared.bucket.delete_snapshot(name.as_str()).await.map_err(|error| error.at(&*self.address)).map(drop)
    }
}
