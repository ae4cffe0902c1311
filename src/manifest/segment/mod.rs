//! A run of sorted entries as one Parquet file, readable by whatever reads Parquet.

mod decode;
mod encode;

use std::sync::{Arc, LazyLock};

use parquet::schema::parser::parse_message_type;
use parquet::schema::types::TypePtr;

pub use decode::{Batches, decode};
pub use encode::encode;

use super::{Entry, Kind};
use crate::key::Key;

/// Most entries in one segment.
pub const ENTRIES_MAX: usize = 65_536;

/// Unsigned numbers are stored as the signed ones of the same bits and annotated, so that readers show them right.
/// Keys are not annotated: they are bytes, not always text.
const SCHEMA_TEXT: &str = "message entry {
    required binary key;
    required binary kind (STRING);
    required int64 size;
    required int64 mtime (TIMESTAMP(NANOS,true));
    optional int32 mode (INTEGER(32,false));
    optional binary etag (STRING);
    optional binary version (STRING);
    optional int64 inode (INTEGER(64,false));
    optional int64 birth_ns;
    optional int64 file_mtime_ns;
    optional binary origin_etag (STRING);
    optional binary origin_version (STRING);
    optional int64 origin_inode (INTEGER(64,false));
    optional int64 origin_birth_ns;
    optional int64 origin_mtime_ns;
    optional fixed_len_byte_array(32) digest;
    optional binary blocks;
    optional binary attributes (STRING);
}";

static SCHEMA: LazyLock<TypePtr> =
    LazyLock::new(|| Arc::new(parse_message_type(SCHEMA_TEXT).expect("the schema is a constant that parses")));

const OBJECT: &[u8] = b"object";
const DIRECTORY: &[u8] = b"directory";

/// What is wrong with this entry in a manifest, after the entry with the key `last`; none if nothing is.
pub(super) fn flaw(entry: &Entry, last: Option<&Key>) -> Option<&'static str> {
    if last.is_some_and(|last| *last >= entry.key) {
        return Some("does not come after the key before it");
    }
    if entry.key.is_empty() {
        return Some("has no name");
    }
    if i64::try_from(entry.size).is_err() {
        return Some("has a size beyond what any store can hold");
    }
    match entry.kind {
        Kind::Object => None,
        Kind::Directory if !entry.key.is_directory() => Some("is a directory whose name does not end in `/`"),
        Kind::Directory if entry.size > 0 => Some("is a directory with a size"),
        Kind::Directory => None,
        Kind::Link | Kind::Special => Some("is neither an object nor a directory"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind as ErrorKind;
    use crate::manifest::arbitrary;

    proptest! {
        #[test]
        fn entries_read_back(entries in arbitrary::entries(60)) {
            let file = encode(&entries).unwrap();
            prop_assert_eq!(&file, &encode(&entries).unwrap(), "equal entries, other bytes");
            prop_assert_eq!(decode(file).unwrap(), entries);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn damage_is_an_error_or_other_entries_but_never_a_panic(
            entries in arbitrary::entries(6), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let mut file = encode(&entries).unwrap().to_vec();
            let index = at.index(file.len());
            match cut {
                true => file.truncate(index),
                false => file[index] = byte,
            }
            if let Err(error) = decode(Bytes::from(file)) {
                prop_assert_eq!(error.kind(), ErrorKind::Damaged);
            }
        }
    }

    #[test]
    fn batches_hold_more_than_a_page() {
        let entries: Vec<Entry> = (0..30_000u64)
            .map(|i| {
                let mut entry = Entry::object(format!("data/{i:08}"), i);
                entry.mode = (i % 3 == 0).then_some(0o644);
                entry.pin.etag = (i % 2 == 0).then(|| format!("{i:032x}").into());
                entry
            })
            .collect();
        assert_eq!(decode(encode(&entries).unwrap()).unwrap(), entries);
    }

    #[test]
    fn entries_out_of_order_are_damage() {
        let entries = [Entry::object("b", 1), Entry::object("a", 1)];
        let error = decode(encode(&entries).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert_eq!(error.failed_key(), Some(&Key::from("a")));
    }
}
