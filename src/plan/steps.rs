//! What a plan is made of.

use std::fmt;

use serde::Serialize;

use super::judge::Drifted;
use super::spool::{Record, Spool};
use super::trees::Trees;
use crate::error::{Error, Kind, Result};
use crate::key::{Key, RESERVED};
use crate::manifest::Entry;
use crate::manifest::codec;
use crate::store::Condition;

/// How content comes to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Read from the source, written to the target.
    Read,
    /// Copied on the target's own side.
    Copy,
    /// Renamed on the target.
    Move,
}

/// Content that has to come to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landing {
    /// The source's entry; its key is where the content goes.
    pub source: Entry,
    /// What the target has under that key now.
    pub replaces: Option<Entry>,
    /// How it comes.
    pub method: Method,
    /// For a copy or a move: the target's entry that has the content.
    pub from: Option<Entry>,
    /// The same content as an unfinished job has landed it, if it did.
    pub landed: Option<Entry>,
    /// What is there may be right: compare before writing.
    pub compare: bool,
    /// It lands under its staging name, and is put in place when all has landed.
    pub staged: bool,
    /// It is a copy that is made when all else has landed, right where it goes.
    pub late: bool,
}

impl Landing {
    /// What must be true of where it lands: nobody but us writes a staging name.
    pub fn condition(&self) -> Condition {
        if self.staged { Condition::Any } else { self.undisturbed() }
    }

    /// What must be true of where it goes: nobody else has been there since the plan was made.
    pub fn undisturbed(&self) -> Condition {
        self.replaces.as_ref().map_or(Condition::Absent, |there| Condition::Matches(there.pin.clone()))
    }

    /// It is carried out in the switch, and not before.
    pub fn waits(&self) -> bool {
        self.late || self.method == Method::Move
    }

    /// Where the bytes are written first.
    pub fn lands_at(&self) -> Key {
        if self.staged { staging_key(&self.source) } else { self.source.key.clone() }
    }
}

/// Something in the way that is moved aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clear {
    /// What is in the way; a directory's key ends in `/`.
    pub key: Key,
}

/// A last touch to a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// Remove it; it is empty by now.
    Remove(Key),
    /// Give it the source's permission bits and modification time.
    Attributes(Box<Entry>),
}

/// What a plan amounts to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Objects that the target does not have.
    pub created: u64,
    /// Objects whose content or attributes differ.
    pub modified: u64,
    /// Objects that only change their name.
    pub renamed: u64,
    /// Objects that go.
    pub deleted: u64,
    /// Directories that are made.
    pub directories_created: u64,
    /// Directories whose permission bits change.
    pub directories_modified: u64,
    /// Directories that only change their name, with all in them.
    pub directories_renamed: u64,
    /// Directories that go.
    pub directories_deleted: u64,
    /// Objects that may be right already and are compared.
    pub compared: u64,
    /// Objects that stay as they are.
    pub unchanged: u64,
    /// Content to read from the source, in bytes.
    pub bytes_planned: u64,
    /// Content that the target has already and is copied or renamed there, in bytes.
    pub bytes_reused: u64,
    /// Objects on the target before the run.
    pub target_objects: u64,
    /// Keys that somebody else changed on the target.
    pub drift: u64,
    /// Links, sockets, pipes and devices on the target.
    pub target_others: u64,
}

/// The ordered steps from the target as it is to the snapshot.
#[derive(Debug)]
pub struct Plan {
    /// Content that has to come.
    pub landings: Spool<Landing>,
    /// Directories that change their name with all in them.
    pub trees: Trees,
    /// Content of objects that changes its name with them, in bytes.
    pub tree_bytes: u64,
    /// What is moved aside.
    pub clears: Spool<Clear>,
    /// Directories to make, parents first.
    pub directories: Spool<Entry>,
    /// Objects to delete.
    pub deletes: Spool<Key>,
    /// Last touches to directories, children first.
    pub finish: Spool<Finish>,
    /// What it all amounts to.
    pub totals: Totals,
    /// The first keys that somebody else changed.
    pub drift: Vec<Drifted>,
    /// Snapshot and target have the keys of the base and no others, and nothing has landed since: with no step to take,
    /// the base's manifest is the snapshot's.
    pub keeps_base: bool,
}

impl Plan {
    /// True when the target is as it should be, be it the base or what an unfinished job has made of it.
    pub fn is_empty(&self) -> bool {
        self.landings.is_empty()
            && self.trees.is_empty()
            && self.clears.is_empty()
            && self.directories.is_empty()
            && self.deletes.is_empty()
            && self.finish.is_empty()
    }

