//! Listings that fail, end early, repeat a key or go backwards, at each of the three times that a run lists a bucket.

use std::sync::Arc;

use snapferry::bounds::MaxDelete;
use snapferry::error::Kind as ErrorKind;
use snapferry::key::Key;
use snapferry::report::State;
use snapferry::store::fault::{Effect, Fault, Op, Rule, When};

use super::world::{Ask, Like, Place, World, block_on};

const LIKES: [Like; 3] = [Like::Files, Like::Versioned, Like::Plain];

/// When a run lists a bucket: the source for its snapshot, the target for the plan and for the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Snapshot,
    Plan,
    Proof,
}

/// A sealed first night, and a second one with something created, changed and deleted.
async fn second_night(like: Like) -> World {
    let world = World::new(like, like);
    for i in 0..20 {
        world.source.put(&format!("dir/key-{i:02}"), format!("content {i}")).await;
    }
    world.run("night-1").await.1.unwrap();
    world.source.put("dir/key-03", "other content").await;
    world.source.put("dir/new", "new content").await;
    world.source.delete("dir/key-05").await;
    world
}

fn faulty(place: &Place, nth: u64, effect: Effect) -> (Place, Arc<Fault>) {
    // The bucket's content is what is listed without a prefix; the catalog's lists are another matter.
    let rule = Rule::new(Op::List, When::Nth(nth), effect).key(Key::default());
    let fault = Arc::new(Fault::new(place.store.clone(), [rule]));
    (place.through(fault.clone()), fault)
}

#[test]
fn a_bad_listing_changes_nothing_and_seals_nothing() {
    let effects = [
        Effect::Before(ErrorKind::Io),
        Effect::ListFails(0, ErrorKind::Io),
        Effect::ListFails(7, ErrorKind::Unavailable),
        Effect::ListBreaks(0),
        Effect::ListBreaks(7),
        Effect::ListRepeats(1),
        Effect::ListRepeats(7),
        Effect::ListSwaps(1),
        Effect::ListSwaps(7),
    ];
    block_on(async {
        for like in LIKES {
            for at in [At::Snapshot, At::Plan, At::Proof] {
                for effect in effects {
                    check(like, at, effect).await;
                }
            }
        }
    });
}

async fn check(like: Like, at: At, effect: Effect) {
    let case = format!("{like:?} {at:?} {effect:?}");
    let world = second_night(like).await;
    let before = world.target.entries().await;
    let (source, target, fault) = match at {
        At::Snapshot => {
            let (source, fault) = faulty(&world.source, 1, effect);
            (source, world.target.clone(), fault)
        }
        At::Plan | At::Proof => {
            let (target, fault) = faulty(&world.target, if at == At::Plan { 1 } else { 2 }, effect);
            (world.source.clone(), target, fault)
        }
    };
    let (report, outcome) = world.between(&source, &target, "night-2", Ask::default()).await;
    let error = outcome.expect_err(&case);
    assert_eq!(fault.injected(), 1, "{case}");
    assert_eq!((error.exit_code(), report.state), (1, State::Failed), "{case}: {error}");
    assert!(!world.target.is_sealed("night-2").await, "{case}");
    if at != At::Proof {
        assert_eq!(world.target.entries().await, before, "{case}");
    }
    // The same command goes on.
    let wanted = world.source.content().await;
    world.run("night-2").await.1.expect(&case);
    world.check_sealed("night-2", &wanted).await.expect(&case);
}

/// A listing that ends early and says that it is complete: nothing can tell at the source but the guard of deletes; at
/// the target it is drift, or a proof that fails.
#[test]
fn a_short_listing_is_not_believed() {
    block_on(async {
        for like in LIKES {
            for (at, code) in [(At::Snapshot, 3), (At::Plan, 3), (At::Proof, 4)] {
                let case = format!("{like:?} {at:?}");
                let world = second_night(like).await;
                let before = world.target.entries().await;
                let short = Effect::ListEnds(4);
                let (from, to) = match at {
                    At::Snapshot => (faulty(&world.source, 1, short).0, world.target.clone()),
                    At::Plan => (world.source.clone(), faulty(&world.target, 1, short).0),
                    At::Proof => (world.source.clone(), faulty(&world.target, 2, short).0),
                };
                let ask = Ask { max_delete: MaxDelete::Percent(50.0), ..Ask::default() };
                let (_, outcome) = world.between(&from, &to, "night-2", ask).await;
                let error = outcome.expect_err(&case);
                assert_eq!(error.exit_code(), code, "{case}: {error}");
                assert!(!world.target.is_sealed("night-2").await, "{case}");
                if at != At::Proof {
                    assert_eq!(world.target.entries().await, before, "{case}");
                }
            }
        }
    });
}
