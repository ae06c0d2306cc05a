//! Where a worker begins, and what a change of its broker or channel means for it.

use std::sync::Arc;

use bytes::Bytes;
use knoll_journal::events::{Durability, Ranges, Write};

use super::{
    super::{Context, backlog_name, fresh::Fresh, stream_name, subscriber::Subscriber},
    Number, Worker, WorkerError, aside,
};
use crate::{
    log::AskError,
    topology::{Addressable, Move, Subscribed},
};

/// The cursor of a stream that all others follow.
const ROOT: &str = "matched";

impl Worker {
    /// Finds what the log knows of a broker or channel, or makes it known, and lets events of senders in.
    pub(crate) async fn open(context: Arc<Context>, addressable: Arc<Addressable>) -> Result<Self, WorkerError> {
        let stream = context.log.stream(&stream_name(&addressable)).await?;
        let root = context.log.cursor(stream, ROOT, None, Some(0)).await?;
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
            context,
            addressable: Arc::new(nobody),
            stream,
            root,
            signal,
            recovered,
            open: Default::default(),
            held: 0,
            settled: Ranges::default(),
            subscribers: Default::default(),
            by_uid: Default::default(),
            numbers: Default::default(),
            match_left: super::MATCH_WORK,
            exhausted: Default::default(),
            last_number: 0,
            tried: Default::default(),
            runnable: Vec::new(),
            fresh,
            retries: Default::default(),
            tasks: Default::default(),
            running: Default::default(),
            writes: Vec::new(),
            unsaid: Vec::new(),
            being_told: Vec::new(),
            telling: None,
            moving: None,
            held_up: None,
            hasher: Default::default(),
        };
        worker.adopt(addressable.clone()).await?;
        worker.context.log.register(addressable.uid().clone(), stream);
        worker.context.adopted.note(&addressable);
        Ok(worker)
    }

    /// Goes on with the broker or channel as it is now. New subscribers get events from now on; those that are gone get
    /// nothing more, not even what is under way. Costs what changed.
    pub(super) async fn adopt(&mut self, now: Arc<Addressable>) -> Result<(), WorkerError> {
        let before = self.addressable.clone();
        let moves: Vec<Move<'_>> = now.since(&before).collect();
        moves.iter().filter(|moved| moved.now.is_none()).for_each(|moved| self.leave(moved.uid));
        self.make_cursors(&moves).await?;
        // Another one may stand now where one stood before.
        for place in moves.iter().filter_map(|moved| moved.was) {
            self.numbers.remove(&place);
        }
        for (place, subscribed) in moves.iter().filter_map(|moved| moved.now) {
            let number = self.enter(subscribed)?;
            self.numbers.insert(place, number);
        }
        self.addressable = now.clone();
        self.more = true;
        Ok(())
    }

    /// Makes cursors for those who have none, all at once.
    async fn make_cursors(&mut self, moves: &[Move<'_>]) -> Result<(), WorkerError> {
        let log = self.context.log.clone();
        let is_new = |subscribed: &&Arc<Subscribed>| {
            let uid = &subscribed.subscription.uid;
            !self.by_uid.contains_key(uid) && log.reader().cursor(self.stream, uid.as_bytes()).is_none()
        };
        let make = |subscribed: &Arc<Subscribed>| {
            let name = Bytes::copy_from_slice(subscribed.subscription.uid.as_bytes());
            Write::CreateCursor { stream: self.stream, name, parent: Some(self.root), start: None }
        };
        let there = moves.iter().filter_map(|moved| moved.now).map(|(_, subscribed)| subscribed);
        let writes: Vec<Write> = there.filter(is_new).map(make).collect();
        if !writes.is_empty() {
            for outcome in log.write(writes, Durability::Synced).await? {
                outcome.map_err(AskError::from)?;
            }
        }
        Ok(())
    }

    fn enter(&mut self, subscribed: &Arc<Subscribed>) -> Result<Number, WorkerError> {
        let (uid, most) = (&subscribed.subscription.uid, self.context.config.max_concurrency);
        if let Some(number) = self.by_uid.get(uid).copied() {
            if let Some(subscriber) = self.subscribers.get_mut(&number) {
                subscriber.limit.adopt(subscribed.subscription.concurrency, most);
                subscriber.subscribed = subscribed.clone();
                self.exhausted.remove(&number);
                self.runnable.push(number);
            }
            return Ok(number);
        }
        let reader = self.context.log.reader();
        let no_cursor = || AskError::from(knoll_journal::events::WriteError::NoCursor);
        let cursor = reader.cursor(self.stream, uid.as_bytes()).ok_or_else(no_cursor)?;
        let progress = reader.progress(cursor).ok_or_else(no_cursor)?;
        self.last_number += 1;
        let number = self.last_number;
        for (offset, _) in progress.tried() {
            self.tried.entry(*offset).or_default().push(number);
        }
        let view = self.context.views.enter(uid);
        let mut subscriber = Subscriber::new(subscribed.clone(), view, (self.stream, cursor), progress, most);
        subscriber.backlog = aside::recovered(&self.context.log, self.addressable.uid(), uid);
        subscriber.show();
        self.subscribers.insert(number, subscriber);
        self.by_uid.insert(uid.clone(), number);
        self.runnable.push(number);
        Ok(number)
    }

    fn leave(&mut self, uid: &Arc<str>) {
        let Some(number) = self.by_uid.remove(uid) else { return };
        let Some(subscriber) = self.subscribers.remove(&number) else { return };
        subscriber.abort();
        self.exhausted.remove(&number);
        self.fresh.retain(|(whose, _)| *whose != number);
        for offset in subscriber.main.offsets() {
            self.release(offset);
        }
        self.writes.push(Write::DeleteCursor(subscriber.main.cursor));
        let backlog = self.context.log.reader().stream(backlog_name(self.addressable.uid(), uid).as_bytes());
        self.writes.extend(backlog.map(Write::DeleteStream));
        self.context.views.leave(uid);
        let name = &*subscriber.subscribed.subscription.name;
        tracing::debug!(subscription = name, "a subscription is gone, and with it what waited for it");
    }
}
