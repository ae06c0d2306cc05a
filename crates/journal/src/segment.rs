//! Records in numbered segment files.
//!
//! A record is `length: u32 LE, crc32 of the payload: u32 LE, payload`. A torn record can only stand at the end
//! of the last segment, since a segment is synced before the next one is made; recovery cuts it off.

use std::{io, sync::Arc};

use crate::{Disk, DiskFile};

const HEADER: usize = 8;

/// Sizes of a log.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment that has grown past this many bytes is closed.
    pub segment_bytes: u64,
    /// Longest record, bytes.
    pub record_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, record_bytes: 64 << 20 }
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
    /// A damaged record that no crash explains.
    #[error("segment {name} is damaged at byte {offset}: restore the data directory from a backup")]
    Damaged {
        /// The segment's file name.
        name: String,
        /// Where the damaged record starts.
        offset: usize,
    },
}

/// Appends a framed `payload` to `out`.
pub fn frame(payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).expect("records are shorter than 4 GiB: callers bound them");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// The record that starts at `offset`, and where the next one starts; `None` where no whole record stands.
pub fn unframe(bytes: &[u8], offset: usize) -> Option<(&[u8], usize)> {
    let header = bytes.get(offset..offset + HEADER)?;
    let length = u32::from_le_bytes(header[..4].try_into().expect("four bytes")) as usize;
    let crc = u32::from_le_bytes(header[4..].try_into().expect("four bytes"));
    let end = offset + HEADER + length;
    let payload = bytes.get(offset + HEADER..end)?;
    (length > 0 && crc32fast::hash(payload) == crc).then_some((payload, end))
}

/// A log of records, open for appending.
pub struct Log {
    disk: Arc<dyn Disk>,
    prefix: &'static str,
    options: Options,
    sequence: u64,
    file: Box<dyn DiskFile>,
    /// Bytes of the open segment that are whole records.
    written: u64,
    /// Whether the open segment holds bytes that were not synced.
    dirty: bool,
    buffer: Vec<u8>,
}

fn segment_name(prefix: &str, sequence: u64) -> String {
    format!("{prefix}-{sequence:016}.log")
}

fn segment_sequence(prefix: &str, name: &str) -> Option<u64> {
    name.strip_prefix(prefix)?.strip_prefix('-')?.strip_suffix(".log")?.parse().ok()
}

impl Log {
    /// Opens the log whose segments start with `prefix`, handing every record to `replay` in order.
    ///
    /// # Errors
    /// When a segment cannot be read, or is damaged anywhere but at the end of the last one.
    pub fn open(
        disk: Arc<dyn Disk>,
        prefix: &'static str,
        options: Options,
        mut replay: impl FnMut(&[u8]),
    ) -> Result<Log, LogError> {
        let io = |name: &str| {
            let name = name.to_owned();
            move |source| LogError::Io { name, source }
        };
        let mut sequences: Vec<u64> =
            disk.list().map_err(io(prefix))?.iter().filter_map(|name| segment_sequence(prefix, name)).collect();
        sequences.sort_unstable();
        let mut end = 0;
        for (index, sequence) in sequences.iter().enumerate() {
            let name = segment_name(prefix, *sequence);
            let bytes = disk.read(&name).map_err(io(&name))?;
            let mut offset = 0;
            while let Some((payload, next)) = unframe(&bytes, offset) {
                replay(payload);
                offset = next;
            }
            let last = index + 1 == sequences.len();
            if offset < bytes.len() && !last {
                return Err(LogError::Damaged { name, offset });
            }
            if offset < bytes.len() {
                tracing::warn!(segment = name, offset, lost = bytes.len() - offset, "cut a torn record off the log");
            }
            end = offset as u64;
        }
        let (sequence, file) = match sequences.last() {
            Some(&sequence) => {
                let name = segment_name(prefix, sequence);
                (sequence, disk.append_to(&name, end).map_err(io(&name))?)
            }
            None => (1, create(disk.as_ref(), prefix, 1)?),
        };
        Ok(Log { disk, prefix, options, sequence, file, written: end, dirty: true, buffer: Vec::new() })
    }

    /// Adds a record to the batch that [`Log::write`] writes.
    pub fn push(&mut self, payload: &[u8]) {
        debug_assert!(payload.len() <= self.options.record_bytes, "callers bound their records");
        frame(payload, &mut self.buffer);
    }

    /// Longest record the log takes, bytes.
    pub fn record_bytes(&self) -> usize {
        self.options.record_bytes
    }

