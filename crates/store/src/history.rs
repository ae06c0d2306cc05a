//! The changes of the last minutes, and who listens.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::{
    Change, Compacted, Watch,
    snapshot::{Map, Snapshot},
};

/// Changes a watcher may be behind before it is dropped.
const WATCHER_BACKLOG: usize = 8192;

struct Listener {
    prefix: String,
    sender: mpsc::Sender<Arc<Change>>,
    lagged: Arc<AtomicBool>,
}

/// Recent changes, kept for at least `keep` while they fit into `budget` bytes.
pub(crate) struct History {
    changes: VecDeque<(Instant, Arc<Change>)>,
    bytes: usize,
    budget: usize,
    keep: Duration,
    /// Changes after this revision are all here.
    floor: u64,
    /// Listeners by the first two path segments of their prefix; empty for shorter prefixes.
    listeners: HashMap<String, Vec<Listener>>,
}

/// `/a/b/` of a key or prefix; `""` where there are not two segments.
fn shelf(path: &str) -> &str {
    path.match_indices('/').nth(2).map_or("", |(at, _)| &path[..=at])
}

fn weight(change: &Change) -> usize {
    let value = |bytes: Option<&bytes::Bytes>| bytes.map_or(0, bytes::Bytes::len);
    128 + change.key.len() + value(change.value.as_ref()) + value(change.previous.as_ref().map(|e| &e.value))
}

impl History {
    pub(crate) fn new(floor: u64, budget: usize, keep: Duration) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, budget, keep, floor, listeners: HashMap::new() }
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
        let shelf = shelf(&change.key);
        self.tell(shelf, change);
        if !shelf.is_empty() {
            self.tell("", change);
        }
    }

    fn tell(&mut self, shelf: &str, change: &Arc<Change>) {
        if let Some(listeners) = self.listeners.get_mut(shelf) {
            listeners.retain(|listener| listener.hear(change));
            if listeners.is_empty() {
                self.listeners.remove(shelf);
            }
        }
    }

    pub(crate) fn remember(&mut self, change: Arc<Change>, at: Instant) {
        self.bytes += weight(&change);
        self.changes.push_back((at, change));
        while let Some((oldest, change)) = self.changes.front() {
            let aged = at.duration_since(*oldest) > self.keep;
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
        let (sender, live) = mpsc::channel(WATCHER_BACKLOG);
        let lagged = Arc::new(AtomicBool::new(false));
        let listener = Listener { prefix: prefix.to_owned(), sender, lagged: lagged.clone() };
        self.listeners.entry(shelf(prefix).to_owned()).or_default().push(listener);
        Ok(Watch { backlog, live, lagged })
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
                Some(entry) => map.insert(change.key.clone(), entry.clone()),
                None => map.remove(&change.key),
            };
        }
        Ok(Snapshot { revision, map })
    }

    fn after(&self, revision: u64) -> impl Iterator<Item = &Arc<Change>> {
        let start = self.changes.partition_point(|(_, change)| change.revision <= revision);
        self.changes.range(start..).map(|(_, change)| change)
    }

    /// Ends every watch.
    pub(crate) fn close(&mut self) {
        self.listeners.clear();
    }
}

impl Listener {
    /// Hands over the change if it is wanted. `false` when the listener is gone or too slow.
    fn hear(&self, change: &Arc<Change>) -> bool {
        if !change.key.starts_with(&self.prefix) {
            return !self.sender.is_closed();
        }
        match self.sender.try_send(change.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.lagged.store(true, Ordering::Release);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::shelf;

    #[test]
    fn a_shelf_is_the_first_two_segments() {
        assert_eq!(shelf("/core/pods/ns/name"), "/core/pods/");
        assert_eq!(shelf("/core/pods/"), "/core/pods/");
        assert_eq!(shelf("/core/po"), "");
    }
}
