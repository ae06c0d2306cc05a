//! Whose turn it is to pull.
//!
//! A pull takes as long as its registry lets it, and a registry may be anybody's. So one namespace's pulls never take all
//! turns: the last ones are for the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Turns that one namespace cannot take.
const FOR_OTHERS: usize = 2;

/// The turns of all namespaces.
pub(crate) struct PullSlots {
    all: Arc<Semaphore>,
    each: usize,
    /// Of namespaces that pull or wait.
    namespaces: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A turn, for as long as it is kept.
pub(crate) struct Slot {
    _of_all: OwnedSemaphorePermit,
    _of_namespace: OwnedSemaphorePermit,
}

impl PullSlots {
    /// So many at a time, at least one.
    pub(crate) fn new(parallel: usize) -> PullSlots {
        let all = parallel.max(1);
        let each = all.saturating_sub(FOR_OTHERS).max(1);
        PullSlots { all: Arc::new(Semaphore::new(all)), each, namespaces: Mutex::default() }
    }

    /// Waits for a turn: among the namespace's own first, so that whoever waits there stands in nobody else's way.
    /// `None` when there will be none.
    pub(crate) async fn take(&self, namespace: &str) -> Option<Slot> {
        let own = {
            let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
            namespaces.retain(|_, slots| Arc::strong_count(slots) > 1);
            let slots = namespaces.entry(namespace.to_owned());
            Arc::clone(slots.or_insert_with(|| Arc::new(Semaphore::new(self.each))))
        };
        let of_namespace = own.acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Slot { _of_all: of_all, _of_namespace: of_namespace })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn one_namespace_cannot_take_all_turns() {
        let slots = PullSlots::new(8);
        let now = |namespace: &str| slots.take(namespace).now_or_never().flatten();
        let mut held: Vec<Slot> = (0..6).map(|_| now("greedy").expect("a turn")).collect();
        assert!(now("greedy").is_none());
        held.extend([now("a").expect("a turn"), now("b").expect("a turn")]);
        assert!(now("c").is_none(), "all eight are taken");
        drop(held);
        assert!(now("greedy").is_some() && now("c").is_some());
        assert_eq!(slots.namespaces.lock().expect("nobody panics").len(), 1, "who is done is forgotten");
    }

    #[test]
    fn few_turns_are_one_for_each_namespace() {
        for parallel in [0, 1, 2] {
            let slots = PullSlots::new(parallel);
            let _held = slots.take("a").now_or_never().flatten().expect("a turn");
            assert!(slots.take("a").now_or_never().is_none());
            assert_eq!(slots.take("b").now_or_never().is_some(), parallel == 2);
        }
    }
}
