//! The fields of a policy.

use std::collections::HashSet;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

use super::hook::hooks;
use super::reader::{Table, Value};
use super::{Config, is_policy_name};
use crate::bounds::{MaxDelete, OnDrift};
use crate::delta::Delta;
use crate::error::Error;
use crate::neighbours::{MARK, Neighbours};
use crate::policy::{Family, Policy, Settings, check_bucket, check_url};
use crate::replicate::Proof;
use crate::retention::Rules;
use crate::schedule::Schedule;
use crate::selection::Selection;
use crate::snapshot::Pattern;
use crate::snapshot::clone::CloneMode;
use crate::transfer::{Limits, Period, Timetable};
use crate::units;

/// Scheduled times whose names are compared.
const NAMES_COMPARED: usize = 200;

/// A moment by which names are judged: the beginning of 2027, in UTC.
const NEW_YEAR: Timestamp = Timestamp::constant(1_798_761_600, 0);

/// Changes of a zone's clock at which they are.
const CLOCK_CHANGES: usize = 2;

/// What holds where nothing is said.
pub(super) fn usual() -> Settings {
    Settings {
        enabled: true,
        schedule: None,
        zone: TimeZone::UTC,
        pattern: Pattern::default(),
        keep_source: Rules::default(),
        keep_target: Rules::default(),
        rpo: None,
        timeout: None,
        max_delete: MaxDelete::Percent(50.0),
        on_drift: OnDrift::Refuse,
        proof: Proof::Listing,
        clone: CloneMode::Auto,
        allow_unversioned: false,
        create_link: false,
        catalog: None,
        limits: Limits::within(256 << 20),
        hooks: Vec::new(),
    }
}

/// Reads the settings in `table`; what it does not say is as in `base`.
pub(super) fn settings(table: &mut Table<'_, '_>, base: &Settings, config: &Config) -> Settings {
    let mut settings = base.clone();
    set(&mut settings.enabled, table.flag("enabled"));
    let zone = table.text("time_zone", |text| {
        TimeZone::get(text).map_err(|_| format!("`{text}` is no time zone: write one such as Europe/Berlin or UTC"))
    });
    let schedule = table.text("schedule", |text| Schedule::parse(text, zone.clone().unwrap_or(base.zone.clone())));
    if let (None, Some(zone), Some(usual)) = (&schedule, &zone, &base.schedule) {
        settings.schedule = Some(usual.clone().in_zone(zone.clone()));
    }
    set(&mut settings.zone, zone);
    settings.schedule = schedule.or(settings.schedule);
    set(&mut settings.pattern, table.text("snapshot", str::parse));
    keep(table, &mut settings);
    settings.rpo = table.text("rpo", units::duration).or(settings.rpo);
    settings.timeout = table.text("timeout", units::duration).or(settings.timeout);
    set(&mut settings.max_delete, table.read("max_delete", max_delete));
    let drift = [("refuse", OnDrift::Refuse), ("repair", OnDrift::Repair)];
    set(&mut settings.on_drift, table.text("on_drift", |text| one_of(text, &drift)));
    let proof = [("listing", Proof::Listing), ("read", Proof::Read)];
    set(&mut settings.proof, table.text("verify", |text| one_of(text, &proof)));
    set(&mut settings.clone, table.text("clone", str::parse::<CloneMode>));
    set(&mut settings.allow_unversioned, table.flag("allow_unversioned"));
    set(&mut settings.create_link, table.flag("create_link"));
    settings.catalog = table.text("catalog", |text| config.resolve(text)).or(settings.catalog);
    limits(table, &mut settings);
    settings.hooks.extend(hooks(table));
    settings
}

/// What a table of a policy comes to.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// The policies of buckets that are named.
    pub(super) policies: Vec<Policy>,
    /// What finds more of them.
    pub(super) family: Option<Family>,
}

