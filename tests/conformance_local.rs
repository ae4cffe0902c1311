//! The local store keeps what the trait promises, and what only a file system has to.

#![allow(clippy::unwrap_used)] // In helpers of tests a panic is the failure.

mod common;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use common::conformance;
use snapferry::error::Kind as ErrorKind;
use snapferry::key::Key;
use snapferry::manifest::{Attributes, Kind};
use snapferry::store::local::LocalStore;
use snapferry::store::{Condition, ListOptions, Store};

fn open(path: &Path) -> LocalStore {
    LocalStore::open(path, false).unwrap()
}

async fn list(store: &LocalStore) -> Vec<(String, Kind)> {
    let entries = store.list(ListOptions::default()).await.unwrap().collect().await.unwrap();
    entries.into_iter().map(|entry| (entry.key.to_string(), entry.kind)).collect()
}

#[tokio::test]
async fn promises() {
    let directory = tempfile::tempdir().unwrap();
    conformance::run(Arc::new(open(directory.path()))).await;
}

#[tokio::test]
async fn missing_root() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("a");
    assert_eq!(LocalStore::open(&root, false).unwrap_err().kind(), ErrorKind::NotFound);
    let store = LocalStore::open(&root, true).unwrap();
    assert_eq!(list(&store).await, []);
    std::fs::remove_dir(&root).unwrap();
    conformance::missing_bucket(Arc::new(store.clone())).await;
    std::fs::create_dir(&root).unwrap();
    let error = store.list(ListOptions::default()).await.unwrap().collect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
}

#[tokio::test]
async fn links_are_listed_and_never_followed() {
    let (directory, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("secret"), "x").unwrap();
    symlink(outside.path(), directory.path().join("link")).unwrap();
    symlink("nowhere", directory.path().join("broken")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("socket")).unwrap();
    let store = open(directory.path());
    let expected = [("broken", Kind::Link), ("link", Kind::Link), ("socket", Kind::Special)];
    assert_eq!(list(&store).await, expected.map(|(key, kind)| (key.to_string(), kind)));
    assert!(store.fetch(&"link/secret".into()).await.is_err());
    let none = Attributes::default();
    for key in ["link/secret", "link/new", "link/"] {
        assert!(store.write(&key.into(), "".into(), &none, &Condition::Any).await.is_err(), "{key}");
    }
    assert!(store.set_attributes(&"link".into(), &none).await.is_err());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    // Written over, a link is replaced and what it led to stays.
    store.write(&"link".into(), "mine".into(), &none, &Condition::Any).await.unwrap();
    assert_eq!(std::fs::read(outside.path().join("secret")).unwrap(), b"x");
}

#[tokio::test]
async fn a_file_changed_in_place_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    std::fs::write(directory.path().join("a"), "one").unwrap();
    let entry = store.stat(&"a".into()).await.unwrap().unwrap();
    std::fs::write(directory.path().join("a"), "two").unwrap();
    assert_eq!(store.read(&entry, None).await.unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!(store.clone().guard_inode(false).read(&entry, None).await.unwrap_err().kind(), ErrorKind::Changed);
}

#[tokio::test]
async fn a_copy_of_a_file_is_read_where_only_time_is_guarded() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    std::fs::write(directory.path().join("a"), "one").unwrap();
    let entry = store.stat(&"a".into()).await.unwrap().unwrap();
    store.copy(&entry, &"b".into(), None, &Condition::Any).await.unwrap();
    store.rename(&"b".into(), &"a".into()).await.unwrap();
    assert_eq!(store.read(&entry, None).await.unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!(store.guard_inode(false).read(&entry, None).await.unwrap().data, "one");
}

#[tokio::test]
async fn renaming_one_of_two_links_leaves_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    std::fs::write(directory.path().join("a"), "one").unwrap();
    std::fs::hard_link(directory.path().join("a"), directory.path().join("b")).unwrap();
    store.rename(&"a".into(), &"b".into()).await.unwrap();
    assert_eq!(list(&store).await, [("b".to_string(), Kind::Object)]);
}

#[tokio::test]
async fn an_upload_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (key, none) = (Key::from("deep/a"), Attributes::default());
    let first = open(directory.path());
    let upload = first.begin(&key, 6, &none).await.unwrap();
    let one = first.write_part(&upload, 1, 0, "abc".into()).await.unwrap();
    drop(first);
    let second = open(directory.path());
    let incomplete = second.finish(&upload, std::slice::from_ref(&one), &none, &Condition::Any).await;
    assert_eq!(incomplete.unwrap_err().kind(), ErrorKind::Damaged);
    let two = second.write_part(&upload, 2, 3, "def".into()).await.unwrap();
    second.finish(&upload, &[one, two], &none, &Condition::Any).await.unwrap();
    assert_eq!(std::fs::read(directory.path().join("deep/a")).unwrap(), b"abcdef");
    assert_eq!(std::fs::read_dir(directory.path().join(".snapferry/staging/parts")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_directory_that_cannot_be_read_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("closed");
    std::fs::create_dir(&inner).unwrap();
    std::fs::set_permissions(&inner, PermissionsExt::from_mode(0o000)).unwrap();
    if std::fs::read_dir(&inner).is_ok() {
        eprintln!("not tested: this user may read everything");
        return;
    }
    let error = open(directory.path()).list(ListOptions::default()).await.unwrap().collect().await.unwrap_err();
    assert_eq!((error.kind(), error.failed_key()), (ErrorKind::Denied, Some(&Key::from("closed/"))), "{error}");
    assert!(error.way_out().is_some());
}

#[tokio::test]
async fn a_failed_write_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (store, none) = (open(directory.path()), Attributes::default());
    store.write(&"a".into(), "one".into(), &none, &Condition::Absent).await.unwrap();
    store.write(&"a".into(), "two".into(), &none, &Condition::Absent).await.unwrap_err();
    store.write(&"a/b".into(), "two".into(), &none, &Condition::Any).await.unwrap_err();
    assert_eq!(std::fs::read_dir(directory.path().join(".snapferry/staging/tmp")).unwrap().count(), 0);
    let refused = store.read_only().write(&"b".into(), "x".into(), &none, &Condition::Any).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Denied);
}
