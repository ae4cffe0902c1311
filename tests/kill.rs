//! Killed at any point, the same command run again converges, and copies nothing twice.

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use harness::{Lab, Numbers, PROGRAM, snapshot_of, tree};

const SMALL: usize = 16 << 10;
const FILES: usize = 1500;
/// Writes that may have landed without their record having reached the journal when the process died.
const IN_FLIGHT: u64 = 64;

/// A source of many small files and two large ones.
fn build(source: &Path, numbers: &mut Numbers) {
    fs::create_dir(source).unwrap();
    for number in 0..FILES {
        tree::put(source, format!("{}/{number}", number % 40).as_bytes(), &numbers.bytes(SMALL));
    }
    for name in ["large-1", "large-2"] {
        tree::put(source, name.as_bytes(), &numbers.bytes(24 << 20));
    }
    tree::dress(source);
}

fn start(lab: &Lab, source: &Path, target: &Path, name: &str, state: &str) -> Child {
    Command::new(PROGRAM)
        .args(["sync".as_ref(), source.as_os_str(), target.as_os_str()])
        .args(["--snapshot", name, "--json", "--state-dir"])
        .arg(lab.path(state))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Inode and key of every small file that has landed whole on the target, staged or in place.
fn landed(target: &Path) -> BTreeMap<u64, u64> {
    let mut landed = BTreeMap::new();
    tree::visit(target, &mut |path, metadata| {
        let inside = path.strip_prefix(target).unwrap();
        let counts = !inside.starts_with(".snapshot")
            && (!inside.starts_with(".snapferry") || inside.starts_with(".snapferry/staging"));
        if counts && metadata.is_file() && metadata.len() == SMALL as u64 {
            landed.insert(metadata.ino(), metadata.len());
        }
    });
    landed
}

/// Kills syncs of `name` at random moments within about the time that one takes, then runs one to its end.
fn kill_and_converge(lab: &Lab, source: &Path, target: &Path, forget: bool) {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    eprintln!("seed {seed:#x}");
    let mut numbers = Numbers(seed);

    // How long a whole run takes, to a target that is thrown away.
    let measured = lab.path("measured");
    let start_time = Instant::now();
    lab.sync(source, &measured, "measured", &[]).sealed();
    let mut whole = start_time.elapsed().as_micros() as u64;
    fs::remove_dir_all(&measured).unwrap();

    let (mut killed, mut interrupted_after_landing) = (0, 0);
    for _ in 0..12 {
        let mut child = start(lab, source, target, "night", "state");
        std::thread::sleep(Duration::from_micros(numbers.below(whole)));
        if child.try_wait().unwrap().is_some() {
            if killed > 0 {
                break;
            }
            // The machine was busier when it was measured: once more from nothing, and sooner.
            whole /= 2;
            for path in [target.to_owned(), lab.path("state")] {
                let _ = fs::remove_dir_all(path);
            }
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        // Not sealed, or sealed and whole: never a snapshot in part.
        if snapshot_of(target, "night").exists() {
            tree::assert_same(source, &snapshot_of(target, "night"));
        }
        interrupted_after_landing += usize::from(!landed(target).is_empty());
        if forget {
            let _ = fs::remove_dir_all(lab.path("state"));
        }
    }
    eprintln!("killed {killed} runs, {interrupted_after_landing} of them after something had landed");
    assert!(killed > 0, "every run was over before it could be killed");

    let before = landed(target);
    let sealed_before = snapshot_of(target, "night").exists();
    let outcome = lab.sync(source, target, "night", &[]).sealed();
    tree::assert_same(source, target);
    tree::assert_same(source, &snapshot_of(target, "night"));
    if sealed_before {
        assert_eq!(outcome.count("bytes_copied"), 0);
        return;
    }

    let copied_small = (FILES as u64).saturating_sub(before.len() as u64);
    let limit = (copied_small + IN_FLIGHT) * SMALL as u64 + 2 * (24 << 20);
    assert!(
        outcome.count("bytes_copied") <= limit,
        "{} small files had landed, and yet {} bytes were copied: {}",
        before.len(),
        outcome.count("bytes_copied"),
        outcome.report
    );
    // The very files that had landed are the ones in place now.
    let after = landed(target);
    let lost = before.keys().filter(|inode| !after.contains_key(inode)).count() as u64;
    assert!(lost <= IN_FLIGHT, "{lost} of {} files that had landed were written anew", before.len());
    let staging = target.join(".snapferry/staging");
    assert!(tree::fingerprint(&staging).values().all(|print| print.1 != SMALL as u64), "staged files were left behind");
}

#[test]
fn killed_at_random_it_goes_on() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    build(&source, &mut Numbers(1));
    kill_and_converge(&lab, &source, &target, false);
}

#[test]
fn killed_at_random_with_its_memory_lost_it_compares() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    build(&source, &mut Numbers(2));
    kill_and_converge(&lab, &source, &target, true);
}

#[test]
fn killed_between_snapshots_it_goes_on() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    let mut numbers = Numbers(3);
    build(&source, &mut numbers);
    lab.sync(&source, &target, "base", &[]).sealed();
    for number in (0..FILES).step_by(3) {
        tree::put(&source, format!("{}/{number}", number % 40).as_bytes(), &numbers.bytes(SMALL));
    }
    fs::rename(source.join("1"), source.join("one")).unwrap();
    fs::rename(source.join("2"), source.join("1")).unwrap();
    fs::remove_dir_all(source.join("4")).unwrap();
    tree::put(&source, b"4", b"now a file");
    tree::dress(&source);

    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    eprintln!("seed {seed:#x}");
    let mut dice = Numbers(seed);
    for _ in 0..10 {
        let mut child = start(&lab, &source, &target, "night", "state");
        std::thread::sleep(Duration::from_millis(dice.below(400)));
        let over = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        if dice.below(3) == 0 {
            let _ = fs::remove_dir_all(lab.path("state"));
        }
        if over {
            break;
        }
    }
    // What a killed run left is its own work, not drift.
    let outcome = lab.sync(&source, &target, "night", &[]).sealed();
    assert_eq!(outcome.report["base"].as_str().unwrap_or("base"), "base");
    tree::assert_same(&source, &target);
}

#[test]
fn one_job_at_a_time() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    build(&source, &mut Numbers(4));
    let first = start(&lab, &source, &target, "first", "state");
    let process = rustix::process::Pid::from_child(&first);
    // Stopped in the middle of its work, it holds the lease for as long as this test needs.
    let deadline = Instant::now() + Duration::from_secs(60);
    while landed(&target).is_empty() {
        assert!(Instant::now() < deadline, "nothing landed within a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
    assert!(!snapshot_of(&target, "first").exists(), "it was over before it could be stopped");

    // Another machine: another state directory.
    let elsewhere = Lab::new();
    let outcome = elsewhere.sync(&source, &target, "second", &[]);
    rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
    let outcome = outcome.exits(3);
    assert_eq!(outcome.text("state"), "refused");
    assert!(!snapshot_of(&target, "second").exists());

    let output = first.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    tree::assert_same(&source, &target);
    elsewhere.sync(&source, &target, "second", &[]).sealed();
}
