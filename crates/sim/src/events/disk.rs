//! The disk of a data plane, which may not do what it says.

use std::{io, sync::Arc};

use knoll_journal::{Disk, DiskFile, MemoryDisk};

/// What is wrong on purpose, so that a run can be seen to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFault {
    /// Nothing.
    Sound,
    /// Some syncs are not done: events are accepted before they are on disk.
    SkipsSyncs,
    /// A subscriber takes an event and says that it did not: it comes again though nothing crashed.
    TakesAndRefuses,
}

/// The disk that a data plane with this fault has.
pub(super) fn of(fault: EventFault, disk: MemoryDisk) -> Arc<dyn Disk> {
    match fault {
        EventFault::SkipsSyncs => Arc::new(SkippingDisk(disk)),
        EventFault::Sound | EventFault::TakesAndRefuses => Arc::new(disk),
    }
}

/// A disk that leaves out each third sync of a file.
struct SkippingDisk(MemoryDisk);

struct SkippingFile {
    file: Box<dyn DiskFile>,
    syncs: u32,
}

impl SkippingFile {
    fn over(file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(SkippingFile { file, syncs: 0 })
    }
}

impl DiskFile for SkippingFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        if self.syncs.is_multiple_of(3) { Ok(()) } else { self.file.sync() }
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        self.file.make_room(bytes)
    }
}

impl Disk for SkippingDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.0.create(name).map(SkippingFile::over)
    }

    fn append_to(&self, name: &str, len: u64) -> io::Result<Box<dyn DiskFile>> {
        self.0.append_to(name, len).map(SkippingFile::over)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.0.read(name)
    }

    fn read_at(&self, name: &str, from: u64, most: usize) -> io::Result<Vec<u8>> {
        self.0.read_at(name, from, most)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
}
