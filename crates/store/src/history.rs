//! The changes of the last minutes.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Change, Compacted, Watch,
    listeners::Listeners,
    snapshot::{Map, Slot, Snapshot},
};

/// Changes younger than this have more room: a client that listed a moment ago goes on from there whatever happens
/// meanwhile. As long as kube-apiserver's cache of watches keeps them (its `eventFreshDuration`).
const FRESH: Duration = Duration::from_secs(75);
/// How many times the budget that is.
const ROOM_FOR_FRESH: usize = 4;

/// Recent changes, kept for `keep` while they fit into `budget` bytes.
pub(crate) struct History {
    changes: VecDeque<(Instant, Arc<Change>)>,
    bytes: usize,
    budget: usize,
    keep: Duration,
    /// Changes after this revision are all here.
    floor: u64,
    /// Where this history began. What clients saw before may be what a power cut took.
    begun: u64,
    pub(crate) listeners: Listeners,
}

/// Bytes a change weighs.
pub(crate) fn weight(change: &Change) -> usize {
    let value = |bytes: Option<&bytes::Bytes>| bytes.map_or(0, bytes::Bytes::len);
    128 + change.key.len() + value(change.value.as_ref()) + value(change.previous.as_ref().map(|e| &e.value))
}

impl History {
    pub(crate) fn new(floor: u64, budget: usize, keep: Duration) -> Self {
        Self {
            changes: VecDeque::new(),
            bytes: 0,
            budget,
            keep,
            floor,
            begun: floor,
            listeners: Listeners::new(budget),
        }
    }

    /// Forgets everything up to `revision`: after a power cut nobody may rely on it.
    pub(crate) fn forget_up_to(&mut self, revision: u64) {
        self.changes.clear();
        self.bytes = 0;
        (self.floor, self.begun) = (revision, revision);
    }

    /// Adds a change and hands it to its listeners.
    pub(crate) fn publish(&mut self, change: &Arc<Change>, at: Instant) {
        self.remember(change.clone(), at);
        self.listeners.tell(change);
    }

    pub(crate) fn remember(&mut self, change: Arc<Change>, at: Instant) {
        self.bytes += weight(&change);
        self.changes.push_back((at, change));
        while let Some((oldest, change)) = self.changes.front() {
            let age = at.saturating_duration_since(*oldest);
            let room = if age > FRESH { self.budget } else { self.budget * ROOM_FOR_FRESH };
            if self.bytes <= room && age <= self.keep {
                break;
            }
            self.bytes -= weight(change);
            self.floor = change.revision;
            self.changes.pop_front();
        }
    }

    /// A watch of the changes under `prefix` after revision `after`.
    pub(crate) fn watch(&mut self, prefix: &str, after: u64) -> Result<Watch, Compacted> {
        if after < self.floor {
            return Err(Compacted { asked: after, oldest: self.floor });
        }
        let backlog = self.after(after).filter(|change| change.key.starts_with(prefix)).cloned().collect();
        Ok(Watch { backlog, ..self.listeners.add(prefix) })
    }

    /// A watch of the changes of what stands at `key`, and of longer keys, after revision `after`; of one that is older than what
    /// is kept as well, while nothing that happened to `key` since is forgotten. `now` is the newest state.
    pub(crate) fn watch_key(&mut self, key: &str, after: u64, now: &Snapshot) -> Result<Watch, Compacted> {
        let is_all_here = || self.last_forgotten(key, now).is_some_and(|last| last <= after);
        if after >= self.floor || after < self.begun || !is_all_here() {
            return self.watch(key, after);
        }
        let changes = self.changes.iter().map(|(_, change)| change);
        let backlog = changes.filter(|change| *change.key == *key && change.revision > after).cloned().collect();
        Ok(Watch { backlog, ..self.listeners.add(key) })
    }

    /// The last revision of a key of which the change is not here any more; nothing where there was nothing then.
    fn last_forgotten(&self, key: &str, now: &Snapshot) -> Option<u64> {
        match self.changes.iter().find(|(_, change)| *change.key == *key) {
            Some((_, first)) => first.previous.as_ref().map(|entry| entry.revision),
            None => now.map.get(key).map(|slot| slot.revision),
        }
    }

