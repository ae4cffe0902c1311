//! The proof before the seal: pure, entry by entry.

use super::differences::{Difference, Differences};
use crate::error::{Result, Side};
use crate::key::Key;
use crate::manifest::{Entry, Kind};
use crate::merge::{Entries, merge_by_key};
use crate::plan::{is_same_entry, same_content};

/// The streams of a proof, in byte order.
pub(crate) struct Evidence<'a> {
    /// The source's snapshot.
    pub(crate) source: Entries<'a>,
    /// The target as it is now.
    pub(crate) actual: Entries<'a>,
    /// What was landed.
    pub(crate) landed: Entries<'a>,
    /// The target's base.
    pub(crate) base: Entries<'a>,
}

/// Compares the target with the snapshot, entry by entry, and hands each proved entry of the target, as its manifest
/// keeps it, to `proved`. `directories`: the target has real directories, so parents may be there that nobody listed.
/// `leaves`: says what else may be on the target.
pub(crate) fn prove(
    evidence: Evidence<'_>,
    directories: bool,
    leaves: impl Fn(&Entry) -> bool,
    mut proved: impl FnMut(Entry) -> Result<()>,
) -> Result<Differences> {
    let mut differences = Differences::on(Side::Target);
    let mut unexplained: Vec<Key> = Vec::new();
    for row in merge_by_key([evidence.source, evidence.actual, evidence.landed, evidence.base]) {
        let (key, [source, actual, landed, base]) = row?;
        while let Some(directory) = unexplained.pop_if(|directory| !key.starts_with(directory.as_bytes())) {
            differences.add(&directory, Difference::Extra);
        }
        match (source, actual) {
            (None, None) => {}
            // The directories that it is in stay, too.
            (None, Some(actual)) if leaves(&actual) => unexplained.clear(),
            (Some(_), None) => {
                unexplained.clear();
                differences.add(&key, Difference::Missing);
            }
            (None, Some(actual)) if directories && actual.kind == Kind::Directory => unexplained.push(key),
            (None, Some(_)) => differences.add(&key, Difference::Extra),
            (Some(source), Some(actual)) => {
                unexplained.clear();
                match entry(&source, &actual, [landed, base], directories) {
                    Ok(entry) => proved(entry)?,
                    Err(difference) => differences.add(&key, difference),
                }
            }
        }
    }
    for directory in unexplained {
        differences.add(&directory, Difference::Extra);
    }
    Ok(differences)
}

/// The target's manifest entry, if what is there is known to be the source's content.
fn entry(
    source: &Entry,
    actual: &Entry,
    records: [Option<Entry>; 2],
    directories: bool,
) -> std::result::Result<Entry, Difference> {
    let differs = |a: Option<u32>, b: Option<u32>| matches!((a, b), (Some(a), Some(b)) if a != b);
    if source.kind != actual.kind || source.size != actual.size || differs(source.mode, actual.mode) {
        return Err(Difference::Different);
    }
    let own = |pin, digest, blocks, attributes| Entry {
        key: source.key.clone(),
        kind: source.kind,
        size: source.size,
        mtime_ns: source.mtime_ns,
        mode: actual.mode.or(source.mode),
        pin,
        origin: Some(source.pin.clone()),
        digest,
        blocks,
        attributes,
    };
    if directories && source.kind == Kind::Directory {
        return Ok(own(actual.pin.clone(), None, None, source.attributes.clone()));
    }
    let held = records.into_iter().flatten().find(|record| is_same_entry(record, actual));
    let Some(held) = held else { return Err(Difference::Unproved) };
    match same_content(source, &held) {
        Some(true) => {}
        Some(false) => return Err(Difference::Different),
        None => return Err(Difference::Unproved),
    }
    let pin = held.pin.completed_by(&actual.pin);
    Ok(own(pin, held.digest.or(source.digest), held.blocks, held.attributes))
}