    /// Writes the batch. It then survives the death of this process, not a power cut.
    ///
    /// # Errors
    /// When the bytes cannot be written; none of the batch is in the log then.
    pub fn write(&mut self) -> Result<(), LogError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let outcome = self.file.append(&self.buffer);
        let length = self.buffer.len() as u64;
        self.buffer.clear();
        if let Err(source) = outcome {
            self.file.truncate(self.written).map_err(|e| self.error(e))?;
            return Err(self.error(source));
        }
        self.written += length;
        self.dirty = true;
        Ok(())
    }

    /// Makes everything written survive a power cut. After an error the log must not be used any more.
    ///
    /// # Errors
    /// When the system cannot tell that the bytes are on disk.
    pub fn sync(&mut self) -> Result<(), LogError> {
        if self.dirty {
            self.file.sync().map_err(|e| self.error(e))?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Whether the open segment is large enough to be closed.
    pub fn is_full(&self) -> bool {
        self.written >= self.options.segment_bytes
    }

    /// Closes the open segment and starts the next. Returns the number of the new one.
    ///
    /// # Errors
    /// When the old segment cannot be synced or the new one not made.
    pub fn rotate(&mut self) -> Result<u64, LogError> {
        self.sync()?;
        self.file = create(self.disk.as_ref(), self.prefix, self.sequence + 1)?;
        self.sequence += 1;
        self.written = 0;
        Ok(self.sequence)
    }

    /// Removes the segments before `sequence`.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove_before(&self, sequence: u64) -> Result<(), LogError> {
        for name in self.disk.list().map_err(|e| self.error(e))? {
            if segment_sequence(self.prefix, &name).is_some_and(|s| s < sequence) {
                self.disk.remove(&name).map_err(|source| LogError::Io { name, source })?;
            }
        }
        Ok(())
    }

    fn error(&self, source: io::Error) -> LogError {
        LogError::Io { name: segment_name(self.prefix, self.sequence), source }
    }
}

fn create(disk: &dyn Disk, prefix: &str, sequence: u64) -> Result<Box<dyn DiskFile>, LogError> {
    let name = segment_name(prefix, sequence);
    let made = disk.create(&name).and_then(|file| disk.sync_dir().map(|()| file));
    made.map_err(|source| LogError::Io { name, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDisk;

    fn open(disk: &MemoryDisk) -> (Log, Vec<Vec<u8>>) {
        let mut seen = Vec::new();
        let options = Options { segment_bytes: 64, record_bytes: 1024 };
        let log = Log::open(Arc::new(disk.clone()), "t", options, |r| seen.push(r.to_vec())).expect("opens");
        (log, seen)
    }

    #[test]
    fn records_come_back_in_order_over_several_segments() {
        let disk = MemoryDisk::default();
        let (mut log, _) = open(&disk);
        for n in 0..50_u8 {
            log.push(&[n; 10]);
            log.write().expect("writes");
            if log.is_full() {
                log.rotate().expect("rotates");
            }
        }
        log.sync().expect("syncs");
        let (_, seen) = open(&disk);
        assert_eq!(seen.len(), 50);
        assert!(seen.iter().enumerate().all(|(n, r)| r[0] as usize == n));
        assert!(disk.list().expect("lists").len() > 5);
    }

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_nothing_torn() {
        let disk = MemoryDisk::default();
        let (mut log, _) = open(&disk);
        log.push(b"kept");
        log.write().expect("writes");
        log.sync().expect("syncs");
        log.push(b"lost");
        log.write().expect("writes");
        let (_, seen) = open(&disk.after_power_cut());
        assert_eq!(seen, [b"kept".to_vec()]);
    }

    #[test]
    fn a_torn_record_is_cut_off_and_written_over() {
        let disk = MemoryDisk::default();
        let (mut log, _) = open(&disk);
        log.push(b"one");
        log.write().expect("writes");
        let mut torn = Vec::new();
        frame(b"two", &mut torn);
        disk.append_to("t-0000000000000001.log", 11).expect("opens").append(&torn[..9]).expect("appends");
        let (mut log, seen) = open(&disk);
        assert_eq!(seen, [b"one".to_vec()]);
        log.push(b"three");
        log.write().expect("writes");
        assert_eq!(open(&disk).1, [b"one".to_vec(), b"three".to_vec()]);
    }

    #[test]
    fn a_full_disk_fails_the_batch_and_leaves_the_log_usable() {
        let disk = MemoryDisk::default();
        let (mut log, _) = open(&disk);
        disk.set_capacity(Some(20));
        log.push(&[7; 100]);
        assert!(log.write().is_err());
        disk.set_capacity(None);
        log.push(b"after");
        log.write().expect("writes");
        assert_eq!(open(&disk).1, [b"after".to_vec()]);
    }

    #[test]
    fn damage_in_the_middle_is_refused() {
        let disk = MemoryDisk::default();
        let (mut log, _) = open(&disk);
        log.push(&[1; 80]);
        log.write().expect("writes");
        log.rotate().expect("rotates");
        disk.append_to("t-0000000000000001.log", 40).expect("opens").append(&[0; 60]).expect("appends");
        let refused = Log::open(Arc::new(disk), "t", Options::default(), |_| {});
        assert!(matches!(refused, Err(LogError::Damaged { .. })));
    }
}
