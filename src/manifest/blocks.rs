//! Block digests: what is known of an object's content, block by block.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use bytes::Bytes;

use super::Digest;

/// The BLAKE3 subtree value of one block.
pub type Subtree = [u8; 32];

const SUBTREE_BYTES: usize = size_of::<Subtree>();

/// The shortest and the longest block, as powers of two.
const LOG_MIN: u8 = 10;
const LOG_MAX: u8 = 40;

/// BLAKE3 subtree values of an object's aligned blocks, all as long as one power of two but for the last, which ends with
/// the object. They merge to the object's digest (`blake3::hazmat`), so that they prove it, and each block by itself.
///
/// As bytes, which is how a manifest keeps them: the power of two in one byte, then 32 bytes for each block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks(Bytes);

impl Blocks {
    /// The values of an object that was cut into blocks of `block_bytes`, a power of two from 1,024.
    pub fn new(block_bytes: u64, values: &[Subtree]) -> Self {
        debug_assert!(block_bytes.is_power_of_two() && (LOG_MIN..=LOG_MAX).contains(&(block_bytes.ilog2() as u8)));
        let mut bytes = Vec::with_capacity(1 + values.len() * SUBTREE_BYTES);
        bytes.push(block_bytes.ilog2() as u8);
        bytes.extend(values.as_flattened());
        Self(bytes.into())
    }

    /// Reads the stored form; none where the bytes are not one.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        let (&log, values) = bytes.split_first()?;
        let whole = (LOG_MIN..=LOG_MAX).contains(&log) && !values.is_empty() && values.len() % SUBTREE_BYTES == 0;
        whole.then_some(Self(bytes))
    }

    /// The stored form.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Length of a block, in bytes.
    pub fn block_bytes(&self) -> u64 {
        1 << self.0[0]
    }

    /// The values in the order of the blocks.
    pub fn values(&self) -> &[Subtree] {
        self.0[1..].as_chunks().0
    }

    /// True where there are as many as an object of this size has blocks.
    pub fn fit(&self, size: u64) -> bool {
        self.values().len() as u64 == size.div_ceil(self.block_bytes())
    }

    /// The object's digest, which at least two blocks prove.
    pub fn digest(&self) -> Option<Digest> {
        (self.values().len() > 1).then(|| merge(self.values()))
    }

    /// The values of blocks that are `block_bytes` long, which is no less than they are.
    #[must_use]
    pub fn coarser(&self, block_bytes: u64) -> Self {
        if block_bytes <= self.block_bytes() {
            return self.clone();
        }
        let together = (block_bytes / self.block_bytes()) as usize;
        let values: Vec<Subtree> = self.values().chunks(together).map(subtree).collect();
        Self::new(block_bytes, &values)
    }
}

/// The object's digest from its blocks' values, of which there are at least two.
pub fn merge(values: &[Subtree]) -> Digest {
    let (left, right) = halves(values);
    merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash)
}

/// The value of all these blocks together; the first begins where a block as long as all of them might begin.
fn subtree(values: &[Subtree]) -> Subtree {
    match values {
        [one] => *one,
        _ => {
            let (left, right) = halves(values);
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// BLAKE3's tree is full to the left: the left subtree holds the largest power of two of blocks that leaves some over.
fn halves(values: &[Subtree]) -> (&[Subtree], &[Subtree]) {
    values.split_at(values.len().next_power_of_two() / 2)
}

/// Hashes a range of an object that begins where a block begins and comes in pieces, into its blocks' values.
#[derive(Debug)]
pub struct BlockHasher {
    block_bytes: u64,
    hasher: blake3::Hasher,
    /// Where the open block began, and how much of it has come.
    at: u64,
    filled: u64,
    values: Vec<Subtree>,
}

impl BlockHasher {
    /// Of the range that begins at `offset`, a multiple of `block_bytes`.
    pub fn new(offset: u64, block_bytes: u64) -> Self {
        debug_assert_eq!(offset % block_bytes, 0);
        Self { block_bytes, hasher: hasher_at(offset), at: offset, filled: 0, values: Vec::new() }
    }

    /// The next bytes.
    pub fn update(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let room = self.block_bytes - self.filled;
            let (now, rest) = data.split_at(usize::try_from(room).map_or(data.len(), |room| room.min(data.len())));
            self.hasher.update(now);
            self.filled += now.len() as u64;
            if self.filled == self.block_bytes {
                self.values.push(self.hasher.finalize_non_root());
                self.at += self.block_bytes;
                (self.hasher, self.filled) = (hasher_at(self.at), 0);
            }
            data = rest;
        }
    }

    /// The values of all blocks; the last may be short.
    pub fn finish(mut self) -> Vec<Subtree> {
        if self.filled > 0 {
            self.values.push(self.hasher.finalize_non_root());
        }
        self.values
    }
}

fn hasher_at(offset: u64) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset);
    hasher
}

/// The digest of a whole object, and its blocks' values where it has at least one block of `block_bytes`.
pub fn digest_and_blocks(data: &[u8], block_bytes: u64) -> (Digest, Option<Blocks>) {
    if (data.len() as u64) < block_bytes {
        return (blake3::hash(data), None);
    }
    if data.len() as u64 == block_bytes {
        // One pass serves both: a value differs from a digest in its last step only.
        let mut hasher = blake3::Hasher::new();
        hasher.update(data);
        return (hasher.finalize(), Some(Blocks::new(block_bytes, &[hasher.finalize_non_root()])));
    }
    let mut hasher = BlockHasher::new(0, block_bytes);
    hasher.update(data);
    let values = hasher.finish();
    (merge(&values), Some(Blocks::new(block_bytes, &values)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    proptest! {
        #[test]
        fn blocks_merge_to_the_standard_digest(
            len in 0_usize..40_000, log in 10_u32..14, more in 0_u32..3, pieces in 1_usize..5000,
        ) {
            let (data, block_bytes) = (content(len), 1 << log);
            let (digest, blocks) = digest_and_blocks(&data, block_bytes);
            prop_assert_eq!(digest, blake3::hash(&data));
            prop_assert_eq!(blocks.is_some(), len as u64 >= block_bytes);
            let Some(blocks) = blocks else { return Ok(()) };
            prop_assert!(blocks.fit(len as u64));
            prop_assert_eq!(blocks.digest(), (blocks.values().len() > 1).then_some(digest));
            prop_assert_eq!(Blocks::from_bytes(blocks.as_bytes().clone()), Some(blocks.clone()));

            let mut hasher = BlockHasher::new(0, block_bytes);
            data.chunks(pieces).for_each(|piece| hasher.update(piece));
            prop_assert_eq!(hasher.finish(), blocks.values());
            let mut second = BlockHasher::new(block_bytes, block_bytes);
            second.update(&data[block_bytes as usize..]);
            prop_assert_eq!(second.finish(), &blocks.values()[1..]);

            let coarser = blocks.coarser(block_bytes << more);
            let mut hasher = BlockHasher::new(0, block_bytes << more);
            hasher.update(&data);
            prop_assert_eq!(hasher.finish(), coarser.values());
        }
    }

    #[test]
    fn bytes_that_are_no_blocks_are_none() {
        for bytes in [vec![], vec![23], vec![23; 32], vec![23; 34], vec![9; 33], vec![41; 33]] {
            assert_eq!(Blocks::from_bytes(bytes.into()), None);
        }
    }
}
