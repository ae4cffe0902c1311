//! Snapshots that go: what the others need stays, what nobody needs goes, whatever happens in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::tz::TimeZone;
use snapferry::catalog::{Hold, StoreSegments};
use snapferry::error::{Error, Kind as ErrorKind, Result, Side};
use snapferry::manifest::{Entry, Kind};
use snapferry::prune::{Context, Pruned, prune};
use snapferry::retention::Rules;
use snapferry::snapshot::Name;
use snapferry::store::fault::{Effect, Fault, Rule, When};
use snapferry::store::record::{Op, Record};
use snapferry::store::{ListOptions, NULL_VERSION, Version};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::crash::step;
use super::world::{Ask, Like, Place, World, block_on};

const NIGHTS: usize = 5;

/// What each snapshot holds.
type Contents = BTreeMap<String, BTreeMap<String, Bytes>>;

fn night(number: usize) -> String {
    format!("night-2026-11-{number:02}")
}

fn context() -> Context {
    Context {
        pattern: "night-%Y-%m-%d".parse().unwrap(),
        made: (1..=NIGHTS + 1).map(|number| night(number).parse().unwrap()).collect(),
        base: None,
        now: "2026-12-01T03:00:00Z".parse().unwrap(),
        zone: TimeZone::UTC,
    }
}

fn keep_last(keep: u32) -> Rules {
    Rules { keep_last: Some(keep), ..Rules::default() }
}

async fn prune_place(place: &Place, world: &World, side: Side, rules: &Rules) -> Result<Pruned> {
    let bucket = place.bucket(&world.state).await;
    Box::pin(prune(&bucket, side, rules, &context(), false, CancellationToken::new())).await
}

/// Five nights in which keys are made, changed, removed and made again; and versions that no night saw.
async fn nights(world: &World) -> Contents {
    let mut contents = Contents::new();
    for number in 1..=NIGHTS {
        let source = &world.source;
        source.put("stays", "always the same").await;
        source.put("changes", format!("between nights {number}")).await;
        source.put("changes", format!("in night {number}")).await;
        source.put("deep/er", format!("{}", number / 3)).await;
        source.put(&format!("of-{number}"), format!("of night {number}")).await;
        if number % 2 == 0 {
            source.delete("comes and goes").await;
            source.delete(&format!("of-{}", number - 1)).await;
        } else {
            source.put("comes and goes", format!("{number}")).await;
        }
        source.put("passing", "never in a snapshot").await;
        source.delete("passing").await;
        world.run(&night(number)).await.1.unwrap();
        let held = source.content().await;
        let held = held.into_iter().filter(|(_, held)| held.kind == Kind::Object);
        contents.insert(night(number), held.map(|(key, held)| (key.to_string(), held.data)).collect());
    }
    contents
}

async fn names(place: &Place, world: &World) -> BTreeSet<String> {
    let records = place.bucket(&world.state).await.records().await.unwrap();
    records.into_iter().map(|record| record.name.to_string()).collect()
}

/// The entries of a snapshot's manifest.
async fn entries(place: &Place, world: &World, name: &str) -> Vec<Entry> {
    let bucket = place.bucket(&world.state).await;
    let manifest = bucket.catalog().manifest(&name.parse().unwrap()).await.unwrap();
    let segments = Arc::new(StoreSegments::new(bucket.catalog(), Handle::current()));
    let read = tokio::task::spawn_blocking(move || manifest.entries(segments).collect::<Result<Vec<_>>>());
    read.await.unwrap().unwrap()
}

/// Every snapshot that is listed can be read, and holds what it held.
async fn check_readable(place: &Place, world: &World, contents: &Contents) {
    for name in names(place, world).await {
        let bucket = place.bucket(&world.state).await;
        let reader = bucket.provider().reader(&name.parse().unwrap()).await.unwrap();
        let mut found = BTreeMap::new();
        for entry in entries(place, world, &name).await.into_iter().filter(|entry| entry.kind == Kind::Object) {
            let data = reader.read(&entry, None).await.unwrap_or_else(|error| panic!("{name}: {error}")).data;
            found.insert(entry.key.to_string(), data);
        }
        assert_eq!(found, contents[&name], "{name}");
    }
}