    /// The state at an earlier revision, by undoing what came after.
    pub(crate) fn rewind(&self, now: &Snapshot, revision: u64) -> Result<Snapshot, Compacted> {
        if revision < self.floor {
            return Err(Compacted { asked: revision, oldest: self.floor });
        }
        let mut map: Map = now.map.clone();
        let undone: Vec<_> = self.after(revision).filter(|change| change.revision <= now.revision).collect();
        for change in undone.into_iter().rev() {
            match &change.previous {
                Some(entry) => map.insert(change.key.clone(), Slot::plain(entry.value.clone(), entry.revision)),
                None => map.remove(&change.key),
            };
        }
        Ok(Snapshot { revision, map })
    }

    fn after(&self, revision: u64) -> impl Iterator<Item = &Arc<Change>> {
        let start = self.changes.partition_point(|(_, change)| change.revision <= revision);
        self.changes.range(start..).map(|(_, change)| change)
    }

    /// Bytes of the changes that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Ends every watch.
    pub(crate) fn close(&mut self) {
        self.listeners.clear();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Entry;

    const KEEP: Duration = Duration::from_secs(600);

    /// What each change weighs, about.
    const LONG: usize = 1000;

    struct World {
        history: History,
        now: Snapshot,
        at: Instant,
    }

    impl World {
        fn new(budget: usize) -> Self {
            let now = Snapshot { revision: 0, map: Map::new() };
            Self { history: History::new(0, budget, KEEP), now, at: Instant::now() }
        }

        fn write(&mut self, key: &str, value: Option<Bytes>) -> u64 {
            let (key, revision): (Arc<str>, _) = (key.into(), self.now.revision + 1);
            let previous = self.now.map.get(&*key).map(|slot| Entry {
                key: key.clone(),
                value: Bytes::from(vec![0; LONG / 2]),
                revision: slot.revision,
            });
            match &value {
                Some(value) => self.now.map.insert(key.clone(), Slot::plain(value.clone(), revision)),
                None => self.now.map.remove(&key),
            };
            self.now.revision = revision;
            self.history.publish(&Arc::new(Change { key, revision, value, previous }), self.at);
            revision
        }

        fn put(&mut self, key: &str) -> u64 {
            self.write(key, Some(Bytes::from(vec![0; LONG / 2])))
        }

        fn put_many(&mut self, key: &str, times: usize) {
            for _ in 0..times {
                self.put(key);
            }
        }

        fn much_happens(&mut self) {
            self.at += FRESH * 2;
            self.put_many("other", 100);
        }

        fn seen(&mut self, key: &str, after: u64) -> Option<Vec<u64>> {
            let watch = self.history.watch_key(key, after, &self.now).ok()?;
            Some(watch.backlog.iter().map(|change| change.revision).collect())
        }
    }

    #[test]
    fn what_is_fresh_is_kept_though_much_happens() {
        let mut world = World::new(10 * LONG);
        let first = world.put("a");
        world.put_many("b", 20);
        assert!(world.history.watch("", first).is_ok(), "it was a moment ago");
        world.put_many("b", 40);
        assert!(world.history.watch("", first).is_err() && world.history.bytes() <= 40 * LONG, "within a bound");
        world.at += FRESH * 2;
        world.put("b");
        world.put("b");
        assert!(world.history.bytes() <= 10 * LONG, "{}", world.history.bytes());
    }

    #[test]
    fn one_key_is_watched_from_its_last_change_however_long_ago_that_was() {
        let mut world = World::new(10 * LONG);
        let before = world.put("key");
        let last = world.put("key");
        world.much_happens();
        assert!(world.history.watch("key", last).is_err(), "what else begins so is not known");
        assert_eq!(world.seen("key", last), Some(vec![]));
        assert_eq!(world.seen("key", before), None, "its last change is forgotten");
        let gone = world.write("key", None);
        assert_eq!(world.seen("key", last), Some(vec![gone]), "as kn waits for a deletion");
        let again = world.put("key");
        assert_eq!(world.seen("key", last), Some(vec![gone, again]));
        world.much_happens();
        assert_eq!((world.seen("key", last), world.seen("key", again)), (None, Some(vec![])));
        assert_eq!(world.seen("nobody", again), None, "there may have been one");
    }

    #[test]
    fn what_was_seen_before_a_power_cut_is_watched_by_nobody() {
        let mut world = World::new(10 * LONG);
        let last = world.put("key");
        world.now.revision += 10;
        world.history.forget_up_to(world.now.revision);
        assert_eq!(world.seen("key", last + 1), None);
        let next = world.put("key");
        world.much_happens();
        assert_eq!((world.seen("key", last), world.seen("key", next)), (None, Some(vec![])));
    }
}
