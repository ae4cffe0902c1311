use jiff::civil::Weekday;
use jiff::{SignedDuration, ToSpan};
use proptest::prelude::*;

use super::*;

/// The rules' numbers in the order of their fields, the time to live in hours.
type Numbers = ([Option<u32>; 6], Option<i64>);

fn rules((numbers, ttl_hours): Numbers) -> Rules {
    let [keep_last, hourly, daily, weekly, monthly, yearly] = numbers;
    Rules { keep_last, hourly, daily, weekly, monthly, yearly, ttl: ttl_hours.map(|hours| hours.hours()) }
}

fn now() -> Timestamp {
    "2026-11-21T03:00:00Z".parse().unwrap()
}

/// Around both changes of the clock, some years, and many in the same hour or day; some with the clock gone wrong.
fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let minutes = prop_oneof![
        4 => 0i64..60 * 24 * 40,
        2 => 0i64..60 * 24 * 800,
        // 2026-10-25, when summer time ends in Berlin, and 2026-03-29, when it begins.
        2 => (60 * 24 * 27 - 300)..(60 * 24 * 27 + 600i64),
        1 => (60 * 24 * 237 - 300)..(60 * 24 * 237 + 600i64),
        1 => -1000i64..0,
    ];
    let flags = (proptest::bool::weighted(0.8), proptest::bool::weighted(0.1), proptest::bool::weighted(0.85));
    let one = (minutes, 0u64..40, flags);
    (proptest::collection::vec(one, 0..40), any::<proptest::sample::Index>(), any::<bool>()).prop_map(
        |(all, base, has_base)| {
            let base = if all.is_empty() || !has_base { None } else { Some(base.index(all.len())) };
            let candidate = |(i, (minutes, sequence, (sealed, held, ours)))| Candidate {
                name: format!("snapshot-{i}").parse().unwrap(),
                taken: now() - SignedDuration::from_mins(minutes),
                sequence,
                sealed,
                held,
                base: base == Some(i),
                ours,
            };
            all.into_iter().enumerate().map(candidate).collect()
        },
    )
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let number = || proptest::option::weighted(0.4, 0u32..6);
    let numbers = [number(), number(), number(), number(), number(), number()];
    (numbers, proptest::option::weighted(0.3, 1i64..2000))
}

fn zones() -> impl Strategy<Value = TimeZone> {
    let names = ["UTC", "Europe/Berlin", "Pacific/Auckland", "Australia/Lord_Howe", "America/New_York"];
    proptest::sample::select(names.to_vec()).prop_map(|name| TimeZone::get(name).unwrap())
}

fn only(which: usize, number: u32) -> Rules {
    let mut numbers = [None; 6];
    numbers[which] = Some(number);
    rules((numbers, None))
}

/// When the hour, day, week, month or year of a moment began, by the calendar's own arithmetic.
fn began(which: usize, moment: &Zoned) -> Timestamp {
    let day = moment.start_of_day().unwrap();
    let date = moment.date();
    let start = match which {
        // What the clock shows of the hour has passed since it began, unless the clock was changed in between.
        1 => {
            let passed = SignedDuration::from_secs(i64::from(moment.minute()) * 60 + i64::from(moment.second()));
            let begun = moment.timestamp() - passed;
            let changed = moment.time_zone().preceding(moment.timestamp()).next().map(|change| change.timestamp());
            return changed.map_or(begun, |changed| begun.max(changed));
        }
        2 => day,
        3 => {
            let since = i64::from(date.weekday().since(Weekday::Monday));
            date.checked_sub(since.days()).unwrap().to_zoned(moment.time_zone().clone()).unwrap()
        }
        4 => date.first_of_month().to_zoned(moment.time_zone().clone()).unwrap(),
        _ => date.first_of_year().to_zoned(moment.time_zone().clone()).unwrap(),
    };
    start.timestamp()
}

/// What one rule keeps, slowly: of each span the last one taken, of those spans the last so many.
fn slowly(candidates: &[Candidate], which: usize, number: u32, zone: &TimeZone) -> BTreeSet<Name> {
    let mut counted: Vec<&Candidate> = candidates.iter().filter(|one| one.ours && one.sealed).collect();
    counted.sort_by_key(|one| (one.taken, one.sequence, one.name.clone()));
    if which == 0 {
        return counted.iter().rev().take(number as usize).map(|one| one.name.clone()).collect();
    }
    let mut spans: BTreeMap<Timestamp, Name> = BTreeMap::new();
    for one in counted {
        spans.insert(began(which, &one.taken.to_zoned(zone.clone())), one.name.clone());
    }
    spans.into_values().rev().take(number as usize).collect()
}

