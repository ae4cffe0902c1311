//! A store in memory that can be told to act like an object store or like a file system. For tests, and as the
//! shortest reading of what [`Store`] promises.

mod state;

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use md5::{Digest, Md5};

use super::{
    Capabilities, Condition, ListOptions, Listing, Object, Part, Piece, Store, Upload, Version, check_copied,
    unsupported,
};
use crate::checksum::Sum;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Attributes, Entry, Kind, Pin};
use state::{Content, Pending, State};

/// Entries in one batch of a listing, small enough that tests get several.
const LIST_BATCH: usize = 256;

/// Longest key of an object store, as in S3.
const KEY_BYTES_MAX: usize = 1024;

/// A bucket in memory. Its clock ticks with every change and otherwise stands still.
#[derive(Debug)]
pub struct MemoryStore {
    address: String,
    capabilities: Capabilities,
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty bucket that can do exactly this.
    pub fn new(name: &str, capabilities: Capabilities) -> Self {
        let state = Mutex::new(State::new(capabilities.clone()));
        Self { address: format!("memory:{name}"), capabilities, state }
    }

    /// An empty bucket like one of S3 without versioning.
    pub fn objects(name: &str) -> Self {
        Self::new(name, Self::like_s3())
    }

    /// An empty bucket like one of S3 with versioning.
    pub fn versioned(name: &str) -> Self {
        Self::new(name, Capabilities { versions: true, ..Self::like_s3() })
    }

    /// An empty directory like one of a local file system.
    pub fn files(name: &str) -> Self {
        Self::new(name, Self::like_files())
    }

    /// An empty bucket like one of Ozone with real directories.
    pub fn trees(name: &str) -> Self {
        Self::new(name, Self::like_trees())
    }

    /// The capabilities of S3 without versioning.
    pub fn like_s3() -> Capabilities {
        Capabilities {
            ordered: true,
            steady: true,
            versions: false,
            directories: false,
            rename: false,
            trees: false,
            copy: true,
            copy_ranges: true,
            file_attributes: false,
            headers: true,
            conditional: true,
            conditional_parts: true,
            proves_whole: true,
            delete_batch_max: 1000,
            part_bytes_min: 1,
            parts_max: 10_000,
            write_bytes_max: 5 << 30,
        }
    }

    /// The capabilities of a local file system.
    pub fn like_files() -> Capabilities {
        Capabilities { directories: true, rename: true, file_attributes: true, proves_whole: false, ..Self::like_s3() }
    }

    /// The capabilities of a bucket of Ozone with real directories: objects have entity tags, and neither times nor
    /// permission bits that could be set; directories have an identity.
    pub fn like_trees() -> Capabilities {
        Capabilities { directories: true, rename: true, trees: true, proves_whole: false, ..Self::like_s3() }
    }

    /// The clock, in nanoseconds since 1970.
    pub fn now_ns(&self) -> i64 {
        self.lock().now_ns
    }

    /// Moves the clock on by this many nanoseconds.
    pub fn advance(&self, ns: u64) {
        self.lock().now_ns += i64::try_from(ns).unwrap_or(i64::MAX >> 1);
    }

    /// From now on there is no such bucket: every call fails with `NotFound`.
    pub fn remove_bucket(&self) {
        self.lock().missing = true;
    }

