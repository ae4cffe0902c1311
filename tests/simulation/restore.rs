//! Restores in place: whatever was done to a bucket, it becomes as it was; nothing is replaced before all has landed; and
//! one that dies at any of its calls goes on, and keeps its first snapshot of what was there.

use futures::stream::{self, TryStreamExt};
use proptest::prelude::*;
use snapferry::error::Kind as ErrorKind;
use snapferry::key::Key;
use snapferry::manifest::Kind;
use snapferry::report::State;
use snapferry::store::fault::{Effect, Rule, When};
use snapferry::store::record::{Call, Op};

use super::crash::{dies_at, step, wrapped};
use super::tree::{Change, changes};
use super::world::{Content, Like, Place, World, block_on, difference};

use Change::{MakeDirectory, Mode, Put, Remove, Rename, Swap, Touch};

/// Cases under way at once.
const AT_ONCE: usize = 4;

/// The bucket that is restored, and the one that has the snapshot.
const PAIRS: [(Like, Like); 8] = [
    (Like::Versioned, Like::Versioned),
    (Like::Files, Like::Files),
    (Like::Files, Like::Versioned),
    (Like::Plain, Like::Plain),
    (Like::Versioned, Like::Files),
    (Like::Trees, Like::Trees),
    (Like::Plain, Like::Versioned),
    (Like::Trees, Like::Versioned),
];

fn first() -> Vec<Change> {
    let put = |name: &str, content| Put(name.into(), content);
    vec![
        put("left", 1),
        put("right", 2),
        put("changes", 7),
        put("same-length", 30),
        put("goes", 8),
        put("renamed", 9),
        put("deep/er/file", 10),
        put("deep/other", 11),
        put("object", 12),
        put("tree/inside", 13),
        put("mode", 14),
        put("touched", 15),
        put("stays", 16),
        MakeDirectory("hollow".into()),
    ]
}

fn damage() -> Vec<Change> {
    let put = |name: &str, content| Put(name.into(), content);
    vec![
        Swap("left".into(), "right".into()),
        put("changes", 17),
        put("same-length", 31),
        Remove("goes".into()),
        Rename("renamed".into(), "elsewhere".into()),
        Rename("deep".into(), "hollow".into()),
        put("object/inside", 20),
        put("tree", 21),
        Mode("mode".into(), 0o600),
        Touch("touched".into()),
        put("stranger", 22),
    ]
}

/// A primary, which is the source, with its snapshot on the other side, and then damaged; and what it was.
async fn damaged((primary, dr): (Like, Like), before: &[Change], damage: &[Change]) -> (World, Content) {
    let world = World::new(primary, dr);
    world.source.apply(before).await;
    let wanted = world.source.content().await;
    world.run("night").await.1.unwrap();
    world.source.apply(damage).await;
    (world, wanted)
}

/// Says how the primary is not what it was.
async fn check(world: &World, wanted: &Content) -> Result<(), String> {
    let found = world.source.content().await;
    difference(wanted, &world.target, &found, &world.source).map_or(Ok(()), Err)
}

/// Says what is left of what was staged, be it an older version.
async fn check_staging(world: &World) -> Result<(), String> {
    let (store, folder) = (&world.source.store, ".snapferry/staging/".into());
    let left = match store.capabilities().versions {
        true => {
            let versions = store.list_versions(&folder).await.unwrap().collect().await.unwrap();
            versions.iter().map(|version| version.key.clone()).collect::<Vec<_>>()
        }
        false => {
            let options = snapferry::store::ListOptions { prefix: folder, ..Default::default() };
            let entries = store.list(options).await.unwrap().collect().await.unwrap();
            entries.into_iter().filter(|entry| entry.kind == Kind::Object).map(|entry| entry.key).collect()
        }
    };
    if left.is_empty() { Ok(()) } else { Err(format!("left over: {left:?}")) }
}

