//! What a run starts from: the source's snapshot, and the base that both sides have.

use crate::bucket::Snapshot;
use crate::catalog::Record;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::snapshot::Name;

/// The source's snapshot.
pub(crate) struct Origin {
    pub(crate) name: Name,
    /// None for a dry run of a snapshot that does not exist yet.
    pub(crate) snapshot: Option<(Snapshot, Manifest)>,
    /// What is in the snapshot was made out from what the store said had changed: the proof lists it.
    pub(crate) derived: bool,
}

impl Origin {
    pub(crate) fn taken(&self) -> Result<&(Snapshot, Manifest)> {
        self.snapshot.as_ref().ok_or_else(|| Error::internal("a dry run went too far"))
    }
}

/// The target's newest sealed snapshot.
pub(crate) struct Base {
    pub(crate) record: Record,
    pub(crate) manifest: Manifest,
    /// It is of this very source, so that the pins it remembers mean something.
    pub(crate) same_source: bool,
}
