//! Large objects of which the target has an older version: what changed crosses, the rest is copied on the target's side.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use futures::stream::{self, FuturesUnordered, StreamExt};
use tokio::sync::OwnedSemaphorePermit;

use super::Transfer;
use super::parts::{Landed, Written};
use crate::checksum::Sum;
use crate::delta::{Assembler, Basis, Segment, Whole, kept_to, same_ranges, unit_bytes};
use crate::error::{Error, Kind, Result, Side};
use crate::key::Key;
use crate::manifest::{BlockHasher, Blocks, Entry, Subtree};
use crate::plan::Landing;
use crate::progress::Progress;
use crate::store::{Condition, Part, Upload};

/// Units that are read ahead of the part that is being decided on.
const READ_AHEAD: usize = 8;

/// What the assembly of one object knows beforehand.
struct Assembly<'a> {
    source: &'a Entry,
    base: &'a Entry,
    /// The base's block digests; none where the source's store tells all that is known.
    known: Option<Blocks>,
    block_bytes: u64,
    /// Ranges of which the source's store says that base and source have them in common.
    same: Vec<Range<u64>>,
}

/// Content in memory, and its share of the budget.
type Held = (Bytes, Option<OwnedSemaphorePermit>);

/// A unit of the new object, compared.
struct Unit {
    range: Range<u64>,
    /// Up to here the base has it in the same place.
    kept_to: u64,
    values: Vec<Subtree>,
    /// What crosses of it, and the sums of what does not and does; none where it was not read.
    read: Option<(Bytes, [Sum; 2], Option<OwnedSemaphorePermit>)>,
}

/// A part that landed.
struct Placed {
    part: Part,
    copied: bool,
    proof: Proof,
}

/// What is known of the bytes of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// They are right.
    Done,
    /// The target hears what they must be when the upload is finished.
    Claimed,
    /// Nothing.
    Open,
}

/// What came of an assembly.
pub(super) enum Assembled {
    /// The object is there.
    Landed(Box<Entry>),
    /// It has to move whole, where this is there now.
    Whole(Condition),
}

impl Transfer {
    /// Makes the object at `at` of the target's older one and what changed.
    pub(super) async fn assemble(
        &self,
        landing: &Landing,
        source: &Entry,
        at: &Key,
        condition: &Condition,
    ) -> Result<Assembled> {
        let whole = || Ok(Assembled::Whole(condition.clone()));
        let assembly = match self.assembly(source, landing.replaces.as_ref()).await? {
            Ok(assembly) => assembly,
            Err(why) => {
                if !matches!(why, Whole::Small | Whole::NoBase) {
                    tracing::info!("`{}` moves whole: {why}", source.key);
                }
                return whole();
            }
        };
        match self.put_together(&assembly, at, condition).await {
            Ok(landed) => self.proved(&assembly, landed, at, condition).await,
            Err(error) if error.side() == Some(Side::Target) && is_about_copies(&error) => {
                tracing::info!("`{}` moves whole, for its older version does not serve: {error}", source.key);
                whole()
            }
            Err(error) => Err(error),
        }
    }