/// Says how there is not exactly one snapshot of what was there, or how it is not that.
async fn check_safety(world: &World, report: &snapferry::report::Report, damaged: &Content) -> Result<(), String> {
    let Some(name) = report.safety_snapshot.as_ref() else {
        return if world.source.keeps() { Err("no safety snapshot".into()) } else { Ok(()) };
    };
    let prefix = ".snapferry/snapshots/before-restore-".into();
    let options = snapferry::store::ListOptions { prefix, ..Default::default() };
    let entries = world.source.store.list(options).await.unwrap().collect().await.unwrap();
    let records = entries.iter().filter(|entry| entry.key.to_string().ends_with("/snapshot.json")).count();
    if records != 1 {
        return Err(format!("{records} safety snapshots"));
    }
    let (outcome, place) = (world.restore_in_place(&world.source, &world.source, name.as_str()).await, &world.source);
    outcome.1.map_err(|error| format!("going back: {error}"))?;
    let found = place.content().await;
    difference(damaged, place, &found, place).map_or(Ok(()), |what| Err(format!("gone back: {what}")))
}

#[test]
fn a_damaged_bucket_becomes_as_it_was_and_goes_back() {
    block_on(async {
        for pair in PAIRS {
            let (world, wanted) = damaged(pair, &first(), &damage()).await;
            let there = world.source.content().await;
            let (report, outcome) = world.restore_in_place(&world.target, &world.source, "night").await;
            outcome.unwrap();
            assert_eq!((report.state, report.drift), (State::Restored, 0), "{pair:?}");
            check(&world, &wanted).await.unwrap();
            check_staging(&world).await.unwrap();
            check_safety(&world, &report, &there).await.unwrap();
        }
    });
}

/// A bucket that cannot be written is restored from all the same; from any other nothing takes the snapshot meanwhile.
#[test]
fn what_cannot_be_held_is_restored_all_the_same() {
    block_on(async {
        // Who may not list is denied what is not there, too.
        let asked = (Op::Fetch, ErrorKind::Denied);
        for effect in [None, Some((Op::Write, ErrorKind::Denied)), Some((Op::Write, ErrorKind::Full)), Some(asked)] {
            let (world, wanted) = damaged((Like::Versioned, Like::Versioned), &first(), &damage()).await;
            let rules = effect.map(|(op, kind)| {
                let key = Key::from(".snapferry/snapshots/night/hold.json");
                Rule::new(op, When::From(1), Effect::Before(kind)).key(key)
            });
            let (dr, record, _) = wrapped(&world.target, rules);
            world.restore_in_place(&dr, &world.source, "night").await.1.unwrap();
            check(&world, &wanted).await.unwrap();
            let calls = record.take();
            let hold = |call: &Call| call.keys == [".snapferry/snapshots/night/hold.json".into()];
            let writes = |call: &Call| call.op == Op::Write && hold(call);
            let (taken, given_back) = (calls.iter().position(writes), calls.iter().rposition(writes));
            let content = |call: &Call| call.op == Op::Read && !call.keys[0].is_reserved();
            let (begin, end) = (calls.iter().position(content), calls.iter().rposition(content));
            match effect {
                None => assert!(taken < begin && taken.is_some() && given_back > end),
                Some(_) => assert_eq!(taken, None),
            }
            let left = world.target.bucket(&world.state).await;
            assert_eq!(left.catalog().hold(&"night".parse().unwrap()).await.unwrap(), None);
        }
    });
}

/// Who may not remove versions leaves them, and restores all the same.
#[test]
fn versions_that_may_not_be_removed_stay() {
    block_on(async {
        let (world, wanted) = damaged((Like::Versioned, Like::Versioned), &first(), &damage()).await;
        let denied = Rule::new(Op::DeleteVersions, When::From(1), Effect::Before(ErrorKind::Denied));
        let (primary, _, _) = wrapped(&world.source, [denied]);
        world.restore_in_place(&world.target, &primary, "night").await.1.unwrap();
        check(&world, &wanted).await.unwrap();
        assert!(check_staging(&world).await.unwrap_err().contains("left over"));
        let options = snapferry::store::ListOptions { prefix: ".snapferry/staging/".into(), ..Default::default() };
        assert_eq!(world.source.store.list(options).await.unwrap().collect().await.unwrap(), []);
    });
}

