//! Directories of a local file system.
//!
//! Nothing outside the root is ever reached, links are not followed, and a file appears whole under its name or
//! not at all. New content lies in `.snapferry/staging/` until then, on the same file system.

pub(crate) mod batch;
pub(crate) mod file;
mod names;
mod parts;
pub(crate) mod path;
pub(crate) mod root;
mod siblings;
mod walk;

use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Capabilities, Condition, ListOptions, Listing, Object, Part, Store, Upload, unsupported};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Attributes, Entry, Kind, Pin};
use file::{Guard, Staged};
use root::{Meta, Root, failed};

/// How often a document is read again that is replaced while it is read.
const FETCHES_MAX: u32 = 8;

/// A directory as a bucket.
#[derive(Debug, Clone)]
pub struct LocalStore {
    address: String,
    capabilities: Capabilities,
    root: Arc<Root>,
    guard: Guard,
    read_only: bool,
}

impl LocalStore {
    /// The URL of the directory at a path, links resolved; of one that does not exist yet, what exists of it decides.
    ///
    /// # Errors
    /// `Usage` where it is no path.
    pub fn address_of(path: &str) -> Result<String> {
        real_path(Path::new(path))
            .map(|real| format!("file://{}", real.display()))
            .ok_or_else(|| Error::usage(format!("`{path}` is no path")))
    }

    /// Opens a directory; makes it, and the directories above it, if `create` is set. Blocks for a moment.
    ///
    /// # Errors
    /// `NotFound` where there is no such directory, `Denied` where it cannot be entered.
    pub fn open(path: &Path, create: bool) -> Result<Self> {
        let root = Root::open(path, create).map_err(|error| {
            let kind = Error::from(std::io::Error::from(error.kind())).kind();
            let place = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            Error::new(kind, "cannot open the directory")
                .at(format!("file://{}", place.display()))
                .hint("check the path, and that this user may enter it")
                .caused_by(error)
        })?;
        let address = format!("file://{}", root.path().display());
        let (root, guard) = (Arc::new(root), Guard::Inode);
        Ok(Self { address, capabilities: capabilities(), root, guard, read_only: false })
    }

    /// A directory below this one as a store of its own.
    pub(crate) fn within(&self, path: &[u8]) -> Result<Self, rustix::io::Errno> {
        let root = Arc::new(self.root.within(path)?);
        let address = format!("file://{}", root.path().display());
        Ok(Self { address, root, ..self.clone() })
    }

    /// The same directory for reading only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Whether a read insists on the pinned inode (the default), or on size and modification time alone:
    /// for a clone whose entries are pinned as the live files that it was made from.
    #[must_use]
    pub fn guard_inode(mut self, guard_inode: bool) -> Self {
        self.guard = if guard_inode { Guard::Inode } else { Guard::Time };
        self
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Does blocking work where that harms nobody.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Root) -> Result<T> + Send + 'static) -> Result<T> {
        let root = Arc::clone(&self.root);
        let done = tokio::task::spawn_blocking(move || work(&root)).await;
        let done = done.unwrap_or_else(|error| Err(Error::internal("work on a file was given up").caused_by(error)));
        done.map_err(|error| error.at(&self.address))
    }

    /// Checks that something may be changed under this key.
    fn may_change(&self, key: &Key) -> Result<()> {
        if self.read_only {
            return Err(Error::new(ErrorKind::Denied, "a snapshot is read-only").at(&self.address).key(key));
        }
        self.accepts(key)
    }
}

/// What every local directory can do. Conditions are checked right before the rename that depends on them;
/// only `Absent` is checked by the kernel in the same step.
fn capabilities() -> Capabilities {
    Capabilities {
        ordered: true,
        steady: true,
        versions: false,
        directories: true,
        rename: true,
        trees: false,
        copy: true,
        copy_ranges: true,
        file_attributes: true,
        headers: false,
        conditional: true,
        conditional_parts: true,
        proves_whole: false,
        delete_batch_max: 1000,
        part_bytes_min: 1,
        parts_max: u32::MAX,
        write_bytes_max: 1 << 40,
    }
}

