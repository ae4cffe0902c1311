//! What a server tells of an object's parts without sending them (GetObjectAttributes).

use std::sync::atomic::Ordering;

use http::Method;

use super::error::Failure;
use super::page::unquoted;
use super::{S3Store, xml};
use crate::error::{Error, Kind, Result};
use crate::manifest::Entry;
use crate::store::{Piece, make_up};

/// Longest answer about a thousand parts.
const PAGE_BYTES_MAX: u64 = 4 << 20;

/// Checksums that are long enough to stand for the bytes, the longest first. Of a CRC of 32 bits two in a bucket of a
/// hundred thousand parts are likely to be equal.
const STRONG: [&str; 3] = ["ChecksumSHA256", "ChecksumSHA1", "ChecksumCRC64NVME"];

impl S3Store {
    /// The parts that the object was written in; one request for a thousand of them. None where it was written whole or
    /// without checksums, and where the server does not tell, which is asked only once.
    pub(super) async fn parts_of(&self, entry: &Entry) -> Result<Option<Vec<Piece>>> {
        if !entry.pin.etag.as_deref().is_some_and(is_of_parts) || self.tells_no_parts.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let (mut pieces, mut after) = (Vec::new(), 0);
        loop {
            let Some(page) = self.page_of_parts(entry, after).await? else { return Ok(None) };
            // Without a version to ask for, the tag alone tells whether this is the content.
            if entry.pin.etag.as_deref() != Some(&page.etag) {
                return Ok(None);
            }
            let truncated = page.truncated;
            let Some(last) = page.append_to(&mut pieces, after) else { return Ok(None) };
            if !truncated {
                return Ok(make_up(&pieces, entry.size).then_some(pieces));
            }
            after = last;
        }
    }

    /// The parts after this one; none where the content is gone, or where the server makes nothing of the question.
    async fn page_of_parts(&self, entry: &Entry, after: u32) -> Result<Option<PartsPage>> {
        let named = |error: Error| error.at(&*self.address).key(&entry.key);
        let mut pairs = vec![("attributes", "")];
        pairs.extend(entry.pin.version.as_deref().map(|version| ("versionId", version)));
        let mut request = self.request(Method::GET, &entry.key).query(&pairs);
        // A server that does not know the question answers with the object.
        request.reply_bytes_max = PAGE_BYTES_MAX;
        request = request.header("x-amz-object-attributes", "ETag,ObjectParts")?.header("x-amz-max-parts", "1000")?;
        if after > 0 {
            request = request.header("x-amz-part-number-marker", &after.to_string())?;
        }
        let page = match self.client.send(request).await {
            Ok(reply) => PartsPage::read(&reply.body),
            Err(failure) => Err(failure),
        };
        match page {
            Ok(page) => Ok(Some(page)),
            Err(failure) if failure.is_no_bucket() || failure.kind() == Kind::Throttled => Err(named(failure.into())),
            Err(failure) if matches!(failure.code(), "NoSuchKey" | "NoSuchVersion") => Ok(None),
            Err(failure) => {
                self.tells_no_parts.store(true, Ordering::Relaxed);
                tracing::debug!("the server is not asked for parts again: {}", named(failure.into()));
                Ok(None)
            }
        }
    }
}

