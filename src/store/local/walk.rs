//! Lists a directory tree in the order of its keys.

use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Dir, FileType};
use rustix::io::Errno;

use super::root::{Meta, Root, failed, is_absent};
use super::siblings::{Sibling, Sorted, Sorter};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::{Key, RESERVED, SNAPSHOTS};
use crate::manifest::{Entry, Kind};
use crate::store::{ListOptions, ListingSender};

/// Entries passed on together.
const BATCH: usize = 256;

/// Names of one directory that are sorted in memory: about 15 MB.
const SIBLINGS_IN_MEMORY_MAX: usize = 100_000;

/// How often a directory is read again that changed while it was read.
const READS_MAX: u32 = 8;

/// What ends a walk early.
enum Stop {
    Failed(Error),
    ReaderGone,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

/// Walks the tree and passes its entries on; blocks.
pub(super) fn walk(root: Arc<Root>, options: ListOptions, address: &str, sender: ListingSender) {
    let mut walk = Walk { root: &root, options: &options, sender: &sender, batch: Vec::with_capacity(BATCH) };
    match walk.run() {
        Ok(()) => sender.close_blocking(Ok(())),
        Err(Stop::Failed(error)) => sender.close_blocking(Err(error.at(address))),
        Err(Stop::ReaderGone) => {}
    }
}

struct Walk<'a> {
    root: &'a Root,
    options: &'a ListOptions,
    sender: &'a ListingSender,
    batch: Vec<Entry>,
}

/// A directory whose entries are being given out; its path is empty or ends in `/`.
struct Level {
    path: Vec<u8>,
    siblings: Sorted,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), Stop> {
        self.root.check_still_there()?;
        let mut levels = vec![self.read_directory(Vec::new())?];
        while let Some(level) = levels.last_mut() {
            let Some((name, meta)) = level.siblings.next().map_err(Error::from)? else {
                levels.pop();
                continue;
            };
            let path = [level.path.as_slice(), &name].concat();
            let is_directory = meta.kind == Kind::Directory;
            if self.wants(&path) {
                self.emit(meta.into_entry(Key::copy_from(&path)))?;
            }
            if is_directory && self.enters(&path) {
                levels.push(self.read_directory(path)?);
            }
        }
        self.flush()
    }

    fn emit(&mut self, entry: Entry) -> Result<(), Stop> {
        self.batch.push(entry);
        if self.batch.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        if batch.is_empty() {
            return Ok(());
        }
        self.sender.send_blocking(batch).map_err(|_| Stop::ReaderGone)
    }

    /// True when this key itself is asked for.
    fn wants(&self, key: &[u8]) -> bool {
        let after = self.options.after.as_ref();
        key.starts_with(self.options.prefix.as_bytes()) && after.is_none_or(|after| key > after.as_bytes())
    }

    /// True when something in this directory may be asked for.
    fn enters(&self, directory: &[u8]) -> bool {
        let prefix = self.options.prefix.as_bytes();
        let after = self.options.after.as_ref().map(Key::as_bytes);
        (directory.starts_with(prefix) || prefix.starts_with(directory))
            && after.is_none_or(|after| directory > after || after.starts_with(directory))
    }

    /// True for the folders that are no content: snapferry's own, and the snapshots at the root.
    fn is_kept_apart(&self, path: &[u8]) -> bool {
        let own = || path.ends_with(RESERVED.as_bytes()) && Key::copy_from(path).is_reserved();
        (path == SNAPSHOTS.as_bytes() || own()) && !self.options.prefix.starts_with(path)
    }

    /// What of a directory is asked for, sorted. It is read again while it changes under the reading,
    /// because a file that is renamed meanwhile may be seen under neither name.
    fn read_directory(&self, path: Vec<u8>) -> Result<Level> {
        let key = Key::copy_from(&path);
        for attempt in 0..READS_MAX {
            match self.read_once(&path, &key)? {
                Some(siblings) => return Ok(Level { path, siblings }),
                None => std::thread::sleep(Duration::from_millis(1 << attempt)),
            }
        }
        Err(Error::new(ErrorKind::Changed, "the directory changes all the time while it is being listed")
            .key(&key)
            .hint("list it while less is written there, or from a snapshot of the file system"))
    }

    /// One reading; none if the directory changed meanwhile.
    fn read_once(&self, path: &[u8], key: &Key) -> Result<Option<Sorted>> {
        let fail = |errno: Errno| match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP if !path.is_empty() => {
                Error::new(ErrorKind::Changed, "the directory vanished while it was being listed")
                    .key(key)
                    .hint("run again")
            }
            errno => failed(errno, "cannot list the directory", key),
        };
        let directory = self.root.open_directory(path.strip_suffix(b"/").unwrap_or(path)).map_err(fail)?;
        let mut sorter = Sorter::new(SIBLINGS_IN_MEMORY_MAX);
        if let Some(name) = self.only_name(path) {
            if let Some(sibling) = sibling(&directory, name).map_err(fail)? {
                sorter.push(sibling)?;
            }
            return Ok(Some(sorter.finish()?));
        }
        let before = Meta::of_open(&directory).map_err(fail)?;
        let mut reader = Dir::read_from(&directory).map_err(fail)?;
        while let Some(found) = reader.read() {
            let found = found.map_err(fail)?;
            let name = found.file_name().to_bytes();
            if matches!(name, b"." | b"..") || !self.may_want(path, name, found.file_type()) {
                continue;
            }
            // One that is gone since was deleted: it is not there.
            if let Some(sibling) = sibling(&directory, name).map_err(fail)? {
                let full = [path, &sibling.0].concat();
                if !self.is_kept_apart(&full) && (self.wants(&full) || full.ends_with(b"/") && self.enters(&full)) {
                    sorter.push(sibling)?;
                }
            }
        }
        let after = Meta::of_open(&directory).map_err(fail)?;
        if before != after {
            return Ok(None);
        }
        Ok(Some(sorter.finish()?))
    }

    /// The one name in a directory that the prefix leads through, where it does.
    fn only_name(&self, path: &[u8]) -> Option<&[u8]> {
        let rest = self.options.prefix.as_bytes().strip_prefix(path)?;
        let slash = rest.iter().position(|&b| b == b'/')?;
        Some(&rest[..slash])
    }

    /// False when a name is certainly not asked for, so that it need not be looked at.
    fn may_want(&self, path: &[u8], name: &[u8], kind: FileType) -> bool {
        let full = [path, name].concat();
        match kind {
            FileType::Directory | FileType::Unknown => true,
            _ => self.wants(&full),
        }
    }
}

/// What a name in a directory is; none if nothing.
fn sibling(directory: &std::os::fd::OwnedFd, name: &[u8]) -> Result<Option<Sibling>, Errno> {
    if matches!(name, b"" | b"." | b"..") || name.len() > 255 || name.contains(&0) {
        return Ok(None);
    }
    match Meta::of(directory, name) {
        Ok(meta) => {
            let slash: &[u8] = if meta.kind == Kind::Directory { b"/" } else { b"" };
            Ok(Some(([name, slash].concat(), meta)))
        }
        Err(errno) if is_absent(errno) => Ok(None),
        Err(errno) => Err(errno),
    }
}
