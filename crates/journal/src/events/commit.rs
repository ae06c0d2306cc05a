//! One thread that writes for many: whatever was asked for while a sync ran goes into the log together, under one sync.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Decoded, EventLog, StreamId, Write, WriteError, Written};

/// Most requests that wait.
const QUEUE: usize = 4096;
/// Most bytes that wait, but for one request.
const QUEUE_BYTES: usize = 64 << 20;
/// Most requests that are written together.
const TOGETHER: usize = 1024;
/// A batch that has grown past this many bytes is written.
const TOGETHER_BYTES: usize = 4 << 20;
/// What was written and awaits no sync is synced, and shown to readers, this much later if nothing else has it synced.
const LAZY: Duration = Duration::from_millis(200);
/// After a failed step of removing what nobody needs, the next is taken this much later.
const RETRY: Duration = Duration::from_secs(1);

/// What becomes of each write of a request. Called on the thread that writes, so it must not wait for anything. Where it
/// panics, nobody else notices.
pub type Answer = Box<dyn FnOnce(Vec<Result<Written, WriteError>>) + Send>;
/// Is told of the streams that have more events to read. Called on the thread that writes, so it must not wait for anything.
pub type Published = Box<dyn Fn(&[StreamId]) + Send>;

/// When a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once a power cut takes nothing of it.
    Synced,
    /// Once the death of this process takes nothing of it: for what may be done twice. It is synced, and its events
    /// shown to readers, with the next request that asks for it, or within a fifth of a second.
    Written,
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// As much waits as may.
    #[error("as many writes wait for the event log as may: try again")]
    Busy,
    /// The thread that writes has ended.
    #[error("the event log is closed")]
    Closed,
}

struct Request {
    writes: Vec<Write>,
    /// How many they are, or were before they were taken.
    count: usize,
    durability: Durability,
    bytes: usize,
    answer: Option<Answer>,
}

impl Request {
    fn answer(mut self, outcomes: Vec<Result<Written, WriteError>>) {
        if let Some(answer) = self.answer.take() {
            contained("an answer", || answer(outcomes));
        }
    }
}

/// Runs what others gave. The log is whole when it is called, so a panic of it is its own.
fn contained(what: &str, work: impl FnOnce()) {
    if let Err(panic) = knoll_faults::catch(work) {
        tracing::error!(panic, what, "told by the event log, it panicked");
    }
}

/// Whoever asked is told, whatever happens to the thread.
impl Drop for Request {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            let stopped = WriteError::Stopped("its thread ended".to_owned());
            contained("an answer", || answer(vec![Err(stopped); self.count]));
        }
    }
}

enum Message {
    Write(Request),
    Tidy(u64),
}

/// Asks for writes, from any thread.
#[derive(Clone)]
pub struct EventWriter {
    messages: SyncSender<Message>,
    waiting: Arc<AtomicUsize>,
}

/// The thread that writes.
pub struct GroupCommit {
    thread: JoinHandle<Result<(), WriteError>>,
}

impl GroupCommit {
    /// Gives the log to a thread of its own. `published` is told after each sync.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(log: EventLog, published: Published) -> io::Result<(EventWriter, GroupCommit)> {
        let (writer, committer) = Committer::new(log, published);
        Ok((writer, committer.start()?))
    }

    /// Waits until every [`EventWriter`] is gone, everything asked for is written, and the log is closed.
    ///
    /// # Errors
    /// [`WriteError::Stopped`] when the log could not be closed.
    pub fn join(self) -> Result<(), WriteError> {
        self.thread.join().unwrap_or_else(|_| Err(WriteError::Stopped("its thread panicked".to_owned())))
    }
}

impl EventWriter {
    /// Asks for writes, in order, and to be answered when they are as durable as said.
    ///
    /// # Errors
    /// [`SubmitError::Busy`] at the bound of 4096 requests or 64 MiB; the answer is not called then.
    pub fn submit(&self, writes: Vec<Write>, durability: Durability, answer: Answer) -> Result<(), SubmitError> {
        let bytes: usize = writes.iter().map(size).sum();
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let count = writes.len();
        let request = Message::Write(Request { writes, count, durability, bytes, answer: Some(answer) });
        let sent = if before > 0 && before + bytes > QUEUE_BYTES {
            Err(TrySendError::Full(request))
        } else {
            self.messages.try_send(request)
        };
        sent.map_err(|refused| {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            let (error, message) = match refused {
                TrySendError::Full(message) => (SubmitError::Busy, message),
                TrySendError::Disconnected(message) => (SubmitError::Closed, message),
            };
            if let Message::Write(mut request) = message {
                request.answer = None;
            }
            error
        })
    }