/// Reads a policy, or one for each of its buckets.
pub(super) fn policies(name: &str, mut table: Table<'_, '_>, base: &Settings, config: &Config) -> Read {
    if !is_policy_name(name) {
        table.wrong("cannot name a policy: use letters, digits, `-` and `_`");
    }
    let mut side = |side: &'static str| {
        let Some(url) = table.take(side) else {
            table.wrong(format_args!("`{side}` is missing"));
            return None;
        };
        let resolved = url.text().and_then(|text| config.resolve(text).map_err(with_way_out));
        let resolved = resolved.map_err(|what| table.wrong_at(url.at, side, what)).ok()?;
        Some((side, url.at, resolved))
    };
    let (source, target) = (side("source"), side("target"));
    let buckets = table.read("buckets", buckets);
    let except = table.read("except", selection);
    let settings = settings(&mut table, base, config);
    if settings.schedule.is_some() {
        check_names(&table, &settings);
    }
    let has_buckets = table.had("buckets");
    if except.is_some() && buckets.as_ref().map_or(!has_buckets, |buckets| buckets.wanted.is_none()) {
        table.wrong("`except` needs a pattern in `buckets`, such as \"*\"");
    }
    let buckets = has_buckets.then(|| buckets.unwrap_or_default());
    let right = [&source, &target].map(|side| {
        let Some((side, at, url)) = side else { return false };
        let lists = *side == "source" && buckets.as_ref().is_some_and(|buckets| buckets.wanted.is_some());
        let judged = judge(url, buckets.as_ref(), &settings.pattern);
        let judged =
            judged.and_then(|()| if lists { Neighbours::of(url).map(drop).map_err(with_way_out) } else { Ok(()) });
        judged.map_err(|what| table.wrong_at(*at, side, what)).is_ok()
    });
    table.finish();
    let (Some((.., source)), Some((.., target)), [true, true]) = (source, target, right) else {
        return Read::default();
    };
    let Some(Buckets { named, wanted }) = buckets else {
        return Read { policies: vec![Policy { name: name.into(), source, target, settings }], family: None };
    };
    let family = Family { name: name.into(), source, target, wanted, except, settings };
    // None is left out: all of them were judged.
    let policies = named.iter().filter_map(|bucket| family.member(bucket).ok()).collect();
    Read { policies, family: Some(family) }
}

/// Checks a side's URL for each bucket that is named, else for one whose name any store can have.
fn judge(url: &str, buckets: Option<&Buckets>, pattern: &Pattern) -> Result<(), String> {
    match (buckets, url.contains(MARK)) {
        (None, false) => check_url(url, pattern).map_err(with_way_out),
        (None, true) => Err("has {bucket} in it, but there are no `buckets`".into()),
        (Some(_), false) => Err("has no {bucket} in it, though there are `buckets`".into()),
        (Some(Buckets { named, .. }), true) => {
            let any = ["bucket".to_owned()];
            let mut names = if named.is_empty() { any.iter() } else { named.iter() };
            names.try_for_each(|name| check_url(&url.replace(MARK, name), pattern)).map_err(with_way_out)
        }
    }
}

fn with_way_out(error: Error) -> String {
    match error.way_out() {
        Some(way_out) => format!("{error}; {way_out}"),
        None => error.to_string(),
    }
}

/// Two scheduled runs must not make one snapshot: the second would find it sealed and do nothing.
fn check_names(table: &Table<'_, '_>, settings: &Settings) {
    let Some(schedule) = &settings.schedule else { return };
    // Names are most alike where a clock is set back.
    let changes = settings.zone.following(NEW_YEAR).take(CLOCK_CHANGES).map(|change| change.timestamp());
    let before = changes.filter_map(|change| change.checked_sub(SignedDuration::from_hours(3)).ok());
    for mut moment in std::iter::once(NEW_YEAR).chain(before) {
        let mut names = HashSet::new();
        for _ in 0..NAMES_COMPARED {
            let Some(next) = schedule.next(moment) else { return };
            moment = next.timestamp();
            let Ok(name) = settings.pattern.name(&next) else { return };
            if !names.insert(name.clone()) {
                table.wrong(format_args!(
                    "`snapshot` names the run at {} {name}, as one shortly before it; write a finer pattern, such as \
                     snapshot-%Y-%m-%d-%H%M, or snapshot-%s where the clock is set back in autumn",
                    next.strftime("%Y-%m-%d %H:%M %Z")
                ));
                return;
            }
        }
    }
}

/// The rules of retention: for both sides, and for each. They take the place of the usual ones, but for the time to live.
fn keep(table: &mut Table<'_, '_>, settings: &mut Settings) {
    let ttl = table.text("ttl", ttl);
    for rules in [&mut settings.keep_source, &mut settings.keep_target] {
        rules.ttl = ttl.or(rules.ttl);
    }
    let Some(mut retention) = table.table("retention") else { return };
    let (both, mut sides) = (rules(&mut retention), ["source", "target"].map(|side| retention.table(side)));
    for (side, kept) in sides.iter_mut().zip([&mut settings.keep_source, &mut settings.keep_target]) {
        let own = side.as_mut().map(rules).unwrap_or_default();
        *kept = own.or(&both).or(&Rules { ttl: kept.ttl, ..Rules::default() });
    }
    sides.into_iter().flatten().for_each(Table::finish);
    retention.finish();
}

