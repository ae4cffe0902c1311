//! Listings, page by page: of objects, of all their versions, or of the versions of one moment.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use http::Method;

use super::client::{Client, Request};
use super::error::Failure;
use super::moment::Moment;
use super::page::{Cursor, Page, PageParser};
use super::xml::{self, Malformed};
use crate::error::{Error, Kind, Result};
use crate::key::{Key, RESERVED};
use crate::manifest::Entry;
use crate::store::{ListOptions, ListingSender};

/// Tries of one page. A listing cannot be taken up in the middle by who reads it, so it retries by itself.
const PAGE_RETRIES: usize = 8;

const PAUSE_MIN: Duration = Duration::from_millis(200);

const PAUSE_MAX: Duration = Duration::from_secs(20);

/// Sorts after every key that snapferry itself writes under its folder. A listing of versions goes through them all:
/// not every server knows a marker that names no version, and one that begins too late is not noticed.
const AFTER_RESERVED: &str = ".snapferry/~";

/// One listing under way.
pub(super) struct Lister {
    pub(super) client: Arc<Client>,
    pub(super) address: Arc<str>,
    /// The store's prefix in the bucket.
    pub(super) root: Arc<str>,
    pub(super) ordered: bool,
    pub(super) options: ListOptions,
    /// By `ListObjectVersions`.
    pub(super) versions: bool,
}

impl Lister {
    /// Lists to the end, or to the first thing that is wrong.
    pub(super) async fn run(self, sender: &ListingSender) -> Result<()> {
        self.pages(sender).await.map_err(|error| error.at(&*self.address))
    }

    async fn pages(&self, sender: &ListingSender) -> Result<()> {
        let prefix = [self.root.as_bytes(), self.options.prefix.as_bytes()].concat();
        let keeps_reserved = self.options.prefix.is_reserved();
        let after = self.options.after.as_ref().filter(|_| self.ordered);
        let mut cursor = Cursor::After(after.map_or_else(Vec::new, |after| self.absolute(after.as_bytes())));
        let mut order = Order { last: None, checked: self.ordered };
        let mut moment = self.options.as_of_ns.map(Moment::new);
        loop {
            let page = self.page(&prefix, &cursor).await?;
            let last_seen = page.found.last().map(|found| found.entry.key.clone());
            let next = if page.truncated { Some(next_cursor(page.next, &cursor)?) } else { None };
            let mut entries = match &mut moment {
                Some(moment) => {
                    let continued = match &next {
                        Some(Cursor::Version { key, .. }) => self.relative(key).ok(),
                        _ => None,
                    };
                    moment.take(page.found, continued.as_ref(), self.ordered)
                }
                None => {
                    page.found.into_iter().filter(|found| found.latest && !found.removal).map(|f| f.entry).collect()
                }
            };
            order.admit(&mut entries)?;
            entries.retain(|entry| self.is_wanted(entry, keeps_reserved));
            if entries.iter().any(|entry| entry.key.is_empty()) {
                return Err(Error::new(
                    Kind::Unrepresentable,
                    "an object is named as the prefix itself and has content",
                )
                .key(&Key::from(&*self.root))
                .hint("name the folder above it in the URL"));
            }
            if !entries.is_empty() && sender.send(entries).await.is_err() {
                return Ok(());
            }
            let Some(next) = next else { return Ok(()) };
            cursor = match last_seen {
                Some(last)
                    if !self.versions
                        && self.ordered
                        && !keeps_reserved
                        && last.starts_with(RESERVED.as_bytes())
                        && last < Key::from(AFTER_RESERVED) =>
                {
                    Cursor::After(self.absolute(AFTER_RESERVED.as_bytes()))
                }
                _ => next,
            };
        }
    }

    /// The prefix's own empty marker stands for the root, which is no entry.
    fn is_wanted(&self, entry: &Entry, keeps_reserved: bool) -> bool {
        let is_root = entry.key.is_empty() && entry.size == 0;
        let is_after = self.options.after.as_ref().is_none_or(|after| entry.key > *after);
        !is_root && is_after && (keeps_reserved || !entry.key.is_reserved())
    }

    pub(super) async fn page(&self, prefix: &[u8], cursor: &Cursor) -> Result<Page> {
        let pauses = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(PAUSE_MIN)
            .with_max_delay(PAUSE_MAX)
            .with_max_times(PAGE_RETRIES);
        let fetch = || async { self.fetch(prefix, cursor).await.map_err(Error::from) };
        fetch
            .retry(pauses)
            .when(Error::is_retryable)
            .notify(|error, pause| tracing::debug!(%error, ?pause, "asking for the page again"))
            .await
    }