/// Nothing is left of a snapshot that went: no segment, no document, no word of it.
async fn check_catalog(place: &Place, world: &World) {
    let (bucket, mut segments) = (place.bucket(&world.state).await, BTreeSet::new());
    let names = names(place, world).await;
    for name in &names {
        let manifest = bucket.catalog().manifest(&name.parse().unwrap()).await.unwrap();
        segments.extend(manifest.segments().iter().map(|segment| format!(".snapferry/segments/{}", segment.name())));
    }
    let listed = place.store.list(ListOptions { prefix: ".snapferry/".into(), ..ListOptions::default() });
    for entry in listed.await.unwrap().collect().await.unwrap() {
        let key = entry.key.to_string();
        let snapshot = key.strip_prefix(".snapferry/snapshots/").map(|rest| rest.split('/').next().unwrap());
        let known = segments.remove(&key)
            || key == ".snapferry/lease.json"
            || snapshot.is_some_and(|name| names.contains(name));
        assert!(known, "{key} is left");
    }
    assert_eq!(segments, BTreeSet::new());
}

async fn versions(place: &Place, prefix: &str) -> Vec<Version> {
    place.store.list_versions(&prefix.into()).await.unwrap().collect().await.unwrap()
}

/// What the listed snapshots refer to.
async fn wanted(place: &Place, world: &World) -> BTreeSet<(String, String)> {
    let mut wanted = BTreeSet::new();
    for name in names(place, world).await {
        for entry in entries(place, world, &name).await {
            wanted.insert((entry.key.to_string(), entry.pin.version.as_deref().unwrap_or(NULL_VERSION).to_owned()));
        }
    }
    wanted
}

fn id(version: &Version) -> (String, String) {
    (version.key.to_string(), version.id.to_string())
}

/// On a target nothing is left that is older than the newest seal, is not current and that no snapshot needs.
async fn check_target(world: &World, keep: &[usize], contents: &Contents) {
    let target = &world.target;
    assert_eq!(names(target, world).await, keep.iter().map(|number| night(*number)).collect());
    check_readable(target, world, contents).await;
    let wanted = wanted(target, world).await;
    let own = versions(target, ".snapferry/").await;
    let newest = format!(".snapferry/snapshots/{}/snapshot.json", night(*keep.last().unwrap()));
    let sealed_ns = own.iter().find(|one| one.current && one.key.to_string() == newest).unwrap().mtime_ns;
    let all = versions(target, "").await;
    let mut needed = BTreeMap::new();
    for version in &all {
        *needed.entry(version.key.clone()).or_insert(0) += usize::from(!version.removal);
    }
    for version in all.iter().chain(&own).filter(|version| version.mtime_ns < sealed_ns) {
        let needless = match (version.current, version.removal) {
            (true, false) => false,
            (true, true) => needed.get(&version.key).is_none_or(|count| *count == 0),
            (false, _) => !wanted.contains(&id(version)),
        };
        assert!(!needless, "{version:?} is left");
    }
    check_catalog(target, world).await;
}

/// On a source exactly those are gone that only the pruned snapshots referred to and that are not current.
async fn check_source(world: &World, before: &[Version], pruned: &BTreeSet<(String, String)>, contents: &Contents) {
    check_readable(&world.source, world, contents).await;
    let wanted = wanted(&world.source, world).await;
    let expected: BTreeSet<_> = before
        .iter()
        .filter(|one| one.current || wanted.contains(&id(one)) || !pruned.contains(&id(one)))
        .map(id)
        .collect();
    let found: BTreeSet<_> = versions(&world.source, "").await.iter().map(id).collect();
    assert_eq!(found, expected);
    check_catalog(&world.source, world).await;
}

