//! S3 and what speaks like it: a thin client made for very many small requests.

mod attributes;
mod buckets;
mod checksum;
mod client;
mod copy;
pub(super) mod credentials;
mod encode;
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod listing;
mod moment;
mod multipart;
mod object;
mod page;
mod pieces;
pub(super) mod sign;
mod transport;
mod url;
mod versions;
pub(super) mod xml;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;

pub(in crate::store) use self::attributes::file_attributes;
use self::client::{Client, Request};
use self::credentials::Credentials;
use self::error::Failure;
use self::listing::Lister;
use self::url::{Checksum, Location};
use super::{Capabilities, Condition, ListOptions, Listing, Object, Part, Piece, Store, Upload, Version, unsupported};
use crate::error::{Error, Kind, Result};
use crate::key::Key;
use crate::manifest::{Attributes, Entry, Pin};

/// Longest key in bytes, prefix included ("Naming Amazon S3 objects").
pub(super) const KEY_BYTES_MAX: usize = 1024;

/// What one PUT or one part may carry ("Amazon S3 multipart upload limits").
pub(super) const WRITE_BYTES_MAX: u64 = 5 << 30;

/// Smallest part but for the last one (the same).
pub(super) const PART_BYTES_MIN: u64 = 5 << 20;

/// Most parts of one object (the same).
pub(super) const PARTS_MAX: u32 = 10_000;

/// Most keys in one DeleteObjects.
const DELETE_BATCH_MAX: usize = 1000;

/// A bucket, or everything under a prefix of one, on S3 or a server that speaks like it.
///
/// The URL is `s3://bucket/prefix` with these parameters:
///
/// | parameter | meaning |
/// | --- | --- |
/// | `endpoint=http://host:port` | the server; AWS if there is none |
/// | `region=NAME` | else that of the environment or the profile, else `us-east-1` |
/// | `profile=NAME` | of the AWS configuration files |
/// | `path-style=true\|false` | the bucket in the path, or in the host name; `true` where there is an endpoint |
/// | `order=any\|bytes` | whether the server lists in byte order; else known by the server's name |
/// | `unsigned-payload=true\|false` | payloads are signed over http, not over https, unless this says otherwise |
/// | `versions=auto\|off` | use the bucket's versioning, or not |
/// | `anonymous=true` | requests are not signed |
/// | `conditional=false` | the server does not know conditional writes |
/// | `checksum=crc64nvme\|md5` | how the server checks what is written; `md5` for those that know nothing newer |
///
/// A name or value with `%`, `&` or `?` in it is percent-encoded. Credentials never stand in the URL: they come from
/// the environment, the profile, a web identity, the container or the instance, in this order.
pub struct S3Store {
    client: Arc<Client>,
    address: Arc<str>,
    /// Empty, or ends in `/`.
    root: Arc<str>,
    bucket: Box<str>,
    capabilities: Capabilities,
    checksum: Checksum,
    server: Server,
    unchecked_was_told: AtomicBool,
    tells_no_parts: AtomicBool,
}

/// Servers whose ways differ from S3's so far that keys would be merged or lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    /// S3, or one that keeps to its ways.
    Plain,
    /// Keys are paths, `\\` is another `/`, a listing goes directory by directory, one of versions is not encoded.
    SeaweedFs,
    /// Keys are paths, listings are not encoded, and a version that was replaced is listed with the time when it was.
    VersityGw,
}

impl Server {
    /// By the `Server` header of a reply.
    fn named(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        if name.contains("seaweedfs") {
            Self::SeaweedFs
        } else if name.contains("versitygw") {
            Self::VersityGw
        } else {
            Self::Plain
        }
    }

    /// Whether a copy onto something that must not be there, or must be something else, is refused.
    fn heeds_conditions_on_copies(self) -> bool {
        self != Self::VersityGw
    }

