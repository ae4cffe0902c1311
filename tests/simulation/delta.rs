//! Large objects of which little changes: what crosses to the target, and what goes wrong on the way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use snapferry::bounds::OnDrift;
use snapferry::delta::Delta;
use snapferry::error::Kind as ErrorKind;
use snapferry::key::Key;
use snapferry::plan::staging_key;
use snapferry::report::{Report, State};
use snapferry::store::fault::{Effect, Fault, Rule, When};
use snapferry::store::local::LocalStore;
use snapferry::store::memory::MemoryStore;
use snapferry::store::record::{Op, Record};
use snapferry::store::{Capabilities, Condition};

use super::crash::step;
use super::world::{Ask, BLOCK_BYTES, Like, Place, World, block_on};

const BLOCK: usize = BLOCK_BYTES as usize;
const LARGE: &str = "dir/large";
const LIKES: [Like; 4] = [Like::Files, Like::Versioned, Like::Plain, Like::Trees];

/// Content that no two blocks have in common.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251 + (i / BLOCK) * 7) as u8).collect()
}

/// A world in which this is sealed.
async fn sealed((source, target): (Like, Like), data: &[u8]) -> World {
    let world = World::new(source, target);
    world.source.put(LARGE, data.to_vec()).await;
    world.run("night-1").await.1.unwrap();
    world
}

/// Replicates through stores that count; the report, with the bytes of content that crossed to the target and were read at
/// the source.
async fn counted(world: &World, name: &str, ask: Ask) -> (Report, u64, u64) {
    let (ours, theirs) =
        (Arc::new(Record::new(world.source.store.clone())), Arc::new(Record::new(world.target.store.clone())));
    let (source, target) = (world.source.through(ours.clone()), world.target.through(theirs.clone()));
    let wanted = world.source.content().await;
    let (report, outcome) = world.between(&source, &target, name, ask).await;
    outcome.unwrap();
    world.check_sealed(name, &wanted).await.unwrap();
    let is_content = |key: &Key| !key.is_reserved() || key.starts_with(b".snapferry/staging/");
    let bytes = |record: &Record, ops: &[Op]| {
        let calls = record.take();
        let counts = calls.iter().filter(|call| ops.contains(&call.op) && call.keys.iter().all(is_content));
        counts.map(|call| call.bytes).sum()
    };
    let (sent, read) = (bytes(&theirs, &[Op::Write, Op::WritePart]), bytes(&ours, &[Op::Read]));
    assert_eq!(report.bytes_copied, sent, "the report counts what crossed");
    (report, sent, read)
}

#[test]
fn little_crosses_where_little_changed() {
    block_on(async {
        for pair in LIKES.into_iter().flat_map(|source| LIKES.map(|target| (source, target))) {
            let old = content(64 * BLOCK + 100);
            let world = sealed(pair, &old).await;
            let mut new = old.clone();
            new[32 * BLOCK - 2..32 * BLOCK + 2].fill(0xff);
            world.source.put(LARGE, new.clone()).await;
            let (report, sent, _) = counted(&world, "night-2", Ask::default()).await;
            assert_eq!(sent, 2 * BLOCK_BYTES, "{pair:?}");
            assert_eq!(report.bytes_reused, new.len() as u64 - sent, "{pair:?}");

            // An append costs the tail, though the last block was not full.
            new.extend(content(3 * BLOCK));
            world.source.put(LARGE, new.clone()).await;
            let (_, sent, _) = counted(&world, "night-3", Ask::default()).await;
            assert_eq!(sent, 3 * BLOCK_BYTES, "{pair:?}");

            new.truncate(20 * BLOCK + 5);
            world.source.put(LARGE, new.clone()).await;
            let (_, sent, _) = counted(&world, "night-4", Ask::default()).await;
            assert_eq!(sent, 5, "{pair:?}");

            let ask = Ask { delta: Delta::Never, ..Ask::default() };
            new[0] ^= 1;
            world.source.put(LARGE, new.clone()).await;
            let (_, sent, _) = counted(&world, "night-5", ask).await;
            assert_eq!(sent, new.len() as u64, "{pair:?}");
        }
    });
}

