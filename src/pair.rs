//! Two buckets of which one is to become as the other.

use std::path::{Path, PathBuf};

use crate::bucket::Bucket;
use crate::error::{Error, Result};

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

/// The path, where a URL is one of a directory.
pub(crate) fn directory_path(url: &str) -> Option<&str> {
    match url.split_once("://") {
        Some(("file", path)) => Some(path),
        Some(_) => None,
        None => Some(url),
    }
}

/// Refuses a target that lies in the source's directory, or the reverse, before either is touched.
pub(crate) fn refuse_nested(source: &Bucket, target_url: &str) -> Result<()> {
    let (Some(source), Some(path)) = (source.directory(), directory_path(target_url)) else { return Ok(()) };
    let Ok(target) = std::path::absolute(path) else { return Ok(()) };
    // Of a path that does not exist yet, what exists of it decides.
    let existing = target.ancestors().find_map(|path| path.canonicalize().ok().map(|real| (path.to_owned(), real)));
    let Some((path, real)) = existing else { return Ok(()) };
    let rest = target.strip_prefix(&path).unwrap_or(Path::new(""));
    let target = real.join(rest);
    if target.starts_with(source) || source.starts_with(&target) {
        return Err(Error::usage(format!(
            "source and target lie in each other: {} and {}",
            source.display(),
            target.components().collect::<PathBuf>().display()
        ))
        .hint("choose a target outside the source"));
    }
    Ok(())
}

/// Refuses two buckets of one store of which one is, or holds, the other: a prefix of it, or itself.
pub(crate) fn refuse_overlap(source: &Bucket, target: &Bucket) -> Result<()> {
    let parts = |bucket: &Bucket| {
        let (place, server) = bucket.address().split_once('?').unwrap_or((bucket.address(), ""));
        (format!("{place}/"), server.to_owned())
    };
    let ((source_place, source_server), (target_place, target_server)) = (parts(source), parts(target));
    let overlap = source_place.starts_with(&target_place) || target_place.starts_with(&source_place);
    if !overlap || source_server != target_server {
        return Ok(());
    }
    Err(Error::usage(format!("source and target lie in each other: {} and {}", source.address(), target.address()))
        .hint("choose a target outside the source"))
}
