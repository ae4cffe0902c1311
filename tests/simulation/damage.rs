//! Wrong bytes, and sources that change under the reader: an error or a name in the report, never a silent mix.

use std::sync::Arc;

use snapferry::error::{Kind as ErrorKind, Side};
use snapferry::key::Key;
use snapferry::replicate::Proof;
use snapferry::store::fault::{Effect, Fault, Op, Rule, When};
use snapferry::store::record::Record;

use super::world::{Ask, Like, Place, World, block_on};

const LIKES: [Like; 3] = [Like::Files, Like::Versioned, Like::Plain];

async fn fill(world: &World) {
    for i in 0..10 {
        world.source.put(&format!("key-{i}"), format!("content {i}")).await;
    }
}

fn corrupting(place: &Place, op: Op, key: &str) -> Place {
    let rule = Rule::new(op, When::From(1), Effect::Corrupt).key(key);
    place.through(Arc::new(Fault::new(place.store.clone(), [rule])))
}

/// A copy of a copy: the digests of the first are known, and what does not match them does not land.
#[test]
fn wrong_bytes_at_a_source_whose_digests_are_known() {
    block_on(async {
        for like in LIKES {
            let world = World::new(Like::Versioned, like);
            fill(&world).await;
            world.run("night-1").await.1.unwrap();
            let record = world.target.document(".snapferry/snapshots/night-1/snapshot.json").await;

            let onward = World::new(Like::Versioned, like);
            let from = corrupting(&world.target, Op::Read, "key-7");
            let (_, outcome) = onward.between(&from, &onward.target, "night-1", Ask::default()).await;
            let error = outcome.unwrap_err();
            assert_eq!((error.kind(), error.side()), (ErrorKind::Damaged, Some(Side::Source)), "{like:?}: {error}");
            assert_eq!(error.failed_key(), Some(&Key::from("key-7")), "{error}");
            assert!(!onward.target.is_sealed("night-1").await);
            assert!(!onward.target.content().await.contains_key(&"key-7".into()), "{like:?}: wrong bytes landed");

            onward.between(&world.target, &onward.target, "night-1", Ask::default()).await.1.unwrap();
            onward.check_sealed("night-1", &world.source.content().await).await.unwrap();
            let still = world.target.document(".snapferry/snapshots/night-1/snapshot.json").await;
            assert_eq!(still, record, "{like:?}: reading a sealed snapshot changed its record");
        }
    });
}

/// Wrong bytes on the way to the target, or back from it: reading back finds them.
#[test]
fn wrong_bytes_at_the_target() {
    block_on(async {
        for like in LIKES {
            for op in [Op::Read, Op::Write] {
                let world = World::new(Like::Versioned, like);
                fill(&world).await;
                let ask = Ask { proof: Proof::Read, ..Ask::default() };
                let key = match (op, world.target.has_directories()) {
                    // What is written lands under its staging name first.
                    (Op::Write, true) => {
                        let probe = World::new(Like::Versioned, like);
                        fill(&probe).await;
                        let record = Arc::new(Record::new(probe.target.store.clone()));
                        let target = probe.target.through(record.clone());
                        probe.between(&probe.source, &target, "night-1", ask).await.1.unwrap();
                        let calls = record.take();
                        let writes = calls.iter().filter(|call| call.op == Op::Write);
                        let mut keys = writes.flat_map(|call| &call.keys);
                        keys.find(|key| key.starts_with(b".snapferry/staging/")).unwrap().to_string()
                    }
                    _ => "key-7".into(),
                };
                let target = corrupting(&world.target, op, &key);
                let (_, outcome) = world.between(&world.source, &target, "night-1", ask).await;
                let error = outcome.expect_err("wrong bytes passed the proof");
                assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Differ, 4), "{like:?} {op:?}: {error}");
                assert!(!world.target.is_sealed("night-1").await);
            }
        }
    });
}

