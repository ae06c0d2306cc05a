//! The file operations a log needs, so that a test can lose whatever was not synced.

use std::{any::Any, io};

/// What keeps others away while it is there.
pub type Claim = Box<dyn Any + Send + Sync>;

/// A directory of files that are only appended to.
pub trait Disk: Send + Sync + 'static {
    /// Creates a file that must not exist.
    ///
    /// # Errors
    /// Any I/O error, `AlreadyExists` among them.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for appending after cutting it to `len` bytes.
    ///
    /// # Errors
    /// Any I/O error.
    fn append_to(&self, name: &str, len: u64) -> io::Result<Box<dyn DiskFile>>;
    /// Reads a whole file.
    ///
    /// # Errors
    /// Any I/O error.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Reads a file from byte `from` on, at most `most` bytes; fewer only where it ends.
    ///
    /// # Errors
    /// Any I/O error.
    fn read_at(&self, name: &str, from: u64, most: usize) -> io::Result<Vec<u8>>;
    /// Names of all files, sorted.
    ///
    /// # Errors
    /// Any I/O error.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Renames a file over another.
    ///
    /// # Errors
    /// Any I/O error.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// Any I/O error.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals so far survive a power cut.
    ///
    /// # Errors
    /// Any I/O error.
    fn sync_dir(&self) -> io::Result<()>;
    /// Claims the directory for one who writes, in this process or another; nothing where nobody else can reach it.
    ///
    /// # Errors
    /// `ResourceBusy` while it is claimed; any I/O error.
    fn claim(&self) -> io::Result<Claim> {
        Ok(Box::new(()))
    }
}

/// A file open for appending.
pub trait DiskFile: Send {
    /// Appends; the bytes survive the death of this process, not a power cut.
    ///
    /// # Errors
    /// Any I/O error; part of the bytes may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes all bytes so far survive a power cut.
    ///
    /// # Errors
    /// Any I/O error, after which nothing may be assumed of the file.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file.
    ///
    /// # Errors
    /// Any I/O error.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Writes this many zeros behind what was appended, which what is appended next takes the place of: where a file does not
    /// grow and its blocks have been written before, a sync has nothing to write but the data.
    ///
    /// # Errors
    /// Any I/O error; part of the zeros may have been written.
    fn make_room(&mut self, bytes: usize) -> io::Result<()>;
}

/// Linux's `ENFILE` and `EMFILE`: no more files may be open.
const TOO_MANY_OPEN: [i32; 2] = [23, 24];

/// Whether an error says that there is no room, on the disk or for one more open file: nothing is wrong with the disk, and
/// room may be made.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | OutOfMemory)
        || error.raw_os_error().is_some_and(|code| TOO_MANY_OPEN.contains(&code))
}
