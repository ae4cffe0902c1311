//! Two buckets of which one is to become as the other.

use std::path::{Path, PathBuf};

use crate::bucket::{Bucket, OpenOptions};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result, Side};
use crate::place::{address, directory_path, lie_in_each_other};

/// The URLs of the two sides.
#[derive(Debug, Clone, Copy)]
pub struct Sides<'a> {
    /// Where data comes from.
    pub source: &'a str,
    /// Where data goes.
    pub target: &'a str,
    /// Where the source's snapshots are remembered, if not with the source.
    pub catalog: Option<&'a str>,
}

/// Two buckets that do not lie in each other.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Where data comes from.
    pub source: Bucket,
    /// Where data goes.
    pub target: Bucket,
    /// Where the source's snapshots are remembered, if not with the source.
    pub source_catalog: Option<Catalog>,
}

impl Pair {
    /// Opens both. A target that is a directory is made with `create`; without it, one that is not there is as if it were
    /// empty, for a rehearsal must not make it.
    pub async fn open(sides: Sides<'_>, options: &OpenOptions, create: bool) -> Result<Self> {
        let source = Bucket::open(sides.source, options).await.map_err(|error| error.on(Side::Source))?;
        refuse_nested(&source, sides.target)?;
        let opened = Bucket::open(sides.target, &OpenOptions { create, ..options.clone() }).await;
        let target = match opened {
            Err(error) if !create && error.kind() == Kind::NotFound && directory_path(sides.target).is_some() => {
                Bucket::empty_directory(sides.target, options)
            }
            opened => opened.map_err(|error| error.on(Side::Target))?,
        };
        refuse_overlap(&source, &target)?;
        let source_catalog = match sides.catalog {
            Some(url) => {
                let bucket = Bucket::open(url, &OpenOptions { create: true, ..options.clone() }).await?;
                Some(Catalog::of_other(bucket.store().clone(), source.address()))
            }
            None => None,
        };
        Ok(Self { source, target, source_catalog })
    }

    /// The same by this clock.
    #[must_use]
    pub fn with_clock(self, clock: &Clock) -> Self {
        let (source, target) = (self.source.with_clock(clock.clone()), self.target.with_clock(clock.clone()));
        Self { source, target, ..self }
    }

    /// The source as its own catalog knows it, and as it is known where its snapshots are remembered for it.
    pub fn source_views(&self) -> [Bucket; 2] {
        let usual = || Catalog::of_other(self.target.store().clone(), self.source.address());
        let away = self.source_catalog.clone().unwrap_or_else(usual);
        [self.source.clone(), self.source.read_only(away)]
    }

    /// The folder of this pair's jobs under `state_dir`.
    pub fn folder(&self, state_dir: &Path) -> Result<PathBuf> {
        job_folder(state_dir, self.source.address(), self.target.address())
    }
}

/// A folder of this name under `state_dir`, made if need be.
pub(crate) fn folder(state_dir: &Path, name: &str) -> Result<PathBuf> {
    let folder = state_dir.join(name);
    std::fs::create_dir_all(&folder).map_err(|error| {
        Error::from(error).at(folder.display().to_string()).hint("name another folder with --state-dir")
    })?;
    Ok(folder)
}

/// The job's folder for this pair: the same for the same two buckets.
pub(crate) fn job_folder(state_dir: &Path, source: &str, target: &str) -> Result<PathBuf> {
    let mut hasher = blake3::Hasher::new();
    for address in [source, target] {
        hasher.update(&(address.len() as u64).to_le_bytes());
        hasher.update(address.as_bytes());
    }
    folder(state_dir, &format!("jobs/{}", &hasher.finalize().to_hex()[..16]))
}

/// Refuses a target that lies in the source's directory, or the reverse, before either is touched.
pub(crate) fn refuse_nested(source: &Bucket, target_url: &str) -> Result<()> {
    if source.directory().is_none() || directory_path(target_url).is_none() {
        return Ok(());
    }
    refuse(source.address(), &address(target_url)?)
}

/// Refuses two buckets of one store of which one is, or holds, the other: a prefix of it, or itself.
pub(crate) fn refuse_overlap(source: &Bucket, target: &Bucket) -> Result<()> {
    refuse(source.address(), target.address())
}

fn refuse(source: &str, target: &str) -> Result<()> {
    if !lie_in_each_other(source, target) {
        return Ok(());
    }
    Err(Error::usage(format!("source and target lie in each other: {source} and {target}"))
        .hint("choose a target outside the source"))
}
