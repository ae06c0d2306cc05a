//! Which streams, cursors and segments there are. Changed only by applying records: those just written, or those read
//! when the log is opened.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    CursorId, Decoded, Event, EventRecord, Progress, Ranges, StreamId, Tally,
    index::{Run, SegmentIndex, StreamIndex},
    record::{self, Record},
    tally::Counts,
    varint::{Take, put, put_bytes},
};
use crate::{
    Frame,
    frame::{frame_with, read_frame},
};

/// What an event in memory costs beside its bytes, about.
const EVENT_COST: usize = 96;

#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) name: Box<[u8]>,
    /// The offset of the next event.
    pub(crate) next: u64,
    /// Events below this offset were synced.
    pub(crate) synced: u64,
    /// Time of the newest event.
    pub(crate) time: u64,
    pub(crate) index: StreamIndex,
    pub(crate) cursors: Vec<CursorId>,
    /// Those of them without a parent, which events stay for.
    roots: Vec<CursorId>,
    /// With whose bytes those are counted that somebody waits for.
    counted: Option<Counts>,
    /// The newest events, without a gap, up to the last.
    pub(crate) tail: VecDeque<Event>,
    /// The last segment that lists the stream among those that have an event in it.
    listed: u64,
}

#[derive(Debug)]
pub(crate) struct Cursor {
    name: Box<[u8]>,
    pub(crate) stream: StreamId,
    pub(crate) parent: Option<CursorId>,
    pub(crate) progress: Progress,
}

/// A segment.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    pub(crate) bytes: u64,
    /// Time of its newest event.
    pub(crate) newest: u64,
    /// Streams that have, or had, events in it.
    pub(crate) streams: Vec<StreamId>,
}

/// Where a record stands.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) at: u32,
    /// Bytes of its frame.
    pub(crate) bytes: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    pub(crate) cursors: BTreeMap<CursorId, Cursor>,
    pub(crate) segments: BTreeMap<u64, Segment>,
    stream_names: HashMap<Box<[u8]>, StreamId>,
    cursor_names: HashMap<(StreamId, Box<[u8]>), CursorId>,
    pub(crate) next_stream: u32,
    pub(crate) next_cursor: u32,
    /// Whose events are in tails, in the order in which they go.
    tails: VecDeque<StreamId>,
    tail_bytes: usize,
    closed_bytes: u64,
    /// Bytes of the segment that is written to.
    pub(crate) open_bytes: u64,
}

impl Stream {
    /// Brings the tally up to what is awaited now.
    fn count(&mut self) {
        if let Some(counted) = &mut self.counted {
            counted.set(self.index.awaited_bytes());
        }
    }
}

/// How many offsets from `first` to `last` one of these cursors waits for.
fn awaited(cursors: &BTreeMap<CursorId, Cursor>, roots: &[CursorId], first: u64, last: u64) -> u64 {
    let unsettled = |root: &CursorId| {
        let progress = cursors.get(root).map(|cursor| &cursor.progress);
        progress.into_iter().flat_map(move |progress| progress.unsettled(first, last.saturating_add(1)))
    };
    match roots {
        [] => 0,
        [root] => unsettled(root).map(|(first, last)| last - first + 1).sum(),
        several => {
            let mut all = Ranges::default();
            several.iter().flat_map(unsettled).for_each(|(first, last)| all.insert(first, last));
            all.count(first, last)
        }
    }
}

fn cost(event: &Event) -> usize {
    event.key.len() + event.payload.len() + EVENT_COST + event.decoded.as_ref().map_or(0, Decoded::bytes)
}

impl Catalog {
    pub(crate) fn stream_named(&self, name: &[u8]) -> Option<StreamId> {
        self.stream_names.get(name).copied()
    }

    pub(crate) fn cursor_named(&self, stream: StreamId, name: &[u8]) -> Option<CursorId> {
        self.cursor_names.get(&(stream, name.into())).copied()
    }

    /// The cursors of a stream and their names.
    pub(crate) fn cursors_of(&self, stream: StreamId) -> Vec<(CursorId, Vec<u8>)> {
        let ids = self.streams.get(&stream).into_iter().flat_map(|stream| &stream.cursors);
        ids.filter_map(|id| Some((*id, self.cursors.get(id)?.name.to_vec()))).collect()
    }