fn rules(table: &mut Table<'_, '_>) -> Rules {
    let mut count = |field| table.number(field, 0..100_001).map(|number| number as u32);
    let (keep_last, hourly, daily) = (count("keep_last"), count("hourly"), count("daily"));
    let (weekly, monthly, yearly) = (count("weekly"), count("monthly"), count("yearly"));
    Rules { keep_last, hourly, daily, weekly, monthly, yearly, ttl: table.text("ttl", ttl) }
}

/// A time to live, in days and weeks of the calendar.
fn ttl(text: &str) -> Result<Span, String> {
    units::duration(text)?;
    text.parse::<Span>().map_err(|_| format!("`{text}` is no length of time: write 36h, 60d or 8w"))
}

fn limits(table: &mut Table<'_, '_>, settings: &mut Settings) {
    let memory = table.text("memory", str::parse::<units::Size>);
    let limits = &mut settings.limits;
    if let Some(memory) = memory {
        limits.memory_bytes = Limits::within(memory.0).memory_bytes;
    }
    set(&mut limits.concurrency, table.number("concurrency", 1..65_536).map(|number| number as usize));
    let zone = settings.zone.clone();
    set(&mut limits.bandwidth, table.read("bandwidth", |value| timetable(value, zone)));
    set(&mut limits.strict, table.flag("strict"));
    let delta = [("auto", Delta::Auto), ("always", Delta::Always), ("never", Delta::Never)];
    set(&mut limits.delta, table.text("delta", |text| one_of(text, &delta)));
    set(&mut limits.learn_target, table.flag("learn_target"));
    set(&mut limits.block_bytes, table.text("block_size", |text| units::block_size(text).map(|size| size.0)));
}

/// One rate, or a list of periods of a day such as `08:00-18:00 mon-fri 50MB`, and of one rate for all other times.
fn timetable(value: Value<'_, '_>, zone: TimeZone) -> Result<Timetable, String> {
    let rate = |text: &str| text.parse::<units::Size>().map(|rate| rate.0);
    if !value.is_list() {
        return value.text().and_then(rate).map(Timetable::constant);
    }
    let (mut periods, mut otherwise) = (Vec::new(), None);
    for item in value.list() {
        let text = item.text()?;
        if text.contains('-') {
            periods.push(text.parse::<Period>()?);
        } else if otherwise.replace(rate(text)?).is_some() {
            return Err(format!("`{text}` is a second rate for all other times"));
        }
    }
    Ok(Timetable::new(zone, periods, otherwise))
}

fn max_delete(value: Value<'_, '_>) -> Result<MaxDelete, String> {
    match value.text() {
        Ok(text) => text.parse(),
        Err(_) => value.number(0..u64::MAX).map(MaxDelete::Count),
    }
}

/// Which buckets a policy is for.
#[derive(Debug, Default)]
struct Buckets {
    /// By name.
    named: Vec<String>,
    /// By patterns, of those that there are.
    wanted: Option<Selection>,
}

fn buckets(value: Value<'_, '_>) -> Result<Buckets, String> {
    let (mut named, mut globs): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for value in value.list() {
        let text = value.text()?;
        if text.contains(['*', '?', '[', '{']) {
            globs.push(text.into());
        } else if named.iter().any(|known| known == text) {
            return Err(format!("`{text}` is there twice"));
        } else {
            check_bucket(text).map_err(|error| error.to_string())?;
            named.push(text.into());
        }
    }
    match (named.is_empty(), globs.is_empty()) {
        (true, true) => Err("is empty".into()),
        (_, true) => Ok(Buckets { named, wanted: None }),
        (_, false) => Ok(Buckets { named, wanted: Some(chosen(globs)?) }),
    }
}

/// Names, or globs that match names.
fn selection(value: Value<'_, '_>) -> Result<Selection, String> {
    let globs: Result<Vec<String>, String> = value.list().into_iter().map(|value| Ok(value.text()?.into())).collect();
    match globs? {
        globs if globs.is_empty() => Err("is empty".into()),
        globs => chosen(globs),
    }
}

fn chosen(globs: Vec<String>) -> Result<Selection, String> {
    Selection::new(globs, Vec::new()).map_err(|error| error.to_string())
}

fn one_of<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        format!("`{text}` is not one of {}", names.join(", "))
    })
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}
