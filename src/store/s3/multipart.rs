//! Objects that are written in parts.

use bytes::Bytes;
use http::Method;

use super::checksum::Check;
use super::client::Request;
use super::error::Failure;
use super::object::refused_write;
use super::page::unquoted;
use super::url::Checksum;
use super::{S3Store, attributes, encode, xml};
use crate::error::{Error, Kind, Result};
use crate::key::Key;
use crate::manifest::{Attributes, Pin};
use crate::store::{Condition, Part, Upload};

impl S3Store {
    pub(super) async fn create_upload(&self, key: &Key, attributes: &Attributes) -> Result<Upload> {
        let named = |error: Error| error.at(&*self.address).key(key);
        let mut request = self.request(Method::POST, key).query(&[("uploads", "")]);
        attributes::to_headers(attributes, key.is_directory(), &mut request.headers).map_err(named)?;
        if self.checksum == Checksum::Crc64Nvme && self.server.takes_sums_of_uploads() {
            request = request
                .header("x-amz-checksum-algorithm", "CRC64NVME")
                .and_then(|request| request.header("x-amz-checksum-type", "FULL_OBJECT"))
                .map_err(named)?;
        }
        let reply = self.client.send(request).await.map_err(self.named(key))?;
        let mut id = String::new();
        let walked = xml::walk(&reply.body, |path, text| {
            if path == "UploadId" {
                id = text.to_owned();
            }
            Ok(())
        });
        if walked.map_err(|malformed| self.named(key)(malformed.into()))? != "InitiateMultipartUploadResult"
            || id.is_empty()
        {
            return Err(self.named(key)(xml::Malformed("it names no upload".into()).into()));
        }
        Ok(Upload { key: key.clone(), id })
    }

    pub(super) async fn upload_part(&self, upload: &Upload, number: u32, offset: u64, data: Bytes) -> Result<Part> {
        let named = |error: Error| error.at(&*self.address).key(&upload.key);
        let size = data.len() as u64;
        let request = self.part_request(upload, number);
        let (request, check) = self.with_body(request, data).await.map_err(named)?;
        let reply = self.client.send(request).await.map_err(self.named(&upload.key))?;
        self.check_echo(&reply, check).map_err(named)?;
        let Some(etag) = reply.header("etag").map(|etag| unquoted(etag).to_owned()) else {
            return Err(self.named(&upload.key)(Failure::lost("the server gave no receipt for a part", "no ETag")));
        };
        let checksum = if matches!(check, Check::Crc64Nvme(_)) { check.header().1 } else { String::new() };
        Ok(Part { number, offset, size, etag, checksum })
    }

    /// A PUT of a part, without its content.
    pub(super) fn part_request(&self, upload: &Upload, number: u32) -> Request {
        let number = number.to_string();
        self.request(Method::PUT, &upload.key).query(&[("partNumber", &number), ("uploadId", &upload.id)])
    }

    pub(super) async fn complete_upload(&self, upload: &Upload, parts: &[Part], condition: &Condition) -> Result<Pin> {
        let named = |error: Error| error.at(&*self.address).key(&upload.key);
        let mut request = self
            .request(Method::POST, &upload.key)
            .query(&[("uploadId", &upload.id)])
            .header("content-type", "application/xml")?
            .body(completion(parts, self.server.takes_sums_of_uploads()))
            .patient();
        if self.capabilities.conditional_parts {
            request = self.guarded(request, condition).map_err(named)?;
        }
        let whole = if self.checksum == Checksum::Crc64Nvme { Part::whole(parts) } else { None };
        if let Some(whole) = whole.filter(|_| self.server.takes_sums_of_uploads()) {
            request = request
                .header("x-amz-checksum-crc64nvme", &whole.text())?
                .header("x-amz-checksum-type", "FULL_OBJECT")?
                .header("x-amz-mp-object-size", &whole.size.to_string())?;
        }
        let refused = |failure| named(refused_write(failure, condition));
        let reply = self.client.send(request).await.map_err(refused)?;
        let done = Outcome::read(&reply.body).map_err(refused)?;
        match (whole, &done.checksum) {
            (Some(whole), Some(theirs)) if whole.text() != *theirs => {
                return Err(named(
                    Error::new(Kind::Damaged, "the object was put together wrongly: its checksum differs")
                        .hint("run again; if it happens again the server is at fault"),
                ));
            }
            (Some(_), None) if !self.server.takes_sums_of_uploads() => {
                return Err(named(
                    Error::new(Kind::Unsupported, "the server does not say what it has put together")
                        .hint("add checksum=md5 to its URL"),
                ));
            }
            _ => {}
        }
        Ok(Pin { etag: Some(done.etag), version: self.version(&reply), file: None })
    }

