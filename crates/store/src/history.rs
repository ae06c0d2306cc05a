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

/// Recent changes, kept for at least `keep` while they fit into `budget` bytes.
pub(crate) struct History {
    changes: VecDeque<(Instant, Arc<Change>)>,
    bytes: usize,
    budget: usize,
    keep: Duration,
    /// Changes after this revision are all here.
    floor: u64,
    pub(crate) listeners: Listeners,
}

/// Bytes a change weighs.
pub(crate) fn weight(change: &Change) -> usize {
    let value = |bytes: Option<&bytes::Bytes>| bytes.map_or(0, bytes::Bytes::len);
    128 + change.key.len() + value(change.value.as_ref()) + value(change.previous.as_ref().map(|e| &e.value))
}

impl History {
    pub(crate) fn new(floor: u64, budget: usize, keep: Duration) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, budget, keep, floor, listeners: Listeners::new(budget) }
    }

    /// Forgets everything up to `revision`: after a power cut nobody may rely on it.
    pub(crate) fn forget_up_to(&mut self, revision: u64) {
        self.changes.clear();
        self.bytes = 0;
        self.floor = revision;
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
            let aged = at.saturating_duration_since(*oldest) > self.keep;
            if self.bytes <= self.budget && !aged {
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
