//! BLAKE3 of content as it passes: small objects where they are, large ones block by block on the CPU pool.

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use crate::error::{Error, Result};
use crate::manifest::{BlockHasher, Blocks, Digest, Subtree, digest_and_blocks};

/// Up to this many bytes hashing takes less time than handing it over.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// Blocks that may wait for the pool.
const WAITING_MAX: usize = 16;

type Job = Box<dyn FnOnce() + Send>;

/// Hashes on the CPU pool, fed through a bounded channel.
#[derive(Debug)]
pub(super) struct Hashing {
    sender: crossbeam_channel::Sender<Job>,
    receiver: crossbeam_channel::Receiver<Job>,
    /// As many turns as the channel has places: whoever has one can send without waiting.
    turns: Semaphore,
}

impl Default for Hashing {
    fn default() -> Self {
        let (sender, receiver) = crossbeam_channel::bounded(WAITING_MAX);
        Self { sender, receiver, turns: Semaphore::new(WAITING_MAX) }
    }
}

impl Hashing {
    /// The digest of a whole object, with its blocks' values if it has at least one block.
    pub(super) async fn whole(&self, data: &Bytes, block_bytes: u64) -> Result<(Digest, Option<Blocks>)> {
        if data.len() <= INLINE_BYTES_MAX {
            return Ok((blake3::hash(data), None));
        }
        let data = data.clone();
        self.run(move || digest_and_blocks(&data, block_bytes)).await
    }

    /// The values of the blocks in a part that begins at `offset`, where a block begins. Only for objects of more than one
    /// part.
    pub(super) async fn part(&self, data: &Bytes, offset: u64, block_bytes: u64) -> Result<Vec<Subtree>> {
        let data = data.clone();
        self.run(move || {
            let mut hasher = BlockHasher::new(offset, block_bytes);
            hasher.update(&data);
            hasher.finish()
        })
        .await
    }

    /// Does `work` on the pool.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let gone = || Error::internal("the hashing pool is gone");
        let turn = self.turns.acquire().await.map_err(|_| gone())?;
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            let _ = answer.send(work());
        });
        self.sender.try_send(job).map_err(|_| gone())?;
        let receiver = self.receiver.clone();
        rayon::spawn(move || {
            if let Ok(job) = receiver.try_recv() {
                job();
            }
        });
        let value = answered.await.map_err(|_| gone())?;
        drop(turn);
        Ok(value)
    }
}
