//! Directories that are renamed, swapped, nested, replaced and deleted, on a model that keeps their identity: carried
//! out step by step, and given up after any of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::manifest::{Entry, FileId};
use crate::merge::Entries;
use crate::plan::{Circumstances, Finish, Inputs, Landing, Method, Options, Plan, plan};
use crate::store::memory::MemoryStore;

/// What a key holds: an object's content, or none; and the number that a rename leaves alone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    content: Option<u8>,
    inode: u64,
}

/// A file system. Every parent is there, nothing is both a file and a directory.
#[derive(Debug, Clone, Default)]
struct Files {
    nodes: BTreeMap<Key, Node>,
    last: u64,
}

#[derive(Debug, Clone)]
enum Op {
    Put(String, u8),
    Make(String),
    Remove(String),
    Rename(String, String),
    Swap(String, String),
}

fn name() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "c", "a-"]);
    prop::collection::vec(part, 1..=3).prop_map(|parts| parts.join("/"))
}

fn ops(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (name(), 0u8..6).prop_map(|(name, content)| Op::Put(name, content)),
        1 => name().prop_map(Op::Make),
        1 => name().prop_map(Op::Remove),
        5 => (name(), name()).prop_map(|(a, b)| Op::Rename(a, b)),
        2 => (name(), name()).prop_map(|(a, b)| Op::Swap(a, b)),
    ];
    prop::collection::vec(op, count)
}

fn directory(name: &str) -> Key {
    Key::from(format!("{name}/"))
}

impl Files {
    fn of(ops: &[Op]) -> Self {
        let mut files = Self::default();
        files.apply(ops);
        files
    }

    fn apply(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Put(name, content) if !self.nodes.contains_key(&directory(name)) => {
                    self.make(&name.as_str().into(), Some(*content));
                }
                Op::Put(..) => {}
                Op::Make(name) => drop(self.make(&directory(name), None)),
                Op::Remove(name) => self.remove(name),
                Op::Rename(from, to) => self.replace(from, to),
                Op::Swap(a, b) => {
                    if [a, b].iter().all(|name| self.key(name).is_some()) && !nested(a, b) {
                        self.replace(a, "held");
                        self.replace(b, a);
                        self.replace("held", b);
                    }
                }
            }
        }
    }

    fn key(&self, name: &str) -> Option<Key> {
        [Key::from(name), directory(name)].into_iter().find(|key| self.nodes.contains_key(key))
    }

    fn remove(&mut self, name: &str) {
        let (file, directory) = (Key::from(name), directory(name));
        self.nodes.retain(|key, _| *key != file && !key.starts_with(directory.as_bytes()));
    }

    fn replace(&mut self, from: &str, to: &str) {
        let Some(key) = self.key(from).filter(|_| !nested(from, to)) else { return };
        let new = if key.is_directory() { directory(to) } else { Key::from(to) };
        let mut parents = prefixes(&new).skip(usize::from(new.is_directory()));
        if parents.any(|parent| self.nodes.contains_key(&parent.prefix(parent.len() - 1))) {
            return;
        }
        self.remove(to);
        self.rename(&key, &new);
    }

    /// Makes a file or directory with the directories that it is in; false where a file is in the way.
    fn make(&mut self, key: &Key, content: Option<u8>) -> bool {
        let blocked = prefixes(key).any(|prefix| self.nodes.contains_key(&prefix.prefix(prefix.len() - 1)));
        if blocked || self.nodes.contains_key(&Key::new([key.as_bytes(), b"/"].concat())) {
            return false;
        }
        let parents: Vec<Key> = prefixes(key).collect();
        for parent in parents.into_iter().chain([key.clone()]) {
            let last = &mut self.last;
            let node = self.nodes.entry(parent.clone()).or_insert_with(|| {
                *last += 1;
                Node { content: None, inode: *last }
            });
            if parent == *key {
                node.content = content;
            }
        }
        true
    }

    fn rename(&mut self, from: &Key, to: &Key) {
        assert!(self.nodes.contains_key(from), "there is no {from:?}");
        assert!(!self.nodes.contains_key(to), "{to:?} is there");
        let inside = |key: &&Key| *key == from || from.is_directory() && key.starts_with(from.as_bytes());
        let moved: Vec<Key> = self.nodes.keys().filter(inside).cloned().collect();
        let moved: Vec<(Key, Node)> =
            moved.into_iter().map(|key| (renamed(&key, from, to), self.nodes.remove(&key).unwrap())).collect();
        assert!(self.make(to, None), "something is in the way of {to:?}");
        self.nodes.extend(moved);
    }

    fn live(&self) -> BTreeMap<Key, Option<u8>> {
        let live = self.nodes.iter().filter(|(key, _)| !key.is_reserved());
        live.map(|(key, node)| (key.clone(), node.content)).collect()
    }

    fn pin(node: &Node) -> Pin {
        match node.content {
            None => Pin { file: Some(FileId { inode: node.inode, birth_ns: 0, mtime_ns: 0 }), ..Pin::default() },
            Some(content) => Pin { etag: Some(format!("{content:032x}").into()), ..Pin::default() },
        }
    }

    fn entry(key: &Key, node: &Node) -> Entry {
        let entry = match node.content {
            None => Entry::directory(key.clone()),
            Some(content) => Entry::object(key.clone(), 10 + u64::from(content)),
        };
        Entry { pin: Self::pin(node), ..entry }
    }

    fn entries(&self) -> Vec<Entry> {
        self.nodes.iter().map(|(key, node)| Self::entry(key, node)).collect()
    }

    /// What a target that holds the same keeps as its manifest.
    fn manifest(&self, source: &Files) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.entries().into_iter().filter(|entry| !entry.key.is_reserved()).collect();
        for entry in &mut entries {
            entry.origin = source.nodes.get(&entry.key).map(Self::pin);
        }
        entries
    }

    /// The same tree with other numbers, as a target has it.
    fn copy(&self) -> Self {
        let mut copy = self.clone();
        let count = self.nodes.len() as u64;
        copy.nodes.values_mut().enumerate().for_each(|(i, node)| node.inode = 1000 + count - i as u64);
        copy.last = 2000;
        copy
    }
}

