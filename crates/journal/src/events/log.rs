//! Writing: one owner, batches, one sync for all that was written before it.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    CursorId, Decoded, Event, EventOptions, EventRecord, KEY_BYTES, NAME_BYTES, Ranges, SCATTER, StreamId, Write,
    WriteError, Written,
    catalog::{Catalog, Place, copied, shared},
    files,
    read::{EventReader, Shared},
    record::Record,
    retention::Cleaning,
};
use crate::{Batch, Claim, Disk, Log, LogError, Options, frame::records_of_batch};

/// A batch that has grown past this many bytes is written.
const BATCH_BYTES: usize = 4 << 20;
/// No segment grows longer than this, so that places are small numbers.
const LONGEST_SEGMENT: u64 = 2 << 30;
/// Largest size at which a segment is closed.
const LARGEST_SEGMENT: u64 = 1 << 30;

/// The event log, for the one who writes.
pub struct EventLog {
    pub(super) shared: Arc<Shared>,
    pub(super) log: Log,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: EventOptions,
    /// Streams with events that were written since the last sync.
    dirty: Vec<StreamId>,
    /// Whether a new segment must begin before anything is written.
    must_rotate: bool,
    /// The segment as of whose beginning streams and cursors are kept.
    pub(super) kept: u64,
    /// A segment that is being copied forward.
    pub(super) cleaning: Option<Cleaning>,
    /// Segments that could not be read when they were to be copied.
    pub(super) unreadable: BTreeSet<u64>,
    /// Whether room is kept back on the disk for those who settle.
    pub(super) reserve: bool,
    /// Whether the disk was full since room was last made.
    pub(super) short: bool,
    stopped: Option<String>,
    /// Nobody else writes the files meanwhile.
    _claim: Claim,
}

/// The head of a segment.
pub(crate) fn head(run: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Record::Head { run }.encode(&mut bytes);
    bytes
}

pub(crate) fn log_options(options: &EventOptions) -> Options {
    Options {
        segment_bytes: options.segment_bytes.min(LARGEST_SEGMENT),
        record_bytes: options.payload_bytes + KEY_BYTES + NAME_BYTES,
        room_bytes: options.room_bytes,
    }
}

/// Writes that go into the log together.
#[derive(Default)]
pub(super) struct Staged {
    batch: Batch,
    /// Which outcomes depend on it.
    outcomes: Vec<usize>,
    /// Bytes of new events' keys and payloads, but for those of `decoded`.
    event_bytes: usize,
    /// New events of which it is known what they say, in the order of their records.
    decoded: VecDeque<(StreamId, Event)>,
    /// The next offset and the newest time of streams, as they will be.
    ends: HashMap<StreamId, (u64, u64)>,
    /// Places at most by which each cursor's progress will be more scattered.
    scatter: HashMap<CursorId, usize>,
}

impl Staged {
    /// Adds a record.
    pub(super) fn push(&mut self, record: &Record<'_>) {
        self.batch.push_with(|out| record.encode(out));
    }

    pub(super) fn is_long(&self) -> bool {
        self.batch.len() >= BATCH_BYTES
    }
}

impl EventLog {
    pub(super) fn new(
        log: Log,
        (disk, claim): (Arc<dyn Disk>, Claim),
        options: EventOptions,
        shared: Arc<Shared>,
        kept: u64,
        must_rotate: bool,
    ) -> EventLog {
        EventLog {
            shared,
            log,
            disk,
            options,
            dirty: Vec::new(),
            must_rotate,
            kept,
            cleaning: None,
            unreadable: BTreeSet::new(),
            reserve: false,
            short: false,
            stopped: None,
            _claim: claim,
        }
    }

    /// Keeps room back, and begins a new segment where the last one must not be gone on with.
    pub(super) fn settle_in(&mut self, names: &[String]) -> Result<(), LogError> {
        self.reserve = names.iter().any(|name| name == files::RESERVE);
        let begun = self.keep_back().and_then(|_| if self.must_rotate { self.rotate() } else { Ok(()) });
        match begun {
            Err(error) if error.is_full() => {
                tracing::warn!(%error, "no room for a new segment: nothing is taken before there is");
                self.short = true;
                Ok(())
            }
            rotated => rotated,
        }
    }

    /// For those who read, any number of them, at any time.
    pub fn reader(&self) -> EventReader {
        EventReader::new(self.shared.clone())
    }

