//! The configuration file: named stores.
//!
//! ```toml
//! [store.dr]
//! url = "s3://dr-photos/site-a?endpoint=https://s3.dr.example&profile=dr"
//! ```
//!
//! `dr:2026` then stands for the prefix `2026` in that store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Stores by name.
    #[serde(default)]
    pub store: BTreeMap<String, StoreConfig>,
}

/// A named store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// Its URL.
    pub url: String,
}

impl Config {
    /// Reads `file`, or else the usual one if there is one.
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
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self =
            toml::from_str(text).map_err(|error| Error::usage("the configuration is wrong").caused_by(error))?;
        if let Some(name) = config.store.keys().find(|name| !is_name(name)) {
            return Err(Error::usage(format!("`{name}` cannot name a store"))
                .hint("use two or more letters, digits, `-` or `_`, and no name of a scheme such as s3"));
        }
        Ok(config)
    }

    /// What an argument that names a bucket stands for.
    pub fn resolve(&self, bucket: &str) -> Result<String> {
        let Some((name, prefix)) = bucket.split_once(':') else { return Ok(bucket.into()) };
        let Some(store) = self.store.get(name) else {
            if is_name(name) && !prefix.starts_with("//") && !Path::new(bucket).exists() {
                return Err(Error::usage(format!("there is no store `{name}` in the configuration"))
                    .hint("add [store.NAME] with its url, or write ./ before the path of a directory with a colon"));
            }
            return Ok(bucket.into());
        };
        let (place, query) = match store.url.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (store.url.as_str(), None),
        };
        let mut url = place.to_owned();
        if !prefix.is_empty() {
            url = format!("{}/{}", place.trim_end_matches('/'), prefix.trim_start_matches('/'));
        }
        if let Some(query) = query {
            url = format!("{url}?{query}");
        }
        Ok(url)
    }
}

/// A name that no scheme and no path begins with.
fn is_name(name: &str) -> bool {
    let schemes = ["s3", "gs", "az", "o3", "ofs", "o3fs", "hdfs", "file", "memory"];
    name.len() > 1
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        && !schemes.contains(&name)
}

fn usual_file() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let config = config.or_else(|| std::env::home_dir().map(|home| home.join(".config")))?;
    Some(config.join("snapferry/config.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_urls() {
        let config =
            Config::parse("[store.dr]\nurl = \"s3://b/root/?endpoint=http://h:1\"\n[store.disk]\nurl = \"/mnt/x\"")
                .unwrap();
        assert_eq!(config.resolve("dr:").unwrap(), "s3://b/root/?endpoint=http://h:1");
        assert_eq!(config.resolve("dr:a/b").unwrap(), "s3://b/root/a/b?endpoint=http://h:1");
        assert_eq!(config.resolve("disk:a").unwrap(), "/mnt/x/a");
        assert_eq!(config.resolve("/plain/path").unwrap(), "/plain/path");
        assert_eq!(config.resolve("s3://b/p").unwrap(), "s3://b/p");
        assert!(config.resolve("nowhere:a").is_err());
    }

    #[test]
    fn mistakes_are_named() {
        for bad in ["[store.s3]\nurl = \"x\"", "[store.a]\nurl = \"x\"", "[store.dr]\nuri = \"x\"", "[stores]", "x"] {
            assert_eq!(Config::parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
