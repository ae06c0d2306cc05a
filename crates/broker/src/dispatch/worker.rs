//! The worker of one broker or channel: one task, which owns everything it decides on. Attempts are tasks of their own.

mod aside;
mod open;
mod requests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
    future::pending,
    hash::BuildHasher,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use knoll_event::filter::Matching;
use knoll_journal::events::{
    CursorId, Durability, Event, Gap, Progress, Ranges, ReadError, StreamId, SubmitError, Write, WriteError, Written,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{Id, JoinError, JoinSet, yield_now},
    time::{Instant, sleep_until, timeout_at},
};

use self::aside::{Aside, Moved};
use super::{
    Context,
    attempt::{Attempt, Ended},
    fresh::Fresh,
    subscriber::{Item, Stream, Subscriber},
    supervisor::Command,
};
use crate::{
    log::AskError,
    record::Record,
    topology::{Addressable, Place},
};

/// Events that are read together.
const READ_EVENTS: usize = 256;
const READ_BYTES: usize = 1 << 20;
/// How long events that were read are matched before the worker looks at what else there is.
const READ_TIME: Duration = Duration::from_millis(50);
/// Work of filters after which others get the thread, counted as [`MOST_WORK`](knoll_event::limits::MOST_WORK) counts it: some
/// milliseconds, what the last filter takes among them.
const MATCH_WORK: usize = 512 << 10;
/// Events of one stream that somebody is not done with, before new ones are put aside for all. Less than what a cursor
/// may have settled ahead.
const MOST_OPEN: usize = 3000;
/// The same, counted for each subscriber.
const MOST_HELD: usize = 65_536;
/// How long a subscriber that does not keep up may hold up others.
const HOLD_UP: Duration = Duration::from_millis(100);
/// Before an attempt that panicked is made again; twice as long each time.
const AFTER_PANIC: Duration = Duration::from_secs(1);
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
    /// Events that somebody is not done with, and how many are not.
    open: BTreeMap<u64, u32>,
    /// The sum of those.
    held: usize,
    /// What everybody is done with and is not yet said so to the log.
    settled: Ranges,
    subscribers: HashMap<Number, Subscriber>,
    by_uid: HashMap<Arc<str>, Number>,
    /// By their places in the index over filters.
    numbers: HashMap<Place, Number>,
    /// Work of filters until others get the thread.
    match_left: usize,
    /// Whose filters took more work than they may, which was told of.
    exhausted: HashSet<Number>,
    last_number: Number,
    /// Whose deliveries had failed before the worker began, by event.
    tried: BTreeMap<u64, Vec<Number>>,
    /// Who may have something to do.
    runnable: Vec<Number>,
    /// Events that were read; those of the broker or channel are [`EVERYBODYS`].
    fresh: Fresh<(Number, u64)>,
    retries: BinaryHeap<Reverse<(Instant, Number, Item)>>,
    tasks: JoinSet<Ended>,
    running: HashMap<Id, (Number, Item)>,
    /// What else is to be told to the log: failed attempts, and what goes.
    writes: Vec<Write>,
    /// Whose progress is to be told.
    unsaid: Vec<Number>,
    /// Whose progress is being told.
    being_told: Vec<Number>,
    telling: Option<BoxFuture<'static, Told>>,
    moving: Option<BoxFuture<'static, Result<Vec<Moved>, AskError>>>,
    /// Who has no room for the next event, and since when.
    held_up: Option<(Number, Instant)>,
    hasher: std::hash::RandomState,
}

impl Worker {
    /// Works until `end` is true or nobody tells of changes any more; then what is under way is finished within
    /// [`Config::grace`](crate::Config::grace). Dropped, it leaves nothing that a new one would not find in the log.
    pub(crate) async fn run(
        mut self,
        mut changes: watch::Receiver<Arc<Addressable>>,
        mut commands: mpsc::Receiver<Command>,
        mut end: watch::Receiver<bool>,
    ) -> Result<(), WorkerError> {
        let mut has_commands = true;
        loop {
            self.read().await?;
            self.fill().await;
            self.start();
            self.tell();
            let (timer, can_read) = (self.timer(), self.more && self.moving.is_none() && self.held_up.is_none());
            let Self { tasks, telling, moving, signal, .. } = &mut self;
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let now = changes.borrow_and_update().clone();
                    self.adopt(now.clone()).await?;
                    self.context.adopted.note(&now);
                }
                () = ended(&mut end) => break,
                () = signal.notified() => self.more = true,
                Some(ended) = tasks.join_next_with_id() => self.turn(ended),
                () = until(timer) => self.due(),
                () = yield_now(), if can_read => {}
                told = answered(telling) => {
                    self.telling = None;
                    self.told();
                    told_well(told)?;
                }
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
        self.finish().await
    }