    async fn fetch(&self, prefix: &[u8], cursor: &Cursor) -> Result<Page, Failure> {
        let prefix = utf8(prefix)?;
        let mut pairs = vec![("encoding-type", "url"), ("max-keys", "1000"), ("prefix", prefix)];
        if self.versions {
            pairs.push(("versions", ""));
        } else {
            pairs.push(("list-type", "2"));
        }
        match cursor {
            Cursor::After(key) if key.is_empty() => {}
            Cursor::After(key) => pairs.push((if self.versions { "key-marker" } else { "start-after" }, utf8(key)?)),
            Cursor::Token(token) => pairs.push(("continuation-token", token)),
            Cursor::Version { key, version } => {
                pairs.push(("key-marker", utf8(key)?));
                if !version.is_empty() {
                    pairs.push(("version-id-marker", version));
                }
            }
        }
        pairs.sort_unstable();
        let reply = self.client.send(Request::new(Method::GET).query(&pairs)).await?;
        let mut parser = PageParser::new(self.versions);
        let root = xml::walk(&reply.body, |path, text| parser.closed(path, text))?;
        let expected = if self.versions { "ListVersionsResult" } else { "ListBucketResult" };
        if root != expected && root != "ListBucketVersionsResult" {
            return Err(Malformed(format!("it is a {root}, not a {expected}")).into());
        }
        Ok(parser.page(|key| self.relative(key))?)
    }

    fn absolute(&self, key: &[u8]) -> Vec<u8> {
        [self.root.as_bytes(), key].concat()
    }

    fn relative(&self, key: &[u8]) -> Result<Key> {
        key.strip_prefix(self.root.as_bytes()).map(Key::copy_from).ok_or_else(|| {
            Error::new(Kind::BadListing, format!("the listing left the prefix `{}`", self.root))
                .key(&Key::copy_from(key))
        })
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(bytes)
        .map_err(|_| Error::new(Kind::Unrepresentable, "S3 keys are UTF-8").key(&Key::copy_from(bytes)).into())
}

pub(super) fn next_cursor(next: Option<Cursor>, current: &Cursor) -> Result<Cursor> {
    let bad = |what: &str| Error::new(Kind::BadListing, what).hint("run the command again");
    let next = next.ok_or_else(|| bad("the listing says that it goes on, but not where"))?;
    if next == *current {
        return Err(bad("the listing goes on where it was already"));
    }
    Ok(next)
}

/// Checks that keys rise, across pages too.
struct Order {
    last: Option<Entry>,
    checked: bool,
}

impl Order {
    /// Takes a page's entries. One that only repeats the end of the page before is dropped: there are servers that
    /// begin a page with the version that the marker names.
    fn admit(&mut self, entries: &mut Vec<Entry>) -> Result<()> {
        if self.last.is_some() && self.last.as_ref() == entries.first() {
            entries.remove(0);
        }
        let mut last = self.last.as_ref();
        for entry in entries.iter().filter(|_| self.checked) {
            if let Some(last) = last.filter(|last| last.key >= entry.key) {
                return Err(Error::new(Kind::BadListing, format!("the listing went backwards after `{}`", last.key))
                    .key(&entry.key)
                    .hint("run again; if this store never lists in byte order, add `order=any` to its URL"));
            }
            last = Some(entry);
        }
        if let Some(last) = entries.last() {
            self.last = Some(last.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_do_not_follow() {
        let here = Cursor::Token("a".into());
        assert_eq!(next_cursor(None, &here).unwrap_err().kind(), Kind::BadListing);
        assert_eq!(next_cursor(Some(here.clone()), &here).unwrap_err().kind(), Kind::BadListing);
        let mut order = Order { last: None, checked: true };
        order.admit(&mut vec![Entry::object("a", 1), Entry::object("b", 1)]).unwrap();
        assert_eq!(order.admit(&mut vec![Entry::object("b", 2)]).unwrap_err().kind(), Kind::BadListing);
        let mut repeated = vec![Entry::object("b", 1), Entry::object("c", 1)];
        order.admit(&mut repeated).unwrap();
        assert_eq!(repeated, [Entry::object("c", 1)]);
    }

    #[test]
    fn reserved_keys_have_an_end() {
        assert!(Key::from(AFTER_RESERVED).is_reserved() && AFTER_RESERVED.starts_with(RESERVED));
    }
}
