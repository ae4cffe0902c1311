//! Where a bucket of Ozone is: the URL forms, and from them the managers and the gateway to speak to.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::om::ManagerAddress;
use super::site::Site;
use crate::error::{Error, Result};

/// The gRPC port of an Ozone Manager (`ozone.om.grpc.port`).
const GRPC_PORT: u16 = 8981;

/// The port of an S3 Gateway (`ozone.s3g.http-address`).
const GATEWAY_PORT: u16 = 9878;

const FORMS: &str = "write o3://om-host/volume/bucket?grpc=8981&s3=http://gateway:9878, ofs://om-host/volume/bucket or \
                     o3fs://bucket.volume.om-host/; for om-host a service id of ozone-site.xml will do where \
                     OZONE_CONF_DIR is set";

/// How content is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum DataPath {
    /// From the datanodes where they can be reached, else through the gateway.
    #[default]
    Auto,
    /// From the datanodes alone.
    Direct,
    /// Through the gateway alone.
    Gateway,
}

/// What a bucket's URL says.
///
/// `o3://om-host[:rpc-port]/volume/bucket`, `ofs://om-host[:rpc-port]/volume/bucket` or
/// `o3fs://bucket.volume.om-host[:rpc-port]/`, each with these parameters:
///
/// | parameter | meaning |
/// | --- | --- |
/// | `grpc=PORT` | of the Ozone Managers; else that of `ozone-site.xml`, else 8981 |
/// | `s3=http://host:port` | the S3 Gateway; else that of `ozone-site.xml`, else port 9878 on the manager's host |
/// | `s3-bucket=NAME` | the bucket under which the gateway has it, where it is not in the volume `s3v` |
/// | `data=auto\|direct\|s3` | how content is read |
/// | `profile=NAME` | of the AWS configuration files, for the S3 access key of a secure cluster |
/// | `tls=true\|false` | whether the managers speak TLS; else as `ozone-site.xml` says, else not |
/// | `ca=FILE` | certificates that are trusted, in PEM; else those of the system |
///
/// The port after the host is that of the managers' RPC service, as everywhere in Ozone, and is not needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// The manager's host (an IPv6 address in brackets), or a service id.
    pub(crate) cluster: String,
    /// The volume.
    pub(crate) volume: String,
    /// The bucket in it.
    pub(crate) bucket: String,
    /// The port of the managers' gRPC service, if given.
    pub(crate) grpc: Option<u16>,
    /// The S3 Gateway as `http://host:port`, if given.
    pub(crate) gateway: Option<String>,
    /// The bucket's name at the gateway, if given.
    pub(crate) s3_bucket: Option<String>,
    /// How content is read.
    pub(crate) data: DataPath,
    /// Whose access key, if given.
    pub(crate) profile: Option<String>,
    /// Whether the managers speak TLS, if given.
    pub(crate) tls: Option<bool>,
    /// Who is trusted, if given.
    pub(crate) ca: Option<PathBuf>,
}

/// Whom to speak to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// The Ozone Managers, one of which leads.
    pub(crate) managers: Vec<ManagerAddress>,
    /// The S3 Gateway as `http://host:port`.
    pub(crate) gateway: String,
    /// The managers speak TLS.
    pub(crate) tls: bool,
    /// The cluster asks who we are.
    pub(crate) secure: bool,
}

impl Location {
    /// True for a URL that begins as one of the three forms does.
    pub(crate) fn is_ozone(url: &str) -> bool {
        matches!(url.split_once(':'), Some(("o3" | "ofs" | "o3fs", _)))
    }

