//! The same three days of changes through every pair of stores, on real servers.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::path::PathBuf;

use harness::model::{Content, Step, apply_to_directory, assert_equal, generations};
use harness::s3::{Bucket, Server};
use harness::{Lab, tree};

/// Where a bucket lives.
enum Place {
    Directory(PathBuf),
    S3(Bucket),
}

impl Place {
    fn url(&self) -> String {
        match self {
            Place::Directory(path) => path.to_str().unwrap().to_owned(),
            Place::S3(bucket) => bucket.url(),
        }
    }

    fn content(&self) -> Content {
        match self {
            Place::Directory(path) => tree::content(path),
            Place::S3(bucket) => bucket.content(),
        }
    }

    /// Does a user's changes here, and in the model.
    fn change(&self, content: &mut Content, steps: &[Step]) {
        let before = content.clone();
        for step in steps {
            content.apply(step);
            if let Place::Directory(path) = self {
                apply_to_directory(path, step);
            }
        }
        if let Place::S3(bucket) = self {
            bucket.change(&before, content);
        }
        assert_equal(self.content(), content, "the test's own source");
    }
}

/// Three days from source to target, each sealed and compared, and every day restored at the end.
fn three_days(lab: &Lab, source: &Place, target: &Place, kinds: bool) {
    let mut content = Content::default();
    let mut days = Vec::new();
    for (day, steps) in generations(kinds).iter().enumerate() {
        let name = format!("day-{}", day + 1);
        source.change(&mut content, steps);
        let outcome = lab.sync(source.url(), target.url(), &name, &[]).sealed();
        assert_eq!(outcome.report["base"].as_str().map(str::to_owned), (day > 0).then(|| format!("day-{day}")));
        assert_equal(target.content(), &content, &format!("the target on {name}"));
        days.push((name, content.clone()));
    }
    for (name, content) in &days {
        assert_equal(tree::content(&lab.restore(target.url(), name)), content, &format!("{name} restored"));
    }
    lab.verify(source.url(), target.url(), "day-3");

    // Nothing new: not one version more.
    let versions = |place: &Place| if let Place::S3(bucket) = place { bucket.versions() } else { 0 };
    let before = (versions(source), versions(target));
    let outcome = lab.sync(source.url(), target.url(), "day-3", &[]).sealed();
    assert_eq!(outcome.count("objects_copied"), 0);
    assert_eq!((versions(source), versions(target)), before, "a sealed snapshot was written to");
    let outcome = lab.sync(source.url(), target.url(), "day-4", &[]).sealed();
    assert_eq!((outcome.count("objects_copied"), outcome.count("bytes_copied")), (0, 0), "{}", outcome.report);
}

fn directory(lab: &Lab, name: &str) -> Place {
    let path = lab.path(name);
    fs::create_dir(&path).unwrap();
    Place::Directory(path)
}

/// The servers that hold versions, and whether each can hold `x` beside `x/y`, as a change of kind needs.
fn servers() -> Vec<(Server, bool)> {
    [("SNAPFERRY_TEST_S3", true), ("SNAPFERRY_TEST_S3_ORDERED", false)]
        .into_iter()
        .filter_map(|(variable, kinds)| Some((Server::from_environment(variable)?, kinds)))
        .collect()
}

#[test]
fn directory_to_s3() {
    for (server, kinds) in servers() {
        let lab = Lab::new();
        three_days(&lab, &directory(&lab, "source"), &Place::S3(server.bucket("target")), kinds);
    }
}

#[test]
fn s3_to_s3() {
    for (server, kinds) in servers() {
        let (source, target) = (Place::S3(server.bucket("source")), Place::S3(server.bucket("target")));
        three_days(&Lab::new(), &source, &target, kinds);
    }
}

#[test]
fn s3_to_directory() {
    for (server, kinds) in servers() {
        let lab = Lab::new();
        three_days(&lab, &Place::S3(server.bucket("source")), &directory(&lab, "target"), kinds);
    }
}

#[test]
fn a_prefix_is_a_bucket_of_its_own() {
    let Some(server) = Server::from_environment("SNAPFERRY_TEST_S3") else { return };
    let (source, target) = (server.bucket("source"), server.bucket("target"));
    let content = |pairs: &[(&str, &str)]| {
        Content(pairs.iter().map(|(key, data)| (key.as_bytes().to_vec(), data.as_bytes().to_vec())).collect())
    };
    source.change(&Content::default(), &content(&[("in/a", "a"), ("in/b/c", "c"), ("in-not", "no"), ("out", "no")]));
    let neighbour = content(&[("copy-not", "stays"), ("other/x", "stays")]);
    target.change(&Content::default(), &neighbour);
    Lab::new().sync(source.url_of_prefix("in/"), target.url_of_prefix("copy/"), "first", &[]).sealed();
    let mut found = target.content();
    found.0.retain(|key, _| !key.starts_with(b"copy/.snapferry/"));
    let expected = content(&[("copy/a", "a"), ("copy/b/c", "c"), ("copy-not", "stays"), ("other/x", "stays")]);
    assert_equal(found, &expected, "the target bucket");
}

