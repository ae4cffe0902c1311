//! Manifests from any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use snapferry::error::Kind;
use snapferry::manifest::Manifest;

fuzz_target!(|data: &[u8]| {
    match Manifest::from_json(data) {
        Ok(manifest) => {
            let again = Manifest::from_json(&manifest.to_json()).expect("what was written is sound");
            assert_eq!(again.root_digest(), manifest.root_digest());
            assert_eq!(again, manifest);
        }
        Err(error) => assert!(matches!(error.kind(), Kind::Damaged | Kind::Unsupported)),
    }
});
