//! Follows what is stored under a prefix: all of it first, then each change, and all of it again after a gap.
//!
//! What is derived from the store follows the store by this, never the request that wrote: whoever asked for a write may
//! be gone before it is done.

use std::sync::Arc;

use knoll_store::{Change, Lagged, Snapshot, Store, Watch};

/// What a follower is told.
pub(crate) enum Seen {
    /// Everything there is is in this; what was known before and is not is gone.
    All(Snapshot),
    /// One write.
    Change(Arc<Change>),
}

/// Where a follower stands.
pub(crate) struct Follower {
    store: Store,
    prefix: &'static str,
    /// `None` before everything was told, and after changes were left out.
    watch: Option<Watch>,
}

impl Follower {
    /// Follows what is stored under `prefix`.
    pub(crate) fn new(store: Store, prefix: &'static str) -> Self {
        Self { store, prefix, watch: None }
    }

    /// Tells everything again next: what was made of what it told may be wrong.
    pub(crate) fn restart(&mut self) {
        self.watch = None;
    }

    /// What is there now, without waiting.
    pub(crate) fn try_next(&mut self) -> Option<Seen> {
        let Some(watch) = &mut self.watch else { return self.begin() };
        match watch.try_next() {
            Ok(change) => change.map(Seen::Change),
            Err(Lagged) => self.begin(),
        }
    }

    /// What comes next; waits for it. `None` when the store has stopped.
    pub(crate) async fn next(&mut self) -> Option<Seen> {
        let Some(watch) = &mut self.watch else { return self.begin() };
        match watch.next().await {
            Ok(change) => change.map(Seen::Change),
            Err(Lagged) => self.begin(),
        }
    }

    fn begin(&mut self) -> Option<Seen> {
        loop {
            let snapshot = self.store.snapshot();
            // Only a store that forgot everything between these two lines refuses, and then has a newer state.
            if let Ok(watch) = self.store.watch(self.prefix, snapshot.revision) {
                self.watch = Some(watch);
                return Some(Seen::All(snapshot));
            }
        }
    }
}
