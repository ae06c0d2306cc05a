//! What goes: segments of which nothing is needed any more, and those of which little is, after that little was copied
//! to the end of the log.

use std::collections::HashMap;

use super::{
    EventRecord, PREFIX, Ranges, StreamId, WriteError,
    catalog::Catalog,
    files,
    index::Span,
    log::{EventLog, Staged},
    read::{Content, Gap, read_span},
    record::Record,
};
use crate::{is_full, segment_name};

/// Bytes that one step reads, about.
const STEP_BYTES: usize = 1 << 20;

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Events that were copied forward.
    pub copied: u64,
    /// Bytes of segments that were removed.
    pub removed_bytes: u64,
    /// Whether there is more to do at once.
    pub more: bool,
}

/// A segment that is being copied forward.
pub(crate) struct Cleaning {
    segment: u64,
    /// Whether only what is awaited stays, not what retention keeps.
    expired: bool,
    /// The place, among the streams of the segment, of the first of which something may be left.
    stream: usize,
}

impl EventLog {
    /// Does a step of removing what nobody needs: looks at every run of the index, removes one segment, or copies up to
    /// 1 MiB forward. An event that a cursor waits for is never removed. A segment is copied once at most half of it is
    /// needed, so that what is awaited takes no more than twice its size, beside what retention keeps; and once at most
    /// three quarters are while the segments are more than three quarters of the budget, where it takes a third more.
    ///
    /// # Errors
    /// [`WriteError::Full`] when there is no room for copies; [`WriteError::Unreadable`] when a segment cannot be read,
    /// which is left alone until the next start unless the system only had no room to read it; [`WriteError::Stopped`] when nothing is written any more.
    pub fn tidy(&mut self, now_ms: u64) -> Result<Tidied, WriteError> {
        self.running()?;
        let Some(mut cleaning) = self.cleaning.take().or_else(|| self.choose(now_ms)) else {
            return self.after_full();
        };
        match self.copy_step(&mut cleaning) {
            Ok(Some(copied)) => {
                self.cleaning = Some(cleaning);
                Ok(Tidied { copied, more: true, ..Tidied::default() })
            }
            Ok(None) => {
                self.remove(cleaning.segment).map(|removed_bytes| Tidied { removed_bytes, more: true, copied: 0 })
            }
            // What was copied so far is in the index.
            Err(WriteError::Full) if self.release() => Ok(Tidied { more: true, ..Tidied::default() }),
            Err(error) => Err(error),
        }
    }

    /// With nothing to remove after the disk was full: closes the open segment, if little of it is needed, so that it may
    /// go; or else keeps room back again.
    fn after_full(&mut self) -> Result<Tidied, WriteError> {
        if !self.short {
            return Ok(Tidied::default());
        }
        if self.open_is_superfluous() {
            self.rotate().map_err(|error| self.failed(&error))?;
            return Ok(Tidied { more: true, ..Tidied::default() });
        }
        self.short = !self.keep_back().map_err(|error| self.stop(&error))?;
        Ok(Tidied::default())
    }

    /// Whether at most half of the open segment is needed, and removing the rest gives as much room as is kept back.
    fn open_is_superfluous(&self) -> bool {
        let (open, written) = (self.log.sequence(), self.log.written());
        let catalog = self.shared.read();
        let needed = needs(&catalog).get(&open).map_or(0, |needs| needs.awaited);
        self.may_copy(needed, written, catalog.closed_bytes() + written)
            && needed + self.options.reserve_bytes as u64 <= written
    }

    /// Whether so little of a segment is needed that it is copied forward, with all segments being so long. On a full disk
    /// the copies go into the room kept back, of which half is left to consumers.
    fn may_copy(&self, needed: u64, bytes: u64, used: u64) -> bool {
        if self.short {
            return needed * 2 <= bytes.min(self.options.reserve_bytes as u64);
        }
        let quarters = if used > self.three_quarters() { 3 } else { 2 };
        needed * 4 <= bytes * quarters
    }

    fn three_quarters(&self) -> u64 {
        self.options.budget_bytes / 4 * 3
    }

    /// The oldest segment of which nothing is needed, or else the oldest of which at most half is.
    fn choose(&self, now_ms: u64) -> Option<Cleaning> {
        let catalog = self.shared.read();
        let needs = needs(&catalog);
        let used = catalog.closed_bytes() + self.log.written();
        let mut excess = used.saturating_sub(self.options.retention.bytes.min(self.three_quarters()));
        let mut chosen = None;
        for (number, segment) in catalog.segments.range(..self.kept) {
            let is_old = segment.newest.saturating_add(self.options.retention.age_ms) < now_ms;
            let expired = is_old || excess > 0 || self.short;
            let needed = needs.get(number).map_or(0, |needs| if expired { needs.awaited } else { needs.all });
            let cleaning = Cleaning { segment: *number, expired, stream: 0 };
            if needed == 0 {
                return Some(cleaning);
            }
            if self.may_copy(needed, segment.bytes, used) && !self.unreadable.contains(number) {
                chosen = chosen.or(Some(cleaning));
            }
            if expired {
                excess = excess.saturating_sub(segment.bytes - needed);
            }
        }
        chosen
    }

