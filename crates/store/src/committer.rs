//! The one thread that writes.
//!
//! Whatever goes wrong with the log comes to [`Committer::stop`], and after it nothing is acknowledged any more. The
//! one exception is a full disk found before anything of a batch was kept: that batch is refused, and the next may
//! find room.

use std::{
    collections::VecDeque,
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use knoll_journal::{Batch, Disk, Log, LogError};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Change, Durability, Entry, Write, WriteError, checkpoint, codec,
    counters::count,
    pack::{Notes, PackedValue, Written},
    recovery::RESERVE_AHEAD,
    snapshot::{Slot, Snapshot},
    store::Shared,
    value::Value,
};

/// Most transactions in one batch.
const BATCH: usize = 512;
/// Most bytes in one batch, approximately.
const BATCH_BYTES: usize = 4 << 20;
/// Checkpoints that are kept.
const KEPT: usize = 2;

type Answer = oneshot::Sender<Result<Vec<Arc<Change>>, WriteError>>;

/// What the committer is asked for.
pub(crate) enum Request {
    Commit {
        writes: Vec<Write>,
        durability: Durability,
        answer: Answer,
    },
    /// A checkpoint of the revision was written, of so many bytes; or not.
    Checkpointed(Option<(u64, u64)>),
    /// Values were packed.
    Packed(Vec<PackedValue>),
    Stop {
        answer: oneshot::Sender<()>,
    },
}

struct Done {
    changes: Vec<Arc<Change>>,
    answer: Answer,
}

/// Transactions that are written together, and what must come back when they are not.
struct Open {
    before: Snapshot,
    reserved_before: u64,
    batch: Batch,
    done: Vec<Done>,
    durable: bool,
}

/// When checkpoints are due, and which there are.
pub(crate) struct Checkpoints {
    /// Log written since the last that makes the next one due, at least.
    pub(crate) fewest_bytes: u64,
    /// Bytes of the newest. The next is due when as much log was written: so checkpoints never cost more than the log
    /// itself, however large the state is.
    pub(crate) bytes: u64,
    /// Log written since.
    pub(crate) since: u64,
    /// How much must have been written for the next attempt.
    pub(crate) retry_at: u64,
    pub(crate) under_way: bool,
    /// Revisions of those kept, ascending.
    pub(crate) kept: Vec<u64>,
}

impl Checkpoints {
    fn is_due(&self) -> bool {
        !self.under_way && self.since >= self.fewest_bytes.max(self.bytes).max(self.retry_at)
    }
}

pub(crate) struct Committer {
    /// Goes first: who asks after that is told why.
    #[expect(dead_code, reason = "it is there to be dropped")]
    pub(crate) ending: Ending,
    pub(crate) log: Log,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) own: mpsc::WeakSender<Request>,
    pub(crate) notes: Notes,
    /// The state with everything of the open batch in it.
    pub(crate) working: Snapshot,
    pub(crate) reserved: u64,
    /// Whether a new segment must begin before anything is written.
    pub(crate) must_rotate: bool,
    pub(crate) checkpoints: Checkpoints,
    /// Why nothing can be written any more.
    pub(crate) stopped: Option<String>,
    /// Held for as long as the directory is written to.
    #[expect(dead_code, reason = "a lock is held, not used")]
    pub(crate) lock: Option<fs::File>,
}

/// Tells everybody when the committer ends, however it ends.
pub(crate) struct Ending(pub(crate) Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.set_stopped("its thread panicked".to_owned());
        }
        self.0.close();
    }
}

impl Committer {
    /// Runs until it is told to stop or nobody can ask for anything any more.
    pub(crate) fn run(mut self) {
        let mut stops = Vec::new();
        while let Some(first) = self.requests.blocking_recv() {
            let mut waiting = VecDeque::from([first]);
            while waiting.len() < BATCH
                && let Ok(request) = self.requests.try_recv()
            {
                waiting.push_back(request);
            }
            while let Some(request) = waiting.pop_front() {
                match request {
                    Request::Commit { .. } => {
                        waiting.push_front(request);
                        self.commit_batch(&mut waiting);
                    }
                    Request::Checkpointed(written) => self.checkpointed(written),
                    Request::Packed(values) => self.put_packed(values),
                    Request::Stop { answer } => stops.push(answer),
                }
            }
            if !stops.is_empty() {
                break;
            }
        }
        if self.stopped.is_none()
            && let Err(error) = self.log.close()
        {
            self.stop(&error);
        }
        // A checkpoint that is under way removes old files: who was told of the end may open the directory again.
        while self.checkpoints.under_way
            && let Some(request) = self.requests.blocking_recv()
        {
            if let Request::Checkpointed(written) = request {
                self.checkpointed(written);
            }
        }
        drop(self);
        for stop in stops {
            stop.send(()).ok();
        }
    }