    /// How far a consumer is, what its parent has settled included.
    pub(crate) fn progress(&self, cursor: CursorId) -> Option<Progress> {
        let found = self.cursors.get(&cursor)?;
        let mut progress = found.progress.clone();
        if let Some(parent) = found.parent.and_then(|parent| self.cursors.get(&parent)) {
            progress.raise(parent.progress.watermark());
            parent.progress.ahead().iter().for_each(|(first, last)| progress.settle(first, last));
        }
        Some(progress)
    }

    /// How far a consumer is by itself, above its parent's watermark.
    pub(crate) fn own_progress(&self, cursor: CursorId) -> Option<Progress> {
        let found = self.cursors.get(&cursor)?;
        let mut progress = found.progress.clone();
        if let Some(parent) = found.parent.and_then(|parent| self.cursors.get(&parent)) {
            progress.raise(parent.progress.watermark());
        }
        Some(progress)
    }

    /// The offsets that a cursor of the stream waits for, as ranges.
    pub(crate) fn awaited(&self, stream: &Stream) -> Ranges {
        let mut settled: Option<Ranges> = None;
        for cursor in stream.roots.iter().filter_map(|cursor| self.cursors.get(cursor)) {
            let mut done = cursor.progress.ahead().clone();
            if let Some(last) = cursor.progress.watermark().checked_sub(1) {
                done.insert(0, last);
            }
            settled = Some(settled.map_or_else(|| done.clone(), |both| both.intersection(&done)));
        }
        let mut awaited = Ranges::default();
        if let Some(settled) = settled {
            settled.gaps(0, stream.next).for_each(|(first, last)| awaited.insert(first, last));
        }
        awaited
    }

    /// Takes a record that stands at the end of the log.
    pub(crate) fn apply(&mut self, place: Place, record: &Record<'_>) {
        match record {
            Record::Head { .. } => {}
            Record::Event(event) => self.event(place, event),
            Record::Stream { stream, name } => self.add_stream(*stream, name, 0, 0),
            Record::StreamDeleted(stream) => self.remove_stream(*stream),
            Record::Cursor { cursor, stream, parent, start, name } => {
                self.add_cursor(*cursor, *stream, *parent, Progress::starting_at(*start), name);
            }
            Record::CursorDeleted(cursor) => self.remove_cursor(*cursor),
            Record::Settled { cursor, ranges } => {
                ranges.iter().for_each(|(first, last)| self.settle(*cursor, *first, *last));
            }
            Record::Attempted { cursor, offset, attempts } => {
                if let Some(progress) = self.raised(*cursor) {
                    progress.tried_so_often(*offset, *attempts);
                }
            }
        }
    }

    /// A cursor's own progress, brought up to its parent's watermark: what lies below it is forgotten.
    pub(crate) fn raised(&mut self, cursor: CursorId) -> Option<&mut Progress> {
        let parent = self.cursors.get(&cursor)?.parent;
        let watermark = parent.and_then(|parent| self.cursors.get(&parent)).map(|parent| parent.progress.watermark());
        let progress = &mut self.cursors.get_mut(&cursor)?.progress;
        if let Some(watermark) = watermark {
            progress.raise(watermark);
        }
        Some(progress)
    }

    fn settle(&mut self, cursor: CursorId, first: u64, last: u64) {
        let done = self.done_by(cursor, first, last);
        if let Some(progress) = self.raised(cursor) {
            progress.settle(first, last);
        }
        let stream = self.cursors.get(&cursor).and_then(|cursor| self.streams.get_mut(&cursor.stream));
        if let Some(stream) = stream.filter(|_| !done.is_empty()) {
            done.iter().for_each(|(first, last)| stream.index.settled(first, last));
            stream.count();
        }
    }

    /// Of these offsets those that nobody but this cursor waits for: none for one with a parent, which keeps nothing.
    fn done_by(&self, cursor: CursorId, first: u64, last: u64) -> Ranges {
        let mut done = Ranges::default();
        let Some(own) = self.cursors.get(&cursor).filter(|cursor| cursor.parent.is_none()) else { return done };
        own.progress.unsettled(first, last.saturating_add(1)).for_each(|(first, last)| done.insert(first, last));
        let others = self.streams.get(&own.stream).into_iter().flat_map(|stream| &stream.roots);
        for other in others.filter(|other| **other != cursor).filter_map(|other| self.cursors.get(other)) {
            let waits: Vec<(u64, u64)> = other.progress.unsettled(first, last.saturating_add(1)).collect();
            waits.into_iter().for_each(|(first, last)| done.remove(first, last));
        }
        done
    }

