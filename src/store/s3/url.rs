//! Where a bucket is and how it is spoken to: `s3://bucket/prefix?endpoint=…&region=…`.

use std::fmt;

use super::encode;
use crate::error::{Error, Result};

/// How the server is asked to check what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    /// `x-amz-checksum-crc64nvme`.
    Crc64Nvme,
    /// `Content-MD5`, for servers that know nothing newer.
    Md5,
}

/// An `http` or `https` server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) secure: bool,
    /// Host, and port if one was given.
    pub(super) host: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.secure { "https" } else { "http" }, self.host)
    }
}

/// What a bucket's URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) bucket: String,
    /// Empty, or ends in `/`.
    pub(super) prefix: String,
    /// None: AWS, by region.
    pub(super) endpoint: Option<Endpoint>,
    pub(super) region: Option<String>,
    pub(super) profile: Option<String>,
    pub(super) path_style: bool,
    pub(super) ordered: Option<bool>,
    pub(super) unsigned_payload: Option<bool>,
    pub(super) versions: bool,
    pub(super) anonymous: bool,
    pub(super) conditional: bool,
    pub(super) checksum: Checksum,
}

impl Location {
    /// Reads a URL; an error of kind `Usage` names the part that is wrong.
    pub(super) fn parse(url: &str) -> Result<Self> {
        let rest =
            url.strip_prefix("s3://").ok_or_else(|| Error::usage(format!("`{url}` does not begin with s3://")))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        let word = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if bucket.is_empty() || !bucket.chars().all(word) || bucket.chars().all(|c| c == '.') {
            return Err(Error::usage(format!("`{bucket}` is no bucket name"))
                .hint("write s3://bucket/prefix?endpoint=http://host:port; credentials come from the environment or a profile"));
        }
        let mut location = Self {
            bucket: bucket.to_owned(),
            prefix: joined(prefix)?,
            endpoint: None,
            region: None,
            profile: None,
            path_style: false,
            ordered: None,
            unsigned_payload: None,
            versions: true,
            anonymous: false,
            conditional: true,
            checksum: Checksum::Crc64Nvme,
        };
        let mut path_style = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = text(name, value)?;
            if name == "path-style" {
                path_style = Some(yes_or_no(name, &value)?);
            } else {
                location.set(name, value)?;
            }
        }
        // A bucket name with a dot does not fit the wildcard of AWS's certificates.
        location.path_style =
            path_style.unwrap_or_else(|| location.endpoint.is_some() || location.bucket.contains(['.', '_']));
        Ok(location)
    }

    fn set(&mut self, name: &str, value: String) -> Result<()> {
        match name {
            "endpoint" => self.endpoint = Some(endpoint(&value)?),
            "region" => self.region = Some(region(value)?),
            "profile" if !value.is_empty() => self.profile = Some(value),
            "order" => self.ordered = Some(choice(name, &value, [("any", false), ("bytes", true)])?),
            "unsigned-payload" => self.unsigned_payload = Some(yes_or_no(name, &value)?),
            "versions" => self.versions = choice(name, &value, [("auto", true), ("off", false)])?,
            "anonymous" => self.anonymous = yes_or_no(name, &value)?,
            "conditional" => self.conditional = yes_or_no(name, &value)?,
            "checksum" => {
                self.checksum = choice(name, &value, [("crc64nvme", Checksum::Crc64Nvme), ("md5", Checksum::Md5)])?;
            }
            "profile" => return Err(Error::usage("parameter `profile` is empty")),
            other => {
                return Err(Error::usage(format!("an s3 URL has no parameter `{other}`")).hint(
                    "known are endpoint, region, profile, path-style, order, unsigned-payload, versions, anonymous, \
                     conditional and checksum",
                ));
            }
        }
        Ok(())
    }

    /// Whether it is AWS itself that is spoken to.
    pub(super) fn is_aws(&self) -> bool {
        self.endpoint.as_ref().is_none_or(|endpoint| {
            let host = endpoint.host.split(':').next().unwrap_or("");
            host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
        })
    }

    /// The URL that names the same bucket without anything secret.
    pub(super) fn address(&self) -> String {
        let mut address = format!("s3://{}", self.bucket);
        if !self.prefix.is_empty() {
            address.push('/');
            encode::push_path(&mut address, self.prefix.strip_suffix('/').unwrap_or(&self.prefix).as_bytes());
        }
        if let Some(endpoint) = &self.endpoint {
            address.push_str(&format!("?endpoint={endpoint}"));
        }
        address
    }
}