#[test]
fn what_is_left_restores_and_nothing_needless_stays() {
    block_on(async {
        let world = World::new(Like::Versioned, Like::Versioned);
        let contents = Box::pin(nights(&world)).await;
        let held = world.target.bucket(&world.state).await;
        let hold = |hold: &mut Hold| hold.since = Some(jiff::Timestamp::now());
        held.catalog().change_hold(&night(2).parse().unwrap(), hold).await.unwrap();
        let pruned = Box::pin(prune_place(&world.target, &world, Side::Target, &keep_last(2))).await.unwrap();
        assert_eq!(pruned.removed, [1, 3].map(|number| night(number).parse::<Name>().unwrap()));
        assert!(pruned.versions_removed > 5 && pruned.bytes_freed > 0 && pruned.put_off.is_none(), "{pruned}");
        check_target(&world, &[2, 4, 5], &contents).await;
        let (_, restored) = world.restored(&night(2)).await;
        let restored = restored.into_iter().map(|(key, held)| (key.to_string(), held.data)).collect::<BTreeMap<_, _>>();
        assert_eq!(restored, contents[&night(2)]);

        // A second time there is nothing left to do but for what the first one wrote itself.
        let again = Box::pin(prune_place(&world.target, &world, Side::Target, &keep_last(2))).await.unwrap();
        assert_eq!((again.removed.len(), again.versions_removed), (0, 0), "{again}");

        // And the next night goes on as if nothing had been.
        world.source.put("after", "pruning").await;
        let (report, outcome) = world.run(&night(6)).await;
        outcome.unwrap();
        assert_eq!((report.objects_copied, report.drift), (1, 0));
        let mut contents = contents;
        let held = world.source.content().await.into_iter().map(|(key, held)| (key.to_string(), held.data)).collect();
        contents.insert(night(6), held);
        Box::pin(prune_place(&world.target, &world, Side::Target, &keep_last(2))).await.unwrap();
        check_target(&world, &[2, 5, 6], &contents).await;
    });
}

#[test]
fn a_source_keeps_what_is_the_users() {
    block_on(async {
        let world = World::new(Like::Versioned, Like::Versioned);
        let contents = Box::pin(nights(&world)).await;
        let before = versions(&world.source, "").await;
        let mut old = BTreeSet::new();
        for number in 1..=3 {
            let entries = entries(&world.source, &world, &night(number)).await;
            old.extend(
                entries.iter().map(|entry| (entry.key.to_string(), entry.pin.version.as_deref().unwrap().to_owned())),
            );
        }
        let pruned = Box::pin(prune_place(&world.source, &world, Side::Source, &keep_last(2))).await.unwrap();
        assert_eq!((pruned.removed.len(), &pruned.put_off), (3, &None));
        let after = versions(&world.source, "").await;
        assert_eq!(pruned.versions_removed as usize, before.len() - after.len());
        assert!(pruned.versions_removed > 3);
        check_source(&world, &before, &old, &contents).await;
    });
}

/// Dies at any of its calls, before or after the effect: what is listed can be read, and the next run ends the work.
#[test]
fn killed_anywhere_it_is_finished_by_the_next_run() {
    block_on(async {
        for side in [Side::Target, Side::Source] {
            let mut call = 1;
            loop {
                let world = World::new(Like::Versioned, Like::Versioned);
                let contents = Box::pin(nights(&world)).await;
                let place = if side == Side::Target { &world.target } else { &world.source };
                let before = versions(place, "").await;
                let mut old = BTreeSet::new();
                for number in 1..=3 {
                    let entries = entries(place, &world, &night(number)).await;
                    let version = |entry: &Entry| entry.pin.version.as_deref().unwrap_or(NULL_VERSION).to_owned();
                    old.extend(entries.iter().map(|entry| (entry.key.to_string(), version(entry))));
                }
                let effect = if call % 2 == 0 { Effect::After(ErrorKind::Io) } else { Effect::Before(ErrorKind::Io) };
                let rules = [
                    Rule::new(None, When::Nth(call), effect),
                    Rule::new(None, When::From(call), Effect::Before(ErrorKind::Io)),
                ];
                let fault = Arc::new(Fault::new(place.store.clone(), rules));
                let died = Box::pin(prune_place(&place.through(fault.clone()), &world, side, &keep_last(2))).await;
                check_readable(place, &world, &contents).await;
                if fault.injected() == 0 {
                    died.unwrap();
                    break;
                }
                place.expire_lease().await;
                let again = Box::pin(prune_place(place, &world, side, &keep_last(2))).await.unwrap();
                assert_eq!(again.put_off, None, "call {call}");
                match side {
                    Side::Target => check_target(&world, &[4, 5], &contents).await,
                    Side::Source => check_source(&world, &before, &old, &contents).await,
                }
                assert_eq!(names(place, &world).await.len(), 2);
                call += step() as u64;
            }
            assert!(call > 30, "{side}: {call} calls only");
        }
    });
}

