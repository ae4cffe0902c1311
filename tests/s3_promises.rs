//! What the program promises of S3 buckets, tried on real servers by somebody who wants to see it break.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use harness::model::{Content, assert_equal};
use harness::s3::{Bucket, Server};
use harness::{Lab, Numbers, PROGRAM, tree};

/// The servers that hold versions.
fn servers() -> Vec<Server> {
    ["SNAPFERRY_TEST_S3", "SNAPFERRY_TEST_S3_ORDERED"].into_iter().filter_map(Server::from_environment).collect()
}

fn content(pairs: &[(&str, &str)]) -> Content {
    Content(pairs.iter().map(|(key, data)| (key.as_bytes().to_vec(), data.as_bytes().to_vec())).collect())
}

/// Fills a new bucket.
fn filled(bucket: Bucket, pairs: &[(&str, &str)]) -> Bucket {
    bucket.change(&Content::default(), &content(pairs));
    bucket
}

#[test]
fn a_target_without_versions_is_refused_unless_that_is_accepted() {
    for server in servers() {
        let lab = Lab::new();
        let source =
            filled(server.bucket("source"), &[("a", "was a"), ("b", "was b"), ("d/x", "moves"), ("e", "goes")]);
        let target = server.unversioned("plain");
        lab.sync(source.url(), target.url(), "one", &[]).exits(3).says("--allow-unversioned");
        assert_eq!(target.content(), Content::default(), "touched");

        let accept = ["--allow-unversioned"];
        lab.sync(source.url(), target.url(), "one", &accept).sealed();
        // Two names swapped, one renamed, one deleted, one new: nothing may be overwritten before it was copied.
        let before = content(&[("a", "was a"), ("b", "was b"), ("d/x", "moves"), ("e", "goes")]);
        let after = content(&[("a", "was b"), ("b", "was a"), ("d/y", "moves"), ("new", "new")]);
        source.change(&before, &after);
        let outcome = lab.sync(source.url(), target.url(), "two", &accept).sealed();
        assert_eq!(outcome.text("base"), "one");
        assert_equal(target.content(), &after, "the target");
        let list = lab.run(["snapshot", "list", &target.url()]).exits(0);
        let names: Vec<_> = list.report["snapshots"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["two"], "a snapshot that nothing keeps is still listed");
        let restored = lab.restore(target.url(), "two");
        assert_equal(tree::content(&restored), &after, "restored");
    }
}

#[test]
fn a_source_without_versions_is_guarded() {
    for server in servers() {
        let lab = Lab::new();
        let source = filled(server.unversioned("plain"), &[("a", "first"), ("b", "stays")]);
        let target = lab.path("target");
        lab.sync(source.url(), &target, "one", &[]).sealed();
        source.change(&content(&[("a", "first")]), &content(&[("a", "second")]));
        // What the source had in `one` is gone there, and that is said; the target still has it.
        let verify =
            ["verify".into(), source.url(), target.to_str().unwrap().into(), "--snapshot".into(), "one".into()];
        lab.run(verify).exits(4).says("`a`").says("source");
        let outcome = lab.sync(source.url(), &target, "two", &[]).sealed();
        assert_eq!((outcome.text("base"), outcome.count("objects_copied")), ("one", 1), "{}", outcome.report);
        let expected = content(&[("a", "second"), ("b", "stays")]);
        assert_equal(tree::content(&target), &expected, "the target");
        assert_equal(tree::content(&lab.restore(&target, "one")), &content(&[("a", "first"), ("b", "stays")]), "one");
    }
}

#[test]
fn a_bucket_that_cannot_be_written_is_a_source_all_the_same() {
    for server in servers() {
        let lab = Lab::new();
        let source = filled(server.bucket("source"), &[("a", "a"), ("d/b", "b")]);
        let (url, target) = (source.published(), lab.path("target"));
        let before = source.versions();
        lab.sync(&url, &target, "one", &[]).sealed();
        assert_eq!(source.versions(), before, "the source was written to");
        source.change(&Content::default(), &content(&[("c", "c")]));
        let outcome = lab.sync(&url, &target, "two", &[]).sealed();
        assert_eq!((outcome.text("base"), outcome.count("objects_copied")), ("one", 1), "{}", outcome.report);
        lab.verify(&url, &target, "one");
    }
}