    /// Asks for what nobody needs to be removed, a step at a time between the writes, with this as the present time.
    ///
    /// # Errors
    /// When as many requests wait as may, or the thread has ended.
    pub fn tidy(&self, now_ms: u64) -> Result<(), SubmitError> {
        self.messages.try_send(Message::Tidy(now_ms)).map_err(|refused| match refused {
            TrySendError::Full(_) => SubmitError::Busy,
            TrySendError::Disconnected(_) => SubmitError::Closed,
        })
    }
}

/// What a write counts towards the bytes that may wait.
fn size(write: &Write) -> usize {
    match write {
        Write::Append { key, payload, decoded, .. } => {
            key.len() + payload.len() + decoded.as_ref().map_or(0, Decoded::bytes)
        }
        Write::CreateStream { name } | Write::CreateCursor { name, .. } => name.len(),
        Write::Settle { ranges, .. } => ranges.len() * 16,
        Write::DeleteStream(_) | Write::DeleteCursor(_) | Write::Attempted { .. } => 0,
    }
}

/// What the thread of a [`GroupCommit`] does, turn by turn: for a simulation, which says itself what happens when. Dropped, it
/// leaves the log as a process does that dies.
pub struct Committer {
    log: EventLog,
    published: Published,
    received: Receiver<Message>,
    waiting: Arc<AtomicUsize>,
    /// The present time, while there is something to remove; and whether the last step of it failed.
    tidying: Option<(u64, bool)>,
    /// When what was written is synced, if nothing has it synced before.
    lazy: Option<Instant>,
}

impl Committer {
    /// Takes the log. `published` is told after each sync.
    pub fn new(log: EventLog, published: Published) -> (EventWriter, Committer) {
        let (messages, received) = sync_channel(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let committer = Committer { log, published, received, waiting: waiting.clone(), tidying: None, lazy: None };
        (EventWriter { messages, waiting }, committer)
    }

    /// Goes on in a thread of its own.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(self) -> io::Result<GroupCommit> {
        let thread = thread::Builder::new().name("event-log".into()).spawn(move || self.run())?;
        Ok(GroupCommit { thread })
    }

    /// Writes what waits, with one sync for all that awaits one, and does what is due by now; waits for nothing.
    pub fn turn(&mut self, now: Instant) {
        let first = self.received.try_recv().ok();
        self.step(first, now);
    }

    fn run(mut self) -> Result<(), WriteError> {
        loop {
            let first = match self.first() {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.log.close(),
            };
            self.step(first, Instant::now());
        }
    }

    fn step(&mut self, first: Option<Message>, now: Instant) {
        if let Some(first) = first {
            self.batch(first, now);
        }
        if self.lazy.is_some_and(|due| due <= now) {
            // Where it fails the log has stopped, and says so to the next who asks.
            self.sync().ok();
        }
        self.tidy_step();
    }

    /// What comes next: waited for, unless there is something else to do.
    fn first(&self) -> Result<Message, RecvTimeoutError> {
        let lazy = self.lazy.map(|due| due.saturating_duration_since(Instant::now()));
        let tidying = self.tidying.map(|(_, failed)| if failed { RETRY } else { Duration::ZERO });
        match [lazy, tidying].into_iter().flatten().min() {
            None => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(wait) => self.received.recv_timeout(wait),
        }
    }

