//! A directory that stands for a bucket: everything is opened relative to it and never leaves it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags, StatxTimestamp, Timestamps};
use rustix::io::Errno;

use super::path::name_of;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Attributes, Entry, FileId, Kind, Pin};

/// How directories are opened.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) file: FileId,
}

impl Meta {
    /// What a directory entry is; a link is not followed.
    pub(crate) fn of(directory: impl AsFd, name: &[u8]) -> Result<Self, Errno> {
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        Ok(Self::from_statx(&fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, mask)?))
    }

    /// What an open file is.
    pub(crate) fn of_open(file: impl AsFd) -> Result<Self, Errno> {
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        Ok(Self::from_statx(&fs::statx(file, "", AtFlags::EMPTY_PATH, mask)?))
    }

    fn from_statx(statx: &Statx) -> Self {
        let kind = match fs::FileType::from_raw_mode(statx.stx_mode.into()) {
            fs::FileType::RegularFile => Kind::Object,
            fs::FileType::Directory => Kind::Directory,
            fs::FileType::Symlink => Kind::Link,
            _ => Kind::Special,
        };
        let has_birth = statx.stx_mask & StatxFlags::BTIME.bits() != 0;
        let birth_ns = if has_birth { nanoseconds(&statx.stx_btime) } else { 0 };
        let file = FileId { inode: statx.stx_ino, birth_ns, mtime_ns: nanoseconds(&statx.stx_mtime) };
        let size = if kind == Kind::Object { statx.stx_size } else { 0 };
        Self { kind, size, mode: u32::from(statx.stx_mode) & 0o7777, file }
    }

    pub(crate) fn pin(&self) -> Pin {
        Pin { file: Some(self.file.clone()), ..Pin::default() }
    }

    pub(crate) fn attributes(&self) -> Attributes {
        Attributes { mtime_ns: Some(self.file.mtime_ns), mode: Some(self.mode), ..Attributes::default() }
    }

    pub(crate) fn into_entry(self, key: Key) -> Entry {
        let pin = self.pin();
        let entry = Entry::object(key, self.size);
        Entry { kind: self.kind, mtime_ns: self.file.mtime_ns, mode: Some(self.mode), pin, ..entry }
    }
}

/// Nanoseconds since 1970. A file system that goes beyond the years 1677 to 2262 is cut off there.
fn nanoseconds(time: &StatxTimestamp) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.into())
}

/// Times for `utimensat`: this modification time, the access time left alone.
fn timestamps(mtime_ns: i64) -> Timestamps {
    let omit = fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT };
    let (tv_sec, tv_nsec) = (mtime_ns.div_euclid(1_000_000_000), mtime_ns.rem_euclid(1_000_000_000));
    Timestamps { last_access: omit, last_modification: fs::Timespec { tv_sec, tv_nsec } }
}

