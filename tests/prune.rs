//! Pruning real buckets: what is left restores byte for byte, what nobody needs is gone, also when it is killed.

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use harness::model::{Content, assert_equal};
use harness::ozone::{self, Layout};
use harness::s3::{Bucket, Server};
use harness::{Lab, tree};
use jiff::tz::TimeZone;
use snapferry::bucket::OpenOptions;
use snapferry::error::Side;
use snapferry::prune::{Context, Pruned, prune};
use snapferry::retention::Rules;
use snapferry::snapshot::clone::CloneMode;
use tokio_util::sync::CancellationToken;

const NIGHTS: usize = 6;

/// How many nights are kept.
const KEEP: usize = 3;

/// In the environment of a process that prunes: what.
const WORK: &str = "SNAPFERRY_TEST_PRUNES";

fn night(number: usize) -> String {
    format!("night-{number:03}")
}

fn servers() -> Vec<Server> {
    ["SNAPFERRY_TEST_S3", "SNAPFERRY_TEST_S3_ORDERED"].into_iter().filter_map(Server::from_environment).collect()
}

/// Prunes the bucket of a URL down to the last so many.
fn pruned(url: &str, side: Side, keep: usize, folder: &Path) -> Pruned {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options = OpenOptions { create: false, create_link: false, clone: CloneMode::Auto, folder: folder.into() };
        let bucket = snapferry::bucket::Bucket::open(url, &options).await.unwrap();
        let context = Context {
            pattern: "night-%j".parse().unwrap(),
            made: (1..=NIGHTS).map(|number| night(number).parse().unwrap()).collect(),
            base: None,
            now: jiff::Timestamp::now(),
            zone: TimeZone::UTC,
        };
        let rules = Rules { keep_last: Some(keep as u32), ..Rules::default() };
        prune(&bucket, side, &rules, &context, false, CancellationToken::new()).await.unwrap()
    })
}

/// A write: key, content, and the nights that saw it.
type Written = (String, Vec<u8>, BTreeSet<usize>);

/// Replicates night after night. Every content is written once only, so it names its version. The last night changes
/// nothing, and a while after the others: servers tell times in seconds.
fn nights(lab: &Lab, source: &Bucket, target: &Bucket) -> (Vec<Content>, Vec<Written>) {
    let (mut contents, mut written): (Vec<Content>, Vec<Written>) = (Vec::new(), Vec::new());
    let mut now = Content::default();
    for number in 1..=NIGHTS {
        if number == NIGHTS {
            std::thread::sleep(Duration::from_millis(2100));
        } else {
            let mut passing = now.clone();
            passing.0.insert(b"changes".to_vec(), format!("between nights {number}").into());
            passing.0.insert(b"passing".to_vec(), format!("seen by none {number}").into());
            let mut next = now.clone();
            next.0.insert(b"changes".to_vec(), format!("in night {number}").into());
            next.0.insert(format!("dir/of {number} & <more>").into_bytes(), format!("of {number}").into());
            next.0.remove(format!("dir/of {} & <more>", number - 1).as_bytes());
            match number % 2 {
                1 => next.0.insert(b"comes/and/goes".to_vec(), format!("night {number}").into()),
                _ => next.0.remove(&b"comes/and/goes"[..]),
            };
            for (before, after) in [(&now, &passing), (&passing, &next)] {
                source.change(before, after);
                for (key, data) in after.0.iter().filter(|(key, data)| before.0.get(*key) != Some(data)) {
                    written.push((String::from_utf8(key.clone()).unwrap(), data.clone(), BTreeSet::new()));
                }
            }
            now = next;
        }
        lab.sync(source.url(), target.url(), &night(number), &["--max-delete", "100%"]).sealed();
        for (key, data, seen) in &mut written {
            if now.0.get(key.as_bytes()) == Some(data) {
                seen.insert(number);
            }
        }
        contents.push(now.clone());
    }
    (contents, written)
}

/// How many versions with content each key has, and which keys have a delete marker; snapferry's own left out.
fn versions_by_key(bucket: &Bucket) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let (mut versions, mut markers) = (BTreeMap::new(), BTreeMap::new());
    for (key, _, _, marker) in bucket.every_version() {
        if !key.starts_with(".snapferry/") && !key.ends_with('/') {
            *if marker { &mut markers } else { &mut versions }.entry(key).or_insert(0) += 1;
        }
    }
    (versions, markers)
}