    /// The first keys that somebody else changed, in the words of `one`, and how many there are beside them.
    pub fn tell_drift(&self, one: impl Fn(&Drifted) -> String) -> String {
        let named: Vec<String> = self.drift.iter().map(one).collect();
        match self.totals.drift - named.len() as u64 {
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        }
    }
}

/// The name under which the content of this source entry is staged: the same for the same key and content in every run,
/// so that a run that has lost its memory finds what has landed. What lies together in one folder of the source lies
/// together here.
pub fn staging_key(source: &Entry) -> Key {
    let parent = source.key.parent().unwrap_or_default();
    let shard = blake3::hash(parent.as_bytes()).as_bytes()[0];
    let mut bytes = Vec::with_capacity(128);
    let named = Entry { pin: source.pin.clone(), ..Entry::object(source.key.clone(), source.size) };
    codec::encode(&named, &mut bytes);
    let name = blake3::hash(&bytes).to_hex();
    Key::from(format!("{RESERVED}staging/{shard:02x}/{}", &name[..40]))
}

/// The name to which job `job` moves `key` aside.
pub fn trash_key(key: &Key, job: &str) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes());
    let name = hasher.finalize().to_hex();
    let slash = if key.is_directory() { "/" } else { "" };
    Key::from(format!("{RESERVED}staging/trash/{job}/{}{slash}", &name[..40]))
}

fn damaged() -> Error {
    Error::new(Kind::Damaged, "a record of a plan makes no sense")
}

fn byte(bytes: &mut &[u8]) -> Result<u8> {
    let (&first, rest) = bytes.split_first().ok_or_else(damaged)?;
    *bytes = rest;
    Ok(first)
}

impl Record for Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        codec::encode(self, out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        codec::decode(bytes)
    }
}

impl Record for Option<Entry> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(entry) = self {
            entry.encode(out);
        }
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        match byte(bytes)? {
            0 => Ok(None),
            1 => Entry::decode(bytes).map(Some),
            _ => Err(damaged()),
        }
    }
}

impl Record for Key {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend((self.len() as u32).to_le_bytes());
        out.extend(self.as_bytes());
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        let (len, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(damaged)?;
        *bytes = rest;
        Ok(Key::copy_from(key))
    }
}

impl Record for Clear {
    fn encode(&self, out: &mut Vec<u8>) {
        self.key.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        Ok(Self { key: Key::decode(bytes)? })
    }
}

impl Record for Finish {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Finish::Remove(key) => {
                out.push(0);
                key.encode(out);
            }
            Finish::Attributes(entry) => {
                out.push(1);
                entry.encode(out);
            }
        }
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        match byte(bytes)? {
            0 => Key::decode(bytes).map(Finish::Remove),
            1 => Entry::decode(bytes).map(|entry| Finish::Attributes(Box::new(entry))),
            _ => Err(damaged()),
        }
    }
}

impl Record for Landing {
    fn encode(&self, out: &mut Vec<u8>) {
        let method = match self.method {
            Method::Read => 0,
            Method::Copy => 1,
            Method::Move => 2,
        };
        out.push(method | u8::from(self.compare) << 4 | u8::from(self.staged) << 5 | u8::from(self.late) << 6);
        self.source.encode(out);
        self.replaces.encode(out);
        self.from.encode(out);
        self.landed.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        let flags = byte(bytes)?;
        let method = match flags & 0xf {
            0 => Method::Read,
            1 => Method::Copy,
            2 => Method::Move,
            _ => return Err(damaged()),
        };
        Ok(Self {
            method,
            compare: flags & 1 << 4 != 0,
            staged: flags & 1 << 5 != 0,
            late: flags & 1 << 6 != 0,
            source: Entry::decode(bytes)?,
            replaces: Record::decode(bytes)?,
            from: Record::decode(bytes)?,
            landed: Record::decode(bytes)?,
        })
    }
}

impl fmt::Display for Landing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.source.key;
        match (&self.method, &self.from) {
            (Method::Read, _) if self.compare => write!(f, "compare  {key}"),
            (Method::Read, _) if self.replaces.is_some() => write!(f, "replace  {key}"),
            (Method::Read, _) => write!(f, "create   {key}"),
            (Method::Move, Some(from)) => write!(f, "rename   {} -> {key}", from.key),
            (_, Some(from)) if *from == self.source => write!(f, "put back {key}"),
            (_, Some(from)) if from.key == *key => write!(f, "reattribute {key}"),
            (_, Some(from)) => write!(f, "copy     {} -> {key}", from.key),
            (_, None) => write!(f, "land     {key}"),
        }
    }
}