    /// Counts what is awaited of a stream with the others of this tally from now on.
    pub(crate) fn tally(&mut self, id: StreamId, with: Arc<Tally>) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.counted = Some(Counts::new(with));
            stream.count();
        }
    }

    /// Whether it is counted there already.
    pub(crate) fn is_tallied(&self, id: StreamId, with: &Arc<Tally>) -> bool {
        let counted = self.streams.get(&id).and_then(|stream| stream.counted.as_ref());
        counted.is_some_and(|counted| counted.is_with(with))
    }

    /// Counts anew what is awaited of a stream whose cursors changed.
    fn recount(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.index.count(&|first, last| awaited(&self.cursors, &stream.roots, first, last));
        stream.count();
    }

    fn event(&mut self, place: Place, event: &EventRecord<'_>) {
        // Where the record that made a stream is lost, no other stream may have its events.
        self.next_stream = self.next_stream.max(event.stream.0.saturating_add(1));
        let Some(stream) = self.streams.get_mut(&event.stream) else { return };
        let waited = |first, last| awaited(&self.cursors, &stream.roots, first, last);
        stream.index.add(place.segment, place.at, place.bytes, event, &waited);
        stream.count();
        stream.next = stream.next.max(event.offset + 1);
        stream.time = stream.time.max(event.time);
        let segment = self.segments.entry(place.segment).or_default();
        segment.newest = segment.newest.max(event.time);
        if stream.listed != place.segment {
            stream.listed = place.segment;
            segment.streams.push(event.stream);
        }
    }

    fn add_stream(&mut self, id: StreamId, name: &[u8], next: u64, time: u64) {
        self.next_stream = self.next_stream.max(id.0.saturating_add(1));
        self.stream_names.insert(name.into(), id);
        self.streams.insert(id, Stream { name: name.into(), next, time, ..Stream::default() });
    }

    fn remove_stream(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.stream_names.remove(&stream.name);
        if !stream.tail.is_empty() {
            self.tail_bytes -= stream.tail.iter().map(cost).sum::<usize>();
            self.tails.retain(|of| *of != id);
        }
        stream.cursors.iter().for_each(|cursor| self.forget_cursor(*cursor));
    }

    fn add_cursor(&mut self, id: CursorId, of: StreamId, parent: Option<CursorId>, progress: Progress, name: &[u8]) {
        self.next_cursor = self.next_cursor.max(id.0.saturating_add(1));
        let Some(stream) = self.streams.get_mut(&of) else { return };
        stream.cursors.push(id);
        stream.roots.extend(parent.is_none().then_some(id));
        self.cursor_names.insert((of, name.into()), id);
        self.cursors.insert(id, Cursor { name: name.into(), stream: of, parent, progress });
        if parent.is_none() {
            self.recount(of);
        }
    }

    fn remove_cursor(&mut self, id: CursorId) {
        let Some(of) = self.cursors.get(&id).map(|cursor| cursor.stream) else { return };
        let Some(stream) = self.streams.get_mut(&of) else { return };
        let cursors = &self.cursors;
        let has_children = cursors.get(&id).is_some_and(|cursor| cursor.parent.is_none());
        let is_child = |cursor: &CursorId| cursors.get(cursor).is_some_and(|cursor| cursor.parent == Some(id));
        let goes = |cursor: &CursorId| *cursor == id || has_children && is_child(cursor);
        let (gone, left) = std::mem::take(&mut stream.cursors).into_iter().partition(goes);
        stream.cursors = left;
        stream.roots.retain(|root| *root != id);
        let gone: Vec<CursorId> = gone;
        gone.into_iter().for_each(|cursor| self.forget_cursor(cursor));
        if has_children {
            self.recount(of);
        }
    }

    fn forget_cursor(&mut self, id: CursorId) {
        if let Some(cursor) = self.cursors.remove(&id) {
            self.cursor_names.remove(&(cursor.stream, cursor.name));
        }
    }

    /// Keeps a new event in memory, and at most `budget` bytes of all.
    pub(crate) fn remember(&mut self, id: StreamId, event: Event, budget: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        self.tail_bytes += cost(&event);
        stream.tail.push_back(event);
        self.tails.push_back(id);
        while self.tail_bytes > budget
            && let Some(oldest) = self.tails.pop_front()
        {
            if let Some(event) = self.streams.get_mut(&oldest).and_then(|stream| stream.tail.pop_front()) {
                self.tail_bytes -= cost(&event);
            }
        }
    }

    /// Takes what is known of a closed segment that is older than all records applied later.
    pub(crate) fn add_segment(&mut self, number: u64, index: SegmentIndex) {
        let mut segment = Segment { bytes: index.bytes, newest: index.newest, streams: Vec::new() };
        for (id, runs) in index.streams {
            self.next_stream = self.next_stream.max(id.0.saturating_add(1));
            if let Some(stream) = self.streams.get_mut(&id) {
                let waited = |first, last| awaited(&self.cursors, &stream.roots, first, last);
                runs.into_iter().for_each(|run| stream.index.add_run(run, &waited));
                stream.listed = number;
                segment.streams.push(id);
            }
        }
        self.closed_bytes += segment.bytes;
        self.segments.insert(number, segment);
    }

    /// Notes that a segment is closed at this length. Returns what is kept beside it.
    pub(crate) fn close_segment(&mut self, number: u64, bytes: u64) -> SegmentIndex {
        let segment = self.segments.entry(number).or_default();
        self.closed_bytes += bytes - std::mem::replace(&mut segment.bytes, bytes);
        segment.streams.sort_unstable();
        segment.streams.shrink_to_fit();
        let mut streams = Vec::new();
        for id in &segment.streams {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.index.closed(number);
                streams.push((*id, stream.index.within(number).cloned().collect::<Vec<Run>>()));
            }
        }
        SegmentIndex { bytes, newest: segment.newest, streams }
    }

    /// Forgets what stands in a segment of the offsets of a stream up to `last`.
    pub(crate) fn forget_up_to(&mut self, id: StreamId, segment: u64, last: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let waited = |first, last| awaited(&self.cursors, &stream.roots, first, last);
        stream.index.forget_up_to(segment, last, &waited);
        stream.count();
    }

    /// Forgets a segment.
    pub(crate) fn remove_segment(&mut self, number: u64) {
        let Some(segment) = self.segments.remove(&number) else { return };
        self.closed_bytes -= segment.bytes;
        for id in segment.streams {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.index.forget(number);
                stream.count();
            }
        }
    }

    /// Bytes of the segments that are closed.
    pub(crate) fn closed_bytes(&self) -> u64 {
        self.closed_bytes
    }

    /// The content of the file that says how streams and cursors are as segment `number` begins.
    pub(crate) fn encode(&self, number: u64) -> Vec<u8> {
        let mut file = Vec::new();
        frame_with(&mut file, |out| {
            for number in [record::VERSION, number, self.next_stream.into(), self.next_cursor.into()] {
                put(number, out);
            }
            put(self.streams.len() as u64, out);
            for (id, stream) in &self.streams {
                put(id.0.into(), out);
                put_bytes(&stream.name, out);
                put(stream.next, out);
                put(stream.time, out);
            }
            put(self.cursors.len() as u64, out);
            for (id, cursor) in &self.cursors {
                put(id.0.into(), out);
                put(cursor.stream.0.into(), out);
                put(cursor.parent.map_or(0, |parent| u64::from(parent.0) + 1), out);
                put_bytes(&cursor.name, out);
                put(cursor.progress.watermark(), out);
                record::put_ranges(cursor.progress.ahead().iter(), out);
                put(cursor.progress.tried().len() as u64, out);
                for (offset, attempts) in cursor.progress.tried() {
                    put(*offset, out);
                    put((*attempts).into(), out);
                }
            }
        });
        file
    }

    /// Reads what [`Catalog::encode`] wrote; `None` when it is not that.
    pub(crate) fn decode(file: &[u8], number: u64) -> Option<Catalog> {
        let (Frame::Record(payload), _) = read_frame(file, 0).filter(|(_, end)| *end == file.len())? else {
            return None;
        };
        let mut take = Take { rest: payload };
        (take.number()? == record::VERSION && take.number()? == number).then_some(())?;
        let mut catalog = Catalog::default();
        let (next_stream, next_cursor) = (take.small()?, take.small()?);
        take.list(|take| {
            let (id, name) = (StreamId(take.small()?), take.bytes()?);
            catalog.add_stream(id, name, take.number()?, take.number()?);
            Some(())
        })?;
        take.list(|take| {
            let (id, stream) = (CursorId(take.small()?), StreamId(take.small()?));
            let (parent, name, watermark) = (record::take_parent(take)?, take.bytes()?, take.number()?);
            let ahead = record::take_ranges(take)?;
            let attempts = take.list(|take| Some((take.number()?, take.small()?)))?;
            catalog.add_cursor(id, stream, parent, Progress::restored(watermark, &ahead, attempts), name);
            Some(())
        })?;
        (catalog.next_stream, catalog.next_cursor) = (next_stream, next_cursor);
        take.is_done().then_some(catalog)
    }
}

