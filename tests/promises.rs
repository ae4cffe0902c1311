//! What the program promises of directories, tried by somebody who wants to see it break.

#![allow(clippy::unwrap_used)]

mod harness;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Lab, PROGRAM, snapshot_of, tree};

/// Anybody but root.
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A place with a copy of the program that a user without privileges can use; none where we are root and cannot
/// become somebody else.
struct Plain {
    lab: Lab,
    program: PathBuf,
}

impl Plain {
    fn new() -> Option<Self> {
        let lab = Lab::new();
        if is_root() && Command::new("setpriv").arg("--version").output().is_err() {
            eprintln!("skipped: root without setpriv cannot try what others may do");
            return None;
        }
        let root = lab.path("");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        let (program, home) = (lab.path("snapferry"), lab.path("home"));
        fs::copy(PROGRAM, &program).unwrap();
        fs::create_dir(&home).unwrap();
        if is_root() {
            std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Some(Self { lab, program })
    }

    /// What belongs to the user.
    fn home(&self, name: &str) -> PathBuf {
        self.lab.path("home").join(name)
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = if is_root() { Command::new("setpriv") } else { Command::new(&program) };
        if is_root() {
            let id = NOBODY.to_string();
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(&program);
        }
        command.env("HOME", self.home("")).env_remove("XDG_CONFIG_HOME");
        command
    }

    #[track_caller]
    fn shell(&self, script: &str) {
        let status = self.command("sh").args(["-ec", script]).current_dir(self.home("")).status().unwrap();
        assert!(status.success(), "{script}");
    }

    #[track_caller]
    fn sync(&self, source: &Path, target: &Path, name: &str) -> serde_json::Value {
        let output = self
            .command(&self.program)
            .args(["sync".as_ref(), source.as_os_str(), target.as_os_str()])
            .args(["--snapshot", name, "--json", "--max-delete", "100%", "--state-dir"])
            .arg(self.home("state"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

#[test]
fn directories_that_forbid_writing_are_replicated_by_their_owner() {
    let Some(plain) = Plain::new() else { return };
    let (source, target) = (plain.home("source"), plain.home("target"));
    plain.shell(
        "mkdir -p source/d/e source/k/l; cd source; echo 1 >d/a; echo 2 >d/b; echo 3 >d/e/c; echo 4 >k/l/m; echo 5 >top
         chmod 0555 d/e d k/l k",
    );
    plain.sync(&source, &target, "one");
    tree::assert_same(&source, &target);

    // A file renamed, one deleted, a directory renamed with one more file in it, and a file where a directory was.
    plain.shell(
        "cd source; chmod -R u+w d k; mv d/a d/renamed; rm d/b; mv d/e d/f; echo new >d/f/new; rm -r k/l; echo l >k/l
         chmod 0555 d/f d k",
    );
    let report = plain.sync(&source, &target, "two");
    assert_eq!(report["renamed"], 2, "{report}");
    tree::assert_same(&source, &target);
    tree::assert_same(&source, &snapshot_of(&target, "two"));

    plain.shell("cd source; chmod -R u+w d k; rm -r d k");
    plain.sync(&source, &target, "three");
    tree::assert_same(&source, &target);
    assert_eq!(fs::read_dir(target.join(".snapferry/staging")).map_or(0, |left| left.count()), 1, "trash was left");
}

#[test]
fn a_source_that_cannot_be_written_stays_untouched_and_is_a_base_all_the_same() {
    let Some(plain) = Plain::new() else { return };
    let (source, target) = (plain.lab.path("source"), plain.home("target"));
    let seal = |mode| {
        fs::set_permissions(&source, fs::Permissions::from_mode(mode)).unwrap();
    };
    tree::put(&source, b"a", b"1");
    tree::put(&source, b"d/b", b"2");
    seal(0o555);
    let print = tree::fingerprint(&source);
    plain.sync(&source, &target, "one");
    assert_eq!(tree::fingerprint(&source), print, "the source was written to");

    seal(0o755);
    tree::put(&source, b"c", b"3");
    seal(0o555);
    let report = plain.sync(&source, &target, "two");
    assert_eq!((&report["base"], &report["objects_copied"]), (&"one".into(), &1.into()), "{report}");
    tree::assert_same(&source, &target);
    plain.lab.verify(&source, &target, "two");
    seal(0o755);
}

/// A file system of its own, of this size; none where it cannot be mounted.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: no file system can be mounted here");
            return None;
        }
        Some(Self(path))
    }

    fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_the_base_and_the_next_run_goes_on() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("disk/target"));
    let Some(disk) = Disk::mount(lab.path("disk"), "12m") else { return };
    for n in 0..4 {
        tree::put(&source, format!("old-{n}").as_bytes(), &vec![n; 1 << 20]);
    }
    lab.sync(&source, &target, "one", &[]).sealed();
    let before = tree::read(&target);
    for n in 0..16 {
        tree::put(&source, format!("new-{n}").as_bytes(), &vec![n; 1 << 20]);
    }
    fs::remove_file(source.join("old-0")).unwrap();
    let outcome = lab.sync(&source, &target, "two", &[]).exits(1).says("make room");
    let key = outcome.report["error"]["message"].as_str().unwrap();
    assert!(key.contains("`new-") && !key.contains("key `.snapferry"), "{key}");
    assert_eq!(tree::read(&target), before, "the target is not at its base");
    assert!(!snapshot_of(&target, "two").exists());

    disk.grow("64m");
    let outcome = lab.sync(&source, &target, "two", &[]).sealed();
    assert!(outcome.count("objects_copied") < 16, "what had landed was copied again: {}", outcome.report);
    tree::assert_same(&source, &target);
    tree::assert_same(&source, &snapshot_of(&target, "two"));
}

/// Changes one byte and keeps size and modification time.
fn damage(path: &Path) {
    let mut data = fs::read(path).unwrap();
    let mtime = fs::metadata(path).unwrap().modified().unwrap();
    let middle = data.len() / 2;
    data[middle] ^= 1;
    fs::write(path, data).unwrap();
    fs::File::open(path).unwrap().set_modified(mtime).unwrap();
}

#[test]
fn damage_on_the_target_is_found_by_reading_and_never_restored() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    for name in ["one", "two", "three"] {
        tree::put(&source, name.as_bytes(), name.as_bytes());
    }
    lab.sync(&source, &target, "night", &[]).sealed();
    damage(&snapshot_of(&target, "night").join("two"));
    let verify = ["verify".as_ref(), source.as_os_str(), target.as_os_str(), "--snapshot".as_ref(), "night".as_ref()];
    let outcome = lab.run(verify.into_iter().chain(["--read".as_ref()])).exits(4).says("`two`");
    assert_eq!(outcome.report["differences"]["count"], 1, "{}", outcome.report);
    let to = lab.path("to");
    let restore = ["restore".as_ref(), target.as_os_str(), to.as_os_str(), "--snapshot".as_ref(), "night".as_ref()];
    lab.run(restore).exits(1).says("two");
    assert!(!to.join("two").exists(), "damaged content was restored");
}

