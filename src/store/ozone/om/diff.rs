//! What changed between two snapshots of a bucket, as the server finds it: a job, asked for its report until it is done.
//!
//! Where there is no report to be had, the error is of kind `Unsupported` and the two snapshots are to be listed instead.
//! All other kinds are what they are anywhere. The report is a saving, not a proof: see `facts` in the documentation.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::BucketClient;
use super::messages::{self, OmRequest, SnapshotDiffRequest, command};
use crate::error::{Error, Kind, Result};

/// Most entries in a page (`ozone.om.snapshot.diff.max.page.size`).
const PAGE_MAX: u32 = 5000;

/// The pauses between two looks at a job: small diffs take tens of milliseconds, and the server's own hint of a minute
/// would be most of the run.
const POLL: Duration = Duration::from_millis(20);
const POLL_MAX: Duration = Duration::from_millis(1500);

/// The pauses after it was refused because ten others run.
const REJECTED: Duration = Duration::from_millis(500);
const REJECTED_MAX: Duration = Duration::from_secs(5);

/// Where a job stands: `JobStatusProto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiffStatus {
    /// It waits for its turn.
    Queued,
    /// It is being worked on.
    InProgress,
    /// Its report can be read.
    Done,
    /// There are as many jobs as there may be.
    Rejected,
    /// It failed; the reason tells why.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// There is no such job: never submitted, or forgotten.
    NotFound,
    /// A status of a newer server.
    Other(i32),
}

impl From<Option<i32>> for DiffStatus {
    fn from(wire: Option<i32>) -> Self {
        match wire.unwrap_or(0) {
            1 => Self::Queued,
            2 => Self::InProgress,
            3 => Self::Done,
            4 => Self::Rejected,
            5 => Self::Failed,
            6 => Self::Cancelled,
            7 => Self::NotFound,
            other => Self::Other(other),
        }
    }
}

/// What happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DifferenceKind {
    /// It is new.
    Create,
    /// Its content, or what travels with it, is another.
    Modify,
    /// It is gone.
    Delete,
    /// It has another name.
    Rename,
}

/// One entry of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// What happened.
    pub(crate) kind: DifferenceKind,
    /// The name in the older snapshot, or the only one.
    pub(crate) source: String,
    /// The name in the newer snapshot, of what was renamed.
    pub(crate) target: Option<String>,
}

/// One answer about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DiffPage {
    /// Where the job stands.
    pub(crate) status: DiffStatus,
    /// Entries, when it is done.
    pub(crate) entries: Vec<Difference>,
    /// What to ask the next page with; none after the last.
    pub(crate) next: Option<String>,
    /// Why it failed or was rejected.
    pub(crate) reason: Option<String>,
}

/// How a diff is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiffOptions {
    /// Entries in a page, 5,000 at most.
    pub(crate) page_size: u32,
    /// Compare every key, not only those in files that changed.
    pub(crate) force_full: bool,
    /// Do without the native library for reading those files.
    pub(crate) disable_native: bool,
}

impl Default for DiffOptions {
    fn default() -> Self {
        Self { page_size: PAGE_MAX, force_full: false, disable_native: false }
    }
}

impl BucketClient {
    fn diff_request(&self, from: &str, to: &str, options: DiffOptions) -> SnapshotDiffRequest {
        SnapshotDiffRequest {
            volume: Some(self.volume.to_string()),
            bucket: Some(self.bucket.to_string()),
            from: Some(from.to_owned()),
            to: Some(to.to_owned()),
            force_full: Some(options.force_full),
            disable_native: Some(options.disable_native),
            ..SnapshotDiffRequest::default()
        }
    }

    /// Submits the job, unless there is one. What the server says of it, for people.
    pub(crate) async fn submit_diff(&self, from: &str, to: &str, options: DiffOptions) -> Result<String> {
        let request = OmRequest {
            submit_snapshot_diff: Some(self.diff_request(from, to, options)),
            ..OmRequest::of(command::SUBMIT_SNAPSHOT_DIFF)
        };
        match self.call(request).await?.outcome {
            Ok(response) => Ok(response.submit_snapshot_diff.and_then(|said| said.text).unwrap_or_default()),
            // Older servers submit when they are asked for the report.
            Err(refusal) if refusal.is_unknown_command() => Ok(refusal.message),
            Err(refusal) => Err(self.failed("")(refusal)),
        }
    }

    /// Where the job stands, and a page of its report if it is done. `token` is empty for the first page.
    pub(crate) async fn diff_report(
        &self,
        from: &str,
        to: &str,
        token: &str,
        options: DiffOptions,
    ) -> Result<DiffPage> {
        let request = OmRequest {
            snapshot_diff: Some(SnapshotDiffRequest {
                token: Some(token.to_owned()),
                page_size: Some(options.page_size.clamp(1, PAGE_MAX)),
                ..self.diff_request(from, to, options)
            }),
            ..OmRequest::of(command::SNAPSHOT_DIFF)
        };
        let response = self.call(request).await?.outcome.map_err(self.failed(""))?;
        let response = response.snapshot_diff.unwrap_or_default();
        let report = response.report.unwrap_or_default();
        let entries = report.entries.into_iter().map(difference).collect::<Result<_>>();
        Ok(DiffPage {
            status: response.status.into(),
            entries: entries.map_err(|error| error.at(self.place()))?,
            next: report.token.filter(|token| !token.is_empty()),
            reason: response.reason.filter(|reason| !reason.is_empty()),
        })
    }

