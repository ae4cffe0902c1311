//! Where objects live: one trait for every store, and what each can do, declared apart.
//!
//! A store addresses one bucket (or a prefix of one, or a directory) and knows nothing of snapshots, plans or retries.
//! Keys are relative to that root. A call that fails with a retryable error had no effect or may be repeated.

pub mod fault;
pub mod listing;
pub mod local;
pub mod memory;
pub mod ozone;
pub mod record;
pub mod s3;

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

pub use listing::{Listing, ListingSender};

use crate::checksum::Sum;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Attributes, Entry, Kind, Pin};
use crate::retry::retry;

/// What a store can do and how far it goes. Asked once, when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Lists keys in byte order. Where it does not, a listing is sorted before it is used.
    pub ordered: bool,
    /// A listing shows every change that was answered before it began. Where it may not, what looks wrong is listed again.
    pub steady: bool,
    /// Keeps every version of an object, so that content stays readable by version id after it was replaced or deleted.
    pub versions: bool,
    /// Has real directories: a parent exists before its child, an empty one stays, `a` excludes `a/b`.
    /// Where it has none a directory is an empty object whose key ends in `/`.
    pub directories: bool,
    /// Renames an object, or a directory with all it holds, in one atomic step.
    pub rename: bool,
    /// Renames and deletes a directory with all that it holds in one request, and lists directories with their identity:
    /// the inode and the time of birth in `pin.file`, which a rename leaves alone.
    pub trees: bool,
    /// Copies an object on its own side.
    pub copy: bool,
    /// Copies ranges of its objects into parts of an upload, on its own side.
    pub copy_ranges: bool,
    /// Keeps modification time and permission bits.
    pub file_attributes: bool,
    /// Keeps content headers (`content-type` and the like) with an object.
    pub headers: bool,
    /// Refuses a write whose [`Condition`] does not hold.
    pub conditional: bool,
    /// Refuses to finish a multipart upload whose [`Condition`] does not hold.
    pub conditional_parts: bool,
    /// [`Store::finish`] fails where the checksums of all parts, put together, are not that of what the store put
    /// together, which it computes itself. One that only repeats what it is told does not have this.
    pub proves_whole: bool,
    /// Most keys in one [`Store::delete`].
    pub delete_batch_max: usize,
    /// Smallest part to write or to copy, but for the last one: what is legal, or below what parts cost the store more than
    /// they help.
    pub part_bytes_min: u64,
    /// Most parts of one object.
    pub parts_max: u32,
    /// Largest object that one [`Store::write`] may carry.
    pub write_bytes_max: u64,
}

/// Which listing is wanted.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Only keys that begin with this.
    pub prefix: Key,
    /// Only keys after this one.
    pub after: Option<Key>,
    /// With the version id of each key's current content, where the store keeps versions.
    pub versions: bool,
    /// The bucket as it was at this moment, in nanoseconds since 1970; needs `versions`.
    pub as_of_ns: Option<i64>,
}

/// What must be true on the store for a write to happen, checked by the store in the same step.
/// Stores without the `conditional` capability write regardless.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Condition {
    /// Whatever is there.
    #[default]
    Any,
    /// Nothing is there; else the write fails with `AlreadyExists`.
    Absent,
    /// This content is there; else the write fails with `Changed`.
    Matches(Pin),
}

/// Bytes that were read, with what travels with them.
#[derive(Debug, Clone)]
pub struct Object {
    /// The bytes of the range.
    pub data: Bytes,
    /// What travels with them. Complete on every read, also of a range.
    pub attributes: Attributes,
}

/// A large write under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upload {
    /// The key that will appear when it is finished.
    pub key: Key,
    /// The store's name for it.
    pub id: String,
}

/// A part that has landed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// From 1 up, without gaps.
    pub number: u32,
    /// Where it begins in the object.
    pub offset: u64,
    /// Its length.
    pub size: u64,
    /// The store's receipt for it; empty where it gives none.
    pub etag: String,
    /// CRC64NVME in the text of [`Sum::text`], which the upload is finished with; empty where there is none. Of a part that
    /// was written it is that of what was sent and confirmed; of one that was copied it is the store's own.
    pub checksum: String,
}

impl Part {
    /// Its checksum, if it has one.
    pub fn sum(&self) -> Option<Sum> {
        Sum::parse(&self.checksum, self.size)
    }

    /// Whether the store's answer shows that it copied bytes with this sum: it was not told what they should be. None
    /// where the answer does not say; then [`Self::claim`] and a store that proves the whole, or reading back. On
    /// `Some(false)` the part is best written instead: the bytes are wrong, or the server is wrong about them.
    pub fn proves(&self, sum: &Sum) -> Option<bool> {
        (self.size != sum.size).then_some(false).or_else(|| self.sum().map(|own| own == *sum))
    }

    /// Says what its bytes should be, where the store did not say what they are. This is no proof by itself: it is for
    /// [`Store::finish`] to compare, where the store has the capability `proves_whole`.
    pub fn claim(&mut self, sum: &Sum) {
        if self.checksum.is_empty() {
            self.checksum = sum.text();
        }
    }