fn nested(a: &str, b: &str) -> bool {
    directory(a).starts_with(directory(b).as_bytes()) || directory(b).starts_with(directory(a).as_bytes())
}

fn stream(entries: &[Entry]) -> Entries<'_> {
    Box::new(entries.iter().cloned().map(Ok))
}

/// One side's past and present.
struct Night<'a> {
    source: &'a Files,
    base: &'a [Entry],
    /// What an earlier run was working towards, where that is another snapshot.
    pending: Option<&'a Files>,
    resuming: bool,
}

impl Night<'_> {
    fn planned(&self, target: &Files) -> Plan {
        let folder = std::env::temp_dir();
        let (source, mut actual) = (self.source.entries(), target.entries());
        // As two listings give it: of the bucket, and of the folder of staged trees.
        actual.retain(|entry| !entry.key.is_reserved() || entry.key.starts_with(staged_trees().as_bytes()));
        let pending = self.pending.map(Files::entries).unwrap_or_default();
        let streams = Streams {
            source: stream(&source),
            base: stream(self.base),
            actual: stream(&actual),
            pending: stream(&pending),
        };
        let found = find(streams, self.resuming, &folder).unwrap();
        let inputs = Inputs {
            source: stream(&source),
            base: stream(self.base),
            actual: found.actual().unwrap(),
            landed: stream(&[]),
            pending: stream(&pending),
        };
        let run = Circumstances { resuming: self.resuming, ..Default::default() };
        let target = MemoryStore::like_trees();
        plan(
            inputs,
            &Options {
                target: &target,
                accepts: &|_| Ok(()),
                leaves: &|_| false,
                run,
                trees: &found.trees,
                folder: &folder,
            },
        )
        .unwrap()
    }

    /// Carries a plan out, in the order in which plans are, in at most `left` steps; none when it was stopped.
    fn carry_out(&self, plan: &Plan, target: &mut Files, mut left: usize) -> Option<()> {
        let mut step = || {
            left = left.checked_sub(1)?;
            Some(())
        };
        let mut staged: BTreeMap<Key, u8> = BTreeMap::new();
        let landings: Vec<Landing> = plan.landings.iter().unwrap().map(Result::unwrap).collect();
        for landing in &landings {
            step()?;
            let content = match (&landing.from, landing.method) {
                (Some(from), Method::Move) => target.nodes.remove(&from.key).expect("two moves from one name").content,
                (Some(from), _) => target.nodes[&from.key].content,
                (None, _) => {
                    let there = landing.replaces.as_ref().filter(|_| landing.compare);
                    assert!(there.is_none_or(|there| target.nodes.contains_key(&there.key)), "{landing}");
                    self.source.nodes[&landing.source.key].content
                }
            };
            staged.insert(landing.lands_at(), content.unwrap());
        }
        for tree in plan.trees.to_take_away() {
            step()?;
            target.rename(&tree.from, &tree.staging());
        }
        for tree in plan.trees.to_place() {
            step()?;
            target.rename(&tree.staging(), &tree.to);
        }
        for clear in plan.clears.iter().unwrap().map(Result::unwrap) {
            step()?;
            // A file that is in the way may have been taken away as content of another name.
            let is_there = target.nodes.contains_key(&clear.key);
            assert!(is_there || !clear.key.is_directory(), "{:?} was cleared already", clear.key);
            let inside = |key: &Key| clear.key.is_directory() && key.starts_with(clear.key.as_bytes());
            target.nodes.retain(|key, _| *key != clear.key && !inside(key));
        }
        for directory in plan.directories.iter().unwrap().map(Result::unwrap) {
            step()?;
            assert!(target.make(&directory.key, None), "{:?}", directory.key);
        }
        for landing in &landings {
            step()?;
            let content = staged.remove(&landing.lands_at()).expect("two landings of one name");
            let parent = landing.source.key.parent();
            assert!(parent.is_none_or(|parent| target.nodes.contains_key(&parent)), "no parent of {landing}");
            assert!(target.make(&landing.source.key, Some(content)), "{landing}");
        }
        for key in plan.deletes.iter().unwrap().map(Result::unwrap) {
            step()?;
            target.nodes.remove(&key);
        }
        let removed = plan.finish.iter().unwrap().any(|finish| matches!(finish, Ok(Finish::Remove(_))));
        assert!(!removed, "a directory was not removed as a whole");
        step()?;
        target.nodes.retain(|key, _| !key.is_reserved());
        step()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn trees_become_the_source(first in ops(0..12), changes in ops(0..6), drift in prop_oneof![2 => Just(Vec::new()), 1 => ops(1..4)]) {
        let mut source = Files::of(&first);
        let mut target = source.copy();
        let base = target.manifest(&source);
        source.apply(&changes);
        target.apply(&drift);
        let night = Night { source: &source, base: &base, pending: None, resuming: false };
        let plan = night.planned(&target);
        if drift.is_empty() {
            prop_assert_eq!(plan.totals.drift, 0, "{:?}", plan.drift);
            if !changes.iter().any(|op| matches!(op, Op::Put(..))) {
                prop_assert_eq!(plan.totals.bytes_planned, 0);
            }
        } else if target.live() != source.copy().live() && drift.iter().all(|op| matches!(op, Op::Put(..))) {
            let objects = |entries: Vec<Entry>| entries.into_iter().filter(|e| !e.key.is_directory()).map(|e| (e.key, e.pin)).collect::<Vec<_>>();
            prop_assert_eq!(plan.totals.drift == 0, objects(target.entries()) == objects(base.clone()));
        }
        prop_assert!(night.carry_out(&plan, &mut target, usize::MAX).is_some());
        prop_assert_eq!(target.live(), source.live());
        let base = target.manifest(&source);
        let next = Night { source: &source, base: &base, pending: None, resuming: false }.planned(&target);
        prop_assert!(next.is_empty() && next.keeps_base);
    }

    #[test]
    fn given_up_after_any_step(
        first in ops(0..12),
        changes in ops(1..6),
        more in prop_oneof![1 => Just(Vec::new()), 1 => ops(1..4)],
        stops in prop::collection::vec(0usize..25, 1..5),
    ) {
        let mut source = Files::of(&first);
        let mut target = source.copy();
        let base = target.manifest(&source);
        source.apply(&changes);
        let towards = source.clone();
        let mut pending = None;
        let mut whole = false;
        for (tries, left) in stops.into_iter().chain([usize::MAX]).enumerate() {
            if tries == 1 && !more.is_empty() {
                source.apply(&more);
                pending = Some(&towards);
            }
            let night = Night { source: &source, base: &base, pending, resuming: tries > 0 };
            let plan = night.planned(&target);
            // What an unfinished job left is never somebody else's doing.
            prop_assert_eq!(plan.totals.drift, 0, "{:?}", plan.drift);
            if tries == 0 {
                whole = plan.landings.is_empty() && more.is_empty();
            }
            prop_assert!(!whole || plan.landings.is_empty(), "a tree that moved as a whole falls to pieces");
            if night.carry_out(&plan, &mut target, left).is_some() {
                break;
            }
        }
        prop_assert_eq!(target.live(), source.live());
    }
}

