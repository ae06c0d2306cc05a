//! What a worker is asked by people: to deliver dead letters again, or events that it keeps.

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
    dead_letters::{OperationError, without_reasons},
    log::AskError,
    record::Record,
    streams,
    topology::Kind,
};

/// Events that one filter is asked about before others get the thread.
const MATCHED_TOGETHER: u64 = 8;

impl Worker {
    pub(super) async fn command(&mut self, command: Command) {
        match command {
            Command::Redrive { offsets, answer } => {
                let mut outcome = Ok(());
                for offset in offsets {
                    outcome = self.redrive(offset).await;
                    if outcome.is_err() {
                        break;
                    }
                }
                // Who asked may be gone.
                drop(answer.send(outcome));
            }
            Command::Replay { subscription, from, to, answer } => {
                drop(answer.send(self.replay(&subscription, from, to).await));
            }
        }
    }

    /// Gives a dead letter to whom it was for, as an event that was put aside.
    async fn redrive(&mut self, offset: u64) -> Result<(), OperationError> {
        let letters = self.context.letters.clone();
        let letter = letters.get(self.addressable.uid(), offset).await?;
        let subscription = letter.subscription.clone().unwrap_or_default();
        let Some(number) = self.by_uid.get(&*subscription).copied() else {
            return Err(OperationError::Orphan { offset, subscription });
        };
        self.give_again(number, &subscription, vec![without_reasons(letter)]).await?;
        letters.forget(self.addressable.uid(), &[offset]).await?;
        self.context.metrics.redriven.count();
        Ok(())
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
        let mut records = Vec::new();
        for event in read.events.into_iter().filter(|event| event.offset < to) {
            let Ok(record) = Record::decode(event.payload) else { continue };
            if !is_filtered || filter.verdict(&record.event) != Verdict::Fail {
                records.push(record);
            }
            if event.offset % MATCHED_TOGETHER == 0 {
                yield_now().await;
            }
        }
        let count = records.len() as u64;
        self.give_again(number, subscription, records).await?;
        self.context.metrics.replayed.add(count);
        Ok((count, read.next))
    }

    async fn give_again(&mut self, number: Number, subscription: &str, records: Vec<Record>) -> Result<(), AskError> {
        let name = streams::backlog(self.addressable.uid(), subscription);
        let place: Place = place(&self.context.log, &name, &self.addressable.name().namespace).await?;
        let time = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        let append =
            |record: &Record| Write::Append { stream: place.0, time, key: record.key(), payload: record.encode() };
        let outcomes = self.context.log.write(records.iter().map(append).collect(), Durability::Synced).await?;
        for outcome in outcomes {
            if let Written::Appended(to) = outcome?
                && let Some(subscriber) = self.subscribers.get_mut(&number)
            {
                subscriber.add_to_backlog(place, to);
                self.runnable.push(number);
            }
        }
        Ok(())
    }
}
