//! Where the events of a stream stand: a few places of each segment, not one an event.
//!
//! A stream's index is a list of runs. A run is a stretch of offsets whose events stand in one segment, in order, with
//! an entry for the first event of each [`BLOCK`] of the file. Sixteen thousand events of 1 KB cost 512 entries of
//! eight bytes; a stream of which an event stands here and there costs an entry an event.
//!
//! Events are copied forward, so that one may stand in two segments. What stands later in the log counts: adding a
//! stretch of offsets takes it from whatever run had it.

use super::{EventRecord, StreamId, varint};
use crate::frame::{frame_with, read_frame};

/// An event that starts so many bytes or more behind the last entry's gets an entry of its own. This is what reading one
/// event costs, too.
pub(crate) const BLOCK: u32 = 32 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// Distance from the run's base.
    ahead: u32,
    /// Where in the segment.
    place: u32,
}

/// Offsets whose events stand in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first offset the run answers for.
    pub(crate) first: u64,
    /// The last one; there is an event of it.
    pub(crate) last: u64,
    pub(crate) segment: u64,
    /// Events of the run.
    pub(crate) events: u32,
    /// Bytes of their frames.
    pub(crate) bytes: u32,
    /// Where the last event ends in the segment.
    end: u32,
    /// What the entries count from.
    base: u64,
    entries: Vec<Entry>,
    /// How many of its offsets somebody waits for.
    awaited: u32,
}

/// How many offsets from one to another, both among them, somebody waits for.
pub(crate) type Awaited<'a> = &'a dyn Fn(u64, u64) -> u64;

/// A part of a segment in which the next events of a stream stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) segment: u64,
    /// The first offset it answers for, not before the one asked for.
    pub(crate) first: u64,
    /// The last one.
    pub(crate) last: u64,
    /// Where the first frame stands.
    pub(crate) start: u32,
    /// No event of the span starts here or later.
    pub(crate) starts_before: u32,
    /// No event of the span ends later.
    pub(crate) end: u32,
}

impl Run {
    fn new(segment: u64, place: u32, length: u32, event: &EventRecord<'_>) -> Run {
        Run {
            first: event.since(),
            last: event.offset,
            segment,
            events: 1,
            bytes: length,
            end: place + length,
            base: event.offset,
            entries: vec![Entry { ahead: 0, place }],
            awaited: 0,
        }
    }

    /// Whether the event follows the run's last one.
    fn takes(&self, segment: u64, place: u32, event: &EventRecord<'_>) -> bool {
        let near = event.offset.checked_sub(self.base).is_some_and(|ahead| u32::try_from(ahead).is_ok());
        self.segment == segment && self.last + 1 == event.since() && place >= self.end && near
    }

    fn push(&mut self, place: u32, length: u32, offset: u64) {
        if self.entries.last().is_none_or(|entry| place - entry.place >= BLOCK) {
            self.entries.push(Entry { ahead: (offset - self.base) as u32, place });
        }
        self.last = offset;
        self.events += 1;
        self.bytes = self.bytes.saturating_add(length);
        self.end = place + length;
    }

    fn offset(&self, entry: Entry) -> u64 {
        self.base + u64::from(entry.ahead)
    }

    /// The number of the entry to start from for `offset`.
    fn entry(&self, offset: u64) -> usize {
        self.entries.partition_point(|entry| self.offset(*entry) <= offset).saturating_sub(1)
    }

    /// What of the run's bytes belongs to so many of its offsets, if all are alike.
    pub(crate) fn share(&self, offsets: u64) -> u64 {
        let events = u64::from(self.events).max(1);
        u64::from(self.bytes) * offsets.min(events) / events
    }

    /// What of the run's bytes somebody waits for, if all events are alike.
    fn awaited_bytes(&self) -> u64 {
        self.share(self.awaited.into())
    }

    /// The part from `first` on.
    fn tail(mut self, first: u64, awaited: Awaited<'_>) -> Run {
        self.awaited = self.awaited.saturating_sub(small(awaited(self.first, first - 1)));
        let skipped = self.entry(first);
        self.entries.drain(..skipped);
        let last = self.last;
        self.shrink(first, last)
    }

    /// The part up to `last`.
    fn head(mut self, last: u64, awaited: Awaited<'_>) -> Run {
        self.awaited = small(awaited(self.first, last));
        let kept = self.entry(last) + 1;
        self.entries.truncate(kept);
        let first = self.first;
        self.shrink(first, last)
    }