#[test]
fn a_damaged_catalog_is_named_with_a_way_out_that_works() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    tree::put(&source, b"a", b"content");
    lab.sync(&source, &target, "one", &[]).sealed();
    let segments = target.join(".snapferry/segments");
    let segment = fs::read_dir(&segments).unwrap().next().unwrap().unwrap().path();
    let verify = ["verify".as_ref(), source.as_os_str(), target.as_os_str(), "--snapshot".as_ref(), "one".as_ref()];

    damage(&segment);
    lab.run(verify).exits(1).says(segment.file_name().unwrap().to_str().unwrap()).says("--force");
    fs::write(&segment, b"PAR1").unwrap();
    lab.run(verify).exits(1).says("--force");
    fs::remove_file(&segment).unwrap();
    lab.run(verify).exits(1).says("missing").says("--force");
    lab.sync(&source, &target, "two", &[]).exits(1).says("--force");

    let delete = ["snapshot".as_ref(), "delete".as_ref(), target.as_os_str(), "one".as_ref(), "--force".as_ref()];
    lab.run(delete).exits(0);
    let outcome = lab.sync(&source, &target, "two", &["--on-drift", "repair"]).sealed();
    assert_eq!(outcome.count("bytes_copied"), 0, "what was right was copied again: {}", outcome.report);
    lab.verify(&source, &target, "two");

    fs::write(target.join(".snapferry/snapshots/two/manifest.json"), "{").unwrap();
    lab.sync(&source, &target, "three", &[]).exits(1).says("manifest.json");
    fs::write(target.join(".snapferry/snapshots/two/snapshot.json"), "{}").unwrap();
    lab.sync(&source, &target, "three", &[]).exits(1).says("snapshot.json");
    tree::assert_same(&source, &target);
}

