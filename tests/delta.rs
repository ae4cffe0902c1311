//! Large objects of which little changes: what crosses to the target, counted on its wire, and what is said of it.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use harness::proxy::Proxy;
use harness::s3::{Bucket, Server};
use harness::{Lab, Numbers, Outcome, tree};
use serde_json::json;

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 8 * MIB;
const SIZE: u64 = 64 * MIB;
const KEY: &str = "images/disk";

/// Bytes that may cross besides content: requests, manifests, receipts, the lease.
const BESIDES: u64 = MIB;

/// With other bytes in 4 KiB around the middle, which is where a block ends: the dearest place.
fn overwritten(mut data: Vec<u8>) -> Vec<u8> {
    let middle = data.len() / 2;
    data[middle - 2048..middle + 2048].iter_mut().for_each(|byte| *byte ^= 0xff);
    data
}

fn grown(mut data: Vec<u8>) -> Vec<u8> {
    data.extend(Numbers(5).bytes(MIB as usize));
    data
}

/// A bucket of either kind.
enum Place {
    Directory(std::path::PathBuf),
    Bucket(Bucket),
}

impl Place {
    fn url(&self) -> String {
        match self {
            Self::Directory(path) => path.to_str().unwrap().into(),
            Self::Bucket(bucket) => bucket.url(),
        }
    }

    fn put(&self, data: &[u8]) {
        match self {
            Self::Directory(path) => tree::put(path, KEY.as_bytes(), data),
            Self::Bucket(bucket) => bucket.put(KEY, data, "{}"),
        }
    }

    #[track_caller]
    fn holds(&self, data: &[u8]) {
        let content = match self {
            Self::Directory(path) => tree::content(path),
            Self::Bucket(bucket) => bucket.content(),
        };
        let found = content.0.get(KEY.as_bytes()).expect("the object is there");
        assert!(found == data, "{KEY} is another on {}", self.url());
    }
}

/// Three nights: whole, with 4 KiB overwritten, with 1 MiB more. What the target's server heard is held against the
/// promise and the report where there is a proxy to count it and `counted`.
fn nights(lab: &Lab, source: &Place, target: &Place, proxy: Option<&Proxy>, counted: bool) {
    let to = match (target, proxy) {
        (Place::Bucket(bucket), Some(proxy)) => bucket.url_through(proxy),
        _ => target.url(),
    };
    let first = Numbers(3).bytes(SIZE as usize);
    let second = overwritten(first.clone());
    let third = grown(second.clone());
    let days = [("one", &first, SIZE, SIZE), ("two", &second, 1, 2 * BLOCK), ("three", &third, MIB, BLOCK + MIB)];
    for (name, data, least, most) in days {
        source.put(data);
        let before = proxy.map_or(0, Proxy::sent);
        let outcome = lab.sync(source.url(), &to, name, &[]).sealed();
        let copied = outcome.count("bytes_copied");
        target.holds(data);
        if counted {
            assert!((least..=most).contains(&copied), "{name}: {}", outcome.report);
        }
        if let Some(proxy) = proxy.filter(|_| counted) {
            let crossed = proxy.sent() - before;
            assert!(crossed <= most + BESIDES, "{name}: {crossed} bytes went to {to}, of {most}: {}", outcome.report);
            assert!(crossed.abs_diff(copied) <= BESIDES, "{name}: {crossed} bytes went to {to}: {}", outcome.report);
        }
    }
    for (name, data, ..) in days {
        let restored = lab.restore(&to, name).join(KEY);
        assert!(fs::read(&restored).unwrap() == *data, "{name} restored");
        fs::remove_file(restored).unwrap();
    }
}

fn directory(lab: &Lab, name: &str) -> Place {
    let path = lab.path(name);
    fs::create_dir(&path).unwrap();
    Place::Directory(path)
}

#[test]
fn little_crosses_between_directories() {
    let lab = Lab::new();
    nights(&lab, &directory(&lab, "source"), &directory(&lab, "target"), None, true);
}

/// Onto a server, from a directory and from another bucket.
fn little_crosses_to(variable: &str, counted: bool) {
    let Some(server) = Server::from_environment(variable) else { return };
    for from_bucket in [false, true] {
        let lab = Lab::new();
        let source = match from_bucket {
            true => Place::Bucket(server.bucket("delta-source")),
            false => directory(&lab, "source"),
        };
        let bucket = server.bucket("delta-target");
        let proxy = bucket.proxy();
        nights(&lab, &source, &Place::Bucket(bucket), Some(&proxy), counted);
    }
}