    /// Whether an upload may be given the checksum of the whole beforehand. versitygw 1.8 then takes the checksum of all
    /// that a part is copied from for the part's own, and insists on it; left alone it computes the object's, and says so.
    fn takes_sums_of_uploads(self) -> bool {
        self != Self::VersityGw
    }

    /// What it says where a version that is to be deleted is gone already. versitygw 1.8 takes the id for one that cannot be,
    /// though it has given it out itself.
    fn says_of_gone_versions(self) -> &'static [&'static str] {
        if self == Self::VersityGw { &["NoSuchVersion", "InvalidArgument"] } else { &["NoSuchVersion"] }
    }

    /// Why this server would keep a key under another name, if it would.
    fn objection(self, key: &str, versions: bool) -> Option<&'static str> {
        let path = key.strip_suffix('/').unwrap_or(key);
        if self != Self::Plain && path.split('/').any(|name| matches!(name, "" | "." | "..")) {
            return Some("this server folds `//`, `/./` and `/../`, so the key would land under another name");
        }
        match self {
            Self::SeaweedFs if key.contains('\\') => Some("this server takes `\\` for `/`"),
            Self::SeaweedFs if !versions => None,
            Self::SeaweedFs | Self::VersityGw
                if key.contains(|c: char| c.is_ascii_control() && !"\t\n\r".contains(c)) =>
            {
                Some("this server cannot list a key with control characters")
            }
            _ => None,
        }
    }
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store").field("address", &self.address).finish_non_exhaustive()
    }
}

impl S3Store {
    /// The URL without secrets of the bucket that a URL names. Asks nobody.
    ///
    /// # Errors
    /// `Usage` for a wrong URL.
    pub fn address_of(url: &str) -> Result<String> {
        Ok(Location::parse(url)?.address())
    }

    /// Opens the bucket that the URL names: finds credentials and region, and asks once whether it keeps versions.
    ///
    /// # Errors
    /// `Usage` for a wrong URL, `Denied` without credentials, `NotFound` where there is no such bucket, `Unavailable`
    /// where the server cannot be reached.
    pub async fn open(url: &str) -> Result<Self> {
        Self::open_as(url, None).await
    }

    /// As [`Self::open`]; `user` signs with a secret that nobody checks, as Ozone's gateway wants it without security.
    pub(in crate::store) async fn open_as(url: &str, user: Option<&str>) -> Result<Self> {
        let location = Location::parse(url)?;
        let address = location.address();
        Self::connect(location, user).await.map_err(|error| error.at(address))
    }

    async fn connect(location: Location, user: Option<&str>) -> Result<Self> {
        let client = client_of(location.clone(), user).await?;
        let (versions, server_name) = versioning(&client).await?;
        let server = Server::named(&server_name);
        let capabilities = Capabilities {
            ordered: location.ordered.unwrap_or(server != Server::SeaweedFs),
            steady: true,
            versions: versions && location.versions,
            directories: false,
            rename: false,
            trees: false,
            copy: true,
            copy_ranges: true,
            file_attributes: false,
            headers: true,
            conditional: location.conditional,
            conditional_parts: location.conditional,
            proves_whole: location.checksum == Checksum::Crc64Nvme && (server != Server::Plain || location.is_aws()),
            delete_batch_max: DELETE_BATCH_MAX,
            part_bytes_min: PART_BYTES_MIN,
            parts_max: PARTS_MAX,
            write_bytes_max: WRITE_BYTES_MAX,
        };
        Ok(Self {
            client: Arc::new(client),
            address: location.address().into(),
            root: location.prefix.into(),
            bucket: location.bucket.into(),
            capabilities,
            checksum: location.checksum,
            server,
            unchecked_was_told: AtomicBool::new(false),
            tells_no_parts: AtomicBool::new(false),
        })
    }

    /// The key as it stands in the bucket.
    fn absolute(&self, key: &Key) -> Vec<u8> {
        [self.root.as_bytes(), key.as_bytes()].concat()
    }

    /// A request about a key.
    fn request(&self, method: Method, key: &Key) -> Request {
        Request::new(method).key(self.absolute(key))
    }