/// An object that is written again after the snapshot: its old version where there are versions; else it is pinned
/// again and named, or refused with `strict`.
#[test]
fn changed_after_the_snapshot() {
    block_on(async {
        for like in LIKES {
            for (data, strict) in [("changed 7", false), ("longer than before", false), ("changed 7", true)] {
                let world = World::new(like, Like::Versioned);
                fill(&world).await;
                let before = world.source.content().await;
                let live = world.source.clone();
                let change = async move { live.put("key-7", data).await };
                let reads = |op: Op, key: &Key| op == Op::Read && *key == Key::from("key-7");
                let (source, hook) = world.source.hooked(reads, change);
                let ask = Ask { strict, proof: Proof::Read, ..Ask::default() };
                let (report, outcome) = world.between(&source, &world.target, "night-1", ask).await;
                assert!(hook.is_done());
                if like == Like::Versioned {
                    outcome.unwrap();
                    assert_eq!(report.repinned, 0);
                    world.check_sealed("night-1", &before).await.unwrap();
                } else if strict {
                    let error = outcome.unwrap_err();
                    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Changed, 1), "{like:?}: {error}");
                    assert_eq!(error.failed_key(), Some(&Key::from("key-7")));
                    assert!(!world.target.is_sealed("night-1").await);
                } else {
                    outcome.unwrap();
                    assert_eq!(report.repinned_keys, [Key::from("key-7")]);
                    let now = world.source.content().await;
                    world.check_sealed("night-1", &now).await.unwrap();
                    // What was pinned again is what the snapshot says from now on.
                    let (report, outcome) = world.run("night-2").await;
                    outcome.unwrap();
                    assert_eq!((report.objects_copied, report.modified), (0, 0), "{like:?}");
                }
            }
        }
    });
}

/// An object that is gone before it was read: its old version where there are versions; else an error that names it,
/// and the same command takes the snapshot anew.
#[test]
fn removed_after_the_snapshot() {
    block_on(async {
        for like in LIKES {
            let world = World::new(like, Like::Versioned);
            fill(&world).await;
            let before = world.source.content().await;
            let live = world.source.clone();
            let reads = |op: Op, key: &Key| op == Op::Read && *key == Key::from("key-7");
            let (source, hook) = world.source.hooked(reads, async move { live.delete("key-7").await });
            let (_, outcome) = world.between(&source, &world.target, "night-1", Ask::default()).await;
            assert!(hook.is_done());
            if like == Like::Versioned {
                outcome.unwrap();
                world.check_sealed("night-1", &before).await.unwrap();
            } else {
                let error = outcome.unwrap_err();
                assert_eq!((error.exit_code(), error.failed_key()), (1, Some(&Key::from("key-7"))), "{error}");
                assert!(!world.target.is_sealed("night-1").await);
                world.run("night-1").await.1.unwrap();
                world.check_sealed("night-1", &world.source.content().await).await.unwrap();
            }
        }
    });
}

/// A sealed copy is what was proved: an object of it that somebody changed is not taken for it, nor is its record.
#[test]
fn a_sealed_source_is_not_pinned_again() {
    block_on(async {
        for like in [Like::Files, Like::Plain] {
            let world = World::new(Like::Versioned, like);
            fill(&world).await;
            world.run("night-1").await.1.unwrap();
            let record = world.target.document(".snapferry/snapshots/night-1/snapshot.json").await;
            world.target.put("key-7", "changed").await;
            let onward = World::new(Like::Versioned, Like::Versioned);
            let (_, outcome) = onward.between(&world.target, &onward.target, "night-1", Ask::default()).await;
            let error = outcome.unwrap_err();
            assert_eq!((error.kind(), error.failed_key()), (ErrorKind::Changed, Some(&"key-7".into())), "{error}");
            assert!(!onward.target.is_sealed("night-1").await);
            assert_eq!(world.target.document(".snapferry/snapshots/night-1/snapshot.json").await, record);
        }
    });
}
