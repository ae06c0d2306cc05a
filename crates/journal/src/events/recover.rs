//! Opening the log: what is there, what a crash left, and what is damaged.

use std::{
    io,
    sync::{Arc, RwLock},
};

use super::{
    EventOptions, PREFIX, StreamId,
    catalog::{Catalog, Place},
    files,
    index::{SegmentIndex, StreamIndex},
    log::{EventLog, head, log_options},
    read::Shared,
    record::Record,
    scan::{Hole, scan},
};
use crate::{Disk, Log, LogError, is_full, segment_name};

/// A damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file's name.
    pub file: String,
    /// Where, in bytes.
    pub at: u64,
    /// What is wrong there.
    pub reason: &'static str,
}

/// Events that a cursor waits for and that are not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Whose.
    pub stream: StreamId,
    /// The first offset.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

/// What was found out of order when the log was opened; nothing of it where all was well, whatever crash came before.
///
/// Damage within a closed segment whose index file is whole is not seen before somebody reads there: its events come as
/// [`Gap`](super::Gap)s then. A closed segment that the system cannot read, and of which there is no index file, is left
/// where it is: its events are lost until a start that can read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Places that are no more what was written.
    pub damages: Vec<Damage>,
    /// Events that are lost by them. The ends of streams are moved on by as much as may be missing of them, so that no
    /// offset is given twice: an event may be named here that never was.
    pub lost: Vec<Lost>,
}

/// A log that is being opened.
struct Opening<'a> {
    disk: &'a dyn Disk,
    options: &'a EventOptions,
    catalog: Catalog,
    damages: Vec<Damage>,
    /// Bytes of records that are missing after streams and cursors were last kept.
    unread: u64,
}

impl EventLog {
    /// Opens the log, making one where there is none. Costs the last segment, and of each other one its index file.
    ///
    /// # Errors
    /// [`LogError::InUse`] while somebody else writes the log; when a file cannot be written, or the last segments, or what is kept of streams and cursors, not be read; when it
    /// is known of no segment how streams and cursors were when it began; or when records are of another version.
    pub fn open(disk: Arc<dyn Disk>, options: EventOptions) -> Result<(EventLog, Recovery), LogError> {
        let claim = disk.claim().map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => LogError::InUse,
            _ => files::io_error(PREFIX)(error),
        })?;
        let segments = Log::segments(disk.as_ref(), PREFIX)?;
        let names = disk.list().map_err(files::io_error(PREFIX))?;
        let mut opening = Opening {
            disk: disk.as_ref(),
            options: &options,
            catalog: Catalog::default(),
            damages: Vec::new(),
            unread: 0,
        };
        let began = opening.state(&segments, &names)?;
        let closed: Vec<u64> = segments.iter().copied().filter(|segment| *segment < began).collect();
        opening.missing(&files::indexed(&names), &segments, began);
        for segment in &closed {
            opening.closed(*segment)?;
        }
        let ended = opening.replay(&segments, began)?;
        let Opening { mut catalog, damages, .. } = opening;
        let lost = lost(&catalog);
        let log = match ended.open {
            Some((segment, end)) => Log::resume(disk.clone(), PREFIX, log_options(&options), segment, end)?,
            // Where the last one is gone, its number is not used again.
            None => {
                let next = began + u64::from(!damages.is_empty());
                Log::begin(disk.clone(), PREFIX, log_options(&options), next, &head(&options.run))?
            }
        };
        catalog.open_bytes = log.written();
        let must_rotate = ended.must_rotate || log.sequence() != began;
        for stream in catalog.streams.values_mut() {
            stream.synced = stream.next;
        }
        for damage in &damages {
            let Damage { file, at, reason } = damage;
            tracing::error!(file, at, reason, "a file of the event log is damaged; the rest is served");
        }
        for Lost { stream, first, last } in &lost {
            tracing::error!(stream = stream.0, first, last, "events are lost");
        }
        let shared = Shared { disk: disk.clone(), catalog: RwLock::new(catalog) };
        let mut log = EventLog::new(log, (disk, claim), options, Arc::new(shared), began, must_rotate);
        log.settle_in(&names)?;
        Ok((log, Recovery { damages, lost }))
    }
}

