//! Snapshots of a local directory: clone trees under `.snapshot/NAME/`.
//!
//! A clone's files share their blocks with the live ones (reflink) where the file system can, else they are hard
//! links, else copies. Entries are pinned as the live files that they were cloned from, so that a later listing of
//! the live tree shows at once what did not change; reads from the clone are guarded by size and modification time.
//! Through a hard link a writer that changes a file in place changes the clone as well: the guard notices it, and
//! [`repin`] then gives the clone a copy of its own.

use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::time::Duration;

use rayon::prelude::*;
use rustix::fs::{self, AtFlags, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::name;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Attributes, Entry, Kind};
use crate::store::local::LocalStore;
use crate::store::local::file::{Guard, Staged, copy_content, open as open_file};
use crate::store::local::path::name_of;
use crate::store::local::root::{Meta, Root, failed, is_absent, set_attributes, set_new, split};
use crate::store::{Condition, Store};

/// The folder of clone trees.
const FOLDER: &[u8] = b".snapshot";

/// Entries cloned before their outcomes are handed on.
const BATCH: usize = 4096;

/// Entries that one thread takes at a time.
const CHUNK: usize = 64;

/// How often a file is copied again that changed while it was copied.
const COPIES_MAX: u32 = 5;

/// How files come into a clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneMode {
    /// The first of the others that the file system can.
    Auto,
    /// New files that share their blocks with the live ones.
    Reflink,
    /// Further names of the live files. A file that cannot have one is copied.
    HardLink,
    /// Copies.
    Copy,
}

impl FromStr for CloneMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "reflink" => Ok(Self::Reflink),
            "hardlink" => Ok(Self::HardLink),
            "copy" => Ok(Self::Copy),
            _ => Err("write auto, reflink, hardlink or copy".into()),
        }
    }
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The clone holds it as it was listed.
    Pinned(Entry),
    /// It changed since it was listed; the clone holds it as it is now, as this entry says.
    Repinned(Entry),
    /// It is gone since it was listed, or is no file any more; the clone does not hold it.
    Gone(Entry),
}

/// A clone that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cloned {
    /// How, `Auto` being resolved.
    pub mode: CloneMode,
    /// Files in it.
    pub objects: u64,
    /// Directories in it.
    pub directories: u64,
    /// Of the files, those that were pinned again.
    pub repinned: u64,
    /// Entries that were gone.
    pub gone: u64,
}

/// Makes the clone `.snapshot/NAME/` of these entries, which come in the order of their keys; blocks.
///
/// What became of each is told to `outcome`, in the same order. The clone is built beside its place and renamed into
/// it as the last step, when it would survive a power cut; what an earlier attempt left is removed first.
///
/// # Errors
/// `AlreadyExists` where there is such a snapshot; `Unsupported` where the mode is not to be had; any error of
/// `entries`, or of `outcome`, ends it. Links and special files among the entries are refused.
pub fn create(
    store: &LocalStore,
    name: &str,
    mode: CloneMode,
    entries: impl Iterator<Item = Result<Entry>>,
    outcome: impl FnMut(Outcome) -> Result<()>,
) -> Result<Cloned> {
    name::check(name)?;
    build(store, name, mode, entries, outcome).map_err(|error| error.at(store.address()))
}

