//! The built-in dead letters: events that could not be delivered and that no dead letter sink took. They stay, whatever
//! retention says, until they are delivered again or dropped on request, or their broker or channel is deleted.

use bytes::Bytes;
use jiff::Timestamp;
use knoll_event::{Event, knative};
use knoll_journal::events::{CursorId, Durability, GapCause, ReadError, StreamId, Write, WriteError, Written};
use tokio::time::{Duration, sleep};

use crate::{Log, budget::From, log::AskError, record::Record, streams, topology::Addressable};

/// After the log refused one.
const PAUSE: Duration = Duration::from_secs(1);
/// Of all dead letters of a broker or channel, who waits for them.
const CURSOR: &str = "operator";
/// Bytes of events that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// A dead letter.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// By which it is named, among those of its broker or channel.
    pub offset: u64,
    /// When it became one, milliseconds since 1970.
    pub time: u64,
    /// The uid of the Trigger or Subscription that it was for.
    pub subscription: Box<str>,
    /// The event, with `knativeerrordest`, `knativeerrorcode` and `knativeerrordata` that say why.
    pub event: Event,
}

/// Some of the dead letters there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// They, oldest first.
    pub letters: Vec<DeadLetter>,
    /// Offsets among them that cannot be read.
    pub unreadable: Vec<u64>,
    /// Where to go on; nothing when there are no more.
    pub next: Option<u64>,
}

/// Why something that was asked of a broker or channel was not done.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The log.
    #[error(transparent)]
    Log(#[from] AskError),
    /// Its files.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no such broker or channel, or it is not running.
    #[error("there is no such broker or channel")]
    NoAddressable,
    /// There is no such Trigger or Subscription (any more).
    #[error("there is no subscription {0}")]
    NoSubscription(Box<str>),
    /// There is no such dead letter (any more).
    #[error("there is no dead letter {0}")]
    NoLetter(u64),
    /// Whose it is, is not there any more.
    #[error(
        "dead letter {offset} is for the subscription {subscription}, which is not there any more: drop it, or send the event to the broker"
    )]
    Orphan {
        /// Which one.
        offset: u64,
        /// Its uid.
        subscription: Box<str>,
    },
}

/// The dead letters.
#[derive(Clone)]
pub(crate) struct Letters {
    pub(crate) log: Log,
}

/// Stream and cursor of a broker's or channel's dead letters.
type Place = (StreamId, CursorId);

impl Letters {
    /// Keeps a dead letter. Tries until the log takes it; the event is not done with before.
    pub(crate) async fn keep(&self, of: &Addressable, letter: &Record) {
        let mut is_told = false;
        loop {
            let kept = self.try_keep(of, letter).await;
            let Err(error) = kept else { return };
            if !std::mem::replace(&mut is_told, true) {
                tracing::warn!(
                    error = knoll_faults::chain(&error),
                    uid = &**of.uid(),
                    "a dead letter waits to be kept"
                );
            }
            if matches!(error, AskError::Write(WriteError::TooLarge { .. })) {
                // What an event came with fitted, and its reasons did not: it is kept without them, for whom it is.
                let mut shorter = letter.clone();
                remove_reasons(&mut shorter);
                if self.try_keep(of, &shorter).await.is_ok() {
                    return;
                }
            }
            sleep(PAUSE).await;
        }
    }

    async fn try_keep(&self, of: &Addressable, letter: &Record) -> Result<(), AskError> {
        let time = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        let payload = letter.encode();
        let _room = self.log.room(&of.name().namespace, From::Delivery, payload.len(), time)?;
        let (stream, _) = self.made(of).await?;
        let write = Write::Append { stream, time, key: Bytes::new(), payload, decoded: None };
        self.log.write_one(write).await.map(drop)
    }

    /// Where dead letters go. The cursor is there before the first of them, so that retention passes none.
    async fn made(&self, of: &Addressable) -> Result<Place, AskError> {
        let stream = self.log.stream(&streams::dead_letters(of.uid()), &of.name().namespace).await?;
        Ok((stream, self.log.cursor(stream, CURSOR, None, Some(0)).await?))
    }

    fn found(&self, uid: &str) -> Option<Place> {
        let stream = self.log.reader().stream(streams::dead_letters(uid).as_bytes())?;
        Some((stream, self.log.reader().cursor(stream, CURSOR.as_bytes())?))
    }

    /// How many there are.
    pub(crate) fn count(&self, uid: &str) -> u64 {
        let Some((stream, cursor)) = self.found(uid) else { return 0 };
        let (Some(progress), Some(end)) = (self.log.reader().progress(cursor), self.log.reader().end(stream)) else {
            return 0;
        };
        progress.unsettled(0, end).map(|(first, last)| last - first + 1).sum()
    }