#[test]
fn little_crosses_to_seaweedfs() {
    little_crosses_to("SNAPFERRY_TEST_S3", true);
}

#[test]
fn little_crosses_to_versitygw() {
    little_crosses_to("SNAPFERRY_TEST_S3_ORDERED", true);
}

/// In memory, and no example of what a server computes: only that the result is right.
#[test]
fn the_result_is_right_on_moto() {
    little_crosses_to("SNAPFERRY_TEST_S3_ANY_KEY", false);
}

/// Killed while an object is put together, with and without what the machine remembers of it: nothing stays half made, and
/// an upload of another tool to the same key is left alone.
#[test]
fn killed_assemblies_leave_nothing_behind() {
    for variable in ["SNAPFERRY_TEST_S3", "SNAPFERRY_TEST_S3_ORDERED"] {
        let Some(server) = Server::from_environment(variable) else { continue };
        for forget in [false, true] {
            let lab = Lab::new();
            let (source, target) = (directory(&lab, "source"), Place::Bucket(server.bucket("delta-killed")));
            let mut data = Numbers(11).bytes(SIZE as usize);
            source.put(&data);
            let (from, to) = (source.url(), target.url());
            lab.sync(&from, &to, "one", &[]).sealed();
            for block in [0, 3, 5, 7] {
                data[(block * BLOCK) as usize] ^= 1;
            }
            source.put(&data);
            let Place::Bucket(bucket) = &target else { continue };
            bucket.begin(KEY);
            let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
            eprintln!("seed {seed:#x}");
            let (mut numbers, mut killed) = (Numbers(seed), 0);
            for _ in 0..4 {
                let arguments = ["sync", &from, &to, "--snapshot", "two", "--bandwidth", "16M"];
                let Some((mut child, _log)) = lab.until(&arguments, "COPYING") else { break };
                std::thread::sleep(Duration::from_millis(numbers.below(1500)));
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                child.kill().unwrap();
                child.wait().unwrap();
                killed += 1;
                if forget {
                    let _ = fs::remove_dir_all(lab.path("state"));
                }
            }
            assert!(killed > 0, "every run was over before it could be killed");
            let outcome = lab.sync(&from, &to, "two", &[]).sealed();
            target.holds(&data);
            assert!(outcome.count("bytes_copied") <= 4 * BLOCK, "{}", outcome.report);
            assert_eq!(bucket.uploads(), 1, "{variable}, forget {forget}: the other tool's upload, and no other");
            lab.verify(&from, &to, "two");
        }
    }
}

fn diff(lab: &Lab, bucket: &Path, from: &str, to: &str) -> Outcome {
    lab.run(["diff".as_ref(), bucket.as_os_str(), from.as_ref(), to.as_ref(), "--blocks".as_ref()]).exits(0)
}

#[test]
fn the_ranges_that_changed_are_named() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    let first = Numbers(7).bytes(SIZE as usize);
    let second = overwritten(first.clone());
    let mut third = grown(second.clone());
    third[10] ^= 1;
    for (name, data) in [("one", &first), ("two", &second), ("three", &third)] {
        tree::put(&source, KEY.as_bytes(), data);
        tree::put(&source, b"small", name.as_bytes());
        lab.sync(&source, &target, name, &[]).sealed();
    }
    let middle = json!([[SIZE / 2 - BLOCK, SIZE / 2 + BLOCK]]);
    let ends = json!([[0, BLOCK], [SIZE, SIZE + MIB]]);
    for (from, to, large, small) in [("one", "two", &middle, 3), ("two", "three", &ends, 5)] {
        let outcome = diff(&lab, &target, from, to);
        let ranges = |key: &str| {
            let changes = outcome.report["changes"].as_array().unwrap();
            changes
                .iter()
                .find(|change| change["key"] == key)
                .unwrap_or_else(|| panic!("no {key} in {}", outcome.report))["blocks"]
                .clone()
        };
        assert_eq!(ranges(KEY), *large, "{from} to {to}");
        // What is shorter than a block changed as a whole.
        assert_eq!(ranges("small"), json!([[0, small]]), "{from} to {to}");
    }

    let text = assert_cmd::Command::new(harness::PROGRAM)
        .args(["diff".as_ref(), target.as_os_str(), "two".as_ref(), "three".as_ref(), "--blocks".as_ref()])
        .args(["--state-dir".as_ref(), lab.path("state").as_os_str()])
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let expected = [
        format!("M  {KEY}"),
        format!("     0-{BLOCK}"),
        format!("     {SIZE}-{}", SIZE + MIB),
        "M  small".into(),
        "     0-5".into(),
    ];
    assert_eq!(lines[..5], expected, "{text}");
}

