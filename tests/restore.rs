//! The way back, as a person walks it after something went wrong: into a new place, and in place over what is left.

#![allow(clippy::unwrap_used)]

mod harness;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::model::{Content, assert_equal};
use harness::s3::{Bucket, Server};
use harness::{Lab, Numbers, Outcome, snapshot_of, tree};
use serde_json::Value;

const MIB: usize = 1 << 20;

/// The phases of a restore in place, as its log names them.
const PHASES: [&str; 6] = ["PLANNING", "SNAPSHOTTING", "COPYING", "COMMITTING", "PROVING", "no phase at all"];

/// A primary with a sealed snapshot `monday` on its DR side.
fn lab() -> (Lab, PathBuf, PathBuf) {
    let lab = Lab::new();
    let (primary, dr) = (lab.path("primary"), lab.path("dr"));
    fs::create_dir(&primary).unwrap();
    let mut numbers = Numbers(11);
    for number in 0..60 {
        tree::put(&primary, format!("photos/{}/{number}", number % 6).as_bytes(), &numbers.bytes(2000 + number));
    }
    for name in ["notes", "was-file", "was-directory/in/it", "odd[1]*", "touched", "mode", "keep/me"] {
        tree::put(&primary, name.as_bytes(), name.as_bytes());
    }
    tree::put(&primary, b"disk", &numbers.bytes(40 * MIB));
    fs::create_dir_all(primary.join("hollow/er")).unwrap();
    tree::dress(&primary);
    lab.sync(&primary, &dr, "monday", &[]).sealed();
    (lab, primary, dr)
}

/// Everything that can happen to a directory while nobody looks.
fn damage(primary: &Path) {
    let write = |name: &str, data: &[u8]| tree::put(primary, name.as_bytes(), data);
    write("photos/0/0", b"ransom");
    write("photos/0/6", &[7; 2006]);
    write("photos/stranger", b"was not there");
    fs::remove_dir_all(primary.join("photos/3")).unwrap();
    fs::remove_file(primary.join("was-file")).unwrap();
    write("was-file/now/a-directory", b"in the way");
    fs::remove_dir_all(primary.join("was-directory")).unwrap();
    write("was-directory", b"a file");
    fs::remove_dir_all(primary.join("hollow")).unwrap();
    fs::create_dir_all(primary.join("new/and/empty")).unwrap();
    fs::File::open(primary.join("touched")).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    fs::set_permissions(primary.join("mode"), std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    let mut disk = fs::read(primary.join("disk")).unwrap();
    disk[20 * MIB..20 * MIB + 4096].fill(0);
    write("disk", &disk);
    fs::rename(primary.join("photos/5"), primary.join("photos/moved")).unwrap();
}

/// `cp -a` without what the program keeps.
fn copy_of(lab: &Lab, directory: &Path, name: &str) -> PathBuf {
    let to = lab.path(name);
    assert!(Command::new("cp").arg("-a").arg(directory).arg(&to).status().unwrap().success());
    for folder in [".snapshot", ".snapferry"] {
        let _ = fs::remove_dir_all(to.join(folder));
    }
    to
}

fn restore(lab: &Lab, arguments: &[&OsStr], more: &[&str]) -> Outcome {
    let arguments = arguments.iter().copied().chain(more.iter().map(OsStr::new));
    lab.run(std::iter::once(OsStr::new("restore")).chain(arguments))
}

/// `restore BUCKET --snapshot NAME TO --in-place --confirm NAME`, and more arguments.
fn in_place(lab: &Lab, bucket: impl AsRef<OsStr>, name: &str, to: impl AsRef<OsStr>, more: &[&str]) -> Outcome {
    let arguments = [bucket.as_ref(), "--snapshot".as_ref(), name.as_ref(), to.as_ref()];
    restore(lab, &arguments, &[&["--in-place", "--confirm", name], more].concat())
}

fn safety_snapshots(directory: &Path) -> Vec<String> {
    let Ok(names) = fs::read_dir(directory.join(".snapferry/snapshots")) else { return Vec::new() };
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("before-restore-")).collect()
}

