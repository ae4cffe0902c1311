//! Files written in parts: a staged file of the final size whose name is the upload's id.

use std::ops::Range;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::fs::{self, AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::file::{self, Guard, place, write_at};
use super::root::{Meta, Root, failed, is_absent, set_new};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Attributes, Entry, Pin};
use crate::store::{Condition, Part, Upload, check_copied};

/// Where uploads lie until they are finished. They survive a restart.
const PARTS: &[u8] = b".snapferry/staging/parts";

/// Makes the staged file, with room for all of it where the file system can promise that.
pub(super) fn begin(root: &Root, key: &Key, size: u64) -> Result<Upload> {
    let fail = |errno| failed(errno, "cannot make a staged file", key);
    let directory = root.make_directory(PARTS).map_err(fail)?;
    let id = root.unique();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = fs::openat(&directory, id.as_str(), flags, Mode::from_raw_mode(0o600)).map_err(fail)?;
    let sized = match fs::fallocate(&file, FallocateFlags::empty(), 0, size) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => fs::ftruncate(&file, size),
        result => result,
    };
    if let Err(errno) = sized {
        let _ = fs::unlinkat(&directory, id.as_str(), AtFlags::empty());
        return Err(fail(errno));
    }
    Ok(Upload { key: key.clone(), id })
}

fn gone(upload: &Upload) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no upload `{}`", upload.id)).key(&upload.key)
}

/// The folder of staged files; fails for an id that was not made here.
fn directory(root: &Root, upload: &Upload) -> Result<OwnedFd> {
    if upload.id.is_empty() || !upload.id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Err(gone(upload));
    }
    root.open_directory(PARTS).map_err(|errno| match errno {
        errno if is_absent(errno) => gone(upload),
        errno => failed(errno, "cannot open the folder of staged files", &upload.key),
    })
}

fn open(root: &Root, upload: &Upload) -> Result<(OwnedFd, OwnedFd)> {
    let directory = directory(root, upload)?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match fs::openat(&directory, upload.id.as_str(), flags, Mode::empty()) {
        Ok(file) => Ok((directory, file)),
        Err(Errno::NOENT) => Err(gone(upload)),
        Err(errno) => Err(failed(errno, "cannot open the staged file", &upload.key)),
    }
}

pub(super) fn write_part(root: &Root, upload: &Upload, number: u32, offset: u64, data: &Bytes) -> Result<Part> {
    let size = data.len() as u64;
    Writer::open(root, upload, offset, size)?.write(offset, data)?;
    Ok(Part { number, offset, size, etag: String::new(), checksum: String::new() })
}

pub(super) fn copy_part(
    root: &Root,
    guard: Guard,
    upload: &Upload,
    number: u32,
    offset: u64,
    from: &Entry,
    range: Range<u64>,
) -> Result<Part> {
    check_copied(from, &range)?;
    let size = range.end - range.start;
    let writer = Writer::open(root, upload, offset, size)?;
    let source = file::open(root, &from.key)?;
    let meta = guard.check(&source, from)?;
    let copied = file::copy_range(&source, range, &writer.file, offset)
        .map_err(|errno| failed(errno, "cannot copy into the staged file", &upload.key))?;
    if copied != size || guard.check(&source, from)? != meta {
        return Err(file::changed(&from.key));
    }
    Ok(Part { number, offset, size, etag: String::new(), checksum: String::new() })
}

/// Writes a part, in as many pieces as it comes.
pub(super) struct Writer<'a> {
    upload: &'a Upload,
    file: OwnedFd,
}

impl<'a> Writer<'a> {
    /// Opens the staged file, in which the part must have room.
    pub(super) fn open(root: &Root, upload: &'a Upload, offset: u64, size: u64) -> Result<Self> {
        let (_, file) = open(root, upload)?;
        let whole =
            Meta::of_open(&file).map_err(|errno| failed(errno, "cannot look at the staged file", &upload.key))?.size;
        if offset.checked_add(size).is_none_or(|end| end > whole) {
            let what = format!("a part goes beyond the {whole} bytes that were announced");
            return Err(Error::internal(what).key(&upload.key));
        }
        Ok(Self { upload, file })
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        write_at(&self.file, data, offset)
            .map_err(|errno| failed(errno, "cannot write the staged file", &self.upload.key))
    }
}

pub(super) fn finish(
    root: &Root,
    upload: &Upload,
    parts: &[Part],
    attributes: &Attributes,
    condition: &Condition,
) -> Result<Pin> {
    let fail = |errno| failed(errno, "cannot finish the staged file", &upload.key);
    let (directory, file) = open(root, upload)?;
    let whole = Meta::of_open(&file).map_err(fail)?.size;
    let mut end = 0;
    for (index, part) in parts.iter().enumerate() {
        if part.number as usize != index + 1 || part.offset != end {
            let what = format!("part {} is not the one that follows byte {end}", part.number);
            return Err(Error::new(ErrorKind::Damaged, what).key(&upload.key));
        }
        end += part.size;
    }
    if end != whole {
        let what = format!("{whole} bytes were announced and {end} written");
        return Err(Error::new(ErrorKind::Damaged, what).key(&upload.key));
    }
    set_new(&file, attributes).map_err(fail)?;
    let meta = Meta::of_open(&file).map_err(fail)?;
    place(root, &directory, upload.id.as_bytes(), &upload.key, condition)?;
    Ok(meta.pin())
}

pub(super) fn abort(root: &Root, upload: &Upload) -> Result<()> {
    let directory = match directory(root, upload) {
        Ok(directory) => directory,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match fs::unlinkat(&directory, upload.id.as_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed(errno, "cannot delete the staged file", &upload.key)),
    }
}
