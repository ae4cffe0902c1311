//! Apache Ozone: names from the Ozone Manager over gRPC, bytes from its datanodes or its S3 Gateway.

mod address;
mod block;
mod changes;
mod content;
mod datanode;
mod entry;
mod gateway;
mod homes;
mod listing;
mod om;
mod pages;
mod read;
mod site;
mod snapshots;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use block::{Block, BlockId, Node, Replication};
pub use snapshots::{NativeSnapshot, Touched, TouchedPages};

use self::address::{DataPath, Endpoints, Location};
use self::datanode::Datanodes;
use self::gateway::Gateway;
use self::homes::Homes;
use self::om::{Access, BucketClient, Layout, OzoneManager, Signer, Tls};
use self::site::Site;
use super::s3::{KEY_BYTES_MAX, PARTS_MAX, WRITE_BYTES_MAX};
use super::{Capabilities, Condition, ListOptions, Listing, Object, Part, Piece, Store, Upload, make_up, unsupported};
use crate::error::{Error, Kind, Result};
use crate::key::{Key, SNAPSHOTS};
use crate::manifest::{Attributes, Entry, Pin};

/// How long a cluster may take to answer for the first time.
const FIRST_ANSWER: Duration = Duration::from_secs(20);

/// Longest name of a file or directory where there are directories, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Keys in one DeleteKeys: what the Ozone Manager takes in one request without complaint.
const DELETE_BATCH_MAX: usize = 1000;

/// Length of a part, in bytes. Shorter ones are legal, but each makes the gateway ask the Ozone Manager five times, which
/// costs a cluster a fifth of its CPU where parts are half as long.
const PART_BYTES: u64 = 16 << 20;

/// A bucket of an Ozone cluster, live or as it is in one of its snapshots.
///
/// Names, listings, renames and deletes go to the Ozone Manager. Content is read from the datanodes, or through the S3
/// Gateway where that cannot be, and written through the gateway, which checks it.
#[derive(Clone)]
pub struct OzoneStore {
    shared: Arc<Shared>,
    /// None for the live bucket.
    snapshot: Option<Box<str>>,
    address: Box<str>,
}

/// What the views of one bucket have in common.
struct Shared {
    manager: OzoneManager,
    bucket: BucketClient,
    /// Real directories: the bucket's layout is FSO.
    directories: bool,
    capabilities: Capabilities,
    datanodes: Datanodes,
    homes: Homes,
    path: DataPath,
    gateway: Gateway,
    gateway_was_told: AtomicBool,
}

impl fmt::Debug for OzoneStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OzoneStore").field("address", &self.address).finish_non_exhaustive()
    }
}

impl OzoneStore {
    /// The URL without secrets of the bucket that a URL names. Asks nobody.
    ///
    /// # Errors
    /// `Usage` for a wrong URL.
    pub fn address_of(url: &str) -> Result<String> {
        Ok(Location::parse(url)?.address())
    }

    /// True for the URLs of Ozone's buckets.
    pub fn is_url(url: &str) -> bool {
        Location::is_ozone(url)
    }

    /// The name of the bucket that a URL names. Asks nobody.
    ///
    /// # Errors
    /// `Usage` for a wrong URL.
    pub fn bucket_of(url: &str) -> Result<String> {
        Ok(Location::parse(url)?.bucket)
    }

    /// The names of all buckets of the volume that this URL's bucket is in; links to others are none.
    ///
    /// # Errors
    /// `Usage` for a wrong URL, `NotFound` where there is no such volume, `Unavailable` where no Ozone Manager can be reached.
    pub async fn buckets(url: &str) -> Result<Vec<String>> {
        let location = Location::parse(url)?;
        let endpoints = location.endpoints(&Site::from_environment()?)?;
        let manager = manager_of(&location, &endpoints, &user_name()).await?;
        let infos = first_answer(&endpoints, manager.buckets(&location.volume)).await?;
        Ok(infos.into_iter().filter(|info| info.link.is_none()).map(|info| info.bucket).collect())
    }

    /// Opens the bucket that a URL names. `create_link`: where the gateway does not serve the bucket yet, make the link
    /// that it needs.
    ///
    /// # Errors
    /// `Usage` for a wrong URL, `NotFound` where there is no such volume or bucket, `Denied` where the cluster asks for
    /// what we do not have, `Unavailable` where no Ozone Manager can be reached.
    pub async fn open(url: &str, create_link: bool) -> Result<Self> {
        let location = Location::parse(url)?;
        let address: Box<str> = location.address().into();
        Self::connect(location, &address, create_link).await.map_err(|error| error.at(&*address))
    }

