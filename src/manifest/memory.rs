//! Segments kept in memory, for tests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::{Digest, Entry, Manifest, ManifestWriter, Segment, SegmentSink, SegmentSource};
use crate::error::{Error, Kind, Result};

/// Keeps segments and counts how often one is fetched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    files: Mutex<HashMap<Digest, Bytes>>,
    fetches: AtomicUsize,
}

impl Memory {
    pub(crate) fn write(&self, entries: impl IntoIterator<Item = Entry>) -> Manifest {
        let mut writer = ManifestWriter::new(self.clone());
        for entry in entries {
            writer.push(entry).unwrap();
        }
        writer.finish().unwrap().0
    }

    pub(crate) fn source(&self) -> Arc<dyn SegmentSource> {
        Arc::new(self.clone())
    }

    pub(crate) fn replace(&self, segment: &Segment, file: Bytes) {
        self.0.files.lock().unwrap().insert(segment.digest, file);
    }

    pub(crate) fn fetches(&self) -> usize {
        self.0.fetches.load(Ordering::Relaxed)
    }
}

impl SegmentSink for Memory {
    fn put(&mut self, segment: &Segment, file: Bytes) -> Result<()> {
        self.replace(segment, file);
        Ok(())
    }
}

impl SegmentSource for Memory {
    fn get(&self, segment: &Segment) -> Result<Bytes> {
        self.0.fetches.fetch_add(1, Ordering::Relaxed);
        let files = self.0.files.lock().unwrap();
        files.get(&segment.digest).cloned().ok_or_else(|| Error::new(Kind::NotFound, "no such segment"))
    }
}
