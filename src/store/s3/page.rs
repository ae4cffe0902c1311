//! One page of a listing, as its document says it.

use super::encode;
use super::xml::Malformed;
use crate::error::{Error, Kind, Result};
use crate::key::Key;
use crate::manifest::{Entry, Pin};
use crate::store::kind_of;

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cursor {
    /// After this key, with the store's prefix; empty for the beginning.
    After(Vec<u8>),
    Token(String),
    Version {
        key: Vec<u8>,
        version: String,
    },
}

/// One version of a key, or its removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) entry: Entry,
    pub(super) latest: bool,
    pub(super) removal: bool,
}

#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) found: Vec<Found>,
    pub(super) truncated: bool,
    pub(super) next: Option<Cursor>,
}

/// Collects a page while its document is walked.
#[derive(Debug, Default)]
pub(super) struct PageParser {
    versions: bool,
    encoded: bool,
    truncated: Option<bool>,
    token: String,
    key_marker: String,
    version_marker: String,
    current: RawFound,
    found: Vec<RawFound>,
}

/// A `Contents`, `Version` or `DeleteMarker` as it stands there.
#[derive(Debug, Default)]
struct RawFound {
    key: String,
    size: Option<u64>,
    mtime_ns: i64,
    etag: Option<Box<str>>,
    version: Option<Box<str>>,
    latest: bool,
    removal: bool,
}

impl PageParser {
    /// For `ListObjectVersions`, or else for `ListObjectsV2`.
    pub(super) fn new(versions: bool) -> Self {
        Self { versions, ..Self::default() }
    }

    /// Takes an element as [`super::xml::walk`] hands it over.
    pub(super) fn closed(&mut self, path: &str, text: &str) -> Result<(), Malformed> {
        let (parent, leaf) = path.split_once('/').unwrap_or(("", path));
        match parent {
            "" => return self.closed_top(leaf, text),
            "Contents" | "Version" | "DeleteMarker" => {}
            _ => return Ok(()),
        }
        let current = &mut self.current;
        match leaf {
            "Key" => current.key = text.to_owned(),
            "Size" => current.size = Some(number(text)?),
            "LastModified" => current.mtime_ns = time_ns(text)?,
            "ETag" => current.etag = Some(unquoted(text).into()),
            "VersionId" => current.version = version(text),
            "IsLatest" => current.latest = text.trim() == "true",
            _ => {}
        }
        Ok(())
    }

    fn closed_top(&mut self, leaf: &str, text: &str) -> Result<(), Malformed> {
        match leaf {
            "Contents" | "Version" | "DeleteMarker" => {
                let mut found = std::mem::take(&mut self.current);
                found.removal = leaf == "DeleteMarker";
                found.latest |= leaf == "Contents";
                self.found.push(found);
            }
            "EncodingType" => self.encoded = text.trim() == "url",
            "IsTruncated" => self.truncated = Some(text.trim() == "true"),
            "NextContinuationToken" => self.token = text.to_owned(),
            "NextKeyMarker" => self.key_marker = text.to_owned(),
            "NextVersionIdMarker" => self.version_marker = text.to_owned(),
            _ => {}
        }
        Ok(())
    }

    /// The page, once the document has ended; `relative` takes the store's prefix off a key.
    pub(super) fn page(self, relative: impl Fn(&[u8]) -> Result<Key>) -> Result<Page> {
        let encoded = self.encoded;
        let decode = |text: &str| {
            if !encoded && text.contains('\u{fffd}') {
                return Err(Error::new(Kind::BadListing, "the server lists a key that it cannot spell")
                    .key(&Key::from(text))
                    .hint("rename the object: its key has control characters, and this server does not encode its listings"));
            }
            if !encoded {
                return Ok(text.as_bytes().to_vec());
            }
            encode::decode_form(text)
                .ok_or_else(|| Error::new(Kind::BadListing, format!("the listing holds `{text}`, badly encoded")))
        };
        let truncated = self.truncated.ok_or_else(|| {
            Error::new(Kind::BadListing, "the listing does not say whether it is complete")
                .hint("run the command again")
        })?;
        let next = if self.versions {
            let version = self.version_marker;
            (!self.key_marker.is_empty())
                .then(|| Ok::<_, Error>(Cursor::Version { key: decode(&self.key_marker)?, version }))
        } else {
            (!self.token.is_empty()).then_some(Ok(Cursor::Token(self.token)))
        };
        let mut found = Vec::with_capacity(self.found.len());
        for raw in self.found {
            let key = relative(&decode(&raw.key)?)?;
            found.push(raw.found(key)?);
        }
        Ok(Page { found, truncated, next: next.transpose()? })
    }
}