    /// Those from offset `from` on, at most `most`.
    pub(crate) async fn page(&self, uid: &str, from: u64, most: usize) -> Result<Page, OperationError> {
        let mut page = Page::default();
        let Some((stream, cursor)) = self.found(uid) else { return Ok(page) };
        let progress = self.log.reader().progress(cursor).unwrap_or_default();
        let mut next = from.max(progress.watermark());
        while page.letters.len() + page.unreadable.len() < most {
            let read = self.log.read(stream, next, most, READ_BYTES).await?;
            if read.next == next {
                return Ok(page);
            }
            for gap in read.gaps.iter().filter(|gap| matches!(gap.cause, GapCause::Damaged { .. })) {
                page.unreadable
                    .extend(progress.unsettled(gap.first, gap.last + 1).flat_map(|(first, last)| first..=last));
            }
            for event in read.events.into_iter().filter(|event| !progress.is_settled(event.offset)) {
                match Record::decode(event.payload) {
                    Ok(record) => page.letters.push(DeadLetter {
                        offset: event.offset,
                        time: event.time,
                        subscription: record.subscription.unwrap_or_default(),
                        event: record.event,
                    }),
                    Err(_) => page.unreadable.push(event.offset),
                }
                next = event.offset + 1;
                if page.letters.len() + page.unreadable.len() >= most {
                    page.next = Some(next);
                    return Ok(page);
                }
            }
            next = read.next;
        }
        page.next = Some(next);
        Ok(page)
    }

    /// One of them as it is kept.
    pub(crate) async fn get(&self, uid: &str, offset: u64) -> Result<Record, OperationError> {
        let (stream, cursor) = self.found(uid).ok_or(OperationError::NoLetter(offset))?;
        if self.log.reader().progress(cursor).is_none_or(|progress| progress.is_settled(offset)) {
            return Err(OperationError::NoLetter(offset));
        }
        let read = self.log.read(stream, offset, 1, 0).await?;
        let event = read.events.into_iter().find(|event| event.offset == offset);
        let record = event.and_then(|event| Record::decode(event.payload).ok());
        record.ok_or(OperationError::NoLetter(offset))
    }

    /// Forgets them.
    pub(crate) async fn forget(&self, uid: &str, offsets: &[u64]) -> Result<(), OperationError> {
        let Some((_, cursor)) = self.found(uid) else { return Err(no_letter(offsets)) };
        let progress = self.log.reader().progress(cursor).unwrap_or_default();
        if let Some(gone) = offsets.iter().find(|offset| progress.is_settled(**offset)) {
            return Err(OperationError::NoLetter(*gone));
        }
        let ranges = offsets.iter().map(|offset| (*offset, *offset)).collect();
        let outcomes = self.log.write(vec![Write::Settle { cursor, ranges }], Durability::Synced).await;
        for outcome in outcomes.map_err(AskError::from)? {
            match outcome {
                Ok(Written::Done | Written::Appended(_) | Written::Stream(_) | Written::Cursor(_)) => {}
                Err(WriteError::OutOfStream { first, .. }) => return Err(OperationError::NoLetter(first)),
                Err(error) => return Err(AskError::from(error).into()),
            }
        }
        Ok(())
    }
}

fn no_letter(offsets: &[u64]) -> OperationError {
    OperationError::NoLetter(offsets.first().copied().unwrap_or_default())
}

/// An event as it was before it became a dead letter.
pub(crate) fn without_reasons(mut letter: Record) -> Record {
    remove_reasons(&mut letter);
    letter.subscription = None;
    letter
}

fn remove_reasons(letter: &mut Record) {
    for name in [knative::ERROR_DESTINATION, knative::ERROR_CODE, knative::ERROR_DATA] {
        letter.event.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderMap;
    use knoll_event::mode::Format;
    use knoll_journal::{MemoryDisk, events::EventOptions};

    use super::*;
    use crate::topology::{Kind, Name};

    #[tokio::test]
    async fn a_letter_that_its_reasons_make_too_long_is_kept_without_them_and_says_whose_it_is() {
        let options = EventOptions { payload_bytes: 512, ..EventOptions::default() };
        let (log, _thread, _) = Log::open(Arc::new(MemoryDisk::default()), options).expect("opens");
        let letters = Letters { log };
        let of = Addressable::new(Name::new(Kind::Broker, "ns", "b"), "uid", None, Vec::new());
        let mut event = Event::new("1", "/s", "t").expect("an event");
        event.set(knative::ERROR_DATA, &*"x".repeat(500)).expect("a reason");
        let mut letter = Record::new(event, Format::Binary, HeaderMap::new());
        letter.subscription = Some("trigger".into());
        letters.keep(&of, &letter).await;
        let kept = letters.page("uid", 0, 10).await.expect("is read").letters.remove(0);
        assert_eq!((&*kept.subscription, kept.event.attribute(knative::ERROR_DATA)), ("trigger", None));
    }
}
