//! What ran and what runs on this machine: `job list`, `show`, `cancel` and `logs` tell the truth, also of a run in another
//! process, and of one that was killed.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use harness::{Lab, Numbers, Outcome, PROGRAM, tree};
use serde_json::Value;

const FILES: u64 = 24;
const FILE: usize = 256 << 10;

/// The states of a sync that runs, in their order.
const PHASES: [&str; 8] =
    ["PENDING", "SNAPSHOTTING", "DIFFING", "PLANNING", "COPYING", "COMMITTING", "PROVING", "SEALING"];

fn build(lab: &Lab) -> PathBuf {
    let source = lab.path("source");
    let mut numbers = Numbers(11);
    for number in 0..FILES {
        tree::put(&source, format!("{}/{number}", number % 4).as_bytes(), &numbers.bytes(FILE));
    }
    tree::dress(&source);
    source
}

fn job(lab: &Lab, arguments: &[&str]) -> Outcome {
    lab.run(["job"].iter().chain(arguments))
}

fn show(lab: &Lab, id: &str) -> Value {
    job(lab, &["show", id]).exits(0).report
}

fn list(lab: &Lab, more: &[&str]) -> Vec<Value> {
    job(lab, &[&["list"], more].concat()).exits(0).report["jobs"].as_array().unwrap().clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Starts a sync that takes several seconds.
fn start_slow(lab: &Lab, source: &Path, target: &Path) -> Child {
    start_limited(lab, source, target, "1MiB")
}

/// Starts a sync that moves so much a second.
fn start_limited(lab: &Lab, source: &Path, target: &Path, bandwidth: &str) -> Child {
    Command::new(PROGRAM)
        .arg("sync")
        .args([source, target])
        .args(["--snapshot", "night", "--bandwidth", bandwidth, "--concurrency", "1", "--json", "--state-dir"])
        .arg(lab.path("state"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until the newest job says so.
#[track_caller]
fn wait_for(lab: &Lab, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let newest = list(lab, &["--limit", "1"]).into_iter().next();
        match newest {
            Some(job) if is_so(&job) => return job,
            last => assert!(Instant::now() < deadline, "not {what} within a minute: {last:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_copying(job: &Value) -> bool {
    job["state"] == "COPYING" && number(&job["progress"]["objects_done"]) > 0
}

fn damaged(lab: &Lab) -> usize {
    let names = fs::read_dir(lab.path("state")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().starts_with("jobs.redb.damaged-")).count()
}

#[test]
fn a_run_is_recorded_with_its_phases() {
    let lab = Lab::new();
    let (source, target) = (build(&lab), lab.path("target"));
    assert_eq!(list(&lab, &[]), [] as [Value; 0]);
    lab.sync(&source, &target, "night", &["--dry-run"]).exits(0);
    assert_eq!(list(&lab, &[]), [] as [Value; 0], "a rehearsal leaves no trace");

    let synced = lab.sync(&source, &target, "night", &[]).sealed();
    let shown = show(&lab, synced.text("job"));
    assert_eq!((text(&shown["state"]), text(&shown["kind"]), text(&shown["snapshot"])), ("FINISHED", "sync", "night"));
    assert_eq!(shown["interrupted"], false);
    assert_eq!(shown["left"], Value::Null);
    assert!(text(&shown["source"]).ends_with("/source") && text(&shown["target"]).ends_with("/target"));
    let progress = &shown["progress"];
    for (field, wanted) in [("objects_planned", FILES), ("objects_done", FILES), ("objects_copied", FILES)] {
        assert_eq!(number(&progress[field]), wanted, "{field}");
    }
    assert_eq!(number(&progress["bytes_copied"]), synced.count("bytes_copied"));
    let phases: Vec<&str> = shown["phases"].as_array().unwrap().iter().map(|phase| text(&phase["phase"])).collect();
    assert_eq!(phases, PHASES[1..]);
    let took: u64 = shown["phases"].as_array().unwrap().iter().map(|phase| number(&phase["took_ms"])).sum();
    assert!(took <= number(&shown["elapsed_ms"]), "{shown}");
    let began: Vec<&str> = shown["phases"].as_array().unwrap().iter().map(|phase| text(&phase["began"])).collect();
    assert!(began.is_sorted() && text(&shown["created"]) <= began[0], "{shown}");

    // What was refused failed, and says why.
    fs::write(target.join("drift"), b"mine").unwrap();
    let refused = lab.sync(&source, &target, "later", &[]).exits(3);
    let shown = show(&lab, "last");
    assert_eq!(text(&shown["id"]), refused.text("job"));
    assert_eq!((text(&shown["state"]), number(&shown["error"]["exit_code"])), ("FAILED", 3));
    assert!(text(&shown["error"]["message"]).contains("drift") && text(&shown["error"]["hint"]).contains("--on-drift"));

    lab.restore(&target, "night");
    let shown = show(&lab, "last");
    assert_eq!((text(&shown["state"]), text(&shown["kind"])), ("FINISHED", "restore"));
    let states = |more: &[&str]| list(&lab, more).iter().map(|job| text(&job["state"]).to_owned()).collect::<Vec<_>>();
    assert_eq!(states(&[]), ["FINISHED", "FAILED", "FINISHED"]);
    assert_eq!(states(&["--limit", "2"]), ["FINISHED", "FAILED"]);
    assert_eq!(states(&["--state", "failed"]), ["FAILED"]);
    assert_eq!(states(&["--policy", "nightly"]), [] as [&str; 0]);
    job(&lab, &["list", "--state", "BUSY"]).exits(2);
    job(&lab, &["show", "job-"]).exits(2).says("3 jobs");
    job(&lab, &["show", "nothing"]).exits(1).says("no job");
    job(&lab, &["cancel", "last"]).exits(3).says("has ended");
}

#[test]
fn killed_in_each_phase_the_record_tells_the_truth() {
    for (place, phase) in PHASES.iter().enumerate().skip(1) {
        let lab = Lab::new();
        let (source, target) = (build(&lab), lab.path("target"));
        let (from, to) = (source.to_str().unwrap(), target.to_str().unwrap());
        let arguments = ["sync", from, to, "--snapshot", "night", "--bandwidth", "2MiB"];
        let Some((mut child, log)) = lab.until(&arguments, phase) else { panic!("it was never in {phase}") };
        if *phase == "COPYING" {
            wait_for(&lab, "copying", is_copying);
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let killed = show(&lab, "last");
        let id = text(&killed["id"]).to_owned();
        if killed["state"] == "FINISHED" {
            assert_eq!(*phase, "SEALING", "{killed}");
            continue;
        }
        // Most phases take a millisecond here, less than writing them down. Copying takes long enough to be there.
        let place_of = |phase: &str| PHASES.iter().position(|state| *state == phase).unwrap();
        let said = log.lines().map_while(Result::ok).filter_map(|line| {
            line.contains("DEBUG").then(|| PHASES.iter().position(|phase| line.trim_end().ends_with(phase)))?
        });
        let last = said.last().unwrap_or(place).max(place);
        let (state, copying) = (place_of(text(&killed["state"])), place_of("COPYING"));
        assert!(place < copying || copying <= state, "killed in {phase}: {killed}");
        assert!(state <= last, "killed in {phase}: {killed}");
        assert_eq!(killed["interrupted"], true, "{killed}");
        assert!(text(&killed["interrupted_why"]).contains(&format!("process {} is gone", child.id())), "{killed}");
        assert_eq!((&killed["left"]["phase"], &killed["ended"]), (&killed["state"], &Value::Null));
        if *phase == "COPYING" {
            let (done, left) = (number(&killed["progress"]["objects_done"]), number(&killed["left"]["objects"]));
            assert!(done > 0 && left > 0 && done + left == FILES, "{killed}");
            assert!(number(&killed["left"]["bytes"]) > 0);
        }
        job(&lab, &["cancel", &id]).exits(3).says("is gone");

        let next = lab.sync(&source, &target, "night", &[]).sealed();
        let shown = show(&lab, "last");
        assert_eq!((text(&shown["id"]), text(&shown["state"])), (next.text("job"), "FINISHED"));
        if place >= 4 && next.report["already_sealed"] == false {
            assert_eq!(shown["goes_on"].as_str(), Some(&*id), "killed in {phase}: {shown}");
            assert!(next.count("objects_copied") <= number(&killed["left"]["objects"]), "killed in {phase}");
        }
        tree::assert_same(&source, &target);
        assert_eq!(show(&lab, &id)["interrupted"], true, "it stays what it was");
        assert_eq!(damaged(&lab), 0);
    }
}

/// A catalogue survives whoever writes it, at any moment.
#[test]
fn killed_at_random_the_catalogue_stays_whole() {
    let lab = Lab::new();
    let (source, target) = (build(&lab), lab.path("target"));
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    eprintln!("seed {seed:#x}");
    let mut dice = Numbers(seed);
    for _ in 0..20 {
        let mut child = start_slow(&lab, &source, &target);
        std::thread::sleep(Duration::from_millis(dice.below(120)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let jobs = list(&lab, &["--limit", "100"]);
    assert!(jobs.iter().all(|job| job["interrupted"] == true), "{jobs:?}");
    lab.sync(&source, &target, "night", &[]).sealed();
    assert_eq!(list(&lab, &["--limit", "100"]).len(), jobs.len() + 1);
    assert_eq!(damaged(&lab), 0);
}

#[test]
fn cancelled_from_another_process_it_stops_and_the_next_run_goes_on() {
    let lab = Lab::new();
    let (source, target) = (build(&lab), lab.path("target"));
    let child = start_slow(&lab, &source, &target);
    let running = wait_for(&lab, "copying", is_copying);
    assert_eq!(running["interrupted"], false);
    assert_eq!(number(&running["process"]["pid"]), u64::from(child.id()));
    let id = text(&running["id"]);

    let told = job(&lab, &["cancel", "last"]).exits(0);
    assert_eq!((told.text("job"), &told.report["elsewhere"]), (id, &Value::Null));
    let since = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(since.elapsed() < Duration::from_secs(5), "it took {:?} to stop", since.elapsed());
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((text(&report["job"]), text(&report["error"]["kind"])), (id, "cancelled"));

    let cancelled = show(&lab, id);
    assert_eq!(text(&cancelled["state"]), "CANCELLED");
    assert!(text(&cancelled["cancel"]["by"]).contains("process"), "{cancelled}");
    assert_eq!(text(&cancelled["left"]["phase"]), "COPYING");
    let copied = number(&cancelled["progress"]["objects_copied"]);
    assert!(0 < copied && copied < FILES, "{cancelled}");

    let next = lab.sync(&source, &target, "night", &[]).sealed();
    assert!(next.count("objects_copied") <= FILES - copied, "{copied} were copied before: {}", next.report);
    let shown = show(&lab, "last");
    assert_eq!((text(&shown["state"]), text(&shown["goes_on"])), ("FINISHED", id));
    tree::assert_same(&source, &target);
}

#[test]
fn two_processes_share_the_catalogue() {
    let lab = Lab::new();
    let source = build(&lab);
    // None of them ends before all have been seen, however slow the machine.
    let children = ["one", "two", "three"].map(|target| start_limited(&lab, &source, &lab.path(target), "16KiB"));
    let deadline = Instant::now() + Duration::from_secs(120);
    let running = loop {
        let running = list(&lab, &["--state", "COPYING"]);
        if running.len() == children.len() {
            break running;
        }
        assert!(Instant::now() < deadline, "only {} were seen to run at once", running.len());
        std::thread::sleep(Duration::from_millis(20));
    };
    for running in &running {
        job(&lab, &["cancel", text(&running["id"])]).exits(0);
    }
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!said.contains("catalogue") && !said.contains("recorded"), "nothing to warn of: {said}");
    }
    assert_eq!(list(&lab, &["--state", "CANCELLED"]).len(), 3);
    for target in ["one", "two", "three"] {
        lab.sync(&source, lab.path(target), "night", &[]).sealed();
        tree::assert_same(&source, &lab.path(target));
    }
    let ended = list(&lab, &["--state", "FINISHED"]);
    assert_eq!(ended.len(), 3);
    assert!(ended.iter().all(|job| number(&job["progress"]["objects_done"]) == FILES));
}

#[test]
fn a_damaged_catalogue_is_set_aside() {
    let lab = Lab::new();
    let (source, target) = (build(&lab), lab.path("target"));
    let file = lab.path("state").join("jobs.redb");
    lab.sync(&source, &target, "one", &[]).sealed();
    let mut bytes = fs::read(&file).unwrap();
    bytes.iter_mut().skip(4096).for_each(|byte| *byte ^= 0x55);
    fs::write(&file, &bytes).unwrap();
    lab.sync(&source, &target, "two", &[]).sealed().says("catalogue was damaged");
    assert_eq!(damaged(&lab), 1);
    assert_eq!(list(&lab, &[]).len(), 1);
    fs::write(&file, b"no catalogue").unwrap();
    assert_eq!(job(&lab, &["list"]).exits(0).says("catalogue was damaged").report["jobs"], Value::Array(Vec::new()));
}

#[test]
fn a_catalogue_that_cannot_be_written_stops_nobody() {
    for full in [true, false] {
        let lab = Lab::new();
        let (source, target) = (build(&lab), lab.path("target"));
        let file = lab.path("state").join("jobs.redb");
        fs::create_dir(lab.path("state")).unwrap();
        if full {
            std::os::unix::fs::symlink("/dev/full", &file).unwrap();
        } else {
            fs::create_dir(&file).unwrap();
        }
        let outcome = lab.sync(&source, &target, "night", &["--bandwidth", "3MiB"]).sealed();
        let warnings = outcome.stderr.matches("cannot be recorded").count();
        assert_eq!(warnings, 1, "one warning is enough: {}", outcome.stderr);
        assert!(file.symlink_metadata().is_ok() && damaged(&lab) == 0);
        tree::assert_same(&source, &target);
    }
}

#[test]
fn a_log_can_be_followed() {
    let lab = Lab::new();
    let (source, target) = (build(&lab), lab.path("target"));
    std::os::unix::fs::symlink("elsewhere", source.join("link")).unwrap();
    let child = start_slow(&lab, &source, &target);
    wait_for(&lab, "copying", is_copying);
    let lines = |outcome: Outcome| -> Vec<(String, String)> {
        let lines = outcome.exits(0).report["lines"].as_array().unwrap().clone();
        lines.iter().map(|line| (text(&line["level"]).to_owned(), text(&line["text"]).to_owned())).collect()
    };
    let so_far = lines(job(&lab, &["logs", "last"]));
    let followed = lines(job(&lab, &["logs", "last", "--follow"]));
    assert!(child.wait_with_output().unwrap().status.success());
    assert!(so_far.len() < followed.len() && followed.starts_with(&so_far), "{so_far:?} {followed:?}");
    assert_eq!(followed, lines(job(&lab, &["logs", "last"])));
    let said: Vec<&str> = followed.iter().map(|(_, text)| text.as_str()).collect();
    for phase in &PHASES[1..] {
        assert!(said.contains(phase), "{phase} is not in {said:?}");
    }
    assert!(followed.contains(&("warning".into(), "not copied: 1 links, 0 special files".into())), "{followed:?}");
    let (level, end) = followed.last().unwrap();
    assert!(level == "info" && end.starts_with("FINISHED: copied 24 objects"), "{end}");

    // For people: one line each.
    let output = Command::new(PROGRAM)
        .args(["job", "logs", "last", "-f", "--state-dir"])
        .arg(lab.path("state"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), followed.len());
}
