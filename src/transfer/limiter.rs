//! How much goes on at once: up while it helps, down when the store asks for less.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a setting is tried before it is judged.
const TRIAL: Duration = Duration::from_millis(250);

/// Work that must be done in a trial for it to mean anything.
const TRIAL_WORK_MIN: u64 = 16;

/// A setting counts as better from this gain on.
const GAIN: f64 = 1.05;

/// After the store asked for less, it is left alone for so long.
const REST: Duration = Duration::from_secs(5);

/// A limit on how many operations are under way, that finds its own height.
#[derive(Debug, Clone)]
pub(super) struct Limiter {
    semaphore: Arc<Semaphore>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    min: usize,
    max: usize,
    /// Permits to take out of circulation when they come back.
    debt: usize,
    since: Instant,
    done: u64,
    rate_before: f64,
    rising: bool,
    rest_until: Option<Instant>,
}

impl Limiter {
    /// Starts at `start` and stays between 1 and `max`.
    pub(super) fn new(start: usize, max: usize) -> Self {
        let max = max.max(1);
        let limit = start.clamp(1, max);
        let state = State {
            limit,
            min: 1,
            max,
            debt: 0,
            since: Instant::now(),
            done: 0,
            rate_before: 0.0,
            rising: true,
            rest_until: None,
        };
        Self { semaphore: Arc::new(Semaphore::new(limit)), state: Arc::new(Mutex::new(state)) }
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.semaphore.clone().acquire_owned().await.ok()
    }

    /// An operation is done: `work` is what it moved (bytes and a constant share for the request).
    pub(super) fn done(&self, permit: OwnedSemaphorePermit, work: u64) {
        let mut state = self.lock();
        state.done += work;
        if state.debt > 0 {
            state.debt -= 1;
            permit.forget();
        } else {
            drop(permit);
        }
        let elapsed = state.since.elapsed();
        if elapsed < TRIAL || state.done < TRIAL_WORK_MIN {
            return;
        }
        let rate = state.done as f64 / elapsed.as_secs_f64();
        let resting = state.rest_until.is_some_and(|until| Instant::now() < until);
        if !resting {
            let better = rate > state.rate_before * GAIN;
            if !better && state.rate_before > 0.0 {
                state.rising = !state.rising;
            }
            let step = (state.limit / 4).max(1);
            let wanted = if state.rising { state.limit + step } else { state.limit.saturating_sub(step) };
            self.set(&mut state, wanted);
        }
        state.rate_before = rate;
        state.done = 0;
        state.since = Instant::now();
    }

    /// The store asked for less.
    pub(super) fn throttled(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        // Many requests hear of one overload: only the first of them counts.
        if state.rest_until.is_some_and(|until| now + REST / 2 < until) {
            return;
        }
        state.rest_until = Some(now + REST);
        let wanted = state.limit / 2;
        self.set(&mut state, wanted);
    }

    #[cfg(test)]
    fn limit(&self) -> usize {
        self.lock().limit
    }

    fn set(&self, state: &mut State, wanted: usize) {
        let wanted = wanted.clamp(state.min, state.max);
        if wanted > state.limit {
            let more = wanted - state.limit;
            let paid = more.min(state.debt);
            state.debt -= paid;
            self.semaphore.add_permits(more - paid);
        } else {
            let fewer = state.limit - wanted;
            state.debt += fewer - self.semaphore.forget_permits(fewer);
        }
        state.limit = wanted;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn throttling_halves_once_per_overload() {
        let limiter = Limiter::new(16, 64);
        let permits: Vec<_> = {
            let mut permits = Vec::new();
            for _ in 0..16 {
                permits.push(limiter.turn().await.unwrap());
            }
            permits
        };
        limiter.throttled();
        limiter.throttled();
        assert_eq!(limiter.limit(), 8);
        for permit in permits {
            limiter.done(permit, 1);
        }
        assert_eq!(limiter.semaphore.available_permits(), limiter.limit());
    }
}
