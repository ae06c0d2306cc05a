//! What many use at once: of everything there is a most, and each user has at most a part of that, so that one cannot keep
//! out the others. Who finds no room is refused; who may wait has [`Turns`](crate::Turns).

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How much of one thing is in use, and by whom. Each step costs the same however many users there are.
#[derive(Debug)]
pub struct Shares<K> {
    /// Most for all together.
    all: usize,
    /// Most for one of them.
    each: usize,
    used: Mutex<Used<K>>,
}

#[derive(Debug)]
struct Used<K> {
    all: usize,
    by: HashMap<K, usize>,
}

/// Units in use; given back when it is dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash> {
    of: Arc<Shares<K>>,
    who: K,
    units: usize,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// So many for all, and so many at most for each.
    pub fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, used: Mutex::new(Used { all: 0, by: HashMap::new() }) })
    }

    /// A unit for somebody; `None` when they have their part, or all are in use.
    pub fn take(self: &Arc<Self>, who: K) -> Option<Share<K>> {
        self.take_many(who, 1)
    }

    /// Units for somebody; `None` when they are more than is left of the part, or of all. Who has none gets any number that
    /// is left of all: what is larger than a part would never come otherwise.
    pub fn take_many(self: &Arc<Self>, who: K, units: usize) -> Option<Share<K>> {
        let mut share = Share { of: self.clone(), who, units: 0 };
        share.grow(units).then_some(share)
    }
}

impl<K> Shares<K> {
    /// How many are in use.
    pub fn used(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Used<K>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Share<K> {
    /// Makes it `units` if it is smaller. Whether there was room.
    pub fn grow(&mut self, units: usize) -> bool {
        let more = units.saturating_sub(self.units);
        let mut used = self.of.lock();
        let own = used.by.get(&self.who).copied().unwrap_or(0);
        let has_others = own > self.units;
        let is_beyond_part = has_others && own.saturating_add(more) > self.of.each;
        if used.all.saturating_add(more) > self.of.all || is_beyond_part {
            return false;
        }
        used.all += more;
        *used.by.entry(self.who.clone()).or_default() += more;
        self.units += more;
        true
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut used = self.of.lock();
        used.all -= self.units;
        if let Some(own) = used.by.get_mut(&self.who) {
            *own -= self.units;
            if *own == 0 {
                used.by.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leaves_room_for_the_others() {
        let shares = Shares::new(4, 2);
        let held: Vec<_> = (0..3).filter_map(|_| shares.take("a")).collect();
        assert_eq!(held.len(), 2);
        let others: Vec<_> = ["b", "c", "d"].into_iter().filter_map(|who| shares.take(who)).collect();
        assert_eq!((others.len(), shares.used()), (2, 4), "four are all there are");
        drop((held, others));
        let all = shares.take_many("a", 4).expect("more than its part, when it has nothing else");
        assert!(shares.take("b").is_none(), "all are in use");
        drop(all);
        let part = shares.take("a").expect("room");
        assert!(shares.take_many("a", 2).is_none(), "more than its part");
        drop(part);
        assert!(shares.lock().by.is_empty());
    }

    #[test]
    fn what_grows_may_be_more_than_a_part_if_it_is_the_only_one() {
        let shares = Shares::new(8, 2);
        let mut first = shares.take("a").expect("room");
        let second = shares.take("a").expect("room");
        assert!(!first.grow(2), "both together are its part");
        drop(second);
        assert!(first.grow(8) && first.grow(3), "and no less afterwards");
        assert!(!first.grow(9));
        drop(first);
        assert_eq!((shares.used(), shares.lock().by.len()), (0, 0));
    }
}
