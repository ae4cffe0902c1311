//! What snapferry keeps with a bucket: snapshot records, manifests, receipts, holds and the lease.
//!
//! ```text
//! .snapferry/
//!     segments/DIGEST                  manifest segments, shared between snapshots
//!     snapshots/NAME/manifest.json     the list of a snapshot's segments
//!     snapshots/NAME/receipt.json      what the seal vouches for
//!     snapshots/NAME/snapshot.json     written last: the snapshot exists
//!     snapshots/NAME/hold.json         keeps it from being pruned
//!     going/NAME.json                  a snapshot that is being removed, with the segments that this takes
//!     pending.json                     the list of the segments of what dead jobs may have landed
//!     restores/ID.json                 a restore in place, begun or finished
//!     uploads.json                     uploads under way
//!     policies/POLICY.json             the snapshots that a policy made
//!     lease.json                       who works on this bucket
//! ```

mod lease;
mod ledger;
mod record;
mod restore;
mod segments;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use lease::{Job, Lease, LeaseState};
pub use ledger::Ledger;
pub use record::{FORMAT, Hold, Mark, Reader, Receipt, ReceiptTotals, Record};
pub use restore::Restore;
pub use segments::{StoreSegments, manifest_writer, write_manifest};

use crate::error::{Error, Kind, Result};
use crate::key::{Key, RESERVED};
use crate::manifest::{Attributes, Digest, Manifest, Pin, WAY_OUT};
use crate::snapshot::Name;
use crate::store::{Condition, ListOptions, Store};

/// Records made within this time of each other are told apart by their sequence number, not by the store's clock.
const CLOCK_GRAIN_NS: i64 = 5_000_000_000;

/// Tries to change a document that others change at the same moment.
const CHANGES_MAX: usize = 10;

/// The records of one bucket's snapshots, in whatever store they are kept.
#[derive(Debug, Clone)]
pub struct Catalog {
    store: Arc<dyn Store>,
    /// Ends in `/`.
    folder: String,
}

impl Catalog {
    /// The catalog that is kept in the bucket itself.
    pub fn of(store: Arc<dyn Store>) -> Self {
        Self { store, folder: RESERVED.into() }
    }

    /// The catalog of a bucket that cannot be written, kept in another one. `address` is that bucket's.
    pub fn of_other(store: Arc<dyn Store>, address: &str) -> Self {
        let name = blake3::hash(address.as_bytes()).to_hex();
        Self { store, folder: format!("{RESERVED}sources/{}/", &name[..16]) }
    }

    /// The store that it is kept in.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// True for [`Self::of`] the bucket itself.
    pub(crate) fn is_of_bucket(&self) -> bool {
        self.folder == RESERVED
    }

    /// A key in the catalog's folder.
    pub fn key(&self, name: &str) -> Key {
        Key::from(format!("{}{name}", self.folder))
    }

    fn snapshot_key(&self, name: &Name, document: &str) -> Key {
        self.key(&format!("snapshots/{name}/{document}.json"))
    }

    /// Reads a document; none if there is none.
    async fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>> {
        let Some((json, _)) = steadily(|| self.store.fetch(key)).await? else { return Ok(None) };
        self.parsed(key, &json).map(Some)
    }

    fn parsed<T: DeserializeOwned>(&self, key: &Key, json: &[u8]) -> Result<T> {
        serde_json::from_slice(json).map_err(|error| {
            Error::new(Kind::Damaged, "this record cannot be read")
                .at(self.store.address())
                .key(key)
                .hint(
                    "it is damaged, or written by a newer snapferry: put it back from a copy, or remove this snapshot's \
                     folder",
                )
                .caused_by(error)
        })
    }

