//! Directory to directory, as a user does it.

#![allow(clippy::unwrap_used)]

mod harness;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use harness::model::{self, Content, Step, apply_to_directory, assert_equal, generations};
use harness::{Lab, snapshot_of, tree};

/// A lab with a small tree at `source`; `target` is not there yet.
fn lab() -> (Lab, PathBuf, PathBuf) {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    fs::create_dir(&source).unwrap();
    for number in 0..20 {
        tree::put(
            &source,
            format!("directory-{}/file-{number}", number % 3).as_bytes(),
            format!("content {number}").as_bytes(),
        );
    }
    fs::create_dir(source.join("hollow")).unwrap();
    tree::dress(&source);
    (lab, source, target)
}

/// Does these steps in the directory and in the model.
fn change(source: &Path, content: &mut Content, steps: &[Step]) {
    for step in steps {
        apply_to_directory(source, step);
        content.apply(step);
    }
    tree::dress(source);
    assert_equal(tree::content(source), content, "the test's own source");
}

#[test]
fn three_generations() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    fs::create_dir(&source).unwrap();
    let mut content = Content::default();
    let mut days = Vec::new();
    for (day, steps) in generations(true).iter().enumerate() {
        let name = format!("day-{}", day + 1);
        change(&source, &mut content, steps);
        let outcome = lab.sync(&source, &target, &name, &[]).sealed();
        assert_eq!(outcome.text("snapshot"), name);
        assert_eq!(outcome.report["base"].as_str().map(str::to_owned), (day > 0).then(|| format!("day-{day}")));
        assert_eq!(outcome.count("drift"), 0);
        tree::assert_same(&source, &target);
        assert_equal(tree::content(&target), &content, "the target");
        // A user reads the snapshot as a directory, on both sides.
        assert_equal(tree::content(&snapshot_of(&source, &name)), &content, "the source's snapshot");
        assert_equal(tree::content(&snapshot_of(&target, &name)), &content, "the target's snapshot");
        let kept = lab.path(&format!("kept-{name}"));
        copy_tree(&source, &kept);
        days.push((name, content.clone(), kept));
    }
    for (name, content, kept) in &days {
        assert_equal(tree::content(&snapshot_of(&target, name)), content, &format!("the target's {name}"));
        tree::assert_same(kept, &lab.restore(&target, name));
    }
    lab.verify(&source, &target, "day-3");
    lab.run([OsStr::new("snapshot"), OsStr::new("list"), target.as_os_str()]).exits(0).says("day-1").says("day-3");
}

/// `cp -a` without snapferry's folders.
fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if !matches!(entry.file_name().as_bytes(), b".snapferry" | b".snapshot") {
            let status = std::process::Command::new("cp").arg("-a").arg(entry.path()).arg(to).status().unwrap();
            assert!(status.success());
        }
    }
}

#[test]
fn only_renames_move_no_bytes() {
    let (lab, source, target) = lab();
    tree::put(&source, b"big/one", &vec![7; 3 << 20]);
    lab.sync(&source, &target, "first", &[]).sealed();
    let inode = fs::metadata(target.join("big/one")).unwrap().ino();

    fs::rename(source.join("big"), source.join("bigger")).unwrap();
    fs::rename(source.join("directory-0/file-0"), source.join("held")).unwrap();
    fs::rename(source.join("directory-1/file-1"), source.join("directory-0/file-0")).unwrap();
    fs::rename(source.join("held"), source.join("directory-1/file-1")).unwrap();
    let outcome = lab.sync(&source, &target, "second", &[]).sealed();
    assert_eq!((outcome.count("objects_copied"), outcome.count("bytes_copied")), (0, 0), "{}", outcome.report);
    assert!(outcome.count("renamed") >= 1, "{}", outcome.report);
    assert_eq!(fs::metadata(target.join("bigger/one")).unwrap().ino(), inode, "copied, not renamed");
    tree::assert_same(&source, &target);
}