    /// Reads a URL. An error of kind `Usage` names what is wrong and teaches the right form.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("the URL has no scheme"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = path.split_once('/').unwrap_or((path, ""));
        if authority.contains('@') {
            return Err(secret());
        }
        let (cluster, volume, bucket, prefix) = match scheme {
            "o3" | "ofs" => {
                let (volume, rest) = path.split_once('/').unwrap_or((path, ""));
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                (host(authority)?, volume, bucket, prefix)
            }
            "o3fs" => {
                let mut parts = authority.splitn(3, '.');
                match (parts.next(), parts.next(), parts.next()) {
                    (Some(bucket), Some(volume), Some(authority)) => (host(authority)?, volume, bucket, path),
                    _ => return Err(wrong(&format!("`{authority}` is not bucket.volume.om-host"))),
                }
            }
            other => return Err(wrong(&format!("`{other}://` is not how a bucket of Ozone begins"))),
        };
        let mut location = Self {
            cluster,
            volume: name("volume", volume)?,
            bucket: name("bucket", bucket)?,
            grpc: None,
            gateway: None,
            s3_bucket: None,
            data: DataPath::default(),
            profile: None,
            tls: None,
            ca: None,
        };
        if !prefix.trim_matches('/').is_empty() {
            return Err(Error::usage(format!(
                "`{prefix}` is a prefix in the bucket, and snapshots are of whole buckets"
            ))
            .hint(format!("write {}", location.address())));
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| Error::usage(format!("parameter `{name}` is not percent-encoded UTF-8")))?;
            location.set(name, &value)?;
        }
        Ok(location)
    }

    fn set(&mut self, parameter: &str, value: &str) -> Result<()> {
        let not = |what: &str| Error::usage(format!("parameter `{parameter}` is {what}, not `{value}`"));
        match parameter {
            "access-key" | "secret-key" | "secret" | "token" | "password" | "access-key-id" | "secret-access-key" => {
                return Err(secret());
            }
            "grpc" => {
                let port = value.parse().ok().filter(|port| *port != 0);
                self.grpc = Some(port.ok_or_else(|| not("a port, such as 8981"))?);
            }
            "s3" => self.gateway = Some(gateway(value)?),
            "s3-bucket" => self.s3_bucket = Some(name("s3-bucket", value)?),
            "data" => {
                self.data = match value {
                    "auto" => DataPath::Auto,
                    "direct" => DataPath::Direct,
                    "s3" => DataPath::Gateway,
                    _ => return Err(not("auto, direct or s3")),
                }
            }
            "tls" => self.tls = Some(value.parse().map_err(|_| not("true or false"))?),
            "profile" | "ca" if value.is_empty() => {
                return Err(Error::usage(format!("parameter `{parameter}` is empty")));
            }
            "profile" => self.profile = Some(value.to_owned()),
            "ca" => self.ca = Some(value.into()),
            other => {
                return Err(Error::usage(format!("an Ozone URL has no parameter `{other}`"))
                    .hint("known are grpc, s3, s3-bucket, data, profile, tls and ca"));
            }
        }
        Ok(())
    }

    /// The URL that names the bucket in receipts and errors: the same for all forms that mean it. Two clusters on one
    /// host differ in their gRPC port, so one that is not the usual stays.
    pub(crate) fn address(&self) -> String {
        let Self { cluster, volume, bucket, .. } = self;
        match self.grpc.filter(|port| *port != GRPC_PORT) {
            None => format!("o3://{cluster}/{volume}/{bucket}"),
            Some(port) => format!("o3://{cluster}/{volume}/{bucket}?grpc={port}"),
        }
    }

    /// Whom to speak to, by the URL and, where that is silent, the cluster's configuration.
    ///
    /// # Errors
    /// `Usage` where the configuration contradicts itself or switches off what is needed.
    pub(crate) fn endpoints(&self, site: &Site) -> Result<Endpoints> {
        let mut managers = site.managers(&self.cluster, self.grpc)?;
        if managers.is_empty() {
            let port = self.grpc.or(site.port("ozone.om.grpc.port")?).unwrap_or(GRPC_PORT);
            managers.push(ManagerAddress { node: None, authority: format!("{}:{port}", self.cluster) });
        }
        let secure = site.is("ozone.security.enabled");
        let tls = self.tls.unwrap_or(secure && site.is("hdds.grpc.tls.enabled"));
        let gateway = match (&self.gateway, site.gateway()?) {
            (Some(gateway), _) => gateway.clone(),
            (None, Some(gateway)) => gateway,
            // The configuration of a server tells to which addresses it listens, not how it is called.
            (None, None) => {
                let host = managers[0].authority.rsplit_once(':').map_or(self.cluster.as_str(), |(host, _)| host);
                format!("http://{host}:{GATEWAY_PORT}")
            }
        };
        Ok(Endpoints { managers, gateway, tls, secure })
    }
}

