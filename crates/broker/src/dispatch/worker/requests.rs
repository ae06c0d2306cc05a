//! What a worker is asked by people: to deliver dead letters again, or events that it keeps.

use std::collections::{HashMap, hash_map::Entry};

use bytes::Bytes;
use jiff::Timestamp;
use knoll_event::filter::Verdict;
use knoll_journal::events::{Durability, Write, Written};
use tokio::task::yield_now;

use super::{
    super::supervisor::Command,
    Number, READ_BYTES, READ_EVENTS, Worker,
    aside::{Place, place},
};
use crate::{
    budget::From,
    dead_letters::{OperationError, Redriven, Undeliverable, without_reasons},
    log::AskError,
    record::Record,
    streams,
    topology::{Addressable, Kind},
};

/// Events that one filter is asked about before others get the thread.
const MATCHED_TOGETHER: u64 = 8;

impl Worker {
    pub(super) async fn command(&mut self, command: Command) {
        match command {
            Command::Redrive { offsets, undeliverable, answer } => {
                // Who asked may be gone.
                drop(answer.send(self.redrive(&offsets, undeliverable).await));
            }
            Command::Replay { subscription, from, to, answer } => {
                drop(answer.send(self.replay(&subscription, from, to).await));
            }
        }
    }

    /// Gives the first of these dead letters to those they were for, as events that were put aside: so many as are not more
    /// bytes than are read together, and up to the first that cannot be unless those stay. With how many it is through.
    async fn redrive(
        &mut self,
        offsets: &[u64],
        undeliverable: Undeliverable,
    ) -> Result<(usize, Redriven), OperationError> {
        let (mut again, mut given, mut bytes) = (Vec::new(), Vec::new(), 0);
        let (mut through, mut done) = (0, Redriven::default());
        for (at, offset) in offsets.iter().enumerate() {
            let letter = match offsets[..at].contains(offset) {
                true => Err(OperationError::NoLetter(*offset)),
                false => self.letter(*offset).await,
            };
            match letter {
                Ok(letter) => {
                    bytes += letter.payload.len();
                    again.push(letter);
                    given.push(*offset);
                }
                Err(error) if undeliverable == Undeliverable::Stays && done.stays(&error) => {}
                Err(error) if through == 0 => return Err(error),
                // It is told of when it comes first.
                Err(_) => break,
            }
            through = at + 1;
            if bytes >= READ_BYTES {
                break;
            }
        }
        if !again.is_empty() {
            self.give_again(again).await?;
            self.context.letters.forget(self.addressable.uid(), &given).await?;
        }
        done.count = given.len() as u64;
        self.context.metrics.redriven.add(done.count);
        Ok((through, done))
    }

    /// A dead letter as it is given to whom it was for.
    async fn letter(&mut self, offset: u64) -> Result<Again, OperationError> {
        let letter = self.context.letters.get(self.addressable.uid(), offset).await?;
        let subscription = letter.subscription.clone().unwrap_or_default();
        match self.by_uid.get(&*subscription).copied() {
            Some(number) => Ok(Again::new(number, &subscription, &without_reasons(letter))),
            None => Err(OperationError::Orphan { offset, subscription }),
        }
    }

    /// Gives a subscriber those of a batch of events that its filter lets through, as events that were put aside. How many
    /// they are, and where to go on.
    async fn replay(&mut self, subscription: &str, from: u64, to: u64) -> Result<(u64, u64), OperationError> {
        let number = self.by_uid.get(subscription).copied();
        let number = number.ok_or_else(|| OperationError::NoSubscription(subscription.into()))?;
        let read = self.context.log.read(self.stream, from, READ_EVENTS, READ_BYTES).await?;
        let Some(subscriber) = self.subscribers.get(&number) else { return Ok((0, read.next)) };
        let filter = subscriber.subscribed.subscription.filter.clone();
        let is_filtered = self.addressable.name().kind == Kind::Broker;
        let mut again = Vec::new();
        for event in read.events.into_iter().filter(|event| event.offset < to) {
            let Ok(record) = Record::decode(event.payload) else { continue };
            if !is_filtered || filter.verdict(&record.event) != Verdict::Fail {
                again.push(Again::new(number, subscription, &record));
            }
            if event.offset % MATCHED_TOGETHER == 0 {
                yield_now().await;
            }
        }
        let count = again.len() as u64;
        // More waits by it: it has the room that senders have. What is a dead letter waits already.
        let bytes = again.iter().map(|again| again.payload.len()).sum();
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        let namespace = &self.addressable.name().namespace;
        let _room = self.context.log.room(namespace, From::Sender, bytes, now).map_err(AskError::from)?;
        self.give_again(again).await?;
        self.context.metrics.replayed.add(count);
        Ok((count, read.next))
    }

    /// Puts events aside for those they are for, all with one write. Where the log does not take all of them, the others are
    /// under way.
    async fn give_again(&mut self, again: Vec<Again>) -> Result<(), AskError> {
        let (namespace, time) = (self.addressable.name().namespace.clone(), Timestamp::now().as_millisecond());
        let mut places: HashMap<Number, Place> = HashMap::new();
        for of in &again {
            if let Entry::Vacant(unknown) = places.entry(of.number) {
                unknown.insert(place(&self.context.log, &of.backlog(&self.addressable), &namespace).await?);
            }
        }
        let (mut writes, mut whose) = (Vec::new(), Vec::new());
        for Again { number, key, payload, .. } in again {
            let Some(place) = places.get(&number).copied() else { continue };
            writes.push(Write::Append {
                stream: place.0,
                time: u64::try_from(time).unwrap_or(0),
                key,
                payload,
                decoded: None,
            });
            whose.push((number, place));
        }
        let outcomes = self.context.log.write(writes, Durability::Synced).await?;
        let mut refused = Ok(());
        for ((number, place), outcome) in whose.into_iter().zip(outcomes) {
            match outcome {
                Ok(Written::Appended(to)) => {
                    if let Some(subscriber) = self.subscribers.get_mut(&number) {
                        subscriber.add_to_backlog(place, to);
                        self.runnable.push(number);
                    }
                }
                Ok(Written::Done | Written::Stream(_) | Written::Cursor(_)) => {}
                Err(error) => refused = Err(error.into()),
            }
        }
        refused
    }
}

/// An event that is given to a subscriber once more.
struct Again {
    number: Number,
    subscription: Box<str>,
    key: Bytes,
    payload: Bytes,
}

impl Again {
    fn new(number: Number, subscription: &str, record: &Record) -> Self {
        Self { number, subscription: subscription.into(), key: record.key(), payload: record.encode() }
    }

    /// The name of the stream in which it is put aside.
    fn backlog(&self, of: &Addressable) -> String {
        streams::backlog(of.uid(), &self.subscription)
    }
}
