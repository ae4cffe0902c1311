//! Buckets on real Ozone clusters, built and read back by Ozone's own Java client (`Ozone.java`), which shares nothing
//! with the program.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::Value;

use super::model::{Content, Step};

/// How a bucket keeps its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A tree of directories, which are renamed and deleted as one: `FILE_SYSTEM_OPTIMIZED`.
    Fso,
    /// Flat keys: `OBJECT_STORE`.
    Obs,
}

/// A running cluster.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    /// `o3://127.0.0.1:PORT/VOLUME`
    volume_url: String,
    pub(crate) volume: String,
    /// What follows the bucket in the URL.
    query: String,
    /// Where `scripts/ozone` keeps it.
    directory: PathBuf,
    client: Arc<Mutex<Client>>,
}

impl Cluster {
    /// The cluster behind an environment variable, the one with its URL and, in `…_DIR`, its directory; none, with the
    /// reason printed, where `scripts/test` did not set it.
    pub(crate) fn from_environment(variable: &str) -> Option<Self> {
        let (Ok(url), Some(directory)) = (std::env::var(variable), std::env::var_os(format!("{variable}_DIR"))) else {
            eprintln!(
                "skipped: {variable} and {variable}_DIR are not set; scripts/test starts the cluster and sets them"
            );
            return None;
        };
        Some(Self::at(&url, directory.into()))
    }

    fn at(url: &str, directory: PathBuf) -> Self {
        let (volume_url, query) = url.split_once('?').expect("a URL with ports");
        let (_, volume) = volume_url.rsplit_once('/').expect("a URL with a volume");
        Self {
            volume_url: volume_url.into(),
            volume: volume.into(),
            query: query.into(),
            client: Client::of(&directory),
            directory,
        }
    }

    /// Adds a property to `ozone-site.xml`, or overrides it. Services read it when they start.
    #[track_caller]
    pub(crate) fn configure(&self, name: &str, value: &str) {
        let path = self.directory.join("conf/ozone-site.xml");
        let site = std::fs::read_to_string(&path).unwrap();
        let property = format!("<property><name>{name}</name><value>{value}</value></property>\n</configuration>");
        std::fs::write(&path, site.replace("</configuration>", &property)).unwrap();
    }

    /// A new bucket with a name of its own.
    #[track_caller]
    pub(crate) fn bucket(&self, purpose: &str, layout: Layout) -> Bucket {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let bucket =
            Bucket { cluster: self.clone(), name: format!("{purpose}-{}-{number}", std::process::id()), layout };
        bucket.call("bucket", &[if layout == Layout::Fso { "fso" } else { "obs" }]);
        bucket
    }

    /// Stops a service (`scm`, `dn`, `om` or `s3g`) and starts it again, which returns when an object can be written.
    #[track_caller]
    pub(crate) fn restart(&self, service: &str) {
        self.manage("restart", service, &[]);
    }

    /// As [`Cluster::restart`], without giving the service time for anything.
    #[track_caller]
    pub(crate) fn kill_and_restart(&self, service: &str) {
        self.manage("restart", service, &["--kill"]);
    }

    /// Stops a service, until [`Cluster::start`].
    #[track_caller]
    pub(crate) fn stop(&self, service: &str) {
        self.manage("stop", service, &[]);
    }

    /// Starts a service that was stopped.
    #[track_caller]
    pub(crate) fn start(&self, service: &str) {
        self.manage("start", service, &[]);
    }

    #[track_caller]
    fn manage(&self, verb: &str, service: &str, options: &[&str]) {
        let mut command = script(verb, &self.directory);
        let status = command.arg(service).args(options).status().unwrap();
        assert!(status.success(), "scripts/ozone {verb} {service}: {status}");
    }

    /// Runs a command of `Ozone.java` and returns the objects that it printed.
    #[track_caller]
    pub(crate) fn call(&self, words: &[&str]) -> Vec<Value> {
        self.try_call(words).unwrap_or_else(|error| {
            // A word may be a whole object.
            let short: Vec<_> = words.iter().map(|word| word.chars().take(200).collect::<String>()).collect();
            panic!("{short:?}: {error}")
        })
    }

    /// As [`Cluster::call`], and returns the client's error where the command failed.
    pub(crate) fn try_call(&self, words: &[&str]) -> Result<Vec<Value>, String> {
        // A test that failed while it held the client has not harmed it: answers are read to their end.
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        client.call(words)
    }
}