/// What stays whatever the rules say.
fn is_safe(one: &Candidate, all: &[Candidate]) -> bool {
    let newest = all.iter().filter(|one| one.sealed).max_by_key(|one| (one.sequence, one.taken, one.name.clone()));
    let under_way = newest.is_none_or(|newest| {
        one.taken > newest.taken || (one.sequence, one.taken, &one.name) > (newest.sequence, newest.taken, &newest.name)
    });
    let latest = all.iter().filter(|one| one.sealed).max_by_key(|one| (one.taken, one.sequence, one.name.clone()));
    !one.ours || one.held || one.base || [newest, latest].contains(&Some(one)) || (!one.sealed && under_way)
}

fn kept(verdicts: &[Verdict]) -> BTreeSet<Name> {
    verdicts.iter().filter(|verdict| verdict.keep).map(|verdict| verdict.name.clone()).collect()
}

fn safe(candidates: &[Candidate]) -> BTreeSet<Name> {
    candidates.iter().filter(|one| is_safe(one, candidates)).map(|one| one.name.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn each_rule_keeps_what_the_slow_way_keeps(all in candidates(), which in 0usize..6, number in 1u32..8, zone in zones()) {
        let mut expected = slowly(&all, which, number, &zone);
        expected.append(&mut safe(&all));
        prop_assert_eq!(kept(&decide(&all, &only(which, number), now(), &zone)), expected);
    }

    #[test]
    fn the_time_to_live_keeps_what_is_younger(all in candidates(), hours in 1i64..20_000, zone in zones()) {
        let rules = rules(([None; 6], Some(hours)));
        let mut expected = safe(&all);
        let oldest = now() - SignedDuration::from_hours(hours);
        expected.extend(all.iter().filter(|one| one.taken >= oldest).map(|one| one.name.clone()));
        prop_assert_eq!(kept(&decide(&all, &rules, now(), &zone)), expected);
    }

    #[test]
    fn rules_add_up(all in candidates(), numbers in numbers(), zone in zones()) {
        let together = rules(numbers);
        let mut expected = safe(&all);
        for (which, number) in numbers.0.into_iter().enumerate() {
            if let Some(number) = number.filter(|number| *number > 0) {
                expected.extend(slowly(&all, which, number, &zone));
            }
        }
        if numbers.1.is_some() {
            expected.append(&mut kept(&decide(&all, &rules(([None; 6], numbers.1)), now(), &zone)));
        }
        if together.is_empty() {
            expected.extend(all.iter().map(|one| one.name.clone()));
        }
        prop_assert_eq!(kept(&decide(&all, &together, now(), &zone)), expected);
    }

    #[test]
    fn never_the_base_a_hold_the_newest_sealed_or_anothers(all in candidates(), numbers in numbers(), zone in zones()) {
        let gone: BTreeSet<Name> = decide(&all, &rules(numbers), now(), &zone)
            .into_iter()
            .filter(|verdict| !verdict.keep)
            .map(|verdict| verdict.name)
            .collect();
        for one in &all {
            prop_assert!(!(gone.contains(&one.name) && (one.base || one.held || !one.ours)), "{one:?}");
        }
        let newest = all.iter().filter(|one| one.sealed).max_by_key(|one| (one.sequence, one.taken, &one.name));
        let latest = all.iter().filter(|one| one.sealed).max_by_key(|one| (one.taken, one.sequence, &one.name));
        for newest in [newest, latest].into_iter().flatten() {
            prop_assert!(!gone.contains(&newest.name));
        }
    }

    #[test]
    fn deciding_again_keeps_all(all in candidates(), numbers in numbers(), zone in zones()) {
        let rules = rules(numbers);
        let left = kept(&decide(&all, &rules, now(), &zone));
        let again: Vec<Candidate> = all.into_iter().filter(|one| left.contains(&one.name)).collect();
        prop_assert_eq!(kept(&decide(&again, &rules, now(), &zone)), left);
    }

    #[test]
    fn order_does_not_matter(all in candidates(), numbers in numbers(), zone in zones(), turn in 0usize..40) {
        let rules = rules(numbers);
        let mut other = all.clone();
        other.reverse();
        let turn = turn.min(other.len());
        other.rotate_left(turn);
        prop_assert_eq!(decide(&all, &rules, now(), &zone), decide(&other, &rules, now(), &zone));
    }

    #[test]
    fn a_larger_number_removes_no_more(all in candidates(), numbers in numbers(), which in 0usize..7, zone in zones()) {
        let (mut less, mut more) = (numbers, numbers);
        if let Some(which) = less.0.get_mut(which) {
            let number = which.unwrap_or(0).max(1);
            *which = Some(number);
        } else {
            less.1 = Some(less.1.unwrap_or(100));
        }
        match more.0.get_mut(which) {
            Some(rule) => *rule = less.0[which].map(|number| number + 1),
            None => more.1 = less.1.map(|hours| hours + 10),
        }
        let (less, more) = (decide(&all, &rules(less), now(), &zone), decide(&all, &rules(more), now(), &zone));
        prop_assert!(kept(&less).is_subset(&kept(&more)));
    }

    #[test]
    fn newest_first_each_once_and_with_a_reason(all in candidates(), numbers in numbers(), zone in zones()) {
        let verdicts = decide(&all, &rules(numbers), now(), &zone);
        prop_assert!(verdicts.is_sorted_by(|a, b| a.taken >= b.taken));
        let names: BTreeSet<&Name> = verdicts.iter().map(|verdict| &verdict.name).collect();
        prop_assert_eq!((names.len(), verdicts.len()), (all.len(), all.len()));
        for verdict in &verdicts {
            let goes = |reason: &Reason| matches!(reason, Reason::OlderThanTtl(_) | Reason::BeyondEveryRule);
            prop_assert!(!verdict.reasons.is_empty() && verdict.reasons.iter().all(|reason| goes(reason) != verdict.keep));
        }
    }
}

fn sealed(name: &str, taken: &str) -> Candidate {
    Candidate {
        name: name.parse().unwrap(),
        taken: taken.parse().unwrap(),
        sequence: 0,
        sealed: true,
        held: false,
        base: false,
        ours: true,
    }
}

#[test]
fn reasons_as_people_read_them() {
    let mut all = vec![
        sealed("today", "2026-11-21T02:00:00Z"),
        sealed("noon", "2026-11-20T12:00:00Z"),
        sealed("dawn", "2026-11-20T05:00:00Z"),
        sealed("old", "2026-08-01T05:00:00Z"),
        Candidate { held: true, ..sealed("kept", "2026-07-01T05:00:00Z") },
        Candidate { ours: false, ..sealed("other", "2026-06-01T05:00:00Z") },
    ];
    all[1].base = true;
    let rules = Rules { keep_last: Some(2), daily: Some(2), ttl: Some(60.days()), ..Rules::default() };
    let verdicts = decide(&all, &rules, now(), &TimeZone::UTC);
    let text: Vec<String> = verdicts
        .iter()
        .map(|verdict| {
            let reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
            format!("{} {} {}", verdict.name, if verdict.keep { "KEEP" } else { "GO" }, reasons.join(", "))
        })
        .collect();
    assert_eq!(
        text,
        [
            "today KEEP the newest sealed, keep_last 2 (1st), daily (2026-11-21), within ttl 60d",
            "noon KEEP the base of the next sync, keep_last 2 (2nd), daily (2026-11-20), within ttl 60d",
            "dawn KEEP within ttl 60d",
            "old GO older than ttl 60d, beyond every rule",
            "kept KEEP held",
            "other KEEP not made by this policy",
        ]
    );
    assert_eq!(serde_json::to_value(&verdicts[3]).unwrap()["reasons"][1], "beyond every rule");
    assert_eq!([11, 12, 13, 21, 22, 23, 111].map(ordinal), ["th", "th", "th", "st", "nd", "rd", "th"]);
}

#[test]
fn hours_and_days_when_clocks_change() {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    // 02:30 comes twice on 2026-10-25, and the day has 25 hours.
    let all = [sealed("first", "2026-10-25T00:30:00Z"), sealed("second", "2026-10-25T01:30:00Z")];
    let kept_of = |rules: Rules| kept(&decide(&all, &rules, now(), &zone)).len();
    assert_eq!(kept_of(Rules { hourly: Some(2), ..Rules::default() }), 2);
    assert_eq!(kept_of(Rules { daily: Some(2), ..Rules::default() }), 1);
    // A ttl of a day is one of the calendar, of 25 hours there.
    let all = [sealed("newest", "2026-10-25T20:00:00Z"), sealed("day-before", "2026-10-24T21:30:00Z")];
    let late = "2026-10-25T22:15:00Z".parse().unwrap();
    let day = Rules { ttl: Some(1.day()), ..Rules::default() };
    assert_eq!(kept(&decide(&all, &day, late, &zone)).len(), 2);
    assert_eq!(kept(&decide(&all, &day, late, &TimeZone::UTC)).len(), 1);
}

#[test]
fn rules_of_nothing_keep_everything() {
    let all = [sealed("old", "2006-10-25T00:30:00Z"), sealed("new", "2026-10-25T01:30:00Z")];
    for rules in [Rules::default(), Rules { keep_last: Some(0), yearly: Some(0), ..Rules::default() }] {
        let verdicts = decide(&all, &rules, now(), &TimeZone::UTC);
        assert!(verdicts.iter().all(|verdict| verdict.keep && verdict.reasons.contains(&Reason::NoRule)));
    }
    let ages = Rules { ttl: Some(19_000.years()), ..Rules::default() };
    assert_eq!(kept(&decide(&all, &ages, now(), &TimeZone::UTC)).len(), 2);
}