    /// How many uploads are under way, as a test for leaks.
    pub fn uploads(&self) -> usize {
        self.lock().uploads.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, if there is such a bucket.
    fn open(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match state.missing {
            true => Err(self.fail(ErrorKind::NotFound, "there is no such bucket")),
            false => Ok(state),
        }
    }

    fn fail(&self, kind: ErrorKind, what: impl Into<String>) -> Error {
        Error::new(kind, what).at(&self.address)
    }

    /// The content that an entry pins.
    fn pinned(&self, state: &State, entry: &Entry) -> Result<Content> {
        let key = &entry.key;
        let gone = || self.fail(ErrorKind::NotFound, "the object is gone").key(key);
        if let Some(version) = &entry.pin.version {
            return state.version(key, version).cloned().ok_or_else(gone);
        }
        let content = state.current(key).ok_or_else(gone)?;
        if content.kind == Kind::Directory && self.capabilities.directories || content.pin.matches(&entry.pin) {
            return Ok(content.clone());
        }
        Err(self.fail(ErrorKind::Changed, "the object is not the one that was listed").key(key))
    }

    /// The whole of an upload, if these are its parts and nothing is missing.
    fn assemble(&self, pending: &Pending, parts: &[Part]) -> Result<(Bytes, String)> {
        let bad = |what: String| self.fail(ErrorKind::Damaged, what);
        let mut whole = BytesMut::new();
        let mut digests = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let number = part.number;
            let Some((offset, data)) = pending.parts.get(&number) else {
                return Err(bad(format!("part {number} was never written")));
            };
            let digest = Md5::digest(data);
            if number as usize != index + 1 || *offset != whole.len() as u64 || part.etag != hex::encode(digest) {
                return Err(bad(format!("part {number} is not the one that was written, or out of place")));
            }
            if index + 1 < parts.len() && (data.len() as u64) < self.capabilities.part_bytes_min {
                return Err(bad(format!("part {number} is too small")));
            }
            whole.extend_from_slice(data);
            digests.extend_from_slice(&digest);
        }
        if whole.len() as u64 != pending.size {
            return Err(bad(format!("{} bytes were announced and {} written", pending.size, whole.len())));
        }
        if self.capabilities.proves_whole && Part::whole(parts).is_some_and(|sum| sum != Sum::of(&whole)) {
            return Err(bad("the checksums of the parts are not those of the object".into()));
        }
        Ok((whole.freeze(), format!("{}-{}", hex::encode(Md5::digest(&digests)), parts.len())))
    }

    fn no_upload(&self, upload: &Upload) -> Error {
        self.fail(ErrorKind::NotFound, format!("there is no upload `{}`", upload.id)).key(&upload.key)
    }
}

/// A listing of all this.
fn in_batches<T: Send + 'static>(all: Vec<T>) -> Listing<T> {
    let (sender, listing) = Listing::channel();
    tokio::spawn(async move {
        let mut rest = all.into_iter().peekable();
        while rest.peek().is_some() {
            if sender.send(rest.by_ref().take(LIST_BATCH).collect()).await.is_err() {
                return;
            }
        }
        sender.close(Ok(())).await;
    });
    listing
}

#[async_trait]
impl Store for MemoryStore {
    fn address(&self) -> &str {
        &self.address
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn accepts(&self, key: &Key) -> Result<()> {
        let fits = match self.capabilities.directories {
            true => super::local::path::check(key),
            false if key.is_empty() => Err("an object needs a name".into()),
            false if key.len() > KEY_BYTES_MAX => Err(format!("the key is longer than {KEY_BYTES_MAX} bytes")),
            false if std::str::from_utf8(key.as_bytes()).is_err() => Err("the key is not UTF-8".into()),
            false => Ok(()),
        };
        fits.map_err(|what| self.fail(ErrorKind::Unrepresentable, what).key(key))
    }

    async fn list(&self, options: ListOptions) -> Result<Listing> {
        if (options.versions || options.as_of_ns.is_some()) && !self.capabilities.versions {
            return Err(unsupported("versions").at(&self.address));
        }
        let mut entries = self.open()?.list(&options);
        if !self.capabilities.ordered {
            entries.sort_by_cached_key(|entry| Md5::digest(entry.key.as_bytes()).to_vec());
        }
        Ok(in_batches(entries))
    }

    async fn read(&self, entry: &Entry, range: Option<Range<u64>>) -> Result<Object> {
        let content = self.pinned(&*self.open()?, entry)?;
        let size = content.data.len() as u64;
        let range = range.unwrap_or(0..size);
        if range.start > range.end || range.end > size {
            return Err(self.fail(ErrorKind::Usage, format!("{range:?} is not in its {size} bytes")).key(&entry.key));
        }
        let data = content.data.slice(range.start as usize..range.end as usize);
        Ok(Object { data, attributes: content.attributes })
    }

    async fn fetch(&self, key: &Key) -> Result<Option<(Bytes, Pin)>> {
        let state = self.open()?;
        let object = state.current(key).filter(|content| content.kind == Kind::Object);
        Ok(object.map(|content| (content.data.clone(), content.pin.clone())))
    }

    async fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        let state = self.open()?;
        Ok(state.current(key).map(|content| {
            let attributes = content.attributes.beyond_files().then(|| Box::new(content.attributes.clone()));
            Entry { attributes, ..state.entry(key, content, true) }
        }))
    }

