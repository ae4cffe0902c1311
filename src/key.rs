//! Names of objects: opaque bytes, ordered as bytes.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The folder at a bucket's root that holds snapferry's own objects. Never part of a snapshot's content.
pub const RESERVED: &str = ".snapferry/";

/// The folder at a bucket's root under which snapshots can be read, as in Ozone and HDFS.
pub const SNAPSHOTS: &str = ".snapshot/";

/// The name of an object in its bucket, relative to the bucket's root.
///
/// Opaque bytes: never normalised and never re-encoded except on a wire that needs it. A key that ends in `/` and
/// has no content is a directory; that is how object stores mark one, and how file systems' directories are named here,
/// so that `a/` sorts right before everything in it.
///
/// [`fmt::Display`] escapes what a terminal cannot show (`\n`, `\t`, `\\`, `\xNN`) and [`FromStr`] reads it back,
/// so a printed key always names exactly one object. Its form in JSON is the same text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key(Bytes);

impl Key {
    /// The key with exactly these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The key with a copy of these bytes.
    pub fn copy_from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True for the empty key, which names the root itself and no object.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when the name ends in `/`.
    pub fn is_directory(&self) -> bool {
        self.0.ends_with(b"/")
    }

    /// True when the key begins with these bytes.
    pub fn starts_with(&self, prefix: &[u8]) -> bool {
        self.0.starts_with(prefix)
    }

    /// True when, on a file system, this key lies inside the directory that `ancestor` names
    /// (with or without its closing `/`).
    pub fn is_under(&self, ancestor: &Key) -> bool {
        let name = ancestor.0.strip_suffix(b"/").unwrap_or(&ancestor.0);
        self.0.len() > name.len() + 1 && self.0.starts_with(name) && self.0[name.len()] == b'/'
    }

    /// The first `len` bytes, shared with this key.
    pub(crate) fn prefix(&self, len: usize) -> Key {
        Self(self.0.slice(..len))
    }

    /// The directory that holds this key (`a/b` and `a/b/` are both in `a/`); none at the root.
    pub fn parent(&self) -> Option<Key> {
        let name = self.0.strip_suffix(b"/").unwrap_or(&self.0);
        let slash = name.iter().rposition(|&b| b == b'/')?;
        Some(Self(self.0.slice(..=slash)))
    }

    /// True for keys that snapferry keeps for itself: everything under `.snapferry/`, also of buckets that are prefixes
    /// or directories of this one.
    pub fn is_reserved(&self) -> bool {
        let folder = RESERVED.as_bytes();
        self.0.starts_with(folder)
            || self.0.windows(folder.len() + 1).any(|window| window[0] == b'/' && window[1..] == *folder)
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::copy_from(text.as_bytes())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(text.into_bytes().into())
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    '\n' => f.write_str("\\n")?,
                    '\r' => f.write_str("\\r")?,
                    '\t' => f.write_str("\\t")?,
                    c if c.is_control() => {
                        let mut buffer = [0; 4];
                        for byte in c.encode_utf8(&mut buffer).bytes() {
                            write!(f, "\\x{byte:02x}")?;
                        }
                    }
                    c => write!(f, "{c}")?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// A text that is no escaped key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an escaped key: after `\\` comes `\\`, `n`, `r`, `t` or `xNN`")]
pub struct NotEscaped(String);

impl FromStr for Key {
    type Err = NotEscaped;

    fn from_str(text: &str) -> Result<Self, NotEscaped> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            if first != b'\\' {
                bytes.push(first);
                continue;
            }
            let bad = || NotEscaped(text.into());
            let (&escape, after) = rest.split_first().ok_or_else(bad)?;
            rest = after;
            match escape {
                b'\\' => bytes.push(b'\\'),
                b'n' => bytes.push(b'\n'),
                b'r' => bytes.push(b'\r'),
                b't' => bytes.push(b'\t'),
                b'x' => {
                    let digits = rest.get(..2).ok_or_else(bad)?;
                    bytes.extend(hex::decode(digits).map_err(|_| bad())?);
                    rest = &rest[2..];
                }
                _ => return Err(bad()),
            }
        }
        Ok(Self(bytes.into()))
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn printed_keys_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let key = Key::new(bytes);
            prop_assert_eq!(key.to_string().parse::<Key>().unwrap(), key.clone());
            let json = serde_json::to_string(&key).unwrap();
            prop_assert_eq!(serde_json::from_str::<Key>(&json).unwrap(), key);
        }
    }

    #[test]
    fn reserved_at_any_depth() {
        for own in [".snapferry/", ".snapferry/x", "a/.snapferry/", "a/b/.snapferry/x/y"] {
            assert!(Key::from(own).is_reserved(), "{own}");
        }
        for content in ["", ".snapferry", "a/.snapferry", "a.snapferry/x", ".snapferry-not/x", "a/.snapferryx/y"] {
            assert!(!Key::from(content).is_reserved(), "{content}");
        }
    }

    #[test]
    fn ancestry() {
        let under = |key: &str, of: &str| Key::from(key).is_under(&Key::from(of));
        assert!(under("a/b", "a"));
        assert!(under("a/b", "a/"));
        assert!(under("a/b/", "a/"));
        assert!(!under("a/", "a/"));
        assert!(!under("a/", "a"));
        assert!(!under("a-b", "a"));
        assert_eq!(Key::from("a/b/").parent(), Some(Key::from("a/")));
        assert_eq!(Key::from("a/b").parent(), Some(Key::from("a/")));
        assert_eq!(Key::from("a/").parent(), None);
    }
}
