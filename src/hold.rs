//! The hold on a snapshot for as long as a restore reads it: a policy's pruning would take it away midway.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use crate::bucket::Bucket;
use crate::catalog::Hold;
use crate::error::{Error, Kind, Result, Side};
use crate::run::stopped;
use crate::snapshot::Name;

/// A restore's hold on the snapshot that it reads.
pub(crate) struct RestoreHold {
    bucket: Bucket,
    snapshot: Name,
    reason: String,
    /// How the reason ends in every run of the same restore.
    to: String,
}

impl RestoreHold {
    /// One for this job, which restores to `to`. Nothing is held yet.
    pub(crate) fn new(bucket: &Bucket, snapshot: &Name, job: &str, to: &str) -> Self {
        let to = format!(" to {to}");
        Self { bucket: bucket.clone(), snapshot: snapshot.clone(), reason: format!("restore {job}{to}"), to }
    }

    /// Does the work with the snapshot held, unless somebody holds it already. What an earlier run of the same restore
    /// left when it died is taken over. The hold goes however the work ends.
    ///
    /// # Errors
    /// Those of the work; of the bucket, if it cannot be asked; `Cancelled` on request. A bucket that cannot be written is
    /// restored from all the same.
    pub(crate) async fn during(
        &self,
        cancel: &CancellationToken,
        work: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let begun = AtomicBool::new(false);
        let held = async {
            match self.take(&begun).await {
                Err(error) if cannot_write(&error) => {
                    tracing::debug!("nothing holds {} while it is restored: {error}", self.snapshot);
                }
                outcome => outcome.map_err(|error| error.on(Side::Source))?,
            }
            work.await
        };
        let outcome = cancel.run_until_cancelled(held).await.unwrap_or_else(|| Err(stopped()));
        if begun.load(Ordering::Relaxed) {
            self.release().await;
        }
        outcome
    }

    /// `begun` is true from when there may be a hold.
    async fn take(&self, begun: &AtomicBool) -> Result<()> {
        let (catalog, name) = (self.bucket.catalog(), &self.snapshot);
        if catalog.hold(name).await?.is_some_and(|found| !self.is_of_this_restore(&found)) {
            return Ok(());
        }
        begun.store(true, Ordering::Relaxed);
        let hold = Hold { reason: Some(self.reason.clone()), since: self.bucket.clock().now() };
        let set = catalog.set_hold(name, &hold).await;
        set.inspect_err(|error| begun.store(!cannot_write(error), Ordering::Relaxed))?;
        // Whoever was about to remove it may not have seen the hold.
        self.bucket.record(name).await?.map(drop).ok_or_else(|| self.bucket.no_snapshot(name))
    }

    /// Takes the hold away, if it is this run's.
    async fn release(&self) {
        let (catalog, name) = (self.bucket.catalog(), &self.snapshot);
        let released = async {
            match catalog.hold(name).await? {
                Some(found) if found.reason.as_deref() == Some(&self.reason) => catalog.release(name).await,
                _ => Ok(()),
            }
        };
        if let Err(error) = released.await {
            tracing::warn!(
                "{name} may still be held ({}): the next run of this restore takes the hold away, or \
                 `snapferry snapshot release`: {error}",
                self.reason
            );
        }
    }

    fn is_of_this_restore(&self, hold: &Hold) -> bool {
        hold.reason.as_deref().is_some_and(|reason| reason.starts_with("restore ") && reason.ends_with(&self.to))
    }
}

/// Also of who may not even ask: S3 says so of what is not there to who may not list.
fn cannot_write(error: &Error) -> bool {
    matches!(error.kind(), Kind::Denied | Kind::Full)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::OpenOptions;
    use crate::snapshot::clone::CloneMode;
    use crate::store::Condition;

    async fn bucket_with_monday(folder: &std::path::Path) -> (Bucket, Name) {
        let options = OpenOptions { create: true, create_link: false, clone: CloneMode::Auto, folder: folder.into() };
        let bucket = Bucket::open("memory:held", &options).await.unwrap();
        bucket.store().write(&"key".into(), "data".into(), &Default::default(), &Condition::Any).await.unwrap();
        let monday: Name = "monday".parse().unwrap();
        bucket.take(&monday, None).await.unwrap();
        (bucket, monday)
    }

    /// The reason of the hold while the work is done, and afterwards.
    async fn reasons(hold: &RestoreHold) -> [Option<String>; 2] {
        let reason = async || hold.bucket.catalog().hold(&hold.snapshot).await.unwrap().and_then(|hold| hold.reason);
        let mut during = None;
        let work = async {
            during = reason().await;
            Err(Error::new(Kind::Io, "it failed"))
        };
        let outcome = hold.during(&CancellationToken::new(), work).await;
        assert_eq!(outcome.unwrap_err().kind(), Kind::Io);
        [during, reason().await]
    }

    #[tokio::test]
    async fn only_what_nobody_else_holds_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let (bucket, monday) = bucket_with_monday(folder.path()).await;
        let hold = RestoreHold::new(&bucket, &monday, "job-2", "/place");
        let ours = || Some("restore job-2 to /place".to_owned());
        assert_eq!(reasons(&hold).await, [ours(), None]);
        let cases = [
            (Some("restore job-1 to /place"), [ours(), None]),
            (
                Some("restore job-1 to /another/place"),
                ["restore job-1 to /another/place"; 2].map(|one| Some(one.to_owned())),
            ),
            (Some("before we go to /place"), ["before we go to /place"; 2].map(|one| Some(one.to_owned()))),
            (None, [None, None]),
        ];
        for (left, expected) in cases {
            let left = Hold { reason: left.map(Into::into), since: Default::default() };
            bucket.catalog().set_hold(&monday, &left).await.unwrap();
            assert_eq!(reasons(&hold).await, expected);
            let stays = bucket.catalog().hold(&monday).await.unwrap();
            assert_eq!(stays.is_some(), expected[1].is_some() || left.reason.is_none());
        }
    }

    #[tokio::test]
    async fn a_snapshot_that_went_meanwhile_is_not_left_held() {
        let folder = tempfile::tempdir().unwrap();
        let (bucket, _) = bucket_with_monday(folder.path()).await;
        let hold = RestoreHold::new(&bucket, &"tuesday".parse().unwrap(), "job", "/place");
        let outcome = hold.during(&CancellationToken::new(), async { Ok(()) }).await;
        assert_eq!(outcome.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(bucket.catalog().hold(&hold.snapshot).await.unwrap(), None);
    }
}
