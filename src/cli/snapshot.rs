//! `snapferry snapshot …`

use std::fmt;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use super::options::Common;
use super::output::Output;
use crate::bucket::Bucket;
use crate::catalog::{Hold, Receipt, Record};
use crate::error::{Error, Kind, Result};
use crate::prune::remove;
use crate::report::Bytes;
use crate::snapshot::Name;
use crate::snapshot::clone::CloneMode;
use crate::table::Table;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Take a snapshot of a bucket.
    Create(Create),
    /// List a bucket's snapshots, the newest first.
    List(Which),
    /// Show a snapshot.
    Show(Named),
    /// Delete a snapshot.
    Delete(Delete),
    /// Keep a snapshot from being deleted.
    Hold(HoldArguments),
    /// Take a hold away.
    Release(Named),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The bucket.
    bucket: String,
    /// The snapshot's name [default: snapshot-YYYY-MM-DDTHHMMSSZ].
    name: Option<Name>,
    /// The bucket as it was at this time, as 2026-11-21T03:00:00Z; needs a bucket that keeps versions.
    #[arg(long, value_name = "TIME")]
    as_of: Option<Timestamp>,
    /// How a directory's snapshot shares its files: auto, reflink, hardlink or copy.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    clone: CloneMode,
    /// Refuse links and special files.
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// The bucket.
    bucket: String,
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// The bucket.
    bucket: String,
    /// The snapshot.
    name: Name,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// The bucket.
    bucket: String,
    /// The snapshot.
    name: Name,
    /// Delete it even if it is the newest sealed one, which the next sync would build on.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct HoldArguments {
    /// The bucket.
    bucket: String,
    /// The snapshot.
    name: Name,
    /// Why.
    #[arg(long)]
    reason: Option<String>,
}

/// A snapshot, for people and programs.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    record: Record,
    sealed: bool,
    state: &'static str,
    hold: Option<Hold>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { name, kind, created, root, objects, directories, bytes, .. } = &self.record;
        writeln!(f, "{name}")?;
        writeln!(f, "  created  {created}")?;
        writeln!(f, "  kind     {}", format!("{kind:?}").to_lowercase())?;
        match self.record.is_counted() {
            true => {
                writeln!(f, "  content  {objects} objects, {directories} directories, {}", Bytes(*bytes))?;
                write!(f, "  root     {root}")?;
            }
            false => write!(f, "  content  the store's own; `snapferry snapshot show` counts it")?,
        }
        if let Some(source) = &self.record.sealed_from {
            write!(f, "\n  sealed   from {source}")?;
        }
        if let Some(receipt) = &self.receipt {
            write!(f, ", proved by {}", receipt.verified)?;
        }
        if let Some(hold) = &self.hold {
            write!(f, "\n  held     {hold}")?;
        }
        let others = self.record.others;
        if others.total() > 0 {
            write!(f, "\n  left out {} links, {} special files", others.links, others.special)?;
        }
        Ok(())
    }
}

/// All snapshots of a bucket.
#[derive(Debug, Serialize)]
struct List {
    snapshots: Vec<Shown>,
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.snapshots.is_empty() {
            return f.write_str("no snapshots");
        }
        let mut table = Table::new(["NAME", "CREATED", "OBJECTS", "SIZE", "STATE"]).right(2).right(3);
        for shown in &self.snapshots {
            let Record { name, created, objects, bytes, .. } = &shown.record;
            let counted = |text: String| if shown.record.is_counted() { text } else { "-".into() };
            let held = if shown.hold.is_some() { ", held" } else { "" };
            table.row([
                name.to_string(),
                created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                counted(objects.to_string()),
                counted(Bytes(*bytes).to_string()),
                format!("{}{held}", shown.state),
            ]);
        }
        table.fmt(f)
    }
}

/// A sentence, for people; for programs the name and what became of it.
#[derive(Debug, Serialize)]
struct Done {
    snapshot: Name,
    state: &'static str,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.state, self.snapshot)
    }
}

