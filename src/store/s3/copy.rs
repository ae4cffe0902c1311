//! Copies that never leave the server.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt, iter};
use http::Method;

use super::client::Request;
use super::error::Failure;
use super::multipart::Outcome;
use super::object::{quoted, refused_write};
use super::{PARTS_MAX, S3Store, WRITE_BYTES_MAX, attributes, encode};
use crate::error::{Error, Kind, Result};
use crate::key::Key;
use crate::manifest::{Attributes, Entry, Pin};
use crate::store::{Condition, Part, Upload, check_copied};

/// Length of the parts in which a large object is copied, unless there would be too many.
const COPY_PART_BYTES: u64 = 1 << 30;

/// Parts of one object that are copied at the same time.
const COPY_PARTS_AT_ONCE: usize = 8;

impl S3Store {
    pub(super) async fn copy_object(
        &self,
        from: &Entry,
        to: &Key,
        attributes: Option<&Attributes>,
        condition: &Condition,
    ) -> Result<Pin> {
        // Where a copy heeds no condition a write and the end of an upload do.
        let by_other_means =
            *condition != Condition::Any && self.capabilities.conditional && !self.server.heeds_conditions_on_copies();
        if by_other_means && from.size == 0 {
            let attributes = self.attributes_for_copy(from, attributes).await?;
            return self.write_object(to, Bytes::new(), &attributes, condition).await;
        }
        if by_other_means || from.size > WRITE_BYTES_MAX {
            return self.copy_in_parts(from, to, attributes, condition).await;
        }
        let named = |error: Error| error.at(&*self.address).key(to);
        let mut request = self.request(Method::PUT, to).patient();
        request = self.copy_source(request, from).map_err(named)?;
        request = self.guarded(request, condition).map_err(named)?;
        if let Some(attributes) = attributes {
            attributes::to_headers(attributes, to.is_directory(), &mut request.headers).map_err(named)?;
            request =
                request.header("x-amz-metadata-directive", "REPLACE")?.header("x-amz-tagging-directive", "REPLACE")?;
        }
        let refused = |failure| match refused_write(failure, condition) {
            // The only thing that was asked to be something was what is copied.
            error if error.kind() == Kind::Changed && *condition == Condition::Any => named(error.key(&from.key)),
            error => named(error),
        };
        let reply = self.client.send(request).await.map_err(refused)?;
        let done = Outcome::read(&reply.body).map_err(refused)?;
        Ok(Pin { etag: Some(done.etag), version: self.version(&reply), file: None })
    }

    /// Copies a range as one part of an upload.
    pub(super) async fn copy_range(
        &self,
        upload: &Upload,
        number: u32,
        offset: u64,
        from: &Entry,
        range: Range<u64>,
    ) -> Result<Part> {
        let named = |error: Error| error.at(&*self.address).key(&upload.key);
        check_copied(from, &range).map_err(named)?;
        // What is not as it should be is what is copied, unless the upload itself is gone.
        let refused = |failure: Failure| match failure.kind() {
            Kind::Changed | Kind::NotFound if failure.code() != "NoSuchUpload" => self.named(&from.key)(failure),
            _ => self.named(&upload.key)(failure),
        };
        let mut request = self.copy_source(self.part_request(upload, number).patient(), from).map_err(named)?;
        if range != (0..from.size) {
            let extent = format!("bytes={}-{}", range.start, range.end - 1);
            request = request.header("x-amz-copy-source-range", &extent).map_err(named)?;
        }
        let reply = self.client.send(request).await.map_err(refused)?;
        let done = Outcome::read(&reply.body).map_err(refused)?;
        Ok(Part {
            number,
            offset,
            size: range.end - range.start,
            etag: done.etag.into_string(),
            checksum: done.checksum.unwrap_or_default(),
        })
    }

    /// Names what is copied, so that only the pinned content is.
    fn copy_source(&self, request: Request, from: &Entry) -> Result<Request> {
        let mut source = format!("{}/", self.bucket);
        encode::push_path(&mut source, &self.absolute(&from.key));
        if let Some(version) = &from.pin.version {
            source.push_str("?versionId=");
            encode::push_query(&mut source, version.as_bytes());
        }
        let request = request.header("x-amz-copy-source", &source)?;
        match &from.pin.etag {
            Some(etag) => request.header("x-amz-copy-source-if-match", &quoted(etag)),
            None => Ok(request),
        }
    }

    async fn copy_in_parts(
        &self,
        from: &Entry,
        to: &Key,
        attributes: Option<&Attributes>,
        condition: &Condition,
    ) -> Result<Pin> {
        let attributes = self.attributes_for_copy(from, attributes).await?;
        let upload = self.create_upload(to, &attributes).await?;
        let outcome = self.copy_all_parts(&upload, from, condition).await;
        if let Err(error) = &outcome
            && let Err(left) = self.abort_upload(&upload).await
        {
            tracing::warn!(%error, %left, "an upload that failed could not be dropped");
        }
        outcome
    }

    /// The attributes of the copy: those given, else the object's own.
    async fn attributes_for_copy<'a>(
        &self,
        from: &Entry,
        given: Option<&'a Attributes>,
    ) -> Result<Cow<'a, Attributes>> {
        Ok(match given {
            Some(given) => Cow::Borrowed(given),
            None => Cow::Owned(self.read_object(from, Some(0..0)).await?.attributes),
        })
    }

    async fn copy_all_parts(&self, upload: &Upload, from: &Entry, condition: &Condition) -> Result<Pin> {
        let part_bytes = COPY_PART_BYTES.max(from.size.div_ceil(u64::from(PARTS_MAX)));
        let copies = part_ranges(from.size, part_bytes)
            .map(|(number, range)| self.copy_range(upload, number, range.start, from, range));
        let parts: Vec<Part> = iter(copies).buffered(COPY_PARTS_AT_ONCE).try_collect().await?;
        self.complete_upload(upload, &parts, condition).await
    }
}

/// The parts of an object, numbered from 1.
fn part_ranges(size: u64, part_bytes: u64) -> impl Iterator<Item = (u32, Range<u64>)> {
    (1..).zip((0..size.div_ceil(part_bytes)).map(move |part| part * part_bytes..((part + 1) * part_bytes).min(size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_object() {
        let ranges: Vec<_> = part_ranges(10, 4).collect();
        assert_eq!(ranges, [(1, 0..4), (2, 4..8), (3, 8..10)]);
        assert_eq!(part_ranges(8, 4).count(), 2);
        assert_eq!(part_ranges(0, 4).count(), 0);
    }
}