#[test]
fn modes_and_times_alone_travel() {
    let (lab, source, target) = lab();
    lab.sync(&source, &target, "first", &[]).sealed();
    let file = source.join("directory-0/file-0");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    fs::set_permissions(source.join("hollow"), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_456_789);
    fs::File::open(source.join("directory-1/file-1")).unwrap().set_modified(time).unwrap();
    lab.sync(&source, &target, "second", &[]).sealed();
    tree::assert_same(&source, &target);
}

#[test]
fn nothing_new_writes_nothing() {
    let (lab, source, target) = lab();
    let outcome = lab.sync(&source, &target, "first", &[]).sealed();
    assert_eq!(outcome.count("objects_copied"), 20);
    let before = (tree::fingerprint(&source), tree::fingerprint(&target));
    let outcome = lab.sync(&source, &target, "first", &[]).sealed();
    assert_eq!(outcome.count("objects_copied"), 0);
    assert_eq!((tree::fingerprint(&source), tree::fingerprint(&target)), before, "a sealed snapshot was written to");

    let live = tree::read(&target);
    let outcome = lab.sync(&source, &target, "second", &[]).sealed();
    for field in ["objects_copied", "bytes_copied", "created", "modified", "renamed", "deleted"] {
        assert_eq!(outcome.count(field), 0, "{field} in {}", outcome.report);
    }
    assert_eq!(tree::read(&target), live);
    tree::assert_same(&snapshot_of(&target, "first"), &snapshot_of(&target, "second"));
}

#[test]
fn the_same_with_its_memory_lost() {
    let (lab, source, target) = lab();
    lab.sync(&source, &target, "first", &[]).sealed();
    // Where nothing was remembered there is nothing to lose.
    let _ = fs::remove_dir_all(lab.path("state"));
    tree::put(&source, b"directory-0/file-0", b"changed");
    let outcome = lab.sync(&source, &target, "second", &[]).sealed();
    assert_eq!(outcome.count("objects_copied"), 1, "{}", outcome.report);
    assert_eq!(outcome.text("base"), "first");
    tree::assert_same(&source, &target);
}

#[test]
fn a_dry_run_touches_nothing() {
    let (lab, source, target) = lab();
    let outcome = lab.sync(&source, &target, "first", &["--dry-run"]).exits(0);
    assert_eq!(outcome.text("state"), "planned");
    assert_eq!(outcome.count("created"), 20);
    assert!(tree::fingerprint(&target).is_empty(), "a dry run wrote to the target");

    lab.sync(&source, &target, "first", &[]).sealed();
    tree::put(&source, b"new", b"new");
    tree::put(&source, b"directory-0/file-0", b"changed");
    fs::remove_file(source.join("directory-1/file-1")).unwrap();
    let before = tree::fingerprint(&target);
    let outcome = lab.sync(&source, &target, "second", &["--dry-run"]).exits(0);
    assert_eq!(
        (outcome.count("created"), outcome.count("modified"), outcome.count("deleted")),
        (1, 1, 1),
        "{}",
        outcome.report
    );
    assert_eq!(tree::fingerprint(&target), before, "a dry run wrote to the target");
    assert!(!snapshot_of(&target, "second").exists());
}

#[test]
fn drift_is_refused_by_name_or_repaired() {
    let (lab, source, target) = lab();
    lab.sync(&source, &target, "first", &[]).sealed();
    tree::put(&target, b"directory-0/file-3", b"somebody else's");
    tree::put(&target, b"somebody/was-here", b"hello");
    fs::remove_file(target.join("directory-2/file-5")).unwrap();
    tree::put(&source, b"new", b"new");

    let before = tree::content_fingerprint(&target);
    let outcome = lab.sync(&source, &target, "second", &[]).exits(3).says("directory-0/file-3");
    assert_eq!(outcome.text("state"), "refused");
    assert_eq!(tree::content_fingerprint(&target), before, "a refused run wrote to the target");
    assert!(!snapshot_of(&target, "second").exists());

    let outcome = lab.sync(&source, &target, "second", &["--on-drift", "repair"]).sealed();
    assert!(outcome.count("drift") >= 3, "{}", outcome.report);
    tree::assert_same(&source, &target);
}