#[test]
fn a_path_written_otherwise_is_the_same_bucket() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    tree::put(&source, b"a", b"content");
    symlink(&source, lab.path("link")).unwrap();
    let text = source.to_str().unwrap();
    let slash = format!("{text}/");
    let dots = format!("{text}/../source/.");
    let link = lab.path("link");
    let url = format!("file://{text}");
    lab.sync(&source, &target, "zero", &[]).sealed();
    let mut base = "zero".to_owned();
    for (n, path) in [slash.as_str(), &dots, link.to_str().unwrap(), &url].into_iter().enumerate() {
        let name = format!("night-{n}");
        let outcome = lab.sync(path, &target, &name, &[]).sealed();
        assert_eq!((outcome.text("base"), outcome.count("bytes_copied")), (base.as_str(), 0), "{path}");
        base = name;
    }
}

#[test]
fn every_name_of_a_file_arrives() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    let long = [b'x'; 255];
    let names: [&[u8]; 9] = [
        &long,
        b"\xff\xfe",
        b"d/\xe9\x80",
        b"line\nfeed",
        b"tab\there",
        b" both ends ",
        "caf\u{e9}".as_bytes(),
        "cafe\u{301}".as_bytes(),
        b"\x01\x7f#?%25\\",
    ];
    for name in names {
        tree::put(&source, name, name);
    }
    lab.sync(&source, &target, "one", &[]).sealed();
    tree::assert_same(&source, &target);
    let restored = lab.restore(&target, "one");
    tree::assert_same(&source, &restored);
}

#[test]
fn what_a_bucket_inside_keeps_for_itself_is_no_content() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    tree::put(&source, b"inner/a", b"content");
    tree::put(&source, b"inner/.snapferry-not/b", b"content");
    lab.sync(source.join("inner"), lab.path("other"), "inner", &[]).sealed();
    assert!(source.join("inner/.snapferry/snapshots").is_dir());
    lab.sync(&source, &target, "outer", &[]).sealed();
    assert!(target.join("inner/.snapferry-not/b").is_file());
    assert!(!target.join("inner/.snapferry").exists());
}

#[test]
fn a_refused_restore_leaves_nothing_behind() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    tree::put(&source, b"a", b"content");
    lab.sync(&source, &target, "one", &[]).sealed();
    let restore = |name: &str, to: &Path, more: &[&str]| {
        let mut arguments = vec!["restore".as_ref(), target.as_os_str(), to.as_os_str(), "--snapshot".as_ref()];
        arguments.push(name.as_ref());
        arguments.extend(more.iter().map(OsStr::new));
        lab.run(arguments)
    };
    let full = lab.path("full");
    tree::put(&full, b"mine", b"mine");
    let before = tree::content_fingerprint(&full);
    let outcome = restore("one", &full, &[]).exits(3).says("`mine`").says("new or empty place");
    assert!(!outcome.stderr.contains("--on-drift"), "restore has no such option: {}", outcome.stderr);
    assert_eq!(fs::read_dir(&full).unwrap().count(), 1, "something was left");
    assert_eq!(tree::content_fingerprint(&full), before);

    let nowhere = lab.path("nowhere");
    restore("nope", &nowhere, &[]).exits(1).says("no snapshot nope");
    assert!(!nowhere.exists());
    restore("one", &nowhere, &["--key", "zzz"]).exits(1).says("no key");
    assert_eq!(fs::read_dir(&nowhere).unwrap().count(), 0);
}

