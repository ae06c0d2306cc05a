//! Changes as they are published, by key prefix.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{Entry, history::weight};

/// A published write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Key.
    pub key: Arc<str>,
    /// Revision of this write.
    pub revision: u64,
    /// The new value; `None` when it was deleted.
    pub value: Option<Bytes>,
    /// What stood there before.
    pub previous: Option<Entry>,
}

/// The changes asked for are no longer kept: list, and watch from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {asked} is older than the oldest kept, {oldest}")]
pub struct Compacted {
    /// Revision asked for.
    pub asked: u64,
    /// Oldest revision from which a watch can start.
    pub oldest: u64,
}

/// The watcher fell so far behind that changes were left out: list, and watch again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the watcher is too slow")]
pub struct Lagged;

/// Changes under a prefix, each once, in order of revision.
pub struct Watch {
    pub(crate) backlog: VecDeque<Arc<Change>>,
    pub(crate) live: mpsc::Receiver<Arc<Change>>,
    pub(crate) lagged: Arc<AtomicBool>,
    /// Bytes of changes in `live`.
    pub(crate) waiting: Arc<AtomicUsize>,
}

impl Watch {
    /// The next change; waits for one. `None` when the store has stopped.
    ///
    /// # Errors
    /// When changes were left out because this watcher was too slow.
    pub async fn next(&mut self) -> Result<Option<Arc<Change>>, Lagged> {
        if let Some(change) = self.backlog.pop_front() {
            return Ok(Some(change));
        }
        match self.live.recv().await {
            Some(change) => Ok(Some(self.taken(change))),
            None if self.lagged.load(Ordering::Acquire) => Err(Lagged),
            None => Ok(None),
        }
    }

    /// The next change if there is one now.
    ///
    /// # Errors
    /// When changes were left out because this watcher was too slow.
    pub fn try_next(&mut self) -> Result<Option<Arc<Change>>, Lagged> {
        if let Some(change) = self.backlog.pop_front() {
            return Ok(Some(change));
        }
        match self.live.try_recv() {
            Ok(change) => Ok(Some(self.taken(change))),
            Err(mpsc::error::TryRecvError::Disconnected) if self.lagged.load(Ordering::Acquire) => Err(Lagged),
            Err(_) => Ok(None),
        }
    }

    fn taken(&self, change: Arc<Change>) -> Arc<Change> {
        self.waiting.fetch_sub(weight(&change), Ordering::AcqRel);
        change
    }
}