#[test]
fn drift_alone_is_seen_by_verify() {
    let (lab, source, target) = lab();
    lab.sync(&source, &target, "first", &[]).sealed();
    lab.verify(&source, &target, "first");
    // In the snapshot itself: the same size and time, another byte; only reading shows it.
    let file = snapshot_of(&target, "first").join("directory-0/file-3");
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    let length = fs::metadata(&file).unwrap().len() as usize;
    let replacement = lab.path("replacement");
    fs::write(&replacement, vec![b'#'; length]).unwrap();
    fs::File::open(&replacement).unwrap().set_modified(time).unwrap();
    fs::rename(&replacement, &file).unwrap();
    let arguments = ["verify".as_ref(), source.as_os_str(), target.as_os_str()];
    let more = ["--snapshot", "first", "--read"].map(OsStr::new);
    lab.run(arguments.into_iter().chain(more)).exits(4).says("directory-0/file-3");
}

#[test]
fn too_many_deletes_are_refused() {
    let (lab, source, target) = lab();
    lab.sync(&source, &target, "first", &[]).sealed();
    fs::remove_dir_all(source.join("directory-0")).unwrap();
    fs::remove_dir_all(source.join("directory-1")).unwrap();
    let before = tree::content_fingerprint(&target);
    for limit in [&[][..], &["--max-delete", "5"], &["--max-delete", "10%"]] {
        let outcome = lab.sync(&source, &target, "second", limit).exits(3).says("max-delete");
        assert_eq!(outcome.text("state"), "refused");
        assert_eq!(tree::content_fingerprint(&target), before, "a refused run wrote to the target");
    }
    let outcome = lab.sync(&source, &target, "second", &["--max-delete", "100%"]).sealed();
    assert_eq!(outcome.count("deleted"), 14);
    tree::assert_same(&source, &target);
}

#[test]
fn renames_are_no_deletes() {
    let (lab, source, target) = lab();
    lab.sync(&source, &target, "first", &[]).sealed();
    for number in 0..3 {
        fs::rename(source.join(format!("directory-{number}")), source.join(format!("renamed-{number}"))).unwrap();
    }
    lab.sync(&source, &target, "second", &["--max-delete", "0"]).sealed();
    tree::assert_same(&source, &target);
}

#[test]
fn a_missing_source_is_not_an_empty_one() {
    let (lab, source, target) = lab();
    lab.sync(&source, &target, "first", &[]).sealed();
    fs::rename(&source, lab.path("elsewhere")).unwrap();
    let before = tree::fingerprint(&target);
    lab.sync(&source, &target, "second", &["--max-delete", "100%"]).exits_with_one_of(&[1, 2]).says("source");
    assert_eq!(tree::fingerprint(&target), before);
    assert!(!source.exists(), "the source was made");
    // A file is no bucket either.
    fs::write(&source, "a file").unwrap();
    lab.sync(&source, &target, "second", &["--max-delete", "100%"]).exits_with_one_of(&[1, 2]);
    assert_eq!(tree::fingerprint(&target), before);
}

#[test]
fn an_empty_source_is_a_bucket() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    fs::create_dir(&source).unwrap();
    let outcome = lab.sync(&source, &target, "first", &[]).sealed();
    assert_eq!(outcome.count("created"), 0);
    assert!(tree::read(&target).is_empty());
}

#[test]
fn source_and_target_must_lie_apart() {
    let (lab, source, _) = lab();
    let before = tree::read(&source);
    let inside = source.join("directory-0/replica");
    let link = lab.path("link");
    std::os::unix::fs::symlink(&source, &link).unwrap();
    for (from, to) in [
        (&source, &source),
        (&source, &inside),
        (&source.join("directory-0"), &source),
        (&source, &link),
        (&source, &source.join("directory-0/../directory-1")),
    ] {
        lab.sync(from, to, "first", &[]).exits_with_one_of(&[2, 3]);
        assert_eq!(tree::read(&source), before, "{} to {}", from.display(), to.display());
    }
}

