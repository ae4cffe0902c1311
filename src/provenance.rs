//! Where the content of a bucket that is to become as it was is from, as far as manifests tell: what is the snapshot's
//! already need not come over.

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::blocking::blocking;
use crate::bucket::Bucket;
use crate::catalog::{Catalog, StoreSegments};
use crate::error::Result;
use crate::manifest::{Entry, Manifest};
use crate::merge::{Entries, merge_by_key};
use crate::origin::Origin;
use crate::plan::{SpoolWriter, is_same_entry};

/// What is known of a target that is to become as it was.
pub(crate) struct Provenance {
    /// It is the bucket that has the snapshot.
    pub(crate) own: bool,
    /// What manifests say of its objects; of each the first counts that is still true.
    known: Vec<Known>,
}

/// A manifest that says what the target has, or had.
struct Known {
    catalog: Catalog,
    manifest: Manifest,
    /// Its entries as the target's: with the pin that the target gives, and the source's as origin.
    view: fn(Entry) -> Option<Entry>,
}

impl Provenance {
    /// From the snapshot that is restored, which may be of the target itself or of what it was then, and the target's own
    /// newest ones.
    pub(crate) async fn of(source: &Bucket, target: &Bucket, origin: &Origin) -> Result<Self> {
        let own = source.address() == target.address();
        let (snapshot, manifest) = origin.taken()?;
        let mut known = Vec::new();
        if own || snapshot.record.sealed_from.as_deref() == Some(target.address()) {
            let view = if own { as_own } else { as_original };
            known.push(Known { catalog: snapshot.catalog.clone(), manifest: manifest.clone(), view });
        }
        let catalog = target.catalog();
        let newest = [catalog.newest(|record| record.is_sealed()).await?, catalog.newest(|_| true).await?];
        for record in newest.into_iter().flatten() {
            let view = match (own, record.sealed_from.as_deref()) {
                (true, _) => as_own,
                (_, Some(from)) if from == source.address() => Some,
                _ => as_foreign,
            };
            known.push(Known { catalog: catalog.clone(), manifest: catalog.manifest(&record.name).await?, view });
        }
        Ok(Self { own, known })
    }

    /// The target as it is, and of what is known of it that which is still true.
    pub(crate) async fn recognise(
        &self,
        actual: Entries<'static>,
        folder: &Path,
    ) -> Result<(Entries<'static>, Entries<'static>)> {
        let (views, folder): (Vec<_>, _) = (self.known.iter().map(Known::entries).collect(), folder.to_owned());
        blocking(move || recognise(actual, views, &folder)).await
    }
}

impl Known {
    fn entries(&self) -> Entries<'static> {
        let segments = Arc::new(StoreSegments::new(&self.catalog, Handle::current()));
        let view = self.view;
        Box::new(self.manifest.entries(segments).filter_map(move |entry| entry.map(view).transpose()))
    }
}

/// An entry of a bucket that is restored from itself.
fn as_own(entry: Entry) -> Option<Entry> {
    Some(Entry { origin: Some(entry.pin.clone()), ..entry })
}

/// What an entry of a sealed copy was copied from.
fn as_original(mut entry: Entry) -> Option<Entry> {
    let pin = entry.origin.take()?;
    entry.origin = Some(std::mem::replace(&mut entry.pin, pin));
    Some(entry)
}

/// An entry of a target that is restored from elsewhere: only content counts.
fn as_foreign(entry: Entry) -> Option<Entry> {
    Some(Entry { origin: None, ..entry })
}

/// A listing, and beside it what is known of its entries: of each the first view's that still is of that entry.
fn recognise(
    actual: Entries<'static>,
    views: Vec<Entries<'static>>,
    folder: &Path,
) -> Result<(Entries<'static>, Entries<'static>)> {
    let mut listed = SpoolWriter::new(folder)?;
    for entry in actual {
        listed.push(&entry?)?;
    }
    let listed = listed.finish()?;
    let mut known: Entries<'static> = Box::new(std::iter::empty());
    for view in views.into_iter().rev() {
        let rows = merge_by_key([Box::new(listed.iter()?), view]);
        let true_still = rows.filter_map(|row| match row {
            Ok((_, [Some(actual), Some(known)])) if is_same_entry(&known, &actual) => Some(Ok(known)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        });
        let rows = merge_by_key([Box::new(true_still), known]);
        known = Box::new(rows.filter_map(|row| row.map(|(_, [a, b])| a.or(b)).transpose()));
    }
    Ok((Box::new(listed.iter()?), known))
}
