//! BLAKE3 of content as it passes: small objects where they are, large ones block by block on the CPU pool.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use crate::error::{Error, Result};
use crate::manifest::Digest;

/// Up to this many bytes hashing takes less time than handing it over.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// Blocks that may wait for the pool.
const WAITING_MAX: usize = 16;

type Job = (Bytes, Option<u64>, oneshot::Sender<[u8; 32]>);

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
    /// The digest of a whole object.
    pub(super) async fn whole(&self, data: &Bytes) -> Result<Digest> {
        if data.len() <= INLINE_BYTES_MAX {
            return Ok(blake3::hash(data));
        }
        self.hand_over(data, None).await.map(Digest::from_bytes)
    }

    /// The subtree value of a part that begins at `offset`, which is a multiple of its aligned power-of-two length.
    /// Only for objects of more than one part.
    pub(super) async fn part(&self, data: &Bytes, offset: u64) -> Result<[u8; 32]> {
        self.hand_over(data, Some(offset)).await
    }

    async fn hand_over(&self, data: &Bytes, offset: Option<u64>) -> Result<[u8; 32]> {
        let gone = || Error::internal("the hashing pool is gone");
        let turn = self.turns.acquire().await.map_err(|_| gone())?;
        let (answer, answered) = oneshot::channel();
        self.sender.try_send((data.clone(), offset, answer)).map_err(|_| gone())?;
        let receiver = self.receiver.clone();
        rayon::spawn(move || {
            if let Ok((data, offset, answer)) = receiver.try_recv() {
                let _ = answer.send(hash(&data, offset));
            }
        });
        let value = answered.await.map_err(|_| gone())?;
        drop(turn);
        Ok(value)
    }
}

fn hash(data: &[u8], offset: Option<u64>) -> [u8; 32] {
    match offset {
        None => *blake3::hash(data).as_bytes(),
        Some(offset) => {
            let mut hasher = PartHasher::new(offset);
            hasher.update(data);
            hasher.finish()
        }
    }
}

/// The subtree value of a part that comes in pieces.
pub(super) struct PartHasher(blake3::Hasher);

impl PartHasher {
    /// Of the part that begins at `offset`, under the conditions of [`Hashing::part`].
    pub(super) fn new(offset: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(offset);
        Self(hasher)
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    pub(super) fn finish(&self) -> [u8; 32] {
        self.0.finalize_non_root()
    }
}

/// The object's digest from the subtree values of its parts, of which all but the last are `part_bytes` long, a power
/// of two. There are at least two.
pub(super) fn merge(parts: &[[u8; 32]]) -> Digest {
    let (left, right) = parts.split_at(parts.len().next_power_of_two() / 2);
    merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash)
}

/// BLAKE3's tree is full to the left: the left subtree holds the largest power of two of parts that leaves some over.
fn subtree(parts: &[[u8; 32]]) -> [u8; 32] {
    match parts {
        [one] => *one,
        _ => {
            let (left, right) = parts.split_at(parts.len().next_power_of_two() / 2);
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_merge_to_the_standard_digest(len in 2049_usize..40_000, part in prop::sample::select(vec![1024_usize, 2048])) {
            let data: Vec<u8> = (0..len).map(|i| (i * 31 + i / 251) as u8).collect();
            let parts: Vec<_> = data.chunks(part).enumerate().map(|(i, chunk)| hash(chunk, Some((i * part) as u64))).collect();
            prop_assert_eq!(merge(&parts), blake3::hash(&data));
        }
    }
}
