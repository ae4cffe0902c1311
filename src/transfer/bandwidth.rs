//! A limit on bytes per second.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::timetable::Timetable;
use crate::clock::Clock;

/// The grain of the limit, in bytes.
const GRAIN: u64 = 1024;

/// How often the timetable is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Lets bytes pass at the timetable's rate; nothing is held back without one.
#[derive(Debug)]
pub(super) struct Bandwidth {
    timetable: Timetable,
    clock: Clock,
    current: Mutex<Current>,
}

/// The rate that holds now.
#[derive(Debug)]
struct Current {
    rate: Option<u64>,
    gate: Option<Arc<Gate>>,
    looked: Instant,
}

/// Lets bytes pass at one rate.
#[derive(Debug)]
struct Gate {
    limiter: DefaultDirectRateLimiter,
    /// Grains that may pass at once: a quarter of a second's.
    burst: u32,
}

impl Gate {
    fn new(bytes_per_second: u64) -> Self {
        let grains = u32::try_from(bytes_per_second / GRAIN).unwrap_or(u32::MAX);
        let rate = NonZeroU32::new(grains).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(rate.get() / 4).unwrap_or(NonZeroU32::MIN);
        Self { limiter: RateLimiter::direct(Quota::per_second(rate).allow_burst(burst)), burst: burst.get() }
    }
}

impl Bandwidth {
    /// The rates of a timetable, by this clock.
    pub(super) fn new(timetable: Timetable, clock: Clock) -> Self {
        let rate = timetable.rate_at(clock.now());
        let gate = rate.map(|rate| Arc::new(Gate::new(rate)));
        Self { timetable, clock, current: Mutex::new(Current { rate, gate, looked: Instant::now() }) }
    }

    /// Waits until this many bytes may pass.
    pub(super) async fn pass(&self, bytes: u64) {
        let mut grains = bytes.div_ceil(GRAIN);
        while grains > 0 {
            let Some(gate) = self.gate() else { return };
            let now = u32::try_from(grains).unwrap_or(u32::MAX).min(gate.burst);
            let Some(take) = NonZeroU32::new(now) else { return };
            // Who waits looks at the clock, too: the limit may be another one by then.
            match tokio::time::timeout(LOOK, gate.limiter.until_n_ready(take)).await {
                Ok(Ok(())) => grains -= u64::from(now),
                Ok(Err(_)) => return,
                Err(_) => {}
            }
        }
    }

    /// What bytes have to pass now; nothing where there is no limit.
    fn gate(&self) -> Option<Arc<Gate>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.timetable.is_constant() && current.looked.elapsed() >= LOOK {
            current.looked = Instant::now();
            let rate = self.timetable.rate_at(self.clock.now());
            if rate != current.rate {
                tracing::info!(
                    "bandwidth: {}",
                    rate.map_or("no limit".into(), |rate| format!("{rate} bytes a second"))
                );
                (current.rate, current.gate) = (rate, rate.map(|rate| Arc::new(Gate::new(rate))));
            }
        }
        current.gate.clone()
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    fn day_and_night() -> (Bandwidth, Clock) {
        let clock = Clock::at("2026-11-21T12:00:00Z".parse().unwrap());
        let table = Timetable::new(TimeZone::UTC, vec!["08:00-18:00 64k".parse().unwrap()], None);
        (Bandwidth::new(table, clock.clone()), clock)
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_the_limit_ends() {
        let (bandwidth, clock) = day_and_night();
        let (pass, since) = (bandwidth.pass(64 << 20), Instant::now());
        let evening = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            clock.set("2026-11-21T18:00:00Z".parse().unwrap());
        };
        // By day it would take a quarter of an hour.
        tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(pass, evening) }).await.unwrap();
        assert!(since.elapsed() >= Duration::from_millis(200), "there was no limit by day");
    }

    #[tokio::test]
    async fn a_limit_that_begins_holds_for_what_comes() {
        let (bandwidth, clock) = day_and_night();
        clock.set("2026-11-21T07:59:59Z".parse().unwrap());
        tokio::time::sleep(LOOK).await;
        tokio::time::timeout(Duration::from_secs(5), bandwidth.pass(1 << 40)).await.unwrap();
        clock.set("2026-11-21T08:00:00Z".parse().unwrap());
        tokio::time::sleep(LOOK).await;
        let since = Instant::now();
        // What may pass at once, and half a second's more.
        bandwidth.pass((16 + 32) << 10).await;
        assert!(since.elapsed() >= Duration::from_millis(450), "{:?}", since.elapsed());
    }
}
