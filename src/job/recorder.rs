//! Follows a run and writes down how it stands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Counts, Failure, Job, Jobs, Line, PhaseTime, Retried, State};
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};
use crate::progress::{Level, Phase, Progress};

/// How often the numbers are written, and a wish to end looked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often a job that stands still is written, so that it is known to be alive.
const ALIVE: Duration = Duration::from_secs(10);

/// Lines that wait while the catalogue cannot be written.
const WAITING_MAX: usize = 1000;

/// Does the `work` of a job and keeps its record meanwhile: the one way in which every kind of run is recorded. `work` must
/// count in `progress` and stop on `cancel`, which is cancelled when somebody asks for the job's end or its time is up.
pub async fn recorded<T>(
    jobs: &Jobs,
    job: Job,
    progress: &Arc<Progress>,
    cancel: &CancellationToken,
    work: impl Future<Output = (T, Result<()>)>,
) -> (T, Result<()>) {
    let recorder = Recorder::start(jobs.clone(), job, progress.clone(), cancel.clone()).await;
    let (done, outcome) = work.await;
    (done, recorder.finish(outcome).await)
}

/// Writes down how one job stands: each phase as it begins, the numbers once a second, and how it ends. A catalogue that
/// cannot be written is a warning, no more. Dropped before its end is said, it says that the run broke off.
#[derive(Debug)]
pub struct Recorder {
    /// Ends with the error that takes the place of the run's own, if one does.
    follower: JoinHandle<Option<Error>>,
    end: oneshot::Sender<End>,
}

/// The error that a run ended with, if it did with one.
type End = Option<(Kind, Failure)>;

#[derive(Debug)]
struct Follower {
    jobs: Jobs,
    job: Job,
    progress: Arc<Progress>,
    cancel: CancellationToken,
    /// When the job was made, by a clock that never jumps.
    since: Instant,
    written: Instant,
    lines: Vec<Line>,
    timed_out: bool,
    warned: bool,
}

impl Recorder {
    /// Writes the job down and follows it from now on.
    pub async fn start(jobs: Jobs, job: Job, progress: Arc<Progress>, cancel: CancellationToken) -> Self {
        let now = Instant::now();
        let (lines, timed_out, warned) = (Vec::new(), false, false);
        let mut follower = Follower { jobs, job, progress, cancel, since: now, written: now, lines, timed_out, warned };
        let (jobs, job) = (follower.jobs.clone(), follower.job.clone());
        let added = blocking(move || jobs.add(&[job])).await;
        follower.check(added);
        let (end, ended) = oneshot::channel();
        Self { follower: tokio::spawn(follower.follow(ended)), end }
    }

    /// Writes down how the job ended. Gives back the outcome, which is another one where the job's time was up.
    pub async fn finish(self, outcome: Result<()>) -> Result<()> {
        let end = outcome.as_ref().err().map(|error| (error.kind(), Failure::from(error)));
        let _ = self.end.send(end);
        match self.follower.await {
            Ok(Some(instead)) => Err(instead),
            Ok(None) => outcome,
            Err(error) => {
                tracing::warn!("the job's record was left half-way: {error}");
                outcome
            }
        }
    }
}

impl Follower {
    async fn follow(mut self, mut ended: oneshot::Receiver<End>) -> Option<Error> {
        let deadline = self.job.timeout().map(|timeout| tokio::time::Instant::from_std(self.since + timeout));
        let time_up = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let mut time_up = std::pin::pin!(time_up);
        let progress = self.progress.clone();
        loop {
            tokio::select! {
                end = &mut ended => return self.finish(end.unwrap_or_else(|_| Some(broken_off()))).await,
                () = &mut time_up, if !self.timed_out => {
                    self.timed_out = true;
                    self.cancel.cancel();
                }
                () = progress.changed() => self.write().await,
                () = tokio::time::sleep(INTERVAL) => self.keep().await,
            }
        }
    }

    /// Writes if something is new, and looks whether somebody wants the job to end.
    async fn keep(&mut self) {
        if self.observe() || self.written.elapsed() >= ALIVE {
            return self.write().await;
        }
        let (jobs, id) = (self.jobs.clone(), self.job.id.clone());
        let wish = blocking(move || jobs.wish(&id)).await;
        if let Some(Some(_)) = self.check(wish) {
            self.cancel.cancel();
        }
    }

    async fn write(&mut self) {
        self.observe();
        self.job.seen = self.at(Instant::now());
        let (jobs, job, lines) = (self.jobs.clone(), self.job.clone(), std::mem::take(&mut self.lines));
        let outcome = blocking(move || match jobs.update(&job, &lines) {
            Ok(wish) => Ok((wish, Vec::new(), None)),
            Err(error) => Ok((None, lines, Some(error))),
        });
        let Some((wish, lines, error)) = outcome.await.ok() else { return };
        self.lines = lines;
        self.written = Instant::now();
        self.check(error.map_or(Ok(()), Err));
        if wish.is_some() && !self.job.state.is_ended() {
            self.cancel.cancel();
        }
        self.job.cancel = wish.or(self.job.cancel.take());
    }

