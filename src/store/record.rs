//! A store that writes down every call: for tests that check what something costs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Capabilities, Condition, ListOptions, Listing, Object, Part, Piece, Store, Upload, Version};
use crate::error::Result;
use crate::key::Key;
use crate::manifest::{Attributes, Entry, Pin};

/// A method of [`Store`] that costs a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // They are the methods' names.
pub enum Op {
    List,
    Read,
    Fetch,
    Stat,
    Write,
    Begin,
    WritePart,
    CopyPart,
    Finish,
    Abort,
    Pieces,
    Copy,
    Rename,
    SetAttributes,
    Delete,
    ListVersions,
    DeleteVersions,
    RemoveTree,
    Sync,
}

/// One call, whether it failed or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The method.
    pub op: Op,
    /// The keys it was called with: from and to, all that were to be deleted, or a listing's prefix.
    pub keys: Vec<Key>,
    /// Bytes asked for or given; 0 of what is copied on the store's own side.
    pub bytes: u64,
}

/// Wraps a store and records its calls in the order in which they began.
#[derive(Debug)]
pub struct Record {
    inner: Arc<dyn Store>,
    calls: Mutex<Vec<Call>>,
}

impl Record {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, calls: Mutex::default() }
    }

    /// The calls so far; the record begins anew.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.lock())
    }

    /// How often each method was called so far.
    pub fn counts(&self) -> BTreeMap<Op, u64> {
        let mut counts = BTreeMap::new();
        for call in self.lock().iter() {
            *counts.entry(call.op).or_default() += 1;
        }
        counts
    }

    /// How often this method was called so far.
    pub fn count(&self, op: Op) -> u64 {
        self.lock().iter().filter(|call| call.op == op).count() as u64
    }

    /// Bytes that this method was asked for or given so far.
    pub fn bytes(&self, op: Op) -> u64 {
        self.lock().iter().filter(|call| call.op == op).map(|call| call.bytes).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, op: Op, keys: &[&Key], bytes: u64) {
        let keys = keys.iter().map(|&key| key.clone()).collect();
        self.lock().push(Call { op, keys, bytes });
    }
}

#[async_trait]
impl Store for Record {
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
        self.note(Op::List, &[&options.prefix], 0);
        self.inner.list(options).await
    }

    async fn read(&self, entry: &Entry, range: Option<Range<u64>>) -> Result<Object> {
        let bytes = range.as_ref().map_or(entry.size, |range| range.end.saturating_sub(range.start));
        self.note(Op::Read, &[&entry.key], bytes);
        self.inner.read(entry, range).await
    }

    async fn fetch(&self, key: &Key) -> Result<Option<(Bytes, Pin)>> {
        self.note(Op::Fetch, &[key], 0);
        self.inner.fetch(key).await
    }

    async fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        self.note(Op::Stat, &[key], 0);
        self.inner.stat(key).await
    }

    async fn write(&self, key: &Key, data: Bytes, attributes: &Attributes, condition: &Condition) -> Result<Pin> {
        self.note(Op::Write, &[key], data.len() as u64);
        self.inner.write(key, data, attributes, condition).await
    }

    async fn begin(&self, key: &Key, size: u64, attributes: &Attributes) -> Result<Upload> {
        self.note(Op::Begin, &[key], 0);
        self.inner.begin(key, size, attributes).await
    }

    async fn write_part(&self, upload: &Upload, number: u32, offset: u64, data: Bytes) -> Result<Part> {
        self.note(Op::WritePart, &[&upload.key], data.len() as u64);
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
        self.note(Op::CopyPart, &[&from.key, &upload.key], 0);
        self.inner.copy_part(upload, number, offset, from, range).await
    }

    async fn finish(
        &self,
        upload: &Upload,
        parts: &[Part],
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<Pin> {
        self.note(Op::Finish, &[&upload.key], 0);
        self.inner.finish(upload, parts, attributes, condition).await
    }

    async fn abort(&self, upload: &Upload) -> Result<()> {
        self.note(Op::Abort, &[&upload.key], 0);
        self.inner.abort(upload).await
    }

    async fn open_uploads(&self, key: &Key) -> Result<Vec<Upload>> {
        self.inner.open_uploads(key).await
    }

    async fn pieces(&self, entry: &Entry) -> Result<Option<Vec<Piece>>> {
        self.note(Op::Pieces, &[&entry.key], 0);
        self.inner.pieces(entry).await
    }

    async fn copy(
        &self,
        from: &Entry,
        to: &Key,
        attributes: Option<&Attributes>,
        condition: &Condition,
    ) -> Result<Pin> {
        self.note(Op::Copy, &[&from.key, to], 0);
        self.inner.copy(from, to, attributes, condition).await
    }

    async fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        self.note(Op::Rename, &[from, to], 0);
        self.inner.rename(from, to).await
    }

    async fn set_attributes(&self, key: &Key, attributes: &Attributes) -> Result<()> {
        self.note(Op::SetAttributes, &[key], 0);
        self.inner.set_attributes(key, attributes).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<()> {
        self.note(Op::Delete, &keys.iter().collect::<Vec<_>>(), 0);
        self.inner.delete(keys).await
    }

    async fn list_versions(&self, prefix: &Key) -> Result<Listing<Version>> {
        self.note(Op::ListVersions, &[prefix], 0);
        self.inner.list_versions(prefix).await
    }

    async fn delete_versions(&self, versions: &[(Key, Box<str>)]) -> Result<()> {
        self.note(Op::DeleteVersions, &versions.iter().map(|(key, _)| key).collect::<Vec<_>>(), 0);
        self.inner.delete_versions(versions).await
    }

    async fn remove_tree(&self, key: &Key) -> Result<()> {
        self.note(Op::RemoveTree, &[key], 0);
        self.inner.remove_tree(key).await
    }

    async fn sync(&self) -> Result<()> {
        self.note(Op::Sync, &[], 0);
        self.inner.sync().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn calls_are_counted_with_their_bytes() {
        let record = Record::new(Arc::new(MemoryStore::files("a")));
        let (a, b, none) = (Key::from("a"), Key::from("b"), Attributes::default());
        record.write(&a, "data".into(), &none, &Condition::Any).await.unwrap();
        let entry = record.stat(&a).await.unwrap().unwrap();
        record.read(&entry, None).await.unwrap();
        record.read(&entry, Some(1..3)).await.unwrap();
        record.rename(&b, &a).await.unwrap_err();
        assert_eq!(record.counts(), [(Op::Read, 2), (Op::Stat, 1), (Op::Write, 1), (Op::Rename, 1)].into());
        assert_eq!((record.bytes(Op::Read), record.bytes(Op::Write)), (6, 4));
        let upload = record.begin(&b, 2, &none).await.unwrap();
        record.copy_part(&upload, 1, 0, &entry, 1..3).await.unwrap();
        assert_eq!((record.count(Op::CopyPart), record.bytes(Op::CopyPart)), (1, 0), "no byte crosses to the store");
        let calls = record.take();
        assert_eq!(calls[6], Call { op: Op::CopyPart, keys: vec![a.clone(), b.clone()], bytes: 0 });
        assert_eq!(calls[4], Call { op: Op::Rename, keys: vec![b, a], bytes: 0 });
        assert_eq!(record.count(Op::Read), 0);
    }
}
