//! `snapferry job`

use std::fmt;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use super::options::Common;
use super::output::Output;
use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::job::{Cancel, Job, Jobs, Line, Shown, State};
use crate::process::Process;
use crate::report::Bytes;
use crate::table::Table;

/// How often a log that is followed is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the jobs of this machine, the newest first.
    List(List),
    /// Show a job: where it stands, what it did, what is left.
    Show(Which),
    /// Stop a job that runs; the next run goes on with it.
    Cancel(Which),
    /// Show a job's log.
    Logs(Logs),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those of this policy.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Only those in this state, such as COPYING, FINISHED, FAILED or CANCELLED.
    #[arg(long)]
    state: Option<State>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value = "20")]
    limit: usize,
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// The job: its name, the beginning of its name, or `last`.
    job: String,
}

#[derive(Debug, Args)]
pub(super) struct Logs {
    /// The job: its name, the beginning of its name, or `last`.
    job: String,
    /// Go on until the job is over.
    #[arg(long, short)]
    follow: bool,
}

/// Jobs, the newest first.
#[derive(Debug, Serialize)]
struct Listed {
    jobs: Vec<Shown>,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.jobs.is_empty() {
            return f.write_str("no jobs");
        }
        let mut table = Table::new(["JOB", "STATE", "KIND", "POLICY", "SNAPSHOT", "TOOK", "COPIED"]).right(5).right(6);
        self.jobs.iter().for_each(|shown| table.row(row(shown)));
        table.fmt(f)
    }
}

fn row(shown: &Shown) -> [String; 7] {
    let Job { id, kind, policy, snapshot, progress, .. } = &shown.job;
    [
        id.clone(),
        shown.brief(),
        kind.to_string(),
        policy.clone().unwrap_or_else(|| "-".into()),
        snapshot.as_ref().map_or_else(|| "-".into(), |name| name.as_str().into()),
        format!("{:.1} s", shown.elapsed_ms as f64 / 1000.0),
        Bytes(progress.bytes_copied).to_string(),
    ]
}

/// A job that was told to stop.
#[derive(Debug, Serialize)]
struct Told {
    job: String,
    state: State,
    cancel: Option<Cancel>,
    /// Its process is on another machine, or in another container.
    elsewhere: Option<String>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "asked {} to stop in {}", self.job, self.state)?;
        match &self.elsewhere {
            Some(process) => write!(f, "; it is run by {process}, which has to see this to do so"),
            None => Ok(()),
        }
    }
}

/// A job's log.
#[derive(Debug, Serialize)]
struct Log {
    job: String,
    lines: Vec<Line>,
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, line) in self.lines.iter().enumerate() {
            let end = if number == 0 { "" } else { "\n" };
            write!(f, "{end}{line}")?;
        }
        Ok(())
    }
}

pub(super) async fn run(command: Command, common: &Common, output: &Output) -> Result<()> {
    let jobs = Jobs::at(&common.state_dir()?);
    match command {
        Command::List(List { policy, state, limit }) => {
            let (all, now) = (blocking(move || jobs.all()).await?, Timestamp::now());
            let wanted =
                |job: &Job| state.is_none_or(|state| job.state == state) && (policy.is_none() || job.policy == policy);
            let jobs = all.into_iter().filter(wanted).take(limit).map(|job| Shown::of(job, now)).collect();
            output.result(&Listed { jobs }, None)
        }
        Command::Show(Which { job }) => {
            let job = blocking(move || jobs.find(&job)).await?;
            output.result(&Shown::of(job, Timestamp::now()), None)
        }
        Command::Cancel(Which { job }) => {
            let wish = Cancel { by: user(), at: Timestamp::now() };
            let job = blocking(move || jobs.cancel(&jobs.find(&job)?.id, &wish)).await?;
            let process = job.process.as_ref().filter(|process| !process.is_visible());
            let elsewhere = process.map(|Process { pid, host, .. }| format!("process {pid} on {host}"));
            output.result(&Told { job: job.id, state: job.state, cancel: job.cancel, elsewhere }, None)
        }
        Command::Logs(Logs { job, follow }) => {
            let found = jobs.clone();
            let job = blocking(move || found.find(&job)).await?;
            if follow { self::follow(&jobs, job, output).await } else { log(&jobs, job, output).await }
        }
    }
}

async fn log(jobs: &Jobs, job: Job, output: &Output) -> Result<()> {
    let (jobs, id) = (jobs.clone(), job.id.clone());
    let lines = blocking(move || jobs.log(&id, None)).await?;
    let lines = lines.into_iter().map(|(_, line)| line).collect();
    output.result(&Log { job: job.id, lines }, None)
}

/// Prints the log as it grows. For programs it is one document all the same, which grows.
async fn follow(jobs: &Jobs, job: Job, output: &Output) -> Result<()> {
    let (mut last, mut first) = (None, true);
    if output.is_json() {
        output.line(&format!("{{\"job\":{},\"lines\":[", serde_json::Value::from(job.id.as_str())))?;
    }
    loop {
        // What is over by now has said all by now.
        let (read, id) = (jobs.clone(), job.id.clone());
        let (now, lines) = blocking(move || Ok((read.get(&id)?, read.log(&id, last)?))).await?;
        for (number, line) in lines {
            last = Some(number);
            let text = if output.is_json() {
                let json = serde_json::to_string(&line)
                    .map_err(|error| Error::internal("a line cannot be written as JSON").caused_by(error))?;
                if first { json } else { format!(",{json}") }
            } else {
                line.to_string()
            };
            first = false;
            output.line(&text)?;
        }
        if now.is_none_or(|job| Shown::of(job, Timestamp::now()).is_over()) {
            break;
        }
        tokio::time::sleep(INTERVAL).await;
    }
    if output.is_json() { output.finish("]}") } else { Ok(()) }
}

/// Who asks, for the record.
fn user() -> String {
    let Process { host, pid, .. } = Process::this();
    let name =
        ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let name = name.unwrap_or_else(|| format!("user {}", rustix::process::getuid().as_raw()));
    format!("{name}, process {pid} on {host}")
}
