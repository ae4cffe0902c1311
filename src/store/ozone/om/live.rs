//! Against a real cluster: `SNAPFERRY_TEST_OZONE` is the URL of a volume in which buckets may be made, such as
//! `o3://127.0.0.1/vol1?grpc=8981&s3=http://127.0.0.1:9878`, where
//! security is off. Without it nothing is tested.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt, iter};

use super::channel::Access;
use super::messages::{self, OmRequest, command};
use super::{BucketClient, DiffOptions, DifferenceKind, KeyKind, Layout, OzoneManager};
use crate::error::{Error, Kind};
use crate::key::Key;
use crate::store::ozone::address::{Endpoints, Location};
use crate::store::ozone::site::Site;
use crate::store::s3::S3Store;
use crate::store::{Condition, Store};

struct Lab {
    om: OzoneManager,
    volume: String,
    endpoints: Endpoints,
}

fn lab() -> Option<Lab> {
    let Ok(url) = std::env::var("SNAPFERRY_TEST_OZONE") else {
        eprintln!("skipped: SNAPFERRY_TEST_OZONE names no volume");
        return None;
    };
    let location = Location::parse(&url.replacen('?', "/any?", 1)).unwrap();
    let endpoints = location.endpoints(&Site::from_environment().unwrap()).unwrap();
    let access = Access { user: Some("om".into()), ..Access::default() };
    let om = OzoneManager::new(&location.cluster, &endpoints.managers, access).unwrap();
    Some(Lab { om, volume: location.volume, endpoints })
}

fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

impl Lab {
    /// A bucket of its own, and the way to write to it: through a link in the gateway's volume.
    async fn bucket(&self, name: &str, layout: Layout) -> (BucketClient, Arc<S3Store>) {
        let name = format!("om-{name}-{}", now_ns());
        let wire = messages::BucketInfo {
            volume: self.volume.clone(),
            bucket: name.clone(),
            storage_type: 1,
            layout: Some(match layout {
                Layout::Legacy => 1,
                Layout::Fso => 2,
                Layout::Obs => 3,
            }),
            ..Default::default()
        };
        let request = OmRequest {
            create_bucket: Some(messages::CreateBucketRequest { bucket: wire }),
            ..OmRequest::of(command::CREATE_BUCKET)
        };
        let bucket = self.om.at(&self.volume, &name);
        bucket.call(request).await.unwrap().outcome.map_err(bucket.failed("")).unwrap();
        self.om.create_link("s3v", &name, (&self.volume, &name)).await.unwrap();
        let url = format!("s3://{name}?endpoint={}&checksum=md5&versions=off", self.endpoints.gateway);
        (bucket, Arc::new(S3Store::open_as(&url, Some("om")).await.unwrap()))
    }
}

async fn put(store: &S3Store, key: &str, data: &'static str) {
    let data = Bytes::from_static(data.as_bytes());
    store.write(&Key::from(key), data, &Default::default(), &Condition::Any).await.unwrap();
}

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> Kind {
    result.unwrap_err().kind()
}

fn names(keys: &[super::KeyInfo]) -> Vec<&str> {
    keys.iter().map(|key| key.name.as_str()).collect()
}

#[tokio::test]
async fn buckets_and_links() {
    let Some(lab) = lab() else { return };
    let (bucket, _) = lab.bucket("links", Layout::Obs).await;
    let (volume, name) = (bucket.volume(), bucket.name());
    let info = lab.om.bucket("s3v", name).await.unwrap();
    assert_eq!((info.volume.as_str(), info.bucket.as_str(), info.layout), (volume, name, Layout::Obs));
    assert_eq!((info.quota_bytes, info.encrypted), (None, false));

    // Again, and a link to the link.
    lab.om.create_link("s3v", name, (volume, name)).await.unwrap();
    let second = format!("{name}-2");
    lab.om.create_link("s3v", &second, ("s3v", name)).await.unwrap();
    assert_eq!(lab.om.bucket("s3v", &second).await.unwrap(), info);
    assert_eq!(kind(lab.om.create_link("s3v", &second, (volume, "other")).await), Kind::AlreadyExists);
    let listed = lab.om.buckets("s3v").await.unwrap();
    let found = listed.iter().find(|info| info.bucket == name).unwrap();
    assert_eq!(found.link, Some((volume.to_owned(), name.to_owned())));

    for error in [
        lab.om.bucket(volume, "no-such-bucket").await.unwrap_err(),
        lab.om.bucket("no-such-volume", "any").await.unwrap_err(),
        lab.om.buckets("no-such-volume").await.unwrap_err(),
    ] {
        eprintln!("{error} [{:?}]", error.way_out());
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.way_out().is_some());
    }
}