/// Each object in turn cannot be read: then all that was there is there as it was, for nothing gives way before everything
/// has landed.
#[test]
fn nothing_is_replaced_before_everything_has_landed() {
    block_on(async {
        for pair in PAIRS {
            let (world, _) = damaged(pair, &first(), &damage()).await;
            let (dr, record, _) = wrapped(&world.target, []);
            world.restore_in_place(&dr, &world.source, "night").await.1.unwrap();
            let calls = record.take();
            let read = calls.iter().filter(|call| call.op == Op::Read && call.bytes > 0);
            let mut keys: Vec<_> = read.flat_map(|call| call.keys.clone()).filter(|key| !key.is_reserved()).collect();
            keys.sort();
            keys.dedup();
            assert!(keys.len() > 3, "{pair:?} reads {keys:?}");
            for key in keys {
                let (world, wanted) = damaged(pair, &first(), &damage()).await;
                let there = world.source.content().await;
                let broken = Rule::new(Op::Read, When::From(1), Effect::Before(ErrorKind::Denied)).key(key.clone());
                let (dr, _, _) = wrapped(&world.target, [broken]);
                let (_, outcome) = world.restore_in_place(&dr, &world.source, "night").await;
                assert!(outcome.is_err(), "{pair:?}: {key} was not needed");
                let found = world.source.content().await;
                for (held, content) in &there {
                    let now = found.get(held);
                    let same = now.is_some_and(|now| (&now.data, now.kind) == (&content.data, content.kind));
                    assert!(same, "{pair:?}: without {key}, {held} is {now:?} and was {content:?}");
                }
                // Only what was not there at all may be there now, and as it was.
                for (more, content) in found.iter().filter(|(more, _)| !there.contains_key(*more)) {
                    assert_eq!(Some(&content.data), wanted.get(more).map(|wanted| &wanted.data), "{pair:?}: {more}");
                }
                world.source.expire_lease().await;
                world.restore_in_place(&world.target, &world.source, "night").await.1.unwrap();
                check(&world, &wanted).await.unwrap();
            }
        }
    });
}

async fn die_and_go_on(pair: (Like, Like), at_primary: bool, n: u64, lose_state: bool) -> Result<(), String> {
    let (mut world, wanted) = damaged(pair, &first(), &damage()).await;
    let there = world.source.content().await;
    let (ours, theirs) =
        if at_primary { (dies_at(n, n.is_multiple_of(2)), Vec::new()) } else { (Vec::new(), dies_at(n, false)) };
    let ((primary, _, _), (dr, _, _)) = (wrapped(&world.source, ours), wrapped(&world.target, theirs));
    let (_, outcome) = world.restore_in_place(&dr, &primary, "night").await;
    world.source.expire_lease().await;
    if lose_state {
        world.lose_state();
    }
    let finished = outcome.is_ok();
    let (report, outcome) = world.restore_in_place(&world.target, &world.source, "night").await;
    match outcome {
        // Its last words were lost, and nothing else.
        Err(error) if error.kind() == ErrorKind::Refused && error.to_string().contains("already") => {
            return check(&world, &wanted).await;
        }
        outcome => outcome.map_err(|error| format!("the next run failed: {error}"))?,
    }
    if finished {
        return Err("it ran twice".into());
    }
    check(&world, &wanted).await?;
    check_staging(&world).await?;
    check_safety(&world, &report, &there).await
}