fn counts(written: &[Written], stays: impl Fn(&Written) -> bool) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for one in written.iter().filter(|one| stays(one)) {
        *counts.entry(one.0.clone()).or_insert(0) += 1;
    }
    counts
}

fn check_restores(lab: &Lab, url: &str, contents: &[Content]) {
    for number in NIGHTS - KEEP + 1..=NIGHTS {
        let restored = lab.restore(url, &night(number));
        assert_equal(tree::content(&restored), &contents[number - 1], &night(number));
        std::fs::remove_dir_all(restored).unwrap();
    }
}

#[test]
fn versions_that_nobody_needs_go() {
    for server in servers() {
        let lab = Lab::new();
        let (source, target) = (server.bucket("prune-source"), server.bucket("prune-target"));
        let (contents, written) = nights(&lab, &source, &target);
        let kept = |nights: &BTreeSet<usize>| nights.last().is_some_and(|last| *last > NIGHTS - KEEP);

        let own =
            |bucket: &Bucket| bucket.every_version().iter().filter(|one| one.0.starts_with(".snapferry/")).count();
        let before = own(&target);
        let done = pruned(&target.url(), Side::Target, KEEP, &lab.path(""));
        assert_eq!((done.removed.len(), &done.put_off), (NIGHTS - KEEP, &None), "{done}");
        // A restore writes its hold there.
        let after = own(&target);
        assert!(after < before, "{after} versions of its own documents, {before} before");
        check_restores(&lab, &target.url(), &contents);
        let (versions, markers) = versions_by_key(&target);
        assert_eq!(versions, counts(&written, |one| kept(&one.2)), "of the target");
        let removed = |key: &String| !contents[NIGHTS - 1].0.contains_key(key.as_bytes());
        let expected: BTreeMap<String, usize> =
            versions.keys().filter(|key| removed(key)).map(|key| (key.clone(), 1)).collect();
        assert_eq!(markers, expected, "of the target");

        let done = pruned(&source.url(), Side::Source, KEEP, &lab.path(""));
        assert_eq!((done.removed.len(), &done.put_off), (NIGHTS - KEEP, &None), "{done}");
        let expected = counts(&written, |one| kept(&one.2) || one.2.is_empty());
        assert_eq!(versions_by_key(&source).0, expected, "of the source");
        let removed = written.iter().filter(|one| !kept(&one.2) && !one.2.is_empty());
        assert_eq!(done.versions_removed as usize, removed.count());
        assert_equal(without_own(source.content()), &contents[NIGHTS - 1], "the source");
        check_restores(&lab, &source.url(), &contents);

        // Nothing is left to do, and the next night finds nothing strange.
        assert_eq!(pruned(&source.url(), Side::Source, KEEP, &lab.path("")).versions_removed, 0);
        let outcome = lab.sync(source.url(), target.url(), "after", &[]).sealed();
        assert_eq!((outcome.count("objects_copied"), outcome.count("drift")), (0, 0));
    }
}

fn without_own(content: Content) -> Content {
    Content(content.0.into_iter().filter(|(key, _)| !key.starts_with(b".snapferry/")).collect())
}

/// Does the work that another process of this test is started for, and is killed at.
#[test]
fn prunes_for_another_process() {
    let Ok(work) = std::env::var(WORK) else { return };
    let (url, side, keep, folder): (String, String, usize, String) = serde_json::from_str(&work).unwrap();
    let side = if side == "source" { Side::Source } else { Side::Target };
    assert_eq!(pruned(&url, side, keep, Path::new(&folder)).put_off, None);
}

fn start(url: &str, side: Side, lab: &Lab) -> Child {
    let folder = lab.path("");
    let work = serde_json::to_string(&(url, side.to_string(), KEEP, folder.to_str().unwrap())).unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "prunes_for_another_process"])
        .env(WORK, work)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills pruning at random moments until it comes to its end.
