//! A bucket as it was at one moment, from the versions that are left.

use std::collections::HashMap;

use super::page::Found;
use crate::key::Key;
use crate::manifest::Entry;

/// Chooses of every key the version that was there at one moment. Versions of a key may span pages.
pub(super) struct Moment {
    at_ns: i64,
    /// What is known so far of the key that the next page goes on with.
    open: Option<Choice>,
}

/// The newest of a key's versions, and of its removals, that are not after the moment. Within each the server lists
/// the newest first; between the two the time decides, for some servers list all removals after all versions.
#[derive(Debug, Clone)]
struct Choice {
    key: Key,
    version: Option<Found>,
    removal: Option<Found>,
    /// The removal was listed before the version.
    removal_first: bool,
}

impl Choice {
    fn consider(&mut self, found: Found, at_ns: i64) {
        let place = if found.removal { &mut self.removal } else { &mut self.version };
        if found.entry.mtime_ns <= at_ns && place.is_none() {
            *place = Some(found);
            self.removal_first |= self.version.is_none();
        }
    }

    fn decide(self) -> Option<Entry> {
        let version = self.version?;
        let Some(removal) = self.removal else { return Some(version.entry) };
        let removed = if version.latest || removal.latest {
            removal.latest
        } else if version.entry.mtime_ns != removal.entry.mtime_ns {
            removal.entry.mtime_ns > version.entry.mtime_ns
        } else {
            self.removal_first
        };
        (!removed).then_some(version.entry)
    }
}

impl Moment {
    pub(super) fn new(at_ns: i64) -> Self {
        Self { at_ns, open: None }
    }

    /// The entries that a page decides; `continued` is the key whose versions go on in the next page.
    pub(super) fn take(&mut self, found: Vec<Found>, continued: Option<&Key>, ordered: bool) -> Vec<Entry> {
        let mut choices: Vec<Choice> = self.open.take().into_iter().collect();
        let mut places: HashMap<Key, usize> = choices.iter().map(|open| (open.key.clone(), 0)).collect();
        for found in found {
            let key = found.entry.key.clone();
            let place = *places.entry(key.clone()).or_insert_with(|| {
                choices.push(Choice { key, version: None, removal: None, removal_first: false });
                choices.len() - 1
            });
            choices[place].consider(found, self.at_ns);
        }
        if let Some(place) = continued.and_then(|key| places.get(key)) {
            self.open = Some(choices.remove(*place));
        }
        if ordered {
            choices.sort_by(|a, b| a.key.cmp(&b.key));
        }
        choices.into_iter().filter_map(Choice::decide).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(key: &str, mtime_ns: i64, latest: bool, removal: bool) -> Found {
        Found { entry: Entry { mtime_ns, ..Entry::object(key, 1) }, latest, removal }
    }

    fn at(moment: i64, pages: &[(&[Found], Option<&str>)]) -> Vec<(String, i64)> {
        let mut state = Moment::new(moment);
        let take = |(found, continued): &(&[Found], Option<&str>)| {
            state.take(found.to_vec(), continued.map(Key::from).as_ref(), true)
        };
        pages.iter().flat_map(take).map(|entry| (entry.key.to_string(), entry.mtime_ns)).collect()
    }

    #[test]
    fn the_version_of_a_moment() {
        let all = [
            found("a", 9, true, true),
            found("a", 5, false, false),
            found("a", 3, false, true),
            found("a", 1, false, false),
            found("b", 4, true, false),
        ];
        let whole = |moment| at(moment, &[(&all, None)]);
        let expect = |keys: &[(&str, i64)]| keys.iter().map(|(k, t)| ((*k).to_owned(), *t)).collect::<Vec<_>>();
        assert_eq!(whole(0), []);
        assert_eq!(whole(2), expect(&[("a", 1)]));
        assert_eq!(whole(4), expect(&[("b", 4)]));
        assert_eq!(whole(8), expect(&[("a", 5), ("b", 4)]));
        assert_eq!(whole(9), expect(&[("b", 4)]));
        // The same whatever the page borders, and with all removals listed last.
        for cut in 1..4 {
            for moment in 0..10 {
                assert_eq!(
                    at(moment, &[(&all[..cut], Some("a")), (&all[cut..], None)]),
                    whole(moment),
                    "{cut} {moment}"
                );
            }
        }
        let mut grouped = all.to_vec();
        grouped.sort_by_key(|found| found.removal);
        for moment in 0..10 {
            assert_eq!(at(moment, &[(&grouped, None)]), whole(moment));
        }
    }

    #[test]
    fn removed_in_the_second_it_was_written() {
        let all = [found("a", 9, true, false), found("a", 5, false, true), found("a", 5, false, false)];
        assert_eq!(at(5, &[(&all, None)]), []);
        let all = [found("a", 9, true, true), found("a", 5, false, false), found("a", 5, false, true)];
        assert_eq!(at(5, &[(&all, None)]), [("a".to_owned(), 5)]);
    }
}
