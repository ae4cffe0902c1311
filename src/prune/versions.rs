//! Versions of keys that no snapshot refers to any more.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use tokio::runtime::Handle;

use super::removed::Removed;
use super::turns::Turns;
use crate::blocking::{blocking, stream};
use crate::bucket::Bucket;
use crate::catalog::{Record, StoreSegments};
use crate::error::{Error, Result, Side};
use crate::key::{Key, RESERVED};
use crate::manifest::reader::read_segments;
use crate::manifest::{Digest, Manifest};
use crate::retry::retry;
use crate::snapshot::Name;
use crate::sort::{Sorted, Sorter};
use crate::store::{Listing, Version};

/// Memory for sorting, in bytes.
const SORT_MEMORY: usize = 64 << 20;

/// Which versions are to be removed.
pub(super) struct Unreferenced<'a> {
    pub(super) bucket: &'a Bucket,
    pub(super) side: Side,
    /// The snapshots that are being removed.
    pub(super) going: &'a [(Name, Manifest)],
}

/// The snapshots that there are, by the time at which the record of each was written.
type Known = HashSet<(Name, i64)>;

/// Removes versions. Says why some had to stay, where that is so: it is for the next time then.
///
/// What may go is found out without the lease: a version that is not current, and that no snapshot refers to, stays so,
/// unless a snapshot of the past is taken; so each turn looks whether there is a new snapshot. With a job left unfinished
/// nothing goes: what that needs is not known to be in a snapshot.
pub(super) async fn remove_versions(
    work: Unreferenced<'_>,
    turns: &mut Turns<'_>,
    removed: &mut Removed,
) -> Result<Option<String>> {
    let Unreferenced { bucket, side, going } = work;
    turns.next().await?;
    if turns.is_unfinished().await || bucket.catalog().pending().await?.is_some() {
        return Ok(Some("a job was left unfinished, so all versions stay until one has been sealed".into()));
    }
    let names = bucket.catalog().names().await?;
    turns.end().await?;
    let before_ns = match side {
        Side::Source => i64::MAX,
        Side::Target => match bucket.catalog().newest(Record::is_sealed).await? {
            Some(newest) => names.iter().find(|(name, _)| *name == newest.name).map_or(i64::MIN, |(_, at_ns)| *at_ns),
            None => return Ok(None),
        },
    };
    let mut remaining = Vec::with_capacity(names.len());
    for (name, _) in &names {
        remaining.push(bucket.catalog().manifest(name).await?);
    }
    let known: Known = names.into_iter().collect();
    let store = bucket.store();
    let mut listings = vec![store.list_versions(&Key::default()).await?];
    if side == Side::Target {
        listings.push(store.list_versions(&Key::from(RESERVED)).await?);
    }
    let going: Vec<Manifest> = going.iter().map(|(_, manifest)| manifest.clone()).collect();
    let segments = Arc::new(StoreSegments::new(bucket.catalog(), Handle::current()));
    let folder = bucket.folder().to_owned();
    let sorted = blocking(move || sort(&remaining, &going, listings, segments, &folder)).await?;

    let mut batch = Batch::default();
    let mut unwanted = stream(move || Ok(Choice::new(sorted, side, before_ns)));
    while let Some(version) = unwanted.next().await {
        // A removal is what hides older versions: those have to be gone first.
        let version = version?;
        let full = batch.versions.len().max(batch.removals.len()) >= store.capabilities().delete_batch_max.max(1);
        if full && !batch.delete(bucket, turns, &known, removed).await? {
            return Ok(Some(overtaken()));
        }
        batch.add(version);
    }
    let done = batch.delete(bucket, turns, &known, removed).await?;
    Ok((!done).then(overtaken))
}

fn overtaken() -> String {
    "a job began, or a snapshot was taken, meanwhile: what is left goes the next time".into()
}

/// What is deleted in one turn.
#[derive(Default)]
struct Batch {
    versions: Vec<(Key, Box<str>)>,
    /// The current removals of keys of which nothing is left then.
    removals: Vec<(Key, Box<str>)>,
    bytes: u64,
}

impl Batch {
    fn add(&mut self, version: Version) {
        self.bytes += version.size;
        let list = if version.current { &mut self.removals } else { &mut self.versions };
        list.push((version.key, version.id));
    }

    /// Deletes what was added; false where that might no longer be right.
    async fn delete(
        &mut self,
        bucket: &Bucket,
        turns: &mut Turns<'_>,
        known: &Known,
        removed: &mut Removed,
    ) -> Result<bool> {
        let Self { versions, removals, bytes } = std::mem::take(self);
        if versions.is_empty() && removals.is_empty() {
            return Ok(true);
        }
        if turns.next().await?
            && (turns.is_unfinished().await || bucket.catalog().names().await?.iter().any(|one| !known.contains(one)))
        {
            return Ok(false);
        }
        for list in [&versions, &removals] {
            if !list.is_empty() {
                retry(|| bucket.store().delete_versions(list), |_| {}).await?;
                removed.versions += list.len() as u64;
            }
        }
        removed.bytes += bytes;
        Ok(true)
    }
}

/// What a sorted record says of a version.
const WAS_WANTED: u8 = 0;
const IS_WANTED: u8 = 1;
const IS_THERE: u8 = 2;

