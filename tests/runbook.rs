//! The commands of docs/runbook.md, taken from there and run, in their order, through four disasters.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use harness::{Lab, PROGRAM, tree};

const RUNBOOK: &str = include_str!("../docs/runbook.md");
const POLICIES: &str = include_str!("../docs/policies.md");

/// The runbook in the lab: each command is taken once, in order.
struct Reader {
    lab: Lab,
    rest: Vec<(String, String)>,
}

impl Reader {
    fn new() -> Self {
        let mut rest = Vec::new();
        let mut heading = "";
        for piece in RUNBOOK.split("\n## ") {
            heading = piece.lines().next().unwrap_or(heading);
            for fence in piece.split("```sh\n").skip(1) {
                rest.push((heading.to_owned(), fence.split("```").next().unwrap().to_owned()));
            }
        }
        rest.reverse();
        Self { lab: Lab::new(), rest }
    }

    /// Runs the next commands, which must be of this section; gives what they printed.
    #[track_caller]
    fn next(&mut self, section: &str, commands: &str) -> String {
        let (heading, script) = self.rest.pop().expect("the runbook has no more commands");
        assert_eq!((heading.as_str(), script.trim()), (section, commands), "the runbook says it otherwise now");
        let output = self.bash(&script);
        let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}\n{script}\n{stdout}\n{stderr}", output.status);
        stdout
    }

    fn bash(&self, script: &str) -> Output {
        let program = Path::new(PROGRAM).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let mut script = script.to_owned();
        for (place, name) in [("/tmp/found", "found"), ("/tmp/drill", "drill"), ("/srv/new-primary", "new-primary")] {
            script = script.replace(place, self.lab.path(name).to_str().unwrap());
        }
        Command::new("bash")
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(self.lab.path(""))
            .env("PATH", path)
            .env("HOME", self.lab.path("home"))
            .env("SNAPSHOT", "snapshot-2026-11-20")
            .env("SNAPFERRY_STATE_DIR", self.lab.path("state"))
            .env("SNAPFERRY_CONFIG", self.lab.path("config.toml"))
            .output()
            .unwrap()
    }

    /// Names of nights here are of the second, so that each run has one of its own on any day.
    fn configure(&self, lines: &str) {
        let (primary, dr) = (self.lab.path("primary"), self.lab.path("dr"));
        let text = format!(
            "[store.primary]\nurl = {primary:?}\n[store.dr]\nurl = {dr:?}\n[policy.photos]\ntarget = \"dr:photos\"\n\
             schedule = \"0 2 * * *\"\nsnapshot = \"night-%s\"\nretention = {{ keep_last = 30 }}\n{lines}\n"
        );
        fs::write(self.lab.path("config.toml"), text).unwrap();
    }
}

