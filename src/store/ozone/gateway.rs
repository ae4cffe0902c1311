//! The S3 Gateway: everything that is written goes through it, for it checks what it gets.

use std::fmt;
use std::ops::Range;

use tokio::sync::OnceCell;

use super::OzoneStore;
use super::address::{Endpoints, Location};
use super::om::{BucketClient, OzoneManager};
use crate::error::{Error, Kind, Result};
use crate::key::{Key, SNAPSHOTS};
use crate::manifest::{Entry, Pin};
use crate::store::s3::S3Store;
use crate::store::{Part, Store, Upload};

/// The volume whose buckets the gateway serves (`ozone.s3g.volume.name`).
const VOLUME: &str = "s3v";

/// What a bucket is on the gateway. Opened when it is first needed: what is only read may never need it.
pub(super) struct Gateway {
    endpoint: String,
    /// The name that the URL gives it there.
    named: Option<String>,
    profile: Option<String>,
    /// Who signs where nobody checks; None where the credentials are real.
    user: Option<String>,
    create_link: bool,
    manager: OzoneManager,
    bucket: BucketClient,
    store: OnceCell<S3Store>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Gateway {
    pub(super) fn new(
        location: &Location,
        endpoints: &Endpoints,
        user: Option<String>,
        (manager, bucket): (&OzoneManager, &BucketClient),
        create_link: bool,
    ) -> Self {
        Self {
            endpoint: endpoints.gateway.clone(),
            named: location.s3_bucket.clone(),
            profile: location.profile.clone(),
            user,
            create_link,
            manager: manager.clone(),
            bucket: bucket.clone(),
            store: OnceCell::new(),
        }
    }

    pub(super) fn requests(&self) -> u64 {
        self.store.get().map_or(0, Store::requests)
    }

    /// The bucket through the gateway.
    pub(super) async fn store(&self) -> Result<&S3Store> {
        self.store.get_or_try_init(|| self.open()).await
    }

    async fn open(&self) -> Result<S3Store> {
        let name = match &self.named {
            Some(name) => name.clone(),
            None => self.name().await?,
        };
        let profile = self.profile.as_ref().map(|profile| format!("&profile={profile}")).unwrap_or_default();
        // The gateway checks the content's MD5 in any case. Where nobody checks who signs, a signature over it shows no more,
        // and its SHA-256 would be computed on both sides.
        let unsigned = if self.user.is_some() { "&unsigned-payload=true" } else { "" };
        let url = format!(
            "s3://{name}?endpoint={}&region=us-east-1&path-style=true&order=any&versions=off&checksum=md5{unsigned}{profile}",
            self.endpoint
        );
        S3Store::open_as(&url, self.user.as_deref()).await.map_err(|error| match error.kind() {
            Kind::Unavailable => {
                let what = format!("the S3 Gateway at {} does not answer", self.endpoint);
                Error::new(Kind::Unavailable, what)
                    .hint("start it, or say where it is with ?s3=http://host:9878")
                    .caused_by(error)
            }
            _ => error,
        })
    }

    /// The bucket's name there: its own in the gateway's volume, else that of a link to it, which may have to be made.
    async fn name(&self) -> Result<String> {
        let (volume, bucket) = (self.bucket.volume(), self.bucket.name());
        if volume == VOLUME {
            return Ok(bucket.to_owned());
        }
        let target = Some((volume.to_owned(), bucket.to_owned()));
        if let Some(link) = self.manager.buckets(VOLUME).await?.into_iter().find(|info| info.link == target) {
            return Ok(link.bucket);
        }
        let link = format!("{volume}-{bucket}");
        if !self.create_link {
            return Err(Error::usage(format!(
                "no bucket of the S3 Gateway's volume {VOLUME} is a link to /{volume}/{bucket}"
            ))
            .hint(format!(
                "add --create-link, which makes /{VOLUME}/{link}; or make one with `ozone sh bucket link \
                     /{volume}/{bucket} /{VOLUME}/{link}`"
            )));
        }
        self.manager.create_link(VOLUME, &link, (volume, bucket)).await?;
        tracing::info!("made the link /{VOLUME}/{link} to /{volume}/{bucket}, for the S3 Gateway");
        Ok(link)
    }
}

/// True where the environment has credentials for S3.
pub(super) fn has_credentials() -> bool {
    let given = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    ["AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"].into_iter().any(given)
}

impl OzoneStore {
    /// As [`Self::on_gateway`], of an object that is copied there: only what has an ETag can be pinned.
    pub(super) fn to_be_copied(&self, entry: &Entry) -> Result<Entry> {
        if entry.pin.etag.is_none() {
            let what = "it has no ETag, so a copy of it cannot be pinned";
            return Err(Error::new(Kind::Unsupported, what).key(&entry.key));
        }
        Ok(self.on_gateway(entry))
    }

    /// Copies a range as one part of an upload. The gateway heeds no condition on what a part is copied from, so the key
    /// is looked at before and after: blocks are written once, and the same ones at both times are those that were read.
    pub(super) async fn copy_range(
        &self,
        upload: &Upload,
        number: u32,
        offset: u64,
        from: &Entry,
        range: Range<u64>,
    ) -> Result<Part> {
        let named = |error: Error| error.at(&*self.address).key(&from.key);
        self.still(from).await.map_err(named)?;
        let gateway = self.shared.gateway.store().await?;
        let part = gateway.copy_part(upload, number, offset, &self.on_gateway(from), range).await?;
        self.still(from).await.map_err(named)?;
        Ok(part)
    }

    /// The entry as it is asked for at the gateway: with the snapshot's folder in its key, pinned by its ETag if it has one.
    pub(super) fn on_gateway(&self, entry: &Entry) -> Entry {
        let key = match &self.snapshot {
            Some(name) => Key::new([SNAPSHOTS.as_bytes(), name.as_bytes(), b"/", entry.key.as_bytes()].concat()),
            None => entry.key.clone(),
        };
        Entry { key, pin: Pin { etag: entry.pin.etag.clone(), ..Pin::default() }, ..entry.clone() }
    }
}
