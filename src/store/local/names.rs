//! What changes names and attributes but no content: directories, renames, deletes.

use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::path::name_of;
use super::root::{Meta, Root, failed, is_absent, set_attributes as set_open, split};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Attributes, Kind, Pin};
use crate::store::Condition;

/// Makes a directory, or sets the attributes of one that is there.
pub(super) fn make_directory(root: &Root, key: &Key, attributes: &Attributes, condition: &Condition) -> Result<Pin> {
    let fail = |errno| failed(errno, "cannot make the directory", key);
    let (parent, name) = root.make_parent(key).map_err(fail)?;
    if let Condition::Matches(pin) = condition {
        let meta = root.meta(key).map_err(fail)?;
        if !meta.is_some_and(|meta| meta.pin().matches(pin)) {
            return Err(Error::new(ErrorKind::Changed, "what is there is not what was to be replaced").key(key));
        }
    }
    match root.changing(&[&parent], || fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))) {
        Ok(()) => {}
        Err(Errno::EXIST) if *condition == Condition::Absent => {
            return Err(Error::new(ErrorKind::AlreadyExists, "it exists already").key(key));
        }
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(fail(errno)),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = fs::openat(&parent, name, flags, Mode::empty()).map_err(fail)?;
    set_open(&directory, attributes).map_err(fail)?;
    Ok(Meta::of_open(&directory).map_err(fail)?.pin())
}

pub(super) fn set_attributes(root: &Root, key: &Key, attributes: &Attributes) -> Result<()> {
    let gone = || Error::new(ErrorKind::NotFound, "there is nothing to set attributes of").key(key);
    let fail = |errno| match errno {
        errno if is_absent(errno) => gone(),
        errno => failed(errno, "cannot set the attributes", key),
    };
    let file = root.open_at(name_of(key), OFlags::PATH).map_err(fail)?;
    let kind = Meta::of_open(&file).map_err(fail)?.kind;
    if kind != if key.is_directory() { Kind::Directory } else { Kind::Object } {
        return Err(gone());
    }
    set_open(&file, attributes).map_err(|errno| failed(errno, "cannot set the attributes", key))
}

pub(super) fn rename(root: &Root, from: &Key, to: &Key) -> Result<()> {
    if from.is_directory() != to.is_directory() {
        let what = format!("a directory and a file cannot take each other's name: `{to}`");
        return Err(Error::new(ErrorKind::Usage, what).key(from));
    }
    let fail = |errno| failed(errno, &format!("cannot rename it to `{to}`"), from);
    let from_place = match root.parent(from) {
        Err(errno) if is_absent(errno) => return Err(nothing(from)),
        place => place.map_err(fail)?,
    };
    let to_place = match Meta::of(&from_place.0, from_place.1) {
        // No directories are made for nothing.
        Err(errno) if is_absent(errno) => return Err(nothing(from)),
        _ => root.make_parent(to).map_err(fail)?,
    };
    rename_in(root, (&from_place.0, from_place.1), (&to_place.0, to_place.1), from, to)
}

fn nothing(from: &Key) -> Error {
    Error::new(ErrorKind::NotFound, "there is nothing to rename").key(from)
}

/// The same, between open directories.
pub(super) fn rename_in(
    root: &Root,
    (from_parent, from_name): (&OwnedFd, &[u8]),
    (to_parent, to_name): (&OwnedFd, &[u8]),
    from: &Key,
    to: &Key,
) -> Result<()> {
    let fail = |errno| match errno {
        Errno::NOTEMPTY | Errno::EXIST => {
            Error::new(ErrorKind::AlreadyExists, format!("`{to}` holds something already")).key(from)
        }
        errno => failed(errno, &format!("cannot rename it to `{to}`"), from),
    };
    let meta = match Meta::of(from_parent, from_name) {
        Err(errno) if is_absent(errno) => return Err(nothing(from)),
        meta => meta.map_err(fail)?,
    };
    if (meta.kind == Kind::Directory) != from.is_directory() {
        return Err(nothing(from));
    }
    // Two links of one file: rename(2) would leave both and call that success.
    let is_same = meta.kind != Kind::Directory
        && from != to
        && Meta::of(to_parent, to_name).is_ok_and(|there| there.file == meta.file && there == meta);
    if is_same {
        let unlink = || fs::unlinkat(from_parent, from_name, AtFlags::empty());
        return root.changing(&[from_parent], unlink).map_err(fail);
    }
    let mut changed = vec![from_parent, to_parent];
    // A directory that comes into another one changes, too: its `..` does.
    let own = (meta.kind == Kind::Directory).then(|| root.open_directory(name_of(from))).transpose().map_err(fail)?;
    changed.extend(&own);
    root.changing(&changed, || fs::renameat(from_parent, from_name, to_parent, to_name)).map_err(fail)
}

/// Deletes keys; the directory of one is kept open for the next. Goes on after an error and returns the first.
pub(super) fn delete(root: &Root, keys: &[Key]) -> Result<()> {
    let mut open: Option<(&[u8], OwnedFd)> = None;
    let mut first = Ok(());
    for key in keys {
        let (path, name) = split(name_of(key));
        let parent = match open.take().filter(|(known, _)| *known == path) {
            Some((_, parent)) => Ok(parent),
            None => root.open_directory(path),
        };
        first = first.and(match parent {
            Ok(parent) => {
                let (_, parent) = open.insert((path, parent));
                delete_in(root, parent, name, key)
            }
            Err(errno) if is_absent(errno) => Ok(()),
            Err(errno) => Err(failed(errno, "cannot open its directory", key)),
        });
    }
    first
}

fn delete_in(root: &Root, parent: &OwnedFd, name: &[u8], key: &Key) -> Result<()> {
    let flags = if key.is_directory() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match root.changing(&[parent], || fs::unlinkat(parent, name, flags)) {
        // Not there, or not there as that kind.
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            Err(Error::new(ErrorKind::Io, "the directory is not empty").key(key).hint("delete what is in it first"))
        }
        Err(errno) => Err(failed(errno, "cannot delete it", key)),
    }
}