    pub(super) async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        let request = self.request(Method::DELETE, &upload.key).query(&[("uploadId", &upload.id)]);
        match self.client.send(request).await {
            Err(failure) if failure.kind() != Kind::NotFound || failure.is_no_bucket() => {
                Err(self.named(&upload.key)(failure))
            }
            _ => Ok(()),
        }
    }

    /// Uploads that were begun and neither finished nor dropped, of keys that begin with `prefix`.
    ///
    /// # Errors
    /// As for any request; `BadListing` where the server's pages make no sense.
    pub async fn list_uploads(&self, prefix: &Key) -> Result<Vec<Upload>> {
        self.pages_of_uploads(prefix).await.map_err(|failure| Error::from(failure).at(&*self.address))
    }

    async fn pages_of_uploads(&self, prefix: &Key) -> Result<Vec<Upload>, Failure> {
        let prefix = String::from_utf8_lossy(&self.absolute(prefix)).into_owned();
        let mut uploads = Vec::new();
        let mut marker = (String::new(), String::new());
        loop {
            let mut pairs = vec![("encoding-type", "url")];
            if !marker.0.is_empty() {
                pairs.push(("key-marker", &marker.0));
            }
            pairs.extend([("prefix", prefix.as_str()), ("uploads", "")]);
            if !marker.1.is_empty() {
                pairs.insert(pairs.len() - 1, ("upload-id-marker", &marker.1));
            }
            pairs.sort_unstable();
            let reply = self.client.send(Request::new(Method::GET).query(&pairs)).await?;
            let page = UploadsPage::read(&reply.body)?;
            for (key, id) in page.uploads {
                let key = key.strip_prefix(&*self.root).map(Key::from);
                uploads.extend(key.map(|key| Upload { key, id }));
            }
            if !page.truncated {
                return Ok(uploads);
            }
            if page.next == marker || page.next.0.is_empty() {
                return Err(Error::new(Kind::BadListing, "the list of uploads goes on nowhere").into());
            }
            marker = page.next;
        }
    }
}

/// The document that names the parts.
fn completion(parts: &[Part], with_checksums: bool) -> String {
    let mut document = String::with_capacity(128 + parts.len() * 160);
    document.push_str("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for part in parts {
        document.push_str("<Part>");
        if with_checksums && !part.checksum.is_empty() {
            document.push_str("<ChecksumCRC64NVME>");
            xml::push_text(&mut document, &part.checksum);
            document.push_str("</ChecksumCRC64NVME>");
        }
        document.push_str("<ETag>&quot;");
        xml::push_text(&mut document, &part.etag);
        document.push_str(&format!("&quot;</ETag><PartNumber>{}</PartNumber></Part>", part.number));
    }
    document.push_str("</CompleteMultipartUpload>");
    document
}

/// What completing or copying came to. Both may fail inside a reply of status 200.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) etag: Box<str>,
    /// CRC64NVME of the content, where the server gives it.
    pub(super) checksum: Option<String>,
}

