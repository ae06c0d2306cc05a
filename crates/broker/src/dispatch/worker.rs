//! The worker of one broker or channel: one task, which owns everything it decides on. Attempts are tasks of their own.

mod aside;
mod open;
mod reading;
mod requests;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    future::pending,
    hash::BuildHasher,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::future::BoxFuture;
use knoll_journal::{
    events::{
        CursorId, Durability, Event, Progress, Ranges, ReadError, StreamId, SubmitError, Write, WriteError, Written,
    },
    is_full,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{Id, JoinError, JoinSet, yield_now},
    time::{Instant, sleep_until, timeout_at},
};

use self::aside::{Aside, Put};
use super::{
    Context,
    attempt::{Attempt, Ended, Made},
    fresh::Fresh,
    retries::Retries,
    subscriber::{Item, Stream, Subscriber},
    supervisor::Command,
    unread::Unread,
    untold::Untold,
};
use crate::{
    log::AskError,
    record::Record,
    topology::{Addressable, Place, Subscribed},
};

/// Events that are read together.
const READ_EVENTS: usize = 256;
const READ_BYTES: usize = 1 << 20;
/// Work of filters after which others get the thread, counted as [`MOST_WORK`](knoll_event::limits::MOST_WORK) counts it: some
/// milliseconds, what the last filter takes among them.
const MATCH_WORK: usize = 512 << 10;
/// How long a subscriber that does not keep up may hold up others.
const HOLD_UP: Duration = Duration::from_millis(100);
/// Before an attempt that panicked is made again; twice as long each time.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// Before the log is told again what it refused.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// How long it may be before the log is told of a delivery, so that many are said together; sooner where a subscriber would wait
/// for that.
const DELIVERED: Duration = Duration::from_millis(2);
/// How long it may be before it is told of events that nobody gets, and without subscribers before it is seen that there are
/// some: after a crash they are delivered to nobody either.
const NOBODYS: Duration = Duration::from_millis(100);
/// Of how many stretches of events that everybody is done with it is told at once.
const MOST_SETTLED: usize = 64;
/// Before an event that the system could not read is read again.
const AFTER_UNREAD: Duration = Duration::from_secs(10);
/// Attempts that are looked at in one turn.
const TURN: usize = 1024;

/// Which subscriber; never another's.
type Number = u64;
/// No subscriber.
const EVERYBODYS: Number = 0;
type Told = Result<Vec<Result<Written, WriteError>>, SubmitError>;

/// Why a worker ended that should not have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A broker or channel as it is.
#[derive(Clone, Debug)]
pub(crate) struct Newest {
    /// It.
    pub(crate) addressable: Arc<Addressable>,
    /// Whether who is not among its subscribers is gone.
    pub(crate) is_complete: bool,
}

/// How a worker ended that did not fail.
pub(crate) enum End {
    /// It was told to.
    Over,
    /// It is to begin anew at once.
    Anew,
}

impl From<SubmitError> for WorkerError {
    fn from(error: SubmitError) -> Self {
        Self::Ask(error.into())
    }
}