    async fn write(&self, key: &Key, data: Bytes, attributes: &Attributes, condition: &Condition) -> Result<Pin> {
        self.accepts(key)?;
        if data.len() as u64 > self.capabilities.write_bytes_max {
            return Err(self.fail(ErrorKind::Unsupported, "the object is too large for one write").key(key));
        }
        let mut state = self.open()?;
        let written = state.check(key, condition).and_then(|()| state.put(key, data, attributes, None));
        written.map_err(|error| error.at(&self.address).key(key))
    }

    async fn begin(&self, key: &Key, size: u64, _: &Attributes) -> Result<Upload> {
        self.accepts(key)?;
        let mut state = self.open()?;
        let id = format!("upload-{}", state.next_serial());
        state.uploads.insert(id.clone(), Pending { key: key.clone(), size, parts: Default::default() });
        Ok(Upload { key: key.clone(), id })
    }

    async fn write_part(&self, upload: &Upload, number: u32, offset: u64, data: Bytes) -> Result<Part> {
        if number == 0 || number > self.capabilities.parts_max {
            return Err(self.fail(ErrorKind::Unsupported, format!("there is no part {number}")).key(&upload.key));
        }
        let (size, etag) = (data.len() as u64, hex::encode(Md5::digest(&data)));
        let checksum = if self.capabilities.proves_whole { Sum::of(&data).text() } else { String::new() };
        let mut state = self.open()?;
        let pending = state.uploads.get_mut(&upload.id).ok_or_else(|| self.no_upload(upload))?;
        pending.parts.insert(number, (offset, data));
        Ok(Part { number, offset, size, etag, checksum })
    }

    async fn copy_part(
        &self,
        upload: &Upload,
        number: u32,
        offset: u64,
        from: &Entry,
        range: Range<u64>,
    ) -> Result<Part> {
        if !self.capabilities.copy_ranges {
            return Err(unsupported("copying of ranges").at(&self.address).key(&upload.key));
        }
        check_copied(from, &range)?;
        let content = self.pinned(&*self.open()?, from)?;
        if content.data.len() as u64 != from.size {
            return Err(self.fail(ErrorKind::Changed, "the object is not the one that was listed").key(&from.key));
        }
        let data = content.data.slice(range.start as usize..range.end as usize);
        self.write_part(upload, number, offset, data).await
    }