/// All that is said of versions, by key and version: by the snapshots that remain, by those that go, and by the store.
fn sort(
    remaining: &[Manifest],
    going: &[Manifest],
    listings: Vec<Listing<Version>>,
    segments: Arc<StoreSegments>,
    folder: &Path,
) -> Result<Sorted> {
    let mut sorter = Sorter::new(folder, SORT_MEMORY);
    let mut name = Vec::new();
    let mut seen: HashSet<Digest> = HashSet::new();
    for (manifests, what) in [(remaining, IS_WANTED), (going, WAS_WANTED)] {
        for manifest in manifests {
            // What is in a segment of a remaining snapshot is wanted, whatever else refers to it.
            let new = manifest.segments().iter().filter(|segment| seen.insert(segment.digest)).cloned();
            for entry in read_segments(new.collect(), segments.clone()) {
                let entry = entry?;
                // Without a version it may be any.
                sorter.push(named(&mut name, &entry.key, entry.pin.version.as_deref().unwrap_or("")), &[what])?;
            }
        }
    }
    let mut payload = Vec::new();
    for listing in listings {
        for version in listing.entries() {
            let Version { key, id, current, removal, mtime_ns, size } = version?;
            payload.clear();
            payload.extend([IS_THERE, current.into(), removal.into()]);
            payload.extend(mtime_ns.to_le_bytes());
            payload.extend(size.to_le_bytes());
            sorter.push(named(&mut name, &key, &id), &payload)?;
        }
    }
    sorter.finish()
}

/// A key and a version as one name; those of one key are together.
fn named<'a>(name: &'a mut Vec<u8>, key: &Key, id: &str) -> &'a [u8] {
    name.clear();
    name.extend((key.len() as u32).to_be_bytes());
    name.extend(key.as_bytes());
    name.extend(id.as_bytes());
    name
}

/// Takes [`named`] apart.
fn key_and_id(name: &[u8]) -> Option<(Key, Box<str>)> {
    let (len, rest) = name.split_first_chunk::<4>()?;
    let (key, id) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    Some((Key::copy_from(key), std::str::from_utf8(id).ok()?.into()))
}

/// Chooses the versions to be removed, those of each key before its removal.
struct Choice<I> {
    sorted: I,
    side: Side,
    /// Only what was written before.
    before_ns: i64,
    /// The version of which all is being gathered.
    version: Option<Said>,
    key: KeySoFar,
    /// Chosen and not yet passed on.
    chosen: std::collections::VecDeque<Version>,
    ended: bool,
}

/// All that was said of a version.
struct Said {
    key: Key,
    id: Box<str>,
    is_wanted: bool,
    was_wanted: bool,
    /// Current, removal, time and size, where it is there.
    there: Option<(bool, bool, i64, u64)>,
}

/// What is known so far of the key whose versions are gone through.
#[derive(Default)]
struct KeySoFar {
    key: Option<Key>,
    /// A snapshot refers to it without saying to which version.
    all_wanted: bool,
    /// Something stays beside the removal.
    stays: bool,
    /// Its current version is a removal, which may go if nothing else stays.
    removal: Option<Version>,
}

impl<I: Iterator<Item = Result<crate::sort::Record>>> Choice<I> {
    fn new(sorted: I, side: Side, before_ns: i64) -> Self {
        let (version, key, chosen) = (None, KeySoFar::default(), Default::default());
        Self { sorted, side, before_ns, version, key, chosen, ended: false }
    }

    fn take(&mut self, record: &crate::sort::Record) -> Result<()> {
        let bad = || Error::internal("a sorted version cannot be read");
        let (key, id) = key_and_id(&record.key).ok_or_else(bad)?;
        if self.version.as_ref().is_none_or(|version| (&version.key, &version.id) != (&key, &id)) {
            self.decide();
            self.version = Some(Said { key, id, is_wanted: false, was_wanted: false, there: None });
        }
        let Some(version) = &mut self.version else { return Err(bad()) };
        match *record.payload {
            [IS_WANTED] => version.is_wanted = true,
            [WAS_WANTED] => version.was_wanted = true,
            [IS_THERE, current, removal, ref numbers @ ..] if numbers.len() == 16 => {
                let (mtime_ns, size) = numbers.split_at(8);
                let mtime_ns = i64::from_le_bytes(mtime_ns.try_into().map_err(|_| bad())?);
                let size = u64::from_le_bytes(size.try_into().map_err(|_| bad())?);
                version.there = Some((current == 1, removal == 1, mtime_ns, size));
            }
            _ => return Err(bad()),
        }
        Ok(())
    }

    /// All is known of a version.
    fn decide(&mut self) {
        let Some(Said { key, id, is_wanted, was_wanted, there }) = self.version.take() else { return };
        if self.key.key.as_ref() != Some(&key) {
            self.close();
            self.key.key = Some(key.clone());
        }
        self.key.all_wanted |= is_wanted && id.is_empty();
        let Some((current, removal, mtime_ns, size)) = there else { return };
        let asked_for = match self.side {
            Side::Source => was_wanted && !current,
            Side::Target => mtime_ns < self.before_ns && (!current || removal),
        };
        let version = Version { key, id, current, removal, mtime_ns, size };
        if !asked_for || is_wanted || self.key.all_wanted {
            self.key.stays = true;
        } else if current {
            self.key.removal = Some(version);
        } else {
            self.chosen.push_back(version);
        }
    }

    /// All is known of a key.
    fn close(&mut self) {
        let KeySoFar { stays, removal, .. } = std::mem::take(&mut self.key);
        self.chosen.extend(removal.filter(|_| !stays));
    }

    fn step(&mut self) -> Result<Option<Version>> {
        while self.chosen.is_empty() && !self.ended {
            match self.sorted.next().transpose()? {
                Some(record) => self.take(&record)?,
                None => {
                    self.decide();
                    self.close();
                    self.ended = true;
                }
            }
        }
        Ok(self.chosen.pop_front())
    }
}

impl<I: Iterator<Item = Result<crate::sort::Record>>> Iterator for Choice<I> {
    type Item = Result<Version>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