/// See the module.
pub(crate) struct Worker {
    context: Arc<Context>,
    addressable: Arc<Addressable>,
    stream: StreamId,
    root: CursorId,
    signal: Arc<Notify>,
    /// How far it was when the worker began.
    recovered: Progress,
    /// The next event to look at, and whether there may be one.
    next: u64,
    more: bool,
    /// While nobody subscribes: until when nobody looks what has come.
    rest: Option<Instant>,
    /// Events that somebody is not done with, and how many are not.
    open: BTreeMap<u64, u32>,
    /// The sum of those.
    held: usize,
    /// What everybody is done with and is not yet said so to the log.
    settled: Ranges,
    /// Whether there is progress of somebody who is not known: then nobody can say that everybody is done with an event, and
    /// each subscriber says it of itself alone.
    has_strangers: bool,
    subscribers: HashMap<Number, Subscriber>,
    by_uid: HashMap<Arc<str>, Number>,
    /// Who is to be let in, and where they stand; and when that is tried again.
    arriving: HashMap<Arc<str>, (Place, Arc<Subscribed>)>,
    arrive_again: Option<Instant>,
    /// By their places in the index over filters.
    numbers: HashMap<Place, Number>,
    /// Work of filters until others get the thread.
    match_left: usize,
    /// Whose filters took more work than they may, which was told of.
    exhausted: HashSet<Number>,
    last_number: Number,
    /// What of the stream could not be read.
    unread: Unread,
    /// Whose events could not be read because the system had no room to.
    unfilled: Vec<Number>,
    /// Whose deliveries had failed before the worker began, by event.
    tried: BTreeMap<u64, Vec<Number>>,
    /// Who may have something to do.
    runnable: Vec<Number>,
    /// Events that were read; those of the broker or channel are [`EVERYBODYS`].
    fresh: Fresh<(Number, u64)>,
    retries: Retries<(Number, Item)>,
    tasks: JoinSet<Made>,
    running: HashMap<Id, (Number, Item)>,
    /// What else is to be told to the log: failed attempts, what goes, and what it refused.
    untold: Untold,
    /// Since it refuses some: when it is told again.
    refused: Option<Instant>,
    /// Whose progress is to be told.
    unsaid: Vec<Number>,
    /// Whose progress is being told.
    being_told: Vec<Number>,
    /// When the log is told at the latest of what is done with.
    tell_due: Option<Instant>,
    telling: Option<BoxFuture<'static, (Vec<Write>, Told)>>,
    /// Events that are to be put aside, ahead of whatever is read next; and those of them that are being.
    asides: VecDeque<Aside>,
    moving: Option<BoxFuture<'static, Result<Put, AskError>>>,
    /// The names of the streams that events are being put aside in.
    moving_to: HashSet<String>,
    /// Who has no room for the next event, and since when.
    held_up: Option<(Number, Instant)>,
    hasher: std::hash::RandomState,
}

