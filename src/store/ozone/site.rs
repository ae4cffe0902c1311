//! `ozone-site.xml`: what a cluster's configuration tells its clients.

use std::collections::HashMap;
use std::path::Path;

use super::om::ManagerAddress;
use crate::error::{Error, Result};
use crate::store::s3::xml;

/// Where the configuration is, as Ozone's own tools have it.
const DIRECTORY: &str = "OZONE_CONF_DIR";

/// The file in it.
const FILE: &str = "ozone-site.xml";

/// The usual ports.
const GRPC_PORT: u16 = 8981;
const GATEWAY_PORT: u16 = 9878;
const GATEWAY_TLS_PORT: u16 = 9879;

/// Properties by name. Empty where there is no configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Site(HashMap<String, String>);

impl Site {
    /// From the directory that `OZONE_CONF_DIR` names, if it is set.
    ///
    /// # Errors
    /// `Usage` where there is no such file, or it makes no sense.
    pub(crate) fn from_environment() -> Result<Self> {
        match std::env::var_os(DIRECTORY) {
            Some(directory) if !directory.is_empty() => Self::read(Path::new(&directory)),
            _ => Ok(Self::default()),
        }
    }

    /// From a directory.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let in_file =
            |what: &str| Error::usage(format!("{what} `{}`", path.display())).hint(format!("correct {DIRECTORY}"));
        let text = std::fs::read_to_string(&path).map_err(|error| in_file("cannot read").caused_by(error))?;
        Self::parse(&text).map_err(|error| in_file("cannot make sense of").caused_by(error))
    }

    /// From the text of the file. The last one of two properties of one name counts.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut properties = HashMap::new();
        let (mut name, mut value) = (String::new(), String::new());
        xml::walk(text.as_bytes(), |path, text| {
            match path {
                "property/name" => name = text.trim().to_owned(),
                "property/value" => value = text.trim().to_owned(),
                "property" => {
                    properties.insert(std::mem::take(&mut name), std::mem::take(&mut value));
                }
                _ => {}
            }
            Ok(())
        })
        .map_err(|xml::Malformed(why)| Error::usage(format!("it is no XML of properties: {why}")))?;
        Ok(Self(properties))
    }

    /// A property's value, if it has one.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// True where a property says `true`.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// A property that is a port.
    pub(crate) fn port(&self, name: &str) -> Result<Option<u16>> {
        let read =
            |value: &str| value.parse().map_err(|_| Error::usage(format!("{name} in {FILE} is a port, not `{value}`")));
        self.get(name).map(read).transpose()
    }

    /// The managers of a service, each with its node id; `grpc` counts before what the file says of their port. Empty
    /// where the file knows no service of this name.
    pub(crate) fn managers(&self, service: &str, grpc: Option<u16>) -> Result<Vec<ManagerAddress>> {
        if !self.list("ozone.om.service.ids").any(|known| known == service) {
            return Ok(Vec::new());
        }
        if grpc.is_none() && self.get("ozone.om.s3.grpc.server_enabled").is_some_and(|on| on == "false") {
            return Err(Error::usage(format!("the Ozone Managers of `{service}` have no gRPC service"))
                .hint("set ozone.om.s3.grpc.server_enabled=true in their ozone-site.xml, and in ours"));
        }
        let manager = |node: &str| {
            let name = format!("ozone.om.address.{service}.{node}");
            let address = self.get(&name).ok_or_else(|| Error::usage(format!("{FILE} has no {name}")))?;
            let port = match grpc {
                Some(port) => port,
                None => {
                    let own = self.port(&format!("ozone.om.grpc.port.{service}.{node}"))?;
                    own.or(self.port("ozone.om.grpc.port")?).unwrap_or(GRPC_PORT)
                }
            };
            Ok(ManagerAddress { node: Some(node.to_owned()), authority: format!("{}:{port}", host_of(address)) })
        };
        let name = format!("ozone.om.nodes.{service}");
        let managers = self.list(&name).map(manager).collect::<Result<Vec<_>>>()?;
        if managers.is_empty() {
            return Err(
                Error::usage(format!("{FILE} has no {name}")).hint("it lists the node ids of the Ozone Managers")
            );
        }
        Ok(managers)
    }

    /// The S3 Gateway, where the file names a host for it and not only what it listens on.
    pub(crate) fn gateway(&self) -> Result<Option<String>> {
        let tls = self.get("ozone.http.policy").is_some_and(|policy| policy.eq_ignore_ascii_case("HTTPS_ONLY"));
        let (name, scheme, usual) = match tls {
            true => ("ozone.s3g.https-address", "https", GATEWAY_TLS_PORT),
            false => ("ozone.s3g.http-address", "http", GATEWAY_PORT),
        };
        let Some(address) = self.get(name) else { return Ok(None) };
        let host = host_of(address);
        if host.is_empty() || matches!(host, "0.0.0.0" | "[::]") {
            return Ok(None);
        }
        let port = match address[host.len()..].strip_prefix(':') {
            None => usual,
            Some(port) => port
                .parse()
                .map_err(|_| Error::usage(format!("{name} in {FILE} is `{address}`, and `{port}` is no port")))?,
        };
        Ok(Some(format!("{scheme}://{host}:{port}")))
    }

    fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        self.get(name).unwrap_or("").split(',').map(str::trim).filter(|item| !item.is_empty())
    }
}