/// Only where who may not write the bucket may still ask whether it keeps versions; else nothing keeps a snapshot.
#[test]
fn the_snapshots_of_a_bucket_that_cannot_be_written_can_serve_several_targets() {
    let Some(server) = Server::from_environment("SNAPFERRY_TEST_S3_ORDERED") else { return };
    let lab = Lab::new();
    let before = content(&[("a", "a"), ("d/b", "b")]);
    let source = server.bucket("source");
    source.change(&Content::default(), &before);
    let (url, catalog, versions) = (source.published(), lab.path("catalog"), source.versions());
    let catalog = ["--catalog", catalog.to_str().unwrap()];
    lab.sync(&url, lab.path("one"), "night", &catalog).sealed();
    assert_eq!(source.versions(), versions, "the source was written to");
    source.change(&before, &content(&[("a", "changed")]));
    lab.sync(&url, lab.path("two"), "night", &catalog).sealed();
    assert_equal(tree::content(&lab.path("two")), &before, "the second target's snapshot of the same name");
}

/// Writes a large object over and over while it is read: pinned again and named, or an error with `--strict`.
#[test]
fn an_object_that_changes_while_it_is_read_is_never_mixed() {
    let Some(server) = Server::from_environment("SNAPFERRY_TEST_S3_ORDERED") else { return };
    let mut numbers = Numbers(11);
    let (old, new) = (numbers.bytes(LARGE), numbers.bytes(LARGE));
    for strict in [false, true] {
        let lab = Lab::new();
        let source = server.unversioned("plain");
        source.put("large", &old, "{}");
        let target = lab.path("target");
        let mut sync = Command::new(PROGRAM);
        sync.args(["sync", &source.url()]).arg(&target).args(["--snapshot", "one", "--json"]);
        // Only two parts at a time, so that most are read after the change.
        sync.args(["--bandwidth", "8M", "--memory", "32MiB"]);
        sync.arg("--state-dir").arg(lab.path("state")).args(strict.then_some("--strict"));
        let child = sync.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(600));
        source.put("large", &new, "{}");
        let output = child.wait_with_output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        if strict {
            assert_eq!(output.status.code(), Some(1), "{report}");
            assert!(report["error"]["message"].as_str().unwrap().contains("`large`"), "{report}");
            assert!(!target.join("large").exists());
        } else {
            assert_eq!((output.status.code(), &report["repinned"]), (Some(0), &1.into()), "{report}");
            assert_eq!(report["repinned_keys"][0], "large", "{report}");
            assert!(fs::read(target.join("large")).unwrap() == new, "a mix of two states");
        }
    }
}