    /// The checksum of all parts put together; none if one of them has none.
    fn whole(parts: &[Self]) -> Option<Sum> {
        parts.iter().try_fold(Sum::default(), |whole, part| Some(whole.then(part.sum()?)))
    }
}

/// A stretch of an object's content, as the store itself keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its length.
    pub size: u64,
    /// Equal in two pieces of one store, of the same length, only if their bytes are. Different says nothing.
    pub identity: Box<str>,
}

/// The id of what was written while a bucket did not keep versions; it is replaced by what is written so again ("How S3
/// Versioning works").
pub const NULL_VERSION: &str = "null";

/// One version of a key, or its removal, which is a version without content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The key.
    pub key: Key,
    /// The version's id, [`NULL_VERSION`] for one that pins nothing.
    pub id: Box<str>,
    /// It is what the key is now: the others are older.
    pub current: bool,
    /// The key was removed then.
    pub removal: bool,
    /// When it was written, in nanoseconds since 1970. versitygw says of an older version when it was replaced.
    pub mtime_ns: i64,
    /// Bytes of content; 0 for a removal.
    pub size: u64,
}

/// Largest part that every store can copy at once: that of UploadPartCopy ("Amazon S3 multipart upload limits"). A
/// server may be silent until it is done, so parts of a gigabyte or less are wiser.
pub const COPY_PART_BYTES_MAX: u64 = 5 << 30;

/// A bucket's objects.
///
/// Every method is one request on the wire, or a number of them that does not grow with the object's size,
/// but for [`Store::list`]. Errors carry the key and the store's address; who calls adds the side.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The bucket's URL without secrets, as an error or a receipt names it.
    fn address(&self) -> &str;

    /// What this store can do.
    fn capabilities(&self) -> &Capabilities;

    /// Requests sent so far; 0 where there is no wire.
    fn requests(&self) -> u64 {
        0
    }

    /// The local directory that this store is, for who can do many small pieces of work on it at once. None for any
    /// other store, and for one that is wrapped, so that every call goes through the wrapper.
    fn local(&self) -> Option<&local::LocalStore> {
        None
    }

    /// Checks that the store can hold this key, by itself. (That `a` and `a/b` exclude each other where there are
    /// directories is for the planner to see.) The error is of kind `Unrepresentable` and names the key.
    fn accepts(&self, key: &Key) -> Result<()>;

    /// Lists objects, and directories where there are any, in byte order if `capabilities().ordered`. Objects under
    /// `.snapferry/` (and `.snapshot/` where that is reserved) are left out unless the prefix asks for them.
    ///
    /// A bucket or root that does not exist is an error, never an empty listing.
    async fn list(&self, options: ListOptions) -> Result<Listing>;

    /// Reads a range of an object (all of it if none is given), pinned to `entry`: content that is not the entry's
    /// fails with `Changed`, or `NotFound` where it is gone. Directories read as empty.
    async fn read(&self, entry: &Entry, range: Option<Range<u64>>) -> Result<Object>;

    /// Reads a small document whatever its version; none if it does not exist.
    async fn fetch(&self, key: &Key) -> Result<Option<(Bytes, Pin)>>;

    /// What is known of a key now, with its version where there are versions; none if it does not exist.
    /// Costs a request: for recovery, not for the hot path.
    async fn stat(&self, key: &Key) -> Result<Option<Entry>>;

    /// Writes an object whole and atomically: a reader sees the old one or the new one. The store has checked the
    /// content when this returns. A key that ends in `/` with no data makes a directory.
    async fn write(&self, key: &Key, data: Bytes, attributes: &Attributes, condition: &Condition) -> Result<Pin>;

    /// Begins an object that is written in parts and will have `size` bytes.
    async fn begin(&self, key: &Key, size: u64, attributes: &Attributes) -> Result<Upload>;

    /// Writes one part; parts of one upload may be written at the same time and again.
    async fn write_part(&self, upload: &Upload, number: u32, offset: u64, data: Bytes) -> Result<Part>;

    /// Copies `range` of an object, on the store's own side, as a part that begins at `offset` of the new one; with
    /// [`Store::write_part`] in every other respect alike. It may be the very object that the upload will replace.
    ///
    /// Pinned to `from`: content that is not the entry's fails with `Changed`, or `NotFound` where it is gone, and the
    /// error names `from`. The range must not be empty, nor longer than [`COPY_PART_BYTES_MAX`].
    async fn copy_part(
        &self,
        upload: &Upload,
        number: u32,
        offset: u64,
        from: &Entry,
        range: Range<u64>,
    ) -> Result<Part> {
        let _ = (number, offset, from, range);
        Err(unsupported("copying of ranges").key(&upload.key))
    }

    /// Makes the object appear, whole, from all its parts in order. With the capability `proves_whole`, where each part
    /// has its checksum, it fails as `Damaged` if they are not those of the bytes. AWS and SeaweedFS refuse and nothing
    /// appears; versitygw says only afterwards what it has. Ozone's gateway, moto, directories and any server that is not
    /// known to compare do not have it.
    async fn finish(
        &self,
        upload: &Upload,
        parts: &[Part],
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<Pin>;

    /// Drops an upload and its parts. One that is gone already is no error.
    async fn abort(&self, upload: &Upload) -> Result<()>;

    /// Uploads to this key that were begun and neither finished nor dropped, where such stay and cost room.
    async fn open_uploads(&self, key: &Key) -> Result<Vec<Upload>> {
        let _ = key;
        Ok(Vec::new())
    }

    /// The pieces that make up an object's content, in its order and without gaps, as far as the store knows them
    /// without reading it. None where it knows nothing, which includes content that is no longer there.
    async fn pieces(&self, entry: &Entry) -> Result<Option<Vec<Piece>>> {
        let _ = entry;
        Ok(None)
    }

    /// Copies an object on the store's own side, pinned to `from`. `attributes` replace the object's own if given.
    async fn copy(
        &self,
        from: &Entry,
        to: &Key,
        attributes: Option<&Attributes>,
        condition: &Condition,
    ) -> Result<Pin> {
        let _ = (from, attributes, condition);
        Err(unsupported("copy").key(to))
    }

    /// Renames an object, or a directory with all that it holds (both keys end in `/`); replaces an object at `to`.
    /// Parents of `to` that are missing are made. `NotFound` where there is nothing at `from`.
    async fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        let _ = from;
        Err(unsupported("rename").key(to))
    }

    /// Renames many objects to names that are free, in fewer requests than one each, where that can be: true for those that
    /// were renamed, and false for those that [`Store::rename`] has to see to.
    async fn rename_all(&self, pairs: &[(Key, Key)]) -> Result<Vec<bool>> {
        Ok(vec![false; pairs.len()])
    }

    /// Sets permission bits and modification time; what else `attributes` holds is left alone.
    async fn set_attributes(&self, key: &Key, attributes: &Attributes) -> Result<()> {
        let _ = attributes;
        Err(unsupported("setting attributes").key(key))
    }

    /// Deletes keys, at most `delete_batch_max`. What is gone already is no error. A key that ends in `/` deletes only
    /// an empty directory (or the marker object), any other only an object. An error names the first key that stayed.
    async fn delete(&self, keys: &[Key]) -> Result<()>;

    /// Lists every version, and every removal, of the keys that begin with `prefix`, in no order that could be relied on.
    /// `.snapferry/` is left out unless the prefix asks for it. Needs the capability `versions`.
    async fn list_versions(&self, prefix: &Key) -> Result<Listing<Version>> {
        let _ = prefix;
        Err(unsupported("versions").at(self.address()))
    }

    /// Deletes these versions for good, at most `delete_batch_max`. What is gone already is no error; an error names the
    /// first key of which one stayed. Of a key whose current version goes, the next older one is what it is then.
    async fn delete_versions(&self, versions: &[(Key, Box<str>)]) -> Result<()> {
        let _ = versions;
        Err(unsupported("versions").at(self.address()))
    }

    /// Deletes a directory with all that it holds, in one request; its key ends in `/`. One that is gone is no error.
    async fn remove_tree(&self, key: &Key) -> Result<()> {
        Err(unsupported("deleting of whole directories").key(key))
    }

    /// Returns when everything written so far would survive a power cut.
    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}