    async fn connect(location: Location, address: &str, create_link: bool) -> Result<Self> {
        let endpoints = location.endpoints(&Site::from_environment()?)?;
        let user = user_name();
        let manager = manager_of(&location, &endpoints, &user).await?;
        let info = first_answer(&endpoints, manager.bucket(&location.volume, &location.bucket)).await?;
        let directories = match info.layout {
            Layout::Fso => true,
            Layout::Obs | Layout::Legacy => false,
        };
        let bucket = manager.at(&info.volume, &info.bucket);
        // Where nobody checks who signs, the name becomes the owner of what is written: the same as with Ozone's own client.
        let user = (!endpoints.secure && location.profile.is_none() && !gateway::has_credentials()).then_some(user);
        let gateway = Gateway::new(&location, &endpoints, user, (&manager, &bucket), create_link);
        let capabilities = Capabilities {
            ordered: !directories,
            steady: false,
            versions: false,
            directories,
            trees: directories,
            rename: true,
            copy: true,
            copy_ranges: true,
            file_attributes: false,
            headers: false,
            conditional: true,
            conditional_parts: false,
            proves_whole: false,
            delete_batch_max: DELETE_BATCH_MAX,
            part_bytes_min: PART_BYTES,
            parts_max: PARTS_MAX,
            write_bytes_max: WRITE_BYTES_MAX,
        };
        let shared = Shared {
            manager,
            bucket,
            directories,
            capabilities,
            datanodes: Datanodes::new(Default::default()),
            homes: Homes::default(),
            path: location.data,
            gateway,
            gateway_was_told: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared), snapshot: None, address: address.into() })
    }

    /// The same bucket as it is in a snapshot: read-only.
    #[must_use]
    pub fn at_snapshot(&self, name: &str) -> Self {
        let address = format!("{}/{SNAPSHOTS}{name}", self.address).into();
        Self { address, snapshot: Some(name.into()), ..self.clone() }
    }

    /// The key's name as the Ozone Manager has it; directories without the slash at the end, where there are any.
    fn wire<'a>(&self, key: &'a Key) -> Result<&'a str> {
        let name =
            std::str::from_utf8(key.as_bytes()).map_err(|_| self.fail(Kind::Unrepresentable, NOT_TEXT).key(key))?;
        Ok(if self.shared.directories { name.strip_suffix('/').unwrap_or(name) } else { name })
    }

    fn fail(&self, kind: Kind, what: impl Into<String>) -> Error {
        Error::new(kind, what).at(&*self.address)
    }

    fn live(&self) -> Result<()> {
        match &self.snapshot {
            None => Ok(()),
            Some(_) => Err(Error::internal("a snapshot is read-only").at(&*self.address)),
        }
    }

    /// Why the bucket cannot hold a key, if it cannot.
    fn objection(&self, key: &Key) -> Option<String> {
        let Ok(name) = std::str::from_utf8(key.as_bytes()) else { return Some(NOT_TEXT.into()) };
        if name.is_empty() {
            return Some("the empty key names no object".into());
        }
        if name.len() > KEY_BYTES_MAX {
            return Some(format!("a key has at most {KEY_BYTES_MAX} bytes here"));
        }
        if name.contains('\0') {
            return Some("Ozone keeps no key with a zero byte".into());
        }
        if !self.shared.directories {
            return None;
        }
        if name.contains(':') {
            return Some("a bucket with directories keeps no name with `:`".into());
        }
        let path = name.strip_suffix('/').unwrap_or(name);
        let odd = path.split('/').find(|part| matches!(*part, "" | "." | "..") || part.len() > NAME_BYTES_MAX);
        odd.map(|part| match part {
            "" => "`//`, or a `/` at the front, names nothing in a bucket with directories".into(),
            "." | ".." => format!("`{part}` is the way to another directory in a bucket with directories"),
            _ => format!("a name has at most {NAME_BYTES_MAX} bytes in a bucket with directories"),
        })
    }
}

/// The Ozone Managers that a URL leads to.
async fn manager_of(location: &Location, endpoints: &Endpoints, user: &str) -> Result<OzoneManager> {
    let signer = match endpoints.secure {
        true => Some(Signer::chain(location.profile.as_deref()).await?),
        false => None,
    };
    let tls = endpoints.tls.then(|| Tls { ca_file: location.ca.clone() });
    let access = Access { user: Some(user.to_owned()), signer, tls, ..Access::default() };
    OzoneManager::new(&location.cluster, &endpoints.managers, access)
}

/// Later a manager that is restarted is waited for; one that never answered is more likely not there.
async fn first_answer<T>(endpoints: &Endpoints, asked: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(FIRST_ANSWER, asked).await.unwrap_or_else(|_| {
        let managers: Vec<&str> = endpoints.managers.iter().map(|manager| &*manager.authority).collect();
        Err(Error::new(Kind::Unavailable, format!("no Ozone Manager answers at {}", managers.join(", ")))
            .hint("check the host, and that its gRPC port is 8981 or say which with ?grpc=PORT"))
    })
}