/// A cluster of a test's own, which ends with it.
#[derive(Debug)]
pub(crate) struct OwnCluster {
    pub(crate) cluster: Cluster,
    _folder: tempfile::TempDir,
}

impl OwnCluster {
    /// Starts one with these properties beside the usual ones.
    #[track_caller]
    pub(crate) fn start(properties: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("ozone");
        let status = script("up", &directory).arg("--small").env("PROPERTIES", properties).status().unwrap();
        assert!(status.success(), "scripts/ozone up: {status}");
        let env = std::fs::read_to_string(directory.join("env")).unwrap();
        let url = env.lines().find_map(|line| line.strip_prefix("OZONE_URL=")).expect("a URL").trim_matches('\'');
        Self { cluster: Cluster::at(url, directory), _folder: folder }
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        let down = script("down", &self.cluster.directory).arg("--kill").status();
        if !down.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("a cluster stays up: {down:?}");
        }
    }
}

/// The primary site and the other one.
pub(crate) fn sites() -> Option<(Cluster, Cluster)> {
    Some((Cluster::from_environment("SNAPFERRY_TEST_OZONE")?, Cluster::from_environment("SNAPFERRY_TEST_OZONE_DR")?))
}

/// `scripts/ozone VERB DIRECTORY`
fn script(verb: &str, directory: &Path) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/ozone"));
    command.arg(verb).arg(directory);
    command
}

/// What a key of a bucket holds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Object {
    File {
        size: u64,
        /// Of the bytes that were read, in hexadecimal.
        sha256: String,
        /// Milliseconds since 1970.
        mtime: i64,
        etag: Option<String>,
        metadata: BTreeMap<String, String>,
        tags: BTreeMap<String, String>,
        /// How many blocks it is made of.
        blocks: u64,
    },
    Directory,
}

/// Everything in a bucket, by key; those of directories end in `/`.
pub(crate) type Objects = BTreeMap<Vec<u8>, Object>;

/// A bucket on a cluster.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) cluster: Cluster,
    pub(crate) name: String,
    layout: Layout,
}

impl Bucket {
    /// Its URL for the program.
    pub(crate) fn url(&self) -> String {
        format!("{}/{}?{}", self.cluster.volume_url, self.name, self.cluster.query)
    }

    /// Lets the S3 Gateway serve it, under the same name.
    #[track_caller]
    pub(crate) fn linked(self) -> Self {
        self.call("link", &[&format!("s3v/{}", self.name)]);
        self
    }

    /// The URL of a [`Bucket::linked`] one for the program as a bucket of S3.
    pub(crate) fn s3_url(&self) -> String {
        let endpoint = self.cluster.query.split('&').find_map(|pair| pair.strip_prefix("s3=")).expect("an endpoint");
        format!("s3://{}?endpoint={endpoint}&region=us-east-1&path-style=true", self.name)
    }

    /// Does a user's change.
    #[track_caller]
    pub(crate) fn apply(&self, step: &Step) {
        match step {
            Step::Put(key, data) => self.put(key, data),
            Step::MakeDirectory(key) if self.layout == Layout::Fso => drop(self.call("mkdir", &[key])),
            // Where there are no directories, other clients write an empty object for one.
            Step::MakeDirectory(key) => self.put(key, b""),
            Step::Delete(key) => {
                for key in self.meant(key) {
                    self.call("delete", &[&key]);
                }
            }
            Step::Rename(from, to) => {
                for key in self.meant(from) {
                    let renamed = format!("{to}{}", &key[from.len()..]);
                    self.call("rename", &[&key, &renamed]);
                }
            }
        }
    }

    /// The keys that a step on this one is about: a directory is one key, or all that begin with its name.
    #[track_caller]
    fn meant(&self, key: &str) -> Vec<String> {
        if self.layout == Layout::Fso || !key.ends_with('/') {
            return vec![key.into()];
        }
        let keys = self.content().into_keys().map(|key| String::from_utf8(key).unwrap());
        keys.filter(|found| found.starts_with(key)).collect()
    }

