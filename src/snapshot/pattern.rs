//! Patterns that name snapshots.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::{Timestamp, Zoned};

use super::Name;
use crate::error::{Error, Result};

/// Lengths that a name may have.
const NAME_MIN: usize = 3;
const NAME_MAX: usize = 63;

/// Any date that tells its directives apart.
const EXAMPLE: Date = jiff::civil::date(2026, 11, 21);

const WEEKDAYS: &[&str] = &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: &[&str] = &[
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// How snapshots are named after the moment at which they are made: text with directives as those of strftime.
///
/// | directives | stand for |
/// | --- | --- |
/// | `%F`, `%Y` `%y` `%m` `%d` `%j` | `%Y-%m-%d`, year, year in the century, month, day, day of the year |
/// | `%H` `%I` `%M` `%S` `%p` `%P` | hour, hour of twelve, minute, second, `AM` or `PM`, `am` or `pm` |
/// | `%G` `%g` `%V` `%u` | year, year in the century, week and day of the week, as in ISO 8601 |
/// | `%U` `%W` `%w` | week that begins on Sunday, on Monday; day of the week from Sunday, 0 |
/// | `%A` `%a` `%B` `%b` `%h` | day of the week and month in letters, in full and in three |
/// | `%s` | seconds since 1970 |
///
/// Others of strftime, and its flags and widths, make what no name may hold (`:`, `/`, `+`, blanks) or what cannot be read
/// back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    items: Vec<Item>,
    /// A full date can be read from a name.
    dated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Literal(char),
    Directive(char),
}

/// What a directive becomes.
enum Shape {
    /// So many digits, of a number in these bounds.
    Digits(usize, u32, u32),
    /// A number of at most so many digits.
    Number(usize),
    /// One of these words, cut to so many letters.
    Words(&'static [&'static str], usize),
}

impl Shape {
    fn of(directive: char) -> Option<Self> {
        Some(match directive {
            'Y' | 'G' => Self::Digits(4, 0, 9999),
            'y' | 'g' => Self::Digits(2, 0, 99),
            'm' | 'I' => Self::Digits(2, 1, 12),
            'd' => Self::Digits(2, 1, 31),
            'j' => Self::Digits(3, 1, 366),
            'H' => Self::Digits(2, 0, 23),
            'M' | 'S' => Self::Digits(2, 0, 59),
            'V' => Self::Digits(2, 1, 53),
            'U' | 'W' => Self::Digits(2, 0, 53),
            'u' => Self::Digits(1, 1, 7),
            'w' => Self::Digits(1, 0, 6),
            's' => Self::Number(Timestamp::MAX.as_second().ilog10() as usize + 1),
            'p' => Self::Words(&["AM", "PM"], 2),
            'P' => Self::Words(&["am", "pm"], 2),
            'A' => Self::Words(WEEKDAYS, usize::MAX),
            'a' => Self::Words(WEEKDAYS, 3),
            'B' => Self::Words(MONTHS, usize::MAX),
            'b' | 'h' => Self::Words(MONTHS, 3),
            _ => return None,
        })
    }

    /// The least and the most characters.
    fn lengths(&self) -> (usize, usize) {
        match self {
            Self::Digits(count, ..) => (*count, *count),
            Self::Number(most) => (1, *most),
            Self::Words(words, cut) => {
                let lengths = words.iter().map(|word| word.len().min(*cut));
                lengths.fold((usize::MAX, 0), |(least, most), len| (least.min(len), most.max(len)))
            }
        }
    }

    /// True for text of this shape.
    fn fits(&self, text: &str) -> bool {
        let digits = || text.bytes().all(|byte| byte.is_ascii_digit());
        match self {
            Self::Digits(_, least, most) => {
                digits() && text.parse().is_ok_and(|number: u32| (*least..=*most).contains(&number))
            }
            Self::Number(_) => digits() && (text == "0" || !text.starts_with('0')),
            Self::Words(words, cut) => words.iter().any(|word| word[..word.len().min(*cut)] == *text),
        }
    }
}

/// True for a directive that the date decides.
fn is_of_date(directive: char) -> bool {
    !matches!(directive, 'H' | 'I' | 'M' | 'S' | 'p' | 'P' | 's')
}

