//! Policies that run by themselves.
//!
//! A scheduled time names the snapshot that is due at it, so whoever is late, or runs the same policies on another machine,
//! works towards the same snapshot: the lease lets one of them, and the others find it sealed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::discovery::discover;
use crate::error::{Error, Kind, Result};
use crate::estate::{Estate, Outlook};
use crate::hook::{On, tell};
use crate::job::State;
use crate::policy::{self, Host, Policy, Readiness, run};
use crate::progress::Progress;

/// How often the clock is looked at: it may have been set, and the machine may have slept.
const TICK: Duration = Duration::from_secs(1);

/// How often it is looked at how all policies stand.
const LOOK: Duration = Duration::from_secs(60);

/// How often it is looked for buckets that are new.
const DISCOVER: Duration = Duration::from_secs(300);

/// Pauses before a run that failed is tried again, until its next scheduled time.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(900), Duration::from_secs(3600)];

/// Where a configuration comes from, each time it is asked for.
pub type Load = Box<dyn Fn() -> Result<Config> + Send>;

/// Runs policies when they are due.
#[derive(Debug)]
pub struct Server {
    host: Host,
    /// What the file says.
    said: Config,
    /// How often it was read again.
    readings: usize,
    /// The same with the policies of the buckets that were found.
    config: Config,
    /// What went wrong when they were looked for.
    troubles: Vec<String>,
    watched: BTreeMap<String, Watched>,
    permits: Arc<Semaphore>,
    /// What is to come to an end before the program does.
    runs: JoinSet<Done>,
    /// What is not.
    chores: JoinSet<Done>,
    cancel: CancellationToken,
    estate: watch::Sender<Option<Estate>>,
    /// It is being looked at how all policies stand.
    looking: bool,
    /// It has to be looked once more: there are others now.
    look_again: bool,
}

/// A policy between its runs.
#[derive(Debug, Default)]
struct Watched {
    /// All that was scheduled up to here is done; unknown until its target could be asked.
    done_until: Option<Timestamp>,
    /// A run is under way.
    busy: bool,
    /// A run that failed is tried again then.
    again: Option<Instant>,
    /// Runs that failed one after the other.
    failures: usize,
    /// Its hooks know that it is stale.
    stale_told: bool,
}

/// What a task found out.
#[derive(Debug)]
enum Done {
    /// It ran for this scheduled time.
    Ran { policy: String, due: Timestamp, outcome: Result<()> },
    /// All policies were looked at.
    Surveyed(Estate),
    /// Buckets were looked for, for what the file said when it was read for this time, which had just been so or not.
    Discovered { reading: usize, read_again: bool, config: Config, troubles: Vec<String> },
    /// Hooks were told.
    Told,
}

impl Server {
    /// One for these policies.
    pub fn new(config: Config, host: Host, cancel: CancellationToken) -> Self {
        let permits = Arc::new(Semaphore::new(config.at_once));
        let (estate, _) = watch::channel(None);
        let (runs, chores) = (JoinSet::new(), JoinSet::new());
        Self {
            host,
            said: config.clone(),
            readings: 0,
            config,
            troubles: Vec::new(),
            watched: BTreeMap::new(),
            permits,
            runs,
            chores,
            cancel,
            estate,
            looking: false,
            look_again: false,
        }
    }

    /// How all policies stand, looked at again and again.
    pub fn estate(&self) -> watch::Receiver<Option<Estate>> {
        self.estate.subscribe()
    }