    /// Writes a changed document where nobody else changed it since it was read as `before`; false where somebody did.
    async fn replace<T: Serialize + PartialEq>(
        &self,
        key: &Key,
        before: Option<(T, Pin)>,
        document: &T,
    ) -> Result<bool> {
        let condition = match before {
            Some((before, _)) if before == *document => return Ok(true),
            Some((_, pin)) => Condition::Matches(pin),
            None => Condition::Absent,
        };
        let (json, attributes) = (json(document)?, document_attributes());
        match steadily(|| self.store.write(key, json.clone(), &attributes, &condition)).await {
            Err(error) if matches!(error.kind(), Kind::Changed | Kind::AlreadyExists) => Ok(false),
            written => written.map(|_| true),
        }
    }

    fn contended(&self, key: &Key) -> Error {
        Error::new(Kind::Unavailable, "others change it all the time").at(self.store.address()).key(key)
    }

    async fn put<T: Serialize>(&self, key: &Key, document: &T) -> Result<()> {
        self.write(key, json(document)?).await
    }

    async fn write(&self, key: &Key, json: impl Into<Bytes>) -> Result<()> {
        let (json, attributes): (Bytes, _) = (json.into(), document_attributes());
        steadily(|| self.store.write(key, json.clone(), &attributes, &Condition::Any)).await.map(drop)
    }

    async fn delete(&self, key: Key) -> Result<()> {
        let keys = [key];
        steadily(|| self.store.delete(&keys)).await
    }

    /// The record of a snapshot; none if there is no such snapshot.
    pub async fn record(&self, name: &Name) -> Result<Option<Record>> {
        self.get(&self.snapshot_key(name, "snapshot")).await
    }

    /// The manifest of a snapshot.
    pub async fn manifest(&self, name: &Name) -> Result<Manifest> {
        let key = self.snapshot_key(name, "manifest");
        let found = steadily(|| self.store.fetch(&key)).await?;
        let manifest = match found {
            Some((json, _)) => Manifest::from_json(&json),
            None => Err(Error::new(Kind::Damaged, format!("snapshot {name} has no manifest"))),
        };
        manifest.map_err(|error| error.at(self.store.address()).key(&key).hint(WAY_OUT))
    }

    /// The keys that dead jobs may have landed, if there were any since the last seal.
    pub async fn pending(&self) -> Result<Option<Manifest>> {
        let key = self.key("pending.json");
        let Some((json, _)) = steadily(|| self.store.fetch(&key)).await? else { return Ok(None) };
        Manifest::from_json(&json).map(Some).map_err(|error| error.at(self.store.address()).key(&key))
    }

    /// Remembers the keys that dead jobs may have landed; with none, forgets them.
    pub async fn set_pending(&self, keys: Option<&Manifest>) -> Result<()> {
        let key = self.key("pending.json");
        match keys {
            Some(keys) => self.write(&key, keys.to_json()).await,
            None => self.delete(key).await,
        }
    }

    /// The uploads that were under way when the last run died.
    pub async fn uploads(&self) -> Result<Vec<Mark>> {
        Ok(self.get(&self.key("uploads.json")).await?.unwrap_or_default())
    }

    /// Remembers the uploads that are under way; with none, forgets them.
    pub async fn set_uploads(&self, marks: &[Mark]) -> Result<()> {
        let key = self.key("uploads.json");
        match marks {
            [] => self.delete(key).await,
            marks => self.put(&key, &marks).await,
        }
    }

    /// What is known of a restore in place; none if there was none of this ID.
    pub async fn restore(&self, id: &str) -> Result<Option<Restore>> {
        self.get(&self.key(&format!("restores/{id}.json"))).await
    }

    /// Writes down a restore in place, as it is now.
    pub async fn set_restore(&self, restore: &Restore) -> Result<()> {
        self.put(&self.key(&format!("restores/{}.json", restore.id)), restore).await
    }

    /// The receipt of a sealed snapshot.
    pub async fn receipt(&self, name: &Name) -> Result<Option<Receipt>> {
        self.get(&self.snapshot_key(name, "receipt")).await
    }