#[test]
fn a_new_place_gets_all_a_prefix_or_one_file() {
    let (lab, _, dr) = lab();
    let whole = lab.restore(&dr, "monday");
    tree::assert_same(&whole, &snapshot_of(&dr, "monday"));
    assert!(!whole.join(".snapferry").exists());

    let arguments = |to: &Path| [dr.clone().into_os_string(), "--snapshot".into(), "monday".into(), to.into()];
    let run = |to: &Path, more: &[&str]| {
        let arguments = arguments(to);
        restore(&lab, &arguments.iter().map(|one| &**one).collect::<Vec<_>>(), more)
    };
    let to = lab.path("by-prefix");
    run(&to, &["--prefix", "photos/1", "--prefix", "odd["]).exits(0);
    let mut expected = tree::content(&dr);
    expected.0.retain(|key, _| key.starts_with(b"photos/1") || key.starts_with(b"odd["));
    assert_eq!(expected.0.len(), 12, "ten photos, their directory and the odd one");
    assert_equal(tree::content(&to), &expected, "by prefix");

    let to = lab.path("by-key");
    let outcome = run(&to, &["--key", r"odd\[1\]\*"]).exits(0);
    assert_eq!(tree::content(&to).0.into_keys().collect::<Vec<_>>(), [b"odd[1]*"]);
    let path = outcome.text("path").to_owned();
    assert_eq!(path, dr.canonicalize().unwrap().join(".snapshot/monday/odd[1]*").to_str().unwrap());
    assert_eq!(fs::read(path).unwrap(), fs::read(to.join("odd[1]*")).unwrap());

    run(&lab.path("nothing"), &["--key", "no-such-key"]).exits_with_one_of(&[1, 2]).says("no key");
    run(&lab.path("by-key"), &[]).exits(3).says("--in-place");
}

#[test]
fn in_place_everything_is_as_it_was() {
    let (lab, primary, dr) = lab();
    damage(&primary);
    std::os::unix::fs::symlink("notes", primary.join("photos/link")).unwrap();
    let damaged = copy_of(&lab, &primary, "damaged");
    let outcome = in_place(&lab, &dr, "monday", &primary, &[]).exits(0);
    assert_eq!(outcome.text("state"), "restored");
    // A link is no content: no snapshot has it, so none takes it away.
    assert_eq!(fs::read_link(primary.join("photos/link")).unwrap(), Path::new("notes"));
    fs::remove_file(primary.join("photos/link")).unwrap();
    let time = fs::metadata(dr.join("photos")).unwrap().modified().unwrap();
    fs::File::open(primary.join("photos")).unwrap().set_modified(time).unwrap();
    tree::assert_same(&primary, &dr);

    // Of the image one block came over; what was only touched or renamed was there already.
    let copied = outcome.count("bytes_copied");
    assert!((8 << 20..(8 << 20) + (1 << 16)).contains(&copied), "{}", outcome.report);
    assert!(outcome.count("bytes_reused") >= 32 << 20, "{}", outcome.report);
    assert_eq!(outcome.count("drift"), 0);
    assert_eq!((outcome.count("objects"), outcome.count("skipped")), (68, 0));

    // What was there is kept, and restores as it was.
    let [safety] = &safety_snapshots(&primary)[..] else { panic!("not one safety snapshot") };
    assert_eq!(outcome.text("safety_snapshot"), safety);
    fs::remove_file(damaged.join("photos/link")).unwrap();
    let back = lab.restore(&primary, safety);
    let time = fs::metadata(back.join("photos")).unwrap().modified().unwrap();
    fs::File::open(damaged.join("photos")).unwrap().set_modified(time).unwrap();
    tree::assert_same(&back, &damaged);
    tree::visit(&primary.join(".snapferry/staging"), &mut |path, left| assert!(left.is_dir(), "{}", path.display()));

    // Once is enough, unless somebody insists.
    let before = tree::content_fingerprint(&primary);
    in_place(&lab, &dr, "monday", &primary, &[]).exits(3).says("restored there already").says("--again");
    assert_eq!(before, tree::content_fingerprint(&primary));
    tree::put(&primary, b"notes", b"scribbled over");
    in_place(&lab, &dr, "monday", &primary, &["--again"]).exits(0);
    tree::assert_same(&primary, &dr);

    // And the way back from the way back, by the primary's own snapshot.
    restore(&lab, &[primary.as_os_str()], &["--snapshot", safety, "--in-place", "--confirm", safety]).exits(0);
    tree::assert_same(&primary, &damaged);
}

