//! From what a store says has changed to the new snapshot's entries, without listing what has not.

use crate::error::Result;
use crate::key::Key;
use crate::manifest::{Entry, Kind};
use crate::merge::{Entries, merge_by_key};

/// Marks in a stream of entries which names of the base no longer count. A name that a store reports may be an object's or
/// a directory's: both are marked.
pub(crate) fn marks(path: &str, deep: bool) -> [Entry; 2] {
    let object = Entry::object(path, 0);
    let directory = Entry::directory(format!("{path}/"));
    // The size of a directory's mark says whether everything in it is marked, too.
    [object, Entry { size: u64::from(deep), ..directory }]
}

/// The base's entries but for what is marked, with `fresh` in its place: the new snapshot, if nothing that changed is
/// missing among the marks. All three come in byte order.
pub(crate) fn renewed<'a>(base: Entries<'a>, marked: Entries<'a>, fresh: Entries<'a>) -> Entries<'a> {
    let mut deep: Option<Key> = None;
    let rows = merge_by_key([base, marked, fresh]).filter_map(move |row| match row {
        Ok((key, [base, mark, fresh])) => {
            if !deep.as_ref().is_some_and(|deep| key.starts_with(deep.as_bytes())) {
                deep = None;
            }
            let inside = deep.is_some();
            if !inside && mark.as_ref().is_some_and(|mark| mark.kind == Kind::Directory && mark.size > 0) {
                deep = Some(key);
            }
            let known = base.filter(|_| !inside && mark.is_none());
            fresh.or(known).map(Ok)
        }
        Err(error) => Some(Err(error)),
    });
    Box::new(rows)
}

/// Sorted entries, each key once; of marks the one that says more.
pub(crate) fn each_once(sorted: impl Iterator<Item = Result<Entry>>) -> impl Iterator<Item = Result<Entry>> {
    let mut sorted = sorted.peekable();
    std::iter::from_fn(move || {
        let mut entry = match sorted.next()? {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error)),
        };
        while let Some(Ok(same)) = sorted.next_if(|next| next.as_ref().is_ok_and(|next| next.key == entry.key)) {
            entry.size = entry.size.max(same.size);
        }
        Some(Ok(entry))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    type Tree = BTreeMap<String, u64>;

    /// Files with a size for their content, in directories that are made for them.
    fn tree() -> impl Strategy<Value = Tree> {
        let part = prop::sample::select(vec!["a", "b", "a-", "a0"]);
        let name = prop::collection::vec(part, 1..=3).prop_map(|parts| parts.join("/"));
        prop::collection::vec((name, 1u64..4), 0..12).prop_map(|files| {
            let mut tree = Tree::new();
            for (name, size) in files {
                let directories: Vec<_> = name.match_indices('/').map(|(at, _)| name[..=at].to_owned()).collect();
                let blocked = name.match_indices('/').any(|(at, _)| tree.contains_key(&name[..at]));
                if blocked || tree.contains_key(&format!("{name}/")) {
                    continue;
                }
                tree.extend(directories.into_iter().map(|directory| (directory, 0)));
                tree.insert(name, size);
            }
            tree
        })
    }

    fn entries(tree: &Tree) -> Entries<'static> {
        let entries: Vec<_> = tree
            .iter()
            .map(|(key, size)| match key.ends_with('/') {
                true => Ok(Entry::directory(key.as_str())),
                false => Ok(Entry::object(key.as_str(), *size)),
            })
            .collect();
        Box::new(entries.into_iter())
    }

    fn sorted(entries: Vec<Entry>) -> Entries<'static> {
        let entries: BTreeMap<Key, Entry> = entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        Box::new(entries.into_values().map(Ok))
    }

    proptest! {
        /// However coarsely changes are reported, the base becomes the new snapshot.
        #[test]
        fn the_base_becomes_the_new_snapshot(base in tree(), new in tree(), coarse in any::<[bool; 8]>()) {
            let keys: BTreeSet<&String> = base.keys().chain(new.keys()).collect();
            let changed = keys.into_iter().filter(|key| base.get(*key) != new.get(*key));
            // Some changes are told by the name of their directory alone.
            let paths: BTreeSet<(String, bool)> = changed.enumerate().map(|(index, key)| {
                let path = key.strip_suffix('/').unwrap_or(key);
                match path.rsplit_once('/').filter(|_| coarse[index % 8]) {
                    Some((parent, _)) => (parent.to_owned(), true),
                    None => (path.to_owned(), true),
                }
            }).collect();
            let covered = |key: &str| paths.iter().any(|(path, _)| {
                let directory = format!("{path}/");
                key == path || key.starts_with(&directory)
            });
            let fresh: Tree = new.iter().filter(|(key, _)| covered(key)).map(|(k, s)| (k.clone(), *s)).collect();
            let marked = paths.iter().flat_map(|(path, deep)| marks(path, *deep)).collect();
            let made: Vec<Entry> = renewed(entries(&base), sorted(marked), entries(&fresh)).collect::<Result<_>>().unwrap();
            let wanted: Vec<Entry> = entries(&new).collect::<Result<_>>().unwrap();
            prop_assert_eq!(made, wanted);
        }
    }

    #[test]
    fn a_directory_that_was_only_touched_keeps_what_is_in_it() {
        let base = Tree::from([("d/".into(), 0), ("d/x".into(), 1)]);
        let fresh = Tree::from([("d/".into(), 0)]);
        for (deep, left) in [(false, 2), (true, 1)] {
            let made = renewed(entries(&base), sorted(marks("d", deep).into()), entries(&fresh));
            assert_eq!(made.count(), left, "deep {deep}");
        }
        let twice =
            [Entry::directory("a/"), Entry { size: 1, ..Entry::directory("a/") }, Entry::object("b", 1)].map(Ok);
        let once: Vec<_> = each_once(twice.into_iter()).map(|entry| entry.unwrap().size).collect();
        assert_eq!(once, [1, 1]);
    }
}
