//! What travels with an object's bytes, as headers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::HeaderName;

use super::client::header_value;
use super::encode;
use crate::error::{Error, Kind, Result};
use crate::manifest::Attributes;

/// Content headers that an object keeps.
const CONTENT_HEADERS: [&str; 7] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-website-redirect-location",
];

const METADATA_PREFIX: &str = "x-amz-meta-";

/// User metadata that holds a file's modification time, in seconds since 1970 with a fraction, as rclone writes it.
const MTIME: &str = "mtime";

/// User metadata that holds a file's type and permission bits in octal, such as `100644`.
const MODE: &str = "mode";

/// Reads attributes, all but the tags, which no header holds.
pub(super) fn from_headers(headers: &HeaderMap) -> Result<Attributes> {
    let mut attributes = Attributes::default();
    if headers.get("x-amz-missing-meta").is_some_and(|count| count != "0") {
        return Err(Error::new(Kind::Unsupported, "some of its metadata cannot be read as headers")
            .hint("rewrite the object's metadata with plain names and values"));
    }
    for (name, value) in headers {
        let name = name.as_str();
        let text = || String::from_utf8_lossy(value.as_bytes()).into_owned();
        if let Some(name) = name.strip_prefix(METADATA_PREFIX) {
            attributes.metadata.push((name.to_owned(), decode_words(&text())));
        } else if CONTENT_HEADERS.contains(&name) {
            let value = if name == "content-encoding" { without_framing(&text()) } else { text() };
            if !value.is_empty() {
                attributes.headers.push((name.to_owned(), value));
            }
        }
    }
    attributes.headers.sort();
    attributes.metadata.sort();
    file_attributes(&mut attributes);
    Ok(attributes)
}

/// Takes time and permission bits from the metadata that a write of ours has put them into.
pub(in crate::store) fn file_attributes(attributes: &mut Attributes) {
    for (name, value) in &attributes.metadata {
        match name.as_str() {
            MTIME => attributes.mtime_ns = parse_mtime(value),
            MODE => attributes.mode = u32::from_str_radix(value, 8).ok().map(|mode| mode & 0o7777),
            _ => {}
        }
    }
}

/// Number of tags that a GET or HEAD announces.
pub(super) fn tag_count(headers: &HeaderMap) -> usize {
    headers.get("x-amz-tagging-count").and_then(|count| count.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// Adds the headers of a write. `directory`: for the type bits in the mode.
pub(super) fn to_headers(attributes: &Attributes, directory: bool, headers: &mut HeaderMap) -> Result<()> {
    for (name, value) in &attributes.headers {
        if CONTENT_HEADERS.contains(&name.as_str()) {
            headers.insert(header_name(name)?, header_value(name, value)?);
        }
    }
    let mut put = |name: &str, value: &str| -> Result<()> {
        headers.insert(header_name(&format!("{METADATA_PREFIX}{name}"))?, header_value(name, value)?);
        Ok(())
    };
    for (name, value) in &attributes.metadata {
        put(name, value)?;
    }
    let has = |wanted: &str| attributes.metadata.iter().any(|(name, _)| name == wanted);
    if let Some(mtime_ns) = attributes.mtime_ns.filter(|_| !has(MTIME)) {
        put(MTIME, &format_mtime(mtime_ns))?;
    }
    if let Some(mode) = attributes.mode.filter(|_| !has(MODE)) {
        let kind = if directory { 0o040_000 } else { 0o100_000 };
        put(MODE, &format!("{:o}", kind | (mode & 0o7777)))?;
    }
    if !attributes.tags.is_empty() {
        headers.insert("x-amz-tagging", header_value("x-amz-tagging", &tags_query(&attributes.tags))?);
    }
    Ok(())
}

fn tags_query(tags: &[(String, String)]) -> String {
    let mut query = String::new();
    for (name, value) in tags {
        if !query.is_empty() {
            query.push('&');
        }
        encode::push_query(&mut query, name.as_bytes());
        query.push('=');
        encode::push_query(&mut query, value.as_bytes());
    }
    query
}

fn header_name(name: &str) -> Result<HeaderName> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Error::new(Kind::Unrepresentable, format!("`{name}` cannot be the name of a header")))
}

/// `aws-chunked` says how an upload was framed; some servers keep it as if it were the content's encoding.
fn without_framing(value: &str) -> String {
    let kept: Vec<_> = value.split(',').map(str::trim).filter(|coding| *coding != "aws-chunked").collect();
    kept.join(",")
}

