//! What users do by day, made from a seed, and what the rules of retention come to, in the plainest words.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jiff::civil::Date;

use crate::harness::model::Content;
use crate::harness::{Numbers, tree};

/// Beyond what goes in one request.
const LARGE: usize = 9 << 20;

/// The objects of a day that keeps a night busy, and their size.
const BULK: u32 = 12;
const BULK_BYTES: usize = 128 << 10;

/// What a user does. A name that ends in `/` is a directory with all that it holds.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put(String, Vec<u8>),
    Rename(String, String),
    Delete(String),
    MakeDirectory(String),
}

/// The changes of days, from a seed.
pub(crate) struct Days {
    numbers: Numbers,
    /// No name is given twice, so that a key and its bytes name a version.
    names: u32,
    /// Real directories: they are renamed, and empty ones stay.
    directories: bool,
}

impl Days {
    pub(crate) fn new(seed: u64, directories: bool) -> Self {
        Self { numbers: Numbers(seed), names: 0, directories }
    }

    fn fresh(&mut self, folder: &str) -> String {
        self.names += 1;
        format!("{folder}f{}", self.names)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = 1 + self.numbers.below(12 << 10) as usize;
        self.numbers.bytes(length)
    }

    fn any(&mut self, keys: &mut Vec<String>) -> String {
        let place = self.numbers.below(keys.len() as u64) as usize;
        keys.swap_remove(place)
    }

    /// What happens on the day before night `number`, applied to `now`. A busy day has much to copy; the day after one
    /// takes some of it back.
    pub(crate) fn pass(&mut self, number: u32, now: &mut Content, busy: [bool; 2]) -> Vec<Change> {
        let mut changes = Vec::new();
        let files = now.0.keys().filter(|key| !key.ends_with(b"/"));
        let mut keys: Vec<String> = files.map(|key| String::from_utf8(key.clone()).unwrap()).collect();
        keys.retain(|key| !key.starts_with("large/") && !key.starts_with("bulk/"));
        let created = if number == 1 { 25 } else { 2 + self.numbers.below(6) };
        if keys.len() > 12 {
            for _ in 0..3 {
                changes.push(Change::Put(self.any(&mut keys), self.bytes()));
            }
            for _ in 0..2 {
                let (from, folder) = (self.any(&mut keys), ["", "d1/", "moved & <more>/"][number as usize % 3]);
                let to = self.fresh(folder);
                changes.push(Change::Rename(from, to));
            }
            for _ in 0..2 + self.numbers.below(4) {
                changes.push(Change::Delete(self.any(&mut keys)));
            }
        }
        for nth in 0..created {
            let folder = ["", "d0/", "d1/", "d2/deep/er/", "d3 \u{e9}/"][(nth + u64::from(number)) as usize % 5];
            let key = self.fresh(folder);
            changes.push(Change::Put(key, self.bytes()));
        }
        changes.extend(self.large(number, now));
        if self.directories {
            self.tree(number, &mut keys, &mut changes);
        }
        match busy {
            [_, true] => {
                changes.extend(
                    (0..BULK).map(|nth| Change::Put(format!("bulk/of-{number}-{nth}"), self.numbers.bytes(BULK_BYTES))),
                );
            }
            [true, _] => {
                changes.push(Change::Delete(format!("bulk/of-{}-0", number - 1)));
                changes.push(Change::Put(format!("bulk/of-{}-1", number - 1), self.bytes()));
            }
            _ => {}
        }
        for change in &changes {
            apply(change, now);
        }
        changes
    }

    fn large(&mut self, number: u32, now: &Content) -> Option<Change> {
        let (one, two) = ("large/one".to_owned(), "large/two".to_owned());
        match number {
            1 => Some(Change::Put(one, self.numbers.bytes(LARGE))),
            12 => Some(Change::Put(two, self.numbers.bytes(LARGE + 1000))),
            19 => Some(Change::Delete(two)),
            _ if number.is_multiple_of(8) => {
                let mut data = now.0[one.as_bytes()].clone();
                data[number as usize * 100_000] ^= 1;
                Some(Change::Put(one, data))
            }
            _ => None,
        }
    }

    /// Two names change places, a directory has another name, an empty one comes.
    fn tree(&mut self, number: u32, keys: &mut Vec<String>, changes: &mut Vec<Change>) {
        if keys.len() > 2 {
            let (one, other, aside) = (self.any(keys), self.any(keys), self.fresh(""));
            let names = [(&one, &aside), (&other, &one), (&aside, &other)];
            changes.extend(names.map(|(from, to)| Change::Rename(from.clone(), to.clone())));
        }
        if number % 4 == 2 {
            changes.push(Change::MakeDirectory(format!("hollow-{number}/")));
        }
        if number % 5 == 3 {
            changes.push(Change::Rename("d2/".into(), format!("tree-{number}/")));
        }
    }
}

fn apply(change: &Change, now: &mut Content) {
    match change {
        Change::Put(key, data) => drop(now.0.insert(key.clone().into_bytes(), data.clone())),
        Change::MakeDirectory(key) => drop(now.0.insert(key.clone().into_bytes(), Vec::new())),
        Change::Delete(key) => drop(now.0.remove(key.as_bytes()).unwrap()),
        Change::Rename(from, to) => {
            let is_moved =
                |key: &Vec<u8>| key == from.as_bytes() || from.ends_with('/') && key.starts_with(from.as_bytes());
            let moved: Vec<Vec<u8>> = now.0.keys().filter(|key| is_moved(key)).cloned().collect();
            for key in moved {
                let data = now.0.remove(&key).unwrap();
                now.0.insert([to.as_bytes(), &key[from.len()..]].concat(), data);
            }
        }
    }
}

/// Does it in a directory, as a careful user's tools do it.
pub(crate) fn apply_to_directory(root: &Path, change: &Change) {
    let path = |key: &str| tree::path_of(root, key.as_bytes());
    match change {
        Change::Put(key, data) => tree::put(root, key.as_bytes(), data),
        Change::MakeDirectory(key) => fs::create_dir(path(key)).unwrap(),
        Change::Delete(key) => fs::remove_file(path(key)).unwrap(),
        Change::Rename(from, _) if !path(from).exists() => assert!(from.ends_with('/')),
        Change::Rename(from, to) => {
            fs::create_dir_all(path(to).parent().unwrap()).unwrap();
            fs::rename(path(from), path(to)).unwrap();
        }
    }
}

/// Of snapshots by their days, the newest first: which of them stay, if there are to be the newest one of each of so many
/// days, and the newest one of each of so many weeks.
pub(crate) fn kept_by_calendar(days: &[Date], daily: usize, weekly: usize) -> BTreeSet<usize> {
    let mut kept = BTreeSet::new();
    let (mut seen_days, mut seen_weeks) = (Vec::new(), Vec::new());
    for (place, day) in days.iter().enumerate() {
        let week = (day.iso_week_date().year(), day.iso_week_date().week());
        if !seen_days.contains(day) {
            seen_days.push(*day);
            if seen_days.len() <= daily {
                kept.insert(place);
            }
        }
        if !seen_weeks.contains(&week) {
            seen_weeks.push(week);
            if seen_weeks.len() <= weekly {
                kept.insert(place);
            }
        }
    }
    kept
}
