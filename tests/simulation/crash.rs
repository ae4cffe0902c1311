//! A run that dies at any of its calls: nothing is sealed too early, the next run converges, by itself, with or without
//! what the machine remembered, and what had landed is not written again.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use proptest::prelude::*;
use snapferry::error::Kind as ErrorKind;
use snapferry::key::Key;
use snapferry::manifest::Entry;
use snapferry::plan::staging_key;
use snapferry::report::State;
use snapferry::store::fault::{Effect, Fault, Rule, When};
use snapferry::store::record::{Call, Op, Record};

use super::tree::{Change, changes};
use super::world::{Ask, Content, Like, Place, World, block_on};

use Change::{MakeDirectory, Mode, Put, Remove, Rename, Rotate, Swap, Touch};

/// Cases under way at once.
const AT_ONCE: usize = 4;

const PAIRS: [(Like, Like); 8] = [
    (Like::Versioned, Like::Versioned),
    (Like::Files, Like::Files),
    (Like::Versioned, Like::Files),
    (Like::Plain, Like::Plain),
    (Like::Files, Like::Versioned),
    (Like::Plain, Like::Files),
    (Like::Trees, Like::Trees),
    (Like::Files, Like::Trees),
];

/// One call in so many is tried, by default: all of them take a minute, and every one is tried in one pair or another.
pub(crate) fn step() -> usize {
    if std::env::var_os("SNAPFERRY_TEST_ALL_CALLS").is_some() { 1 } else { 3 }
}

/// What the next run knows of the one that died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remembers {
    All,
    Half,
    Nothing,
}

const MEMORIES: [Remembers; 3] = [Remembers::All, Remembers::Half, Remembers::Nothing];

fn first() -> Vec<Change> {
    let put = |name: &str, content| Put(name.into(), content);
    vec![
        put("left", 1),
        put("right", 2),
        put("one", 3),
        put("two", 4),
        put("three", 5),
        put("goes", 6),
        put("changes", 7),
        put("deep/er/file", 8),
        put("deep/other", 9),
        put("object", 10),
        put("tree/inside", 11),
        put("mode", 12),
        put("stays", 13),
        put("twin", 14),
        put("twin-2", 14),
        put("east/in/1", 31),
        put("east/2", 32),
        put("west/in/3", 33),
        put("log-0/4", 34),
        put("log-1/5", 35),
        put("log-2/6", 36),
        put("leaves/in/7", 37),
        put("leaves/8", 38),
        MakeDirectory("hollow".into()),
    ]
}

fn second() -> Vec<Change> {
    let put = |name: &str, content| Put(name.into(), content);
    vec![
        Swap("left".into(), "right".into()),
        Rotate("one".into(), "two".into(), "three".into()),
        Remove("goes".into()),
        put("changes", 17),
        put("new", 18),
        put("new-2", 19),
        Rename("deep".into(), "hollow".into()),
        put("object/inside", 20),
        put("tree", 21),
        put("empty", 0),
        Mode("mode".into(), 0o600),
        Touch("stays".into()),
        Rename("twin".into(), "twin-3".into()),
        MakeDirectory("void".into()),
        Swap("east".into(), "west".into()),
        Rename("west/in".into(), "east/in-2".into()),
        Rename("log-1".into(), "log-2".into()),
        Rename("log-0".into(), "log-1".into()),
        put("log-0/9", 39),
        Remove("leaves".into()),
    ]
}

/// A world with a sealed first night, and the changes of the second.
async fn second_night((source, target): (Like, Like)) -> (World, Content) {
    let world = World::new(source, target);
    world.source.apply(&first()).await;
    world.run("night-1").await.1.unwrap();
    world.source.apply(&second()).await;
    let wanted = world.source.content().await;
    (world, wanted)
}

pub(crate) fn wrapped(place: &Place, rules: impl IntoIterator<Item = Rule>) -> (Place, Arc<Record>, Arc<Fault>) {
    let record = Arc::new(Record::new(place.store.clone()));
    let fault = Arc::new(Fault::new(record.clone(), rules));
    (place.through(fault.clone()), record, fault)
}

/// Dies at call `n`: before it, or when it has had its effect.
pub(crate) fn dies_at(n: u64, after: bool) -> Vec<Rule> {
    if after {
        let last = Rule::new(None, When::Nth(n), Effect::After(ErrorKind::Cancelled));
        return vec![last, Rule::new(None, When::From(n + 1), Effect::Before(ErrorKind::Cancelled))];
    }
    vec![Rule::new(None, When::From(n), Effect::Before(ErrorKind::Cancelled))]
}

