//! Which keys are meant: all of a bucket's, or those that globs and prefixes name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::{Error, Result};
use crate::key::Key;

/// What has a meaning of its own in a glob.
const SPECIAL: &[char] = &['*', '?', '[', ']', '{', '}'];

/// A choice among keys. By default all of them.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    globs: Vec<String>,
    prefixes: Vec<Key>,
    set: GlobSet,
}

impl Selection {
    /// Keys that match one of these globs or begin with one of these prefixes; all if there are neither.
    ///
    /// In a glob `*` and `?` stay within one level, `**` does not, and a `\` takes the meaning from what follows it.
    /// A prefix is taken as it is.
    ///
    /// # Errors
    /// `Usage` for what is no glob.
    pub fn new(mut globs: Vec<String>, mut prefixes: Vec<Key>) -> Result<Self> {
        let mut set = GlobSetBuilder::new();
        for glob in &globs {
            let built = GlobBuilder::new(glob).literal_separator(true).backslash_escape(true).build();
            set.add(built.map_err(|error| Error::usage(format!("`{glob}` is no glob")).caused_by(error))?);
        }
        let set = set.build().map_err(|error| Error::usage("the globs cannot be used together").caused_by(error))?;
        globs.sort();
        globs.dedup();
        prefixes.sort();
        prefixes.dedup();
        Ok(Self { globs, prefixes, set })
    }

    /// True when every key is meant.
    pub fn is_all(&self) -> bool {
        self.globs.is_empty() && self.prefixes.is_empty()
    }

    /// True when this key is meant.
    pub fn is_match(&self, key: &Key) -> bool {
        self.is_all()
            || self.prefixes.iter().any(|prefix| key.starts_with(prefix.as_bytes()))
            || self.set.is_match(OsStr::from_bytes(key.as_bytes()))
    }

    /// The globs, in order.
    pub fn globs(&self) -> &[String] {
        &self.globs
    }

    /// The prefixes, in order.
    pub fn prefixes(&self) -> &[Key] {
        &self.prefixes
    }

    /// The one key that is meant, where that can be told without looking.
    pub fn only(&self) -> Option<Key> {
        let ([glob], []) = (&self.globs[..], &self.prefixes[..]) else { return None };
        let (mut name, mut letters) = (String::with_capacity(glob.len()), glob.chars());
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => name.extend(letters.next()),
                letter if SPECIAL.contains(&letter) => return None,
                letter => name.push(letter),
            }
        }
        Some(name.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn selection(globs: &[&str], prefixes: &[&str]) -> Selection {
        let globs = globs.iter().map(ToString::to_string).collect();
        Selection::new(globs, prefixes.iter().map(|prefix| Key::from(*prefix)).collect()).unwrap()
    }

    #[test]
    fn globs_and_prefixes_add_up() {
        let chosen = selection(&["a/*", "**/deep"], &["b*"]);
        for key in ["a/x", "any/where/deep", "deep", "b*", "b*/x"] {
            assert!(chosen.is_match(&key.into()), "{key}");
        }
        for key in ["a", "a/x/y", "bx", "b"] {
            assert!(!chosen.is_match(&key.into()), "{key}");
        }
        assert!(Selection::default().is_match(&"whatever".into()) && !chosen.is_all());
        assert!(Selection::new(vec!["[".into()], Vec::new()).is_err());
    }

    #[test]
    fn one_key_is_told_from_many() {
        assert_eq!(selection(&[r"a/\[1\]\*"], &[]).only(), Some("a/[1]*".into()));
        for many in
            [selection(&["a*"], &[]), selection(&["a"], &["b"]), selection(&["a", "b"], &[]), selection(&[], &[])]
        {
            assert_eq!(many.only(), None);
        }
    }

    proptest! {
        #[test]
        fn an_escaped_name_means_itself(name in r"[a-c*?\[\]{}!\\/,-]{1,12}", other in r"[a-c*?\[\]{}!\\/,-]{1,12}") {
            let escaped: String = name.chars().flat_map(|letter| ['\\', letter]).collect();
            let chosen = selection(&[&escaped], &[]);
            prop_assert_eq!(chosen.only(), Some(name.as_str().into()));
            prop_assert!(chosen.is_match(&name.as_str().into()));
            prop_assert_eq!(chosen.is_match(&other.as_str().into()), name == other);
            let chosen = selection(&[], &[&name]);
            prop_assert_eq!(chosen.is_match(&other.as_str().into()), other.starts_with(&name));
        }
    }
}