/// Whether an entity tag is that of an object that was written in parts: `…-N`.
fn is_of_parts(etag: &str) -> bool {
    etag.rsplit_once('-').is_some_and(|(_, count)| !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A part as the document has it.
#[derive(Debug, Default)]
struct RawPart {
    number: u32,
    size: Option<u64>,
    /// By their place in [`STRONG`].
    checksums: [Option<String>; STRONG.len()],
}

/// One page of an object's parts.
#[derive(Debug, Default)]
pub(super) struct PartsPage {
    etag: String,
    parts: Vec<RawPart>,
    truncated: bool,
}

impl PartsPage {
    pub(super) fn read(body: &[u8]) -> Result<Self, Failure> {
        let (mut page, mut current) = (Self::default(), RawPart::default());
        let wrong = |text: &str| xml::Malformed(format!("`{text}` is no number"));
        let root = xml::walk(body, |path, text| {
            match path {
                "ETag" => page.etag = unquoted(text).to_owned(),
                "ObjectParts/IsTruncated" => page.truncated = text.trim() == "true",
                "ObjectParts/Part" => page.parts.push(std::mem::take(&mut current)),
                "ObjectParts/Part/PartNumber" => current.number = text.trim().parse().map_err(|_| wrong(text))?,
                "ObjectParts/Part/Size" => current.size = Some(text.trim().parse().map_err(|_| wrong(text))?),
                _ => {
                    let name = path.strip_prefix("ObjectParts/Part/");
                    if let Some(place) = STRONG.iter().position(|strong| name == Some(strong)) {
                        current.checksums[place] = Some(text.trim().to_owned()).filter(|text| !text.is_empty());
                    }
                }
            }
            Ok(())
        })?;
        // Servers differ in what they call the root.
        if !root.starts_with("GetObjectAttributes") {
            return Err(xml::Malformed(format!("it is a {root}, not what is known of an object")).into());
        }
        Ok(page)
    }

    /// Appends the page's parts and returns the last one's number; none if something about them is missing, or if they do
    /// not go on after part `after`.
    fn append_to(self, pieces: &mut Vec<Piece>, mut after: u32) -> Option<u32> {
        if self.parts.is_empty() {
            return None;
        }
        for part in self.parts {
            let place = part.checksums.iter().position(Option::is_some)?;
            let identity = format!("{}:{}", STRONG[place], part.checksums[place].as_deref()?).into();
            if part.number <= after {
                return None;
            }
            after = part.number;
            pieces.push(Piece { size: part.size?, identity });
        }
        Some(after)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::manifest::Pin;

    fn document(parts: &str, truncated: bool) -> String {
        format!(
            "<GetObjectAttributesResponse><ETag>\"e-2\"</ETag><ObjectParts><TotalPartsCount>2</TotalPartsCount>\
             <IsTruncated>{truncated}</IsTruncated>{parts}</ObjectParts></GetObjectAttributesResponse>"
        )
    }

    fn part(number: u32, size: u64, checksum: &str) -> String {
        format!("<Part>{checksum}<PartNumber>{number}</PartNumber><Size>{size}</Size></Part>")
    }

    #[test]
    fn parts_with_strong_checksums_are_pieces() {
        let both = "<ChecksumCRC64NVME>c=</ChecksumCRC64NVME><ChecksumSHA256>s=</ChecksumSHA256>";
        let crc = "<ChecksumCRC64NVME>c=</ChecksumCRC64NVME>";
        let page = PartsPage::read(document(&(part(1, 5, both) + &part(3, 2, crc)), true).as_bytes()).unwrap();
        assert_eq!((page.etag.as_str(), page.truncated), ("e-2", true));
        let mut pieces = Vec::new();
        assert_eq!(page.append_to(&mut pieces, 0), Some(3));
        let piece = |size, identity: &str| Piece { size, identity: identity.into() };
        assert_eq!(pieces, [piece(5, "ChecksumSHA256:s="), piece(2, "ChecksumCRC64NVME:c=")]);
    }

    #[test]
    fn anything_less_is_nothing() {
        let crc = "<ChecksumCRC64NVME>c=</ChecksumCRC64NVME>";
        for parts in [
            String::new(),
            part(1, 5, ""),
            part(1, 5, "<ChecksumCRC64NVME/>"),
            part(1, 5, "<ChecksumCRC32C>c=</ChecksumCRC32C>"),
            part(1, 5, crc) + &part(1, 5, crc),
            format!("<Part>{crc}<PartNumber>1</PartNumber></Part>"),
        ] {
            let page = PartsPage::read(document(&parts, false).as_bytes()).unwrap();
            assert_eq!(page.append_to(&mut Vec::new(), 0), None, "{parts}");
        }
        assert!(PartsPage::read(document(&part(1, 5, "<Size>x</Size>"), false).as_bytes()).is_err());
        assert!(PartsPage::read(b"<html></html>").is_err());
    }

    #[test]
    fn tags_of_parts() {
        assert!(is_of_parts("0123abcd-2") && is_of_parts("a-b-10000"));
        assert!(!is_of_parts("0123abcd") && !is_of_parts("a-") && !is_of_parts("a-b") && !is_of_parts(""));
    }

    /// A store on a server that answers the question of parts so.
    async fn store(answer: impl Fn(&str) -> (u16, String) + Clone + Send + 'static) -> S3Store {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("s3://b?anonymous=true&region=r&endpoint=http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut socket = BufReader::new(socket);
                    loop {
                        let mut head = String::new();
                        while !head.ends_with("\r\n\r\n") {
                            if socket.read_line(&mut head).await.unwrap() == 0 {
                                return;
                            }
                        }
                        let (status, body) = match head.contains("?attributes=") {
                            true => answer(&head.to_ascii_lowercase()),
                            false => (200, "<VersioningConfiguration/>".into()),
                        };
                        let reply = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                        socket.write_all(reply.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        S3Store::open(&url).await.unwrap()
    }

    fn entry(etag: &str) -> Entry {
        let pin = Pin { etag: Some(etag.into()), ..Pin::default() };
        Entry { pin, ..Entry::object("k", 12) }
    }

    #[tokio::test]
    async fn page_after_page() {
        let crc = "<ChecksumCRC64NVME>c=</ChecksumCRC64NVME>";
        let store = store(move |head| match head.contains("x-amz-part-number-marker: 2\r\n") {
            false => (200, document(&(part(1, 5, crc) + &part(2, 5, crc)), true)),
            true => (200, document(&part(3, 2, crc), false)),
        });
        let store = store.await;
        let sizes = async |entry: Entry| {
            let pieces = store.parts_of(&entry).await.unwrap()?;
            Some(pieces.iter().map(|piece| piece.size).collect::<Vec<_>>())
        };
        assert_eq!(sizes(entry("e-2")).await, Some(vec![5, 5, 2]));
        assert_eq!(sizes(Entry { size: 13, ..entry("e-2") }).await, None, "not all of it");
        assert_eq!(sizes(entry("f-2")).await, None, "other content");
        let before = store.client.requests();
        assert_eq!(sizes(entry("e")).await, None, "written whole");
        assert_eq!(store.client.requests(), before);
    }

    #[tokio::test]
    async fn who_does_not_tell_is_asked_once() {
        let refusal = |code: &str| format!("<Error><Code>{code}</Code></Error>");
        for (status, body, asks) in [
            (501, refusal("NotImplemented"), 1),
            (403, refusal("AccessDenied"), 1),
            (500, String::new(), 1),
            (200, "the object itself".into(), 1),
            (404, refusal("NoSuchKey"), 2),
        ] {
            let store = store(move |_| (status, body.clone())).await;
            let before = store.client.requests();
            for _ in 0..2 {
                assert_eq!(store.parts_of(&entry("e-2")).await.unwrap(), None, "{status}");
            }
            assert_eq!(store.client.requests() - before, asks, "{status}");
        }
        let busy = store(|_| (503, "<Error><Code>SlowDown</Code></Error>".into())).await;
        assert_eq!(busy.parts_of(&entry("e-2")).await.unwrap_err().kind(), Kind::Throttled);
    }
}
