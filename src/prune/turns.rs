//! The bucket's lease in turns: held for a little work, given back, taken again.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bucket::Bucket;
use crate::catalog::Lease;
use crate::error::Result;
use crate::run::stopped;

/// How long a turn goes on beginning pieces of work.
const TURN: Duration = Duration::from_secs(2);

/// Between two turns: longer than whoever waits for the lease sleeps between two tries.
const PAUSE: Duration = Duration::from_millis(400);

/// Work under the lease that lets others have it in between.
pub(super) struct Turns<'a> {
    bucket: &'a Bucket,
    job: String,
    cancel: CancellationToken,
    held: Option<(Lease, Instant)>,
}

impl<'a> Turns<'a> {
    pub(super) fn new(bucket: &'a Bucket, job: String, cancel: CancellationToken) -> Self {
        Self { bucket, job, cancel, held: None }
    }

    /// Holds the lease for the next piece of work. True when it was taken anew: others may have been there.
    ///
    /// # Errors
    /// `Held` while a job has it, `LeaseLost` where somebody took it, `Cancelled` on request.
    pub(super) async fn next(&mut self) -> Result<bool> {
        if self.cancel.is_cancelled() {
            return Err(stopped());
        }
        if self.held.as_ref().is_some_and(|(_, since)| since.elapsed() > TURN) {
            self.end().await?;
            tokio::time::sleep(PAUSE).await;
        }
        if let Some((lease, _)) = &self.held {
            lease.check()?;
            return Ok(false);
        }
        let lease = self.bucket.lease_briefly(&self.job).await?;
        self.held = Some((lease, Instant::now()));
        Ok(true)
    }

    /// True when a job has begun to change the bucket and has not ended.
    pub(super) async fn is_unfinished(&self) -> bool {
        match &self.held {
            Some((lease, _)) => lease.unfinished().await.is_some(),
            None => false,
        }
    }

    /// Gives the lease back.
    pub(super) async fn end(&mut self) -> Result<()> {
        match self.held.take() {
            Some((lease, _)) => lease.release(false).await,
            None => Ok(()),
        }
    }
}
