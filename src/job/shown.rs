//! What a job's record means at this moment: a process that was killed cannot write that it was.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::{Counts, Job, State};
use crate::progress::Phase;
use crate::report::Bytes;
use crate::snapshot::Name;

/// A process that cannot be seen from here and has not written for so long counts as gone, in seconds. One that runs writes
/// every few seconds.
const SILENT_S: i64 = 60;

/// A job as it is now.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// Its record.
    #[serde(flatten)]
    pub job: Job,
    /// Its process is gone and has not ended it.
    pub interrupted: bool,
    /// How that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interrupted_why: Option<String>,
    /// How long it took, or has taken so far, in milliseconds.
    pub elapsed_ms: u64,
    /// What it has not done, if it did not finish.
    pub left: Option<Left>,
}

/// What a job has not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    /// The phase it is in, or stopped in.
    pub phase: Phase,
    /// Objects that are not through; zero before there is a plan.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Shown {
    /// What the record means at this moment.
    pub fn of(job: Job, now: Timestamp) -> Self {
        let interrupted_why = if job.state.is_ended() { None } else { gone(&job, now) };
        let until = match (job.ended, &interrupted_why) {
            (Some(ended), _) => ended,
            (None, Some(_)) => job.seen,
            (None, None) => now,
        };
        let elapsed_ms = u64::try_from(until.duration_since(job.created).as_millis()).unwrap_or(0);
        Self { interrupted: interrupted_why.is_some(), interrupted_why, elapsed_ms, left: left(&job), job }
    }

    /// True when nothing will come of it any more: it has ended, or its process is gone.
    pub fn is_over(&self) -> bool {
        self.job.state.is_ended() || self.interrupted
    }

    /// Where it stands, in a word or two.
    pub fn brief(&self) -> String {
        if self.interrupted { format!("{} (interrupted)", self.job.state) } else { self.job.state.to_string() }
    }
}

/// How it is known that a job's process is gone.
fn gone(job: &Job, now: Timestamp) -> Option<String> {
    let process = job.process.as_ref()?;
    let (pid, host) = (process.pid, &process.host);
    if process.is_dead() {
        Some(format!("process {pid} is gone"))
    } else if process.is_before_restart() {
        Some(format!("{host} has been started anew since"))
    } else if !process.is_visible() && now.duration_since(job.seen).as_secs() > SILENT_S {
        Some(format!("nothing was heard of process {pid} on {host} since {}", seconds(job.seen)))
    } else {
        None
    }
}

fn left(job: &Job) -> Option<Left> {
    if job.state == State::Finished {
        return None;
    }
    let last = job.phases.last().map(|last| last.phase).unwrap_or_default();
    let phase = if let State::Running(phase) = job.state { phase } else { last };
    let Counts { objects_planned, objects_done, bytes_planned, bytes_done, .. } = job.progress;
    let (objects, bytes) = (objects_planned.saturating_sub(objects_done), bytes_planned.saturating_sub(bytes_done));
    Some(Left { phase, objects, bytes })
}

