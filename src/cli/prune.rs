//! `snapferry prune`

use std::fmt;

use clap::Args;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::options::{Chosen, Common};
use super::output::Output;
use crate::error::{Error, Kind, Result};
use crate::policy::{open, prune_both};
use crate::prune::Pruned;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    chosen: Chosen,
    /// Say of each snapshot which rule keeps it or why it goes; remove nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What became of the snapshots of all of them.
#[derive(Debug, Serialize)]
struct All {
    policies: Vec<One>,
}

#[derive(Debug, Serialize)]
struct One {
    policy: String,
    pruned: Vec<Pruned>,
}

impl fmt::Display for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, one) in self.policies.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { "\n" } else { "" }, one.policy)?;
            for pruned in &one.pruned {
                write!(f, "\n{pruned}")?;
            }
        }
        Ok(())
    }
}

pub(super) async fn run(
    arguments: Arguments,
    common: &Common,
    output: &Output,
    cancel: CancellationToken,
) -> Result<()> {
    let (_, policies, mut failed) = common.chosen(&arguments.chosen).await?;
    let host = common.host()?;
    let mut all = All { policies: Vec::new() };
    for policy in &policies {
        let pruned = async {
            let pair = open(policy, &host, false).await?;
            prune_both(policy, &pair, host.clock.now(), arguments.dry_run, &cancel).await
        };
        match pruned.await {
            Ok((pruned, missing)) => {
                failed.extend(missing);
                all.policies.push(One { policy: policy.name.clone(), pruned });
            }
            Err(error) => failed.push(error),
        }
    }
    for error in failed.iter().skip(1) {
        tracing::error!("{error}");
    }
    let error = failed.into_iter().next();
    output.result(&all, error.as_ref())?;
    match error {
        Some(error) if error.kind() == Kind::Cancelled => Err(error),
        Some(error) => Err(error.hint("what was not pruned is the next time")),
        None => Ok::<(), Error>(()),
    }
}
