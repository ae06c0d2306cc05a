//! The event log: one log of segments for the events of many streams, and how far consumers are in them.
//!
//! A *stream* is a sequence of events that are numbered from nought: those of a broker or a channel, of a retry, of
//! dead letters. A *cursor* is how far one consumer of a stream is: a watermark, the ranges settled ahead of it, and the
//! attempts made of what is not. Both are known by names that mean nothing here.
//!
//! What the log promises:
//! - What was written is there after the death of this process, and what was synced after a power cut. Readers are shown
//!   only what was synced.
//! - An event stays until every cursor of its stream that has no parent has settled it, and after that as long as
//!   [`Retention`] says. Nothing of a stream without cursors waits for anybody.
//! - After a crash a cursor is at most as far behind as what was not yet written of it, or after a power cut what was not
//!   yet synced: events are delivered again, never lost.
//! - A damaged place costs the events that stand there. It is named by file and byte, the events by stream and offset,
//!   and all others are served.
//! - A full disk, or the end of the log's budget, refuses a write and leaves nothing of it. On a full disk consumers can
//!   settle yet, out of room that is kept back for that, and what becomes superfluous goes. After a failed sync, or a
//!   failed write that is no want of room, nothing is acknowledged any more.
//!
//! What things cost: a write appends its bytes once, and a sync is one for all writes before it. Reading an event costs
//! one read of 32 KiB, of many in order one for up to 1 MiB, and none where they are still in the tail kept in memory, which
//! keeps with them what whoever wrote them had made of them ([`Decoded`]).
//! Memory holds eight bytes for each 32 KiB of a stream's events (at least an entry a segment), each cursor's ranges, and
//! the tail. A start reads the last segment, and of each other one its index file, 2 KB or so. Copying forward writes an
//! event again at most once for each time that half of its segment became superfluous, or a quarter while three quarters of
//! the budget are used.
//!
//! How many bytes somebody waits for is known at any time, for streams taken together as whoever reads them says: see [`Tally`].
//!
//! Files: `events-N.log`, a segment; `events-N.index`, where what stands in it, written when it is closed and made again
//! from the segment when missing or damaged; `events-N.state-a` and `-b`, twice the same: streams and
//! cursors as they were when segment N began; `events.reserve`, the room that is kept back.

mod catalog;
mod commit;
mod decoded;
mod files;
mod index;
mod log;
mod progress;
mod ranges;
mod read;
mod record;
mod recover;
mod retention;
mod scan;
mod tally;
mod varint;

use bytes::Bytes;

pub use commit::{Answer, Committer, Durability, EventWriter, GroupCommit, Published, SubmitError};
pub use decoded::Decoded;
pub use log::EventLog;
pub use progress::Progress;
pub use ranges::Ranges;
pub use read::{EventReader, Gap, GapCause, Read, ReadError};
pub(crate) use record::EventRecord;
pub use recover::{Damage, Lost, Recovery};
pub use retention::Tidied;
pub use tally::{Counts, Tally};

/// What the names of the log's files begin with.
const PREFIX: &str = "events";
/// Longest name of a stream or a cursor, bytes.
pub const NAME_BYTES: usize = 1024;
/// Longest key of an event, bytes.
pub const KEY_BYTES: usize = 16 << 10;
/// Most ranges that a cursor may have settled ahead of its watermark, and most unsettled events whose attempts it keeps.
pub const SCATTER: usize = 4096;

/// A stream of this log; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(crate) u32);

/// A cursor of this log; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CursorId(pub(crate) u32);

/// An event as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which event of its stream it is.
    pub offset: u64,
    /// Milliseconds since 1970; never less than that of the event before.
    pub time: u64,
    /// What orders it, if anything does.
    pub key: Bytes,
    /// Its content.
    pub payload: Bytes,
    /// What that says, where it is at hand.
    pub decoded: Option<Decoded>,
}

/// How long events are kept that nobody waits for any more; shorter when the disk is full.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Those of a segment whose newest event is older than this many milliseconds go.
    pub age_ms: u64,
    /// The oldest go while the segments are more bytes than this, or than three quarters of the budget.
    pub bytes: u64,
}

/// Sizes of the log, and where it runs.
#[derive(Clone, Debug)]
pub struct EventOptions {
    /// A segment that has grown past this many bytes is closed; at most 1 GiB.
    pub segment_bytes: u64,
    /// Longest payload of an event.
    pub payload_bytes: usize,
    /// Events are refused while the segments are more bytes than this. Copying forward takes up to one segment more.
    pub budget_bytes: u64,
    /// What of the newest events is kept in memory, bytes, with what they say.
    pub tail_bytes: usize,
    /// Room that is kept back on the disk once the log itself is as large, bytes; none with nought. When the disk is full, what consumers settle is
    /// written there, and so are copies out of segments of which no more than half as much is needed, so that something
    /// may go. No event is taken before the room is kept back again, which [`EventLog::tidy`] sees to.
    pub reserve_bytes: usize,
    /// As of [`Options`](crate::Options).
    pub room_bytes: usize,
    /// How long events stay that were settled.
    pub retention: Retention,
    /// Names the present run of the machine, as its boot id does: between two runs lies what a power cut may have done.
    pub run: Vec<u8>,
}