#[tokio::test]
async fn snapshots_come_and_go() {
    let Some(lab) = lab() else { return };
    let (bucket, _) = lab.bucket("snaps", Layout::Fso).await;
    assert_eq!(bucket.snapshot("one").await.unwrap(), None);
    let made = bucket.create_snapshot("one").await.unwrap();
    assert!(made.active && made.id.len() == 36 && made.created_ms > 1_700_000_000_000, "{made:?}");
    assert_eq!(bucket.snapshot("one").await.unwrap().as_ref(), Some(&made));
    assert_eq!(kind(bucket.create_snapshot("one").await), Kind::AlreadyExists);
    // Without the look before.
    let request =
        OmRequest { create_snapshot: Some(bucket.snapshot_name("one")), ..OmRequest::of(command::CREATE_SNAPSHOT) };
    let refusal = bucket.call(request).await.unwrap().outcome.unwrap_err();
    assert!(refusal.is_taken(), "{refusal:?}");

    for name in ["two", "three", "twelve"] {
        bucket.create_snapshot(name).await.unwrap();
    }
    let page = bucket.snapshots("tw", None, 1).await.unwrap();
    assert_eq!(page.snapshots.len(), 1);
    let rest = bucket.snapshots("tw", page.next.as_deref(), 10).await.unwrap();
    let mut all: Vec<_> = [page.snapshots, rest.snapshots].concat().into_iter().map(|found| found.name).collect();
    all.sort();
    assert_eq!((all, rest.next), (vec!["twelve".to_owned(), "two".to_owned()], None));

    assert!(bucket.delete_snapshot("one").await.unwrap());
    eprintln!("deleted: {:?}", bucket.snapshot("one").await);
    assert!(bucket.snapshot("one").await.unwrap().is_none_or(|found| !found.active));
    assert!(!bucket.delete_snapshot("one").await.unwrap());
    assert!(!bucket.delete_snapshot("never").await.unwrap());
    eprintln!("the name anew: {:?}", bucket.create_snapshot("one").await);
    eprintln!("a bad name: {:?}", bucket.create_snapshot("a/b").await);
    let nowhere = lab.om.at(bucket.volume(), "no-such-bucket");
    eprintln!("no bucket: {:?} {:?}", nowhere.snapshot("one").await, nowhere.snapshots("", None, 9).await);
    assert_eq!(kind(nowhere.create_snapshot("one").await), Kind::NotFound);
}