/// Keys that are hard on clients. (A newline is not among them: this server's own URL router fails on it.)
fn awkward() -> Content {
    let keys: [&[u8]; 20] = [
        b"a//b",
        b"/lead",
        b"//",
        b"dir",
        b"dir/under",
        b"../x",
        b"a/./b",
        b"a/../b",
        b"tab\there",
        b"\x01control\x7f",
        b" leading",
        b"trailing ",
        b"a#1",
        "caf\u{e9}".as_bytes(),
        "cafe\u{301}".as_bytes(),
        b"%2E%2E/x",
        b"a+b&c=d?e",
        b"back\\slash",
        b"<xml>&amp;\"'",
        b"plain",
    ];
    let mut content: Content = Content(keys.iter().map(|key| (key.to_vec(), key.to_vec())).collect());
    content.0.insert(b"dir/".to_vec(), Vec::new());
    content.0.insert(vec![b'x'; 1000], b"long".to_vec());
    content
}

#[test]
fn awkward_keys_arrive_intact() {
    let Some(server) = Server::from_environment("SNAPFERRY_TEST_S3_ANY_KEY") else { return };
    let (source, target) = (server.bucket("source"), server.bucket("target"));
    let mut content = awkward();
    source.change(&Content::default(), &content);
    let lab = Lab::new();
    let outcome = lab.sync(source.url(), target.url(), "first", &[]).sealed();
    assert_eq!(outcome.count("objects_copied") + outcome.count("directories_created"), 22, "{}", outcome.report);
    let own = |mut content: Content| {
        content.0.retain(|key, _| !key.starts_with(b".snapferry/"));
        content
    };
    // Here markers count too: both sides are object stores.
    assert_eq!(own(target.content()), content);

    let before = content.clone();
    content.0.insert(b"../x".to_vec(), b"changed".to_vec());
    content.0.remove(b"a//b".as_slice());
    content.0.insert(b"a///b".to_vec(), b"new".to_vec());
    source.change(&before, &content);
    let outcome = lab.sync(source.url(), target.url(), "second", &[]).sealed();
    assert_eq!(outcome.count("deleted"), 1, "{}", outcome.report);
    assert_eq!(own(target.content()), content);
}

#[test]
fn keys_that_a_directory_cannot_hold_are_refused_by_name() {
    let Some(server) = Server::from_environment("SNAPFERRY_TEST_S3_ANY_KEY") else { return };
    let long = "x".repeat(256);
    for key in ["a//b", "/lead", "../x", "a/./b", "a/../../x", ".", long.as_str()] {
        refused(&server, &[key], key);
    }
    refused(&server, &["dir", "dir/under"], "dir");
    refused(&server, &["dir", "dir-between", "dir/"], "dir");
}

/// These keys in a bucket are refused for a directory, with this one named, and nothing is touched.
fn refused(server: &Server, keys: &[&str], named: &str) {
    let source = server.bucket("source");
    let mut content = Content(keys.iter().map(|key| (key.as_bytes().to_vec(), key.as_bytes().to_vec())).collect());
    content.0.insert(b"plain".to_vec(), b"plain".to_vec());
    if let Some(marker) = content.0.get_mut(b"dir/".as_slice()) {
        marker.clear();
    }
    source.change(&Content::default(), &content);
    let lab = Lab::new();
    let target = lab.path("apart/target");
    fs::create_dir_all(&target).unwrap();
    let before = tree::content_fingerprint(&target);
    let outcome = lab.sync(source.url(), &target, "first", &[]).exits(3).says(named);
    assert_eq!(outcome.text("state"), "refused");
    assert_eq!(tree::content_fingerprint(&target), before, "{keys:?}: touched");
}

#[test]
fn a_missing_bucket_is_not_an_empty_one() {
    let Some(server) = Server::from_environment("SNAPFERRY_TEST_S3") else { return };
    let lab = Lab::new();
    let Place::Directory(target) = directory(&lab, "target") else { unreachable!() };
    tree::put(&target, b"kept", b"kept");
    let before = tree::read(&target);
    lab.sync(
        server.url("there-is-no-such-bucket"),
        &target,
        "first",
        &["--on-drift", "repair", "--max-delete", "100%"],
    )
    .exits_with_one_of(&[1, 2])
    .says("there-is-no-such-bucket");
    assert_eq!(tree::read(&target), before);
}

/// The server's own log says what was asked: one GET and one PUT for a small object, and no HEAD.
#[test]
fn a_small_object_costs_one_read_and_one_write() {
    let Some(server) = Server::from_environment("SNAPFERRY_TEST_S3_ORDERED") else { return };
    let Ok(log) = std::env::var("SNAPFERRY_TEST_S3_ORDERED_LOG") else {
        eprintln!("skipped: SNAPFERRY_TEST_S3_ORDERED_LOG is not set; scripts/test sets it");
        return;
    };
    let (source, target) = (server.bucket("source"), server.bucket("target"));
    let content =
        Content((0..300).map(|n| (format!("key-{n:04}").into_bytes(), format!("content {n}").into_bytes())).collect());
    source.change(&Content::default(), &content);
    let skip = fs::read_to_string(&log).unwrap().len();
    let outcome = Lab::new().sync(source.url(), target.url(), "first", &[]).sealed();
    let log = fs::read_to_string(&log).unwrap().split_off(skip);

    // OWNER BUCKET [DAY TIME] ADDRESS REQUESTER ID OPERATION KEY …
    let count = |bucket: &str, operation: &str| {
        let asked = log.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        asked.filter(|f| f.len() > 8 && f[1] == bucket && f[7] == operation && !f[8].starts_with(".snapferry/")).count()
    };
    assert_eq!(count(&source.name, "s3_GetObject"), 300);
    assert_eq!(count(&target.name, "s3_PutObject"), 300);
    for bucket in [&source.name, &target.name] {
        assert_eq!(count(bucket, "s3_HeadObject"), 0);
    }
    assert!(outcome.count("requests") <= 640, "{}", outcome.report);
}
