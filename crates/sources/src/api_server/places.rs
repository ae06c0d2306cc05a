//! How many collections may be watched: so many in all, of which one namespace has half of what the others leave. So one alone
//! may have half of them, several share them, and however many there are, something is left for who comes next.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    held: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_namespace: HashMap<Arc<str>, usize>,
}

/// Places of one source; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    of: Places,
    namespace: Arc<str>,
    count: usize,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Inner { most, held: Mutex::default() }))
    }

    /// None yet, for a source of this namespace.
    pub(super) fn none(&self, namespace: Arc<str>) -> Held {
        Held { of: self.clone(), namespace, count: 0 }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Holds so many from now on. Fewer than before are always to be had.
    ///
    /// # Errors
    /// When there are not so many: how many there are for it. Then it holds what it held.
    pub(super) fn hold(&mut self, count: usize) -> Result<(), usize> {
        let places = self.of.clone();
        let mut counts = places.counts();
        let own = counts.by_namespace.get(&self.namespace).copied().unwrap_or_default();
        let left = places.0.most.saturating_sub(counts.all - own);
        let most = left.div_ceil(2).saturating_sub(own - self.count);
        if count > self.count && count > most {
            return Err(most);
        }
        self.set(count, &mut counts);
        Ok(())
    }

    /// Holds none any more.
    pub(super) fn give_back(&mut self) {
        let places = self.of.clone();
        self.set(0, &mut places.counts());
    }

    fn set(&mut self, count: usize, counts: &mut Counts) {
        counts.all = counts.all - self.count + count;
        let own = counts.by_namespace.entry(self.namespace.clone()).or_default();
        *own = *own - self.count + count;
        if *own == 0 {
            counts.by_namespace.remove(&self.namespace);
        }
        self.count = count;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_half_of_what_the_others_leave_and_gives_back_what_it_does_not_use() {
        let places = Places::new(16);
        let of = |namespace: &str| places.none(namespace.into());
        let (mut first, mut second) = (of("a"), of("a"));
        assert_eq!(first.hold(9), Err(8));
        assert_eq!((first.hold(6), second.hold(3), second.hold(2)), (Ok(()), Err(2), Ok(())));
        let (mut other, mut third) = (of("b"), of("c"));
        assert_eq!((other.hold(5), other.hold(4), third.hold(2), of("d").hold(1)), (Err(4), Ok(()), Ok(()), Ok(())));
        assert_eq!(first.hold(7), Err(3), "what it has stays, and it gets no more");
        assert_eq!((first.hold(1), first.hold(3), first.hold(4)), (Ok(()), Ok(()), Err(3)));
        drop((first, second, other, third));
        let counts = places.counts();
        assert_eq!((counts.all, counts.by_namespace.len()), (0, 0));
    }
}
