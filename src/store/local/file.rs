//! Reading and writing whole files: guarded reads, and new files that appear at once.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::path::name_of;
use super::root::{Meta, Root, failed, is_absent};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Entry, Kind};
use crate::store::Condition;

/// Where files lie until they get their name.
pub(super) const STAGING: &[u8] = b".snapferry/staging/tmp";

/// Bytes moved at a time where the kernel cannot copy by itself.
const COPY_BUFFER: usize = 1 << 20;

/// How much of a file's identity a read insists on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Inode, birth, modification time and size.
    Inode,
    /// Modification time and size: for a copy that stands for another inode. Of an entry whose digest is known the
    /// size alone, for who reads it checks the digest: a clone shares its times with the live file, which anybody may
    /// touch.
    Time,
}

impl Guard {
    /// True when the file is still what the entry pins.
    pub(crate) fn holds(self, meta: &Meta, entry: &Entry) -> bool {
        let Some(pinned) = &entry.pin.file else { return false };
        let (now, births) = (&meta.file, [meta.file.birth_ns, pinned.birth_ns]);
        let same_inode = now.inode == pinned.inode && (births[0] == births[1] || births.contains(&0));
        let same_time = now.mtime_ns == pinned.mtime_ns;
        meta.kind == Kind::Object
            && meta.size == entry.size
            && match self {
                Guard::Inode => same_time && same_inode,
                Guard::Time => same_time || entry.digest.is_some(),
            }
    }

    /// Checks the same of an open file.
    pub(crate) fn check(self, file: impl AsFd, entry: &Entry) -> Result<Meta> {
        let meta = Meta::of_open(file).map_err(|errno| failed(errno, "cannot look at the file", &entry.key))?;
        match self.holds(&meta, entry) {
            true => Ok(meta),
            false => Err(changed(&entry.key)),
        }
    }
}

pub(crate) fn changed(key: &Key) -> Error {
    Error::new(ErrorKind::Changed, "the file is not the one that was listed").key(key)
}

/// Opens a file for reading.
pub(crate) fn open(root: &Root, key: &Key) -> Result<OwnedFd> {
    // A pipe that has come into the file's place must not stop us: hence NONBLOCK.
    root.open_at(name_of(key), OFlags::RDONLY | OFlags::NONBLOCK).map_err(|errno| match errno {
        errno if is_absent(errno) => Error::new(ErrorKind::NotFound, "the file is gone").key(key),
        errno => failed(errno, "cannot open the file", key),
    })
}

/// Reads a range of the file that an entry pins.
pub(super) fn read(root: &Root, guard: Guard, entry: &Entry, range: Option<Range<u64>>) -> Result<(Bytes, Meta)> {
    let range = range.unwrap_or(0..entry.size);
    if range.start > range.end || range.end > entry.size {
        let what = format!("{range:?} is not within its {} bytes", entry.size);
        return Err(Error::new(ErrorKind::Usage, what).key(&entry.key));
    }
    let file = open(root, &entry.key)?;
    let meta = guard.check(&file, entry)?;
    let data = read_range(&file, range.clone()).map_err(|errno| failed(errno, "cannot read the file", &entry.key))?;
    if data.len() as u64 != range.end - range.start || guard.check(&file, entry)? != meta {
        return Err(changed(&entry.key));
    }
    Ok((data, meta))
}

/// Reads a range, or less where the file ends.
pub(super) fn read_range(file: &OwnedFd, range: Range<u64>) -> Result<Bytes, Errno> {
    let mut data = Vec::with_capacity((range.end - range.start) as usize);
    read_into(file, range, &mut data)?;
    Ok(data.into())
}

