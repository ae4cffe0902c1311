//! The fields of a policy.

use std::collections::HashSet;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

use super::hook::hooks;
use super::reader::{Table, Value};
use super::{Config, is_policy_name};
use crate::bounds::{MaxDelete, OnDrift};
use crate::bucket::{address, check_name};
use crate::delta::Delta;
use crate::policy::{Policy, Settings};
use crate::replicate::Proof;
use crate::retention::Rules;
use crate::schedule::Schedule;
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

/// Reads a policy, or one for each of its buckets.
pub(super) fn policies(name: &str, mut table: Table<'_, '_>, base: &Settings, config: &Config) -> Vec<Policy> {
    if !is_policy_name(name) {
        table.wrong("cannot name a policy: use letters, digits, `-` and `_`");
    }
    let mut side = |side: &'static str| {
        let url = table.take(side);
        if url.is_none() {
            table.wrong(format_args!("`{side}` is missing"));
        }
        let url = url?;
        match url.text() {
            Ok(text) => Some((side, url.at, text.to_owned())),
            Err(what) => {
                table.wrong_at(url.at, side, what);
                None
            }
        }
    };
    let (source, target) = (side("source"), side("target"));
    let buckets = table.read("buckets", names);
    let settings = settings(&mut table, base, config);
    if settings.schedule.is_some() {
        check_names(&table, &settings);
    }
    let each: Vec<Option<&String>> = match &buckets {
        Some(buckets) => buckets.iter().map(Some).collect(),
        None => vec![None],
    };
    let mut policies = Vec::new();
    for bucket in each {
        let resolve = |(side, at, url): &(&'static str, usize, String)| {
            let resolved = bucket_url(url, bucket, &settings.pattern, config);
            resolved.map_err(|what| table.wrong_at(*at, side, what)).ok()
        };
        let (source, target) = (source.as_ref().and_then(resolve), target.as_ref().and_then(resolve));
        if let (Some(source), Some(target)) = (source, target) {
            let name = bucket.map_or_else(|| name.to_owned(), |bucket| format!("{name}.{bucket}"));
            policies.push(Policy { name, source, target, settings: settings.clone() });
        }
    }
    table.finish();
    policies
}

/// The URL that a side's text stands for.
fn bucket_url(text: &str, bucket: Option<&String>, pattern: &Pattern, config: &Config) -> Result<String, String> {
    let filled = match (bucket, text.contains("{bucket}")) {
        (Some(bucket), true) => text.replace("{bucket}", bucket),
        (None, false) => text.to_owned(),
        (Some(_), false) => return Err("has no {bucket} in it, though there are `buckets`".into()),
        (None, true) => return Err("has {bucket} in it, but there are no `buckets`".into()),
    };
    let url = config.resolve(&filled).map_err(|error| with_way_out(&error))?;
    address(&url).map_err(|error| with_way_out(&error))?;
    if let Ok(name) = pattern.name(&NEW_YEAR.to_zoned(TimeZone::UTC)) {
        check_name(&url, &name).map_err(|error| with_way_out(&error))?;
    }
    Ok(url)
}

fn with_way_out(error: &crate::error::Error) -> String {
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

fn names(value: Value<'_, '_>) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for value in value.list() {
        let name = value.text()?;
        if name.is_empty() || name.contains(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))) {
            return Err(format!("`{name}` is no bucket's name"));
        }
        if names.iter().any(|known| known == name) {
            return Err(format!("`{name}` is there twice"));
        }
        names.push(name.into());
    }
    if names.is_empty() { Err("is empty".into()) } else { Ok(names) }
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
