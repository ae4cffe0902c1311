//! Thirty nights of a policy by a clock that is set, over the end of summer time: changes every day, two nights that fail
//! half-way, a machine that is lost. What each night leaves is compared with what the test knows by itself.

#![allow(clippy::unwrap_used)] // In helpers of tests a panic is the failure.

mod checks;
mod days;
#[path = "../harness/mod.rs"]
mod harness;
mod side;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use days::{Days, kept_by_calendar};
use harness::Lab;
use harness::model::Content;
use harness::s3::Server;
use jiff::civil::{Date, Time, date, time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use side::{Place, Side};
use snapferry::catalog::Hold;
use snapferry::clock::Clock;
use snapferry::config::Config;
use snapferry::error::Result;
use snapferry::policy::{Host, Policy, Ran, run};
use snapferry::progress::{Phase, Progress};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const NIGHTS: u32 = 30;
const FIRST: Date = date(2026, 10, 10);

/// Nights that fail half-way. Before the one after the second, the machine is lost.
const FAILS: [u32; 2] = [9, 17];
const LOST: u32 = FAILS[1] + 1;

/// Days on which nothing changes.
const QUIET: [u32; 4] = [7, 14, 21, NIGHTS];

/// Days on which the policy is run by hand, too, at noon.
const BY_HAND: [u32; 2] = [5, 15];

/// A night whose snapshot somebody holds on the target, and when it is let go.
const HELD: (u32, u32) = (4, 24);

/// On this day somebody takes snapshots by hand, under a name of the policy's making.
const TAKEN_BY_HAND: u32 = 3;
const BY_HAND_NAME: &str = "night-2026-09-30T0200";

/// Objects that have crossed when a night fails.
const HALF_WAY: u64 = 5;

/// In the environment of a process that runs a night: which.
const WORK: &str = "SNAPFERRY_TEST_NIGHT";

/// How a night fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Failure {
    /// Somebody stops it.
    Cancelled,
    /// Its process is killed.
    Killed,
    /// The target's server goes away, and the policy's time is up.
    Away,
}

/// What a night was about.
struct Night {
    name: String,
    day: Date,
    content: Content,
    /// By the policy; else by hand.
    ours: bool,
}

struct Story {
    runtime: Runtime,
    lab: Lab,
    source: Side,
    target: Side,
    clock: Clock,
    host: Host,
    /// The nights of which something is left on a side.
    nights: Vec<Night>,
    /// The snapshots that there should be, the oldest first.
    kept: [Vec<String>; 2],
    held: Option<String>,
    /// The newest sealed snapshot, and when its content was taken.
    sealed: Option<(String, Timestamp)>,
    /// What this machine knows to have run, the oldest first.
    jobs: Vec<(String, &'static str)>,
}

fn zone() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

fn at(day: Date, time: Time) -> Timestamp {
    day.to_datetime(time).to_zoned(zone()).unwrap().timestamp()
}

/// The policy that takes the place of the script, with more lines.
fn policy(source: &str, target: &str, more: &str) -> Policy {
    let text = format!(
        r#"[policy.photos]
source = "{source}"
target = "{target}"
schedule = "0 2 * * *"
time_zone = "Europe/Berlin"
snapshot = "night-%Y-%m-%dT%H%M"
retention = {{ target = {{ daily = 7, weekly = 4 }}, source = {{ keep_last = 2 }} }}
rpo = "26h"
{more}"#
    );
    Config::parse(&text).unwrap().policy("photos").unwrap().clone()
}

/// So slow that something can come in between.
const SLOWLY: &str = "bandwidth = \"256KiB\"\nconcurrency = 2";

fn host(state_dir: PathBuf, clock: &Clock) -> Host {
    Host { clock: clock.clone(), ..Host::at(state_dir) }
}

impl Story {
    fn new(lab: Lab, source: Place, target: Place) -> Self {
        let clock = Clock::at(at(FIRST, time(1, 0, 0, 0)));
        let side = |place| Side::new(place, lab.path(""));
        let (source, target) = (side(source), side(target));
        let host = host(lab.path("machine"), &clock);
        let runtime = Runtime::new().unwrap();
        let (nights, kept, jobs) = (Vec::new(), [Vec::new(), Vec::new()], Vec::new());
        Self { runtime, lab, source, target, clock, host, nights, kept, held: None, sealed: None, jobs }
    }

