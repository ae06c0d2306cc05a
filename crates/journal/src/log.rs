//! Records in numbered segment files.
//!
//! A segment is synced before the next one is made, so that only the end of the last one can hold what a crash left
//! unfinished. Recovery cuts off what a crash explains, and refuses everything else. To tell the two apart after a
//! power cut, which may take any part of what was not synced, each batch says how much before it was synced.

use std::{io, sync::Arc};

use bytes::Bytes;

use crate::{
    Disk, DiskFile, Frame, Scan, disk,
    frame::{MARK_BYTES, frame, frame_with, mark},
    scan::Remains,
};

/// Most bytes of a segment that are read to find its first record.
const HEAD_BYTES: usize = 4096;
/// Bytes of a segment that are read at once: memory that is used again for what follows costs nothing to get.
const WINDOW: usize = 1 << 20;
/// No room is made while more than this part of it awaits a sync.
const LONG: u64 = 4;

/// Sizes of a log.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment that has grown past this many bytes is closed.
    pub segment_bytes: u64,
    /// Longest record, bytes.
    pub record_bytes: usize,
    /// Zeros that are written behind a batch for which there was no room, so that it and those after it can be synced without
    /// the file growing: a third to a half of what a sync takes. None are where much awaits the sync already (a quarter of this),
    /// since every byte is written twice then.
    pub room_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, record_bytes: 64 << 20, room_bytes: 512 << 10 }
    }
}

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// An I/O error.
    #[error("access segment {name}")]
    Io {
        /// The segment's file name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A place that no crash explains.
    #[error("segment {name} is damaged at byte {offset}: {reason}")]
    Damaged {
        /// The segment's file name.
        name: String,
        /// Where.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// Somebody else writes it.
    #[error("the log is in use: another process writes it, or an earlier life of this one does yet")]
    InUse,
    /// A segment is not there though later ones are.
    #[error("segment {name} is missing")]
    Missing {
        /// The segment's file name.
        name: String,
    },
}

impl LogError {
    /// Whether there was no room.
    pub fn is_full(&self) -> bool {
        matches!(self, LogError::Io { source, .. } if disk::is_full(source))
    }
}

/// Takes the records of a log that is opened, in order.
pub trait Replay {
    /// Takes a record, or says why it cannot stand where it does.
    ///
    /// # Errors
    /// When it does not follow from the ones before it.
    fn record(&mut self, payload: &[u8]) -> Result<(), String>;
    /// Whether the records so far were written during the present run of the machine. The system then has every byte
    /// that was written, synced or not, so that only a write that was cut short may be missing.
    fn same_run(&self) -> bool;
}

/// Records that are written together.
pub struct Batch {
    /// Room for a mark, and then the frames.
    bytes: Vec<u8>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { bytes: vec![0; MARK_BYTES] }
    }
}

impl Batch {
    /// Adds a record.
    pub fn push(&mut self, payload: &[u8]) {
        frame(payload, &mut self.bytes);
    }

    /// Makes room for so many bytes more.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Adds a record that `fill` writes.
    pub(crate) fn push_with(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        frame_with(&mut self.bytes, fill);
    }

    /// The frames of the records.
    pub(crate) fn into_frames(mut self) -> Bytes {
        let mut bytes = Bytes::from(std::mem::take(&mut self.bytes));
        bytes.split_off(MARK_BYTES)
    }