    async fn finish(
        &self,
        upload: &Upload,
        parts: &[Part],
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<Pin> {
        let mut state = self.open()?;
        let pending = state.uploads.get(&upload.id).filter(|pending| pending.key == upload.key);
        let pending = pending.ok_or_else(|| self.no_upload(upload))?;
        let (data, etag) = self.assemble(pending, parts).map_err(|error| error.key(&upload.key))?;
        let holds = match self.capabilities.conditional_parts {
            true => state.check(&upload.key, condition),
            false => Ok(()),
        };
        let written = holds.and_then(|()| state.put(&upload.key, data, attributes, Some(etag)));
        let pin = written.map_err(|error| error.at(&self.address).key(&upload.key))?;
        if pin.etag.is_some() {
            let piece = |part: &Part| Piece { size: part.size, identity: part.etag.as_str().into() };
            state.set_pieces(&upload.key, parts.iter().map(piece));
        }
        state.uploads.remove(&upload.id);
        Ok(pin)
    }

    async fn abort(&self, upload: &Upload) -> Result<()> {
        self.open()?.uploads.remove(&upload.id);
        Ok(())
    }

    async fn open_uploads(&self, key: &Key) -> Result<Vec<Upload>> {
        let state = self.open()?;
        let of_key = state.uploads.iter().filter(|(_, pending)| pending.key == *key);
        Ok(of_key.map(|(id, _)| Upload { key: key.clone(), id: id.clone() }).collect())
    }

    async fn pieces(&self, entry: &Entry) -> Result<Option<Vec<Piece>>> {
        let content = match self.pinned(&*self.open()?, entry) {
            Ok(content) => content,
            Err(error) if matches!(error.kind(), ErrorKind::Changed | ErrorKind::NotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok((!content.pieces.is_empty()).then(|| content.pieces.to_vec()))
    }

    async fn copy(
        &self,
        from: &Entry,
        to: &Key,
        attributes: Option<&Attributes>,
        condition: &Condition,
    ) -> Result<Pin> {
        if !self.capabilities.copy {
            return Err(unsupported("copy").at(&self.address).key(to));
        }
        self.accepts(to)?;
        let mut state = self.open()?;
        let content = self.pinned(&state, from)?;
        let attributes = attributes.unwrap_or(&content.attributes);
        let copied = state.check(to, condition).and_then(|()| state.put(to, content.data, attributes, None));
        copied.map_err(|error| error.at(&self.address).key(to))
    }

    async fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        if !self.capabilities.rename {
            return Err(unsupported("rename").at(&self.address).key(to));
        }
        self.accepts(to)?;
        self.open()?.rename(from, to).map_err(|error| error.at(&self.address).key(from))
    }

    async fn set_attributes(&self, key: &Key, attributes: &Attributes) -> Result<()> {
        if !self.capabilities.file_attributes {
            return Err(unsupported("setting attributes").at(&self.address).key(key));
        }
        match self.open()?.set_attributes(key, attributes) {
            true => Ok(()),
            false => Err(self.fail(ErrorKind::NotFound, "there is nothing to set attributes of").key(key)),
        }
    }

    async fn delete(&self, keys: &[Key]) -> Result<()> {
        let max = self.capabilities.delete_batch_max;
        if keys.len() > max {
            return Err(self.fail(ErrorKind::Unsupported, format!("more than {max} keys in one delete")));
        }
        let mut state = self.open()?;
        let mut first = Ok(());
        for key in keys {
            first = first.and(state.delete(key).map_err(|error| error.at(&self.address)));
        }
        first
    }

    async fn list_versions(&self, prefix: &Key) -> Result<Listing<Version>> {
        if !self.capabilities.versions {
            return Err(unsupported("versions").at(&self.address));
        }
        let mut versions = self.open()?.versions(prefix);
        // In no order, as the trait says.
        versions.sort_by_key(|version| version.removal);
        Ok(in_batches(versions))
    }

    async fn delete_versions(&self, versions: &[(Key, Box<str>)]) -> Result<()> {
        let max = self.capabilities.delete_batch_max;
        if !self.capabilities.versions || versions.len() > max {
            return Err(self.fail(ErrorKind::Unsupported, format!("no versions, or more than {max} in one delete")));
        }
        let mut state = self.open()?;
        versions.iter().for_each(|(key, id)| state.delete_version(key, id));
        Ok(())
    }

    async fn remove_tree(&self, key: &Key) -> Result<()> {
        if !self.capabilities.trees {
            return Err(unsupported("deleting of whole directories").at(&self.address).key(key));
        }
        self.open()?.remove_tree(key).map_err(|error| error.at(&self.address))
    }
}
