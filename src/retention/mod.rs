//! Which snapshots stay and which go: rules over what there is, without a clock and without a store.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};
use serde::{Serialize, Serializer};

use crate::snapshot::Name;

/// How long snapshots of one side are kept. A rule that is none or 0 is not there; without any rule everything stays.
///
/// A snapshot stays if any rule keeps it: rules add up, none takes away what another keeps.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The newest so many.
    pub keep_last: Option<u32>,
    /// The newest of each of the last so many hours that have one.
    pub hourly: Option<u32>,
    /// The newest of each of the last so many days that have one.
    pub daily: Option<u32>,
    /// The newest of each of the last so many weeks, from Monday as in ISO 8601, that have one.
    pub weekly: Option<u32>,
    /// The newest of each of the last so many months that have one.
    pub monthly: Option<u32>,
    /// The newest of each of the last so many years that have one.
    pub yearly: Option<u32>,
    /// Everything that is not older than this; its days are calendar days of the policy's zone. By itself: what is older
    /// goes. With other rules: what is older goes unless one of them keeps it, for to keep wins over the time to live.
    pub ttl: Option<Span>,
}

/// A snapshot to be decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: Name,
    /// When it was taken, or sealed.
    pub taken: Timestamp,
    /// Orders a bucket's snapshots whatever the clocks say; 0 where that is not known.
    pub sequence: u64,
    /// It counts for the rules: on a target, because it was proved and sealed; on a source every one counts.
    pub sealed: bool,
    /// Somebody holds it.
    pub held: bool,
    /// The next sync builds on it.
    pub base: bool,
    /// It matches the policy's pattern and was made by the policy.
    pub ours: bool,
}

/// What becomes of a snapshot, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The snapshot.
    pub name: Name,
    /// When it was taken, or sealed.
    pub taken: Timestamp,
    /// It stays.
    pub keep: bool,
    /// All that keeps it; or else all that lets it go. Never empty.
    pub reasons: Vec<Reason>,
}

/// A span of the calendar of which the newest snapshot is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Every {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week of ISO 8601.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

/// Why a snapshot stays or goes; displayed for people, and in JSON the same text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It is of the newest `keep`, the `place`th from 1.
    KeepLast {
        /// How many are kept.
        keep: u32,
        /// Which of them it is.
        place: u32,
    },
    /// It is the newest of this hour, day, week, month or year.
    NewestOf(Every, String),
    /// It is not older than this.
    WithinTtl(String),
    /// Somebody holds it.
    Held,
    /// The next sync builds on it.
    Base,
    /// It is the newest that is sealed.
    NewestSealed,
    /// It is newer than every sealed one, and a job may be at work on it.
    NotSealed,
    /// Another made it.
    NotOurs,
    /// There is no rule.
    NoRule,
    /// It is older than this.
    OlderThanTtl(String),
    /// No rule keeps it.
    BeyondEveryRule,
}

impl Every {
    /// The word in the configuration.
    fn rule(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }

    /// Names the span that a moment is in. When clocks are set back an hour comes twice, with another offset.
    fn span_of(self, moment: &Zoned) -> String {
        let format = match self {
            Self::Hour => "%Y-%m-%dT%H%:z",
            Self::Day => "%Y-%m-%d",
            Self::Week => "%G-W%V",
            Self::Month => "%Y-%m",
            Self::Year => "%Y",
        };
        moment.strftime(format).to_string()
    }
}

impl Rules {
    /// These rules, and what they do not say as in `base`.
    #[must_use]
    pub fn or(self, base: &Self) -> Self {
        Self {
            keep_last: self.keep_last.or(base.keep_last),
            hourly: self.hourly.or(base.hourly),
            daily: self.daily.or(base.daily),
            weekly: self.weekly.or(base.weekly),
            monthly: self.monthly.or(base.monthly),
            yearly: self.yearly.or(base.yearly),
            ttl: self.ttl.or(base.ttl),
        }
    }

    fn calendar(&self) -> impl Iterator<Item = (Every, u32)> {
        let rules = [
            (Every::Hour, self.hourly),
            (Every::Day, self.daily),
            (Every::Week, self.weekly),
            (Every::Month, self.monthly),
            (Every::Year, self.yearly),
        ];
        rules.into_iter().filter_map(|(every, keep)| Some((every, keep.filter(|keep| *keep > 0)?)))
    }

    fn last(&self) -> Option<u32> {
        self.keep_last.filter(|keep| *keep > 0)
    }

    /// True when nothing is said: then everything stays.
    pub fn is_empty(&self) -> bool {
        self.last().is_none() && self.ttl.is_none() && self.calendar().next().is_none()
    }
}

