//! Large objects: parts in parallel, each journalled, so that a killed run goes on where it was.

use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::{Transfer, landed_as, source_gone};
use crate::error::{Error, Kind, Result, Side};
use crate::journal::Event;
use crate::key::Key;
use crate::manifest::{Attributes, Blocks, Digest, Entry, Subtree, merge};
use crate::progress::Progress;
use crate::store::{Condition, Part, Upload};

/// Parts of one object that are asked for at once; the lane decides how many of them run.
const PARTS_AT_ONCE: usize = 16;

/// A part that landed, with the values of its blocks.
pub(super) type Landed = (Part, Vec<Subtree>);

/// An object of which all parts have landed.
pub(super) struct Written<'a> {
    pub(super) at: &'a Key,
    pub(super) upload: Upload,
    /// In order.
    pub(super) parts: Vec<Part>,
    /// Of all its blocks.
    pub(super) values: Blocks,
}

/// How an object is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    size: u64,
    part_bytes: u64,
}

impl Cut {
    /// The smallest power-of-two parts from `least` that the target takes, in no more than it takes of them.
    fn of(size: u64, least: u64, part_bytes_min: u64, parts_max: u32) -> Result<Self> {
        let mut part_bytes = least;
        while part_bytes < part_bytes_min || size.div_ceil(part_bytes) > u64::from(parts_max) {
            part_bytes = part_bytes.checked_mul(2).ok_or_else(|| {
                Error::new(Kind::Unsupported, "it is larger than the target takes in parts").on(Side::Target)
            })?;
        }
        Ok(Self { size, part_bytes })
    }

    fn count(self) -> u32 {
        self.size.div_ceil(self.part_bytes) as u32
    }

    /// Offset and length of a part, counted from 1.
    fn part(self, number: u32) -> (u64, u64) {
        let offset = u64::from(number - 1) * self.part_bytes;
        (offset, self.part_bytes.min(self.size - offset))
    }
}

impl Transfer {
    /// Writes an object to `at` in parts, going on with an upload that an earlier run left open.
    pub(super) async fn in_parts(&self, source: &Entry, at: &Key, condition: &Condition) -> Result<Entry> {
        let _shown = self.progress.large(&source.key);
        let caps = self.target.capabilities();
        // Blocks may be short; parts of a few bytes help nobody.
        let least = self.policy.block_bytes.max(self.policy.whole_bytes_max.next_power_of_two());
        let cut =
            Cut::of(source.size, least, caps.part_bytes_min, caps.parts_max).map_err(|error| error.key(&source.key))?;
        let open = self.open_upload(source, at, cut.part_bytes).await;
        let (mut upload, mut parts) = open.map_or_else(Default::default, |(upload, parts)| (Some(upload), parts));
        parts.retain(|number, (part, values)| {
            (1..=cut.count()).contains(number)
                && (part.offset, part.size) == cut.part(*number)
                && values.len() as u64 == part.size.div_ceil(self.policy.block_bytes)
        });
        Progress::add(&self.progress.bytes_done, parts.values().map(|(part, _)| part.size).sum());
        // The attributes come with the first read, and an upload needs them when it begins.
        let first = (1..=cut.count()).find(|number| !parts.contains_key(number)).unwrap_or(1);
        let (offset, length) = cut.part(first);
        let room = self.budget.take(length).await;
        let (data, attributes) = self.read_part(source, offset, length).await?;
        let attributes = self.attributes(source, attributes);
        let upload = match upload.take() {
            Some(upload) => upload,
            None => self.begin(source, at, &attributes, cut.part_bytes).await?,
        };
        let outcome = async {
            if let hash_map::Entry::Vacant(place) = parts.entry(first) {
                place.insert(self.write_part(&upload, first, offset, data).await?);
            }
            drop(room);
            self.rest(source, &upload, cut, &mut parts).await
        };
        let outcome = outcome.await;
        if let Err(error) = outcome {
            // Content that changed makes its parts worthless; after anything else the next run goes on with them.
            if error.kind() == Kind::Changed {
                self.abort(&upload).await;
            }
            return Err(error);
        }
        let mut parts: Vec<Landed> = parts.into_values().collect();
        parts.sort_by_key(|(part, _)| part.number);
        let (parts, values): (Vec<Part>, Vec<Vec<Subtree>>) = parts.into_iter().unzip();
        debug_assert_eq!(parts.len(), cut.count() as usize);
        let values = Blocks::new(self.policy.block_bytes, &values.concat());
        self.complete(source, Written { at, upload, parts, values }, &attributes, condition).await
    }