/// Writes a file whole.
fn write(root: &Root, key: &Key, data: &[u8], attributes: &Attributes, condition: &Condition) -> Result<Pin> {
    let fail = |errno| failed(errno, "cannot write the file", key);
    let staged = Staged::new(root).map_err(fail)?;
    file::write_at(&staged.file, data, 0).map_err(fail)?;
    finish(root, staged, key, attributes, condition)
}

/// Gives a staged file its attributes and its name.
fn finish(root: &Root, staged: Staged, key: &Key, attributes: &Attributes, condition: &Condition) -> Result<Pin> {
    let fail = |errno| failed(errno, "cannot finish the file", key);
    root::set_new(&staged.file, attributes).map_err(fail)?;
    let meta = Meta::of_open(&staged.file).map_err(fail)?;
    staged.place(root, key, condition)?;
    Ok(meta.pin())
}

fn copy(
    root: &Root,
    guard: Guard,
    from: &Entry,
    to: &Key,
    attributes: Option<&Attributes>,
    condition: &Condition,
) -> Result<Pin> {
    let fail = |errno| failed(errno, "cannot copy the file", to);
    let source = file::open(root, &from.key)?;
    let meta = guard.check(&source, from)?;
    let staged = Staged::new(root).map_err(fail)?;
    file::copy_content(&source, &staged.file, from.size).map_err(fail)?;
    let copied = Meta::of_open(&staged.file).map_err(fail)?;
    if guard.check(&source, from)? != meta || copied.size != from.size {
        return Err(file::changed(&from.key));
    }
    finish(root, staged, to, attributes.unwrap_or(&meta.attributes()), condition)
}

fn fetch(root: &Root, key: &Key) -> Result<Option<(Bytes, Pin)>> {
    let fail = |errno| failed(errno, "cannot read the file", key);
    if key.is_directory() {
        return Ok(None);
    }
    for _ in 0..FETCHES_MAX {
        let file = match file::open(root, key) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let meta = Meta::of_open(&file).map_err(fail)?;
        if meta.kind != Kind::Object {
            return Ok(None);
        }
        let data = file::read_range(&file, 0..meta.size).map_err(fail)?;
        if data.len() as u64 == meta.size && Meta::of_open(&file).map_err(fail)? == meta {
            return Ok(Some((data, meta.pin())));
        }
    }
    Err(Error::new(ErrorKind::Changed, "the file changes all the time while it is read").key(key))
}

fn real_path(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let (existing, real) = path.ancestors().find_map(|part| Some((part.to_owned(), part.canonicalize().ok()?)))?;
    let rest = path.strip_prefix(&existing).unwrap_or(Path::new(""));
    // What is made there will be real directories, so `..` leads back out of them; maybe to something that exists.
    if rest.components().any(|part| part == Component::ParentDir) {
        let mut real = real;
        for part in rest.components() {
            match part {
                Component::ParentDir => drop(real.pop()),
                part => real.push(part),
            }
        }
        return real_path(&real);
    }
    Some(real.join(rest).components().collect())
}

#[async_trait]
impl Store for LocalStore {
    fn address(&self) -> &str {
        &self.address
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn accepts(&self, key: &Key) -> Result<()> {
        path::check(key).map_err(|what| Error::new(ErrorKind::Unrepresentable, what).at(&self.address).key(key))
    }

    fn local(&self) -> Option<&LocalStore> {
        Some(self)
    }

    async fn list(&self, options: ListOptions) -> Result<Listing> {
        if options.versions || options.as_of_ns.is_some() {
            return Err(unsupported("versions").at(&self.address));
        }
        let (sender, listing) = Listing::channel();
        let (root, address) = (Arc::clone(&self.root), self.address.clone());
        let walk = move || walk::walk(root, options, &address, sender);
        std::thread::Builder::new().name("list".into()).spawn(walk)?;
        Ok(listing)
    }

    async fn read(&self, entry: &Entry, range: Option<Range<u64>>) -> Result<Object> {
        let (entry, guard) = (entry.clone(), self.guard);
        let (data, meta) = self
            .blocking(move |root| match entry.key.is_directory() {
                false => file::read(root, guard, &entry, range),
                true => match root.meta(&entry.key) {
                    Ok(Some(meta)) => Ok((Bytes::new(), meta)),
                    Ok(None) => Err(Error::new(ErrorKind::NotFound, "the directory is gone").key(&entry.key)),
                    Err(errno) => Err(failed(errno, "cannot look at the directory", &entry.key)),
                },
            })
            .await?;
        Ok(Object { data, attributes: meta.attributes() })
    }

    async fn fetch(&self, key: &Key) -> Result<Option<(Bytes, Pin)>> {
        let key = key.clone();
        self.blocking(move |root| fetch(root, &key)).await
    }

    async fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        let key = key.clone();
        self.blocking(move |root| {
            let meta = root.meta(&key).map_err(|errno| failed(errno, "cannot look at it", &key))?;
            Ok(meta.map(|meta| meta.into_entry(key)))
        })
        .await
    }