#[test]
fn drift_is_named_and_repaired_and_yesterday_stays_restorable() {
    for server in servers() {
        let lab = Lab::new();
        let source = lab.path("source");
        let target = server.bucket("target");
        let good = content(&[("a", "aaa"), ("b", "bbb"), ("c", "ccc"), ("d", "ddd")]);
        for (key, data) in &good.0 {
            tree::put(&source, key, data);
        }
        lab.sync(&source, target.url(), "one", &[]).sealed();
        // Changed, removed, added, and a newer version with the very same content.
        target.put("a", b"zzz", "{}");
        target.put("new", b"new", "{}");
        target.put("d", b"ddd", "{}");
        target.change(&content(&[("b", "bbb")]), &Content::default());
        let outcome = lab.sync(&source, target.url(), "two", &[]).exits(3);
        let drift: Vec<_> = outcome.report["drift_keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|drift| format!("{} {}", drift["key"].as_str().unwrap(), drift["how"].as_str().unwrap()))
            .collect();
        // The same content again is no drift: the version that the snapshot names is still there.
        assert_eq!(drift, ["a changed", "b removed", "new added"]);

        let outcome = lab.sync(&source, target.url(), "two", &["--on-drift", "repair"]).sealed();
        assert_eq!(outcome.count("bytes_copied"), 6, "only what was wrong had to be copied: {}", outcome.report);
        assert_equal(target.content(), &good, "repaired");
        assert_equal(tree::content(&lab.restore(target.url(), "one")), &good, "yesterday");
        lab.verify(&source, target.url(), "one");

        target.lose("c");
        let verify =
            ["verify".into(), source.to_str().unwrap().into(), target.url(), "--snapshot".into(), "two".to_owned()];
        lab.run(verify).exits(4).says("`c`").says("missing");
    }
}

#[test]
fn buckets_that_lie_in_each_other_are_refused() {
    for server in servers() {
        let lab = Lab::new();
        let bucket = filled(server.bucket("nested"), &[("p/x", "x"), ("pq/y", "y")]);
        let before = bucket.versions();
        for (from, to) in [("", ""), ("", "p"), ("p", ""), ("p", "p/"), ("p", "p/q/r"), ("p/q", "p")] {
            let (from, to) = (bucket.url_of_prefix(from), bucket.url_of_prefix(to));
            lab.sync(&from, &to, "one", &[]).exits(2).says("in each other");
        }
        assert_eq!(bucket.versions(), before, "touched");

        // Beside each other they are strangers; and what each keeps for itself is no content of the whole bucket.
        lab.sync(bucket.url_of_prefix("p"), bucket.url_of_prefix("p-copy"), "one", &[]).sealed();
        let inside = bucket.url_of_prefix("p-copy/inside");
        lab.run(["restore", &bucket.url_of_prefix("p-copy"), "--snapshot", "one", &inside]).exits(2);
        let target = lab.path("target");
        lab.sync(bucket.url(), &target, "all", &[]).sealed();
        let expected = content(&[("p/x", "x"), ("pq/y", "y"), ("p-copy/x", "x")]);
        assert_equal(tree::content(&target), &expected, "the whole bucket");
    }
}

#[test]
fn a_lease_of_another_machine_holds_until_it_has_run_out() {
    for server in servers() {
        let lab = Lab::new();
        let source = lab.path("source");
        tree::put(&source, b"a", b"content");
        let target = server.bucket("target");
        lab.sync(&source, target.url(), "one", &[]).sealed();
        let lease = |year: u32| {
            format!(
                r#"{{"token":7,"holder":{{"host":"elsewhere","boot":"b","pid":1,"started":1,"job":"their-job"}},
                    "expires":"{year}-01-01T00:00:00Z"}}"#
            )
        };
        target.put(".snapferry/lease.json", lease(2100).as_bytes(), "{}");
        let before = target.versions();
        lab.sync(&source, target.url(), "two", &[]).exits(3).says("elsewhere").says("their-job");
        assert_eq!(target.versions(), before, "touched");
        target.put(".snapferry/lease.json", lease(2001).as_bytes(), "{}");
        lab.sync(&source, target.url(), "two", &[]).sealed();
        let document = &target.content().0[b".snapferry/lease.json".as_slice()];
        let document: serde_json::Value = serde_json::from_slice(document).unwrap();
        assert_eq!(document["token"], 8, "the fencing token must rise: {document}");
    }
}

#[test]
fn what_travels_with_an_object_survives_a_directory() {
    for server in servers() {
        let lab = Lab::new();
        let (source, back) = (server.bucket("source"), server.bucket("back"));
        source.put(
            "o",
            b"content",
            r#"{"ContentType": "text/x-y", "CacheControl": "no-store", "Metadata": {"k": "v"}}"#,
        );
        let before = source.head("o");
        let directory = lab.path("directory");
        lab.sync(source.url(), &directory, "one", &[]).sealed();
        let restore = ["restore", directory.to_str().unwrap(), "--snapshot", "one", &back.url()];
        lab.run(restore).exits(0);
        let after = back.head("o");
        for field in ["ContentType", "CacheControl"] {
            assert_eq!(after[field], before[field], "{after}");
        }
        assert_eq!(after["Metadata"]["k"], "v", "{after}");
        assert_equal(back.content(), &content(&[("o", "content")]), "nothing of the job stays");
        assert!(back.content().0.keys().all(|key| !key.starts_with(b".snapferry/")), "something of ours was left");
    }
}

#[test]
fn modes_and_times_survive_a_bucket_and_a_prefix_is_enough_for_disaster_recovery() {
    for server in servers() {
        let lab = Lab::new();
        let (source, kept) = (lab.path("source"), lab.path("kept"));
        for root in [&source, &kept] {
            tree::put(root, b"x", b"run me");
            tree::put(root, b"d/e/y", b"secret");
            fs::create_dir_all(root.join("hollow")).unwrap();
            tree::dress(root);
            for (path, mode) in [("x", 0o751), ("d/e/y", 0o400)] {
                fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
                let time = SystemTime::UNIX_EPOCH + Duration::new(981_173_106, 789_012_345);
                fs::File::open(root.join(path)).unwrap().set_modified(time).unwrap();
            }
        }
        let target = server.bucket("target");
        lab.sync(&source, target.url_of_prefix("dr/site"), "one", &[]).sealed();
        fs::remove_dir_all(&source).unwrap();
        // Another machine, the source gone.
        let restored = Lab::new();
        let restored_at = restored.restore(target.url_of_prefix("dr/site"), "one");
        for path in ["x", "d/e/y"] {
            let (a, b) = (fs::metadata(kept.join(path)).unwrap(), fs::metadata(restored_at.join(path)).unwrap());
            assert_eq!((a.mode(), a.mtime(), a.mtime_nsec()), (b.mode(), b.mtime(), b.mtime_nsec()), "{path}");
        }
        tree::assert_same(&kept, &restored_at);
    }
}