#[test]
fn names_of_every_kind() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    fs::create_dir(&source).unwrap();
    let long = [b'x'; 255];
    let names: [&[u8]; 24] = [
        b"a#1",
        b"a#1/nested#2",
        b"new\nline",
        b"tab\there",
        b"carriage\rreturn",
        b"\x01\x02\x7f",
        b"\xff\xfe not UTF-8 \x80",
        "caf\u{e9}".as_bytes(),
        "cafe\u{301}".as_bytes(),
        b" leading",
        b"trailing ",
        b" ",
        b"...",
        b"..dots",
        b"-dash",
        b"--json",
        b"back\\slash",
        b"\\x41",
        b"%2F",
        b"a+b&c=d?e",
        b"*?[x]{y}",
        b"'quote\"",
        b".hidden",
        &long,
    ];
    // The first is a file in one directory and a directory in the other.
    for (number, name) in names.iter().enumerate().skip(1) {
        tree::put(&source, &[b"plain/", *name].concat(), format!("{number}").as_bytes());
        tree::put(
            &source,
            &[b"in ", &name[..name.len().min(252)], b"/", *name].concat(),
            format!("in {number}").as_bytes(),
        );
    }
    tree::put(&source, b"plain/a", b"a");
    tree::put(&source, b"a#1", b"a#1");
    fs::create_dir_all(source.join(OsStr::from_bytes(b"hollow\n\xff"))).unwrap();
    tree::dress(&source);
    lab.sync(&source, &target, "first", &[]).sealed();
    tree::assert_same(&source, &target);

    for name in &names[2..] {
        let path = |prefix: &str| source.join(prefix).join(OsStr::from_bytes(name));
        fs::create_dir_all(source.join("renamed")).unwrap();
        fs::rename(path("plain"), path("renamed")).unwrap();
    }
    fs::remove_file(source.join("a#1")).unwrap();
    tree::dress(&source);
    let outcome = lab.sync(&source, &target, "second", &[]).sealed();
    assert_eq!(outcome.count("objects_copied"), 0, "{}", outcome.report);
    tree::assert_same(&source, &target);
    tree::assert_same(&source, &lab.restore(&target, "second"));
    assert_eq!(fs::read(snapshot_of(&target, "first").join("a#1")).unwrap(), b"a#1");
}

#[test]
fn links_and_sockets_are_counted_or_refused() {
    let (lab, source, target) = lab();
    let outside = lab.path("outside");
    tree::put(&outside, b"secret", b"not to be copied");
    for (to, name) in [
        (outside.as_path(), "to-directory"),
        (Path::new("nowhere"), "broken"),
        (Path::new("file-0"), "directory-0/to-file"),
    ] {
        std::os::unix::fs::symlink(to, source.join(name)).unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(source.join("pipe")).status().unwrap().success());

    lab.sync(&source, &target, "first", &["--strict"]).exits_with_one_of(&[1, 3]).says("to-directory");
    assert!(!snapshot_of(&target, "first").exists());
    let outcome = lab.sync(&source, &target, "second", &[]).sealed();
    assert_eq!(outcome.report["others"]["links"].as_u64(), Some(3), "{}", outcome.report);
    assert_eq!(outcome.report["others"]["special"].as_u64(), Some(2), "{}", outcome.report);
    let names = tree::content(&target).0;
    assert_eq!(names.keys().filter(|key| !key.ends_with(b"/")).count(), 20, "{:?}", names.keys());
    assert!(!names.keys().any(|key| key.ends_with(b"secret")));
}