    /// When there is something to do by the clock.
    fn timer(&self) -> Option<Instant> {
        let retry = self.retries.peek().map(|Reverse((due, ..))| *due);
        let looks = self.more && self.moving.is_none() && self.subscribers.len() > 1;
        let look = self.held_up.map(|(_, since)| since + HOLD_UP).filter(|_| looks);
        retry.into_iter().chain(look).min()
    }

    /// Reads and gives out events, up to a batch.
    async fn read(&mut self) -> Result<(), WorkerError> {
        if !self.more || self.moving.is_some() || self.is_held_up() {
            return Ok(());
        }
        let read = match self.context.log.read(self.stream, self.next, READ_EVENTS, READ_BYTES).await {
            Ok(read) => read,
            // They stay unsettled, so that the next start tries again.
            Err(ReadError::Io { name, first, last, source }) => {
                tracing::error!(error = %source, segment = name, first, last, "events cannot be read; others go on");
                self.context.metrics.unread.add(last - first + 1);
                self.pass_to(first);
                self.next = last + 1;
                return Ok(());
            }
            Err(error @ ReadError::NoStream) => return Err(error.into()),
        };
        let held_up = self.held_up.take();
        self.more = read.next > self.next;
        read.gaps.iter().for_each(|gap| self.missing(gap));
        let (mut asides, begun, mut is_cut) = (Vec::new(), Instant::now(), false);
        for event in read.events {
            self.pass_to(event.offset);
            let offset = event.offset;
            if let Some(full) = self.give(event, &mut asides).await {
                let since = held_up.filter(|(number, _)| *number == full).map(|(_, since)| since);
                self.held_up = Some((full, since.unwrap_or_else(Instant::now)));
                break;
            }
            self.next = offset + 1;
            is_cut = aside::is_enough(&asides) || begun.elapsed() > READ_TIME;
            if is_cut {
                break;
            }
        }
        if self.held_up.is_none() && !is_cut {
            self.pass_to(read.next);
        }
        self.put_aside(asides);
        Ok(())
    }

    /// Whether the next event has to wait for room at somebody who has none.
    fn is_held_up(&mut self) -> bool {
        let Some((number, since)) = self.held_up else { return false };
        let Some(full) = self.subscribers.get(&number) else { return false };
        if full.main.len() <= self.context.config.window * 3 / 4 || full.is_behind() {
            return false;
        }
        if since.elapsed() < HOLD_UP || self.subscribers.len() == 1 {
            return true;
        }
        let is_idle = |other: &Subscriber| other.main.len() == 0 && !other.is_behind();
        if !self.subscribers.values().any(is_idle) {
            // Looking at all of them is not for every turn.
            self.held_up = Some((number, Instant::now()));
            return true;
        }
        let name = &*full.subscribed.subscription.name;
        tracing::info!(subscription = name, "a subscriber does not keep up: its events are put aside");
        let window = self.context.config.window;
        self.subscribers.values_mut().filter(|other| other.main.len() >= window).for_each(Subscriber::fall_behind);
        false
    }

    /// Takes what lies between two events as nobody's.
    fn pass_to(&mut self, offset: u64) {
        if offset > self.next {
            self.settled.insert(self.next, offset - 1);
            self.next = offset;
        }
    }

    /// Events that are not there any more. Those that somebody still waited for are lost.
    fn missing(&self, gap: &Gap) {
        let waited: Vec<(u64, u64)> = self.recovered.unsettled(gap.first, gap.last.saturating_add(1)).collect();
        for (first, last) in waited {
            let why = format!("events {first} to {last}: {:?}", gap.cause);
            self.context.lost(&self.addressable, first, &why);
            self.context.metrics.lost.add(last - first);
        }
    }

