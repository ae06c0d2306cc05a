//! The handle.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use knoll_journal::{Disk, LogError};
use tokio::sync::{mpsc, oneshot, watch as revisions};

use crate::{
    Change, Compacted, Damage, Durability, Entry, Expect, Figures, Snapshot, Watch, Write, WriteError,
    claim::claim,
    committer::{Checkpoints, Committer, Ending, Request, STOP_WAIT},
    counters::Counters,
    history::History,
    pack,
    recovery::{self, Recovered},
};

/// Requests that wait for the committer before writers wait for room.
const QUEUE: usize = 4096;

/// Sizes and times of a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names the current run of the machine (`/proc/sys/kernel/random/boot_id`): it differs after a power cut.
    pub boot_id: String,
    /// How long changes are kept for watches and lists at older revisions, at least while they fit.
    pub history_age: Duration,
    /// Most bytes of changes kept; four times as many of those of the last 75 seconds.
    pub history_bytes: usize,
    /// Log written since the last checkpoint that makes the next one due, bytes; at least as much as that checkpoint
    /// had.
    pub checkpoint_bytes: u64,
    /// How long after its last write a value is packed.
    pub cold_after: Duration,
    /// Segments and records.
    pub log: knoll_journal::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
            history_age: Duration::from_secs(600),
            history_bytes: 16 << 20,
            checkpoint_bytes: 16 << 20,
            cold_after: Duration::from_secs(30),
            log: knoll_journal::Options { record_bytes: 16 << 20, ..knoll_journal::Options::default() },
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or used.
    #[error("use data directory {path}")]
    Directory {
        /// The directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("data directory {path} is in use by another process: stop it, or choose another with --data-dir")]
    InUse {
        /// The directory.
        path: String,
    },
    /// Files that are not ours.
    #[error("directory {path} holds files that are not a knoll store: choose an empty one with --data-dir")]
    Foreign {
        /// The directory.
        path: String,
    },
    /// A checkpoint cannot be read from the disk.
    #[error("read {name}")]
    Checkpoint {
        /// The file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// No checkpoint is whole.
    #[error("checkpoint {name} is {damage}: `knoll store verify` says what is lost")]
    DamagedCheckpoint {
        /// The file.
        name: String,
        /// Where and why.
        damage: Damage,
    },
    /// A checkpoint cannot be read, and the log does not reach as far as it.
    #[error(
        "checkpoint {name} is damaged, and the log ends at revision {reached}: `knoll store verify` says what is lost"
    )]
    Behind {
        /// The file.
        name: String,
        /// How far the log reaches.
        reached: u64,
    },
    /// The log cannot be read, or holds what no crash explains.
    #[error("open the log (`knoll store verify` says what is lost)")]
    Log(#[from] LogError),
    /// Records this version does not know.
    #[error("the data directory was written by a newer version: use that version or newer")]
    Newer,
}

/// What the committer and the readers share.
pub(crate) struct Shared {
    pub(crate) boot_id: String,
    pub(crate) counters: Counters,
    state: RwLock<Snapshot>,
    history: Mutex<History>,
    revision: revisions::Sender<u64>,
    /// Why nothing can be written any more.
    stopped: Mutex<Option<String>>,
}

impl Shared {
    pub(crate) fn published(&self) -> Snapshot {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn publish<'a>(&self, state: Snapshot, changes: impl Iterator<Item = &'a Arc<Change>>, at: Instant) {
        let revision = state.revision;
        // The history lock is held over both, so that a watch starts exactly where a snapshot ends.
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        for change in changes {
            history.publish(change, at);
        }
        drop(history);
        self.revision.send_replace(revision);
    }

    pub(crate) fn set_stopped(&self, reason: String) {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }

    fn stopped(&self) -> Option<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn close(&self) {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).close();
    }
}

struct Inner {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

/// Revisioned objects by key. Cheap to clone; the last clone to go leaves everything written in the log.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl Store {
    /// Opens the store in `directory`, making it where it is missing.
    ///
    /// # Errors
    /// When the directory cannot be used, belongs to something else, is open elsewhere, or is damaged.
    pub fn open(directory: &Path, options: Options) -> Result<Store, OpenError> {
        let (disk, lock) = claim(directory)?;
        Self::start(Arc::new(disk), options, Some(lock))
    }

    /// Opens the store on `disk`.
    ///
    /// # Errors
    /// When the disk cannot be read or is damaged.
    pub fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<Store, OpenError> {
        Self::start(disk, options, None)
    }

    fn start(disk: Arc<dyn Disk>, options: Options, lock: Option<fs::File>) -> Result<Store, OpenError> {
        let recovered = recovery::recover(&disk, &options)?;
        let Recovered { snapshot, history, log, reserved, must_rotate, .. } = recovered;
        let shared = Arc::new(Shared {
            boot_id: options.boot_id,
            counters: Counters::default(),
            revision: revisions::Sender::new(snapshot.revision),
            state: RwLock::new(snapshot.clone()),
            history: Mutex::new(history),
            stopped: Mutex::new(None),
        });
        let (requests, receiver) = mpsc::channel(QUEUE);
        let thread = |source| OpenError::Directory { path: "a thread of the store".into(), source };
        let notes = pack::start(shared.clone(), requests.downgrade(), options.cold_after, &snapshot).map_err(thread)?;
        let checkpoints = Checkpoints {
            fewest_bytes: options.checkpoint_bytes,
            bytes: recovered.checkpoint_bytes,
            since: recovered.since_checkpoint,
            retry_at: 0,
            under_way: false,
            kept: recovered.checkpoints,
        };
        let committer = Committer {
            ending: Ending(shared.clone()),
            log,
            disk,
            shared: shared.clone(),
            requests: receiver,
            own: requests.downgrade(),
            notes,
            working: snapshot,
            reserved,
            must_rotate,
            checkpoints,
            stopped: None,
            lock,
        };
        thread::Builder::new().name("store".into()).spawn(move || committer.run()).map_err(thread)?;
        Ok(Store { inner: Arc::new(Inner { shared, requests }) })
    }