#[tokio::test]
async fn flat_keys() {
    let Some(lab) = lab() else { return };
    let (bucket, store) = lab.bucket("flat", Layout::Obs).await;
    let order = ["!", "a", "a b", "a!", "a/", "a/b", "a//b", "b", "z", "\u{e9}", "\u{1f600}"];
    for key in order {
        put(&store, key, if key.ends_with('/') { "" } else { "content" }).await;
    }
    put(&store, ".snapferry/receipt", "own").await;
    bucket.create_snapshot("one").await.unwrap();
    put(&store, "b", "another content").await;
    put(&store, "c", "new").await;

    for snapshot in [None, Some("one")] {
        let page = bucket.list_keys(snapshot, "", None, 1000).await.unwrap();
        let listed = names(&page.keys);
        eprintln!("{snapshot:?}: {listed:?} {}", page.truncated);
        let expected = 12 + usize::from(snapshot.is_none());
        assert_eq!((listed.len(), page.truncated), (expected, false));
        assert!(listed.is_sorted());
        // The same in pages, and below a prefix.
        let (mut paged, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = bucket.list_keys(snapshot, "", after.as_deref(), 5).await.unwrap();
            after = page.keys.last().map(|key| key.name.clone()).or(after);
            paged.extend(page.keys);
            if !page.truncated {
                break;
            }
        }
        assert_eq!(names(&paged), listed);
        let own = bucket.list_keys(snapshot, ".snapferry/", None, 10).await.unwrap();
        assert_eq!(names(&own.keys), [".snapferry/receipt"]);

        let b = bucket.key_info(snapshot, "b").await.unwrap().unwrap();
        eprintln!("{b:?}");
        assert_eq!((b.name.as_str(), b.kind), ("b", KeyKind::File));
        assert_eq!(b.size, if snapshot.is_some() { 7 } else { 15 });
        assert_eq!(b.etag.as_ref().map(String::len), Some(32));
        assert_eq!((b.blocks.len(), b.blocks[0].length), (1, b.size));
        assert_eq!(b.blocks[0].nodes.first().map(|node| node.port > 0), Some(true));
        assert_eq!(bucket.key_info(snapshot, "nothing").await.unwrap(), None);
        assert!(bucket.file_status(snapshot, "b").await.unwrap().is_some());
        assert_eq!(bucket.file_status(snapshot, "nothing").await.unwrap(), None);
    }
    assert_eq!(bucket.key_info(Some("one"), "c").await.unwrap(), None);
    eprintln!("no snapshot: {:?}", bucket.key_info(Some("two"), "c").await);
    eprintln!("no snapshot: {:?}", bucket.list_keys(Some("two"), "", None, 10).await);
}

/// What [`BucketClient::list_keys`] says of the order, and whether pages lose or repeat names because of it.
#[tokio::test]
async fn the_order_of_characters_beyond_the_basic_plane() {
    let Some(lab) = lab() else { return };
    let (bucket, store) = lab.bucket("order", Layout::Obs).await;
    for key in ["a", "\u{ffe0}", "\u{ffee}", "\u{1f600}", "\u{1f601}"] {
        put(&store, key, "content").await;
    }
    bucket.create_snapshot("one").await.unwrap();
    for snapshot in [None, Some("one")] {
        for count in 1..=6 {
            let (mut paged, mut after) = (Vec::new(), None::<String>);
            loop {
                let page = bucket.list_keys(snapshot, "", after.as_deref(), count).await.unwrap();
                after = page.keys.last().map(|key| key.name.clone()).or(after);
                paged.extend(page.keys);
                if !page.truncated || paged.len() > 20 {
                    break;
                }
            }
            eprintln!("{snapshot:?} by {count}: {:?}", names(&paged));
        }
    }
}

#[tokio::test]
async fn directories() {
    let Some(lab) = lab() else { return };
    let (bucket, store) = lab.bucket("tree", Layout::Fso).await;
    for key in ["a/b/c", "a/b-", "a/b!", "a/z", "top", ".snapferry/receipt"] {
        put(&store, key, "content").await;
    }
    bucket.create_directory("empty/deep").await.unwrap();
    bucket.create_directory("empty/deep").await.unwrap();
    assert_eq!(kind(bucket.create_directory("top").await), Kind::AlreadyExists);
    eprintln!("below a file: {:?}", bucket.create_directory("top/x").await);
    bucket.create_snapshot("one").await.unwrap();

    for snapshot in [None, Some("one")] {
        let root = bucket.list_directory(snapshot, "", None, 100).await.unwrap();
        eprintln!("{snapshot:?}: {:?}", names(&root.children));
        assert_eq!(names(&root.children), [".snapferry", "a", "empty", "top"]);
        let kinds: Vec<_> = root.children.iter().map(|child| child.kind == KeyKind::Directory).collect();
        assert_eq!((kinds, root.truncated), (vec![true, true, true, false], false));
        let (mut children, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = bucket.list_directory(snapshot, "a", after.as_deref(), 2).await.unwrap();
            after = page.children.last().map(|child| child.name.clone()).or(after);
            children.extend(page.children);
            if !page.truncated {
                break;
            }
        }
        eprintln!("{:?}", names(&children));
        assert_eq!(names(&children), ["a/b", "a/b!", "a/b-", "a/z"]);
        assert!(children.iter().skip(1).all(|child| child.blocks.len() == 1 && child.etag.is_some()), "{children:?}");
        assert_eq!(kind(bucket.list_directory(snapshot, "nothing", None, 9).await), Kind::NotFound);
        eprintln!(
            "a file: {:?}",
            bucket.list_directory(snapshot, "top", None, 9).await.map(|page| page.children.len())
        );
        assert!(bucket.list_directory(snapshot, "empty/deep", None, 9).await.unwrap().children.is_empty());
        assert_eq!(bucket.key_info(snapshot, "a").await.unwrap(), None);
        let a = bucket.file_status(snapshot, "a").await.unwrap().unwrap();
        assert_eq!((a.name.as_str(), a.kind), ("a", KeyKind::Directory));
        assert_eq!(bucket.key_info(snapshot, "a/b/c").await.unwrap().unwrap().name, "a/b/c");
        assert_eq!(bucket.file_status(snapshot, "a/nothing").await.unwrap(), None);
    }
}

