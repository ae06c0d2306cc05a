//! The one thread that writes.

use std::{
    collections::VecDeque,
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use knoll_journal::{Disk, Log, LogError};
use tokio::sync::{mpsc, oneshot};

use crate::{Change, Durability, Entry, Write, WriteError, checkpoint, codec, snapshot::Snapshot, store::Shared};

/// Most transactions in one batch.
const BATCH: usize = 512;
/// Most bytes in one batch, approximately.
const BATCH_BYTES: usize = 4 << 20;
/// Revisions reserved ahead, so that a power cut cannot lead to one being used twice.
const RESERVE_AHEAD: u64 = 1 << 20;

/// What the committer is asked for.
pub(crate) enum Request {
    Commit {
        writes: Vec<Write>,
        durability: Durability,
        answer: oneshot::Sender<Result<Vec<Arc<Change>>, WriteError>>,
    },
    /// A checkpoint was written (or not); segments before the number are not needed then.
    Checkpointed {
        remove_before: Option<u64>,
    },
    Stop {
        answer: oneshot::Sender<()>,
    },
}

struct Done {
    changes: Vec<Arc<Change>>,
    answer: oneshot::Sender<Result<Vec<Arc<Change>>, WriteError>>,
}

pub(crate) struct Committer {
    pub(crate) log: Log,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) own: mpsc::WeakSender<Request>,
    /// The state with everything of the open batch in it.
    pub(crate) working: Snapshot,
    pub(crate) reserved: u64,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) since_checkpoint: u64,
    pub(crate) checkpointing: bool,
    /// Why nothing can be written any more.
    pub(crate) broken: Option<String>,
    /// Held for as long as the directory is written to.
    pub(crate) lock: Option<fs::File>,
}

impl Committer {
    pub(crate) fn run(mut self) {
        let mut stops = Vec::new();
        while let Some(first) = self.requests.blocking_recv() {
            let mut batch = VecDeque::from([first]);
            while batch.len() < BATCH {
                match self.requests.try_recv() {
                    Ok(request) => batch.push_back(request),
                    Err(_) => break,
                }
            }
            while !batch.is_empty() {
                self.commit_batch(&mut batch, &mut stops);
            }
            if !stops.is_empty() {
                break;
            }
        }
        if let Err(error) = self.log.sync() {
            tracing::error!(%error, "sync the log while stopping");
        }
        self.shared.close();
        drop(self.lock);
        for stop in stops {
            stop.send(()).ok();
        }
    }

    fn commit_batch(&mut self, batch: &mut VecDeque<Request>, stops: &mut Vec<oneshot::Sender<()>>) {
        let before = self.working.clone();
        let mut done = Vec::new();
        let mut durable = false;
        let mut bytes = 0;
        while bytes < BATCH_BYTES {
            match batch.pop_front() {
                None => break,
                Some(Request::Checkpointed { remove_before }) => self.checkpointed(remove_before),
                Some(Request::Stop { answer }) => stops.push(answer),
                Some(Request::Commit { writes, durability, answer }) => match self.prepare(writes) {
                    Err(error) => drop(answer.send(Err(error))),
                    Ok((changes, length)) => {
                        bytes += length;
                        durable |= durability == Durability::Durable;
                        done.push(Done { changes, answer });
                    }
                },
            }
        }
        if done.is_empty() {
            return;
        }
        match self.write(durable) {
            Ok(()) => {
                self.since_checkpoint += bytes as u64;
                self.publish(done);
                self.checkpoint_if_due();
            }
            Err(error) => {
                self.working = before;
                for Done { answer, .. } in done {
                    answer.send(Err(error.clone())).ok();
                }
            }
        }
    }

