//! The event log as the data plane uses it: asked for writes and awaited, read off the runtime's threads, and waited on.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use knoll_journal::{
    Disk, LogError,
    events::{
        Committer, Counts, CursorId, Durability, EventLog, EventOptions, EventReader, EventWriter, GroupCommit, Read,
        ReadError, Recovery, StreamId, SubmitError, Write, WriteError, Written,
    },
};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    budget::{Budget, From, NoRoom},
    streams,
};

/// Between two looks at whether the log takes writes again.
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// Brokers and channels of which it is remembered since when they are asked for in vain; beyond that, as long.
const MOST_AWAITED: usize = 1024;
const AWAITED: Duration = Duration::from_secs(60);
/// Between two looks for what nobody needs, while there is no room.
const ROOM_PAUSE_MS: u64 = 1000;

/// Why the log is not there.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its files.
    #[error("open the event log")]
    Log(#[from] LogError),
    /// Its thread.
    #[error("start the thread of the event log")]
    Thread(#[source] io::Error),
}

/// Why something was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// As much waits as may, or there is no thread any more.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// It was refused.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// There is no room for it.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
}

impl AskError {
    /// Whether nothing will be written any more.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Submit(SubmitError::Closed) | Self::Write(WriteError::Stopped(_)))
    }
}

/// The event log. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    writer: EventWriter,
    reader: EventReader,
    budget: Budget,
    signals: Arc<Signals>,
    /// Where events of brokers and channels go, by uid.
    streams: RwLock<HashMap<Arc<str>, StreamId>>,
    registered: Notify,
    /// Since when those are asked for that are not registered.
    awaited: Mutex<HashMap<Arc<str>, Instant>>,
    /// When what nobody needs was last looked for because there was no room, milliseconds since 1970.
    made_room: AtomicU64,
}

/// Who waits for new events of which stream.
#[derive(Default)]
struct Signals(RwLock<HashMap<StreamId, Arc<Notify>>>);

impl Signals {
    fn published(&self, streams: &[StreamId]) {
        let signals = self.0.read().unwrap_or_else(PoisonError::into_inner);
        streams.iter().filter_map(|stream| signals.get(stream)).for_each(|signal| signal.notify_one());
    }
}

/// The thread that writes.
pub struct LogThread(GroupCommit);

impl LogThread {
    /// Waits until nobody has the [`Log`] any more and everything is written. Blocks.
    ///
    /// # Errors
    /// When the log could not be closed.
    pub fn join(self) -> Result<(), WriteError> {
        self.0.join()
    }
}

impl Log {
    /// Opens the log, making one where there is none, and starts its thread.
    ///
    /// # Errors
    /// When its files cannot be used, or the thread cannot be started.
    pub fn open(disk: Arc<dyn Disk>, options: EventOptions) -> Result<(Self, LogThread, Recovery), OpenError> {
        let (log, committer, recovery) = Self::open_by_turns(disk, options)?;
        let thread = committer.start().map_err(OpenError::Thread)?;
        Ok((log, LogThread(thread), recovery))
    }

    /// The same without a thread: nothing is written but in the committer's turns, which whoever simulates a disk gives it.
    ///
    /// # Errors
    /// When its files cannot be used.
    pub fn open_by_turns(disk: Arc<dyn Disk>, options: EventOptions) -> Result<(Self, Committer, Recovery), LogError> {
        let budget = Budget::new(options.budget_bytes, options.payload_bytes as u64);
        let (log, recovery) = EventLog::open(disk, options)?;
        let reader = log.reader();
        for (stream, namespace) in streams::namespaces(&reader.streams()) {
            reader.tally(stream, &budget.tally(namespace));
        }
        let signals = Arc::new(Signals::default());
        let published = signals.clone();
        let (writer, committer) = Committer::new(log, Box::new(move |streams| published.published(streams)));
        let (streams, registered, made_room) = (RwLock::default(), Notify::new(), AtomicU64::new(0));
        let awaited = Mutex::default();
        let inner = Inner { writer, reader, budget, signals, streams, registered, awaited, made_room };
        Ok((Self { inner: Arc::new(inner) }, committer, recovery))
    }

