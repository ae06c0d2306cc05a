//! The events that a broker or channel keeps, for as long as retention says: read, and delivered once more, on request
//! only.

use knoll_event::Event;
use knoll_journal::events::{ReadError, StreamId};

use crate::{Log, dead_letters::OperationError, record::Record};

/// Bytes of events that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// Where to begin among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With this one, or the first after it that is still there.
    Offset(u64),
    /// With the first that was taken at this time or later, milliseconds since 1970.
    Time(u64),
}

/// An event that is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Which of its broker's or channel's it is.
    pub offset: u64,
    /// When it was taken, milliseconds since 1970.
    pub time: u64,
    /// It, as it was kept: with the hops it has left.
    pub event: Event,
}

/// Some of the events that are kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// They, in the order in which they were taken.
    pub events: Vec<Kept>,
    /// First and last of what is not there any more, or cannot be read.
    pub missing: Vec<(u64, u64)>,
    /// Where to go on.
    pub next: u64,
}

/// The offset where to begin.
pub(crate) async fn offset(log: &Log, stream: StreamId, start: Start) -> Result<u64, ReadError> {
    let time = match start {
        Start::Offset(offset) => return Ok(offset),
        Start::Time(time) => time,
    };
    let reader = log.reader().clone();
    match tokio::task::spawn_blocking(move || reader.seek(stream, time)).await {
        Ok(found) => found,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Events from `from` on, at most `most`.
pub(crate) async fn read(log: &Log, stream: StreamId, from: u64, most: usize) -> Result<History, OperationError> {
    let read = log.read(stream, from, most, READ_BYTES).await?;
    let mut history = History { next: read.next, ..History::default() };
    history.missing.extend(read.gaps.iter().map(|gap| (gap.first, gap.last)));
    for event in read.events {
        let (offset, time) = (event.offset, event.time);
        match Record::decode(event.payload) {
            Ok(record) => history.events.push(Kept { offset, time, event: record.event }),
            Err(_) => history.missing.push((offset, offset)),
        }
    }
    Ok(history)
}