/// Appends a range, or less where the file ends.
pub(super) fn read_into(file: &OwnedFd, range: Range<u64>, data: &mut Vec<u8>) -> Result<(), Errno> {
    let (start, size) = (data.len(), (range.end - range.start) as usize);
    data.reserve(size);
    while data.len() - start < size {
        let offset = range.start + (data.len() - start) as u64;
        match rustix::io::pread(file, spare_capacity(data), offset) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    data.truncate(start + size);
    Ok(())
}

/// Writes all bytes at an offset.
pub(super) fn write_at(file: &OwnedFd, mut data: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !data.is_empty() {
        match rustix::io::pwrite(file, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                data = &data[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// A new file without its name yet. Dropped, it is deleted.
#[derive(Debug)]
pub(crate) struct Staged {
    directory: OwnedFd,
    name: Vec<u8>,
    pub(crate) file: OwnedFd,
    placed: bool,
}

impl Staged {
    /// A new empty file.
    pub(crate) fn new(root: &Root) -> Result<Self, Errno> {
        let directory = root.make_directory(STAGING)?;
        let name = root.unique().into_bytes();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = fs::openat(&directory, &name, flags, Mode::from_raw_mode(0o600))?;
        Ok(Self { directory, name, file, placed: false })
    }

    /// Gives it its name.
    pub(crate) fn place(mut self, root: &Root, key: &Key, condition: &Condition) -> Result<()> {
        place(root, &self.directory, &self.name, key, condition)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            // What cannot be deleted lies in the staging folder and harms nobody.
            let _ = fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

/// Moves a file to a key's place if the condition holds there.
pub(super) fn place(root: &Root, from: &OwnedFd, name: &[u8], key: &Key, condition: &Condition) -> Result<()> {
    let fail = |errno| failed(errno, "cannot put the file in its place", key);
    let (parent, to) = root.make_parent(key).map_err(fail)?;
    match condition {
        Condition::Any => root.changing(&[&parent], || fs::renameat(from, name, &parent, to)).map_err(fail),
        Condition::Matches(pin) => {
            let matches = match Meta::of(&parent, to) {
                Ok(meta) => meta.pin().matches(pin),
                Err(Errno::NOENT) => false,
                Err(errno) => return Err(fail(errno)),
            };
            if !matches {
                return Err(Error::new(ErrorKind::Changed, "what is there is not what was to be replaced").key(key));
            }
            root.changing(&[&parent], || fs::renameat(from, name, &parent, to)).map_err(fail)
        }
        Condition::Absent => {
            let rename = || fs::renameat_with(from, name, &parent, to, RenameFlags::NOREPLACE);
            let renamed = match root.changing(&[&parent], rename) {
                // File systems without it, such as NFS: a link fails just as well where something is there.
                Err(Errno::INVAL | Errno::NOSYS) => fs::linkat(from, name, &parent, to, AtFlags::empty())
                    .and_then(|()| fs::unlinkat(from, name, AtFlags::empty())),
                result => result,
            };
            renamed.map_err(|errno| match errno {
                Errno::EXIST => Error::new(ErrorKind::AlreadyExists, "it exists already").key(key),
                errno => fail(errno),
            })
        }
    }
}

/// How a file's content came to be in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copied {
    /// The two share their blocks.
    Reflink,
    /// The bytes were copied.
    Bytes,
}

/// Fills an empty file with the content of another: shared blocks where the file system can, else copied bytes.
pub(crate) fn copy_content(from: &OwnedFd, to: &OwnedFd, size: u64) -> Result<Copied, Errno> {
    if size > 0 && fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(Copied::Reflink);
    }
    copy_range(from, 0..size, to, 0)?;
    Ok(Copied::Bytes)
}

/// Copies a range of a file to an offset of another, or less where the file ends; returns how many bytes. The kernel
/// does it, and shares whole blocks where the file system can (copy_file_range(2)); else they go through a buffer.
pub(super) fn copy_range(from: &OwnedFd, range: Range<u64>, to: &OwnedFd, offset: u64) -> Result<u64, Errno> {
    let (mut read_at, mut written_at) = (range.start, offset);
    while read_at < range.end {
        let left = usize::try_from(range.end - read_at).unwrap_or(usize::MAX).min(1 << 30);
        match fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut written_at), left) {
            // The end of the file, or of what the kernel can do.
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(read_at - range.start + copy_buffered(from, read_at..range.end, to, written_at)?)
}

fn copy_buffered(from: &OwnedFd, range: Range<u64>, to: &OwnedFd, offset: u64) -> Result<u64, Errno> {
    let mut chunk = Vec::new();
    let mut read_at = range.start;
    while read_at < range.end {
        chunk.clear();
        read_into(from, read_at..range.end.min(read_at + COPY_BUFFER as u64), &mut chunk)?;
        if chunk.is_empty() {
            break;
        }
        write_at(to, &chunk, offset + (read_at - range.start))?;
        read_at += chunk.len() as u64;
    }
    Ok(read_at - range.start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file_of(data: &[u8]) -> OwnedFd {
        let file = OwnedFd::from(tempfile::tempfile().unwrap());
        write_at(&file, data, 0).unwrap();
        file
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// By the kernel and through the buffer, of more than one buffer, beyond the end too.
        #[test]
        fn ranges_are_copied(
            size in 0..3 * COPY_BUFFER, start in 0..3 * COPY_BUFFER, length in 0..3 * COPY_BUFFER, offset in 0..10_000_usize,
        ) {
            let data: Vec<u8> = (0..size).map(|i| (i * 31 + i / 251) as u8).collect();
            let range = start as u64..(start + length) as u64;
            let there = data.get(start..size.min(start + length)).unwrap_or_default();
            for copy in [copy_range, copy_buffered] {
                let (from, to) = (file_of(&data), file_of(&[7; 10_001]));
                let copied = copy(&from, range.clone(), &to, offset as u64).unwrap();
                prop_assert_eq!(copied, there.len() as u64);
                let mut expected = vec![7; 10_001.max(if there.is_empty() { 0 } else { offset + there.len() })];
                expected[offset..offset + there.len()].copy_from_slice(there);
                prop_assert!(read_range(&to, 0..4 << 20).unwrap() == expected);
            }
        }
    }
}
