//! Policies on the command line: `policy list|check|show`, `run`, `status` and `prune`, as a person and a cron line use them.

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::s3::Server;
use harness::{Lab, Outcome, PROGRAM, tree};
use serde_json::Value;

/// Writes the configuration.
fn configure(lab: &Lab, text: &str) {
    let text = text.replace("LAB", lab.path("").to_str().unwrap().trim_end_matches('/'));
    fs::write(lab.path("config.toml"), text).unwrap();
}

fn snapferry(lab: &Lab, words: &[&str]) -> Outcome {
    let config = lab.path("config.toml");
    let words = words.iter().map(OsStr::new).chain([OsStr::new("--config"), config.as_os_str()]);
    lab.run(words)
}

/// What a person sees: exit code, stdout and stderr.
fn seen(lab: &Lab, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(PROGRAM);
    command.args(words).arg("--config").arg(lab.path("config.toml")).arg("--state-dir").arg(lab.path("state"));
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const THREE: &str = r#"
[defaults]
retention = { keep_last = 1 }
[policy.a]
source = "LAB/a"
target = "LAB/dr-a"
[policy.b]
source = "LAB/b"
target = "LAB/dr-b"
schedule = "@daily"
[policy.c]
source = "LAB/c"
target = "LAB/dr-c"
[policy.off]
source = "LAB/off"
target = "LAB/dr-off"
enabled = false
"#;

#[test]
fn one_that_fails_does_not_stop_the_others() {
    let lab = Lab::new();
    configure(&lab, THREE);
    for name in ["a", "c"] {
        tree::put(&lab.path(name), b"file", name.as_bytes());
    }
    let outcome = snapferry(&lab, &["run", "--all", "--at-once", "1"]).exits(1).says("1 of 3 policies failed");
    let policies = outcome.report["policies"].as_array().unwrap();
    let of = |name: &str| policies.iter().find(|policy| policy["policy"] == name).unwrap();
    assert_eq!(policies.len(), 3, "what is disabled does not run");
    for name in ["a", "c"] {
        assert_eq!(of(name)["state"], "sealed");
        tree::assert_same(&lab.path(name), &lab.path(&format!("dr-{name}")));
    }
    assert_eq!((&of("b")["state"], &of("b")["error"]["side"]), (&"failed".into(), &"source".into()));
    assert!(!lab.path("dr-b").exists(), "nothing is made for what cannot run");
    // By themselves all is well, and quiet where nobody reads.
    let (code, stdout, stderr) = seen(&lab, &["run", "a", "c", "--quiet"]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));
    assert_eq!(seen(&lab, &["run", "nobody"]).0, 2);
    assert_eq!(seen(&lab, &["run"]).0, 2);
}

#[test]
fn the_screen_says_what_to_look_at() {
    let lab = Lab::new();
    configure(&lab, THREE);
    for name in ["a", "b", "c"] {
        tree::put(&lab.path(name), b"file", name.as_bytes());
    }
    let (code, stdout, stderr) = seen(&lab, &["status"]);
    assert_eq!(code, 1, "nothing is sealed yet");
    assert!(stdout.lines().any(|line| line.starts_with("a ") && line.contains("never")), "{stdout}");
    assert!(stdout.lines().any(|line| line.starts_with("off ") && line.contains("disabled")), "{stdout}");
    assert!(stderr.contains("somebody should look at a, b, c"), "{stderr}");
    snapferry(&lab, &["run", "--all"]).exits(0);
    let (code, stdout, _) = seen(&lab, &["status"]);
    assert_eq!(code, 0, "{stdout}");
    assert_eq!(stdout.lines().filter(|line| line.contains("fresh")).count(), 3, "{stdout}");
    let report = snapferry(&lab, &["status"]).exits(0).report;
    assert_eq!((&report["stale"], &report["policies"][1]["sealed"]["objects"]), (&Value::Bool(false), &1.into()));
    assert!(report["policies"][1]["next"].is_string() && report["policies"][0]["next"].is_null());
    // One whose content is too old is named, though its last run went well.
    configure(&lab, &THREE.replace("[policy.c]", "[policy.c]\nrpo = \"1s\""));
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let (code, stdout, stderr) = seen(&lab, &["status"]);
    assert_eq!(code, 1);
    assert!(stdout.lines().any(|line| line.starts_with("c ") && line.contains("stale")), "{stdout}");
    assert!(stderr.contains("look at c\n"), "{stderr}");
    // One whose target is not what it was cannot be asked.
    fs::remove_dir_all(lab.path("dr-a")).unwrap();
    fs::write(lab.path("dr-a"), "no directory").unwrap();
    let (code, stdout, _) = seen(&lab, &["status"]);
    assert!(code == 1 && stdout.contains("unreachable"), "{stdout}");
}