    /// Commits what stands at the front of `waiting`, as much as goes into one batch.
    fn commit_batch(&mut self, waiting: &mut VecDeque<Request>) {
        let mut open = Open {
            before: self.working.clone(),
            reserved_before: self.reserved,
            batch: Batch::default(),
            done: Vec::new(),
            durable: false,
        };
        while open.batch.len() < BATCH_BYTES
            && let Some(Request::Commit { .. }) = waiting.front()
            && let Some(Request::Commit { writes, durability, answer }) = waiting.pop_front()
        {
            match self.prepare(writes, &mut open) {
                Err(error) => drop(answer.send(Err(error))),
                Ok(changes) => {
                    open.durable |= durability == Durability::Durable;
                    open.done.push(Done { changes, answer });
                }
            }
        }
        if open.done.is_empty() {
            return;
        }
        match self.write(&mut open) {
            Ok(()) => {
                self.checkpoints.since += open.batch.len() as u64;
                self.publish(open.done);
                self.rotate_if_full();
                self.checkpoint_if_due();
            }
            Err(error) => {
                self.working = open.before;
                self.reserved = open.reserved_before;
                for Done { answer, .. } in open.done {
                    answer.send(Err(error.clone())).ok();
                }
            }
        }
    }

    /// Checks a transaction, applies it to the working state and puts its record into the batch.
    fn prepare(&mut self, writes: Vec<Write>, open: &mut Open) -> Result<Vec<Arc<Change>>, WriteError> {
        if let Some(reason) = &self.stopped {
            return Err(WriteError::Stopped(reason.clone()));
        }
        let mut previous = Vec::with_capacity(writes.len());
        for write in &writes {
            let current = self.current(&write.key)?;
            if !write.expect.holds(current.as_ref()) || (write.value.is_none() && current.is_none()) {
                return Err(WriteError::Conflict { key: write.key.clone(), current });
            }
            previous.push(current);
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
        let last = self.working.revision + writes.len() as u64;
        if last > self.reserved {
            self.reserved = last + RESERVE_AHEAD;
            open.batch.push(&codec::reserve(self.reserved));
            open.durable = true;
        }
        open.batch.push(&record);
        let writes = writes.into_iter().zip(previous);
        Ok((first..).zip(writes).map(|(revision, (write, previous))| self.apply(revision, write, previous)).collect())
    }

    fn current(&mut self, key: &str) -> Result<Option<Entry>, WriteError> {
        let found = self.working.map.get_key_value(key).map(|(key, slot)| slot.entry(key)).transpose();
        found.map_err(|error| {
            let reason = format!("{key}: {error}");
            self.stop_because(reason)
        })
    }

    fn apply(&mut self, revision: u64, write: Write, previous: Option<Entry>) -> Arc<Change> {
        let Write { key, value, .. } = write;
        let key: Arc<str> = previous.as_ref().map_or_else(|| key.into(), |entry| entry.key.clone());
        match &value {
            Some(value) => self.working.map.insert(key.clone(), Slot::plain(value.clone(), revision)),
            None => self.working.map.remove(&key),
        };
        self.working.revision = revision;
        Arc::new(Change { key, revision, value, previous })
    }

    fn write(&mut self, open: &mut Open) -> Result<(), WriteError> {
        if let Some(reason) = &self.stopped {
            return Err(WriteError::Stopped(reason.clone()));
        }
        if self.must_rotate {
            // What the batch reserved stands in the batch: the segment begins with what held before it.
            self.rotate(open.before.revision, open.reserved_before).map_err(|error| self.failed(&error))?;
        }
        self.log.append(&mut open.batch).map_err(|error| self.failed(&error))?;
        if open.durable {
            self.log.sync().map_err(|error| self.stop(&error))?;
        }
        Ok(())
    }

    /// Begins a new segment at `revision`.
    fn rotate(&mut self, revision: u64, reserved: u64) -> Result<(), LogError> {
        self.log.rotate(&codec::head(revision, reserved, &self.shared.boot_id))?;
        self.must_rotate = false;
        Ok(())
    }

    fn failed(&mut self, error: &LogError) -> WriteError {
        if !error.is_full() {
            return self.stop(error);
        }
        count(&self.shared.counters.refused_full);
        WriteError::Full
    }

    /// After a failed write or sync nobody knows what is on disk, so nothing more is acknowledged.
    fn stop(&mut self, error: &LogError) -> WriteError {
        self.stop_because(knoll_faults::chain(error))
    }

    fn stop_because(&mut self, reason: String) -> WriteError {
        tracing::error!(reason, "the store stops taking writes");
        self.stopped = Some(reason.clone());
        self.shared.set_stopped(reason.clone());
        WriteError::Stopped(reason)
    }

    fn publish(&self, done: Vec<Done>) {
        let now = Instant::now();
        self.shared.publish(self.working.clone(), done.iter().flat_map(|d| &d.changes), now);
        for Done { changes, answer } in done {
            for change in changes.iter().filter(|change| change.value.is_some()) {
                self.notes.leave(Written { key: change.key.clone(), revision: change.revision, at: now });
            }
            count(&self.shared.counters.transactions);
            answer.send(Ok(changes)).ok();
        }
    }

    /// Closes a segment that is long enough. Where there is no room for another, it grows on.
    fn rotate_if_full(&mut self) {
        if !self.log.is_full() {
            return;
        }
        match self.rotate(self.working.revision, self.reserved) {
            Ok(()) => {}
            Err(error) if error.is_full() => tracing::warn!(%error, "no room for a new segment; the open one grows"),
            Err(error) => drop(self.stop(&error)),
        }
    }

    fn checkpoint_if_due(&mut self) {
        if self.stopped.is_some() || !self.checkpoints.is_due() {
            return;
        }
        let Some(own) = self.own.upgrade() else { return };
        match self.rotate(self.working.revision, self.reserved) {
            Ok(()) => {}
            Err(error) if error.is_full() => return self.checkpointed(None),
            Err(error) => return drop(self.stop(&error)),
        }
        self.checkpoints.under_way = true;
        let since = std::mem::take(&mut self.checkpoints.since);
        self.checkpoints.retry_at = 0;
        let (disk, snapshot, kept) = (self.disk.clone(), self.working.clone(), self.checkpoints.kept.clone());
        let write = move || {
            let written = knoll_faults::catch(|| write_checkpoint(disk.as_ref(), &snapshot, kept));
            let written = written.unwrap_or_else(|panic| {
                tracing::error!(panic, "write a checkpoint; the log is kept");
                None
            });
            own.blocking_send(Request::Checkpointed(written)).ok();
        };
        if let Err(error) = thread::Builder::new().name("store-checkpoint".into()).spawn(write) {
            tracing::error!(%error, "start writing a checkpoint");
            self.checkpoints.since = since;
            self.checkpointed(None);
        }
    }

    fn checkpointed(&mut self, written: Option<(u64, u64)>) {
        self.checkpoints.under_way = false;
        match written {
            Some((revision, bytes)) => {
                count(&self.shared.counters.checkpoints);
                self.checkpoints.bytes = bytes;
                self.checkpoints.kept.push(revision);
                let surplus = self.checkpoints.kept.len().saturating_sub(KEPT);
                self.checkpoints.kept.drain(..surplus);
            }
            None => {
                count(&self.shared.counters.checkpoint_failures);
                self.checkpoints.retry_at = self.checkpoints.since + self.checkpoints.fewest_bytes;
            }
        }
    }

    fn put_packed(&mut self, values: Vec<PackedValue>) {
        for PackedValue { key, revision, packed } in values {
            if self.working.map.get(&key).is_some_and(|slot| slot.revision == revision) {
                self.working.map.insert(key, Slot { value: Value::Packed(packed), revision });
                count(&self.shared.counters.packed);
            }
        }
        self.shared.publish(self.working.clone(), std::iter::empty(), Instant::now());
    }
}

/// Writes a checkpoint and removes what it makes superfluous. Returns its revision and bytes.
fn write_checkpoint(disk: &dyn Disk, snapshot: &Snapshot, mut kept: Vec<u64>) -> Option<(u64, u64)> {
    let bytes = match checkpoint::write(disk, snapshot) {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(%error, "write a checkpoint; the log is kept");
            return None;
        }
    };
    kept.push(snapshot.revision);
    let surplus = kept.len().saturating_sub(KEPT);
    if let Err(error) = checkpoint::prune(disk, &kept[surplus..]) {
        tracing::error!(%error, "remove old checkpoints and segments; the next checkpoint tries again");
    }
    Some((snapshot.revision, bytes))
}

/// How long a stopping store waits for its thread.
pub(crate) const STOP_WAIT: Duration = Duration::from_secs(30);