/// The host of `host:port`, brackets of an IPv6 address included.
fn host_of(address: &str) -> &str {
    match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::store::ozone::address::Location;

    const HA: &str = "<?xml version=\"1.0\"?><!-- site -->
        <configuration>
          <property><name>ozone.om.service.ids</name><value>east, west</value></property>
          <property><name>ozone.om.nodes.east</name><value>om1,om2</value></property>
          <property><name> ozone.om.address.east.om1 </name><value>om-1.example:9862</value></property>
          <property><name>ozone.om.address.east.om2</name><value>om-2.example</value><final>true</final></property>
          <property><name>ozone.om.grpc.port.east.om2</name><value>18981</value></property>
          <property><name>ozone.s3g.http-address</name><value>s3.east.example:80</value></property>
          <property><name>ozone.security.enabled</name><value>true</value></property>
          <property><name>hdds.grpc.tls.enabled</name><value>TRUE</value></property>
          <property><name>note</name><value>a &amp; b&#33;</value><description>x</description></property>
        </configuration>";

    #[test]
    fn a_service_and_its_managers() {
        let site = Site::parse(HA).unwrap();
        assert_eq!(site.get("note"), Some("a & b!"));
        let found = Location::parse("o3://east/vol1/photos").unwrap().endpoints(&site).unwrap();
        let managers: Vec<_> =
            found.managers.iter().map(|manager| (manager.node.as_deref(), manager.authority.as_str())).collect();
        assert_eq!(managers, [(Some("om1"), "om-1.example:8981"), (Some("om2"), "om-2.example:18981")]);
        assert_eq!((found.gateway.as_str(), found.tls, found.secure), ("http://s3.east.example:80", true, true));

        let found =
            Location::parse("o3://east/vol1/photos?grpc=7&s3=http://gw&tls=false").unwrap().endpoints(&site).unwrap();
        assert!(found.managers.iter().all(|manager| manager.authority.ends_with(":7")));
        assert_eq!((found.gateway.as_str(), found.tls), ("http://gw", false));

        // A plain host is one, whatever the file says of services.
        let found = Location::parse("o3://om-1.example/vol1/photos").unwrap().endpoints(&site).unwrap();
        assert_eq!(found.managers, [ManagerAddress { node: None, authority: "om-1.example:8981".into() }]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Site::parse(HA).unwrap().managers("west", None).unwrap_err();
        assert!(error.to_string().contains("ozone.om.nodes.west"), "{error}");
        let error = Site::parse("<configuration><property>").unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(Site::parse("<configuration></property>").is_err());
        let empty = tempfile::tempdir().unwrap();
        let error = Site::read(empty.path()).unwrap_err();
        assert!(error.to_string().contains(FILE) && error.way_out().is_some(), "{error}");
    }

    #[test]
    fn what_a_server_listens_on_is_no_address() {
        let site = |name: &str, value: &str| Site(HashMap::from([(name.to_owned(), value.to_owned())]));
        assert_eq!(site("ozone.s3g.http-address", "0.0.0.0:9878").gateway().unwrap(), None);
        assert_eq!(site("ozone.s3g.http-address", "gw").gateway().unwrap().as_deref(), Some("http://gw:9878"));
        assert_eq!(site("ozone.s3g.http-address", "[::1]:1").gateway().unwrap().as_deref(), Some("http://[::1]:1"));
        assert!(site("ozone.s3g.http-address", "gw:x").gateway().is_err());
    }
}
