//! The hold on a snapshot for as long as a restore reads it: a policy's pruning would take it away midway.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use crate::bucket::Bucket;
use crate::catalog::{Hold, Reader};
use crate::error::{Error, Kind, Result, Side};
use crate::run::stopped;
use crate::snapshot::Name;

/// A restore's hold on the snapshot that it reads.
pub(crate) struct RestoreHold {
    bucket: Bucket,
    snapshot: Name,
    job: String,
    /// The same in every run of the same restore.
    to: String,
}

impl RestoreHold {
    /// One for this job, which restores to `to`. Nothing is held yet.
    pub(crate) fn new(bucket: &Bucket, snapshot: &Name, job: &str, to: &str) -> Self {
        Self { bucket: bucket.clone(), snapshot: snapshot.clone(), job: job.into(), to: to.into() }
    }

    /// Does the work with the snapshot held. What an earlier run of the same restore left when it died is taken over. The
    /// hold goes however the work ends; those of others stay.
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
        begun.store(true, Ordering::Relaxed);
        let reader = Reader { job: self.job.clone(), since: self.bucket.clock().now() };
        let taken = catalog.change_hold(name, |hold: &mut Hold| {
            hold.restores.insert(self.to.clone(), reader.clone());
        });
        Box::pin(taken).await.inspect_err(|error| begun.store(!cannot_write(error), Ordering::Relaxed))?;
        // Whoever was about to remove it may not have seen the hold.
        self.bucket.record(name).await?.map(drop).ok_or_else(|| self.bucket.no_snapshot(name))
    }

    /// Takes the hold away, if it is this run's.
    async fn release(&self) {
        let (catalog, name) = (self.bucket.catalog(), &self.snapshot);
        let released = async {
            catalog
                .change_hold(name, |hold| hold.restores.retain(|to, by| *to != self.to || by.job != self.job))
                .await?;
            // With the snapshot gone nobody else can have one.
            match self.bucket.record(name).await? {
                Some(_) => Ok(()),
                None => catalog.release(name).await,
            }
        };
        if let Err(error) = released.await {
            tracing::warn!(
                "{name} may still be held for {} to {}: the next run of this restore takes the hold away, or \
                 `snapferry snapshot release`: {error}",
                self.job,
                self.to
            );
        }
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

    #[tokio::test]
    async fn every_restore_has_a_hold_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (bucket, monday) = bucket_with_monday(folder.path()).await;
        let catalog = bucket.catalog();
        let holders = async || {
            let hold = catalog.hold(&monday).await.unwrap().unwrap_or_default();
            let mut all: Vec<String> =
                hold.restores.iter().map(|(to, reader)| format!("{} to {to}", reader.job)).collect();
            all.extend(hold.reason);
            all
        };
        let cancel = CancellationToken::new();
        let [here, there] = ["/here", "/there"].map(|to| RestoreHold::new(&bucket, &monday, "job-1", to));
        let failing = |seen: &'static [&'static str]| {
            let holders = &holders;
            async move {
                assert_eq!(holders().await, seen);
                Err(Error::new(Kind::Io, "it failed"))
            }
        };
        let outcome = here.during(&cancel, failing(&["job-1 to /here"])).await;
        assert_eq!(outcome.unwrap_err().kind(), Kind::Io);
        assert_eq!(catalog.hold(&monday).await.unwrap(), None);

        // One that ends takes its own away, and no other's.
        let by_hand = |hold: &mut Hold| {
            (hold.since, hold.reason) = (Some(Default::default()), Some("incident".into()));
        };
        let outer = async {
            catalog.change_hold(&monday, by_hand).await.unwrap();
            there.during(&cancel, failing(&["job-1 to /here", "job-1 to /there", "incident"])).await.unwrap_err();
            assert_eq!(holders().await, ["job-1 to /here", "incident"]);
            Ok(())
        };
        here.during(&cancel, Box::pin(outer)).await.unwrap();
        assert_eq!(holders().await, ["incident"]);

        // What a dead run left is taken over by the next of the same restore.
        let begun = AtomicBool::default();
        here.take(&begun).await.unwrap();
        let again = RestoreHold::new(&bucket, &monday, "job-2", "/here");
        again.during(&cancel, failing(&["job-2 to /here", "incident"])).await.unwrap_err();
        assert_eq!(holders().await, ["incident"]);
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
