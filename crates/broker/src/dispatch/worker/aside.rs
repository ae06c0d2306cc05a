//! Putting events aside for subscribers that are behind.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use jiff::Timestamp;
use knoll_journal::events::{Counts, CursorId, Durability, Event, StreamId, Write, WriteError, Written};
use tokio::time::{Duration, sleep};

use super::{
    super::{
        lane::{Backlog, Lane},
        subscriber::{Item, Stream},
    },
    Number, Worker,
};
use crate::{Log, budget::From, log::AskError, streams};

/// The cursor of a stream that is one subscriber's alone.
const CURSOR: &str = "subscriber";
/// Events that are put aside together, one for each subscriber that is behind.
const TOGETHER: usize = 1024;
const TOGETHER_BYTES: usize = 4 << 20;
/// Of the log's budget no more than one part in so many is put aside together: what the rest of a namespace's part is too
/// small for waits.
const TOGETHER_SHARE: u64 = 256;
/// After the log refused some.
const PAUSE: Duration = Duration::from_secs(1);

/// An event that is to be put aside.
pub(super) struct Aside {
    number: Number,
    /// Whose progress it is that the event is put aside.
    cursor: CursorId,
    offset: u64,
    time: u64,
    key: Bytes,
    payload: Bytes,
}

impl Aside {
    pub(super) fn new(number: Number, cursor: CursorId, event: &Event) -> Self {
        let (key, payload) = (event.key.clone(), event.payload.clone());
        Self { number, cursor, offset: event.offset, time: event.time, key, payload }
    }
}

/// Whether these are as many as are put aside together.
pub(super) fn is_enough(asides: &[Aside]) -> bool {
    asides.len() >= TOGETHER || asides.iter().map(|aside| aside.payload.len()).sum::<usize>() >= TOGETHER_BYTES
}

/// Where a subscriber's events are put.
pub(super) type Place = (StreamId, CursorId);

/// An event that was put aside.
pub(super) struct Moved {
    number: Number,
    offset: u64,
    to: u64,
}

/// The stream of a subscriber that is behind, made if there is none; it counts for this namespace.
pub(super) async fn place(log: &Log, name: &str, namespace: &Arc<str>) -> Result<Place, AskError> {
    let stream = log.stream(name, namespace).await?;
    Ok((stream, log.cursor(stream, CURSOR, None, Some(0)).await?))
}

/// What some events that were to be put aside came to.
pub(super) struct Put {
    moved: Vec<Moved>,
    /// Where those of each subscriber stand.
    places: HashMap<Number, Place>,
    /// What the log refused, in order.
    refused: Vec<Aside>,
}

/// Takes the first of those that are to be put aside and whose subscriber is there still: no more than go together within so
/// many bytes, and one at least.
fn take_together(asides: &mut VecDeque<Aside>, most: usize, is_there: impl Fn(Number) -> bool) -> Vec<Aside> {
    let (mut together, mut bytes) = (Vec::new(), 0);
    while let Some(aside) = asides.pop_front() {
        if !is_there(aside.number) {
            continue;
        }
        bytes += aside.payload.len();
        if !together.is_empty() && (bytes > most || together.len() >= TOGETHER) {
            asides.push_front(aside);
            break;
        }
        together.push(aside);
    }
    together
}

/// Puts events of this namespace aside that go together, once there is room for them. Those of a subscriber that goes away
/// meanwhile are not. Where the log refuses some, this takes a moment longer.
async fn put(
    log: Log,
    namespace: Arc<str>,
    names: HashMap<Number, String>,
    asides: Vec<Aside>,
) -> Result<Put, AskError> {
    let mut places: HashMap<Number, Place> = HashMap::new();
    for (number, name) in &names {
        places.insert(*number, patiently(|| place(&log, name, &namespace)).await?);
    }
    let bytes = asides.iter().map(|aside| aside.payload.len()).sum();
    let _room = room(&log, &namespace, bytes).await;
    let (mut writes, mut of) = (Vec::new(), Vec::new());
    for aside in asides {
        let Some(place) = places.get(&aside.number).copied() else { continue };
        let (key, payload) = (aside.key.clone(), aside.payload.clone());
        writes.push(Write::Append { stream: place.0, time: aside.time, key, payload, decoded: None });
        of.push(aside);
    }
    let outcomes = log.write(writes, Durability::Synced).await?;
    let (mut moved, mut refused) = (Vec::with_capacity(of.len()), Vec::new());
    let mut settled: BTreeMap<CursorId, Vec<(u64, u64)>> = BTreeMap::new();
    for (aside, outcome) in of.into_iter().zip(outcomes) {
        match outcome {
            Ok(Written::Appended(to)) => {
                settled.entry(aside.cursor).or_default().push((aside.offset, aside.offset));
                moved.push(Moved { number: aside.number, offset: aside.offset, to });
            }
            Ok(_) | Err(WriteError::NoStream) => {}
            Err(error @ WriteError::Stopped(_)) => return Err(error.into()),
            Err(error) => {
                if refused.is_empty() {
                    tracing::warn!(%error, "put events aside for a subscriber that is behind");
                }
                refused.push(aside);
            }
        }
    }
    // At once, since what a crash takes of it would be put aside a second time.
    let settle = settled.into_iter().map(|(cursor, ranges)| Write::Settle { cursor, ranges }).collect();
    log.write(settle, Durability::Written).await?;
    if !refused.is_empty() {
        sleep(PAUSE).await;
    }
    Ok(Put { moved, places, refused })
}

