//! What the program promises of Ozone's buckets, tried on two real clusters by somebody who wants to see it break.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::time::{Duration, SystemTime};

use harness::model::{Content, Step};
use harness::ozone::{
    Bucket, Cluster, Layout, Object, OwnCluster, assert_holds, assert_replica, assert_same_snapshot, replica, sites,
};
use harness::{Lab, Numbers, Outcome, s3};

const LAYOUTS: [Layout; 2] = [Layout::Fso, Layout::Obs];

fn content(pairs: &[(&str, &str)]) -> Content {
    Content(pairs.iter().map(|(key, data)| (key.as_bytes().to_vec(), data.as_bytes().to_vec())).collect())
}

/// Fills a new bucket.
fn filled(bucket: Bucket, pairs: &[(&str, &str)]) -> Bucket {
    bucket.change(&Content::default(), &content(pairs));
    bucket
}

const SMALL: u64 = 2000;
const SMALL_COUNT: u64 = 120;
const LARGE: u64 = 20 << 20;
/// Small objects that may have landed without a trace when the process died. Parts do not count as landed here.
const IN_FLIGHT: u64 = 1 << 20;

/// Bytes of content that have landed whole, in place or staged.
fn landed(target: &Bucket) -> u64 {
    let counts = |key: &[u8]| !key.starts_with(b".snapferry/") || key.starts_with(b".snapferry/staging/");
    let sizes = target.content().into_iter().filter(|(key, _)| counts(key)).map(|(_, object)| match object {
        Object::File { size, .. } => size,
        Object::Directory => 0,
    });
    sizes.sum()
}

/// What a run goes through, as its log says it, and how long in milliseconds it may be let go on from there.
const PHASES: [(&str, u64); 6] =
    [("SNAPSHOTTING", 200), ("PLANNING", 50), ("COPYING", 400), ("COPYING", 1500), ("PROVING", 50), ("SEALING", 60)];

/// Kills a sync of `name` in each of its phases, then runs one to its end.
fn kill_and_converge(lab: &Lab, source: &Bucket, target: &Bucket, name: &str, forget: bool) -> (u64, Outcome) {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    eprintln!("seed {seed:#x}");
    let mut numbers = Numbers(seed);
    let mut killed = 0;
    for (phase, more) in PHASES {
        let (from, to) = (source.url(), target.url());
        let arguments = ["sync", &from, &to, "--snapshot", name, "--bandwidth", "32M", "--concurrency", "4"];
        let Some((mut child, _log)) = lab.until(&arguments, phase) else { break };
        std::thread::sleep(Duration::from_millis(numbers.below(more)));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        eprintln!("killed in `{phase}`");
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        // Not sealed, or sealed and whole: never a snapshot in part.
        if target.snapshots().iter().any(|sealed| sealed == name) {
            assert_same_snapshot(source, target, name);
        }
        if forget {
            let _ = fs::remove_dir_all(lab.path("state"));
        }
    }
    let there = landed(target);
    let outcome = lab.sync(source.url(), target.url(), name, &[]).sealed();
    eprintln!("killed {killed} runs; {there} bytes had landed, {} were copied", outcome.count("bytes_copied"));
    assert!(killed >= 3, "the runs were over before they could be killed");
    assert_same_snapshot(source, target, name);
    assert_replica(&replica(target.content_of_snapshot(name)), &replica(target.content()), "the target");
    let staged = target.content().into_keys().filter(|key| key.starts_with(b".snapferry/staging/")).count();
    assert!(staged <= 1, "{staged} staged objects were left behind");
    (there, outcome)
}

