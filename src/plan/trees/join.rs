//! Two sets of directories, joined one to one by identity.

use std::path::Path;

use super::Identity;
use crate::error::{Error, Result};
use crate::sort::Sorter;

/// Memory for each join, in bytes.
const SORT_MEMORY: usize = 8 << 20;

/// Directories of two sides. Takes little memory, whatever their number.
pub(super) struct Join(Sorter);

/// Which side a directory is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Left = 0,
    Right = 1,
}

impl Join {
    pub(super) fn new(folder: &Path) -> Self {
        Self(Sorter::new(folder, SORT_MEMORY))
    }

    pub(super) fn push(&mut self, identity: Identity, half: Half, payload: &[u8]) -> Result<()> {
        let mut key = [half as u8; 17];
        key[..16].copy_from_slice(&identity.to_bytes());
        self.0.push(&key, payload)
    }

    /// Hands over the payloads of each identity that both sides have exactly once.
    pub(super) fn pairs(self, mut paired: impl FnMut(Identity, &[u8], &[u8]) -> Result<()>) -> Result<()> {
        let mut records = self.0.finish()?.peekable();
        while let Some(first) = records.next() {
            let first = first?;
            let bytes = first.key.first_chunk().ok_or_else(|| Error::internal("a directory lost its identity"))?;
            let (mut others, mut second) = (0, None);
            while let Some(next) =
                records.next_if(|next| next.as_ref().map_or(true, |next| next.key.starts_with(bytes)))
            {
                second = Some(next?);
                others += 1;
            }
            if others == 1
                && let Some(second) = second
                && first.key < second.key
            {
                paired(Identity::from_bytes(*bytes), &first.payload, &second.payload)?;
            }
        }
        Ok(())
    }
}