#[test]
fn a_bucket_becomes_a_snapshot_of_its_own() {
    let (lab, primary, dr) = lab();
    let monday = copy_of(&lab, &dr, "monday-as-it-was");
    damage(&primary);
    lab.sync(&primary, &dr, "tuesday", &[]).sealed();
    let outcome = restore(&lab, &[dr.as_os_str()], &["--snapshot", "monday", "--in-place", "--confirm", "monday"]);
    let outcome = outcome.exits(0);
    tree::assert_same(&dr, &monday);
    tree::assert_same(&snapshot_of(&dr, outcome.text("safety_snapshot")), &primary);
    // Only what differs was read: the newest seal knows the rest.
    assert!(outcome.count("bytes_copied") < 9 << 20, "{}", outcome.report);
    // The sealed snapshots are what they were.
    tree::assert_same(&snapshot_of(&dr, "monday"), &monday);
    tree::assert_same(&snapshot_of(&dr, "tuesday"), &primary);
    lab.sync(&primary, &dr, "wednesday", &[]).exits(3).says("--on-drift repair");
}

#[test]
fn what_is_not_confirmed_or_not_safe_touches_nothing() {
    let (lab, primary, dr) = lab();
    damage(&primary);
    let before = tree::fingerprint(&primary);
    let run = |more: &[&str]| {
        restore(&lab, &[dr.as_os_str(), "--snapshot".as_ref(), "monday".as_ref(), primary.as_os_str()], more)
    };
    run(&[]).exits(3);
    run(&["--in-place"]).exits(3).says("--in-place --confirm monday");
    run(&["--in-place", "--confirm", "tuesday"]).exits(3).says("--in-place --confirm monday");
    run(&["--confirm", "monday"]).exits(2);
    run(&["--again"]).exits(2);
    restore(&lab, &[dr.as_os_str()], &["--snapshot", "monday"]).exits(2);
    in_place(&lab, &dr, "no-such", &primary, &[]).exits_with_one_of(&[1, 2]).says("no-such");
    in_place(&lab, &dr, "monday", lab.path("nowhere"), &[]).exits_with_one_of(&[1, 2]);
    assert!(!lab.path("nowhere").exists());

    let plan = run(&["--in-place", "--dry-run", "-v"]).exits(0);
    assert_eq!((plan.text("state"), &plan.report["safety_snapshot"]), ("planned", &Value::Null));
    let steps: Vec<&str> = plan.report["steps"].as_array().unwrap().iter().map(|step| step.as_str().unwrap()).collect();
    for step in ["delete   photos/stranger", "replace  photos/0/0 (whole: it is small)", "create   photos/5/5"] {
        assert!(steps.contains(&step), "{step}: {steps:#?}");
    }
    // The refusal of a place that is not empty takes and returns the lease.
    let content = |print: std::collections::BTreeMap<PathBuf, _>| {
        print.into_iter().filter(|(path, _)| !path.starts_with(primary.join(".snapferry"))).collect::<Vec<_>>()
    };
    assert_eq!(content(before.clone()), content(tree::fingerprint(&primary)));

    in_place(&lab, &dr, "monday", &primary, &["--max-delete", "12"]).exits(3).says("--max-delete");
    assert_eq!(content(before), content(tree::fingerprint(&primary)));
    assert_eq!(safety_snapshots(&primary), [""; 0]);
    assert!(!primary.join(".snapferry/restores").exists());
    let outcome = in_place(&lab, &dr, "monday", &primary, &["--max-delete", "13", "--no-safety-snapshot"]).exits(0);
    assert_eq!((outcome.count("deleted"), &outcome.report["safety_snapshot"]), (13, &Value::Null));
    assert_eq!(safety_snapshots(&primary), [""; 0]);
    tree::assert_same(&primary, &dr);
}

