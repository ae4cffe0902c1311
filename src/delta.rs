//! Moving only what changed of a large object: which ranges the target has already, and the parts that the new object is
//! assembled from.

use std::fmt;
use std::ops::Range;

use crate::manifest::{BlockHasher, Blocks, Entry, Subtree};
use crate::store::{Capabilities, Piece};

/// Most bytes that one copied part covers unless a unit is longer: far below what servers take, for one that copies a
/// gigabyte in one request takes as long as it would to receive it, and copies several parts side by side.
const COPY_BYTES_MAX: u64 = 128 << 20;

/// When only changed blocks move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delta {
    /// Where it can pay.
    #[default]
    Auto,
    /// Wherever it can be done.
    Always,
    /// Objects move whole.
    Never,
}

/// How it is found out what changed of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The base's block digests against the content, which is read at the source.
    Digests,
    /// The same, with digests that are made by reading the target's old object first.
    Learnt,
    /// The pieces that the source's store keeps of it: what is in both snapshots need not be read.
    Told,
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Digests => "by block digests",
            Self::Learnt => "by block digests read from the target",
            Self::Told => "by what the source's store says",
        })
    }
}

/// Why an object moves whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// Somebody wanted it so.
    Never,
    /// It goes in one request.
    Small,
    /// The target has nothing under its key that a seal vouches for.
    NoBase,
    /// What the target has is too little to be worth it.
    LittleBase,
    /// Nothing is known of the blocks of what the target has.
    NoDigests,
    /// The target copies no ranges.
    NoCopies,
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "--delta never",
            Self::Small => "it is small",
            Self::NoBase => "the target has no older version that a seal vouches for",
            Self::LittleBase => "the target's older version is much smaller",
            Self::NoDigests => "no block digests of the target's older version are known; from now on they are (--learn-target reads it for them)",
            Self::NoCopies => "the target does not copy ranges",
        })
    }
}

/// What decides whether an object moves as a delta.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// When only changed blocks move.
    pub delta: Delta,
    /// Whether the target may be read for digests that are not known.
    pub learn_target: bool,
    /// Up to this size an object goes in one request, in bytes.
    pub whole_bytes_max: u64,
    /// Length of a block, in bytes.
    pub block_bytes: u64,
}

impl Policy {
    /// The target's older object that a new one may be made from: `base`, if its content is known and it serves.
    ///
    /// # Errors
    /// Why none may.
    pub fn serving<'a>(
        &self,
        source: &Entry,
        base: Option<&'a Entry>,
        target: &Capabilities,
    ) -> Result<&'a Entry, Whole> {
        if self.delta == Delta::Never {
            return Err(Whole::Never);
        }
        if source.size <= self.whole_bytes_max {
            return Err(Whole::Small);
        }
        // Only what was recorded has an origin or a digest: all else on the target is somebody else's, and has to be read.
        let Some(base) = base.filter(|base| base.digest.is_some() || base.origin.is_some() || self.learn_target) else {
            return Err(Whole::NoBase);
        };
        if !target.copy_ranges {
            return Err(Whole::NoCopies);
        }
        let little = base.size < source.size / 16 || base.size <= target.part_bytes_min;
        if base.size == 0 || (self.delta == Delta::Auto && little) {
            return Err(Whole::LittleBase);
        }
        Ok(base)
    }

    /// How what changed will be found out unless the source's store knows it, as far as that shows beforehand.
    ///
    /// # Errors
    /// Why the object moves whole.
    pub fn foreseen(&self, source: &Entry, base: Option<&Entry>, target: &Capabilities) -> Result<Basis, Whole> {
        self.basis(false, self.serving(source, base, target)?)
    }

    /// The least that crosses to the target for an object, of which it has `base` or nothing that serves, in bytes: where it
    /// moves as a delta, what it has grown by, and one block at least.
    pub fn least_bytes(&self, source: &Entry, base: Option<&Entry>, target: &Capabilities) -> u64 {
        match (self.foreseen(source, base, target), base) {
            (Ok(_), Some(base)) => source.size.saturating_sub(base.size).max(self.block_bytes.min(source.size)),
            _ => source.size,
        }
    }

    /// How what changed will be found out. `told`: the source's store knows pieces that are in both.
    ///
    /// # Errors
    /// Where it cannot be found out.
    pub fn basis(&self, told: bool, base: &Entry) -> Result<Basis, Whole> {
        match &base.blocks {
            _ if told => Ok(Basis::Told),
            Some(_) => Ok(Basis::Digests),
            None if self.learn_target => Ok(Basis::Learnt),
            None => Err(Whole::NoDigests),
        }
    }
}

