//! Buckets of any size, and segments in a directory, for tests and benches of manifests.

#![allow(clippy::unwrap_used, reason = "only tests and benches use it")]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use snapferry::error::{Error, Kind, Result};
use snapferry::manifest::{Entry, FileId, Manifest, ManifestWriter, Pin, Segment, SegmentSink, SegmentSource};

/// Segments as files of a directory.
#[derive(Debug, Clone)]
pub(crate) struct Directory(pub(crate) PathBuf);

impl SegmentSink for Directory {
    fn put(&mut self, segment: &Segment, file: Bytes) -> Result<()> {
        Ok(fs::write(self.0.join(segment.name()), file)?)
    }
}

impl SegmentSource for Directory {
    fn get(&self, segment: &Segment) -> Result<Bytes> {
        let path = self.0.join(segment.name());
        let file =
            fs::read(&path).map_err(|error| Error::new(Kind::Io, path.display().to_string()).caused_by(error))?;
        Ok(file.into())
    }
}

/// Writes a manifest of these entries into a directory.
pub(crate) fn write(directory: &Path, entries: impl Iterator<Item = Entry>) -> Manifest {
    let mut writer = ManifestWriter::new(Directory(directory.to_owned()));
    for entry in entries {
        writer.push(entry).unwrap();
    }
    writer.finish().unwrap().0
}

/// Object number `i`, in directories of a thousand, known by ETag, version and file identity.
pub(crate) fn object(i: u64, prefix: &str, version: u64) -> Entry {
    let mut entry = Entry::object(format!("{prefix}/{:06}/part-{i:09}.parquet", i / 1000), 4096 + mix(i) % (1 << 20));
    entry.mtime_ns = 1_700_000_000_000_000_000 + (mix(i ^ 1) % 1_000_000_000_000_000) as i64;
    entry.mode = Some(0o644);
    let [a, b] = [mix((2 * i) ^ (version << 40)), mix((2 * i + 1) ^ (version << 40))];
    entry.pin = Pin {
        etag: Some(format!("{a:016x}{b:016x}").into()),
        version: Some(format!("{b:016x}{a:016x}").into()),
        file: Some(FileId { inode: a, birth_ns: entry.mtime_ns, mtime_ns: entry.mtime_ns }),
    };
    entry
}

/// How many changes [`changed`] makes to a bucket of `count` objects: modified, deleted, renamed, created.
pub(crate) fn changes(count: u64) -> [u64; 4] {
    let every = |step: u64, at: u64| (count + step - 1 - at) / step;
    [every(200, 0), every(500, 1), every(1000, 2), every(500, 3)]
}

/// A bucket of `count` objects.
pub(crate) fn base(count: u64) -> impl Iterator<Item = Entry> {
    (0..count).map(|i| object(i, "data", 0))
}

/// The bucket after one in a hundred objects changed, scattered all over it.
pub(crate) fn changed(count: u64) -> impl Iterator<Item = Entry> {
    let stay = (0..count).filter(|i| i % 500 != 1 && i % 1000 != 2);
    let stay = stay.map(|i| object(i, "data", u64::from(i % 200 == 0)));
    let moved = (0..count).filter(|i| i % 1000 == 2).map(|i| object(i, "moved", 0));
    let created = (0..count).filter(|i| i % 500 == 3).map(move |i| object(count + i, "new", 0));
    stay.chain(moved).chain(created)
}

/// Numbers that look like chance (the finaliser of splitmix64).
pub(crate) fn mix(i: u64) -> u64 {
    let a = (i ^ (i >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    b ^ (b >> 31)
}