/// Who runs this, as Hadoop's clients find it out.
fn user_name() -> String {
    let named = ["HADOOP_USER_NAME", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| "root".into())
}

const NOT_TEXT: &str = "Ozone's keys are UTF-8 and this one is not";

#[async_trait]
impl Store for OzoneStore {
    fn address(&self) -> &str {
        &self.address
    }

    fn capabilities(&self) -> &Capabilities {
        &self.shared.capabilities
    }

    fn requests(&self) -> u64 {
        let Shared { manager, datanodes, gateway, .. } = &*self.shared;
        manager.requests() + datanodes.requests() + gateway.requests()
    }

    fn accepts(&self, key: &Key) -> Result<()> {
        match self.objection(key) {
            None => Ok(()),
            Some(why) => Err(self.fail(Kind::Unrepresentable, why).key(key)),
        }
    }

    async fn list(&self, options: ListOptions) -> Result<Listing> {
        self.list_keys(options)
    }

    async fn read(&self, entry: &Entry, range: Option<Range<u64>>) -> Result<Object> {
        self.read_object(entry, range.unwrap_or(0..entry.size)).await
    }

    async fn fetch(&self, key: &Key) -> Result<Option<(Bytes, Pin)>> {
        // Written again between the two steps, it is what was written then.
        loop {
            let Some(entry) = self.stat(key).await? else { return Ok(None) };
            match self.read_object(&entry, 0..entry.size).await {
                Ok(object) => return Ok(Some((object.data, entry.pin))),
                Err(error) if matches!(error.kind(), Kind::Changed | Kind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        self.look_up(key).await
    }

    async fn write(&self, key: &Key, data: Bytes, attributes: &Attributes, condition: &Condition) -> Result<Pin> {
        self.live()?;
        self.accepts(key)?;
        if self.shared.directories && key.is_directory() {
            return self.make_directory(key).await;
        }
        self.shared.gateway.store().await?.write(key, data, attributes, condition).await
    }

    async fn begin(&self, key: &Key, size: u64, attributes: &Attributes) -> Result<Upload> {
        self.live()?;
        self.accepts(key)?;
        self.shared.gateway.store().await?.begin(key, size, attributes).await
    }

    async fn write_part(&self, upload: &Upload, number: u32, offset: u64, data: Bytes) -> Result<Part> {
        self.shared.gateway.store().await?.write_part(upload, number, offset, data).await
    }

    async fn copy_part(
        &self,
        upload: &Upload,
        number: u32,
        offset: u64,
        from: &Entry,
        range: Range<u64>,
    ) -> Result<Part> {
        self.live()?;
        self.copy_range(upload, number, offset, from, range).await
    }

    async fn finish(
        &self,
        upload: &Upload,
        parts: &[Part],
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<Pin> {
        self.shared.gateway.store().await?.finish(upload, parts, attributes, condition).await
    }

    async fn abort(&self, upload: &Upload) -> Result<()> {
        self.shared.gateway.store().await?.abort(upload).await
    }

    async fn open_uploads(&self, key: &Key) -> Result<Vec<Upload>> {
        self.shared.gateway.store().await?.open_uploads(key).await
    }

    /// The blocks, out of the pin: no request. They are written once, so that equal names mean equal bytes, but the last
    /// one of a file that is appended to grows under its name.
    async fn pieces(&self, entry: &Entry) -> Result<Option<Vec<Piece>>> {
        let pieces = entry.pin.blocks().and_then(content::pieces);
        Ok(pieces.filter(|pieces| make_up(pieces, entry.size)))
    }

    async fn copy(
        &self,
        from: &Entry,
        to: &Key,
        attributes: Option<&Attributes>,
        condition: &Condition,
    ) -> Result<Pin> {
        self.live()?;
        self.accepts(to)?;
        self.shared.gateway.store().await?.copy(&self.to_be_copied(from)?, to, attributes, condition).await
    }

    async fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        self.live()?;
        self.accepts(to)?;
        self.rename_key(from, to).await
    }

    async fn rename_all(&self, pairs: &[(Key, Key)]) -> Result<Vec<bool>> {
        self.live()?;
        self.rename_keys(pairs).await
    }

    async fn remove_tree(&self, key: &Key) -> Result<()> {
        self.live()?;
        if !self.shared.directories {
            return Err(unsupported("removal of trees").at(&*self.address).key(key));
        }
        self.shared.bucket.delete(self.wire(key)?, true).await.map_err(|error| error.about(key)).map(drop)
    }

    async fn delete(&self, keys: &[Key]) -> Result<()> {
        self.live()?;
        self.delete_keys(keys).await
    }
}
