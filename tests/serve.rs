//! Policies that run by themselves: `serve` is killed in every state and goes on, two of them share the work, the clock
//! jumps, hooks and metrics say what happened.

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use harness::{Lab, Numbers, Outcome, PROGRAM, tree};
use serde_json::Value;
use snapferry::bucket::{Bucket, OpenOptions};
use snapferry::clock::Clock;
use snapferry::config::Config;
use snapferry::job::Jobs;
use snapferry::policy::Host;
use snapferry::serve::Server;
use snapferry::snapshot::clone::CloneMode;
use tokio_util::sync::CancellationToken;

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes a configuration with one policy `photos` and gives its path. It runs every other second unless `lines` say
/// otherwise.
fn configure(lab: &Lab, lines: &str) -> PathBuf {
    let (source, target) = (lab.path("source"), lab.path("target"));
    let schedule = if lines.contains("schedule") { "" } else { "schedule = \"*/2 * * * * *\"\n" };
    let text = format!(
        "[serve]\nlisten = \"127.0.0.1:0\"\n[policy.photos]\nsource = {source:?}\ntarget = {target:?}\n\
         snapshot = \"snapshot-%s\"\n{schedule}{lines}\n"
    );
    let file = lab.path("config.toml");
    fs::write(&file, text).unwrap();
    file
}

fn fill(lab: &Lab, seed: u64) {
    let mut numbers = Numbers(seed);
    for number in 0..24 {
        tree::put(&lab.path("source"), format!("{}/{number}", number % 3).as_bytes(), &numbers.bytes(64 << 10));
    }
}