fn killed_runs_converge(layout: Layout, forget: bool) {
    let Some((primary, other)) = sites() else { return };
    let lab = Lab::new();
    let (source, target) = (primary.bucket("killed", layout), other.bucket("killed", layout).linked());
    let mut numbers = Numbers(7);
    for directory in 0..6 {
        let count = (SMALL_COUNT / 6).to_string();
        source.call("fill", &[&format!("d{directory}/"), &count, &SMALL.to_string(), &directory.to_string()]);
    }
    for name in ["large-1", "large-2"] {
        source.put(name, &numbers.bytes(LARGE as usize));
    }
    let (there, outcome) = kill_and_converge(&lab, &source, &target, "one", forget);
    let (copied, total) = (outcome.count("bytes_copied"), SMALL * SMALL_COUNT + 2 * LARGE);
    assert!(
        copied <= total - there.min(total) + IN_FLIGHT,
        "{there} of {total} bytes had landed, {copied} were copied"
    );

    // Now with a base: renames, swaps and deletes may be half done when it dies.
    let directory = |from, to| source.apply(&Step::Rename(from, to));
    directory("d0/", "held/");
    directory("d1/", "d0/");
    directory("held/", "d1/");
    directory("d2/", "moved/");
    source.apply(&Step::Delete("d3/"));
    source.apply(&Step::Rename("large-1", "large-3"));
    source.put("large-2", &numbers.bytes(LARGE as usize));
    source.call("fill", &["d4/", "10", "3000", "99"]);
    source.call("fill", &["new/", "10", "3000", "98"]);
    let (_, outcome) = kill_and_converge(&lab, &source, &target, "two", forget);
    let changed = LARGE + 20 * 3000;
    assert!(outcome.count("bytes_copied") <= changed, "renames were copied: {}", outcome.report);
    assert_same_snapshot(&source, &target, "one");
}

#[test]
fn killed_runs_converge_with_directories() {
    killed_runs_converge(Layout::Fso, false);
}

#[test]
fn killed_runs_converge_on_flat_keys() {
    killed_runs_converge(Layout::Obs, false);
}

#[test]
fn killed_runs_that_lost_their_memory_converge_with_directories() {
    killed_runs_converge(Layout::Fso, true);
}

#[test]
fn killed_runs_that_lost_their_memory_converge_on_flat_keys() {
    killed_runs_converge(Layout::Obs, true);
}

