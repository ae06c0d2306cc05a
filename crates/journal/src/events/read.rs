//! Reading: by any number of readers, beside the writer, from the tail in memory or from disk.

use std::{
    io,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;

use super::{
    CursorId, Event, PREFIX, Progress, StreamId, Tally,
    catalog::{Catalog, Stream, shared},
    index::Span,
    record::{Record, is_event_of},
};
use crate::{
    Disk, Frame,
    frame::{HEADER, claimed_end, read_frame},
    scan::resume_at,
    segment_name,
};

/// Most bytes of a segment that are read at once, but for one long event.
const MOST: usize = 1 << 20;

/// What the writer and the readers share.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) catalog: RwLock<Catalog>,
}

impl Shared {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Catalog> {
        self.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Offsets that were asked for and that are not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first one.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Why.
    pub cause: GapCause,
}

/// Why events are not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GapCause {
    /// They were removed after everybody had settled them; or they were lost by damage that was found when the log was
    /// opened. To a cursor that has not settled them they are lost.
    Removed,
    /// The segment cannot be read there. They are lost.
    Damaged {
        /// The segment's file name.
        file: String,
        /// Where, in bytes.
        at: u64,
    },
}

/// Events of a stream, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// They. Offsets between them that are in no gap were settled by everybody.
    pub events: Vec<Event>,
    /// What is missing among them.
    pub gaps: Vec<Gap>,
    /// Where to go on.
    pub next: u64,
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such stream.
    #[error("there is no such stream")]
    NoStream,
    /// The system cannot read a segment, the one that holds the first offset asked for. The offsets may be passed over by
    /// reading on behind them.
    #[error("read the events {first} to {last} from segment {name}")]
    Io {
        /// The segment's file name.
        name: String,
        /// The first offset that stands there.
        first: u64,
        /// The last one.
        last: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads streams and cursors.
#[derive(Clone)]
pub struct EventReader {
    shared: Arc<Shared>,
}

/// What is to be read next.
enum Next {
    /// From the tail in memory.
    Events(Vec<Event>),
    /// From a segment.
    Span(Span),
    /// There is nothing more.
    End,
}

impl EventReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The stream of this name.
    pub fn stream(&self, name: &[u8]) -> Option<StreamId> {
        self.shared.read().stream_named(name)
    }

    /// All streams and their names.
    pub fn streams(&self) -> Vec<(StreamId, Vec<u8>)> {
        self.shared.read().streams.iter().map(|(id, stream)| (*id, stream.name.to_vec())).collect()
    }

    /// The offset that the next event of a stream will have: what was synced lies below.
    pub fn end(&self, stream: StreamId) -> Option<u64> {
        self.shared.read().streams.get(&stream).map(|stream| stream.synced)
    }

    /// The cursor of this name.
    pub fn cursor(&self, stream: StreamId, name: &[u8]) -> Option<CursorId> {
        self.shared.read().cursor_named(stream, name)
    }

    /// All cursors of a stream and their names.
    pub fn cursors(&self, stream: StreamId) -> Vec<(CursorId, Vec<u8>)> {
        self.shared.read().cursors_of(stream)
    }

    /// How far a consumer is, with what its parent has settled. Costs a copy.
    pub fn progress(&self, cursor: CursorId) -> Option<Progress> {
        self.shared.read().progress(cursor)
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        let catalog = self.shared.read();
        catalog.closed_bytes() + catalog.open_bytes
    }

    /// Counts what is awaited of a stream, now and later, with the other streams of this tally, and with no other's.
    /// Nothing where there is no such stream.
    pub fn tally(&self, stream: StreamId, with: &Arc<Tally>) {
        if !self.shared.read().is_tallied(stream, with) {
            self.shared.write().tally(stream, with.clone());
        }
    }

    /// How many places of events are kept in memory, eight bytes each.
    pub fn index_entries(&self) -> usize {
        self.shared.read().streams.values().map(|stream| stream.index.entries()).sum()
    }

    /// Reads the events of a stream from offset `from` on: at most `most`, and no more once they are `bytes` together.
    /// One at least, if there is one. What is read shares memory with its neighbours, up to 1 MiB of them.
    ///
    /// # Errors
    /// When there is no such stream, or the system cannot read.
    pub fn read(&self, stream: StreamId, from: u64, most: usize, bytes: usize) -> Result<Read, ReadError> {
        let mut read = Read { next: from, ..Read::default() };
        let mut left = bytes;
        // The segment that was looked for in vain.
        let mut gone = None;
        while read.events.len() < most && (left > 0 || read.events.is_empty()) {
            match self.next(stream, &mut read, most, left)? {
                Next::End => break,
                Next::Events(events) => {
                    read.next = events.last().map_or(read.next, |event| event.offset + 1);
                    left = events.iter().fold(left, |left, event| left.saturating_sub(size(event)));
                    read.events.extend(events);
                }
                Next::Span(span) => match self.stored_in(stream, &span) {
                    Ok(found) => left = take_within(&mut read, found, most, left),
                    // It was copied forward between looking it up and reading, unless it is looked for there again: a
                    // segment is forgotten before it is removed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && gone != Some(span.segment) => {
                        gone = Some(span.segment);
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        let cause = GapCause::Damaged { file: segment_name(PREFIX, span.segment), at: 0 };
                        read.gaps.push(Gap { first: span.first, last: span.last, cause });
                        read.next = span.last + 1;
                    }
                    // What was read before it is not held back: the next call begins there.
                    Err(_) if read.next > from => break,
                    Err(source) => {
                        let (name, first, last) = (segment_name(PREFIX, span.segment), span.first, span.last);
                        return Err(ReadError::Io { name, first, last, source });
                    }
                },
            }
        }
        Ok(read)
    }

    /// The same, where that needs no disk: all that is there from `from` on is in the tail in memory, or nothing is there yet.
    /// Otherwise nothing, at once.
    ///
    /// # Errors
    /// When there is no such stream.
    pub fn read_tail(&self, stream: StreamId, from: u64, most: usize, bytes: usize) -> Result<Option<Read>, ReadError> {
        let catalog = self.shared.read();
        let stream = catalog.streams.get(&stream).ok_or(ReadError::NoStream)?;
        if from >= stream.synced {
            return Ok(Some(Read { next: from, ..Read::default() }));
        }
        if stream.tail.front().is_none_or(|event| event.offset > from) {
            return Ok(None);
        }
        let events = from_tail(stream, from, most, bytes);
        let next = events.last().map_or(from, |event| event.offset + 1);
        Ok(Some(Read { events, next, ..Read::default() }))
    }

    /// Looks up what stands at `read.next`, and notes what does not stand before it.
    fn next(&self, id: StreamId, read: &mut Read, most: usize, left: usize) -> Result<Next, ReadError> {
        let catalog = self.shared.read();
        let stream = catalog.streams.get(&id).ok_or(ReadError::NoStream)?;
        if read.next >= stream.synced {
            return Ok(Next::End);
        }
        if stream.tail.front().is_some_and(|event| event.offset <= read.next) {
            return Ok(Next::Events(from_tail(stream, read.next, most - read.events.len(), left)));
        }
        let span = stream.index.span(read.next, left.min(MOST));
        let first = span.map_or(stream.synced, |span| span.first).min(stream.synced);
        if read.next < first {
            read.gaps.push(Gap { first: read.next, last: first - 1, cause: GapCause::Removed });
            read.next = first;
        }
        Ok(match span {
            Some(mut span) if span.first < stream.synced => {
                span.last = span.last.min(stream.synced - 1);
                Next::Span(span)
            }
            _ => Next::End,
        })
    }

    fn stored_in(&self, stream: StreamId, span: &Span) -> io::Result<Read> {
        read_span(self.shared.disk.as_ref(), stream, span).map(|found| Read {
            events: found.events.into_iter().map(|found| found.event).collect(),
            gaps: found.gaps,
            next: span.last + 1,
        })
    }

    /// The offset of the first event that is not older than `time`, in milliseconds since 1970; the stream's end when
    /// there is none. Costs reading an event for each halving of the index, and then a block. Where the
    /// system cannot read what may be it, the offset is that of the first of those.
    ///
    /// # Errors
    /// When there is no such stream.
    pub fn seek(&self, stream: StreamId, time: u64) -> Result<u64, ReadError> {
        let places: Vec<u64> = {
            let catalog = self.shared.read();
            catalog.streams.get(&stream).ok_or(ReadError::NoStream)?.index.entry_offsets().collect()
        };
        let (mut from, mut to) = (0, places.len());
        while from < to {
            let middle = from + (to - from) / 2;
            let read = self.read_on(stream, places[middle], 1, 0)?;
            if read.events.first().is_some_and(|event| event.time < time) { from = middle + 1 } else { to = middle }
        }
        let mut next = from.checked_sub(1).map_or(0, |before| places[before]);
        // Where what cannot be read begins, when nothing that is older stands behind it.
        let mut unread = None;
        loop {
            let read = match self.read(stream, next, usize::MAX, MOST) {
                Err(ReadError::Io { first, last, .. }) => {
                    unread = unread.or(Some(first));
                    next = last + 1;
                    continue;
                }
                read => read?,
            };
            match read.events.iter().position(|event| event.time >= time) {
                Some(0) => return Ok(unread.unwrap_or(read.events[0].offset)),
                Some(found) => return Ok(read.events[found].offset),
                None if read.next == next => return Ok(unread.unwrap_or(next)),
                None => {}
            }
            if !read.events.is_empty() {
                unread = None;
            }
            next = read.next;
        }
    }

    /// Reads as [`EventReader::read`] does, behind what the system cannot read.
    fn read_on(&self, stream: StreamId, mut from: u64, most: usize, bytes: usize) -> Result<Read, ReadError> {
        loop {
            match self.read(stream, from, most, bytes) {
                Err(ReadError::Io { last, .. }) => from = last + 1,
                read => return read,
            }
        }
    }
}