    /// Writes, in order. What was written survives the death of this process, not a power cut, and is shown to readers
    /// after the next [`EventLog::sync`]. Each write has its own outcome.
    pub fn write(&mut self, writes: &[Write]) -> Vec<Result<Written, WriteError>> {
        let mut outcomes = Vec::with_capacity(writes.len());
        let mut staged = Staged::default();
        staged.batch.reserve(writes.iter().map(room).sum::<usize>().min(BATCH_BYTES));
        for write in writes {
            // What is there decides what these say, so what came before is put there first.
            let alone = !matches!(write, Write::Append { .. } | Write::Settle { .. } | Write::Attempted { .. });
            if alone || staged.is_long() {
                self.flush(writes, &mut staged, &mut outcomes);
            }
            let mut outcome = self.stage(write, &mut staged);
            if matches!(outcome, Err(WriteError::Scattered { .. })) && !staged.batch.is_empty() {
                // What is staged counts in full, though it may fill gaps. Written, it counts as it is.
                self.flush(writes, &mut staged, &mut outcomes);
                outcome = self.stage(write, &mut staged);
            }
            if outcome.is_ok() {
                staged.outcomes.push(outcomes.len());
            }
            outcomes.push(outcome);
            if alone {
                self.flush(writes, &mut staged, &mut outcomes);
            }
        }
        self.flush(writes, &mut staged, &mut outcomes);
        outcomes
    }

    /// Writes what is staged; where that fails, the outcomes that depend on it say why.
    fn flush(&mut self, writes: &[Write], staged: &mut Staged, outcomes: &mut [Result<Written, WriteError>]) {
        let mut staged = std::mem::take(staged);
        let dependent = std::mem::take(&mut staged.outcomes);
        let Err(error) = self.put(staged) else { return };
        for outcome in &dependent {
            outcomes[*outcome] = Err(error.clone());
        }
        if error == WriteError::Full {
            self.flush_in_reserve(writes, &dependent, outcomes);
        }
    }

    /// Writes on a full disk what lets something of it go, into the room kept back for that: else none ever would.
    fn flush_in_reserve(
        &mut self,
        writes: &[Write],
        dependent: &[usize],
        outcomes: &mut [Result<Written, WriteError>],
    ) {
        let frees =
            |write: &Write| matches!(write, Write::Settle { .. } | Write::DeleteStream(_) | Write::DeleteCursor(_));
        let freeing: Vec<usize> = dependent.iter().copied().filter(|at| frees(&writes[*at])).collect();
        loop {
            let mut staged = Staged::default();
            freeing.iter().for_each(|at| outcomes[*at] = self.stage(&writes[*at], &mut staged));
            let Err(error) = self.put(staged) else { return };
            for at in &freeing {
                outcomes[*at] = std::mem::replace(&mut outcomes[*at], Ok(Written::Done)).and(Err(error.clone()));
            }
            if error != WriteError::Full || !self.release() {
                return;
            }
        }
    }

    /// Makes what was written survive a power cut, and shows it to readers. Returns the streams that have more events
    /// now.
    ///
    /// # Errors
    /// [`WriteError::Stopped`]: nothing is written any more.
    pub fn sync(&mut self) -> Result<Vec<StreamId>, WriteError> {
        self.running()?;
        self.log.sync().map_err(|error| self.stop(&error))?;
        Ok(self.show())
    }

    /// Syncs, and leaves the log so that a later start can tell all damage from what a crash does.
    ///
    /// # Errors
    /// [`WriteError::Stopped`]: nothing is written any more.
    pub fn close(mut self) -> Result<(), WriteError> {
        self.running()?;
        self.log.close().map_err(|error| self.stop(&error))
    }

    pub(super) fn running(&self) -> Result<(), WriteError> {
        self.stopped.clone().map_or(Ok(()), |reason| Err(WriteError::Stopped(reason)))
    }

    /// Shows what was synced.
    fn show(&mut self) -> Vec<StreamId> {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty.dedup();
        let mut catalog = self.shared.write();
        dirty.retain(|id| match catalog.streams.get_mut(id) {
            Some(stream) => std::mem::replace(&mut stream.synced, stream.next) != stream.next,
            None => false,
        });
        dirty
    }

