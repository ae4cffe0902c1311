//! Percent-encoding as SigV4 defines it, and the decoding of keys in url-encoded listings.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// What a query's names and values keep: RFC 3986's unreserved characters.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What a path keeps: the same and `/`.
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// Appends the bytes as part of a path.
pub(super) fn push_path(out: &mut String, bytes: &[u8]) {
    out.extend(percent_encode(bytes, PATH));
}

/// Appends the bytes as a name or a value of a query.
pub(super) fn push_query(out: &mut String, bytes: &[u8]) {
    out.extend(percent_encode(bytes, QUERY));
}

/// A query in canonical form; `pairs` must be sorted by name.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    debug_assert!(pairs.is_sorted());
    let mut out = String::with_capacity(64);
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        push_query(&mut out, name.as_bytes());
        out.push('=');
        push_query(&mut out, value.as_bytes());
    }
    out
}

/// Decodes `%XX`, and `+` as a space, strictly: none if a `%` is not followed by two hexadecimal digits,
/// for then the text was never encoded.
pub(super) fn decode_form(text: &str) -> Option<Vec<u8>> {
    decode(text, true)
}

/// Decodes `%XX` alone, just as strictly.
pub(super) fn decode_percent(text: &str) -> Option<Vec<u8>> {
    decode(text, false)
}

fn decode(text: &str, plus_is_space: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let mut value = [0];
                hex::decode_to_slice(rest.get(..2)?, &mut value).ok()?;
                out.push(value[0]);
                rest = &rest[2..];
            }
            b'+' if plus_is_space => out.push(b' '),
            other => out.push(other),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_decodes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let (mut path, mut query) = (String::new(), String::new());
            push_path(&mut path, &bytes);
            push_query(&mut query, &bytes);
            for text in [&path, &query] {
                prop_assert_eq!(decode_percent(text).unwrap(), bytes.clone());
                prop_assert_eq!(decode_form(text).unwrap(), bytes.clone());
                prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~%/".contains(&b)));
            }
            let uri = http::uri::PathAndQuery::from_maybe_shared(bytes::Bytes::from(format!("/b/{path}"))).unwrap();
            prop_assert_eq!(uri.as_str(), format!("/b/{path}"));
        }
    }

    #[test]
    fn known_forms() {
        let mut out = String::new();
        push_path(&mut out, "a//b/../c d+é%2E".as_bytes());
        assert_eq!(out, "a//b/../c%20d%2B%C3%A9%252E");
        assert_eq!(decode_form("a+b%2Bc%20d").unwrap(), b"a b+c d");
        assert_eq!(decode_percent("a+b").unwrap(), b"a+b");
        assert_eq!(decode_form("100%"), None);
        assert_eq!(decode_form("%zz"), None);
        assert_eq!(
            query(&[("list-type", "2"), ("prefix", "a/b c"), ("uploads", "")]),
            "list-type=2&prefix=a%2Fb%20c&uploads="
        );
    }
}
