//! A disk in memory for tests: it forgets what was not synced, and fails when told to.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{Disk, DiskFile};

/// Linux's number for a read that the device cannot do.
const EIO: i32 = 5;
/// What a power cut keeps or loses at a time, bytes.
const BLOCK: usize = 512;

#[derive(Clone, Default)]
struct MemoryFile {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Zeros at the end, which what is appended takes the place of.
    room: usize,
}

impl MemoryFile {
    fn append(&mut self, bytes: &[u8]) {
        let at = self.bytes.len() - self.room;
        let end = self.bytes.len().max(at + bytes.len());
        self.bytes.resize(end, 0);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.room = end - at - bytes.len();
    }

    fn make_room(&mut self, bytes: usize) {
        let grows = bytes.saturating_sub(self.room);
        self.bytes.resize(self.bytes.len() + grows, 0);
        self.room += grows;
    }

    /// As it may be found after a power cut: of what was not synced, each block got there or not, as `kept` says.
    fn after_power_cut(&self, mut kept: impl FnMut() -> bool) -> Vec<u8> {
        let mut found = self.synced.clone();
        for start in (0..self.bytes.len()).step_by(BLOCK) {
            let end = self.bytes.len().min(start + BLOCK);
            let block = &self.bytes[start..end];
            if self.synced.get(start..end) != Some(block) && kept() {
                found.resize(found.len().max(end), 0);
                found[start..end].copy_from_slice(block);
            }
        }
        found
    }
}

type Files = BTreeMap<String, Arc<Mutex<MemoryFile>>>;

#[derive(Default)]
struct MemoryState {
    files: Files,
    durable: Files,
    capacity: Option<usize>,
    fail_sync: bool,
    /// Operations that changed something.
    operations: u64,
    /// How many of them are carried out.
    allowed: Option<u64>,
    /// Bytes that were read.
    read: u64,
    /// Files that cannot be read, and what the system says then.
    unreadable: BTreeMap<String, i32>,
    /// Reads that failed for that.
    failed_reads: u64,
}

/// A disk in memory that forgets what was not synced when the power is cut.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<MemoryState>>,
}