    /// Checks a write and adds its record.
    fn stage(&self, write: &Write, staged: &mut Staged) -> Result<Written, WriteError> {
        self.running()?;
        let catalog = self.shared.read();
        match write {
            Write::Append { stream, time, key, payload, decoded } => {
                return self.stage_event(&catalog, staged, (*stream, *time, key, payload), decoded.as_ref());
            }
            Write::CreateStream { name } => {
                within("the stream's name", name, NAME_BYTES)?;
                if let Some(stream) = catalog.stream_named(name) {
                    return Ok(Written::Stream(stream));
                }
                let stream = StreamId(catalog.next_stream);
                staged.push(&Record::Stream { stream, name });
                return Ok(Written::Stream(stream));
            }
            Write::DeleteStream(stream) => {
                catalog.streams.get(stream).ok_or(WriteError::NoStream)?;
                staged.push(&Record::StreamDeleted(*stream));
            }
            Write::CreateCursor { stream, name, parent, start } => {
                return stage_cursor(&catalog, staged, *stream, name, *parent, *start);
            }
            Write::DeleteCursor(cursor) => {
                catalog.cursors.get(cursor).ok_or(WriteError::NoCursor)?;
                staged.push(&Record::CursorDeleted(*cursor));
            }
            Write::Settle { cursor, ranges } => {
                let mut ordered = Ranges::default();
                for (first, last) in ranges {
                    within_stream(&catalog, *cursor, *first, *last)?;
                    ordered.insert(*first, *last);
                }
                let scatter = staged.scatter.entry(*cursor).or_default();
                settles_within_bounds(&catalog, *cursor, &ordered, *scatter)?;
                *scatter += ordered.len();
                staged.push(&Record::Settled { cursor: *cursor, ranges: ordered.iter().collect() });
            }
            Write::Attempted { cursor, offset, attempts } => {
                let progress = &catalog.cursors.get(cursor).ok_or(WriteError::NoCursor)?.progress;
                within_stream(&catalog, *cursor, *offset, *offset)?;
                let scatter = staged.scatter.entry(*cursor).or_default();
                let new = usize::from(progress.attempts(*offset) == 0);
                scattered(progress.tried().len() + *scatter + new)?;
                *scatter += new;
                staged.push(&Record::Attempted { cursor: *cursor, offset: *offset, attempts: *attempts });
            }
        }
        Ok(Written::Done)
    }

    fn stage_event(
        &self,
        catalog: &Catalog,
        staged: &mut Staged,
        (id, time, key, payload): (StreamId, u64, &Bytes, &Bytes),
        decoded: Option<&Decoded>,
    ) -> Result<Written, WriteError> {
        let stream = catalog.streams.get(&id).ok_or(WriteError::NoStream)?;
        within("the event's key", key, KEY_BYTES)?;
        within("the event", payload, self.options.payload_bytes)?;
        let used = catalog.closed_bytes() + self.log.written() + staged.batch.len() as u64;
        let (budget, reserve) = (self.options.budget_bytes, self.options.reserve_bytes as u64);
        if self.short && !self.reserve && reserve > 0 && used >= reserve {
            return Err(WriteError::Full);
        }
        if used + payload.len() as u64 > budget {
            return Err(WriteError::Budget { used, budget });
        }
        let end = staged.ends.entry(id).or_insert((stream.next, stream.time));
        let (offset, time) = (end.0, time.max(end.1));
        *end = (offset + 1, time);
        staged.push(&Record::Event(EventRecord { stream: id, offset, skipped: 0, time, key, payload }));
        if let Some(decoded) = decoded {
            let (key, payload, decoded) = (key.clone(), payload.clone(), Some(decoded.clone()));
            staged.decoded.push_back((id, Event { offset, time, key, payload, decoded }));
        } else {
            staged.event_bytes += key.len() + payload.len();
        }
        Ok(Written::Appended(offset))
    }

    /// Writes a batch, takes it in, and begins a new segment where this one is long enough.
    pub(super) fn put(&mut self, mut staged: Staged) -> Result<(), WriteError> {
        if staged.batch.is_empty() {
            return Ok(());
        }
        self.running()?;
        if self.must_rotate {
            self.rotate().map_err(|error| self.failed(&error))?;
        }
        if self.log.written() + staged.batch.len() as u64 > LONGEST_SEGMENT {
            return Err(WriteError::Full);
        }
        self.log.append(&mut staged.batch).map_err(|error| self.failed(&error))?;
        self.take_in(staged);
        if !self.short
            && let Err(error) = self.keep_back()
        {
            // What was written is there; who asks for the sync of it is told.
            self.stop(&error);
            return Ok(());
        }
        if self.log.is_full() {
            match self.rotate() {
                Ok(()) => {}
                Err(error) if error.is_full() => {
                    tracing::warn!(%error, "no room for a new segment; the open one grows");
                    self.short = true;
                }
                // What was written is there; who asks for the sync of it is told.
                Err(error) => drop(self.stop(&error)),
            }
        }
        Ok(())
    }