    fn policy(&self, more: &str) -> Policy {
        policy(&self.source.url(), &self.target.url(), more)
    }

    fn sides(&self) -> [&Side; 2] {
        [&self.source, &self.target]
    }

    /// Thirty days and nights.
    fn tell(mut self, seed: u64, failures: [Failure; 2]) {
        println!("seed {seed}");
        let mut days = Days::new(seed, self.source.bucket().is_none());
        let (mut content, mut last) = (Content::default(), at(FIRST, Time::MIN));
        for number in 1..=NIGHTS {
            let day = FIRST.checked_add(i64::from(number - 1).days()).unwrap();
            let due = self.policy("").next_run(last).unwrap().timestamp();
            assert_eq!(due, at(day, time(2, 0, 0, 0)), "night {number}");
            last = due;
            if number == LOST {
                self.host = host(self.lab.path("another machine"), &self.clock);
                // What is known of earlier runs is what the receipts on the target tell.
                let receipts = self.kept[1].iter().filter(|name| self.known(name).ours);
                self.jobs = receipts.map(|name| (name.clone(), "FINISHED")).collect();
            }
            if QUIET.contains(&number) {
                // A server tells times in seconds: what was written last night is to be older than this one's seal.
                self.source.bucket().inspect(|_| std::thread::sleep(Duration::from_millis(1100)));
            } else {
                let busy = [number - 1, number].map(|number| FAILS.contains(&number));
                let before = content.clone();
                let changes = days.pass(number, &mut content, busy);
                self.source.change(&before, &changes, &mut content);
            }
            self.clock.set(due);
            if number > 1 {
                self.watch(if FAILS.contains(&(number - 1)) { "stale" } else { "fresh" });
            }
            let failure = FAILS.iter().position(|night| *night == number).map(|place| failures[place]);
            self.night(day, due, &content, failure);
            if number == HELD.0 {
                self.hold();
            } else if number == HELD.1 {
                self.let_go();
            }
            self.noon(number, day, &content);
        }
        let night = |day: &str| format!("night-2026-{day}T0200");
        assert_eq!(self.kept[0], ["09-30", "11-07", "11-08"].map(night));
        // On the last day of one week the night failed.
        let weeks = ["09-30", "10-17", "10-25", "11-01"].map(night);
        let days = ["11-02", "11-03", "11-04", "11-05", "11-06", "11-07", "11-08"].map(night);
        assert_eq!(self.kept[1], [&weeks[..], &days].concat());
    }

    /// Runs what is due and checks what came of it.
    fn night(&mut self, day: Date, due: Timestamp, content: &Content, failure: Option<Failure>) {
        let began = due + SignedDuration::from_secs(7);
        let name = self.policy("").snapshot_name(due).unwrap().to_string();
        self.clock.set(began);
        let base = self.sealed.as_ref().map(|(base, _)| base.clone());
        self.nights.push(Night { name: name.clone(), day, content: content.clone(), ours: true });
        self.kept[0].push(name.clone());
        match failure {
            Some(failure) => {
                let job = self.fail(failure, due, began);
                self.jobs.push((name, job));
            }
            None => {
                let (ran, outcome) = self.run(due, began);
                outcome.unwrap_or_else(|error| panic!("{name}: {error}\n{ran}"));
                assert_eq!(ran.missing, [] as [String; 0], "{name}");
                assert!(ran.pruned.iter().all(|pruned| pruned.put_off.is_none()), "{name}: {ran}");
                assert_eq!(ran.report.base.as_ref().map(ToString::to_string), base, "{name}");
                let base = base.map_or(Content::default(), |base| self.known(&base).content.clone());
                self.check_copied(&name, &base, content, ran.report.objects_copied);
                self.kept[1].push(name.clone());
                self.sealed = Some((name.clone(), began));
                self.jobs.push((name, "FINISHED"));
                self.retain();
            }
        }
        self.clock.set(began + SignedDuration::from_mins(25));
        self.watch(if failure.is_some() { "failing" } else { "fresh" });
        self.check_jobs();
        let number = day.since(FIRST).unwrap().get_days() as u32 + 1;
        self.check_sides(number, failure.is_none(), content);
    }