    /// Copies what is needed of some events of a segment. `None` when the segment has none left.
    fn copy_step(&mut self, cleaning: &mut Cleaning) -> Result<Option<u64>, WriteError> {
        let Some((stream, span, awaited)) = next_span(&self.shared.read(), cleaning) else { return Ok(None) };
        let needs_none = awaited.as_ref().is_some_and(|awaited| awaited.count(span.first, span.last) == 0);
        let content = if needs_none { Content::default() } else { self.content(stream, &span)? };
        let mut staged = Staged::default();
        let mut copied = 0;
        // Everything from here on that is not copied is superfluous.
        let (mut since, mut reached) = (span.first, span.first);
        for found in &content.events {
            // But for what cannot be read.
            if found.since > reached {
                since = found.since;
            }
            reached = found.event.offset + 1;
            let event = &found.event;
            if awaited.as_ref().is_some_and(|awaited| awaited.around(event.offset).is_none()) {
                continue;
            }
            let skipped = event.offset - since;
            let (key, payload) = (&event.key, &event.payload);
            let (offset, time) = (event.offset, event.time);
            staged.push(&Record::Event(EventRecord { stream, offset, skipped, time, key, payload }));
            since = event.offset + 1;
            copied += 1;
            if staged.is_long() {
                self.put(std::mem::take(&mut staged))?;
            }
        }
        self.put(staged)?;
        self.shared.write().forget_up_to(stream, cleaning.segment, span.last);
        Ok(Some(copied))
    }

    /// Reads what is to be copied.
    fn content(&mut self, stream: StreamId, span: &Span) -> Result<Content, WriteError> {
        let content = read_span(self.disk.as_ref(), stream, span).map_err(|error| {
            let name = segment_name(PREFIX, span.segment);
            tracing::error!(%error, name, "read what is to be copied forward; the segment stays");
            if !is_full(&error) {
                self.unreadable.insert(span.segment);
            }
            WriteError::Unreadable { name }
        })?;
        for Gap { first, last, .. } in &content.gaps {
            tracing::error!(stream = stream.0, first, last, "events cannot be read: they are lost");
        }
        Ok(content)
    }

    /// Removes a segment of which nothing is needed. What makes it superfluous is synced first.
    fn remove(&mut self, segment: u64) -> Result<u64, WriteError> {
        self.log.sync().map_err(|error| self.stop(&error))?;
        let bytes = self.shared.read().segments.get(&segment).map_or(0, |segment| segment.bytes);
        self.shared.write().remove_segment(segment);
        // A segment without an index file is missed by nobody.
        for name in [files::index_name(segment), segment_name(PREFIX, segment)] {
            if let Err(error) = self.disk.remove(&name).or_else(gone).and_then(|()| self.disk.sync_dir()) {
                return Err(self.stop(&files::io_error(&name)(error)));
            }
        }
        Ok(bytes)
    }
}

fn gone(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// About how many bytes of a segment are needed.
#[derive(Clone, Copy, Default)]
struct Needs {
    /// Those of all events that are there.
    all: u64,
    /// Those of events that are awaited.
    awaited: u64,
}

/// What is needed of each segment of which something may be. Costs a look at every run of the index.
fn needs(catalog: &Catalog) -> HashMap<u64, Needs> {
    let mut needs: HashMap<u64, Needs> = HashMap::new();
    for stream in catalog.streams.values() {
        let awaited = catalog.awaited(stream);
        for run in stream.index.runs() {
            let needs = needs.entry(run.segment).or_default();
            needs.all += u64::from(run.bytes);
            needs.awaited += run.share(awaited.count(run.first, run.last));
        }
    }
    needs
}

/// The next events of a segment that is copied, and what of their stream is needed; `None` for all of it.
fn next_span(catalog: &Catalog, cleaning: &mut Cleaning) -> Option<(StreamId, Span, Option<Ranges>)> {
    let streams = &catalog.segments.get(&cleaning.segment)?.streams;
    while let Some(id) = streams.get(cleaning.stream) {
        if let Some(stream) = catalog.streams.get(id)
            && let Some(run) = stream.index.within(cleaning.segment).next()
        {
            let span = stream.index.span(run.first, STEP_BYTES)?;
            return Some((*id, span, cleaning.expired.then(|| catalog.awaited(stream))));
        }
        cleaning.stream += 1;
    }
    None
}