fn wrong(what: &str) -> Error {
    Error::usage(what).hint(FORMS)
}

fn secret() -> Error {
    Error::usage("an Ozone URL holds no secrets")
        .hint("access keys come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or from profile=")
}

/// The host without its RPC port.
fn host(authority: &str) -> Result<String> {
    let not = |what: &str| wrong(&format!("`{authority}` {what}"));
    let (host, port) = if authority.starts_with('[') {
        let (address, rest) = authority.split_once(']').ok_or_else(|| not("has no closing bracket"))?;
        let ok = address[1..].parse::<std::net::Ipv6Addr>().is_ok();
        if !ok || !(rest.is_empty() || rest.starts_with(':')) {
            return Err(not("is no IPv6 address"));
        }
        (&authority[..=address.len()], rest.strip_prefix(':'))
    } else {
        let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        let word = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if host.is_empty() {
            return Err(wrong("the URL names no Ozone Manager"));
        }
        if !host.chars().all(word) {
            return Err(not("is no host"));
        }
        (host, port)
    };
    match port {
        Some(port) if port.parse::<u16>().is_err() => Err(not("has no usable port")),
        _ => Ok(host.to_owned()),
    }
}

/// A volume's or bucket's name: 3 to 63 letters, digits, `.`, `-` and `_`.
fn name(what: &str, text: &str) -> Result<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if text.is_empty() {
        return Err(wrong(&format!("the URL names no {what}")));
    }
    if !(3..=63).contains(&text.len()) || !text.chars().all(word) || text.chars().all(|c| c == '.') {
        return Err(wrong(&format!(
            "`{text}` is no name of a {what}: that has 3 to 63 letters, digits, `.`, `-` or `_`"
        )));
    }
    Ok(text.to_owned())
}