fn seconds(moment: Timestamp) -> impl fmt::Display {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ")
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Job { id, kind, policy, source, target, snapshot, state, created, progress, .. } = &self.job;
        write!(f, "{id}\n  state     {state}")?;
        if let Some(why) = &self.interrupted_why {
            write!(f, " (interrupted: {why}; the next run goes on)")?;
        }
        write!(f, "\n  kind      {kind}")?;
        let named: [(&str, Option<&str>); 5] = [
            ("policy", policy.as_deref()),
            ("source", source.as_deref()),
            ("target", Some(target)),
            ("snapshot", snapshot.as_ref().map(Name::as_str)),
            ("goes on", self.job.goes_on.as_deref()),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                write!(f, "\n  {name:9} {value}")?;
            }
        }
        let took = if self.is_over() { "took" } else { "so far" };
        write!(f, "\n  began     {}, {took} {:.1} s", seconds(*created), self.elapsed_ms as f64 / 1000.0)?;
        if let Some(seconds) = self.job.timeout_s {
            write!(f, ", at most {seconds} s")?;
        }
        let Counts { objects_planned, objects_done, objects_copied, bytes_planned, bytes_done, .. } = progress;
        write!(f, "\n  progress  {objects_done} of {objects_planned} objects")?;
        write!(f, ", {} of {}", Bytes(*bytes_done), Bytes(*bytes_planned))?;
        write!(f, "; copied {objects_copied} objects, {}", Bytes(progress.bytes_copied))?;
        write!(f, "; already there {}; {} retries", Bytes(progress.bytes_reused), progress.retries)?;
        if let Some(Left { phase, objects, bytes }) = &self.left {
            write!(f, "\n  left      {objects} objects, {}, in {phase}", Bytes(*bytes))?;
        }
        if let Some(process) = self.job.process.as_ref().filter(|_| !self.is_over()) {
            write!(f, "\n  process   {} on {}", process.pid, process.host)?;
        }
        if let Some(cancel) = &self.job.cancel {
            write!(f, "\n  cancel    asked for by {}, {}", cancel.by, seconds(cancel.at))?;
        }
        for phase in &self.job.phases {
            let took = phase.took_ms as f64 / 1000.0;
            write!(f, "\n  phase     {:12}  {}  {took:>9.1} s", phase.phase, seconds(phase.began))?;
        }
        for retried in &self.job.retried {
            write!(f, "\n  retried   {}  {}", seconds(retried.at), retried.message)?;
        }
        if let Some(error) = &self.job.error {
            write!(f, "\n  error     {}", error.message)?;
            if let Some(hint) = &error.hint {
                write!(f, "\n  to do     {hint}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Kind, PhaseTime};
    use crate::process::Process;

    fn running(process: Option<Process>) -> (Job, Timestamp) {
        let now: Timestamp = "2026-11-21T03:00:00Z".parse().unwrap();
        let mut job = Job::new("job-1".into(), Kind::Sync, "/target", now);
        job.state = State::Running(Phase::Copying);
        job.phases = vec![PhaseTime { phase: Phase::Copying, began: now, took_ms: 500 }];
        job.progress =
            Counts { objects_planned: 10, objects_done: 4, bytes_planned: 100, bytes_done: 30, ..Counts::default() };
        job.seen = now + jiff::SignedDuration::from_secs(7);
        job.process = process;
        (job, now + jiff::SignedDuration::from_secs(1000))
    }

    #[test]
    fn a_job_of_a_living_process_runs() {
        let (job, now) = running(Some(Process::this()));
        let shown = Shown::of(job, now);
        assert!(!shown.interrupted && !shown.is_over());
        assert_eq!(shown.elapsed_ms, 1_000_000);
        assert_eq!(shown.left, Some(Left { phase: Phase::Copying, objects: 6, bytes: 70 }));
    }

    #[test]
    fn a_job_of_a_dead_process_is_interrupted() {
        let this = Process::this();
        let (job, now) = running(Some(Process { started: this.started + 1, pid: 123, ..this }));
        let shown = Shown::of(job, now);
        assert!(shown.interrupted && shown.is_over());
        assert_eq!(shown.elapsed_ms, 7000, "it is known to have run until it last wrote");
        let text = shown.to_string();
        assert!(text.contains("COPYING (interrupted: process 123 is gone; the next run goes on)"), "{text}");
        assert!(text.contains("6 objects, 70 B, in COPYING"), "{text}");
    }

    #[test]
    fn a_process_that_cannot_be_seen_is_gone_when_it_is_silent() {
        let elsewhere = Process { host: "elsewhere".into(), boot: "another".into(), ..Process::this() };
        let (job, now) = running(Some(elsewhere.clone()));
        let soon = job.seen + jiff::SignedDuration::from_secs(SILENT_S);
        assert!(!Shown::of(job.clone(), soon).interrupted);
        assert!(Shown::of(job.clone(), now).interrupted_why.unwrap().contains("elsewhere"));
        let restarted = Process { boot: "another start".into(), ..Process::this() };
        assert!(Shown::of(Job { process: Some(restarted), ..job.clone() }, soon).interrupted);
        let ended = Job { state: State::Finished, ended: Some(now), process: Some(elsewhere), ..job };
        let shown = Shown::of(ended, now);
        assert!(!shown.interrupted && shown.left.is_none());
    }
}
