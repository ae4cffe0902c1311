//! Options that every command has.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::bucket::{Bucket, OpenOptions};
use crate::config::Config;
use crate::discovery::discover;
use crate::error::{Error, Result};
use crate::pair::folder;
use crate::policy::{Family, Host, Policy};
use crate::snapshot::clone::CloneMode;

/// What every command takes, before or after its name.
#[derive(Debug, Clone, Args)]
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

/// Which policies are meant.
#[derive(Debug, Args)]
pub(super) struct Chosen {
    /// The policies.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    policies: Vec<String>,
    /// All policies that are enabled.
    #[arg(long)]
    all: bool,
}

impl Chosen {
    /// The policy, where one was named.
    pub(super) fn one<'a>(&self, config: &'a Config) -> Option<&'a Policy> {
        let [name] = &self.policies[..] else { return None };
        config.policy(name).ok()
    }

    /// Those of the configuration.
    fn of<'a>(&self, config: &'a Config) -> Result<Vec<&'a Policy>> {
        if !self.all {
            let chosen: Result<Vec<Vec<&Policy>>> = self.policies.iter().map(|name| config.chosen(name)).collect();
            return Ok(chosen?.concat());
        }
        let enabled: Vec<&Policy> = config.policies.iter().filter(|policy| policy.settings.enabled).collect();
        if enabled.is_empty() { Err(Error::usage("no policy of the configuration is enabled")) } else { Ok(enabled) }
    }
}

/// The outcome; where all is well, what went wrong with finding policies takes its place. What is not returned is told.
pub(super) fn with_troubles<T>(outcome: Result<T>, troubles: Vec<Error>) -> Result<T> {
    let mut troubles = troubles.into_iter();
    let outcome = outcome.and_then(|value| troubles.next().map_or(Ok(value), Err));
    troubles.for_each(|trouble| tracing::error!("{trouble}"));
    outcome
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

    /// What the configuration file says.
    pub(super) fn configuration(&self) -> Result<Config> {
        Config::load(self.config.as_deref())
    }

    /// What the configuration file says, with a policy for each bucket that is found, and what went wrong with finding them;
    /// where names are given, only what they may mean is looked for.
    pub(super) async fn policies(&self, names: &[String]) -> Result<(Config, Vec<Error>)> {
        let mut config = self.configuration()?;
        let is_meant = |family: &Family| match names {
            [] => family.settings.enabled,
            names => names.iter().any(|name| family.is_meant_by(name)),
        };
        let troubles = discover(&mut config, &self.state_dir()?, is_meant).await;
        Ok((config, troubles))
    }

    /// As [`Self::policies`], with those that are chosen. Where there are none, what went wrong with finding them is told.
    pub(super) async fn chosen(&self, chosen: &Chosen) -> Result<(Config, Vec<Policy>, Vec<Error>)> {
        let (config, troubles) = self.policies(&chosen.policies).await?;
        let policies = chosen.of(&config).map(|policies| policies.into_iter().cloned().collect());
        match policies {
            Ok(policies) => Ok((config, policies, troubles)),
            Err(error) => with_troubles(Err(error), troubles),
        }
    }

    /// This machine, for policies.
    pub(super) fn host(&self) -> Result<Host> {
        Ok(Host::at(self.state_dir()?))
    }

    /// What a bucket's argument stands for: itself, or a store of the configuration.
    pub(super) fn resolve(&self, bucket: &str) -> Result<String> {
        self.configuration()?.resolve(bucket)
    }

    /// Opens a bucket that is there.
    pub(super) async fn open(&self, bucket: &str, clone: CloneMode) -> Result<Bucket> {
        let options = OpenOptions { create: false, create_link: false, clone, folder: self.folder("tmp")? };
        Bucket::open(&self.resolve(bucket)?, &options).await
    }
}
