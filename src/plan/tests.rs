//! Plans for random trees, carried out on a model of a file system: step by step, and given up after any of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::judge::{Drift, judge};
use super::*;
use crate::error::Result;
use crate::key::Key;
use crate::manifest::{Entry, Kind, Pin};
use crate::merge::Entries;
use crate::store::memory::MemoryStore;

/// A tree: objects with the number of their content, directories with none.
type Tree = BTreeMap<Key, Option<u8>>;

/// A tree of these files and directories; what would stand in another's way is left out.
fn tree(names: Vec<(String, Option<u8>)>) -> Tree {
    let mut tree = Tree::new();
    for (name, content) in names {
        let ancestors: Vec<&str> = name.match_indices('/').map(|(at, _)| &name[..at]).collect();
        let is_blocked = ancestors.iter().any(|ancestor| tree.contains_key(&Key::from(*ancestor)));
        let directory = Key::from(format!("{name}/"));
        if is_blocked || tree.contains_key(&directory) || tree.contains_key(&Key::from(&*name)) {
            continue;
        }
        for ancestor in ancestors {
            tree.insert(format!("{ancestor}/").into(), None);
        }
        let key = if content.is_some() { name.into() } else { directory };
        tree.insert(key, content);
    }
    tree
}

fn trees() -> impl Strategy<Value = Tree> {
    let part = prop::sample::select(vec!["a", "b", "a-", "a0"]);
    let name = prop::collection::vec(part, 1..=3).prop_map(|parts| parts.join("/"));
    let content = prop_oneof![4 => (0u8..5).prop_map(Some), 1 => Just(None)];
    prop::collection::vec((name, content), 0..10).prop_map(tree)
}

fn entry(key: &Key, content: Option<u8>) -> Entry {
    let Some(content) = content else { return Entry::directory(key.clone()) };
    let etag = format!("{content:032x}");
    let pin = Pin { etag: Some(etag.into()), ..Pin::default() };
    Entry { pin, ..Entry::object(key.clone(), 10 + u64::from(content)) }
}

/// A tree as a listing gives it, or as a target's manifest has it.
fn entries(tree: &Tree, in_manifest: bool) -> Entries<'static> {
    let entries: Vec<Result<Entry>> = tree
        .iter()
        .map(|(key, content)| {
            let entry = entry(key, *content);
            let origin = in_manifest.then(|| entry.pin.clone());
            Ok(Entry { origin, ..entry })
        })
        .collect();
    Box::new(entries.into_iter())
}

fn planned(source: &Tree, base: &Tree, actual: &Tree, resuming: bool) -> Result<Plan> {
    let folder = std::env::temp_dir();
    let inputs = Inputs {
        source: entries(source, false),
        base: entries(base, true),
        actual: entries(actual, false),
        landed: Box::new(std::iter::empty()),
        pending: Box::new(std::iter::empty()),
    };
    let target = MemoryStore::like_files();
    let (run, trees) = (Circumstances { resuming, ..Default::default() }, Trees::default());
    plan(
        inputs,
        &Options { target: &target, accepts: &|_| Ok(()), leaves: &|_| false, run, trees: &trees, folder: &folder },
    )
}

/// A file system: every parent is there, nothing is both a file and a directory.
struct Model {
    names: Tree,
    staged: BTreeMap<Key, u8>,
    /// Steps that are still to be taken before it all stops.
    left: usize,
}