    /// Names the place and the key of what went wrong.
    fn named(&self, key: &Key) -> impl Fn(Failure) -> Error {
        move |failure| Error::from(failure).at(&*self.address).key(key)
    }
}

/// A client with the credentials and the region that the URL, the environment or a profile gives; `user` as in
/// [`S3Store::open_as`].
async fn client_of(location: Location, user: Option<&str>) -> Result<Client> {
    let profile = location.profile.as_deref();
    let region = match &location.region {
        Some(region) => region.clone(),
        None => credentials::configured_region(profile).await,
    };
    let credentials = match user {
        _ if location.anonymous => None,
        Some(user) => Some(Credentials::unchecked(user)),
        None => Some(Credentials::chain(profile, &region).await?),
    };
    Client::new(location, &region, credentials)
}

/// Whether the bucket keeps versions, and how the server calls itself. A server that does not know or does not tell
/// counts as one without versions.
async fn versioning(client: &Client) -> Result<(bool, String)> {
    let request = Request::new(Method::GET).query(&[("versioning", "")]);
    let reply = match client.send(request).await {
        Ok(reply) => reply,
        Err(failure) if failure.is_no_bucket() => return Err(failure.into()),
        Err(failure) if matches!(failure.kind(), Kind::Unsupported) || failure.code() == "AccessDenied" => {
            tracing::debug!(code = failure.code(), "the bucket does not tell whether it keeps versions");
            return Ok((false, failure.server().to_owned()));
        }
        Err(failure) => return Err(failure.into()),
    };
    let mut enabled = false;
    xml::walk(&reply.body, |path, text| {
        enabled |= path == "Status" && text.trim() == "Enabled";
        Ok(())
    })
    .map_err(Failure::from)?;
    Ok((enabled, reply.header("server").unwrap_or("").to_owned()))
}

#[async_trait]
impl Store for S3Store {
    fn address(&self) -> &str {
        &self.address
    }

    fn requests(&self) -> u64 {
        self.client.requests()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn accepts(&self, key: &Key) -> Result<()> {
        match self.objection(key) {
            None => Ok(()),
            Some(why) => Err(Error::new(Kind::Unrepresentable, why).at(&*self.address).key(key)),
        }
    }

    async fn list(&self, options: ListOptions) -> Result<Listing> {
        if options.as_of_ns.is_some() && !self.capabilities.versions {
            return Err(Error::new(Kind::Unsupported, "a past moment cannot be listed: the bucket keeps no versions")
                .at(&*self.address)
                .hint("enable versioning on the bucket; it keeps the past from then on"));
        }
        if options.as_of_ns.is_some() && self.server == Server::VersityGw {
            return Err(Error::new(
                Kind::Unsupported,
                "a past moment cannot be listed: versitygw does not keep the time of a version",
            )
            .at(&*self.address)
            .hint("create a snapshot of the present"));
        }
        let (sender, listing) = Listing::channel();
        let lister = self.lister(options);
        tokio::spawn(async move {
            let outcome = lister.run(&sender).await;
            sender.close(outcome).await;
        });
        Ok(listing)
    }

    async fn read(&self, entry: &Entry, range: Option<Range<u64>>) -> Result<Object> {
        self.read_object(entry, range).await
    }

    async fn fetch(&self, key: &Key) -> Result<Option<(Bytes, Pin)>> {
        self.fetch_object(key).await
    }

    async fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        self.stat_object(key).await
    }

    async fn write(&self, key: &Key, data: Bytes, attributes: &Attributes, condition: &Condition) -> Result<Pin> {
        self.write_object(key, data, attributes, condition).await
    }

    async fn begin(&self, key: &Key, _size: u64, attributes: &Attributes) -> Result<Upload> {
        self.create_upload(key, attributes).await
    }

    async fn write_part(&self, upload: &Upload, number: u32, offset: u64, data: Bytes) -> Result<Part> {
        self.upload_part(upload, number, offset, data).await
    }

