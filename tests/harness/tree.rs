//! Directory trees, read and written with nothing but the standard library.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::model::Content;

/// Everything in a tree that a replica must keep, by path; snapferry's own folders at the root are left out.
pub(crate) type Tree = BTreeMap<Vec<u8>, Node>;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    File { data: Vec<u8>, mode: u32, mtime: (i64, i64) },
    Directory { mode: u32, mtime: (i64, i64) },
    Link(PathBuf),
    Special,
}

/// Reads a whole tree. Links are not followed.
#[track_caller]
pub(crate) fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    visit(root, &mut |path, metadata| {
        let mtime = (metadata.mtime(), metadata.mtime_nsec());
        let mode = metadata.mode() & 0o7777;
        let kind = metadata.file_type();
        let node = if kind.is_dir() {
            Node::Directory { mode, mtime }
        } else if kind.is_symlink() {
            Node::Link(fs::read_link(path).unwrap())
        } else if kind.is_file() {
            Node::File { data: fs::read(path).unwrap(), mode, mtime }
        } else {
            assert!(kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device());
            Node::Special
        };
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        if !matches!(name.split(|&b| b == b'/').next(), Some(b".snapferry" | b".snapshot")) {
            tree.insert(name, node);
        }
    });
    tree
}

/// Inode, size, modification and change time of every path under `root`, snapferry's own folders included: two equal
/// prints mean that nothing was written. Empty where there is no such directory.
pub(crate) fn fingerprint(root: &Path) -> BTreeMap<PathBuf, (u64, u64, i64, i64)> {
    let mut print = BTreeMap::new();
    visit(root, &mut |path, metadata| {
        let when = |seconds: i64, nanoseconds: i64| seconds * 1_000_000_000 + nanoseconds;
        let modified = when(metadata.mtime(), metadata.mtime_nsec());
        let changed = when(metadata.ctime(), metadata.ctime_nsec());
        print.insert(path.to_owned(), (metadata.ino(), metadata.len(), modified, changed));
    });
    print
}

/// As [`fingerprint`], without what snapferry keeps for itself: a refused run takes and returns the lease there.
pub(crate) fn content_fingerprint(root: &Path) -> BTreeMap<PathBuf, (u64, u64, i64, i64)> {
    let mut print = fingerprint(root);
    print.retain(|path, _| !path.starts_with(root.join(".snapferry")));
    print
}

/// Calls `see` for everything under `root`, parents first. What disappears meanwhile is passed over.
pub(crate) fn visit(root: &Path, see: &mut dyn FnMut(&Path, &fs::Metadata)) {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        Err(error) => panic!("{}: {error}", root.display()),
    };
    for entry in entries {
        let path = entry.unwrap().path();
        let metadata = match path.symlink_metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        see(&path, &metadata);
        if metadata.is_dir() {
            visit(&path, see);
        }
    }
}

/// Keys and bytes of a tree: files, and directories as keys that end in `/`.
#[track_caller]
pub(crate) fn content(root: &Path) -> Content {
    assert!(root.is_dir(), "no directory {}", root.display());
    let entries = read(root).into_iter().map(|(mut key, node)| match node {
        Node::File { data, .. } => (key, data),
        Node::Directory { .. } => {
            key.push(b'/');
            (key, Vec::new())
        }
        other => panic!("{}: {other:?}", String::from_utf8_lossy(&key)),
    });
    Content(entries.collect())
}

/// Fails the test and names what differs, unless both trees are the same in every byte, mode and time.
#[track_caller]
pub(crate) fn assert_same(left: &Path, right: &Path) {
    let (left_tree, right_tree) = (read(left), read(right));
    let mut differences = Vec::new();
    for key in left_tree.keys().chain(right_tree.keys().filter(|key| !left_tree.contains_key(*key))) {
        let (a, b) = (left_tree.get(key), right_tree.get(key));
        if a != b {
            differences.push(format!("{}: {} | {}", key.escape_ascii(), short(a), short(b)));
        }
    }
    assert!(differences.is_empty(), "{} and {} differ:\n{}", left.display(), right.display(), differences.join("\n"));
}

fn short(node: Option<&Node>) -> String {
    match node {
        None => "nothing".into(),
        Some(Node::File { data, mode, mtime }) => format!(
            "file of {} bytes ({}…), mode {mode:o}, mtime {}.{:09}",
            data.len(),
            data[..data.len().min(12)].escape_ascii(),
            mtime.0,
            mtime.1
        ),
        Some(Node::Directory { mode, mtime }) => format!("directory, mode {mode:o}, mtime {}.{:09}", mtime.0, mtime.1),
        Some(other) => format!("{other:?}"),
    }
}

/// The path of a key in a tree.
pub(crate) fn path_of(root: &Path, key: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(key.strip_suffix(b"/").unwrap_or(key)))
}

/// The path's name, as bytes.
pub(crate) fn name_of(path: &Path) -> Vec<u8> {
    path.as_os_str().to_owned().into_vec()
}

/// Writes a file by replacing it, with the directories that it needs.
#[track_caller]
pub(crate) fn put(root: &Path, key: &[u8], data: &[u8]) {
    let path = path_of(root, key);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let fresh = root.parent().unwrap().join("being-written");
    fs::write(&fresh, data).unwrap();
    fs::rename(&fresh, &path).unwrap();
}

/// Gives every file and directory a mode and a time of its own, which follow from its name and content: what was
/// not changed keeps what it has.
pub(crate) fn dress(root: &Path) {
    let mut paths = Vec::new();
    visit(root, &mut |path, metadata| {
        let name = path.strip_prefix(root).unwrap();
        if !name.starts_with(".snapshot") && !name.starts_with(".snapferry") && !metadata.is_symlink() {
            paths.push((path.to_owned(), metadata.is_dir(), metadata.len()));
        }
    });
    // Children first: a directory's time changes with what is in it.
    for (path, is_directory, length) in paths.into_iter().rev() {
        let hash = name_of(path.strip_prefix(root).unwrap())
            .iter()
            .fold(length, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let modes: [u32; 3] = if is_directory { [0o755, 0o750, 0o700] } else { [0o644, 0o600, 0o755] };
        fs::set_permissions(&path, fs::Permissions::from_mode(modes[(hash % 3) as usize])).unwrap();
        if is_directory {
            let time =
                SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000 + hash % 100_000_000, (hash % 999_999_937) as u32);
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        }
    }
}
