//! Append-only records in segment files: what the object store's write-ahead log is made of, and the log of
//! [`events`] in streams; and the checksum of a file that holds one record. Knows only bytes; who reads them gives them
//! meaning.

mod checked;
mod directory;
mod disk;
pub mod events;
mod frame;
mod log;
mod memory;
mod scan;

pub use checked::{with_checksum, without_checksum};
pub use directory::Directory;
pub use disk::{Claim, Disk, DiskFile, is_full};
pub use frame::{Frame, frame, read_frame};
pub use log::{Batch, Log, LogError, Options, Replay, segment_name, segment_sequence};
pub use memory::MemoryDisk;
pub use scan::{Remains, Scan, Survey, survey};