    /// Takes over what the run has done by now; true when something is new.
    fn observe(&mut self) -> bool {
        let (phases, counts) = (self.progress.phases(), Counts::from(&*self.progress));
        let mut new = counts != self.job.progress || phases.len() != self.job.phases.len();
        let ends = phases.iter().skip(1).map(|(_, at)| *at).chain([Instant::now()]);
        self.job.phases = phases
            .iter()
            .zip(ends)
            .map(|((phase, at), end)| {
                let took_ms = end.saturating_duration_since(*at).as_millis() as u64;
                PhaseTime { phase: *phase, began: self.at(*at), took_ms }
            })
            .collect();
        self.job.state = State::Running(phases.last().map_or(Phase::Pending, |(phase, _)| *phase));
        self.job.progress = counts;
        self.job.snapshot = self.progress.snapshot().cloned().or(self.job.snapshot.take());
        self.job.goes_on = self.progress.goes_on().map(str::to_owned);
        let retried = self.progress.last_retried();
        self.job.retried = retried.into_iter().map(|(at, message)| Retried { at: self.at(at), message }).collect();
        let notes = self.progress.take_notes();
        new |= !notes.is_empty();
        for note in notes {
            self.say(note.at, note.level, note.text);
        }
        new
    }

    fn say(&mut self, at: Instant, level: Level, text: String) {
        if self.lines.len() < WAITING_MAX {
            self.lines.push(Line { at: self.at(at), level, text });
        }
    }

    async fn finish(mut self, end: End) -> Option<Error> {
        // A run that was done before it heard of its end is done.
        let cancelled = matches!(end, Some((Kind::Cancelled, _)));
        let instead = (cancelled && self.timed_out).then(|| self.timed_out());
        let failure = instead.as_ref().map(Failure::from).or(end.map(|(_, failure)| failure));
        let now = Instant::now();
        self.observe();
        let (state, level, text) = match &failure {
            None => (State::Finished, Level::Info, self.summary()),
            Some(failure) if cancelled && !self.timed_out => (State::Cancelled, Level::Error, failure.message.clone()),
            Some(failure) => (State::Failed, Level::Error, failure.message.clone()),
        };
        self.job.error = failure;
        self.job.ended = Some(self.at(now));
        self.say(now, level, format!("{state}: {text}"));
        self.end(state).await;
        instead
    }

    /// The last write, which is no running state's.
    async fn end(mut self, state: State) {
        self.job.state = state;
        self.job.seen = self.job.ended.unwrap_or(self.job.seen);
        let (jobs, job, lines) = (self.jobs.clone(), self.job.clone(), std::mem::take(&mut self.lines));
        let written = blocking(move || jobs.update(&job, &lines)).await;
        self.check(written);
    }

    fn timed_out(&self) -> Error {
        let after = self.job.timeout_s.unwrap_or_default();
        Error::new(Kind::Cancelled, format!("timed out after {after} s"))
            .hint("run the same command again to go on, or allow it more time")
    }

    fn summary(&self) -> String {
        let Counts { objects_copied, bytes_copied, bytes_reused, retries, .. } = self.job.progress;
        let (copied, reused) = (crate::report::Bytes(bytes_copied), crate::report::Bytes(bytes_reused));
        format!("copied {objects_copied} objects, {copied}; already there {reused}; {retries} retries")
    }

    /// When that was by the clock of day.
    fn at(&self, instant: Instant) -> Timestamp {
        let after = SignedDuration::try_from(instant.saturating_duration_since(self.since)).unwrap_or_default();
        self.job.created.checked_add(after).unwrap_or(self.job.created)
    }

    /// Warns of the first failure: the run goes on without a record.
    fn check<T>(&mut self, outcome: Result<T>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                if self.warned {
                    tracing::debug!("the job cannot be recorded: {error}");
                } else {
                    tracing::warn!("the job cannot be recorded, and goes on all the same: {error}");
                }
                self.warned = true;
                None
            }
        }
    }
}

