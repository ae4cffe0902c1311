//! Finds the buckets that policies stand for where the configuration does not name them.
//!
//! A bucket that was found once stays known on this machine: one that is suddenly gone from the source has its policy fail by
//! name, and does not fall silent. `except` lets go of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::blocking::blocking;
use crate::config::Config;
use crate::error::{Error, Kind, Result, Side};
use crate::file;
use crate::pair::folder;
use crate::place::lie_in_each_other;
use crate::policy::{Family, Policy};

/// How long a source is given to list its buckets.
const ANSWER: Duration = Duration::from_secs(30);

/// Adds a policy for each bucket that is found for those that `is_meant`, and gives back what went wrong. Where the buckets
/// cannot be listed, those that were found before remain.
pub async fn discover(config: &mut Config, state_dir: &Path, is_meant: impl Fn(&Family) -> bool) -> Vec<Error> {
    let mut troubles = Vec::new();
    let families = config.families.iter().filter(|family| family.wanted.is_some() && is_meant(family));
    for family in families.cloned().collect::<Vec<_>>() {
        if let Err(error) = find(config, &family, state_dir, &mut troubles).await {
            troubles.push(error);
        }
    }
    troubles
}

async fn find(config: &mut Config, family: &Family, state_dir: &Path, troubles: &mut Vec<Error>) -> Result<()> {
    let known = Known::of(family, state_dir)?;
    let before = known.read().await.unwrap_or_else(|error| {
        troubles.push(error);
        BTreeSet::new()
    });
    let mut names: BTreeSet<String> = before.iter().filter(|name| family.wants(name)).cloned().collect();
    match listed(family).await {
        Ok(found) => names.extend(found),
        Err(error) => troubles.push(error.on(Side::Source)),
    }
    let mut members: Vec<(String, Policy)> = Vec::new();
    for name in names {
        match family.member(&name) {
            // The configuration names it.
            Ok(policy) if config.policy(&policy.name).is_ok() => {}
            Ok(policy) => members.push((name, policy)),
            Err(error) => troubles.push(error.at(family.name.as_str())),
        }
    }
    // Its copies may lie beside what they are copies of, and are not copied again. Another's may be: from site to site.
    let named = config.policies.iter().filter(|policy| family.is_meant_by(&policy.name));
    let own = named.chain(members.iter().map(|(_, policy)| policy));
    let targets: Vec<String> = own.map(Policy::target_address).collect();
    members.retain(|(_, policy)| {
        let source = policy.source_address();
        !targets.iter().any(|target| lie_in_each_other(&source, target))
    });
    let after: BTreeSet<String> = members.iter().map(|(name, _)| name.clone()).collect();
    for (_, policy) in members {
        if let Err(error) = config.admit(policy) {
            troubles.push(error);
        }
    }
    if after == before { Ok(()) } else { known.write(after).await }
}

async fn listed(family: &Family) -> Result<Vec<String>> {
    tokio::time::timeout(ANSWER, family.buckets()).await.unwrap_or_else(|_| {
        Err(Error::new(Kind::Unavailable, "it did not list its buckets in time").at(family.source.as_str()))
    })
}

/// The buckets that were found before, in a file.
#[derive(Debug, Clone)]
struct Known(PathBuf);

impl Known {
    fn of(family: &Family, state_dir: &Path) -> Result<Self> {
        Ok(Self(folder(state_dir, "buckets")?.join(format!("{}.json", family.name))))
    }

    fn failed(&self, error: Error) -> Error {
        error.at(self.0.display().to_string())
    }

    async fn read(&self) -> Result<BTreeSet<String>> {
        let known = self.clone();
        let text = blocking(move || match std::fs::read(&known.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(read?)),
        });
        let Some(text) = text.await.map_err(|error| self.failed(error))? else { return Ok(BTreeSet::new()) };
        serde_json::from_slice(&text).map_err(|error| {
            let error = Error::new(Kind::Damaged, "the buckets that were found before cannot be read").caused_by(error);
            self.failed(error).hint("it is written anew; buckets that are gone from the source are forgotten")
        })
    }

    async fn write(&self, names: BTreeSet<String>) -> Result<()> {
        let known = self.clone();
        let written = blocking(move || {
            let text = serde_json::to_vec(&names).map_err(|error| Error::internal(error.to_string()))?;
            Ok(file::replace(&known.0, &text, None)?)
        });
        written.await.map_err(|error| self.failed(error))
    }
}