    /// Checks a transaction, applies it to the working state and puts its record into the log's batch.
    fn prepare(&mut self, writes: Vec<Write>) -> Result<(Vec<Arc<Change>>, usize), WriteError> {
        if let Some(reason) = &self.broken {
            return Err(WriteError::Stopped(reason.clone()));
        }
        for write in &writes {
            let current = self.working.map.get(write.key.as_str());
            if !write.expect.holds(current) || (write.value.is_none() && current.is_none()) {
                return Err(WriteError::Conflict { key: write.key.clone(), current: current.cloned() });
            }
        }
        let mut record = Vec::new();
        codec::begin_transaction(&mut record);
        let first = self.working.revision + 1;
        for (revision, write) in (first..).zip(&writes) {
            codec::operation(revision, &write.key, write.value.as_deref(), &mut record);
        }
        if record.len() > self.log.record_bytes() {
            return Err(WriteError::TooLarge { bytes: record.len(), limit: self.log.record_bytes() });
        }
        self.log.push(&record);
        let changes = (first..).zip(writes).map(|(revision, write)| self.apply(revision, write)).collect();
        Ok((changes, record.len()))
    }

    fn apply(&mut self, revision: u64, write: Write) -> Arc<Change> {
        let Write { key, value, .. } = write;
        let key: Arc<str> = key.into();
        let previous = match &value {
            Some(value) => {
                let entry = Entry { key: key.clone(), value: value.clone(), revision };
                self.working.map.insert(key.clone(), entry)
            }
            None => self.working.map.remove(&key),
        };
        self.working.revision = revision;
        Arc::new(Change { key, revision, value, previous })
    }

    fn write(&mut self, mut durable: bool) -> Result<(), WriteError> {
        if self.working.revision > self.reserved {
            self.reserved = self.working.revision + RESERVE_AHEAD;
            self.log.push(&codec::reserve(self.reserved));
            durable = true;
        }
        self.log.write().map_err(|error| self.write_failed(&error))?;
        if durable {
            self.log.sync().map_err(|error| self.stop(&error))?;
        }
        if self.log.is_full() {
            self.log.rotate().map_err(|error| self.stop(&error))?;
        }
        Ok(())
    }

    fn write_failed(&mut self, error: &LogError) -> WriteError {
        match error {
            LogError::Io { source, .. }
                if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) =>
            {
                // The reserve record of this batch was not written either; the next batch repeats it.
                self.reserved = self.shared.published().revision;
                WriteError::Full
            }
            _ => self.stop(error),
        }
    }

    /// After a failed sync nobody knows what is on disk, so nothing more is acknowledged.
    fn stop(&mut self, error: &LogError) -> WriteError {
        use std::error::Error as _;
        let reason = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        tracing::error!(reason, "the store stops taking writes");
        self.broken = Some(reason.clone());
        WriteError::Stopped(reason)
    }

    fn publish(&self, done: Vec<Done>) {
        self.shared.publish(self.working.clone(), done.iter().flat_map(|d| &d.changes), Instant::now());
        for Done { changes, answer } in done {
            answer.send(Ok(changes)).ok();
        }
    }

    fn checkpoint_if_due(&mut self) {
        if self.checkpointing || self.since_checkpoint < self.checkpoint_bytes {
            return;
        }
        let Some(own) = self.own.upgrade() else { return };
        let sequence = match self.log.rotate() {
            Ok(sequence) => sequence,
            Err(error) => return drop(self.stop(&error)),
        };
        self.checkpointing = true;
        self.since_checkpoint = 0;
        let (disk, snapshot) = (self.disk.clone(), self.working.clone());
        let write = move || {
            let written = checkpoint::write(disk.as_ref(), &snapshot);
            if let Err(error) = &written {
                tracing::error!(%error, "write a checkpoint; the log is kept");
            }
            own.blocking_send(Request::Checkpointed { remove_before: written.is_ok().then_some(sequence) }).ok();
        };
        if thread::Builder::new().name("store-checkpoint".into()).spawn(write).is_err() {
            self.checkpointing = false;
        }
    }

    fn checkpointed(&mut self, remove_before: Option<u64>) {
        self.checkpointing = false;
        let Some(sequence) = remove_before else { return };
        // The boot id and the reservation stood in segments that go away: repeat them first.
        self.log.push(&codec::boot(&self.shared.boot_id));
        self.log.push(&codec::reserve(self.reserved));
        let moved = self.log.write().and_then(|()| self.log.sync()).and_then(|()| self.log.remove_before(sequence));
        if let Err(error) = moved {
            tracing::error!(%error, "remove old segments");
        }
    }
}

/// How long a stopping store waits for its thread.
pub(crate) const STOP_WAIT: Duration = Duration::from_secs(30);
