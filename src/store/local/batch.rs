//! Many small pieces of work in one turn of a thread that may block: a turn of its own costs each of them more than
//! the work itself. What is plain is done here; what fails is to be done again by the calls of [`Store`], which say why.
//!
//! [`Store`]: crate::store::Store

use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::file;
use super::names::rename_in;
use super::root::{Meta, Root, failed, set_new, split};
use super::{LocalStore, parts, path::name_of};
use crate::error::Result;
use crate::key::Key;
use crate::manifest::{Attributes, Entry, Pin};
use crate::store::Upload;

/// Bytes that are read, hashed and written before the next: they stay in the processor's cache.
const PIECE_BYTES: usize = 256 << 10;

/// A directory that is kept open for the next key in it.
#[derive(Debug, Default)]
pub(crate) struct Near(Option<(Vec<u8>, OwnedFd)>);

impl Near {
    /// The directory that holds a key, and the key's name in it; made if need be.
    fn of<'a, 'k>(&'a mut self, root: &Root, key: &'k Key, make: bool) -> Result<(&'a OwnedFd, &'k [u8]), Errno> {
        let (path, name) = split(name_of(key));
        let known = self.0.take().filter(|(known, _)| known == path);
        let known = match known {
            Some(known) => known,
            None if make => (path.to_vec(), root.make_directory(path)?),
            None => (path.to_vec(), root.open_directory(path)?),
        };
        Ok((&self.0.insert(known).1, name))
    }
}

impl LocalStore {
    /// Reads a whole small file that the entry pins into `data`, which is emptied first.
    pub(crate) fn read_now(&self, entry: &Entry, data: &mut Vec<u8>) -> Result<Attributes> {
        let file = file::open(&self.root, &entry.key)?;
        let meta = self.guard.check(&file, entry)?;
        data.clear();
        file::read_into(&file, 0..entry.size, data)
            .map_err(|errno| failed(errno, "cannot read the file", &entry.key))?;
        if data.len() as u64 != entry.size || self.guard.check(&file, entry)? != meta {
            return Err(file::changed(&entry.key));
        }
        Ok(meta.attributes())
    }

    /// Writes a small file under a staging name, whatever is there.
    pub(crate) fn stage_now(&self, near: &mut Near, key: &Key, data: &[u8], attributes: &Attributes) -> Result<Pin> {
        let fail = |errno| failed(errno, "cannot write the file", key);
        let (directory, name) = near.of(&self.root, key, true).map_err(fail)?;
        // Beside its name: a rename within one directory is the cheapest there is.
        let fresh = format!("tmp-{}", self.root.unique());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = fs::openat(directory, fresh.as_str(), flags, Mode::from_raw_mode(0o600)).map_err(fail)?;
        let written = (|| {
            file::write_at(&opened, data, 0)?;
            set_new(&opened, attributes)?;
            let meta = Meta::of_open(&opened)?;
            fs::renameat(directory, fresh.as_str(), directory, name)?;
            Ok(meta.pin())
        })();
        if written.is_err() {
            let _ = fs::unlinkat(directory, fresh.as_str(), AtFlags::empty());
        }
        written.map_err(fail)
    }

    /// Renames a file as [`Store::rename`](crate::store::Store::rename) does.
    pub(crate) fn rename_now(&self, near: &mut [Near; 2], from: &Key, to: &Key) -> Result<()> {
        let fail = |errno| failed(errno, &format!("cannot rename it to `{to}`"), from);
        let [near_from, near_to] = near;
        let from_place = near_from.of(&self.root, from, false).map_err(fail)?;
        let to_place = near_to.of(&self.root, to, true).map_err(fail)?;
        rename_in(&self.root, from_place, to_place, from, to)
    }

    /// Copies a range of a file that the entry pins into a part of an upload, piece by piece, each of which is shown
    /// to `passed`.
    pub(crate) fn write_range_now(
        &self,
        upload: &Upload,
        from: &LocalStore,
        entry: &Entry,
        range: Range<u64>,
        mut passed: impl FnMut(&[u8]),
    ) -> Result<()> {
        let source = file::open(&from.root, &entry.key)?;
        let meta = from.guard.check(&source, entry)?;
        let writer = parts::Writer::open(&self.root, upload, range.start, range.end - range.start)?;
        let mut data = Vec::with_capacity(PIECE_BYTES);
        let mut at = range.start;
        while at < range.end {
            data.clear();
            let wanted = (range.end - at).min(PIECE_BYTES as u64);
            file::read_into(&source, at..at + wanted, &mut data)
                .map_err(|errno| failed(errno, "cannot read the file", &entry.key))?;
            if data.len() as u64 != wanted {
                return Err(file::changed(&entry.key));
            }
            passed(&data);
            writer.write(at, &data)?;
            at += wanted;
        }
        match from.guard.check(&source, entry)? == meta {
            true => Ok(()),
            false => Err(file::changed(&entry.key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn entry(root: &Root, key: &str) -> Entry {
        let key = Key::from(key);
        root.meta(&key).unwrap().unwrap().into_entry(key)
    }

    #[test]
    fn read_staged_and_placed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let store = LocalStore::open(directory.path(), false).unwrap();
        std::fs::create_dir(path("a")).unwrap();
        for (name, content) in [("a/1", "one"), ("a/2", "two")] {
            std::fs::write(path(name), content).unwrap();
        }
        let (mut near, mut places, mut data) = (Near::default(), Default::default(), Vec::new());
        let staged = ["s/1", "s/2"].map(|name| Key::from(format!(".snapferry/staging/{name}")));
        for (name, at) in ["a/1", "a/2"].iter().zip(&staged) {
            let attributes = store.read_now(&entry(&store.root, name), &mut data).unwrap();
            let pin = store.stage_now(&mut near, at, &data, &attributes).unwrap();
            assert_eq!(pin, store.root.meta(at).unwrap().unwrap().pin());
        }
        // One to a new place, one over what is there; nothing else is left where they were staged.
        store.rename_now(&mut places, &staged[0], &Key::from("b/c/1")).unwrap();
        store.rename_now(&mut places, &staged[1], &Key::from("a/1")).unwrap();
        assert_eq!(std::fs::read(path("b/c/1")).unwrap(), b"one");
        assert_eq!(std::fs::read(path("a/1")).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(path(".snapferry/staging/s")).unwrap().count(), 0);
        let again = store.rename_now(&mut places, &staged[1], &Key::from("a/1")).unwrap_err();
        assert_eq!(again.kind(), Kind::NotFound);
    }

    #[test]
    fn only_what_was_pinned() {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::open(directory.path(), false).unwrap();
        let (size, path) = (PIECE_BYTES as u64 + 10, directory.path().join("file"));
        std::fs::write(&path, vec![7; size as usize]).unwrap();
        let pinned = entry(&store.root, "file");
        let key = Key::from(".snapferry/staging/large");
        let upload = parts::begin(&store.root, &key, size).unwrap();
        let mut seen = Vec::new();
        store.write_range_now(&upload, &store, &pinned, 5..size, |data| seen.extend_from_slice(data)).unwrap();
        assert_eq!(seen, vec![7; size as usize - 5]);
        assert!(store.write_range_now(&upload, &store, &pinned, 0..size + 1, |_| {}).is_err());

        std::fs::write(&path, vec![8; size as usize]).unwrap();
        assert_eq!(store.read_now(&pinned, &mut seen).unwrap_err().kind(), Kind::Changed);
        let ranged = store.write_range_now(&upload, &store, &pinned, 0..size, |_| {});
        assert_eq!(ranged.unwrap_err().kind(), Kind::Changed);
    }
}
