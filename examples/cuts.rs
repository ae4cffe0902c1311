//! What crosses the wire when an object changes, by how it is cut: fixed aligned blocks against content-defined cuts.
//!
//! `cargo run --release --example cuts -- OLD NEW [OLD NEW]...` reads pairs of files and prints for each design:
//!
//! - `new`: bytes of the new file.
//! - `ideal`: bytes sent if any range of the old object could be taken over.
//! - `parts`: bytes sent if the object is put together from parts that S3 accepts, see [`parts`].
//! - `index`: bytes of the digests that have to be kept of the new file.
//! - `cpu`: seconds of one thread for cutting and hashing a GiB of both files.
//!
//! `scripts/compare cuts` makes the files and the table in `docs/delta.md`.

use std::collections::HashMap;
use std::process::ExitCode;

use fastcdc::v2020::FastCDC;
use rustix::time::{ClockId, clock_gettime};

const MIB: usize = 1 << 20;
/// S3's least size of a part but the last: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
/// The other limits, 10,000 parts of at most 5 GiB, cannot matter below 48 GiB.
const PART_MIN: usize = 5 * MIB;

/// How many chunks are looked at to choose between several places of one.
const LOOK_AHEAD: usize = 128;

/// How an object is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Design {
    /// Aligned blocks of so many bytes; a block is looked for at its own place only.
    Blocks(usize),
    /// Content-defined chunks of so many bytes on average, from a quarter to four times as many; looked for anywhere.
    Chunks(usize),
}

/// The designs compared. 4 MiB is the largest average that fastcdc takes.
const DESIGNS: [(&str, Design); 5] = [
    ("blocks-8MiB", Design::Blocks(8 * MIB)),
    ("blocks-1MiB", Design::Blocks(MIB)),
    ("chunks-64KiB", Design::Chunks(MIB / 16)),
    ("chunks-1MiB", Design::Chunks(MIB)),
    ("chunks-4MiB", Design::Chunks(4 * MIB)),
];

/// A block or chunk: where it begins, its bytes, its digest.
struct Piece {
    offset: usize,
    length: usize,
    digest: blake3::Hash,
}

/// A range of the new file: its bytes, and where the old file has the same ones. Without that, it is sent.
#[derive(Clone, Copy, Debug)]
struct Run {
    length: usize,
    old: Option<usize>,
}

impl Design {
    fn cut(self, data: &[u8]) -> Vec<Piece> {
        let piece = |offset, length| Piece { offset, length, digest: blake3::hash(&data[offset..offset + length]) };
        match self {
            Self::Blocks(size) => {
                (0..data.len()).step_by(size).map(|offset| piece(offset, size.min(data.len() - offset))).collect()
            }
            Self::Chunks(average) => FastCDC::new(data, average / 4, average, average * 4)
                .map(|chunk| piece(chunk.offset, chunk.length))
                .collect(),
        }
    }

    /// Bytes of the digests; a chunk's offset and length take 8 more.
    fn index_bytes(self, pieces: usize) -> usize {
        pieces * if matches!(self, Self::Blocks(_)) { 32 } else { 40 }
    }

    /// The new file as runs that are kept or sent. `data` is the new file's: only a prefix of it is hashed again.
    fn runs(self, old: &[Piece], new: &[Piece], data: &[u8]) -> Vec<Run> {
        let mut runs = Vec::new();
        if let Self::Blocks(_) = self {
            for (index, piece) in new.iter().enumerate() {
                // The old file's last block may be short: what was appended begins behind it.
                let kept = old.get(index).filter(|old| {
                    let prefix = || blake3::hash(&data[piece.offset..piece.offset + old.length]);
                    old.digest == piece.digest || (old.length < piece.length && old.digest == prefix())
                });
                let kept = kept.map_or(0, |old| old.length);
                push(&mut runs, kept, Some(piece.offset));
                push(&mut runs, piece.length - kept, None);
            }
            return runs;
        }
        let mut places: HashMap<_, Vec<usize>> = HashMap::new();
        for (index, piece) in old.iter().enumerate() {
            places.entry(piece.digest).or_default().push(index);
        }
        let mut next = 0;
        for (at, piece) in new.iter().enumerate() {
            // A chunk that occurs more than once, as zeros do, is taken from where the run goes on, or goes on longest.
            let follows = old.get(next).filter(|old| old.digest == piece.digest).map(|_| next);
            let goes_on = |index: usize| {
                let pairs = old[index..].iter().zip(&new[at..]).take(LOOK_AHEAD);
                pairs.take_while(|(old, new)| old.digest == new.digest).count()
            };
            let longest = || places.get(&piece.digest)?.iter().copied().max_by_key(|index| goes_on(*index));
            let found = follows.or_else(longest);
            push(&mut runs, piece.length, found.map(|index| old[index].offset));
            next = found.map_or(next, |index| index + 1);
        }
        runs
    }
}