fn file(bytes: Vec<u8>) -> Arc<Mutex<MemoryFile>> {
    Arc::new(Mutex::new(MemoryFile { synced: bytes.clone(), bytes, room: 0 }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryDisk {
    /// A disk with these files, durable.
    pub fn holding(files: BTreeMap<String, Vec<u8>>) -> MemoryDisk {
        let files: Files = files.into_iter().map(|(name, bytes)| (name, file(bytes))).collect();
        let state = MemoryState { durable: files.clone(), files, ..MemoryState::default() };
        MemoryDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// All files as they are now.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        lock(&self.state).files.iter().map(|(name, file)| (name.clone(), lock(file).bytes.clone())).collect()
    }

    /// The disk as it would be found after a power cut: file contents as of their last sync, names as of
    /// the last directory sync.
    pub fn after_power_cut(&self) -> MemoryDisk {
        let durable = lock(&self.state).durable.clone();
        MemoryDisk::holding(durable.into_iter().map(|(name, file)| (name, lock(&file).synced.clone())).collect())
    }

    /// The disk as it may be found after a power cut: of what was not synced, each block got there or not, as the
    /// bits of `seed` say.
    pub fn after_power_cut_with(&self, mut seed: u64) -> MemoryDisk {
        let durable = lock(&self.state).durable.clone();
        let mut kept = || {
            // xorshift: any sequence of bits will do.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed & 1 == 1
        };
        let found = |(name, file): (String, Arc<Mutex<MemoryFile>>)| (name, lock(&file).after_power_cut(&mut kept));
        MemoryDisk::holding(durable.into_iter().map(found).collect())
    }

    /// The disk as it would be found after the process died: everything written is there.
    pub fn after_kill(&self) -> MemoryDisk {
        MemoryDisk::holding(self.files())
    }

    /// Most bytes the disk takes; further appends fail with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        lock(&self.state).capacity = bytes;
    }

    /// Bytes of all files.
    pub fn used(&self) -> usize {
        used(&lock(&self.state))
    }

    /// Makes every following sync fail.
    pub fn fail_syncs(&self) {
        lock(&self.state).fail_sync = true;
    }

    /// Makes every following read of this file fail, as those of a bad sector do.
    pub fn fail_reads_of(&self, name: &str) {
        self.fail_reads_with(name, EIO);
    }

    /// The same with this error number of the system's.
    pub fn fail_reads_with(&self, name: &str, code: i32) {
        lock(&self.state).unreadable.insert(name.to_owned(), code);
    }

    /// Makes every file readable again.
    pub fn mend_reads(&self) {
        lock(&self.state).unreadable.clear();
    }

    /// How many reads failed because they were to.
    pub fn failed_reads(&self) -> u64 {
        lock(&self.state).failed_reads
    }

    /// How many bytes were read so far.
    pub fn bytes_read(&self) -> u64 {
        lock(&self.state).read
    }

    /// How many operations changed something.
    pub fn operations(&self) -> u64 {
        lock(&self.state).operations
    }

    /// Carries out this many changing operations; all after them fail. An append fails half-way.
    pub fn allow_operations(&self, count: u64) {
        lock(&self.state).allowed = Some(count);
    }

    fn file(&self, name: &str) -> io::Result<Arc<Mutex<MemoryFile>>> {
        lock(&self.state).files.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The file, to be read.
    fn readable(&self, name: &str) -> io::Result<Arc<Mutex<MemoryFile>>> {
        let mut state = lock(&self.state);
        if let Some(code) = state.unreadable.get(name).copied() {
            state.failed_reads += 1;
            return Err(io::Error::from_raw_os_error(code));
        }
        drop(state);
        self.file(name)
    }

    fn handle(&self, file: Arc<Mutex<MemoryFile>>) -> Box<dyn DiskFile> {
        Box::new(MemoryHandle { disk: self.clone(), file })
    }
}

impl MemoryState {
    /// Counts an operation and says whether it is carried out.
    fn change(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.allowed {
            Some(allowed) if self.operations > allowed => Err(io::Error::other("the disk is gone")),
            _ => Ok(()),
        }
    }
}

fn used(state: &MemoryState) -> usize {
    state.files.values().map(|file| lock(file).bytes.len()).sum()
}

struct MemoryHandle {
    disk: MemoryDisk,
    file: Arc<Mutex<MemoryFile>>,
}

impl DiskFile for MemoryHandle {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.disk.state);
        let before = state.operations;
        if let Err(error) = state.change() {
            // The last operation of all may be cut short.
            if state.allowed == Some(before) {
                lock(&self.file).append(&bytes[..bytes.len() / 2]);
            }
            return Err(error);
        }
        let room = state.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(used(&state)));
        let mut file = lock(&self.file);
        let taken = bytes.len().min(room.saturating_add(file.room));
        file.append(&bytes[..taken]);
        if taken < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = lock(&self.disk.state);
        state.change()?;
        if state.fail_sync {
            return Err(io::Error::other("sync failed"));
        }
        let mut file = lock(&self.file);
        file.synced = file.bytes.clone();
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        lock(&self.disk.state).change()?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut file = lock(&self.file);
        file.bytes.truncate(len);
        file.room = 0;
        Ok(())
    }

    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        let mut state = lock(&self.disk.state);
        state.change()?;
        let left = state.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(used(&state)));
        let mut file = lock(&self.file);
        let made = bytes.min(left.saturating_add(file.room));
        file.make_room(made);
        if made < bytes { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for MemoryDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = Arc::new(Mutex::new(MemoryFile::default()));
        let mut state = lock(&self.state);
        state.change()?;
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
        let bytes = lock(&*self.readable(name)?).bytes.clone();
        lock(&self.state).read += bytes.len() as u64;
        Ok(bytes)
    }

    fn read_at(&self, name: &str, from: u64, most: usize) -> io::Result<Vec<u8>> {
        let file = self.readable(name)?;
        let file = lock(&file);
        let rest = usize::try_from(from).ok().and_then(|from| file.bytes.get(from..)).unwrap_or_default();
        let bytes = rest[..most.min(rest.len())].to_vec();
        drop(file);
        lock(&self.state).read += bytes.len() as u64;
        Ok(bytes)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.state).files.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.change()?;
        let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.change()?;
        state.files.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.change()?;
        if state.fail_sync {
            return Err(io::Error::other("sync failed"));
        }
        state.durable = state.files.clone();
        Ok(())
    }
}