fn build(
    store: &LocalStore,
    name: &str,
    mode: CloneMode,
    mut entries: impl Iterator<Item = Result<Entry>>,
    mut outcome: impl FnMut(Outcome) -> Result<()>,
) -> Result<Cloned> {
    let (live, partial) = (store.root(), format!(".{name}.partial"));
    let place = snapshot_key(name);
    let fail = |errno| failed(errno, "cannot make the snapshot", &place);
    let folder = live.make_directory(FOLDER).map_err(fail)?;
    let exists = || Error::new(ErrorKind::AlreadyExists, format!("there is a snapshot `{name}` already"));
    if Meta::of(&folder, name.as_bytes()).is_ok() {
        return Err(exists());
    }
    remove_tree(&folder, partial.as_bytes()).map_err(fail)?;
    let clone = live.make_directory(&[FOLDER, b"/", partial.as_bytes()].concat()).map(drop);
    let clone = clone.and_then(|()| live.within(&[FOLDER, b"/", partial.as_bytes()].concat())).map_err(fail)?;
    let mode = resolve(live, mode)?;
    let mut builder = Builder { live, clone, mode, open: Vec::new() };
    let mut done = Cloned { mode, objects: 0, directories: 0, repinned: 0, gone: 0 };
    loop {
        let batch = entries.by_ref().take(BATCH).collect::<Result<Vec<_>>>()?;
        if batch.is_empty() {
            break;
        }
        for result in builder.add(batch)? {
            match &result {
                Outcome::Pinned(entry) if entry.kind == Kind::Directory => done.directories += 1,
                Outcome::Gone(_) => done.gone += 1,
                result => {
                    done.objects += 1;
                    done.repinned += u64::from(matches!(result, Outcome::Repinned(_)));
                }
            }
            outcome(result)?;
        }
    }
    builder.close_all()?;
    fs::syncfs(&folder).map_err(fail)?;
    match fs::renameat_with(&folder, &*partial, &folder, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => fs::renameat(&folder, &*partial, &folder, name),
        result => result,
    }
    .map_err(|errno| if errno == Errno::EXIST { exists() } else { fail(errno) })?;
    fs::fsync(&folder).map_err(fail)?;
    Ok(done)
}

/// The snapshots of a directory, by name; blocks.
pub fn list(store: &LocalStore) -> Result<Vec<String>> {
    let fail = |errno| failed(errno, "cannot list the snapshots", &Key::from(".snapshot/")).at(store.address());
    let folder = match store.root().open_directory(FOLDER) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        result => result.map_err(fail)?,
    };
    let mut names = Vec::new();
    for found in Dir::read_from(&folder).map_err(fail)? {
        let found = found.map_err(fail)?;
        let Ok(name) = found.file_name().to_str() else { continue };
        if name::check(name).is_ok() && Meta::of(&folder, name.as_bytes()).is_ok_and(|m| m.kind == Kind::Directory) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Opens a snapshot for reading; reads are guarded by size and modification time.
///
/// # Errors
/// `NotFound` where there is none of that name.
pub fn open(store: &LocalStore, name: &str) -> Result<LocalStore> {
    name::check(name)?;
    let opened = store.within(&[FOLDER, b"/", name.as_bytes()].concat()).map_err(|errno| match errno {
        errno if is_absent(errno) => Error::new(ErrorKind::NotFound, format!("there is no snapshot `{name}`")),
        errno => failed(errno, "cannot open the snapshot", &snapshot_key(name)),
    });
    Ok(opened.map_err(|error| error.at(store.address()))?.read_only().guard_inode(false))
}

/// Removes a snapshot; blocks. One that is not there is no error. From the first moment it is seen by nobody.
pub fn remove(store: &LocalStore, name: &str) -> Result<()> {
    name::check(name)?;
    let fail = |errno| failed(errno, "cannot remove the snapshot", &snapshot_key(name)).at(store.address());
    let folder = match store.root().open_directory(FOLDER) {
        Err(Errno::NOENT) => return Ok(()),
        result => result.map_err(fail)?,
    };
    let deleted = format!(".{name}.deleted");
    remove_tree(&folder, deleted.as_bytes()).map_err(fail)?;
    match fs::renameat(&folder, name, &folder, &*deleted) {
        Err(Errno::NOENT) => Ok(()),
        result => result.and_then(|()| remove_tree(&folder, deleted.as_bytes())).map_err(fail),
    }
}

/// Gives a snapshot's file a copy of its own, of what the file is now, and returns the entry that it is from now on;
/// blocks. For a file that was changed in place through another of its links.
///
/// # Errors
/// `Changed` where the file is written all the time; `NotFound` where the snapshot has no such file.
pub fn repin(store: &LocalStore, name: &str, key: &Key) -> Result<Entry> {
    name::check(name)?;
    let clone = open(store, name)?;
    let frozen = freeze(store.root(), clone.root(), key, clone.root());
    let meta = frozen.and_then(|meta| {
        meta.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("the snapshot `{name}` has no such file")).key(key))
    });
    Ok(meta.map_err(|error| error.at(store.address()))?.into_entry(key.clone()))
}

