//! Where a worker begins, and what a change of its broker or channel means for it.

use std::sync::Arc;

use bytes::Bytes;
use knoll_journal::events::{CursorId, Durability, Ranges, Write, WriteError};
use tokio::time::{Duration, Instant};

use super::{
    super::{Context, fresh::Fresh, subscriber::Subscriber, unread::Unread, untold::Untold},
    Newest, Number, Worker, WorkerError, aside,
};
use crate::{
    log::AskError,
    streams,
    topology::{Addressable, Move, Subscribed},
};

/// The cursor of a stream that all others follow.
const ROOT: &str = "matched";
/// Before subscribers that found no room in the log are let in again.
const ARRIVE_AGAIN: Duration = Duration::from_secs(1);

impl Worker {
    /// Finds what the log knows of a broker or channel, or makes it known as soon as there is room for that, and lets events
    /// of senders in.
    pub(crate) async fn open(context: Arc<Context>, newest: Newest) -> Result<Self, WorkerError> {
        let Newest { addressable, is_complete } = newest;
        let (name, namespace) = (streams::events(&addressable), &addressable.name().namespace);
        let stream = aside::patiently(|| context.log.stream(&name, namespace)).await?;
        let root = aside::patiently(|| context.log.cursor(stream, ROOT, None, Some(0))).await?;
        let signal = context.log.listen(stream);
        let recovered = context.log.reader().progress(root).unwrap_or_default();
        let end = context.log.reader().end(stream).unwrap_or_default();
        let waiting: u64 = recovered.unsettled(0, end).map(|(first, last)| last - first + 1).sum();
        context.metrics.recovered.add(waiting);
        let nobody = Addressable::new(addressable.name().clone(), addressable.uid(), None, Vec::new());
        let fresh = Fresh::new(context.room.clone());
        let mut worker = Self {
            next: recovered.watermark(),
            more: true,
            rest: None,
            context,
            addressable: Arc::new(nobody),
            stream,
            root,
            signal,
            recovered,
            open: Default::default(),
            held: 0,
            settled: Ranges::default(),
            has_strangers: false,
            subscribers: Default::default(),
            by_uid: Default::default(),
            arriving: Default::default(),
            arrive_again: None,
            numbers: Default::default(),
            match_left: super::MATCH_WORK,
            exhausted: Default::default(),
            last_number: 0,
            unread: Unread::default(),
            unfilled: Vec::new(),
            tried: Default::default(),
            runnable: Vec::new(),
            fresh,
            retries: Default::default(),
            tasks: Default::default(),
            running: Default::default(),
            untold: Untold::default(),
            refused: None,
            unsaid: Vec::new(),
            being_told: Vec::new(),
            tell_due: None,
            telling: None,
            asides: Default::default(),
            moving: None,
            moving_to: Default::default(),
            held_up: None,
            hasher: Default::default(),
        };
        worker.adopt(addressable.clone()).await?;
        let strangers = worker.strangers();
        if is_complete {
            strangers.into_iter().for_each(|cursor| worker.untold.delete_cursor(cursor));
        } else {
            worker.has_strangers = !strangers.is_empty();
        }
        worker.context.log.register(addressable.uid().clone(), stream);
        worker.note_adopted();
        Ok(worker)
    }

    /// Goes on with the broker or channel as it is now. New subscribers get events from now on; those that are gone get
    /// nothing more, not even what is under way. Costs what changed.
    pub(super) async fn adopt(&mut self, now: Arc<Addressable>) -> Result<(), WorkerError> {
        let before = self.addressable.clone();
        let moves: Vec<Move<'_>> = now.since(&before).collect();
        for moved in moves.iter().filter(|moved| moved.now.is_none()) {
            self.arriving.remove(moved.uid);
            self.leave(moved.uid);
        }
        // Another one may stand now where one stood before.
        for place in moves.iter().filter_map(|moved| moved.was) {
            self.numbers.remove(&place);
        }
        for (place, subscribed) in moves.iter().filter_map(|moved| moved.now) {
            self.arriving.insert(subscribed.subscription.uid.clone(), (place, subscribed.clone()));
        }
        self.addressable = now.clone();
        (self.more, self.rest) = (true, None);
        self.arrive().await
    }

    /// Lets those in who have a cursor or get one. Where there is no room for it the others go on, and those without get
    /// no event yet.
    pub(super) async fn arrive(&mut self) -> Result<(), WorkerError> {
        if self.telling.is_some() || self.untold.has_news() {
            // Who left a moment ago and is back begins anew, and not with what is about to be deleted.
            self.tell_all().await?;
        }
        let refusal = self.make_cursors().await?;
        for (uid, (place, subscribed)) in std::mem::take(&mut self.arriving) {
            let entered = if self.is_leaving(&uid) { None } else { self.enter(&subscribed)? };
            if let Some(number) = entered {
                self.numbers.insert(place, number);
            } else {
                self.arriving.insert(uid, (place, subscribed));
            }
        }
        if let (Some(error), None) = (&refusal, self.arrive_again) {
            let subscriptions = self.arriving.len();
            tracing::warn!(%error, subscriptions, "new subscriptions wait until the event log has room for them");
        }
        self.arrive_again = (!self.arriving.is_empty()).then(|| Instant::now() + ARRIVE_AGAIN);
        Ok(())
    }

