//! The way of a disaster-recovery guide, snapshot by snapshot, on two real Ozone clusters; and Ozone beside other stores.
//! What a bucket or a snapshot holds is read by Ozone's own client.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::path::PathBuf;

use harness::model::{Content, Step, apply_to_directory, assert_equal};
use harness::ozone::{Bucket, Layout, assert_holds, assert_same_snapshot, replica, sites};
use harness::{Lab, Numbers, s3, tree};

/// A user's change. There is none that appends: Ozone's clients do not serve it (`append` of ofs is unsupported).
enum Change {
    Step(Step),
    /// Deleted and created anew, as `ofs -put -f` does.
    Replace(&'static str, Vec<u8>),
    /// Other tags, and nothing else.
    Tag(&'static str, &'static str),
    /// The same bytes with other metadata.
    Describe(&'static str, &'static str),
}

/// A bucket and what it should hold.
struct Primary {
    bucket: Bucket,
    content: Content,
}

impl Primary {
    fn change(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Step(step) => {
                    self.bucket.apply(step);
                    self.content.apply(step);
                }
                Change::Replace(key, data) => {
                    self.bucket.replace(key, data);
                    self.content.apply(&Step::Put(key, data.clone()));
                }
                Change::Tag(key, tags) => drop(self.bucket.call("tag", &[key, tags])),
                Change::Describe(key, metadata) => {
                    use base64::Engine as _;
                    let data = base64::engine::general_purpose::STANDARD.encode(&self.content.0[key.as_bytes()]);
                    self.bucket.call("put", &[key, &data, metadata]);
                }
            }
        }
        assert_holds(self.bucket.content(), &self.content, "the test's own source");
    }
}

