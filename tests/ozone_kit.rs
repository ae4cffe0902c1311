//! The tests of Ozone rest on what `harness/ozone.rs` says of a bucket: here it is held against what was written.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::model::{Content, Step};
use harness::ozone::{Cluster, Layout, Object, assert_holds};
use harness::{Lab, Numbers};

#[test]
fn a_bucket_and_its_snapshots_hold_what_was_written() {
    let mut numbers = Numbers(5);
    let first = [
        Step::Put("a", b"first".to_vec()),
        // Said here, because it stays when nothing is in it any more.
        Step::MakeDirectory("d/"),
        Step::Put("d/e/large", numbers.bytes(5 << 20)),
        Step::Put("d/e/with space, %41 and ü", b"odd".to_vec()),
        Step::Put("d/empty", Vec::new()),
        Step::MakeDirectory("nothing/in/it/"),
        Step::Put("old/x", b"goes".to_vec()),
        Step::Put("old/y/z", b"goes too".to_vec()),
    ];
    let second = [
        Step::Rename("d/e/", "moved/"),
        Step::Delete("old/"),
        Step::Put("a", b"second".to_vec()),
        Step::Rename("d/empty", "full"),
        Step::Put("full", b"no more".to_vec()),
    ];
    let Some(cluster) = Cluster::from_environment("SNAPFERRY_TEST_OZONE") else { return };
    for layout in [Layout::Fso, Layout::Obs] {
        let bucket = cluster.bucket("kit", layout);
        let mut content = Content::default();
        let mut play = |steps: &[Step]| {
            for step in steps {
                bucket.apply(step);
                content.apply(step);
            }
            content.clone()
        };
        let before = play(&first);
        bucket.snapshot("before");
        let after = play(&second);
        bucket.snapshot("after");
        bucket.change(&after, &Content::default());
        assert_holds(bucket.content_of_snapshot("before"), &before, "before");
        assert_holds(bucket.content_of_snapshot("after"), &after, "after");
        assert_holds(bucket.content(), &Content::default(), "now");
        assert_eq!(bucket.snapshots(), ["after", "before"]);
    }
}

/// Every bucket of a volume has a policy of its own; a link to one is none.
#[test]
fn the_buckets_of_a_volume_are_found() {
    let Some(cluster) = Cluster::from_environment("SNAPFERRY_TEST_OZONE") else { return };
    let lab = Lab::new();
    let buckets = [Layout::Fso, Layout::Obs].map(|layout| cluster.bucket("found", layout));
    let link = format!("{}-link", buckets[0].name);
    buckets[0].call("link", &[&format!("{}/{link}", cluster.volume)]);
    let source = buckets[0].url().replace(&buckets[0].name, "{bucket}");
    let config = lab.path("config.toml");
    let text = format!(
        "[policy.volume]\nsource = {source:?}\ntarget = {:?}\nbuckets = \"found-{}-*\"\n",
        lab.path("dr/{bucket}"),
        std::process::id()
    );
    std::fs::write(&config, text).unwrap();
    let listed = lab.run(["policy", "list", "--config", config.to_str().unwrap()]).exits(0);
    let names = listed.report["policies"].as_array().unwrap().iter();
    let names: Vec<&str> = names.map(|policy| policy["policy"].as_str().unwrap()).collect();
    let mut expected = buckets.each_ref().map(|bucket| format!("volume.{}", bucket.name));
    expected.sort();
    assert_eq!(names, expected);
}

/// On the other cluster, so that the other test does not wait for what is down here.
#[test]
fn what_was_written_survives_a_service_that_is_killed() {
    let Some(cluster) = Cluster::from_environment("SNAPFERRY_TEST_OZONE_DR") else { return };
    let bucket = cluster.bucket("kit", Layout::Obs).linked();
    bucket.call("put", &["a", "Yg==", r#"{"color": "red"}"#, r#"{"team": "dr"}"#]);
    for service in ["om", "dn"] {
        cluster.kill_and_restart(service);
        let content = bucket.content();
        let Some(Object::File { size: 1, metadata, tags, .. }) = content.get(&b"a"[..]) else { panic!("{content:?}") };
        assert_eq!((metadata["color"].as_str(), tags["team"].as_str()), ("red", "dr"), "after {service}");
    }
}
