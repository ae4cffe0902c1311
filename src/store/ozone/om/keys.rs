//! What keys there are.

use super::BucketClient;
use super::bucket::incomplete;
use super::key::KeyInfo;
use super::messages::{FileStatus, KeyArgs, KeyRequest, ListKeysRequest, ListStatusRequest, OmRequest, command};
use super::status::Refusal;
use crate::error::{Error, Kind, Result};
use crate::key::{Key, SNAPSHOTS};

/// Some of a bucket's keys, in the order of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPage {
    /// The keys.
    pub(crate) keys: Vec<KeyInfo>,
    /// Go on after the last key.
    pub(crate) truncated: bool,
}

/// Some of a directory's children, in the order of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirectoryPage {
    /// Files and directories, with their full names.
    pub(crate) children: Vec<KeyInfo>,
    /// Go on after the last child's name.
    pub(crate) truncated: bool,
}

impl BucketClient {
    /// At most `count` keys that begin with `prefix` and come after `after`; both, and what comes back, are names in the
    /// bucket, or in a snapshot of it where `snapshot` is one. For buckets without directories. One request.
    ///
    /// The order is that of UTF-16 code units within a page: bytes, but for names that differ first in a character above
    /// U+FFFF and one from U+E000 to U+FFFF.
    pub(crate) async fn list_keys(
        &self,
        snapshot: Option<&str>,
        prefix: &str,
        after: Option<&str>,
        count: u32,
    ) -> Result<KeyPage> {
        let under = under(snapshot);
        let request = OmRequest {
            list_keys: Some(ListKeysRequest {
                volume: self.volume.to_string(),
                bucket: self.bucket.to_string(),
                after: after.map(|after| format!("{under}{after}")),
                prefix: Some(format!("{under}{prefix}")),
                count: Some(i32::try_from(count).unwrap_or(i32::MAX)),
            }),
            ..OmRequest::of(command::LIST_KEYS)
        };
        let response = self.call(request).await?.outcome.map_err(self.failed(prefix))?;
        let page = response.list_keys.unwrap_or_default();
        // Older servers do not tell: go on until nothing comes.
        let truncated = page.truncated.unwrap_or(!page.keys.is_empty());
        let keys = page.keys.into_iter().map(|key| KeyInfo::read(key, false, &under)).collect();
        Ok(KeyPage { keys, truncated })
    }

    /// At most `count` children of a directory (the empty name is the bucket's root) that come after `after`, a full
    /// name too. For buckets with directories. One request.
    ///
    /// # Errors
    /// `NotFound` where there is no such directory.
    pub(crate) async fn list_directory(
        &self,
        snapshot: Option<&str>,
        directory: &str,
        after: Option<&str>,
        count: u32,
    ) -> Result<DirectoryPage> {
        let under = under(snapshot);
        let start = after.map(|after| format!("{under}{after}")).unwrap_or_default();
        // The page begins with the start itself, if it is still there.
        let asked = u64::from(count) + u64::from(after.is_some());
        let request = OmRequest {
            list_status: Some(ListStatusRequest {
                directory: self.full_key_args(&format!("{under}{directory}")),
                recursive: false,
                start,
                count: asked,
            }),
            ..OmRequest::of(command::LIST_STATUS)
        };
        let response = self.call(request).await?.outcome.map_err(self.failed(directory))?;
        let statuses = response.list_status.unwrap_or_default().statuses;
        let truncated = self.channels.may_have_more(statuses.len() as u64, asked);
        let children = statuses.into_iter().map(|status| read(status, &under));
        let mut children = children.collect::<Result<Vec<_>>>().map_err(|error| error.at(self.place()))?;
        // Ozone lists a file as its own only child.
        if children.iter().any(|child| child.name == directory) {
            return Err(Error::new(Kind::NotFound, "there is a file and no directory of this name")
                .at(self.place())
                .key(&Key::from(directory)));
        }
        if let Some(after) = after {
            children.retain(|child| child.name != after);
        }
        Ok(DirectoryPage { children, truncated })
    }

    /// A key with its blocks; none where there is none, or a directory. One request.
    pub(crate) async fn key_info(&self, snapshot: Option<&str>, key: &str) -> Result<Option<KeyInfo>> {
        let under = under(snapshot);
        let request = OmRequest {
            get_key_info: Some(KeyRequest { key: self.full_key_args(&format!("{under}{key}")) }),
            ..OmRequest::of(command::GET_KEY_INFO)
        };
        match self.call(request).await?.outcome {
            Ok(response) => {
                let found = response.get_key_info.and_then(|response| response.key);
                let found = found.ok_or_else(|| self.nothing_about(command::GET_KEY_INFO, key))?;
                // Asked for a directory, the server answers with its name and a `/`.
                Ok(Some(KeyInfo::read(found, false, &under)).filter(|found| found.name == key))
            }
            Err(refusal) if is_no_file(&refusal) => Ok(None),
            Err(refusal) => Err(self.failed(key)(refusal)),
        }
    }

    /// A file or a directory without its blocks; none where there is neither. One request.
    pub(crate) async fn file_status(&self, snapshot: Option<&str>, key: &str) -> Result<Option<KeyInfo>> {
        let under = under(snapshot);
        let args = KeyArgs { head: Some(true), ..self.key_args(&format!("{under}{key}")) };
        let request =
            OmRequest { get_file_status: Some(KeyRequest { key: args }), ..OmRequest::of(command::GET_FILE_STATUS) };
        match self.call(request).await?.outcome {
            Ok(response) => {
                let found = response.get_file_status.map(|response| response.status);
                let found = found.ok_or_else(|| self.nothing_about(command::GET_FILE_STATUS, key))?;
                read(found, &under).map(Some).map_err(|error| error.at(self.place()))
            }
            Err(refusal) if refusal.is_no_key() => Ok(None),
            Err(refusal) => Err(self.failed(key)(refusal)),
        }
    }

    fn full_key_args(&self, key: &str) -> KeyArgs {
        KeyArgs { sort_datanodes: Some(true), latest_version: Some(true), ..self.key_args(key) }
    }

    fn nothing_about(&self, command: i32, key: &str) -> Error {
        incomplete(command).at(self.place()).key(&Key::from(key))
    }
}

/// What stands before a name in a snapshot.
fn under(snapshot: Option<&str>) -> String {
    snapshot.map(|name| format!("{SNAPSHOTS}{name}/")).unwrap_or_default()
}

/// A directory is no file, and asking for its blocks is refused.
fn is_no_file(refusal: &Refusal) -> bool {
    const NOT_A_FILE: i32 = 47;
    refusal.is_no_key() || refusal.status == NOT_A_FILE
}

fn read(status: FileStatus, under: &str) -> Result<KeyInfo> {
    let key = status.key.ok_or_else(|| Error::new(Kind::BadListing, "a directory's child has no name"))?;
    Ok(KeyInfo::read(key, status.directory == Some(true), under))
}
