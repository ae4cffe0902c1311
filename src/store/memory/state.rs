//! What a memory store holds: objects with their versions, uploads under way, and a clock that only ticks.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest, Md5};

use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Attributes, Entry, FileId, Kind, Pin};
use crate::store::{Capabilities, Condition, ListOptions, NULL_VERSION, Piece, Version};

/// When the clock of a new store starts: far enough from 0 that nothing takes it for "unknown".
const START_NS: i64 = 1_700_000_000_000_000_000;

/// What the clock moves at every change.
const TICK_NS: i64 = 1_000_000;

/// The content of a key at one time.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) kind: Kind,
    pub(super) data: Bytes,
    pub(super) attributes: Attributes,
    pub(super) pin: Pin,
    /// The parts in which it was written; empty where it was written whole.
    pub(super) pieces: Arc<[Piece]>,
    mtime_ns: i64,
}

/// One version of a key; without content it is its removal.
#[derive(Debug)]
struct Kept {
    id: Box<str>,
    at_ns: i64,
    content: Option<Content>,
}

/// An upload under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) key: Key,
    pub(super) size: u64,
    pub(super) parts: BTreeMap<u32, (u64, Bytes)>,
}

#[derive(Debug)]
pub(super) struct State {
    capabilities: Capabilities,
    objects: BTreeMap<Key, Vec<Kept>>,
    pub(super) uploads: BTreeMap<String, Pending>,
    pub(super) now_ns: i64,
    serial: u64,
    pub(super) missing: bool,
}

