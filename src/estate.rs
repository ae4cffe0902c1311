//! How all policies stand, as plain data: the status screen, its JSON and the metrics are views of it.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::blocking::blocking;
use crate::bucket::Bucket;
use crate::catalog::{Catalog, Record};
use crate::error::{Error, Kind, Result};
use crate::hook::{Event, On};
use crate::job::{Job, Shown, State, rebuild};
use crate::place::directory_path;
use crate::policy::{Host, Policy};
use crate::report::Bytes;
use crate::snapshot::Name;
use crate::table::Table;

/// How long a target is given to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Policies that are looked at, at once.
const AT_ONCE: usize = 8;

/// How a policy stands, the worst that is true of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// The newest sealed content is as new as it has to be.
    Fresh,
    /// Its last run failed, but what is sealed is still new enough.
    Failing,
    /// The newest sealed content is older than it may be.
    Stale,
    /// Nothing was ever sealed.
    Never,
    /// The target cannot be asked.
    Unreachable,
    /// It is switched off.
    Disabled,
}

impl Standing {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Fresh, Self::Failing, Self::Stale, Self::Never, Self::Unreachable, Self::Disabled];

    /// True where somebody should look.
    pub fn is_stale(self) -> bool {
        matches!(self, Self::Stale | Self::Never | Self::Unreachable)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fresh => "fresh",
            Self::Failing => "failing",
            Self::Stale => "stale",
            Self::Never => "never",
            Self::Unreachable => "unreachable",
            Self::Disabled => "disabled",
        })
    }
}

/// The newest snapshot that a policy sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sealed {
    /// Its name.
    pub snapshot: Name,
    /// When it was taken at the source: how old the content is.
    pub taken: Timestamp,
    /// When it was sealed.
    pub sealed: Timestamp,
    /// Objects in it.
    pub objects: u64,
    /// Bytes in it.
    pub bytes: u64,
}

/// One policy.
#[derive(Debug, Clone, Serialize)]
pub struct Outlook {
    /// Its name.
    pub policy: String,
    /// How it stands.
    pub state: Standing,
    /// The source's address.
    pub source: String,
    /// The target's address.
    pub target: String,
    /// The newest snapshot that it sealed.
    pub sealed: Option<Sealed>,
    /// How old its content is, in seconds.
    pub age_seconds: Option<i64>,
    /// How old it may be, in seconds.
    pub rpo_seconds: Option<i64>,
    /// The run under way.
    pub running: Option<Shown>,
    /// The last run that ended.
    pub last: Option<Shown>,
    /// When it runs next by itself.
    pub next: Option<Timestamp>,
    /// Why the target cannot be asked.
    pub trouble: Option<String>,
}

/// All policies.
#[derive(Debug, Clone, Serialize)]
pub struct Estate {
    /// When this was so.
    pub now: Timestamp,
    /// True where somebody should look.
    pub stale: bool,
    /// One by one.
    pub policies: Vec<Outlook>,
    /// Why there may be policies that are not among them: buckets that could not be listed.
    pub troubles: Vec<String>,
}

impl Estate {
    /// Looks at these policies: their targets are asked for what was sealed, this machine for what ran.
    pub async fn survey(policies: &[Policy], host: &Host) -> Self {
        use futures::StreamExt;
        let looks = policies.iter().cloned().map(|policy| {
            let host = host.clone();
            async move { Outlook::of(&policy, &host).await }
        });
        let policies: Vec<Outlook> = futures::stream::iter(looks).buffered(AT_ONCE).collect().await;
        let stale = policies.iter().any(|policy| policy.state.is_stale());
        Self { now: host.clock.now(), stale, policies, troubles: Vec::new() }
    }

    /// With what went wrong when the buckets of policies were looked for.
    #[must_use]
    pub fn with_troubles(self, troubles: &[impl ToString]) -> Self {
        let stale = self.stale || !troubles.is_empty();
        Self { stale, troubles: troubles.iter().map(ToString::to_string).collect(), ..self }
    }
}

impl Outlook {
    /// How a policy stands.
    pub async fn of(policy: &Policy, host: &Host) -> Self {
        let asked = tokio::time::timeout(ANSWER, newest(policy, host)).await;
        let asked = asked.unwrap_or_else(|_| {
            Err(Error::new(Kind::Unavailable, "it did not answer in time").at(policy.target_address()))
        });
        let now = host.clock.now();
        let (sealed, catalog, trouble) = match asked {
            Ok((sealed, catalog)) => (sealed, catalog, None),
            Err(error) => (None, None, Some(error.to_string())),
        };
        let jobs = jobs(policy, host, catalog).await.unwrap_or_else(|error| {
            tracing::warn!("{}: it is not known what ran: {error}", policy.name);
            Vec::new()
        });
        let mut shown = jobs.into_iter().map(|job| Shown::of(job, now)).collect::<Vec<_>>();
        shown.sort_by(|a, b| b.job.created.cmp(&a.job.created).then_with(|| b.job.id.cmp(&a.job.id)));
        let running = shown.iter().position(|shown| !shown.is_over()).map(|place| shown.remove(place));
        let last = shown.into_iter().next();
        let age = sealed.as_ref().map(|sealed| now.duration_since(sealed.taken));
        let rpo = sealed.as_ref().map_or_else(
            || policy.settings.rpo.and_then(|rpo| SignedDuration::try_from(rpo).ok()),
            |sealed| policy.patience(sealed.taken),
        );
        let failing = last.as_ref().is_some_and(|last| last.job.state != State::Finished);
        let state = match (policy.settings.enabled, &trouble, age, rpo) {
            (false, ..) => Standing::Disabled,
            (_, Some(_), ..) => Standing::Unreachable,
            (_, _, None, _) => Standing::Never,
            (_, _, Some(age), Some(rpo)) if age > rpo => Standing::Stale,
            _ if failing => Standing::Failing,
            _ => Standing::Fresh,
        };
        Self {
            policy: policy.name.clone(),
            state,
            source: policy.source_address(),
            target: policy.target_address(),
            sealed,
            age_seconds: age.map(|age| age.as_secs()),
            rpo_seconds: rpo.map(|rpo| rpo.as_secs()),
            running,
            last,
            next: policy.next_run(now).map(|next| next.timestamp()),
            trouble,
        }
    }