#[test]
fn a_job_at_work_puts_it_off() {
    block_on(async {
        let world = World::new(Like::Versioned, Like::Versioned);
        Box::pin(nights(&world)).await;
        let bucket = world.target.bucket(&world.state).await;
        let lease = bucket.lease("a long job", Duration::from_secs(60)).await.unwrap();
        let (before, since) = (versions(&world.target, "").await, Instant::now());
        let pruned = Box::pin(prune_place(&world.target, &world, Side::Target, &keep_last(2))).await.unwrap();
        assert!(since.elapsed() < Duration::from_secs(5), "it waited");
        assert!(pruned.put_off.unwrap().contains("a long job"));
        assert_eq!((pruned.removed.len(), names(&world.target, &world).await.len()), (0, 5));
        assert_eq!(versions(&world.target, "").await, before);
        lease.release(false).await.unwrap();
    });
}

/// A job that begins while pruning has the lease waits for it, and does not fail.
#[test]
fn a_job_waits_for_its_turn() {
    block_on(async {
        for like in [Like::Versioned, Like::Directory] {
            let world = World::new(Like::Versioned, like);
            Box::pin(nights(&world)).await;
            let bucket = world.target.bucket(&world.state).await;
            let lease = bucket.lease_briefly("prune").await.unwrap();
            let release = async {
                tokio::time::sleep(Duration::from_millis(800)).await;
                lease.release(false).await.unwrap();
                drop(lease);
            };
            let night = night(6);
            let (_, (_, outcome)) = tokio::join!(release, world.run(&night));
            outcome.unwrap();
        }
    });
}

#[test]
fn an_unfinished_job_keeps_all_versions() {
    block_on(async {
        let world = World::new(Like::Versioned, Like::Versioned);
        let mut contents = Box::pin(nights(&world)).await;
        world.source.put("new-1", "1").await;
        world.source.put("new-2", "2").await;
        let dies = [Rule::new(Op::Write, When::From(1), Effect::Before(ErrorKind::Io)).key("new-2")];
        let target = world.target.through(Arc::new(Fault::new(world.target.store.clone(), dies)));
        world.between(&world.source, &target, &night(6), Ask::default()).await.1.unwrap_err();
        world.target.expire_lease().await;
        let before = versions(&world.target, "").await;
        let pruned = Box::pin(prune_place(&world.target, &world, Side::Target, &keep_last(2))).await.unwrap();
        assert!(pruned.put_off.unwrap().contains("unfinished"));
        assert_eq!((pruned.removed.len(), pruned.versions_removed), (3, 0));
        assert_eq!(versions(&world.target, "").await, before);

        world.run(&night(6)).await.1.unwrap();
        let held = world.source.content().await.into_iter().map(|(key, held)| (key.to_string(), held.data)).collect();
        contents.insert(night(6), held);
        let pruned = Box::pin(prune_place(&world.target, &world, Side::Target, &keep_last(2))).await.unwrap();
        assert!(pruned.versions_removed > 0 && pruned.put_off.is_none());
        check_target(&world, &[5, 6], &contents).await;
    });
}

/// While it looks for what may go, a snapshot of the past is taken, of what would have gone.
#[test]
fn a_snapshot_taken_meanwhile_keeps_what_it_needs() {
    block_on(async {
        let world = World::new(Like::Versioned, Like::Versioned);
        Box::pin(nights(&world)).await;
        let entries = entries(&world.target, &world, &night(2)).await;
        let bucket = world.target.bucket(&world.state).await;
        let sealed = versions(&world.target, ".snapferry/snapshots/night-2026-11-02/").await;
        let then = sealed.iter().map(|version| version.mtime_ns).max().unwrap();
        let take = async move {
            bucket.take(&"of-the-past".parse().unwrap(), Some(then)).await.unwrap();
        };
        let (target, hook) = world.target.hooked(|op, key| op == Op::ListVersions && key.is_empty(), take);
        let pruned = Box::pin(prune_place(&target, &world, Side::Target, &keep_last(2))).await.unwrap();
        assert!(hook.is_done());
        assert_eq!(pruned.versions_removed, 0);
        assert!(pruned.put_off.unwrap().contains("meanwhile"));
        for entry in entries {
            world.target.store.read(&entry, None).await.unwrap();
        }
        assert!(names(&world.target, &world).await.contains("of-the-past"));
        // The next time it counts as one that remains.
        let pruned = Box::pin(prune_place(&world.target, &world, Side::Target, &keep_last(2))).await.unwrap();
        assert!(pruned.versions_removed > 0);
        let past = self::entries(&world.target, &world, "of-the-past").await;
        for entry in past {
            world.target.store.read(&entry, None).await.unwrap();
        }
    });
}