    /// Reads and writes all parts that have not landed.
    async fn rest(&self, source: &Entry, upload: &Upload, cut: Cut, parts: &mut HashMap<u32, Landed>) -> Result<()> {
        let missing: Vec<u32> = (1..=cut.count()).filter(|number| !parts.contains_key(number)).collect();
        let mut landed = stream::iter(missing)
            .map(|number| async move {
                let (offset, length) = cut.part(number);
                // In this order everywhere: whoever has a turn waits for nothing else.
                let _room = self.budget.take(length).await;
                let turn = self.large.turn().await;
                let landed = self.part(source, upload, number, (offset, length)).await?;
                if let Some(turn) = turn {
                    self.large.done(turn, length);
                }
                Ok::<_, Error>((number, landed))
            })
            .buffer_unordered(PARTS_AT_ONCE);
        while let Some((number, part)) = landed.try_next().await? {
            parts.insert(number, part);
        }
        Ok(())
    }

    pub(super) async fn read_part(&self, source: &Entry, offset: u64, length: u64) -> Result<(Bytes, Attributes)> {
        let range = offset..offset + length;
        let read = self.retrying(|| self.source.read(source, Some(range.clone()))).await;
        let object = read.map_err(|error| source_gone(error, &source.key))?;
        Ok((object.data, object.attributes))
    }

    /// Reads and writes one part.
    async fn part(&self, source: &Entry, upload: &Upload, number: u32, (offset, size): (u64, u64)) -> Result<Landed> {
        self.lease.check()?;
        if let Some(landed) = self.carry_part(source, upload, number, (offset, size)).await {
            return self.landed_part(upload, landed).await;
        }
        let (data, _) = self.read_part(source, offset, size).await?;
        self.write_part(upload, number, offset, data).await
    }

    async fn write_part(&self, upload: &Upload, number: u32, offset: u64, data: Bytes) -> Result<Landed> {
        self.lease.check()?;
        let values = self.hashing.part(&data, offset, self.policy.block_bytes).await?;
        let part = self.send_part(upload, number, offset, data).await?;
        self.landed_part(upload, (part, values)).await
    }

    /// Writes a part's bytes to the target.
    pub(super) async fn send_part(&self, upload: &Upload, number: u32, offset: u64, data: Bytes) -> Result<Part> {
        self.bandwidth.pass(data.len() as u64).await;
        self.retrying(|| self.target.write_part(upload, number, offset, data.clone()))
            .await
            .map_err(|error| error.on(Side::Target).key(&upload.key))
    }

    async fn landed_part(&self, upload: &Upload, (part, values): Landed) -> Result<Landed> {
        self.crossed(part.size);
        self.note(upload, &part, &values).await?;
        Ok((part, values))
    }

    /// Writes down that a part has landed, with the values of its blocks, or none where it will be read again to be known.
    pub(super) async fn note(&self, upload: &Upload, part: &Part, values: &[Subtree]) -> Result<()> {
        let event = Event::Part { upload: upload.id.clone(), part: part.clone(), values: values.to_vec() };
        self.journal.append(event).await
    }

    /// Begins an upload and writes its name down, with the length of its parts, or 0 where that differs.
    pub(super) async fn begin(
        &self,
        source: &Entry,
        at: &Key,
        attributes: &Attributes,
        part_bytes: u64,
    ) -> Result<Upload> {
        self.marks.set(at, None).await?;
        let upload = self
            .retrying(|| self.target.begin(at, source.size, attributes))
            .await
            .map_err(|error| error.on(Side::Target).key(&source.key))?;
        self.marks.set(at, Some(&upload.id)).await?;
        let began = Event::Began { source: source.clone(), at: at.clone(), upload: upload.id.clone(), part_bytes };
        self.journal.append(began).await?;
        Ok(upload)
    }

