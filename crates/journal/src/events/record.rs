//! What the records of the event log say, and how they are written.
//!
//! A record is a byte that tells its kind, and then its fields in order: numbers of seven bits a byte, and bytes after
//! their length. An event's payload is what is left at its end.

use super::{
    CursorId, StreamId,
    varint::{Take, put, put_bytes},
};

/// The version of how records are written.
pub(crate) const VERSION: u64 = 1;

const HEAD: u8 = 0;
const EVENT: u8 = 1;
const STREAM: u8 = 2;
const STREAM_DELETED: u8 = 3;
const CURSOR: u8 = 4;
const CURSOR_DELETED: u8 = 5;
const SETTLED: u8 = 6;
const ATTEMPTED: u8 = 7;

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// The first of each segment.
    Head {
        /// The run of the machine in which the segment was begun.
        run: &'a [u8],
    },
    /// An event, new or copied forward.
    Event(EventRecord<'a>),
    /// A stream is there from now on.
    Stream { stream: StreamId, name: &'a [u8] },
    /// A stream, its events and its cursors are gone.
    StreamDeleted(StreamId),
    /// A cursor is there from now on, and waits for the offsets from `start` on.
    Cursor { cursor: CursorId, stream: StreamId, parent: Option<CursorId>, start: u64, name: &'a [u8] },
    /// A cursor is gone.
    CursorDeleted(CursorId),
    /// A consumer is done with these offsets, first and last.
    Settled { cursor: CursorId, ranges: Vec<(u64, u64)> },
    /// A consumer has tried so often to deliver what it is not done with.
    Attempted { cursor: CursorId, offset: u64, attempts: u32 },
}

/// An event as it stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventRecord<'a> {
    pub(crate) stream: StreamId,
    /// Which event of its stream it is.
    pub(crate) offset: u64,
    /// How many offsets before this one need no copy any more: when one is copied forward, those between it and the
    /// one copied before. So a reader knows that nothing is missing there.
    pub(crate) skipped: u64,
    /// Milliseconds since 1970, never falling within a stream.
    pub(crate) time: u64,
    pub(crate) key: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl EventRecord<'_> {
    /// The first offset of which this record says that nothing before the record itself is missing.
    pub(crate) fn since(&self) -> u64 {
        self.offset - self.skipped
    }
}

impl Record<'_> {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Head { run } => {
                out.push(HEAD);
                put(VERSION, out);
                put_bytes(run, out);
            }
            Record::Event(event) => {
                out.push(EVENT);
                put(event.stream.0.into(), out);
                put(event.offset, out);
                put(event.skipped, out);
                put(event.time, out);
                put_bytes(event.key, out);
                out.extend_from_slice(event.payload);
            }
            Record::Stream { stream, name } => {
                out.push(STREAM);
                put(stream.0.into(), out);
                put_bytes(name, out);
            }
            Record::StreamDeleted(stream) => {
                out.push(STREAM_DELETED);
                put(stream.0.into(), out);
            }
            Record::Cursor { cursor, stream, parent, start, name } => {
                out.push(CURSOR);
                put(cursor.0.into(), out);
                put(stream.0.into(), out);
                put(parent.map_or(0, |parent| u64::from(parent.0) + 1), out);
                put(*start, out);
                put_bytes(name, out);
            }
            Record::CursorDeleted(cursor) => {
                out.push(CURSOR_DELETED);
                put(cursor.0.into(), out);
            }
            Record::Settled { cursor, ranges } => {
                out.push(SETTLED);
                put(cursor.0.into(), out);
                put_ranges(ranges.iter().copied(), out);
            }
            Record::Attempted { cursor, offset, attempts } => {
                out.push(ATTEMPTED);
                put(cursor.0.into(), out);
                put(*offset, out);
                put((*attempts).into(), out);
            }
        }
    }
}

