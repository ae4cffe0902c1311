//! Uploads under way, written down with the target: who comes after a run that died, and knows nothing of it, drops its
//! uploads and nobody else's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;

use super::Transfer;
use crate::catalog::{Catalog, Mark};
use crate::error::{Result, Side};
use crate::key::Key;
use crate::store::Upload;

/// The marks of this run.
#[derive(Debug)]
pub(super) struct Marks {
    catalog: Catalog,
    /// Where it is being written, and the upload's name as soon as it has one.
    open: Mutex<BTreeMap<Key, Option<String>>>,
    /// Whether there is anything to forget.
    written: AtomicBool,
}

impl Marks {
    pub(super) fn new(catalog: Catalog) -> Self {
        Self { catalog, open: Mutex::default(), written: AtomicBool::new(false) }
    }

    /// Writes down that an upload to `at` is about to begin, or has begun under this name.
    pub(super) async fn set(&self, at: &Key, id: Option<&str>) -> Result<()> {
        let mut open = self.open.lock().await;
        open.insert(at.clone(), id.map(str::to_owned));
        self.written.store(true, Ordering::Relaxed);
        let marks: Vec<Mark> = open.iter().map(|(at, id)| Mark { at: at.clone(), id: id.clone() }).collect();
        self.catalog.set_uploads(&marks).await.map_err(|error| error.on(Side::Target))
    }

    /// The upload to `at` is finished or dropped. The next mark that is set says so.
    pub(super) async fn clear(&self, at: &Key) {
        self.open.lock().await.remove(at);
    }
}

impl Transfer {
    /// Drops the uploads of runs that died, but for those that this one may go on with.
    pub(super) async fn drop_marked(&self) -> Result<()> {
        if !self.resuming {
            return Ok(());
        }
        self.marks.written.store(true, Ordering::Relaxed);
        let known = self.uploads.lock().await;
        for Mark { at, id } in self.marks.catalog.uploads().await.map_err(|error| error.on(Side::Target))? {
            let uploads = match id {
                Some(id) => vec![Upload { key: at, id }],
                // It died between the two marks: what is open there was begun in the same moment, or is its own.
                None => {
                    let open = self.retrying(|| self.target.open_uploads(&at)).await;
                    open.map_err(|error| error.on(Side::Target).key(&at))?
                }
            };
            for upload in uploads.iter().filter(|upload| !known.contains_key(&upload.id)) {
                self.abort(upload).await;
            }
        }
        Ok(())
    }

    /// Nothing is under way any more.
    pub(super) async fn forget_marks(&self) -> Result<()> {
        if !self.marks.written.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.marks.catalog.set_uploads(&[]).await.map_err(|error| error.on(Side::Target))
    }
}
