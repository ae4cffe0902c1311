//! One line of a manifest: a key and what is known of it.

use serde::{Deserialize, Serialize};

use super::Blocks;
use crate::key::Key;

/// A BLAKE3 digest, the one that `b3sum` prints.
pub type Digest = blake3::Hash;

/// What a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Bytes.
    Object,
    /// A directory. Its key ends in `/` and it has no bytes; in an object store it is an empty object of that name.
    Directory,
    /// A symbolic link: listed so that it can be counted and reported, never copied, never in a manifest.
    Link,
    /// A socket, pipe or device: as a link.
    Special,
}

/// A file's identity on its file system.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// Inode number.
    pub inode: u64,
    /// Time of birth in nanoseconds since 1970, 0 where the file system keeps none. It tells a new file from an old
    /// one that had the same inode number.
    pub birth_ns: i64,
    /// Time of the last modification in nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// What pins an entry's content in its own store: while the pin matches, the content is the same.
/// A store fills in what it has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Pin {
    /// The store's entity tag, without quotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<Box<str>>,
    /// The version id, or the generation, of this very content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Box<str>>,
    /// The file's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileId>,
}

/// How a version begins that names the blocks which hold the content, as Ozone's do. Renaming an object keeps it, so that
/// the same name under another key is the same content; the version ids of object stores are URL-safe and never begin so.
pub const BLOCKS: &str = "blocks:";

impl Pin {
    /// The version, where it names the blocks that hold the content.
    pub fn blocks(&self) -> Option<&str> {
        self.version.as_deref().filter(|version| version.starts_with(BLOCKS))
    }

    /// The pin of a recorded entry, with what a listing of the same content shows beside it.
    #[must_use]
    pub fn completed_by(self, listed: &Pin) -> Self {
        Self {
            etag: self.etag.or_else(|| listed.etag.clone()),
            version: self.version.or_else(|| listed.version.clone()),
            file: listed.file.clone().or(self.file),
        }
    }

    /// True when both pins are of the same content, going by the strongest thing that both know.
    /// Pins that have nothing in common never match.
    pub fn matches(&self, other: &Pin) -> bool {
        if let (Some(a), Some(b)) = (&self.version, &other.version) {
            return a == b;
        }
        if let (Some(a), Some(b)) = (&self.etag, &other.etag) {
            return a == b;
        }
        matches!((&self.file, &other.file), (Some(a), Some(b)) if a == b)
    }
}

/// What travels with an object's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attributes {
    /// Modification time in nanoseconds since 1970, where the store lets a writer set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime_ns: Option<i64>,
    /// Permission bits (`0o7777`), where the store has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Content headers by lower-case name: `content-type`, `cache-control`, `content-encoding`, `content-disposition`,
    /// `content-language`, `expires`, `x-amz-website-redirect-location`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// User metadata by lower-case name, without any store's prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<(String, String)>,
    /// Tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
}

impl Attributes {
    /// True when there is something that a file system has no place for.
    pub fn beyond_files(&self) -> bool {
        !self.headers.is_empty() || !self.metadata.is_empty() || !self.tags.is_empty()
    }
}

/// A key and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub key: Key,
    /// What it names.
    pub kind: Kind,
    /// Bytes of content.
    pub size: u64,
    /// Time of the last modification in nanoseconds since 1970. In a target's manifest it is the source's.
    pub mtime_ns: i64,
    /// Permission bits (`0o7777`), where the store has them.
    pub mode: Option<u32>,
    /// What pins this content in the store that was listed.
    pub pin: Pin,
    /// In a target's manifest: what pinned the source's content that this is a copy of.
    pub origin: Option<Pin>,
    /// BLAKE3 of the content, where the bytes have passed.
    pub digest: Option<Digest>,
    /// BLAKE3 subtree values of the content's blocks, where the bytes have passed and are at least a block.
    pub blocks: Option<Blocks>,
    /// What the store cannot hold itself but a restore must give back.
    pub attributes: Option<Box<Attributes>>,
}

impl Entry {
    /// An object of this size of which nothing else is known.
    pub fn object(key: impl Into<Key>, size: u64) -> Self {
        Self {
            key: key.into(),
            kind: Kind::Object,
            size,
            mtime_ns: 0,
            mode: None,
            pin: Pin::default(),
            origin: None,
            digest: None,
            blocks: None,
            attributes: None,
        }
    }

    /// A directory; the key ends in `/`.
    pub fn directory(key: impl Into<Key>) -> Self {
        Self { kind: Kind::Directory, ..Self::object(key, 0) }
    }

    /// True for what a manifest holds: objects and directories.
    pub fn is_content(&self) -> bool {
        matches!(self.kind, Kind::Object | Kind::Directory)
    }
}