/// What an event counts towards the bytes that were asked for.
fn size(event: &Event) -> usize {
    event.key.len() + event.payload.len()
}

fn from_tail(stream: &Stream, from: u64, most: usize, left: usize) -> Vec<Event> {
    let Some(first) = stream.tail.front().map(|event| event.offset) else { return Vec::new() };
    let skipped = usize::try_from(from - first).unwrap_or(usize::MAX);
    let mut taken = 0_usize;
    let new = stream.tail.iter().skip(skipped).take(most).take_while(|event| event.offset < stream.synced);
    let within = new.take_while(|event| {
        let fits = taken < left || taken == 0;
        taken = taken.saturating_add(size(event).max(1));
        fits
    });
    within.cloned().collect()
}

/// Adds what was found, as far as it was asked for. Returns how many bytes more are.
fn take_within(read: &mut Read, found: Read, most: usize, mut left: usize) -> usize {
    let mut gaps = found.gaps.into_iter().peekable();
    for event in found.events {
        if read.events.len() >= most || (left == 0 && !read.events.is_empty()) {
            return left;
        }
        while let Some(gap) = gaps.next_if(|gap| gap.last < event.offset) {
            read.gaps.push(gap);
        }
        left = left.saturating_sub(size(&event));
        read.next = event.offset + 1;
        read.events.push(event);
    }
    read.gaps.extend(gaps);
    read.next = found.next;
    left
}

