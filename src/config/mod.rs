//! The configuration file: named stores, policies, and how they are run by themselves.
//!
//! ```toml
//! [store.dr]
//! url = "s3://dr-photos/site-a?endpoint=https://s3.dr.example&profile=dr"
//!
//! [policy.photos]
//! source = "/srv/photos"
//! target = "dr:photos"
//! schedule = "0 2 * * *"
//! time_zone = "Europe/Berlin"
//! retention = { daily = 7, weekly = 4 }
//! ```
//!
//! `dr:photos` stands for the prefix `photos` in the store `dr`. All mistakes of a file are named at once, each with its
//! line, and a file with a mistake is used for nothing.

mod hook;
mod policy;
mod reader;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use self::reader::{Mistakes, Table};
use crate::error::{Error, Kind, Result};
use crate::place::{address, lie_in_each_other};
use crate::policy::{Family, Policy};

/// Policies that run at once where nothing is said.
const AT_ONCE: usize = 2;

/// The port of the metrics where nothing is said.
const PORT: u16 = 9183;

/// What the file says.
#[derive(Debug, Clone)]
pub struct Config {
    /// URLs of stores by name.
    pub stores: BTreeMap<String, String>,
    /// Policies, in the order of their names.
    pub policies: Vec<Policy>,
    /// What stands for many of them.
    pub families: Vec<Family>,
    /// How many policies run at once.
    pub at_once: usize,
    /// Where `serve` answers who asks for metrics.
    pub listen: SocketAddr,
    /// The directory in which `run` leaves metrics, a file for each policy.
    pub textfiles: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stores: BTreeMap::new(),
            policies: Vec::new(),
            families: Vec::new(),
            at_once: AT_ONCE,
            listen: (Ipv4Addr::LOCALHOST, PORT).into(),
            textfiles: None,
        }
    }
}

