//! What a pruning has come to so far.

use crate::snapshot::Name;

/// What has been removed so far.
#[derive(Debug, Default)]
pub(super) struct Removed {
    pub(super) names: Vec<Name>,
    pub(super) versions: u64,
    pub(super) bytes: u64,
    pub(super) put_off: Option<String>,
}