fn unsupported(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the store has no {what}"))
}

/// Whether pieces are as long as the object.
fn make_up(pieces: &[Piece], size: u64) -> bool {
    pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(piece.size)) == Some(size)
}

/// Checks that a range to be copied is one, and is in the object.
fn check_copied(from: &Entry, range: &Range<u64>) -> Result<()> {
    if range.is_empty() || range.end > from.size || range.end - range.start > COPY_PART_BYTES_MAX {
        let what = format!("{range:?} of an object of {} bytes cannot be copied as a part", from.size);
        return Err(Error::internal(what).key(&from.key));
    }
    Ok(())
}

/// The kind that an object store's key and size stand for: an empty object whose name ends in `/` is a directory.
pub fn kind_of(key: &Key, size: u64) -> Kind {
    if size == 0 && key.is_directory() { Kind::Directory } else { Kind::Object }
}

/// Deletes a directory and everything in it: in one request where the store can, else children before the directories
/// that hold them, with memory bounded by a batch and by the number of directories.
pub(crate) async fn remove_all(store: &dyn Store, prefix: &Key) -> Result<()> {
    if store.capabilities().trees {
        return retry(|| store.remove_tree(prefix), |_| {}).await;
    }
    let mut listing = store.list(ListOptions { prefix: prefix.clone(), ..ListOptions::default() }).await?;
    let mut directories = Vec::new();
    while let Some(batch) = listing.next().await {
        let (inner, objects): (Vec<Key>, Vec<Key>) =
            batch?.into_iter().map(|entry| entry.key).partition(Key::is_directory);
        directories.extend(inner);
        for keys in objects.chunks(store.capabilities().delete_batch_max.max(1)) {
            retry(|| store.delete(keys), |_| {}).await?;
        }
    }
    for directory in directories.iter().rev() {
        retry(|| store.delete(std::slice::from_ref(directory)), |_| {}).await?;
    }
    Ok(())
}