    /// For reading at will.
    pub(crate) fn reader(&self) -> &EventReader {
        &self.inner.reader
    }

    /// Room for so many bytes more of a namespace, which is kept until what this returns is dropped: once they are written.
    /// Where the log has not much room, what nobody needs is looked for.
    pub(crate) fn room(&self, namespace: &Arc<str>, from: From, bytes: usize, now_ms: u64) -> Result<Counts, NoRoom> {
        let used = self.inner.reader.bytes();
        if self.inner.budget.is_tight(used) {
            self.make_room(now_ms);
        }
        self.inner.budget.room(namespace, from, bytes as u64, used)
    }

    /// Who has how much of it.
    pub(crate) fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// Looks for what nobody needs, once a second however often it is asked.
    pub(crate) fn make_room(&self, now_ms: u64) {
        let last = self.inner.made_room.load(Relaxed);
        let is_due = now_ms.abs_diff(last) >= ROOM_PAUSE_MS;
        if is_due && self.inner.made_room.compare_exchange(last, now_ms, Relaxed, Relaxed).is_ok() {
            self.tidy(now_ms);
        }
    }

    /// Asks for writes once.
    pub(crate) async fn try_write(
        &self,
        writes: Vec<Write>,
        durability: Durability,
    ) -> Result<Vec<Result<Written, WriteError>>, SubmitError> {
        let (told, answer) = oneshot::channel();
        // Who asked may be gone.
        let answered = Box::new(move |outcomes| drop(told.send(outcomes)));
        self.inner.writer.submit(writes, durability, answered)?;
        answer.await.map_err(|_| SubmitError::Closed)
    }