impl Worker {
    /// Works until `end` is true or nobody tells of changes any more; then what is under way is finished within
    /// [`Config::grace`](crate::Config::grace). Dropped, it leaves nothing that a new one would not find in the log.
    pub(crate) async fn run(
        mut self,
        mut changes: watch::Receiver<Newest>,
        mut commands: mpsc::Receiver<Command>,
        mut end: watch::Receiver<bool>,
    ) -> Result<End, WorkerError> {
        let (mut has_commands, mut how) = (true, End::Over);
        loop {
            self.read().await?;
            self.fill().await;
            self.start();
            self.tell();
            let (timer, can_read, rests) = (self.timer(), self.can_read(), self.rest.is_some());
            let Self { tasks, telling, moving, signal, .. } = &mut self;
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let newest = changes.borrow_and_update().clone();
                    if self.begins_anew(&newest) {
                        how = End::Anew;
                        break;
                    }
                    self.adopt(newest.addressable).await?;
                    self.note_adopted();
                }
                () = ended(&mut end) => break,
                // While it is not waited for it wakes nobody, and is kept.
                () = signal.notified(), if !rests => self.more = true,
                Some(ended) = tasks.join_next_with_id() => self.turn(ended),
                () = until(timer) => self.due().await?,
                () = yield_now(), if can_read => {}
                told = answered(telling) => self.was_told(told)?,
                moved = answered(moving) => {
                    self.moving = None;
                    self.moved(moved?);
                }
                command = commands.recv(), if has_commands => match command {
                    Some(command) => self.command(command).await,
                    None => has_commands = false,
                },
            }
        }
        self.finish().await?;
        Ok(how)
    }

    /// Whether there may be something to read at once.
    fn can_read(&mut self) -> bool {
        let now = Instant::now();
        let is_free = self.moving.is_none() && self.held_up.is_none() && !self.unread.waits(now);
        is_free && (self.more || self.unread.has_next(now))
    }

    /// When there is something to do by the clock.
    fn timer(&self) -> Option<Instant> {
        let retry = self.retries.next();
        let (is_free, is_paused) = (self.moving.is_none(), self.unread.is_paused());
        let looks = is_free && !is_paused && self.subscribers.len() > 1;
        let look = self.held_up.map(|(_, since)| since + HOLD_UP).filter(|_| looks);
        let again = self.unread.timer().filter(|_| is_free && (is_paused || self.held_up.is_none()));
        let refused = self.refused.filter(|_| self.telling.is_none());
        let tell = self.tell_due.filter(|_| self.telling.is_none());
        [retry, look, again, refused, tell, self.arrive_again, self.rest].into_iter().flatten().min()
    }

    /// Lets those who are behind take more of what was put aside for them.
    async fn fill(&mut self) {
        if !self.unfilled.is_empty() && !self.unread.waits(Instant::now()) {
            self.runnable.append(&mut self.unfilled);
        }
        self.runnable.sort_unstable();
        self.runnable.dedup();
        for at in 0..self.runnable.len() {
            self.fill_for(self.runnable[at]).await;
        }
    }

    async fn fill_for(&mut self, number: Number) {
        let Some(subscriber) = self.subscribers.get_mut(&number) else { return };
        let wanted = subscriber.wants_backlog(self.context.config.window, self.next);
        let Some((stream, from)) = subscriber.backlog_start().filter(|_| wanted > 0) else { return };
        let read = match self.context.log.read(stream, from, wanted, READ_BYTES / 4).await {
            Ok(read) => read,
            Err(ReadError::Io { source, .. }) if is_full(&source) => {
                self.unread.wait(Instant::now());
                return self.unfilled.push(number);
            }
            // Its attempt says what is wrong.
            Err(ReadError::Io { .. } | ReadError::NoStream) => return subscriber.hold_next(None),
        };
        let events: HashMap<u64, Event> = read.events.into_iter().map(|event| (event.offset, event)).collect();
        for _ in 0..wanted {
            let Some((_, offset)) = subscriber.backlog_start() else { break };
            if offset >= read.next.max(from + 1) {
                break;
            }
            let event = events.get(&offset);
            let key = event.filter(|event| !event.key.is_empty()).map(|event| self.hasher.hash_one(&event.key[..]));
            subscriber.hold_next(key);
            if let Some(event) = event
                && let Ok(record) = Record::of(event)
            {
                self.fresh.keep((number, offset), record, event.payload.len());
            }
        }
    }

    /// Starts attempts, as many as each subscriber takes.
    fn start(&mut self) {
        for number in std::mem::take(&mut self.runnable) {
            let Some(subscriber) = self.subscribers.get_mut(&number) else { continue };
            while let Some(item) = subscriber.next() {
                let (Some((stream, _)), Some(held)) = (subscriber.place(item), subscriber.held(item)) else { continue };
                let failed = held.attempts;
                let record = self.fresh.get(&(whose(number, item.stream), item.offset));
                let attempt = Attempt {
                    context: self.context.clone(),
                    addressable: self.addressable.clone(),
                    subscribed: subscriber.subscribed.clone(),
                    stream,
                    offset: item.offset,
                    failed,
                    record,
                };
                let task = self.tasks.spawn(attempt.run());
                self.running.insert(task.id(), (number, item));
                subscriber.started(item, task);
            }
            subscriber.catch_up(self.context.config.window);
            subscriber.show();
        }
    }

    /// Looks at what attempts came to.
    fn turn(&mut self, first: Result<(Id, Made), JoinError>) {
        self.ended(first);
        for _ in 1..TURN {
            let Some(next) = self.tasks.try_join_next_with_id() else { break };
            self.ended(next);
        }
    }

    fn ended(&mut self, result: Result<(Id, Made), JoinError>) {
        let id = result.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some((number, item)) = self.running.remove(&id) else { return };
        // Who is gone is not waited for.
        let Some(subscriber) = self.subscribers.get_mut(&number) else { return };
        self.runnable.push(number);
        let in_flight = subscriber.in_flight;
        if let Ok((_, made)) = &result {
            subscriber.limit.told(made.capacity);
        }
        match result.map(|(_, made)| made.ended) {
            Ok(Ended::Done { delivered, overloaded }) => {
                if overloaded {
                    subscriber.limit.overloaded(in_flight);
                } else if delivered {
                    subscriber.view.delivered.fetch_add(1, Relaxed);
                    subscriber.limit.succeeded(in_flight);
                }
                self.done(number, item);
            }
            Ok(Ended::Unread) => {
                self.context.metrics.unread.count();
                subscriber.postpone(item);
                self.retries.put(Instant::now() + AFTER_UNREAD, (number, item));
            }
            Ok(Ended::Held { wait }) => {
                subscriber.limit.overloaded(in_flight);
                subscriber.postpone(item);
                self.retries.put(Instant::now() + wait, (number, item));
            }
            Ok(Ended::Retry { wait, overloaded }) => {
                if overloaded {
                    subscriber.limit.overloaded(in_flight);
                }
                self.failed(number, item, |_| wait);
            }
            Err(error) => {
                let said =
                    error.try_into_panic().map_or_else(|_| "cancelled".to_owned(), |panic| knoll_faults::said(&*panic));
                self.context.metrics.panics.count();
                let name = &*subscriber.subscribed.subscription.name;
                tracing::error!(panic = said, subscription = name, "a delivery panicked; it is tried again");
                self.failed(number, item, |attempts| AFTER_PANIC * 2_u32.pow(attempts.min(10)));
            }
        }
    }

    fn failed(&mut self, number: Number, item: Item, wait: impl Fn(u32) -> Duration) {
        let Some(subscriber) = self.subscribers.get_mut(&number) else { return };
        let attempts = subscriber.failed(item);
        subscriber.view.failed_attempts.fetch_add(1, Relaxed);
        if let Some((_, cursor)) = subscriber.place(item) {
            self.untold.attempted(cursor, item.offset, attempts);
        }
        self.retries.put(Instant::now() + wait(attempts), (number, item));
    }

    /// A subscriber is done with an event.
    fn done(&mut self, number: Number, item: Item) {
        let Some(subscriber) = self.subscribers.get_mut(&number) else { return };
        subscriber.done(item);
        let now = Instant::now();
        let due = if subscriber.is_to_be_told_of() { now } else { now + DELIVERED };
        self.tell_due = Some(self.tell_due.map_or(due, |before| before.min(due)));
        if item.stream == Stream::Backlog {
            self.fresh.forget(&(number, item.offset));
        }
        let is_said = item.stream == Stream::Main && self.release(item.offset) && !self.has_strangers;
        if !is_said && let Some(subscriber) = self.subscribers.get_mut(&number) {
            subscriber.say_settled(item, self.unread.holes());
        }
        self.unsaid.push(number);
    }

    /// One subscriber less waits for an event. Whether it was the last.
    fn release(&mut self, offset: u64) -> bool {
        let Some(left) = self.open.get_mut(&offset) else { return false };
        *left -= 1;
        self.held -= 1;
        let is_last = *left == 0;
        if is_last {
            self.open.remove(&offset);
            self.fresh.forget(&(EVERYBODYS, offset));
            self.settled.insert(offset, offset);
        }
        is_last
    }

    /// Does again what is due.
    async fn due(&mut self) -> Result<(), WorkerError> {
        let now = Instant::now();
        self.rest = self.rest.filter(|rest| *rest > now);
        while let Some((number, item)) = self.retries.take(now) {
            if let Some(subscriber) = self.subscribers.get_mut(&number) {
                subscriber.due(item);
                self.runnable.push(number);
            }
        }
        if self.arrive_again.is_some_and(|due| due <= now) {
            self.arrive().await?;
            self.note_adopted();
        }
        Ok(())
    }

    /// Whether it is time to tell of what is done with, if something is.
    fn is_time_to_tell(&mut self) -> bool {
        let now = Instant::now();
        let has_settled = !self.has_strangers && !self.settled.is_empty();
        if !has_settled && self.unsaid.is_empty() {
            self.tell_due = None;
            return false;
        }
        *self.tell_due.get_or_insert(now + NOBODYS) <= now || self.settled.len() > MOST_SETTLED
    }

    /// Tells the log how far things are, unless it is being told, or it is not yet time for what there is to say. What it refused
    /// is told with what is new, or after a while.
    fn tell(&mut self) {
        if self.telling.is_some() {
            return;
        }
        let is_due = self.refused.is_some_and(|due| due <= Instant::now());
        if !(self.untold.has_news() || is_due || self.is_time_to_tell()) {
            return;
        }
        self.tell_due = None;
        if !self.has_strangers {
            for (first, last) in std::mem::take(&mut self.settled).iter() {
                self.untold.settle(self.root, first, last);
            }
        }
        self.unsaid.sort_unstable();
        self.unsaid.dedup();
        self.being_told = std::mem::take(&mut self.unsaid);
        for number in &self.being_told {
            let Some(subscriber) = self.subscribers.get_mut(number) else { continue };
            subscriber.tell();
            let lanes = [Some(&mut subscriber.main), subscriber.backlog.as_mut().map(|backlog| &mut backlog.lane)];
            for lane in lanes.into_iter().flatten() {
                for (first, last) in lane.take_unsaid() {
                    self.untold.settle(lane.cursor, first, last);
                }
            }
        }
        let writes = self.untold.take();
        if writes.is_empty() {
            return self.told();
        }
        let log = self.context.log.clone();
        self.telling = Some(Box::pin(async move {
            let told = log.write(writes.clone(), Durability::Written).await;
            (writes, told)
        }));
    }

    /// The log answered. What it refuses, as a full disk does, is kept: else it would come again after the next start, and
    /// hold up what could go meanwhile.
    fn was_told(&mut self, (writes, told): (Vec<Write>, Told)) -> Result<(), WorkerError> {
        self.telling = None;
        self.told();
        let refusal = self.untold.keep_refused(writes, told?);
        if let Some(error @ WriteError::Stopped(_)) = refusal {
            return Err(AskError::from(error).into());
        }
        if let (Some(error), None) = (&refusal, self.refused) {
            tracing::warn!(%error, "the event log does not take how far deliveries are; it is told again");
        }
        self.refused = refusal.map(|_| Instant::now() + TELL_AGAIN);
        Ok(())
    }

    /// The log was told, and those who waited for that go on.
    fn told(&mut self) {
        for number in self.being_told.drain(..) {
            if let Some(subscriber) = self.subscribers.get_mut(&number) {
                subscriber.told();
                self.runnable.push(number);
            }
        }
    }

    /// Finishes what is under way, within the time there is for it, and tells the log.
    async fn finish(mut self) -> Result<(), WorkerError> {
        let deadline = Instant::now() + self.context.config.grace;
        while !self.tasks.is_empty()
            && let Ok(Some(ended)) = timeout_at(deadline, self.tasks.join_next_with_id()).await
        {
            self.turn(ended);
        }
        while let Some(moving) = self.moving.take()
            && let Ok(moved) = timeout_at(deadline, moving).await
        {
            self.moved(moved?);
        }
        self.tell_all().await
    }

    /// Tells the log everything that there is now, and waits for its answer.
    async fn tell_all(&mut self) -> Result<(), WorkerError> {
        for _ in 0..2 {
            let now = Instant::now();
            self.refused = self.refused.map(|_| now);
            self.tell_due = Some(now);
            self.tell();
            if let Some(telling) = self.telling.take() {
                let told = telling.await;
                self.was_told(told)?;
            }
        }
        Ok(())
    }
}

/// Under whose number an event is kept that was read.
fn whose(number: Number, stream: Stream) -> Number {
    match stream {
        Stream::Main => EVERYBODYS,
        Stream::Backlog => number,
    }
}

async fn answered<T>(of: &mut Option<BoxFuture<'static, T>>) -> T {
    match of {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn until(timer: Option<Instant>) {
    match timer {
        Some(timer) => sleep_until(timer).await,
        None => pending().await,
    }
}

/// Waits for the end; for ever when nobody can say it any more.
async fn ended(end: &mut watch::Receiver<bool>) {
    let is_over = end.wait_for(|end| *end).await.is_ok();
    if !is_over {
        pending().await
    }
}
