//! Clone trees of a local directory: what is in them, what changes under them, and what is left of a failed one.

#![allow(clippy::unwrap_used)] // In helpers of tests a panic is the failure.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use snapferry::error::{Error, Kind as ErrorKind, Result};
use snapferry::key::Key;
use snapferry::manifest::Entry;
use snapferry::snapshot::clone::{self, CloneMode, Cloned, Outcome};
use snapferry::store::local::LocalStore;
use snapferry::store::{ListOptions, Store};

struct Live {
    directory: tempfile::TempDir,
    store: LocalStore,
}

impl Live {
    /// Three files and four directories, one of them empty and one not writable.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::open(directory.path(), false).unwrap();
        let live = Self { directory, store };
        for path in ["a/b", "empty", "shut"] {
            std::fs::create_dir_all(live.path(path)).unwrap();
        }
        for path in ["a/b/deep", "a/one", "shut/two"] {
            std::fs::write(live.path(path), path).unwrap();
        }
        std::fs::set_permissions(live.path("a/one"), PermissionsExt::from_mode(0o640)).unwrap();
        std::fs::set_permissions(live.path("shut"), PermissionsExt::from_mode(0o555)).unwrap();
        live
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    async fn entries(&self) -> Vec<Entry> {
        list(&self.store).await
    }

    /// Clones these entries on a thread that may block.
    async fn clone_of(&self, mode: CloneMode, entries: Vec<Result<Entry>>) -> Result<(Cloned, Vec<Outcome>)> {
        let store = self.store.clone();
        let work = move || {
            let mut outcomes = Vec::new();
            let cloned = clone::create(&store, "snap", mode, entries.into_iter(), |outcome| {
                outcomes.push(outcome);
                Ok(())
            })?;
            Ok((cloned, outcomes))
        };
        tokio::task::spawn_blocking(work).await.unwrap()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = std::fs::set_permissions(self.path("shut"), PermissionsExt::from_mode(0o755));
    }
}

async fn list(store: &LocalStore) -> Vec<Entry> {
    store.list(ListOptions::default()).await.unwrap().collect().await.unwrap()
}

/// What of an entry a clone has to keep.
fn kept(entries: &[Entry]) -> Vec<(Key, u64, i64, Option<u32>)> {
    entries.iter().map(|entry| (entry.key.clone(), entry.size, entry.mtime_ns, entry.mode)).collect()
}

/// Changes a file through its own inode, as an appending writer does.
fn write_in_place(path: &Path, content: &str) {
    let file = std::fs::OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    std::io::Write::write_all(&mut &file, content.as_bytes()).unwrap();
}

#[tokio::test]
async fn a_clone_holds_what_was_listed() {
    for mode in [CloneMode::Auto, CloneMode::HardLink, CloneMode::Copy] {
        let live = Live::new();
        let entries = live.entries().await;
        let (cloned, outcomes) = live.clone_of(mode, entries.iter().cloned().map(Ok).collect()).await.unwrap();
        assert_eq!((cloned.objects, cloned.directories, cloned.repinned, cloned.gone), (3, 4, 0, 0));
        assert_eq!(outcomes, entries.iter().cloned().map(Outcome::Pinned).collect::<Vec<_>>());
        assert_eq!(clone::list(&live.store).unwrap(), ["snap"]);

        // The live tree goes its way; the clone stays.
        std::fs::remove_file(live.path("a/b/deep")).unwrap();
        std::fs::write(live.path("a/new"), "new").unwrap();
        std::fs::rename(live.path("a/new"), live.path("a/one")).unwrap();
        let clone = clone::open(&live.store, "snap").unwrap();
        assert_eq!(kept(&list(&clone).await), kept(&entries));
        for entry in &entries {
            let content = if entry.key.is_directory() { String::new() } else { entry.key.to_string() };
            assert_eq!(clone.read(entry, None).await.unwrap().data, content, "{}", entry.key);
        }
        // The snapshot is no part of the live content.
        assert!(live.entries().await.iter().all(|entry| !entry.key.starts_with(b".snap")));

        let again = live.clone_of(mode, Vec::new()).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists, "{again}");
        clone::remove(&live.store, "snap").unwrap();
        clone::remove(&live.store, "snap").unwrap();
        assert_eq!(clone::list(&live.store).unwrap(), Vec::<String>::new());
        assert_eq!(std::fs::read_dir(live.path(".snapshot")).unwrap().count(), 0);
        assert_eq!(clone::open(&live.store, "snap").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(std::fs::read(live.path("shut/two")).unwrap(), b"shut/two");
    }
}

