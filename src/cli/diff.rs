//! `snapferry diff`

use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tokio::runtime::Handle;

use super::options::Common;
use super::output::Output;
use crate::blocking::blocking;
use crate::bucket::Bucket;
use crate::catalog::StoreSegments;
use crate::diff::{Change, diff, match_renames};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::manifest::{Entry, Kind, Manifest};
use crate::snapshot::Name;
use crate::snapshot::clone::CloneMode;

/// Memory for finding renames, in bytes.
const SORT_MEMORY: usize = 32 << 20;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The bucket.
    bucket: String,
    /// The older snapshot.
    from: Name,
    /// The newer snapshot.
    to: Name,
}

/// How many changes of each kind there are.
#[derive(Debug, Default)]
struct Counts {
    created: u64,
    modified: u64,
    renamed: u64,
    deleted: u64,
    directories: u64,
}

pub(super) async fn run(arguments: Arguments, common: &Common, output: &Output) -> Result<()> {
    let bucket = common.open(&arguments.bucket, CloneMode::Auto).await?;
    let (from, from_segments) = open(&bucket, &arguments.from).await?;
    let (to, to_segments) = open(&bucket, &arguments.to).await?;
    let folder = common.folder("tmp")?;
    let (sender, mut receiver) = tokio::sync::mpsc::channel(256);
    let reading = blocking(move || {
        let changes = diff(&from, from_segments, &to, to_segments);
        for change in match_renames(changes, &folder, SORT_MEMORY)? {
            if sender.blocking_send(change?).is_err() {
                break;
            }
        }
        Ok(())
    });
    let printing = async {
        let mut counts = Counts::default();
        if output.is_json() {
            print!("{{\"changes\":[");
        }
        let mut first = true;
        while let Some(change) = receiver.recv().await {
            counts.add(&change);
            if output.is_json() {
                let comma = if std::mem::take(&mut first) { "" } else { "," };
                print!("{comma}{}", as_json(&change));
            } else if !output.is_quiet() {
                output.line(&as_text(&change))?;
            }
        }
        Ok::<_, Error>(counts)
    };
    let (read, counts) = tokio::join!(reading, printing);
    let counts = counts?;
    if output.is_json() {
        let error = read.as_ref().err().map(ToString::to_string);
        output.finish(&format!(
            "],\"from\":{},\"to\":{},\"created\":{},\"modified\":{},\"renamed\":{},\"deleted\":{},\"directories\":{},\"error\":{}}}",
            json!(arguments.from),
            json!(arguments.to),
            counts.created,
            counts.modified,
            counts.renamed,
            counts.deleted,
            counts.directories,
            json!(error),
        ))?;
    } else if read.is_ok() && !output.is_quiet() {
        let Counts { created, modified, renamed, deleted, directories } = counts;
        output.line(&format!(
            "created {created}  modified {modified}  renamed {renamed}  deleted {deleted}  directories {directories}"
        ))?;
    }
    read
}

async fn open(bucket: &Bucket, name: &Name) -> Result<(Manifest, Arc<StoreSegments>)> {
    let catalog = bucket.existing(name).await?.catalog;
    Ok((catalog.manifest(name).await?, Arc::new(StoreSegments::new(&catalog, Handle::current()))))
}

impl Counts {
    fn add(&mut self, change: &Change) {
        let entry = match change {
            Change::Created(entry) | Change::Deleted(entry) => entry,
            Change::Modified { to, .. } | Change::Renamed { to, .. } => to,
        };
        let counter = match (entry.kind, change) {
            (Kind::Directory, _) => &mut self.directories,
            (_, Change::Created(_)) => &mut self.created,
            (_, Change::Modified { .. }) => &mut self.modified,
            (_, Change::Renamed { .. }) => &mut self.renamed,
            (_, Change::Deleted(_)) => &mut self.deleted,
        };
        *counter += 1;
    }
}

/// One line: `+` created, `M` modified, `R` renamed, `-` deleted, as Ozone and HDFS print it.
fn as_text(change: &Change) -> String {
    match change {
        Change::Created(entry) => format!("+  {}", entry.key),
        Change::Deleted(entry) => format!("-  {}", entry.key),
        Change::Modified { to, .. } => format!("M  {}", to.key),
        Change::Renamed { from, to, .. } => format!("R  {} -> {}", from.key, to.key),
    }
}

fn as_json(change: &Change) -> serde_json::Value {
    let one = |kind: &str, entry: &Entry, from: Option<&Key>| json!({ "change": kind, "key": entry.key, "from": from, "size": entry.size, "directory": entry.kind == Kind::Directory });
    match change {
        Change::Created(entry) => one("created", entry, None),
        Change::Deleted(entry) => one("deleted", entry, None),
        Change::Modified { to, .. } => one("modified", to, None),
        Change::Renamed { from, to, .. } => one("renamed", to, Some(&from.key)),
    }
}