    /// Writes one entry. Returns its revision.
    ///
    /// # Errors
    /// When the condition does not hold or the disk refuses.
    pub async fn put(
        &self,
        key: impl Into<String>,
        value: Bytes,
        expect: Expect,
        durability: Durability,
    ) -> Result<u64, WriteError> {
        let write = Write { key: key.into(), value: Some(value), expect };
        Ok(self.commit(vec![write], durability).await?[0].revision)
    }

    /// Deletes one entry. Returns the change: what stood there, and the revision of the deletion.
    ///
    /// # Errors
    /// When there is none, the condition does not hold, or the disk refuses.
    pub async fn delete(&self, key: &str, expect: Expect, durability: Durability) -> Result<Arc<Change>, WriteError> {
        let write = Write { key: key.to_owned(), value: None, expect };
        Ok(self.commit(vec![write], durability).await?.swap_remove(0))
    }

    /// Makes all of `writes` or none. They get consecutive revisions in their order; each key at most once.
    ///
    /// # Errors
    /// When a condition does not hold or the disk refuses.
    pub async fn commit(&self, writes: Vec<Write>, durability: Durability) -> Result<Vec<Arc<Change>>, WriteError> {
        debug_assert!(!writes.is_empty(), "a transaction has a write");
        let (answer, result) = oneshot::channel();
        let stopped = || WriteError::Stopped(self.inner.shared.stopped().unwrap_or_else(|| "it was closed".to_owned()));
        self.inner.requests.send(Request::Commit { writes, durability, answer }).await.map_err(|_| stopped())?;
        match result.await {
            Ok(result) => result,
            Err(_) => {
                // It ends; why is known when it takes no more requests.
                self.inner.requests.closed().await;
                Err(stopped())
            }
        }
    }

    /// The entry at `key`.
    pub fn get(&self, key: &str) -> Option<Entry> {
        // The value is unpacked without the lock.
        self.snapshot().get(key)
    }

    /// The newest published revision.
    pub fn revision(&self) -> u64 {
        *self.inner.shared.revision.borrow()
    }

    /// The newest published state.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.shared.published()
    }

    /// The state at `revision`, or the newest where that is older.
    ///
    /// # Errors
    /// When changes since then are no longer kept.
    pub fn snapshot_at(&self, revision: u64) -> Result<Snapshot, Compacted> {
        let history = self.inner.shared.history.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.inner.shared.published();
        if revision >= now.revision { Ok(now) } else { history.rewind(&now, revision) }
    }

    /// Changes under `prefix` after revision `after`.
    ///
    /// # Errors
    /// When changes since then are no longer kept.
    pub fn watch(&self, prefix: &str, after: u64) -> Result<Watch, Compacted> {
        self.inner.shared.history.lock().unwrap_or_else(PoisonError::into_inner).watch(prefix, after)
    }

    /// Changes of what stands at `key`, and of what has a longer key that begins so, after revision `after`. Where nothing happened
    /// to `key` since then but what is kept, `after` may be older than what is kept; of longer keys then nothing is told that
    /// happened before.
    ///
    /// # Errors
    /// When changes since then are no longer kept.
    pub fn watch_key(&self, key: &str, after: u64) -> Result<Watch, Compacted> {
        let mut history = self.inner.shared.history.lock().unwrap_or_else(PoisonError::into_inner);
        // Published under the same lock.
        let now = self.inner.shared.published();
        history.watch_key(key, after, &now)
    }

    /// Waits until `revision` is published. `false` when that took longer than `limit`.
    pub async fn wait_for(&self, revision: u64, limit: Duration) -> bool {
        let mut seen = self.inner.shared.revision.subscribe();
        tokio::time::timeout(limit, seen.wait_for(|&published| published >= revision))
            .await
            .is_ok_and(|published| published.is_ok())
    }

    /// Stops taking writes, syncs and ends every watch. Once it returns, no thread of the store touches the directory, unless
    /// that took more than 30 seconds, which is logged.
    pub async fn close(&self) {
        let (answer, stopped) = oneshot::channel();
        if self.inner.requests.send(Request::Stop { answer }).await.is_ok()
            && tokio::time::timeout(STOP_WAIT, stopped).await.is_err()
        {
            tracing::error!("the store did not stop in time");
        }
    }

    /// How it fares.
    pub fn figures(&self) -> Figures {
        let Shared { counters, .. } = &*self.inner.shared;
        let Counters { transactions, refused_full, checkpoints, checkpoint_failures, packed, pack_panics } = counters;
        let state = self.snapshot();
        let history = self.inner.shared.history.lock().unwrap_or_else(PoisonError::into_inner);
        Figures {
            revision: state.revision,
            entries: state.map.len() as u64,
            transactions: Counters::read(transactions),
            refused_full: Counters::read(refused_full),
            checkpoints: Counters::read(checkpoints),
            checkpoint_failures: Counters::read(checkpoint_failures),
            packed: Counters::read(packed),
            pack_panics: Counters::read(pack_panics),
            history_bytes: history.bytes() as u64,
            watches: history.listeners.count() as u64,
            watches_dropped: history.listeners.dropped,
            stopped: self.inner.shared.stopped(),
        }
    }
}