#[tokio::test]
async fn what_changed_since_the_listing_is_pinned_again() {
    for mode in [CloneMode::HardLink, CloneMode::Copy] {
        let live = Live::new();
        let entries = live.entries().await;
        write_in_place(&live.path("a/b/deep"), "changed");
        std::fs::remove_file(live.path("a/one")).unwrap();
        let (cloned, outcomes) = live.clone_of(mode, entries.into_iter().map(Ok).collect()).await.unwrap();
        assert_eq!((cloned.objects, cloned.repinned, cloned.gone), (2, 1, 1));
        let clone = clone::open(&live.store, "snap").unwrap();
        let now = live.store.stat(&"a/b/deep".into()).await.unwrap().unwrap();
        assert!(outcomes.contains(&Outcome::Repinned(now.clone())), "{outcomes:?}");
        assert!(outcomes.iter().any(|outcome| matches!(outcome, Outcome::Gone(gone) if gone.key == "a/one".into())));
        assert_eq!(clone.stat(&"a/one".into()).await.unwrap(), None);
        // The copy is the snapshot's own.
        write_in_place(&live.path("a/b/deep"), "once more");
        assert_eq!(clone.read(&now, None).await.unwrap().data, "changed");
    }
}

#[tokio::test]
async fn a_change_in_place_is_noticed_and_pinned_again() {
    let live = Live::new();
    let key = Key::from("a/b/deep");
    let entries = live.entries().await;
    let before = entries.iter().find(|entry| entry.key == key).unwrap().clone();
    live.clone_of(CloneMode::HardLink, entries.into_iter().map(Ok).collect()).await.unwrap();
    write_in_place(&live.path("a/b/deep"), "changed");
    let clone = clone::open(&live.store, "snap").unwrap();
    assert_eq!(clone.read(&before, None).await.unwrap_err().kind(), ErrorKind::Changed);

    let entry = clone::repin(&live.store, "snap", &key).unwrap();
    assert_eq!(entry, live.store.stat(&key).await.unwrap().unwrap(), "tomorrow's listing must find it unchanged");
    write_in_place(&live.path("a/b/deep"), "once more");
    assert_eq!(clone.read(&entry, None).await.unwrap().data, "changed");
    let inode = |path: &str| std::fs::metadata(live.path(path)).unwrap().ino();
    assert_ne!(inode("a/b/deep"), inode(".snapshot/snap/a/b/deep"));
    let gone = clone::repin(&live.store, "snap", &"a/none".into()).unwrap_err();
    assert_eq!((gone.kind(), gone.failed_key()), (ErrorKind::NotFound, Some(&"a/none".into())));
}

#[tokio::test]
async fn a_clone_that_fails_is_not_there_and_the_next_one_is_whole() {
    let live = Live::new();
    let mut entries: Vec<Result<Entry>> = live.entries().await.into_iter().map(Ok).collect();
    entries.push(Err(Error::new(ErrorKind::BadListing, "the listing broke off")));
    let error = live.clone_of(CloneMode::Auto, entries).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadListing);
    assert_eq!(clone::list(&live.store).unwrap(), Vec::<String>::new());
    // What an attempt that was killed left behind is no part of the next one.
    std::fs::create_dir_all(live.path(".snapshot/.snap.partial/a/stale")).unwrap();
    std::fs::write(live.path(".snapshot/.snap.partial/a/one"), "stale").unwrap();
    let entries = live.entries().await;
    live.clone_of(CloneMode::Auto, entries.iter().cloned().map(Ok).collect()).await.unwrap();
    let clone = clone::open(&live.store, "snap").unwrap();
    assert_eq!(kept(&list(&clone).await), kept(&entries));
    assert_eq!(std::fs::read(live.path(".snapshot/snap/a/one")).unwrap(), b"a/one");
}

#[tokio::test]
async fn links_are_refused_and_names_checked() {
    let live = Live::new();
    std::os::unix::fs::symlink("a", live.path("link")).unwrap();
    let entries = live.entries().await;
    let error = live.clone_of(CloneMode::Auto, entries.into_iter().map(Ok).collect()).await.unwrap_err();
    assert_eq!((error.kind(), error.failed_key()), (ErrorKind::Unsupported, Some(&"link".into())));
    for name in ["..", "a/b", ".snap.partial"] {
        assert_eq!(clone::open(&live.store, name).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(clone::remove(&live.store, name).unwrap_err().kind(), ErrorKind::Usage);
    }
}