    /// What hooks are told when it is stale.
    pub fn stale_event(&self, policy: &Policy, now: Timestamp) -> Event {
        let message = match (&self.sealed, &self.trouble) {
            (_, Some(trouble)) => format!("it is not known how old the newest sealed snapshot is: {trouble}"),
            (None, None) => "nothing was ever sealed".into(),
            (Some(sealed), None) => format!(
                "the content of the newest sealed snapshot, {}, is {} old; it may be {}",
                sealed.snapshot,
                Age(self.age_seconds.unwrap_or_default()),
                Age(self.rpo_seconds.unwrap_or_default())
            ),
        };
        Event {
            snapshot: self.sealed.as_ref().map(|sealed| sealed.snapshot.to_string()),
            age_seconds: self.age_seconds,
            hint: Some(format!("`snapferry job list --policy {}` shows what its runs came to", self.policy)),
            ..policy.event(On::Stale, now, message)
        }
    }
}

/// The newest snapshot on the target that was sealed from this policy's source, and what lies beside it; none where the
/// first run has yet to make the target.
async fn newest(policy: &Policy, host: &Host) -> Result<(Option<Sealed>, Option<Catalog>)> {
    let target = match Bucket::open(&policy.target, &host.options(policy)?).await {
        Err(error) if error.kind() == Kind::NotFound && directory_path(&policy.target).is_some() => {
            return Ok((None, None));
        }
        opened => opened?,
    };
    let (source, catalog) = (policy.source_address(), target.catalog().clone());
    let wanted = |record: &Record| record.sealed_from.as_deref() == Some(&source);
    let Some(record) = catalog.newest(wanted).await? else { return Ok((None, Some(catalog))) };
    let receipt = catalog.receipt(&record.name).await?;
    let taken = receipt.and_then(|receipt| receipt.taken).unwrap_or(record.created);
    let Record { name, created, objects, bytes, .. } = record;
    Ok((Some(Sealed { snapshot: name, taken, sealed: created, objects, bytes }), Some(catalog)))
}

/// This machine's jobs of a policy. One that remembers none takes them over from the receipts with the target.
async fn jobs(policy: &Policy, host: &Host, catalog: Option<Catalog>) -> Result<Vec<Job>> {
    let known = async || {
        let (jobs, name) = (host.jobs.clone(), policy.name.clone());
        blocking(move || jobs.of_policy(&name)).await
    };
    let ours = known().await?;
    let Some(catalog) = catalog.filter(|_| ours.is_empty()) else { return Ok(ours) };
    let mut receipts = Vec::new();
    for (name, _) in catalog.names().await? {
        let receipt = catalog.receipt(&name).await?;
        receipts.extend(receipt.filter(|receipt| receipt.policy.as_ref() == Some(&policy.name)));
    }
    let (jobs, told) = (host.jobs.clone(), rebuild(receipts));
    blocking(move || jobs.add(&told)).await?;
    known().await
}

/// A length of time in its largest unit, as `5m`, `26h` or `3d`.
struct Age(i64);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            seconds @ ..120 => format!("{seconds}s"),
            seconds @ ..7200 => format!("{}m", seconds / 60),
            seconds @ ..172_800 => format!("{}h", seconds / 3600),
            seconds => format!("{}d", seconds / 86_400),
        };
        f.pad(&text)
    }
}

impl fmt::Display for Estate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["POLICY", "STATE", "LAST SEALED", "AGE", "RPO", "TOOK", "COPIED", "NEXT"])
            .right(3)
            .right(4)
            .right(5)
            .right(6);
        for outlook in &self.policies {
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
            let last = outlook.last.as_ref();
            table.row([
                outlook.policy.clone(),
                match &outlook.running {
                    Some(running) => format!("{} ({})", outlook.state, running.brief()),
                    None => outlook.state.to_string(),
                },
                or_dash(outlook.sealed.as_ref().map(|sealed| sealed.snapshot.to_string())),
                or_dash(outlook.age_seconds.map(|age| Age(age).to_string())),
                or_dash(outlook.rpo_seconds.map(|rpo| Age(rpo).to_string())),
                or_dash(last.map(|last| format!("{:.1} s", last.elapsed_ms as f64 / 1000.0))),
                or_dash(last.map(|last| Bytes(last.job.progress.bytes_copied).to_string())),
                or_dash(outlook.next.map(|next| next.strftime("%Y-%m-%dT%H:%MZ").to_string())),
            ]);
        }
        match self.policies.is_empty() {
            true => f.write_str("no policies")?,
            false => table.fmt(f)?,
        }
        for outlook in &self.policies {
            let error = outlook.last.as_ref().and_then(|last| last.job.error.as_ref());
            if let Some(trouble) = &outlook.trouble {
                write!(f, "\n{}: {trouble}", outlook.policy)?;
            } else if let Some(error) = error {
                write!(f, "\n{}: the last run failed: {}", outlook.policy, error.message)?;
            }
        }
        self.troubles.iter().try_for_each(|trouble| write!(f, "\n{trouble}"))
    }
}