    /// Bytes of the records and their frames.
    pub fn len(&self) -> usize {
        self.bytes.len() - MARK_BYTES
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A log of records, open for appending.
pub struct Log {
    disk: Arc<dyn Disk>,
    prefix: &'static str,
    options: Options,
    sequence: u64,
    file: Box<dyn DiskFile>,
    /// Bytes of the open segment: whole frames only.
    written: u64,
    /// Bytes of its file, with the room that was made.
    length: u64,
    /// How many bytes of frames were synced.
    synced: u64,
    /// How many of them the last mark says were synced.
    marked: u64,
    /// Whether no more room is made in this segment: there was none, or it is to be closed.
    is_short: bool,
    /// Whether something was cut off the file since it was synced.
    was_cut: bool,
}

/// The file name of a segment.
pub fn segment_name(prefix: &str, sequence: u64) -> String {
    format!("{prefix}-{sequence:016}.log")
}

/// The number of the segment of this file name, if it is one.
pub fn segment_sequence(prefix: &str, name: &str) -> Option<u64> {
    name.strip_prefix(prefix)?.strip_prefix('-')?.strip_suffix(".log")?.parse().ok()
}

fn io_error(name: &str) -> impl FnOnce(io::Error) -> LogError {
    let name = name.to_owned();
    move |source| LogError::Io { name, source }
}

impl Log {
    /// The numbers of the segments that are there, ascending.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn segments(disk: &dyn Disk, prefix: &str) -> Result<Vec<u64>, LogError> {
        let names = disk.list().map_err(io_error(prefix))?;
        let mut sequences: Vec<u64> = names.iter().filter_map(|name| segment_sequence(prefix, name)).collect();
        sequences.sort_unstable();
        Ok(sequences)
    }

    /// The first record of a segment; `None` where none can be read at its beginning.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn first_record(disk: &dyn Disk, prefix: &str, sequence: u64) -> Result<Option<Vec<u8>>, LogError> {
        let name = segment_name(prefix, sequence);
        let bytes = disk.read_at(&name, 0, HEAD_BYTES).map_err(io_error(&name))?;
        let record = Scan::new(&bytes).find_map(|(_, frame)| match frame {
            Frame::Record(payload) => Some(payload.to_vec()),
            Frame::Synced(_) => None,
        });
        Ok(record)
    }

    /// Opens the log whose segments start with `prefix`, handing every record of the segments from number `first` on
    /// to `replay`, in order. Makes one with the record `head` where there is none. What was read is synced before this
    /// returns.
    ///
    /// # Errors
    /// When a segment cannot be read, is missing, or holds what no crash explains.
    pub fn open(
        disk: Arc<dyn Disk>,
        prefix: &'static str,
        options: Options,
        first: u64,
        head: &[u8],
        replay: &mut dyn Replay,
    ) -> Result<Log, LogError> {
        let sequences: Vec<u64> =
            Log::segments(disk.as_ref(), prefix)?.into_iter().filter(|sequence| *sequence >= first).collect();
        if let Some(pair) = sequences.windows(2).find(|pair| pair[1] != pair[0] + 1) {
            return Err(LogError::Missing { name: segment_name(prefix, pair[0] + 1) });
        }
        let Some((&last, closed)) = sequences.split_last() else {
            return Log::begin(disk, prefix, options, first.max(1), head);
        };
        for sequence in closed {
            replay_segment(disk.as_ref(), &segment_name(prefix, *sequence), false, replay)?;
        }
        let name = segment_name(prefix, last);
        let end = replay_segment(disk.as_ref(), &name, true, replay)?;
        Log::resume(disk, prefix, options, last, end)
    }

    /// Goes on with a segment whose whole frames end at `end`, and cuts off what stands behind. What was read is synced
    /// before this returns.
    pub(crate) fn resume(
        disk: Arc<dyn Disk>,
        prefix: &'static str,
        options: Options,
        sequence: u64,
        end: u64,
    ) -> Result<Log, LogError> {
        let name = segment_name(prefix, sequence);
        let file = disk.append_to(&name, end).map_err(io_error(&name))?;
        let (written, length) = (end, end);
        let (is_short, was_cut) = (false, true);
        let mut log =
            Log { disk, prefix, options, sequence, file, written, length, is_short, was_cut, synced: 0, marked: 0 };
        log.sync()?;
        Ok(log)
    }

    /// Makes a segment under a name that nothing reads, and gives it its own once it is durable.
    pub(crate) fn begin(
        disk: Arc<dyn Disk>,
        prefix: &'static str,
        options: Options,
        sequence: u64,
        head: &[u8],
    ) -> Result<Log, LogError> {
        let name = segment_name(prefix, sequence);
        let mut bytes = mark(0).to_vec();
        frame(head, &mut bytes);
        let temporary = format!("{name}.new");
        let file = write_new(disk.as_ref(), &temporary, &bytes).map_err(io_error(&name))?;
        let named = disk.rename(&temporary, &name).and_then(|()| disk.sync_dir());
        // The name may be there or not, and either may last: nothing is known any more, so this is no full disk.
        named.map_err(|error| LogError::Io { name, source: io::Error::other(error) })?;
        let written = bytes.len() as u64;
        let (length, synced) = (written, written);
        let (is_short, was_cut) = (false, false);
        Ok(Log { disk, prefix, options, sequence, file, written, length, is_short, was_cut, synced, marked: 0 })
    }

