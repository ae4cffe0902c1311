//! Whatever a configuration says, it is read or refused in words, and never by a panic. What was read can be asked for its
//! names and times.

#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use snapferry::config::Config;

fuzz_target!(|text: &str| {
    match Config::parse(text) {
        Ok(config) => {
            for policy in &config.policies {
                let next = policy.next_run(Timestamp::UNIX_EPOCH).map(|next| next.timestamp());
                let _ = policy.snapshot_name(next.unwrap_or(Timestamp::UNIX_EPOCH));
            }
        }
        Err(error) => assert_eq!(error.exit_code(), 2, "{error}"),
    }
});