/// Ranges of an object of `size` bytes that its older version has otherwise or not at all, in order, as exactly as the block
/// digests of both tell.
pub fn changed_ranges(old: &Blocks, new: &Blocks, size: u64) -> Vec<Range<u64>> {
    let block_bytes = old.block_bytes().max(new.block_bytes());
    let (old, new) = (old.coarser(block_bytes), new.coarser(block_bytes));
    let mut changed: Vec<Range<u64>> = Vec::new();
    for (block, value) in (0_u64..).zip(new.values()) {
        let range = block * block_bytes..((block + 1) * block_bytes).min(size);
        if old.values().get(block as usize) == Some(value) {
            continue;
        }
        match changed.last_mut().filter(|last| last.end == range.start) {
            Some(last) => last.end = range.end,
            None => changed.push(range),
        }
    }
    changed
}

/// Ranges that are the same in both of these, in order: pieces with one identity in one place.
pub fn same_ranges(old: &[Piece], new: &[Piece]) -> Vec<Range<u64>> {
    let mut same: Vec<Range<u64>> = Vec::new();
    let mut olds = placed(old).peekable();
    for (at, piece) in placed(new) {
        while olds.next_if(|(old, _)| *old < at).is_some() {}
        if olds.peek().is_none_or(|(old, known)| *old != at || *known != piece) {
            continue;
        }
        match same.last_mut().filter(|last| last.end == at) {
            Some(last) => last.end += piece.size,
            None => same.push(at..at + piece.size),
        }
    }
    same
}

fn placed(pieces: &[Piece]) -> impl Iterator<Item = (u64, &Piece)> {
    pieces.iter().scan(0, |end, piece| {
        let at = *end;
        *end += piece.size;
        Some((at, piece))
    })
}

/// The length of the units in which an object is compared: the blocks' own, or longer so that there are not too many parts.
pub fn unit_bytes(size: u64, block_bytes: u64, target: &Capabilities) -> u64 {
    let mut unit = block_bytes;
    // A unit may become two parts where the older object ended in it.
    let most = u64::from(target.parts_max).saturating_sub(2).max(1);
    while size.div_ceil(unit.max(target.part_bytes_min)) > most {
        unit *= 2;
    }
    unit
}

/// Up to which offset the base has the same content as a unit of the new object, by the base's block digests. `unit` begins
/// where a block begins, `data` is what it holds and `values` are those of its blocks. The base may have ended within the
/// unit: then what it held there is looked for, too.
pub fn kept_to(unit: &Range<u64>, data: &[u8], values: &[Subtree], base: &Blocks, base_bytes: u64) -> u64 {
    let first = (unit.start / base.block_bytes()) as usize;
    let known = base.values().get(first..).unwrap_or_default();
    if known.starts_with(values) {
        return unit.end;
    }
    if (unit.start + 1..unit.end).contains(&base_bytes) {
        let mut hasher = BlockHasher::new(unit.start, base.block_bytes());
        hasher.update(&data[..(base_bytes - unit.start) as usize]);
        if hasher.finish() == known {
            return base_bytes;
        }
    }
    unit.start
}

/// A part of the object that is assembled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment<T> {
    /// The part's number, from 1 up.
    pub number: u32,
    /// Its place in the object, and in the older one if it is copied.
    pub range: Range<u64>,
    /// Copied from the older object; else sent.
    pub copied: bool,
    /// What came with the one unit that a part to send is made of; none where more is needed to make one.
    pub data: Option<T>,
}

/// Makes parts of units that come in order: as few as possible, each as long as the target asks.
#[derive(Debug)]
pub struct Assembler<T> {
    part_bytes_min: u64,
    open: Option<Segment<T>>,
    number: u32,
}

impl<T> Assembler<T> {
    /// For a target of which each part but the last has at least `part_bytes_min` bytes.
    pub fn new(part_bytes_min: u64) -> Self {
        Self { part_bytes_min, open: None, number: 0 }
    }