#[test]
fn dies_at_every_call_and_goes_on() {
    block_on(async {
        for (number, pair) in PAIRS.into_iter().enumerate() {
            let (world, _) = damaged(pair, &first(), &damage()).await;
            let ((primary, ours, _), (dr, theirs, _)) = (wrapped(&world.source, []), wrapped(&world.target, []));
            world.restore_in_place(&dr, &primary, "night").await.1.unwrap();
            let calls = [theirs.take().len() as u64, ours.take().len() as u64];
            let points = calls.into_iter().enumerate();
            let points = points.flat_map(|(side, calls)| (1..=calls).map(move |n| (side == 1, n)));
            let cases: Vec<_> = points.skip(number % step()).step_by(step()).map(Ok).collect();
            let outcome: Result<(), String> = stream::iter(cases)
                .try_for_each_concurrent(AT_ONCE, |(at_primary, n)| async move {
                    let case = format!("{pair:?}, primary {at_primary}, call {n}");
                    let died = tokio::spawn(die_and_go_on(pair, at_primary, n, n.is_multiple_of(3)));
                    died.await.unwrap().map_err(|what| format!("{case}: {what}"))
                })
                .await;
            outcome.unwrap();
        }
    });
}

/// A bucket that is restored to a snapshot of its own: nothing of it crosses any wire where the store keeps versions.
async fn own(like: Like, before: &[Change], after: &[Change], damage: &[Change]) -> Result<(), String> {
    let world = World::new(Like::Files, like);
    world.source.apply(before).await;
    world.run("night-1").await.1.unwrap();
    let wanted = world.target.content().await;
    world.source.apply(after).await;
    world.run("night-2").await.1.unwrap();
    world.target.apply(damage).await;
    let (place, record, _) = wrapped_if(&world.target);
    let (_, outcome) = world.restore_in_place(&place, &place, "night-1").await;
    outcome.map_err(|error| error.to_string())?;
    let found = world.target.content().await;
    if let Some(what) = difference(&wanted, &world.target, &found, &world.target) {
        return Err(what);
    }
    let calls = record.map(|record| record.take()).unwrap_or_default();
    let read = calls.iter().find(|call| call.op == Op::Read && !call.keys[0].is_reserved());
    read.map_or(Ok(()), |call| Err(format!("read: {call:?}")))
}

type Recorded = (Place, Option<std::sync::Arc<snapferry::store::record::Record>>, ());

/// A directory is opened by its path, and cannot be wrapped.
fn wrapped_if(place: &Place) -> Recorded {
    if place.like == Like::Directory {
        return (place.clone(), None, ());
    }
    let (place, record, _) = wrapped(place, []);
    (place, Some(record), ())
}

#[test]
fn a_bucket_goes_back_to_a_snapshot_of_its_own() {
    block_on(async {
        for like in [Like::Versioned, Like::Directory] {
            own(like, &first(), &damage(), &[Put("changes".into(), 40), Remove("stays".into())]).await.unwrap();
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_done_to_it(before in changes(1..12), damage in changes(0..8), number in 0..PAIRS.len()) {
        let outcome: Result<(), String> = block_on(async {
            let (world, wanted) = damaged(PAIRS[number], &before, &damage).await;
            let there = world.source.content().await;
            let (report, outcome) = world.restore_in_place(&world.target, &world.source, "night").await;
            outcome.map_err(|error| error.to_string())?;
            check(&world, &wanted).await?;
            // What has no content cannot be told from nothing.
            if there.values().any(|held| held.kind == Kind::Object) {
                check_safety(&world, &report, &there).await?;
            }
            Ok(())
        });
        prop_assert!(outcome.is_ok(), "{:?}: {}", PAIRS[number], outcome.unwrap_err());
    }

    #[test]
    fn whatever_was_done_to_its_own(
        before in changes(1..10),
        after in changes(0..6),
        damage in changes(0..6),
        directory in any::<bool>(),
    ) {
        let like = if directory { Like::Directory } else { Like::Versioned };
        let outcome = block_on(own(like, &before, &after, &damage));
        prop_assert!(outcome.is_ok(), "{:?}: {}", like, outcome.unwrap_err());
    }
}