#[test]
fn only_what_is_chosen_is_touched_or_counted() {
    let (lab, primary, dr) = lab();
    damage(&primary);
    let mut expected = tree::content(&primary);
    expected.0.retain(|key, _| !key.starts_with(b"photos/"));
    let photos = tree::content(&dr).0.into_iter().filter(|(key, _)| key.starts_with(b"photos/"));
    expected.0.extend(photos);
    // Eleven of the 51 that match go.
    let choice = ["--prefix", "photos/", "--max-delete"];
    in_place(&lab, &dr, "monday", &primary, &[&choice[..], &["21%"]].concat()).exits(3).says("11 of 51");
    let outcome = in_place(&lab, &dr, "monday", &primary, &[&choice[..], &["22%"]].concat()).exits(0);
    assert_equal(tree::content(&primary), &expected, "the photos, and nothing else");
    assert_eq!((outcome.count("objects"), outcome.count("deleted"), outcome.count("created")), (60, 11, 20));
    // Another choice is another restore.
    in_place(&lab, &dr, "monday", &primary, &["--prefix", "photos/"]).exits(3).says("--again");
    let outcome = in_place(&lab, &dr, "monday", &primary, &["--key", "notes", "--key", "keep/*"]).exits(0);
    assert_eq!((outcome.count("objects"), outcome.count("objects_copied")), (2, 0));

    // What was not chosen does not give way.
    let before = tree::content_fingerprint(&primary);
    let refused = in_place(&lab, &dr, "monday", &primary, &["--key", "was-file"]).exits(3);
    refused.says("was-file/").says("choose it, too");
    in_place(&lab, &dr, "monday", &primary, &["--key", "was-directory/**"]).exits(3).says("was-directory");
    assert_eq!(before, tree::content_fingerprint(&primary));
    in_place(&lab, &dr, "monday", &primary, &["--prefix", "was-", "--max-delete", "2"]).exits(0);
    assert_eq!(fs::read(primary.join("was-file")).unwrap(), b"was-file");
    assert_eq!(fs::read(primary.join("was-directory/in/it")).unwrap(), b"was-directory/in/it");

    // Of a directory of which only some goes, the rest and the directory stay.
    tree::put(&primary, b"new/and/empty/not.txt", b"stays");
    tree::put(&primary, b"new/and/empty/goes.tmp", b"goes");
    in_place(&lab, &dr, "monday", &primary, &["--key", "**/*.tmp", "--key", "new/**/", "--max-delete", "100%"])
        .exits(0);
    assert!(!primary.join("new/and/empty/goes.tmp").exists());
    assert_eq!(fs::read(primary.join("new/and/empty/not.txt")).unwrap(), b"stays");
}

/// Kills a restore in place when it gets to a phase, and runs it again.
fn killed_in(phase: &str) {
    let (lab, primary, dr) = lab();
    damage(&primary);
    let damaged = copy_of(&lab, &primary, "damaged");
    let (bucket, to) = (dr.to_str().unwrap(), primary.to_str().unwrap());
    let arguments = ["restore", bucket, "--snapshot", "monday", to, "--in-place", "--confirm", "monday"];
    let Some((mut child, _log)) = lab.until(&arguments, phase) else {
        assert_eq!(phase, "no phase at all", "it never came to be {phase}");
        return tree::assert_same(&primary, &dr);
    };
    child.kill().unwrap();
    child.wait().unwrap();
    let begun = safety_snapshots(&primary);
    let outcome = lab.run(arguments).exits(0);
    tree::assert_same(&primary, &dr);
    let safety = safety_snapshots(&primary);
    assert_eq!(safety.len(), 1, "killed in {phase}: {safety:?}");
    assert!(begun.is_empty() || begun == safety, "{begun:?} {safety:?}");
    tree::assert_same(&snapshot_of(&primary, &safety[0]), &damaged);
    if matches!(phase, "COMMITTING" | "PROVING") {
        assert_eq!(outcome.count("bytes_copied"), 0, "killed in {phase}: {}", outcome.report);
    }
    in_place(&lab, &dr, "monday", &primary, &[]).exits(3).says("--again");
}