/// Decides what becomes of each candidate, the newest first. The order of the candidates does not matter.
///
/// Never goes: what is not the policy's own, what is held, the base, the newest that is sealed, and what is newer than
/// that and not sealed. Hours, days and so on are those of `zone`.
pub fn decide(candidates: &[Candidate], rules: &Rules, now: Timestamp, zone: &TimeZone) -> Vec<Verdict> {
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by(|a, b| (b.taken, b.sequence, &b.name).cmp(&(a.taken, a.sequence, &a.name)));
    let newest = sorted.iter().filter(|one| one.sealed).max_by_key(|one| (one.sequence, one.taken, &one.name));
    let newest = newest.map(|newest| (newest.sequence, newest.taken, &newest.name));
    let latest = sorted.iter().find(|one| one.sealed).map(|latest| &latest.name);
    let kept = kept_by_rules(&sorted, rules, zone);
    // Where the calendar does not reach so far back, nothing is older.
    let oldest = rules.ttl.map(|ttl| (format!("{ttl:#}"), now.to_zoned(zone.clone()).checked_sub(ttl)));
    let oldest = oldest.map(|(ttl, moment)| (ttl, moment.map_or(Timestamp::MIN, |moment| moment.timestamp())));

    let verdict = |(place, one): (usize, &&Candidate)| {
        let mut reasons = Vec::new();
        if !one.ours {
            reasons.push(Reason::NotOurs);
        }
        if one.held {
            reasons.push(Reason::Held);
        }
        if one.base {
            reasons.push(Reason::Base);
        }
        let at = (one.sequence, one.taken, &one.name);
        // Where clocks and sequence numbers disagree, either may be what the next sync builds on.
        if newest == Some(at) || latest == Some(&one.name) {
            reasons.push(Reason::NewestSealed);
        }
        if !one.sealed && newest.is_none_or(|newest| at > newest || one.taken > newest.1) {
            reasons.push(Reason::NotSealed);
        }
        if rules.is_empty() {
            reasons.push(Reason::NoRule);
        }
        reasons.extend(kept.get(&place).into_iter().flatten().cloned());
        if let Some((ttl, _)) = oldest.as_ref().filter(|(_, oldest)| one.taken >= *oldest) {
            reasons.push(Reason::WithinTtl(ttl.clone()));
        }
        let keep = !reasons.is_empty();
        if !keep {
            reasons.extend(oldest.as_ref().map(|(ttl, _)| Reason::OlderThanTtl(ttl.clone())));
            if rules.last().is_some() || rules.calendar().next().is_some() {
                reasons.push(Reason::BeyondEveryRule);
            }
        }
        Verdict { name: one.name.clone(), taken: one.taken, keep, reasons }
    };
    sorted.iter().enumerate().map(verdict).collect()
}

/// What the rules that count keep, by the place in `sorted`, the newest first.
fn kept_by_rules(sorted: &[&Candidate], rules: &Rules, zone: &TimeZone) -> BTreeMap<usize, Vec<Reason>> {
    let counted = || sorted.iter().enumerate().filter(|(_, one)| one.ours && one.sealed);
    let mut kept: BTreeMap<usize, Vec<Reason>> = BTreeMap::new();
    if let Some(keep) = rules.last() {
        for ((place, _), nth) in counted().zip(1..=keep) {
            kept.entry(place).or_default().push(Reason::KeepLast { keep, place: nth });
        }
    }
    for (every, keep) in rules.calendar() {
        let mut spans = BTreeSet::new();
        for (place, one) in counted() {
            let span = every.span_of(&one.taken.to_zoned(zone.clone()));
            if spans.contains(&span) {
                continue;
            }
            if spans.len() >= keep as usize {
                break;
            }
            spans.insert(span.clone());
            kept.entry(place).or_default().push(Reason::NewestOf(every, span));
        }
    }
    kept
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeepLast { keep, place } => write!(f, "keep_last {keep} ({place}{})", ordinal(*place)),
            Self::NewestOf(every, span) => write!(f, "{} ({span})", every.rule()),
            Self::WithinTtl(ttl) => write!(f, "within ttl {ttl}"),
            Self::Held => f.write_str("held"),
            Self::Base => f.write_str("the base of the next sync"),
            Self::NewestSealed => f.write_str("the newest sealed"),
            Self::NotSealed => f.write_str("not sealed yet"),
            Self::NotOurs => f.write_str("not made by this policy"),
            Self::NoRule => f.write_str("no rule: everything stays"),
            Self::OlderThanTtl(ttl) => write!(f, "older than ttl {ttl}"),
            Self::BeyondEveryRule => f.write_str("beyond every rule"),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The letters after a number that counts places.
fn ordinal(number: u32) -> &'static str {
    match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    }
}

#[cfg(test)]
mod tests;
