//! What is kept because it may be used again: so much in all, of which each owner has a part. What is used goes last, and
//! nobody's goes for what another owner keeps beyond its part.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// See the module. `O` tells owners apart, such as namespaces; who uses what is kept need not own it. To keep something in a full
/// one costs a look at all that is kept.
#[derive(Debug)]
pub struct Cache<O, K, V> {
    most: usize,
    /// Most of one owner.
    each: usize,
    /// Counts uses.
    uses: u64,
    kept: HashMap<K, Kept<O, V>>,
    counts: HashMap<O, usize>,
}

#[derive(Debug)]
struct Kept<O, V> {
    owner: O,
    value: V,
    /// The number of its last use.
    used: u64,
}

impl<O: Eq + Hash + Clone, K: Eq + Hash + Clone, V> Cache<O, K, V> {
    /// For so many in all, and one in `parts` of each owner; at least one.
    pub fn new(most: usize, parts: usize) -> Self {
        let most = most.max(1);
        let each = (most / parts.max(1)).max(1);
        Self { most, each, uses: 0, kept: HashMap::new(), counts: HashMap::new() }
    }

    /// What is kept under a key, which is used by it.
    pub fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let kept = self.kept.get_mut(key)?;
        self.uses += 1;
        kept.used = self.uses;
        Some(&kept.value)
    }

    /// Keeps something, in place of what was kept under this key. Beyond its owner's part what that one has not used for
    /// longest goes, and beyond all what whoever has most has not.
    pub fn keep(&mut self, owner: O, key: K, value: V) {
        self.forget(&key);
        let own = self.counts.get(&owner).copied().unwrap_or_default();
        if own >= self.each {
            self.forget_oldest(&owner);
        } else if self.kept.len() >= self.most
            && let Some(largest) =
                self.counts.iter().max_by_key(|(_, count)| **count).map(|(largest, _)| largest.clone())
        {
            self.forget_oldest(&largest);
        }
        self.uses += 1;
        *self.counts.entry(owner.clone()).or_default() += 1;
        self.kept.insert(key, Kept { owner, value, used: self.uses });
    }

    /// How much is kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn forget_oldest(&mut self, owner: &O) {
        let own = self.kept.iter().filter(|(_, kept)| kept.owner == *owner);
        let oldest = own.min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &K) {
        let Some(Kept { owner, .. }) = self.kept.remove(key) else { return };
        if let Some(count) = self.counts.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(cache: &Cache<&'static str, u32, ()>) -> Vec<u32> {
        let mut keys: Vec<u32> = cache.kept.keys().copied().collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn who_keeps_more_than_its_part_loses_what_it_used_longest_ago_and_others_nothing() {
        let mut cache = Cache::new(8, 4);
        (0..2).for_each(|key| cache.keep("a", key, ()));
        (10..1000).for_each(|key| {
            cache.keep("evil", key, ());
            assert!(cache.get(&10).is_some(), "what is used stays");
        });
        assert_eq!(keys(&cache), [0, 1, 10, 999]);
        cache.keep("evil", 10, ());
        assert_eq!((keys(&cache), cache.len()), (vec![0, 1, 10, 999], 4));
    }

    #[test]
    fn where_all_is_kept_that_may_be_who_has_most_makes_room() {
        let mut cache = Cache::new(4, 2);
        [("a", 0), ("b", 1), ("b", 2), ("c", 3)].into_iter().for_each(|(owner, key)| cache.keep(owner, key, ()));
        cache.keep("d", 4, ());
        assert_eq!(keys(&cache), [0, 2, 3, 4]);
        (100..200).for_each(|key| cache.keep("e", key, ()));
        assert!(cache.len() == 4 && cache.counts.values().sum::<usize>() == 4, "{cache:?}");
    }

    #[test]
    fn there_is_always_room_for_one() {
        let mut cache = Cache::new(0, 0);
        assert!(cache.is_empty() && cache.get(&1).is_none());
        cache.keep("a", 1, "one");
        cache.keep("b", 2, "two");
        assert_eq!((cache.get(&1).copied(), cache.get(&2).copied()), (None, Some("two")));
    }
}