    /// Longest record the log takes, bytes.
    pub fn record_bytes(&self) -> usize {
        self.options.record_bytes
    }

    /// Bytes of the open segment.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Number of the open segment.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Writes a batch. It then survives the death of this process, not a power cut.
    ///
    /// # Errors
    /// When the bytes cannot be written. Where [`LogError::is_full`] holds, none of the batch is in the log and the
    /// log can be used as before; after any other error it must not be used any more.
    pub fn append(&mut self, batch: &mut Batch) -> Result<(), LogError> {
        if batch.is_empty() {
            return Ok(());
        }
        let marks = self.written == 0 || self.synced != self.marked;
        batch.bytes[..MARK_BYTES].copy_from_slice(&mark(self.synced));
        let bytes = &batch.bytes[if marks { 0 } else { MARK_BYTES }..];
        // A frame that would end where the file does is damaged, not cut short: none is to end where the room does.
        if self.has_room() && self.written + bytes.len() as u64 >= self.length {
            self.cut()?;
        }
        if let Err(error) = self.file.append(bytes) {
            self.cut()?;
            return Err(self.error(error));
        }
        self.written += bytes.len() as u64;
        if marks {
            self.marked = self.synced;
        }
        self.make_room()
    }

    /// Makes room behind what was written, where there is none and batches are short. Without room on the disk there is none
    /// until the next segment.
    fn make_room(&mut self) -> Result<(), LogError> {
        let room = self.options.room_bytes;
        let has_room = self.has_room();
        self.length = self.length.max(self.written);
        let is_long = self.written - self.synced > room as u64 / LONG;
        if has_room || is_long || self.is_short || room == 0 {
            return Ok(());
        }
        match self.file.make_room(room) {
            Ok(()) => self.length = self.written + room as u64,
            Err(error) => {
                tracing::debug!(%error, "no room is made ahead in a segment of the log");
                self.is_short = true;
                self.cut()?;
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.written < self.length
    }

    /// Cuts off what stands behind the last frame.
    fn cut(&mut self) -> Result<(), LogError> {
        // Nobody knows what is there now: not even a full disk is only that.
        self.file.truncate(self.written).map_err(|error| self.error(io::Error::other(error)))?;
        self.length = self.written;
        self.was_cut = true;
        Ok(())
    }

    /// Takes back the room that was made, and makes no more: the segment is to be closed.
    fn give_room_back(&mut self) -> Result<(), LogError> {
        self.is_short = true;
        if self.has_room() { self.cut() } else { Ok(()) }
    }

    /// Makes everything written survive a power cut. After an error the log must not be used any more.
    ///
    /// # Errors
    /// When the system cannot tell that the bytes are on disk.
    pub fn sync(&mut self) -> Result<(), LogError> {
        if self.synced == self.written && !self.was_cut {
            return Ok(());
        }
        // Whatever the reason, nobody knows what is on disk now: not even a full disk is only that.
        self.file.sync().map_err(|error| self.error(io::Error::other(error)))?;
        (self.synced, self.was_cut) = (self.written, false);
        Ok(())
    }

    /// Syncs, and leaves the mark of it, so that every record is covered by one.
    ///
    /// # Errors
    /// When the system cannot tell that the bytes are on disk.
    pub fn close(&mut self) -> Result<(), LogError> {
        self.sync()?;
        self.give_room_back()?;
        if self.synced != self.marked {
            let marked = self.file.append(&mark(self.synced));
            match marked {
                Ok(()) => {
                    self.marked = self.synced;
                    self.written += MARK_BYTES as u64;
                }
                Err(_) => self.cut()?,
            }
        }
        self.sync()
    }

    /// Whether the open segment is large enough to be closed.
    pub fn is_full(&self) -> bool {
        self.written >= self.options.segment_bytes
    }

    /// Closes the open segment and starts the next with the record `head`. Returns the number of the new one.
    ///
    /// # Errors
    /// When the old segment cannot be synced or the new one not made. Where [`LogError::is_full`] holds, the open
    /// segment stays and can be used as before; after any other error the log must not be used any more.
    pub fn rotate(&mut self, head: &[u8]) -> Result<u64, LogError> {
        self.give_room_back()?;
        self.sync()?;
        *self = Log::begin(self.disk.clone(), self.prefix, self.options, self.sequence + 1, head)?;
        Ok(self.sequence)
    }

    /// Removes the segments before `sequence`.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove_before(disk: &dyn Disk, prefix: &str, sequence: u64) -> Result<(), LogError> {
        for old in Log::segments(disk, prefix)?.into_iter().filter(|old| *old < sequence) {
            let name = segment_name(prefix, old);
            disk.remove(&name).map_err(io_error(&name))?;
        }
        disk.sync_dir().map_err(io_error(prefix))
    }

    fn error(&self, source: io::Error) -> LogError {
        LogError::Io { name: segment_name(self.prefix, self.sequence), source }
    }
}

/// A synced file of these bytes. Where that fails, nothing of it is left to take up room.
pub(crate) fn write_new(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<Box<dyn DiskFile>> {
    let written = disk.create(name).or_else(|error| match error.kind() {
        // Left by a crash, or by an attempt that found no room.
        io::ErrorKind::AlreadyExists => disk.append_to(name, 0),
        _ => Err(error),
    });
    let written = written.and_then(|mut file| file.append(bytes).and_then(|()| file.sync()).map(|()| file));
    written.inspect_err(|_| {
        if let Err(error) = disk.remove(name)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, name, "remove what a failed attempt left");
        }
    })
}

