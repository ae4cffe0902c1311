//! The job catalogue made anew from what the seals vouch for.

use std::time::Duration;

use super::{Counts, Job, Kind, State};
use crate::catalog::Receipt;

/// The finished jobs that these receipts tell of. What a receipt does not say stays empty: phases, retries, process.
pub fn rebuild(receipts: impl IntoIterator<Item = Receipt>) -> Vec<Job> {
    receipts.into_iter().map(finished).collect()
}

fn finished(receipt: Receipt) -> Job {
    let took = Duration::from_millis(receipt.elapsed_ms);
    let created = receipt.sealed.checked_sub(took).unwrap_or(receipt.sealed);
    let bytes = receipt.bytes_copied + receipt.bytes_reused;
    Job {
        policy: receipt.policy,
        source: Some(receipt.source),
        snapshot: Some(receipt.snapshot),
        state: State::Finished,
        seen: receipt.sealed,
        ended: Some(receipt.sealed),
        progress: Counts {
            bytes_planned: bytes,
            bytes_done: bytes,
            bytes_copied: receipt.bytes_copied,
            bytes_reused: receipt.bytes_reused,
            repinned: receipt.repinned,
            ..Counts::default()
        },
        process: None,
        ..Job::new(receipt.job, Kind::Sync, &receipt.target, created)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{FORMAT, ReceiptTotals};
    use crate::job::{Jobs, Shown};

    fn receipt(night: u32) -> Receipt {
        Receipt {
            format: FORMAT,
            version: "0.1.0".into(),
            job: format!("job-2026112{night}T030000Z-7-1"),
            snapshot: format!("snapshot-{night}").parse().unwrap(),
            source: "/source".into(),
            target: "/target".into(),
            base: None,
            source_root: String::new(),
            root: String::new(),
            objects: 5,
            directories: 0,
            bytes: 500,
            totals: ReceiptTotals::default(),
            bytes_copied: 100,
            bytes_reused: 20,
            repinned: 1,
            verified: "listing".into(),
            policy: Some("nightly".into()),
            taken: None,
            elapsed_ms: 90_000,
            sealed: format!("2026-11-2{night}T03:01:30Z").parse().unwrap(),
        }
    }

    #[test]
    fn a_lost_catalogue_is_rebuilt_from_receipts() {
        let folder = tempfile::tempdir().unwrap();
        let jobs = Jobs::at(folder.path());
        jobs.add(&rebuild([1, 3, 2].map(receipt))).unwrap();
        // A second time changes nothing.
        jobs.add(&rebuild([2].map(receipt))).unwrap();
        let all = jobs.all().unwrap();
        let names: Vec<&str> = all.iter().map(|job| job.snapshot.as_ref().unwrap().as_str()).collect();
        assert_eq!(names, ["snapshot-3", "snapshot-2", "snapshot-1"]);
        let shown = Shown::of(all[0].clone(), "2026-12-01T00:00:00Z".parse().unwrap());
        assert_eq!((shown.job.state, shown.elapsed_ms), (State::Finished, 90_000));
        assert_eq!(shown.job.created, "2026-11-23T03:00:00Z".parse().unwrap());
        assert_eq!((shown.job.progress.bytes_copied, shown.job.policy.as_deref()), (100, Some("nightly")));
    }
}