impl Model {
    fn step(&mut self) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        Some(())
    }

    fn put(&mut self, key: &Key, content: Option<u8>) {
        let parent = key.parent();
        assert!(parent.is_none_or(|parent| self.names.contains_key(&parent)), "no parent of {key:?}");
        let other = match key.as_bytes().strip_suffix(b"/") {
            Some(file) => Key::copy_from(file),
            None => Key::new([key.as_bytes(), b"/"].concat()),
        };
        assert!(!self.names.contains_key(&other), "{other:?} is in the way");
        self.names.insert(key.clone(), content);
    }

    /// Carries a plan out, in the order in which plans are; none when it was stopped.
    fn carry_out(&mut self, plan: &Plan, source: &Tree) -> Option<()> {
        let landings: Vec<Landing> = plan.landings.iter().unwrap().map(Result::unwrap).collect();
        for landing in landings.iter().filter(|landing| landing.method != Method::Move) {
            self.step()?;
            let content = match &landing.from {
                Some(from) => self.names[&from.key],
                None => source[&landing.source.key],
            };
            self.staged.insert(landing.lands_at(), content.unwrap());
        }
        for landing in landings.iter().filter(|landing| landing.method == Method::Move) {
            self.step()?;
            let from = landing.from.as_ref().unwrap();
            let content = self.names.remove(&from.key).expect("two moves from one name");
            self.staged.insert(landing.lands_at(), content.unwrap());
        }
        for clear in plan.clears.iter().unwrap().map(Result::unwrap) {
            self.step()?;
            self.names.retain(|key, _| *key != clear.key && !(clear.key.is_directory() && key.is_under(&clear.key)));
        }
        for directory in plan.directories.iter().unwrap().map(Result::unwrap) {
            self.step()?;
            self.put(&directory.key, None);
        }
        for landing in &landings {
            self.step()?;
            assert!(landing.staged, "{landing}");
            let content = self.staged.remove(&landing.lands_at()).expect("two landings of one name");
            self.put(&landing.source.key, Some(content));
        }
        for key in plan.deletes.iter().unwrap().map(Result::unwrap) {
            self.step()?;
            assert!(!key.is_directory());
            self.names.remove(&key);
        }
        for finish in plan.finish.iter().unwrap().map(Result::unwrap) {
            self.step()?;
            match finish {
                Finish::Remove(directory) => {
                    let inside = self.names.keys().find(|key| key.is_under(&directory));
                    assert_eq!(inside, None, "{directory:?} is not empty");
                    self.names.remove(&directory);
                }
                Finish::Attributes(entry) => assert!(self.names.contains_key(&entry.key), "{:?}", entry.key),
            }
        }
        Some(())
    }
}

proptest! {
    #[test]
    fn a_plan_makes_the_target_the_source(source in trees(), base in trees(), drifted in trees(), drifts: bool) {
        let actual = if drifts { drifted } else { base.clone() };
        let plan = planned(&source, &base, &actual, false).unwrap();
        let objects = |tree: &Tree| tree.iter().filter(|(_, c)| c.is_some()).map(|(k, c)| (k.clone(), *c)).collect::<Vec<_>>();
        if objects(&actual) == objects(&base) && actual == base {
            prop_assert_eq!(plan.totals.drift, 0, "{:?}", plan.drift);
        } else if objects(&actual) != objects(&base) {
            prop_assert!(plan.totals.drift > 0);
        }
        prop_assert_eq!(plan.is_empty() && plan.keeps_base, source == base && actual == base);
        let mut model = Model { names: actual, staged: BTreeMap::new(), left: usize::MAX };
        model.carry_out(&plan, &source).unwrap();
        prop_assert_eq!(&model.names, &source);
        prop_assert!(model.staged.is_empty());
        let next = planned(&source, &source, &model.names, false).unwrap();
        prop_assert!(next.is_empty() && next.keeps_base);
    }

    #[test]
    fn given_up_after_any_step(source in trees(), base in trees(), stops in prop::collection::vec(0usize..30, 0..4)) {
        let mut model = Model { names: base.clone(), staged: BTreeMap::new(), left: 0 };
        for (tries, left) in stops.into_iter().chain([usize::MAX]).enumerate() {
            let plan = planned(&source, &base, &model.names, tries > 0).unwrap();
            // What an unfinished job left is never somebody else's doing.
            prop_assert_eq!(plan.totals.drift, 0, "{:?}", plan.drift);
            // A move that was under way has its content in the staging folder.
            model.left = left;
            if model.carry_out(&plan, &source).is_some() {
                break;
            }
        }
        prop_assert_eq!(&model.names, &source);
    }
}

fn pinned(size: u64, tag: char) -> Entry {
    let pin = Pin { etag: Some(tag.to_string().repeat(32).into()), ..Pin::default() };
    Entry { pin, ..Entry::object("key", size) }
}

/// The target's entry for a source's entry.
fn copy_of(source: &Entry) -> Entry {
    Entry { origin: Some(source.pin.clone()), ..source.clone() }
}