#[test]
fn killed_in_any_phase_it_goes_on() {
    PHASES.into_iter().for_each(killed_in);
}

fn hold_on(lab: &Lab, bucket: &Path, name: &str) -> Value {
    let list = lab.run(["snapshot".as_ref(), "list".as_ref(), bucket.as_os_str()]).exits(0);
    let snapshots = list.report["snapshots"].as_array().unwrap();
    snapshots.iter().find(|one| one["name"] == name).unwrap()["hold"].clone()
}

#[test]
fn a_snapshot_is_held_while_it_is_restored() {
    let (lab, primary, dr) = lab();
    damage(&primary);
    let delete =
        || lab.run(["snapshot".as_ref(), "delete".as_ref(), dr.as_os_str(), "monday".as_ref(), "--force".as_ref()]);
    let place = lab.path("place");
    let (bucket, to) = (dr.to_str().unwrap(), [place.to_str().unwrap(), primary.to_str().unwrap()]);
    let in_place: [&[&str]; 2] = [&[], &["--in-place", "--confirm", "monday"]];
    for (to, more) in to.into_iter().zip(in_place) {
        let arguments = [&["restore", bucket, "--snapshot", "monday", to], more].concat();
        let slow = [&arguments[..], &["--bandwidth", "4MB"]].concat();

        // Killed, it leaves the hold to the next run.
        let (mut child, _log) = lab.until(&slow, "COPYING").unwrap();
        delete().exits(3).says("monday is held").says("by job-").says(to);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(hold_on(&lab, &dr, "monday").is_object());

        // Stopped, it gives it back.
        let (mut child, log) = lab.until(&slow, "COPYING").unwrap();
        assert!(hold_on(&lab, &dr, "monday").is_object());
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        std::io::Read::read_to_string(&mut { log }, &mut String::new()).unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(hold_on(&lab, &dr, "monday"), Value::Null);

        lab.run(&arguments).exits(0);
        assert_eq!(hold_on(&lab, &dr, "monday"), Value::Null);
    }
    tree::assert_same(&primary, &dr);

    // A hold of somebody's stays theirs.
    lab.run(["snapshot", "hold", bucket, "monday", "--reason", "the auditors come"]).exits(0);
    lab.restore(&dr, "monday");
    assert_eq!(hold_on(&lab, &dr, "monday")["reason"], "the auditors come");
}

#[test]
fn what_another_job_left_half_way_is_not_trampled_on() {
    let (lab, primary, dr) = lab();
    let disk = Numbers(12).bytes(24 * MIB);
    tree::put(&primary, b"disk", &disk);
    let (from, to) = (primary.to_str().unwrap(), dr.to_str().unwrap());
    let sync = ["sync", from, to, "--snapshot", "tuesday", "--bandwidth", "4MB"];
    let (mut child, _log) = lab.until(&sync, "COPYING").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let run = || in_place(&lab, &dr, "monday", &dr, &[]);
    run().exits(3).says("a sync of tuesday").says("to a new place");
    lab.restore(&dr, "monday");
    lab.sync(&primary, &dr, "tuesday", &[]).sealed();

    // The same the other way round: one restore in place does not go on with another's work.
    damage(&primary);
    let restore = ["restore", to, "--snapshot", "tuesday", from, "--in-place", "--confirm", "tuesday"];
    let (mut child, _log) = lab.until(&restore, "COMMITTING").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    in_place(&lab, &dr, "monday", &primary, &[]).exits(3).says("a restore of tuesday");
    // Nor does a sync, either way.
    let elsewhere = lab.path("elsewhere");
    lab.sync(&primary, &elsewhere, "wednesday", &[]).exits(3).says("a restore of tuesday").says("let that restore run");
    let half = tree::content_fingerprint(&primary);
    let third = copy_of(&lab, &dr, "third");
    let refused = lab.sync(third, &primary, "wednesday", &[]).exits(3);
    refused.says("a restore of tuesday").says("same restore command").says("--on-drift repair");
    assert_eq!(half, tree::content_fingerprint(&primary));
    lab.run(restore).exits(0);
    tree::assert_same(&primary, &dr);
    in_place(&lab, &dr, "monday", &primary, &[]).exits(0);
    tree::assert_same(&primary, &snapshot_of(&dr, "monday"));
}