    fn shrink(mut self, first: u64, last: u64) -> Run {
        let events = u64::from(self.events).min(last - first + 1);
        self.bytes = self.share(events) as u32;
        self.events = events as u32;
        (self.first, self.last) = (first, last);
        self
    }

    fn span(&self, from: u64, most: usize) -> Span {
        let from = from.max(self.first);
        let begin = self.entry(from);
        let start = self.entries[begin].place;
        let near =
            |pair: &[Entry]| pair[1].place - pair[0].place <= 2 * BLOCK && (pair[1].place - start) as usize <= most;
        let end = begin + self.entries[begin..].windows(2).take_while(|pair| near(pair)).count();
        let next = self.entries.get(end + 1);
        Span {
            segment: self.segment,
            first: from,
            last: next.map_or(self.last, |entry| (self.offset(*entry) - 1).min(self.last)),
            start,
            starts_before: self.entries[end].place.saturating_add(BLOCK),
            end: next.map_or(self.end, |entry| entry.place),
        }
    }
}

fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Where the events of one stream stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamIndex {
    /// By offset, ascending, no two answering for the same.
    runs: Vec<Run>,
    /// The sum of theirs.
    awaited_bytes: u64,
}

impl StreamIndex {
    /// Adds an event that stands later in the log than all that are there.
    pub(crate) fn add(&mut self, segment: u64, place: u32, length: u32, event: &EventRecord<'_>, awaited: Awaited<'_>) {
        let at = self.free(event.since(), event.offset, awaited);
        let its = small(awaited(event.since(), event.offset));
        if let Some(run) = at.checked_sub(1).and_then(|before| self.runs.get_mut(before))
            && run.takes(segment, place, event)
        {
            let before = run.awaited_bytes();
            run.push(place, length, event.offset);
            run.awaited = run.awaited.saturating_add(its);
            self.awaited_bytes = self.awaited_bytes - before + run.awaited_bytes();
            return;
        }
        let run = Run { awaited: its, ..Run::new(segment, place, length, event) };
        self.awaited_bytes += run.awaited_bytes();
        self.runs.insert(at, run);
    }

    /// Adds a run that stands later in the log than all that is there.
    pub(crate) fn add_run(&mut self, mut run: Run, awaited: Awaited<'_>) {
        let at = self.free(run.first, run.last, awaited);
        run.awaited = small(awaited(run.first, run.last));
        self.awaited_bytes += run.awaited_bytes();
        self.runs.insert(at, run);
    }

    /// About how many bytes of the events somebody waits for.
    pub(crate) fn awaited_bytes(&self) -> u64 {
        self.awaited_bytes
    }

    /// Nobody waits for these offsets any more, all of which somebody waited for. Costs the runs that have some of them.
    pub(crate) fn settled(&mut self, first: u64, last: u64) {
        let from = self.runs.partition_point(|run| run.last < first);
        for run in self.runs[from..].iter_mut().take_while(|run| run.first <= last) {
            let before = run.awaited_bytes();
            let settled = run.last.min(last) - run.first.max(first) + 1;
            run.awaited = run.awaited.saturating_sub(small(settled));
            self.awaited_bytes = self.awaited_bytes - before + run.awaited_bytes();
        }
    }

    /// Counts anew what is awaited. Costs every run.
    pub(crate) fn count(&mut self, awaited: Awaited<'_>) {
        self.runs.iter_mut().for_each(|run| run.awaited = small(awaited(run.first, run.last)));
        self.sum();
    }

    fn sum(&mut self) {
        self.awaited_bytes = self.runs.iter().map(Run::awaited_bytes).sum();
    }

    /// Takes these offsets from the runs that have them. Returns where a run of them belongs.
    fn free(&mut self, first: u64, last: u64, awaited: Awaited<'_>) -> usize {
        let from = self.runs.partition_point(|run| run.last < first);
        let to = from + self.runs[from..].partition_point(|run| run.first <= last);
        if from == to {
            return from;
        }
        let before = (self.runs[from].first < first).then(|| self.runs[from].clone().head(first - 1, awaited));
        let after = (self.runs[to - 1].last > last).then(|| self.runs[to - 1].clone().tail(last + 1, awaited));
        let at = from + usize::from(before.is_some());
        let were: u64 = self.runs[from..to].iter().map(Run::awaited_bytes).sum();
        let are: u64 = before.iter().chain(&after).map(Run::awaited_bytes).sum();
        self.awaited_bytes = self.awaited_bytes - were + are;
        self.runs.splice(from..to, before.into_iter().chain(after));
        at
    }