#[test]
fn through_four_disasters() {
    let mut book = Reader::new();
    book.configure("source = \"primary:photos\"");
    let (primary, dr) = (book.lab.path("primary/photos"), book.lab.path("dr/photos"));
    for number in 0..20 {
        tree::put(&primary, format!("albums/{number}.jpg").as_bytes(), format!("picture {number}").as_bytes());
    }
    tree::put(&primary, b"albums/rome.jpg", b"the forum");
    for night in ["snapshot-2026-11-20", "snapshot-2026-11-21"] {
        book.lab.sync(&primary, &dr, night, &[]).sealed();
        tree::put(&primary, b"diary", night.as_bytes());
    }
    let good = tree::content(&dr.join(".snapshot/snapshot-2026-11-20"));

    let look = "First: look, and keep what is good";
    let listed = book.next(look, "snapferry restore --list dr:photos");
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[1].contains("snapshot-2026-11-21") && lines[2].contains("sealed"), "{listed}");
    book.next(
        look,
        "SNAPSHOT=snapshot-2026-11-20\nsnapferry snapshot hold dr:photos $SNAPSHOT --reason \"incident of today\"",
    );
    let changed = book.next(look, "snapferry diff dr:photos snapshot-2026-11-20 snapshot-2026-11-21");
    assert!(changed.contains("+  diary"), "{changed}");

    let file = "A lost file";
    fs::remove_file(primary.join("albums/rome.jpg")).unwrap();
    let printed = book.next(file, "snapferry restore dr:photos --snapshot $SNAPSHOT /tmp/found --key albums/rome.jpg");
    assert!(printed.contains(".snapshot/snapshot-2026-11-20/albums/rome.jpg"), "{printed}");
    assert_eq!(fs::read(book.lab.path("found/albums/rome.jpg")).unwrap(), b"the forum");
    book.next(
        file,
        "snapferry restore dr:photos --snapshot $SNAPSHOT primary:photos --in-place --confirm $SNAPSHOT --key albums/rome.jpg",
    );
    assert_eq!(fs::read(primary.join("albums/rome.jpg")).unwrap(), b"the forum");
    assert_eq!(fs::read(primary.join("diary")).unwrap(), b"snapshot-2026-11-21", "nothing else is touched");

    let bucket = "A lost or damaged bucket";
    for number in 0..12 {
        let name = format!("albums/{number}.jpg");
        match number % 3 {
            0 => tree::put(&primary, name.as_bytes(), b"locked"),
            1 => fs::rename(primary.join(&name), primary.join(format!("{name}.locked"))).unwrap(),
            _ => fs::remove_file(primary.join(&name)).unwrap(),
        }
    }
    let damaged = tree::content(&primary);
    let planned =
        book.next(bucket, "snapferry restore dr:photos --snapshot $SNAPSHOT primary:photos --in-place --dry-run -v");
    assert!(planned.contains("albums/rome.jpg"), "{planned}");
    assert_eq!(tree::content(&primary), damaged, "a rehearsal touches nothing");
    let printed = book
        .next(bucket, "snapferry restore dr:photos --snapshot $SNAPSHOT primary:photos --in-place --confirm $SNAPSHOT");
    assert!(printed.contains("before-restore-"), "{printed}");
    assert_eq!(tree::content(&primary), good);
    let status = book.next(bucket, "snapferry run photos --snapshot after-the-incident\nsnapferry status");
    assert!(status.contains("fresh"), "{status}");
    tree::assert_same(&primary, &dr);

    let cluster = "A lost cluster";
    fs::remove_dir_all(book.lab.path("primary")).unwrap();
    book.configure("source = \"primary:photos\"\nenabled = false");
    let policies = book.next(cluster, "snapferry policy list");
    assert!(policies.contains("disabled"), "{policies}");
    book.next(cluster, "snapferry restore dr:photos --snapshot $SNAPSHOT /srv/new-primary/photos");
    let new = book.lab.path("new-primary/photos");
    assert_eq!(tree::content(&new), good);
    book.configure(&format!("source = {new:?}"));
    tree::put(&new, b"diary", b"of the new cluster");
    let printed =
        book.next(cluster, "snapferry policy check photos\nsnapferry run photos --snapshot from-the-new-cluster");
    assert!(printed.contains("copied 1 objects"), "{printed}");
    tree::assert_same(&new, &dr);

    let machine = "A lost snapferry machine";
    fs::remove_dir_all(book.lab.path("state")).unwrap();
    fs::remove_dir_all(book.lab.path("home")).ok();
    tree::put(&new, b"diary", b"of the new machine");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let printed =
        book.next(machine, "snapferry policy check photos\nsnapferry status\nsnapferry job list\nsnapferry run photos");
    assert!(printed.contains("enabled  photos") && printed.contains("copied 1 objects"), "{printed}");
    let jobs = printed.lines().filter(|line| line.starts_with("job-") && line.contains("FINISHED")).count();
    assert!(jobs >= 1, "what ran before is told from the receipts:\n{printed}");
    tree::assert_same(&new, &dr);

    book.next("Afterwards", "snapferry snapshot release dr:photos $SNAPSHOT");
    book.next("Afterwards", "snapferry restore dr:photos --snapshot $SNAPSHOT /tmp/drill\nrm -r /tmp/drill");
    assert!(book.rest.is_empty(), "the runbook has commands that nothing runs: {:?}", book.rest);
}

#[test]
fn every_example_of_a_configuration_is_one() {
    let mut examples = 0;
    for fence in POLICIES.split("```toml\n").skip(1) {
        let text = fence.split("```").next().unwrap();
        let config = snapferry::config::Config::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert!(!config.policies.is_empty() || !config.families.is_empty());
        examples += 1;
    }
    assert_eq!(examples, 3);
    let lines = POLICIES.split("```toml\n").nth(1).unwrap().split("```").next().unwrap().lines().count();
    assert!(lines < 10, "the script's policy has {lines} lines");
}
