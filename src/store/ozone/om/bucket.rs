//! Buckets: what they are, where links lead, and making a link.

use super::OzoneManager;
use super::messages::{self, BucketName, CreateBucketRequest, ListRequest, OmRequest, command};
use super::status::BUCKET_ALREADY_EXISTS;
use crate::error::{Error, Kind, Result};

/// Most links in a row; a circle is longer.
const LINKS_MAX: usize = 16;

/// Most buckets in one answer.
const PAGE: i32 = 1000;

/// How a bucket keeps its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `FILE_SYSTEM_OPTIMIZED`: real directories.
    Fso,
    /// `OBJECT_STORE`: flat names.
    Obs,
    /// `LEGACY`: flat names, which may look like directories.
    Legacy,
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BucketInfo {
    /// The volume that it is in.
    pub(crate) volume: String,
    /// Its name there.
    pub(crate) bucket: String,
    /// How it keeps its names.
    pub(crate) layout: Layout,
    /// Where it leads, if it is a link: volume and bucket.
    pub(crate) link: Option<(String, String)>,
    /// Most bytes that it may hold, replicas counted; none: no limit.
    pub(crate) quota_bytes: Option<u64>,
    /// Bytes that it holds, replicas counted.
    pub(crate) used_bytes: u64,
    /// Most names that it may hold; none: no limit.
    pub(crate) quota_names: Option<u64>,
    /// Names that it holds.
    pub(crate) used_names: u64,
    /// What is written to it is encrypted.
    pub(crate) encrypted: bool,
}

impl From<messages::BucketInfo> for BucketInfo {
    fn from(wire: messages::BucketInfo) -> Self {
        let quota = |limit: Option<i64>| limit.and_then(|limit| u64::try_from(limit).ok());
        Self {
            volume: wire.volume,
            bucket: wire.bucket,
            layout: match wire.layout {
                Some(2) => Layout::Fso,
                Some(3) => Layout::Obs,
                _ => Layout::Legacy,
            },
            link: wire
                .source_volume
                .zip(wire.source_bucket)
                .filter(|(volume, bucket)| !(volume.is_empty() || bucket.is_empty())),
            quota_bytes: quota(wire.quota_bytes),
            used_bytes: wire.used_bytes.unwrap_or(0),
            quota_names: quota(wire.quota_names),
            used_names: wire.used_names.unwrap_or(0),
            encrypted: wire.encryption.is_some(),
        }
    }
}

impl OzoneManager {
    /// The bucket of this name, or the one that it leads to in the end where it is a link. One request a link.
    ///
    /// # Errors
    /// `NotFound` where it, its volume, or what it leads to does not exist; `Usage` for links in a circle.
    pub(crate) async fn bucket(&self, volume: &str, bucket: &str) -> Result<BucketInfo> {
        let mut info = self.bucket_itself(volume, bucket).await?;
        for _ in 0..LINKS_MAX {
            let Some((volume, bucket)) = &info.link else { return Ok(info) };
            info = self.bucket_itself(volume, bucket).await?;
        }
        Err(Error::usage(format!("the bucket is a link, and after {LINKS_MAX} more there is no end to it"))
            .at(self.at(volume, bucket).place())
            .hint("mend the bucket links, which lead round in a circle"))
    }

    /// The bucket of this name, be it a link or not.
    ///
    /// # Errors
    /// `NotFound` where it or its volume does not exist.
    pub(crate) async fn bucket_itself(&self, volume: &str, bucket: &str) -> Result<BucketInfo> {
        let at = self.at(volume, bucket);
        let request = OmRequest {
            info_bucket: Some(BucketName { volume: volume.into(), bucket: bucket.into() }),
            ..OmRequest::of(command::INFO_BUCKET)
        };
        let response = at.call(request).await?.outcome.map_err(at.failed(""))?;
        let info = response.info_bucket.and_then(|response| response.bucket);
        let info: BucketInfo = info.ok_or_else(|| incomplete(command::INFO_BUCKET).at(at.place()))?.into();
        Ok(info)
    }

    /// The buckets of a volume, links among them and not followed, in the order of their names.
    pub(crate) async fn buckets(&self, volume: &str) -> Result<Vec<BucketInfo>> {
        let at = self.at(volume, "");
        let mut all: Vec<BucketInfo> = Vec::new();
        loop {
            let after = all.last().map(|info| info.bucket.clone());
            let request = OmRequest {
                list_buckets: Some(ListRequest { volume: volume.into(), after, prefix: None, count: Some(PAGE) }),
                ..OmRequest::of(command::LIST_BUCKETS)
            };
            let response = at.call(request).await?.outcome.map_err(at.failed(""))?;
            let page = response.list_buckets.unwrap_or_default().buckets;
            let full = page.len() >= PAGE as usize;
            let last = all.last().map(|info| info.bucket.clone());
            all.extend(page.into_iter().map(BucketInfo::from).skip_while(|info| Some(&info.bucket) == last.as_ref()));
            if !full {
                return Ok(all);
            }
        }
    }

    /// Makes `volume`/`bucket` a link to a bucket that exists.
    ///
    /// # Errors
    /// `AlreadyExists` where there is something of that name that does not lead there.
    pub(crate) async fn create_link(&self, volume: &str, bucket: &str, to: (&str, &str)) -> Result<()> {
        let at = self.at(volume, bucket);
        let wire = messages::BucketInfo {
            volume: volume.into(),
            bucket: bucket.into(),
            storage_type: 1,
            source_volume: Some(to.0.into()),
            source_bucket: Some(to.1.into()),
            ..Default::default()
        };
        let request = OmRequest {
            create_bucket: Some(CreateBucketRequest { bucket: wire }),
            ..OmRequest::of(command::CREATE_BUCKET)
        };
        match at.call(request).await?.outcome {
            Ok(_) => Ok(()),
            // Somebody, perhaps an earlier try of ours, made the same link.
            Err(refusal) if refusal.status == BUCKET_ALREADY_EXISTS => {
                let there = self.bucket_itself(volume, bucket).await?;
                let same = there.link.is_some_and(|link| (link.0.as_str(), link.1.as_str()) == to);
                if same { Ok(()) } else { Err(at.failed("")(refusal)) }
            }
            Err(refusal) => Err(at.failed("")(refusal)),
        }
    }
}

/// An answer that says yes and leaves out what was asked for.
pub(super) fn incomplete(command: i32) -> Error {
    Error::new(Kind::Io, format!("the Ozone Manager's answer to {} has nothing in it", command::name(command)))
}
