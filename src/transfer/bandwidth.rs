//! A limit on bytes per second.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// The grain of the limit, in bytes.
const GRAIN: u64 = 1024;

/// Lets bytes pass at a rate; nothing is held back without one.
#[derive(Debug, Default)]
pub(super) struct Bandwidth {
    limiter: Option<(DefaultDirectRateLimiter, u32)>,
}

impl Bandwidth {
    /// At most this many bytes a second, with bursts of a quarter of a second.
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        let limiter = bytes_per_second.map(|rate| {
            let rate = NonZeroU32::new(u32::try_from(rate / GRAIN).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
            let burst = NonZeroU32::new(rate.get() / 4).unwrap_or(NonZeroU32::MIN);
            (RateLimiter::direct(Quota::per_second(rate).allow_burst(burst)), burst.get())
        });
        Self { limiter }
    }

    /// Waits until this many bytes may pass.
    pub(super) async fn pass(&self, bytes: u64) {
        let Some((limiter, burst)) = &self.limiter else { return };
        let mut grains = bytes.div_ceil(GRAIN);
        while grains > 0 {
            let now = u32::try_from(grains).unwrap_or(u32::MAX).min(*burst);
            let Some(take) = NonZeroU32::new(now) else { return };
            if limiter.until_n_ready(take).await.is_err() {
                return;
            }
            grains -= u64::from(now);
        }
    }
}
