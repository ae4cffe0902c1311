//! A policy for each of many buckets.

use super::{Policy, Settings, check_url};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::neighbours::{MARK, Neighbours};
use crate::selection::Selection;

/// What is said once of many buckets, each of which has a policy of its own: named, or found where they are.
#[derive(Debug, Clone)]
pub struct Family {
    /// Its name; each policy's is this, a dot and the bucket.
    pub name: String,
    /// The source's URL, with [`MARK`] for the bucket.
    pub source: String,
    /// The target's URL, with [`MARK`] for the bucket.
    pub target: String,
    /// Which buckets are meant of those that there are; none are looked for where it says nothing.
    pub wanted: Option<Selection>,
    /// Which of them are not.
    pub except: Option<Selection>,
    /// What each of the policies says.
    pub settings: Settings,
}

impl Family {
    /// The policy of a bucket.
    ///
    /// # Errors
    /// `Usage` for a bucket that no URL can have in it.
    pub fn member(&self, bucket: &str) -> Result<Policy> {
        check_bucket(bucket)?;
        let url = |template: &str| {
            let url = template.replace(MARK, bucket);
            check_url(&url, &self.settings.pattern).map(|()| url)
        };
        Ok(Policy {
            name: format!("{}.{bucket}", self.name),
            source: url(&self.source)?,
            target: url(&self.target)?,
            settings: self.settings.clone(),
        })
    }

    /// True for its name, and for those of its policies.
    pub fn is_meant_by(&self, name: &str) -> bool {
        name.strip_prefix(&self.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// True for a bucket that is meant where it is there.
    pub fn wants(&self, bucket: &str) -> bool {
        let matches = |selection: &Option<Selection>| {
            selection.as_ref().is_some_and(|selection| selection.is_match(&Key::from(bucket)))
        };
        matches(&self.wanted) && !matches(&self.except)
    }

    /// The buckets that are meant, as they are at the source now.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn buckets(&self) -> Result<Vec<String>> {
        let mut names = Neighbours::of(&self.source)?.names().await?;
        names.retain(|name| self.wants(name));
        Ok(names)
    }
}

/// Checks that a name can stand in a URL, and leads nowhere else.
///
/// # Errors
/// `Usage` where it cannot.
pub(crate) fn check_bucket(name: &str) -> Result<()> {
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c));
    if name.contains(odd) || name.chars().all(|c| c == '.') {
        return Err(Error::usage(format!("`{name}` is no bucket's name"))
            .hint("name it with letters, digits, `-`, `_` and `.`, or give it a policy of its own"));
    }
    Ok(())
}
