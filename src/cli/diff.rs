//! `snapferry diff`

use std::ops::Range;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tokio::runtime::Handle;

use super::options::Common;
use super::output::Output;
use crate::blocking::blocking;
use crate::bucket::Snapshot;
use crate::catalog::StoreSegments;
use crate::delta::changed_ranges;
use crate::diff::{Change, diff, match_renames};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::manifest::{Blocks, Entry, Kind, Manifest};
use crate::snapshot::Name;
use crate::snapshot::clone::CloneMode;
use crate::store::Store;
use crate::transfer::{BLOCK_BYTES, Budget, content};

/// Bytes in flight where objects are read.
const BYTES_IN_FLIGHT: u64 = 64 << 20;

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
    /// Name the ranges that changed of each object, too. Reads the objects whose block digests are not known.
    #[arg(long)]
    blocks: bool,
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
    let (older, newer) = (bucket.existing(&arguments.from).await?, bucket.existing(&arguments.to).await?);
    let contents = match arguments.blocks {
        true => Some(Contents::open(&older, &newer).await?),
        false => None,
    };
    let (from, from_segments) = open(&older).await?;
    let (to, to_segments) = open(&newer).await?;
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
            let ranges = match &contents {
                Some(contents) => contents.changed(&change).await?,
                None => None,
            };
            if output.is_json() {
                let comma = if std::mem::take(&mut first) { "" } else { "," };
                let mut line = as_json(&change);
                if let Some(ranges) = ranges {
                    line["blocks"] = ranges.iter().map(|range| json!([range.start, range.end])).collect();
                }
                print!("{comma}{line}");
            } else if !output.is_quiet() {
                output.line(&as_text(&change))?;
                for range in ranges.into_iter().flatten() {
                    output.line(&format!("     {}-{}", range.start, range.end))?;
                }
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

async fn open(snapshot: &Snapshot) -> Result<(Manifest, Arc<StoreSegments>)> {
    let (catalog, name) = (&snapshot.catalog, &snapshot.record.name);
    Ok((catalog.manifest(name).await?, Arc::new(StoreSegments::new(catalog, Handle::current()))))
}

/// Both snapshots, to read what is not known of their objects.
struct Contents {
    stores: [Arc<dyn Store>; 2],
    budget: Budget,
}

impl Contents {
    async fn open(older: &Snapshot, newer: &Snapshot) -> Result<Self> {
        let reader = async |snapshot: &Snapshot| snapshot.provider.reader(&snapshot.record.name).await;
        let stores = [reader(older).await?, reader(newer).await?];
        Ok(Self { stores, budget: Budget::new(BYTES_IN_FLIGHT) })
    }

    /// The ranges that changed of an object whose content did; all of it where it is shorter than a block.
    async fn changed(&self, change: &Change) -> Result<Option<Vec<Range<u64>>>> {
        let Change::Modified { from, to, content: true } = change else { return Ok(None) };
        if to.kind != Kind::Object || to.size == 0 {
            return Ok(None);
        }
        let [old, new] = [self.blocks(0, from).await?, self.blocks(1, to).await?];
        Ok(Some(match (old, new) {
            (Some(old), Some(new)) => changed_ranges(&old, &new, to.size),
            _ => std::iter::once(0..to.size).collect(),
        }))
    }

    async fn blocks(&self, side: usize, entry: &Entry) -> Result<Option<Blocks>> {
        if entry.blocks.is_some() || entry.size < BLOCK_BYTES {
            return Ok(entry.blocks.clone());
        }
        let read = content(&*self.stores[side], entry, false, BLOCK_BYTES, &self.budget, |_| {}).await;
        Ok(read.map_err(|error| error.key(&entry.key))?.blocks)
    }
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
