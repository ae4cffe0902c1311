//! Buckets on real servers, built and read back by `s3.py`, which shares nothing with the program.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::model::Content;
use super::proxy::Proxy;

/// A server, known by the URL of a bucket on it.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// `http://127.0.0.1:PORT`
    endpoint: String,
    /// What follows the bucket in the URL.
    query: String,
}

impl Server {
    /// The server behind an environment variable; none, with the reason printed, where `scripts/test` did not set it.
    pub(crate) fn from_environment(variable: &str) -> Option<Self> {
        let Ok(url) = std::env::var(variable) else {
            eprintln!("skipped: {variable} is not set; scripts/test starts the server and sets it");
            return None;
        };
        let (_, query) = url.split_once('?').expect("a URL with an endpoint");
        let endpoint = query.split('&').find_map(|pair| pair.strip_prefix("endpoint=")).expect("an endpoint");
        Some(Self { endpoint: endpoint.into(), query: query.into() })
    }

    /// A new versioned bucket with a name of its own.
    pub(crate) fn bucket(&self, purpose: &str) -> Bucket {
        self.create(purpose, &["--versioned"])
    }

    /// A new bucket that keeps no versions.
    pub(crate) fn unversioned(&self, purpose: &str) -> Bucket {
        self.create(purpose, &[])
    }

    fn create(&self, purpose: &str, options: &[&str]) -> Bucket {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let bucket = Bucket { server: self.clone(), name: format!("{purpose}-{}-{number}", std::process::id()) };
        bucket.call("create", options, "");
        bucket
    }

    /// The URL of a bucket of this name, which need not exist.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("s3://{name}?{}", self.query)
    }
}

/// A bucket on a server.
#[derive(Debug)]
pub(crate) struct Bucket {
    server: Server,
    pub(crate) name: String,
}

impl Bucket {
    /// The bucket of a URL, which is there.
    pub(crate) fn at(url: &str) -> Self {
        let (name, query) = url.strip_prefix("s3://").and_then(|rest| rest.split_once('?')).expect("a bucket's URL");
        let endpoint = query.split('&').find_map(|pair| pair.strip_prefix("endpoint=")).expect("an endpoint");
        Self { server: Server { endpoint: endpoint.into(), query: query.into() }, name: name.into() }
    }

    /// Its URL for the program.
    pub(crate) fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// Its URL for the program through a proxy in front of its server.
    pub(crate) fn url_through(&self, proxy: &Proxy) -> String {
        self.url().replace(&self.server.endpoint, &proxy.endpoint)
    }

    /// A new proxy in front of its server.
    pub(crate) fn proxy(&self) -> Proxy {
        Proxy::before(&self.server.endpoint)
    }

    /// Its URL for the program when only keys with this prefix are meant.
    pub(crate) fn url_of_prefix(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}?{}", self.name, self.server.query)
    }

    /// Makes the bucket's content `after` where it was `before`.
    #[track_caller]
    pub(crate) fn change(&self, before: &Content, after: &Content) {
        let directory = tempfile::tempdir().unwrap();
        let mut actions = String::new();
        let mut action = |fields: &[&str]| {
            actions += &serde_json::to_string(fields).unwrap();
            actions.push('\n');
        };
        for key in before.0.keys().filter(|key| !after.0.contains_key(*key)) {
            action(&["delete", &hex::encode(key)]);
        }
        for (number, (key, data)) in after.0.iter().enumerate() {
            if before.0.get(key) != Some(data) {
                let path = directory.path().join(number.to_string());
                std::fs::write(&path, data).unwrap();
                action(&["put", &hex::encode(key), path.to_str().unwrap()]);
            }
        }
        self.call("apply", &[], &actions);
    }

    /// All keys with their bytes, snapferry's own included.
    #[track_caller]
    pub(crate) fn content(&self) -> Content {
        let directory = tempfile::tempdir().unwrap();
        let text = self.call("dump", &[directory.path().to_str().unwrap()], "");
        let entries = text.lines().map(|line| {
            let [key, path]: [String; 2] = serde_json::from_str(line).unwrap();
            (hex::decode(key).unwrap(), std::fs::read(path).unwrap())
        });
        Content(entries.collect::<BTreeMap<_, _>>())
    }

    /// How many versions and delete markers it holds: it grows with every write.
    #[track_caller]
    pub(crate) fn versions(&self) -> u64 {
        self.call("versions", &[], "").trim().parse().unwrap()
    }

    /// Every version: its key, its id, whether it is current and whether it is a delete marker.
    #[track_caller]
    pub(crate) fn every_version(&self) -> Vec<(String, String, bool, bool)> {
        let text = self.call("every", &[], "");
        let version = |line: &str| {
            let (key, id, current, marker): (String, String, bool, bool) = serde_json::from_str(line).unwrap();
            (String::from_utf8(hex::decode(key).unwrap()).unwrap(), id, current, marker)
        };
        text.lines().map(version).collect()
    }

    /// How many multipart uploads nobody finished or dropped.
    #[track_caller]
    pub(crate) fn uploads(&self) -> u64 {
        self.call("uploads", &[], "").trim().parse().unwrap()
    }

    /// Begins a multipart upload, as another tool does, and leaves it open.
    #[track_caller]
    pub(crate) fn begin(&self, key: &str) {
        self.call("begin", &[&hex::encode(key)], "");
    }

    /// Bytes of content that have landed, in objects and in parts of unfinished uploads.
    #[track_caller]
    pub(crate) fn landed(&self) -> u64 {
        self.call("landed", &[], "").trim().parse().unwrap()
    }

    /// Writes one object, with more arguments of PutObject as JSON.
    #[track_caller]
    pub(crate) fn put(&self, key: &str, data: &[u8], extra: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), data).unwrap();
        self.call("put", &[&hex::encode(key), file.path().to_str().unwrap(), extra], "");
    }

    /// What travels with an object: content type, cache control and user metadata.
    #[track_caller]
    pub(crate) fn head(&self, key: &str) -> serde_json::Value {
        serde_json::from_str(&self.call("head", &[&hex::encode(key)], "")).unwrap()
    }

    /// Deletes the newest version of an object for good.
    #[track_caller]
    pub(crate) fn lose(&self, key: &str) {
        self.call("lose", &[&hex::encode(key)], "");
    }

    /// Lets everybody read the bucket, and returns the URL of somebody who may do no more than that.
    #[track_caller]
    pub(crate) fn published(&self) -> String {
        self.call("publish", &[], "");
        format!("{}&anonymous=true", self.url())
    }

    #[track_caller]
    fn call(&self, command: &str, options: &[&str], input: &str) -> String {
        let python = std::env::var("SNAPFERRY_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness/s3.py");
        let mut child = Command::new(python)
            .arg(script)
            .args([&self.server.endpoint, command, &self.name])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It reads all of its input before it prints, so this cannot block.
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "s3.py {command} {}: {}", self.name, output.status);
        String::from_utf8(output.stdout).unwrap()
    }
}
