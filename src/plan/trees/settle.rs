//! Which of the trees can move as a whole: their places have to be free, or become so.

use std::collections::{HashMap, HashSet};

use super::{Identity, TreeMove, longest, prefixes, renamed};
use crate::error::Result;
use crate::key::Key;
use crate::manifest::Entry;
use crate::plan::spool::Spool;

/// What the trees stand on.
pub(super) struct Ground<'a> {
    /// The base's directories.
    pub(super) directories: &'a Spool<Entry>,
    /// The target as it is.
    pub(super) actual: &'a Spool<Entry>,
    /// What is in the folder of staged trees.
    pub(super) staged: &'a HashMap<Identity, Key>,
    /// An earlier job stopped half-way.
    pub(super) resuming: bool,
}

/// The trees that can move as a whole, with those that have to go for them. Leaving one out may block another, so this
/// goes on until none is.
pub(super) fn settle(found: Vec<TreeMove>, ground: &Ground<'_>) -> Result<Vec<TreeMove>> {
    if found.is_empty() {
        return Ok(found);
    }
    let mut settling = Settling::new(found, ground)?;
    settling.give_way(ground);
    // Chains block one after another: looked at in both directions they fall in few rounds.
    while settling.drop_blocked(false) | settling.drop_blocked(true) {}
    let alive = settling.trees.into_iter().zip(settling.alive);
    Ok(alive.filter_map(|(tree, alive)| alive.then_some(tree)).collect())
}

struct Settling {
    trees: Vec<TreeMove>,
    alive: Vec<bool>,
    /// For each tree the one that goes for it.
    gives_way: HashMap<usize, usize>,
    by_base: HashMap<Key, usize>,
    by_from: HashMap<Key, usize>,
    by_to: HashMap<Key, usize>,
    /// What there is of the names that matter.
    base: HashMap<Key, Option<Identity>>,
    actual: HashMap<Key, Option<Identity>>,
}

impl Settling {
    fn new(trees: Vec<TreeMove>, ground: &Ground<'_>) -> Result<Self> {
        let by = |name: fn(&TreeMove) -> &Key| trees.iter().enumerate().map(|(i, t)| (name(t).clone(), i)).collect();
        let mut settling = Self {
            alive: vec![true; trees.len()],
            gives_way: HashMap::new(),
            by_base: by(|tree| &tree.base),
            by_from: by(|tree| &tree.from),
            by_to: by(|tree| &tree.to),
            base: HashMap::new(),
            actual: HashMap::new(),
            trees,
        };
        let (mut in_base, mut in_actual) = (HashSet::new(), HashSet::new());
        for tree in &settling.trees {
            in_base.extend(settling.sources(&tree.to, |tree| &tree.base).map(|(name, _)| name));
            for name in obstacles(&tree.to) {
                in_actual.extend(settling.sources(&name, |tree| &tree.from).map(|(name, _)| name));
            }
        }
        settling.base = there(ground.directories, &in_base)?;
        settling.actual = there(ground.actual, &in_actual)?;
        Ok(settling)
    }

    /// The names that would become `key`, with the tree that each is in: itself, and those in trees whose place it is in.
    fn sources<'a>(
        &'a self,
        key: &'a Key,
        old: impl Fn(&TreeMove) -> &Key + 'a,
    ) -> impl Iterator<Item = (Key, Option<usize>)> + 'a {
        let moved = prefixes(key).filter_map(|prefix| self.by_to.get(&prefix).copied());
        let moved = moved.map(move |at| (renamed(key, &self.trees[at].to, old(&self.trees[at])), Some(at)));
        std::iter::once((key.clone(), None)).chain(moved)
    }

    /// Finds the directories in whose place another one comes, and lets them go.
    fn give_way(&mut self, ground: &Ground<'_>) {
        let mut known: HashSet<Identity> = self.trees.iter().map(|tree| tree.identity).collect();
        for at in 0..self.trees.len() {
            let place = self.trees[at].to.clone();
            let Some(Some(held)) = self.base.get(&place).copied() else { continue };
            if longest(&self.by_base, &place).is_some() {
                continue;
            }
            let from = match (self.actual.get(&place), ground.staged.get(&held)) {
                (Some(Some(here)), _) if *here == held => place.clone(),
                (_, Some(staged)) => staged.clone(),
                // An earlier job has emptied the staging folder since.
                _ if ground.resuming => held.staging(),
                _ => continue,
            };
            if self.by_from.contains_key(&from) || !known.insert(held) {
                continue;
            }
            let gone = self.trees.len();
            self.by_base.insert(place.clone(), gone);
            self.by_from.insert(from.clone(), gone);
            self.trees.push(TreeMove::gone(place, from, held));
            self.alive.push(true);
            self.gives_way.insert(at, gone);
        }
    }

    fn drop_blocked(&mut self, backwards: bool) -> bool {
        let (count, mut any) = (self.trees.len(), false);
        for at in 0..count {
            let at = if backwards { count - 1 - at } else { at };
            if self.alive[at] && !self.trees[at].is_gone() && self.is_blocked(at) {
                self.alive[at] = false;
                if let Some(&gone) = self.gives_way.get(&at) {
                    self.alive[gone] = false;
                }
                any = true;
            }
        }
        any
    }

    /// True when something else is in the place of this tree, or in the way of it.
    fn is_blocked(&self, at: usize) -> bool {
        let tree = &self.trees[at];
        let taken = self.sources(&tree.to, |tree| &tree.base).any(|(name, within)| {
            name != tree.base && self.base.contains_key(&name) && self.innermost(&self.by_base, &name) == within
        });
        taken
            || obstacles(&tree.to).any(|place| {
                self.sources(&place, |tree| &tree.from).any(|(name, within)| {
                    name != tree.from
                        && self.actual.contains_key(&name)
                        && self.innermost(&self.by_from, &name) == within
                })
            })
    }

    /// The innermost of the trees left that `key` is in.
    fn innermost(&self, names: &HashMap<Key, usize>, key: &Key) -> Option<usize> {
        prefixes(key).find_map(|prefix| names.get(&prefix).copied().filter(|&at| self.alive[at]))
    }
}

/// What must not stand where a directory comes: it, a file of its name, and files in place of those that it is in.
fn obstacles(directory: &Key) -> impl Iterator<Item = Key> {
    let files = prefixes(directory).map(|prefix| prefix.prefix(prefix.len() - 1));
    std::iter::once(directory.clone()).chain(files)
}

/// Which of these names there are.
fn there(entries: &Spool<Entry>, names: &HashSet<Key>) -> Result<HashMap<Key, Option<Identity>>> {
    let mut there = HashMap::new();
    for entry in entries.iter()? {
        let entry = entry?;
        if names.contains(&entry.key) {
            there.insert(entry.key, Identity::of(&entry.pin));
        }
    }
    Ok(there)
}