    /// Applies the records just written.
    fn take_in(&mut self, Staged { batch, event_bytes, mut decoded, .. }: Staged) {
        // The tail keeps the batch as it is, unless that is mostly something else.
        let keeps_batch = event_bytes * 2 >= batch.len();
        let segment = self.log.sequence();
        let start = self.log.written() - batch.len() as u64;
        let frames = batch.into_frames();
        let mut catalog = self.shared.write();
        catalog.open_bytes = self.log.written();
        for (at, end, payload) in records_of_batch(&frames) {
            let Some(record) = Record::decode(payload) else { continue };
            let (at, bytes) = (start + at as u64, end - at);
            let is_new = |event: &EventRecord<'_>| {
                catalog.streams.get(&event.stream).is_some_and(|stream| event.offset >= stream.next)
            };
            let new = match &record {
                Record::Event(event) if is_new(event) => {
                    let known =
                        decoded.pop_front_if(|(stream, known)| *stream == event.stream && known.offset == event.offset);
                    let taken = || if keeps_batch { shared(&frames, event) } else { copied(event) };
                    Some((event.stream, known.map_or_else(taken, |(_, event)| event)))
                }
                _ => None,
            };
            let at = u32::try_from(at).expect("segments are bounded");
            catalog.apply(Place { segment, at, bytes: u32::try_from(bytes).expect("records are bounded") }, &record);
            if let Some((stream, event)) = new {
                self.dirty.push(stream);
                catalog.remember(stream, event, self.options.tail_bytes);
            }
        }
    }

    /// Closes the open segment, keeps what stands in it, and begins the next one.
    pub(super) fn rotate(&mut self) -> Result<(), LogError> {
        let (closed, bytes) = (self.log.sequence(), self.log.written());
        let head = head(&self.options.run);
        let next = match self.log.rotate(&head) {
            Err(error) if error.is_full() && self.release() => self.log.rotate(&head)?,
            begun => begun?,
        };
        self.must_rotate = false;
        let (index, state) = {
            let mut catalog = self.shared.write();
            catalog.open_bytes = self.log.written();
            (catalog.close_segment(closed, bytes), catalog.encode(next))
        };
        // Without these a start reads more, and nothing is removed meanwhile.
        let disk = self.disk.clone();
        let keep = || {
            files::write_index(disk.as_ref(), closed, &index)
                .and_then(|()| files::write_state(disk.as_ref(), next, &state))
        };
        let kept = match keep() {
            Err(error) if error.is_full() && self.release() => keep(),
            kept => kept,
        };
        match kept {
            Ok(()) => self.kept = next,
            Err(error) => {
                tracing::warn!(%error, "keep what stands in a closed segment, and how streams and cursors are")
            }
        }
        Ok(())
    }

    /// What a failed write means: no room, or the end.
    pub(super) fn failed(&mut self, error: &LogError) -> WriteError {
        if !error.is_full() {
            return self.stop(error);
        }
        self.short = true;
        WriteError::Full
    }

    /// Keeps room back on the disk, if none is and the log is large enough to be what fills it. Says whether it found the
    /// room.
    pub(super) fn keep_back(&mut self) -> Result<bool, LogError> {
        let is_large = || self.shared.read().closed_bytes() + self.log.written() >= self.options.reserve_bytes as u64;
        if !self.reserve && self.options.reserve_bytes > 0 && is_large() {
            match files::write_reserve(self.disk.as_ref(), self.options.reserve_bytes) {
                Ok(()) => self.reserve = true,
                Err(error) if error.is_full() => {
                    tracing::warn!(%error, "no room to keep back: no event is taken before there is");
                    self.short = true;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Gives back the room that is kept back. Says whether there was some.
    pub(super) fn release(&mut self) -> bool {
        let released = self.reserve && files::remove_reserve(self.disk.as_ref());
        self.reserve &= !released;
        self.short |= released;
        released
    }

    /// After a failed write or sync nobody knows what is on disk, so nothing more is acknowledged.
    pub(super) fn stop(&mut self, error: &LogError) -> WriteError {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let reason = format!("{error}{cause}");
        tracing::error!(reason, "the event log stops taking writes");
        self.stopped = Some(reason.clone());
        WriteError::Stopped(reason)
    }
}

/// About how many bytes of a batch a write takes.
fn room(write: &Write) -> usize {
    /// A frame, and numbers.
    const AROUND: usize = 40;
    match write {
        Write::Append { key, payload, .. } => AROUND + key.len() + payload.len(),
        _ => AROUND,
    }
}

fn within(what: &'static str, bytes: &Bytes, limit: usize) -> Result<(), WriteError> {
    if bytes.len() <= limit { Ok(()) } else { Err(WriteError::TooLarge { what, bytes: bytes.len(), limit }) }
}

fn within_stream(catalog: &Catalog, cursor: CursorId, first: u64, last: u64) -> Result<(), WriteError> {
    let stream = catalog.cursors.get(&cursor).and_then(|cursor| catalog.streams.get(&cursor.stream));
    let end = stream.ok_or(WriteError::NoCursor)?.synced;
    if first <= last && last < end { Ok(()) } else { Err(WriteError::OutOfStream { first, last, end }) }
}

/// Checks how many ranges there will be, `staged` of them not written yet. The exact answer costs a copy of them, so it is
/// asked for near the bound only, and once all are written.
fn settles_within_bounds(
    catalog: &Catalog,
    cursor: CursorId,
    settled: &Ranges,
    staged: usize,
) -> Result<(), WriteError> {
    let there = catalog.cursors.get(&cursor).ok_or(WriteError::NoCursor)?.progress.ahead().len();
    if there + staged + settled.len() <= SCATTER {
        return Ok(());
    }
    if staged > 0 {
        return Err(WriteError::Scattered { limit: SCATTER });
    }
    let mut progress = catalog.own_progress(cursor).ok_or(WriteError::NoCursor)?;
    settled.iter().for_each(|(first, last)| progress.settle(first, last));
    scattered(progress.ahead().len())
}

fn scattered(places: usize) -> Result<(), WriteError> {
    if places <= SCATTER { Ok(()) } else { Err(WriteError::Scattered { limit: SCATTER }) }
}

fn stage_cursor(
    catalog: &Catalog,
    staged: &mut Staged,
    stream: StreamId,
    name: &Bytes,
    parent: Option<CursorId>,
    start: Option<u64>,
) -> Result<Written, WriteError> {
    within("the cursor's name", name, NAME_BYTES)?;
    let end = catalog.streams.get(&stream).ok_or(WriteError::NoStream)?.next;
    if let Some(cursor) = catalog.cursor_named(stream, name) {
        return Ok(Written::Cursor(cursor));
    }
    let may_be_parent = |parent: CursorId| {
        catalog.cursors.get(&parent).is_some_and(|parent| parent.stream == stream && parent.parent.is_none())
    };
    if parent.is_some_and(|parent| !may_be_parent(parent)) {
        return Err(WriteError::NoCursor);
    }
    let start = start.unwrap_or(end);
    if start > end {
        return Err(WriteError::OutOfStream { first: start, last: start, end });
    }
    let cursor = CursorId(catalog.next_cursor);
    staged.push(&Record::Cursor { cursor, stream, parent, start, name });
    // What is gone is not waited for.
    let mut there = Ranges::default();
    let stream = &catalog.streams[&stream];
    stream.index.runs().iter().for_each(|run| there.insert(run.first, run.last));
    let ranges: Vec<(u64, u64)> = there.gaps(start, end).collect();
    if !ranges.is_empty() {
        staged.push(&Record::Settled { cursor, ranges });
    }
    Ok(Written::Cursor(cursor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDisk;

    #[test]
    fn an_event_in_memory_keeps_no_more_than_itself_out_of_what_was_written_with_it() {
        let options = EventOptions { reserve_bytes: 0, ..EventOptions::default() };
        let (mut log, _) = EventLog::open(Arc::new(MemoryDisk::default()), options).expect("opens");
        let Ok(Written::Stream(stream)) = log.write(&[Write::CreateStream { name: Bytes::from_static(b"s") }])[0]
        else {
            panic!("no stream")
        };
        let cursor = Write::CreateCursor { stream, name: Bytes::from_static(b"c"), parent: None, start: None };
        let Ok(Written::Cursor(cursor)) = log.write(&[cursor])[0] else { panic!("no cursor") };
        let event =
            Write::Append { stream, time: 1, key: Bytes::new(), payload: Bytes::from_static(b"small"), decoded: None };
        assert!(log.write(&vec![event.clone(); 2 * SCATTER]).iter().all(Result::is_ok));
        log.sync().expect("syncs");
        let ranges = (0..SCATTER as u64).map(|n| (2 * n + 1, 2 * n + 1)).collect();
        let outcomes = log.write(&[event, Write::Settle { cursor, ranges }]);
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        let catalog = log.shared.read();
        assert!(catalog.streams[&stream].tail.back().expect("there").payload.is_unique());
    }
}