/// The same on a file system, where nothing but a store that counts sees what is written.
#[test]
fn little_is_written_to_a_directory() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(Like::Files, Like::Files);
        world.target = world.target.through(Arc::new(LocalStore::open(folder.path(), false).unwrap()));
        let mut data = content(64 * BLOCK + 100);
        world.source.put(LARGE, data.clone()).await;
        counted(&world, "night-1", Ask::default()).await;
        data[32 * BLOCK - 2..32 * BLOCK + 2].fill(0xff);
        world.source.put(LARGE, data.clone()).await;
        assert_eq!(counted(&world, "night-2", Ask::default()).await.1, 2 * BLOCK_BYTES);
        data.extend(content(BLOCK));
        world.source.put(LARGE, data.clone()).await;
        assert_eq!(counted(&world, "night-3", Ask::default()).await.1, BLOCK_BYTES);
    });
}

/// Digests that are lost, or were never made, are made by reading the target, if somebody asks for that.
#[test]
fn digests_are_learnt_from_the_target() {
    block_on(async {
        for pair in [(Like::Files, Like::Versioned), (Like::Versioned, Like::Files)] {
            let mut data = content(2 * BLOCK);
            let world = sealed(pair, &data).await;
            data.extend(content(30 * BLOCK));
            world.source.put(LARGE, data.clone()).await;
            counted(&world, "night-2", Ask::default()).await;
            // Adopted, not copied: nothing passed, so nothing is known of its blocks.
            world.target.store.delete(&[".snapferry/snapshots/night-2/snapshot.json".into()]).await.unwrap();
            world.target.store.delete(&[".snapferry/snapshots/night-1/snapshot.json".into()]).await.unwrap();
            let ask = Ask { on_drift: OnDrift::Repair, ..Ask::default() };
            let (_, sent, _) = counted(&world, "night-3", ask).await;
            assert_eq!(sent, 0, "{pair:?}");

            data[5 * BLOCK] ^= 1;
            world.source.put(LARGE, data.clone()).await;
            let (_, sent, _) = counted(&world, "night-4", Ask { learn_target: true, ..ask }).await;
            assert_eq!(sent, BLOCK_BYTES, "{pair:?}");
        }
    });
}

/// What the source's store tells need not be read there.
#[test]
fn what_the_store_tells_is_not_read() {
    block_on(async {
        let world = World::new(Like::Versioned, Like::Versioned);
        let mut data = content(40 * BLOCK);
        put_in_parts(&world.source, &data).await;
        world.run("night-1").await.1.unwrap();
        data[17 * BLOCK + 3] ^= 1;
        put_in_parts(&world.source, &data).await;
        let (report, sent, read) = counted(&world, "night-2", Ask::default()).await;
        // The part that changed is read, and of that one block crosses.
        assert_eq!((sent, read), (BLOCK_BYTES, 4 * BLOCK_BYTES));
        assert_eq!(report.bytes_reused, 39 * BLOCK_BYTES);
    });
}

/// In parts of four blocks.
async fn put_in_parts(place: &Place, data: &[u8]) {
    let (key, none) = (Key::from(LARGE), Default::default());
    let upload = place.store.begin(&key, data.len() as u64, &none).await.unwrap();
    let mut parts = Vec::new();
    for (number, part) in (1..).zip(data.chunks(4 * BLOCK)) {
        let offset = u64::from(number - 1) * 4 * BLOCK_BYTES;
        let part = Bytes::copy_from_slice(part);
        parts.push(place.store.write_part(&upload, number, offset, part).await.unwrap());
    }
    place.store.finish(&upload, &parts, &none, &Condition::Any).await.unwrap();
}

/// A target that copies other bytes than it was asked for is found out before the seal, and the object moves whole.
#[test]
fn wrong_copies_are_caught() {
    block_on(async {
        for target in LIKES {
            for n in 1..=3 {
                let mut data = content(30 * BLOCK);
                let world = sealed((Like::Files, target), &data).await;
                for at in [3, 11, 25] {
                    data[at * BLOCK] ^= 1;
                }
                world.source.put(LARGE, data.clone()).await;
                let wanted = world.source.content().await;
                let rule = Rule::new(Op::CopyPart, When::Nth(n), Effect::Corrupt);
                let fault = Arc::new(Fault::new(world.target.store.clone(), [rule]));
                let there = world.target.through(fault.clone());
                let (report, outcome) = world.between(&world.source, &there, "night-2", Ask::default()).await;
                outcome.unwrap();
                assert_eq!(report.state, State::Sealed);
                assert_eq!(fault.injected(), 1, "{target:?}: not so many copies");
                world.check_sealed("night-2", &wanted).await.unwrap();
                let (to, content) = world.restored("night-2").await;
                assert!(super::world::difference(&wanted, &world.source, &content, &to).is_none());
            }
        }
    });
}