    /// Gives an event to whom it is for, unless somebody has no room for it: who.
    async fn give(&mut self, event: Event, asides: &mut Vec<Aside>) -> Option<Number> {
        let offset = event.offset;
        if self.recovered.is_settled(offset) {
            return None;
        }
        // What was read shares its memory with its neighbours; this is kept, and alone.
        let record = match Record::decode(Bytes::copy_from_slice(&event.payload)) {
            Ok(record) => Arc::new(record),
            Err(error) => {
                self.context.lost(&self.addressable, offset, &error.to_string());
                self.settled.insert(offset, offset);
                return None;
            }
        };
        let matched = self.matched(offset, &record).await;
        let is_crowded = self.open.len() >= MOST_OPEN || self.held >= MOST_HELD;
        let window = self.context.config.window;
        let is_put_aside =
            |subscriber: &Subscriber| offset >= subscriber.recovered_to() && (is_crowded || subscriber.is_behind());
        for number in &matched {
            let Some(subscriber) = self.subscribers.get(number) else { continue };
            if !is_put_aside(subscriber) && subscriber.main.len() >= window && offset >= subscriber.recovered_to() {
                return Some(*number);
            }
        }
        if matched.is_empty() {
            self.settled.insert(offset, offset);
            return None;
        }
        let key = (!event.key.is_empty()).then(|| self.hasher.hash_one(&event.key[..]));
        for number in &matched {
            let Some(subscriber) = self.subscribers.get_mut(number) else { continue };
            if is_put_aside(subscriber) {
                subscriber.put_aside(offset);
                asides.push(Aside::new(*number, subscriber.main.cursor, &event));
            } else {
                subscriber.hold(offset, key);
                self.runnable.push(*number);
            }
        }
        self.context.metrics.matched.add(matched.len() as u64);
        self.held += matched.len();
        self.open.insert(offset, u32::try_from(matched.len()).unwrap_or(u32::MAX));
        self.fresh.keep((EVERYBODYS, offset), record, event.payload.len());
        None
    }

    /// Who gets an event and is not done with it.
    async fn matched(&mut self, offset: u64, record: &Record) -> Vec<Number> {
        let addressable = self.addressable.clone();
        let places = match addressable.matching(&record.event) {
            Some(matching) => self.worked_out(matching).await,
            None => addressable.places().collect(),
        };
        let mut matched: Vec<Number> = places.iter().filter_map(|place| self.numbers.get(place).copied()).collect();
        if let Some(tried) = self.tried.remove(&offset) {
            matched.extend(tried);
            matched.sort_unstable();
            matched.dedup();
        }
        matched.retain(|number| self.subscribers.get(number).is_some_and(|subscriber| !subscriber.was_settled(offset)));
        matched
    }

    /// Evaluates filters, a part at a time, between which others get the thread.
    async fn worked_out(&mut self, mut matching: Matching<'_>) -> Vec<Place> {
        loop {
            let is_through = matching.go_on(&mut self.match_left);
            if self.match_left == 0 {
                self.match_left = MATCH_WORK;
                yield_now().await;
            }
            if is_through {
                break;
            }
        }
        let matched = matching.matched();
        matched.exhausted.iter().for_each(|place| self.filter_exhausted(*place));
        matched.filters
    }

    /// A filter would have taken more work than it may: its event is not delivered, as where an expression fails.
    fn filter_exhausted(&mut self, place: Place) {
        self.context.metrics.filters_exhausted.count();
        let Some(number) = self.numbers.get(&place).copied() else { return };
        let Some(subscriber) = self.subscribers.get(&number) else { return };
        if self.exhausted.insert(number) {
            let subscription = &subscriber.subscribed.subscription;
            tracing::warn!(
                namespace = &*subscription.namespace,
                subscription = &*subscription.name,
                "the filter takes more work for an event than it may: such events are not delivered, make it simpler"
            );
        }
    }

