//! Names of snapshots.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The name of a snapshot: 3 to 63 characters, letters, digits, `-`, `.` and `_`, the first of them a letter or digit.
/// Ozone takes fewer: see [`Name::check_for_ozone`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The default name for a snapshot that is made at this moment: `snapshot-2026-11-21T030000Z`.
    pub fn at(moment: Timestamp) -> Self {
        Self(moment.to_zoned(TimeZone::UTC).strftime("snapshot-%Y-%m-%dT%H%M%SZ").to_string())
    }

    /// The same without capital letters.
    #[must_use]
    pub fn lowercase(&self) -> Self {
        Self(self.0.to_ascii_lowercase())
    }

    /// Checks that Ozone takes a snapshot of this name, for which its rules for buckets hold (tried with 2.2.0): no capital
    /// letters, no `_`, no `.` or `-` at the end or beside another, and no four numbers with dots between.
    ///
    /// # Errors
    /// `Usage`, with the rules.
    pub fn check_for_ozone(&self) -> Result<(), Error> {
        let mark = |c: char| c == '-' || c == '.';
        let beside = self.0.as_bytes().windows(2).any(|two| two.iter().all(|&byte| mark(byte.into())));
        let wrong = self.0.contains(|c: char| c.is_ascii_uppercase() || c == '_')
            || self.0.ends_with(mark)
            || beside
            || self.0.parse::<std::net::Ipv4Addr>().is_ok();
        if !wrong {
            return Ok(());
        }
        Err(Error::usage(format!("Ozone takes no snapshot named {self}")).hint(
            "use lower-case letters, digits and single `-` or `.`, not at the end: snapshot-%Y-%m-%d-%H%M as a pattern",
        ))
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
    fn what_ozone_takes() {
        for good in ["night-1", "a.b1", "snapshot-2026-11-21t030000z", &"x".repeat(63)] {
            assert!(good.parse::<Name>().unwrap().check_for_ozone().is_ok(), "{good}");
        }
        for bad in ["Night-1", "a_b", "1.2.3.4", "a..b", "a-.b", "abc-", "abc.", "snapshot-2026-11-21T030000Z"] {
            assert!(bad.parse::<Name>().unwrap().check_for_ozone().is_err(), "{bad}");
        }
    }

    #[test]
    fn names() {
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
