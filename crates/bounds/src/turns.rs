//! What many wait for: of everything there is a most, and each has at most a part of that, so that one cannot keep out the
//! others. A part of everything is kept for first turns: who has nothing finds room beside those who have their parts. Who finds
//! no room waits for its turn, in the order in which they came; who must not wait has [`Shares`](crate::Shares).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that one unit stands for, where bytes are counted.
const GRAIN: usize = 1 << 10;
/// One in so many units is kept for those who have nothing.
const KEPT: usize = 4;

/// See the module. Users are told apart by name, such as that of a namespace. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Units that everybody may have, up to a part each.
    shared: Arc<Semaphore>,
    /// The others: of these everybody may have one turn, so that who has nothing waits for nobody who has much.
    kept: Arc<Semaphore>,
    /// Most units of one.
    each: u32,
    /// Of those who have or want something.
    parts: Mutex<HashMap<Arc<str>, Weak<Part>>>,
}

/// What one may have.
#[derive(Debug)]
struct Part {
    of: Turns,
    who: Arc<str>,
    /// Of those that everybody may have.
    units: Arc<Semaphore>,
    /// The one turn of those that are kept.
    first: Arc<Semaphore>,
}

/// Units in use; given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    /// Of all.
    units: OwnedSemaphorePermit,
    own: Own,
    _part: Arc<Part>,
}

/// What of a part is in use.
#[derive(Debug)]
enum Own {
    First { _turn: OwnedSemaphorePermit },
    Units(OwnedSemaphorePermit),
}

impl Turns {
    /// So many units for all, and one in `parts` for each. A fourth of all is kept for first turns.
    pub fn new(all: usize, parts: usize) -> Self {
        let all = all.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let kept = all / KEPT;
        let each = u32::try_from((all / parts).clamp(1, all - kept)).unwrap_or(u32::MAX);
        let (shared, kept) = (Arc::new(Semaphore::new(all - kept)), Arc::new(Semaphore::new(kept)));
        Self(Arc::new(Inner { shared, kept, each, parts: Mutex::default() }))
    }

    /// So many bytes for all, and one in `parts` for each.
    pub fn of_bytes(all: usize, parts: usize) -> Self {
        Self::new(all.div_ceil(GRAIN), parts)
    }

    /// Waits until there is room for so many bytes, or for a whole part if they are more.
    pub async fn take_bytes(&self, who: &Arc<str>, bytes: usize) -> Turn {
        self.take(who, bytes.div_ceil(GRAIN)).await
    }

    /// Waits until there is room for so many units, or for a whole part if they are more.
    pub async fn take(&self, who: &Arc<str>, units: usize) -> Turn {
        let part = self.part(who);
        let units = u32::try_from(units).unwrap_or(u32::MAX).min(self.0.each);
        let of = |semaphore: &Arc<Semaphore>| {
            let taking = semaphore.clone().acquire_many_owned(units);
            async move { taking.await.expect("it is never closed") }
        };
        let shared = async {
            // First its own: who has no room there takes none from others while it waits.
            let own = of(&part.units).await;
            (of(&self.0.shared).await, Own::Units(own))
        };
        let (units, own) = match part.first.clone().try_acquire_owned() {
            Ok(turn) => tokio::select! {
                biased;
                units = of(&self.0.kept) => (units, Own::First { _turn: turn }),
                taken = shared => taken,
            },
            Err(_) => shared.await,
        };
        Turn { units, own, _part: part }
    }

    fn part(&self, who: &Arc<str>) -> Arc<Part> {
        let mut parts = self.parts();
        if let Some(part) = parts.get(who).and_then(Weak::upgrade) {
            return part;
        }
        let part = Arc::new(Part {
            of: self.clone(),
            who: who.clone(),
            units: Arc::new(Semaphore::new(self.0.each as usize)),
            first: Arc::new(Semaphore::new(1)),
        });
        parts.insert(who.clone(), Arc::downgrade(&part));
        part
    }

    fn parts(&self) -> MutexGuard<'_, HashMap<Arc<str>, Weak<Part>>> {
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Gives back what is more than so many bytes.
    pub fn shrink_to_bytes(&mut self, bytes: usize) {
        self.shrink(bytes.div_ceil(GRAIN));
    }