#[test]
fn each_snapshot_is_told_why_it_stays_or_goes() {
    let lab = Lab::new();
    configure(&lab, &THREE.replace("[policy.a]", "[policy.a]\nsnapshot = \"night-%s\""));
    tree::put(&lab.path("a"), b"file", b"one");
    snapferry(&lab, &["run", "a", "--snapshot", "night-1000000000"]).sealed();
    // With everything kept, the rehearsal of other rules shows what would go.
    configure(
        &lab,
        &THREE.replace("keep_last = 1", "keep_last = 9").replace("[policy.a]", "[policy.a]\nsnapshot = \"night-%s\""),
    );
    snapferry(&lab, &["run", "a", "--snapshot", "night-1000000001"]).sealed();
    snapferry(&lab, &["run", "a", "--snapshot", "by-another-name"]).sealed();
    snapferry(&lab, &["run", "a", "--snapshot", "night-1000000002"]).sealed();
    configure(&lab, &THREE.replace("[policy.a]", "[policy.a]\nsnapshot = \"night-%s\""));
    let target = lab.path("dr-a");
    let hold = ["snapshot".as_ref(), "hold".as_ref(), target.as_os_str(), "night-1000000000".as_ref()];
    lab.run(hold).exits(0);
    let (code, stdout, _) = seen(&lab, &["prune", "a", "--dry-run"]);
    assert_eq!(code, 0);
    let lines: Vec<&str> = stdout.lines().collect();
    let of = |name: &str| *lines.iter().find(|line| line.contains(name)).unwrap();
    assert!(of("night-1000000002").starts_with("KEEP") && of("night-1000000002").contains("the base"), "{stdout}");
    assert!(of("by-another-name").starts_with("KEEP") && of("by-another-name").contains("not made"), "{stdout}");
    assert!(
        of("night-1000000001").starts_with("GO") && of("night-1000000001").contains("beyond every rule"),
        "{stdout}"
    );
    assert!(of("night-1000000000").starts_with("KEEP") && of("night-1000000000").contains("held"), "{stdout}");
    assert!(target.join(".snapshot/night-1000000001").exists(), "a rehearsal removes nothing");
    snapferry(&lab, &["prune", "a"]).exits(0);
    let there = |name: &str| [lab.path("a"), target.clone()].map(|bucket| bucket.join(".snapshot").join(name).exists());
    assert_eq!(there("night-1000000001"), [false, false]);
    // The hold is the target's.
    assert_eq!(there("night-1000000000"), [false, true]);
    assert_eq!((there("night-1000000002"), there("by-another-name")), ([true, true], [true, true]));
}