    async fn assembly<'a>(
        &self,
        source: &'a Entry,
        base: Option<&'a Entry>,
    ) -> Result<std::result::Result<Assembly<'a>, Whole>> {
        let (policy, target) = (self.policy, self.target.capabilities());
        let base = match policy.serving(source, base, target) {
            Ok(base) => base,
            Err(why) => return Ok(Err(why)),
        };
        let same = self.told(source, base).await?;
        let basis = match policy.basis(!same.is_empty(), base) {
            Ok(basis) => basis,
            Err(why) => return Ok(Err(why)),
        };
        let mut known = base.blocks.clone().filter(|blocks| blocks.fit(base.size));
        if basis == Basis::Learnt {
            let read = self.content(&*self.target, base, false).await;
            known = read.map_err(|error| error.on(Side::Target).key(&base.key))?.blocks;
        }
        let block_bytes = known.as_ref().map_or(0, Blocks::block_bytes).max(policy.block_bytes);
        if source.size <= block_bytes {
            return Ok(Err(Whole::Small));
        }
        tracing::info!("`{}` moves as a delta, {basis}", source.key);
        let known = known.map(|known| known.coarser(block_bytes));
        Ok(Ok(Assembly { source, base, known, block_bytes, same }))
    }

    /// Ranges of which the source's store says that they are the same in the base and now.
    async fn told(&self, source: &Entry, base: &Entry) -> Result<Vec<Range<u64>>> {
        let Some(pin) = base.origin.clone() else { return Ok(Vec::new()) };
        let old = Entry { pin, ..Entry::object(source.key.clone(), base.size) };
        let pieces = |entry: Entry| async move {
            match self.retrying(|| self.source.pieces(&entry)).await {
                // Only a saving: whoever may not ask reads.
                Err(error) if error.kind() == Kind::Denied => Ok(None),
                asked => asked.map_err(|error| error.on(Side::Source).key(&source.key)),
            }
        };
        let Some(new) = pieces(source.clone()).await? else { return Ok(Vec::new()) };
        let Some(old) = pieces(old).await? else { return Ok(Vec::new()) };
        Ok(same_ranges(&old, &new))
    }

    /// Reads, compares, writes and copies; the object with the ranges of it that the target has copied and not proved.
    async fn put_together(
        &self,
        assembly: &Assembly<'_>,
        at: &Key,
        condition: &Condition,
    ) -> Result<(Entry, Vec<Range<u64>>)> {
        let source = assembly.source;
        let _shown = self.progress.large(&source.key);
        let target = self.target.capabilities();
        let open = self.open_upload(source, at, 0).await;
        let (upload, earlier) = open.map_or_else(Default::default, |(upload, parts)| (Some(upload), parts));
        let (_, attributes) = self.read_part(source, 0, 0).await?;
        let attributes = self.attributes(source, attributes);
        let upload = match upload {
            Some(upload) => upload,
            None => self.begin(source, at, &attributes, 0).await?,
        };
        let (placed, values) = match self.all_parts(assembly, &upload, &earlier).await {
            Ok(done) => done,
            Err(error) => {
                // What the older object does not serve for, or the source no longer has, makes the parts worthless.
                if is_about_copies(&error) {
                    self.abort(&upload).await;
                }
                return Err(error);
            }
        };
        let compared = target.proves_whole && placed.iter().all(|placed| placed.part.sum().is_some());
        let range = |part: &Part| part.offset..part.offset + part.size;
        let is_open = |placed: &&Placed| match placed.proof {
            Proof::Done => false,
            Proof::Claimed => !compared,
            Proof::Open => true,
        };
        let unproved = placed.iter().filter(is_open).map(|placed| range(&placed.part)).collect();
        let reused: u64 = placed.iter().filter(|placed| placed.copied).map(|placed| placed.part.size).sum();
        let parts = placed.into_iter().map(|placed| placed.part).collect();
        let values = Blocks::new(assembly.block_bytes, &values);
        let written = Written { at, upload, parts, values };
        let landed = self.complete(source, written, &attributes, condition).await?;
        Progress::add(&self.progress.bytes_reused, reused);
        Ok((landed, unproved))
    }

    /// Every part of the object in order, and the values of all its blocks.
    async fn all_parts(
        &self,
        assembly: &Assembly<'_>,
        upload: &Upload,
        earlier: &HashMap<u32, Landed>,
    ) -> Result<(Vec<Placed>, Vec<Subtree>)> {
        let target = self.target.capabilities();
        let size = assembly.source.size;
        let unit_bytes = unit_bytes(size, assembly.block_bytes, target);
        let ranges = (0..size).step_by(unit_bytes as usize).map(|start| start..(start + unit_bytes).min(size));
        let mut units = stream::iter(ranges).map(|range| self.unit(assembly, range)).buffered(READ_AHEAD).fuse();
        let mut assembler = Some(Assembler::new(target.part_bytes_min));
        let mut working = FuturesUnordered::new();
        let (mut placed, mut values): (Vec<Placed>, Vec<Subtree>) = Default::default();
        // The sums of what was read since the open part began, and whether all of it was.
        let mut open = Vec::new();
        loop {
            tokio::select! {
                Some(done) = working.next() => placed.push(done?),
                // Units are taken as they come, for each holds a share of the budget that a part may be waiting for.
                unit = units.next(), if assembler.is_some() => {
                    let complete = match unit.transpose()? {
                        Some(unit) => {
                            values.extend(&unit.values);
                            let Some(assembler) = &mut assembler else { continue };
                            unit.pushed_to(assembler, &mut open)
                        }
                        None => assembler.take().and_then(Assembler::finish).into_iter().collect(),
                    };
                    for segment in complete {
                        let sum = sum_of(&segment.range, &mut open);
                        working.push(self.bring(assembly, upload, segment, sum, earlier));
                    }
                }
                else => break,
            }
        }
        placed.sort_by_key(|placed| placed.part.number);
        Ok((placed, values))
    }

    /// Compares a unit of the source with the base.
    async fn unit(&self, assembly: &Assembly<'_>, range: Range<u64>) -> Result<Unit> {
        let Assembly { source, base, known, block_bytes, .. } = assembly;
        let told = assembly.is_told(&range);
        let first = (range.start / block_bytes) as usize;
        let count = (range.end - range.start).div_ceil(*block_bytes) as usize;
        let ends_alike = range.end.is_multiple_of(*block_bytes) || range.end == base.size;
        let recorded = known.as_ref().and_then(|known| known.values().get(first..first + count));
        if let Some(values) = recorded.filter(|_| told && ends_alike) {
            let (kept_to, values) = (range.end, values.to_vec());
            return Ok(Unit { range, kept_to, values, read: None });
        }
        let room = self.budget.take(range.end - range.start).await;
        let turn = self.large.turn().await;
        let (data, _) = self.read_part(source, range.start, range.end - range.start).await?;
        if let Some(turn) = turn {
            self.large.done(turn, data.len() as u64);
        }
        let (known, block_bytes, base_bytes) = (known.clone(), *block_bytes, base.size);
        let unit = range.clone();
        let work = move || {
            let mut hasher = BlockHasher::new(unit.start, block_bytes);
            hasher.update(&data);
            let values = hasher.finish();
            let kept_to = match known {
                _ if told => unit.end,
                Some(known) => kept_to(&unit, &data, &values, &known, base_bytes),
                None => unit.start,
            };
            let (kept, sent) = data.split_at((kept_to - unit.start) as usize);
            let sums = [Sum::of(kept), Sum::of(sent)];
            (kept_to, values, data.slice(kept.len()..), sums)
        };
        let (kept_to, values, sent, sums) = self.hashing.run(work).await?;
        // What does not cross need not stay in memory.
        let room = if sent.is_empty() { None } else { room };
        Ok(Unit { range, kept_to, values, read: Some((sent, sums, room)) })
    }

    /// Brings a part to the target, unless an earlier run has.
    async fn bring(
        &self,
        assembly: &Assembly<'_>,
        upload: &Upload,
        segment: Segment<Option<Held>>,
        sum: Option<Sum>,
        earlier: &HashMap<u32, Landed>,
    ) -> Result<Placed> {
        self.lease.check()?;
        let Segment { number, range, copied, data } = segment;
        let (offset, size) = (range.start, range.end - range.start);
        let before = earlier.get(&number).filter(|(part, _)| (part.offset, part.size) == (offset, size));
        if let Some((part, _)) = before.filter(|_| !copied) {
            Progress::add(&self.progress.bytes_done, size);
            return Ok(Placed { part: part.clone(), copied, proof: Proof::Done });
        }
        // Whoever has a turn waits for nothing else.
        let held = match data.flatten() {
            Some(held) => Some(held),
            None if copied => None,
            None => {
                let room = self.budget.take(size).await;
                Some((self.read_part(assembly.source, offset, size).await?.0, room))
            }
        };
        let turn = self.large.turn().await;
        let part = if let Some((data, _room)) = held {
            let part = self.send_part(upload, number, offset, data).await?;
            self.crossed(size);
            self.note(upload, &part, &[]).await?;
            Placed { part, copied, proof: Proof::Done }
        } else {
            let mut part = match before {
                Some((part, _)) => part.clone(),
                None => {
                    let part = self.copied_part(assembly, upload, number, range).await?;
                    // As the target answered: what is claimed below is no answer.
                    self.note(upload, &part, &[]).await?;
                    part
                }
            };
            Progress::add(&self.progress.bytes_done, size);
            let proof = match sum.map(|sum| (sum, part.proves(&sum))) {
                Some((_, Some(true))) => Proof::Done,
                Some((_, Some(false))) => return Err(copied_wrongly(assembly.base)),
                Some((sum, None)) => {
                    part.claim(&sum);
                    Proof::Claimed
                }
                None => Proof::Open,
            };
            Placed { part, copied, proof }
        };
        if let Some(turn) = turn {
            self.large.done(turn, size);
        }
        Ok(part)
    }

    async fn copied_part(
        &self,
        assembly: &Assembly<'_>,
        upload: &Upload,
        number: u32,
        range: Range<u64>,
    ) -> Result<Part> {
        let base = assembly.base;
        let copy = || self.target.copy_part(upload, number, range.start, base, range.clone());
        self.retrying(copy).await.map_err(|error| error.on(Side::Target).key(&base.key))
    }

    /// Reads back what no answer of the target proves, before anything is made of it.
    async fn proved(
        &self,
        assembly: &Assembly<'_>,
        (landed, unproved): (Entry, Vec<Range<u64>>),
        at: &Key,
        condition: &Condition,
    ) -> Result<Assembled> {
        let there = Entry { key: at.clone(), ..landed.clone() };
        if self.is_as_landed(&there, assembly.block_bytes, unproved).await? {
            return Ok(Assembled::Landed(Box::new(landed)));
        }
        tracing::warn!("{}", copied_wrongly(assembly.base));
        let now = match condition {
            Condition::Any => Condition::Any,
            _ => Condition::Matches(landed.pin),
        };
        Ok(Assembled::Whole(now))
    }

    /// Reads ranges of an object on the target and compares them with its block digests.
    async fn is_as_landed(&self, there: &Entry, block_bytes: u64, ranges: Vec<Range<u64>>) -> Result<bool> {
        let known = there.blocks.as_ref().map_or(&[][..], Blocks::values);
        let blocks = ranges.into_iter().flat_map(|range| range.start / block_bytes..range.end.div_ceil(block_bytes));
        let mut same = stream::iter(blocks)
            .map(|block| async move {
                let start = block * block_bytes;
                let range = start..(start + block_bytes).min(there.size);
                let _room = self.budget.take(range.end - range.start).await;
                let read = self.retrying(|| self.target.read(there, Some(range.clone()))).await;
                let data = read.map_err(|error| error.on(Side::Target).key(&there.key))?.data;
                let values = self.hashing.part(&data, start, block_bytes).await?;
                Ok::<_, Error>(known.get(block as usize..block as usize + 1) == Some(&values[..]))
            })
            .buffer_unordered(READ_AHEAD);
        while let Some(same) = same.next().await {
            if !same? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Assembly<'_> {
    fn is_told(&self, range: &Range<u64>) -> bool {
        self.same.iter().any(|same| same.start <= range.start && range.end <= same.end)
    }
}

impl Unit {
    /// Gives the unit to the assembler: what is kept of it, then what is not. Remembers the sums in `open`.
    fn pushed_to(
        self,
        assembler: &mut Assembler<Option<Held>>,
        open: &mut Vec<(Range<u64>, Option<Sum>)>,
    ) -> Vec<Segment<Option<Held>>> {
        let Self { range, kept_to, read, .. } = self;
        let (data, sums, room) = match read {
            Some((data, sums, room)) => (Some(data), sums.map(Some), room),
            None => (None, [None, None], None),
        };
        let (kept, sent) = (range.start..kept_to, kept_to..range.end);
        let mut complete = Vec::new();
        if !kept.is_empty() {
            open.push((kept.clone(), sums[0]));
            complete.extend(assembler.push(kept, true, None).into_iter().flatten());
        }
        if !sent.is_empty() {
            open.push((sent.clone(), sums[1]));
            let held = data.map(|data| (data, room));
            complete.extend(assembler.push(sent, false, held).into_iter().flatten());
        }
        complete
    }
}

/// The sum of a part from those of what it is made of, which are taken from the front; none where one is not known.
fn sum_of(range: &Range<u64>, open: &mut Vec<(Range<u64>, Option<Sum>)>) -> Option<Sum> {
    let count = open.iter().take_while(|(piece, _)| piece.end <= range.end).count();
    open.drain(..count).try_fold(Sum::default(), |sum, (_, next)| Some(sum.then(next?)))
}

/// True for failures that are not the new object's fault: the older one changed, is gone, or cannot be copied from.
fn is_about_copies(error: &Error) -> bool {
    matches!(error.kind(), Kind::Changed | Kind::NotFound | Kind::Unsupported | Kind::Damaged)
}

fn copied_wrongly(base: &Entry) -> Error {
    Error::new(Kind::Damaged, "the target copied other bytes than it was asked for, or its older version is damaged")
        .on(Side::Target)
        .key(&base.key)
}