    /// Each object crosses once at most, and after a night that failed not even that: what had landed is there.
    fn check_copied(&self, name: &str, base: &Content, content: &Content, copied: u64) {
        let differ = |(key, data): &(&Vec<u8>, &Vec<u8>)| !key.ends_with(b"/") && base.0.get(*key) != Some(*data);
        let differ = content.0.iter().filter(differ).count() as u64;
        let goes_on = self.jobs.last().is_some_and(|(_, state)| *state != "FINISHED");
        assert!(copied <= differ, "{name} copied {copied} objects where {differ} are new or changed");
        assert!(!goes_on || copied < differ, "{name} copied {copied} of {differ} objects, some of which had landed");
    }

    /// What else happens on a day.
    fn noon(&mut self, number: u32, day: Date, content: &Content) {
        let noon = at(day, time(12, 0, 0, 0));
        self.clock.set(noon);
        self.watch(if FAILS.contains(&number) { "stale" } else { "fresh" });
        if BY_HAND.contains(&number) {
            self.night(day, noon, content, None);
        }
        if number == TAKEN_BY_HAND {
            for side in [&self.source, &self.target] {
                let name = BY_HAND_NAME.parse().unwrap();
                let taken = async { side.open(&self.clock).await.create_snapshot(&name, None).await };
                self.runtime.block_on(taken).unwrap();
            }
            self.kept.iter_mut().for_each(|kept| kept.insert(0, BY_HAND_NAME.into()));
            let content = content.clone();
            self.nights.insert(0, Night { name: BY_HAND_NAME.into(), day, content, ours: false });
        }
    }

    fn hold(&mut self) {
        let (name, _) = self.sealed.clone().unwrap();
        let since = self.clock.now();
        let hold = |hold: &mut Hold| hold.since = Some(since);
        let held =
            async { self.target.open(&self.clock).await.catalog().change_hold(&name.parse().unwrap(), hold).await };
        self.runtime.block_on(held).unwrap();
        self.held = Some(name);
    }

    fn let_go(&mut self) {
        let name = self.held.take().unwrap().parse().unwrap();
        let released = async { self.target.open(&self.clock).await.catalog().release(&name).await };
        self.runtime.block_on(released).unwrap();
    }