/// `http://host:port` without what may follow.
fn gateway(value: &str) -> Result<String> {
    let not = |why: &str| {
        Error::usage(format!("parameter `s3` {why}")).hint("write s3=http://gateway:9878, or https:// where it has TLS")
    };
    let (scheme, rest) = value.split_once("://").ok_or_else(|| not("has no scheme"))?;
    if !matches!(scheme, "http" | "https") {
        return Err(not("is neither http nor https"));
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('@') {
        return Err(not("must not hold credentials"));
    }
    let parsed: http::uri::Authority = authority.parse().map_err(|_| not("has no usable host"))?;
    let has_port = parsed.as_str().len() > parsed.host().len();
    if parsed.host().is_empty() || (has_port && parsed.port_u16().is_none()) {
        return Err(not("has no usable host and port"));
    }
    Ok(format!("{scheme}://{authority}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    fn parse(url: &str) -> Location {
        Location::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn all_forms_name_the_same_bucket() {
        for url in [
            "o3://om.example/vol1/photos",
            "o3://om.example:9862/vol1/photos/",
            "o3://om.example/vol1/photos?grpc=8981&s3=http://gw:9878&data=direct",
            "ofs://om.example/vol1/photos",
            "ofs://om.example:9862/vol1/photos/",
            "o3fs://photos.vol1.om.example/",
            "o3fs://photos.vol1.om.example:9862",
        ] {
            assert!(Location::is_ozone(url));
            assert_eq!(parse(url).address(), "o3://om.example/vol1/photos", "{url}");
        }
        assert_eq!(parse("ofs://[::1]:9862/vol1/photos").address(), "o3://[::1]/vol1/photos");
        let other = parse("o3fs://photos.vol1.127.0.0.1:15862/?grpc=14981").address();
        assert_eq!(other, "o3://127.0.0.1/vol1/photos?grpc=14981");
        assert_eq!(parse(&other).address(), other);
    }

    #[test]
    fn every_parameter() {
        let location = parse(
            "o3://om/vol1/photos?grpc=1&s3=https://gw/&s3-bucket=dr-photos&data=s3&profile=dr&tls=true&ca=/etc/ca%20x.pem",
        );
        let expected = Location {
            cluster: "om".into(),
            volume: "vol1".into(),
            bucket: "photos".into(),
            grpc: Some(1),
            gateway: Some("https://gw".into()),
            s3_bucket: Some("dr-photos".into()),
            data: DataPath::Gateway,
            profile: Some("dr".into()),
            tls: Some(true),
            ca: Some("/etc/ca x.pem".into()),
        };
        assert_eq!(location, expected);
    }

    #[test]
    fn what_is_wrong_is_named_and_taught() {
        for (url, name) in [
            ("/vol1/photos", "scheme"),
            ("hdfs://om/vol1/photos", "hdfs://"),
            ("o3:///vol1/photos", "no Ozone Manager"),
            ("o3://om/vol1", "no bucket"),
            ("o3://om", "no volume"),
            ("o3://om/v/photos", "volume"),
            ("o3://om/vol1/pho:tos", "bucket"),
            ("o3://om/vol1/photos/2026", "prefix"),
            ("o3://om/../photos", "volume"),
            ("o3://om:port/vol1/photos", "port"),
            ("o3://[::1/vol1/photos", "bracket"),
            ("o3fs://photos.vol1/", "bucket.volume.om-host"),
            ("o3://user:pass@om/vol1/photos", "secrets"),
            ("o3://om/vol1/photos?access-key=AKID", "secrets"),
            ("o3://om/vol1/photos?grpc=0", "grpc"),
            ("o3://om/vol1/photos?grpc=http", "grpc"),
            ("o3://om/vol1/photos?s3=gw:9878", "s3"),
            ("o3://om/vol1/photos?s3=http://u:hidden@gw", "s3"),
            ("o3://om/vol1/photos?data=fast", "data"),
            ("o3://om/vol1/photos?colour=red", "colour"),
            ("o3://om/vol1/photos?ca=", "ca"),
        ] {
            let error = Location::parse(url).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{url}");
            assert!(error.to_string().contains(name), "{url}: {error}");
            let whole = format!("{error} {:?}", error.way_out());
            assert!(!["pass", "AKID", "hidden"].iter().any(|secret| whole.contains(secret)), "{whole}");
        }
        let error = Location::parse("o3://om/vol1/photos/2026").unwrap_err();
        assert_eq!(error.way_out(), Some("write o3://om/vol1/photos"));
    }

    #[test]
    fn endpoints_without_a_configuration() {
        let found = parse("o3://om/vol1/photos").endpoints(&Site::default()).unwrap();
        let manager = ManagerAddress { node: None, authority: "om:8981".into() };
        let expected =
            Endpoints { managers: vec![manager], gateway: "http://om:9878".into(), tls: false, secure: false };
        assert_eq!(found, expected);
        let found = parse("o3://[::1]/vol1/photos?grpc=5").endpoints(&Site::default()).unwrap();
        assert_eq!((found.managers[0].authority.as_str(), found.gateway.as_str()), ("[::1]:5", "http://[::1]:9878"));
    }

    proptest! {
        #[test]
        fn nothing_panics(url in "(o3|ofs|o3fs)://\\PC{0,40}") {
            if let Ok(location) = Location::parse(&url) {
                prop_assert_eq!(Location::parse(&location.address()).unwrap().address(), location.address());
            }
        }

        #[test]
        fn addresses_read_back(
            cluster in "[a-z][a-z0-9-]{0,8}(\\.[a-z]{1,5}){0,2}",
            volume in "[a-z0-9][a-z0-9-]{2,20}",
            bucket in "[a-z0-9][a-z0-9-]{2,20}",
            rpc in proptest::option::of(1u16..),
            grpc in proptest::option::of(1u16..),
        ) {
            let rpc = rpc.map(|port| format!(":{port}")).unwrap_or_default();
            let query = grpc.map(|port| format!("?grpc={port}")).unwrap_or_default();
            let forms = [
                format!("o3://{cluster}{rpc}/{volume}/{bucket}{query}"),
                format!("ofs://{cluster}{rpc}/{volume}/{bucket}/{query}"),
                format!("o3fs://{bucket}.{volume}.{cluster}{rpc}/{query}"),
            ];
            for form in forms {
                let location = parse(&form);
                prop_assert_eq!((&location.cluster, &location.volume, &location.bucket), (&cluster, &volume, &bucket));
                prop_assert_eq!(parse(&location.address()).address(), location.address());
            }
        }
    }
}
