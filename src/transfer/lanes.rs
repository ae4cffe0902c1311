//! The lanes: each walks the plan and keeps as many objects under way as its limiter allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Transfer;
use crate::error::{Error, Kind, Result};
use crate::key::Key;
use crate::manifest::Kind as EntryKind;
use crate::plan::{Landing, Method, Spool};

/// Landings that are started together where both sides are directories.
const BATCH: usize = 32;

/// Batches that wait to be started.
const WAITING_MAX: usize = 8;

/// Large objects under way at once: bounds the open uploads; their parts share the lane.
const LARGE_OBJECTS_MAX: usize = 4;

/// After this many failed objects the rest is not tried.
const FAILURES_MAX: usize = 100;

/// The share of a request in an operation's work, in bytes: so that small objects count, too.
const REQUEST_WORK: u64 = 64 << 10;

/// Failures named one by one.
const NAMED_MAX: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// Markers of directories, where there are no real ones: servers that keep keys as paths of a file system take one
    /// that comes at the same time as something in it for the folder that they make themselves, and lose it.
    Markers,
    Small,
    Large,
}

impl Transfer {
    /// Lands everything that is read or copied. Objects that fail do not keep the others from landing; the error then
    /// names them.
    pub async fn run(self: &Arc<Self>, landings: &Arc<Spool<Landing>>) -> Result<()> {
        self.drop_marked().await?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut failures = match self.target.capabilities().directories {
            true => Vec::new(),
            false => self.clone().drive(Lane::Markers, landings.clone(), stop.clone()).await?,
        };
        let (small, large) = tokio::join!(
            self.clone().drive(Lane::Small, landings.clone(), stop.clone()),
            self.clone().drive(Lane::Large, landings.clone(), stop.clone()),
        );
        failures.extend(small?);
        failures.extend(large?);
        match failures.len() {
            0 => {
                self.abort_left_over().await;
                self.forget_marks().await
            }
            1 => Err(failures.remove(0)),
            count => Err(together(&failures, count)),
        }
    }

    async fn drive(
        self: Arc<Self>,
        lane: Lane,
        landings: Arc<Spool<Landing>>,
        stop: Arc<AtomicBool>,
    ) -> Result<Vec<Error>> {
        let (sender, mut waiting) = mpsc::channel(WAITING_MAX);
        let together = lane == Lane::Small && self.directories().is_some();
        let markers = !self.target.capabilities().directories;
        let whole_bytes_max = self.policy.whole_bytes_max;
        let reading = tokio::task::spawn_blocking(move || read(lane, (markers, whole_bytes_max), &landings, &sender));
        let mut tasks = JoinSet::new();
        let mut failures = Vec::new();
        let mut marker = Key::default();
        'plan: while let Some(batch) = waiting.recv().await {
            let batches = if together { vec![batch] } else { batch.into_iter().map(|landing| vec![landing]).collect() };
            for batch in batches {
                while let Some(done) = tasks.try_join_next() {
                    note(done, &mut failures, &stop)?;
                }
                while lane == Lane::Large && tasks.len() >= LARGE_OBJECTS_MAX {
                    let Some(done) = tasks.join_next().await else { break };
                    note(done, &mut failures, &stop)?;
                }
                if lane == Lane::Markers
                    && let Some(landing) = batch.first()
                {
                    // A directory's marker is there before those of the directories in it.
                    while !marker.is_empty() && landing.source.key.is_under(&marker) {
                        let Some(done) = tasks.join_next().await else { break };
                        note(done, &mut failures, &stop)?;
                    }
                    marker = landing.source.key.clone();
                }
                if stop.load(Ordering::Relaxed) {
                    break 'plan;
                }
                // A large object's parts take their turns themselves.
                let turn = if lane == Lane::Large { None } else { self.small.turn().await };
                let transfer = self.clone();
                tasks.spawn(async move {
                    let work = batch.iter().map(|landing| landing.source.size + REQUEST_WORK).sum();
                    let failures = transfer.land_batch(batch).await;
                    if let Some(turn) = turn {
                        transfer.small.done(turn, work);
                    }
                    failures
                });
            }
        }
        drop(waiting);
        while let Some(done) = tasks.join_next().await {
            note(done, &mut failures, &stop)?;
        }
        match reading.await {
            Ok(outcome) => outcome?,
            Err(error) => return Err(Error::internal("reading the plan broke off").caused_by(error)),
        }
        Ok(failures)
    }
}

/// Sends the lane's landings. `markers`: those of directories have a lane of their own. `whole_bytes_max`: what is larger goes
/// in parts.
fn read(
    lane: Lane,
    (markers, whole_bytes_max): (bool, u64),
    landings: &Spool<Landing>,
    sender: &mpsc::Sender<Vec<Landing>>,
) -> Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    for landing in landings.iter()? {
        let landing = landing?;
        let its_lane = match landing.source.kind {
            EntryKind::Directory if markers => Lane::Markers,
            _ if landing.source.size > whole_bytes_max && landing.method == Method::Read => Lane::Large,
            _ => Lane::Small,
        };
        if its_lane == lane && !landing.waits() {
            batch.push(landing);
        }
        if batch.len() == BATCH
            && sender.blocking_send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH))).is_err()
        {
            return Ok(());
        }
    }
    if !batch.is_empty() {
        // Who does not listen any more has stopped.
        let _ = sender.blocking_send(batch);
    }
    Ok(())
}

fn note(
    done: std::result::Result<Vec<Error>, tokio::task::JoinError>,
    failures: &mut Vec<Error>,
    stop: &AtomicBool,
) -> Result<()> {
    for error in done.map_err(|error| Error::internal("a transfer task broke off").caused_by(error))? {
        let hopeless = matches!(error.kind(), Kind::LeaseLost | Kind::Cancelled | Kind::Full | Kind::Denied);
        tracing::warn!("{error}");
        failures.push(error);
        if hopeless || failures.len() >= FAILURES_MAX {
            stop.store(true, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// One error for many: of the kind of the first, naming as many as a person reads.
fn together(failures: &[Error], count: usize) -> Error {
    let named: Vec<String> = failures.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = if count > NAMED_MAX { format!("; and {} more", count - NAMED_MAX) } else { String::new() };
    let way_out = failures[0].way_out().unwrap_or("run the same command again to go on");
    Error::new(failures[0].kind(), format!("{count} objects could not be copied: {}{more}", named.join("; ")))
        .hint(way_out)
}