#[test]
fn drift_is_named_and_repaired_at_the_cost_of_the_difference() {
    let Some((primary, other)) = sites() else { return };
    let good = [
        ("a", "over S3"),
        ("b", "replaced"),
        ("c", "deleted"),
        ("d/old", "renamed"),
        ("e", "tagged"),
        ("f", "in place"),
        ("g/h", "in place, too"),
    ];
    for layout in LAYOUTS {
        let lab = Lab::new();
        let source = filled(primary.bucket("drift", layout), &good);
        let target = other.bucket("drift", layout).linked();
        lab.sync(source.url(), target.url(), "one", &[]).sealed();
        let gateway = s3::Bucket::at(&target.s3_url());
        gateway.put("a", b"OVER s3", "{}");
        gateway.put("s3/new", b"new", "{}");
        // Deleted and created, with the very same length.
        target.replace("b", b"REPLACED");
        target.apply(&Step::Delete("c"));
        target.apply(&Step::Rename("d/old", "d/new"));
        target.call("tag", &["e", r#"{"somebody": "else"}"#]);
        let before = replica(target.content());

        source.put("f", b"changed at the source");
        let outcome = lab.sync(source.url(), target.url(), "two", &[]).exits(3).says("--on-drift repair");
        assert_eq!(outcome.text("state"), "refused");
        let drift: Vec<_> = outcome.report["drift_keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|drift| format!("{} {}", drift["key"].as_str().unwrap(), drift["how"].as_str().unwrap()))
            .filter(|drift| drift != "s3/ added")
            .collect();
        let named =
            ["a changed", "b changed", "c removed", "d/new added", "d/old removed", "e changed", "s3/new added"];
        assert_eq!(drift, named, "{layout:?}");
        assert_replica(&before, &replica(target.content()), "the refusing target");
        assert_eq!(target.snapshots(), ["one"]);

        let outcome = lab.sync(source.url(), target.url(), "two", &["--on-drift", "repair"]).sealed();
        // a, b, c, d/old and f; e costs as much as Ozone makes it cost.
        let wrong = 7 + 8 + 7 + 7 + 21;
        assert!([wrong, wrong + 6].contains(&outcome.count("bytes_copied")), "{layout:?}: {}", outcome.report);
        assert_same_snapshot(&source, &target, "two");
        assert_same_snapshot(&source, &target, "one");
    }
}

#[test]
fn a_base_that_was_deleted_costs_a_comparison() {
    let Some((primary, other)) = sites() else { return };
    for layout in LAYOUTS {
        let lab = Lab::new();
        let pairs = [("a", "a"), ("d/b", "b"), ("d/c", "c"), ("e", "e")];
        let source = filled(primary.bucket("base", layout), &pairs);
        source.call("tag", &["e", r#"{"day": "zero"}"#]);
        let target = other.bucket("base", layout).linked();
        lab.sync(source.url(), target.url(), "day-0", &[]).sealed();
        let mut day = 0;
        let mut next = |diff: &str, more: &[&str], copied: u64| {
            day += 1;
            let name = format!("day-{day}");
            source.put("a", format!("a of day {day}").as_bytes());
            let outcome = lab.sync(source.url(), target.url(), &name, more).sealed();
            assert_eq!(outcome.text("diff"), diff, "{layout:?} {name}: {}", outcome.report);
            assert_eq!(outcome.count("objects_copied"), copied, "{layout:?} {name}: {}", outcome.report);
            assert_same_snapshot(&source, &target, &name);
        };
        next("native", &[], 1);
        source.call("drop", &["day-1"]);
        next("listing", &[], 1);
        target.call("drop", &["day-2"]);
        next("native", &[], 1);
        for side in [&source, &target] {
            side.call("drop", &["day-3"]);
        }
        next("listing", &[], 1);

        // Nothing is known of the target any more: what it holds is compared, not copied.
        for key in target.content().into_keys().filter(|key| key.starts_with(b".snapferry/") && !key.ends_with(b"/")) {
            target.call("delete", &[std::str::from_utf8(&key).unwrap()]);
        }
        source.call("tag", &["e", r#"{"day": "five"}"#]);
        lab.sync(source.url(), target.url(), "day-5", &[]).exits(3).says("no seal vouches for");
        // That took the snapshot: `a` is as it was, and only the tags of `e` are wrong on the target.
        next("listing", &["--on-drift", "repair"], 1);
        assert_same_snapshot(&source, &target, "day-0");
    }
}

#[test]
fn a_snapshot_that_is_not_ours_is_no_seal() {
    let Some((primary, other)) = sites() else { return };
    for layout in LAYOUTS {
        let lab = Lab::new();
        let source = filled(primary.bucket("name", layout), &[("a", "a")]);
        let target = other.bucket("name", layout).linked();
        lab.sync(source.url(), target.url(), "one", &[]).sealed();
        target.snapshot("two");
        source.put("a", b"second");
        lab.sync(source.url(), target.url(), "two", &[]).exits(3).says("two of its own already").says("another name");
        assert_holds(target.content(), &content(&[("a", "a")]), "the refusing target");
        lab.sync(source.url(), target.url(), "three", &[]).sealed();

        // Deleted by hand: it is not sealed any more.
        target.call("drop", &["three"]);
        let list = lab.run(["snapshot", "list", &target.url()]).exits(0);
        let names: Vec<_> = list.report["snapshots"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert!(!names.contains(&&"three".into()), "{}", list.report);
        // Ozone keeps the name until it has purged the snapshot, which takes a minute or so.
        let outcome = lab.sync(source.url(), target.url(), "three", &[]);
        assert_eq!(outcome.count("objects_copied"), 0, "{}", outcome.report);
        match outcome.code {
            0 => assert_same_snapshot(&source, &target, "three"),
            _ => drop(outcome.exits(1).says("purged")),
        }
        lab.sync(source.url(), target.url(), "four", &[]).sealed();
        assert_same_snapshot(&source, &target, "four");
    }
}

#[test]
fn what_is_not_there_is_named() {
    let Some((primary, other)) = sites() else { return };
    let lab = Lab::new();
    let source = filled(primary.bucket("errors", Layout::Obs), &[("a", "a")]);
    let target = other.bucket("errors", Layout::Obs).linked();
    let wrong = |url: &str, old: &str, new: &str| {
        assert!(url.contains(old), "{url}");
        url.replacen(old, new, 1)
    };
    let bucket = format!("/{}", source.name);
    let volume = wrong(&source.url(), "/vol1/", "/vol9/");
    lab.sync(volume, target.url(), "one", &[]).exits(1).says("VOLUME_NOT_FOUND").says("create the volume");
    let nowhere = wrong(&source.url(), &bucket, "/no-such-bucket");
    lab.sync(&nowhere, target.url(), "one", &[]).exits(1).says("no-such-bucket").says("create the bucket");
    lab.sync(source.url(), wrong(&target.url(), &target.name, "no-such-bucket"), "one", &[]).exits(1).says("target");
    lab.run(["snapshot", "list", &nowhere]).exits(1).says("BUCKET_NOT_FOUND");
    let begin = std::time::Instant::now();
    let port = target.url().split_once("grpc=").unwrap().1.split('&').next().unwrap().to_owned();
    let deaf = wrong(&target.url(), &format!("grpc={port}"), "grpc=9");
    lab.sync(source.url(), &deaf, "one", &[]).exits(1).says("target").says("no Ozone Manager answers").says("grpc=");
    eprintln!("nobody there: {:?}", begin.elapsed());
    let gateway = target.url().split_once("s3=").unwrap().1.to_owned();
    let begin = std::time::Instant::now();
    let mute = wrong(&target.url(), &gateway, "http://127.0.0.1:9");
    lab.sync(source.url(), &mute, "one", &[]).exits(1).says("S3 Gateway").says("127.0.0.1:9").says("?s3=");
    eprintln!("no gateway: {:?}", begin.elapsed());
    assert!(target.content().is_empty() && target.snapshots().is_empty(), "touched");
    lab.sync(source.url(), target.url(), "one", &[]).sealed();
}

#[test]
fn a_bucket_that_the_gateway_does_not_serve_is_refused_with_the_way_out() {
    let Some((primary, other)) = sites() else { return };
    for layout in LAYOUTS {
        let lab = Lab::new();
        let source = filled(primary.bucket("unlinked", layout), &[("a", "a"), ("d/b", "b")]);
        let target = other.bucket("unlinked", layout);
        lab.sync(source.url(), target.url(), "one", &[]).exits(2).says("--create-link").says("ozone sh bucket link");
        assert!(target.content().is_empty());
        lab.sync(source.url(), target.url(), "one", &["--create-link"]).sealed();
        // From now on it is found.
        lab.sync(source.url(), target.url(), "two", &[]).sealed();
        assert_same_snapshot(&source, &target, "two");
        let target = other.bucket("unlinked", layout).linked();
        let named = format!("{}&s3-bucket={}", target.url(), target.name);
        lab.sync(source.url(), named, "two", &[]).sealed();
        assert_same_snapshot(&source, &target, "two");
        // A restore writes as a sync does, and needs one as well; what is only read needs none.
        let back = primary.bucket("unlinked", layout);
        let restore = ["restore", &target.url(), &back.url(), "--snapshot", "two"];
        lab.run(restore).exits(2).says("--create-link");
        lab.run(restore.into_iter().chain(["--create-link"])).exits(0);
        assert_holds(back.content(), &content(&[("a", "a"), ("d/b", "b")]), "restored");
    }
}

#[test]
fn a_bucket_that_is_full_says_so_and_the_run_goes_on_when_there_is_room() {
    let Some((primary, other)) = sites() else { return };
    for layout in LAYOUTS {
        let lab = Lab::new();
        let source = filled(primary.bucket("full", layout), &[("a", "a"), ("b", "b")]);
        source.put("large", &Numbers(3).bytes(20 << 20));
        source.put("middle", &Numbers(4).bytes(3 << 20));
        let target = other.bucket("full", layout).linked();
        let quota = |space: &str| {
            other.call(&["sh", "bucket", "setquota", "--space-quota", space, &format!("/vol1/{}", target.name)])
        };
        quota("2MB");
        lab.sync(source.url(), target.url(), "one", &[]).exits(1).says("quota");
        assert!(target.snapshots().is_empty());
        quota("100MB");
        lab.sync(source.url(), target.url(), "one", &[]).sealed();
        assert_same_snapshot(&source, &target, "one");
    }
}

/// Where two buckets are one, nothing is done.
#[test]
fn a_bucket_is_no_replica_of_itself() {
    let Some(primary) = Cluster::from_environment("SNAPFERRY_TEST_OZONE") else { return };
    let bucket = filled(primary.bucket("itself", Layout::Obs), &[("a", "a")]).linked();
    let lab = Lab::new();
    lab.sync(bucket.url(), bucket.url(), "one", &[]).exits(2).says("in each other");
    assert!(bucket.snapshots().is_empty());
}

/// Snapshots that are switched off, a diff that cannot be had, and a safe mode that does not end: on a cluster of its own, which
/// is configured anew on the way.
#[test]
fn a_cluster_that_refuses_says_why_and_what_to_do() {
    let Some(primary) = Cluster::from_environment("SNAPFERRY_TEST_OZONE") else { return };
    let own = OwnCluster::start("ozone.filesystem.snapshot.enabled=false");
    let other = &own.cluster;
    let lab = Lab::new();

    // Snapshots are switched off, on the target and on the source: nothing is copied first.
    let source = primary.bucket("refused", Layout::Obs);
    source.call("fill", &["d/", "30", "1000", "1"]);
    let target = other.bucket("refused", Layout::Obs).linked();
    let switched_off = |outcome: Outcome, side: &str| {
        outcome.exits(1).says(side).says("ozone.filesystem.snapshot.enabled").says("Ozone Manager");
    };
    switched_off(lab.sync(source.url(), target.url(), "one", &[]), "target");
    assert!(target.content().is_empty(), "content was copied to where no snapshot can be");
    let away = other.bucket("refused-source", Layout::Obs).linked();
    away.put("a", b"a");
    let back = primary.bucket("refused-source", Layout::Obs).linked();
    switched_off(lab.sync(away.url(), back.url(), "one", &[]), "source");
    assert!(replica(back.content()).is_empty());

    // Switched on, but with no diffs of more than five changes.
    other.configure("ozone.filesystem.snapshot.enabled", "true");
    other.configure("ozone.om.snapshot.diff.max.allowed.keys.changed.per.job", "5");
    other.restart("om");
    lab.sync(source.url(), target.url(), "one", &[]).sealed();
    assert_same_snapshot(&source, &target, "one");
    let returned = primary.bucket("refused", Layout::Obs).linked();
    lab.sync(target.url(), returned.url(), "first", &[]).sealed();
    target.call("fill", &["d/", "12", "1100", "2"]);
    let outcome = lab.sync(target.url(), returned.url(), "second", &[]).sealed();
    assert_eq!(outcome.text("diff"), "listing", "{}", outcome.report);
    assert_eq!(outcome.count("objects_copied"), 12, "{}", outcome.report);
    assert!(outcome.stderr.contains("listed"), "it did not say that there is no diff: {}", outcome.stderr);
    assert_same_snapshot(&target, &returned, "second");

    // No datanode comes, so the cluster never leaves its safe mode.
    source.call("fill", &["d/", "5", "900", "3"]);
    other.stop("dn");
    other.restart("scm");
    let began = std::time::Instant::now();
    let outcome = lab.sync(source.url(), target.url(), "three", &["--on-drift", "repair"]);
    eprintln!("safe mode: given up after {:?}", began.elapsed());
    outcome.exits(1).says("target").says("safe mode");
    assert!(!target.snapshots().contains(&"three".into()));
    other.start("dn");
    lab.sync(source.url(), target.url(), "three", &["--on-drift", "repair"]).sealed();
    assert_same_snapshot(&source, &target, "three");
}
