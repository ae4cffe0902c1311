//! A bucket's snapshots.

use super::BucketClient;
use super::bucket::incomplete;
use super::messages::{self, ListSnapshotRequest, OmRequest, SnapshotName, command};
use crate::error::{Error, Kind, Result};

/// The `SNAPSHOT_ACTIVE` of `SnapshotStatusProto`.
const ACTIVE: i32 = 1;

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotInfo {
    /// Its name in the bucket.
    pub(crate) name: String,
    /// Unique in the cluster and for ever: a UUID as text.
    pub(crate) id: String,
    /// When it was made, in milliseconds since 1970, by the manager's clock.
    pub(crate) created_ms: u64,
    /// False once it was deleted; it is listed until it is purged.
    pub(crate) active: bool,
}

impl From<messages::SnapshotInfo> for SnapshotInfo {
    fn from(wire: messages::SnapshotInfo) -> Self {
        Self {
            name: wire.name.unwrap_or_default(),
            id: wire.id.map(|id| uuid(id.high as u64, id.low as u64)).unwrap_or_default(),
            created_ms: wire.created_ms.unwrap_or(0),
            active: wire.status == Some(ACTIVE),
        }
    }
}

fn uuid(high: u64, low: u64) -> String {
    let (a, b, c) = (high >> 32, (high >> 16) & 0xffff, high & 0xffff);
    format!("{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", low >> 48, low & 0xffff_ffff_ffff)
}

/// Some of a bucket's snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotPage {
    /// In the order of their names, deleted ones that are not purged yet among them.
    pub(crate) snapshots: Vec<SnapshotInfo>,
    /// What to give as `previous` for the next page; none at the end.
    pub(crate) next: Option<String>,
}

impl BucketClient {
    pub(super) fn snapshot_name(&self, name: &str) -> SnapshotName {
        SnapshotName {
            volume: Some(self.volume.to_string()),
            bucket: Some(self.bucket.to_string()),
            name: Some(name.to_owned()),
        }
    }

    /// Makes a snapshot of the bucket as it is. Two requests: the first sees that the name is free, so that one which
    /// is found after a lost answer is ours.
    ///
    /// # Errors
    /// `AlreadyExists` where there is one of that name; `Full` where the cluster has as many as it may have;
    /// `Unsupported` where snapshots are switched off.
    pub(crate) async fn create_snapshot(&self, name: &str) -> Result<SnapshotInfo> {
        if let Some(found) = self.snapshot(name).await? {
            let taken = |what: String| Err(Error::new(Kind::AlreadyExists, what).at(self.place()));
            if found.active {
                return taken(format!("there is a snapshot `{name}` already"));
            }
            return taken(format!("the snapshot `{name}` was deleted, and keeps its name until it is purged"))
                .map_err(|error| error.hint("wait some minutes, or take another name"));
        }
        let request =
            OmRequest { create_snapshot: Some(self.snapshot_name(name)), ..OmRequest::of(command::CREATE_SNAPSHOT) };
        let reply = self.call(request).await?;
        match reply.outcome {
            Ok(response) => {
                let made = response.create_snapshot.and_then(|response| response.snapshot);
                Ok(made.ok_or_else(|| incomplete(command::CREATE_SNAPSHOT).at(self.place()))?.into())
            }
            Err(refusal) if reply.repeated && refusal.is_taken() => {
                let found = self.snapshot(name).await?.filter(|found| found.active);
                found.ok_or_else(|| self.of_snapshot(name, refusal))
            }
            Err(refusal) => Err(self.of_snapshot(name, refusal)),
        }
    }

    /// A snapshot by its name; none where there is none. One request.
    pub(crate) async fn snapshot(&self, name: &str) -> Result<Option<SnapshotInfo>> {
        let request = OmRequest {
            get_snapshot_info: Some(self.snapshot_name(name)),
            ..OmRequest::of(command::GET_SNAPSHOT_INFO)
        };
        match self.call(request).await?.outcome {
            Ok(response) => Ok(response.get_snapshot_info.and_then(|response| response.snapshot).map(Into::into)),
            Err(refusal) if refusal.is_no_key() => Ok(None),
            Err(refusal) => Err(self.of_snapshot(name, refusal)),
        }
    }

    /// At most `count` snapshots whose names begin with `prefix` and come after `previous`. The server gives at most
    /// 1,000. One request.
    pub(crate) async fn snapshots(&self, prefix: &str, previous: Option<&str>, count: u32) -> Result<SnapshotPage> {
        let request = OmRequest {
            list_snapshot: Some(ListSnapshotRequest {
                volume: Some(self.volume.to_string()),
                bucket: Some(self.bucket.to_string()),
                prefix: Some(prefix.to_owned()),
                after: previous.map(str::to_owned),
                count: Some(count),
            }),
            ..OmRequest::of(command::LIST_SNAPSHOT)
        };
        let response = self.call(request).await?.outcome.map_err(self.failed(""))?;
        let list = response.list_snapshot.unwrap_or_default();
        Ok(SnapshotPage {
            snapshots: list.snapshots.into_iter().map(Into::into).collect(),
            next: list.last.filter(|last| !last.is_empty()),
        })
    }

    /// Deletes a snapshot; false where there was none.
    pub(crate) async fn delete_snapshot(&self, name: &str) -> Result<bool> {
        let request =
            OmRequest { delete_snapshot: Some(self.snapshot_name(name)), ..OmRequest::of(command::DELETE_SNAPSHOT) };
        let reply = self.call(request).await?;
        match reply.outcome {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.is_no_key() => Ok(reply.repeated),
            Err(refusal) => Err(self.of_snapshot(name, refusal)),
        }
    }

    /// An error that names the snapshot.
    fn of_snapshot(&self, name: &str, refusal: super::Refusal) -> Error {
        let refusal = super::Refusal { message: format!("snapshot `{name}`: {}", refusal.message), ..refusal };
        self.failed("")(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_as_the_server_prints_them() {
        assert_eq!(uuid(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210), "01234567-89ab-cdef-fedc-ba9876543210");
        assert_eq!(uuid(0, 1), "00000000-0000-0000-0000-000000000001");
    }
}