impl State {
    pub(super) fn new(capabilities: Capabilities) -> Self {
        let (objects, uploads) = (BTreeMap::new(), BTreeMap::new());
        Self { capabilities, objects, uploads, now_ns: START_NS, serial: 0, missing: false }
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// What a key holds now.
    pub(super) fn current(&self, key: &Key) -> Option<&Content> {
        self.objects.get(key)?.last()?.content.as_ref()
    }

    /// What a key held under this version id.
    pub(super) fn version(&self, key: &Key, id: &str) -> Option<&Content> {
        let contents = self.objects.get(key)?.iter().filter_map(|version| version.content.as_ref());
        contents.into_iter().find(|content| content.pin.version.as_deref() == Some(id))
    }

    pub(super) fn check(&self, key: &Key, condition: &Condition) -> Result<()> {
        match (condition, self.current(key)) {
            _ if !self.capabilities.conditional => Ok(()),
            (Condition::Any, _) | (Condition::Absent, None) => Ok(()),
            (Condition::Matches(pin), Some(content)) if content.pin.matches(pin) => Ok(()),
            (Condition::Absent, Some(_)) => Err(Error::new(ErrorKind::AlreadyExists, "it exists already")),
            (Condition::Matches(_), _) => {
                Err(Error::new(ErrorKind::Changed, "what is there is not what was to be replaced"))
            }
        }
    }

    /// Puts content under a key; `etag` is computed from the data if none is given.
    pub(super) fn put(&mut self, key: &Key, data: Bytes, attributes: &Attributes, etag: Option<String>) -> Result<Pin> {
        let kind = super::super::kind_of(key, data.len() as u64);
        if self.capabilities.directories {
            self.make_room(key)?;
            if kind == Kind::Directory && self.current(key).is_some() {
                if self.capabilities.file_attributes {
                    self.set_attributes(key, attributes);
                }
                return Ok(self.current(key).map(|content| content.pin.clone()).unwrap_or_default());
            }
        }
        self.now_ns += TICK_NS;
        let (pin, attributes, mtime_ns) = if self.capabilities.file_attributes {
            let mtime_ns = attributes.mtime_ns.unwrap_or(self.now_ns);
            let usual = if kind == Kind::Directory { 0o755 } else { 0o644 };
            let mode = Some(attributes.mode.unwrap_or(usual));
            let file = FileId { inode: self.next_serial(), birth_ns: self.now_ns, mtime_ns };
            let kept = Attributes { mtime_ns: Some(mtime_ns), mode, ..Attributes::default() };
            (Pin { file: Some(file), ..Pin::default() }, kept, mtime_ns)
        } else if self.capabilities.trees && kind == Kind::Directory {
            let file = FileId { inode: self.next_serial(), birth_ns: 0, mtime_ns: self.now_ns };
            (Pin { file: Some(file), ..Pin::default() }, Attributes::default(), self.now_ns)
        } else {
            let etag = etag.unwrap_or_else(|| hex::encode(Md5::digest(&data)));
            let version = self.capabilities.versions.then(|| format!("v{:08}", self.next_serial()).into());
            let kept = Attributes { mtime_ns: None, mode: None, ..attributes.clone() };
            (Pin { etag: Some(etag.into()), version, file: None }, kept, self.now_ns)
        };
        self.push(key, Some(Content { kind, data, attributes, pin: pin.clone(), pieces: Arc::default(), mtime_ns }));
        Ok(pin)
    }

    /// Makes missing parents, and fails where a file is in the way of a directory or the other way round.
    fn make_room(&mut self, key: &Key) -> Result<()> {
        let name = key.as_bytes();
        let other = match name.strip_suffix(b"/") {
            Some(file) => Key::copy_from(file),
            None => Key::new([name, b"/"].concat()),
        };
        if self.current(&other).is_some() {
            return Err(Error::new(ErrorKind::Io, format!("`{other}` is in the way")));
        }
        if let Some(parent) = key.parent()
            && self.current(&parent).is_none()
        {
            self.put(&parent, Bytes::new(), &Attributes::default(), None)?;
        }
        Ok(())
    }

    /// Adds a version of a key, or replaces what it holds where versions are not kept.
    fn push(&mut self, key: &Key, content: Option<Content>) {
        let is_new = self.current(key).is_some() != content.is_some();
        let id = match content.as_ref().and_then(|content| content.pin.version.clone()) {
            Some(id) => id,
            None if self.capabilities.versions => format!("v{:08}", self.next_serial()).into(),
            None => NULL_VERSION.into(),
        };
        let versions = self.objects.entry(key.clone()).or_default();
        if !self.capabilities.versions {
            versions.clear();
        }
        if content.is_some() || self.capabilities.versions {
            versions.push(Kept { id, at_ns: self.now_ns, content });
        } else {
            self.objects.remove(key);
        }
        if is_new && let Some(parent) = key.parent() {
            self.touch(&parent);
        }
    }

    /// A directory's modification time follows what is made and deleted in it, as on a file system.
    fn touch(&mut self, directory: &Key) {
        if self.capabilities.directories && self.capabilities.file_attributes {
            let mtime_ns = Some(self.now_ns);
            self.set_attributes(directory, &Attributes { mtime_ns, ..Attributes::default() });
        }
    }

    /// Remembers the parts in which a key's content was written.
    pub(super) fn set_pieces(&mut self, key: &Key, pieces: impl Iterator<Item = Piece>) {
        let last = self.objects.get_mut(key).and_then(|versions| versions.last_mut());
        if let Some(content) = last.and_then(|version| version.content.as_mut()) {
            content.pieces = pieces.collect();
        }
    }

    /// Sets what is given; false where there is nothing under the key.
    pub(super) fn set_attributes(&mut self, key: &Key, attributes: &Attributes) -> bool {
        let last = self.objects.get_mut(key).and_then(|versions| versions.last_mut());
        let Some(content) = last.and_then(|version| version.content.as_mut()) else { return false };
        if let Some(mtime_ns) = attributes.mtime_ns {
            content.mtime_ns = mtime_ns;
            content.attributes.mtime_ns = Some(mtime_ns);
            if let Some(file) = &mut content.pin.file {
                file.mtime_ns = mtime_ns;
            }
        }
        if attributes.mode.is_some() {
            content.attributes.mode = attributes.mode;
        }
        true
    }

    pub(super) fn delete(&mut self, key: &Key) -> Result<()> {
        if self.current(key).is_none() {
            return Ok(());
        }
        if self.capabilities.directories && key.is_directory() && self.has_content_under(key) {
            return Err(Error::new(ErrorKind::Io, "the directory is not empty").key(key));
        }
        self.now_ns += TICK_NS;
        self.push(key, None);
        Ok(())
    }

    /// Deletes a directory with all that it holds.
    pub(super) fn remove_tree(&mut self, key: &Key) -> Result<()> {
        if !key.is_directory() {
            return Err(Error::usage("only a directory holds others").key(key));
        }
        let all: Vec<Key> = self.current_from(key).map(|(key, _)| key.clone()).collect();
        all.iter().rev().try_for_each(|key| self.delete(key))
    }

    fn has_content_under(&self, directory: &Key) -> bool {
        self.current_from(directory).any(|(key, _)| key != directory)
    }

    /// What keys hold now that begin with these bytes.
    fn current_from<'a>(&'a self, prefix: &'a Key) -> impl Iterator<Item = (&'a Key, &'a Content)> {
        self.objects
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(prefix.as_bytes()))
            .filter_map(|(key, versions)| Some((key, versions.last()?.content.as_ref()?)))
    }

    pub(super) fn rename(&mut self, from: &Key, to: &Key) -> Result<()> {
        if from.is_directory() != to.is_directory() {
            return Err(Error::usage(format!("a directory and an object cannot take each other's name: `{to}`")));
        }
        let moved: Vec<Key> = match from.is_directory() {
            true => self.current_from(from).map(|(key, _)| key.clone()).collect(),
            false => self.current(from).map(|_| from.clone()).into_iter().collect(),
        };
        if moved.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "there is nothing to rename"));
        }
        if to.is_directory() && (to.is_under(from) || (from != to && self.has_content_under(to))) {
            let what = format!("`{to}` is in it, or holds something already");
            return Err(Error::new(ErrorKind::AlreadyExists, what));
        }
        if from == to {
            return Ok(());
        }
        if self.capabilities.directories {
            self.make_room(to)?;
        }
        self.now_ns += TICK_NS;
        for key in moved {
            let content = self.current(&key).cloned();
            let renamed = Key::new([to.as_bytes(), &key.as_bytes()[from.len()..]].concat());
            // The parents inside a renamed directory keep their times, so only its two ends go through `push`.
            if key == *from {
                self.push(&renamed, content);
                self.push(&key, None);
            } else {
                let version = Kept { id: NULL_VERSION.into(), at_ns: self.now_ns, content };
                self.objects.insert(renamed, vec![version]);
                self.objects.remove(&key);
            }
        }
        Ok(())
    }

    pub(super) fn entry(&self, key: &Key, content: &Content, with_version: bool) -> Entry {
        let mut pin = content.pin.clone();
        if !with_version {
            pin.version = None;
        }
        Entry {
            kind: content.kind,
            mtime_ns: content.mtime_ns,
            mode: content.attributes.mode,
            pin,
            ..Entry::object(key.clone(), content.data.len() as u64)
        }
    }

    /// Every version of the keys that begin with this, each key's oldest first.
    pub(super) fn versions(&self, prefix: &Key) -> Vec<Version> {
        let wanted = self
            .objects
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(prefix.as_bytes()))
            .filter(|(key, _)| prefix.is_reserved() || !key.is_reserved());
        let of_key = |(key, versions): (&Key, &Vec<Kept>)| {
            let last = versions.len();
            let version = |(nth, kept): (usize, &Kept)| Version {
                key: key.clone(),
                id: kept.id.clone(),
                current: nth + 1 == last,
                removal: kept.content.is_none(),
                mtime_ns: kept.at_ns,
                size: kept.content.as_ref().map_or(0, |content| content.data.len() as u64),
            };
            versions.iter().enumerate().map(version).collect::<Vec<_>>()
        };
        wanted.flat_map(of_key).collect()
    }

    /// Deletes a version for good.
    pub(super) fn delete_version(&mut self, key: &Key, id: &str) {
        let Some(versions) = self.objects.get_mut(key) else { return };
        versions.retain(|kept| *kept.id != *id);
        if versions.is_empty() {
            self.objects.remove(key);
        }
    }

    /// What the options ask for, in byte order.
    pub(super) fn list(&self, options: &ListOptions) -> Vec<Entry> {
        let from = match &options.after {
            Some(after) if *after >= options.prefix => Bound::Excluded(after.clone()),
            _ => Bound::Included(options.prefix.clone()),
        };
        let asked_for = |key: &Key| {
            let snapshots = crate::key::SNAPSHOTS.as_bytes();
            let hides = self.capabilities.directories && !options.prefix.starts_with(snapshots);
            !(hides && key.starts_with(snapshots)) && (options.prefix.is_reserved() || !key.is_reserved())
        };
        let as_of_ns = options.as_of_ns.unwrap_or(i64::MAX);
        self.objects
            .range((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(options.prefix.as_bytes()))
            .filter(|(key, _)| asked_for(key))
            .filter_map(|(key, versions)| {
                let version = versions.iter().rev().find(|version| version.at_ns <= as_of_ns)?;
                Some(self.entry(key, version.content.as_ref()?, options.versions))
            })
            .collect()
    }
}