    /// Writes an object over what is there, as S3 does.
    #[track_caller]
    pub(crate) fn put(&self, key: &str, data: &[u8]) {
        if data.len() <= IN_A_LINE_MAX {
            self.call("put", &[key, &BASE64.encode(data)]);
            return;
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(data).unwrap();
        self.call("upload", &[key, file.path().to_str().unwrap()]);
    }

    /// Deletes an object and writes another of the same name, as `ofs -put -f` does.
    #[track_caller]
    pub(crate) fn replace(&self, key: &str, data: &[u8]) {
        self.call("replace", &[key, &BASE64.encode(data)]);
    }

    /// Makes the bucket's content `after` where it was `before`. Directories that only the keys in them implied go with
    /// the last of these.
    #[track_caller]
    pub(crate) fn change(&self, before: &Content, after: &Content) {
        let text = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
        let names = |content: &Content| match self.layout {
            Layout::Fso => content.0.keys().flat_map(|key| with_parents(key)).collect(),
            Layout::Obs => content.0.keys().cloned().collect::<BTreeSet<_>>(),
        };
        // What is in a directory goes before it.
        for key in names(before).difference(&names(after)).collect::<Vec<_>>().into_iter().rev() {
            self.call("delete", &[&text(key)]);
        }
        for (key, data) in &after.0 {
            if before.0.get(key) == Some(data) {
                continue;
            }
            match text(key) {
                key if key.ends_with('/') && self.layout == Layout::Fso => drop(self.call("mkdir", &[&key])),
                key => self.put(&key, data),
            }
        }
    }

    /// Takes a snapshot with Ozone's own means.
    #[track_caller]
    pub(crate) fn snapshot(&self, name: &str) {
        self.call("snapshot", &[name]);
    }

    /// Names of its snapshots, oldest name first; those deleted and not yet purged are left out.
    #[track_caller]
    pub(crate) fn snapshots(&self) -> Vec<String> {
        let all = self.call("snapshots", &[]);
        let active = all.iter().filter(|one| one["status"] == "SNAPSHOT_ACTIVE");
        active.map(|one| one["name"].as_str().unwrap().into()).collect()
    }

    /// All that it holds, snapferry's own keys included.
    #[track_caller]
    pub(crate) fn content(&self) -> Objects {
        let bucket = format!("{}/{}", self.cluster.volume, self.name);
        let mut tries = 0;
        loop {
            match self.cluster.try_call(&["content", &bucket]) {
                Ok(lines) => return objects(lines),
                // Ozone's listing may lag behind a delete or a rename, and then name what cannot be read.
                Err(error) if tries < 10 && error.contains("KEY_NOT_FOUND") => tries += 1,
                Err(error) => panic!("content of {bucket}: {error}"),
            }
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
    }

    /// All that a snapshot holds.
    #[track_caller]
    pub(crate) fn content_of_snapshot(&self, name: &str) -> Objects {
        objects(self.call("content", &[name]))
    }

    /// Runs a command of `Ozone.java` on this bucket.
    #[track_caller]
    pub(crate) fn call(&self, command: &str, more: &[&str]) -> Vec<Value> {
        let bucket = format!("{}/{}", self.cluster.volume, self.name);
        let mut words = vec![command, &bucket];
        words.extend(more);
        self.cluster.call(&words)
    }
}

/// Bytes of an object that go to the client in its command: it reads words of up to 20 MB.
const IN_A_LINE_MAX: usize = 8 << 20;

/// A key, and the directories that it is in.
fn with_parents(key: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let ends = (1..=key.len()).filter(|&end| key[end - 1] == b'/' || end == key.len());
    ends.map(|end| key[..end].to_vec())
}

/// The objects by key. Ozone lists some keys beyond U+FFFF twice; they must at least be the same both times.
#[track_caller]
fn objects(lines: Vec<Value>) -> Objects {
    let mut objects = Objects::new();
    for line in lines {
        let key = line["key"].as_str().expect("a key").to_owned();
        let object = serde_json::from_value(line).unwrap();
        if let Some(other) = objects.insert(key.clone().into_bytes(), object) {
            assert_eq!(other, objects[key.as_bytes()], "`{key}` was listed twice, with different content");
        }
    }
    objects
}

/// Fails the test and names the keys, unless the bucket holds exactly these keys with these bytes. As in
/// [`super::model::assert_equal`], snapferry's own keys and directories that the keys in them imply do not count.
#[track_caller]
pub(crate) fn assert_holds(found: Objects, expected: &Content, what: &str) {
    let digest = |data: &[u8]| (data.len() as u64, hex::encode(ring::digest::digest(&ring::digest::SHA256, data)));
    let keys = found.keys().map(|key| (key.clone(), Vec::new()));
    let counted = Content(keys.collect()).canonical().0;
    let found: BTreeMap<_, _> = found
        .into_iter()
        .filter(|(key, _)| counted.contains_key(key))
        .map(|(key, object)| match object {
            Object::File { size, sha256, .. } => (key, (size, sha256)),
            // Where there are no directories, an empty object is one.
            Object::Directory => (key, digest(b"")),
        })
        .collect();
    let expected = expected.clone().canonical().0;
    let expected: BTreeMap<_, _> = expected.into_iter().map(|(key, data)| (key, digest(&data))).collect();
    let mut differences = String::new();
    for key in found.keys().chain(expected.keys().filter(|key| !found.contains_key(*key))) {
        let short = |side: &BTreeMap<_, (u64, String)>| {
            side.get(key).map_or("nothing".into(), |(size, sha256)| format!("{size} bytes ({}…)", &sha256[..8]))
        };
        if found.get(key) != expected.get(key) {
            let _ = writeln!(
                differences,
                "`{}`: {} where {} should be",
                key.escape_ascii(),
                short(&found),
                short(&expected)
            );
        }
    }
    assert!(differences.is_empty(), "{what}:\n{differences}");
}

/// What must be the same on both sides of each key: length, digest, metadata and tags; nothing of a directory.
pub(crate) type Replica = BTreeMap<Vec<u8>, Option<[String; 4]>>;

/// A bucket's content as far as a replica must have it: without snapferry's own keys.
pub(crate) fn replica(objects: Objects) -> Replica {
    let text = |map: BTreeMap<String, String>| serde_json::to_string(&map).unwrap();
    let own = |key: &Vec<u8>| key.starts_with(b".snapferry/");
    let kept = objects.into_iter().filter(|(key, _)| !own(key)).map(|(key, object)| match object {
        Object::File { size, sha256, metadata, tags, .. } => {
            (key, Some([size.to_string(), sha256, text(metadata), text(tags)]))
        }
        Object::Directory => (key, None),
    });
    kept.collect()
}

/// Fails the test and names the keys, unless both snapshots of this name hold the same, to the last tag.
#[track_caller]
pub(crate) fn assert_same_snapshot(source: &Bucket, target: &Bucket, name: &str) {
    let (there, here) = (replica(source.content_of_snapshot(name)), replica(target.content_of_snapshot(name)));
    assert_replica(&there, &here, name);
}

/// Fails the test and names the keys, unless both hold the same, to the last tag.
#[track_caller]
pub(crate) fn assert_replica(there: &Replica, here: &Replica, what: &str) {
    let differing: Vec<String> = there
        .keys()
        .chain(here.keys())
        .filter(|key| there.get(*key) != here.get(*key))
        .map(|key| format!("{}: {:?} | {:?}", key.escape_ascii(), there.get(key), here.get(key)))
        .collect();
    assert!(differing.is_empty(), "{what} is not the same on both sides:\n{}", differing.join("\n"));
}

/// The Java client of one cluster. It ends when this process does, for its input ends then.
#[derive(Debug)]
struct Client {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    /// The one client that this process has for the cluster in a directory: it takes seconds to start.
    fn of(directory: &Path) -> Arc<Mutex<Self>> {
        static CLIENTS: Mutex<Option<HashMap<PathBuf, Arc<Mutex<Client>>>>> = Mutex::new(None);
        let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
        let clients = clients.get_or_insert_default();
        let client = clients.entry(directory.into()).or_insert_with(|| Arc::new(Mutex::new(Self::start(directory))));
        Arc::clone(client)
    }

    fn start(directory: &Path) -> Self {
        let mut command = script("batch", directory);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    fn call(&mut self, words: &[&str]) -> Result<Vec<Value>, String> {
        let mut line = serde_json::to_string(words).unwrap();
        line.push('\n');
        self.input.write_all(line.as_bytes()).expect("the Java client is gone");
        let mut printed = Vec::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 {
                panic!("the Java client ended: {}", self.process.wait().unwrap());
            }
            let mut value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
            match value.get("exit") {
                None => printed.push(value),
                Some(exit) if *exit == 0 => {
                    if value.get("out").is_some() {
                        printed.push(value);
                    }
                    return Ok(printed);
                }
                Some(_) => {
                    let error = value.get_mut("error").map(Value::take);
                    return Err(error.unwrap_or(value).to_string());
                }
            }
        }
    }
}