    /// Forgets what stands in this segment.
    pub(crate) fn forget(&mut self, segment: u64) {
        self.runs.retain(|run| run.segment != segment);
        self.sum();
    }

    /// Forgets what stands in this segment of the offsets up to `last`.
    pub(crate) fn forget_up_to(&mut self, segment: u64, last: u64, awaited: Awaited<'_>) {
        let runs = std::mem::take(&mut self.runs).into_iter();
        let left = runs.filter_map(|run| match run {
            run if run.segment != segment || run.first > last => Some(run),
            run if run.last > last => Some(run.tail(last + 1, awaited)),
            _ => None,
        });
        self.runs = left.collect();
        self.sum();
    }

    /// The runs that stand in this segment.
    pub(crate) fn within(&self, segment: u64) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.segment == segment)
    }

    /// All runs, by offset.
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Where the first event at or after `from` stands, and those behind it as far as about `most` bytes.
    pub(crate) fn span(&self, from: u64, most: usize) -> Option<Span> {
        let at = self.runs.partition_point(|run| run.last < from);
        self.runs.get(at).map(|run| run.span(from, most))
    }

    /// Gives back what was got for entries to come in this segment.
    pub(crate) fn closed(&mut self, segment: u64) {
        self.runs.iter_mut().filter(|run| run.segment == segment).for_each(|run| run.entries.shrink_to_fit());
    }

    /// The offsets at which entries stand, ascending: what a search by time asks.
    pub(crate) fn entry_offsets(&self) -> impl Iterator<Item = u64> {
        self.runs.iter().flat_map(|run| run.entries.iter().map(|entry| run.offset(*entry).clamp(run.first, run.last)))
    }

    /// How many entries there are.
    pub(crate) fn entries(&self) -> usize {
        self.runs.iter().map(|run| run.entries.len()).sum()
    }
}

/// What stands in a closed segment, as kept beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    /// Length of the segment.
    pub(crate) bytes: u64,
    /// Time of its newest event.
    pub(crate) newest: u64,
    pub(crate) streams: Vec<(StreamId, Vec<Run>)>,
}

impl SegmentIndex {
    /// The file's content.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut file = Vec::new();
        frame_with(&mut file, |out| {
            for number in [super::record::VERSION, self.bytes, self.newest, self.streams.len() as u64] {
                varint::put(number, out);
            }
            for (stream, runs) in &self.streams {
                varint::put(stream.0.into(), out);
                varint::put(runs.len() as u64, out);
                runs.iter().for_each(|run| put_run(run, out));
            }
        });
        file
    }

    /// Reads the content of the index file of segment number `segment`; `None` when it is not what was written.
    pub(crate) fn decode(file: &[u8], segment: u64) -> Option<SegmentIndex> {
        let (crate::Frame::Record(payload), _) = read_frame(file, 0).filter(|(_, end)| *end == file.len())? else {
            return None;
        };
        let mut take = varint::Take { rest: payload };
        (take.number()? == super::record::VERSION).then_some(())?;
        let (bytes, newest) = (take.number()?, take.number()?);
        let streams = take.list(|take| {
            let stream = StreamId(take.small()?);
            Some((stream, take.list(|take| take_run(take, segment))?))
        })?;
        take.is_done().then_some(SegmentIndex { bytes, newest, streams })
    }
}

fn put_run(run: &Run, out: &mut Vec<u8>) {
    varint::put(run.first, out);
    varint::put(run.last - run.first, out);
    for number in [run.events, run.bytes, run.end] {
        varint::put(number.into(), out);
    }
    varint::put(run.base, out);
    varint::put(run.entries.len() as u64, out);
    let mut before = Entry { ahead: 0, place: 0 };
    for entry in &run.entries {
        varint::put((entry.ahead - before.ahead).into(), out);
        varint::put((entry.place - before.place).into(), out);
        before = *entry;
    }
}

