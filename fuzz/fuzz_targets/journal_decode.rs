//! Records of a journal from any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use snapferry::error::Kind;
use snapferry::journal::{decode, encode};

fuzz_target!(|data: &[u8]| match decode(data) {
    Ok(event) => {
        let mut bytes = Vec::new();
        encode(&event, &mut bytes);
        assert_eq!(decode(&bytes).expect("what was encoded is sound"), event);
    }
    Err(error) => assert_eq!(error.kind(), Kind::Damaged),
});
