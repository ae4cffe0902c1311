//! Manifest segments in a catalog.

use std::collections::HashSet;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{Catalog, steadily};
use crate::error::{Error, Kind, Result};
use crate::key::Key;
use crate::manifest::{
    Attributes, Digest, Entry, Manifest, ManifestWriter, Segment, SegmentSink, SegmentSource, WAY_OUT,
};
use crate::store::Condition;

/// A catalog's segments, for code that runs on a thread that may block.
#[derive(Debug, Clone)]
pub struct StoreSegments {
    catalog: Catalog,
    runtime: Handle,
    /// Digests of segments that are known to be there.
    known: HashSet<Digest>,
}

impl StoreSegments {
    /// The catalog's segments; `runtime` does the I/O.
    pub fn new(catalog: &Catalog, runtime: Handle) -> Self {
        Self { catalog: catalog.clone(), runtime, known: HashSet::new() }
    }

    fn key(&self, segment: &Segment) -> Key {
        self.catalog.key(&format!("segments/{}", segment.name()))
    }
}

impl SegmentSource for StoreSegments {
    fn get(&self, segment: &Segment) -> Result<Bytes> {
        let key = self.key(segment);
        let found = self.runtime.block_on(steadily(|| self.catalog.store().fetch(&key)))?;
        found.map(|(bytes, _)| bytes).ok_or_else(|| {
            Error::new(Kind::Damaged, "a segment of the manifest is missing")
                .at(self.catalog.store().address())
                .key(&key)
                .hint(WAY_OUT)
        })
    }
}

impl SegmentSink for StoreSegments {
    fn put(&mut self, segment: &Segment, data: Bytes) -> Result<()> {
        if self.known.contains(&segment.digest) {
            return Ok(());
        }
        let key = self.key(segment);
        let attributes = Attributes::default();
        let write = || self.catalog.store().write(&key, data.clone(), &attributes, &Condition::Absent);
        match self.runtime.block_on(steadily(write)) {
            // Named by content: what is there is the same.
            Err(error) if error.kind() == Kind::AlreadyExists => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}

/// A writer of a manifest whose segments go to the catalog, but for those that it shares with `like`.
/// For a thread that may block.
pub fn manifest_writer(catalog: &Catalog, runtime: Handle, like: Option<&Manifest>) -> ManifestWriter<StoreSegments> {
    let mut sink = StoreSegments::new(catalog, runtime);
    sink.known.extend(like.iter().flat_map(|manifest| manifest.segments()).map(|segment| segment.digest));
    ManifestWriter::new(sink)
}

/// Writes the manifest of these entries with [`manifest_writer`].
pub fn write_manifest(
    catalog: &Catalog,
    runtime: Handle,
    like: Option<&Manifest>,
    entries: impl Iterator<Item = Result<Entry>>,
) -> Result<Manifest> {
    let mut writer = manifest_writer(catalog, runtime, like);
    for entry in entries {
        writer.push(entry?)?;
    }
    Ok(writer.finish()?.0)
}