/// An event whose bytes are a part of `whole`.
pub(crate) fn shared(whole: &Bytes, event: &EventRecord<'_>) -> Event {
    Event {
        offset: event.offset,
        time: event.time,
        key: whole.slice_ref(event.key),
        payload: whole.slice_ref(event.payload),
        decoded: None,
    }
}

/// An event with bytes of its own.
pub(crate) fn copied(event: &EventRecord<'_>) -> Event {
    let (key, payload) = (Bytes::copy_from_slice(event.key), Bytes::copy_from_slice(event.payload));
    Event { offset: event.offset, time: event.time, key, payload, decoded: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(catalog: &mut Catalog, record: &Record<'_>) {
        catalog.apply(Place { segment: 1, at: 0, bytes: 1 }, record);
    }

    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        let stream = StreamId(0);
        apply(&mut catalog, &Record::Stream { stream, name: b"broker" });
        for (id, parent) in [(0, None), (1, Some(CursorId(0))), (2, None)] {
            let name = format!("cursor-{id}").into_bytes();
            apply(&mut catalog, &Record::Cursor { cursor: CursorId(id), stream, parent, start: 1, name: &name });
        }
        catalog.streams.get_mut(&stream).expect("made").next = 20;
        apply(&mut catalog, &Record::Settled { cursor: CursorId(0), ranges: vec![(1, 4), (7, 9)] });
        apply(&mut catalog, &Record::Attempted { cursor: CursorId(1), offset: 6, attempts: 3 });
        apply(&mut catalog, &Record::Settled { cursor: CursorId(2), ranges: vec![(1, 7), (12, 19)] });
        catalog
    }

    #[test]
    fn an_event_is_awaited_until_all_cursors_without_a_parent_have_settled_it() {
        let mut catalog = catalog();
        let awaited = |catalog: &Catalog| catalog.awaited(&catalog.streams[&StreamId(0)]).iter().collect::<Vec<_>>();
        assert_eq!(awaited(&catalog), [(5, 6), (8, 19)]);
        assert_eq!(catalog.progress(CursorId(1)).expect("there").watermark(), 5, "its parent's");
        apply(&mut catalog, &Record::CursorDeleted(CursorId(0)));
        assert_eq!(awaited(&catalog), [(8, 11)]);
        assert_eq!(catalog.progress(CursorId(1)), None, "it went with its parent");
        apply(&mut catalog, &Record::CursorDeleted(CursorId(2)));
        assert_eq!(awaited(&catalog), [], "nobody waits");
    }

    #[test]
    fn streams_that_come_and_go_leave_nothing_in_memory() {
        let mut catalog = Catalog::default();
        for id in 0..100 {
            let stream = StreamId(id);
            apply(&mut catalog, &Record::Stream { stream, name: b"short-lived" });
            let event = Event { offset: 0, time: 0, key: Bytes::new(), payload: Bytes::new(), decoded: None };
            catalog.remember(stream, event, 1 << 20);
            apply(&mut catalog, &Record::StreamDeleted(stream));
        }
        assert_eq!((catalog.tails.len(), catalog.tail_bytes, catalog.stream_names.len()), (0, 0, 0));
    }

    #[test]
    fn streams_and_cursors_read_back_and_no_changed_byte_is_taken() {
        let catalog = catalog();
        let file = catalog.encode(7);
        let read = Catalog::decode(&file, 7).expect("reads");
        assert_eq!(read.encode(7), file);
        assert_eq!(read.cursor_named(StreamId(0), b"cursor-1"), Some(CursorId(1)));
        assert_eq!(read.progress(CursorId(1)), catalog.progress(CursorId(1)));
        assert!(Catalog::decode(&file, 8).is_none());
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 1;
            assert!(Catalog::decode(&flipped, 7).is_none(), "byte {at}");
        }
    }
}