fn snapshot_key(name: &str) -> Key {
    Key::from(format!(".snapshot/{name}/"))
}

/// What `Auto` stands for here, and whether reflinks are to be had.
fn resolve(live: &Root, mode: CloneMode) -> Result<CloneMode> {
    if matches!(mode, CloneMode::HardLink | CloneMode::Copy) {
        return Ok(mode);
    }
    let probe = || {
        let (from, to) = (Staged::new(live)?, Staged::new(live)?);
        rustix::io::write(&from.file, &[0; 4096])?;
        fs::ioctl_ficlone(&to.file, &from.file)
    };
    match (probe(), mode) {
        (Ok(()), _) => Ok(CloneMode::Reflink),
        (Err(_), CloneMode::Auto) => Ok(CloneMode::HardLink),
        (Err(errno), _) => Err(Error::new(ErrorKind::Unsupported, "the file system has no reflinks")
            .caused_by(std::io::Error::from(errno))
            .hint("use hard links or copies")),
    }
}

struct Builder<'a> {
    live: &'a Root,
    clone: Root,
    mode: CloneMode,
    /// The directories that the last entry lies in, outermost first: their attributes are set when they are full.
    open: Vec<Entry>,
}

/// The directory of the entries at hand, on both sides.
struct Parents {
    path: Vec<u8>,
    live: OwnedFd,
    clone: OwnedFd,
}

impl Builder<'_> {
    /// Adds entries that follow those before.
    fn add(&mut self, batch: Vec<Entry>) -> Result<Vec<Outcome>> {
        let mut full = Vec::new();
        for entry in &batch {
            while let Some(directory) = self.open.pop_if(|directory| !entry.key.is_under(&directory.key)) {
                full.push(directory);
            }
            match entry.kind {
                Kind::Object => {}
                Kind::Directory => {
                    let made = self.clone.make_directory(name_of(&entry.key));
                    made.map_err(|errno| failed(errno, "cannot make the directory", &entry.key))?;
                    self.open.push(entry.clone());
                }
                Kind::Link | Kind::Special => {
                    let what = "a link or special file cannot be in a snapshot";
                    return Err(Error::new(ErrorKind::Unsupported, what).key(&entry.key));
                }
            }
        }
        let chunks: Vec<Vec<Outcome>> = batch
            .par_chunks(CHUNK)
            .map(|chunk| {
                let mut parents = None;
                chunk.iter().map(|entry| self.pin(entry, &mut parents)).collect()
            })
            .collect::<Result<_>>()?;
        full.iter().try_for_each(|directory| self.close(directory))?;
        Ok(chunks.into_iter().flatten().collect())
    }

    /// Sets the attributes of a directory into which nothing more will come.
    fn close(&self, directory: &Entry) -> Result<()> {
        let attributes =
            Attributes { mtime_ns: Some(directory.mtime_ns), mode: directory.mode, ..Attributes::default() };
        let opened = self.clone.open_at(name_of(&directory.key), OFlags::PATH | OFlags::DIRECTORY);
        let set = opened.and_then(|opened| set_attributes(&opened, &attributes));
        set.map_err(|errno| failed(errno, "cannot set the directory's attributes", &directory.key))
    }

    fn close_all(&mut self) -> Result<()> {
        while let Some(directory) = self.open.pop() {
            self.close(&directory)?;
        }
        Ok(())
    }

    fn pin(&self, entry: &Entry, parents: &mut Option<Parents>) -> Result<Outcome> {
        if entry.kind == Kind::Directory {
            return Ok(Outcome::Pinned(entry.clone()));
        }
        let meta = match self.mode {
            CloneMode::HardLink => match self.link(entry, parents)? {
                Some(meta) => Some(meta),
                None => freeze(self.live, self.live, &entry.key, &self.clone)?,
            },
            _ => freeze(self.live, self.live, &entry.key, &self.clone)?,
        };
        Ok(match meta {
            None => Outcome::Gone(entry.clone()),
            Some(meta) if Guard::Inode.holds(&meta, entry) => Outcome::Pinned(entry.clone()),
            Some(meta) => Outcome::Repinned(meta.into_entry(entry.key.clone())),
        })
    }

    /// Links a file that is still what was listed; none if it is not, or can have no further link.
    fn link(&self, entry: &Entry, parents: &mut Option<Parents>) -> Result<Option<Meta>> {
        let fail = |errno| failed(errno, "cannot link the file", &entry.key);
        let (path, name) = split(name_of(&entry.key));
        let known = parents.take().filter(|parents| parents.path == path);
        let at = match known {
            Some(known) => known,
            None => {
                let live = match self.live.open_directory(path) {
                    Err(errno) if is_absent(errno) || errno == Errno::LOOP => return Ok(None),
                    result => result.map_err(fail)?,
                };
                Parents { path: path.to_vec(), live, clone: self.clone.make_directory(path).map_err(fail)? }
            }
        };
        let at = parents.insert(at);
        match fs::linkat(&at.live, name, &at.clone, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::PERM | Errno::XDEV | Errno::MLINK | Errno::OPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(fail(errno)),
        }
        let meta = Meta::of(&at.clone, name).map_err(fail)?;
        if Guard::Inode.holds(&meta, entry) {
            return Ok(Some(meta));
        }
        fs::unlinkat(&at.clone, name, AtFlags::empty()).map_err(fail)?;
        Ok(None)
    }
}