#[tokio::test]
async fn changes_of_flat_keys() {
    let Some(lab) = lab() else { return };
    let (bucket, store) = lab.bucket("flatmv", Layout::Obs).await;
    for key in ["a", "b", "c", "d/e"] {
        put(&store, key, "content").await;
    }
    bucket.rename("a", "x/y/a").await.unwrap();
    assert_eq!(kind(bucket.rename("a", "z").await), Kind::NotFound);
    let onto = bucket.rename("b", "c").await.unwrap_err();
    eprintln!("onto a key: {onto}");
    assert_eq!(onto.kind(), Kind::AlreadyExists);
    bucket.rename_all(&[("b", "b2"), ("c", "c2")]).await.unwrap();
    let error = bucket.rename_all(&[("b2", "b3"), ("gone", "there"), ("c2", "c3")]).await.unwrap_err();
    eprintln!("{error}");
    assert_eq!(error.failed_key(), Some(&Key::from("gone")));
    eprintln!("after: {:?}", names(&bucket.list_keys(None, "", None, 99).await.unwrap().keys));
    let swap = bucket.rename_all(&[("b3", "c3"), ("c3", "b3")]).await;
    assert_eq!(kind(swap), Kind::Internal);
    eprintln!("many onto a key: {:?}", bucket.rename_all(&[("b3", "c3")]).await);
    let left = bucket.list_keys(None, "", None, 99).await.unwrap().keys;
    // Ozone 2.2.0 refuses it and drops the source all the same.
    eprintln!("left: {:?}", names(&left));
    assert!(names(&left).ends_with(&["c3", "d/e", "x/y/a"]));

    assert!(bucket.delete("x/y/a", false).await.unwrap());
    assert!(!bucket.delete("x/y/a", false).await.unwrap());
    bucket.delete_all(&["d/e", "never", "b3", "c3", "b2", "c2"]).await.unwrap();
    bucket.delete_all(&["never"]).await.unwrap();
    assert!(bucket.list_keys(None, "", None, 9).await.unwrap().keys.is_empty());
    let nowhere = lab.om.at(bucket.volume(), "no-such-bucket");
    for outcome in [
        nowhere.delete("x", false).await.map(drop),
        nowhere.delete_all(&["x"]).await,
        nowhere.rename("x", "y").await,
        nowhere.rename_all(&[("x", "y")]).await,
        nowhere.key_info(None, "x").await.map(drop),
        nowhere.file_status(None, "x").await.map(drop),
        nowhere.list_keys(None, "", None, 9).await.map(drop),
        nowhere.list_directory(None, "", None, 9).await.map(drop),
    ] {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        assert!(error.to_string().contains("BUCKET_NOT_FOUND"), "{error}");
    }
}