/// An event and what its record says besides.
pub(super) struct Found {
    /// Nothing is missing from here up to the event.
    pub(super) since: u64,
    pub(super) event: Event,
}

/// What stands in a span.
#[derive(Default)]
pub(super) struct Content {
    pub(super) events: Vec<Found>,
    pub(super) gaps: Vec<Gap>,
}

/// Reads the events of a span from disk.
pub(super) fn read_span(disk: &dyn Disk, stream: StreamId, span: &Span) -> io::Result<Content> {
    let name = segment_name(PREFIX, span.segment);
    let length = span.starts_before.min(span.end) - span.start;
    let mut bytes = disk.read_at(&name, span.start.into(), length as usize)?;
    while let Some(longer) = cut_short(&bytes, stream, (span.end - span.start) as usize) {
        let more = disk.read_at(&name, u64::from(span.start) + bytes.len() as u64, longer - bytes.len())?;
        if more.is_empty() {
            break;
        }
        bytes.extend(more);
    }
    Ok(events_of(&Bytes::from(bytes), stream, span, &name))
}

/// Where the last frame ends, when it is an event of the stream that begins within `bytes` and ends behind them.
fn cut_short(bytes: &[u8], stream: StreamId, longest: usize) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        match claimed_end(bytes, at) {
            Some(end) if end <= bytes.len() => at = end,
            Some(end) if end <= longest => {
                // What says whose it is may be cut, too.
                return is_event_of(&bytes[at + HEADER..], stream).unwrap_or(true).then_some(end);
            }
            Some(_) => return None,
            // The header itself is cut.
            None if bytes.len() - at < HEADER && bytes.len() < longest => {
                return Some((bytes.len() + HEADER).min(longest));
            }
            None => return None,
        }
    }
    None
}

fn events_of(bytes: &Bytes, stream: StreamId, span: &Span, name: &str) -> Content {
    let mut content = Content { events: Vec::new(), gaps: Vec::new() };
    // The next offset that must be there, and where the last damage is.
    let (mut expected, mut damage) = (span.first, span.start as usize);
    let mut gap = |first: u64, end: u64, damage: usize| {
        if first < end {
            let cause = GapCause::Damaged { file: name.to_owned(), at: damage as u64 };
            content.gaps.push(Gap { first, last: end - 1, cause });
        }
    };
    let mut at = 0;
    while at < bytes.len() {
        let Some((frame, next)) = read_frame(bytes, at) else {
            damage = span.start as usize + at;
            match resume_at(bytes, at + 1) {
                Some(next) => at = next,
                None => break,
            }
            continue;
        };
        at = next;
        let Frame::Record(payload) = frame else { continue };
        let Some(Record::Event(event)) = Record::decode(payload) else { continue };
        if event.stream != stream || event.offset < expected || event.offset > span.last {
            continue;
        }
        gap(expected, event.since(), damage);
        content.events.push(Found { since: event.since().max(expected), event: shared(bytes, &event) });
        expected = event.offset + 1;
    }
    gap(expected, span.last + 1, damage);
    content
}