    /// Asks for writes, and again while as much waits as may. Nothing is lost when this is dropped: what was asked for is
    /// written.
    pub(crate) async fn write(
        &self,
        writes: Vec<Write>,
        durability: Durability,
    ) -> Result<Vec<Result<Written, WriteError>>, SubmitError> {
        loop {
            match self.try_write(writes.clone(), durability).await {
                Err(SubmitError::Busy) => tokio::time::sleep(BUSY_PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    /// Writes one thing.
    pub(crate) async fn write_one(&self, write: Write) -> Result<Written, AskError> {
        let mut outcomes = self.write(vec![write], Durability::Synced).await?;
        Ok(outcomes.pop().ok_or(SubmitError::Closed)??)
    }

    /// The stream of this name, made if there is none. What waits in it counts for this namespace.
    pub(crate) async fn stream(&self, name: &str, namespace: &Arc<str>) -> Result<StreamId, AskError> {
        let stream = match self.reader().stream(name.as_bytes()) {
            Some(stream) => stream,
            None => self.made(name).await?,
        };
        self.reader().tally(stream, &self.inner.budget.tally(namespace));
        Ok(stream)
    }

    async fn made(&self, name: &str) -> Result<StreamId, AskError> {
        match self.write_one(Write::CreateStream { name: Bytes::copy_from_slice(name.as_bytes()) }).await? {
            Written::Stream(stream) => Ok(stream),
            Written::Appended(_) | Written::Cursor(_) | Written::Done => Err(WriteError::NoStream.into()),
        }
    }

    /// The cursor of this name, made if there is none.
    pub(crate) async fn cursor(
        &self,
        stream: StreamId,
        name: &str,
        parent: Option<CursorId>,
        start: Option<u64>,
    ) -> Result<CursorId, AskError> {
        if let Some(cursor) = self.reader().cursor(stream, name.as_bytes()) {
            return Ok(cursor);
        }
        let name = Bytes::copy_from_slice(name.as_bytes());
        match self.write_one(Write::CreateCursor { stream, name, parent, start }).await? {
            Written::Cursor(cursor) => Ok(cursor),
            Written::Appended(_) | Written::Stream(_) | Written::Done => Err(WriteError::NoCursor.into()),
        }
    }

    /// Reads: at once what is in memory yet, off the runtime's threads what comes from disk.
    pub(crate) async fn read(&self, stream: StreamId, from: u64, most: usize, bytes: usize) -> Result<Read, ReadError> {
        if let Some(read) = self.reader().read_tail(stream, from, most, bytes)? {
            return Ok(read);
        }
        let reader = self.reader().clone();
        let reading = tokio::task::spawn_blocking(move || reader.read(stream, from, most, bytes));
        match reading.await {
            Ok(read) => read,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime ends, and with it who asked.
            Err(_) => std::future::pending().await,
        }
    }

    /// Is told of new events of this stream from now on. The signal keeps one notice.
    pub(crate) fn listen(&self, stream: StreamId) -> Arc<Notify> {
        let mut signals = self.inner.signals.0.write().unwrap_or_else(PoisonError::into_inner);
        signals.entry(stream).or_default().clone()
    }

    /// Forgets who listens.
    pub(crate) fn forget(&self, stream: StreamId) {
        self.inner.signals.0.write().unwrap_or_else(PoisonError::into_inner).remove(&stream);
    }

    /// Says where the events of a broker or channel go.
    pub(crate) fn register(&self, uid: Arc<str>, stream: StreamId) {
        self.awaited().remove(&uid);
        self.inner.streams.write().unwrap_or_else(PoisonError::into_inner).insert(uid, stream);
        self.inner.registered.notify_waiters();
    }

    /// Says that they go nowhere any more.
    pub(crate) fn unregister(&self, uid: &str) {
        self.awaited().remove(uid);
        self.inner.streams.write().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    fn registered(&self, uid: &str) -> Option<StreamId> {
        self.inner.streams.read().unwrap_or_else(PoisonError::into_inner).get(uid).copied()
    }

    fn awaited(&self) -> MutexGuard<'_, HashMap<Arc<str>, Instant>> {
        self.inner.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when it is asked where the events of one go that is not registered.
    fn awaited_since(&self, uid: &Arc<str>) -> Instant {
        let mut awaited = self.awaited();
        if let Some(since) = awaited.get(uid) {
            return *since;
        }
        if awaited.len() >= MOST_AWAITED {
            awaited.retain(|_, since| since.elapsed() < AWAITED);
        }
        let now = Instant::now();
        awaited.insert(uid.clone(), now);
        now
    }

    /// Where the events of a broker or channel go. One that was just made is waited for, up to `patience` from when it was first
    /// asked for: by one that does not come up nobody is held for long.
    pub(crate) async fn registered_within(&self, uid: &Arc<str>, patience: Duration) -> Option<StreamId> {
        if let Some(stream) = self.registered(uid) {
            return Some(stream);
        }
        let waiting = async {
            loop {
                let next = self.inner.registered.notified();
                if let Some(stream) = self.registered(uid) {
                    return stream;
                }
                next.await;
            }
        };
        timeout_at(self.awaited_since(uid) + patience, waiting).await.ok()
    }

    /// Asks for what nobody needs to be removed.
    pub(crate) fn tidy(&self, now_ms: u64) {
        if let Err(error) = self.inner.writer.tidy(now_ms) {
            tracing::debug!(%error, "the event log is not tidied now");
        }
    }

    /// Bytes of the log's segments.
    pub fn bytes(&self) -> u64 {
        self.inner.reader.bytes()
    }
}

#[cfg(test)]
mod tests {
    use knoll_journal::MemoryDisk;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_does_not_come_up_is_waited_for_once() {
        let (log, _thread, _) = Log::open(Arc::new(MemoryDisk::default()), EventOptions::default()).expect("opens");
        let (uid, patience, begun): (Arc<str>, _, _) = ("uid".into(), Duration::from_secs(5), Instant::now());
        assert_eq!(log.registered_within(&uid, patience).await, None);
        assert_eq!(log.registered_within(&uid, patience).await, None);
        assert_eq!(begun.elapsed().as_secs(), 5, "who comes later is told at once");
        let stream = log.stream("s", &"ns".into()).await.expect("is made");
        log.register(uid.clone(), stream);
        assert_eq!(log.registered_within(&uid, patience).await, Some(stream));
        log.unregister(&uid);
        let waiting = async { log.registered_within(&uid, patience).await };
        let coming = async { log.register(uid.clone(), stream) };
        assert_eq!(tokio::join!(waiting, coming).0, Some(stream), "another time it is waited for again");
    }
}
