//! Reads content: from the datanodes that hold its blocks, or through the gateway.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};

use super::address::DataPath;
use super::block::{Block, Replication};
use super::datanode::gateway_may_help;
use super::entry::attributes;
use super::om::KeyInfo;
use super::{OzoneStore, content};
use crate::error::{Error, Kind, Result};
use crate::key::Key;
use crate::manifest::{Attributes, Entry};
use crate::store::{Object, Store};

impl OzoneStore {
    /// What is known of a key now.
    pub(super) async fn look_up(&self, key: &Key) -> Result<Option<Entry>> {
        let info = if self.shared.directories && key.is_directory() {
            let found = self.shared.bucket.file_status(self.snapshot.as_deref(), self.wire(key)?).await;
            found.map_err(|error| error.key(key))?
        } else {
            self.info(key).await?
        };
        let Some(info) = info else { return Ok(None) };
        let entry = super::entry::entry(&info, self.shared.directories);
        // A directory and a file of one name are two keys.
        Ok((entry.key == *key).then_some(entry))
    }

    async fn info(&self, key: &Key) -> Result<Option<KeyInfo>> {
        let found = self.shared.bucket.key_info(self.snapshot.as_deref(), self.wire(key)?).await;
        let info = found.map_err(|error| error.key(key))?;
        if let Some(info) = &info {
            self.learn(std::slice::from_ref(info));
        }
        Ok(info)
    }

    /// Remembers where blocks are.
    pub(super) fn learn(&self, keys: &[KeyInfo]) {
        for key in keys {
            self.shared.homes.learn(&key.blocks);
        }
    }

    pub(super) async fn read_object(&self, entry: &Entry, range: Range<u64>) -> Result<Object> {
        if range.end > entry.size {
            let what = format!("{range:?} is not in an object of {} bytes", entry.size);
            return Err(Error::internal(what).at(&*self.address).key(&entry.key));
        }
        let named = |error: Error| error.at(&*self.address).key(&entry.key);
        if self.shared.directories && entry.key.is_directory() {
            return match self.look_up(&entry.key).await? {
                Some(_) => Ok(Object { data: Bytes::new(), attributes: Attributes::default() }),
                None => Err(named(Error::new(Kind::NotFound, "there is no such directory"))),
            };
        }
        if self.shared.path == DataPath::Gateway {
            return self.through_gateway(entry, range).await;
        }
        match self.off_the_datanodes(entry, range.clone()).await {
            Err(error) if self.shared.path == DataPath::Auto && gateway_may_help(&error) => {
                if !self.shared.gateway_was_told.swap(true, Ordering::Relaxed) {
                    let store = &*self.address;
                    tracing::info!(store, "content is read through the S3 Gateway: {error}");
                }
                self.through_gateway(entry, range).await.map_err(|second| match second.kind() {
                    // Without a gateway the first reason is the one that counts.
                    Kind::Usage | Kind::Unavailable => named(error),
                    _ => second,
                })
            }
            outcome => outcome.map_err(named),
        }
    }

    async fn off_the_datanodes(&self, entry: &Entry, range: Range<u64>) -> Result<Object> {
        let name = entry.pin.blocks();
        // What travels with the bytes is in the entry of a listing; where it is not, it has to be asked for.
        let complete = name.is_some_and(|name| entry.attributes.is_some() || !content::has_attributes(name));
        if complete && let Some(mut blocks) = name.and_then(content::blocks) {
            let attributes = entry.attributes.as_deref().cloned().unwrap_or_default();
            if self.shared.homes.fill(&mut blocks) {
                match self.blocks(&blocks, range.clone()).await {
                    Ok(data) => return Ok(Object { data, attributes }),
                    Err(error) => {
                        tracing::debug!("`{}` is looked up again: {error}", entry.key);
                        self.shared.homes.forget(&blocks);
                    }
                }
            }
        }
        let (blocks, attributes) = self.located(entry).await?;
        Ok(Object { data: self.blocks(&blocks, range).await?, attributes })
    }

    /// Asks the Ozone Manager what the entry's key is now; it has to be the content that the entry is pinned to.
    pub(super) async fn still(&self, entry: &Entry) -> Result<KeyInfo> {
        let info = self.info(&entry.key).await?;
        let Some(info) = info else { return Err(Error::new(Kind::NotFound, "there is no such key")) };
        let now = super::entry::entry(&info, self.shared.directories);
        if now.size != entry.size || !now.pin.matches(&entry.pin) && entry.pin != Default::default() {
            return Err(Error::new(Kind::Changed, "it is not what it was when it was listed"));
        }
        Ok(info)
    }

    /// Where the content is that the entry is pinned to.
    async fn located(&self, entry: &Entry) -> Result<(Vec<Block>, Attributes)> {
        let info = self.still(entry).await?;
        if info.encrypted {
            return Err(Error::new(Kind::Unsupported, "it is encrypted"));
        }
        let attributes = attributes(&info);
        Ok((info.blocks, attributes))
    }

    /// A range of the content that these blocks make up.
    async fn blocks(&self, blocks: &[Block], range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let mut pieces = Vec::new();
        let mut begin = 0;
        for block in blocks {
            let end = begin + block.length;
            if begin < range.end && range.start < end {
                if block.replication == Replication::Coded {
                    return Err(Error::new(Kind::Unsupported, "it is erasure coded"));
                }
                let within = range.start.max(begin) - begin..range.end.min(end) - begin;
                pieces.push(self.shared.datanodes.read(block, within).await?);
            }
            begin = end;
        }
        let length: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if length != range.end - range.start {
            return Err(Error::new(Kind::Damaged, "its blocks are shorter than it is"));
        }
        if pieces.len() == 1 {
            return Ok(pieces.remove(0));
        }
        let mut all = BytesMut::with_capacity(length as usize);
        pieces.iter().for_each(|piece| all.extend_from_slice(piece));
        Ok(all.freeze())
    }

    /// By the gateway, which pins by ETag. What has none was not written over S3 and is pinned by its snapshot; in the
    /// live bucket it is looked at again afterwards.
    async fn through_gateway(&self, entry: &Entry, range: Range<u64>) -> Result<Object> {
        let gateway = self.shared.gateway.store().await?;
        let read = gateway.read(&self.on_gateway(entry), Some(range)).await;
        let object = read.map_err(|error| error.at(&*self.address))?;
        if entry.pin.etag.is_none() && self.snapshot.is_none() {
            self.located(entry).await.map_err(|error| error.at(&*self.address).key(&entry.key))?;
        }
        let attributes = match &entry.attributes {
            Some(known) => (**known).clone(),
            None => object.attributes,
        };
        Ok(Object { data: object.data, attributes })
    }
}
