//! Which collections were watched for which source: of what begins anew, that changes went by in between is counted.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, Hash, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

use crate::Id;

/// Sources and collections that are remembered; beyond it those of sources that are not carried out are forgotten.
const MOST: usize = 4096;

/// See the module. It outlives those who watch. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<BySource>>);

/// With their uids.
type BySource = HashMap<Id, (Arc<str>, Listed)>;

/// The collections of one source that were watched, by their hashes. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Listed(Arc<Mutex<Hashes>>);

#[derive(Debug, Default)]
struct Hashes {
    hasher: RandomState,
    there: HashSet<u64>,
}

impl Memory {
    /// What is remembered of a source, by its uid.
    pub(super) fn of(&self, id: &Id, uid: &Arc<str>) -> Listed {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() + all.values().map(|(_, listed)| listed.len()).sum::<usize>() > MOST {
            all.retain(|_, (_, listed)| Arc::strong_count(&listed.0) > 1);
        }
        let (of, listed) = all.entry(id.clone()).or_insert_with(|| (uid.clone(), Listed::default()));
        if of != uid {
            (*of, *listed) = (uid.clone(), Listed::default());
        }
        listed.clone()
    }
}

impl Listed {
    /// Notes that a collection is watched from now on: whether it was before.
    pub(super) fn note(&self, collection: &impl Hash) -> bool {
        self.with(|hashes| !hashes.there.insert(hashes.hasher.hash_one(collection)))
    }

    /// Forgets a collection: it is not to be watched any more.
    pub(super) fn forget(&self, collection: &impl Hash) {
        self.with(|hashes| hashes.there.remove(&hashes.hasher.hash_one(collection)));
    }

    fn len(&self) -> usize {
        self.with(|hashes| hashes.there.len())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Hashes) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use knoll_api::Kind;

    use super::*;

    #[test]
    fn what_was_watched_is_known_to_the_next_who_watches_for_the_same_source() {
        let memory = Memory::default();
        let of = |uid: &str| memory.of(&Id::new(Kind::ApiServerSource, "ns", "s"), &uid.into());
        assert_eq!((of("1").note(&"a"), of("1").note(&"b"), of("1").note(&"a")), (false, false, true));
        of("1").forget(&"a");
        assert_eq!((of("1").note(&"a"), of("1").note(&"b")), (false, true));
        assert!(!of("2").note(&"b"), "it is another source of this name");
    }

    #[test]
    fn sources_that_are_gone_are_forgotten_when_they_are_many() {
        let memory = Memory::default();
        let of = |number: usize| memory.of(&Id::new(Kind::ApiServerSource, "ns", &number.to_string()), &"1".into());
        let kept = of(0);
        for number in 0..MOST {
            of(number).note(&number);
        }
        assert!(memory.0.lock().unwrap().len() <= MOST / 2 + 1);
        assert!(kept.note(&0_usize) && of(0).note(&0_usize));
    }
}
