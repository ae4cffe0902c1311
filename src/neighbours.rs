//! The buckets beside a bucket: in the same directory, on the same S3 server, in the same volume of Ozone.

use std::path::{Path, PathBuf};

use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};
use crate::place::Place;
use crate::retry::retry;
use crate::store::ozone::OzoneStore;
use crate::store::s3::S3Store;

/// Where the varying part of a name is in a URL.
pub const MARK: &str = "{bucket}";

/// What takes the mark's place where a whole URL is needed.
const STAND_IN: &str = "any-of-the-buckets";

/// All buckets whose names differ in one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbours {
    home: Home,
    /// The fixed parts of their names.
    before: String,
    after: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Home {
    Directory(PathBuf),
    /// The URL of one of them, be it there or not.
    S3(String),
    Ozone(String),
}

impl Neighbours {
    /// Those that a URL with [`MARK`] in it stands for. Asks nobody.
    ///
    /// # Errors
    /// `Usage` where the mark is not in what can be listed: the name of a directory, or that of a bucket.
    pub fn of(url: &str) -> Result<Self> {
        let one = url.replace(MARK, STAND_IN);
        let (home, name) = match Place::of(&one)? {
            Place::S3 => (Home::S3(one.clone()), S3Store::bucket_of(&one)?),
            Place::Ozone => (Home::Ozone(one.clone()), OzoneStore::bucket_of(&one)?),
            Place::Directory(path) => {
                let marked = Path::new(path).ancestors().filter(|path| {
                    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains(STAND_IN))
                });
                // The one nearest to the root: what is under the mark varies with it.
                let Some((folder, name)) = marked.last().and_then(|path| Some((path.parent()?, path.file_name()?)))
                else {
                    return Err(misplaced());
                };
                (Home::Directory(folder.into()), name.to_string_lossy().into_owned())
            }
            Place::Memory(_) => return Err(misplaced()),
        };
        let (before, after) = name.split_once(STAND_IN).ok_or_else(misplaced)?;
        Ok(Self { home, before: before.into(), after: after.into() })
    }

    /// What the mark stands for in the names of those that there are, in order.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn names(&self) -> Result<Vec<String>> {
        let names = match &self.home {
            Home::Directory(folder) => {
                let listed = folder.clone();
                let names = blocking(move || directories(&listed)).await;
                names.map_err(|error| error.at(folder.display().to_string()))?
            }
            Home::S3(url) => retry(|| S3Store::buckets(url), |_| {}).await?,
            Home::Ozone(url) => OzoneStore::buckets(url).await?,
        };
        let part = |name: String| {
            let part = name.strip_prefix(&self.before)?.strip_suffix(&self.after)?;
            (!part.is_empty()).then(|| part.to_owned())
        };
        let mut names: Vec<String> = names.into_iter().filter_map(part).collect();
        names.sort();
        Ok(names)
    }
}

/// The directories in a folder, links to them among them; hidden ones are nobody's buckets.
fn directories(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && entry.path().is_dir() {
            names.push(name);
        }
    }
    Ok(names)
}

fn misplaced() -> Error {
    Error::new(
        Kind::Usage,
        format!("only the names of whole buckets and of directories can be found, and {MARK} is in none"),
    )
    .hint("name the buckets one by one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (String, String) {
        let Neighbours { before, after, .. } = Neighbours::of(url).unwrap();
        (before, after)
    }

    #[test]
    fn the_mark_is_in_a_name() {
        let of = |before: &str, after: &str| (before.to_owned(), after.to_owned());
        assert_eq!(parts("s3://{bucket}?endpoint=http://h:1"), of("", ""));
        assert_eq!(parts("s3://site-{bucket}-a/prefix?region=x"), of("site-", "-a"));
        assert_eq!(parts("o3://om/vol/{bucket}"), of("", ""));
        assert_eq!(parts("o3fs://dr-{bucket}.vol.om/"), of("dr-", ""));
        assert_eq!(parts("/srv/{bucket}/data"), of("", ""));
        assert_eq!(Neighbours::of("/srv/a-{bucket}/x/{bucket}").unwrap().home, Home::Directory("/srv".into()));
        for wrong in ["s3://b/{bucket}", "o3://om/{bucket}/b", "/srv/x", "memory:{bucket}", "s3://b?profile={bucket}"] {
            assert_eq!(Neighbours::of(wrong).unwrap_err().kind(), Kind::Usage, "{wrong}");
        }
    }

    #[tokio::test]
    async fn directories_are_found() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["dr-b", "dr-a", "c", ".dr-hidden", "dr-"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("dr-file"), b"").unwrap();
        let at = |end: &str| Neighbours::of(&format!("{}/{end}", folder.path().display())).unwrap();
        assert_eq!(at("dr-{bucket}").names().await.unwrap(), ["a", "b"]);
        assert_eq!(at("{bucket}").names().await.unwrap(), ["c", "dr-", "dr-a", "dr-b"]);
        let gone = at("gone/{bucket}").names().await.unwrap_err();
        assert!(gone.kind() == Kind::NotFound && gone.to_string().contains("gone"), "{gone}");
    }
}