    /// Runs until it is cancelled; then what is under way is stopped where the next run can go on. A message on `reload` has
    /// the configuration read again; one that is wrong changes nothing.
    pub async fn serve(mut self, load: Load, mut reload: mpsc::Receiver<()>) {
        self.check(self.config.policies.clone());
        let (mut tick, mut look) = (tokio::time::interval(TICK), tokio::time::interval(LOOK));
        let mut discover = tokio::time::interval(DISCOVER);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => break,
                _ = tick.tick() => self.tick(),
                _ = look.tick() => self.look(),
                _ = discover.tick() => self.discover(false),
                Some(()) = reload.recv() => self.reload(&load),
                Some(done) = self.runs.join_next() => self.take(done),
                Some(done) = self.chores.join_next() => self.take(done),
            }
        }
        tracing::info!("stopping; runs under way: {}", self.runs.len());
        while let Some(done) = self.runs.join_next().await {
            self.take(done);
        }
    }

    fn reload(&mut self, load: &Load) {
        match load() {
            Ok(config) => {
                if config.listen != self.said.listen {
                    tracing::warn!("serve.listen changes with the next start only");
                }
                self.permits = Arc::new(Semaphore::new(config.at_once));
                self.said = config;
                self.readings += 1;
                self.discover(true);
            }
            Err(error) => tracing::error!("the configuration stays as it was: {error}"),
        }
    }

    /// Looks for the buckets that policies stand for.
    fn discover(&mut self, read_again: bool) {
        let (mut config, reading, state_dir) = (self.said.clone(), self.readings, self.host.state_dir.clone());
        self.chores.spawn(async move {
            let troubles = discover(&mut config, &state_dir, |family| family.settings.enabled)
                .await
                .iter()
                .map(ToString::to_string)
                .collect();
            Done::Discovered { reading, read_again, config, troubles }
        });
    }

    /// Goes on with these policies; those that were not there before are tried.
    fn take_over(&mut self, config: Config, troubles: Vec<String>, read_again: bool) {
        for trouble in troubles.iter().filter(|trouble| !self.troubles.contains(trouble)) {
            tracing::error!("{trouble}");
        }
        let before = std::mem::replace(&mut self.config, config);
        self.troubles = troubles;
        let policies = &self.config.policies;
        self.watched.retain(|name, watched| watched.busy || policies.iter().any(|policy| policy.name == *name));
        let new = |policy: &&Policy| read_again || before.policy(&policy.name).is_err();
        let new: Vec<Policy> = policies.iter().filter(new).cloned().collect();
        if read_again {
            tracing::info!("the configuration was read again: {} policies", policies.len());
        } else if !new.is_empty() {
            tracing::info!("buckets were found: {} policies more", new.len());
        }
        if read_again || !new.is_empty() || policies.len() != before.policies.len() {
            self.check(new);
            self.look();
        }
    }

    /// Tries what each policy needs, so that what is missing is known before the night.
    fn check(&mut self, policies: Vec<Policy>) {
        for policy in policies.into_iter().filter(|policy| policy.settings.enabled) {
            let host = self.host.clone();
            self.chores.spawn(async move {
                match policy::check(&policy, &host).await {
                    Ok(checked) if checked.state == Readiness::Enabled => {}
                    Ok(checked) => {
                        let wrong = checked.findings.iter().filter(|finding| !finding.works);
                        let wrong: Vec<String> = wrong
                            .map(|finding| format!("{} {}: {}", finding.side, finding.what, finding.detail))
                            .collect();
                        let message = format!("{}: {}", checked.state, wrong.join("; "));
                        tracing::warn!("{}: {message}", policy.name);
                        let event = policy.event(On::Partial, host.clock.now(), message);
                        tell(&policy.settings.hooks, &event).await;
                    }
                    Err(error) => tracing::warn!("{}: it cannot be checked: {error}", policy.name),
                }
                Done::Told
            });
        }
    }

    /// Starts what is due.
    fn tick(&mut self) {
        let now = self.host.clock.now();
        let mut due = Vec::new();
        for policy in &self.config.policies {
            let Some(schedule) = policy.settings.schedule.as_ref().filter(|_| policy.settings.enabled) else {
                continue;
            };
            let watched = self.watched.entry(policy.name.clone()).or_default();
            if watched.busy || watched.again.is_some_and(|again| again > Instant::now()) {
                continue;
            }
            let Some(since) = watched.done_until else { continue };
            // A clock that was set back goes over the same times again: what is due is found by its name then.
            watched.done_until = Some(since.min(now));
            if let Some(slot) = schedule.due(since.min(now), now) {
                watched.busy = true;
                due.push((policy.clone(), slot.timestamp()));
            }
        }
        for (policy, slot) in due {
            self.start(policy, slot);
        }
    }

    fn start(&mut self, policy: Policy, due: Timestamp) {
        let (host, permits, cancel) = (self.host.clone(), self.permits.clone(), self.cancel.child_token());
        self.runs.spawn(async move {
            let permit = cancel.run_until_cancelled(permits.acquire_owned()).await;
            let outcome = match permit {
                Some(Ok(_permit)) => {
                    tracing::info!("{}: running for {due}", policy.name);
                    let (ran, outcome) = run(&policy, due, &host, Arc::new(Progress::default()), cancel).await;
                    match &outcome {
                        Ok(()) => tracing::info!("{ran}"),
                        Err(error) => tracing::error!("{}: {error}", policy.name),
                    }
                    outcome
                }
                _ => Err(crate::run::stopped()),
            };
            Done::Ran { policy: policy.name, due, outcome }
        });
    }

    fn take(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Ran { policy, due, outcome }) => {
                let watched = self.watched.entry(policy).or_default();
                watched.busy = false;
                watched.after(due, outcome);
            }
            Ok(Done::Surveyed(estate)) => self.publish(estate.with_troubles(&self.troubles)),
            // A configuration that was read since has its own search under way.
            Ok(Done::Discovered { reading, .. }) if reading != self.readings => {}
            Ok(Done::Discovered { read_again, config, troubles, .. }) => self.take_over(config, troubles, read_again),
            Ok(Done::Told) => {}
            Err(error) => tracing::error!("a task of serve ended badly: {error}"),
        }
    }

    /// Looks how all policies stand.
    fn look(&mut self) {
        if std::mem::replace(&mut self.looking, true) {
            self.look_again = true;
            return;
        }
        let (policies, host) = (self.config.policies.clone(), self.host.clone());
        self.chores.spawn(async move { Done::Surveyed(Estate::survey(&policies, &host).await) });
    }

    /// Passes on how all policies stand, and tells of those that went stale.
    fn publish(&mut self, estate: Estate) {
        self.looking = false;
        for outlook in &estate.policies {
            let watched = self.watched.entry(outlook.policy.clone()).or_default();
            if watched.done_until.is_none() {
                watched.done_until = done_until(outlook, estate.now);
            }
            let stale = outlook.state.is_stale();
            if stale
                && !watched.stale_told
                && let Ok(policy) = self.config.policy(&outlook.policy)
            {
                let (hooks, event) = (policy.settings.hooks.clone(), outlook.stale_event(policy, estate.now));
                self.chores.spawn(async move {
                    tell(&hooks, &event).await;
                    Done::Told
                });
            }
            watched.stale_told = stale;
        }
        self.estate.send_replace(Some(estate));
        if std::mem::take(&mut self.look_again) {
            self.look();
        }
    }
}