/// Sets what is given on an open file, also on one that was opened with `O_PATH`.
pub(crate) fn set_attributes(file: impl AsFd, attributes: &Attributes) -> Result<(), Errno> {
    // The link in /proc names the open file itself, whatever its permissions are.
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    if let Some(mtime_ns) = attributes.mtime_ns {
        fs::utimensat(fs::CWD, path.as_str(), &timestamps(mtime_ns), AtFlags::empty())?;
    }
    if let Some(mode) = attributes.mode {
        fs::chmodat(fs::CWD, path.as_str(), Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?;
    }
    Ok(())
}

/// As [`set_attributes`] for a new file that is open for writing.
pub(crate) fn set_new(file: impl AsFd, attributes: &Attributes) -> Result<(), Errno> {
    fs::fchmod(&file, Mode::from_raw_mode(attributes.mode.unwrap_or(0o644) & 0o7777))?;
    match attributes.mtime_ns {
        Some(mtime_ns) => fs::futimens(&file, &timestamps(mtime_ns)),
        None => Ok(()),
    }
}

/// The error of a system call on a key.
pub(crate) fn failed(errno: Errno, what: &str, key: &Key) -> Error {
    let kind = match errno {
        Errno::LOOP => ErrorKind::Changed,
        // What a name too long for this file system (not Linux) gives.
        Errno::NAMETOOLONG => ErrorKind::Unrepresentable,
        errno => Error::from(errno).kind(),
    };
    let mut error = Error::new(kind, what).caused_by(std::io::Error::from(errno));
    // The empty key is the root itself, which the address names.
    if !key.is_empty() {
        error = error.key(key);
    }
    match (errno, kind) {
        (Errno::LOOP, _) => error.hint("a symbolic link is in the way: links are listed but never followed"),
        (Errno::NOTDIR | Errno::ISDIR, _) => {
            error.hint("a file is where a directory should be, or the other way round")
        }
        (Errno::MFILE | Errno::NFILE, _) => error.hint("raise the limit of open files (`ulimit -n`)"),
        (_, ErrorKind::Full) => error.hint("make room there, then run the same command again to go on"),
        (_, ErrorKind::Denied) => {
            error.hint("run as a user who may read, write and enter everything under the root (`u+rwx` on directories)")
        }
        _ => error,
    }
}

/// Nothing of that name can be there.
pub(crate) fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR)
}

/// The open root.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    path: PathBuf,
    /// Tells this process's temporary names from another's.
    tag: u64,
    serial: AtomicU64,
}

impl Root {
    /// Opens a directory, making it and its parents if asked to.
    pub(crate) fn open(path: &Path, create: bool) -> std::io::Result<Self> {
        if create {
            std::fs::create_dir_all(path)?;
        }
        // The root itself may be reached by a link.
        let path = path.canonicalize()?;
        let fd = fs::open(&path, DIRECTORY, Mode::empty())?;
        Ok(Self { fd, path, tag: rand::random(), serial: AtomicU64::new(0) })
    }

    /// A directory below this one as a root of its own.
    pub(crate) fn within(&self, path: &[u8]) -> Result<Self, Errno> {
        let fd = self.open_directory(path)?;
        let path = self.path.join(OsStr::from_bytes(path));
        Ok(Self { fd, path, tag: rand::random(), serial: AtomicU64::new(0) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Fails when the path no longer leads to the directory that was opened.
    pub(crate) fn check_still_there(&self) -> Result<()> {
        let now = fs::stat(&self.path).map_err(|errno| failed(errno, "cannot find the root", &Key::default()))?;
        let open = fs::fstat(&self.fd)?;
        if (now.st_dev, now.st_ino) != (open.st_dev, open.st_ino) {
            return Err(Error::new(ErrorKind::Changed, "another directory is in the place of the root"));
        }
        Ok(())
    }

    /// A name for a temporary file that no other has.
    pub(crate) fn unique(&self) -> String {
        format!("{:016x}-{:x}", self.tag, self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// Opens what lies at this path under the root; no component may be a link.
    pub(crate) fn open_at(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let path = if path.is_empty() { b"." } else { path };
        // A rename elsewhere in the tree at this moment makes the kernel give up with EAGAIN.
        for _ in 0..128 {
            match fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                Err(Errno::NOSYS | Errno::PERM) => return self.open_by_component(path, flags),
                result => return result,
            }
        }
        self.open_by_component(path, flags)
    }

    /// The same where the kernel (or a sandbox) has no `openat2`.
    fn open_by_component(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut names = path.split(|&b| b == b'/').peekable();
        let mut directory = None;
        while let Some(name) = names.next() {
            if name == b".." {
                return Err(Errno::XDEV);
            }
            let flags = if names.peek().is_some() { DIRECTORY | OFlags::PATH } else { flags };
            let at = directory.as_ref().unwrap_or(&self.fd);
            directory = Some(fs::openat(at, name, flags, Mode::empty())?);
        }
        directory.ok_or(Errno::NOENT)
    }

    /// Opens a directory of the bucket; the empty path is the root.
    pub(crate) fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.open_at(path, DIRECTORY)
    }

    /// As [`Self::open_directory`]; makes what is missing of it.
    pub(crate) fn make_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        match self.open_directory(path) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        let (parent, name) = split(path);
        let parent = self.make_directory(parent)?;
        match self.changing(&[&parent], || fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))) {
            Ok(()) | Err(Errno::EXIST) => fs::openat(&parent, name, DIRECTORY, Mode::empty()),
            Err(errno) => Err(errno),
        }
    }

