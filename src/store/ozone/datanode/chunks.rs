//! The chunks of a block, and which stretches of them a range needs. Pure.

use std::ops::Range;
use std::sync::Arc;

use super::fault::Fault;
use super::sums::{NONE, Sums};
use super::wire::{ChecksumData, ChunkInfo};
use crate::error::Kind;

/// `OZONE_SCM_CHUNK_MAX_SIZE`: datanodes take no larger chunk.
pub(super) const CHUNK_BYTES_MAX: u64 = 32 << 20;

/// A chunk of a block.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chunk {
    name: String,
    /// Where it begins in its block, in bytes.
    offset: u64,
    length: u64,
    pub(super) sums: Option<Arc<Sums>>,
}

/// A stretch of a chunk to ask for, and what of it is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stretch<'a> {
    pub(super) chunk: &'a Chunk,
    /// In bytes from where the chunk begins; cut at windows.
    pub(super) asked: Range<u64>,
    /// In bytes from where `asked` begins.
    pub(super) wanted: Range<usize>,
}

impl Stretch<'_> {
    /// Bytes asked for.
    pub(super) fn length(&self) -> u64 {
        self.asked.end - self.asked.start
    }

    /// What to ask the datanode for. Without the sums, which we have: then it does not send them back, and reads in
    /// larger buffers.
    pub(super) fn info(&self) -> ChunkInfo {
        ChunkInfo {
            name: self.chunk.name.clone(),
            offset: self.chunk.offset + self.asked.start,
            length: self.length(),
            checksums: ChecksumData { kind: NONE, window: 0, sums: Vec::new() },
        }
    }
}

/// All chunks of a block, without gaps from its beginning.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ChunkList(Box<[Chunk]>);

impl ChunkList {
    /// Takes over a datanode's list for a block of `length` bytes; it may go on behind the block's end.
    pub(super) fn new(length: u64, chunks: Vec<ChunkInfo>) -> Result<Self, Fault> {
        let mut end = 0_u64;
        let mut list = Vec::with_capacity(chunks.len());
        for ChunkInfo { name, offset, length, checksums } in chunks {
            if offset != end || !(1..=CHUNK_BYTES_MAX).contains(&length) {
                let what = format!("a chunk of {length} bytes at byte {offset} does not follow byte {end}");
                return Err(Fault::new(Kind::Unsupported, what));
            }
            end += length;
            list.push(Chunk { name, offset, length, sums: Sums::new(length, &checksums)?.map(Arc::new) });
        }
        if end < length {
            return Err(Fault::new(Kind::Unavailable, format!("the replica ends at byte {end} of {length}")));
        }
        Ok(Self(list.into()))
    }

    /// What to ask for to have a range of the block, in order.
    pub(super) fn stretches(&self, range: Range<u64>) -> impl Iterator<Item = Stretch<'_>> {
        let first = self.0.partition_point(|chunk| chunk.offset + chunk.length <= range.start);
        let inside = self.0[first..].iter().take_while(move |chunk| chunk.offset.max(range.start) < range.end);
        inside.map(move |chunk| {
            let start = range.start.saturating_sub(chunk.offset);
            let end = (range.end - chunk.offset).min(chunk.length);
            let window = chunk.sums.as_ref().map_or(1, |sums| sums.window());
            let asked = start / window * window..end.next_multiple_of(window).min(chunk.length);
            let wanted = (start - asked.start) as usize..(end - asked.start) as usize;
            Stretch { chunk, asked, wanted }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fake::Stored;
    use super::*;

    proptest! {
        #[test]
        fn stretches_make_the_range(
            lengths in proptest::collection::vec(1..300_usize, 1..8),
            window in 1..100_usize,
            kind in 1..4,
            ends in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let Stored { data, chunks } = Stored::new(&lengths, window, kind);
            let list = ChunkList::new(data.len() as u64, chunks).map_err(|fault| TestCaseError::fail(fault.what))?;
            let (one, other) = (ends.0.index(data.len() + 1), ends.1.index(data.len() + 1));
            let range = one.min(other)..one.max(other);
            let window = if kind == 1 { 1 } else { window };
            let mut content = Vec::new();
            for stretch in list.stretches(range.start as u64..range.end as u64) {
                let Stretch { chunk, asked, wanted } = &stretch;
                prop_assert!(asked.end <= chunk.length && !wanted.is_empty());
                prop_assert_eq!(asked.start % window as u64, 0);
                prop_assert!(asked.end == chunk.length || asked.end % window as u64 == 0);
                prop_assert!(wanted.start < window && stretch.length() as usize - wanted.end < window, "no more than it takes");
                let info = stretch.info();
                prop_assert_eq!(info.offset, chunk.offset + asked.start);
                let got = &data[info.offset as usize..(info.offset + info.length) as usize];
                content.extend_from_slice(&got[wanted.clone()]);
            }
            prop_assert!(content == data[range]);
        }
    }

    #[test]
    fn lists_that_make_no_sense() {
        let list = |change: &dyn Fn(&mut Vec<ChunkInfo>), length| {
            let mut chunks = Stored::new(&[100, 100, 50], 16, 3).chunks;
            change(&mut chunks);
            ChunkList::new(length, chunks).map_err(|fault| fault.kind)
        };
        assert!(list(&|_| {}, 250).is_ok() && list(&|_| {}, 249).is_ok());
        assert_eq!(list(&|_| {}, 251), Err(Kind::Unavailable), "a replica that is not that far");
        assert_eq!(list(&|chunks| chunks.clear(), 1), Err(Kind::Unavailable));
        assert_eq!(list(&|chunks| drop(chunks.remove(1)), 150), Err(Kind::Unsupported));
        assert_eq!(list(&|chunks| chunks.swap(0, 1), 250), Err(Kind::Unsupported));
        assert_eq!(list(&|chunks| chunks[2].length = u64::MAX, 250), Err(Kind::Unsupported));
        assert_eq!(list(&|chunks| chunks[2].length = 0, 200), Err(Kind::Unsupported));
    }
}
