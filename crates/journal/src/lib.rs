//! Append-only records in segment files: what the object store's write-ahead log is made of, and what the
//! event log will be made of. Knows only bytes; who reads them gives them meaning.

mod disk;
mod segment;

pub use disk::{Directory, Disk, DiskFile, MemoryDisk};
pub use segment::{Log, LogError, Options, frame, unframe};