#[test]
fn a_sync_replaces_what_a_restore_left_half_way_for_who_says_so() {
    let (lab, primary, dr) = lab();
    damage(&primary);
    lab.sync(&primary, &dr, "tuesday", &["--max-delete", "100%"]).sealed();
    let bucket = dr.to_str().unwrap();
    let restore = ["restore", bucket, "--snapshot", "monday", "--in-place", "--confirm", "monday"];
    let (mut child, _log) = lab.until(&restore, "COMMITTING").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    tree::put(&primary, b"notes", b"of wednesday");
    lab.sync(&primary, &dr, "wednesday", &[]).exits(3).says("a restore of monday").says("same restore command");
    lab.sync(&primary, &dr, "wednesday", &["--on-drift", "repair", "--max-delete", "100%"]).sealed();
    tree::assert_same(&dr, &primary);
    tree::visit(&dr.join(".snapferry/staging"), &mut |path, left| assert!(left.is_dir(), "{}", path.display()));
    // It is over: it can begin anew.
    lab.run(restore).exits(0);
    tree::assert_same(&dr, &snapshot_of(&dr, "monday"));
}

#[test]
fn the_dr_side_alone_is_enough() {
    let (lab, primary, dr) = lab();
    let monday = copy_of(&lab, &primary, "monday-as-it-was");
    fs::remove_file(primary.join("notes")).unwrap();
    lab.sync(&primary, &dr, "tuesday", &[]).sealed();
    lab.run([OsStr::new("snapshot"), "hold".as_ref(), dr.as_os_str(), "monday".as_ref()]).exits(0);
    // The primary, and the machine that did the syncs, are gone.
    fs::remove_dir_all(&primary).unwrap();
    fs::remove_dir_all(lab.path("state")).unwrap();

    let list = restore(&lab, &["--list".as_ref(), dr.as_os_str()], &[]).exits(0);
    let listed = list.report["snapshots"].as_array().unwrap();
    let fields = |one: &Value| [&one["name"], &one["state"], &one["objects"], &one["hold"]].map(Value::clone);
    let [tuesday, held] = &listed[..] else { panic!("{}", list.report) };
    assert_eq!(fields(tuesday), ["tuesday".into(), "sealed".into(), 67.into(), Value::Null]);
    assert_eq!(fields(held)[..3], ["monday".into(), "sealed".into(), Value::from(68)]);
    assert!(held["hold"]["since"].is_string() && held["bytes"].as_u64() > tuesday["bytes"].as_u64(), "{held}");
    assert!(held["created"].as_str() < tuesday["created"].as_str());

    fs::create_dir(&primary).unwrap();
    let arguments = [dr.as_os_str(), "--snapshot".as_ref(), "monday".as_ref(), primary.as_os_str()];
    restore(&lab, &arguments, &[]).exits(0);
    tree::assert_same(&primary, &monday);
    // From now on it can be a primary again, and be restored in place.
    damage(&primary);
    fs::remove_dir_all(lab.path("state")).unwrap();
    in_place(&lab, &dr, "monday", &primary, &[]).exits(0);
    tree::assert_same(&primary, &monday);
}

fn servers() -> impl Iterator<Item = Server> {
    ["SNAPFERRY_TEST_S3", "SNAPFERRY_TEST_S3_ORDERED"].into_iter().filter_map(Server::from_environment)
}

fn without_reserved(bucket: &Bucket) -> Content {
    bucket.content().canonical()
}