fn take_run(take: &mut varint::Take<'_>, segment: u64) -> Option<Run> {
    let first = take.number()?;
    let last = first.checked_add(take.number()?).filter(|last| *last < u64::MAX)?;
    let (events, bytes, end, base) = (take.small()?, take.small()?, take.small()?, take.number()?);
    let mut before = Entry { ahead: 0, place: 0 };
    let entries = take.list(|take| {
        let ahead = before.ahead.checked_add(take.small()?)?;
        let place = before.place.checked_add(take.small()?).filter(|place| *place < end)?;
        base.checked_add(ahead.into())?;
        before = Entry { ahead, place };
        Some(before)
    })?;
    (!entries.is_empty()).then_some(Run { first, last, segment, events, bytes, end, base, entries, awaited: 0 })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn event(offset: u64, skipped: u64) -> EventRecord<'static> {
        EventRecord { stream: StreamId(1), offset, skipped, time: 0, key: b"", payload: b"" }
    }

    fn nobody(_: u64, _: u64) -> u64 {
        0
    }

    #[test]
    fn an_entry_stands_for_a_block_of_the_file() {
        let mut index = StreamIndex::default();
        for n in 0..64_000_u32 {
            index.add(1, n * 1040, 1040, &event(n.into(), 0), &nobody);
        }
        assert_eq!(index.runs().len(), 1);
        let most = 64_000 * 1040 / BLOCK as usize + 1;
        assert!((most / 2..=most).contains(&index.entries()), "{} entries", index.entries());
        for offset in [0, 1, 31, 32, 40_000, 63_999] {
            let span = index.span(offset, 0).expect("it is there");
            let place = u32::try_from(offset).expect("small") * 1040;
            assert!(span.start <= place && place < span.starts_before && place + 1040 <= span.end, "{span:?}");
            assert!(place - span.start < 2 * BLOCK);
        }
        assert_eq!(index.span(64_000, 0), None);
        let wide = index.span(0, 1 << 20).expect("it is there");
        assert!(wide.end >= 1 << 20 && wide.end < (1 << 20) + 3 * BLOCK, "{wide:?}");
    }

    proptest! {
        /// Every offset is found in the segment in which it was written last, as long as that was not forgotten.
        #[test]
        fn what_stands_later_in_the_log_counts(
            steps in prop::collection::vec((0_u64..30, 0_u64..6, 0_u64..4), 1..60), forgotten in 0_u64..10,
        ) {
            let mut index = StreamIndex::default();
            let mut whole = StreamIndex::default();
            let mut model = BTreeMap::new();
            let mut place = 0;
            for (n, (first, length, skipped)) in steps.into_iter().enumerate() {
                let segment = n as u64 / 8;
                let mut segment_index = StreamIndex::default();
                for offset in first..=first + length {
                    let skipped = if offset == first { skipped.min(first) } else { 0 };
                    let event = event(offset, skipped);
                    index.add(segment, place, 100, &event, &nobody);
                    segment_index.add(segment, place, 100, &event, &nobody);
                    place += 20_000;
                    model.extend((event.since()..=offset).map(|covered| (covered, segment)));
                }
                segment_index.runs.into_iter().for_each(|run| whole.add_run(run, &nobody));
            }
            index.forget(forgotten);
            whole.forget(forgotten);
            model.retain(|_, segment| *segment != forgotten);
            for index in [&index, &whole] {
                let runs = index.runs();
                prop_assert!(runs.windows(2).all(|pair| pair[0].last < pair[1].first), "{:?}", runs);
                let found: BTreeMap<u64, u64> =
                    runs.iter().flat_map(|run| (run.first..=run.last).map(|offset| (offset, run.segment))).collect();
                prop_assert_eq!(&found, &model);
                for offset in found.keys() {
                    let span = index.span(*offset, 0).expect("it is there");
                    prop_assert!(span.first == *offset && span.last >= *offset && span.start < span.end);
                }
            }
            let kept = SegmentIndex { bytes: 7, newest: 9, streams: vec![(StreamId(4), index.within(1).cloned().collect())] };
            let file = kept.encode();
            prop_assert_eq!(SegmentIndex::decode(&file, 1), Some(kept));
            for at in 0..file.len() {
                let mut flipped = file.clone();
                flipped[at] ^= 4;
                prop_assert_eq!(SegmentIndex::decode(&flipped, 1), None);
            }
        }
    }
}
