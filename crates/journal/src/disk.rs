//! The file operations a log needs, so that a test can lose whatever was not synced.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{Seek as _, Write as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

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
}

/// A real directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Uses `path`, which must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Disk for Directory {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = fs::OpenOptions::new().write(true).create_new(true).open(self.path.join(name))?;
        Ok(Box::new(file))
    }

    fn append_to(&self, name: &str, len: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut file = fs::OpenOptions::new().write(true).open(self.path.join(name))?;
        file.set_len(len)?;
        file.seek(io::SeekFrom::End(0))?;
        Ok(Box::new(file))
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }
}

impl DiskFile for fs::File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)?;
        self.seek(io::SeekFrom::End(0)).map(drop)
    }
}

#[derive(Clone, Default)]
struct MemoryFile {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Default)]
struct MemoryState {
    files: BTreeMap<String, Arc<Mutex<MemoryFile>>>,
    durable: BTreeMap<String, Arc<Mutex<MemoryFile>>>,
    capacity: Option<usize>,
    fail_sync: bool,
}

/// A disk in memory that forgets what was not synced when the power is cut.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<MemoryState>>,
}

impl MemoryDisk {
    /// The disk as it would be found after a power cut: file contents as of their last sync, names as of
    /// the last directory sync.
    pub fn after_power_cut(&self) -> MemoryDisk {
        let state = self.lock();
        let files: BTreeMap<_, _> = state
            .durable
            .iter()
            .map(|(name, file)| {
                let synced = file.lock().unwrap_or_else(PoisonError::into_inner).synced.clone();
                (name.clone(), Arc::new(Mutex::new(MemoryFile { bytes: synced.clone(), synced })))
            })
            .collect();
        let state = MemoryState { durable: files.clone(), files, capacity: state.capacity, fail_sync: false };
        MemoryDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Most bytes the disk takes; further appends fail with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.lock().capacity = bytes;
    }

    /// Makes every following sync fail.
    pub fn fail_syncs(&self) {
        self.lock().fail_sync = true;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, MemoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, name: &str) -> io::Result<Arc<Mutex<MemoryFile>>> {
        self.lock().files.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn handle(&self, file: Arc<Mutex<MemoryFile>>) -> Box<dyn DiskFile> {
        Box::new(MemoryHandle { disk: self.clone(), file })
    }
}

struct MemoryHandle {
    disk: MemoryDisk,
    file: Arc<Mutex<MemoryFile>>,
}

impl DiskFile for MemoryHandle {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let state = self.disk.lock();
        let used: usize =
            state.files.values().map(|f| f.lock().unwrap_or_else(PoisonError::into_inner).bytes.len()).sum();
        let room = state.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(used));
        let taken = bytes.len().min(room);
        self.file.lock().unwrap_or_else(PoisonError::into_inner).bytes.extend_from_slice(&bytes[..taken]);
        if taken < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.disk.lock().fail_sync {
            return Err(io::Error::other("sync failed"));
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.synced = file.bytes.clone();
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.file.lock().unwrap_or_else(PoisonError::into_inner).bytes.truncate(len);
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = Arc::new(Mutex::new(MemoryFile::default()));
        let mut state = self.lock();
        if state.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.files.insert(name.to_owned(), file.clone());
        drop(state);
        Ok(self.handle(file))
    }

    fn append_to(&self, name: &str, len: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut handle = self.handle(self.file(name)?);
        handle.truncate(len)?;
        Ok(handle)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.file(name)?.lock().unwrap_or_else(PoisonError::into_inner).bytes.clone())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().files.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.lock().files.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.durable = state.files.clone();
        Ok(())
    }
}
