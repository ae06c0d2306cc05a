//! What many wait for: of everything there is a most, and each has at most a part of that, so that one cannot keep out the
//! others. Who finds no room waits for its turn, in the order in which they came; who must not wait has
//! [`Shares`](crate::Shares).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that one unit stands for, where bytes are counted.
const GRAIN: usize = 1 << 10;

/// See the module. Users are told apart by name, such as that of a namespace. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: Arc<Semaphore>,
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
    units: Arc<Semaphore>,
    /// One turn that counts for nothing, so that nobody waits for others who has nothing.
    first: Arc<Semaphore>,
}

/// Units in use; given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    /// Its units, of all and of the part; none of the turn that counts for nothing.
    units: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    _first: Option<OwnedSemaphorePermit>,
    _part: Arc<Part>,
}

impl Turns {
    /// So many units for all, and one in `parts` for each.
    pub fn new(all: usize, parts: usize) -> Self {
        let all = all.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let each = u32::try_from((all / parts).max(1)).unwrap_or(u32::MAX);
        Self(Arc::new(Inner { all: Arc::new(Semaphore::new(all)), each, parts: Mutex::default() }))
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
        if let Ok(first) = part.first.clone().try_acquire_owned() {
            return Turn { units: None, _first: Some(first), _part: part };
        }
        let units = u32::try_from(units).unwrap_or(u32::MAX).min(self.0.each);
        let of = |semaphore: &Arc<Semaphore>| semaphore.clone().acquire_many_owned(units);
        // First its own: who has no room there takes none from others while it waits.
        let own = of(&part.units).await.expect("it is never closed");
        let all = of(&self.0.all).await.expect("it is never closed");
        Turn { units: Some((all, own)), _first: None, _part: part }
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
        let Some((all, own)) = &mut self.units else { return };
        for permit in [all, own] {
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

    #[test]
    fn one_has_its_part_and_leaves_room_for_the_others() {
        let turns = Turns::new(4, 2);
        let mut held: Vec<Turn> = (0..4).filter_map(|_| now(&turns, "a", 1)).collect();
        assert_eq!(held.len(), 3, "its part, and one that counts for nothing");
        let others: Vec<Turn> = (0..4).filter_map(|_| now(&turns, "b", 1)).collect();
        assert_eq!(others.len(), 3);
        let first = now(&turns, "c", 1).expect("who has none has one turn");
        assert!(now(&turns, "c", 1).is_none());
        held.remove(1);
        let second = now(&turns, "c", 1).expect("what one gives back is another's");
        drop((held, others, first, second));
        assert!(turns.parts().is_empty());
    }

    #[test]
    fn more_than_a_part_is_a_part_and_what_is_not_used_is_given_back() {
        let turns = Turns::new(8, 2);
        let first = now(&turns, "a", 100).expect("it counts for nothing");
        let mut second = now(&turns, "a", 100).expect("a whole part");
        assert!(now(&turns, "a", 1).is_none());
        second.shrink(3);
        second.shrink(4);
        let third = now(&turns, "a", 1).expect("what was given back");
        assert!(now(&turns, "a", 1).is_none());
        drop((first, second, third));
        assert_eq!((turns.0.all.available_permits(), turns.parts().len()), (8, 0));
    }

    #[tokio::test]
    async fn who_waits_has_its_turn_when_somebody_gives_back() {
        let turns = Turns::new(1, 1);
        let who: Arc<str> = "a".into();
        let (first, second) = (turns.take(&who, 1).await, turns.take(&who, 1).await);
        let mut waiting = Box::pin(turns.take(&who, 1));
        assert!((&mut waiting).now_or_never().is_none());
        drop(second);
        drop((waiting.await, first));
    }
}