impl Pattern {
    /// The name of a snapshot that is made at this moment.
    ///
    /// # Errors
    /// Where the moment cannot be written so, such as a year of more than four digits.
    pub fn name(&self, moment: &Zoned) -> Result<Name> {
        let name = strtime::format(&self.text, moment)
            .map_err(|error| Error::usage(format!("{moment} cannot be written as `{self}`: {error}")))?;
        name.parse().map_err(|error: Error| error.hint(format!("it was made after `{self}`: choose another pattern")))
    }

    /// A name that this pattern makes, by which others are judged.
    ///
    /// # Errors
    /// As [`Self::name`].
    pub fn example(&self) -> Result<Name> {
        self.name(&EXAMPLE.at(0, 0, 0, 0).in_tz("UTC").map_err(|error| Error::internal(error.to_string()))?)
    }

    /// True for a name that this pattern makes at some moment, as far as the name tells: its directives have the right
    /// shape, and where a full date can be read from it, it is one.
    pub fn matches(&self, name: &Name) -> bool {
        self.search(&self.items, name.as_str(), &mut Vec::new())
    }

    /// Tries every way to cut `rest` into what the items become; `found` has the directives before them.
    fn search<'a>(&self, items: &[Item], rest: &'a str, found: &mut Vec<(char, &'a str)>) -> bool {
        let Some((item, items)) = items.split_first() else { return rest.is_empty() && self.agrees(found) };
        match item {
            Item::Literal(c) => rest.strip_prefix(*c).is_some_and(|rest| self.search(items, rest, found)),
            Item::Directive(directive) => {
                let Some(shape) = Shape::of(*directive) else { return false };
                let (least, most) = shape.lengths();
                (least..=most.min(rest.len())).any(|len| {
                    let (text, rest) = rest.split_at(len);
                    if !shape.fits(text) {
                        return false;
                    }
                    found.push((*directive, text));
                    let matches = self.search(items, rest, found);
                    found.pop();
                    matches
                })
            }
        }
    }

    /// True when what the directives say is of one date.
    fn agrees(&self, found: &[(char, &str)]) -> bool {
        let of_date: Vec<_> = found.iter().filter(|(directive, _)| is_of_date(*directive)).copied().collect();
        if !self.dated {
            let first = |directive: char| found.iter().find(|(other, _)| *other == directive).map(|(_, text)| *text);
            return found.iter().all(|(directive, text)| first(*directive) == Some(text));
        }
        let date = read_date(&of_date);
        date.is_some_and(|date| of_date.iter().all(|(directive, text)| written(*directive, date) == *text))
    }
}

/// The date that these directives and their values tell, if it is told in full.
fn read_date(found: &[(char, &str)]) -> Option<Date> {
    let (mut format, mut input) = (String::new(), String::new());
    for (directive, text) in found {
        format.extend(['%', *directive, ' ']);
        input.push_str(text);
        input.push(' ');
    }
    BrokenDownTime::parse(&format, &input).ok()?.to_date().ok()
}

/// What a directive becomes on a date; empty where it cannot be written.
fn written(directive: char, date: Date) -> String {
    strtime::format(format!("%{directive}"), date).unwrap_or_default()
}