/// Somebody writes over the older version, or takes it away, while the new one is made of it.
#[test]
fn a_base_that_changes_meanwhile_is_noticed() {
    block_on(async {
        for target in LIKES {
            for gone in [false, true] {
                let mut data = content(30 * BLOCK);
                let world = sealed((Like::Versioned, target), &data).await;
                data[0] ^= 1;
                world.source.put(LARGE, data.clone()).await;
                let wanted = world.source.content().await;
                let place = world.target.clone();
                let work = async move {
                    match gone {
                        true => place.delete(LARGE).await,
                        false => place.put(LARGE, content(30 * BLOCK + 1)).await,
                    }
                };
                let (there, hook) = world.target.hooked(|op, _| op == Op::CopyPart, work);
                let (_, outcome) = world.between(&world.source, &there, "night-2", Ask::default()).await;
                assert!(hook.is_done(), "nothing was copied");
                if let Err(error) = outcome {
                    // Somebody else's write is not overwritten unasked.
                    assert!([ErrorKind::Changed, ErrorKind::Differ].contains(&error.kind()), "{target:?}: {error}");
                    assert!(!world.target.is_sealed("night-2").await);
                    world.target.expire_lease().await;
                    let ask = Ask { on_drift: OnDrift::Repair, ..Ask::default() };
                    world.ask("night-2", ask).await.1.unwrap();
                }
                world.check_sealed("night-2", &wanted).await.unwrap();
            }
        }
    });
}

/// Dies at any call of an assembly; the next run leaves nothing half-made, and does not send again what had landed.
#[test]
fn an_assembly_that_dies_goes_on() {
    block_on(async {
        let cases = LIKES.into_iter().flat_map(|target| [(target, false), (target, true)]);
        for (case, (target, lost)) in (0..).zip(cases) {
            let mut n = 1 + case % step() as u64;
            loop {
                let mut data = content(20 * BLOCK);
                let mut world = sealed((Like::Files, target), &data).await;
                for at in [2, 9, 15] {
                    data[at * BLOCK] ^= 1;
                }
                world.source.put(LARGE, data.clone()).await;
                let wanted = world.source.content().await;
                // Another tool's business, in the same bucket.
                let other = world.target.store.begin(&"other".into(), 3, &Default::default()).await.unwrap();
                let record = Arc::new(Record::new(world.target.store.clone()));
                let rule = Rule::new(None, When::From(n), Effect::Before(ErrorKind::Cancelled));
                let there = world.target.through(Arc::new(Fault::new(record.clone(), [rule])));
                let (_, outcome) = world.between(&world.source, &there, "night-2", Ask::default()).await;
                if outcome.is_ok() {
                    assert!(n > 10, "a run makes more calls than that");
                    break;
                }
                let landed = record.bytes(Op::WritePart);
                world.target.expire_lease().await;
                if lost {
                    world.lose_state();
                }
                let record = Arc::new(Record::new(world.target.store.clone()));
                let there = world.target.through(record.clone());
                let (_, outcome) = world.between(&world.source, &there, "night-2", Ask::default()).await;
                outcome.unwrap_or_else(|error| panic!("{target:?}, call {n}: {error}"));
                world.check_sealed("night-2", &wanted).await.unwrap();
                let again = record.bytes(Op::WritePart);
                assert!(lost || landed + again <= 3 * BLOCK_BYTES, "{target:?}, call {n}: {landed}, then {again}");
                let uploads = async |key: Key| world.target.store.open_uploads(&key).await.unwrap();
                let entry =
                    world.source.entries().await.into_iter().find(|entry| entry.key == Key::from(LARGE)).unwrap();
                let left = [uploads(LARGE.into()).await, uploads(staging_key(&entry)).await].concat();
                assert!(left.is_empty(), "{target:?}, call {n}: {left:?}");
                assert_eq!(uploads("other".into()).await, [other], "{target:?}, call {n}");
                n += step() as u64;
            }
        }
    });
}

