//! The entries of one directory in the order of their keys, in bounded memory however many there are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};

use super::root::Meta;
use crate::manifest::{FileId, Kind};

/// A name, closed by `/` if it is a directory's, and what it names.
pub(super) type Sibling = (Vec<u8>, Meta);

/// Collects siblings in any order.
#[derive(Debug)]
pub(super) struct Sorter {
    memory: Vec<Sibling>,
    memory_max: usize,
    runs: Vec<File>,
}

/// Gives siblings out in order.
#[derive(Debug)]
pub(super) enum Sorted {
    /// All fitted.
    Memory(std::vec::IntoIter<Sibling>),
    /// Sorted runs on disk, with the first name of each.
    Merge { runs: Vec<BufReader<File>>, heads: BinaryHeap<Reverse<(Vec<u8>, usize)>>, metas: Vec<Option<Meta>> },
}

impl Sorter {
    /// Keeps at most this many in memory.
    pub(super) fn new(memory_max: usize) -> Self {
        Self { memory: Vec::new(), memory_max, runs: Vec::new() }
    }

    pub(super) fn push(&mut self, sibling: Sibling) -> std::io::Result<()> {
        self.memory.push(sibling);
        if self.memory.len() >= self.memory_max { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> std::io::Result<()> {
        self.memory.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut run = BufWriter::new(tempfile::tempfile()?);
        for (name, meta) in self.memory.drain(..) {
            run.write_all(&encode(&name, &meta))?;
        }
        let mut file = run.into_inner().map_err(|error| error.into_error())?;
        file.rewind()?;
        self.runs.push(file);
        Ok(())
    }

    pub(super) fn finish(mut self) -> std::io::Result<Sorted> {
        if self.runs.is_empty() {
            self.memory.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            return Ok(Sorted::Memory(self.memory.into_iter()));
        }
        if !self.memory.is_empty() {
            self.spill()?;
        }
        let mut runs: Vec<_> = self.runs.into_iter().map(BufReader::new).collect();
        let (mut heads, mut metas) = (BinaryHeap::new(), Vec::new());
        for (index, run) in runs.iter_mut().enumerate() {
            let first = decode(run)?;
            metas.push(first.map(|(name, meta)| {
                heads.push(Reverse((name, index)));
                meta
            }));
        }
        Ok(Sorted::Merge { runs, heads, metas })
    }
}

impl Sorted {
    pub(super) fn next(&mut self) -> std::io::Result<Option<Sibling>> {
        match self {
            Sorted::Memory(siblings) => Ok(siblings.next()),
            Sorted::Merge { runs, heads, metas } => {
                let Some(Reverse((name, index))) = heads.pop() else { return Ok(None) };
                let following = decode(&mut runs[index])?.map(|(name, meta)| {
                    heads.push(Reverse((name, index)));
                    meta
                });
                Ok(std::mem::replace(&mut metas[index], following).map(|meta| (name, meta)))
            }
        }
    }
}

/// Bytes of a sibling besides its name: kind, mode, size, inode, birth, mtime.
const FIXED: usize = 1 + 4 + 8 + 8 + 8 + 8;

fn encode(name: &[u8], meta: &Meta) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + name.len() + FIXED);
    bytes.extend((name.len() as u16).to_le_bytes());
    bytes.extend(name);
    bytes.push(match meta.kind {
        Kind::Object => 0,
        Kind::Directory => 1,
        Kind::Link => 2,
        Kind::Special => 3,
    });
    bytes.extend(meta.mode.to_le_bytes());
    bytes.extend(meta.size.to_le_bytes());
    bytes.extend(meta.file.inode.to_le_bytes());
    bytes.extend(meta.file.birth_ns.to_le_bytes());
    bytes.extend(meta.file.mtime_ns.to_le_bytes());
    bytes
}

fn decode(run: &mut impl Read) -> std::io::Result<Option<Sibling>> {
    let mut length = [0; 2];
    if run.read(&mut length[..1])? == 0 {
        return Ok(None);
    }
    run.read_exact(&mut length[1..])?;
    let mut name = vec![0; u16::from_le_bytes(length).into()];
    run.read_exact(&mut name)?;
    let mut fixed = [0; FIXED];
    run.read_exact(&mut fixed)?;
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&fixed[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let kind = [Kind::Object, Kind::Directory, Kind::Link, Kind::Special][usize::from(fixed[0] & 3)];
    let mode = u32::from_le_bytes([fixed[1], fixed[2], fixed[3], fixed[4]]);
    let file = FileId { inode: word(13), birth_ns: word(21) as i64, mtime_ns: word(29) as i64 };
    Ok(Some((name, Meta { kind, size: word(5), mode, file })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spilled_or_not_the_order_is_the_same() {
        let siblings: Vec<Sibling> = (0..1000_u64)
            .map(|i| {
                let file = FileId { inode: i, birth_ns: -(i as i64), mtime_ns: i64::MAX - i as i64 };
                let kind = [Kind::Object, Kind::Directory, Kind::Link, Kind::Special][i as usize % 4];
                let name = format!("{}{}", i * 7919 % 1009, if i % 4 == 1 { "/" } else { "" });
                (name.into_bytes(), Meta { kind, size: i << 33, mode: 0o640, file })
            })
            .collect();
        let sort = |memory_max| {
            let mut sorter = Sorter::new(memory_max);
            siblings.iter().for_each(|sibling| sorter.push(sibling.clone()).unwrap());
            let mut sorted = sorter.finish().unwrap();
            std::iter::from_fn(move || sorted.next().unwrap()).collect::<Vec<_>>()
        };
        let mut expected = siblings.clone();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        for memory_max in [1, 7, 999, 1000, 1001] {
            assert_eq!(sort(memory_max), expected, "{memory_max}");
        }
    }
}
