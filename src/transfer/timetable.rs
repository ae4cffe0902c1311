//! A limit on bytes per second that changes with the time of day: pure, the moment is given.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};

use crate::units::Size;

/// Days to look ahead for a change: a week, and another one, for a clock that is put forward may leave a period out.
const DAYS_AHEAD: i64 = 15;

/// The days of a week, as they are written.
const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Which limit holds when. The default is none at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timetable {
    zone: TimeZone,
    periods: Vec<Period>,
    otherwise: Option<u64>,
}

impl Default for Timetable {
    fn default() -> Self {
        Self { zone: TimeZone::UTC, periods: Vec::new(), otherwise: None }
    }
}

/// A part of some days, by the clock on the wall, and the limit in it. It is written `08:00-18:00 mon-fri 50MB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// When it begins.
    pub from: Time,
    /// When it ends: on the next day, unless that is later than `from`.
    pub to: Time,
    /// The days on which it begins.
    pub days: Days,
    /// Bytes per second; none: no limit.
    pub rate: Option<u64>,
}

/// Some days of a week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days(u8);

impl Days {
    /// All seven.
    pub const ALL: Self = Self(0b111_1111);

    /// True for these days.
    pub fn contains(self, day: Weekday) -> bool {
        self.0 & Self::bit(day.to_monday_zero_offset()) != 0
    }

    fn bit(day: i8) -> u8 {
        1 << day.rem_euclid(7)
    }
}

impl Timetable {
    /// The limit is that of the first period that holds, in this time zone, and otherwise this one (in bytes per second).
    pub fn new(zone: TimeZone, periods: Vec<Period>, otherwise: Option<u64>) -> Self {
        Self { zone, periods, otherwise }
    }

    /// The same limit at all times, in bytes per second.
    pub fn constant(rate: u64) -> Self {
        Self { otherwise: Some(rate), ..Self::default() }
    }

    /// True when the limit never changes.
    pub fn is_constant(&self) -> bool {
        self.periods.is_empty()
    }

    /// The limit at this moment, in bytes per second; none: no limit.
    pub fn rate_at(&self, moment: Timestamp) -> Option<u64> {
        let now = self.zone.to_datetime(moment);
        let holds = self.periods.iter().find(|period| period.holds(now.date(), now.time()));
        holds.map_or(self.otherwise, |period| period.rate)
    }

    /// The next moment from which another limit holds, if there will be one.
    pub fn next_change(&self, moment: Timestamp) -> Option<Timestamp> {
        let now = self.rate_at(moment);
        let today = self.zone.to_datetime(moment).date();
        let end = moment.checked_add(Span::new().hours(24 * DAYS_AHEAD)).unwrap_or(Timestamp::MAX);
        let mut changes: Vec<Timestamp> =
            self.zone.following(moment).map(|change| change.timestamp()).take_while(|change| *change <= end).collect();
        for date in (0..=DAYS_AHEAD).filter_map(|days| today.checked_add(days.days()).ok()) {
            for time in self.periods.iter().flat_map(|period| [period.from, period.to]) {
                // Where clocks are put back, a time comes twice.
                let twice = self.zone.to_ambiguous_timestamp(date.to_datetime(time));
                changes.extend([twice.earlier(), twice.later()].into_iter().flatten());
            }
        }
        changes.sort_unstable();
        changes.into_iter().find(|change| *change > moment && self.rate_at(*change) != now)
    }
}

impl Period {
    fn holds(&self, date: Date, time: Time) -> bool {
        let begins_on = |date: Date| self.days.contains(date.weekday());
        if self.from < self.to {
            return begins_on(date) && self.from <= time && time < self.to;
        }
        (self.from <= time && begins_on(date)) || (time < self.to && date.yesterday().is_ok_and(begins_on))
    }
}

impl FromStr for Period {
    type Err = String;

