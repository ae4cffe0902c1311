//! Where URLs lead, as far as they say it themselves.

use crate::error::{Error, Result};
use crate::snapshot::Name;
use crate::store::local::LocalStore;
use crate::store::ozone::OzoneStore;
use crate::store::s3::S3Store;

/// Which store a URL, or a plain path, is of.
pub(crate) enum Place<'a> {
    Directory(&'a str),
    S3,
    Ozone,
    Memory(&'a str),
}

impl<'a> Place<'a> {
    pub(crate) fn of(url: &'a str) -> Result<Self> {
        match url.split_once(':') {
            Some(("s3", _)) => Ok(Self::S3),
            Some(("memory", name)) => Ok(Self::Memory(name)),
            Some(("file", rest)) => match rest.strip_prefix("//").filter(|path| path.starts_with('/')) {
                Some(path) => Ok(Self::Directory(path)),
                None => Err(Error::usage(format!("`{url}` is no file URL")).hint("write file:///absolute/path")),
            },
            Some(_) if OzoneStore::is_url(url) => Ok(Self::Ozone),
            Some((scheme @ ("gs" | "az" | "hdfs"), _)) => {
                Err(Error::usage(format!("this version does not serve {scheme}:// yet"))
                    .hint("it serves local directories, s3:// and o3://"))
            }
            Some((scheme, rest)) if rest.starts_with("//") => {
                Err(Error::usage(format!("`{scheme}` is no kind of store that is known"))
                    .hint("use a path, file:///…, s3://bucket/prefix?endpoint=… or o3://om-host/volume/bucket"))
            }
            _ => Ok(Self::Directory(url)),
        }
    }
}

/// Checks that a snapshot of the bucket that a URL names can have this name. Asks nobody.
///
/// # Errors
/// `Usage` says which names it can have.
pub fn check_name(url: &str, name: &Name) -> Result<()> {
    match Place::of(url)? {
        Place::Ozone => name.check_for_ozone(),
        Place::Directory(_) | Place::S3 | Place::Memory(_) => Ok(()),
    }
}

/// The URL without secrets of the bucket that a URL, or a plain path, names. Asks nobody.
///
/// # Errors
/// `Usage` names what is wrong with it.
pub fn address(url: &str) -> Result<String> {
    match Place::of(url)? {
        Place::S3 => S3Store::address_of(url),
        Place::Ozone => OzoneStore::address_of(url),
        Place::Memory(_) => Ok(url.into()),
        Place::Directory(path) => LocalStore::address_of(path),
    }
}

/// The path, where a URL is one of a directory.
pub(crate) fn directory_path(url: &str) -> Option<&str> {
    match Place::of(url) {
        Ok(Place::Directory(path)) => Some(path),
        _ => None,
    }
}

/// True where one of two addresses is, or holds, the other.
pub(crate) fn lie_in_each_other(a: &str, b: &str) -> bool {
    let parts = |address: &str| match address.split_once('?') {
        // What follows `?` says where the server is; but a directory may have one in its name.
        Some((place, server)) if !address.starts_with("file://") => (format!("{place}/"), server.to_owned()),
        _ => (format!("{}/", address.trim_end_matches('/')), String::new()),
    };
    let ((a, a_server), (b, b_server)) = (parts(a), parts(b));
    (a.starts_with(&b) || b.starts_with(&a)) && a_server == b_server
}
