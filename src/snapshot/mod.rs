//! Named, immutable views of a bucket: one kind of provider for each way that a store can keep one.

pub mod clone;
mod listed;
mod name;
mod native;
mod pattern;
mod tree;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use listed::Listed;
pub(crate) use listed::listed;
pub use listed::sorted;
pub use name::Name;
pub use native::Native;
pub use pattern::Pattern;
pub use tree::Tree;

use crate::error::Result;
use crate::manifest::{Entry, Manifest};
use crate::merge::Entries;
use crate::store::Store;

/// How a snapshot keeps its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// A tree of clones under `.snapshot/NAME/`.
    Clone,
    /// The store's own snapshot.
    Native,
    /// Version ids of a bucket that keeps versions.
    Versions,
    /// Nothing keeps it: reads are guarded, and an object that changed is found out.
    Guarded,
}

/// What is in a directory tree but is no content: counted and reported, never copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Others {
    /// Symbolic links.
    pub links: u64,
    /// Sockets, pipes and devices.
    pub special: u64,
}

impl Others {
    /// How many there are.
    pub fn total(&self) -> u64 {
        self.links + self.special
    }
}

/// A snapshot that was just taken.
#[derive(Debug)]
pub struct Taken {
    /// What is in it.
    pub manifest: Manifest,
    /// What is not.
    pub others: Others,
    /// The first of them by name.
    pub others_named: Vec<crate::key::Key>,
}

/// Takes, keeps and opens snapshots of one bucket.
#[async_trait]
pub trait Provider: fmt::Debug + Send + Sync {
    /// How snapshots keep their content here.
    fn kind(&self) -> SnapshotKind;

    /// Fails where no snapshot can be taken, so that nobody copies for nothing.
    async fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// Checks that a snapshot can have this name here, so that nobody copies for nothing.
    fn check_name(&self, name: &Name) -> Result<()> {
        let _ = name;
        Ok(())
    }

    /// A name that was made up, in the form that it can have here.
    fn fitting(&self, name: Name) -> Name {
        name
    }

    /// Takes a snapshot of the bucket as it is, or as it was at `as_of_ns`, and writes its manifest's segments.
    /// The snapshot's record is for the caller to publish.
    async fn take(&self, name: &Name, as_of_ns: Option<i64>) -> Result<Taken>;

    /// Lists what a snapshot would hold, keeping nothing.
    async fn peek(&self) -> Result<crate::store::Listing>;

    /// Keeps the bucket's content, which is known to be `entries`, as a snapshot.
    async fn keep(&self, name: &Name, entries: Entries<'static>) -> Result<()>;

    /// A store that reads the snapshot's content, pinned by the entries of its manifest.
    async fn reader(&self, name: &Name) -> Result<Arc<dyn Store>>;

    /// Pins an object again that was changed at the source after the snapshot was taken: its entry as it is now,
    /// readable through [`Provider::reader`].
    async fn repin(&self, name: &Name, entry: &Entry) -> Result<Entry>;

    /// Lets go of what keeps the snapshot's content.
    async fn remove(&self, name: &Name) -> Result<()>;
}