/// Waits until there is room for so much that is put aside.
async fn room(log: &Log, namespace: &Arc<str>, bytes: usize) -> Counts {
    let mut is_told = false;
    loop {
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        match log.room(namespace, From::Delivery, bytes, now) {
            Ok(room) => return room,
            Err(error) if std::mem::replace(&mut is_told, true) => tracing::debug!(%error, "still no room"),
            Err(error) => tracing::warn!(%error, "events wait to be put aside for a subscriber that is behind"),
        }
        sleep(PAUSE).await;
    }
}

/// Does something until it is done or the log has stopped.
pub(super) async fn patiently<T, F: Future<Output = Result<T, AskError>>>(
    mut work: impl FnMut() -> F,
) -> Result<T, AskError> {
    loop {
        match work().await {
            Err(AskError::Write(WriteError::Full | WriteError::Budget { .. })) => sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
}

impl Worker {
    /// Begins to put these events aside.
    pub(super) fn put_aside(&mut self, asides: Vec<Aside>) {
        self.context.metrics.put_aside.add(asides.len() as u64);
        self.asides.extend(asides);
        self.put_next();
    }

    /// Begins to put those aside that are next, if any are. What is one event for many subscribers goes in parts, each of
    /// which waits for room of its own, and each goes on once it is through: what it makes room by may be what the next waits
    /// for.
    fn put_next(&mut self) {
        let share = usize::try_from(self.context.log.budget().bytes() / TOGETHER_SHARE).unwrap_or(usize::MAX);
        let subscribers = &self.subscribers;
        let is_there = |number: Number| subscribers.contains_key(&number);
        let asides = take_together(&mut self.asides, TOGETHER_BYTES.min(share), is_there);
        if asides.is_empty() {
            return;
        }
        let of = |aside: &Aside| {
            let subscription = &self.subscribers.get(&aside.number)?.subscribed.subscription.uid;
            Some((aside.number, streams::backlog(self.addressable.uid(), subscription)))
        };
        let names: HashMap<Number, String> = asides.iter().filter_map(of).collect();
        let namespace = self.addressable.name().namespace.clone();
        self.moving_to = names.values().cloned().collect();
        self.moving = Some(Box::pin(put(self.context.log.clone(), namespace, names, asides)));
    }

    /// Goes on with events that were put aside, and with those that are next.
    pub(super) fn moved(&mut self, Put { moved, places, refused }: Put) {
        self.moving_to.clear();
        let gone = places.iter().filter(|(number, _)| !self.subscribers.contains_key(number));
        gone.for_each(|(_, (stream, _))| self.untold.delete_stream(*stream));
        for Moved { number, offset, to } in moved {
            let (Some(subscriber), Some(place)) = (self.subscribers.get_mut(&number), places.get(&number)) else {
                continue;
            };
            subscriber.add_to_backlog(*place, to);
            subscriber.left();
            self.runnable.push(number);
            self.done(number, Item { stream: Stream::Main, offset });
        }
        refused.into_iter().rev().for_each(|aside| self.asides.push_front(aside));
        self.more = true;
        self.put_next();
    }
}

/// What was put aside for a subscriber before the worker began.
pub(super) fn recovered(log: &Log, addressable: &str, subscription: &str) -> Option<Backlog> {
    let stream = log.reader().stream(streams::backlog(addressable, subscription).as_bytes())?;
    let cursor = log.reader().cursor(stream, CURSOR.as_bytes())?;
    let (progress, end) = (log.reader().progress(cursor)?, log.reader().end(stream)?);
    let todo: Vec<(u64, u64)> = progress.unsettled(0, end).collect();
    Some(Backlog::new(Lane::new(stream, cursor, progress.watermark()), todo, progress))
}