/// Where the records of a source are kept with the target, others may have theirs elsewhere: no version is touched.
#[test]
fn records_kept_elsewhere_go_and_versions_stay() {
    block_on(async {
        let world = World::new(Like::Versioned, Like::Versioned);
        for number in 1..=NIGHTS {
            world.source.put("key", format!("{number}")).await;
            let catalog = snapferry::catalog::Catalog::of_other(world.target.store.clone(), "memory:source");
            let view = world.source.bucket(&world.state).await.read_only(catalog);
            view.take(&night(number).parse().unwrap(), None).await.unwrap();
        }
        let record = Arc::new(Record::new(world.source.store.clone()));
        let catalog = snapferry::catalog::Catalog::of_other(world.target.store.clone(), "memory:source");
        let view = world.source.through(record.clone()).bucket(&world.state).await.read_only(catalog.clone());
        let pruned =
            prune(&view, Side::Source, &keep_last(2), &context(), false, CancellationToken::new()).await.unwrap();
        assert_eq!((pruned.removed.len(), pruned.versions_removed), (3, 0));
        assert_eq!(record.counts(), BTreeMap::new(), "the source itself is left alone");
        assert_eq!(catalog.records().await.unwrap().len(), 2);
        assert_eq!(versions(&world.source, "").await.len(), NIGHTS);
    });
}

#[test]
fn trees_of_a_directory_go() {
    block_on(async {
        let world = World::new(Like::Directory, Like::Directory);
        let mut contents = Contents::new();
        for number in 1..=NIGHTS {
            world.source.put("a/file", format!("{number}")).await;
            world.run(&night(number)).await.1.unwrap();
            contents.insert(night(number), [("a/file".to_owned(), Bytes::from(number.to_string()))].into());
        }
        for (place, side) in [(&world.source, Side::Source), (&world.target, Side::Target)] {
            let bucket = place.bucket(&world.state).await;
            let dry = prune(&bucket, side, &keep_last(2), &context(), true, CancellationToken::new()).await.unwrap();
            assert!(dry.removed.is_empty() && dry.to_string().ends_with("3 of 5 snapshots would go"), "{dry}");
            // What a run left that died between the record and the tree.
            bucket.catalog().remove(&night(1).parse().unwrap()).await.unwrap();
            let pruned = Box::pin(prune_place(place, &world, side, &keep_last(2))).await.unwrap();
            assert_eq!(pruned.removed, [2, 3].map(|number| night(number).parse::<Name>().unwrap()));
            let trees: BTreeSet<_> = std::fs::read_dir(bucket.directory().unwrap().join(".snapshot"))
                .unwrap()
                .map(|tree| tree.unwrap().file_name().into_string().unwrap())
                .collect();
            assert!(trees.is_superset(&[night(4), night(5)].into()) && !trees.contains(&night(2)), "{trees:?}");
            check_readable(place, &world, &contents).await;
        }
    });
}

#[test]
fn stopped_on_request() {
    block_on(async {
        let world = World::new(Like::Versioned, Like::Versioned);
        Box::pin(nights(&world)).await;
        let (bucket, cancel) = (world.target.bucket(&world.state).await, CancellationToken::new());
        cancel.cancel();
        let error: Error = prune(&bucket, Side::Target, &keep_last(1), &context(), false, cancel).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert_eq!(names(&world.target, &world).await.len(), NIGHTS);
    });
}
