//! Whole objects: read, fetch, stat, write, delete.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::checksum::{Check, content_md5, sums};
use super::client::{Request, http_date_s};
use super::error::Failure;
use super::page::{unquoted, version};
use super::transport::Reply;
use super::{S3Store, Server, attributes, xml};
use crate::error::{Error, Kind, Result};
use crate::key::Key;
use crate::manifest::{Attributes, Entry, Pin};
use crate::store::{Condition, Object, kind_of};

/// Largest document that [`S3Store::fetch_object`] takes into memory.
const FETCH_BYTES_MAX: u64 = 1 << 30;

impl S3Store {
    pub(super) async fn read_object(&self, entry: &Entry, range: Option<Range<u64>>) -> Result<Object> {
        let named = self.named(&entry.key);
        // A server cannot send nothing of something, and refuses any range of nothing: an empty range is asked by HEAD.
        let whole = 0..entry.size;
        let range = range.unwrap_or_else(|| whole.clone());
        let wanted = range.end.saturating_sub(range.start);
        if range.end > entry.size {
            return Err(named(
                Error::internal(format!("{range:?} is not in an object of {} bytes", entry.size)).into(),
            ));
        }
        let method = if wanted == 0 && entry.size > 0 { Method::HEAD } else { Method::GET };
        let mut request = self.request(method.clone(), &entry.key);
        if range != whole && wanted > 0 {
            request = request.header("range", &format!("bytes={}-{}", range.start, range.end - 1))?;
        }
        request.reply_bytes_max = wanted;
        let reply = self.pinned(request, &entry.pin).await.map_err(&named)?;
        check_extent(&reply, &range, entry, method == Method::HEAD).map_err(&named)?;
        let mut attributes = attributes::from_headers(&reply.headers).map_err(|error| named(error.into()))?;
        if attributes::tag_count(&reply.headers) > 0 {
            attributes.tags = self.tags(&entry.key, entry.pin.version.as_deref()).await.map_err(&named)?;
        }
        Ok(Object { data: reply.body, attributes })
    }

    /// Sends a GET or HEAD so that only the pinned content answers.
    async fn pinned(&self, mut request: Request, pin: &Pin) -> Result<Reply, Failure> {
        if let Some(version) = &pin.version {
            request = request.query(&[("versionId", version)]);
            return self.client.send(request).await;
        }
        let Some(etag) = &pin.etag else { return self.client.send(request).await };
        request = request.header("if-match", &quoted(etag))?;
        if !self.capabilities.versions {
            return self.client.send(request).await;
        }
        // What was written before versioning was enabled is still there under newer versions, as version `null`.
        let mut older = Request::new(request.method.clone()).query(&[("versionId", "null")]);
        older.key = request.key.clone();
        older.headers = request.headers.clone();
        older.reply_bytes_max = request.reply_bytes_max;
        match self.client.send(request).await {
            Err(failure) if matches!(failure.kind(), Kind::Changed | Kind::NotFound) && !failure.is_no_bucket() => {
                self.client.send(older).await.map_err(|_| failure)
            }
            outcome => outcome,
        }
    }

    pub(super) async fn fetch_object(&self, key: &Key) -> Result<Option<(Bytes, Pin)>> {
        let mut request = self.request(Method::GET, key);
        request.reply_bytes_max = FETCH_BYTES_MAX;
        match self.client.send(request).await {
            Ok(reply) => {
                let pin = self.pin(&reply);
                Ok(Some((reply.body, pin)))
            }
            Err(failure) if failure.kind() == Kind::NotFound && !failure.is_no_bucket() => Ok(None),
            Err(failure) => Err(self.named(key)(failure)),
        }
    }

    /// A HEAD's time has whole seconds only, where a listing may have fractions.
    pub(super) async fn stat_object(&self, key: &Key) -> Result<Option<Entry>> {
        let named = self.named(key);
        let reply = match self.client.send(self.request(Method::HEAD, key)).await {
            Ok(reply) => reply,
            // 405 is how some servers answer for a key whose newest version is a removal.
            Err(failure)
                if matches!(failure.status(), Some(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)) =>
            {
                return Ok(None);
            }
            Err(failure) => return Err(named(failure)),
        };
        // SeaweedFS answers for a folder that is there only for what is in it; it gives away by the tag that it has none.
        let implied = reply.header("etag").is_some_and(|etag| unquoted(etag).ends_with("-0"));
        if self.server == Server::SeaweedFs && key.is_directory() && implied {
            return Ok(None);
        }
        let size = reply.header("content-length").and_then(|text| text.parse().ok());
        let Some(size) = size else {
            return Err(named(Failure::lost("the server's reply has no size", "no content-length")));
        };
        let mtime_ns =
            reply.header("last-modified").and_then(http_date_s).map_or(0, |s| s.saturating_mul(1_000_000_000));
        Ok(Some(Entry {
            kind: kind_of(key, size),
            mtime_ns,
            pin: self.pin(&reply),
            ..Entry::object(key.clone(), size)
        }))
    }

