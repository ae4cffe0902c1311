//! Generated entries for tests.

use std::collections::BTreeMap;

use proptest::option;
use proptest::prelude::*;

use super::{Attributes, Blocks, Digest, Entry, FileId, Kind, Pin};
use crate::key::Key;

/// Keys that are short enough to meet each other and awkward enough to break what is careless.
pub(crate) fn key() -> impl Strategy<Value = Key> {
    let name = prop_oneof![
        8 => "[a-c]{1,2}",
        1 => Just("..".to_owned()),
        1 => Just("é\u{301}%2F#1 ".to_owned()),
        1 => Just("\n\t\\".to_owned()),
        1 => Just(String::new()),
    ];
    let path = proptest::collection::vec(name, 1..4).prop_map(|names| Key::from(names.join("/")));
    prop_oneof![
        6 => path,
        1 => proptest::collection::vec(any::<u8>(), 1..6).prop_map(Key::from),
    ]
    .prop_filter("the empty key names no object", |key| !key.is_empty())
}

pub(crate) fn file_id() -> impl Strategy<Value = FileId> {
    (any::<u64>(), any::<i64>(), any::<i64>()).prop_map(|(inode, birth_ns, mtime_ns)| FileId {
        inode,
        birth_ns,
        mtime_ns,
    })
}

pub(crate) fn pin() -> impl Strategy<Value = Pin> {
    let text = || option::of(".{0,40}".prop_map(Box::<str>::from));
    (text(), text(), option::of(file_id())).prop_map(|(etag, version, file)| Pin { etag, version, file })
}

pub(crate) fn attributes() -> impl Strategy<Value = Attributes> {
    let pairs = || proptest::collection::vec((".{0,8}", ".{0,8}"), 0..3);
    (option::of(any::<i64>()), option::of(any::<u32>()), pairs(), pairs(), pairs())
        .prop_map(|(mtime_ns, mode, headers, metadata, tags)| Attributes { mtime_ns, mode, headers, metadata, tags })
}

/// Any object or directory with anything known of it.
pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    let digest = any::<[u8; 32]>().prop_map(Digest::from_bytes);
    let blocks = (20_u32..30, proptest::collection::vec(any::<[u8; 32]>(), 1..4));
    let blocks = blocks.prop_map(|(log, values)| Blocks::new(1 << log, &values));
    let known = (pin(), option::of(pin()), option::of(digest), option::of(blocks), option::of(attributes()));
    (key(), any::<bool>(), 0..1u64 << 50, any::<i64>(), option::of(any::<u32>()), known).prop_map(
        |(key, directory, size, mtime_ns, mode, (pin, origin, digest, blocks, attributes))| {
            let mut entry = if directory {
                Entry::directory([key.as_bytes().strip_suffix(b"/").unwrap_or(key.as_bytes()), b"/"].concat())
            } else {
                Entry::object(key, size)
            };
            debug_assert!((entry.kind == Kind::Directory) == directory);
            entry.mtime_ns = mtime_ns;
            entry.mode = mode;
            entry.pin = pin;
            entry.origin = origin.filter(|origin| *origin != Pin::default());
            entry.digest = digest;
            entry.blocks = blocks;
            entry.attributes = attributes.map(Box::new);
            entry
        },
    )
}

/// Any sorted entries, each key once.
pub(crate) fn entries(most: usize) -> impl Strategy<Value = Vec<Entry>> {
    proptest::collection::vec(entry(), 0..most).prop_map(|entries| {
        let by_key: BTreeMap<Key, Entry> = entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        by_key.into_values().collect()
    })
}
