//! `snapferry policy …`

use std::fmt;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::options::{Common, with_troubles};
use super::output::Output;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::hook::Hook;
use crate::policy::{Check, Policy, Readiness, check};
use crate::retention::Rules;
use crate::table::Table;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the policies of the configuration.
    List,
    /// Try what policies need: reach both sides, list, take snapshots, write.
    Check(Which),
    /// Show what a policy says, with what it leaves to be as usual.
    Show(Named),
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// The policy [default: all].
    policy: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// The policy.
    policy: String,
}

/// A policy, for people and programs.
#[derive(Debug, Serialize)]
struct Shown {
    policy: String,
    enabled: bool,
    source: String,
    target: String,
    schedule: Option<String>,
    time_zone: Option<String>,
    snapshot: String,
    next: Option<jiff::Timestamp>,
    keep_source: String,
    keep_target: String,
    rpo_seconds: Option<u64>,
    timeout_seconds: Option<u64>,
    max_delete: String,
    on_drift: String,
    verify: String,
    hooks: Vec<String>,
}

impl Shown {
    fn of(policy: &Policy) -> Self {
        let settings = &policy.settings;
        let now = jiff::Timestamp::now();
        Self {
            policy: policy.name.clone(),
            enabled: settings.enabled,
            source: policy.source_address(),
            target: policy.target_address(),
            schedule: settings.schedule.as_ref().map(ToString::to_string),
            time_zone: settings.zone.iana_name().map(str::to_owned),
            snapshot: settings.pattern.to_string(),
            next: policy.next_run(now).map(|next| next.timestamp()),
            keep_source: rules(&settings.keep_source),
            keep_target: rules(&settings.keep_target),
            rpo_seconds: settings.rpo.map(|rpo| rpo.as_secs()),
            timeout_seconds: settings.timeout.map(|timeout| timeout.as_secs()),
            max_delete: settings.max_delete.to_string(),
            on_drift: format!("{:?}", settings.on_drift).to_lowercase(),
            verify: format!("{:?}", settings.proof).to_lowercase(),
            hooks: settings.hooks.iter().map(hook).collect(),
        }
    }
}

fn rules(rules: &Rules) -> String {
    let counts = [
        ("keep_last", rules.keep_last),
        ("hourly", rules.hourly),
        ("daily", rules.daily),
        ("weekly", rules.weekly),
        ("monthly", rules.monthly),
        ("yearly", rules.yearly),
    ];
    let mut said: Vec<String> =
        counts.iter().filter_map(|(name, count)| count.map(|count| format!("{name} {count}"))).collect();
    said.extend(rules.ttl.map(|ttl| format!("ttl {ttl:#}")));
    if said.is_empty() { "everything".into() } else { said.join(", ") }
}

fn hook(hook: &Hook) -> String {
    let on: Vec<String> = hook.on.iter().map(ToString::to_string).collect();
    format!("{} on {}", hook.action, on.join(", "))
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |seconds: Option<u64>| seconds.map_or_else(|| "-".into(), |seconds| format!("{seconds} s"));
        writeln!(f, "{}{}", self.policy, if self.enabled { "" } else { " (disabled)" })?;
        writeln!(f, "  source       {}", self.source)?;
        writeln!(f, "  target       {}", self.target)?;
        writeln!(f, "  schedule     {}", self.schedule.as_deref().unwrap_or("none: `snapferry run` runs it"))?;
        if let Some(next) = self.next {
            writeln!(f, "  next         {}", next.strftime("%Y-%m-%dT%H:%M:%SZ"))?;
        }
        writeln!(f, "  snapshot     {}", self.snapshot)?;
        writeln!(f, "  keep source  {}", self.keep_source)?;
        writeln!(f, "  keep target  {}", self.keep_target)?;
        writeln!(f, "  rpo          {}", seconds(self.rpo_seconds))?;
        writeln!(f, "  timeout      {}", seconds(self.timeout_seconds))?;
        write!(f, "  max delete   {}; on drift {}; verify {}", self.max_delete, self.on_drift, self.verify)?;
        for hook in &self.hooks {
            write!(f, "\n  hook         {hook}")?;
        }
        Ok(())
    }
}

/// All policies.
#[derive(Debug, Serialize)]
struct List {
    policies: Vec<Shown>,
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.policies.is_empty() {
            return f.write_str("no policies");
        }
        let mut table = Table::new(["POLICY", "SCHEDULE", "SOURCE", "TARGET"]);
        for shown in &self.policies {
            let schedule = match (&shown.schedule, shown.enabled) {
                (_, false) => "disabled",
                (Some(schedule), true) => schedule,
                (None, true) => "-",
            };
            table.row([&shown.policy, schedule, &shown.source, &shown.target]);
        }
        table.fmt(f)
    }
}

pub(super) async fn run(command: Command, common: &Common, output: &Output) -> Result<()> {
    let named = match &command {
        Command::List => None,
        Command::Show(Named { policy }) => Some(policy),
        Command::Check(Which { policy }) => policy.as_ref(),
    };
    let (config, troubles) = common.policies(named.map(std::slice::from_ref).unwrap_or_default()).await?;
    let outcome = match command {
        Command::List => output.result(&List { policies: config.policies.iter().map(Shown::of).collect() }, None),
        Command::Show(Named { policy }) => {
            config.policy(&policy).and_then(|policy| output.result(&Shown::of(policy), None))
        }
        Command::Check(Which { policy }) => check_all(&config, policy.as_deref(), common, output).await,
    };
    with_troubles(outcome, troubles)
}

async fn check_all(config: &Config, name: Option<&str>, common: &Common, output: &Output) -> Result<()> {
    let policies = match name {
        Some(name) => config.chosen(name)?,
        None => config.policies.iter().collect(),
    };
    let host = common.host()?;
    let mut checks: Vec<Check> = Vec::new();
    for policy in &policies {
        let checked = check(policy, &host).await?;
        if !output.is_json() && !output.is_quiet() {
            output.line(&checked.to_string())?;
        }
        checks.push(checked);
    }
    let of = |state| checks.iter().filter(|checked| checked.state == state).count();
    let wanted = policies.iter().filter(|policy| policy.settings.enabled).count();
    let enabled = of(Readiness::Enabled);
    if output.is_json() {
        output.document(&json!({ "policies": checks, "enabled": enabled, "partial": of(Readiness::Partial) }))?;
    }
    if enabled == wanted {
        return Ok(());
    }
    Err(Error::new(Kind::Unavailable, format!("{} of {wanted} policies cannot run as they are", wanted - enabled))
        .hint("what is marked NO says how to mend it; then check again"))
}
