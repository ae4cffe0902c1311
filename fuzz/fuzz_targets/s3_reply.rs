//! What an S3 server may answer: any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| snapferry::store::s3::fuzz::read_reply(data));
