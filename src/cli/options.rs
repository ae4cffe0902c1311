//! Options that every command has, and the small languages of their values.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args};

use crate::bucket::{Bucket, OpenOptions};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::pair::folder;
use crate::run::MaxDelete;
use crate::snapshot::clone::CloneMode;

/// What every command takes, before or after its name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(super) struct Common {
    /// One JSON document on stdout, nothing else there.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// More on stderr; with sync --dry-run the plan's steps.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(super) verbose: u8,
    /// Errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Where running jobs keep their files; losing it costs time, never data.
    #[arg(long, global = true, value_name = "DIR", env = "SNAPFERRY_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", env = "SNAPFERRY_CONFIG")]
    config: Option<PathBuf>,
}

impl Common {
    /// The folder for running jobs.
    pub(super) fn state_dir(&self) -> Result<PathBuf> {
        if let Some(folder) = &self.state_dir {
            return Ok(folder.clone());
        }
        let state = std::env::var_os("XDG_STATE_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let state = state.or_else(|| std::env::home_dir().map(|home| home.join(".local/state")));
        state.map(|state| state.join("snapferry")).ok_or_else(|| {
            Error::usage("there is no home directory to keep the job's files in").hint("name one with --state-dir")
        })
    }

    /// A folder of this name for a job's files, made if need be.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf> {
        folder(&self.state_dir()?, name)
    }

    /// What a bucket's argument stands for: itself, or a store of the configuration.
    pub(super) fn resolve(&self, bucket: &str) -> Result<String> {
        Config::load(self.config.as_deref())?.resolve(bucket)
    }

    /// Opens a bucket that is there.
    pub(super) async fn open(&self, bucket: &str, clone: CloneMode) -> Result<Bucket> {
        let options = OpenOptions { create: false, create_link: false, clone, folder: self.folder("tmp")? };
        Bucket::open(&self.resolve(bucket)?, &options).await
    }
}

/// Bytes, as `256MiB`, `64k` or `1000000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: f64 = number.parse().map_err(|_| format!("`{text}` is no size: write 256MiB, 64k or 1000000"))?;
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "kb" => 1000,
            "m" | "mib" => 1 << 20,
            "mb" => 1_000_000,
            "g" | "gib" => 1 << 30,
            "gb" => 1_000_000_000,
            "t" | "tib" => 1 << 40,
            "tb" => 1_000_000_000_000,
            _ => return Err(format!("`{unit}` is no unit: use k, M, G, T, KiB, MiB, GiB, TiB, kB, MB, GB or TB")),
        };
        let bytes = number * factor as f64;
        if bytes < 1.0 || bytes >= u64::MAX as f64 {
            return Err(format!("`{text}` is out of range"));
        }
        Ok(Self(bytes as u64))
    }
}

/// The length of a block.
pub(super) fn block_size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse()?;
    match size.0.is_power_of_two() && (1 << 20..=64 << 20).contains(&size.0) {
        true => Ok(size),
        false => Err(format!("`{text}` is no length of a block: write a power of two from 1MiB to 64MiB")),
    }
}

/// A limit on deletes: a number, or a share as `50%`.
pub(super) fn max_delete(text: &str) -> Result<MaxDelete, String> {
    let bad = || format!("`{text}` is no limit: write a number of objects, or a share as 50%");
    match text.strip_suffix('%') {
        Some(share) => match share.trim().parse::<f64>() {
            Ok(share) if (0.0..=100.0).contains(&share) => Ok(MaxDelete::Percent(share)),
            _ => Err(bad()),
        },
        None => text.parse().map(MaxDelete::Count).map_err(|_| bad()),
    }
}

/// A share as `10%` or `10`.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 100.0 => Ok(share),
        _ => Err(format!("`{text}` is no share: write 10%")),
    }
}

/// How snapshots of a local directory are cloned.
pub(super) fn clone_mode(text: &str) -> Result<CloneMode, String> {
    match text {
        "auto" => Ok(CloneMode::Auto),
        "reflink" => Ok(CloneMode::Reflink),
        "hardlink" => Ok(CloneMode::HardLink),
        "copy" => Ok(CloneMode::Copy),
        _ => Err("write auto, reflink, hardlink or copy".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!("256MiB".parse(), Ok(Size(256 << 20)));
        assert_eq!("64k".parse(), Ok(Size(64 << 10)));
        assert_eq!("1.5G".parse(), Ok(Size(3 << 29)));
        assert_eq!("10MB".parse(), Ok(Size(10_000_000)));
        for bad in ["", "k", "-1", "1x", "0", "1e3", "99999999999999T"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn delete_limits() {
        assert_eq!(max_delete("50%"), Ok(MaxDelete::Percent(50.0)));
        assert_eq!(max_delete("7"), Ok(MaxDelete::Count(7)));
        for bad in ["", "%", "101%", "-1", "NaN%", "x"] {
            assert!(max_delete(bad).is_err(), "{bad}");
        }
    }
}
