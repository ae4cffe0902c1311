//! What is written of a snapshot.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::key::Key;
use crate::plan::Totals;
use crate::snapshot::{Name, Others, SnapshotKind};

/// The format of the documents, raised when an older program could misread a newer one.
pub const FORMAT: u32 = 1;

/// A snapshot that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The documents' format.
    pub format: u32,
    /// Its name.
    pub name: Name,
    /// How it keeps its content.
    pub kind: SnapshotKind,
    /// When it was made.
    pub created: Timestamp,
    /// Counts up with every snapshot of the bucket; orders them whatever the clocks say.
    pub sequence: u64,
    /// The digest of its manifest.
    pub root: String,
    /// Objects in it.
    pub objects: u64,
    /// Directories in it.
    pub directories: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// What was seen beside content when it was taken.
    #[serde(default)]
    pub others: Others,
    /// The source, where it is a sealed copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_from: Option<String>,
}

impl Record {
    /// False for a snapshot of the store's own that nothing has looked into: what it holds is not known.
    pub fn is_counted(&self) -> bool {
        !self.root.is_empty()
    }

    /// True for a proved copy of a source's snapshot.
    pub fn is_sealed(&self) -> bool {
        self.sealed_from.is_some()
    }
}

/// What a seal vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The documents' format.
    pub format: u32,
    /// The program's version.
    pub version: String,
    /// The job that sealed it.
    pub job: String,
    /// The snapshot's name, on both sides.
    pub snapshot: Name,
    /// The source's address, without secrets.
    pub source: String,
    /// The target's address, without secrets.
    pub target: String,
    /// The snapshot that was the base.
    pub base: Option<Name>,
    /// The digest of the source's manifest.
    pub source_root: String,
    /// The digest of the target's manifest.
    pub root: String,
    /// Objects in the snapshot.
    pub objects: u64,
    /// Directories in the snapshot.
    pub directories: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// What the plan came to.
    pub totals: ReceiptTotals,
    /// Bytes that crossed to the target.
    pub bytes_copied: u64,
    /// Bytes that the target had already.
    #[serde(default)]
    pub bytes_reused: u64,
    /// Objects that had changed at the source since the snapshot and were pinned again.
    pub repinned: u64,
    /// How it was proved: `listing` or `read`.
    pub verified: String,
    /// The policy by which it was made, if it was by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// When the source's snapshot was taken: how old the content is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Timestamp>,
    /// How long the run took that sealed it, in milliseconds.
    #[serde(default)]
    pub elapsed_ms: u64,
    /// When it was sealed.
    pub sealed: Timestamp,
}

/// The counts of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptTotals {
    /// Objects made.
    pub created: u64,
    /// Objects changed.
    pub modified: u64,
    /// Objects renamed.
    pub renamed: u64,
    /// Objects deleted.
    pub deleted: u64,
}

impl From<&Totals> for ReceiptTotals {
    fn from(totals: &Totals) -> Self {
        Self { created: totals.created, modified: totals.modified, renamed: totals.renamed, deleted: totals.deleted }
    }
}

/// Keeps a snapshot from being deleted or pruned, while somebody wants it or a restore reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Since when somebody wants it kept, if somebody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The restores that read it, by where to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub restores: BTreeMap<String, Reader>,
}

/// A restore that reads a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    /// The job.
    pub job: String,
    /// Since when.
    pub since: Timestamp,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_hand = self.since.iter().map(|since| match &self.reason {
            Some(reason) => format!("since {since} ({reason})"),
            None => format!("since {since}"),
        });
        let restores =
            self.restores.iter().map(|(to, reader)| format!("since {} by {} to {to}", reader.since, reader.job));
        f.write_str(&by_hand.chain(restores).collect::<Vec<_>>().join(", "))
    }
}

/// An upload under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The key that is being written.
    pub at: Key,
    /// The store's name for the upload; none while it is about to begin.
    pub id: Option<String>,
}
