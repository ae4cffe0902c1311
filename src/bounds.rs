//! What bounds a run: how many deletes are believed, what is done about drift, and what the transfer may use.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::transfer::Limits;

/// What to do about keys that somebody else changed on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDrift {
    /// Touch nothing and name them.
    #[default]
    Refuse,
    /// Make them what the snapshot says.
    Repair,
}

/// How many deletes are believed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxDelete {
    /// This many objects.
    Count(u64),
    /// This share of the target's objects, in percent.
    Percent(f64),
}

impl FromStr for MaxDelete {
    type Err = String;

    /// Reads a number, or a share as `50%`.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no limit: write a number of objects, or a share as 50%");
        match text.strip_suffix('%') {
            Some(share) => match share.trim().parse::<f64>() {
                Ok(share) if (0.0..=100.0).contains(&share) => Ok(Self::Percent(share)),
                _ => Err(bad()),
            },
            None => text.parse().map(Self::Count).map_err(|_| bad()),
        }
    }
}

impl fmt::Display for MaxDelete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Percent(share) => write!(f, "{share}%"),
        }
    }
}

/// What bounds a run, and where it keeps its files.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// How many deletes are believed.
    pub max_delete: MaxDelete,
    /// What to do about drift.
    pub on_drift: OnDrift,
    /// What limits the transfer.
    pub limits: Limits,
    /// Where this job keeps its files.
    pub folder: PathBuf,
    /// How long a lease lasts unless renewed.
    pub lease_term: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delete_limits() {
        assert_eq!("50%".parse(), Ok(MaxDelete::Percent(50.0)));
        assert_eq!("7".parse(), Ok(MaxDelete::Count(7)));
        for bad in ["", "%", "101%", "-1", "NaN%", "x"] {
            assert!(bad.parse::<MaxDelete>().is_err(), "{bad}");
        }
    }
}
