//! Telling whether the target has an object already, by its content: for runs that have lost their memory, and for drift.

use super::content::{Content, content};
use super::{Transfer, digest_if, landed_as, source_gone};
use crate::error::{Error, Kind, Result, Side};
use crate::journal::Event;
use crate::manifest::{Attributes, Digest, Entry};
use crate::plan::md5_of;
use crate::store::Store;

/// How much of an object the target has already.
pub(super) enum Likeness {
    /// All of it: it counts as landed.
    Whole,
    /// Its content, as this entry says; what goes with it is not right.
    Content(Box<Entry>),
    /// Nothing that helps.
    Different,
}

impl Transfer {
    /// Compares the target's object with the source's content.
    ///
    /// Cheapest first: the entity tag, where it is an MD5 on both sides; the source's bytes against a target's entity tag
    /// that is an MD5, unless a digest of the source is known; else the bytes of both.
    pub(super) async fn likeness(&self, source: &Entry, there: &Entry) -> Result<Likeness> {
        if source.kind != there.kind || source.size != there.size {
            return Ok(Likeness::Different);
        }
        let (digest, blocks) = match (md5_of(source), md5_of(there)) {
            (Some(ours), Some(theirs)) if ours == theirs => (source.digest, None),
            (Some(_), Some(_)) => return Ok(Likeness::Different),
            // A digest that is known already costs no reading of the source.
            (None, Some(theirs)) if source.digest.is_none() => {
                let Content { digest, blocks, md5 } =
                    self.content(&*self.source, source, true).await.map_err(|error| source_gone(error, &source.key))?;
                if md5.as_deref() != Some(theirs) {
                    return Ok(Likeness::Different);
                }
                (digest_if(source, digest), blocks)
            }
            _ => {
                let ours = self.digest_of(&*self.source, source, Side::Source).await?;
                let theirs = self.content(&*self.target, there, false).await;
                let Content { digest, blocks, .. } = theirs.map_err(|error| error.on(Side::Target).key(&there.key))?;
                if ours != digest {
                    return Ok(Likeness::Different);
                }
                (digest_if(source, ours), blocks)
            }
        };
        // A listing does not tell the version, and a file's own attributes may still be wrong.
        let Some(now) = self.retrying(|| self.target.stat(&there.key)).await.map_err(|error| error.on(Side::Target))?
        else {
            return Ok(Likeness::Different);
        };
        let right_mode = source.mode.is_none() || now.mode.is_none() || source.mode == now.mode;
        let right_time = !self.target.capabilities().file_attributes
            || !self.source.capabilities().file_attributes
            || now.mtime_ns == source.mtime_ns;
        if !now.pin.matches(&there.pin) || !same_attributes(source, &now) {
            return Ok(Likeness::Different);
        }
        if !right_mode || !right_time {
            return Ok(Likeness::Content(Box::new(Entry { digest, blocks, ..now })));
        }
        let landed = Entry { pin: now.pin, mode: now.mode.or(source.mode), digest, blocks, ..landed_as(source) };
        self.journal.append(Event::Landed(landed)).await?;
        Ok(Likeness::Whole)
    }

    /// The digest of an object that is read for it.
    pub(super) async fn digest_of(&self, store: &dyn Store, entry: &Entry, side: Side) -> Result<Digest> {
        if let Some(digest) = entry.digest {
            return Ok(digest);
        }
        let content = self.content(store, entry, false).await.map_err(|error| error.on(side).key(&entry.key))?;
        Ok(content.digest)
    }

    pub(super) async fn content(&self, store: &dyn Store, entry: &Entry, md5: bool) -> Result<Content> {
        let reading = content(store, entry, md5, self.policy.block_bytes, &self.budget, |error| self.failed(error));
        self.cancel.run_until_cancelled(reading).await.unwrap_or_else(|| Err(Error::new(Kind::Cancelled, "stopped")))
    }
}

/// True unless it is known on both sides what travels with the content, and it differs. Ozone's listings tell it.
fn same_attributes(source: &Entry, there: &Entry) -> bool {
    if source.pin.blocks().is_none() || there.pin.blocks().is_none() {
        return true;
    }
    let none = Attributes::default();
    let (ours, theirs) = (source.attributes.as_deref().unwrap_or(&none), there.attributes.as_deref().unwrap_or(&none));
    ours.headers == theirs.headers && ours.metadata == theirs.metadata && ours.tags == theirs.tags
}