    /// Makes a snapshot exist: receipt and manifest first, the record last.
    pub async fn publish(&self, record: &Record, manifest: &Manifest, receipt: Option<&Receipt>) -> Result<()> {
        if let Some(receipt) = receipt {
            self.put(&self.snapshot_key(&record.name, "receipt"), receipt).await?;
        }
        let key = self.snapshot_key(&record.name, "manifest");
        self.write(&key, manifest.to_json()).await?;
        self.put(&self.snapshot_key(&record.name, "snapshot"), record).await
    }

    /// Makes a snapshot's record go: the record first, so that it is never half there.
    pub async fn remove(&self, name: &Name) -> Result<()> {
        for document in ["snapshot", "manifest", "receipt", "hold"] {
            self.delete(self.snapshot_key(name, document)).await?;
        }
        // Elsewhere nothing is left over; and versitygw fails here, whose directory holds the documents' delete markers.
        match self.store.capabilities().directories {
            true => self.delete(self.key(&format!("snapshots/{name}/"))).await,
            false => Ok(()),
        }
    }

    /// Remembers that a snapshot is being removed, before its record goes: what is left of it when that is interrupted can be
    /// found again. `content` is what has to be looked through then, and its segments stay until then.
    pub(crate) async fn set_going(&self, name: &Name, content: &Manifest) -> Result<()> {
        self.write(&self.going_key(name), content.to_json()).await
    }

    /// Forgets it: nothing is left of the snapshot.
    pub(crate) async fn set_gone(&self, name: &Name) -> Result<()> {
        self.delete(self.going_key(name)).await
    }

    fn going_key(&self, name: &Name) -> Key {
        self.key(&format!("going/{name}.json"))
    }

    /// The snapshots that are being removed, or were when somebody was interrupted, with what is to be looked through.
    pub(crate) async fn going(&self) -> Result<Vec<(Name, Manifest)>> {
        let mut going = Vec::new();
        for (name, _) in self.documents("going/", ".json").await? {
            let key = self.going_key(&name);
            let Some((json, _)) = steadily(|| self.store.fetch(&key)).await? else { continue };
            let manifest = Manifest::from_json(&json);
            going.push((name, manifest.map_err(|error| error.at(self.store.address()).key(&key))?));
        }
        Ok(going)
    }

    /// All snapshots with the time at which their record was written, the newest first.
    pub async fn names(&self) -> Result<Vec<(Name, i64)>> {
        let mut names = self.documents("snapshots/", "/snapshot.json").await?;
        names.sort_by(|a: &(Name, i64), b| b.1.cmp(&a.1).then_with(|| b.0.cmp(&a.0)));
        Ok(names)
    }

    /// The snapshots that have such a document, with the time at which it was written.
    async fn documents(&self, folder: &str, end: &str) -> Result<Vec<(Name, i64)>> {
        let prefix = self.key(folder);
        let mut listing = self.store.list(ListOptions { prefix: prefix.clone(), ..ListOptions::default() }).await?;
        let mut names = Vec::new();
        while let Some(batch) = listing.next().await {
            for entry in batch? {
                let name = entry.key.as_bytes().strip_prefix(prefix.as_bytes());
                let name = name.and_then(|rest| rest.strip_suffix(end.as_bytes()));
                if let Some(name) = name.and_then(|name| std::str::from_utf8(name).ok()) {
                    names.push((name.parse()?, entry.mtime_ns));
                }
            }
        }
        Ok(names)
    }

