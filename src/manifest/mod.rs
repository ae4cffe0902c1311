//! The sorted list of entries that a snapshot stands for.

#[cfg(test)]
pub(crate) mod arbitrary;
mod blocks;
pub mod codec;
mod entry;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod reader;
mod root;
pub mod segment;
mod writer;

/// What to do about a manifest that is not whole.
pub(crate) const WAY_OUT: &str = "put this file of the catalog back from a copy; or, on a target, drop the snapshot with \
    `snapferry snapshot delete --force` and sync again with --on-drift repair, which compares everything";

pub use blocks::{BlockHasher, Blocks, Subtree, digest_and_blocks, merge};
pub use entry::{Attributes, BLOCKS, Digest, Entry, FileId, Kind, Pin};
pub use reader::SegmentSource;
pub use root::{Manifest, Segment, Totals};
pub use writer::{ManifestWriter, SegmentSink};

use crate::error::{Error, Kind as ErrorKind, Result};

/// Attributes as JSON text; equal attributes give equal bytes.
fn attributes_to_json(attributes: &Attributes) -> Vec<u8> {
    serde_json::to_vec(attributes).expect("attributes have string keys only, so they always serialise")
}

fn attributes_from_json(json: &[u8]) -> Result<Box<Attributes>> {
    serde_json::from_slice(json)
        .map(Box::new)
        .map_err(|error| Error::new(ErrorKind::Damaged, "the stored attributes are not readable").caused_by(error))
}