fn serve(lab: &Lab, state: &str, more: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("serve").args(more).arg("--config").arg(lab.path("config.toml"));
    command.arg("--state-dir").arg(lab.path(state)).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A `serve` whose log is read; killed in the end.
struct Serving {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Serving {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line of the log.
    #[track_caller]
    fn says(&mut self, is_it: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.seen.push(line.clone());
            if is_it(&line) {
                return line;
            }
        }
        panic!("it never said so:\n{}", self.seen.join("\n"));
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    fn ends(mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn jobs(lab: &Lab, state: &str) -> Vec<Value> {
    let mut command = Command::new(PROGRAM);
    command.args(["job", "list", "--limit", "1000", "--json", "--state-dir"]).arg(lab.path(state));
    let output = command.output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["jobs"].as_array().unwrap().clone()
}

/// Waits until the newest jobs are so.
#[track_caller]
fn wait_for(lab: &Lab, what: &str, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let jobs = jobs(lab, "state");
        if is_so(&jobs) {
            return jobs;
        }
        assert!(Instant::now() < deadline, "not {what}: {jobs:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The newest snapshot on the target, which must be what the source is.
fn assert_newest_is_source(lab: &Lab) {
    let list = lab.run(["snapshot".as_ref(), "list".as_ref(), lab.path("target").as_os_str()]).exits(0);
    let name = list.report["snapshots"][0]["name"].as_str().unwrap().to_owned();
    tree::assert_same(&lab.path("source"), &harness::snapshot_of(&lab.path("target"), &name));
}

#[test]
fn killed_in_each_state_the_next_start_goes_on() {
    let states = ["SNAPSHOTTING", "DIFFING", "PLANNING", "COPYING", "COMMITTING", "PROVING", "SEALING"];
    let lab = Lab::new();
    configure(&lab, "concurrency = 2");
    fill(&lab, 0);
    for (round, state) in states.into_iter().enumerate() {
        fill(&lab, 1 + round as u64);
        let mut serving = Serving::start(serve(&lab, "state", &["--no-listen", "-vv"]));
        serving.says(|line| line.contains("DEBUG") && line.ends_with(state));
        serving.signal("KILL");
        serving.child.wait().unwrap();
        let left = jobs(&lab, "state").remove(0);
        assert_eq!(left["interrupted"], true, "{state}: {left}");
        // The record is written as the phase begins, so it may be one behind, never ahead of what was begun.
        let shown = left["state"].as_str().unwrap().to_owned();
        let place = |name: &str| states.iter().position(|state| *state == name);
        assert!(shown == "PENDING" || place(&shown).unwrap() <= round + 1, "killed in {state}, shown in {shown}");
        let id = left["id"].as_str().unwrap().to_owned();
        let serving = Serving::start(serve(&lab, "state", &["--no-listen"]));
        wait_for(&lab, "finished by the next start", |jobs| {
            let later = jobs.iter().take_while(|job| job["id"] != *id);
            later.filter(|job| job["state"] == "FINISHED").count() >= 1
        });
        serving.signal("TERM");
        assert_eq!(serving.ends(), 0);
        let again = lab.run(["job", "show", &id]).exits(0).report;
        assert_eq!(
            (&again["interrupted"], &again["state"]),
            (&Value::Bool(true), &Value::String(shown)),
            "it stays true"
        );
        assert_newest_is_source(&lab);
    }
}

/// A run is PENDING for as long as it waits for the target.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_waits_for_the_target_the_next_start_goes_on() {
    let lab = Lab::new();
    configure(&lab, "");
    fill(&lab, 1);
    fs::create_dir(lab.path("target")).unwrap();
    let options =
        OpenOptions { create: false, create_link: false, clone: CloneMode::Auto, folder: lab.path("").to_owned() };
    let target = Bucket::open(lab.path("target").to_str().unwrap(), &options).await.unwrap();
    let lease = target.lease_briefly("another-job").await.unwrap();
    // What was never run waits for its next scheduled time, two seconds at most.
    let mut serving = Serving::start(serve(&lab, "state", &["--no-listen"]));
    let waiting = wait_for(&lab, "waiting", |jobs| jobs.first().is_some_and(|job| job["state"] == "PENDING"));
    let id = waiting[0]["id"].as_str().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    serving.signal("KILL");
    serving.child.wait().unwrap();
    lease.release(true).await.unwrap();
    drop(lease);
    let left = lab.run(["job", "show", id]).exits(0).report;
    assert_eq!((&left["state"], &left["interrupted"]), (&"PENDING".into(), &true.into()), "{left}");
    let serving = Serving::start(serve(&lab, "state", &["--no-listen"]));
    wait_for(&lab, "finished by the next start", |jobs| jobs.iter().any(|job| job["state"] == "FINISHED"));
    serving.signal("TERM");
    assert_eq!(serving.ends(), 0);
    assert_newest_is_source(&lab);
}

#[test]
fn told_to_stop_it_parks_and_goes_on() {
    let lab = Lab::new();
    configure(&lab, "bandwidth = \"1MiB\"\nconcurrency = 1");
    let mut numbers = Numbers(7);
    for number in 0..16 {
        tree::put(&lab.path("source"), number.to_string().as_bytes(), &numbers.bytes(1 << 20));
    }
    let mut serving = Serving::start(serve(&lab, "state", &["--no-listen", "-vv"]));
    serving.says(|line| line.ends_with("COPYING"));
    wait_for(&lab, "copying", |jobs| jobs[0]["progress"]["objects_done"].as_u64() > Some(2));
    serving.signal("TERM");
    assert_eq!(serving.ends(), 0);
    let parked = jobs(&lab, "state").remove(0);
    assert_eq!(parked["state"], "CANCELLED", "{parked}");
    let copied = parked["progress"]["bytes_copied"].as_u64().unwrap();
    configure(&lab, "");
    let serving = Serving::start(serve(&lab, "state", &["--no-listen"]));
    let jobs = wait_for(&lab, "finished", |jobs| jobs.iter().any(|job| job["state"] == "FINISHED"));
    drop(serving);
    let finished = jobs.iter().rfind(|job| job["state"] == "FINISHED").unwrap();
    let rest = finished["progress"]["bytes_copied"].as_u64().unwrap();
    // What was under way when it stopped is copied again, and what the journal had not yet taken in.
    assert!(rest < 16 << 20 && copied + rest <= 19 << 20, "{copied} and then {rest}");
    assert_newest_is_source(&lab);
}

#[test]
fn two_of_them_run_no_policy_twice() {
    let lab = Lab::new();
    // Slow enough that both see each scheduled time while one of them is at work.
    configure(&lab, "bandwidth = \"1MiB\"\nschedule = \"*/4 * * * * *\"");
    fill(&lab, 3);
    let both = ["state", "other"].map(|state| Serving::start(serve(&lab, state, &["--no-listen"])));
    wait_for_either(&lab, 3);
    for serving in &both {
        serving.signal("TERM");
    }
    for serving in both {
        assert_eq!(serving.ends(), 0);
    }
    let mut sealed = BTreeMap::new();
    for job in jobs(&lab, "state").into_iter().chain(jobs(&lab, "other")) {
        let phases = job["phases"].as_array().unwrap();
        if phases.iter().any(|phase| phase["phase"] == "COPYING") {
            *sealed.entry(job["snapshot"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        let (state, error) = (job["state"].as_str().unwrap(), job["error"]["message"].as_str().unwrap_or(""));
        let waited = state == "FAILED" && error.contains("another job");
        assert!(waited || ["FINISHED", "CANCELLED"].contains(&state), "{job}");
    }
    assert!(!sealed.is_empty() && sealed.values().all(|count| *count == 1), "{sealed:?}");
}

fn wait_for_either(lab: &Lab, finished: usize) {
    let deadline = Instant::now() + PATIENCE;
    let count = |state| jobs(lab, state).iter().filter(|job| job["state"] == "FINISHED").count();
    while count("state") + count("other") < finished {
        assert!(Instant::now() < deadline, "not {finished} finished jobs");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_new_configuration_is_taken_over_and_a_wrong_one_is_not() {
    let lab = Lab::new();
    let file = configure(&lab, "schedule = \"0 0 1 1 *\"");
    fill(&lab, 4);
    let mut serving = Serving::start(serve(&lab, "state", &["--no-listen"]));
    serving.says(|line| line.contains("policies that run by themselves: 1"));
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{good}shedule = 1\n")).unwrap();
    serving.signal("HUP");
    let line = serving.says(|line| line.contains("stays as it was"));
    assert!(line.contains("did you mean `schedule`?"), "{line}");
    fs::write(&file, good.replace("0 0 1 1 *", "* * * * * *")).unwrap();
    serving.signal("HUP");
    serving.says(|line| line.contains("was read again: 1 policies"));
    serving.says(|line| line.contains("sealed snapshot-"));
    serving.signal("TERM");
    assert_eq!(serving.ends(), 0);
    assert_newest_is_source(&lab);
}

/// The snapshots of the target, oldest first.
#[test]
fn buckets_that_are_found_run_by_themselves() {
    let lab = Lab::new();
    let (source, target) = (lab.path("site/{bucket}"), lab.path("dr/{bucket}"));
    let text = format!(
        "[serve]\nlisten = \"127.0.0.1:0\"\n[policy.site]\nsource = {source:?}\ntarget = {target:?}\nbuckets = \"*\"\n\
         snapshot = \"snapshot-%s\"\nschedule = \"* * * * * *\"\n"
    );
    fs::write(lab.path("config.toml"), text).unwrap();
    tree::put(&lab.path("site/photos"), b"file", b"photo");
    let mut serving = Serving::start(serve(&lab, "state", &["--no-listen"]));
    serving.says(|line| line.contains("site.photos") && line.contains("sealed snapshot-"));
    tree::put(&lab.path("site/logs"), b"file", b"log");
    serving.signal("HUP");
    serving.says(|line| line.contains("2 policies"));
    serving.says(|line| line.contains("site.logs") && line.contains("sealed snapshot-"));
    // They cannot be listed: those that are known go on, and it is said.
    fs::rename(lab.path("site"), lab.path("away")).unwrap();
    serving.signal("HUP");
    serving.says(|line| line.contains("ERROR") && line.contains("site") && !line.contains("site.logs"));
    fs::rename(lab.path("away"), lab.path("site")).unwrap();
    serving.says(|line| line.contains("site.photos") && line.contains("sealed snapshot-"));
    serving.signal("TERM");
    assert_eq!(serving.ends(), 0);
    for name in ["photos", "logs"] {
        tree::assert_same(&lab.path("site").join(name), &lab.path("dr").join(name));
    }
}

fn sealed(target: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(target.join(".snapferry/snapshots")) else { return Vec::new() };
    let folders = entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("snapshot.json").exists());
    let names: BTreeSet<String> = folders.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    names.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_slept_through_is_done_once_whatever_the_clock_does() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    fill(&lab, 5);
    let text = format!(
        "[policy.photos]\nsource = {source:?}\ntarget = {target:?}\nschedule = \"30 2 * * *\"\n\
         time_zone = \"Europe/Berlin\"\n"
    );
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    let clock = Clock::at(at("2026-10-24T00:29:00Z"));
    let host = Host { jobs: Jobs::at(&lab.path("state")), state_dir: lab.path("state"), clock: clock.clone() };
    let (config, cancel) = (Config::parse(&text).unwrap(), CancellationToken::new());
    let server = Server::new(config.clone(), host, cancel.clone());
    let (_reload, reloads) = tokio::sync::mpsc::channel(1);
    let mut estate = server.estate();
    let serving = tokio::spawn(server.serve(Box::new(move || Ok(config.clone())), reloads));
    let settle = async |expected: &[&str]| {
        let deadline = Instant::now() + PATIENCE;
        while sealed(&target) != expected {
            assert!(Instant::now() < deadline, "{:?} is not {expected:?}", sealed(&target));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Longer than the server takes to look at the clock again.
        tokio::time::sleep(Duration::from_millis(1700)).await;
        assert_eq!(sealed(&target), expected);
    };
    // What was never run waits for its next time: that begins with the first look.
    tokio::time::timeout(PATIENCE, estate.wait_for(Option::is_some)).await.unwrap().unwrap();
    settle(&[]).await;
    clock.set(at("2026-10-24T00:30:02Z"));
    settle(&["snapshot-2026-10-24"]).await;
    // 02:30 comes twice in the night of the 25th, and is run once.
    clock.set(at("2026-10-25T00:30:02Z"));
    settle(&["snapshot-2026-10-24", "snapshot-2026-10-25"]).await;
    clock.set(at("2026-10-25T01:30:02Z"));
    settle(&["snapshot-2026-10-24", "snapshot-2026-10-25"]).await;
    // Three nights are slept through.
    clock.set(at("2026-10-28T09:00:00Z"));
    settle(&["snapshot-2026-10-24", "snapshot-2026-10-25", "snapshot-2026-10-28"]).await;
    // The clock is set back and goes over the same night again.
    clock.set(at("2026-10-27T23:00:00Z"));
    settle(&["snapshot-2026-10-24", "snapshot-2026-10-25", "snapshot-2026-10-28"]).await;
    clock.set(at("2026-10-28T01:30:02Z"));
    settle(&["snapshot-2026-10-24", "snapshot-2026-10-25", "snapshot-2026-10-28"]).await;
    clock.set(at("2026-10-29T01:30:02Z"));
    settle(&["snapshot-2026-10-24", "snapshot-2026-10-25", "snapshot-2026-10-28", "snapshot-2026-10-29"]).await;
    cancel.cancel();
    serving.await.unwrap();
}

/// Asks an HTTP server for a page: the head and the body.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// What `promtool check metrics` looks for, and that no key is in a label.
fn check_metrics(text: &str) -> BTreeMap<String, f64> {
    let (mut described, mut samples, mut last) = (BTreeSet::new(), BTreeMap::new(), String::new());
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# ") {
            let (kind, rest) = rest.split_once(' ').unwrap();
            let (name, said) = rest.split_once(' ').unwrap();
            assert!(name.starts_with("snapferry_") && !said.is_empty(), "{line}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
            assert!(!name.ends_with("_total"), "a gauge is no counter: {line}");
            match kind {
                "HELP" => assert!(described.insert(name.to_owned()), "described twice: {line}"),
                "TYPE" => assert!(["gauge", "info"].contains(&said), "{line}"),
                _ => panic!("{line}"),
            }
            last = name.to_owned();
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let (metric, labels) = name.trim_end_matches('}').split_once('{').unwrap_or((name, ""));
        assert!(metric == last || metric == format!("{last}_info"), "a sample beside its description: {line}");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').unwrap();
            assert!(["policy", "state", "version"].contains(&label), "{line}");
            assert!(!value.contains('/'), "{line}");
        }
        let before = samples.insert(name.to_owned(), value.parse::<f64>().unwrap());
        assert!(before.is_none(), "the same sample twice: {line}");
    }
    samples
}

/// An independent reader of the same text, where there is one.
fn check_with_python(lab: &Lab, script: &str, files: &[&Path]) {
    let Some(python) = std::env::var_os("SNAPFERRY_TEST_PYTHON") else {
        return eprintln!("skipped: SNAPFERRY_TEST_PYTHON is not set");
    };
    let path = lab.path("check.py");
    fs::write(&path, script).unwrap();
    let output = Command::new(python).arg(&path).args(files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn metrics_say_how_it_stands() {
    let lab = Lab::new();
    configure(&lab, "rpo = \"1h\"\nschedule = \"* * * * * *\"");
    fill(&lab, 6);
    let mut serving = Serving::start(serve(&lab, "state", &[]));
    let line = serving.says(|line| line.contains("answering at http://"));
    let address = line.split("http://").nth(1).unwrap().trim_end_matches("/metrics").to_owned();
    assert_eq!(get(&address, "/healthz").1, "ok\n");
    serving.says(|line| line.contains("sealed snapshot-"));
    drop(serving);
    // The second start looks at what was sealed.
    let mut serving = Serving::start(serve(&lab, "state", &[]));
    let line = serving.says(|line| line.contains("answering at http://"));
    let address = line.split("http://").nth(1).unwrap().trim_end_matches("/metrics").to_owned();
    let deadline = Instant::now() + PATIENCE;
    let (head, text) = loop {
        let (head, text) = get(&address, "/metrics");
        if head.starts_with("HTTP/1.1 200") {
            break (head, text);
        }
        assert!(Instant::now() < deadline, "{head}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    let samples = check_metrics(&text);
    assert_eq!(samples["snapferry_rpo_seconds{policy=\"photos\"}"], 3600.0);
    assert_eq!(samples["snapferry_stale{policy=\"photos\"}"], 0.0);
    assert_eq!(samples["snapferry_sealed_objects{policy=\"photos\"}"], 24.0);
    assert_eq!(samples["snapferry_sealed_bytes{policy=\"photos\"}"], (24 * (64 << 10)) as f64);
    assert!(samples["snapferry_last_sealed_age_seconds{policy=\"photos\"}"] < 120.0);
    assert_eq!(samples["snapferry_policy_state{policy=\"photos\",state=\"fresh\"}"], 1.0);
    let file = lab.path("metrics.prom");
    fs::write(&file, &text).unwrap();
    let script = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as p\n\
                  n = [m.name for m in p(open(sys.argv[1]).read())]\nassert 'snapferry_rpo_seconds' in n, n\n";
    check_with_python(&lab, script, &[&file]);
    let status: Value = serde_json::from_str(&get(&address, "/status").1).unwrap();
    assert_eq!(status["policies"][0]["state"], "fresh");
}

#[test]
fn hooks_are_told_in_the_words_of_the_schema() {
    let lab = Lab::new();
    let heard = lab.path("heard");
    fs::create_dir(&heard).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/s3cret-token", listener.local_addr().unwrap());
    let (sender, posted) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let _ = sender.send(take_post(stream));
        }
    });
    let script = "d=$(mktemp -p \"$1\"); cat > \"$d\"; mv \"$d\" \"$d.json\"";
    let lines = format!(
        "rpo = \"1s\"\nretention = {{ keep_last = 1 }}\n[[policy.photos.hook]]\n\
         command = [\"sh\", \"-c\", {script:?}, \"sh\", {heard:?}]\n\
         [[policy.photos.hook]]\non = [\"failure\"]\nurl = \"{url}\"\n\
         [[policy.photos.hook]]\ncommand = [\"/nowhere/at-all\"]\n"
    );
    let config = configure(&lab, &format!("schedule = \"0 0 1 1 *\"\n{lines}"));
    let run = |code: i32| -> Outcome { lab.run(["run", "photos", "--config", config.to_str().unwrap()]).exits(code) };
    fill(&lab, 8);
    // One that cannot be told does no harm, and is named.
    run(0).says("/nowhere/at-all");
    fs::write(lab.path("target/0/0"), "drift").unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    let refused = run(3);
    assert!(!refused.stderr.contains("s3cret"), "{}", refused.stderr);
    let (head, body) = posted.recv_timeout(PATIENCE).unwrap();
    assert!(head.starts_with("POST /s3cret-token ") && head.contains("application/json"), "{head}");
    let event: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&event["event"], &event["policy"]), (&"failure".into(), &"photos".into()));
    assert!(event["message"].as_str().unwrap().contains("0/0") && event["hint"].is_string(), "{event}");
    assert_eq!(event["report"]["state"], "refused");
    // The sealed one is older than a second by now.
    let mut serving = Serving::start(serve(&lab, "state", &["--no-listen"]));
    let deadline = Instant::now() + PATIENCE;
    let events = loop {
        let files: Vec<PathBuf> = fs::read_dir(&heard).unwrap().map(|entry| entry.unwrap().path()).collect();
        let files: Vec<PathBuf> = files.into_iter().filter(|path| path.extension().is_some()).collect();
        let events: Vec<(PathBuf, Value)> = files
            .into_iter()
            .map(|path| (path.clone(), serde_json::from_slice(&fs::read(path).unwrap()).unwrap()))
            .collect();
        if events.iter().any(|(_, event)| event["event"] == "stale") {
            break events;
        }
        assert!(Instant::now() < deadline, "{events:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    serving.says(|line| line.contains("/nowhere/at-all"));
    let mut kinds: Vec<&str> = events.iter().map(|(_, event)| event["event"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["failure", "stale", "success"]);
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/hook.schema.json");
    let document: Value = serde_json::from_slice(&fs::read(&schema).unwrap()).unwrap();
    for (_, event) in &events {
        let (fields, known) = (event.as_object().unwrap(), document["properties"].as_object().unwrap());
        for name in document["required"].as_array().unwrap() {
            assert!(fields.contains_key(name.as_str().unwrap()), "{name} is not in {event}");
        }
        assert!(fields.keys().all(|name| known.contains_key(name)), "{event}");
    }
    let script = "import json, sys\nfrom jsonschema import Draft202012Validator as V\n\
                  s = json.load(open(sys.argv[1])); V.check_schema(s)\n\
                  [V(s).validate(json.load(open(f))) for f in sys.argv[2:]]\n\
                  try: V(s).validate({'event': 'success'})\nexcept Exception: pass\nelse: raise SystemExit('anything goes')\n";
    let files: Vec<&Path> =
        std::iter::once(schema.as_path()).chain(events.iter().map(|(path, _)| path.as_path())).collect();
    check_with_python(&lab, script, &files);
}

/// Reads a request and answers it.
fn take_post(mut stream: TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").unwrap();
    (head, String::from_utf8(body).unwrap())
}