fn broken_off() -> (Kind, Failure) {
    let error = Error::internal("the run broke off");
    (error.kind(), Failure::from(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Cancel, Kind as JobKind};

    fn job(jobs: &Jobs, timeout_s: Option<u64>) -> (Jobs, Job) {
        let created = "2026-11-21T03:00:00Z".parse().unwrap();
        (jobs.clone(), Job { timeout_s, ..Job::new("job-1".into(), JobKind::Sync, "/target", created) })
    }

    /// A run that ends when it is told to.
    async fn until_told(cancel: CancellationToken) -> ((), Result<()>) {
        let told = tokio::time::timeout(Duration::from_secs(20), cancel.cancelled()).await;
        told.expect("nobody told it to stop");
        ((), Err(Error::new(Kind::Cancelled, "stopped on request")))
    }

    #[tokio::test]
    async fn what_a_run_says_is_in_its_record() {
        let folder = tempfile::tempdir().unwrap();
        let (jobs, job) = job(&Jobs::at(folder.path()), None);
        let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
        let work = async {
            progress.enter(Phase::Copying);
            progress.works_on(&"night".parse().unwrap());
            for number in 0..200 {
                progress.retried(&Error::new(Kind::Throttled, format!("slow down {number}")));
            }
            // The record follows without anybody asking for it.
            let deadline = Instant::now() + Duration::from_secs(20);
            while jobs.get("job-1").unwrap().is_none_or(|job| job.progress.retries < 200) {
                assert!(Instant::now() < deadline, "it was not written");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(jobs.get("job-1").unwrap().unwrap().state, State::Running(Phase::Copying));
            progress.enter(Phase::Sealing);
            ((), Err(Error::new(Kind::Denied, "no way in").hint("ask for the key")))
        };
        let ((), outcome) = recorded(&jobs, job, &progress, &cancel, work).await;
        assert_eq!(outcome.unwrap_err().kind(), Kind::Denied);
        let job = jobs.get("job-1").unwrap().unwrap();
        assert_eq!((job.state, job.snapshot.unwrap().as_str()), (State::Failed, "night"));
        let hint = Some("ask for the key".to_owned());
        assert_eq!(job.error.unwrap(), Failure { message: "no way in".into(), hint, exit_code: 1 });
        let retried: Vec<&str> = job.retried.iter().map(|retried| retried.message.as_str()).collect();
        assert_eq!((retried.len(), retried[0], retried[9]), (10, "slow down 190", "slow down 199"));
        let phases: Vec<Phase> = job.phases.iter().map(|phase| phase.phase).collect();
        assert_eq!(phases, [Phase::Copying, Phase::Sealing]);
        assert!(job.created <= job.phases[0].began && job.phases[1].began <= job.ended.unwrap());
        let log: Vec<String> = jobs.log("job-1", None).unwrap().into_iter().map(|(_, line)| line.text).collect();
        assert_eq!((log[0].as_str(), log[1].as_str()), ("COPYING", "tried again: slow down 0"));
        assert!(log.iter().any(|line| line.starts_with("and ")), "what was too much is counted: {log:?}");
        assert_eq!(log.last().unwrap(), "FAILED: no way in");
    }

    #[tokio::test]
    async fn a_run_whose_time_is_up_fails() {
        let folder = tempfile::tempdir().unwrap();
        let (jobs, job) = job(&Jobs::at(folder.path()), Some(1));
        let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
        let ((), outcome) = recorded(&jobs, job, &progress, &cancel, until_told(cancel.clone())).await;
        assert_eq!(outcome.unwrap_err().to_string(), "timed out after 1 s");
        let job = jobs.get("job-1").unwrap().unwrap();
        assert_eq!((job.state, job.error.unwrap().message.as_str()), (State::Failed, "timed out after 1 s"));
    }

    #[tokio::test]
    async fn a_wish_to_end_reaches_a_run_that_stands_still() {
        let folder = tempfile::tempdir().unwrap();
        let (jobs, job) = job(&Jobs::at(folder.path()), None);
        let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
        let work = async {
            let wish = Cancel { by: "somebody".into(), at: Timestamp::UNIX_EPOCH };
            jobs.cancel("job-1", &wish).unwrap();
            until_told(cancel.clone()).await
        };
        let ((), outcome) = recorded(&jobs, job, &progress, &cancel, work).await;
        assert_eq!(outcome.unwrap_err().kind(), Kind::Cancelled);
        let job = jobs.get("job-1").unwrap().unwrap();
        assert_eq!((job.state, job.cancel.unwrap().by.as_str()), (State::Cancelled, "somebody"));
    }

    #[tokio::test]
    async fn a_run_that_was_done_when_it_was_told_to_end_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let (jobs, job) = job(&Jobs::at(folder.path()), Some(0));
        let (progress, cancel) = (Arc::new(Progress::default()), CancellationToken::new());
        let work = async {
            until_told(cancel.clone()).await.1.unwrap_err();
            ((), Ok(()))
        };
        let ((), outcome) = recorded(&jobs, job, &progress, &cancel, work).await;
        assert!(outcome.is_ok());
        assert_eq!(jobs.get("job-1").unwrap().unwrap().state, State::Finished);
    }

    #[tokio::test]
    async fn a_run_that_breaks_off_does_not_seem_to_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let (jobs, job) = job(&Jobs::at(folder.path()), None);
        let recorder = Recorder::start(jobs.clone(), job, Arc::default(), CancellationToken::new()).await;
        drop(recorder);
        let deadline = Instant::now() + Duration::from_secs(20);
        while jobs.get("job-1").unwrap().unwrap().state != State::Failed {
            assert!(Instant::now() < deadline, "it seems to run");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(jobs.get("job-1").unwrap().unwrap().error.unwrap().message, "the run broke off");
    }
}