/// Adds a range, to the last run if it goes on there.
fn push(runs: &mut Vec<Run>, length: usize, old: Option<usize>) {
    match runs.last_mut() {
        _ if length == 0 => {}
        Some(last) if last.old.map(|offset| offset + last.length) == old => last.length += length,
        _ => runs.push(Run { length, old }),
    }
}

fn sent(runs: &[Run]) -> usize {
    runs.iter().filter(|run| run.old.is_none()).map(|run| run.length).sum()
}

/// The runs as parts that S3 accepts: all but the last have at least [`PART_MIN`] bytes. A kept run that is shorter is
/// sent. A sent run that is shorter takes what it lacks from the kept runs beside it, or all of one where they cannot
/// spare it.
fn parts(runs: &[Run]) -> Vec<Run> {
    let too_short = |index: usize, run: &Run| run.length < PART_MIN && index + 1 < runs.len();
    let mut parts = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        push(&mut parts, run.length, run.old.filter(|_| !too_short(index, run)));
    }
    let mut at = 0;
    while at + 1 < parts.len() {
        let lacks = PART_MIN.saturating_sub(parts[at].length);
        if parts[at].old.is_some() || lacks == 0 {
            at += 1;
            continue;
        }
        let after = parts[at + 1].length;
        let last = at + 2 == parts.len();
        let spare_before = if at == 0 { 0 } else { parts[at - 1].length - PART_MIN };
        let spare_after = if last { after } else { after - PART_MIN };
        if !(last && after <= lacks) && spare_before + spare_after >= lacks {
            let give = lacks.min(spare_before);
            if at > 0 {
                parts[at - 1].length -= give;
            }
            parts[at].length = PART_MIN;
            let take = lacks - give;
            parts[at + 1] = Run { length: after - take, old: parts[at + 1].old.map(|offset| offset + take) };
        } else {
            let swallowed = if at > 0 && parts[at - 1].length < after { at - 1 } else { at + 1 };
            parts[swallowed].old = None;
            let split = std::mem::take(&mut parts);
            split.iter().for_each(|run| push(&mut parts, run.length, run.old));
            at = 0;
        }
    }
    parts
}

fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn compare(old_name: &str, new_name: &str) -> Result<(), String> {
    let read = |name: &str| std::fs::read(name).map_err(|error| format!("{name}: {error}"));
    let (old, new) = (read(old_name)?, read(new_name)?);
    for (name, design) in DESIGNS {
        let began = thread_seconds();
        let (old_pieces, new_pieces) = (design.cut(&old), design.cut(&new));
        let gibibytes = (old.len() + new.len()).max(1) as f64 / (1 << 30) as f64;
        let cpu = (thread_seconds() - began) / gibibytes;
        let runs = design.runs(&old_pieces, &new_pieces, &new);
        let (ideal, parts, index) = (sent(&runs), sent(&parts(&runs)), design.index_bytes(new_pieces.len()));
        let share = |bytes: usize| 100.0 * bytes as f64 / new.len().max(1) as f64;
        println!(
            "{name:12} new={} ideal={ideal} ({:.1}%) parts={parts} ({:.1}%) index={index} cpu={cpu:.2}",
            new.len(),
            share(ideal),
            share(parts),
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() || names.len() % 2 == 1 {
        eprintln!("usage: cuts OLD NEW [OLD NEW]...");
        return ExitCode::from(2);
    }
    for pair in names.chunks_exact(2) {
        println!("{} -> {}", pair[0], pair[1]);
        if let Err(error) = compare(&pair[0], &pair[1]) {
            eprintln!("cuts: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(seed: u8, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut data);
        data
    }

    /// The runs of the new file, after a check that they cover it and that what is kept is in the old one.
    fn runs(design: Design, old: &[u8], new: &[u8]) -> Vec<Run> {
        let runs = design.runs(&design.cut(old), &design.cut(new), new);
        let mut at = 0;
        for run in &runs {
            if let Some(offset) = run.old {
                assert!(old[offset..offset + run.length] == new[at..at + run.length], "kept bytes differ at {at}");
            }
            at += run.length;
        }
        assert_eq!(at, new.len());
        runs
    }

    const SMALL: [Design; 2] = [Design::Blocks(4096), Design::Chunks(4096)];

    #[test]
    fn designs_cost_what_they_should() {
        let old = bytes(1, 300_001);
        let appended = [old.clone(), bytes(2, 50_000)].concat();
        let inserted = [bytes(2, 7), old.clone()].concat();
        let [blocks, chunks] = SMALL;
        for design in SMALL {
            assert_eq!(sent(&runs(design, &old, &old)), 0);
            assert_eq!(sent(&runs(design, &[], &old)), old.len());
        }
        assert_eq!(sent(&runs(blocks, &old, &appended)), 50_000);
        assert!((50_000..50_000 + 4 * 4096).contains(&sent(&runs(chunks, &old, &appended))));
        assert_eq!(sent(&runs(blocks, &old, &inserted)), inserted.len());
        assert!((7..8 * 4096).contains(&sent(&runs(chunks, &old, &inserted))));
    }

    #[test]
    fn repeated_chunks_stay_in_their_run() {
        let zeros = |chunks: usize| vec![0; chunks * 4 * 4096];
        let old = [bytes(1, 50_000), zeros(2), bytes(2, 50_000), zeros(20), bytes(3, 50_000)].concat();
        let new = [bytes(4, 50_000), zeros(15), bytes(5, 50_000)].concat();
        let kept = runs(SMALL[1], &old, &new).into_iter().filter(|run| run.old.is_some()).collect::<Vec<_>>();
        assert!(kept.len() == 1 && kept[0].length >= zeros(13).len(), "{kept:?}");
    }

    #[test]
    fn short_runs_are_rounded_up() {
        let kept = |mib: usize, old: usize| Run { length: mib * MIB, old: Some(old * MIB) };
        let new = |mib: usize| Run { length: mib * MIB, old: None };
        let size = |run: &Run| (run.length / MIB, run.old.is_some());
        let sizes = |runs: &[Run]| parts(runs).iter().map(size).collect::<Vec<_>>();
        // From the run behind; a short end is sent along rather than filled up from before.
        assert_eq!(sizes(&[new(1), kept(20, 0), new(1), kept(3, 50)]), [(5, false), (16, true), (4, false)]);
        // From both sides, or all of the shorter side.
        assert_eq!(sizes(&[kept(7, 0), new(1), kept(9, 8)]), [(5, true), (5, false), (7, true)]);
        assert_eq!(sizes(&[kept(6, 0), new(1), kept(7, 8), new(6)]), [(7, false), (7, true), (6, false)]);
        // Two copies may meet; a short one may not be there unless it is the last.
        assert_eq!(sizes(&[kept(5, 9), kept(5, 0), kept(4, 20), kept(1, 70)]), [(5, true), (5, true), (5, false)]);
        assert_eq!(sizes(&[kept(5, 9), kept(1, 70)]), [(5, true), (1, true)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn kept_bytes_are_the_same(
            length in 0..100_000_usize,
            edits in prop::collection::vec((any::<prop::sample::Index>(), 0..9000_usize, 0..9000_usize), 0..6),
        ) {
            let old = bytes(3, length);
            let mut new = old.clone();
            for (index, (place, removed, inserted)) in edits.into_iter().enumerate() {
                let at = place.index(new.len() + 1);
                let end = new.len().min(at + removed);
                new.splice(at..end, bytes(4 + index as u8, inserted));
            }
            for design in SMALL {
                runs(design, &old, &new);
            }
        }

        #[test]
        fn parts_are_legal(lengths in prop::collection::vec((1..30 * MIB, any::<bool>()), 0..40)) {
            let (mut runs, mut end) = (Vec::new(), 0);
            for (index, (length, kept)) in lengths.into_iter().enumerate() {
                push(&mut runs, length, kept.then_some((index << 32) + end));
                end += length;
            }
            let parts = parts(&runs);
            let mut at = 0;
            for part in &parts {
                prop_assert!(part.old.is_none_or(|old| old % (1 << 32) == at), "{:?} at {}", part, at);
                at += part.length;
            }
            prop_assert_eq!(at, end);
            prop_assert!(parts.iter().rev().skip(1).all(|part| part.length >= PART_MIN));
            prop_assert!(sent(&parts) >= sent(&runs));
        }
    }
}
