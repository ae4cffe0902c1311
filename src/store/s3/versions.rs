//! Every version of every key.

use super::listing::{Lister, next_cursor};
use super::page::{Cursor, Found};
use crate::error::Result;
use crate::store::{ListingSender, NULL_VERSION, Version};

impl Lister {
    /// Lists every version and every removal, to the end or to the first thing that is wrong.
    pub(super) async fn run_versions(self, sender: &ListingSender<Version>) -> Result<()> {
        self.version_pages(sender).await.map_err(|error| error.at(&*self.address))
    }

    async fn version_pages(&self, sender: &ListingSender<Version>) -> Result<()> {
        let prefix = [self.root.as_bytes(), self.options.prefix.as_bytes()].concat();
        let keeps_reserved = self.options.prefix.is_reserved();
        let mut cursor = Cursor::After(Vec::new());
        let mut last: Option<Version> = None;
        loop {
            let page = self.page(&prefix, &cursor).await?;
            let mut versions: Vec<Version> = page.found.into_iter().map(version).collect();
            // There are servers that begin a page with the version that the marker names.
            if last.is_some() && last.as_ref() == versions.first() {
                versions.remove(0);
            }
            if let Some(newest) = versions.last() {
                last = Some(newest.clone());
            }
            // The prefix's own marker is no entry.
            versions.retain(|found| !found.key.is_empty() && (keeps_reserved || !found.key.is_reserved()));
            if !versions.is_empty() && sender.send(versions).await.is_err() {
                return Ok(());
            }
            if !page.truncated {
                return Ok(());
            }
            cursor = next_cursor(page.next, &cursor)?;
        }
    }
}

fn version(found: Found) -> Version {
    let Found { entry, latest, removal } = found;
    let id = entry.pin.version.unwrap_or_else(|| NULL_VERSION.into());
    Version { key: entry.key, id, current: latest, removal, mtime_ns: entry.mtime_ns, size: entry.size }
}
