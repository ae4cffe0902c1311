//! Content read back and compared with its recorded digest.

use std::sync::Arc;

use futures::stream::{StreamExt, TryStreamExt};
use serde::Serialize;

use super::differences::{Difference, Differences};
use crate::blocking::stream;
use crate::error::{Error, Kind as ErrorKind, Result, Side};
use crate::key::Key;
use crate::manifest::{Entry, Kind};
use crate::merge::Entries;
use crate::plan::md5_of;
use crate::store::Store;
use crate::transfer::{BLOCK_BYTES, Budget, content};

/// Objects read back at once.
const READS_AT_ONCE: usize = 8;

/// Bytes in flight while reading back.
const BYTES_IN_FLIGHT: u64 = 64 << 20;

/// What reading back came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ReadBack {
    /// Objects read and compared.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Reads objects back and compares their digests with the recorded ones, `percent` of them, chosen by their names.
/// An object whose digest was never known is compared by its MD5 entity tag.
pub(crate) async fn read_back(
    store: Arc<dyn Store>,
    entries: Entries<'static>,
    percent: f64,
    retried: impl Fn(&Error) + Send + Sync,
) -> Result<(ReadBack, Differences)> {
    let chosen = entries.filter(move |entry| match entry {
        Ok(entry) => entry.kind == Kind::Object && is_chosen(&entry.key, percent),
        Err(_) => true,
    });
    let entries = stream(move || Ok(chosen));
    let (budget, retried) = (&Budget::new(BYTES_IN_FLIGHT), &retried);
    let read = entries
        .map(|entry| {
            let store = store.clone();
            async move {
                let entry = entry?;
                let good = is_good(&*store, &entry, budget, retried).await?;
                Ok::<_, Error>((entry, good))
            }
        })
        .buffer_unordered(READS_AT_ONCE);
    let mut read = std::pin::pin!(read);
    let (mut total, mut differences) = (ReadBack::default(), Differences::on(Side::Target));
    while let Some((entry, good)) = read.try_next().await? {
        total.objects += 1;
        total.bytes += entry.size;
        if let Some(difference) = good {
            differences.add(&entry.key, difference);
        }
    }
    Ok((total, differences))
}

/// The same keys in every run, so that a run can be repeated.
fn is_chosen(key: &Key, percent: f64) -> bool {
    let hash = blake3::hash(key.as_bytes());
    let mut first = [0; 4];
    first.copy_from_slice(&hash.as_bytes()[..4]);
    f64::from(u32::from_be_bytes(first)) < percent / 100.0 * f64::from(u32::MAX) || percent >= 100.0
}

async fn is_good(
    store: &dyn Store,
    entry: &Entry,
    budget: &Budget,
    retried: &(impl Fn(&Error) + Sync),
) -> Result<Option<Difference>> {
    let tag = if entry.digest.is_none() { md5_of(entry) } else { None };
    if entry.digest.is_none() && tag.is_none() {
        return Ok(Some(Difference::Unproved));
    }
    match content(store, entry, tag.is_some(), BLOCK_BYTES, budget, retried).await {
        Ok(found) => {
            let good = match (entry.digest, tag) {
                (Some(digest), _) => found.digest == digest,
                (None, tag) => tag.map(str::to_ascii_lowercase) == found.md5,
            };
            Ok((!good).then_some(Difference::Different))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(Difference::Missing)),
        Err(error) if matches!(error.kind(), ErrorKind::Changed | ErrorKind::Damaged) => {
            Ok(Some(Difference::Different))
        }
        Err(error) => Err(error.key(&entry.key)),
    }
}