    async fn copy_part(
        &self,
        upload: &Upload,
        number: u32,
        offset: u64,
        from: &Entry,
        range: Range<u64>,
    ) -> Result<Part> {
        self.copy_range(upload, number, offset, from, range).await
    }

    async fn finish(
        &self,
        upload: &Upload,
        parts: &[Part],
        _attributes: &Attributes,
        condition: &Condition,
    ) -> Result<Pin> {
        self.complete_upload(upload, parts, condition).await
    }

    async fn abort(&self, upload: &Upload) -> Result<()> {
        self.abort_upload(upload).await
    }

    async fn open_uploads(&self, key: &Key) -> Result<Vec<Upload>> {
        let mut uploads = self.list_uploads(key).await?;
        uploads.retain(|upload| upload.key == *key);
        Ok(uploads)
    }

    async fn pieces(&self, entry: &Entry) -> Result<Option<Vec<Piece>>> {
        self.parts_of(entry).await
    }

    async fn copy(
        &self,
        from: &Entry,
        to: &Key,
        attributes: Option<&Attributes>,
        condition: &Condition,
    ) -> Result<Pin> {
        self.copy_object(from, to, attributes, condition).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<()> {
        self.delete_objects(keys).await
    }

    async fn list_versions(&self, prefix: &Key) -> Result<Listing<Version>> {
        self.check_versions()?;
        let (sender, listing) = Listing::channel();
        let options = ListOptions { prefix: prefix.clone(), versions: true, ..ListOptions::default() };
        let lister = self.lister(options);
        tokio::spawn(async move {
            let outcome = lister.run_versions(&sender).await;
            sender.close(outcome).await;
        });
        Ok(listing)
    }

    async fn delete_versions(&self, versions: &[(Key, Box<str>)]) -> Result<()> {
        self.check_versions()?;
        self.delete_object_versions(versions).await
    }
}

impl S3Store {
    fn lister(&self, options: ListOptions) -> Lister {
        Lister {
            client: self.client.clone(),
            address: self.address.clone(),
            root: self.root.clone(),
            ordered: self.capabilities.ordered,
            versions: options.versions && self.capabilities.versions || options.as_of_ns.is_some(),
            options,
        }
    }

    fn check_versions(&self) -> Result<()> {
        match self.capabilities.versions {
            true => Ok(()),
            false => Err(unsupported("versions").at(&*self.address)),
        }
    }

    /// Why the store cannot hold a key, if it cannot.
    fn objection(&self, key: &Key) -> Option<String> {
        let Ok(text) = std::str::from_utf8(key.as_bytes()) else {
            return Some("S3 keys are UTF-8 and this one is not".into());
        };
        if text.is_empty() {
            return Some("the empty key names no object".into());
        }
        if self.root.len() + text.len() > KEY_BYTES_MAX {
            return Some(format!("S3 keys have at most {KEY_BYTES_MAX} bytes, prefix included"));
        }
        self.server.objection(text, self.capabilities.versions).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_what_they_cannot_hold() {
        let [s3, weed, versity] = ["AmazonS3", "SeaweedFS 30GB 4.48", "VERSITYGW"].map(Server::named);
        for key in ["a//b", "/a", "../a", "a/./b", "a/.."] {
            assert_eq!(
                (
                    s3.objection(key, false),
                    weed.objection(key, false).is_some(),
                    versity.objection(key, false).is_some()
                ),
                (None, true, true)
            );
        }
        for key in ["a", "a/", "a/b..c/.d", "a b\t"] {
            assert!([s3, weed, versity].iter().all(|server| server.objection(key, false).is_none()), "{key}");
        }
        assert!(weed.objection("a\\b", false).is_some() && versity.objection("a\\b", false).is_none());
        assert!(weed.objection("\u{1}", true).is_some());
        assert!(weed.objection("\u{1}", false).is_none() && versity.objection("\u{1}", false).is_some());
    }
}