fn kill_until_done(url: &str, side: Side, lab: &Lab, mut check: impl FnMut()) {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut numbers = harness::Numbers(seed);
    for round in 1_u64.. {
        let (mut child, since) = (start(url, side, lab), Instant::now());
        let patience = Duration::from_millis(20 + numbers.below(40 * round) + 10 * round);
        while since.elapsed() < patience {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                println!("done in round {round}");
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        check();
        assert!(round < 200, "it never ends");
    }
}

#[test]
fn killed_on_a_directory() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    std::fs::create_dir(&source).unwrap();
    let mut contents = Vec::new();
    for number in 1..=NIGHTS {
        for file in 0..300 {
            tree::put(&source, format!("{}/{file}", file % 7).as_bytes(), format!("{file} of {number}").as_bytes());
        }
        lab.sync(source.as_os_str(), target.as_os_str(), &night(number), &[]).sealed();
        contents.push(tree::content(&source));
    }
    for (root, side) in [(&source, Side::Source), (&target, Side::Target)] {
        let url = root.to_str().unwrap();
        let listed = || {
            let list = lab.run(["snapshot", "list", url]).exits(0);
            let snapshots = list.report["snapshots"].as_array().unwrap();
            snapshots.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
        };
        kill_until_done(url, side, &lab, || {
            for name in listed() {
                let number: usize = name["night-".len()..].parse().unwrap();
                let tree = root.join(".snapshot").join(&name);
                assert_equal(tree::content(&tree), &contents[number - 1], &name);
            }
        });
        let kept: BTreeSet<String> = (NIGHTS - KEEP + 1..=NIGHTS).map(night).collect();
        assert_eq!(listed(), kept);
        let trees = std::fs::read_dir(root.join(".snapshot")).unwrap();
        let trees: BTreeSet<String> = trees.map(|tree| tree.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(trees, kept);
        check_restores(&lab, url, &contents);
    }
}

#[test]
fn killed_on_a_server() {
    for server in servers() {
        let lab = Lab::new();
        let (source, target) = (server.bucket("prune-killed-source"), server.bucket("prune-killed-target"));
        let (contents, written) = nights(&lab, &source, &target);
        let kept = |nights: &BTreeSet<usize>| nights.last().is_some_and(|last| *last > NIGHTS - KEEP);
        for (bucket, side) in [(&source, Side::Source), (&target, Side::Target)] {
            kill_until_done(&bucket.url(), side, &lab, || {});
            check_restores(&lab, &bucket.url(), &contents);
            let is_source = side == Side::Source;
            let expected = counts(&written, |one| kept(&one.2) || is_source && one.2.is_empty());
            assert_eq!(versions_by_key(bucket).0, expected, "of the {side}");
            assert!(bucket.content().0.keys().all(|key| !key.starts_with(b".snapferry/going/")));
        }
    }
}

/// A policy between two clusters: on both sides the store's own snapshots go, and those that are left read as before.
#[test]
fn a_policy_prunes_snapshots_of_ozone() {
    let Some((primary, dr)) = ozone::sites() else { return };
    let lab = Lab::new();
    let (source, target) =
        (primary.bucket("prune-source", Layout::Fso), dr.bucket("prune-target", Layout::Fso).linked());
    let config = lab.path("config.toml");
    let text = format!(
        "[policy.ozone]\nsource = \"{}\"\ntarget = \"{}\"\nsnapshot = \"night-%s\"\nretention = {{ keep_last = {KEEP} }}\n",
        source.url(),
        target.url()
    );
    fs::write(&config, text).unwrap();
    let policy = |words: &[&str]| {
        let mut arguments: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        arguments.extend([OsStr::new("--config"), config.as_os_str()]);
        lab.run(arguments).exits(0)
    };
    assert_eq!(policy(&["policy", "check"]).count("enabled"), 1);
    // One that somebody else made at the source is nobody's to prune.
    source.snapshot("by-hand");
    let (mut before, mut nights) = (Content::default(), Vec::new());
    for number in 1..=NIGHTS {
        let mut after = before.clone();
        after.0.insert(b"dir/changes".to_vec(), format!("in night {number}").into());
        after.0.insert(format!("dir/of-{number}").into_bytes(), format!("of {number}").into());
        source.change(&before, &after);
        nights.push(policy(&["run", "ozone"]).sealed().text("snapshot").to_owned());
        before = after;
        // Nights are named after the second here.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    let kept = nights.split_off(NIGHTS - KEEP);
    let mut left = [source.snapshots(), target.snapshots()];
    left[0].retain(|name| name != "by-hand");
    for left in &mut left {
        left.sort();
        assert_eq!(*left, kept);
    }
    assert!(source.snapshots().contains(&"by-hand".to_owned()));
    for name in &kept {
        ozone::assert_same_snapshot(&source, &target, name);
    }
    let outcome = lab.sync(source.url(), target.url(), "after", &[]).sealed();
    assert_eq!((outcome.text("base"), outcome.count("objects_copied")), (kept[KEEP - 1].as_str(), 0));
}
