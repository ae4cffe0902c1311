//! What an object's content is, found by reading it.

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use md5::{Digest as _, Md5};

use super::budget::Budget;
use crate::error::{Error, Result};
use crate::manifest::{BlockHasher, Blocks, Digest, Entry, digest_and_blocks, merge};
use crate::retry::retry;
use crate::store::Store;

/// Blocks that are read ahead.
const READ_AHEAD: usize = 4;

/// Sums of an object's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// BLAKE3.
    pub(crate) digest: Digest,
    /// That of its blocks, if it has at least one.
    pub(crate) blocks: Option<Blocks>,
    /// MD5 in hexadecimal digits, if it was asked for.
    pub(crate) md5: Option<String>,
}

/// Reads an object block by block and sums it up. `failed` hears of each failure that is followed by another try.
pub(crate) async fn content(
    store: &dyn Store,
    entry: &Entry,
    md5: bool,
    block_bytes: u64,
    budget: &Budget,
    failed: impl Fn(&Error) + Sync,
) -> Result<Content> {
    let failed = &failed;
    let starts = (0..entry.size.div_ceil(block_bytes).max(1)).map(|block| block * block_bytes);
    let mut read = stream::iter(starts)
        .map(|start| async move {
            let end = (start + block_bytes).min(entry.size);
            let room = budget.take(end - start).await;
            let object = retry(|| store.read(entry, Some(start..end)), failed).await?;
            Ok::<(Bytes, _), Error>((object.data, room))
        })
        .buffered(READ_AHEAD);
    let (mut hasher, mut md5) = (BlockHasher::new(0, block_bytes), md5.then(Md5::new));
    let mut only = None;
    while let Some((data, room)) = read.try_next().await? {
        let alone = entry.size <= block_bytes;
        if alone {
            only = Some(data.clone());
        }
        let hashed = tokio::task::spawn_blocking(move || {
            if !alone {
                hasher.update(&data);
            }
            if let Some(md5) = &mut md5 {
                md5.update(&data);
            }
            drop(room);
            (hasher, md5)
        });
        (hasher, md5) = hashed.await.map_err(|error| Error::internal("hashing broke off").caused_by(error))?;
    }
    let (digest, blocks) = match only {
        Some(data) => digest_and_blocks(&data, block_bytes),
        None => {
            let values = hasher.finish();
            (merge(&values), Some(Blocks::new(block_bytes, &values)))
        }
    };
    Ok(Content { digest, blocks, md5: md5.map(|md5| hex::encode(md5.finalize())) })
}
