//! What the end-to-end tests share: they run the program as a user would and read the result with eyes of their own.
//! Nothing in here uses the library.

// Every test binary uses a part of this.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod model;
pub(crate) mod ozone;
pub(crate) mod proxy;
pub(crate) mod s3;
pub(crate) mod tree;

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_snapferry");

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    /// The JSON document on stdout; null when there was none.
    pub(crate) report: Value,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Fails the test unless the program exited with this code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless the program exited with one of these codes.
    #[track_caller]
    pub(crate) fn exits_with_one_of(self, codes: &[i32]) -> Self {
        assert!(
            codes.contains(&self.code),
            "exit code {} is none of {codes:?}\nstdout: {}\nstderr: {}",
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Fails the test unless the run ended sealed, and says so.
    #[track_caller]
    pub(crate) fn sealed(self) -> Self {
        let outcome = self.exits(0);
        assert_eq!(outcome.text("state"), "sealed", "{}", outcome.report);
        assert_eq!(outcome.count("skipped"), 0, "{}", outcome.report);
        outcome
    }

    /// Fails the test unless this text is somewhere in what the program said.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        // The document holds keys in JSON's own escapes, so they are looked for in its values.
        let values = values(&self.report);
        assert!(
            self.stderr.contains(text) || values.iter().any(|value| value.contains(text)),
            "nothing says `{text}`\nstdout: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// A number in the report.
    #[track_caller]
    pub(crate) fn count(&self, field: &str) -> u64 {
        self.report[field].as_u64().unwrap_or_else(|| panic!("no number `{field}` in {}", self.report))
    }

    /// A text in the report.
    #[track_caller]
    pub(crate) fn text(&self, field: &str) -> &str {
        self.report[field].as_str().unwrap_or_else(|| panic!("no text `{field}` in {}", self.report))
    }
}

fn values(json: &Value) -> Vec<String> {
    match json {
        Value::Array(items) => items.iter().flat_map(values).collect(),
        Value::Object(fields) => fields.values().flat_map(values).collect(),
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    }
}

/// A directory for one test, with a state directory in it.
pub(crate) struct Lab {
    directory: TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::Builder::new().prefix("snapferry-test-").tempdir().unwrap() }
    }

    /// A path in the directory; nothing is made there.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs the program with `--json` and this lab's state directory. It must end within three minutes, and say
    /// one JSON document on stdout and nothing else, whatever the end (only wrong usage may say none).
    #[track_caller]
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        let output = assert_cmd::Command::new(PROGRAM)
            .args(arguments)
            .arg("--json")
            .arg("--state-dir")
            .arg(self.path("state"))
            .timeout(Duration::from_secs(180))
            .output()
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code().unwrap_or_else(|| panic!("no exit code ({})\n{stderr}", output.status));
        let report = match serde_json::from_str(&stdout) {
            Ok(report) => report,
            Err(_) if code == 2 && stdout.is_empty() => Value::Null,
            Err(error) => panic!("stdout is not one JSON document: {error}\nexit code {code}\n{stdout}\n{stderr}"),
        };
        Outcome { code, report, stdout, stderr }
    }

    /// Starts the program and waits until it is in this phase, as its log says it; none if it ended before. With its log,
    /// which must have a reader.
    pub(crate) fn until(&self, arguments: &[&str], phase: &str) -> Option<(Child, BufReader<ChildStderr>)> {
        let mut child = Command::new(PROGRAM)
            .args(arguments)
            .args(["--json", "-vv", "--state-dir"])
            .arg(self.path("state"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let is_there = |line: String| line.contains("DEBUG") && line.trim_end().ends_with(phase);
        if log.by_ref().lines().map_while(Result::ok).any(is_there) {
            return Some((child, log));
        }
        child.wait().unwrap();
        None
    }

    /// `sync SOURCE TARGET --snapshot NAME`, and more arguments.
    #[track_caller]
    pub(crate) fn sync(
        &self,
        source: impl AsRef<OsStr>,
        target: impl AsRef<OsStr>,
        name: &str,
        more: &[&str],
    ) -> Outcome {
        let mut arguments: Vec<OsString> = vec!["sync".into(), source.as_ref().into(), target.as_ref().into()];
        arguments.extend(["--snapshot", name].map(OsString::from));
        arguments.extend(more.iter().map(OsString::from));
        self.run(arguments)
    }

    /// `restore BUCKET --snapshot NAME TO` into a new directory, which is returned.
    #[track_caller]
    pub(crate) fn restore(&self, bucket: impl AsRef<OsStr>, name: &str) -> PathBuf {
        let to = self.path(&format!("restored-{name}"));
        if to.exists() {
            std::fs::remove_dir_all(&to).unwrap();
        }
        let arguments = ["restore".as_ref(), bucket.as_ref(), "--snapshot".as_ref(), name.as_ref(), to.as_os_str()];
        self.run(arguments).exits(0);
        to
    }

    /// `verify SOURCE TARGET --snapshot NAME`, which must find both equal.
    #[track_caller]
    pub(crate) fn verify(&self, source: impl AsRef<OsStr>, target: impl AsRef<OsStr>, name: &str) {
        let arguments = ["verify".as_ref(), source.as_ref(), target.as_ref(), "--snapshot".as_ref(), name.as_ref()];
        self.run(arguments).exits(0);
    }
}

/// Where a local bucket shows a snapshot.
pub(crate) fn snapshot_of(bucket: &Path, name: &str) -> PathBuf {
    bucket.join(".snapshot").join(name)
}

/// A stream of numbers from a seed, the same on every machine (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Bytes that do not compress and do not repeat.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