    /// Reads `08:00-18:00 mon-fri 50MB`: the time, the days if not all, and the limit per second or `unlimited`.
    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (span, days, rate) = match words[..] {
            [span, rate] => (span, Days::ALL, rate),
            [span, days, rate] => (span, days.parse()?, rate),
            _ => {
                return Err(format!(
                    "`{text}` is no period of a day: write 08:00-18:00 mon-fri 50MB, or 22:00-06:00 unlimited"
                ));
            }
        };
        let (from, to) =
            span.split_once('-').ok_or_else(|| format!("`{span}` is no time from and to: write 08:00-18:00"))?;
        // The end of a day is the beginning of the next.
        let to = if to == "24:00" { Time::midnight() } else { time(to)? };
        let rate = match rate {
            "unlimited" => None,
            rate => Some(rate.strip_suffix("/s").unwrap_or(rate).parse::<Size>()?.0),
        };
        Ok(Self { from: time(from)?, to, days, rate })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from.strftime("%H:%M"), self.to.strftime("%H:%M"))?;
        if self.days != Days::ALL {
            write!(f, " {}", self.days)?;
        }
        match self.rate {
            Some(rate) => write!(f, " {rate}"),
            None => f.write_str(" unlimited"),
        }
    }
}

fn time(text: &str) -> Result<Time, String> {
    Time::strptime("%H:%M", text)
        .map_err(|_| format!("`{text}` is no time of day: write it as 08:00, from 00:00 to 23:59"))
}

impl FromStr for Days {
    type Err = String;

    /// Reads `mon-fri`, `sat,sun` or `mon-wed,fri`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut days = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (day(first)?, day(last)?);
            for after in 0..=(last - first).rem_euclid(7) {
                days |= Self::bit(first + after);
            }
        }
        Ok(Self(days))
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = NAMES.iter().enumerate().filter(|(day, _)| self.0 & 1 << day != 0);
        let names: Vec<&str> = days.map(|(_, name)| *name).collect();
        f.write_str(&names.join(","))
    }
}