/// Three generations of changes, with how many objects and bytes each has to copy, how many it renames and deletes.
fn story() -> [(Vec<Change>, [u64; 4]); 3] {
    use Change::{Describe, Replace, Tag};
    let mut numbers = Numbers(0x0_2072_0e00);
    let mut bytes = |length: usize| numbers.bytes(length);
    let put = |key, data| Change::Step(Step::Put(key, data));
    let delete = |key| Change::Step(Step::Delete(key));
    let rename = |from, to| Change::Step(Step::Rename(from, to));
    let directory = |key| Change::Step(Step::MakeDirectory(key));
    let mut large = bytes(20 << 20);
    let first = vec![
        put("readme", b"first\n".to_vec()),
        put("overwritten", bytes(4096)),
        put("replaced", bytes(4097)),
        put("empty", Vec::new()),
        put("a-b", bytes(100)),
        put("a/b", bytes(101)),
        put("left", b"left hand".to_vec()),
        put("right", b"right hand, longer".to_vec()),
        put("one", bytes(31)),
        put("two", bytes(32)),
        put("three", bytes(33)),
        put("tagged", bytes(10)),
        put("described", bytes(11)),
        put("large", large.clone()),
        put("moves/deep/er/file", bytes(5000)),
        put("moves/deep/other", bytes(5001)),
        put("goes/x", bytes(77)),
        put("goes/y", bytes(78)),
        put("stays/z", bytes(79)),
        put("mover", bytes(80)),
        put("doomed/x", bytes(81)),
        put("leaves/file", bytes(82)),
        put("leaves/not", bytes(83)),
        directory("hollow/"),
        directory("nest/hollow/"),
        put("object-then-directory", bytes(50)),
        put("directory-then-object/inside", bytes(51)),
    ];
    let copied = 6 + 4096 + 4097 + 100 + 101 + 9 + 18 + 31 + 32 + 33 + 10 + 11 + (20 << 20) + 5000 + 5001;
    let first_bytes = copied + 77 + 78 + 79 + 80 + 81 + 82 + 83 + 50 + 51;
    let second = vec![
        put("new/created", bytes(900)),
        // The same sizes, other bytes.
        put("overwritten", bytes(4096)),
        Replace("replaced", bytes(4097)),
        Tag("tagged", r#"{"team": "dr"}"#),
        Describe("described", r#"{"color": "red"}"#),
        delete("readme"),
        // Two names swapped.
        rename("left", "held"),
        rename("right", "left"),
        rename("held", "right"),
        rename("large", "larger"),
        // A directory with all that it holds.
        rename("moves/deep/", "moves/shallow/"),
        // A directory takes the name of a deleted one.
        delete("goes/"),
        rename("stays/", "goes/"),
        // Moved into a directory that is then deleted, and out of one.
        rename("mover", "doomed/mover"),
        delete("doomed/"),
        rename("leaves/file", "a/file"),
        delete("leaves/"),
        delete("hollow/"),
        directory("new/hollow/"),
        delete("object-then-directory"),
        put("object-then-directory/inside", bytes(52)),
        delete("directory-then-object/"),
        put("directory-then-object", bytes(53)),
    ];
    let second_bytes = 900 + 4096 + 4097 + 10 + 11 + 52 + 53;
    large[9 << 20] ^= 1;
    let third = vec![
        put("larger", large),
        // A ring of three names.
        rename("one", "held"),
        rename("three", "one"),
        rename("two", "three"),
        rename("held", "two"),
        // Up, with an object changed on the way.
        rename("moves/shallow/er/", "up/"),
        put("up/file", bytes(5002)),
        put("up/beside", bytes(6)),
        Tag("tagged", r#"{"team": "primary"}"#),
        put("readme", b"third\n".to_vec()),
        directory("hollow/"),
        delete("object-then-directory/"),
        put("object-then-directory", bytes(54)),
        delete("directory-then-object"),
        directory("directory-then-object/"),
    ];
    // Of the large object only the first part crosses, in which a byte changed: for Ozone it has 16 MiB.
    let third_bytes = (16 << 20) + 5002 + 6 + 10 + 6 + 54;
    // Copied, bytes, renamed, deleted. What is replaced where it was is neither created nor deleted.
    [(first, [25, first_bytes, 0, 0]), (second, [7, second_bytes, 7, 8]), (third, [6, third_bytes, 3, 3])]
}

fn three_generations(layout: Layout) {
    let Some((primary, other)) = sites() else { return };
    let lab = Lab::new();
    let target = other.bucket("story", layout).linked();
    let mut source = Primary { bucket: primary.bucket("story", layout), content: Content::default() };
    let mut days: Vec<(String, Content)> = Vec::new();
    let (changes, wanted): (Vec<_>, Vec<_>) = story().into_iter().unzip();

    source.change(&changes[0]);
    for (day, [copied, bytes, renamed, deleted]) in wanted.into_iter().enumerate() {
        let name = format!("day-{}", day + 1);
        // Some snapshots are taken by Ozone's own client, and the bucket lives on before they are replicated.
        if day == 1 {
            source.bucket.snapshot(&name);
        }
        let content = source.content.clone();
        if day == 1 {
            source.change(&changes[2]);
        }
        let outcome = lab.sync(source.bucket.url(), target.url(), &name, &[]).sealed();
        eprintln!("{layout:?} {name}: {} ms, {} requests", outcome.count("elapsed_ms"), outcome.count("requests"));
        assert_eq!(outcome.report["base"].as_str().map(str::to_owned), (day > 0).then(|| format!("day-{day}")));
        let diff = if day == 0 { "listing" } else { "native" };
        assert_eq!(outcome.text("diff"), diff, "{}\n{}", outcome.report, outcome.stderr);
        // Where there are no directories, an empty object is one.
        let markers = if layout == Layout::Obs { [2, 1, 2][day] } else { 0 };
        let copied = copied + markers;
        let counts = ["objects_copied", "bytes_copied", "renamed"].map(|field| outcome.count(field));
        assert_eq!(counts, [copied, bytes, renamed], "{}", outcome.report);
        // Of what comes with its directory and changes on the way, the old name does not count as deleted.
        let deleted = deleted - u64::from(day == 2 && layout == Layout::Fso);
        assert_eq!(outcome.count("deleted"), deleted, "{}", outcome.report);
        assert_holds(target.content(), &content, &format!("the target on {name}"));
        days.push((name, content));
        // Those of other days too: a snapshot stays what it was.
        for (name, content) in &days {
            assert_holds(target.content_of_snapshot(name), content, &format!("the target's snapshot {name}"));
            assert_same_snapshot(&source.bucket, &target, name);
        }
        if day == 0 {
            source.change(&changes[1]);
        }
    }
    assert_eq!(target.snapshots(), ["day-1", "day-2", "day-3"]);
    lab.verify(source.bucket.url(), target.url(), "day-3");
    lab.verify(source.bucket.url(), target.url(), "day-1");

    // Nothing new.
    let outcome = lab.sync(source.bucket.url(), target.url(), "day-3", &[]).sealed();
    assert_eq!(outcome.report["already_sealed"], true);
    let outcome = lab.sync(source.bucket.url(), target.url(), "day-4", &[]).sealed();
    assert_eq!([outcome.count("objects_copied"), outcome.count("bytes_copied")], [0, 0], "{}", outcome.report);
    assert_eq!(outcome.text("diff"), "native");
    assert_same_snapshot(&source.bucket, &target, "day-4");

    // The way back: all of an older day, and one object of it.
    let all = primary.bucket("back", layout).linked();
    lab.run(["restore", &target.url(), &all.url(), "--snapshot", "day-2"]).exits(0);
    assert_holds(all.content(), &days[1].1, "restored");
    assert_eq!(replica(all.content()), replica(target.content_of_snapshot("day-2")));
    assert!(all.content().keys().all(|key| !key.starts_with(b".snapferry/")), "something of ours was left");
    let one = primary.bucket("one", layout).linked();
    let key = ["--key", "leaves/file"];
    let outcome = lab.run([&["restore", &target.url(), &one.url(), "--snapshot", "day-1"], &key[..]].concat()).exits(0);
    let path = outcome.text("path");
    assert!(path.starts_with("ofs://") && path.ends_with("/.snapshot/day-1/leaves/file"), "{path}");
    let expected = Content([(b"leaves/file".to_vec(), days[0].1.0[&b"leaves/file"[..]].clone())].into());
    assert_holds(one.content(), &expected, "one object restored");

    // In place, and back: by the target alone.
    let there = replica(target.content());
    let url = target.url();
    let in_place = |name: &str| {
        let arguments = ["restore", &url, "--snapshot", name, "--in-place", "--confirm", name, "--max-delete", "100%"];
        lab.run(arguments)
    };
    let outcome = in_place("day-1").exits(0);
    assert_holds(target.content(), &days[0].1, "in place");
    let safety = outcome.text("safety_snapshot");
    assert_eq!(replica(target.content_of_snapshot(safety)), there);
    in_place("day-1").exits(3).says("--again");
    in_place(safety).exits(0);
    assert_eq!(replica(target.content()), there);
}

#[test]
fn a_bucket_with_directories_follows_its_primary() {
    three_generations(Layout::Fso);
}

#[test]
fn a_flat_bucket_follows_its_primary() {
    three_generations(Layout::Obs);
}

/// Keys that are hard on clients and that every layout holds.
const AWKWARD: [&str; 29] = [
    "plain",
    "a#1",
    " leading",
    "trailing ",
    "a/ /b",
    "tab\there",
    "new\nline",
    "\u{1}control\u{7f}",
    "caf\u{e9}",
    "cafe\u{301}",
    "%2E%2E/x",
    "a%2Fb",
    "a+b&c=d?e;f",
    "back\\slash",
    "<xml>&amp;\"'",
    "~",
    "...",
    ".hidden",
    "dot.",
    "$HOME",
    "@{}[]^`|()*!",
    "\u{1F980}",
    "UPPER",
    "upper",
    "-",
    "_",
    "dir-",
    "dir/under",
    "dir0",
];

/// Keys that only a flat bucket holds. (None that ends in two slashes: Ozone 2.2.0 does not find
/// those in its own snapshots. The last two come in Ozone's own order, that of UTF-16, after the emoji; with such names in
/// one directory its ofs client lists without end.)
const FLAT: [&str; 13] = [
    "a//b",
    "/lead",
    "//lead",
    "../x",
    "a/./b",
    "a/../../x",
    ".",
    "a:b",
    "beside",
    "beside/under",
    "d/../d",
    "\u{ff08}",
    "\u{ff08}\u{1F980}",
];

fn awkward(more: &[&str]) -> Content {
    let keys = AWKWARD.iter().chain(more);
    let mut content = Content(keys.map(|key| (key.as_bytes().to_vec(), key.as_bytes().to_vec())).collect());
    let long = ["n".repeat(255), "o".repeat(255), "p".repeat(255), "q".repeat(250)].join("/");
    content.0.insert(long.into_bytes(), b"long".to_vec());
    content
}

#[test]
fn awkward_keys_arrive_intact() {
    let Some((primary, other)) = sites() else { return };
    use Layout::{Fso, Obs};
    for (from, to) in [(Obs, Obs), (Fso, Fso), (Obs, Fso), (Fso, Obs)] {
        let lab = Lab::new();
        let (source, target) = (primary.bucket("awkward", from), other.bucket("awkward", to).linked());
        let flat = from == Obs && to == Obs;
        let mut content = awkward(if flat { &FLAT } else { &[] });
        source.change(&Content::default(), &content);
        lab.sync(source.url(), target.url(), "first", &[]).sealed();
        assert_holds(target.content(), &content, &format!("{from:?} to {to:?}, first"));

        let before = content.clone();
        for (old, new) in [("new\nline", "a\nother\nline"), ("dir/under", "dir/\u{1F980} %41/under")] {
            let data = content.0.remove(old.as_bytes()).unwrap();
            content.0.insert(new.as_bytes().to_vec(), data);
        }
        source.call("rename", &["caf\u{e9}", "caf\u{e9} + cr\u{e8}me?"]);
        let mut renamed = before.clone();
        for content in [&mut renamed, &mut content] {
            let data = content.0.remove("caf\u{e9}".as_bytes()).unwrap();
            content.0.insert("caf\u{e9} + cr\u{e8}me?".as_bytes().to_vec(), data);
        }
        content.0.insert(b"%2E%2E/x".to_vec(), b"changed".to_vec());
        source.change(&renamed, &content);
        let outcome = lab.sync(source.url(), target.url(), "second", &[]).sealed();
        assert_eq!([outcome.count("renamed"), outcome.count("bytes_copied")], [1, 24], "{}", outcome.report);
        for side in [&source, &target] {
            assert_holds(side.content_of_snapshot("second"), &content, &format!("{from:?} to {to:?}, second"));
            assert_holds(side.content_of_snapshot("first"), &before, &format!("{from:?} to {to:?}, first again"));
        }
    }
}

#[test]
fn keys_that_directories_cannot_hold_are_refused_by_name() {
    let Some((primary, other)) = sites() else { return };
    let target = other.bucket("refusing", Layout::Fso).linked();
    target.put("was/there", b"before");
    let long = "x".repeat(256);
    let alone = FLAT
        .into_iter()
        .filter(|key| !key.starts_with("beside") && !key.starts_with('\u{ff08}'))
        .chain([long.as_str()]);
    let mut cases: Vec<(Vec<&str>, &str)> = alone.map(|key| (vec![key], key)).collect();
    cases.push((vec!["dir", "dir/under"], "dir"));
    cases.push((vec!["dir", "dir-between", "dir/deep/er"], "dir"));
    for (keys, named) in cases {
        let source = primary.bucket("refused", Layout::Obs);
        for key in ["plain"].iter().chain(&keys) {
            source.put(key, key.as_bytes());
        }
        let outcome = Lab::new().sync(source.url(), target.url(), "first", &[]).exits(3).says(named);
        assert_eq!(outcome.text("state"), "refused");
        let untouched = Content([(b"was/there".to_vec(), b"before".to_vec())].into());
        assert_holds(target.content(), &untouched, &format!("{keys:?}"));
        assert!(target.snapshots().is_empty());
    }
}

/// Where a bucket lives.
enum Place {
    Directory(PathBuf),
    S3(s3::Bucket),
    Ozone(Bucket),
}

impl Place {
    fn url(&self) -> String {
        match self {
            Place::Directory(path) => path.to_str().unwrap().to_owned(),
            Place::S3(bucket) => bucket.url(),
            Place::Ozone(bucket) => bucket.url(),
        }
    }

    #[track_caller]
    fn holds(&self, content: &Content, what: &str) {
        match self {
            Place::Directory(path) => assert_equal(tree::content(path), content, what),
            Place::S3(bucket) => assert_equal(bucket.content(), content, what),
            Place::Ozone(bucket) => assert_holds(bucket.content(), content, what),
        }
    }

    fn change(&self, content: &mut Content, steps: &[Step]) {
        let before = content.clone();
        for step in steps {
            content.apply(step);
            match self {
                Place::Directory(path) => apply_to_directory(path, step),
                Place::Ozone(bucket) => bucket.apply(step),
                Place::S3(_) => {}
            }
        }
        if let Place::S3(bucket) = self {
            bucket.change(&before, content);
        }
        self.holds(content, "the test's own source");
    }
}

/// Two days between different stores, the second with a directory renamed.
fn two_days() -> [Vec<Step>; 2] {
    use Step::{Delete, MakeDirectory, Put, Rename};
    let mut numbers = Numbers(2);
    let mut bytes = |length: usize| numbers.bytes(length);
    let first = vec![
        Put("readme", b"first\n".to_vec()),
        Put("empty", Vec::new()),
        Put("large", bytes(18 << 20)),
        Put("year/june/a", bytes(3000)),
        Put("year/june/deep/b", bytes(3001)),
        Put("goes/x", bytes(10)),
        Put("with space, %41 and \u{fc}", b"odd".to_vec()),
        Put("left", bytes(20)),
        Put("right", bytes(20)),
        MakeDirectory("hollow/"),
    ];
    let second = vec![
        Rename("year/june/", "year/july/"),
        Put("readme", b"second".to_vec()),
        Put("new/one", bytes(40)),
        Rename("left", "held"),
        Rename("right", "left"),
        Rename("held", "right"),
        Delete("goes/"),
        MakeDirectory("new/hollow/"),
    ];
    [first, second]
}

/// Both days from source to target and each restored; what is renamed costs no bytes.
fn follows(source: &Place, target: &Place) {
    let lab = Lab::new();
    let mut content = Content::default();
    let mut days = Vec::new();
    for (day, steps) in two_days().iter().enumerate() {
        let name = format!("day-{}", day + 1);
        source.change(&mut content, steps);
        let outcome = lab.sync(source.url(), target.url(), &name, &[]).sealed();
        eprintln!("{} to {}, {name}: {} ms", kind(source), kind(target), outcome.count("elapsed_ms"));
        if day == 1 {
            assert_eq!(outcome.count("bytes_copied"), 46, "{}", outcome.report);
        }
        target.holds(&content, &format!("{} to {}, {name}", kind(source), kind(target)));
        lab.verify(source.url(), target.url(), &name);
        days.push((name, content.clone()));
    }
    for (name, content) in &days {
        if let Place::Ozone(bucket) = target {
            assert_holds(bucket.content_of_snapshot(name), content, name);
        }
        assert_equal(tree::content(&lab.restore(target.url(), name)), content, &format!("{name} restored"));
    }
}

fn kind(place: &Place) -> &'static str {
    match place {
        Place::Directory(_) => "directory",
        Place::S3(_) => "S3",
        Place::Ozone(_) => "Ozone",
    }
}

fn directory(lab: &Lab, name: &str) -> Place {
    let path = lab.path(name);
    fs::create_dir(&path).unwrap();
    Place::Directory(path)
}

const LAYOUTS: [Layout; 2] = [Layout::Fso, Layout::Obs];

#[test]
fn ozone_to_s3_and_back() {
    let (Some((primary, other)), Some(server)) = (sites(), s3::Server::from_environment("SNAPFERRY_TEST_S3")) else {
        return;
    };
    for layout in LAYOUTS {
        follows(&Place::Ozone(primary.bucket("to-s3", layout)), &Place::S3(server.bucket("from-ozone")));
        follows(&Place::S3(server.bucket("to-ozone")), &Place::Ozone(other.bucket("from-s3", layout).linked()));
    }
}

#[test]
fn ozone_to_a_directory_and_back() {
    let Some((primary, other)) = sites() else { return };
    for layout in LAYOUTS {
        let lab = Lab::new();
        follows(&Place::Ozone(primary.bucket("to-directory", layout)), &directory(&lab, "from-ozone"));
        let target = Place::Ozone(other.bucket("from-directory", layout).linked());
        follows(&directory(&lab, "to-ozone"), &target);
    }
}

#[test]
fn one_layout_follows_another() {
    let Some((primary, other)) = sites() else { return };
    for (from, to) in [(Layout::Obs, Layout::Fso), (Layout::Fso, Layout::Obs)] {
        let target = Place::Ozone(other.bucket("across", to).linked());
        follows(&Place::Ozone(primary.bucket("across", from)), &target);
    }
}
