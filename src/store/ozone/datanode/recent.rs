//! A small memory of what was used last.

use std::collections::VecDeque;

/// Values by key, the one used last in front; the one used longest ago makes room for a new one. Searched from the
/// front: made for some hundred entries that cost a request or a connection each.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    entries: VecDeque<(K, V)>,
    max: usize,
}

impl<K: PartialEq + Clone, V: Clone> Recent<K, V> {
    /// Holds `max` entries, at least 1.
    pub(super) fn new(max: usize) -> Self {
        Self { entries: VecDeque::new(), max: max.max(1) }
    }

    /// The value of a key, made if there is none.
    pub(super) fn get(&mut self, key: &K, make: impl FnOnce() -> V) -> V {
        let entry = match self.entries.iter().position(|(known, _)| known == key) {
            Some(0) => return self.entries[0].1.clone(),
            Some(index) => self.entries.remove(index),
            None => None,
        };
        let entry = entry.unwrap_or_else(|| {
            self.entries.truncate(self.max - 1);
            (key.clone(), make())
        });
        let value = entry.1.clone();
        self.entries.push_front(entry);
        value
    }

    /// Forgets the entries for which this is false.
    pub(super) fn retain(&mut self, keep: impl Fn(&K, &V) -> bool) {
        self.entries.retain(|(key, value)| keep(key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_used_longest_ago_goes() {
        let mut recent = Recent::new(2);
        let never = || panic!("it is there");
        assert_eq!(recent.get(&'a', || 1), 1);
        assert_eq!(recent.get(&'b', || 2), 2);
        assert_eq!(recent.get(&'a', never), 1);
        assert_eq!(recent.get(&'c', || 3), 3);
        assert_eq!(recent.get(&'a', never), 1);
        assert_eq!(recent.get(&'b', || 4), 4, "b made room for c");
        recent.retain(|key, _| *key != 'b');
        assert_eq!(recent.get(&'b', || 5), 5);
    }
}