#[test]
fn a_dry_run_says_what_moves_as_a_delta_and_why_the_rest_does_not() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    let first = Numbers(9).bytes(SIZE as usize);
    let put = |key: &str, data: &[u8]| tree::put(&source, key.as_bytes(), data);
    put("large", &first);
    put("small", b"one");
    put("tiny-once", b"one");
    lab.sync(&source, &target, "one", &[]).sealed();
    put("large", &overwritten(first.clone()));
    put("small", b"another");
    put("tiny-once", &first);
    put("new", &grown(first.clone()));

    let dry = |more: &[&str]| {
        let outcome = lab.sync(&source, &target, "two", &[&["--dry-run", "-v"], more].concat()).exits(0);
        assert_eq!(outcome.text("state"), "planned");
        let steps: Vec<String> =
            outcome.report["steps"].as_array().unwrap().iter().map(|step| step.as_str().unwrap().into()).collect();
        (outcome, steps)
    };
    let (outcome, steps) = dry(&[]);
    let step = |key: &str| {
        let of_key = |step: &&String| step.split_whitespace().any(|word| word == key);
        steps.iter().find(of_key).unwrap_or_else(|| panic!("no {key} in {steps:?}"))
    };
    assert!(step("large").contains("only what changed, by block digests"), "{steps:?}");
    assert!(step("small").contains("whole: it is small"), "{steps:?}");
    assert!(step("tiny-once").contains("whole: the target's older version is much smaller"), "{steps:?}");
    // What the target has nothing of has no other way to go.
    assert!(!step("new").contains("whole") && !step("new").contains("changed"), "{steps:?}");
    let (all, least) = (outcome.count("bytes_planned"), outcome.count("bytes_planned_delta"));
    assert_eq!(all - least, SIZE - BLOCK, "{}", outcome.report);

    let (outcome, steps) = dry(&["--delta", "never"]);
    assert!(steps.iter().any(|step| step.contains("large") && step.contains("whole: --delta never")), "{steps:?}");
    assert_eq!(outcome.count("bytes_planned_delta"), all);

    // And so it is, once it is done.
    let outcome = lab.sync(&source, &target, "two", &[]).sealed();
    assert_eq!(outcome.count("bytes_copied"), all - SIZE + 2 * BLOCK, "{}", outcome.report);
    tree::assert_same(&source, &target);
}

/// The length of a block may change from night to night, beyond that of the object and back.
#[test]
fn blocks_of_any_length_follow_each_other() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    let mut data = Numbers(13).bytes(20 << 20);
    let nights = [("64MiB", 20), ("8MiB", 20), ("1MiB", 8), ("64MiB", 20), ("1MiB", 20), ("1MiB", 1), ("16MiB", 16)];
    for (night, (size, most)) in nights.into_iter().enumerate() {
        tree::put(&source, KEY.as_bytes(), &data);
        let outcome = lab.sync(&source, &target, &format!("night-{night}"), &["--block-size", size]).sealed();
        tree::assert_same(&source, &target);
        let copied = outcome.count("bytes_copied");
        assert!(copied > 0 && copied <= most * MIB, "{size} in night {night}: {}", outcome.report);
        data[(9 << 20) + night] ^= 1;
    }
}

#[test]
fn a_block_that_is_no_power_of_two_is_refused() {
    let lab = Lab::new();
    let source = lab.path("source");
    fs::create_dir(&source).unwrap();
    for size in ["3MiB", "512KiB", "128MiB"] {
        let outcome = lab.sync(&source, lab.path("target"), "one", &["--block-size", size]).exits(2);
        assert!(
            outcome.stderr.contains(size) && outcome.stderr.contains("a power of two from 1MiB to 64MiB"),
            "{}",
            outcome.stderr
        );
    }
    assert!(!lab.path("target").exists(), "made");
}