/// Fails the test where anything is left of what was staged, be it an older version or a delete marker, or where older
/// versions of what was there are gone.
#[track_caller]
fn check_versions(bucket: &Bucket, damaged: &Content) {
    let every = bucket.every_version();
    let staged: Vec<_> = every.iter().filter(|(key, ..)| key.starts_with(".snapferry/staging/")).collect();
    assert!(staged.is_empty(), "{} versions are left of what was staged: {:?}", staged.len(), staged[0]);
    for key in damaged.0.keys() {
        let key = std::str::from_utf8(key).unwrap();
        let current = every.iter().filter(|(of, _, current, _)| of == key && *current).count();
        assert_eq!(current, 1, "{key}: {every:?}");
    }
    // What was replaced, or went, is there as an older version.
    for key in ["disk", "photos/2/2", "photos/3/3", "stranger", "photos/0/moved"] {
        let older = every.iter().filter(|(of, _, current, marker)| of == key && !current && !marker).count();
        assert!(older > 0, "{key}: {every:?}");
    }
}

/// A bucket's content, and the same damaged.
fn contents() -> [Content; 2] {
    let mut numbers = Numbers(21);
    let mut monday = Content::default();
    for number in 0..40 {
        let key = format!("photos/{}/{number}", number % 4).into_bytes();
        monday.0.insert(key, numbers.bytes(1000 + number));
    }
    monday.0.insert(b"disk".to_vec(), numbers.bytes(40 * MIB));
    let mut damaged = monday.clone();
    damaged.0.remove(&b"photos/1/1"[..]);
    damaged.0.insert(b"photos/2/2".to_vec(), vec![0; 1002]);
    damaged.0.insert(b"photos/3/3".to_vec(), b"ransom".to_vec());
    damaged.0.insert(b"stranger".to_vec(), b"was not there".to_vec());
    let moved = damaged.0.remove(&b"photos/0/4"[..]).unwrap();
    damaged.0.insert(b"photos/0/moved".to_vec(), moved);
    damaged.0.get_mut(&b"disk"[..]).unwrap()[20 * MIB..20 * MIB + 4096].fill(0);
    [monday, damaged]
}

#[test]
fn a_bucket_on_a_server_becomes_as_it_was() {
    for server in servers() {
        let lab = Lab::new();
        let [monday, damaged] = contents();
        let (primary, dr) = (server.bucket("restore-primary"), server.bucket("restore-dr"));
        primary.change(&Content::default(), &monday);
        lab.sync(primary.url(), dr.url(), "monday", &[]).sealed();
        primary.change(&monday, &damaged);

        // From the DR side, with nothing remembered.
        fs::remove_dir_all(lab.path("state")).unwrap();
        let outcome = in_place(&lab, dr.url(), "monday", primary.url(), &[]).exits(0);
        assert_equal(without_reserved(&primary), &monday, "the primary");
        let copied = outcome.count("bytes_copied");
        assert!((8 << 20..(8 << 20) + (1 << 16)).contains(&copied), "{}", outcome.report);
        check_versions(&primary, &damaged);
        let safety = outcome.text("safety_snapshot").to_owned();
        assert_equal(tree::content(&lab.restore(primary.url(), &safety)), &damaged, "the safety snapshot");
        in_place(&lab, dr.url(), "monday", primary.url(), &[]).exits(3).says("--again");

        // And back by itself: what was there comes from its own versions, on the server's side.
        let url = primary.url();
        let own = ["--in-place", "--confirm", &safety];
        let outcome = restore(&lab, &[url.as_ref(), "--snapshot".as_ref(), safety.as_ref()], &own).exits(0);
        assert_equal(without_reserved(&primary), &damaged, "gone back");
        assert_eq!((outcome.count("bytes_copied"), outcome.count("objects_copied")), (0, 0), "{}", outcome.report);
        assert!(outcome.count("bytes_reused") >= 40 << 20, "{}", outcome.report);
        assert_eq!(primary.uploads(), 0);

        // A single object, in one command.
        let to = lab.path("single");
        let one = ["--key", "photos/3/3"];
        let from = dr.url();
        let arguments = [from.as_ref(), "--snapshot".as_ref(), "monday".as_ref(), to.as_os_str()];
        let outcome = restore(&lab, &arguments, &one).exits(0);
        assert_eq!(outcome.report["path"], Value::Null);
        assert_eq!(fs::read(to.join("photos/3/3")).unwrap(), monday.0[&b"photos/3/3"[..]]);
    }
}

