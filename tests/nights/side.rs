//! One side of a policy: a directory, or a bucket on a real server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use snapferry::bucket::OpenOptions;
use snapferry::catalog::StoreSegments;
use snapferry::clock::Clock;
use snapferry::error::Result;
use snapferry::manifest::{Entry, Kind};
use snapferry::snapshot::clone::CloneMode;
use snapferry::store::ListOptions;
use tokio::runtime::Handle;

use crate::days::{Change, apply_to_directory};
use crate::harness::model::{Content, assert_equal};
use crate::harness::proxy::Proxy;
use crate::harness::s3::Bucket;
use crate::harness::{snapshot_of, tree};

/// Where a side is.
pub(crate) enum Place {
    Directory(PathBuf),
    /// Where there is a proxy, the program goes through it.
    Server(Bucket, Option<Proxy>),
}

pub(crate) struct Side {
    pub(crate) place: Place,
    folder: PathBuf,
}

impl Side {
    pub(crate) fn new(place: Place, folder: PathBuf) -> Self {
        Self { place, folder }
    }

    /// Its URL for the program.
    pub(crate) fn url(&self) -> String {
        match &self.place {
            Place::Directory(path) => path.to_str().unwrap().into(),
            Place::Server(bucket, None) => bucket.url(),
            Place::Server(bucket, Some(proxy)) => bucket.url_through(proxy),
        }
    }

    /// What is on the server, where it is on one.
    pub(crate) fn bucket(&self) -> Option<&Bucket> {
        match &self.place {
            Place::Directory(_) => None,
            Place::Server(bucket, _) => Some(bucket),
        }
    }

    /// Does a day's changes. What is there then is `now`, but that a directory of which all was deleted stays.
    pub(crate) fn change(&self, before: &Content, changes: &[Change], now: &mut Content) {
        match &self.place {
            Place::Server(bucket, _) => bucket.change(before, now),
            Place::Directory(path) => {
                changes.iter().for_each(|change| apply_to_directory(path, change));
                let files = |content: &Content| {
                    let mut content = content.clone();
                    content.0.retain(|key, _| !key.ends_with(b"/"));
                    content
                };
                let found = tree::content(path);
                assert_equal(files(&found), &files(now), "the test's own changes");
                *now = found;
            }
        }
    }

    /// All that is there now, read by another client.
    pub(crate) fn content(&self) -> Content {
        match &self.place {
            Place::Directory(path) => tree::content(path),
            Place::Server(bucket, _) => bucket.content(),
        }
    }

    /// As the library sees it.
    pub(crate) async fn open(&self, clock: &Clock) -> snapferry::bucket::Bucket {
        let folder = self.folder.clone();
        let options = OpenOptions { create: false, create_link: false, clone: CloneMode::Auto, folder };
        snapferry::bucket::Bucket::open(&self.url(), &options).await.unwrap().with_clock(clock.clone())
    }

    /// The snapshots that it has; a directory is looked at as anybody would.
    pub(crate) async fn snapshots(&self) -> BTreeSet<String> {
        let records = self.open(&Clock::default()).await.records().await.unwrap();
        let names: BTreeSet<String> = records.into_iter().map(|record| record.name.to_string()).collect();
        if let Place::Directory(path) = &self.place {
            let trees = fs::read_dir(path.join(".snapshot")).into_iter().flatten();
            let trees: BTreeSet<String> = trees.map(|tree| tree.unwrap().file_name().into_string().unwrap()).collect();
            assert_eq!(names, trees, "what {} says and what it has", path.display());
        }
        names
    }

    /// All that a snapshot holds.
    pub(crate) async fn snapshot(&self, name: &str) -> Content {
        if let Place::Directory(path) = &self.place {
            return tree::content(&snapshot_of(path, name));
        }
        let (bucket, entries) = self.entries(name).await;
        let reader = bucket.provider().reader(&name.parse().unwrap()).await.unwrap();
        let reads = entries.into_iter().map(|entry| {
            let reader = reader.clone();
            async move {
                let object = reader.read(&entry, None).await;
                object.map(|object| (entry.key.as_bytes().to_vec(), object.data.to_vec()))
            }
        });
        let read: Result<_> = futures::stream::iter(reads).buffer_unordered(8).try_collect().await;
        Content(read.unwrap_or_else(|error| panic!("{name} of {}: {error}", self.url())))
    }

    /// Fails the test unless every key of a server is now of the version that it has in a snapshot, and there is no other.
    pub(crate) async fn assert_live_as(&self, name: &str) {
        let (bucket, entries) = self.entries(name).await;
        let listed = bucket.store().list(ListOptions { versions: true, ..ListOptions::default() }).await.unwrap();
        let versions = |entries: Vec<Entry>| {
            let versions = entries.into_iter().map(|entry| (entry.key, entry.pin.version.unwrap()));
            versions.collect::<BTreeMap<_, _>>()
        };
        assert_eq!(versions(listed.collect().await.unwrap()), versions(entries), "{} is not as {name}", self.url());
    }

    async fn entries(&self, name: &str) -> (snapferry::bucket::Bucket, Vec<Entry>) {
        let bucket = self.open(&Clock::default()).await;
        let manifest = bucket.catalog().manifest(&name.parse().unwrap()).await.unwrap();
        let segments = Arc::new(StoreSegments::new(bucket.catalog(), Handle::current()));
        let read = tokio::task::spawn_blocking(move || manifest.entries(segments).collect::<Result<Vec<_>>>());
        let entries = read.await.unwrap().unwrap().into_iter().filter(|entry| entry.kind == Kind::Object);
        (bucket, entries.collect())
    }

    /// Versions of each key, and keys with a delete marker; snapferry's own left out. Of a server.
    pub(crate) fn versions(&self) -> (BTreeMap<String, usize>, BTreeSet<String>) {
        let (mut versions, mut markers) = (BTreeMap::new(), BTreeSet::new());
        let every = self.bucket().unwrap().every_version();
        for (key, _, _, is_marker) in
            every.into_iter().filter(|(key, ..)| !key.starts_with(".snapferry/") && !key.ends_with('/'))
        {
            if is_marker {
                markers.insert(key);
            } else {
                *versions.entry(key).or_insert(0) += 1;
            }
        }
        (versions, markers)
    }
}
