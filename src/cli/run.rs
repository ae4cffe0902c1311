//! `snapferry run`

use std::fmt;
use std::sync::Arc;

use clap::Args;
use futures::StreamExt;
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::bars::Bars;
use super::options::{Chosen, Common, with_troubles};
use super::output::{Output, described};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::estate::Estate;
use crate::policy::{Host, Policy, Ran, run_as};
use crate::progress::Progress;
use crate::snapshot::Name;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    chosen: Chosen,
    /// The snapshot's name, for a run beside the scheduled ones [default: by the policy's pattern and the time].
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    snapshot: Option<Name>,
    /// How many run at once [default: serve.at_once of the configuration].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    at_once: Option<u16>,
}

/// How one of several policies went.
#[derive(Debug, Serialize)]
struct One {
    #[serde(flatten)]
    ran: Ran,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
}

/// How all of them went.
#[derive(Debug, Serialize)]
struct All {
    policies: Vec<One>,
    failed: usize,
}

impl fmt::Display for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} policies are sealed", self.policies.len() - self.failed, self.policies.len())
    }
}

pub(super) async fn run(
    arguments: Arguments,
    common: &Common,
    output: &Output,
    cancel: CancellationToken,
) -> Result<()> {
    let (config, policies, troubles) = common.chosen(&arguments.chosen).await?;
    let host = common.host()?;
    if let Some(policy) = arguments.chosen.one(&config) {
        troubles.iter().for_each(|trouble| tracing::error!("{trouble}"));
        let (ran, outcome) = one(policy, arguments.snapshot.as_ref(), &host, &config, output, cancel).await;
        output.result(&ran, outcome.as_ref().err())?;
        return outcome;
    }
    let at_once = arguments.at_once.map_or(config.at_once, usize::from);
    let runs =
        policies.iter().map(|policy| one(policy, arguments.snapshot.as_ref(), &host, &config, output, cancel.clone()));
    let mut runs = futures::stream::iter(runs).buffer_unordered(at_once);
    let (mut done, mut worst) = (Vec::new(), None::<Error>);
    while let Some((ran, outcome)) = runs.next().await {
        match &outcome {
            Ok(()) if !output.is_json() && !output.is_quiet() => output.line(&ran.to_string())?,
            Ok(()) => {}
            Err(error) => tracing::error!("{}: {error}", ran.policy),
        }
        done.push(One { ran, error: outcome.as_ref().err().map(described) });
        worst = worst.into_iter().chain(outcome.err()).max_by_key(Error::exit_code);
    }
    let failed = done.iter().filter(|one| one.error.is_some()).count();
    let all = done.len();
    let worst = worst.map(|worst| {
        Error::new(worst.kind(), format!("{failed} of {all} policies failed"))
            .hint("`snapferry status` shows which and why; run them again by name")
    });
    let outcome = with_troubles(worst.map_or(Ok(()), Err), troubles);
    output.result(&All { policies: done, failed }, outcome.as_ref().err())?;
    outcome
}

async fn one(
    policy: &Policy,
    name: Option<&Name>,
    host: &Host,
    config: &Config,
    output: &Output,
    cancel: CancellationToken,
) -> (Ran, Result<()>) {
    let progress = Arc::new(Progress::default());
    let bars = Bars::follow(&progress, output.is_quiet());
    let name = name.map_or_else(|| policy.snapshot_name(host.clock.now()), |name| Ok(name.clone()));
    let done = run_as(policy, name, host, progress, cancel).await;
    drop(bars);
    if let Some(folder) = &config.textfiles {
        let estate = Estate::survey(std::slice::from_ref(policy), host).await;
        let path = folder.join(format!("snapferry-{}.prom", policy.name));
        if let Err(error) = crate::metrics::write(&estate, &path) {
            tracing::warn!("the metrics cannot be written: {error}");
        }
    }
    done
}
