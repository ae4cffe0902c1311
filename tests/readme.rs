//! The commands of README.md, taken from there and run.

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use harness::{Lab, PROGRAM, tree};

const README: &str = include_str!("../README.md");

/// The commands in the first fence after a line of the README.
#[track_caller]
fn commands(after: &str) -> &'static str {
    let (_, rest) = README.split_once(after).unwrap_or_else(|| panic!("README.md has no `{after}`"));
    let (_, rest) = rest.split_once("```sh\n").unwrap();
    rest.split_once("```").unwrap().0
}

/// The same text without a piece that must be in it.
#[track_caller]
fn replace(text: &str, piece: &str, by: &str) -> String {
    assert!(text.contains(piece), "README.md no longer says `{piece}`: this test must follow");
    text.replace(piece, by)
}

/// Runs a script with the program on its path and a home of its own; gives what it printed.
#[track_caller]
fn run(lab: &Lab, script: &str) -> String {
    let program = Path::new(PROGRAM).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(lab.path(""))
        .env("PATH", path)
        .env("HOME", lab.path("home"))
        .env_remove("XDG_STATE_HOME")
        .env_remove("SNAPFERRY_STATE_DIR")
        .env_remove("SNAPFERRY_CONFIG")
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{script}\n{stdout}\n{stderr}", output.status);
    stdout
}

#[test]
fn the_first_command() {
    let lab = Lab::new();
    fs::create_dir(lab.path("DIR")).unwrap();
    tree::put(&lab.path("DIR"), b"folder/file", b"content");
    let first = commands("Only Rust").lines().next().unwrap();
    let printed = run(&lab, &replace(first, "cargo run --release --", "snapferry"));
    assert!(printed.starts_with("sealed snapshot-"), "{printed}");
    tree::assert_same(&lab.path("DIR"), &lab.path("DIR2"));
}

#[test]
fn the_tour_of_directories() {
    let lab = Lab::new();
    let tour = commands("## Five minutes with directories");
    let tour = replace(tour, "cargo build --release && export PATH=\"$PWD/target/release:$PATH\"\n", "");
    let printed = run(&lab, &replace(&tour, "/tmp/tour", lab.path("tour").to_str().unwrap()));
    let tour = lab.path("tour");
    tree::assert_same(&tour.join("photos"), &tour.join("replica"));
    let back = tree::content(&tour.join("back"));
    assert_eq!(back, tree::content(&tour.join("replica/.snapshot/monday")));
    assert_eq!(fs::read(tour.join("back/one")).unwrap(), b"one\n");
    assert_eq!(fs::read(tour.join("photos/uno")).unwrap(), b"one\n");
    // What the comments of the tour promise.
    for promise in ["renamed 1", "copied 1 objects, 6 B", "R  one -> uno", "equal: tuesday, 3 objects"] {
        assert!(printed.contains(promise), "nothing says `{promise}`:\n{printed}");
    }
}

#[test]
fn the_way_back() {
    let lab = Lab::new();
    let tour = commands("## Five minutes with directories");
    let tour = replace(tour, "cargo build --release && export PATH=\"$PWD/target/release:$PATH\"\n", "");
    run(&lab, &replace(&tour, "/tmp/tour", lab.path("tour").to_str().unwrap()));
    let back = format!("cd {}\n{}", lab.path("tour").display(), commands("## The way back"));
    let printed = run(&lab, &back);
    let tour = lab.path("tour");
    assert_eq!(fs::read(tour.join("one-file/one")).unwrap(), b"one\n");
    tree::assert_same(&tour.join("photos"), &tour.join("replica/.snapshot/tuesday"));
    for promise in
        ["replace  two", "to be read at", "to go back: snapferry restore 'photos' --snapshot before-restore-"]
    {
        assert!(printed.contains(promise), "nothing says `{promise}`:\n{printed}");
    }
}

#[test]
fn the_fields_of_the_report() {
    let lab = Lab::new();
    fs::create_dir(lab.path("source")).unwrap();
    let report = lab.sync(lab.path("source"), lab.path("target"), "first", &[]).sealed().report;
    let given: BTreeSet<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    let (_, table) = README.split_once("| field | meaning |\n|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let named = rows.flat_map(|row| {
        let names = row.split('|').nth(1).unwrap();
        names.split(',').map(|name| name.trim().trim_matches('`'))
    });
    let (named, sometimes): (BTreeSet<&str>, BTreeSet<&str>) = named.partition(|name| !SOMETIMES.contains(name));
    assert_eq!(named, given);
    assert_eq!(sometimes, SOMETIMES.into());
}

#[test]
fn the_digests_of_b3sum() {
    let lab = Lab::new();
    fs::create_dir(lab.path("source")).unwrap();
    // One that goes whole, and one in three parts, the last of them short.
    let contents =
        [b"whole".to_vec(), (0..20_000_001u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()];
    for (name, content) in ["small", "large"].iter().zip(&contents) {
        fs::write(lab.path("source").join(name), content).unwrap();
    }
    lab.sync(lab.path("source"), lab.path("target"), "first", &[]).sealed();
    let mut found = 0;
    for segment in fs::read_dir(lab.path("target/.snapferry/segments")).unwrap() {
        let segment = fs::read(segment.unwrap().path()).unwrap();
        for entry in snapferry::manifest::segment::decode(segment.into()).unwrap() {
            let content = if entry.size == 5 { &contents[0] } else { &contents[1] };
            assert_eq!(
                entry.digest.unwrap().to_hex().as_str(),
                blake3::hash(content).to_hex().as_str(),
                "{}",
                entry.key
            );
            found += 1;
        }
    }
    assert_eq!(found, 2);
}

/// Fields that are there only when they have something to say.
const SOMETIMES: [&str; 4] = ["repinned_keys", "drift_keys", "steps", "error"];