    /// Writes what waits.
    fn batch(&mut self, first: Message, now: Instant) {
        let (mut requests, mut bytes) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Write(request) => {
                    bytes += request.bytes;
                    requests.push(request);
                }
                Message::Tidy(time) => self.tidying = Some((time, false)),
            }
            let room = requests.len() < TOGETHER && bytes < TOGETHER_BYTES;
            next = if room { self.received.try_recv().ok() } else { None };
        }
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        self.commit(requests, now);
    }

    fn commit(&mut self, mut requests: Vec<Request>, now: Instant) {
        let writes: Vec<Write> = requests.iter_mut().flat_map(|request| request.writes.drain(..)).collect();
        let mut outcomes = self.log.write(&writes).into_iter();
        let outcomes: Vec<Vec<_>> =
            requests.iter().map(|request| outcomes.by_ref().take(request.count).collect()).collect();
        let waits = |request: &Request| request.durability == Durability::Synced;
        let synced = if requests.iter().any(waits) {
            self.synced()
        } else {
            self.lazy = self.lazy.or_else(|| (!requests.is_empty()).then(|| now + LAZY));
            Ok(Vec::new())
        };
        for (request, mut outcomes) in requests.into_iter().zip(outcomes) {
            if let (Err(error), true) = (&synced, waits(&request)) {
                outcomes.iter_mut().filter(|outcome| outcome.is_ok()).for_each(|outcome| *outcome = Err(error.clone()));
            }
            request.answer(outcomes);
        }
        // Who asked waits for this alone; who reads has other work.
        self.publish(&synced.unwrap_or_default());
    }

    /// Syncs all that was written, and tells of it.
    fn sync(&mut self) -> Result<(), WriteError> {
        let streams = self.synced()?;
        self.publish(&streams);
        Ok(())
    }

    /// Syncs all that was written: the streams that have more to read now.
    fn synced(&mut self) -> Result<Vec<StreamId>, WriteError> {
        self.lazy = None;
        self.log.sync()
    }

    fn publish(&self, streams: &[StreamId]) {
        if !streams.is_empty() {
            contained("who reads", || (self.published)(streams));
        }
    }

    fn tidy_step(&mut self) {
        let Some((now, _)) = self.tidying else { return };
        self.tidying = match self.log.tidy(now) {
            Ok(done) => done.more.then_some((now, false)),
            Err(WriteError::Stopped(_)) => None,
            Err(error) => {
                tracing::warn!(%error, "make room in the event log");
                Some((now, true))
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use bytes::Bytes;

    use super::*;
    use crate::{
        MemoryDisk,
        events::{EventOptions, EventReader},
    };

    type Outcomes = Vec<Result<Written, WriteError>>;

    fn options() -> EventOptions {
        EventOptions { reserve_bytes: 0, room_bytes: 0, ..EventOptions::default() }
    }

    fn started(disk: &MemoryDisk) -> (EventWriter, GroupCommit, EventReader, StreamId) {
        let (mut log, _) = EventLog::open(Arc::new(disk.clone()), options()).expect("opens");
        let made = log.write(&[Write::CreateStream { name: Bytes::from_static(b"s") }]).remove(0);
        let Ok(Written::Stream(stream)) = made else { panic!("{made:?}") };
        let reader = log.reader();
        let (writer, thread) = GroupCommit::start(log, Box::new(|_| {})).expect("starts");
        (writer, thread, reader, stream)
    }

    fn event(stream: StreamId, payload: &'static [u8]) -> Write {
        Write::Append { stream, time: 1, key: Bytes::new(), payload: Bytes::from_static(payload), decoded: None }
    }

    fn asked(writer: &EventWriter, writes: Vec<Write>, durability: Durability) -> Outcomes {
        let (told, answer) = mpsc::channel();
        writer.submit(writes, durability, Box::new(move |outcomes| drop(told.send(outcomes)))).expect("is taken");
        answer.recv().expect("is answered")
    }

    #[test]
    fn what_is_answered_survives_a_power_cut() {
        let disk = MemoryDisk::default();
        let (writer, thread, reader, stream) = started(&disk);
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (writer, disk) = (writer.clone(), disk.clone());
                thread::spawn(move || {
                    for _ in 0..20 {
                        let outcomes =
                            asked(&writer, vec![event(stream, b"x"), event(stream, b"y")], Durability::Synced);
                        let Ok(Written::Appended(offset)) = outcomes[1] else { panic!("{outcomes:?}") };
                        let (log, _) = EventLog::open(Arc::new(disk.after_power_cut()), options()).expect("opens");
                        assert!(log.reader().end(stream).expect("there") > offset);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!(reader.end(stream), Some(320));
        drop(writer);
        thread.join().expect("closes");
    }

    #[test]
    fn a_full_disk_refuses_what_finds_no_room_and_takes_what_comes_after() {
        let disk = MemoryDisk::default();
        let (writer, _thread, reader, stream) = started(&disk);
        disk.set_capacity(Some(disk.used() + 10));
        assert_eq!(asked(&writer, vec![event(stream, &[7; 100])], Durability::Synced), [Err(WriteError::Full)]);
        disk.set_capacity(None);
        assert_eq!(asked(&writer, vec![event(stream, b"z")], Durability::Synced), [Ok(Written::Appended(0))]);
        assert_eq!(&reader.read(stream, 0, 9, 9).expect("reads").events[0].payload[..], b"z");
    }

    #[test]
    fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
        let disk = MemoryDisk::default();
        let (writer, thread, reader, stream) = started(&disk);
        disk.fail_syncs();
        for durability in [Durability::Synced, Durability::Written] {
            let outcomes = asked(&writer, vec![event(stream, b"x")], durability);
            assert!(matches!(outcomes[..], [Err(WriteError::Stopped(_))]), "{outcomes:?}");
        }
        assert_eq!(reader.end(stream), Some(0));
        drop(writer);
        assert!(thread.join().is_err());
    }

    #[test]
    fn as_much_waits_as_may_and_what_waits_is_answered_whatever_happens() {
        let disk = MemoryDisk::default();
        let (writer, thread, _, stream) = started(&disk);
        // The thread is held up in an answer.
        let (go_on, held) = mpsc::channel::<()>();
        let (there, begun) = mpsc::channel();
        let hold = move |_| {
            there.send(()).expect("is waited for");
            held.recv().ok();
        };
        writer.submit(vec![event(stream, b"x")], Durability::Synced, Box::new(hold)).expect("is taken");
        begun.recv().expect("is held up");
        let answers = Arc::new(Mutex::new(0));
        let mut taken = 0;
        let refused = loop {
            let counted = answers.clone();
            let count = move |_: Outcomes| *counted.lock().expect("not poisoned") += 1;
            match writer.submit(vec![event(stream, b"y")], Durability::Written, Box::new(count)) {
                Ok(()) => taken += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((refused, taken), (SubmitError::Busy, QUEUE));
        drop((go_on, writer));
        thread.join().expect("closes");
        assert_eq!(*answers.lock().expect("not poisoned"), taken);
    }

    #[test]
    fn a_panic_in_an_answer_or_a_listener_costs_nobody_else_anything() {
        let disk = MemoryDisk::default();
        let (mut log, _) = EventLog::open(Arc::new(disk), options()).expect("opens");
        let made = log.write(&[Write::CreateStream { name: Bytes::from_static(b"s") }]).remove(0);
        let Ok(Written::Stream(stream)) = made else { panic!("{made:?}") };
        let (writer, thread) = GroupCommit::start(log, Box::new(|_| panic!("on purpose"))).expect("starts");
        for offset in [0, 2] {
            let panics: Answer = Box::new(|_| panic!("on purpose"));
            writer.submit(vec![event(stream, b"x")], Durability::Synced, panics).expect("is taken");
            let outcomes = asked(&writer, vec![event(stream, b"y")], Durability::Synced);
            assert_eq!(outcomes, [Ok(Written::Appended(offset + 1))]);
        }
        drop(writer);
        thread.join().expect("closes");
    }

    #[test]
    fn by_turns_nothing_happens_but_in_one_and_what_was_written_only_is_synced_when_that_is_due() {
        let disk = MemoryDisk::default();
        let (mut log, _) = EventLog::open(Arc::new(disk.clone()), options()).expect("opens");
        let made = log.write(&[Write::CreateStream { name: Bytes::from_static(b"s") }]).remove(0);
        let Ok(Written::Stream(stream)) = made else { panic!("{made:?}") };
        log.sync().expect("syncs");
        let (writer, mut committer) = Committer::new(log, Box::new(|_| {}));
        let (told, answer) = mpsc::channel();
        let told: Answer = Box::new(move |outcomes| drop(told.send(outcomes)));
        writer.submit(vec![event(stream, b"x")], Durability::Written, told).expect("is taken");
        assert!(answer.try_recv().is_err(), "nobody writes");
        let now = Instant::now();
        committer.turn(now);
        assert_eq!(answer.try_recv(), Ok(vec![Ok(Written::Appended(0))]));
        let survives = || {
            let (log, _) = EventLog::open(Arc::new(disk.after_power_cut()), options()).expect("opens");
            log.reader().end(stream)
        };
        committer.turn(now + LAZY / 2);
        assert_eq!(survives(), Some(0));
        committer.turn(now + LAZY);
        assert_eq!(survives(), Some(1));
    }

    #[test]
    fn what_was_written_only_is_synced_and_shown_before_long_though_nobody_asks() {
        let disk = MemoryDisk::default();
        let (mut log, _) = EventLog::open(Arc::new(disk.clone()), options()).expect("opens");
        let made = log.write(&[Write::CreateStream { name: Bytes::from_static(b"s") }]).remove(0);
        let Ok(Written::Stream(stream)) = made else { panic!("{made:?}") };
        let (told, shown) = mpsc::channel();
        let published = Box::new(move |streams: &[StreamId]| drop(told.send(streams.to_vec())));
        let (writer, _thread) = GroupCommit::start(log, published).expect("starts");
        for _ in 0..2 {
            asked(&writer, vec![event(stream, b"x")], Durability::Written).remove(0).expect("is written");
            assert_eq!(shown.recv_timeout(Duration::from_secs(60)), Ok(vec![stream]));
        }
        let (log, _) = EventLog::open(Arc::new(disk.after_power_cut()), options()).expect("opens");
        assert_eq!(log.reader().end(stream), Some(2));
    }
}