impl Config {
    /// Reads `file`, or else the usual one if there is one.
    ///
    /// # Errors
    /// `Usage` with all mistakes, each with its line.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let usual = usual_file();
        let Some(path) = file.or(usual.as_deref()) else { return Ok(Self::default()) };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                return Err(Error::usage("the configuration cannot be read")
                    .at(path.display().to_string())
                    .caused_by(error));
            }
        };
        Self::parse(&text).map_err(|error| error.at(path.display().to_string()))
    }

    /// Reads the text of a configuration.
    ///
    /// # Errors
    /// `Usage` with all mistakes, each with its line.
    pub fn parse(text: &str) -> Result<Self> {
        let mistakes = Mistakes::new(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            mistakes.add(error.span().map_or(0, |span| span.start), error.message());
        }
        // What is left of a file that is no TOML would only be misunderstood.
        let config = if errors.is_empty() { Self::read(Table::of(&document, &mistakes)) } else { Self::default() };
        let lines = mistakes.lines();
        match lines.as_slice() {
            [] => Ok(config),
            [one] => Err(Error::usage(format!("the configuration has a mistake: {one}"))),
            lines => {
                Err(Error::usage(format!("the configuration has {} mistakes:\n  {}", lines.len(), lines.join("\n  "))))
            }
        }
    }

    fn read(mut document: Table<'_, '_>) -> Self {
        let mut config = Self::default();
        if let Some(stores) = document.table("store") {
            for (name, mut store) in stores.tables() {
                if !is_store_name(&name) {
                    store.wrong(
                        "cannot name a store: use two or more letters, digits, `-` or `_`, and no name of a scheme \
                         such as s3",
                    );
                }
                let url = store.text("url", |url| {
                    // One that policies complete need not be a bucket by itself.
                    let known = address(url).or_else(|error| address(&inside(url, "bucket")).map_err(|_| error));
                    known.map(|_| url.to_owned())
                });
                match url {
                    Some(url) => {
                        config.stores.insert(name, url);
                    }
                    None if !store.had("url") => store.wrong("`url` is missing"),
                    None => {}
                }
                store.finish();
            }
        }
        if let Some(mut serve) = document.table("serve") {
            config.at_once = serve.number("at_once", 1..1000).map_or(AT_ONCE, |number| number as usize);
            config.listen = serve
                .text("listen", |text| {
                    text.parse::<SocketAddr>().map_err(|_| format!("`{text}` is no address: write 127.0.0.1:{PORT}"))
                })
                .unwrap_or(config.listen);
            serve.finish();
        }
        if let Some(mut metrics) = document.table("metrics") {
            config.textfiles = metrics.text("textfile_directory", |text| match Path::new(text).is_absolute() {
                true => Ok(PathBuf::from(text)),
                false => Err(format!("`{text}` is no absolute path")),
            });
            metrics.finish();
        }
        let mut base = policy::usual();
        base.hooks = hook::hooks(&mut document);
        if let Some(mut defaults) = document.table("defaults") {
            base = policy::settings(&mut defaults, &base, &config);
            defaults.finish();
        }
        for (name, table) in document.table("policy").map(Table::tables).unwrap_or_default() {
            let at = table.at;
            let read = policy::policies(&name, table, &base, &config);
            for policy in read.policies {
                for mistake in config.clashes(&policy) {
                    document.wrong_at(at, &format!("policy.{name}"), mistake);
                }
                config.policies.push(policy);
            }
            config.families.extend(read.family);
        }
        config.policies.sort_by(|a, b| a.name.cmp(&b.name));
        document.finish();
        config
    }

    /// Adds a policy that was found.
    ///
    /// # Errors
    /// `Usage` where it and another would write to one place.
    pub fn admit(&mut self, policy: Policy) -> Result<()> {
        if let Some(clash) = self.clashes(&policy).into_iter().next() {
            return Err(Error::usage(format!("policy {} does not run: {clash}", policy.name)));
        }
        let place = self.policies.partition_point(|other| other.name < policy.name);
        self.policies.insert(place, policy);
        Ok(())
    }

    /// What is wrong with one policy more: those that write to one place would undo each other's work.
    fn clashes(&self, policy: &Policy) -> Vec<String> {
        let mut wrong = Vec::new();
        if lie_in_each_other(&policy.source_address(), &policy.target_address()) {
            wrong.push("source and target lie in each other; choose a target outside the source".into());
        }
        for other in &self.policies {
            if other.name == policy.name {
                wrong.push(format!("there are two policies {}", policy.name));
            } else if lie_in_each_other(&other.target_address(), &policy.target_address()) {
                wrong.push(format!(
                    "its target {} is, or overlaps, that of policy {}; give each a target of its own",
                    policy.target_address(),
                    other.name
                ));
            }
        }
        wrong
    }

    /// What an argument that names a bucket stands for.
    pub fn resolve(&self, bucket: &str) -> Result<String> {
        let Some((name, prefix)) = bucket.split_once(':') else { return Ok(bucket.into()) };
        let Some(url) = self.stores.get(name) else {
            if is_store_name(name) && !prefix.starts_with("//") && !Path::new(bucket).exists() {
                return Err(Error::usage(format!("there is no store `{name}` in the configuration"))
                    .hint("add [store.NAME] with its url, or write ./ before the path of a directory with a colon"));
            }
            return Ok(bucket.into());
        };
        Ok(inside(url, prefix))
    }

    /// The policy of this name.
    pub fn policy(&self, name: &str) -> Result<&Policy> {
        self.policies.iter().find(|policy| policy.name == name).ok_or_else(|| {
            Error::new(Kind::Usage, format!("there is no policy `{name}` in the configuration"))
                .hint("`snapferry policy list` shows which there are")
        })
    }

    /// The policy of this name, or those of all buckets of what has this name.
    ///
    /// # Errors
    /// `Usage` where there are none.
    pub fn chosen(&self, name: &str) -> Result<Vec<&Policy>> {
        let Some(family) = self.families.iter().find(|family| family.name == name) else {
            return Ok(vec![self.policy(name)?]);
        };
        let members: Vec<&Policy> = self.policies.iter().filter(|policy| family.is_meant_by(&policy.name)).collect();
        if members.is_empty() {
            return Err(Error::usage(format!("no bucket was found for policy `{}`", family.name))
                .hint("compare `buckets` and `except` with the names of the buckets that there are"));
        }
        Ok(members)
    }
}

/// The URL of what is under this prefix there.
fn inside(url: &str, prefix: &str) -> String {
    let (place, query) = match url.split_once('?') {
        Some((place, query)) => (place, format!("?{query}")),
        None => (url, String::new()),
    };
    match prefix {
        "" => url.into(),
        _ => format!("{}/{}{query}", place.trim_end_matches('/'), prefix.trim_start_matches('/')),
    }
}

/// A name that no scheme and no path begins with.
fn is_store_name(name: &str) -> bool {
    let schemes = ["s3", "gs", "az", "o3", "ofs", "o3fs", "hdfs", "file", "memory"];
    name.len() > 1 && is_policy_name(name) && !schemes.contains(&name)
}

fn is_policy_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 63 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn usual_file() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let config = config.or_else(|| std::env::home_dir().map(|home| home.join(".config")))?;
    Some(config.join("snapferry/config.toml"))
}

#[cfg(test)]
mod tests;