    /// The upload that an earlier run left open for exactly this content, with its parts; others for the key are dropped.
    pub(super) async fn open_upload(
        &self,
        source: &Entry,
        at: &Key,
        part_bytes: u64,
    ) -> Option<(Upload, HashMap<u32, Landed>)> {
        let mut open = self.uploads.lock().await;
        let ids: Vec<String> =
            open.iter().filter(|(_, upload)| upload.source.key == source.key).map(|(id, _)| id.clone()).collect();
        let mut fit = None;
        for id in ids {
            let Some(found) = open.remove(&id) else { continue };
            let upload = Upload { key: at.clone(), id };
            let same = found.source.pin == source.pin && found.at == *at && found.part_bytes == part_bytes;
            if same && fit.is_none() {
                fit = Some((upload, found.parts));
            } else {
                self.abort(&Upload { key: found.at, ..upload }).await;
            }
        }
        fit
    }

    /// Drops an upload as well as it can be dropped: what stays is dead weight, not danger.
    pub(super) async fn abort(&self, upload: &Upload) {
        self.marks.clear(&upload.key).await;
        if let Err(error) = self.retrying(|| self.target.abort(upload)).await {
            tracing::warn!("an unfinished upload stays behind: {error}");
        }
    }

    /// Drops uploads of earlier runs that nothing asked for.
    pub(super) async fn abort_left_over(&self) {
        let left = std::mem::take(&mut *self.uploads.lock().await);
        for (id, open) in left {
            self.abort(&Upload { key: open.at, id }).await;
        }
    }

    /// Makes the object appear.
    pub(super) async fn complete(
        &self,
        source: &Entry,
        written: Written<'_>,
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<Entry> {
        let Written { at, upload, parts, values } = written;
        let digest: Digest = merge(values.values());
        if source.digest.is_some_and(|known| known != digest) {
            self.abort(&upload).await;
            return Err(super::whole::damaged(source));
        }
        let conditional = self.target.capabilities().conditional_parts;
        let condition = if conditional { condition.clone() } else { Condition::Any };
        let upload = Arc::new(upload);
        let finished = self.retrying(|| self.target.finish(&upload, &parts, attributes, &condition)).await;
        let pin = match finished {
            Ok(pin) => pin,
            Err(error) if error.kind() == Kind::NotFound => match self.settle(error, at, source, digest).await {
                Ok(Some(pin)) => pin,
                // The upload of an earlier run is gone: the next try begins anew.
                outcome => return Err(upload_gone(source, outcome.err())),
            },
            Err(error) => match self.settle(error, at, source, digest).await? {
                Some(pin) => pin,
                None => self
                    .retrying(|| self.target.finish(&upload, &parts, attributes, &Condition::Any))
                    .await
                    .map_err(|error| error.on(Side::Target).key(&source.key))?,
            },
        };
        self.marks.clear(at).await;
        let mode = attributes.mode.or(source.mode);
        let blocks = Some(values);
        Ok(Entry { pin, mode, digest: Some(digest), blocks, attributes: self.kept(attributes), ..landed_as(source) })
    }
}

fn upload_gone(source: &Entry, cause: Option<Error>) -> Error {
    let error = Error::new(Kind::Unavailable, "the unfinished upload is gone")
        .on(Side::Target)
        .key(&source.key)
        .hint("run the same command again to go on");
    match cause {
        Some(cause) => error.caused_by(cause),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_cover_the_object(size in (1_u64 << 26) + 1..1 << 46, log in 20_u32..27, parts_max in prop::sample::select(vec![10_000_u32, 1000, u32::MAX])) {
            let cut = Cut::of(size, 1 << log, 5 << 20, parts_max).unwrap();
            prop_assert!(cut.count() <= parts_max && cut.part_bytes.is_power_of_two() && cut.part_bytes >= 1 << log);
            let (offset, length) = cut.part(cut.count());
            prop_assert!(length > 0 && offset + length == size);
            let (second, _) = cut.part(2);
            prop_assert_eq!(second, cut.part(1).1);
        }
    }
}