impl Default for EventOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            payload_bytes: 16 << 20,
            budget_bytes: 16 << 30,
            tail_bytes: 16 << 20,
            reserve_bytes: 16 << 20,
            room_bytes: crate::Options::default().room_bytes,
            retention: Retention { age_ms: 24 * 3600 * 1000, bytes: 4 << 30 },
            run: Vec::new(),
        }
    }
}

/// Something to be written.
#[derive(Clone, Debug)]
pub enum Write {
    /// An event at the end of a stream.
    Append {
        /// Whose.
        stream: StreamId,
        /// When, in milliseconds since 1970; the time of the event before where this is earlier.
        time: u64,
        /// What orders it, at most [`KEY_BYTES`].
        key: Bytes,
        /// Its content.
        payload: Bytes,
        /// What that says. With it the tail keeps key and payload as they are given, so that they have to be memory of their
        /// own; without it they are copied.
        decoded: Option<Decoded>,
    },
    /// A stream of this name, at most [`NAME_BYTES`]; the one that is there, if one is.
    CreateStream {
        /// Its name.
        name: Bytes,
    },
    /// No such stream any more: its events and cursors go.
    DeleteStream(StreamId),
    /// A cursor of this name, at most [`NAME_BYTES`]; the one that is there, if one is.
    CreateCursor {
        /// Whose events it waits for.
        stream: StreamId,
        /// Its name; another stream's may have one of the same.
        name: Bytes,
        /// A cursor of the same stream without a parent. What a parent has settled counts as settled by its children,
        /// which keep no event for themselves: so many consumers that are fed by one cost nothing while they wait for
        /// nothing.
        parent: Option<CursorId>,
        /// The first offset it waits for; the stream's end when there is none. Of the events before the end those are
        /// gone that nobody waited for.
        start: Option<u64>,
    },
    /// No such cursor, and none of its children, any more.
    DeleteCursor(CursorId),
    /// A consumer is done with these offsets.
    Settle {
        /// Whose progress.
        cursor: CursorId,
        /// First and last of each range.
        ranges: Vec<(u64, u64)>,
    },
    /// So often a consumer has tried what it is not done with.
    Attempted {
        /// Whose.
        cursor: CursorId,
        /// What.
        offset: u64,
        /// How often.
        attempts: u32,
    },
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The event's offset.
    Appended(u64),
    /// The stream of that name.
    Stream(StreamId),
    /// The cursor of that name.
    Cursor(CursorId),
    /// It is done.
    Done,
}

/// Why something was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The log has the size it may have. There is room again when consumers settle what they hold up.
    #[error("the event log is {used} of {budget} bytes large: no event is taken until consumers catch up")]
    Budget {
        /// Bytes of its segments.
        used: u64,
        /// Most they may be.
        budget: u64,
    },
    /// The disk is full. Nothing of the write is there.
    #[error("the disk is full: no event is taken until there is room")]
    Full,
    /// Longer than it may be.
    #[error("{what} is {bytes} bytes long; at most {limit} are taken")]
    TooLarge {
        /// What is.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// There is no such stream.
    #[error("there is no such stream")]
    NoStream,
    /// There is no such cursor, or none that may be the parent.
    #[error("there is no such cursor")]
    NoCursor,
    /// Offsets that the stream does not have yet, or a range whose end is before its beginning.
    #[error("offsets {first} to {last} are no range of a stream that ends at {end}")]
    OutOfStream {
        /// The first one.
        first: u64,
        /// The last one.
        last: u64,
        /// The stream's next offset.
        end: u64,
    },
    /// The cursor holds as many ranges, or attempts, as it may: its oldest events must be settled first.
    #[error("the cursor has {limit} ranges or attempts ahead of its oldest event, which must be settled first")]
    Scattered {
        /// How many it may have.
        limit: usize,
    },
    /// A segment cannot be read, so that nothing of it can be copied forward.
    #[error("segment {name} cannot be read: what stands in it stays there")]
    Unreadable {
        /// The segment's file name.
        name: String,
    },
    /// A write or a sync failed before; nobody knows what is on disk.
    #[error("the event log stopped: {0}")]
    Stopped(String),
}