/// Many objects at once, with room for a few blocks, on a target whose parts are longer than blocks: nobody waits for
/// somebody who waits for them.
#[test]
fn little_memory_is_enough() {
    block_on(async {
        for part_bytes_min in [1, 3 * BLOCK_BYTES] {
            let mut world = World::new(Like::Versioned, Like::Versioned);
            let capabilities = Capabilities { versions: true, part_bytes_min, ..MemoryStore::like_s3() };
            world.target = world.target.through(Arc::new(MemoryStore::new("narrow", capabilities)));
            let ask = Ask { memory_bytes: 4 * BLOCK_BYTES, ..Ask::default() };
            for night in 1..=4_usize {
                for object in 0..8 {
                    let mut data = content(50 * BLOCK + 17 * object);
                    // Every block, every second one, some, and one.
                    for at in (0..50).step_by([1, 2, 7, 50][night - 1]) {
                        data[at * BLOCK + night] ^= 0x55;
                    }
                    world.source.put(&format!("dir/large-{object}"), data).await;
                }
                let wanted = world.source.content().await;
                let name = format!("night-{night}");
                let run = world.ask(&name, ask);
                let ended = tokio::time::timeout(Duration::from_secs(60), run).await;
                ended.expect("the run stands still").1.unwrap();
                world.check_sealed(&name, &wanted).await.unwrap();
            }
        }
    });
}

/// What users do to a large object overnight.
#[derive(Debug, Clone)]
enum Edit {
    Overwrite(prop::sample::Index, usize),
    Append(usize),
    Truncate(prop::sample::Index),
    Insert(prop::sample::Index, usize),
    Remove(prop::sample::Index, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let (at, len) = (any::<prop::sample::Index>, || 1_usize..3000);
    prop_oneof![
        (at(), len()).prop_map(|(at, len)| Edit::Overwrite(at, len)),
        len().prop_map(Edit::Append),
        at().prop_map(Edit::Truncate),
        (at(), len()).prop_map(|(at, len)| Edit::Insert(at, len)),
        (at(), len()).prop_map(|(at, len)| Edit::Remove(at, len)),
    ]
}

fn apply(edit: &Edit, fill: u8, content: &mut Vec<u8>) {
    let place = |at: &prop::sample::Index| at.index(content.len() + 1);
    let (start, len) = match edit {
        Edit::Append(len) => (content.len(), *len),
        Edit::Truncate(at) => (place(at), 0),
        Edit::Overwrite(at, len) | Edit::Insert(at, len) | Edit::Remove(at, len) => (place(at), *len),
    };
    let end = (start + len).min(content.len());
    match edit {
        Edit::Overwrite(..) => content[start..end].fill(fill),
        Edit::Append(_) | Edit::Insert(..) => drop(content.splice(start..start, vec![fill; len])),
        Edit::Truncate(_) => content.truncate(start),
        Edit::Remove(..) => drop(content.drain(start..end)),
    }
}

fn length() -> impl Strategy<Value = usize> {
    let borders =
        vec![0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK, 16 * BLOCK - 1, 16 * BLOCK];
    prop_oneof![prop::sample::select(borders), 0_usize..30_000]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_edit_arrives(
        source in prop::sample::select(LIKES.to_vec()),
        target in prop::sample::select([LIKES.to_vec(), vec![Like::Directory]].concat()),
        length in length(),
        nights in prop::collection::vec(prop::collection::vec(edit(), 1..4), 1..4),
    ) {
        block_on(async {
            let mut data = content(length);
            let world = sealed((source, target), &data).await;
            for (number, edits) in (2_u8..).zip(&nights) {
                for edit in edits {
                    apply(edit, 100 + number, &mut data);
                }
                world.source.put(LARGE, data.clone()).await;
                let wanted = world.source.content().await;
                let (report, outcome) = world.run(&format!("night-{number}")).await;
                outcome.unwrap();
                world.check_sealed(&format!("night-{number}"), &wanted).await.unwrap();
                assert!(report.bytes_copied <= data.len() as u64, "{} of {}", report.bytes_copied, data.len());
            }
        });
    }
}