impl Default for Pattern {
    /// `snapshot-%F`: `snapshot-2026-11-21`.
    fn default() -> Self {
        let date =
            [Item::Directive('Y'), Item::Literal('-'), Item::Directive('m'), Item::Literal('-'), Item::Directive('d')];
        let items = "snapshot-".chars().map(Item::Literal).chain(date).collect();
        Self { text: "snapshot-%F".into(), items, dated: true }
    }
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |what: String| {
            Error::usage(format!("`{}` is no pattern for names of snapshots: {what}", text.escape_debug()))
                .hint("write letters, digits, `-`, `.` and `_` with directives such as `snapshot-%Y-%m-%d` or `%H%M%S`")
        };
        let (mut items, mut chars) = (Vec::new(), text.chars());
        while let Some(c) = chars.next() {
            if c != '%' {
                if !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.' | '_') {
                    return Err(bad(format!("no name holds `{}`", c.escape_debug())));
                }
                items.push(Item::Literal(c));
                continue;
            }
            match chars.next() {
                Some('F') => items.extend([
                    Item::Directive('Y'),
                    Item::Literal('-'),
                    Item::Directive('m'),
                    Item::Literal('-'),
                    Item::Directive('d'),
                ]),
                Some(directive) if Shape::of(directive).is_some() => items.push(Item::Directive(directive)),
                Some('%') => return Err(bad("`%%` stands for `%`, which no name holds".into())),
                Some('T' | 'R' | 'X' | 'r') => {
                    return Err(bad("no name holds `:`; write `%H%M%S` for the time".into()));
                }
                Some('D' | 'x') => return Err(bad("no name holds `/`; write `%Y-%m-%d` for the date".into())),
                Some('z' | 'Z' | 'Q' | ':') => {
                    return Err(bad(
                        "a time zone has characters that no name holds; write it as text, as in `%HZ`".into()
                    ));
                }
                Some(c @ ('-' | '_' | '^' | '#' | '.' | '0'..='9')) => {
                    return Err(bad(format!(
                        "flags and widths, such as `{c}` after `%`, are not known here; leave it out"
                    )));
                }
                Some(other) => return Err(bad(format!("`%{}` is no directive that is known", other.escape_debug()))),
                None => return Err(bad("it ends in a lone `%`".into())),
            }
        }
        let directives = || items.iter().filter_map(|item| if let Item::Directive(d) = item { Some(*d) } else { None });
        if directives().next().is_none() {
            return Err(bad("without a directive every snapshot would have the same name".into()));
        }
        if matches!(items.first(), Some(Item::Literal('-' | '.' | '_'))) {
            return Err(bad("a name begins with a letter or digit".into()));
        }
        let lengths = items.iter().map(|item| match item {
            Item::Literal(_) => (1, 1),
            Item::Directive(directive) => Shape::of(*directive).map_or((0, 0), |shape| shape.lengths()),
        });
        let (least, most) = lengths.fold((0, 0), |(least, most), (l, m)| (least + l, most + m));
        if least < NAME_MIN || most > NAME_MAX {
            return Err(bad(format!(
                "it makes names of {least} to {most} characters, and they have {NAME_MIN} to {NAME_MAX}"
            )));
        }
        let of_example: Vec<_> = directives().filter(|d| is_of_date(*d)).map(|d| (d, written(d, EXAMPLE))).collect();
        let of_example: Vec<_> = of_example.iter().map(|(directive, text)| (*directive, text.as_str())).collect();
        let dated = read_date(&of_example) == Some(EXAMPLE);
        Ok(Self { text: text.into(), items, dated })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::*;

    const DIRECTIVES: &str = "FYymdjHIMSpPGgVuUWwAaBbhs";

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    fn matches(text: &str, name: &str) -> bool {
        pattern(text).matches(&name.parse().unwrap())
    }

    /// Patterns of any directives and some text, beginning with a letter.
    fn patterns() -> impl Strategy<Value = Pattern> {
        let directive = proptest::sample::select(DIRECTIVES.chars().collect::<Vec<_>>());
        let piece = prop_oneof![3 => directive.prop_map(|c| format!("%{c}")), 2 => "[a-zA-Z0-9._-]"];
        proptest::collection::vec(piece, 1..8)
            .prop_filter_map("makes no names", |pieces| format!("s{}", pieces.concat()).parse().ok())
    }

    fn moments() -> impl Strategy<Value = Zoned> {
        // `%y` and `%g` know the years from 1969 to 2068.
        let zone = proptest::sample::select(vec!["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Kiritimati"]);
        (86_400i64..3_100_000_000, zone)
            .prop_map(|(second, zone)| Timestamp::from_second(second).unwrap().to_zoned(TimeZone::get(zone).unwrap()))
    }

    proptest! {
        #[test]
        fn every_name_that_it_makes_matches(pattern in patterns(), moment in moments()) {
            let name = pattern.name(&moment).unwrap();
            prop_assert!(pattern.matches(&name), "{pattern} {name}");
        }

        #[test]
        fn other_text_does_not(pattern in patterns(), moment in moments(), end in "[a-z]{1,3}") {
            let name = pattern.name(&moment).unwrap();
            let other: Name = format!("x{}", &name.as_str()[1..]).parse().unwrap();
            prop_assert!(!pattern.matches(&other), "{pattern} {other}");
            if let Ok(longer) = format!("{pattern}-x").parse::<Pattern>() {
                let other: Name = format!("{name}-y{end}").parse().unwrap();
                prop_assert!(!longer.matches(&other), "{longer} {other}");
            }
        }

        #[test]
        fn any_text_is_a_pattern_or_an_error_with_a_way_out(text in "[ -~é]{0,12}") {
            match text.parse::<Pattern>() {
                Ok(pattern) => {
                    pattern.name(&Timestamp::from_second(1_795_258_493).unwrap().to_zoned(TimeZone::UTC)).unwrap();
                }
                Err(error) => prop_assert!(error.way_out().is_some(), "{error}"),
            }
        }
    }

    #[test]
    fn the_usual_pattern_is_one() {
        assert_eq!(Pattern::default(), "snapshot-%F".parse().unwrap());
    }

    #[test]
    fn names_it_makes() {
        let moment = "2026-11-21T03:04:05[Europe/Berlin]".parse().unwrap();
        let name = |text: &str| pattern(text).name(&moment).unwrap().to_string();
        assert_eq!(name("snapshot-%Y-%m-%d"), "snapshot-2026-11-21");
        assert_eq!(name("%F.%H%M%S"), "2026-11-21.030405");
        assert_eq!(name("%G-w%V-%u"), "2026-w47-6");
        assert_eq!(name("%a%d%b%y_%j_%I%p"), "Sat21Nov26_325_03AM");
        assert_eq!(name("at-%s"), "at-1795226645");
    }

    #[test]
    fn names_of_its_making_and_others() {
        for (text, good, bad) in [
            ("s-%Y-%m-%d", "s-2024-02-29", &["s-2023-02-29", "s-2024-2-29", "s-2024-02-29x", "t-2024-02-29"][..]),
            ("%H%M%S", "235959", &["240000", "236000", "23595", "23595x"]),
            ("at-%s", "at-0", &["at-00", "at-", "at-1.5", "at--1", "at-99999999999999"]),
            ("%Y%m", "202612", &["202613", "202600", "20261"]),
            ("%Y-%m", "2026-12", &["2026-13", "2026-12-01"]),
            ("%Y.%j", "2024.366", &["2023.366", "2024.000", "2024.367"]),
            ("%G-%V", "2026-53", &["2026-54", "2026-00"]),
            ("%G-%V-%u", "2026-53-7", &["2025-53-7", "2026-53-8"]),
            ("%a-%F", "Sat-2026-11-21", &["Sun-2026-11-21", "sat-2026-11-21"]),
            ("%F-%j", "2026-11-21-325", &["2026-11-21-326"]),
            ("%Y-%Y", "2026-2026", &["2026-2027"]),
            ("%s%Y%m%d", "179522664520261121", &["179522664520261131"]),
            ("%B%d", "November21", &["Novembre21", "Nov21"]),
        ] {
            assert!(matches(text, good), "{text} {good}");
            for bad in bad {
                assert!(!matches(text, bad), "{text} {bad}");
            }
        }
    }

    #[test]
    fn patterns_that_are_none() {
        for (text, says) in [
            ("nightly", "same name"),
            ("", "same name"),
            ("%%-%Y", "stands for `%`"),
            ("x%", "lone"),
            ("x%E", "`%E`"),
            ("%-d-x", "flags"),
            ("x-%3S", "flags"),
            ("%T", "%H%M%S"),
            ("%D", "%Y-%m-%d"),
            ("%FT%H%M%z", "time zone"),
            ("-%F", "begins"),
            ("s %F", "` `"),
            ("a/%F", "`/`"),
            ("%u", "1 to 1"),
            ("%F-0123456789-0123456789-0123456789-0123456789-0123456789", "65"),
        ] {
            let error = text.parse::<Pattern>().expect_err(text);
            assert!(error.to_string().contains(says), "{text}: {error}");
            assert!(error.way_out().is_some_and(|hint| hint.contains("snapshot-%Y-%m-%d")));
        }
    }
}
