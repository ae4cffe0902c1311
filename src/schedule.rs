//! When a policy runs: a cron pattern in a time zone. Pure.
//!
//! What a daylight saving change does to it is what cron has always done: a time of day that a spring night leaves out
//! runs at the first moment after it, one that an autumn night has twice runs once; a pattern that repeats (`*`) keeps to
//! the clock on the wall.

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use croner::parser::{CronParser, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// A cron pattern in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    text: String,
}

impl Schedule {
    /// Reads a cron pattern of five fields (six with seconds first), or `@hourly`, `@daily`, `@weekly`, `@monthly`,
    /// `@yearly`.
    ///
    /// # Errors
    /// What is wrong, in words that say what to write.
    pub fn parse(text: &str, zone: TimeZone) -> Result<Self, String> {
        let parser = CronParser::builder().year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| {
            format!("`{text}` is no schedule: {error}; write `0 2 * * *` (minute hour day month weekday) or @daily")
        })?;
        let schedule = Self { cron, zone, text: text.into() };
        match schedule.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(format!("`{text}` never comes")),
        }
    }

    /// The time zone.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The same pattern in another zone.
    pub fn in_zone(self, zone: TimeZone) -> Self {
        Self { zone, ..self }
    }

    /// The first scheduled time after this moment.
    pub fn next(&self, after: Timestamp) -> Option<Zoned> {
        self.cron.find_next_occurrence(&after.to_zoned(self.zone.clone()), false).ok()
    }

    /// The last scheduled time up to this moment.
    pub fn last(&self, until: Timestamp) -> Option<Zoned> {
        // What lies between the seconds is beyond a cron pattern.
        let until = Timestamp::from_second(until.as_second()).unwrap_or(until);
        let last = self.cron.find_previous_occurrence(&until.to_zoned(self.zone.clone()), true).ok()?;
        // Searched backwards, a time of day that a spring night leaves out is not found where it runs in its place.
        let moved = self.next(last.timestamp()).filter(|next| next.timestamp() <= until);
        Some(moved.unwrap_or(last))
    }

    /// What is to be done now, if all scheduled times up to `since` are done: the newest of those missed, so that
    /// whoever slept through several runs once.
    pub fn due(&self, since: Timestamp, now: Timestamp) -> Option<Zoned> {
        self.last(now).filter(|last| last.timestamp() > since)
    }

    /// How long it is at least from one scheduled time to the one after the next, from this moment on: who has been
    /// without a run for longer has missed one.
    pub fn patience(&self, from: Timestamp) -> Option<SignedDuration> {
        let next = self.next(from)?.timestamp();
        let second = self.next(next)?.timestamp();
        Some(second.duration_since(from))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.zone.iana_name() {
            Some("UTC") | None => f.write_str(&self.text),
            Some(zone) => write!(f, "{} {zone}", self.text),
        }
    }
}

impl FromStr for Schedule {
    type Err = String;

    /// In UTC.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text, TimeZone::UTC)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn berlin(text: &str) -> Schedule {
        Schedule::parse(text, TimeZone::get("Europe/Berlin").unwrap()).unwrap()
    }

    /// All scheduled times in a span, as UTC.
    fn times(schedule: &Schedule, from: &str, to: &str) -> Vec<String> {
        let (mut now, end, mut times) = (at(from), at(to), Vec::new());
        while let Some(next) = schedule.next(now).map(|next| next.timestamp()).filter(|next| *next <= end) {
            times.push(next.to_string());
            now = next;
        }
        times
    }

    #[test]
    fn a_night_without_the_hour_runs_after_it() {
        // 02:00 to 03:00 is left out on 2026-03-29.
        assert_eq!(
            times(&berlin("30 2 * * *"), "2026-03-28T00:00:00Z", "2026-03-30T12:00:00Z"),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        let due = berlin("30 2 * * *").due(at("2026-03-28T01:30:00Z"), at("2026-03-29T05:00:00Z")).unwrap();
        assert_eq!(due.timestamp(), at("2026-03-29T01:00:00Z"));
    }

    #[test]
    fn a_night_with_the_hour_twice_runs_once() {
        // 02:00 to 03:00 comes twice on 2026-10-25.
        assert_eq!(
            times(&berlin("30 2 * * *"), "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z"),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        let schedule = berlin("30 2 * * *");
        assert!(schedule.due(at("2026-10-25T00:30:05Z"), at("2026-10-25T01:30:05Z")).is_none());
        assert_eq!(times(&berlin("0 * * * *"), "2026-10-24T23:30:00Z", "2026-10-25T02:30:00Z").len(), 3);
    }

    #[test]
    fn what_was_slept_through_is_done_once() {
        let schedule: Schedule = "0 2 * * *".parse().unwrap();
        let now = at("2026-11-24T09:00:00Z");
        let due = schedule.due(at("2026-11-20T02:00:10Z"), now).unwrap();
        assert_eq!(due.timestamp(), at("2026-11-24T02:00:00Z"));
        assert!(schedule.due(due.timestamp(), now).is_none());
        // A clock that was set back does nothing again.
        assert!(schedule.due(due.timestamp(), at("2026-11-24T01:00:00Z")).is_none());
    }

    #[test]
    fn nicknames_and_mistakes() {
        for good in ["@hourly", "@daily", "@weekly", "@monthly", "@yearly", "*/5 * * * *", "0 0 2 * * MON-FRI"] {
            assert!(good.parse::<Schedule>().is_ok(), "{good}");
        }
        for bad in ["", "@never", "61 * * * *", "* * * *", "0 2 30 2 *", "every day", "0 0 2 * * * 2026"] {
            assert!(bad.parse::<Schedule>().is_err(), "{bad}");
        }
    }

    proptest! {
        /// Whatever the season: the newest time up to now is one of the schedule's, and there is none between it and now.
        #[test]
        fn the_last_is_the_one_before_the_next(
            hour in 0..24_u8,
            minute in 0..60_u8,
            every in any::<bool>(),
            now in 1_770_000_000_i64..1_810_000_000,
        ) {
            let hours = if every { "*".to_owned() } else { hour.to_string() };
            let schedule = berlin(&format!("{minute} {hours} * * *"));
            let now = Timestamp::from_second(now).unwrap();
            let last = schedule.last(now).unwrap().timestamp();
            prop_assert!(last <= now);
            prop_assert!(schedule.next(last).unwrap().timestamp() > now);
            let before = last.checked_sub(SignedDuration::from_secs(1)).unwrap();
            prop_assert_eq!(schedule.next(before).unwrap().timestamp(), last);
        }
    }
}