/// The objects whose bytes were written, whatever the names they were written under.
fn written(calls: &[Call]) -> BTreeSet<Key> {
    let is_content = |key: &Key| !key.is_reserved() || key.starts_with(b".snapferry/staging/");
    let writes = calls.iter().filter(|call| call.op == Op::Write && call.bytes > 0);
    writes.flat_map(|call| call.keys.clone()).filter(is_content).collect()
}

/// How many calls a run makes of each side that nothing disturbs.
async fn calls_of(pair: (Like, Like)) -> [u64; 2] {
    let (world, _) = second_night(pair).await;
    let (source, ours, _) = wrapped(&world.source, []);
    let (target, theirs, _) = wrapped(&world.target, []);
    world.between(&source, &target, "night-2", Ask::default()).await.1.unwrap();
    [ours.take().len() as u64, theirs.take().len() as u64]
}

/// Dies at one point and goes on.
async fn die_and_go_on(
    pair: (Like, Like),
    at_target: bool,
    n: u64,
    after: bool,
    remembers: Remembers,
) -> Result<(), String> {
    let (mut world, wanted) = second_night(pair).await;
    let (rules, none) = (dies_at(n, after), Vec::new());
    let (ours, theirs) = if at_target { (none, rules) } else { (rules, none) };
    let (source, _, _) = wrapped(&world.source, ours);
    let (target, record, _) = wrapped(&world.target, theirs);
    let (_, outcome) = world.between(&source, &target, "night-2", Ask::default()).await;
    let landed = written(&record.take());
    if world.target.is_sealed("night-2").await {
        // Died while it tidied up.
        world.check_sealed("night-2", &wanted).await?;
    } else if outcome.is_ok() {
        return Err("it ended well without a seal".into());
    }
    world.target.expire_lease().await;
    world.source.expire_lease().await;
    match remembers {
        Remembers::All => {}
        Remembers::Half => world.cut_journal(),
        Remembers::Nothing => world.lose_state(),
    }
    let (target, record, _) = wrapped(&world.target, []);
    let (report, outcome) = world.between(&world.source, &target, "night-2", Ask::default()).await;
    outcome.map_err(|error| format!("the next run failed: {error}"))?;
    if report.state != State::Sealed {
        return Err(format!("the next run ended as {:?}", report.state));
    }
    world.check_sealed("night-2", &wanted).await?;
    let mut again: Vec<Key> = written(&record.take()).intersection(&landed).cloned().collect();
    // The bytes of `stays` are what they were: in a bucket nothing tells whether they are the old or the new ones.
    let entries = world.source.entries().await;
    let stays: Vec<&Entry> = entries.iter().filter(|entry| entry.key == Key::from("stays")).collect();
    let in_bucket = !world.target.store.capabilities().file_attributes;
    again.retain(|key| !(in_bucket && stays.iter().any(|stays| *key == stays.key || *key == staging_key(stays))));
    if !again.is_empty() {
        return Err(format!("written again: {again:?}"));
    }
    let (report, outcome) = world.run("night-3").await;
    outcome.map_err(|error| format!("the night after failed: {error}"))?;
    match report.objects_copied {
        0 => Ok(()),
        copied => Err(format!("the night after copied {copied} objects though nothing had changed")),
    }
}

#[test]
fn dies_at_every_call() {
    block_on(async {
        for (number, pair) in PAIRS.into_iter().enumerate() {
            let calls = calls_of(pair).await;
            let mut points = Vec::new();
            for (side, calls) in calls.into_iter().enumerate() {
                for n in 1..=calls + 2 {
                    // Each point in one way, neighbours in different ways.
                    points.push((side == 1, n, n % 2 == 0, MEMORIES[n as usize / 3 % 3]));
                }
            }
            let cases = stream::iter(points.into_iter().skip(number % step()).step_by(step()).map(Ok));
            let outcome: Result<(), String> = cases
                .try_for_each_concurrent(AT_ONCE, |(at_target, n, after, remembers)| async move {
                    let case =
                        format!("{pair:?}, target {at_target}, call {n}, after {after}, remembers {remembers:?}");
                    let died = tokio::spawn(die_and_go_on(pair, at_target, n, after, remembers));
                    died.await.unwrap().map_err(|what| format!("{case}: {what}"))
                })
                .await;
            outcome.unwrap();
        }
    });
}