    /// All snapshots' records, the newest first.
    pub async fn records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for (name, _) in self.names().await? {
            records.extend(self.record(&name).await?);
        }
        records.sort_by(|a, b| b.sequence.cmp(&a.sequence).then_with(|| b.created.cmp(&a.created)));
        Ok(records)
    }

    /// The newest snapshot of which this holds. Reads as few records as it can.
    pub async fn newest(&self, is_wanted: impl Fn(&Record) -> bool) -> Result<Option<Record>> {
        let mut best: Option<(Record, i64)> = None;
        for (name, written_ns) in self.names().await? {
            if best.as_ref().is_some_and(|(_, best_ns)| written_ns < best_ns - CLOCK_GRAIN_NS) {
                break;
            }
            let Some(record) = self.record(&name).await? else { continue };
            if is_wanted(&record) && best.as_ref().is_none_or(|(best, _)| record.sequence > best.sequence) {
                best = Some((record, written_ns));
            }
        }
        Ok(best.map(|(record, _)| record))
    }

    /// Removes segments that no snapshot's manifest names, nor that of one that is being removed. Not while a job is writing: the lease is the caller's to hold
    /// or to know free.
    pub async fn sweep(&self) -> Result<()> {
        let mut wanted = HashSet::new();
        for (name, _) in self.names().await? {
            wanted.extend(self.manifest(&name).await?.segments().iter().map(|segment| segment.digest));
        }
        for (_, manifest) in self.going().await? {
            wanted.extend(manifest.segments().iter().map(|segment| segment.digest));
        }
        let pending = self.pending().await?;
        wanted.extend(pending.iter().flat_map(Manifest::segments).map(|segment| segment.digest));
        let prefix = self.key("segments/");
        let mut listing = self.store.list(ListOptions { prefix: prefix.clone(), ..ListOptions::default() }).await?;
        while let Some(batch) = listing.next().await {
            let unwanted: Vec<Key> = batch?
                .into_iter()
                .map(|entry| entry.key)
                .filter(|key| {
                    let name = key.as_bytes().strip_prefix(prefix.as_bytes());
                    let digest = name.and_then(|name| Digest::from_hex(name).ok());
                    digest.is_some_and(|digest| !wanted.contains(&digest))
                })
                .collect();
            for keys in unwanted.chunks(self.store.capabilities().delete_batch_max.max(1)) {
                self.store.delete(keys).await?;
            }
        }
        Ok(())
    }

    /// The hold on a snapshot, where anybody has one.
    pub async fn hold(&self, name: &Name) -> Result<Option<Hold>> {
        let hold: Option<Hold> = self.get(&self.snapshot_key(name, "hold")).await?;
        Ok(hold.filter(|hold| *hold != Hold::default()))
    }

    /// Changes who holds a snapshot, in spite of others that do so at the same moment.
    pub async fn change_hold(&self, name: &Name, change: impl Fn(&mut Hold)) -> Result<()> {
        let key = self.snapshot_key(name, "hold");
        for _ in 0..CHANGES_MAX {
            let found = match steadily(|| self.store.fetch(&key)).await? {
                Some((json, pin)) => Some((self.parsed::<Hold>(&key, &json)?, pin)),
                None => None,
            };
            let mut hold = found.as_ref().map(|(hold, _)| hold.clone()).unwrap_or_default();
            change(&mut hold);
            let is_nothing = found.is_none() && hold == Hold::default();
            if is_nothing || Box::pin(self.replace(&key, found, &hold)).await? {
                return Ok(());
            }
        }
        Err(self.contended(&key))
    }

    /// Takes all holds away.
    pub async fn release(&self, name: &Name) -> Result<()> {
        self.delete(self.snapshot_key(name, "hold")).await
    }
}

/// Tries again what may succeed a little later: a document is worth a wait as content is.
async fn steadily<T, F: Future<Output = Result<T>>>(work: impl FnMut() -> F) -> Result<T> {
    crate::retry::retry(work, |_| {}).await
}

/// A document as it is written.
fn json<T: Serialize>(document: &T) -> Result<Bytes> {
    let mut json = serde_json::to_vec_pretty(document)
        .map_err(|error| Error::internal("a record cannot be written as JSON").caused_by(error))?;
    json.push(b'\n');
    Ok(json.into())
}

/// What travels with snapferry's own documents.
fn document_attributes() -> Attributes {
    Attributes { headers: vec![("content-type".into(), "application/json".into())], ..Attributes::default() }
}