#[test]
fn a_restore_into_a_bucket_that_lost_its_files_keeps_its_snapshots() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    tree::put(&source, b"a", b"content");
    lab.sync(&source, &target, "one", &[]).sealed();
    fs::remove_file(source.join("a")).unwrap();
    let restore = ["restore".as_ref(), target.as_os_str(), source.as_os_str(), "--snapshot".as_ref(), "one".as_ref()];
    lab.run(restore).exits(0);
    assert_eq!(fs::read(source.join("a")).unwrap(), b"content");
    let list = lab.run(["snapshot".as_ref(), "list".as_ref(), source.as_os_str()]).exits(0);
    assert_eq!(list.report["snapshots"][0]["name"], "one", "{}", list.report);
    lab.sync(&source, &target, "two", &[]).sealed();
}

#[test]
fn a_lease_of_another_machine_holds_until_it_has_run_out() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    tree::put(&source, b"a", b"content");
    lab.sync(&source, &target, "one", &[]).sealed();
    let lease = |year: u32| {
        format!(
            r#"{{"token":7,"holder":{{"host":"elsewhere","boot":"b","pid":1,"started":1,"job":"their-job"}},
                "expires":"{year}-01-01T00:00:00Z"}}"#
        )
    };
    let document = target.join(".snapferry/lease.json");
    fs::write(&document, lease(2100)).unwrap();
    tree::put(&source, b"b", b"more");
    let before = tree::content_fingerprint(&target);
    lab.sync(&source, &target, "two", &[]).exits(3).says("elsewhere").says("their-job");
    assert_eq!(tree::content_fingerprint(&target), before);
    fs::write(&document, lease(2001)).unwrap();
    lab.sync(&source, &target, "two", &[]).sealed();
    let after: serde_json::Value = serde_json::from_slice(&fs::read(&document).unwrap()).unwrap();
    assert_eq!(after["token"], 8, "the fencing token must rise: {after}");
}

/// Whatever goes wrong, stdout is one JSON document with the exit code in it, and nothing panics.
#[test]
fn every_failure_is_one_document_that_says_what_to_do() {
    let lab = Lab::new();
    let source = lab.path("source");
    tree::put(&source, b"a", b"content");
    let (from, to) = (source.to_str().unwrap(), lab.path("to"));
    let to = to.to_str().unwrap();
    let missing = lab.path("missing");
    let missing = missing.to_str().unwrap();
    let dead = "s3://b-b-b?endpoint=http://127.0.0.1:9&region=us-east-1";
    lab.run(["snapshot", "create", from, "taken"]).exits(0);
    lab.run(["snapshot", "hold", from, "taken", "--reason", "court"]).exits(0);
    let cases: [(&[&str], i32, &str); 25] = [
        (&[], 2, "subcommand"),
        (&["snapshot"], 2, "create"),
        (&["sync", from], 2, "TARGET"),
        (&["sync", from, "ftp://x/y"], 2, "s3://"),
        (&["sync", from, "gs://x"], 2, "gs://"),
        (&["sync", from, "s3://b-b-b?bogus=1"], 2, "known are"),
        (&["sync", from, "s3://b-b-b?path-style=maybe"], 2, "true or false"),
        (&["sync", from, "s3://?region=x"], 2, "bucket name"),
        (&["sync", from, "s3://b-b-b/x/../y"], 2, "component"),
        (&["sync", from, "s3://b-b-b?endpoint=nowhere"], 2, "endpoint="),
        (&["sync", from, dead], 1, "127.0.0.1:9"),
        (&["sync", missing, to], 1, missing),
        (&["sync", from, from], 2, "in each other"),
        (&["sync", from, &format!("{from}/inside")], 2, "in each other"),
        (&["sync", from, to, "--snapshot", "x"], 2, "3 to 63"),
        (&["sync", from, to, "--max-delete", "lots"], 2, "50%"),
        (&["sync", from, to, "--max-delete", "101%"], 2, "50%"),
        (&["sync", from, "nowhere:x"], 2, "configuration"),
        (&["snapshot", "create", from, "../x"], 2, "3 to 63"),
        (&["snapshot", "create", from, "taken"], 3, "another name"),
        (&["snapshot", "create", from, "was", "--as-of", "2026-01-01T00:00:00Z"], 2, "--as-of"),
        (&["snapshot", "show", from, "unknown"], 1, "snapshot list"),
        (&["snapshot", "delete", from, "taken"], 3, "release"),
        (&["verify", from, missing, "--snapshot", "taken"], 1, missing),
        (&["diff", from, "taken", "unknown"], 1, "unknown"),
    ];
    for (arguments, code, says) in cases {
        let outcome = lab.run(arguments).exits(code).says(says);
        assert_eq!(outcome.report["error"]["exit_code"], code, "{arguments:?}: {}", outcome.report);
        assert_eq!(outcome.text("state"), if code == 3 { "refused" } else { "failed" }, "{arguments:?}");
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    }
    assert!(!Path::new(to).exists() && !Path::new(missing).exists());
    lab.run(["snapshot", "release", from, "taken"]).exits(0);
    lab.run(["snapshot", "delete", from, "taken"]).exits(0);
}

