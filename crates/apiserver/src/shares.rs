//! What clients use at once: of everything there is a most, and each client has at most a part of that, so that one
//! cannot keep out the others.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How much of one thing is in use, and by whom. Each step costs the same however many clients there are.
pub(crate) struct Shares<K> {
    /// Most for all clients together.
    all: usize,
    /// Most for one of them.
    each: usize,
    used: Mutex<Used<K>>,
}

struct Used<K> {
    all: usize,
    by: HashMap<K, usize>,
}

/// Units in use; given back when it is dropped.
pub(crate) struct Share<K: Eq + Hash> {
    of: Arc<Shares<K>>,
    who: K,
    units: usize,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    pub(crate) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, used: Mutex::new(Used { all: 0, by: HashMap::new() }) })
    }

    /// A unit for a client; `None` when it has its part, or all are in use.
    pub(crate) fn take(self: &Arc<Self>, who: K) -> Option<Share<K>> {
        self.take_many(who, 1)
    }

    /// Units for a client; `None` when they are more than is left of its part, or of all. A client that has none gets any
    /// number that is left of all: what is larger than its part would never come otherwise.
    pub(crate) fn take_many(self: &Arc<Self>, who: K, units: usize) -> Option<Share<K>> {
        let mut used = self.lock();
        let own = used.by.get(&who).copied().unwrap_or(0);
        if used.all.saturating_add(units) > self.all || (own > 0 && own.saturating_add(units) > self.each) {
            return None;
        }
        used.all += units;
        used.by.insert(who.clone(), own + units);
        Some(Share { of: self.clone(), who, units })
    }
}

impl<K> Shares<K> {
    fn lock(&self) -> MutexGuard<'_, Used<K>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn one_client_leaves_room_for_the_others() {
        let shares = Shares::new(4, 2);
        let held: Vec<_> = (0..3).filter_map(|_| shares.take("a")).collect();
        assert_eq!(held.len(), 2);
        let others: Vec<_> = ["b", "c", "d"].into_iter().filter_map(|who| shares.take(who)).collect();
        assert_eq!(others.len(), 2, "four are all there are");
        drop(held);
        assert!(shares.take("a").is_some());
        drop(others);
        let all = shares.take_many("a", 4).expect("more than its part, when it has nothing else");
        assert!(shares.take_many("b", 1).is_none(), "all are in use");
        drop(all);
        let part = shares.take_many("a", 1).unwrap();
        assert!(shares.take_many("a", 2).is_none(), "more than its part");
        drop(part);
        assert!(shares.lock().by.is_empty());
    }
}
