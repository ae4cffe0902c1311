//! A manifest's root: the list of its segments.

use serde::{Deserialize, Serialize};

use super::segment::ENTRIES_MAX;
use super::{Digest, Entry, Kind};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;

/// The version of the format that is written.
const FORMAT: u32 = 1;

/// How many there are of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Entries of any kind.
    pub entries: u64,
    /// Objects among them.
    pub objects: u64,
    /// Directories among them.
    pub directories: u64,
    /// Bytes of content.
    pub bytes: u64,
}

impl Totals {
    /// Counts one more entry; none if the sum is beyond what a number holds.
    #[must_use]
    pub fn with(self, entry: &Entry) -> Option<Self> {
        let directory = u64::from(entry.kind == Kind::Directory);
        self.plus(&Self { entries: 1, objects: 1 - directory, directories: directory, bytes: entry.size })
    }

    fn plus(self, other: &Self) -> Option<Self> {
        Some(Self {
            entries: self.entries.checked_add(other.entries)?,
            objects: self.objects.checked_add(other.objects)?,
            directories: self.directories.checked_add(other.directories)?,
            bytes: self.bytes.checked_add(other.bytes)?,
        })
    }
}

/// A run of a manifest's entries, kept as a file of its own that is named by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// BLAKE3 of the file's bytes.
    #[serde(with = "hex_digest")]
    pub digest: Digest,
    /// Its first key.
    pub first: Key,
    /// Its last key.
    pub last: Key,
    /// What it holds.
    #[serde(flatten)]
    pub totals: Totals,
    /// Length of the file.
    pub file_bytes: u64,
}

impl Segment {
    /// The file's name: the digest as 64 hex digits.
    pub fn name(&self) -> String {
        self.digest.to_hex().to_string()
    }
}

/// The sorted list of entries that a snapshot stands for, as a list of segments. What is in here holds together:
/// key ranges rise and totals add up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Manifest {
    format: Format,
    #[serde(flatten)]
    totals: Totals,
    segments: Vec<Segment>,
}

/// What JSON may hold before it is checked.
#[derive(Deserialize)]
struct Unchecked {
    format: u32,
    #[serde(flatten)]
    totals: Totals,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Format(u32);

impl Default for Format {
    fn default() -> Self {
        Self(FORMAT)
    }
}

impl Manifest {
    /// The manifest of these segments; `Damaged` where they do not make one.
    pub fn new(segments: Vec<Segment>) -> Result<Self> {
        let mut manifest = Self::default();
        for segment in segments {
            manifest.push(segment)?;
        }
        Ok(manifest)
    }

    /// Adds the next segment.
    pub(super) fn push(&mut self, segment: Segment) -> Result<()> {
        let Totals { entries, objects, directories, .. } = segment.totals;
        let at = |what: &str| damaged(what).key(&segment.first);
        if self.segments.last().is_some_and(|before| before.last >= segment.first) {
            return Err(at("a segment does not begin after the one before it ends"));
        }
        if segment.first > segment.last || (segment.first == segment.last) != (entries == 1) {
            return Err(at("a segment's first and last key contradict its number of entries"));
        }
        if entries == 0 || entries > ENTRIES_MAX as u64 || objects.checked_add(directories) != Some(entries) {
            return Err(at("a segment's numbers contradict each other"));
        }
        self.totals =
            self.totals.plus(&segment.totals).ok_or_else(|| at("the totals are beyond what a number holds"))?;
        self.segments.push(segment);
        Ok(())
    }

    /// Reads the JSON form and checks it; `Damaged` where it is none.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let unchecked: Unchecked =
            serde_json::from_slice(json).map_err(|error| damaged("its JSON cannot be read").caused_by(error))?;
        if unchecked.format != FORMAT {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the manifest has format {}, this program reads format {FORMAT}", unchecked.format),
            )
            .hint("use the version of snapferry that wrote it, or a newer one"));
        }
        let manifest = Self::new(unchecked.segments)?;
        if manifest.totals != unchecked.totals {
            return Err(damaged("its totals are not the sum of its segments'"));
        }
        Ok(manifest)
    }

    /// The JSON form. Equal manifests give equal bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has string keys only, so it always serialises")
    }

    /// The segments in the order of their keys.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What all segments hold.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// BLAKE3 over format and segments: manifests with equal roots have equal entries.
    pub fn root_digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key("snapferry 2026 manifest root");
        hasher.update(&self.format.0.to_le_bytes());
        for segment in &self.segments {
            hasher.update(segment.digest.as_bytes());
            for key in [&segment.first, &segment.last] {
                hasher.update(&(key.len() as u64).to_le_bytes());
                hasher.update(key.as_bytes());
            }
            let Totals { entries, objects, directories, bytes } = segment.totals;
            for number in [entries, objects, directories, bytes, segment.file_bytes] {
                hasher.update(&number.to_le_bytes());
            }
        }
        hasher.finalize()
    }
}

fn damaged(how: &str) -> Error {
    Error::new(ErrorKind::Damaged, format!("the manifest is damaged: {how}"))
}

mod hex_digest {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&digest.to_hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Digest::from_hex(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(first: &str, last: &str, entries: u64) -> Segment {
        Segment {
            digest: blake3::hash(first.as_bytes()),
            first: first.into(),
            last: last.into(),
            totals: Totals { entries, objects: entries, directories: 0, bytes: 10 },
            file_bytes: 100,
        }
    }

    #[test]
    fn reads_back_with_the_same_root() {
        let manifest = Manifest::new(vec![segment("a", "b\n", 2), segment("c", "d", 3)]).unwrap();
        let back = Manifest::from_json(&manifest.to_json()).unwrap();
        assert_eq!(back, manifest);
        assert_eq!(back.root_digest(), manifest.root_digest());
        assert_eq!(manifest.totals().entries, 5);
        assert_ne!(manifest.root_digest(), Manifest::default().root_digest());
        assert_eq!(Manifest::from_json(&Manifest::default().to_json()).unwrap(), Manifest::default());
    }

    #[test]
    fn contradictions_are_damage() {
        for segments in [
            vec![segment("a", "c", 2), segment("c", "d", 2)],
            vec![segment("b", "a", 2)],
            vec![segment("a", "a", 2)],
            vec![segment("a", "b", 1)],
            vec![segment("a", "b", 0)],
            vec![Segment { totals: Totals { entries: 2, ..Totals::default() }, ..segment("a", "b", 2) }],
        ] {
            assert_eq!(Manifest::new(segments).unwrap_err().kind(), ErrorKind::Damaged);
        }
    }

    #[test]
    fn wrong_totals_and_formats_are_refused() {
        let json = String::from_utf8(Manifest::new(vec![segment("a", "b", 2)]).unwrap().to_json()).unwrap();
        let other = json.replacen("\"bytes\":10", "\"bytes\":11", 1);
        assert_eq!(Manifest::from_json(other.as_bytes()).unwrap_err().kind(), ErrorKind::Damaged);
        let later = json.replacen("\"format\":1", "\"format\":2", 1);
        assert_eq!(Manifest::from_json(later.as_bytes()).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
