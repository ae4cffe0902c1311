//! A store beside which something happens: at a call of a run's choosing, somebody else acts first.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin as Pinned;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use snapferry::error::Result;
use snapferry::key::Key;
use snapferry::manifest::{Attributes, Entry, Pin};
use snapferry::store::record::Op;
use snapferry::store::{Capabilities, Condition, ListOptions, Listing, Object, Part, Piece, Store, Upload, Version};

use super::world::Place;

type Work = Pinned<Box<dyn Future<Output = ()> + Send>>;

type Awaits = dyn Fn(Op, &Key) -> bool + Send + Sync;

/// Wraps a store; before the first call that is awaited, does the work.
pub(crate) struct Hook {
    inner: Arc<dyn Store>,
    awaits: Box<Awaits>,
    work: Mutex<Option<Work>>,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Place {
    /// The same place, where `work` is done before the first call for which `awaits` holds.
    pub(crate) fn hooked(
        &self,
        awaits: impl Fn(Op, &Key) -> bool + Send + Sync + 'static,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> (Place, Arc<Hook>) {
        let work = Mutex::new(Some(Box::pin(work) as Work));
        let hook = Arc::new(Hook { inner: self.store.clone(), awaits: Box::new(awaits), work });
        (self.through(hook.clone()), hook)
    }
}

impl Hook {
    /// Whether the call came.
    pub(crate) fn is_done(&self) -> bool {
        self.work.lock().unwrap().is_none()
    }

    async fn call(&self, op: Op, key: &Key) {
        if !(self.awaits)(op, key) {
            return;
        }
        let work = self.work.lock().unwrap().take();
        if let Some(work) = work {
            work.await;
        }
    }
}

#[async_trait]
impl Store for Hook {
    fn address(&self) -> &str {
        self.inner.address()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn accepts(&self, key: &Key) -> Result<()> {
        self.inner.accepts(key)
    }

    async fn list(&self, options: ListOptions) -> Result<Listing> {
        self.call(Op::List, &options.prefix).await;
        self.inner.list(options).await
    }

    async fn read(&self, entry: &Entry, range: Option<Range<u64>>) -> Result<Object> {
        self.call(Op::Read, &entry.key).await;
        self.inner.read(entry, range).await
    }

    async fn fetch(&self, key: &Key) -> Result<Option<(Bytes, Pin)>> {
        self.call(Op::Fetch, key).await;
        self.inner.fetch(key).await
    }

    async fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        self.call(Op::Stat, key).await;
        self.inner.stat(key).await
    }

    async fn write(&self, key: &Key, data: Bytes, attributes: &Attributes, condition: &Condition) -> Result<Pin> {
        self.call(Op::Write, key).await;
        self.inner.write(key, data, attributes, condition).await
    }

    async fn begin(&self, key: &Key, size: u64, attributes: &Attributes) -> Result<Upload> {
        self.call(Op::Begin, key).await;
        self.inner.begin(key, size, attributes).await
    }

    async fn write_part(&self, upload: &Upload, number: u32, offset: u64, data: Bytes) -> Result<Part> {
        self.call(Op::WritePart, &upload.key).await;
        self.inner.write_part(upload, number, offset, data).await
    }

    async fn copy_part(
        &self,
        upload: &Upload,
        number: u32,
        offset: u64,
        from: &Entry,
        range: Range<u64>,
    ) -> Result<Part> {
        self.call(Op::CopyPart, &from.key).await;
        self.inner.copy_part(upload, number, offset, from, range).await
    }

    async fn finish(
        &self,
        upload: &Upload,
        parts: &[Part],
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<Pin> {
        self.call(Op::Finish, &upload.key).await;
        self.inner.finish(upload, parts, attributes, condition).await
    }

    async fn abort(&self, upload: &Upload) -> Result<()> {
        self.call(Op::Abort, &upload.key).await;
        self.inner.abort(upload).await
    }

    async fn pieces(&self, entry: &Entry) -> Result<Option<Vec<Piece>>> {
        self.call(Op::Pieces, &entry.key).await;
        self.inner.pieces(entry).await
    }

    async fn copy(
        &self,
        from: &Entry,
        to: &Key,
        attributes: Option<&Attributes>,
        condition: &Condition,
    ) -> Result<Pin> {
        self.call(Op::Copy, &from.key).await;
        self.inner.copy(from, to, attributes, condition).await
    }

    async fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        self.call(Op::Rename, from).await;
        self.inner.rename(from, to).await
    }

    async fn set_attributes(&self, key: &Key, attributes: &Attributes) -> Result<()> {
        self.call(Op::SetAttributes, key).await;
        self.inner.set_attributes(key, attributes).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<()> {
        self.call(Op::Delete, &keys.first().cloned().unwrap_or_default()).await;
        self.inner.delete(keys).await
    }

    async fn list_versions(&self, prefix: &Key) -> Result<Listing<Version>> {
        self.call(Op::ListVersions, prefix).await;
        self.inner.list_versions(prefix).await
    }

    async fn delete_versions(&self, versions: &[(Key, Box<str>)]) -> Result<()> {
        self.call(Op::DeleteVersions, &versions.first().map(|(key, _)| key.clone()).unwrap_or_default()).await;
        self.inner.delete_versions(versions).await
    }

    async fn remove_tree(&self, key: &Key) -> Result<()> {
        self.call(Op::RemoveTree, key).await;
        self.inner.remove_tree(key).await
    }

    async fn sync(&self) -> Result<()> {
        self.call(Op::Sync, &Key::default()).await;
        self.inner.sync().await
    }
}
