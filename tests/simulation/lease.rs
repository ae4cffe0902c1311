//! Two jobs on one target: one waits its turn, and one that was overtaken seals nothing.

use std::sync::Arc;

use snapferry::error::Kind as ErrorKind;
use snapferry::report::State;
use snapferry::store::fault::{Effect, Fault, Rule, When};
use snapferry::store::record::Op;

use super::world::{Ask, Like, Place, World, block_on};

/// Which call is awaited.
type Awaits = fn(Op, &snapferry::key::Key) -> bool;

const LIKES: [Like; 3] = [Like::Files, Like::Versioned, Like::Plain];

async fn fill(world: &World) {
    for i in 0..10 {
        world.source.put(&format!("key-{i}"), format!("content {i}")).await;
    }
}

/// While a job stands still in the middle of its work, another is refused and touches nothing.
#[test]
fn the_second_job_is_refused() {
    block_on(async {
        for like in LIKES {
            let world = Arc::new(World::new(Like::Versioned, like));
            fill(&world).await;
            // The fourth write is of content: the lease takes two or three.
            let stall = Fault::new(world.target.store.clone(), [Rule::new(Op::Write, When::From(6), Effect::Stall)]);
            let stall = Arc::new(stall);
            let (first, target) = (world.clone(), world.target.through(stall.clone()));
            let first =
                tokio::spawn(async move { first.between(&first.source, &target, "night-1", Ask::default()).await.1 });
            while stall.injected() == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            let other = World::new(Like::Versioned, like);
            let there = world.target.content().await;
            for name in ["night-1", "night-2"] {
                let (report, outcome) = other.between(&world.source, &world.target, name, Ask::default()).await;
                let error = outcome.unwrap_err();
                assert_eq!((error.exit_code(), report.state), (3, State::Refused), "{error}");
                assert!(!world.target.is_sealed(name).await);
            }
            assert_eq!(world.target.content().await, there);
            first.abort();
        }
    });
}

/// Started at the same moment, each ends well or is refused, and what is sealed is right.
#[test]
fn started_together() {
    block_on(async {
        for round in 0..20 {
            let world = World::new(Like::Versioned, LIKES[round % 3]);
            fill(&world).await;
            let other = World::new(Like::Versioned, Like::Versioned);
            let (one, two) = tokio::join!(
                world.run("night-1"),
                other.between(&world.source, &world.target, "night-1", Ask::default())
            );
            let outcomes = [one.1, two.1];
            assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
            for error in outcomes.into_iter().filter_map(Result::err) {
                assert_eq!(error.kind(), ErrorKind::Held, "{error}");
            }
            world.check_sealed("night-1", &world.source.content().await).await.unwrap();
        }
    });
}

/// Somebody else takes the lease.
async fn take_over(target: Place) {
    let mut lease = target.document(".snapferry/lease.json").await.unwrap();
    lease["token"] = (lease["token"].as_u64().unwrap() + 1).into();
    lease["holder"]["job"] = "another".into();
    lease["holder"]["pid"] = 1.into();
    target.put(".snapferry/lease.json", serde_json::to_vec(&lease).unwrap()).await;
}

/// At whatever call it is overtaken, up to the record that is the seal, a job ends without sealing.
#[test]
fn an_overtaken_job_seals_nothing() {
    block_on(async {
        for like in LIKES {
            let moments: [(&str, Awaits); 5] = [
                ("plan", |op, key| op == Op::List && key.is_empty()),
                ("transfer", |op, key| {
                    op == Op::Write && (!key.is_reserved() || key.starts_with(b".snapferry/staging/"))
                }),
                ("switch", |op, key| op == Op::Rename || op == Op::Delete && !key.is_reserved()),
                ("seal", |op, key| op == Op::Write && key.starts_with(b".snapferry/segments/")),
                ("sync", |op, _| op == Op::Sync),
            ];
            for (moment, awaits) in moments {
                let world = World::new(Like::Versioned, like);
                fill(&world).await;
                world.run("night-1").await.1.unwrap();
                world.source.put("key-1", "other content").await;
                world.source.delete("key-2").await;
                let (target, hook) = world.target.hooked(awaits, take_over(world.target.clone()));
                let (report, outcome) = world.between(&world.source, &target, "night-2", Ask::default()).await;
                assert!(hook.is_done(), "{like:?}: the {moment} never came");
                let error = outcome.expect_err(moment);
                assert_eq!((error.kind(), report.state), (ErrorKind::LeaseLost, State::Failed), "{like:?} {moment}");
                assert_eq!(error.exit_code(), 1);
                assert!(!world.target.is_sealed("night-2").await, "{like:?} {moment}");
                let lease = world.target.document(".snapferry/lease.json").await.unwrap();
                assert_eq!(lease["holder"]["job"], "another", "{like:?} {moment}: it gave back what was not its own");
                // The other is gone as well; the next run goes on.
                world.target.expire_lease().await;
                world.source.expire_lease().await;
                world.run("night-2").await.1.unwrap();
                world.check_sealed("night-2", &world.source.content().await).await.unwrap();
            }
        }
    });
}

/// Overtaken before names change hands, it deletes and renames nothing.
#[test]
fn an_overtaken_job_changes_no_names() {
    block_on(async {
        for like in LIKES {
            let world = World::new(Like::Versioned, like);
            fill(&world).await;
            world.run("night-1").await.1.unwrap();
            world.source.put("key-1", "other content").await;
            world.source.delete("key-2").await;
            let reads = |op: Op, key: &snapferry::key::Key| op == Op::Read && !key.is_reserved();
            let (source, hook) = world.source.hooked(reads, take_over(world.target.clone()));
            let (_, outcome) = world.between(&source, &world.target, "night-2", Ask::default()).await;
            assert!(hook.is_done());
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::LeaseLost);
            assert!(world.target.content().await.contains_key(&"key-2".into()), "{like:?}: deleted without a lease");
        }
    });
}
