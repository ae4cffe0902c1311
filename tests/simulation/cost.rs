//! What runs cost in calls to the stores.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapferry::store::record::{Op, Record};

use super::world::{Ask, Like, World, block_on};

/// Most calls that one run makes of both sides for its own documents, however many objects there are.
const DOCUMENT_CALLS_MAX: u64 = 40;

type Counts = BTreeMap<Op, u64>;

/// The calls of one run at each side: of content, and of snapferry's own documents.
struct Calls {
    content: [Counts; 2],
    documents: [Counts; 2],
}

async fn calls(world: &World, name: &str) -> Calls {
    let (ours, theirs) =
        (Arc::new(Record::new(world.source.store.clone())), Arc::new(Record::new(world.target.store.clone())));
    let (source, target) = (world.source.through(ours.clone()), world.target.through(theirs.clone()));
    world.between(&source, &target, name, Ask::default()).await.1.unwrap();
    let mut calls = Calls { content: Default::default(), documents: Default::default() };
    for (side, record) in [ours, theirs].into_iter().enumerate() {
        for call in record.take() {
            let is_document = call.keys.first().is_some_and(|key| key.is_reserved());
            let counts = if is_document { &mut calls.documents } else { &mut calls.content };
            *counts[side].entry(call.op).or_default() += 1;
        }
    }
    calls
}

/// A world whose source has `count` small objects.
async fn small_objects(count: u64) -> World {
    let world = World::new(Like::Versioned, Like::Versioned);
    for i in 0..count {
        world.source.put(&format!("dir/key-{i:04}"), format!("content {i}")).await;
    }
    world
}

const CHANGES: [Op; 11] = [
    Op::Write,
    Op::Begin,
    Op::WritePart,
    Op::Finish,
    Op::Abort,
    Op::Copy,
    Op::Rename,
    Op::SetAttributes,
    Op::Delete,
    Op::RemoveTree,
    Op::Stat,
];

#[test]
fn calls_follow_the_changes() {
    block_on(async {
        for count in [30, 600] {
            let world = small_objects(count).await;
            let full = calls(&world, "night-1").await;
            assert_eq!(full.content[0], Counts::from([(Op::List, 1), (Op::Read, count)]));
            // Listed for the plan and for the proof.
            assert_eq!(full.content[1], Counts::from([(Op::List, 2), (Op::Write, count), (Op::Sync, 2)]));

            let again = calls(&world, "night-1").await;
            for op in CHANGES {
                for counts in again.content.iter().chain(&again.documents) {
                    assert_eq!(counts.get(&op), None, "{op:?} though the snapshot is sealed already");
                }
            }
            assert_eq!(again.content, [Counts::new(), Counts::new()]);

            let unchanged = calls(&world, "night-2").await;
            assert_eq!(unchanged.content[0], Counts::from([(Op::List, 1)]));
            assert_eq!(unchanged.content[1], Counts::from([(Op::List, 1), (Op::Sync, 2)]));

            world.source.put("dir/key-0007", "other content").await;
            world.source.delete("dir/key-0008").await;
            let changed = calls(&world, "night-3").await;
            assert_eq!(changed.content[0], Counts::from([(Op::List, 1), (Op::Read, 1)]));
            let wanted = Counts::from([(Op::List, 2), (Op::Write, 1), (Op::Delete, 1), (Op::Sync, 2)]);
            assert_eq!(changed.content[1], wanted);
            for documents in [full.documents, again.documents, unchanged.documents, changed.documents] {
                let total: u64 = documents.iter().flat_map(Counts::values).sum();
                assert!(total <= DOCUMENT_CALLS_MAX, "{count} objects: {documents:?}");
            }
        }
    });
}

/// However much is in a directory, it is renamed in two calls, by way of the staging folder, and removed in one.
#[test]
fn directories_move_and_go_as_a_whole() {
    block_on(async {
        for count in [3, 300] {
            let world = World::new(Like::Trees, Like::Trees);
            for i in 0..count {
                world.source.put(&format!("dir/deep-{}/key-{i:04}", i % 7), format!("content {i}")).await;
                world.source.put(&format!("gone/deep-{}/key-{i:04}", i % 7), format!("other {i}")).await;
            }
            world.run("night-1").await.1.unwrap();
            world.source.store.rename(&"dir/".into(), &"new/place/".into()).await.unwrap();
            world.source.store.remove_tree(&"gone/".into()).await.unwrap();
            let wanted = world.source.content().await;

            let record = Arc::new(Record::new(world.target.store.clone()));
            let target = world.target.through(record.clone());
            let (report, outcome) = world.between(&world.source, &target, "night-2", Ask::default()).await;
            outcome.unwrap();
            world.check_sealed("night-2", &wanted).await.unwrap();
            assert_eq!((report.renamed, report.deleted, report.created, report.modified), (count, count, 0, 0));
            assert_eq!((report.bytes_planned, report.objects_copied), (0, 0));
            assert_eq!(report.directories_renamed, 1 + count.min(7));
            assert_eq!(report.bytes_reused, report.bytes);

            let calls = record.take();
            let of = |op: Op| calls.iter().filter(|call| call.op == op).count();
            // The tree there and back, and the one that goes.
            assert_eq!(of(Op::Rename), 3, "{count} objects");
            // Before the run, and after it.
            assert_eq!(of(Op::RemoveTree), 2);
            assert_eq!(calls.iter().filter(|call| call.op == Op::Delete && !call.keys[0].is_reserved()).count(), 0);
            assert!(calls.len() as u64 <= 10 + DOCUMENT_CALLS_MAX, "{} calls for {count} objects", calls.len());
        }
    });
}