/// Puts a copy of a file as it is now in the clone, in one step, and returns what the file was while it was copied;
/// none if there is no such file.
fn freeze(staging: &Root, from: &Root, key: &Key, clone: &Root) -> Result<Option<Meta>> {
    let fail = |errno| failed(errno, "cannot copy the file into the snapshot", key);
    for attempt in 0..COPIES_MAX {
        if from
            .meta(key)
            .map(|meta| meta.is_none_or(|meta| meta.kind != Kind::Object))
            .or_else(gone_if_link)
            .map_err(fail)?
        {
            return Ok(None);
        }
        let source = match open_file(from, key) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            result => result?,
        };
        let before = Meta::of_open(&source).map_err(fail)?;
        let staged = Staged::new(staging).map_err(fail)?;
        copy_content(&source, &staged.file, before.size).map_err(fail)?;
        let copied = Meta::of_open(&staged.file).map_err(fail)?;
        if copied.size == before.size && Meta::of_open(&source).map_err(fail)? == before {
            set_new(&staged.file, &before.attributes()).map_err(fail)?;
            staged.place(clone, key, &Condition::Any)?;
            return Ok(Some(before));
        }
        std::thread::sleep(Duration::from_millis(10 << attempt));
    }
    Err(Error::new(ErrorKind::Changed, "the file is being written all the time and cannot be pinned")
        .key(key)
        .hint("run again when the file is at rest, or leave it out of the bucket"))
}

/// A path that now leads through a link leads to no file of ours.
fn gone_if_link(errno: Errno) -> Result<bool, Errno> {
    if errno == Errno::LOOP { Ok(true) } else { Err(errno) }
}

/// Removes a file or a directory with all that is in it; none there is no error. The live files that hard links in
/// it belong to are not touched.
fn remove_tree(parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(errno),
    }
    let meta = Meta::of(parent, name)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if meta.mode & 0o700 != 0o700 {
        let path = fs::openat(parent, name, flags.difference(OFlags::RDONLY) | OFlags::PATH, Mode::empty())?;
        set_attributes(&path, &Attributes { mode: Some(0o700), ..Attributes::default() })?;
    }
    let directory = fs::openat(parent, name, flags, Mode::empty())?;
    loop {
        // What is deleted while a directory is read may hide other names: it is read until it is empty.
        let mut removed = false;
        for found in Dir::read_from(&directory)? {
            let found = found?;
            let name = found.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                remove_tree(&directory, name)?;
                removed = true;
            }
        }
        if !removed {
            return fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
        }
    }
}
