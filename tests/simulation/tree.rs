//! Changes that people make to a tree, drawn at random, done to any store.

use bytes::Bytes;
use proptest::prelude::*;
use snapferry::key::Key;
use snapferry::manifest::{Attributes, Entry, Kind};
use snapferry::store::{Condition, ListOptions};

use super::world::Place;

/// A change. Names are without a closing `/`; a change of what is not there changes nothing.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Makes or replaces an object. The same number is the same content.
    Put(String, u8),
    MakeDirectory(String),
    /// An object, or a directory with all in it.
    Remove(String),
    Rename(String, String),
    Swap(String, String),
    Rotate(String, String, String),
    Mode(String, u32),
    Touch(String),
    /// Moves into a directory, which is then removed.
    MoveInto(String, String),
}

use Change::{MakeDirectory, Mode, MoveInto, Put, Remove, Rename, Rotate, Swap, Touch};

/// Names that collide often and sort on both sides of `/`.
fn name() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "a-", "a.b", "a0", "ü"]);
    prop::collection::vec(part, 1..=3).prop_map(|parts| parts.join("/"))
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (name(), 0u8..12).prop_map(|(name, content)| Put(name, content)),
        1 => name().prop_map(MakeDirectory),
        2 => name().prop_map(Remove),
        3 => (name(), name()).prop_map(|(from, to)| Rename(from, to)),
        1 => (name(), name()).prop_map(|(a, b)| Swap(a, b)),
        1 => (name(), name(), name()).prop_map(|(a, b, c)| Rotate(a, b, c)),
        1 => (name(), prop::sample::select(vec![0o600, 0o644, 0o755])).prop_map(|(name, mode)| Mode(name, mode)),
        1 => name().prop_map(Touch),
        1 => (name(), name()).prop_map(|(name, directory)| MoveInto(name, directory)),
    ]
}

pub(crate) fn changes(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(change(), count)
}

/// Content number `n`; some are empty, some are of one length.
pub(crate) fn bytes(n: u8) -> Bytes {
    match n {
        0 => Bytes::new(),
        n => vec![n; 40 + usize::from(n / 3)].into(),
    }
}

impl Place {
    pub(crate) async fn apply(&self, changes: &[Change]) {
        for change in changes {
            self.change(change).await;
        }
    }

    async fn change(&self, change: &Change) {
        match change {
            Put(name, content) => {
                self.clear_way(name).await;
                if !self.is_object(name).await {
                    self.remove(name).await;
                }
                self.put(name, bytes(*content)).await;
            }
            MakeDirectory(name) => {
                self.clear_way(name).await;
                if self.is_object(name).await {
                    self.remove(name).await;
                }
                self.put(&format!("{name}/"), Bytes::new()).await;
            }
            Remove(name) => self.remove(name).await,
            Rename(from, to) => self.rename(from, to).await,
            Swap(a, b) => {
                if self.are_apart(&[a, b]).await {
                    for (from, to) in [(a.as_str(), "held"), (b, a), ("held", b)] {
                        self.rename(from, to).await;
                    }
                }
            }
            Rotate(a, b, c) => {
                if self.are_apart(&[a, b, c]).await {
                    for (from, to) in [(a.as_str(), "held"), (b, a), (c, b), ("held", c)] {
                        self.rename(from, to).await;
                    }
                }
            }
            Mode(name, mode) => {
                let attributes = Attributes { mode: Some(*mode), ..Attributes::default() };
                self.set_attributes(name, &attributes).await;
            }
            Touch(name) => {
                // Long ago, so that no change that follows can happen to have the same time.
                let attributes = Attributes { mtime_ns: Some(1_000_000_007_000_000_000), ..Attributes::default() };
                self.set_attributes(name, &attributes).await;
            }
            MoveInto(name, directory) => {
                self.rename(name, &format!("{directory}/moved")).await;
                self.remove(directory).await;
            }
        }
    }

    async fn set_attributes(&self, name: &str, attributes: &Attributes) {
        if self.store.capabilities().file_attributes && self.is_object(name).await {
            self.store.set_attributes(&name.into(), attributes).await.unwrap();
        }
    }

    async fn is_object(&self, name: &str) -> bool {
        self.under(name).await.iter().any(|entry| entry.key == Key::from(name))
    }

    /// They are there, and none is in another.
    async fn are_apart(&self, names: &[&String]) -> bool {
        for (i, a) in names.iter().enumerate() {
            if self.under(a).await.is_empty() || names[..i].iter().any(|b| are_nested(a, b)) {
                return false;
            }
        }
        true
    }

    /// The object of this name, or the directory with all in it.
    async fn under(&self, name: &str) -> Vec<Entry> {
        let options = ListOptions { prefix: name.into(), ..ListOptions::default() };
        let listing = self.store.list(options).await.unwrap();
        let mut found = listing.collect().await.unwrap();
        found.retain(|entry| {
            let rest = &entry.key.as_bytes()[name.len()..];
            rest.is_empty() || rest.starts_with(b"/")
        });
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found
    }

    async fn remove(&self, name: &str) {
        let found = self.under(name).await;
        for entry in found.into_iter().rev() {
            self.store.delete(&[entry.key]).await.unwrap();
        }
    }

    /// Removes objects in whose place a directory is needed for `name`.
    async fn clear_way(&self, name: &str) {
        for (at, _) in name.match_indices('/') {
            if self.is_object(&name[..at]).await {
                self.remove(&name[..at]).await;
            }
        }
    }

    async fn rename(&self, from: &str, to: &str) {
        let moved = self.under(from).await;
        if moved.is_empty() || are_nested(from, to) {
            return;
        }
        self.clear_way(to).await;
        self.remove(to).await;
        if self.store.capabilities().rename {
            let slash = if moved[0].kind == Kind::Directory { "/" } else { "" };
            let (from, to) = (format!("{from}{slash}"), format!("{to}{slash}"));
            return self.store.rename(&from.into(), &to.into()).await.unwrap();
        }
        for entry in moved {
            let renamed = Key::new([to.as_bytes(), &entry.key.as_bytes()[from.len()..]].concat());
            self.store.copy(&entry, &renamed, None, &Condition::Any).await.unwrap();
            self.store.delete(&[entry.key]).await.unwrap();
        }
    }
}

fn are_nested(a: &str, b: &str) -> bool {
    a == b || a.starts_with(&format!("{b}/")) || b.starts_with(&format!("{a}/"))
}
