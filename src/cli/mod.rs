//! The command line: arguments → configuration → run → exit code. One file per command.

mod bars;
mod diff;
mod job;
mod options;
mod output;
mod policy;
mod prune;
mod restore;
mod run;
mod serve;
mod snapshot;
mod status;
mod sync;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use self::options::Common;
use self::output::Output;
use crate::error::{Error, Kind, Result};

/// Keeps a bucket on a disaster-recovery site identical to the primary, snapshot by snapshot, and proves it.
///
/// A bucket is a directory, s3://bucket/prefix?endpoint=URL&region=NAME&profile=NAME, or NAME:prefix for a store of the
/// configuration file.
///
/// Exit codes: 0 done, 1 failed (run again to go on), 2 wrong usage, 3 refused (nothing touched), 4 the sides differ.
#[derive(Debug, Parser)]
#[command(name = "snapferry", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the target to a snapshot of the source, prove it and seal it.
    Sync(Box<sync::Arguments>),
    /// Show what changed between two snapshots of a bucket.
    Diff(diff::Arguments),
    /// Compare a snapshot on both sides.
    Verify(verify::Arguments),
    /// Make and look after snapshots.
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Bring a snapshot, or some keys of it, to a new place.
    Restore(restore::Arguments),
    /// Look at the policies of the configuration, and try whether they can run.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Run policies now: snapshot, replication, seal, pruning.
    Run(run::Arguments),
    /// Run policies by themselves, as they are scheduled.
    Serve(serve::Arguments),
    /// Show how all policies stand; exit 1 where somebody should look.
    Status,
    /// Remove the snapshots that no rule of their policy keeps.
    Prune(prune::Arguments),
    /// Look at what ran on this machine, and stop what runs.
    #[command(subcommand)]
    Job(job::Command),
}

/// Runs the program: reads the arguments of the process, does what they say and gives the exit code.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    start_logs(&arguments.common, matches!(arguments.command, Command::Serve(_)));
    let output = Output::new(arguments.common.json, arguments.common.quiet);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("io").build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(arguments, &output));
            // What still blocks on a disk or a dead server must not keep the program.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Error::from(error)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.failure(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::spawn(async move {
        stopped().await;
        stop.cancel();
        // Who asks twice does not want to wait.
        stopped().await;
        std::process::exit(1);
    });
    let common = arguments.common;
    match arguments.command {
        Command::Sync(arguments) => sync::run(*arguments, &common, output, cancel).await,
        Command::Diff(arguments) => diff::run(arguments, &common, output).await,
        Command::Verify(arguments) => verify::run(arguments, &common, output).await,
        Command::Snapshot(command) => snapshot::run(command, &common, output).await,
        Command::Restore(arguments) => restore::run(arguments, &common, output, cancel).await,
        Command::Policy(command) => policy::run(command, &common, output).await,
        Command::Run(arguments) => run::run(arguments, &common, output, cancel).await,
        Command::Serve(arguments) => serve::run(arguments, &common, cancel).await,
        Command::Status => status::run(&common, output).await,
        Command::Prune(arguments) => prune::run(arguments, &common, output, cancel).await,
        Command::Job(command) => job::run(command, &common, output).await,
    }
}

async fn stopped() {
    let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// What clap has to say: help and version are no failures.
fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let text = error.render().to_string();
        let what = text.trim().trim_start_matches("error: ").to_owned();
        Output::new(true, true).failure(&Error::new(Kind::Usage, what));
        return ExitCode::from(2);
    }
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

fn start_logs(common: &Common, serving: bool) {
    use std::io::IsTerminal;
    let level = match (common.quiet, common.verbose) {
        (true, _) => "error",
        // Who serves has nothing else to say.
        (false, 0) if serving => "snapferry=info,warn",
        (false, 0) => "warn",
        (false, 1) => "snapferry=info,warn",
        (false, 2) => "snapferry=debug,warn",
        (false, _) => "snapferry=trace,info",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("SNAPFERRY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(bars::writer)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let _ = if common.verbose > 0 || serving { logs.try_init() } else { logs.without_time().try_init() };
}
