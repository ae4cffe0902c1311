//! A cluster that refuses: it has snapshots switched off, no diff to give, or no datanode yet. In a program of its own,
//! with a cluster of its own that is configured anew on the way.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::Lab;
use harness::ozone::{Cluster, Layout, OwnCluster, assert_same_snapshot, replica};

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
    let switched_off = |outcome: harness::Outcome, side: &str| {
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