    /// Gives back what is more than so many units.
    fn shrink(&mut self, units: usize) {
        let own = match &mut self.own {
            Own::First { .. } => None,
            Own::Units(own) => Some(own),
        };
        for permit in [&mut self.units].into_iter().chain(own) {
            let more = permit.num_permits().saturating_sub(units);
            drop(permit.split(more));
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut parts = self.of.parts();
        // Another one may have come for the same meanwhile.
        if parts.get(&self.who).is_some_and(|part| part.strong_count() == 0) {
            parts.remove(&self.who);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn now(turns: &Turns, who: &str, units: usize) -> Option<Turn> {
        turns.take(&who.into(), units).now_or_never()
    }

    /// What somebody who wants as much as there is gets of it now, a unit at a time.
    fn all_now(turns: &Turns, who: &str) -> Vec<Turn> {
        std::iter::from_fn(|| now(turns, who, 1)).collect()
    }

    #[test]
    fn one_has_its_part_and_leaves_room_for_the_others() {
        let turns = Turns::new(16, 4);
        let mut held = all_now(&turns, "a");
        assert_eq!(held.len(), 5, "its part, and one of those that are kept");
        let others = ["b", "c"].map(|who| all_now(&turns, who));
        assert_eq!(others.each_ref().map(Vec::len), [5, 5]);
        let first = now(&turns, "d", 1).expect("who has none has one turn");
        assert!(now(&turns, "d", 1).is_none());
        assert!(now(&turns, "e", 1).is_none(), "all are in use");
        held.remove(1);
        let second = now(&turns, "d", 1).expect("what one gives back is another's");
        held.remove(0);
        let third = now(&turns, "e", 1).expect("and so is a turn of those that are kept");
        drop((held, others, first, second, third));
        assert!(turns.parts().is_empty());
    }

    #[test]
    fn however_many_come_they_have_no_more_than_all() {
        for (all, parts) in [(1, 1), (3, 4), (4, 1), (16, 4), (100, 8)] {
            let turns = Turns::new(all, parts);
            let held: Vec<Turn> = (0..3 * all).flat_map(|who| all_now(&turns, &who.to_string())).collect();
            assert_eq!(held.len(), all, "{all} for {parts}");
            drop(held);
            let whole = now(&turns, "one", all).expect("it waits for nobody");
            assert!(whole.units.num_permits() >= (all / parts).min(all - all / KEPT).max(1), "{all} for {parts}");
        }
    }

    #[test]
    fn more_than_a_part_is_a_part_and_what_is_not_used_is_given_back() {
        let turns = Turns::new(16, 4);
        let mut first = now(&turns, "a", 100).expect("as much as a part, of those that are kept");
        let mut second = now(&turns, "a", 100).expect("a whole part");
        assert!(now(&turns, "a", 1).is_none());
        assert!(now(&turns, "b", 100).is_some(), "of those that everybody may have");
        second.shrink(3);
        second.shrink(4);
        first.shrink(1);
        let third = now(&turns, "a", 1).expect("what was given back");
        assert!(now(&turns, "a", 1).is_none());
        let others = now(&turns, "b", 3).expect("what was given back of those that are kept");
        drop((first, second, third, others));
        let left = [&turns.0.shared, &turns.0.kept].map(|of| of.available_permits());
        assert_eq!((left, turns.parts().len()), ([12, 4], 0));
    }

    #[tokio::test]
    async fn who_has_nothing_waits_for_whatever_comes_back_first() {
        let turns = Turns::new(4, 4);
        let mut held: Vec<Turn> = ["a", "b", "c"].iter().flat_map(|who| all_now(&turns, who)).collect();
        assert_eq!(held.len(), 4);
        let mut taken = Vec::new();
        // One of those that are kept, and one of the others.
        for who in ["d", "e"] {
            let who: Arc<str> = who.into();
            let mut waiting = Box::pin(turns.take(&who, 1));
            assert!((&mut waiting).now_or_never().is_none());
            drop(held.remove(0));
            taken.push(waiting.await);
        }
    }

    #[tokio::test]
    async fn who_waits_has_its_turn_when_somebody_gives_back() {
        let turns = Turns::new(1, 1);
        let who: Arc<str> = "a".into();
        let first = turns.take(&who, 1).await;
        let mut waiting = Box::pin(turns.take(&who, 1));
        assert!((&mut waiting).now_or_never().is_none());
        drop(first);
        drop(waiting.await);
    }
}