/// Up to when a policy's runs are done: by its target, so that a new machine knows, too. None where that cannot be asked.
fn done_until(outlook: &Outlook, now: Timestamp) -> Option<Timestamp> {
    match (&outlook.sealed, &outlook.last) {
        _ if outlook.trouble.is_some() => None,
        (Some(sealed), _) => Some(sealed.taken),
        // A first run that came to nothing is due as soon as it can be.
        (None, Some(last)) if last.job.state != State::Finished => Some(Timestamp::UNIX_EPOCH),
        (None, _) => Some(now),
    }
}

impl Watched {
    /// What a run's end means for the next.
    fn after(&mut self, due: Timestamp, outcome: Result<()>) {
        self.again = None;
        let Err(error) = outcome else {
            self.failures = 0;
            self.done_until = Some(self.done_until.map_or(due, |since| since.max(due)));
            return;
        };
        if is_worth_another_try(&error) {
            let pause = PAUSES[self.failures.min(PAUSES.len() - 1)];
            self.failures += 1;
            self.again = Some(Instant::now() + pause);
        } else {
            // A person has to look at it; the next scheduled time is soon enough.
            self.failures = 0;
            self.done_until = Some(self.done_until.map_or(due, |since| since.max(due)));
        }
    }
}

/// True where time alone may help: for a target that another job has at the moment, but not for drift, a guard or a wrong URL,
/// and not where somebody stopped the run, or its own time was up.
fn is_worth_another_try(error: &Error) -> bool {
    (error.exit_code() == 1 && error.kind() != Kind::Cancelled) || error.kind() == Kind::Held
}

/// Where `serve` answers: `/metrics` for Prometheus, `/status` as JSON, `/healthz`.
pub fn router(estate: watch::Receiver<Option<Estate>>) -> axum::Router {
    use axum::http::{StatusCode, header};
    use axum::response::IntoResponse;
    use axum::routing::get;
    let (metrics, status) = (estate.clone(), estate);
    let metrics = move || {
        let text = metrics.borrow().as_ref().map(crate::metrics::text);
        async move {
            match text {
                Some(Ok(text)) => ([(header::CONTENT_TYPE, crate::metrics::MEDIA_TYPE)], text).into_response(),
                Some(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
                None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            }
        }
    };
    let status = move || {
        let json = status.borrow().as_ref().map(serde_json::to_string);
        async move {
            match json {
                Some(Ok(json)) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
                _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            }
        }
    };
    axum::Router::new()
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/healthz", get(|| async { "ok\n" }))
}
