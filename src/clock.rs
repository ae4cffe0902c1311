//! The time of day, which comes from outside, so that a year of nights can be run in a minute.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

/// Tells the time: the machine's, or one that is set.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Microseconds since 1970, where the time is set.
    set: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// A clock that stands at this moment until it is set to another.
    pub fn at(moment: Timestamp) -> Self {
        Self { set: Some(Arc::new(AtomicI64::new(moment.as_microsecond()))) }
    }

    /// Sets the time, for all that share this clock. The machine's own cannot be set.
    pub fn set(&self, moment: Timestamp) {
        if let Some(set) = &self.set {
            set.store(moment.as_microsecond(), Ordering::Relaxed);
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.set {
            Some(set) => Timestamp::from_microsecond(set.load(Ordering::Relaxed)).unwrap_or_default(),
            None => Timestamp::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_clock_stands() {
        let (night, next) = ("2026-11-21T02:00:00Z".parse().unwrap(), "2026-11-22T02:00:00Z".parse().unwrap());
        let clock = Clock::at(night);
        let shared = clock.clone();
        assert_eq!(clock.now(), night);
        shared.set(next);
        assert_eq!(clock.now(), next);
        assert!(Clock::default().now() > night);
    }
}