#[test]
fn names_that_are_no_text_are_refused_by_name_before_anything_is_touched() {
    for server in servers() {
        let lab = Lab::new();
        let source = lab.path("source");
        tree::put(&source, b"plain", b"plain");
        tree::put(&source, b"d/\xff\xfe", b"not UTF-8");
        let target = server.bucket("target");
        lab.sync(&source, target.url(), "one", &[]).exits(3).says(r"d/\xff\xfe");
        assert!(target.content().0.keys().all(|key| key.starts_with(b".snapferry/")), "touched");
    }
}

#[test]
fn the_past_of_a_bucket_can_be_taken() {
    let Some(server) = Server::from_environment("SNAPFERRY_TEST_S3") else { return };
    let lab = Lab::new();
    let was = content(&[("a", "old"), ("gone", "gone")]);
    let source = server.bucket("source");
    source.change(&Content::default(), &was);
    // The server's clock has seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let moment = jiff::Timestamp::now().to_string();
    std::thread::sleep(Duration::from_millis(1100));
    source.change(&was, &content(&[("a", "new"), ("came", "came")]));
    lab.run(["snapshot", "create", &source.url(), "was", "--as-of", &moment]).exits(0);
    lab.run(["snapshot", "hold", &source.url(), "was"]).exits(0);
    lab.run(["snapshot", "delete", &source.url(), "was"]).exits(3).says("release");
    let target = lab.path("target");
    lab.sync(source.url(), &target, "was", &[]).sealed();
    assert_equal(tree::content(&target), &was, "the target");
    lab.run(["snapshot", "release", &source.url(), "was"]).exits(0);
    lab.run(["snapshot", "delete", &source.url(), "was"]).exits(0);
}

#[test]
fn a_snapshot_on_the_target_can_be_deleted() {
    for server in servers() {
        let lab = Lab::new();
        let (source, target) = (lab.path("source"), server.bucket("target"));
        for name in ["one", "two", "three"] {
            tree::put(&source, b"d/a", name.as_bytes());
            lab.sync(&source, target.url(), name, &[]).sealed();
        }
        lab.run(["snapshot", "delete", &target.url(), "one"]).exits(0);
        let list = lab.run(["snapshot", "list", &target.url()]).exits(0);
        let names: Vec<_> = list.report["snapshots"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["three", "two"]);
        assert_equal(tree::content(&lab.restore(target.url(), "two")), &content(&[("d/a", "two")]), "two");
    }
}

const SMALL: usize = 200;
const LARGE: usize = 64 << 20;
/// Parts that may have landed without their acknowledgement having been seen when the process died: of each of the two
/// large objects the first one asked for and, with `--concurrency 2`, two more.
const IN_FLIGHT: u64 = 2 * 3 * (8 << 20);