    /// The directory that holds a key, and the key's name in it.
    pub(crate) fn parent<'a>(&self, key: &'a Key) -> Result<(OwnedFd, &'a [u8]), Errno> {
        let (parent, name) = split(name_of(key));
        Ok((self.open_directory(parent)?, name))
    }

    /// As [`Self::parent`]; makes missing directories.
    pub(crate) fn make_parent<'a>(&self, key: &'a Key) -> Result<(OwnedFd, &'a [u8]), Errno> {
        let (parent, name) = split(name_of(key));
        Ok((self.make_directory(parent)?, name))
    }

    /// Changes names in these directories. Where their permission bits do not let their owner, they are made to: whoever
    /// changes what is in a directory sets its attributes last. The root's own bits are the user's and stay.
    pub(crate) fn changing<T>(
        &self,
        directories: &[&OwnedFd],
        change: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let first = change();
        if !matches!(first, Err(Errno::ACCESS)) {
            return first;
        }
        let root = Meta::of_open(&self.fd)?.file.inode;
        for directory in directories {
            let meta = Meta::of_open(directory)?;
            let mode = meta.mode | 0o700;
            if meta.file.inode == root
                || mode != meta.mode
                    && set_attributes(directory, &Attributes { mode: Some(mode), ..Attributes::default() }).is_err()
            {
                return first;
            }
        }
        change()
    }

    /// What a key names now: none where there is nothing of that name and kind.
    pub(crate) fn meta(&self, key: &Key) -> Result<Option<Meta>, Errno> {
        let found = self.parent(key).and_then(|(parent, name)| Meta::of(&parent, name));
        match found {
            Ok(meta) if (meta.kind == Kind::Directory) == key.is_directory() => Ok(Some(meta)),
            Ok(_) => Ok(None),
            Err(errno) if is_absent(errno) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// A path's directory and its last name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_and_without_openat2_the_same_is_reached() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("a/b")).unwrap();
        std::fs::write(directory.path().join("a/b/c"), "x").unwrap();
        std::os::unix::fs::symlink("b", directory.path().join("a/link")).unwrap();
        std::os::unix::fs::symlink("b/c", directory.path().join("a/file")).unwrap();
        let root = Root::open(directory.path(), false).unwrap();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for path in ["a", "a/b", "a/b/c", "a/none", "a/b/c/d", "a/link", "a/link/c", "a/file", "../x", "a/../../x", "."]
        {
            let kernel = root.open_at(path.as_bytes(), flags).and_then(Meta::of_open);
            let own = root.open_by_component(path.as_bytes(), flags).and_then(Meta::of_open);
            match (&kernel, &own) {
                // Why a link is refused differs: a directory is asked for, and a link is none.
                (Err(Errno::LOOP), Err(Errno::NOTDIR)) => {}
                _ => assert_eq!(kernel, own, "{path}"),
            }
        }
        assert_eq!(root.open_at(b"../x", flags).unwrap_err(), Errno::XDEV);
    }

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let file = tempfile::tempfile().unwrap();
        for mtime_ns in [-1_500_000_000, -1, 0, 1, 1_234_567_890_123_456_789] {
            set_new(&file, &Attributes { mtime_ns: Some(mtime_ns), ..Attributes::default() }).unwrap();
            assert_eq!(Meta::of_open(&file).unwrap().file.mtime_ns, mtime_ns);
        }
    }
}