fn parse_mtime(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let whole: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}")[..9].parse().ok()?;
    let nanos = if seconds.starts_with('-') { -nanos } else { nanos };
    whole.checked_mul(1_000_000_000)?.checked_add(nanos)
}

fn format_mtime(mtime_ns: i64) -> String {
    let sign = if mtime_ns < 0 { "-" } else { "" };
    let ns = mtime_ns.unsigned_abs();
    let text = format!("{sign}{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Decodes RFC 2047's `=?UTF-8?B?…?=` and `=?UTF-8?Q?…?=`, in which S3 returns values that are not ASCII.
/// What is not wholly made of such words stays as it is.
fn decode_words(value: &str) -> String {
    if !value.starts_with("=?") {
        return value.to_owned();
    }
    let words: Option<Vec<_>> = value.split_ascii_whitespace().map(decode_word).collect();
    words.and_then(|words| String::from_utf8(words.concat()).ok()).unwrap_or_else(|| value.to_owned())
}

fn decode_word(word: &str) -> Option<Vec<u8>> {
    let mut parts = word.strip_prefix("=?")?.strip_suffix("?=")?.split('?');
    let (charset, encoding, text) = (parts.next()?, parts.next()?, parts.next()?);
    if !charset.eq_ignore_ascii_case("utf-8") || parts.next().is_some() {
        return None;
    }
    match encoding {
        "B" | "b" => STANDARD.decode(text).ok(),
        "Q" | "q" => encode::decode_percent(&text.replace('%', "%25").replace('_', " ").replace('=', "%")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn there_and_back() {
        let attributes = Attributes {
            mtime_ns: Some(1_700_000_000_123_456_789),
            mode: Some(0o640),
            headers: pairs(&[("cache-control", "no-cache"), ("content-type", "text/plain")]),
            metadata: pairs(&[("colour", "grün")]),
            tags: pairs(&[("a b", "c&d")]),
        };
        let mut headers = HeaderMap::new();
        to_headers(&attributes, false, &mut headers).unwrap();
        assert_eq!(headers["x-amz-meta-mtime"], "1700000000.123456789");
        assert_eq!(headers["x-amz-meta-mode"], "100640");
        assert_eq!(headers["x-amz-tagging"], "a%20b=c%26d");
        let back = from_headers(&headers).unwrap();
        assert_eq!(
            (back.mtime_ns, back.mode, &back.headers),
            (attributes.mtime_ns, attributes.mode, &attributes.headers)
        );
        assert_eq!(back.metadata, pairs(&[("colour", "grün"), ("mode", "100640"), ("mtime", "1700000000.123456789")]));
        let mut again = HeaderMap::new();
        to_headers(&back, false, &mut again).unwrap();
        headers.remove("x-amz-tagging");
        assert_eq!(again, headers);
    }

    #[test]
    fn traps() {
        let mut headers = HeaderMap::new();
        headers.insert("content-encoding", "aws-chunked,gzip".parse().unwrap());
        headers.insert("x-amz-meta-name", "=?UTF-8?Q?gr=C3=BCn_50%?= =?utf-8?B?w6k=?=".parse().unwrap());
        headers.insert("x-amz-meta-odd", "=?broken".parse().unwrap());
        headers.insert("x-amz-meta-mode", "rwx".parse().unwrap());
        let attributes = from_headers(&headers).unwrap();
        assert_eq!(attributes.headers, pairs(&[("content-encoding", "gzip")]));
        assert_eq!(attributes.metadata, pairs(&[("mode", "rwx"), ("name", "grün 50%é"), ("odd", "=?broken")]));
        assert_eq!(attributes.mode, None);
        headers.insert("x-amz-missing-meta", "1".parse().unwrap());
        assert!(from_headers(&headers).is_err());
        let bad = Attributes { metadata: pairs(&[("a", "line\nend")]), ..Attributes::default() };
        assert_eq!(to_headers(&bad, false, &mut HeaderMap::new()).unwrap_err().kind(), Kind::Unrepresentable);
    }

    proptest! {
        #[test]
        fn times_read_back(ns in any::<i64>()) {
            prop_assert_eq!(parse_mtime(&format_mtime(ns)), Some(ns));
        }

        #[test]
        fn no_value_panics(text in any::<String>()) {
            let _ = (parse_mtime(&text), decode_words(&text), decode_words(&format!("=?UTF-8?Q?{text}?=")));
        }
    }
}
