//! The built-in dead letters: events that could not be delivered and that no dead letter sink took. They stay, whatever
//! retention says, until they are delivered again or dropped on request, or their broker or channel is deleted.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use knoll_event::{Event, knative};
use knoll_journal::events::{self, CursorId, Durability, ReadError, StreamId, Write, WriteError, Written};
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

/// What becomes of a dead letter that is to be delivered again and cannot be: it, or whom it was for, is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undeliverable {
    /// It is said, and those behind it stay.
    Stops,
    /// It is counted and stays, and those behind it are delivered.
    Stays,
}

/// What became of dead letters that were to be delivered again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Those that are delivered again.
    pub count: u64,
    /// Those that stay because whom they were for is not there any more, by its uid.
    pub orphans: BTreeMap<Box<str>, u64>,
    /// Those that are not there, or cannot be read, any more.
    pub missing: u64,
}

impl Redriven {
    /// Adds what became of others.
    pub(crate) fn add(&mut self, others: Self) {
        self.count += others.count;
        self.missing += others.missing;
        for (subscription, count) in others.orphans {
            *self.orphans.entry(subscription).or_default() += count;
        }
    }

    /// Counts one that is undeliverable; whether it is that by what was said.
    pub(crate) fn stays(&mut self, why: &OperationError) -> bool {
        match why {
            OperationError::Orphan { subscription, .. } => *self.orphans.entry(subscription.clone()).or_default() += 1,
            OperationError::NoLetter(_) | OperationError::Unreadable(_) => self.missing += 1,
            OperationError::Log(_)
            | OperationError::Read(_)
            | OperationError::NoAddressable
            | OperationError::NoSubscription(_) => return false,
        }
        true
    }
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
    /// What it was can not be read any more.
    #[error("dead letter {0} cannot be read any more: drop it")]
    Unreadable(u64),
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
            let left = most - page.letters.len() - page.unreadable.len();
            // Whatever was removed, nobody settled these.
            let gaps = read.gaps.iter().flat_map(|gap| progress.unsettled(gap.first.max(next), gap.last + 1));
            let lost = gaps.flat_map(|(first, last)| first..=last).map(|offset| (offset, None));
            let mut found: Vec<_> = lost.take(left).collect();
            let kept = read.events.into_iter().filter(|event| !progress.is_settled(event.offset));
            found.extend(kept.map(|event| (event.offset, letter(event))));
            found.sort_by_key(|(offset, _)| *offset);
            for (offset, letter) in found {
                match letter {
                    Some(letter) => page.letters.push(letter),
                    None => page.unreadable.push(offset),
                }
                next = offset + 1;
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
        let was_there = self.log.reader().end(stream).is_some_and(|end| offset < end);
        let missing = if was_there { OperationError::Unreadable(offset) } else { OperationError::NoLetter(offset) };
        record.ok_or(missing)
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

/// A dead letter as it is shown, if it can be read.
fn letter(event: events::Event) -> Option<DeadLetter> {
    let Record { event: shown, subscription, .. } = Record::decode(event.payload).ok()?;
    let subscription = subscription.unwrap_or_default();
    Some(DeadLetter { offset: event.offset, time: event.time, subscription, event: shown })
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

    fn addressable() -> Addressable {
        Addressable::new(Name::new(Kind::Broker, "ns", "b"), "uid", None, Vec::new())
    }

    fn record(id: &str) -> Record {
        let event = Event::new(id, "/s", "t").expect("an event");
        Record { subscription: Some("trigger".into()), ..Record::new(event, Format::Binary, HeaderMap::new()) }
    }

    /// Ids of letters, and offsets that cannot be read, page by page of so many.
    async fn pages(letters: &Letters, most: usize) -> Vec<String> {
        let (mut found, mut next) = (Vec::new(), Some(0));
        while let Some(from) = next {
            let page = letters.page("uid", from, most).await.expect("is read");
            assert!(page.letters.len() + page.unreadable.len() <= most);
            found.extend(page.letters.iter().map(|letter| letter.event.id().to_owned()));
            found.extend(page.unreadable.iter().map(|offset| format!("unreadable {offset}")));
            next = page.next;
        }
        found
    }

    #[tokio::test]
    async fn what_cannot_be_read_any_more_is_named_once_and_can_be_forgotten() {
        let (disk, of) = (MemoryDisk::default(), addressable());
        let (log, thread, _) = Log::open(Arc::new(disk.clone()), EventOptions::default()).expect("opens");
        let letters = Letters { log };
        for id in ["first", "bad-one", "bad-other", "last"] {
            letters.keep(&of, &record(id)).await;
        }
        let (stream, _) = letters.made(&of).await.expect("is there");
        let (time, key, payload) = (0, Bytes::new(), Bytes::from_static(b"no record"));
        letters.log.write_one(Write::Append { stream, time, key, payload, decoded: None }).await.expect("is taken");
        letters.keep(&of, &record("behind")).await;
        drop(letters);
        thread.join().expect("closes");
        let mut files = disk.files();
        for file in files.values_mut() {
            for at in 0..file.len().saturating_sub(4) {
                if &file[at..at + 4] == b"bad-" {
                    file[at] ^= 1;
                }
            }
        }
        let (log, _thread, _) =
            Log::open(Arc::new(MemoryDisk::holding(files)), EventOptions::default()).expect("opens");
        let letters = Letters { log };
        // After damage a stream goes on some offsets later: these are named as well, for they are counted.
        for most in [1, 2, 100] {
            let found = pages(&letters, most).await;
            assert_eq!(found.len() as u64, letters.count("uid"), "{most}");
            for one in ["behind", "first", "last", "unreadable 1", "unreadable 2", "unreadable 4"] {
                assert_eq!(found.iter().filter(|found| *found == one).count(), 1, "{one} by {most}: {found:?}");
            }
        }
        for offset in [1, 4] {
            let unreadable = letters.get("uid", offset).await;
            assert!(matches!(unreadable, Err(OperationError::Unreadable(of)) if of == offset), "{unreadable:?}");
        }
        assert!(matches!(letters.get("uid", 99_999).await, Err(OperationError::NoLetter(99_999))));
        let before = letters.count("uid");
        letters.forget("uid", &[1, 2, 4]).await.expect("they are forgotten");
        assert_eq!(letters.count("uid"), before - 3);
    }

    #[tokio::test]
    async fn a_letter_that_its_reasons_make_too_long_is_kept_without_them_and_says_whose_it_is() {
        let options = EventOptions { payload_bytes: 512, ..EventOptions::default() };
        let (log, _thread, _) = Log::open(Arc::new(MemoryDisk::default()), options).expect("opens");
        let letters = Letters { log };
        let of = addressable();
        let mut event = Event::new("1", "/s", "t").expect("an event");
        event.set(knative::ERROR_DATA, &*"x".repeat(500)).expect("a reason");
        let mut letter = Record::new(event, Format::Binary, HeaderMap::new());
        letter.subscription = Some("trigger".into());
        letters.keep(&of, &letter).await;
        let kept = letters.page("uid", 0, 10).await.expect("is read").letters.remove(0);
        assert_eq!((&*kept.subscription, kept.event.attribute(knative::ERROR_DATA)), ("trigger", None));
    }
}
