//! What a worker reads, whom it is for, and what it does with an event for which somebody has no room.

use std::{hash::BuildHasher as _, io};

use knoll_event::filter::Matching;
use knoll_journal::{
    events::{Event, Gap, Read, ReadError},
    is_full,
};
use tokio::{
    task::yield_now,
    time::{Duration, Instant},
};

use super::{
    super::subscriber::Subscriber,
    EVERYBODYS, HOLD_UP, MATCH_WORK, NOBODYS, Number, READ_BYTES, READ_EVENTS, Worker, WorkerError,
    aside::{self, Aside},
};
use crate::{record::Record, topology::Place};

/// How long events that were read are matched before the worker looks at what else there is.
const READ_TIME: Duration = Duration::from_millis(50);
/// Events of one stream that somebody is not done with, before new ones are put aside for all. Less than what a cursor
/// may have settled ahead.
const MOST_OPEN: usize = 3000;
/// The same, counted for each subscriber.
const MOST_HELD: usize = 65_536;

impl Worker {
    /// Reads and gives out events, up to a batch: those that could not be read before, when it is time for them, and
    /// else new ones.
    pub(super) async fn read(&mut self) -> Result<(), WorkerError> {
        let now = Instant::now();
        if self.moving.is_some() || self.unread.waits(now) || self.is_held_up() {
            return Ok(());
        }
        let again = self.unread.next(now);
        let (from, last) = match again {
            Some(part) => part,
            None if !self.more => return Ok(()),
            None if self.has_nobody() => {
                self.pass_by(now);
                return Ok(());
            }
            None => (self.next, u64::MAX),
        };
        let read = match self.context.log.read(self.stream, from, READ_EVENTS, READ_BYTES).await {
            Ok(read) => read,
            Err(ReadError::Io { name, first, last: end, source }) => {
                self.cannot_read(&name, (from, first.max(from), end.min(last)), &source);
                return Ok(());
            }
            Err(error @ ReadError::NoStream) => return Err(error.into()),
        };
        let has_more = read.next > from;
        let reached = self.give_out(read, from, last).await;
        match (again, reached.checked_sub(1)) {
            (Some(_), Some(done)) if reached > from => self.unread.were_read(from, done),
            (Some(_), _) => {}
            (None, _) => {
                self.more = has_more;
                self.next = reached;
            }
        }
        Ok(())
    }

    /// Whether no event is anybody's.
    fn has_nobody(&self) -> bool {
        self.subscribers.is_empty() && self.arriving.is_empty()
    }

    /// Passes by all there is, which nobody gets, and does not look again for a while: each look is a thread that wakes, beside
    /// those who take events in.
    fn pass_by(&mut self, now: Instant) {
        let end = self.context.log.reader().end(self.stream).unwrap_or(self.next).max(self.next);
        self.nobodys(self.next, end);
        (self.next, self.more, self.rest) = (end, false, Some(now + NOBODYS));
    }

    /// What could not be read from a segment, asked for from `from` on, is passed over, and read again later. Where the system
    /// has no room to read, or much was passed over, it is waited for instead.
    fn cannot_read(&mut self, segment: &str, (from, first, last): (u64, u64, u64), error: &io::Error) {
        let now = Instant::now();
        if is_full(error) || !self.unread.may_pass(first, last) {
            tracing::warn!(%error, segment, first, last, "events cannot be read now; they are waited for");
            self.unread.wait(now);
            return;
        }
        self.nobodys(from, first);
        if self.unread.pass_over(first, last, now) {
            tracing::error!(%error, segment, first, last, "events cannot be read; others go on, and they are tried again");
            self.context.metrics.unread.add(last - first + 1);
        }
        if self.next <= last {
            self.next = last + 1;
        }
    }

    /// Gives out what was read from `from` up to `last`, as far as there is room for it: up to where.
    async fn give_out(&mut self, read: Read, from: u64, last: u64) -> u64 {
        let held_up = self.held_up.take();
        let (mut asides, begun, mut reached) = (Vec::new(), Instant::now(), from);
        let mut is_cut = false;
        for event in read.events.into_iter().filter(|event| event.offset <= last) {
            let offset = event.offset;
            self.nobodys(reached, offset);
            reached = offset;
            if let Some(full) = self.give(event, &mut asides).await {
                let since = held_up.filter(|(number, _)| *number == full).map(|(_, since)| since);
                self.held_up = Some((full, since.unwrap_or_else(Instant::now)));
                break;
            }
            reached = offset + 1;
            is_cut = aside::is_enough(&asides) || begun.elapsed() > READ_TIME;
            if is_cut {
                break;
            }
        }
        if self.held_up.is_none() && !is_cut {
            let end = read.next.min(last.saturating_add(1));
            self.nobodys(reached, end);
            reached = reached.max(end);
        }
        // The others come again with what stands around them.
        read.gaps.iter().filter(|gap| gap.first < reached).for_each(|gap| self.missing(gap, reached));
        self.put_aside(asides);
        reached
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

    /// Takes what lies between two events, from `from` up to and without `to`, as nobody's.
    fn nobodys(&mut self, from: u64, to: u64) {
        if to > from {
            self.settled.insert(from, to - 1);
        }
    }

    /// Events that are not there any more, as far as was read. Those that somebody still waited for are lost.
    fn missing(&self, gap: &Gap, reached: u64) {
        let end = gap.last.saturating_add(1).min(reached);
        let waited: Vec<(u64, u64)> = self.recovered.unsettled(gap.first, end).collect();
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
        let record = match Record::of(&event) {
            Ok(record) => record,
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
        self.tried.remove(&offset);
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
        // Kept until the event is given: it may have to wait for room, and is looked at again then.
        if let Some(tried) = self.tried.get(&offset) {
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
}
