//! Segments of a manifest from any bytes, and from sound files with some bytes changed.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use snapferry::error::Kind;
use snapferry::manifest::segment::{decode, encode};
use snapferry::manifest::{Blocks, Entry, FileId, Pin};

static SOUND: LazyLock<Bytes> = LazyLock::new(|| {
    let entries: Vec<Entry> = (0..9u64)
        .map(|i| {
            let mut entry = Entry::object(format!("data/{i}"), i);
            entry.mode = (i % 2 == 0).then_some(0o644);
            entry.pin.etag = (i % 3 == 0).then(|| format!("{i:032}").into());
            entry.pin.file = (i % 3 == 1).then_some(FileId { inode: i, birth_ns: 1, mtime_ns: 2 });
            entry.origin = (i % 4 == 0).then(|| Pin { version: Some("v".into()), ..Pin::default() });
            entry.blocks = (i % 4 == 1).then(|| Blocks::new(8 << 20, &[[i as u8; 32]]));
            entry.attributes = (i % 4 == 2).then(Box::default);
            entry
        })
        .collect();
    encode(&entries).expect("sound entries")
});

fn check(file: Bytes) {
    match decode(file) {
        Ok(entries) => {
            let again = encode(&entries).expect("what was decoded is sound");
            assert_eq!(decode(again).expect("what was encoded is sound"), entries);
        }
        Err(error) => assert_eq!(error.kind(), Kind::Damaged),
    }
}

fuzz_target!(
    // The decoder turns panics of the Parquet library into errors; only what gets past it is a finding.
    init: std::panic::set_hook(Box::new(|panic| {
        if !panic.location().is_some_and(|location| location.file().contains("parquet")) {
            eprintln!("{panic}");
        }
    })),
    |data: &[u8]| {
        check(Bytes::copy_from_slice(data));
        let mut patched = SOUND.to_vec();
        for patch in data.as_chunks::<3>().0 {
            let at = usize::from(u16::from_le_bytes([patch[0], patch[1]])) % patched.len();
            patched[at] = patch[2];
        }
        check(patched.into());
    }
);