    async fn write(&self, key: &Key, data: Bytes, attributes: &Attributes, condition: &Condition) -> Result<Pin> {
        self.may_change(key)?;
        if key.is_directory() && !data.is_empty() {
            let what = "a directory cannot have content here";
            return Err(Error::new(ErrorKind::Unrepresentable, what).at(&self.address).key(key));
        }
        let (key, attributes, condition) = (key.clone(), attributes.clone(), condition.clone());
        self.blocking(move |root| match key.is_directory() {
            true => names::make_directory(root, &key, &attributes, &condition),
            false => write(root, &key, &data, &attributes, &condition),
        })
        .await
    }

    async fn begin(&self, key: &Key, size: u64, _: &Attributes) -> Result<Upload> {
        self.may_change(key)?;
        let key = key.clone();
        self.blocking(move |root| parts::begin(root, &key, size)).await
    }

    async fn write_part(&self, upload: &Upload, number: u32, offset: u64, data: Bytes) -> Result<Part> {
        self.may_change(&upload.key)?;
        let upload = upload.clone();
        self.blocking(move |root| parts::write_part(root, &upload, number, offset, &data)).await
    }

    async fn copy_part(
        &self,
        upload: &Upload,
        number: u32,
        offset: u64,
        from: &Entry,
        range: Range<u64>,
    ) -> Result<Part> {
        self.may_change(&upload.key)?;
        let (guard, upload, from) = (self.guard, upload.clone(), from.clone());
        self.blocking(move |root| parts::copy_part(root, guard, &upload, number, offset, &from, range)).await
    }

    async fn finish(
        &self,
        upload: &Upload,
        parts: &[Part],
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<Pin> {
        self.may_change(&upload.key)?;
        let (upload, parts) = (upload.clone(), parts.to_vec());
        let (attributes, condition) = (attributes.clone(), condition.clone());
        self.blocking(move |root| parts::finish(root, &upload, &parts, &attributes, &condition)).await
    }

    async fn abort(&self, upload: &Upload) -> Result<()> {
        self.may_change(&upload.key)?;
        let upload = upload.clone();
        self.blocking(move |root| parts::abort(root, &upload)).await
    }

    async fn copy(
        &self,
        from: &Entry,
        to: &Key,
        attributes: Option<&Attributes>,
        condition: &Condition,
    ) -> Result<Pin> {
        self.may_change(to)?;
        let (guard, from, to) = (self.guard, from.clone(), to.clone());
        let (attributes, condition) = (attributes.cloned(), condition.clone());
        self.blocking(move |root| copy(root, guard, &from, &to, attributes.as_ref(), &condition)).await
    }

    async fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        self.may_change(from)?;
        self.may_change(to)?;
        let (from, to) = (from.clone(), to.clone());
        self.blocking(move |root| names::rename(root, &from, &to)).await
    }

    async fn set_attributes(&self, key: &Key, attributes: &Attributes) -> Result<()> {
        self.may_change(key)?;
        let (key, attributes) = (key.clone(), attributes.clone());
        self.blocking(move |root| names::set_attributes(root, &key, &attributes)).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<()> {
        let max = self.capabilities.delete_batch_max;
        if keys.len() > max {
            return Err(Error::internal(format!("more than {max} keys in one delete")).at(&self.address));
        }
        keys.iter().try_for_each(|key| self.may_change(key))?;
        let keys = keys.to_vec();
        self.blocking(move |root| names::delete(root, &keys)).await
    }

    async fn sync(&self) -> Result<()> {
        self.blocking(|root| Ok(rustix::fs::syncfs(root.fd())?)).await
    }
}