    /// Lets those who are behind take more of what was put aside for them.
    async fn fill(&mut self) {
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
                && let Ok(record) = Record::decode(Bytes::copy_from_slice(&event.payload))
            {
                self.fresh.keep((number, offset), Arc::new(record), event.payload.len());
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
    fn turn(&mut self, first: Result<(Id, Ended), JoinError>) {
        self.ended(first);
        for _ in 1..TURN {
            let Some(next) = self.tasks.try_join_next_with_id() else { break };
            self.ended(next);
        }
    }

    fn ended(&mut self, result: Result<(Id, Ended), JoinError>) {
        let id = result.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some((number, item)) = self.running.remove(&id) else { return };
        // Who is gone is not waited for.
        let Some(subscriber) = self.subscribers.get_mut(&number) else { return };
        self.runnable.push(number);
        let in_flight = subscriber.in_flight;
        match result {
            Ok((_, Ended::Done { delivered, overloaded })) => {
                if overloaded {
                    subscriber.limit.overloaded(in_flight);
                } else if delivered {
                    subscriber.view.delivered.fetch_add(1, Relaxed);
                    subscriber.limit.succeeded(in_flight);
                }
                self.done(number, item);
            }
            Ok((_, Ended::Unread)) => {
                self.context.metrics.unread.count();
                subscriber.postpone(item);
                self.retries.push(Reverse((Instant::now() + AFTER_UNREAD, number, item)));
            }
            Ok((_, Ended::Retry { wait, overloaded })) => {
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
            self.writes.push(Write::Attempted { cursor, offset: item.offset, attempts });
        }
        self.retries.push(Reverse((Instant::now() + wait(attempts), number, item)));
    }

    /// A subscriber is done with an event.
    fn done(&mut self, number: Number, item: Item) {
        let Some(subscriber) = self.subscribers.get_mut(&number) else { return };
        subscriber.done(item);
        if item.stream == Stream::Backlog {
            self.fresh.forget(&(number, item.offset));
        }
        let is_said = item.stream == Stream::Main && self.release(item.offset);
        if !is_said && let Some(subscriber) = self.subscribers.get_mut(&number) {
            subscriber.say_settled(item);
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

    /// Makes again what is due.
    fn due(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((due, number, item))) = self.retries.peek().copied()
            && due <= now
        {
            self.retries.pop();
            if let Some(subscriber) = self.subscribers.get_mut(&number) {
                subscriber.due(item);
                self.runnable.push(number);
            }
        }
    }

    /// Tells the log how far things are, unless it is being told.
    fn tell(&mut self) {
        if self.telling.is_some() {
            return;
        }
        let mut writes = std::mem::take(&mut self.writes);
        let settled = std::mem::take(&mut self.settled);
        if !settled.is_empty() {
            writes.push(Write::Settle { cursor: self.root, ranges: settled.iter().collect() });
        }
        self.unsaid.sort_unstable();
        self.unsaid.dedup();
        self.being_told = std::mem::take(&mut self.unsaid);
        for number in &self.being_told {
            let Some(subscriber) = self.subscribers.get_mut(number) else { continue };
            subscriber.tell();
            let lanes = [Some(&mut subscriber.main), subscriber.backlog.as_mut().map(|backlog| &mut backlog.lane)];
            for lane in lanes.into_iter().flatten() {
                let ranges = lane.take_unsaid();
                if !ranges.is_empty() {
                    writes.push(Write::Settle { cursor: lane.cursor, ranges });
                }
            }
        }
        if writes.is_empty() {
            return self.told();
        }
        let log = self.context.log.clone();
        self.telling = Some(Box::pin(async move { log.write(writes, Durability::Written).await }));
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
        if let Some(moving) = self.moving.take()
            && let Ok(moved) = timeout_at(deadline, moving).await
        {
            self.moved(moved?);
        }
        for _ in 0..2 {
            self.tell();
            if let Some(telling) = self.telling.take() {
                told_well(telling.await)?;
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

/// What the log says to progress that it was told. What it does not take of it is delivered again after a restart.
fn told_well(told: Told) -> Result<(), WorkerError> {
    for outcome in told? {
        match outcome {
            // What is deleted has no progress.
            Ok(_) | Err(WriteError::NoCursor | WriteError::NoStream) => {}
            Err(error @ WriteError::Stopped(_)) => return Err(AskError::from(error).into()),
            Err(error) => tracing::warn!(%error, "the event log does not take how far deliveries are"),
        }
    }
    Ok(())
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