/// One answer is lost of each call that changes something: the run itself gets over it.
#[test]
fn lost_answers() {
    block_on(async {
        let ops = [Op::Write, Op::Copy, Op::Rename, Op::Delete, Op::RemoveTree, Op::SetAttributes];
        for (number, pair) in PAIRS.into_iter().enumerate() {
            let (world, _) = second_night(pair).await;
            let (target, record, _) = wrapped(&world.target, []);
            world.between(&world.source, &target, "night-2", Ask::default()).await.1.unwrap();
            let counts = record.counts();
            let points = ops.iter().flat_map(|op| (1..=counts.get(op).copied().unwrap_or(0)).map(|n| (*op, n)));
            let points = points.skip(number % step()).step_by(step());
            let failed: Vec<String> = stream::iter(points)
                .map(|(op, n)| async move {
                    let (world, wanted) = second_night(pair).await;
                    let lost = Rule::new(op, When::Nth(n), Effect::After(ErrorKind::Unavailable));
                    let (target, _, fault) = wrapped(&world.target, [lost]);
                    let (_, outcome) = world.between(&world.source, &target, "night-2", Ask::default()).await;
                    assert!(fault.injected() <= 1);
                    if let Err(error) = outcome {
                        return Some(format!("{op:?} {n}: {error}"));
                    }
                    world.check_sealed("night-2", &wanted).await.err().map(|what| format!("{op:?} {n}: {what}"))
                })
                .buffer_unordered(32)
                .filter_map(std::future::ready)
                .collect()
                .await;
            assert!(failed.is_empty(), "{pair:?}: {failed:#?}");
        }
    });
}

/// Random trees and changes, a death at a random call, then the same night again or the next one.
async fn simulate(
    pair: (Like, Like),
    trees: [Vec<Change>; 3],
    n: u64,
    after: bool,
    remembers: Remembers,
    same: bool,
) -> Result<(), String> {
    let mut world = World::new(pair.0, pair.1);
    world.source.apply(&trees[0]).await;
    world.run("night-1").await.1.map_err(|error| error.to_string())?;
    world.source.apply(&trees[1]).await;
    let (target, _, _) = wrapped(&world.target, dies_at(n, after));
    let (_, outcome) = world.between(&world.source, &target, "night-2", Ask::default()).await;
    if outcome.is_ok() && !world.target.is_sealed("night-2").await {
        return Err("it ended well without a seal".into());
    }
    world.target.expire_lease().await;
    world.source.expire_lease().await;
    match remembers {
        Remembers::All => {}
        Remembers::Half => world.cut_journal(),
        Remembers::Nothing => world.lose_state(),
    }
    let keeps = pair.0 == Like::Versioned;
    let snapshot = world.source.content().await;
    world.source.apply(&trees[2]).await;
    let now = world.source.content().await;
    // Changes made since do not show where something keeps the snapshot; elsewhere it is taken anew.
    let sealed = world.target.is_sealed("night-2").await;
    let kept = sealed || keeps && world.source.is_sealed("night-2").await;
    let (name, wanted) = match same {
        true if kept => ("night-2", snapshot),
        true => ("night-2", now),
        false => ("night-3", now),
    };
    world.run(name).await.1.map_err(|error| format!("the next run failed: {error}"))?;
    world.check_sealed(name, &wanted).await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn dies_anywhere(
        pair in prop::sample::select(PAIRS.to_vec()),
        trees in [changes(0..14), changes(0..7), changes(0..5)],
        n in 4u64..60,
        after: bool,
        remembers in prop::sample::select(MEMORIES.to_vec()),
        same: bool,
    ) {
        let outcome = block_on(simulate(pair, trees, n, after, remembers, same));
        prop_assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    }
}

/// What a run landed that died is ours, not drift, also when the source has let go of it since: in one more try of the
/// same night, and after several nights that died, on a machine that remembers nothing.
#[test]
fn what_a_dead_run_left_is_no_drift() {
    block_on(async {
        for pair in PAIRS {
            for names in [["night-2"; 4], ["night-2", "night-3", "night-4", "night-5"]] {
                let mut world = World::new(pair.0, pair.1);
                world.source.apply(&first()).await;
                world.run("night-1").await.1.unwrap();
                let mut before = None;
                for name in &names[..3] {
                    if let Some(before) = before.replace(format!("new-{}", world.state.path().display())) {
                        world.source.delete(&before).await;
                    }
                    world.source.put(before.as_deref().unwrap(), vec![1; 1000]).await;
                    // What the one before has landed is still there: it dies before it deletes, or else before it seals.
                    let dies = |op| Rule::new(op, When::From(1), Effect::Before(ErrorKind::Cancelled));
                    let (target, _, _) = wrapped(&world.target, [dies(Op::Delete), dies(Op::Sync)]);
                    let (_, outcome) = world.between(&world.source, &target, name, Ask::default()).await;
                    assert!(outcome.is_err());
                    world.target.expire_lease().await;
                    world.source.expire_lease().await;
                    world.lose_state();
                }
                let wanted = world.source.content().await;
                let (_, outcome) = world.run(names[3]).await;
                assert!(outcome.is_ok(), "{pair:?}, {names:?}: {outcome:?}");
                if !(pair.0 == Like::Versioned && names[0] == names[3]) {
                    world.check_sealed(names[3], &wanted).await.unwrap();
                }
            }
        }
    });
}