    /// The next unit of the object, which the older one has in the same place or not. Gives back a part that is complete.
    /// What is too short to be a part of its own is sent with its neighbour.
    pub fn push(&mut self, range: Range<u64>, kept: bool, data: T) -> [Option<Segment<T>>; 2] {
        let min = self.part_bytes_min;
        let before = match &mut self.open {
            Some(open) => {
                let length = open.range.end - open.range.start;
                let joins = match (open.copied == kept, kept) {
                    (true, true) => length < min || range.end - open.range.start <= COPY_BYTES_MAX,
                    _ => length < min,
                };
                if joins {
                    open.copied &= kept;
                    open.range.end = range.end;
                    open.data = None;
                    None
                } else {
                    self.open.take()
                }
            }
            None => None,
        };
        if self.open.is_none() {
            self.number += 1;
            self.open = Some(Segment { number: self.number, range, copied: kept, data: Some(data) });
        }
        // A part to send is complete as soon as it may be one; what is copied may go on.
        let after = self.open.take_if(|open| !open.copied && open.range.end - open.range.start >= min);
        // Nothing is held for a part whose end is still to come.
        if let Some(open) = &mut self.open {
            open.data = None;
        }
        [before, after]
    }

    /// The last part, of any length.
    pub fn finish(self) -> Option<Segment<T>> {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::digest_and_blocks;
    use crate::store::memory::MemoryStore;

    const BLOCK: u64 = 1024;

    /// What is done to an object between two snapshots.
    #[derive(Debug, Clone)]
    enum Edit {
        Overwrite(prop::sample::Index, usize),
        Append(usize),
        Truncate(prop::sample::Index),
        Insert(prop::sample::Index, usize),
        Remove(prop::sample::Index, usize),
    }

    fn edit() -> impl Strategy<Value = Edit> {
        let at = any::<prop::sample::Index>;
        prop_oneof![
            (at(), 1_usize..3000).prop_map(|(at, len)| Edit::Overwrite(at, len)),
            (1_usize..5000).prop_map(Edit::Append),
            at().prop_map(Edit::Truncate),
            (at(), 1_usize..3000).prop_map(|(at, len)| Edit::Insert(at, len)),
            (at(), 1_usize..3000).prop_map(|(at, len)| Edit::Remove(at, len)),
        ]
    }

    fn edited(mut content: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
        for (fill, edit) in (101..).zip(edits) {
            let place = |at: &prop::sample::Index| at.index(content.len() + 1);
            match edit {
                Edit::Overwrite(at, len) => {
                    let start = place(at);
                    let end = (start + len).min(content.len());
                    content[start..end].fill(fill);
                }
                Edit::Append(len) => content.extend(std::iter::repeat_n(fill, *len)),
                Edit::Truncate(at) => content.truncate(place(at)),
                Edit::Insert(at, len) => {
                    let start = place(at);
                    content.splice(start..start, std::iter::repeat_n(fill, *len)).for_each(drop);
                }
                Edit::Remove(at, len) => {
                    let start = place(at);
                    content.drain(start..(start + len).min(content.len()));
                }
            }
        }
        content
    }

    /// Lengths around every border.
    fn length() -> impl Strategy<Value = usize> {
        let block = BLOCK as usize;
        prop_oneof![
            prop::sample::select(vec![0, 1, block - 1, block, block + 1, 3 * block, 5 * block - 1, 20 * block]),
            0_usize..30_000,
        ]
    }

    /// The parts of `new` on a target that has `old`, as a transfer makes them.
    fn parts(old: &[u8], new: &[u8], unit_bytes: u64, part_bytes_min: u64) -> Vec<Segment<()>> {
        let (_, base) = digest_and_blocks(old, BLOCK);
        let (base, size) = (base.unwrap(), new.len() as u64);
        let mut assembler = Assembler::new(part_bytes_min);
        let mut parts = Vec::new();
        for start in (0..size).step_by(unit_bytes as usize) {
            let unit = start..(start + unit_bytes).min(size);
            let data = &new[unit.start as usize..unit.end as usize];
            let mut hasher = BlockHasher::new(start, BLOCK);
            hasher.update(data);
            let kept = kept_to(&unit, data, &hasher.finish(), &base, old.len() as u64);
            for (range, kept) in [(unit.start..kept, true), (kept..unit.end, false)] {
                if !range.is_empty() {
                    parts.extend(assembler.push(range, kept, ()).into_iter().flatten());
                }
            }
        }
        parts.extend(assembler.finish());
        parts
    }

    proptest! {
        #[test]
        fn assembled_content_is_the_new_content(
            length in length(), edits in prop::collection::vec(edit(), 0..4),
            log in 0_u32..3, part_bytes_min in prop::sample::select(vec![1_u64, 700, BLOCK, 5000]),
        ) {
            let old: Vec<u8> = (0..length).map(|i| (i / 7) as u8 ^ (i / 1000) as u8).collect();
            let new = edited(old.clone(), &edits);
            prop_assume!(old.len() as u64 >= BLOCK && !new.is_empty());
            let parts = parts(&old, &new, BLOCK << log, part_bytes_min);

            let (mut assembled, mut sent) = (Vec::<u8>::new(), 0);
            for (number, part) in (1..).zip(&parts) {
                prop_assert_eq!(part.number, number);
                prop_assert_eq!(part.range.start, assembled.len() as u64);
                let range = part.range.start as usize..part.range.end as usize;
                prop_assert!(part.number as usize == parts.len() || range.len() as u64 >= part_bytes_min);
                prop_assert!(!part.copied || range.end <= old.len());
                assembled.extend(if part.copied { &old[range.clone()] } else { &new[range.clone()] });
                sent += if part.copied { 0 } else { range.len() };
            }
            prop_assert!(assembled == new);
            prop_assert!(sent <= new.len());
            if old == new {
                prop_assert_eq!((sent, parts.len()), (0, 1));
            }
            prop_assert!(parts.len() as u64 <= new.len() as u64 / part_bytes_min + 1);
        }

        #[test]
        fn an_append_costs_the_tail(length in 5 * BLOCK as usize..30_000, more in 1_usize..5000, min in prop::sample::select(vec![1_u64, 5000])) {
            let old: Vec<u8> = (0..length).map(|i| (i / 7) as u8).collect();
            let new = edited(old.clone(), &[Edit::Append(more)]);
            let parts = parts(&old, &new, BLOCK, min);
            let sent: u64 = parts.iter().filter(|part| !part.copied).map(|part| part.range.end - part.range.start).sum();
            prop_assert_eq!(sent, more as u64);
        }

        #[test]
        fn what_is_not_in_a_changed_range_is_the_same(length in length(), edits in prop::collection::vec(edit(), 0..4)) {
            let old: Vec<u8> = (0..length).map(|i| (i / 7) as u8 ^ (i / 1000) as u8).collect();
            let new = edited(old.clone(), &edits);
            let blocks = |data: &[u8]| digest_and_blocks(data, BLOCK).1;
            let (Some(before), Some(after)) = (blocks(&old), blocks(&new)) else { return Ok(()) };
            let mut patched = old.clone();
            patched.resize(new.len(), 0);
            for range in changed_ranges(&before, &after, new.len() as u64) {
                let range = range.start as usize..range.end as usize;
                patched[range.clone()].copy_from_slice(&new[range]);
            }
            prop_assert!(patched == new);
            prop_assert_eq!(changed_ranges(&after, &after, new.len() as u64), []);
        }

        #[test]
        fn one_edit_costs_its_blocks(length in 0_usize..30_000, at in any::<prop::sample::Index>(), len in 1_usize..3000) {
            let old = vec![7; length + BLOCK as usize];
            let new = edited(old.clone(), &[Edit::Overwrite(at, len)]);
            let parts = parts(&old, &new, BLOCK, 1);
            let sent: u64 = parts.iter().filter(|part| !part.copied).map(|part| part.range.end - part.range.start).sum();
            prop_assert!(sent <= (len as u64).div_ceil(BLOCK) * BLOCK + BLOCK);
        }

        #[test]
        fn there_are_never_too_many_parts(size in 1_u64..1 << 43, log in 20_u32..27, part_bytes_min in prop::sample::select(vec![1_u64, 5 << 20])) {
            let target = Capabilities { part_bytes_min, parts_max: 10_000, ..MemoryStore::like_s3() };
            let unit = unit_bytes(size, 1 << log, &target);
            prop_assert!(unit.is_power_of_two() && unit >= 1 << log);
            prop_assert!(size.div_ceil(unit.max(part_bytes_min)) < 10_000);
        }

        #[test]
        fn same_ranges_hold_the_same(old in pieces(), new in pieces()) {
            let flat = |pieces: &[Piece]| -> Vec<(String, u64)> {
                pieces.iter().flat_map(|piece| (0..piece.size).map(|at| (piece.identity.to_string(), at))).collect()
            };
            let (before, after) = (flat(&old), flat(&new));
            let same = same_ranges(&old, &new);
            let mut end = None;
            for range in &same {
                prop_assert!(!range.is_empty() && end.is_none_or(|end| end < range.start));
                end = Some(range.end);
                let range = range.start as usize..range.end as usize;
                prop_assert_eq!(&before[range.clone()], &after[range]);
            }
            if old == new {
                prop_assert_eq!(same.len(), usize::from(!after.is_empty()));
            }
        }
    }

    fn pieces() -> impl Strategy<Value = Vec<Piece>> {
        prop::collection::vec((1_u64..4, "[ab]"), 0..6)
            .prop_map(|pieces| pieces.into_iter().map(|(size, id)| Piece { size, identity: id.into() }).collect())
    }
}