pub(super) async fn run(command: Command, common: &Common, output: &Output) -> Result<()> {
    match command {
        Command::Create(arguments) => create(arguments, common, output).await,
        Command::List(Which { bucket }) => list(&bucket, common, output).await,
        Command::Show(Named { bucket, name }) => {
            let bucket = common.open(&bucket, CloneMode::Auto).await?;
            let record = bucket.existing(&name).await?.record;
            output.result(&shown(&bucket, record, true).await?, None)
        }
        Command::Delete(arguments) => delete(arguments, common, output).await,
        Command::Hold(HoldArguments { bucket, name, reason }) => {
            let bucket = common.open(&bucket, CloneMode::Auto).await?;
            bucket.record(&name).await?.ok_or_else(|| bucket.no_snapshot(&name))?;
            let since = Timestamp::now();
            let hold = |hold: &mut Hold| (hold.since, hold.reason) = (Some(since), reason.clone());
            bucket.catalog().change_hold(&name, hold).await?;
            output.result(&Done { snapshot: name, state: "held" }, None)
        }
        Command::Release(Named { bucket, name }) => {
            let bucket = common.open(&bucket, CloneMode::Auto).await?;
            bucket.record(&name).await?.ok_or_else(|| bucket.no_snapshot(&name))?;
            bucket.catalog().release(&name).await?;
            output.result(&Done { snapshot: name, state: "released" }, None)
        }
    }
}

/// Lists a bucket's snapshots, which is what can be restored.
pub(super) async fn list(bucket: &str, common: &Common, output: &Output) -> Result<()> {
    let bucket = common.open(bucket, CloneMode::Auto).await?;
    let mut snapshots = Vec::new();
    for record in bucket.records().await? {
        snapshots.push(shown(&bucket, record, false).await?);
    }
    output.result(&List { snapshots }, None)
}

async fn create(arguments: Create, common: &Common, output: &Output) -> Result<()> {
    let bucket = common.open(&arguments.bucket, arguments.clone).await?;
    let name = arguments.name.unwrap_or_else(|| bucket.provider().fitting(Name::at(Timestamp::now())));
    if bucket.record(&name).await?.is_some() {
        return Err(Error::new(Kind::Refused, format!("it has a snapshot {name} already"))
            .at(bucket.address())
            .hint("choose another name"));
    }
    let as_of_ns = arguments.as_of.map(|moment| i64::try_from(moment.as_nanosecond()).unwrap_or(i64::MAX));
    let taken = bucket.create_snapshot(&name, as_of_ns).await?;
    if arguments.strict && taken.others.total() > 0 {
        let others = taken.others;
        remove(&bucket, &taken).await?;
        return Err(Error::new(
            Kind::Refused,
            format!("it has {} links and {} special files, which are no content", others.links, others.special),
        )
        .at(bucket.address())
        .hint("remove them, or run without --strict to have them counted and left out"));
    }
    output.result(&shown(&bucket, taken, false).await?, None)
}

async fn delete(arguments: Delete, common: &Common, output: &Output) -> Result<()> {
    let bucket = common.open(&arguments.bucket, CloneMode::Auto).await?;
    let name = arguments.name;
    let record = bucket.record(&name).await?.ok_or_else(|| bucket.no_snapshot(&name))?;
    if let Some(hold) = bucket.catalog().hold(&name).await? {
        return Err(Error::new(Kind::Refused, format!("{name} is held {hold}"))
            .at(bucket.address())
            .hint("take the hold away with `snapferry snapshot release`"));
    }
    let newest = bucket.catalog().newest(Record::is_sealed).await?;
    if !arguments.force && newest.is_some_and(|newest| newest.name == name) {
        return Err(Error::new(
            Kind::Refused,
            format!("{name} is the newest sealed snapshot: the next sync builds on it"),
        )
        .at(bucket.address())
        .hint("sync a newer one first, or say --force; the next sync then compares everything"));
    }
    remove(&bucket, &record).await?;
    output.result(&Done { snapshot: name, state: "deleted" }, None)
}

async fn shown(bucket: &Bucket, record: Record, with_receipt: bool) -> Result<Shown> {
    let hold = bucket.catalog().hold(&record.name).await?;
    let receipt = if with_receipt { bucket.catalog().receipt(&record.name).await? } else { None };
    let sealed = record.is_sealed();
    Ok(Shown { sealed, state: if sealed { "sealed" } else { "taken" }, record, hold, receipt })
}