#[tokio::test]
async fn changes_of_directories() {
    let Some(lab) = lab() else { return };
    let (bucket, store) = lab.bucket("treemv", Layout::Fso).await;
    for key in ["a/b/c", "a/d", "e/f", "g"] {
        put(&store, key, "content").await;
    }
    eprintln!("below nothing: {:?}", bucket.rename("a", "new/parent/a").await);
    bucket.create_directory("new").await.unwrap();
    bucket.rename("a", "new/a").await.unwrap();
    assert_eq!(bucket.key_info(None, "new/a/b/c").await.unwrap().map(|key| key.size), Some(7));
    let onto = bucket.rename("g", "e/f").await.unwrap_err();
    eprintln!("onto a file: {onto}");
    assert_eq!(onto.kind(), Kind::AlreadyExists);
    eprintln!("onto a directory: {:?}", bucket.rename("g", "new").await);
    eprintln!("into itself: {:?}", bucket.rename("new", "new/a/new").await);
    eprintln!("many: {:?}", bucket.rename_all(&[("e/f", "e/g")]).await);

    let full = bucket.delete("new", false).await.unwrap_err();
    eprintln!("not empty: {full}");
    assert!(full.to_string().contains("DIRECTORY_NOT_EMPTY"));
    assert!(bucket.delete("new", true).await.unwrap());
    assert_eq!(bucket.file_status(None, "new/a").await.unwrap(), None);
    assert!(!bucket.delete("new", true).await.unwrap());
    bucket.create_directory("empty").await.unwrap();
    eprintln!("many, with directories: {:?}", bucket.delete_all(&["e/f", "e/g", "empty", "e", "gone"]).await);
    eprintln!("after: {:?}", names(&bucket.list_directory(None, "", None, 99).await.unwrap().children));
    eprintln!("many, not empty: {:?}", {
        put(&store, "full/x", "content").await;
        bucket.delete_all(&["full", "g"]).await
    });
    eprintln!("after: {:?}", names(&bucket.list_directory(None, "", None, 99).await.unwrap().children));
}

#[tokio::test]
async fn diffs() {
    let Some(lab) = lab() else { return };
    for layout in [Layout::Obs, Layout::Fso] {
        let (bucket, store) = lab.bucket("diff", layout).await;
        for key in ["keep", "change", "move", "drop"] {
            put(&store, key, "content").await;
        }
        bucket.create_snapshot("one").await.unwrap();
        put(&store, "change", "another").await;
        put(&store, "fresh", "content").await;
        bucket.rename("move", "moved").await.unwrap();
        bucket.delete("drop", false).await.unwrap();
        bucket.create_snapshot("two").await.unwrap();

        eprintln!("before: {:?}", bucket.diff_report("one", "two", "", DiffOptions::default()).await);
        let begun = Instant::now();
        let options = DiffOptions { page_size: 2, ..DiffOptions::default() };
        let mut pages = bucket.diff_pages("one", "two", options, Duration::from_secs(60));
        let mut all = Vec::new();
        while let Some(entries) = pages.next().await.unwrap() {
            eprintln!("{:?} {entries:?}", begun.elapsed());
            all.extend(entries);
        }
        let of = |kind| {
            let found = all.iter().filter(|entry| entry.kind == kind);
            found.map(|entry| (entry.source.as_str(), entry.target.as_deref())).collect::<Vec<_>>()
        };
        assert_eq!(of(DifferenceKind::Create), [("fresh", None)]);
        assert_eq!(of(DifferenceKind::Modify), [("change", None)]);
        assert_eq!(of(DifferenceKind::Delete), [("drop", None)]);
        assert_eq!(of(DifferenceKind::Rename), [("move", Some("moved"))]);
        eprintln!("cancel: {:?}", bucket.cancel_diff("one", "two").await);
        eprintln!("submit again: {:?}", bucket.submit_diff("one", "two", options).await);
        let forced = DiffOptions { force_full: true, ..options };
        let mut pages = bucket.diff_pages("one", "two", forced, Duration::from_secs(60));
        let mut count = 0;
        while let Some(entries) = pages.next().await.unwrap() {
            count += entries.len();
        }
        assert_eq!(count, all.len());
        let error = bucket.diff_pages("one", "never", options, Duration::from_secs(9)).next().await.unwrap_err();
        eprintln!("no snapshot: {error}");
        assert_eq!(error.kind(), Kind::NotFound);
    }
}

