//! Lists a bucket: page by page where keys are flat, directory by directory where there are any.

use futures::stream::{FuturesUnordered, StreamExt};

use super::OzoneStore;
use super::entry::entry;
use super::pages::{in_order, is_sure, settled};
use crate::error::{Error, Kind, Result};
use crate::key::{Key, SNAPSHOTS};
use crate::manifest::Entry;
use crate::store::listing::ReaderGone;
use crate::store::{ListOptions, Listing, ListingSender};

/// Entries that one request asks for: what the Ozone Manager gives at most unless it is told otherwise
/// (`ozone.om.server.list.max.size`).
const PAGE: u32 = 1000;

/// Directories that are asked for at once.
const DIRECTORIES_AT_ONCE: usize = 16;

impl OzoneStore {
    pub(super) fn list_keys(&self, options: ListOptions) -> Result<Listing> {
        if options.as_of_ns.is_some() {
            return Err(self.fail(Kind::Unsupported, "the bucket keeps no past but its snapshots"));
        }
        let (sender, listing) = Listing::channel();
        let walk = Walk { store: self.clone(), options };
        tokio::spawn(async move {
            let outcome =
                if walk.store.shared.directories { walk.tree(&sender).await } else { walk.flat(&sender).await };
            let outcome = match outcome {
                Err(Stop::Failed(error)) => Err(error),
                // Who does not listen any more needs no end.
                Ok(()) | Err(Stop::ReaderGone) => Ok(()),
            };
            sender.close(outcome).await;
        });
        Ok(listing)
    }
}

enum Stop {
    Failed(Error),
    ReaderGone,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<ReaderGone> for Stop {
    fn from(_: ReaderGone) -> Self {
        Self::ReaderGone
    }
}

struct Walk {
    store: OzoneStore,
    options: ListOptions,
}

impl Walk {
    /// Pages of keys, in byte order.
    async fn flat(&self, sender: &ListingSender) -> Result<(), Stop> {
        let prefix = self.store.wire(&self.options.prefix)?;
        // What does not begin with the prefix is no place to go on from.
        let after = self.options.after.as_ref().filter(|after| *after >= &self.options.prefix);
        if after.is_some_and(|after| !after.starts_with(self.options.prefix.as_bytes())) {
            return Ok(());
        }
        let mut after = after.map(|key| self.store.wire(key).map(str::to_owned)).transpose()?;
        loop {
            let page = self.store.shared.bucket.list_keys(self.snapshot(), prefix, after.as_deref(), PAGE).await?;
            self.store.learn(&page.keys);
            let settle = if page.truncated { settled } else { in_order };
            let keys = settle(page.keys, after.as_deref());
            let last = keys.last().map(|info| info.name.clone());
            if page.truncated && last <= after {
                let what = "the Ozone Manager's listing goes on nowhere";
                return Err(self.store.fail(Kind::BadListing, what).hint("run the command again").into());
            }
            if let Some(last) = last.as_deref().filter(|_| page.truncated) {
                self.nothing_hidden(last, after.as_deref())?;
            }
            after = last;
            self.send(keys.iter().map(|info| entry(info, false)).collect(), sender).await?;
            if !page.truncated {
                return Ok(());
            }
        }
    }

    fn snapshot(&self) -> Option<&str> {
        self.store.snapshot.as_deref()
    }

    /// Directory by directory, several at once; what is deeper first, so that few are waiting.
    async fn tree(&self, sender: &ListingSender) -> Result<(), Stop> {
        let Some(top) = self.top(sender).await? else { return Ok(()) };
        let mut waiting = vec![(top, None)];
        let mut asking = FuturesUnordered::new();
        loop {
            while asking.len() < DIRECTORIES_AT_ONCE
                && let Some((directory, after)) = waiting.pop()
            {
                asking.push(async move {
                    let (snapshot, after): (_, Option<String>) = (self.snapshot(), after);
                    let bucket = &self.store.shared.bucket;
                    let page = bucket.list_directory(snapshot, &directory, after.as_deref(), PAGE).await;
                    (directory, after, page)
                });
            }
            let Some((directory, after, page)) = asking.next().await else { return Ok(()) };
            let page = page.map_err(|error| error.key(&Key::from(directory.as_str())))?;
            self.store.learn(&page.children);
            // A page that is not full may still be all that this server gives: that it is not shows when more is asked for.
            let full = page.children.len() >= PAGE as usize;
            let settle = if page.truncated { settled } else { in_order };
            let children = settle(page.children, after.as_deref());
            if let Some(last) = children.last().filter(|_| page.truncated) {
                if full {
                    self.nothing_hidden(&last.name, after.as_deref())?;
                }
                waiting.push((directory, Some(last.name.clone())));
            }
            let entries: Vec<Entry> = children.iter().map(|info| entry(info, true)).collect();
            for entry in entries.iter().filter(|entry| entry.key.is_directory() && self.leads_to(&entry.key)) {
                waiting.push((self.store.wire(&entry.key)?.to_owned(), None));
            }
            self.send(entries, sender).await?;
        }
    }

    /// Fails where a full page that ends with this name may hide another that is never listed: see [`super::pages`].
    fn nothing_hidden(&self, last: &str, after: Option<&str>) -> Result<()> {
        if is_sure(last, after) {
            return Ok(());
        }
        let what = "Ozone lists over a thousand names beside it that begin with a character beyond U+FFFF, and may leave out \
                    one that begins with a character from U+E000 to U+FFFF";
        let hint = "keep such names apart, in a directory whose name is plain";
        Err(self.store.fail(Kind::BadListing, what).key(&Key::from(last)).hint(hint))
    }

    /// The directory to begin in; none if it is not there.
    async fn top(&self, sender: &ListingSender) -> Result<Option<String>, Stop> {
        let prefix = &self.options.prefix;
        let parent = if prefix.is_directory() { Some(prefix.clone()) } else { prefix.parent() };
        let Some(parent) = parent else { return Ok(Some(String::new())) };
        let Some(there) = self.store.look_up(&parent).await? else { return Ok(None) };
        let top = self.store.wire(&parent)?.to_owned();
        self.send(vec![there], sender).await?;
        Ok(Some(top))
    }

    /// True for directories that may hold something of what is asked for.
    fn leads_to(&self, directory: &Key) -> bool {
        let ListOptions { prefix, after, .. } = &self.options;
        let passed = after.as_ref().is_some_and(|after| directory < after && !after.starts_with(directory.as_bytes()));
        let within = directory.starts_with(prefix.as_bytes()) && !self.hides(directory);
        (within && !passed) || prefix.starts_with(directory.as_bytes())
    }

    /// True for what is no content of the bucket, unless it is asked for.
    fn hides(&self, key: &Key) -> bool {
        let prefix = &self.options.prefix;
        let snapshots = SNAPSHOTS.as_bytes();
        (key.is_reserved() && !prefix.is_reserved()) || (key.starts_with(snapshots) && !prefix.starts_with(snapshots))
    }

    /// True for what is asked for.
    fn wants(&self, key: &Key) -> bool {
        let ListOptions { prefix, after, .. } = &self.options;
        !self.hides(key) && key.starts_with(prefix.as_bytes()) && after.as_ref().is_none_or(|after| after < key)
    }

    async fn send(&self, mut entries: Vec<Entry>, sender: &ListingSender) -> Result<(), Stop> {
        entries.retain(|entry| self.wants(&entry.key));
        if !entries.is_empty() {
            sender.send(entries).await?;
        }
        Ok(())
    }
}