impl Outcome {
    pub(super) fn read(body: &[u8]) -> Result<Self, Failure> {
        let mut outcome = Self::default();
        let (mut code, mut message) = (String::new(), String::new());
        let root = xml::walk(body, |path, text| {
            match path {
                "ETag" => outcome.etag = unquoted(text).into(),
                "ChecksumCRC64NVME" => outcome.checksum = Some(text.trim().to_owned()),
                "Code" => code = text.trim().to_owned(),
                "Message" => message = text.to_owned(),
                _ => {}
            }
            Ok(())
        })?;
        if root == "Error" {
            return Err(Failure::inside(&code, &message));
        }
        // Servers differ in what they call the root.
        if outcome.etag.is_empty() {
            return Err(xml::Malformed(format!("the {root} has no ETag")).into());
        }
        Ok(outcome)
    }
}

#[derive(Debug, Default)]
pub(super) struct UploadsPage {
    /// Keys as they stand in the bucket, with ids.
    uploads: Vec<(String, String)>,
    truncated: bool,
    next: (String, String),
}

impl UploadsPage {
    pub(super) fn read(body: &[u8]) -> Result<Self, Failure> {
        let (mut page, mut encoded) = (Self::default(), false);
        let mut current = (String::new(), String::new());
        let root = xml::walk(body, |path, text| {
            match path {
                "Upload/Key" => current.0 = text.to_owned(),
                "Upload/UploadId" => current.1 = text.to_owned(),
                "Upload" => page.uploads.push(std::mem::take(&mut current)),
                "EncodingType" => encoded = text.trim() == "url",
                "IsTruncated" => page.truncated = text.trim() == "true",
                "NextKeyMarker" => page.next.0 = text.to_owned(),
                "NextUploadIdMarker" => page.next.1 = text.to_owned(),
                _ => {}
            }
            Ok(())
        })?;
        if root != "ListMultipartUploadsResult" {
            return Err(xml::Malformed(format!("it is a {root}, not a ListMultipartUploadsResult")).into());
        }
        if encoded {
            for text in page.uploads.iter_mut().map(|(key, _)| key).chain([&mut page.next.0]) {
                let decoded = encode::decode_form(text).and_then(|bytes| String::from_utf8(bytes).ok());
                *text = decoded.ok_or_else(|| Error::new(Kind::BadListing, format!("`{text}` is badly encoded")))?;
            }
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_inside_success() {
        let read = |body: &str| Outcome::read(body.as_bytes()).map_err(|failure| Error::from(failure).kind());
        let done = read("<?xml version=\"1.0\"?>\n \n<CopyObjectResult><ETag>\"e\"</ETag></CopyObjectResult>").unwrap();
        assert_eq!(&*done.etag, "e");
        assert_eq!(read("<Error><Code>InternalError</Code></Error>").unwrap_err(), Kind::Unavailable);
        assert_eq!(read("<Error><Code>PreconditionFailed</Code></Error>").unwrap_err(), Kind::Changed);
        assert_eq!(read("<CopyObjectResult/>").unwrap_err(), Kind::Unavailable);
        assert_eq!(read("").unwrap_err(), Kind::Unavailable);
    }

    #[test]
    fn documents() {
        let part = Part { number: 2, offset: 0, size: 1, etag: "e&1".into(), checksum: "c=".into() };
        assert!(!completion(std::slice::from_ref(&part), false).contains("Checksum"));
        assert!(completion(&[part], true).contains(
            "<Part><ChecksumCRC64NVME>c=</ChecksumCRC64NVME><ETag>&quot;e&amp;1&quot;</ETag><PartNumber>2</PartNumber></Part>"
        ));
        let page = UploadsPage::read(
            b"<ListMultipartUploadsResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
              <NextKeyMarker>a+b</NextKeyMarker><NextUploadIdMarker>u2</NextUploadIdMarker>\
              <Upload><Key>a+b</Key><UploadId>u+1</UploadId></Upload></ListMultipartUploadsResult>",
        )
        .unwrap();
        assert_eq!(page.uploads, [("a b".to_owned(), "u+1".to_owned())]);
        assert_eq!((page.truncated, page.next), (true, ("a b".to_owned(), "u2".to_owned())));
    }
}