    /// Cancels the job. What the server says to that, for people.
    pub(crate) async fn cancel_diff(&self, from: &str, to: &str) -> Result<String> {
        let mut diff = self.diff_request(from, to, DiffOptions::default());
        (diff.force_full, diff.disable_native) = (None, None);
        let request = OmRequest { cancel_snapshot_diff: Some(diff), ..OmRequest::of(command::CANCEL_SNAPSHOT_DIFF) };
        let response = self.call(request).await?.outcome.map_err(self.failed(""))?;
        Ok(response.cancel_snapshot_diff.and_then(|said| said.text).unwrap_or_default())
    }

    /// The report, page by page; the job must be done within `patience`, else it is cancelled.
    pub(crate) fn diff_pages(&self, from: &str, to: &str, options: DiffOptions, patience: Duration) -> DiffPages {
        DiffPages {
            bucket: self.clone(),
            from: from.to_owned(),
            to: to.to_owned(),
            options,
            deadline: Instant::now() + patience,
            token: Some(String::new()),
            submitted: 0,
        }
    }
}

fn difference(wire: messages::DiffEntry) -> Result<Difference> {
    let kind = match wire.kind {
        Some(1) => DifferenceKind::Create,
        Some(2) => DifferenceKind::Modify,
        Some(3) => DifferenceKind::Delete,
        Some(4) => DifferenceKind::Rename,
        other => return Err(no_report(format!("the report has an entry of the unknown type {other:?}"))),
    };
    let target = wire.target.filter(|target| !target.is_empty());
    match wire.source {
        Some(source) if kind != DifferenceKind::Rename || target.is_some() => Ok(Difference { kind, source, target }),
        _ => Err(no_report("the report has an entry without a name".into())),
    }
}

fn no_report(what: String) -> Error {
    Error::new(Kind::Unsupported, what).hint("compare listings of the two snapshots instead")
}

/// A report that is read page by page.
#[derive(Debug)]
pub(crate) struct DiffPages {
    bucket: BucketClient,
    from: String,
    to: String,
    options: DiffOptions,
    deadline: Instant,
    /// Of the next page; none after the last.
    token: Option<String>,
    /// How often the job was submitted.
    submitted: u32,
}

impl DiffPages {
    /// The next entries, in the order of the server; none at the end. A page may be empty.
    ///
    /// # Errors
    /// `Unsupported` where the server does not come to a report: list instead. `NotFound` where a snapshot is gone.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Difference>>> {
        let Some(token) = self.token.clone() else { return Ok(None) };
        let page = if token.is_empty() { self.first().await? } else { self.report(&token).await? };
        if page.status != DiffStatus::Done {
            // Part of the report has been handed out, and a new one may have another order.
            return Err(self.failed(&page, "its report went away while it was read"));
        }
        if page.next.as_deref() == Some(token.as_str()) {
            return Err(self.failed(&page, "its report has no end"));
        }
        self.token = page.next;
        Ok(Some(page.entries))
    }

    async fn report(&self, token: &str) -> Result<DiffPage> {
        self.bucket.diff_report(&self.from, &self.to, token, self.options).await
    }

    async fn submit(&mut self) -> Result<()> {
        self.submitted += 1;
        self.bucket.submit_diff(&self.from, &self.to, self.options).await.map(drop)
    }

    /// The first page, when the job is done.
    async fn first(&mut self) -> Result<DiffPage> {
        self.submit().await?;
        let (mut poll, mut rejected) = (POLL, REJECTED);
        loop {
            let page = self.report("").await?;
            let pause = match page.status {
                DiffStatus::Done => return Ok(page),
                DiffStatus::Queued | DiffStatus::InProgress => {
                    let pause = poll;
                    poll = (poll * 3 / 2).min(POLL_MAX);
                    pause
                }
                DiffStatus::Rejected => {
                    let pause = rejected.mul_f64(rand::random_range(0.75..1.25));
                    rejected = (rejected * 2).min(REJECTED_MAX);
                    pause
                }
                // Forgotten, or cancelled by another: once more.
                DiffStatus::NotFound | DiffStatus::Cancelled if self.submitted < 2 => Duration::ZERO,
                DiffStatus::NotFound => return Err(self.failed(&page, "the server does not know it")),
                DiffStatus::Cancelled => return Err(self.failed(&page, "it was cancelled")),
                DiffStatus::Failed => return Err(self.failed(&page, "it failed")),
                DiffStatus::Other(status) => {
                    return Err(self.failed(&page, &format!("it has the unknown status {status}")));
                }
            };
            let wake = Instant::now() + pause;
            if wake > self.deadline {
                return Err(self.give_up(&page).await);
            }
            sleep_until(wake).await;
            match page.status {
                DiffStatus::NotFound | DiffStatus::Cancelled => self.submit().await?,
                // The same job: this one does not count as another try.
                DiffStatus::Rejected => {
                    self.bucket.submit_diff(&self.from, &self.to, self.options).await?;
                }
                _ => {}
            }
        }
    }

    async fn give_up(&self, page: &DiffPage) -> Error {
        if page.status != DiffStatus::Rejected
            && let Err(error) = self.bucket.cancel_diff(&self.from, &self.to).await
        {
            tracing::warn!("the diff of `{}` and `{}` was not cancelled: {error}", self.from, self.to);
        }
        let why = match page.status {
            DiffStatus::Rejected => "the server has no room for it",
            DiffStatus::Queued => "it was not begun in time",
            _ => "it was not done in time",
        };
        self.failed(page, why)
    }

    fn failed(&self, page: &DiffPage, why: &str) -> Error {
        let reason = page.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        no_report(format!("no diff of the snapshots `{}` and `{}`: {why}{reason}", self.from, self.to))
            .at(self.bucket.place())
    }
}
