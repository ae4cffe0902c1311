//! Services of either cluster that go down in the middle of a run. In a program of their own, and one after the other:
//! what is down is down for every test.

#![allow(clippy::unwrap_used)]

mod harness;

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness::ozone::{Bucket, Cluster, Layout, assert_replica, assert_same_snapshot, replica, sites};
use harness::{Lab, Numbers, PROGRAM};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const LARGE: usize = 20 << 20;

/// A bucket with enough in it for a run of ten seconds at the rate of [`start`].
fn build(cluster: &Cluster, layout: Layout) -> Bucket {
    let source = cluster.bucket("restarts", layout);
    source.call("fill", &["d/", "100", "2000", "1"]);
    source.put("large", &Numbers(9).bytes(LARGE));
    source
}

fn start(lab: &Lab, source: &str, target: &str) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args(["sync", source, target, "--snapshot", "night", "--json", "--bandwidth", "3M", "--concurrency", "2"]);
    command.arg("--state-dir").arg(lab.path("state")).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A run in whose middle something happens to a cluster: it survives, or the same command goes on.
fn run_through(what: &str, source: &Bucket, more: &str, target: &Bucket, happens: impl FnOnce()) {
    let lab = Lab::new();
    let (from, to) = (format!("{}{more}", source.url()), target.url());
    let begin = Instant::now();
    let mut child = start(&lab, &from, &to);
    std::thread::sleep(Duration::from_millis(2500));
    assert!(child.try_wait().unwrap().is_none(), "{what}: the run was over before anything happened");
    happens();
    let output = child.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let (state, code) = (report["state"].as_str().unwrap(), output.status.code());
    eprintln!("{what}: {state} after {:?} with {} retries", begin.elapsed(), report["retries"]);
    if state != "sealed" {
        assert_eq!(code, Some(1), "{what}: {report}");
        eprintln!("{what}: {}", report["error"]["message"].as_str().unwrap());
        assert!(target.snapshots().is_empty(), "{what}: sealed by a run that failed");
        let outcome = lab.sync(&from, &to, "night", &[]).sealed();
        let all = LARGE as u64 + 100 * 2000;
        assert!(outcome.count("bytes_copied") < all, "{what}: nothing that had landed counted: {}", outcome.report);
    }
    assert_same_snapshot(source, target, "night");
    assert_replica(&replica(source.content()), &replica(target.content()), what);
}

/// Side and service, and what more the source's URL says.
type Case = (&'static str, &'static str, &'static str);

fn restarted(layout: Layout, kill: bool, cases: &[Case]) {
    let Some((primary, other)) = sites() else { return };
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let source = build(&primary, layout).linked();
    for (side, service, more) in cases {
        let target = other.bucket("restarts", layout).linked();
        let cluster = if *side == "source" { &primary } else { &other };
        run_through(
            &format!("{layout:?}, {side}'s {service}, killed: {kill}"),
            &source,
            more,
            &target,
            || match kill {
                true => cluster.kill_and_restart(service),
                false => cluster.restart(service),
            },
        );
    }
}

#[test]
fn services_that_are_killed_and_come_back() {
    // The gateway of the source is asked only where the datanodes must not be.
    let source = [("source", "om", ""), ("source", "dn", ""), ("source", "s3g", "&data=s3")];
    let target = [("target", "om", ""), ("target", "dn", ""), ("target", "s3g", "")];
    restarted(Layout::Fso, true, &[source, target].concat());
}

#[test]
fn services_that_are_restarted() {
    restarted(Layout::Obs, false, &[("source", "om", ""), ("target", "om", "")]);
}

/// A cluster that has just started takes nothing until its datanodes have told what they hold.
#[test]
fn a_cluster_in_safe_mode_is_waited_for() {
    let Some((primary, other)) = sites() else { return };
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (source, target) = (build(&primary, Layout::Obs), other.bucket("restarts", Layout::Obs).linked());
    run_through("safe mode", &source, "", &target, || {
        other.stop("dn");
        other.restart("scm");
        std::thread::sleep(Duration::from_secs(5));
        other.start("dn");
    });
}
