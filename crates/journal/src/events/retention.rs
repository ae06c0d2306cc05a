//! What goes: segments of which nothing is needed any more, and those of which little is, after that little was copied
//! to the end of the log.

use std::collections::HashMap;

use super::{
    EventRecord, PREFIX, Ranges, StreamId, WriteError,
    catalog::{Catalog, Segment},
    files,
    index::Span,
    log::{EventLog, Staged},
    read::{Content, Gap, read_span},
    record::Record,
};
use crate::segment_name;

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
}

impl EventLog {
    /// Does a step of removing what nobody needs: looks at every run of the index, removes one segment, or copies up to
    /// 1 MiB forward. An event that a cursor waits for is never removed. A segment is copied once at most half of it is
    /// needed, so that what is awaited takes no more than twice its size, beside what retention keeps.
    ///
    /// # Errors
    /// [`WriteError::Full`] when there is no room for copies; [`WriteError::Unreadable`] when a segment cannot be read,
    /// which is left alone until the next start; [`WriteError::Stopped`] when nothing is written any more.
    pub fn tidy(&mut self, now_ms: u64) -> Result<Tidied, WriteError> {
        self.running()?;
        let Some(cleaning) = self.cleaning.take().or_else(|| self.choose(now_ms)) else {
            return self.after_full();
        };
        match self.copy_step(&cleaning) {
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
        let (catalog, open) = (self.shared.read(), self.log.sequence());
        let Some(segment) = catalog.segments.get(&open) else { return false };
        let known = segment.streams.iter().filter_map(|id| Some((*id, catalog.awaited(catalog.streams.get(id)?))));
        let needed = needed(&catalog, open, segment, Some(&known.collect()));
        let written = self.log.written();
        self.may_copy(needed, written) && needed + self.options.reserve_bytes as u64 <= written
    }

    /// Whether so little of a segment is needed that it is copied forward. On a full disk the copies go into the room kept
    /// back, of which half is left to consumers.
    fn may_copy(&self, needed: u64, bytes: u64) -> bool {
        needed * 2 <= if self.short { bytes.min(self.options.reserve_bytes as u64) } else { bytes }
    }

    /// The oldest segment of which nothing is needed, or else the oldest of which at most half is.
    fn choose(&self, now_ms: u64) -> Option<Cleaning> {
        let catalog = self.shared.read();
        let awaited = |id: &StreamId| catalog.streams.get(id).map(|stream| catalog.awaited(stream));
        let mut known: HashMap<StreamId, Ranges> = HashMap::new();
        let keeps = self.options.retention.bytes.min(self.options.budget_bytes / 4 * 3);
        let mut excess = (catalog.closed_bytes() + self.log.written()).saturating_sub(keeps);
        let mut chosen = None;
        for (number, segment) in catalog.segments.range(..self.kept) {
            for id in &segment.streams {
                if !known.contains_key(id) {
                    known.extend(awaited(id).map(|ranges| (*id, ranges)));
                }
            }
            let is_old = segment.newest.saturating_add(self.options.retention.age_ms) < now_ms;
            let expired = is_old || excess > 0 || self.short;
            let needed = needed(&catalog, *number, segment, expired.then_some(&known));
            let cleaning = Cleaning { segment: *number, expired };
            if needed == 0 {
                return Some(cleaning);
            }
            if self.may_copy(needed, segment.bytes) && !self.unreadable.contains(number) {
                chosen = chosen.or(Some(cleaning));
            }
            if expired {
                excess = excess.saturating_sub(segment.bytes - needed);
            }
        }
        chosen
    }

    /// Copies what is needed of some events of a segment. `None` when the segment has none left.
    fn copy_step(&mut self, cleaning: &Cleaning) -> Result<Option<u64>, WriteError> {
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
        let mut catalog = self.shared.write();
        if let Some(stream) = catalog.streams.get_mut(&stream) {
            stream.index.forget_up_to(cleaning.segment, span.last);
        }
        Ok(Some(copied))
    }

    /// Reads what is to be copied.
    fn content(&mut self, stream: StreamId, span: &Span) -> Result<Content, WriteError> {
        let content = read_span(self.disk.as_ref(), stream, span).map_err(|error| {
            let name = segment_name(PREFIX, span.segment);
            tracing::error!(%error, name, "read what is to be copied forward; the segment stays");
            self.unreadable.insert(span.segment);
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

/// About how many bytes of a segment are needed: those of events that are `awaited`, or else of all streams there are.
fn needed(catalog: &Catalog, number: u64, segment: &Segment, awaited: Option<&HashMap<StreamId, Ranges>>) -> u64 {
    let mut needed = 0;
    for id in &segment.streams {
        let Some(stream) = catalog.streams.get(id) else { continue };
        for run in stream.index.within(number) {
            needed += match awaited {
                None => run.bytes.into(),
                Some(awaited) => {
                    let offsets = awaited.get(id).map_or(0, |awaited| awaited.count(run.first, run.last));
                    run.share(offsets)
                }
            };
        }
    }
    needed
}

/// The next events of a segment that is copied, and what of their stream is needed; `None` for all of it.
fn next_span(catalog: &Catalog, cleaning: &Cleaning) -> Option<(StreamId, Span, Option<Ranges>)> {
    let segment = catalog.segments.get(&cleaning.segment)?;
    segment.streams.iter().find_map(|id| {
        let stream = catalog.streams.get(id)?;
        let run = stream.index.within(cleaning.segment).next()?;
        let span = stream.index.span(run.first, STEP_BYTES)?;
        Some((*id, span, cleaning.expired.then(|| catalog.awaited(stream))))
    })
}
