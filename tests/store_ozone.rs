//! The store of Ozone against real clusters, in both layouts and through both ways to the data.

#![allow(clippy::unwrap_used)]

mod common;
mod harness;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::conformance;
use harness::Numbers;
use harness::ozone::{Bucket, Cluster, Layout};
use snapferry::error::Kind;
use snapferry::key::Key;
use snapferry::manifest::Attributes;
use snapferry::store::ozone::OzoneStore;
use snapferry::store::{Condition, ListOptions, Store};

async fn open(bucket: &Bucket, more: &str) -> Arc<OzoneStore> {
    Arc::new(OzoneStore::open(&format!("{}{more}", bucket.url()), true).await.unwrap())
}

async fn conforms(layout: Layout) {
    let Some(cluster) = Cluster::from_environment("SNAPFERRY_TEST_OZONE") else { return };
    let bucket = cluster.bucket("conformance", layout);
    conformance::run(open(&bucket, "").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_directories_conforms() {
    conforms(Layout::Fso).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flat_bucket_conforms() {
    conforms(Layout::Obs).await;
}

/// What one way gives the other gives, too, live and from a snapshot, also of what was not written over S3.
#[tokio::test(flavor = "multi_thread")]
async fn both_ways_to_the_data_give_the_same() {
    let Some(cluster) = Cluster::from_environment("SNAPFERRY_TEST_OZONE") else { return };
    let mut numbers = Numbers(11);
    let contents = [0, 1, 4096, 300_000, 9 << 20].map(|size| numbers.bytes(size));
    for layout in [Layout::Fso, Layout::Obs] {
        let bucket = cluster.bucket("ways", layout);
        let direct = open(&bucket, "&data=direct").await;
        let gateway = open(&bucket, "&data=s3").await;
        for (index, data) in contents.iter().enumerate() {
            let key = Key::from(format!("s3/{index}"));
            direct.write(&key, data.clone().into(), &Attributes::default(), &Condition::Any).await.unwrap();
            bucket.put(&format!("ofs/{index}"), data);
        }
        direct.create_snapshot(&"first".parse().unwrap()).await.unwrap();
        bucket.call("delete", &["s3/3"]);
        let pairs = [
            (direct.clone(), gateway.clone()),
            (direct.at_snapshot("first").into(), gateway.at_snapshot("first").into()),
        ];
        for (index, (direct, gateway)) in pairs.into_iter().enumerate() {
            let mut objects = direct.list(ListOptions::default()).await.unwrap().collect().await.unwrap();
            objects.retain(|entry| !entry.key.is_directory());
            assert_eq!(objects.len(), 2 * contents.len() - (1 - index));
            for entry in objects {
                let number = entry.key.to_string().rsplit('/').next().unwrap().parse::<usize>().unwrap();
                for range in [None, Some(entry.size / 3..entry.size / 2)] {
                    let wanted = &contents[number][range
                        .clone()
                        .map_or(0..entry.size as usize, |range| range.start as usize..range.end as usize)];
                    assert!(direct.read(&entry, range.clone()).await.unwrap().data == wanted, "{}", entry.key);
                    assert!(gateway.read(&entry, range).await.unwrap().data == wanted, "{}", entry.key);
                }
            }
        }
    }
}

/// The gateway heeds no condition on what a part is copied from: what is written meanwhile must not get into the part.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_of_what_was_pinned_or_none() {
    let Some(cluster) = Cluster::from_environment("SNAPFERRY_TEST_OZONE") else { return };
    let store = open(&cluster.bucket("parts", Layout::Obs), "").await;
    let (from, to, none) = (Key::from("from"), Key::from("to"), Attributes::default());
    let contents = [vec![1; 12 << 20], vec![2; 12 << 20]].map(Bytes::from);
    let (mut copied, mut refused) = (0, 0);
    for delay_ms in [0, 5, 20, 50, 100, 200, 400, 2000] {
        store.write(&from, contents[0].clone(), &none, &Condition::Any).await.unwrap();
        let entry = store.stat(&from).await.unwrap().unwrap();
        let pieces = store.pieces(&entry).await.unwrap().unwrap();
        assert_eq!(pieces.iter().map(|piece| piece.size).sum::<u64>(), entry.size);
        let upload = store.begin(&to, 11 << 20, &none).await.unwrap();
        let overwrite = async {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            store.write(&from, contents[1].clone(), &none, &Condition::Any).await.unwrap();
        };
        let copy = store.copy_part(&upload, 1, 0, &entry, 1 << 20..12 << 20);
        match futures::join!(copy, overwrite).0 {
            Ok(part) => {
                copied += 1;
                store.finish(&upload, &[part], &none, &Condition::Any).await.unwrap();
                let data = store.fetch(&to).await.unwrap().unwrap().0;
                assert!(data == contents[0][1 << 20..], "after {delay_ms} ms");
            }
            Err(error) => {
                refused += 1;
                assert_eq!((error.kind(), error.failed_key()), (Kind::Changed, Some(&from)), "{error}");
                store.abort(&upload).await.unwrap();
            }
        }
    }
    assert!(copied > 0, "none was copied");
    eprintln!("{copied} parts were copied and {refused} refused");
}

/// Ozone orders the names of a page by UTF-16 and goes on by bytes, so that it may leave some out at the end of a page.
#[tokio::test(flavor = "multi_thread")]
async fn names_beyond_the_basic_plane_are_listed_or_an_error() {
    let Some(cluster) = Cluster::from_environment("SNAPFERRY_TEST_OZONE") else { return };
    for layout in [Layout::Fso, Layout::Obs] {
        let store = open(&cluster.bucket("planes", layout), "").await;
        let mut keys: Vec<String> = (0..900).map(|number| format!("e/\u{1f600}{number:04}")).collect();
        keys.push("e/\u{ff01}".into());
        let put = async |key: &str| {
            for _ in 0..10 {
                match store.write(&key.into(), "data".into(), &Attributes::default(), &Condition::Any).await {
                    Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(300)).await,
                    outcome => return drop(outcome.unwrap()),
                }
            }
            panic!("`{key}` could not be written");
        };
        let listed = async || {
            store.list(ListOptions { prefix: "e/".into(), ..Default::default() }).await.unwrap().collect().await
        };
        for more in [0, 200] {
            keys.extend((0..more).map(|number| format!("e/\u{1f601}{number:04}")));
            for chunk in keys[if more == 0 { 0 } else { 901 }..].chunks(16) {
                futures::future::join_all(chunk.iter().map(|key| put(key))).await;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            match listed().await {
                Ok(entries) => {
                    assert_eq!(
                        entries.iter().filter(|entry| !entry.key.is_directory()).count(),
                        keys.len(),
                        "left out"
                    );
                }
                Err(error) => assert_eq!((error.kind(), more), (Kind::BadListing, 200), "{error}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_an_error() {
    let Some(cluster) = Cluster::from_environment("SNAPFERRY_TEST_OZONE") else { return };
    let bucket = cluster.bucket("there", Layout::Obs);
    for (old, new) in [("/there-", "/nowhere-"), ("/vol1/", "/vol9/")] {
        let url = bucket.url().replace(old, new);
        let error = OzoneStore::open(&url, false).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
    }
    for layout in [Layout::Fso, Layout::Obs] {
        let store = open(&cluster.bucket("never", layout), "").await;
        conformance::missing_bucket(Arc::new(store.at_snapshot("never-taken"))).await;
    }
}