    pub(super) async fn write_object(
        &self,
        key: &Key,
        data: Bytes,
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<Pin> {
        let named = |error: Error| error.at(&*self.address).key(key);
        let mut request = self.request(Method::PUT, key);
        attributes::to_headers(attributes, key.is_directory(), &mut request.headers).map_err(named)?;
        request = self.guarded(request, condition).map_err(named)?;
        let (request, check) = self.with_body(request, data).await.map_err(named)?;
        let reply = self.client.send(request).await.map_err(|failure| named(refused_write(failure, condition)))?;
        self.check_echo(&reply, check).map_err(named)?;
        let pin = self.pin(&reply);
        if pin.etag.is_none() && pin.version.is_none() {
            return Err(named(Error::new(Kind::Unsupported, "the server gives no ETag for what it wrote")));
        }
        Ok(pin)
    }

    /// Gives a request its body with everything that the server needs to check it.
    pub(super) async fn with_body(&self, mut request: Request, data: Bytes) -> Result<(Request, Check)> {
        let sums = sums(&data, self.client.signs_payload(), self.checksum).await?;
        let (name, value) = sums.check.header();
        request = request.header(name, &value)?.body(data);
        request.sha256 = sums.sha256;
        Ok((request, sums.check))
    }

    /// Compares what the server says it got with what was sent.
    pub(super) fn check_echo(&self, reply: &Reply, check: Check) -> Result<()> {
        let damaged = || {
            Error::new(Kind::Damaged, "the server's checksum is not that of what was sent")
                .hint("run again; if it happens again the server or the way to it changes bytes")
        };
        match (check, check.echo().and_then(|name| reply.header(name))) {
            (_, Some(echo)) if echo != check.header().1 => Err(damaged()),
            (Check::Crc64Nvme(_), None) if !self.client.signs_payload() => {
                if !self.unchecked_was_told.swap(true, Ordering::Relaxed) {
                    let store = &*self.address;
                    tracing::warn!(store, "the server does not confirm CRC64NVME; add checksum=md5 to its URL");
                }
                Ok(())
            }
            (Check::Md5(md5), _) => {
                let etag = reply.header("etag").map_or("", unquoted);
                // Under a customer's key the tag is no MD5.
                let encryption = reply.header("x-amz-server-side-encryption").unwrap_or("AES256");
                let customer = reply.headers.contains_key("x-amz-server-side-encryption-customer-algorithm");
                let is_md5 = encryption == "AES256" && !customer && etag.len() == 32 && hex::decode(etag).is_ok();
                if is_md5 && !etag.eq_ignore_ascii_case(&hex::encode(md5)) { Err(damaged()) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// What pins the content that a reply is about.
    pub(super) fn pin(&self, reply: &Reply) -> Pin {
        let etag = reply.header("etag").map(|etag| unquoted(etag).into());
        Pin { etag, version: self.version(reply), file: None }
    }

    /// The version that a reply is about, where versions are used.
    pub(super) fn version(&self, reply: &Reply) -> Option<Box<str>> {
        reply.header("x-amz-version-id").filter(|_| self.capabilities.versions).and_then(version)
    }

    /// Adds a write's condition, if the server heeds it.
    pub(super) fn guarded(&self, request: Request, condition: &Condition) -> Result<Request> {
        if !self.capabilities.conditional {
            return Ok(request);
        }
        match condition {
            Condition::Any => Ok(request),
            Condition::Absent => request.header("if-none-match", "*"),
            Condition::Matches(pin) => match &pin.etag {
                Some(etag) => request.header("if-match", &quoted(etag)),
                None => Err(Error::internal("a write is conditional on content without an ETag")),
            },
        }
    }

    pub(super) async fn delete_objects(&self, keys: &[Key]) -> Result<()> {
        if keys.len() > self.capabilities.delete_batch_max {
            return Err(Error::internal(format!("{} keys in one delete", keys.len())).at(&*self.address));
        }
        self.delete_all(keys.iter().map(|key| (key, None))).await
    }

    pub(super) async fn delete_object_versions(&self, versions: &[(Key, Box<str>)]) -> Result<()> {
        if versions.len() > self.capabilities.delete_batch_max {
            return Err(Error::internal(format!("{} versions in one delete", versions.len())).at(&*self.address));
        }
        self.delete_all(versions.iter().map(|(key, id)| (key, Some(&**id)))).await
    }

    /// Deletes keys, or these versions of them.
    async fn delete_all<'a>(&self, keys: impl Iterator<Item = (&'a Key, Option<&'a str>)> + Send) -> Result<()> {
        let mut batch = Vec::with_capacity(keys.size_hint().0);
        for (key, version) in keys {
            // What no XML document can hold is deleted by itself.
            match String::from_utf8(self.absolute(key)) {
                Ok(text) if xml::is_safe(&text) => batch.push((text, version)),
                _ => {
                    let mut request = self.request(Method::DELETE, key);
                    if let Some(version) = version {
                        request = request.query(&[("versionId", version)]);
                    }
                    let outcome = self.client.send(request).await;
                    outcome.map(drop).or_else(gone_is_fine).map_err(self.named(key))?;
                }
            }
        }
        if batch.is_empty() { Ok(()) } else { self.delete_batch(&batch).await }
    }

    async fn delete_batch(&self, keys: &[(String, Option<&str>)]) -> Result<()> {
        let mut document = String::with_capacity(64 + keys.len() * 128);
        document.push_str("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>");
        for (key, version) in keys {
            document.push_str("<Object><Key>");
            xml::push_text(&mut document, key);
            document.push_str("</Key>");
            if let Some(version) = version {
                document.push_str("<VersionId>");
                xml::push_text(&mut document, version);
                document.push_str("</VersionId>");
            }
            document.push_str("</Object>");
        }
        document.push_str("</Delete>");
        let request = Request::new(Method::POST)
            .query(&[("delete", "")])
            .header("content-md5", &content_md5(document.as_bytes()))?
            .header("content-type", "application/xml")?
            .body(document);
        let at_store = |failure: Failure| Error::from(failure).at(&*self.address);
        let reply = self.client.send(request).await.map_err(at_store)?;
        let versions = keys.iter().any(|(_, version)| version.is_some());
        let gone = if versions { self.server.says_of_gone_versions() } else { &[] };
        let failed = first_failed(&reply.body, gone).map_err(|malformed| at_store(malformed.into()))?;
        failed.map_or(Ok(()), |failed| {
            let key = failed.key.strip_prefix(&*self.root).unwrap_or(&failed.key);
            Err(at_store(Failure::inside(&failed.code, &failed.message)).key(&Key::from(key)))
        })
    }

    pub(super) async fn tags(&self, key: &Key, version: Option<&str>) -> Result<Vec<(String, String)>, Failure> {
        let mut pairs = vec![("tagging", "")];
        pairs.extend(version.map(|version| ("versionId", version)));
        let reply = self.client.send(self.request(Method::GET, key).query(&pairs)).await?;
        let (mut tags, mut name, mut value) = (Vec::new(), String::new(), String::new());
        xml::walk(&reply.body, |path, text| {
            match path {
                "TagSet/Tag/Key" => name = text.to_owned(),
                "TagSet/Tag/Value" => value = text.to_owned(),
                "TagSet/Tag" => tags.push((std::mem::take(&mut name), std::mem::take(&mut value))),
                _ => {}
            }
            Ok(())
        })?;
        tags.sort();
        Ok(tags)
    }
}

/// A key that DeleteObjects left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Failed {
    key: String,
    code: String,
    message: String,
}

/// The first key of a reply that stayed, for another reason than that it was `gone`.
pub(super) fn first_failed(reply: &[u8], gone: &[&str]) -> Result<Option<Failed>, xml::Malformed> {
    let (mut first, mut current) = (None, Failed::default());
    let root = xml::walk(reply, |path, text| {
        match path {
            "Error/Key" => current.key = text.to_owned(),
            "Error/Code" => current.code = text.trim().to_owned(),
            "Error/Message" => current.message = text.to_owned(),
            "Error" => {
                let failed = std::mem::take(&mut current);
                if first.is_none() && failed.code != "NoSuchKey" && !gone.contains(&&*failed.code) {
                    first = Some(failed);
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    match root.as_str() {
        "DeleteResult" | "DeleteObjectsResult" => Ok(first),
        other => Err(xml::Malformed(format!("it is a {other}, not a DeleteResult"))),
    }
}

fn gone_is_fine(failure: Failure) -> Result<(), Failure> {
    if failure.kind() == Kind::NotFound && !failure.is_no_bucket() { Ok(()) } else { Err(failure) }
}

/// Why a write was refused, in the words of its condition.
pub(super) fn refused_write(failure: Failure, condition: &Condition) -> Error {
    match (failure.kind(), condition) {
        (Kind::Changed, Condition::Absent) => failure.into_kind(Kind::AlreadyExists, "something is there already"),
        // The object that must match is gone.
        (Kind::NotFound, Condition::Matches(_)) if failure.code() == "NoSuchKey" => {
            failure.into_kind(Kind::Changed, "what was to be replaced is gone")
        }
        (Kind::Changed, Condition::Matches(_)) => {
            failure.into_kind(Kind::Changed, "what was to be replaced has changed")
        }
        _ => failure.into(),
    }
}

/// Checks that the reply is the range that was asked for, of an object of the entry's size.
fn check_extent(reply: &Reply, range: &Range<u64>, entry: &Entry, head: bool) -> Result<(), Failure> {
    let changed = |size: u64| {
        Error::new(Kind::Changed, format!("it has {size} bytes now, not {}", entry.size)).hint("take a new snapshot")
    };
    let wanted = range.end - range.start;
    if head {
        return Ok(());
    }
    if reply.status == StatusCode::PARTIAL_CONTENT {
        let said = reply.header("content-range").unwrap_or("");
        let (extent, size) = said.strip_prefix("bytes ").and_then(|said| said.split_once('/')).unwrap_or(("", ""));
        if let Some(size) = size.parse().ok().filter(|size| *size != entry.size) {
            return Err(changed(size).into());
        }
        if extent != format!("{}-{}", range.start, range.end - 1) {
            return Err(Failure::lost("the server sent another range", format!("`{said}` for {range:?}")));
        }
    }
    if reply.body.len() as u64 == wanted {
        return Ok(());
    }
    if entry.pin.version.is_none() && entry.pin.etag.is_none() && *range == (0..entry.size) {
        return Err(changed(reply.body.len() as u64).into());
    }
    Err(Failure::lost("the content has the wrong length", format!("{} bytes, not {wanted}", reply.body.len())))
}

pub(super) fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn reply(status: u16, content_range: Option<&str>, body: &'static str) -> Reply {
        let mut headers = HeaderMap::new();
        if let Some(range) = content_range {
            headers.insert("content-range", range.parse().unwrap());
        }
        Reply { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn only_what_was_asked_for() {
        let mut entry = Entry::object("a", 10);
        entry.pin.etag = Some("e".into());
        let check = |reply: Reply, range: Range<u64>| {
            check_extent(&reply, &range, &entry, false).map_err(|failure| Error::from(failure).kind())
        };
        assert_eq!(check(reply(200, None, "0123456789"), 0..10), Ok(()));
        assert_eq!(check(reply(206, Some("bytes 2-4/10"), "234"), 2..5), Ok(()));
        assert_eq!(check(reply(206, Some("bytes 2-4/11"), "234"), 2..5), Err(Kind::Changed));
        assert_eq!(check(reply(206, Some("bytes 0-2/10"), "012"), 2..5), Err(Kind::Unavailable));
        assert_eq!(check(reply(200, None, "0123456789"), 2..5), Err(Kind::Unavailable));
        assert_eq!(check(reply(200, None, "012345678"), 0..10), Err(Kind::Unavailable));
        let unpinned = check_extent(&reply(200, None, "012"), &(0..10), &Entry::object("a", 10), false);
        assert_eq!(Error::from(unpinned.unwrap_err()).kind(), Kind::Changed);
    }

    #[test]
    fn keys_that_were_not_deleted() {
        let reply = "<DeleteResult><Error><Key>gone</Key><Code>NoSuchKey</Code></Error>\
                     <Error><Key>older</Key><VersionId>v</VersionId><Code>NoSuchVersion</Code></Error>\
                     <Error><Key>k&amp;1</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>";
        let failed = first_failed(reply.as_bytes(), &["NoSuchVersion"]).unwrap().unwrap();
        assert_eq!((failed.key.as_str(), failed.code.as_str()), ("k&1", "AccessDenied"));
        let failed = first_failed(reply.as_bytes(), &[]).unwrap().unwrap();
        assert_eq!(failed.key, "older", "a version is not asked for");
        assert_eq!(first_failed(b"<DeleteResult/>", &[]).unwrap(), None);
        assert!(first_failed(b"<html></html>", &[]).is_err());
        assert!(first_failed(b"<DeleteResult>", &[]).is_err());
    }
}
