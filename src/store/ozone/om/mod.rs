//! The Ozone Manager over gRPC: names, snapshots and their differences. Bytes are read and written elsewhere.
//!
//! [`OzoneManager`] is the way to the managers of one cluster, and knows which of them leads; [`BucketClient`] is one
//! bucket seen through it. A call is tried again where that is safe, on the next manager if need be, until
//! [`Timing::deadline`]; what may have happened before its answer was lost is looked at before it counts as failed.
//! Keys are `&str` here, for that is what the protocol has: [`crate::store::Store::accepts`] has seen to it before.

mod auth;
mod bucket;
mod changes;
mod channel;
mod diff;
#[cfg(test)]
mod fake;
mod key;
mod keys;
#[cfg(test)]
mod live;
mod messages;
mod snapshots;
mod status;
#[cfg(test)]
mod tests;
mod trouble;

use std::sync::Arc;

pub(crate) use self::auth::Signer;
pub(crate) use self::bucket::Layout;
pub(crate) use self::channel::{Access, ManagerAddress, Tls};
pub(crate) use self::diff::{DiffOptions, DiffPages, Difference, DifferenceKind};
pub(crate) use self::key::{KeyInfo, KeyKind};
pub(crate) use self::snapshots::SnapshotInfo;

use self::channel::{Channels, Reply};
use self::messages::{KeyArgs, OmRequest};
use self::status::Refusal;
use crate::error::{Error, Result};
use crate::key::Key;

/// The managers of one cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct OzoneManager {
    channels: Arc<Channels>,
}

impl OzoneManager {
    /// Speaks to these managers, of which one leads; nothing is sent yet. `cluster` is the name by which errors call
    /// them: the host or the service id of the URL.
    ///
    /// # Errors
    /// `Usage` for no address, or one that is none; `Io` for certificates that cannot be read.
    pub(crate) fn new(cluster: &str, managers: &[ManagerAddress], access: Access) -> Result<Self> {
        Ok(Self { channels: Arc::new(Channels::new(cluster, managers, access)?) })
    }

    /// Requests sent so far, those that were tried again included.
    pub(crate) fn requests(&self) -> u64 {
        self.channels.requests()
    }

    /// A bucket to work on; it need not exist. Links are not resolved: see [`OzoneManager::bucket`].
    pub(crate) fn at(&self, volume: &str, bucket: &str) -> BucketClient {
        BucketClient { channels: self.channels.clone(), volume: volume.into(), bucket: bucket.into() }
    }
}

/// One bucket, seen through the managers of its cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct BucketClient {
    channels: Arc<Channels>,
    volume: Arc<str>,
    bucket: Arc<str>,
}

impl BucketClient {
    /// The volume's name.
    pub(crate) fn volume(&self) -> &str {
        &self.volume
    }

    /// The bucket's name in its volume.
    pub(crate) fn name(&self) -> &str {
        &self.bucket
    }

    /// The bucket as errors name it.
    fn place(&self) -> String {
        format!("o3://{}/{}/{}", self.channels.cluster(), self.volume, self.bucket)
    }

    /// Sends a request; an error names the bucket.
    async fn call(&self, request: OmRequest) -> Result<Reply> {
        self.channels.call(request).await.map_err(|error| error.at(self.place()))
    }

    /// Names the bucket, and the key, of what went wrong.
    fn failed(&self, key: &str) -> impl Fn(Refusal) -> Error {
        move |refusal| {
            let error = Error::from(refusal).at(self.place());
            if key.is_empty() { error } else { error.key(&Key::from(key)) }
        }
    }

    fn key_args(&self, key: &str) -> KeyArgs {
        KeyArgs {
            volume: self.volume.to_string(),
            bucket: self.bucket.to_string(),
            key: key.to_owned(),
            ..KeyArgs::default()
        }
    }
}