/// Figures, not a test: run with `--ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn speeds() {
    const KEYS: usize = 2000;
    let Some(lab) = lab() else { return };
    for layout in [Layout::Obs, Layout::Fso] {
        let (bucket, store) = lab.bucket("speed", layout).await;
        let begun = Instant::now();
        iter((0..KEYS).map(Ok))
            .try_for_each_concurrent(16, |n| {
                let store = store.clone();
                async move {
                    let key = Key::from(format!("d/{n:05}"));
                    store.write(&key, "x".into(), &Default::default(), &Condition::Any).await.map(drop)
                }
            })
            .await
            .unwrap();
        eprintln!("{layout:?}: {KEYS} PUT in {:?}", begun.elapsed());
        bucket.create_snapshot("one").await.unwrap();
        for count in [100, 1000, 5000, 5000] {
            for snapshot in [None, Some("one")] {
                let (begun, before) = (Instant::now(), lab.om.requests());
                let (mut total, mut after) = (0, None::<String>);
                loop {
                    let (keys, truncated) = if layout == Layout::Obs {
                        let page = bucket.list_keys(snapshot, "", after.as_deref(), count).await.unwrap();
                        (page.keys, page.truncated)
                    } else {
                        let page = bucket.list_directory(snapshot, "d", after.as_deref(), count).await.unwrap();
                        (page.children, page.truncated)
                    };
                    total += keys.len();
                    after = keys.last().map(|key| key.name.clone()).or(after);
                    if !truncated {
                        break;
                    }
                }
                assert_eq!(total, KEYS);
                let requests = lab.om.requests() - before;
                eprintln!("{layout:?} {snapshot:?}: {count} a page: {requests} requests, {:?}", begun.elapsed());
            }
        }
        let each = |begun: Instant, what: &str, count: usize| {
            eprintln!("{layout:?}: {what}: {:.0}/s", count as f64 / begun.elapsed().as_secs_f64());
        };
        let begun = Instant::now();
        iter(0..KEYS)
            .map(|n| {
                let bucket = &bucket;
                async move { bucket.key_info(None, &format!("d/{n:05}")).await }
            })
            .buffer_unordered(16)
            .try_for_each(|found| async move {
                assert!(found.is_some());
                Ok(())
            })
            .await
            .unwrap();
        each(begun, "GetKeyInfo, 16 at once", KEYS);
        let begun = Instant::now();
        iter(0..500)
            .map(|n| {
                let bucket = &bucket;
                async move { bucket.rename(&format!("d/{n:05}"), &format!("d/r{n:05}")).await }
            })
            .buffer_unordered(16)
            .try_collect::<Vec<()>>()
            .await
            .unwrap();
        each(begun, "RenameKey, 16 at once", 500);
        if layout == Layout::Obs {
            let begun = Instant::now();
            let pairs: Vec<_> = (500..KEYS).map(|n| (format!("d/{n:05}"), format!("d/r{n:05}"))).collect();
            iter(pairs.chunks(25))
                .map(|chunk| {
                    let bucket = &bucket;
                    async move {
                        let pairs: Vec<_> = chunk.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
                        bucket.rename_all(&pairs).await
                    }
                })
                .buffer_unordered(16)
                .try_collect::<Vec<()>>()
                .await
                .unwrap();
            each(begun, "RenameKeys of 25, 16 at once, keys", KEYS - 500);
        }
        let begun = Instant::now();
        let keys: Vec<_> = (0..KEYS)
            .map(|n| if n < 500 || layout == Layout::Obs { format!("d/r{n:05}") } else { format!("d/{n:05}") })
            .collect();
        let outcome: Result<Vec<()>, _> =
            iter(keys.chunks(250)).map(|chunk| bucket.delete_all(chunk)).buffer_unordered(4).try_collect().await;
        eprintln!("{outcome:?}");
        each(begun, "DeleteKeys of 250, 4 at once, keys", KEYS);
    }
}