    /// Whether something of an earlier stay is there yet and is to be deleted.
    fn is_leaving(&self, uid: &str) -> bool {
        let (reader, name) = (self.context.log.reader(), streams::backlog(self.addressable.uid(), uid));
        let cursor = reader.cursor(self.stream, uid.as_bytes());
        let backlog = reader.stream(name.as_bytes());
        cursor.is_some_and(|cursor| self.untold.deletes(cursor))
            || backlog.is_some_and(|stream| self.untold.deletes_stream(stream))
            || (!self.by_uid.contains_key(uid) && self.moving_to.contains(&name))
    }

    /// The progress of those who are not known: they went while nobody looked, or the snapshot misses them.
    fn strangers(&self) -> Vec<CursorId> {
        let cursors = self.context.log.reader().cursors(self.stream).into_iter();
        let is_strangers = |cursor: CursorId, name: &[u8]| {
            cursor != self.root && !std::str::from_utf8(name).is_ok_and(|uid| self.is_known(uid))
        };
        cursors.filter(|(cursor, name)| is_strangers(*cursor, name)).map(|(cursor, _)| cursor).collect()
    }

    fn is_known(&self, uid: &str) -> bool {
        self.by_uid.contains_key(uid) || self.arriving.contains_key(uid)
    }

    /// Whether a worker has to begin anew to act on this. Where the snapshot misses something, who is not in it any more may
    /// be there: what is that one's is kept, and once it is known, events are given out again from where its progress is.
    pub(super) fn begins_anew(&self, newest: &Newest) -> bool {
        let mut moves = newest.addressable.since(&self.addressable);
        if !self.has_strangers {
            return !newest.is_complete && moves.any(|moved| moved.now.is_none());
        }
        let (reader, stream) = (self.context.log.reader(), self.stream);
        let is_stranger = |uid: &str| !self.is_known(uid) && reader.cursor(stream, uid.as_bytes()).is_some();
        newest.is_complete || moves.any(|moved| moved.now.is_none() || is_stranger(moved.uid))
    }

    /// Tells that the broker or channel is acted on, as soon as all of its subscribers are.
    pub(super) fn note_adopted(&self) {
        if self.arriving.is_empty() {
            self.context.adopted.note(&self.addressable);
        }
    }

    /// Makes cursors for those who have none, all at once. Why there is no room for some.
    async fn make_cursors(&mut self) -> Result<Option<WriteError>, WorkerError> {
        let log = self.context.log.clone();
        let is_new = |uid: &&Arc<str>| {
            !self.by_uid.contains_key(*uid) && log.reader().cursor(self.stream, uid.as_bytes()).is_none()
        };
        let make = |uid: &Arc<str>| {
            let name = Bytes::copy_from_slice(uid.as_bytes());
            Write::CreateCursor { stream: self.stream, name, parent: Some(self.root), start: None }
        };
        let writes: Vec<Write> = self.arriving.keys().filter(is_new).map(make).collect();
        let mut refusal = None;
        if !writes.is_empty() {
            for outcome in log.write(writes, Durability::Synced).await? {
                match outcome {
                    Ok(_) => {}
                    Err(error @ (WriteError::Full | WriteError::Budget { .. })) => refusal = Some(error),
                    Err(error) => return Err(AskError::from(error).into()),
                }
            }
        }
        Ok(refusal)
    }

    /// Takes a subscriber in, or as it is now; nobody without a cursor.
    fn enter(&mut self, subscribed: &Arc<Subscribed>) -> Result<Option<Number>, WorkerError> {
        let uid = &subscribed.subscription.uid;
        if let Some(number) = self.by_uid.get(uid).copied() {
            if let Some(subscriber) = self.subscribers.get_mut(&number) {
                subscriber.subscribed = subscribed.clone();
                self.exhausted.remove(&number);
                self.runnable.push(number);
            }
            return Ok(Some(number));
        }
        let reader = self.context.log.reader();
        let Some(cursor) = reader.cursor(self.stream, uid.as_bytes()) else { return Ok(None) };
        let progress = reader.progress(cursor).ok_or(AskError::from(WriteError::NoCursor))?;
        self.last_number += 1;
        let number = self.last_number;
        for (offset, _) in progress.tried() {
            self.tried.entry(*offset).or_default().push(number);
        }
        let view = self.context.views.enter(uid);
        let mut subscriber = Subscriber::new(
            subscribed.clone(),
            view,
            (self.stream, cursor),
            progress,
            self.context.config.max_concurrency,
        );
        subscriber.backlog = aside::recovered(&self.context.log, self.addressable.uid(), uid);
        subscriber.show();
        self.subscribers.insert(number, subscriber);
        self.by_uid.insert(uid.clone(), number);
        self.runnable.push(number);
        Ok(Some(number))
    }

    fn leave(&mut self, uid: &Arc<str>) {
        let Some(number) = self.by_uid.remove(uid) else { return };
        let Some(subscriber) = self.subscribers.remove(&number) else { return };
        subscriber.abort();
        self.exhausted.remove(&number);
        let subscribers = &self.subscribers;
        self.retries.left(|(number, _)| subscribers.contains_key(number));
        self.fresh.retain(|(whose, _)| *whose != number);
        for offset in subscriber.main.offsets() {
            self.release(offset);
        }
        self.untold.delete_cursor(subscriber.main.cursor);
        let backlog = self.context.log.reader().stream(streams::backlog(self.addressable.uid(), uid).as_bytes());
        if let Some(stream) = backlog {
            self.untold.delete_stream(stream);
        }
        self.context.views.leave(uid);
        let name = &*subscriber.subscribed.subscription.name;
        tracing::debug!(subscription = name, "a subscription is gone, and with it what waited for it");
    }
}