/// Days since Monday.
fn day(text: &str) -> Result<i8, String> {
    let place = NAMES.iter().position(|name| name.eq_ignore_ascii_case(text));
    place.and_then(|place| i8::try_from(place).ok()).ok_or_else(|| {
        format!("`{text}` is no day of the week: write {}, several as mon-fri or sat,sun", NAMES.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(zone: &str, periods: &[&str], otherwise: Option<u64>) -> Timetable {
        let periods = periods.iter().map(|period| period.parse().unwrap()).collect();
        Timetable::new(TimeZone::get(zone).unwrap(), periods, otherwise)
    }

    fn at(text: &str) -> Timestamp {
        text.parse::<jiff::Zoned>().unwrap().timestamp()
    }

    #[test]
    fn periods_are_written_by_people() {
        let period: Period = "08:00-18:00 mon-fri 50MB".parse().unwrap();
        let (from, to) = (Time::constant(8, 0, 0, 0), Time::constant(18, 0, 0, 0));
        assert_eq!(period, Period { from, to, days: Days(0b001_1111), rate: Some(50_000_000) });
        assert_eq!(period.to_string(), "08:00-18:00 mon,tue,wed,thu,fri 50000000");
        for (text, days) in [("sat,sun", 0b110_0000), ("fri-mon", 0b111_0001), ("Mon-wed,FRI", 0b001_0111)] {
            assert_eq!(text.parse::<Days>().unwrap(), Days(days), "{text}");
        }
        assert_eq!("22:00-24:00 1M/s".parse::<Period>().unwrap().to, Time::midnight());
        assert_eq!("22:00-06:00 unlimited".parse::<Period>().unwrap().rate, None);
        for (bad, says) in [
            ("", "no period"),
            ("08:00-18:00", "no period"),
            ("08:00-18:00 mon fri 5M", "no period"),
            ("08:00 5M", "from and to"),
            ("8-18 5M", "no time of day"),
            ("08:00-25:00 5M", "no time of day"),
            ("24:00-08:00 5M", "no time of day"),
            ("08:00-18:00 mon-xyz 5M", "no day"),
            ("08:00-18:00 mon, 5M", "no day"),
            ("08:00-18:00 fast", "no size"),
            ("08:00-18:00 0", "out of range"),
        ] {
            let error = bad.parse::<Period>().unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn office_hours_by_the_clock_on_the_wall() {
        let table = table("Europe/Berlin", &["08:00-18:00 mon-fri 50MB", "22:00-06:00 sat 1k"], None);
        // 2026-11-20 is a Friday.
        for (moment, rate) in [
            ("2026-11-20T07:59:59+01:00[Europe/Berlin]", None),
            ("2026-11-20T08:00:00+01:00[Europe/Berlin]", Some(50_000_000)),
            ("2026-11-20T17:59:59+01:00[Europe/Berlin]", Some(50_000_000)),
            ("2026-11-20T18:00:00+01:00[Europe/Berlin]", None),
            ("2026-11-21T12:00:00+01:00[Europe/Berlin]", None),
            ("2026-11-21T22:00:00+01:00[Europe/Berlin]", Some(1024)),
            ("2026-11-22T05:59:59+01:00[Europe/Berlin]", Some(1024)),
            ("2026-11-22T06:00:00+01:00[Europe/Berlin]", None),
            ("2026-11-22T22:00:00+01:00[Europe/Berlin]", None),
            // Summer time: the wall counts.
            ("2026-07-03T08:00:00+02:00[Europe/Berlin]", Some(50_000_000)),
        ] {
            assert_eq!(table.rate_at(at(moment)), rate, "{moment}");
        }
        let saturday = at("2026-11-21T00:00:00+01:00[Europe/Berlin]");
        assert_eq!(table.next_change(saturday), Some(at("2026-11-21T22:00:00+01:00[Europe/Berlin]")));
    }

    #[test]
    fn clocks_that_are_put_forward_and_back() {
        let table = table("Europe/Berlin", &["02:30-04:00 1k"], None);
        // Half past two does not come on this night: the period begins when the clock jumps over it.
        let jump = at("2026-03-29T03:00:00+02:00[Europe/Berlin]");
        assert_eq!(table.next_change(at("2026-03-29T00:00:00+01:00[Europe/Berlin]")), Some(jump));
        // And on this one it comes twice.
        let first = at("2026-10-25T02:30:00+02:00[Europe/Berlin]");
        assert_eq!(table.next_change(at("2026-10-25T00:00:00+02:00[Europe/Berlin]")), Some(first));
        let back = at("2026-10-25T02:00:00+01:00[Europe/Berlin]");
        assert_eq!(table.next_change(first), Some(back));
        assert_eq!(table.next_change(back), Some(at("2026-10-25T02:30:00+01:00[Europe/Berlin]")));
    }

    #[test]
    fn some_never_change() {
        let now = at("2026-11-20T08:00:00Z[UTC]");
        assert_eq!((Timetable::default().rate_at(now), Timetable::default().next_change(now)), (None, None));
        assert_eq!((Timetable::constant(7).rate_at(now), Timetable::constant(7).next_change(now)), (Some(7), None));
        let whole = table("UTC", &["00:00-24:00 1k"], Some(1024));
        assert_eq!((whole.rate_at(now), whole.next_change(now)), (Some(1024), None));
        let daily = table("UTC", &["09:00-09:00 1k"], None);
        assert_eq!((daily.rate_at(now), daily.next_change(now)), (Some(1024), None));
    }

    fn periods() -> impl Strategy<Value = Period> {
        let time = (0..24i8, 0..4i8).prop_map(|(hour, quarter)| Time::constant(hour, quarter * 15, 0, 0));
        let rate = proptest::option::of(1..5u64);
        (time.clone(), time, 1..128u8, rate).prop_map(|(from, to, days, rate)| Period {
            from,
            to,
            days: Days(days),
            rate,
        })
    }

    proptest! {
        #[test]
        fn periods_read_back(period in periods()) {
            prop_assert_eq!(period.to_string().parse::<Period>().unwrap(), period);
        }

        /// Between now and the next change nothing changes, and then something does; also where clocks are put forward or
        /// back, by an hour or by half of one.
        #[test]
        fn the_next_change_is_the_next(
            periods in proptest::collection::vec(periods(), 0..4),
            otherwise in proptest::option::of(1..5u64),
            zone in prop_oneof![Just("Europe/Berlin"), Just("Australia/Lord_Howe"), Just("America/New_York"), Just("UTC")],
            around in prop_oneof![
                Just("2026-03-29T00:00:00Z"), Just("2026-10-25T00:00:00Z"), Just("2026-04-04T12:00:00Z"), Just("2026-11-01T00:00:00Z"),
            ],
            minutes in -3000..3000i64,
        ) {
            let table = Timetable::new(TimeZone::get(zone).unwrap(), periods, otherwise);
            let moment = around.parse::<Timestamp>().unwrap() + minutes.minutes();
            let now = table.rate_at(moment);
            let change = table.next_change(moment);
            // Minute by minute, for as long as a week.
            let end = moment + (24 * 7).hours();
            let mut minute = moment;
            while minute < change.unwrap_or(end).min(end) {
                prop_assert_eq!(table.rate_at(minute), now, "it changed before {:?}, at {}", change, minute);
                minute += 1.minute();
            }
            if let Some(change) = change {
                prop_assert_ne!(table.rate_at(change), now);
            }
        }
    }
}
