//! What a bucket should hold: the third opinion beside the source's and the target's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{Numbers, tree};

/// Keys and their bytes. A key that ends in `/` is a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Content(pub(crate) BTreeMap<Vec<u8>, Vec<u8>>);

impl Content {
    /// Without snapferry's own keys, and without directories that the keys in them imply: what has to be the same in
    /// stores with and without directories.
    pub(crate) fn canonical(mut self) -> Self {
        self.0.retain(|key, _| !key.starts_with(b".snapferry/") && !key.starts_with(b".snapshot/"));
        let keys: Vec<Vec<u8>> = self.0.keys().cloned().collect();
        for pair in keys.windows(2) {
            if pair[0].ends_with(b"/") && pair[1].starts_with(&pair[0]) {
                self.0.remove(&pair[0]);
            }
        }
        self
    }
}

/// Fails the test and names the keys, unless both hold the same keys with the same bytes.
#[track_caller]
pub(crate) fn assert_equal(found: Content, expected: &Content, what: &str) {
    let (found, expected) = (found.canonical().0, expected.clone().canonical().0);
    let mut differences = String::new();
    for key in found.keys().chain(expected.keys().filter(|key| !found.contains_key(*key))) {
        let length =
            |side: &BTreeMap<_, Vec<u8>>| side.get(key).map_or("nothing".into(), |d| format!("{} bytes", d.len()));
        if found.get(key) != expected.get(key) {
            let _ = writeln!(
                differences,
                "`{}`: {} where {} should be",
                key.escape_ascii(),
                length(&found),
                length(&expected)
            );
        }
    }
    assert!(differences.is_empty(), "{what}:\n{differences}");
}

/// A user's change.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Put(&'static str, Vec<u8>),
    /// An object, or a directory with all that it holds.
    Delete(&'static str),
    MakeDirectory(&'static str),
    /// An object, or a directory with all that it holds.
    Rename(&'static str, &'static str),
}

impl Content {
    /// The content after this step.
    pub(crate) fn apply(&mut self, step: &Step) {
        match step {
            Step::Put(key, data) => {
                self.0.insert(key.as_bytes().to_vec(), data.clone());
            }
            Step::MakeDirectory(key) => {
                assert!(key.ends_with('/'));
                self.0.insert(key.as_bytes().to_vec(), Vec::new());
            }
            Step::Delete(key) => {
                self.take(key);
            }
            Step::Rename(from, to) => {
                for (key, data) in self.take(from) {
                    let renamed = [to.as_bytes(), &key[from.len()..]].concat();
                    self.0.insert(renamed, data);
                }
            }
        }
    }

    fn take(&mut self, name: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let name = name.as_bytes();
        let matches = |key: &[u8]| key == name || (name.ends_with(b"/") && key.starts_with(name));
        let taken: BTreeMap<_, _> = std::mem::take(&mut self.0)
            .into_iter()
            .filter_map(|(key, data)| {
                if matches(&key) {
                    return Some((key, data));
                }
                self.0.insert(key, data);
                None
            })
            .collect();
        assert!(!taken.is_empty(), "a test renames or deletes what is not there: {}", name.escape_ascii());
        taken
    }
}

/// Does a user's change in a directory, as a careful user's tools do it: a file is replaced, not written over.
#[track_caller]
pub(crate) fn apply_to_directory(root: &Path, step: &Step) {
    let path = |key: &str| tree::path_of(root, key.as_bytes());
    match step {
        Step::Put(key, data) => tree::put(root, key.as_bytes(), data),
        Step::MakeDirectory(key) => fs::create_dir_all(path(key)).unwrap(),
        Step::Delete(key) if key.ends_with('/') => fs::remove_dir_all(path(key)).unwrap(),
        Step::Delete(key) => fs::remove_file(path(key)).unwrap(),
        Step::Rename(from, to) => {
            fs::create_dir_all(path(to).parent().unwrap()).unwrap();
            fs::rename(path(from), path(to)).unwrap();
        }
    }
}

/// Three days of changes. `kinds` lets an object become a directory and back, which some servers cannot hold.
pub(crate) fn generations(kinds: bool) -> [Vec<Step>; 3] {
    use Step::{Delete, MakeDirectory, Put, Rename};
    let mut numbers = Numbers(0x5eed);
    let mut bytes = |length: usize| numbers.bytes(length);
    let mut first = vec![
        Put("readme", b"first\n".to_vec()),
        Put("empty-object", Vec::new()),
        Put("a-b", bytes(100)),
        Put("a/b", bytes(4096)),
        Put("a/c/d", bytes(70_000)),
        Put("left", b"left hand".to_vec()),
        Put("right", b"right hand, longer".to_vec()),
        Put("one", bytes(31)),
        Put("two", bytes(32)),
        Put("three", bytes(33)),
        Put("large", bytes(20 << 20)),
        Put("moves/deep/er/file", bytes(5000)),
        Put("moves/deep/other", bytes(5001)),
        Put("goes/x", bytes(77)),
        Put("goes/y", bytes(78)),
        Put("stays/z", bytes(79)),
        MakeDirectory("hollow/"),
        MakeDirectory("nest/hollow/"),
        Put("last-one/only", bytes(12)),
    ];
    if kinds {
        first.push(Put("object-then-directory", bytes(50)));
        first.push(Put("directory-then-object/inside", bytes(51)));
    }
    let mut second = vec![
        Put("readme", b"second\n".to_vec()),
        Put("created/today", bytes(900)),
        // The same size, other bytes.
        Put("a/b", bytes(4096)),
        Delete("a-b"),
        // A swap of two names.
        Rename("left", "held"),
        Rename("right", "left"),
        Rename("held", "right"),
        // A directory with all that it holds.
        Rename("moves/deep/", "moves/shallow/"),
        // A directory takes the name of a deleted one.
        Delete("goes/"),
        Rename("stays/", "goes/"),
        Delete("hollow/"),
        MakeDirectory("created/hollow/"),
        // The last object of a directory goes, and the directory with it.
        Delete("last-one/"),
    ];
    if kinds {
        second.extend([
            Delete("object-then-directory"),
            Put("object-then-directory/inside", bytes(52)),
            Delete("directory-then-object/"),
            Put("directory-then-object", bytes(53)),
        ]);
    }
    let mut large = bytes(20 << 20);
    large[9 << 20] ^= 1;
    let mut third = vec![
        Put("large", large),
        // A ring of three names.
        Rename("one", "held"),
        Rename("three", "one"),
        Rename("two", "three"),
        Rename("held", "two"),
        // Up, with an object changed on the way.
        Rename("moves/shallow/er/", "up/"),
        Put("up/file", bytes(5002)),
        Delete("readme"),
        Put("readme.txt", b"third\n".to_vec()),
        MakeDirectory("hollow/"),
    ];
    if kinds {
        third.extend([
            Delete("object-then-directory/"),
            Put("object-then-directory", bytes(54)),
            Delete("directory-then-object"),
            MakeDirectory("directory-then-object/"),
        ]);
    }
    [first, second, third]
}