fn start(lab: &Lab, source: &str, target: &str, state: &str) -> Child {
    Command::new(PROGRAM)
        .args(["sync", source, target, "--snapshot", "night", "--json", "--bandwidth", "48M", "--concurrency", "2"])
        .arg("--state-dir")
        .arg(lab.path(state))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills syncs at random moments, then runs one to its end, which must not copy again what `landed` says is there.
fn kill_and_converge(lab: &Lab, source: &str, target: &str, forget: bool, landed: impl Fn() -> u64) {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    eprintln!("seed {seed:#x}");
    let mut numbers = Numbers(seed);
    let mut killed = 0;
    for _ in 0..5 {
        let mut child = start(lab, source, target, "state");
        std::thread::sleep(Duration::from_millis(200 + numbers.below(1500)));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        if forget {
            let _ = fs::remove_dir_all(lab.path("state"));
        }
    }
    assert!(killed > 0, "every run was over before it could be killed");
    let there = landed();
    let outcome = lab.sync(source, target, "night", &[]).sealed();
    let (copied, total) = (outcome.count("bytes_copied"), outcome.count("bytes"));
    eprintln!("killed {killed} runs; {there} of {total} bytes had landed, {copied} were copied by the last");
    // A part that a server was still taking when its sender died may show beside the object that it is in.
    assert!(
        copied <= total.saturating_sub(there) + IN_FLIGHT,
        "of {total} bytes {there} had landed, but {copied} were copied"
    );
    lab.verify(source, target, "night");
}

fn build(source: &Path) -> Content {
    let mut numbers = Numbers(7);
    for n in 0..SMALL {
        tree::put(source, format!("d{}/{n}", n % 7).as_bytes(), &numbers.bytes(2000));
    }
    for name in ["large-1", "large-2"] {
        tree::put(source, name.as_bytes(), &numbers.bytes(LARGE));
    }
    tree::content(source)
}

#[test]
fn killed_runs_to_a_bucket_converge_and_leave_no_upload_open() {
    for server in servers() {
        let lab = Lab::new();
        let source = lab.path("source");
        let expected = build(&source);
        for forget in [false, true] {
            let target = server.bucket("target");
            // Without its memory a run compares objects, but knows nothing of the parts of uploads.
            let landed = || if forget { 0 } else { target.landed() };
            kill_and_converge(&lab, source.to_str().unwrap(), &target.url(), forget, landed);
            assert_equal(target.content(), &expected, "the target");
            assert_eq!(target.uploads(), 0, "uploads were left open");
        }
    }
}

#[test]
fn killed_runs_from_a_bucket_converge() {
    let Some(server) = Server::from_environment("SNAPFERRY_TEST_S3_ORDERED") else { return };
    let lab = Lab::new();
    let expected = build(&lab.path("made"));
    let source = server.bucket("source");
    source.change(&Content::default(), &expected.clone().canonical());
    for forget in [false, true] {
        let (bucket, directory) = (server.bucket("target"), lab.path(&format!("directory-{forget}")));
        let landed = || if forget { 0 } else { bucket.landed() };
        kill_and_converge(&lab, &source.url(), &bucket.url(), forget, landed);
        assert_equal(bucket.content(), &expected, "the target bucket");
        kill_and_converge(&lab, &source.url(), directory.to_str().unwrap(), forget, || 0);
        assert_equal(tree::content(&directory), &expected, "the target directory");
    }
}

#[test]
fn what_had_landed_before_a_kill_is_not_copied_again() {
    for server in servers() {
        let lab = Lab::new();
        let source = lab.path("source");
        let total: u64 = build(&source).0.values().map(|data| data.len() as u64).sum();
        let target = server.bucket("target");
        // Slow enough to be killed between the two large objects, fast enough to have landed some parts.
        let mut child = Command::new(PROGRAM)
            .args(["sync", source.to_str().unwrap(), &target.url(), "--snapshot", "night", "--bandwidth", "24M"])
            .args(["--concurrency", "2", "--state-dir"])
            .arg(lab.path("state"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(3300));
        assert!(child.try_wait().unwrap().is_none(), "the run was over before it could be killed");
        child.kill().unwrap();
        child.wait().unwrap();
        let there = target.landed();
        let outcome = lab.sync(&source, target.url(), "night", &[]).sealed();
        let copied = outcome.count("bytes_copied");
        eprintln!("{there} of {total} bytes had landed, {copied} were copied");
        assert!(there > 0, "nothing had landed");
        // A part that a server was still taking when its sender died may show beside the object that it is in.
        assert!(
            copied <= total.saturating_sub(there) + IN_FLIGHT,
            "of {total} bytes {there} had landed, but {copied} were copied"
        );
        assert_eq!(target.uploads(), 0, "uploads were left open");
    }
}

#[test]
fn a_killed_restore_goes_on() {
    let Some(server) = Server::from_environment("SNAPFERRY_TEST_S3_ORDERED") else { return };
    let lab = Lab::new();
    let source = lab.path("source");
    let expected = build(&source);
    let target = server.bucket("target");
    lab.sync(&source, target.url(), "one", &[]).sealed();
    let back = server.bucket("back");
    for to in [lab.path("to").to_str().unwrap().to_owned(), back.url()] {
        let arguments = ["restore", &target.url(), &to, "--snapshot", "one"];
        let mut child = Command::new(PROGRAM)
            .args(arguments)
            .args(["--bandwidth", "48M", "--state-dir"])
            .arg(lab.path("state"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        assert!(child.try_wait().unwrap().is_none(), "the restore was over before it could be killed");
        child.kill().unwrap();
        child.wait().unwrap();
        let outcome = lab.run(arguments).exits(0);
        assert!(outcome.count("bytes_copied") < 2 * LARGE as u64, "all was copied again: {}", outcome.report);
    }
    assert_equal(tree::content(&lab.path("to")), &expected, "the directory");
    assert_equal(back.content(), &expected, "the bucket");
    assert_eq!(back.uploads(), 0);
}