#[test]
fn killed_in_any_phase_a_bucket_on_a_server_becomes_as_it_was() {
    let Some(server) = Server::from_environment("SNAPFERRY_TEST_S3") else { return };
    let lab = Lab::new();
    let [monday, damaged] = contents();
    let dr = server.bucket("restore-killed-dr");
    let first = server.bucket("restore-killed");
    first.change(&Content::default(), &monday);
    lab.sync(first.url(), dr.url(), "monday", &[]).sealed();
    for phase in PHASES {
        let primary = server.bucket("restore-killed");
        primary.change(&Content::default(), &damaged);
        let (from, to) = (dr.url(), primary.url());
        let arguments = ["restore", &from, "--snapshot", "monday", &to, "--in-place", "--confirm", "monday"];
        let Some((mut child, _log)) = lab.until(&arguments, phase) else { continue };
        child.kill().unwrap();
        child.wait().unwrap();
        let outcome = lab.run(arguments).exits(0);
        assert_equal(without_reserved(&primary), &monday, &format!("killed in {phase}"));
        let list = lab.run(["snapshot", "list", &to]).exits(0);
        let names: Vec<_> = list.report["snapshots"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, [outcome.text("safety_snapshot")], "killed in {phase}");
        assert_equal(tree::content(&lab.restore(&to, outcome.text("safety_snapshot"))), &damaged, "what was there");
        if matches!(phase, "COMMITTING" | "PROVING") {
            assert_eq!(outcome.count("bytes_copied"), 0, "killed in {phase}: {}", outcome.report);
        }
        check_versions(&primary, &damaged);
        assert_eq!(primary.uploads(), 0, "killed in {phase}");
    }
}

#[test]
fn a_bucket_that_keeps_no_versions_is_replaced_only_by_who_accepts_that() {
    for server in servers() {
        let lab = Lab::new();
        let [monday, damaged] = contents();
        let (primary, dr) = (server.unversioned("restore-plain"), server.bucket("restore-dr"));
        primary.change(&Content::default(), &monday);
        lab.sync(primary.url(), dr.url(), "monday", &[]).sealed();
        primary.change(&monday, &damaged);
        in_place(&lab, dr.url(), "monday", primary.url(), &[]).exits(3).says("--no-safety-snapshot");
        assert_equal(without_reserved(&primary), &damaged, "touched");
        in_place(&lab, dr.url(), "monday", primary.url(), &["--no-safety-snapshot"]).exits(0);
        assert_equal(without_reserved(&primary), &monday, "the primary");
    }
}

/// Restores over what is there where names are in each other's way: it works, or nothing is replaced and the key is named.
fn nested(server: &Server, wanted: &[(&str, &str)], there: &[(&str, &str)]) {
    let lab = Lab::new();
    let content = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(key, data)| (key.as_bytes().to_vec(), data.as_bytes().to_vec()));
        Content(pairs.collect())
    };
    let (monday, damaged) = (content(wanted), content(there));
    let (primary, dr) = (server.bucket("restore-nested"), server.bucket("restore-nested-dr"));
    primary.change(&Content::default(), &monday);
    lab.sync(primary.url(), dr.url(), "monday", &[]).sealed();
    // Where `a/b` was once, versitygw holds no `a`, even after that has gone.
    let live = server.bucket("restore-nested-live");
    live.change(&Content::default(), &damaged);
    let outcome = in_place(&lab, dr.url(), "monday", live.url(), &["--max-delete", "100%"]);
    match outcome.code {
        0 => assert_equal(without_reserved(&live), &monday, "restored"),
        _ => {
            outcome.exits_with_one_of(&[1, 3]).says(&format!("key `{}`", wanted[0].0)).says("in the way");
            assert_equal(without_reserved(&live), &damaged, "touched");
        }
    }
}

#[test]
fn an_object_where_a_folder_was_is_replaced_or_nothing_is() {
    for server in servers() {
        nested(&server, &[("a/b", "inside"), ("other", "one")], &[("a", "in the way"), ("other", "two")]);
        nested(&server, &[("a", "an object"), ("other", "one")], &[("a/b", "in the way"), ("other", "two")]);
    }
}