/// How replaying ended.
struct Ended {
    /// The segment to go on with, and where it ends.
    open: Option<(u64, u64)>,
    /// Whether a new segment must begin first.
    must_rotate: bool,
}

impl Opening<'_> {
    fn damage(&mut self, file: String, at: u64, reason: &'static str) {
        self.damages.push(Damage { file, at, reason });
    }

    /// Reads the streams and cursors as they were when a segment began, the newest of which that is known. Returns that
    /// segment's number.
    fn state(&mut self, segments: &[u64], names: &[String]) -> Result<u64, LogError> {
        let known = files::states(names);
        let mut unreadable = None;
        for segment in &known {
            let (catalog, damaged) = files::read_state(self.disk, *segment)?;
            unreadable = unreadable.or_else(|| damaged.first().cloned());
            damaged.into_iter().for_each(|file| self.damage(file, 0, "its checksum is wrong"));
            if let Some(catalog) = catalog {
                self.catalog = catalog;
                return Ok(*segment);
            }
        }
        // Without any, the log tells all itself, if all of it is there.
        match segments.first() {
            None if unreadable.is_none() => Ok(1),
            Some(1) if segments.windows(2).all(|pair| pair[1] == pair[0] + 1) => Ok(1),
            _ => Err(LogError::Damaged {
                name: unreadable.unwrap_or_else(|| segment_name(PREFIX, 1)),
                offset: 0,
                reason: "how streams and cursors were cannot be read from it, nor from any other file".to_owned(),
            }),
        }
    }

    /// Names the segments that are gone: those with an index file, and those after the one that began last.
    fn missing(&mut self, indexed: &[u64], segments: &[u64], began: u64) {
        let later = began..=segments.last().copied().unwrap_or(0);
        let known = files_known(began, self.catalog.next_stream);
        let expected = indexed.iter().copied().chain(later).chain(known);
        let mut gone: Vec<u64> = expected.filter(|segment| segments.binary_search(segment).is_err()).collect();
        gone.sort_unstable();
        gone.dedup();
        for segment in gone {
            self.damage(segment_name(PREFIX, segment), 0, "it is missing");
            if segment >= began {
                self.unread += self.options.segment_bytes;
            }
            // It is told of once.
            self.disk.remove(&files::index_name(segment)).ok();
        }
    }

    /// Takes what stands in a closed segment from its index file, or else from itself.
    fn closed(&mut self, segment: u64) -> Result<(), LogError> {
        if let Some(index) = files::read_index(self.disk, segment) {
            // One whose end cannot be read is as long as it was: who reads there is told.
            let end = self.disk.read_at(&segment_name(PREFIX, segment), index.bytes.saturating_sub(1), 2);
            if end.map_or(true, |end| end.len() == 1) {
                self.catalog.add_segment(segment, index);
                return Ok(());
            }
        }
        let (index, holes) = match rebuild(self.disk, segment) {
            // It is not taken for empty, or it would be removed: the next start looks again.
            Err(LogError::Io { name, source }) if !is_full(&source) => {
                tracing::error!(error = %source, name, "read a segment of which nothing else is known");
                self.damage(name, 0, "it cannot be read");
                return Ok(());
            }
            rebuilt => rebuilt?,
        };
        self.holes(segment, &holes);
        files::write_index(self.disk, segment, &index)
            .unwrap_or_else(|error| tracing::warn!(%error, "keep what stands in a segment; the next start reads it"));
        self.catalog.add_segment(segment, index);
        Ok(())
    }

    fn holes(&mut self, segment: u64, holes: &[Hole]) {
        for hole in holes {
            self.damage(segment_name(PREFIX, segment), hole.at, "its records cannot be read");
        }
    }

    /// Applies the segments from number `began` on.
    fn replay(&mut self, segments: &[u64], began: u64) -> Result<Ended, LogError> {
        let mut ended = Ended { open: None, must_rotate: false };
        for segment in segments.iter().copied().filter(|segment| *segment >= began) {
            let last = Some(&segment) == segments.last();
            let catalog = &mut self.catalog;
            let mut apply = |at: u64, bytes: u64, record: &Record<'_>| {
                if let (Ok(at), Ok(bytes)) = (u32::try_from(at), u32::try_from(bytes)) {
                    catalog.apply(Place { segment, at, bytes }, record);
                }
            };
            let scanned = scan(self.disk, segment, last, &self.options.run, &mut apply)?;
            self.holes(segment, &scanned.holes);
            self.unread += scanned.holes.iter().map(|hole| hole.bytes).sum::<u64>();
            if last {
                let torn = !scanned.holes.is_empty();
                ended =
                    Ended { open: Some((segment, scanned.end)), must_rotate: torn || scanned.same_run != Some(true) };
            } else {
                let index = self.catalog.close_segment(segment, scanned.end);
                files::write_index(self.disk, segment, &index).unwrap_or_else(|error| {
                    tracing::warn!(%error, "keep what stands in a segment; the next start reads it");
                });
            }
        }
        self.move_ends_on();
        Ok(ended)
    }

    /// Moves the ends of streams on by as many events as may have been in the bytes that are missing, and behind
    /// everything that was settled, so that no offset is given twice.
    fn move_ends_on(&mut self) {
        let settled: Vec<(StreamId, u64)> = self
            .catalog
            .cursors
            .values()
            .map(|cursor| {
                let ahead = cursor.progress.ahead().last().map_or(0, |last| last + 1);
                (cursor.stream, ahead.max(cursor.progress.watermark()))
            })
            .collect();
        for stream in self.catalog.streams.values_mut() {
            stream.next += self.unread;
        }
        for (stream, end) in settled {
            if let Some(stream) = self.catalog.streams.get_mut(&stream) {
                stream.next = stream.next.max(end);
            }
        }
    }
}