#[test]
fn what_one_key_needs() {
    use Verdict::{Compare, Create, Delete, Keep, Reattribute, Replace};
    let (a, b) = (pinned(1, 'a'), pinned(1, 'b'));
    let large = pinned(2, 'c');
    let moded = |entry: &Entry, mode| Entry { mode: Some(mode), ..entry.clone() };
    let untagged = Entry { pin: Pin::default(), ..a.clone() };
    let (ca, cb) = (copy_of(&a), copy_of(&b));
    let some = |entry: &Entry| Some(entry.clone());
    let position = |source, base, actual| Position { source, base, actual, ..Position::default() };
    let changed = Some(Drift::Changed);
    let (added, removed) = (Some(Drift::Added), Some(Drift::Removed));
    // Source, base, actual; the verdict; the drift, and the drift after an unfinished job.
    let table = [
        (position(None, None, None), Keep, None, None),
        (position(some(&a), None, None), Create, None, None),
        (position(some(&a), some(&ca), some(&a)), Keep, None, None),
        (position(some(&b), some(&ca), some(&a)), Replace, None, None),
        (position(some(&large), some(&ca), some(&a)), Replace, None, None),
        (position(None, some(&ca), some(&a)), Delete, None, None),
        (position(some(&a), some(&ca), None), Create, removed, None),
        (position(None, some(&ca), None), Keep, removed, None),
        (position(some(&a), some(&ca), some(&b)), Compare, changed, None),
        (position(some(&a), some(&ca), some(&large)), Replace, changed, None),
        (position(None, some(&ca), some(&b)), Delete, changed, changed),
        (position(None, None, some(&a)), Delete, added, added),
        (position(some(&a), None, some(&a)), Compare, added, None),
        (position(some(&a), None, some(&large)), Replace, added, None),
        (position(some(&moded(&a, 0o600)), some(&moded(&ca, 0o644)), some(&moded(&a, 0o644))), Reattribute, None, None),
        (position(some(&a), some(&moded(&ca, 0o644)), some(&moded(&a, 0o600))), Compare, changed, None),
        // Nothing says what the target's object is: not to be kept unread.
        (position(some(&a), some(&copy_of(&untagged)), some(&untagged)), Compare, changed, None),
    ];
    for (position, verdict, drift, after) in table {
        for (resuming, drift) in [(false, drift), (true, after)] {
            let judged = judge(&position, Circumstances { resuming, ..Default::default() });
            assert_eq!((judged.verdict, judged.drift), (verdict, drift), "{position:#?}, resuming {resuming}");
        }
    }
    // What the journal says landed is known, whatever the base says; what a dead job was to land is its own.
    let landed = Position { landed: some(&cb), ..position(some(&b), some(&ca), some(&b)) };
    let judged = judge(&landed, Circumstances { resuming: true, ..Default::default() });
    assert_eq!((judged.verdict, judged.drift), (Keep, None));
    let pending = Position { pending: some(&b), ..position(None, None, some(&b)) };
    let judged = judge(&pending, Circumstances { resuming: true, ..Default::default() });
    assert_eq!((judged.verdict, judged.drift), (Delete, None));
}

#[test]
fn names_that_a_file_system_cannot_hold_together() {
    let both = Tree::from([("a".into(), Some(1)), ("a/b".into(), Some(2)), ("a-".into(), Some(3))]);
    let error = planned(&both, &Tree::new(), &Tree::new(), false).unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Unrepresentable, "{error}");
    assert_eq!(error.failed_key(), Some(&Key::from("a/b")));
    // The same names one after the other are no trouble.
    let file = Tree::from([("a".into(), Some(1))]);
    let directory = Tree::from([("a/".into(), None), ("a/b".into(), Some(1))]);
    for (from, to) in [(&file, &directory), (&directory, &file)] {
        let plan = planned(to, from, from, false).unwrap();
        let clears: Vec<Key> = plan.clears.iter().unwrap().map(|clear| clear.unwrap().key).collect();
        assert_eq!(clears.len(), 1, "{clears:?}");
        assert_eq!(clears[0], *from.keys().next().unwrap());
        assert!(to.values().flatten().count() == 1 && plan.totals.renamed == 1);
    }
    assert_eq!(entry(&"a/".into(), None).kind, Kind::Directory);
}

#[test]
fn a_bad_stream_makes_no_plan() {
    let good = Tree::from([("a".into(), Some(1)), ("b".into(), Some(2)), ("c".into(), Some(3))]);
    let backwards = || -> Entries<'static> {
        let keys = ["b", "a"].map(|key| Ok(entry(&key.into(), Some(1))));
        Box::new(keys.into_iter())
    };
    for bad in 0..3 {
        let mut streams = [entries(&good, false), entries(&good, true), entries(&good, false)];
        streams[bad] = backwards();
        let [source, base, actual] = streams;
        let (landed, pending): (Entries<'_>, Entries<'_>) =
            (Box::new(std::iter::empty()), Box::new(std::iter::empty()));
        let inputs = Inputs { source, base, actual, landed, pending };
        let (target, folder) = (MemoryStore::like_files(), std::env::temp_dir());
        let (run, trees) = (Circumstances::default(), Trees::default());
        let options =
            Options { target: &target, accepts: &|_| Ok(()), leaves: &|_| false, run, trees: &trees, folder: &folder };
        let error = plan(inputs, &options).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::BadListing, "stream {bad}: {error}");
    }
}