#[test]
fn what_is_missing_is_found_before_the_night() {
    let lab = Lab::new();
    configure(&lab, THREE);
    for name in ["a", "c"] {
        tree::put(&lab.path(name), b"file", name.as_bytes());
    }
    let before = tree::content(&lab.path("a"));
    let report = snapferry(&lab, &["policy", "check"]).exits(1).report;
    let states: Vec<&str> =
        report["policies"].as_array().unwrap().iter().map(|checked| checked["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["enabled", "disabled", "enabled", "disabled"]);
    let (code, stdout, stderr) = seen(&lab, &["policy", "check", "b"]);
    assert_eq!(code, 1);
    assert!(stdout.contains("NO  source reach:") && stdout.contains("what to do:"), "{stdout}");
    assert!(stderr.contains("1 of 1 policies cannot run"), "{stderr}");
    assert_eq!(tree::content(&lab.path("a")), before, "a check leaves nothing behind");
    // Two that write to one place are refused, and so is everything else that is asked of such a file.
    configure(&lab, &THREE.replace("LAB/dr-c", "LAB/dr-a/"));
    for words in [&["policy", "check"][..], &["policy", "list"], &["run", "b"], &["serve"], &["status"]] {
        snapferry(&lab, words).exits(2).says("that of policy a");
    }
    assert!(!lab.path("dr-a").exists());
}

/// A disk that is not mounted leaves a mount point, which must not be filled in its place.
#[test]
fn a_target_that_was_there_is_not_made_anew() {
    let lab = Lab::new();
    configure(&lab, &THREE.replace("[policy.a]", "[policy.a]\nsnapshot = \"night-%s\""));
    tree::put(&lab.path("a"), b"file", b"a");
    snapferry(&lab, &["run", "a", "--snapshot", "night-1"]).sealed();
    fs::rename(lab.path("dr-a"), lab.path("unmounted")).unwrap();
    snapferry(&lab, &["run", "a"]).exits(3).says("is its disk mounted?");
    assert!(!lab.path("dr-a").exists());
    fs::create_dir(lab.path("dr-a")).unwrap();
    snapferry(&lab, &["run", "a"]).exits(3).says("sealed night-1");
    assert_eq!(fs::read_dir(lab.path("dr-a")).unwrap().count(), 0);
    fs::remove_dir(lab.path("dr-a")).unwrap();
    fs::rename(lab.path("unmounted"), lab.path("dr-a")).unwrap();
    snapferry(&lab, &["run", "a"]).sealed();
}

/// A bucket without versions keeps no snapshot but the newest: that is found out by asking the server.
#[test]
fn a_target_without_versions_is_partial() {
    let Some(server) = Server::from_environment("SNAPFERRY_TEST_S3") else { return };
    let lab = Lab::new();
    tree::put(&lab.path("a"), b"file", b"a");
    let target = server.unversioned("policy-plain");
    configure(&lab, &format!("[policy.a]\nsource = \"LAB/a\"\ntarget = \"{}\"\n", target.url()));
    let report = snapferry(&lab, &["policy", "check"]).exits(1).says("switch versioning on").report;
    assert_eq!((&report["policies"][0]["state"], &report["partial"]), (&"partial".into(), &1.into()));
    let versioned = server.bucket("policy-versioned");
    configure(&lab, &format!("[policy.a]\nsource = \"LAB/a\"\ntarget = \"{}\"\n", versioned.url()));
    let report = snapferry(&lab, &["policy", "check"]).exits(0).report;
    let findings = report["policies"][0]["findings"].as_array().unwrap();
    let write = findings.iter().find(|finding| finding["what"] == "write").unwrap();
    assert!(write["detail"].as_str().unwrap().contains("conditions are heeded"), "{write}");
    configure(&lab, &format!("[policy.a]\nsource = \"LAB/a\"\ntarget = \"{}\"\n", server.url("policy-nowhere")));
    let report = snapferry(&lab, &["policy", "check"]).exits(1).report;
    assert_eq!(report["policies"][0]["state"], "disabled");
}

#[test]
fn a_run_leaves_its_metrics_for_the_collector() {
    let lab = Lab::new();
    fs::create_dir(lab.path("prom")).unwrap();
    configure(&lab, &format!("[metrics]\ntextfile_directory = \"LAB/prom\"\n{THREE}"));
    tree::put(&lab.path("a"), b"file", b"a");
    snapferry(&lab, &["run", "a"]).sealed();
    snapferry(&lab, &["run", "b"]).exits(1);
    let [a, b] = ["a", "b"].map(|name| fs::read_to_string(lab.path(&format!("prom/snapferry-{name}.prom"))).unwrap());
    assert!(a.contains("snapferry_last_run_success{policy=\"a\"} 1.0\n"), "{a}");
    assert!(b.contains("snapferry_last_run_success{policy=\"b\"} 0.0\n"), "{b}");
    assert!(b.contains("snapferry_policy_state{policy=\"b\",state=\"never\"} 1\n"), "{b}");
    // The collector takes all files together: no sample may be in two, and its parser knows no kinds but the oldest.
    for (text, own) in [(&a, "{policy=\"a\""), (&b, "{policy=\"b\"")] {
        let mut samples = text.lines().filter(|line| !line.starts_with('#'));
        assert!(samples.all(|line| line.contains(own)), "{text}");
        let mut kinds = text.lines().filter(|line| line.starts_with("# TYPE "));
        assert!(kinds.all(|line| line.ends_with(" gauge")), "{text}");
    }
}

const EVERY: &str = r#"
[policy.site]
source = "LAB/site/{bucket}"
target = "LAB/site/dr/{bucket}"
buckets = "*"
except = "scratch-*"
"#;

/// The names of the policies that there are.
fn listed(outcome: &Outcome) -> Vec<String> {
    let policies = outcome.report["policies"].as_array().unwrap();
    policies.iter().map(|policy| policy["policy"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_bucket_has_a_policy_of_its_own() {
    let lab = Lab::new();
    configure(&lab, EVERY);
    for name in ["photos", "logs", "scratch-1", "mail"] {
        tree::put(&lab.path("site").join(name), b"file", name.as_bytes());
    }
    // One cannot be copied: the others are.
    fs::create_dir(lab.path("site/dr")).unwrap();
    fs::write(lab.path("site/dr/mail"), b"in the way").unwrap();
    let outcome = snapferry(&lab, &["run", "--all", "--at-once", "2"]).exits(1).says("1 of 3 policies failed");
    assert_eq!(listed(&outcome).into_iter().collect::<BTreeSet<_>>().len(), 3);
    for name in ["photos", "logs"] {
        tree::assert_same(&lab.path("site").join(name), &lab.path("site/dr").join(name));
    }
    fs::remove_file(lab.path("site/dr/mail")).unwrap();
    // What is new has a copy from the next run on; copies are not copied.
    tree::put(&lab.path("site/new"), b"file", b"new");
    snapferry(&lab, &["run", "site", "--snapshot", "second"]).exits(0);
    tree::assert_same(&lab.path("site/new"), &lab.path("site/dr/new"));
    let names = ["site.logs", "site.mail", "site.new", "site.photos"];
    assert_eq!(listed(&snapferry(&lab, &["policy", "list"]).exits(0)), names);
    assert_eq!(listed(&snapferry(&lab, &["policy", "check", "site"]).exits(0)), names);
    assert!(!lab.path("site/dr/dr").exists() && !lab.path("site/dr/scratch-1").exists());
    snapferry(&lab, &["status"]).exits(0);

    // One that is gone does not fall silent, until it is let go of.
    fs::remove_dir_all(lab.path("site/mail")).unwrap();
    let gone = snapferry(&lab, &["run", "site", "--snapshot", "third"]).exits(1).says("1 of 4 policies failed");
    let policies = gone.report["policies"].as_array().unwrap();
    let mail = policies.iter().find(|policy| policy["policy"] == "site.mail").unwrap();
    assert_eq!((&mail["error"]["side"], &mail["state"]), (&"source".into(), &"failed".into()));
    configure(&lab, &EVERY.replace("\"scratch-*\"", "[\"scratch-*\", \"mail\"]"));
    snapferry(&lab, &["run", "site", "--snapshot", "fourth"]).exits(0);
    assert!(lab.path("site/dr/mail/file").exists(), "what was copied stays");

    // Where nothing can be listed, what is known runs, and the rest is said.
    fs::rename(lab.path("site"), lab.path("away")).unwrap();
    let blind = snapferry(&lab, &["status"]).exits(1);
    assert_eq!(listed(&blind).len(), 3);
    assert!(blind.report["troubles"][0].as_str().unwrap().contains("site"), "{}", blind.report);
    assert_eq!(snapferry(&lab, &["policy", "list"]).exits(1).report["policies"].as_array().unwrap().len(), 3);
    fs::rename(lab.path("away"), lab.path("site")).unwrap();

    // A name that is no bucket's is said, and nothing else suffers.
    fs::create_dir(lab.path("site/two words")).unwrap();
    snapferry(&lab, &["run", "site", "--snapshot", "fifth"]).exits(2).says("two words");
    tree::assert_same(&lab.path("site/new"), &lab.path("site/dr/new"));
    configure(&lab, &EVERY.replace("\"*\"", "\"no-such-*\""));
    snapferry(&lab, &["run", "site"]).exits(2).says("no bucket was found");
}

/// Real servers say which buckets they have.
#[test]
fn buckets_are_found_on_servers() {
    for variable in ["SNAPFERRY_TEST_S3", "SNAPFERRY_TEST_S3_ORDERED", "SNAPFERRY_TEST_S3_ANY_KEY"] {
        let Some(server) = Server::from_environment(variable) else { continue };
        let lab = Lab::new();
        let mut names = [server.bucket("found-a"), server.bucket("found-b"), server.bucket("found-c")].map(|b| b.name);
        names.sort();
        let [a, b, c] = &names;
        let process = std::process::id();
        configure(
            &lab,
            &format!(
                "[policy.site]\nsource = \"{}\"\ntarget = \"LAB/dr/{{bucket}}\"\nexcept = \"{}\"\n\
                 buckets = [\"{}\", \"?-{process}-*\"]\n",
                server.url("found-{bucket}"),
                c.strip_prefix("found-").unwrap(),
                a.strip_prefix("found-").unwrap(),
            ),
        );
        let wanted = [a, b].map(|name| name.replace("found-", "site."));
        assert_eq!(listed(&snapferry(&lab, &["policy", "list"]).exits(0)), wanted, "{variable}");
        snapferry(&lab, &["run", "--all"]).exits(0);
        assert_eq!(listed(&snapferry(&lab, &["status"]).exits(0)), wanted);
    }
}

/// The snapshots that anybody sees in a directory.
fn snapshots(bucket: &Path) -> BTreeSet<String> {
    let trees = fs::read_dir(bucket.join(".snapshot")).unwrap();
    trees.map(|tree| tree.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn nights_from_cron() {
    let lab = Lab::new();
    configure(
        &lab,
        "[policy.photos]\nsource = \"LAB/photos\"\ntarget = \"LAB/dr-photos\"\n\
         snapshot = \"night-%Y%m%dT%H%M%S\"\nretention = { keep_last = 2 }\n",
    );
    let (source, target) = (lab.path("photos"), lab.path("dr-photos"));
    fs::create_dir(&source).unwrap();
    // Names are of seconds.
    let next_night = |data: &str| {
        std::thread::sleep(Duration::from_millis(1050));
        tree::put(&source, format!("of/{data}").as_bytes(), data.as_bytes());
    };
    next_night("the first");
    // Nothing is amiss on a machine on which nothing ever ran.
    let (code, said, complained) = seen(&lab, &["run", "photos"]);
    assert_eq!((code, complained.as_str()), (0, ""));
    assert!(said.starts_with("photos: sealed night-"), "{said}");
    let first = snapshots(&target);

    // Cron sends by mail whatever is said.
    next_night("the second");
    assert_eq!(seen(&lab, &["run", "photos", "--quiet"]), (0, String::new(), String::new()));
    tree::assert_same(&source, &target);

    // A night that is refused says why and what to do, and touches nothing.
    next_night("the third");
    tree::put(&target, b"drift", b"mine");
    let (code, said, complained) = seen(&lab, &["run", "photos", "--quiet"]);
    assert_eq!((code, said.as_str()), (3, ""));
    assert!(complained.contains("`drift`") && complained.contains("what to do: "), "{complained}");
    assert!(!target.join("of/the third").exists());

    next_night("the fourth");
    fs::remove_file(target.join("drift")).unwrap();
    let (code, said, complained) = seen(&lab, &["run", "photos"]);
    assert_eq!((code, complained.as_str()), (0, ""));
    tree::assert_same(&source, &target);
    let first = first.first().unwrap();
    assert!(said.contains(&format!("pruned at the target: {first}")), "{said}");
    assert!(!snapshots(&target).contains(first) && snapshots(&target).len() == 2);
    assert_eq!(snapshots(&source).len(), 2);
    let jobs = snapferry(&lab, &["job", "list", "--policy", "photos"]).exits(0).report;
    let states: Vec<&str> = jobs["jobs"].as_array().unwrap().iter().map(|job| job["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["FINISHED", "FAILED", "FINISHED", "FINISHED"]);
}

/// Also where it is spelled in another way, before and after there is anything.
#[test]
fn two_policies_do_not_share_a_target() {
    let lab = Lab::new();
    for is_there in [false, true] {
        if is_there {
            fs::create_dir(lab.path("dr")).unwrap();
            std::os::unix::fs::symlink(lab.path("dr"), lab.path("link")).unwrap();
        }
        for target in ["LAB/dr", "LAB/dr/inside", "LAB/other/../dr", "LAB/link/inside", "LAB/other/../link"] {
            if target.contains("link") && !is_there {
                continue;
            }
            configure(
                &lab,
                &format!(
                    "[policy.one]\nsource = \"LAB/one\"\ntarget = \"LAB/dr\"\n\
                     [policy.two]\nsource = \"LAB/two\"\ntarget = \"{target}\"\n"
                ),
            );
            for command in [&["policy", "check"][..], &["run", "one"], &["run", "--all"], &["status"]] {
                let (code, said, complained) = seen(&lab, command);
                assert_eq!((code, said.as_str()), (2, ""), "{command:?} with {target}");
                assert!(complained.contains("line 4") && complained.contains("a target of its own"), "{complained}");
            }
        }
    }
}