impl RawFound {
    fn found(self, key: Key) -> Result<Found> {
        if self.size.is_none() && !self.removal {
            return Err(Error::new(Kind::BadListing, "the listing gives no size").key(&key));
        }
        let size = self.size.unwrap_or(0);
        let kind = kind_of(&key, size);
        let pin = Pin { etag: self.etag, version: self.version, file: None };
        let entry = Entry { kind, mtime_ns: self.mtime_ns, pin, ..Entry::object(key, size) };
        Ok(Found { entry, latest: self.latest, removal: self.removal })
    }
}

/// An entity tag without its quotes.
pub(super) fn unquoted(etag: &str) -> &str {
    let etag = etag.trim();
    etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')).unwrap_or(etag)
}

/// A version id; the one called `null` pins nothing, for its content can be replaced.
pub(super) fn version(id: &str) -> Option<Box<str>> {
    let id = id.trim();
    (!id.is_empty() && id != "null").then(|| id.into())
}

fn number(text: &str) -> Result<u64, Malformed> {
    text.trim().parse().map_err(|_| Malformed(format!("`{text}` is no size")))
}

/// An ISO 8601 time in nanoseconds since 1970.
pub(super) fn time_ns(text: &str) -> Result<i64, Malformed> {
    let wrong = || Malformed(format!("`{text}` is no time"));
    let timestamp: jiff::Timestamp = text.trim().parse().map_err(|_| wrong())?;
    i64::try_from(timestamp.as_nanosecond()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::super::error::Failure;
    use super::super::xml;
    use super::*;

    fn parse(xml: &str, versions: bool) -> Result<Page> {
        let mut parser = PageParser::new(versions);
        xml::walk(xml.as_bytes(), |path, text| parser.closed(path, text)).map_err(Failure::from)?;
        parser.page(|key| Ok(Key::copy_from(key)))
    }

    #[test]
    fn a_page_of_objects() {
        let page = parse(
            "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
             <NextContinuationToken>t&amp;1</NextContinuationToken>\
             <Contents><Key>a+b%2Bc%01</Key><Size>3</Size><ETag>&quot;e-2&quot;</ETag>\
             <LastModified>2026-11-21T10:54:53.250Z</LastModified><Owner><ID>o</ID></Owner></Contents>\
             <Contents><Key>d/</Key><Size>0</Size><LastModified>1970-01-01T00:00:00Z</LastModified></Contents>\
             </ListBucketResult>",
            false,
        )
        .unwrap();
        assert_eq!(page.next, Some(Cursor::Token("t&1".into())));
        let entry = &page.found[0].entry;
        assert_eq!(
            (entry.key.as_bytes(), entry.size, entry.mtime_ns),
            (&b"a b+c\x01"[..], 3, 1_795_258_493_250_000_000)
        );
        assert_eq!(entry.pin.etag.as_deref(), Some("e-2"));
        assert_eq!(page.found[1].entry.kind, crate::manifest::Kind::Directory);
    }

    #[test]
    fn pages_that_make_no_sense() {
        let kind = |xml: &str| parse(xml, false).unwrap_err().kind();
        assert_eq!(kind("<R></R>"), Kind::BadListing);
        assert_eq!(
            kind("<R><IsTruncated>false</IsTruncated><Contents><Key>\u{fffd}</Key><Size>1</Size></Contents></R>"),
            Kind::BadListing
        );
        let page = |contents: &str| format!("<R><IsTruncated>false</IsTruncated>{contents}</R>");
        assert_eq!(kind(&page("<Contents><Key>a</Key></Contents>")), Kind::BadListing);
        assert_eq!(
            kind(&page("<EncodingType>url</EncodingType><Contents><Key>%</Key><Size>1</Size></Contents>")),
            Kind::BadListing
        );
        assert_eq!(kind(&page("<Contents><Key>a</Key><Size>-1</Size></Contents>")), Kind::Unavailable);
    }

    #[test]
    fn ids_and_tags() {
        assert_eq!((version("null"), version(" v1 ").as_deref()), (None, Some("v1")));
        assert_eq!((unquoted("\"e\""), unquoted("e")), ("e", "e"));
    }
}