#[test]
fn no_delete_at_all_may_be_asked_for() {
    let lab = Lab::new();
    let (source, target) = (lab.path("source"), lab.path("target"));
    for name in ["a", "b", "c"] {
        tree::put(&source, name.as_bytes(), name.as_bytes());
    }
    lab.sync(&source, &target, "one", &[]).sealed();
    fs::remove_file(source.join("a")).unwrap();
    let before = tree::content_fingerprint(&target);
    for none in ["0", "0%"] {
        lab.sync(&source, &target, "two", &["--max-delete", none]).exits(3).says("--max-delete");
        assert_eq!(tree::content_fingerprint(&target), before);
    }
    lab.sync(&source, &target, "two", &["--max-delete", "1"]).sealed();
}

#[test]
fn named_stores_stand_for_their_urls() {
    let lab = Lab::new();
    let source = lab.path("root/source");
    tree::put(&source, b"a", b"content");
    let config = lab.path("config.toml");
    fs::write(&config, format!("[store.disk]\nurl = \"{}\"\n", lab.path("root").display())).unwrap();
    let config = config.to_str().unwrap();
    lab.sync("disk:source", "disk:copy", "one", &["--config", config]).sealed();
    tree::assert_same(&source, &lab.path("root/copy"));
    lab.sync(&source, lab.path("root/copy"), "one", &[]).sealed();
    lab.sync("disk:source", "disk:source/in", "two", &["--config", config]).exits(2);
}

/// What a person sees: bars on a terminal, and a pipe gets the result alone.
#[test]
fn progress_is_for_terminals() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: no `script` to make a terminal with");
        return;
    }
    let lab = Lab::new();
    let (source, target, state) = (lab.path("source"), lab.path("target"), lab.path("state"));
    tree::put(&source, b"large", &vec![7; 6 << 20]);
    let sync = |name: &str, more: &str| {
        format!(
            "{PROGRAM} sync {} {}-{name} --snapshot {name} --bandwidth 4M --state-dir {} {more}",
            source.display(),
            target.display(),
            state.display()
        )
    };
    let seen = |command: &str| {
        let output = Command::new("script").args(["-qec", command, "/dev/null"]).env("TERM", "xterm").output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let bars = seen(&sync("bars", ""));
    assert!(bars.contains("copying") && bars.contains("sealed bars"), "{bars:?}");
    let quiet = seen(&sync("quiet", "-q"));
    assert_eq!(quiet.trim(), "", "-q says what went well");

    let piped = Command::new("sh").args(["-c", &sync("pipe", "")]).output().unwrap();
    assert!(piped.status.success());
    assert_eq!(String::from_utf8_lossy(&piped.stderr), "", "bars in a pipe");
    assert!(piped.stdout.starts_with(b"sealed pipe") && !piped.stdout.contains(&0x1b));
}
