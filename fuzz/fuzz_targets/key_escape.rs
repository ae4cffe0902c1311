//! Keys as text and back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use snapferry::key::Key;

fuzz_target!(|data: &[u8]| {
    let key = Key::copy_from(data);
    let text = key.to_string();
    assert!(!text.chars().any(char::is_control));
    assert_eq!(text.parse::<Key>().expect("a printed key"), key);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = text.parse::<Key>()
    {
        assert_eq!(key.to_string().parse::<Key>().expect("a printed key"), key);
    }
});