/// Hands over the records of a segment. Returns where it ends.
fn replay_segment(disk: &dyn Disk, name: &str, last: bool, replay: &mut dyn Replay) -> Result<u64, LogError> {
    let damaged = |offset: u64, reason: String| LogError::Damaged { name: name.to_owned(), offset, reason };
    // What is read and not handed over yet, and where that begins.
    let (mut bytes, mut begin) = (Vec::new(), 0_u64);
    let mut marks = false;
    loop {
        let more = disk.read_at(name, begin + bytes.len() as u64, WINDOW).map_err(io_error(name))?;
        if more.is_empty() {
            break;
        }
        bytes.extend_from_slice(&more);
        let mut scan = Scan::new(&bytes);
        for (offset, frame) in scan.by_ref() {
            let refused = |reason| damaged(begin + offset as u64, reason);
            match frame {
                Frame::Synced(_) => marks = true,
                Frame::Record(payload) => replay.record(payload).map_err(refused)?,
            }
        }
        let handed_over = scan.offset();
        begin += handed_over as u64;
        bytes.drain(..handed_over);
    }
    let refusal = match Scan::new(&bytes).remains() {
        Remains::Nothing if last || bytes.is_empty() => return Ok(begin),
        Remains::Nothing => Some("it ends with zeros, and later segments follow".to_owned()),
        Remains::Unsearched => Some("too much of it is unreadable".to_owned()),
        Remains::Followed { next: (at, _), synced } => {
            let explained = last && marks && !replay.same_run() && synced <= begin;
            let at = begin + at as u64;
            (!explained).then(|| format!("it cannot be read, and whole records follow from byte {at}"))
        }
        Remains::Broken if !last || replay.same_run() => {
            Some("the checksum of the last record is wrong, and no crash explains that".to_owned())
        }
        Remains::Torn if !last => Some("it ends in the middle of a record, and later segments follow".to_owned()),
        Remains::Broken | Remains::Torn => None,
    };
    match refusal {
        Some(reason) => Err(damaged(begin, reason)),
        None => {
            let lost = bytes.len();
            tracing::warn!(
                segment = name,
                offset = begin,
                lost,
                "cut off what a crash left unfinished at the end of the log"
            );
            Ok(begin)
        }
    }
}

#[cfg(test)]
mod tests;