/// The prefix with exactly one `/` between it and what follows.
fn joined(prefix: &str) -> Result<String> {
    let mut prefix = text("prefix", prefix)?;
    if prefix.split('/').any(|name| matches!(name, "." | "..")) {
        return Err(Error::usage(format!(
            "the prefix `{prefix}` has a component `.` or `..`, which servers take for a way to another place"
        ))
        .hint("write the prefix out in full"));
    }
    if !prefix.is_empty() && !prefix.ends_with('/') {
        prefix.push('/');
    }
    Ok(prefix)
}

fn text(name: &str, value: &str) -> Result<String> {
    encode::decode_percent(value)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Error::usage(format!("`{name}` is not percent-encoded UTF-8")).hint("write `%` as %25"))
}

fn region(value: String) -> Result<String> {
    if value.is_empty() || !value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return Err(Error::usage(format!("parameter `region`: `{value}` is no region name")));
    }
    Ok(value)
}

fn endpoint(value: &str) -> Result<Endpoint> {
    let wrong = |why: &str| {
        Error::usage(format!("parameter `endpoint` {why}")).hint("write endpoint=http://host:port or https://host")
    };
    let (scheme, host) = value.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
    let secure = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err(wrong("is neither http nor https")),
    };
    let host = host.strip_suffix('/').unwrap_or(host);
    if host.contains('@') {
        return Err(wrong("must not hold credentials"));
    }
    if host.contains('/') {
        return Err(wrong("must not have a path"));
    }
    let authority: http::uri::Authority = host.parse().map_err(|_| wrong("has no usable host"))?;
    if authority.host().is_empty()
        || (authority.as_str().len() > authority.host().len() && authority.port_u16().is_none())
    {
        return Err(wrong("has no usable host and port"));
    }
    Ok(Endpoint { secure, host: host.to_owned() })
}

fn yes_or_no(name: &str, value: &str) -> Result<bool> {
    choice(name, value, [("true", true), ("false", false)])
}

fn choice<T>(name: &str, value: &str, choices: [(&str, T); 2]) -> Result<T> {
    let known = format!("{} or {}", choices[0].0, choices[1].0);
    choices
        .into_iter()
        .find_map(|(word, meaning)| (word == value).then_some(meaning))
        .ok_or_else(|| Error::usage(format!("parameter `{name}` is {known}, not `{value}`")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn every_parameter() {
        let location = Location::parse(
            "s3://b/p/q?endpoint=https://h:9000/&region=eu-x-1&profile=dr&path-style=false&order=any\
             &unsigned-payload=true&versions=off&anonymous=true&conditional=false&checksum=md5",
        )
        .unwrap();
        let expected = Location {
            bucket: "b".into(),
            prefix: "p/q/".into(),
            endpoint: Some(Endpoint { secure: true, host: "h:9000".into() }),
            region: Some("eu-x-1".into()),
            profile: Some("dr".into()),
            path_style: false,
            ordered: Some(false),
            unsigned_payload: Some(true),
            versions: false,
            anonymous: true,
            conditional: false,
            checksum: Checksum::Md5,
        };
        assert_eq!(location, expected);
        assert_eq!(location.address(), "s3://b/p/q?endpoint=https://h:9000");
    }

    #[test]
    fn defaults() {
        let aws = Location::parse("s3://b").unwrap();
        assert!(!aws.path_style && aws.prefix.is_empty() && aws.versions && aws.conditional);
        assert!(Location::parse("s3://b.c").unwrap().path_style);
        assert!(Location::parse("s3://b?endpoint=http://h").unwrap().path_style);
        assert_eq!(Location::parse("s3://b/").unwrap().prefix, "");
        assert_eq!(Location::parse("s3://b/p/").unwrap().prefix, "p/");
        assert_eq!(Location::parse("s3://b/a%20b").unwrap().prefix, "a b/");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, name) in [
            ("http://b", "s3://"),
            ("s3:///p", "bucket"),
            ("s3://u:p@b", "bucket"),
            ("s3://b?endpoint=h:1", "endpoint"),
            ("s3://b?endpoint=ftp://h", "endpoint"),
            ("s3://b?endpoint=http://u:secret@h", "endpoint"),
            ("s3://b?endpoint=http://h/base", "endpoint"),
            ("s3://b?endpoint=http://h:x", "endpoint"),
            ("s3://b?endpoint=http://", "endpoint"),
            ("s3://b?path-style=maybe", "path-style"),
            ("s3://b?order=up", "order"),
            ("s3://b?region=", "region"),
            ("s3://b?colour=red", "colour"),
            ("s3://b/%zz", "prefix"),
        ] {
            let error = Location::parse(url).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{url}");
            assert!(error.to_string().contains(name), "{url}: {error}");
            assert!(!error.to_string().contains("secret"));
        }
    }
}