/// The steps for trees, and the numbers of landings, deletes and directories made.
fn steps(first: &[&str], changes: &[Op]) -> (Vec<String>, [u64; 3]) {
    let mut source = Files::default();
    for name in first {
        source.apply(&[Op::Put((*name).into(), name.len() as u8 + name.as_bytes()[0])]);
    }
    let mut target = source.copy();
    let base = target.manifest(&source);
    source.apply(changes);
    let night = Night { source: &source, base: &base, pending: None, resuming: false };
    let plan = night.planned(&target);
    let trees = plan.trees.iter().map(ToString::to_string);
    let clears = plan.clears.iter().unwrap().map(|clear| format!("clear    {}", clear.unwrap().key));
    let steps = trees.chain(clears).collect();
    night.carry_out(&plan, &mut target, usize::MAX).unwrap();
    assert_eq!(target.live(), source.live());
    (steps, [plan.landings.len(), plan.deletes.len(), plan.directories.len()])
}

fn rename(from: &str, to: &str) -> Op {
    Op::Rename(from.into(), to.into())
}

#[test]
fn one_step_for_each_tree() {
    let steps = |first: &[&str], changes: &[Op]| {
        let (mut steps, others) = steps(first, changes);
        steps.sort();
        assert_eq!(others, [0; 3], "{steps:?}");
        steps
    };
    let none: [&str; 0] = [];
    assert_eq!(steps(&["a/x/1", "a/y/2", "a/3"], &[rename("a", "b")]), ["rename   a/ -> b/"]);
    assert_eq!(steps(&["a/x/1", "a/y/2"], &[]), none);
    assert_eq!(
        steps(&["a/x/1", "b/y/2"], &[Op::Swap("a".into(), "b".into())]),
        ["rename   a/ -> b/", "rename   b/ -> a/"]
    );
    // An inner tree moves out of one that moves too, and one moves into its own former child's place.
    assert_eq!(
        steps(&["a/x/1", "a/2"], &[rename("a/x", "c"), rename("a", "b")]),
        ["rename   a/ -> b/", "rename   a/x/ -> c/"]
    );
    assert_eq!(
        steps(&["a/b/c/1", "a/b/2"], &[rename("a/b", "held"), rename("a", "held/c-"), rename("held", "a")]),
        ["rename   a/ -> a/c-/", "rename   a/b/ -> a/"]
    );
    // The last of a rotation gives way.
    assert_eq!(
        steps(&["log-0/1", "log-1/2", "log-2/3"], &[rename("log-1", "log-2"), rename("log-0", "log-1")]),
        ["remove   log-2/", "rename   log-0/ -> log-1/", "rename   log-1/ -> log-2/"]
    );
    assert_eq!(steps(&["a/x/1", "a/2", "b"], &[Op::Remove("a".into())]), ["clear    a/"]);
}

#[test]
fn more_trees_than_are_moved_as_a_whole() {
    let count = TREES_MAX + 5;
    let first: Vec<Op> = (0..count).map(|i| Op::Put(format!("old-{i}/x"), 1)).collect();
    let mut source = Files::of(&first);
    let target = source.copy();
    let base = target.manifest(&source);
    let old = std::mem::take(&mut source.nodes).into_iter();
    source.nodes = old.map(|(key, node)| (key.to_string().replace("old", "new").into(), node)).collect();
    let plan = Night { source: &source, base: &base, pending: None, resuming: false }.planned(&target);
    assert_eq!((plan.trees.iter().len(), plan.landings.len()), (TREES_MAX, 5));
    assert_eq!((plan.totals.renamed, plan.totals.directories_renamed), (count as u64, TREES_MAX as u64));
    assert_eq!((plan.totals.bytes_planned, plan.totals.deleted), (0, 0));
}