/// The segment that must be there because streams were known as it began.
fn files_known(began: u64, streams: u32) -> Option<u64> {
    (began > 1 || streams > 0).then_some(began)
}

/// Makes out what stands in a closed segment by reading it.
fn rebuild(disk: &dyn Disk, segment: u64) -> Result<(SegmentIndex, Vec<Hole>), LogError> {
    let mut streams: std::collections::BTreeMap<StreamId, StreamIndex> = std::collections::BTreeMap::new();
    let mut newest = 0;
    let scanned = scan(disk, segment, false, &[], &mut |at, bytes, record| {
        if let (Record::Event(event), Ok(at), Ok(bytes)) = (record, u32::try_from(at), u32::try_from(bytes)) {
            streams.entry(event.stream).or_default().add(segment, at, bytes, event, &|_, _| 0);
            newest = newest.max(event.time);
        }
    })?;
    let streams = streams.into_iter().map(|(id, index)| (id, index.runs().to_vec())).collect();
    Ok((SegmentIndex { bytes: scanned.end, newest, streams }, scanned.holes))
}

/// What cursors wait for and no segment has.
fn lost(catalog: &Catalog) -> Vec<Lost> {
    let mut lost = Vec::new();
    for (id, stream) in &catalog.streams {
        let mut there = super::Ranges::default();
        stream.index.runs().iter().for_each(|run| there.insert(run.first, run.last));
        for (first, last) in catalog.awaited(stream).iter() {
            lost.extend(there.gaps(first, last + 1).map(|(first, last)| Lost { stream: *id, first, last }));
        }
    }
    lost
}
