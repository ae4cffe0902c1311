//! Entries from any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use snapferry::error::Kind;
use snapferry::manifest::codec::{decode, encode};

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while !rest.is_empty() {
        let before = rest.len();
        match decode(&mut rest) {
            Ok(entry) => {
                assert!(rest.len() < before);
                let mut bytes = Vec::new();
                encode(&entry, &mut bytes);
                let mut again = &bytes[..];
                assert_eq!(decode(&mut again).expect("what was encoded is sound"), entry);
                assert!(again.is_empty());
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::Damaged);
                assert_eq!(rest.len(), before);
                return;
            }
        }
    }
});
