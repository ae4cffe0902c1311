//! Random bases, changes and drifts: after every run the target is the source, and what was sealed before stays.

use proptest::prelude::*;
use snapferry::bounds::OnDrift;
use snapferry::error::Kind as ErrorKind;
use snapferry::manifest::Kind;
use snapferry::replicate::Proof;
use snapferry::report::State;

use super::tree::{Change, changes};
use super::world::{Ask, Content, Like, World, block_on, difference};

/// One night: what users do to the source, and what somebody does to the target.
#[derive(Debug, Clone)]
struct Night {
    changes: Vec<Change>,
    drift: Vec<Change>,
}

fn nights() -> impl Strategy<Value = Vec<Night>> {
    let drift = prop_oneof![3 => Just(Vec::new()), 1 => changes(1..4)];
    let night = |most| (changes(0..most), drift.clone()).prop_map(|(changes, drift)| Night { changes, drift });
    (night(16), prop::collection::vec(night(7), 1..4)).prop_map(|(first, mut later)| {
        later.insert(0, first);
        later
    })
}

/// The objects, and on a file system their permission bits: what nobody else may change unnoticed.
fn objects(content: &Content) -> Vec<(String, Vec<u8>, Option<u32>)> {
    let objects = content.iter().filter(|(_, held)| held.kind == Kind::Object);
    objects.map(|(key, held)| (key.to_string(), held.data.to_vec(), held.mode)).collect()
}

async fn simulate(source: Like, target: Like, nights: &[Night]) -> Result<(), TestCaseError> {
    let world = World::new(source, target);
    let mut sealed: Vec<(String, Content)> = Vec::new();
    for (number, night) in nights.iter().enumerate() {
        let name = format!("night-{number}");
        world.source.apply(&night.changes).await;
        let before = world.target.content().await;
        world.target.apply(&night.drift).await;
        let drifted = objects(&before) != objects(&world.target.content().await);

        let wanted = world.source.content().await;
        let there = world.target.entries().await;
        let (report, outcome) = world.run(&name).await;
        if let Err(error) = outcome {
            prop_assert_eq!(error.kind(), ErrorKind::Refused, "{}", error);
            prop_assert!(!night.drift.is_empty(), "drift where there is none: {}", error);
            prop_assert_eq!(report.state, State::Refused);
            prop_assert_eq!(&world.target.entries().await, &there, "touched though refused");
            prop_assert!(!world.target.is_sealed(&name).await);
            let ask = Ask { on_drift: OnDrift::Repair, ..Ask::default() };
            let (report, outcome) = world.ask(&name, ask).await;
            prop_assert!(outcome.is_ok(), "{:?}", outcome);
            prop_assert_eq!(report.state, State::Sealed);
        } else {
            prop_assert!(!drifted, "drift was not noticed");
            prop_assert_eq!(report.state, State::Sealed);
        }
        let now = world.source.content().await;
        prop_assert_eq!(&now, &wanted, "the source was changed");
        if let Err(what) = world.check_sealed(&name, &wanted).await {
            return Err(TestCaseError::fail(what));
        }
        sealed.push((name, wanted));
    }
    if world.target.keeps() {
        for (name, wanted) in &sealed {
            let (to, content) = world.restored(name).await;
            let difference = difference(wanted, &world.source, &content, &to);
            prop_assert!(difference.is_none(), "{} restored: {}", name, difference.unwrap_or_default());
        }
    }
    let ask = Ask { proof: Proof::Read, ..Ask::default() };
    let (_, outcome) = world.ask("once-more", ask).await;
    prop_assert!(outcome.is_ok(), "{:?}", outcome);
    Ok(())
}

fn like() -> impl Strategy<Value = Like> {
    prop::sample::select(vec![Like::Files, Like::Versioned, Like::Plain, Like::Trees])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_target_becomes_the_source(source in like(), target in like(), nights in nights()) {
        block_on(simulate(source, target, &nights))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn whole_trees_move(source in prop::sample::select(vec![Like::Files, Like::Trees]), nights in nights()) {
        block_on(simulate(source, Like::Trees, &nights))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn directories_too(
        source in like(),
        target in like(),
        which in 0..3,
        nights in nights(),
    ) {
        let (source, target) = match which {
            0 => (Like::Directory, target),
            1 => (source, Like::Directory),
            _ => (Like::Directory, Like::Directory),
        };
        block_on(simulate(source, target, &nights))?;
    }
}