impl<'a> Record<'a> {
    /// Reads a record; `None` for what no record is.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Record<'a>> {
        let (kind, rest) = bytes.split_first()?;
        let mut take = Take { rest };
        let record = match *kind {
            HEAD => {
                (take.number()? == VERSION).then_some(())?;
                Record::Head { run: take.bytes()? }
            }
            EVENT => {
                let stream = StreamId(take.small()?);
                let (offset, skipped, time) = (take.number()?, take.number()?, take.number()?);
                // One more must be a number, too: the next offset.
                (skipped <= offset && offset < u64::MAX).then_some(())?;
                let key = take.bytes()?;
                return Some(Record::Event(EventRecord { stream, offset, skipped, time, key, payload: take.rest }));
            }
            STREAM => Record::Stream { stream: StreamId(take.small()?), name: take.bytes()? },
            STREAM_DELETED => Record::StreamDeleted(StreamId(take.small()?)),
            CURSOR => Record::Cursor {
                cursor: CursorId(take.small()?),
                stream: StreamId(take.small()?),
                parent: take_parent(&mut take)?,
                start: take.number()?,
                name: take.bytes()?,
            },
            CURSOR_DELETED => Record::CursorDeleted(CursorId(take.small()?)),
            SETTLED => Record::Settled { cursor: CursorId(take.small()?), ranges: take_ranges(&mut take)? },
            ATTEMPTED => {
                Record::Attempted { cursor: CursorId(take.small()?), offset: take.number()?, attempts: take.small()? }
            }
            _ => return None,
        };
        take.is_done().then_some(record)
    }
}

/// A cursor's parent, one up, so that none is nought.
pub(crate) fn take_parent(take: &mut Take<'_>) -> Option<Option<CursorId>> {
    match take.number()? {
        0 => Some(None),
        parent => Some(Some(CursorId(u32::try_from(parent - 1).ok()?))),
    }
}

/// Appends ascending ranges, each by its distance from the one before and its length.
pub(crate) fn put_ranges(ranges: impl ExactSizeIterator<Item = (u64, u64)>, out: &mut Vec<u8>) {
    put(ranges.len() as u64, out);
    let mut end = 0;
    for (first, last) in ranges {
        put(first - end, out);
        put(last - first, out);
        end = last;
    }
}

pub(crate) fn take_ranges(take: &mut Take<'_>) -> Option<Vec<(u64, u64)>> {
    let mut end = 0_u64;
    take.list(|take| {
        let first = end.checked_add(take.number()?)?;
        // One more must be a number, too.
        let last = first.checked_add(take.number()?).filter(|last| *last < u64::MAX)?;
        end = last;
        Some((first, last))
    })
}

/// Whether `bytes`, a payload or the beginning of one, is an event of `stream`; `None` where too little is there.
pub(crate) fn is_event_of(bytes: &[u8], stream: StreamId) -> Option<bool> {
    let (kind, rest) = bytes.split_first()?;
    if *kind != EVENT {
        return Some(false);
    }
    Some(Take { rest }.number()? == u64::from(stream.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert_eq!(Record::decode(&bytes).as_ref(), Some(record));
        bytes
    }

    proptest! {
        #[test]
        fn records_read_back_as_they_were_written(
            (a, b) in any::<(u32, u32)>(), (x, y, z) in (0..u64::MAX, any::<u64>(), any::<u64>()),
            name in prop::collection::vec(any::<u8>(), 0..40), key in prop::collection::vec(any::<u8>(), 0..40),
            pairs in prop::collection::vec((0_u64..1 << 40, 0_u64..1 << 40), 0..9),
        ) {
            let (stream, cursor) = (StreamId(a), CursorId(b));
            let mut end = 0;
            let ranges = pairs.iter().map(|(ahead, length)| {
                let first = end + ahead;
                end = first + length;
                (first, end)
            }).collect();
            let event = EventRecord { stream, offset: x, skipped: y % (x + 1), time: z, key: &key, payload: &name };
            round_trip(&Record::Event(event));
            round_trip(&Record::Head { run: &name });
            round_trip(&Record::Stream { stream, name: &name });
            round_trip(&Record::StreamDeleted(stream));
            round_trip(&Record::Cursor { cursor, stream, parent: Some(CursorId(a)), start: y, name: &name });
            round_trip(&Record::Cursor { cursor, stream, parent: None, start: y, name: &name });
            round_trip(&Record::CursorDeleted(cursor));
            round_trip(&Record::Settled { cursor, ranges });
            let bytes = round_trip(&Record::Attempted { cursor, offset: y, attempts: a });
            prop_assert_eq!(Record::decode(&bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), kind in 0_u8..9) {
            Record::decode(&bytes);
            Record::decode(&[&[kind], bytes.as_slice()].concat());
        }
    }
}