#[test]
fn a_link_on_the_target_leads_nowhere() {
    let (lab, source, target) = lab();
    lab.sync(&source, &target, "first", &[]).sealed();
    // Somebody puts a link where a directory was: a write through it would land outside the target.
    let outside = lab.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::remove_dir_all(target.join("directory-0")).unwrap();
    std::os::unix::fs::symlink(&outside, target.join("directory-0")).unwrap();
    tree::put(&source, b"directory-0/file-0", b"changed");
    lab.sync(&source, &target, "second", &[]).exits(3);
    assert!(tree::read(&outside).is_empty(), "written outside the target");
    lab.sync(&source, &target, "second", &["--on-drift", "repair"]).exits_with_one_of(&[0, 1, 3]);
    assert!(tree::read(&outside).is_empty(), "written outside the target");
}

#[test]
fn a_file_changed_in_place_after_its_snapshot_is_pinned_again() {
    let (lab, source, target) = lab();
    let create = ["snapshot".as_ref(), "create".as_ref(), source.as_os_str(), "first".as_ref()];
    lab.run(create.into_iter().chain(["--clone", "hardlink"].map(OsStr::new))).exits(0);
    // A log that grows: its snapshot is a hard link, so it grows there too.
    let log = source.join("directory-0/file-0");
    let mut grown = fs::read(&log).unwrap();
    grown.extend(b" and more");
    fs::write(&log, &grown).unwrap();
    tree::put(&source, b"later", b"not in the snapshot");

    lab.sync(&source, &target, "first", &["--strict"]).exits_with_one_of(&[1, 3]).says("directory-0/file-0");
    assert!(!snapshot_of(&target, "first").exists());
    let outcome = lab.sync(&source, &target, "first", &[]).sealed().says("directory-0/file-0");
    assert_eq!(outcome.count("repinned"), 1);
    assert_eq!(fs::read(target.join("directory-0/file-0")).unwrap(), grown);
    assert!(!target.join("later").exists(), "read from the live directory");
    // From now on the source's snapshot is what the target's is.
    fs::write(&log, "changed again").unwrap();
    assert_eq!(fs::read(snapshot_of(&source, "first").join("directory-0/file-0")).unwrap(), grown);
}

#[test]
fn a_copied_snapshot_does_not_move() {
    let (lab, source, target) = lab();
    let create = ["snapshot".as_ref(), "create".as_ref(), source.as_os_str(), "first".as_ref()];
    lab.run(create.into_iter().chain(["--clone", "copy"].map(OsStr::new))).exits(0);
    let log = source.join("directory-0/file-0");
    let before = fs::read(&log).unwrap();
    fs::write(&log, "changed in place").unwrap();
    let outcome = lab.sync(&source, &target, "first", &[]).sealed();
    assert_eq!(outcome.count("repinned"), 0);
    assert_eq!(fs::read(target.join("directory-0/file-0")).unwrap(), before);
}

#[test]
fn restore_takes_what_a_glob_names() {
    let (lab, source, target) = lab();
    lab.sync(&source, &target, "first", &[]).sealed();
    let to = lab.path("some");
    let arguments = ["restore".as_ref(), target.as_os_str(), "--snapshot".as_ref(), "first".as_ref(), to.as_os_str()];
    lab.run(arguments.into_iter().chain(["--key", "directory-1/*"].map(OsStr::new))).exits(0);
    let mut expected = model::Content(tree::content(&source).0);
    expected.0.retain(|key, _| key.starts_with(b"directory-1/"));
    assert_equal(tree::content(&to), &expected, "restored by a glob");
    // What is there already is not written over.
    lab.run(arguments).exits_with_one_of(&[2, 3]);
}

#[test]
fn wrong_usage_exits_2() {
    let (lab, source, target) = lab();
    lab.sync(&source, &target, "no/slash", &[]).exits(2);
    lab.sync(&source, &target, "first", &["--max-delete", "many"]).exits(2);
    lab.sync(&source, &target, "first", &["--no-such-flag"]).exits(2);
    lab.sync(&source, "ftp://somewhere/else", "first", &[]).exits(2);
    assert!(!target.exists());
}