    /// Runs the policy; while it is under way, the clock goes on.
    fn run(&self, due: Timestamp, began: Timestamp) -> (Ran, Result<()>) {
        let (policy, progress, cancel) = (self.policy(""), Arc::new(Progress::default()), CancellationToken::new());
        let night = run(&policy, due, &self.host, progress.clone(), cancel);
        let later = async {
            while progress.phase() < Phase::Diffing {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.clock.set(began + SignedDuration::from_mins(20));
            std::future::pending::<()>().await;
        };
        self.runtime.block_on(async {
            tokio::select! { done = night => done, () = later => unreachable!() }
        })
    }

    /// Runs the policy until some objects have crossed, and then no further. What the job says of itself.
    fn fail(&self, failure: Failure, due: Timestamp, began: Timestamp) -> &'static str {
        if failure == Failure::Killed {
            self.kill(due, began);
            return "COPYING (interrupted)";
        }
        let timeout = if failure == Failure::Away { "\ntimeout = \"5s\"" } else { "" };
        let policy = self.policy(&format!("{SLOWLY}{timeout}"));
        let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
        let night = run(&policy, due, &self.host, progress.clone(), cancel.clone());
        let proxy = match &self.target.place {
            Place::Server(_, proxy) => proxy.as_ref(),
            Place::Directory(_) => None,
        };
        let half_way = async {
            while Progress::read(&progress.objects_copied) < HALF_WAY {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            match failure {
                Failure::Away => {
                    proxy.unwrap().cut();
                    cancel.cancelled().await;
                    // It is back in time to be told that nobody is at work any more; else the lease has to run out first.
                    proxy.unwrap().mend();
                }
                _ => cancel.cancel(),
            }
            std::future::pending::<()>().await;
        };
        let since = Instant::now();
        let (ran, outcome) = self.runtime.block_on(async {
            tokio::select! { done = night => done, () = half_way => unreachable!() }
        });
        println!("{failure:?} after {:?}: {}", since.elapsed(), outcome.as_ref().unwrap_err());
        let copied = ran.report.objects_copied;
        assert!((HALF_WAY..Progress::read(&progress.objects_planned)).contains(&copied), "{copied} objects copied");
        assert_eq!(ran.pruned, []);
        if failure == Failure::Away {
            assert!(outcome.unwrap_err().to_string().contains("timed out"));
            return "FAILED";
        }
        "CANCELLED"
    }

    fn kill(&self, due: Timestamp, began: Timestamp) {
        let work = (self.source.url(), self.target.url(), due, began, self.host.state_dir.clone());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "runs_a_night_for_another_process"])
            .env(WORK, serde_json::to_string(&work).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let since = Instant::now();
        loop {
            assert!(since.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(), "never half-way");
            std::thread::sleep(Duration::from_millis(20));
            let copied =
                self.host.jobs.all().unwrap().iter().map(|job| (job.created, job.progress.objects_copied)).max();
            if copied.is_some_and(|(created, copied)| created == began && copied >= HALF_WAY) {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn known(&self, name: &str) -> &Night {
        self.nights.iter().find(|night| night.name == name).unwrap()
    }

    /// Lets go of what the rules let go of: on the source all but the last two, on the target all but the newest of seven
    /// days and of four weeks; never what is held, nor what somebody took by hand.
    fn retain(&mut self) {
        let ours = |name: &&String| self.known(name).ours;
        let days = |kept: &[String]| kept.iter().rev().map(|name| self.known(name).day).collect::<Vec<_>>();
        let mut going = BTreeSet::new();
        let target: Vec<String> = self.kept[1].iter().filter(ours).cloned().collect();
        let stay = kept_by_calendar(&days(&target), 7, 4);
        let goes = target.iter().rev().enumerate().filter(|(place, _)| !stay.contains(place)).map(|(_, name)| name);
        going.extend(goes.filter(|name| self.held.as_ref() != Some(name)).map(|name| (1, name.clone())));
        let source: Vec<String> = self.kept[0].iter().filter(ours).cloned().collect();
        going.extend(source.into_iter().rev().skip(2).map(|name| (0, name)));
        for (side, gone) in going {
            self.kept[side].retain(|name| *name != gone);
        }
        let kept = &self.kept;
        self.nights.retain(|night| kept.iter().any(|kept| kept.contains(&night.name)));
    }
}

/// Runs the night that another process of this test is started for, and is killed in.
#[test]
fn runs_a_night_for_another_process() {
    let Ok(work) = std::env::var(WORK) else { return };
    let (source, target, due, began, state_dir): (String, String, Timestamp, Timestamp, PathBuf) =
        serde_json::from_str(&work).unwrap();
    let policy = policy(&source, &target, SLOWLY);
    let host = host(state_dir, &Clock::at(began));
    let night = run(&policy, due, &host, Arc::default(), CancellationToken::new());
    let (ran, _) = Runtime::new().unwrap().block_on(night);
    panic!("it was to be killed: {ran}");
}

#[test]
fn thirty_nights_between_directories() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    std::fs::create_dir(&source).unwrap();
    Story::new(lab, Place::Directory(source), Place::Directory(target))
        .tell(6001, [Failure::Cancelled, Failure::Killed]);
}

fn thirty_nights_on(variable: &str, seed: u64, failures: [Failure; 2]) {
    let Some(server) = Server::from_environment(variable) else { return };
    let (source, target) = (server.bucket("nights-source"), server.bucket("nights-target"));
    let proxy = target.proxy();
    Story::new(Lab::new(), Place::Server(source, None), Place::Server(target, Some(proxy))).tell(seed, failures);
}

#[test]
fn thirty_nights_on_a_server() {
    thirty_nights_on("SNAPFERRY_TEST_S3", 6002, [Failure::Away, Failure::Killed]);
}

#[test]
fn thirty_nights_on_a_server_that_lists_in_order() {
    // Nothing is learnt from it that the other server and the tests of pruning do not tell as well, and it takes a minute.
    if std::env::var_os("SNAPFERRY_TEST_ALL_NIGHTS").is_none() {
        return eprintln!("skipped: SNAPFERRY_TEST_ALL_NIGHTS is not set");
    }
    thirty_nights_on("SNAPFERRY_TEST_S3_ORDERED", 6003, [Failure::Killed, Failure::Away]);
}
