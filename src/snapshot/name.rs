//! Names of snapshots.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The name of a snapshot, as Ozone allows it: 3 to 63 characters, letters, digits, `-`, `.` and `_`, the first of them
/// a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The default name for a snapshot that is made at this moment: `snapshot-2026-11-21T030000Z`.
    pub fn at(moment: Timestamp) -> Self {
        Self(moment.to_zoned(TimeZone::UTC).strftime("snapshot-%Y-%m-%dT%H%M%SZ").to_string())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks that this is a snapshot's name.
pub(crate) fn check(text: &str) -> Result<(), Error> {
    text.parse::<Name>().map(drop)
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let valid = (3..=63).contains(&text.len())
            && text.chars().all(allowed)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if valid {
            return Ok(Self(text.into()));
        }
        Err(Error::usage(format!(
            "`{}` is not a snapshot's name: that has 3 to 63 letters, digits, `-`, `.` or `_`, the first a letter or digit",
            text.escape_debug()
        )))
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_ozone_allows_them() {
        for good in ["abc", "snapshot-2026-11-21", "a.b_c", &"x".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "ab", "../x", "a/b", ".hidden", "-rf", "naïve", "a b c", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn default_name_is_a_name() {
        let name = Name::at("2026-11-21T03:00:00Z".parse().unwrap());
        assert_eq!(name.as_str(), "snapshot-2026-11-21T030000Z");
        assert!(name.as_str().parse::<Name>().is_ok());
    }
}
