//! What an object's content is, found by reading it.

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use md5::{Digest as _, Md5};

use super::BLOCK_BYTES;
use super::budget::Budget;
use crate::error::{Error, Result};
use crate::manifest::{Digest, Entry};
use crate::retry::retry;
use crate::store::Store;

/// Blocks that are read ahead.
const READ_AHEAD: usize = 4;

/// Sums of an object's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// BLAKE3.
    pub(crate) digest: Digest,
    /// MD5 in hexadecimal digits, if it was asked for.
    pub(crate) md5: Option<String>,
}

/// Reads an object block by block and sums it up. `failed` hears of each failure that is followed by another try.
pub(crate) async fn content(
    store: &dyn Store,
    entry: &Entry,
    md5: bool,
    budget: &Budget,
    failed: impl Fn(&Error) + Sync,
) -> Result<Content> {
    let failed = &failed;
    let starts = (0..entry.size.div_ceil(BLOCK_BYTES).max(1)).map(|block| block * BLOCK_BYTES);
    let mut blocks = stream::iter(starts)
        .map(|start| async move {
            let end = (start + BLOCK_BYTES).min(entry.size);
            let room = budget.take(end - start).await;
            let object = retry(|| store.read(entry, Some(start..end)), failed).await?;
            Ok::<(Bytes, _), Error>((object.data, room))
        })
        .buffered(READ_AHEAD);
    let (mut blake3, mut md5) = (blake3::Hasher::new(), md5.then(Md5::new));
    while let Some((data, room)) = blocks.try_next().await? {
        let hashed = tokio::task::spawn_blocking(move || {
            blake3.update(&data);
            if let Some(md5) = &mut md5 {
                md5.update(&data);
            }
            drop(room);
            (blake3, md5)
        });
        (blake3, md5) = hashed.await.map_err(|error| Error::internal("hashing broke off").caused_by(error))?;
    }
    Ok(Content { digest: blake3.finalize(), md5: md5.map(|md5| hex::encode(md5.finalize())) })
}
