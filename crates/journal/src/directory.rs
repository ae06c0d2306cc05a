//! A real directory, for its owner only.

use std::{
    fs, io,
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::{Claim, Disk, DiskFile};

const OWNER_DIRECTORY: u32 = 0o700;
/// For directories above, which are not the owner's alone.
const PARENT: u32 = 0o755;
const OWNER_FILE: u32 = 0o600;

/// A real directory. What is made in it can be read by its owner only.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The directory itself, open for as long as this is used: where no more files may be open, what was renamed or removed
    /// could not be made durable otherwise, and a log would have to stop.
    itself: OnceLock<fs::File>,
}

impl Directory {
    /// Uses `path`, which must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), itself: OnceLock::new() }
    }

    /// Uses `path`, making it, and its parents where they are missing, each durable in its parent. The directory is for
    /// its owner only: one that is there, and the files in it, are closed to others.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn make(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        make_durable(&path, OWNER_DIRECTORY)?;
        close_to_others(&path, OWNER_DIRECTORY)?;
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                close_to_others(&entry.path(), OWNER_FILE)?;
            }
        }
        let itself = fs::File::open(&path)?.into();
        Ok(Self { path, itself })
    }

    fn itself(&self) -> io::Result<&fs::File> {
        if let Some(itself) = self.itself.get() {
            return Ok(itself);
        }
        let opened = fs::File::open(&self.path)?;
        Ok(self.itself.get_or_init(|| opened))
    }
}

fn make_durable(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_durable(parent, PARENT)?;
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        // Somebody else made it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => return Err(error),
    }
    fs::File::open(parent)?.sync_all()
}

/// Takes from a file's mode what the owner's part does not hold.
fn close_to_others(path: &Path, mode: u32) -> io::Result<()> {
    let open = fs::metadata(path)?.permissions().mode() & 0o7777;
    if open & !mode == 0 { Ok(()) } else { fs::set_permissions(path, fs::Permissions::from_mode(open & mode)) }
}

impl Disk for Directory {
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let path = self.path.join(name);
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(OWNER_FILE).open(path)?;
        Ok(Box::new(file))
    }

    fn append_to(&self, name: &str, len: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut file = fs::OpenOptions::new().write(true).open(self.path.join(name))?;
        // Writing the length changes the file's times; most often there is nothing to cut.
        if file.metadata()?.len() != len {
            file.set_len(len)?;
        }
        file.seek(io::SeekFrom::End(0))?;
        Ok(Box::new(file))
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }

    fn read_at(&self, name: &str, from: u64, most: usize) -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(self.path.join(name))?;
        file.seek(io::SeekFrom::Start(from))?;
        let mut bytes = Vec::with_capacity(most);
        file.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
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
        self.itself()?.sync_all()
    }

    fn claim(&self) -> io::Result<Claim> {
        // A lock of the directory itself needs no room on the disk, and goes with the process.
        let directory = fs::File::open(&self.path)?;
        match directory.try_lock() {
            Ok(()) => Ok(Box::new(directory)),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
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

    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        let at = self.stream_position()?;
        self.write_all_at(&vec![0; bytes], at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn one_at_a_time_claims_it() {
        let scratch = tempfile::tempdir().expect("a directory");
        let (one, other) = (Directory::new(scratch.path()), Directory::new(scratch.path()));
        let claim = one.claim().expect("nobody has it");
        assert_eq!(other.claim().expect_err("it is claimed").kind(), io::ErrorKind::ResourceBusy);
        drop(claim);
        other.claim().expect("nobody has it any more");
    }

    #[test]
    fn what_is_made_is_the_owners_and_what_was_open_is_closed() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("a/b");
        let made = Directory::make(&path).expect("makes it");
        made.create("new").expect("creates");
        assert_eq!([mode(&path), mode(&path.join("new"))], [0o700, 0o600]);
        fs::write(path.join("old"), b"x").expect("writes");
        fs::set_permissions(path.join("old"), fs::Permissions::from_mode(0o644)).expect("is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("is ours");
        Directory::make(&path).expect("uses it");
        assert_eq!([mode(&path), mode(&path.join("old"))], [0o700, 0o600]);
    }
}
