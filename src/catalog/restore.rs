//! What is written of a restore in place, where it happens: that the same does not run twice by accident, and that one
//! which was stopped half-way goes on.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::FORMAT;
use crate::selection::Selection;
use crate::snapshot::Name;

/// A restore in place, begun or finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// The documents' format.
    pub format: u32,
    /// Stands for what is restored from where; the document's name.
    pub id: String,
    /// The address of the bucket that has the snapshot.
    pub source: String,
    /// The snapshot.
    pub snapshot: Name,
    /// Globs of the keys that are restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Prefixes of the keys that are restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<crate::key::Key>,
    /// The job that began it.
    pub job: String,
    /// When it began.
    pub started: Timestamp,
    /// The snapshot of what was there before, which is taken before anything is touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_snapshot: Option<Name>,
    /// When it was done and proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
}

impl Restore {
    /// One that begins now.
    pub fn begin(source: &str, snapshot: &Name, selection: &Selection, job: &str, started: Timestamp) -> Self {
        let (globs, prefixes) = (selection.globs(), selection.prefixes());
        let mut hasher = blake3::Hasher::new();
        let mut put = |part: &[u8]| {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        };
        put(source.as_bytes());
        put(snapshot.as_str().as_bytes());
        put(&(globs.len() as u64).to_le_bytes());
        globs.iter().for_each(|glob| put(glob.as_bytes()));
        prefixes.iter().for_each(|prefix| put(prefix.as_bytes()));
        Self {
            format: FORMAT,
            id: hasher.finalize().to_hex()[..16].into(),
            source: source.into(),
            snapshot: snapshot.clone(),
            keys: globs.into(),
            prefixes: prefixes.into(),
            job: job.into(),
            started,
            safety_snapshot: None,
            finished: None,
        }
    }

    /// How the target's lease names it while it is half-way.
    pub fn name(&self) -> String {
        format!("restore-in-place-{}", self.id)
    }

    /// True for what [`Self::name`] gives.
    pub fn is_name(job: &str) -> bool {
        job.starts_with("restore-in-place-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_stands_for_what_is_restored() {
        let id = |source: &str, snapshot: &str, globs: &[&str], prefixes: &[&str]| {
            let globs = globs.iter().map(ToString::to_string).collect();
            let selection = Selection::new(globs, prefixes.iter().map(|prefix| (*prefix).into()).collect()).unwrap();
            Restore::begin(source, &snapshot.parse().unwrap(), &selection, "job", Timestamp::now()).id
        };
        assert_eq!(id("a", "monday", &["x", "y"], &[]), id("a", "monday", &["y", "x", "y"], &[]));
        let different = [
            id("a", "monday", &[], &[]),
            id("b", "monday", &[], &[]),
            id("a", "tuesday", &[], &[]),
            id("a", "monday", &["x"], &[]),
            id("a", "monday", &[], &["x"]),
            id("a", "monday", &["x"], &["y"]),
            id("a", "monday", &["x", "y"], &[]),
        ];
        assert_eq!(different.iter().collect::<std::collections::HashSet<_>>().len(), different.len());
    }
}
