//! Making a directory ours, and knowing one that is.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use knoll_journal::Directory;

use crate::OpenError;

const FORMAT_FILE: &str = "FORMAT";
/// The format file before it has its name.
const UNFINISHED: &str = "FORMAT.new";
const FORMAT: &str = "knoll-store 2\n";
/// The format before segments had heads and checkpoints packed values. It is read; what is written is the present one.
const FORMAT_1: &str = "knoll-store 1\n";

/// What a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// There is none, or nothing is in it.
    Empty,
    /// A store of ours.
    Ours,
    /// A store of a newer version.
    Newer,
    /// Something else.
    Foreign,
}

/// What the directory is, without changing anything.
///
/// # Errors
/// When it cannot be looked at.
pub fn ownership(directory: &Path) -> io::Result<Ownership> {
    match fs::read_to_string(directory.join(FORMAT_FILE)) {
        Ok(text) if text == FORMAT || text == FORMAT_1 => return Ok(Ownership::Ours),
        Ok(text) if text.starts_with("knoll-store ") => return Ok(Ownership::Newer),
        Ok(_) => return Ok(Ownership::Foreign),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(Ownership::Foreign),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ownership::Empty),
        Err(error) => return Err(error),
    };
    for entry in entries {
        if entry?.file_name() != UNFINISHED {
            return Ok(Ownership::Foreign);
        }
    }
    Ok(Ownership::Empty)
}

/// Marks the directory as ours, making it where it is missing.
///
/// # Errors
/// When it cannot be made, or is something else's.
pub fn prepare(directory: &Path) -> Result<(), OpenError> {
    let path = directory.display().to_string();
    let failed = |source| OpenError::Directory { path: path.clone(), source };
    match ownership(directory).map_err(failed)? {
        Ownership::Foreign => Err(OpenError::Foreign { path }),
        Ownership::Newer => Err(OpenError::Newer),
        Ownership::Ours => Ok(()),
        Ownership::Empty => Directory::make(directory).and_then(|_| begin(directory)).map_err(failed),
    }
}

/// Makes the directory ours and holds it, or says why it cannot be. All of it can be read by its owner only.
pub(crate) fn claim(directory: &Path) -> Result<(Directory, fs::File), OpenError> {
    let path = directory.display().to_string();
    let failed = |source| OpenError::Directory { path: path.clone(), source };
    prepare(directory)?;
    let disk = Directory::make(directory).map_err(failed)?;
    let mut lock = hold(directory)?;
    let format = directory.join(FORMAT_FILE);
    if fs::read_to_string(&format).map_err(failed)? == FORMAT_1 {
        // One byte differs, so that there is no moment at which the file is neither.
        lock.write_all(FORMAT.as_bytes()).and_then(|()| lock.sync_all()).map_err(failed)?;
    }
    Ok((disk, lock))
}

/// Holds the directory, so that nobody else writes to it.
pub(crate) fn hold(directory: &Path) -> Result<fs::File, OpenError> {
    let path = directory.display().to_string();
    let lock = fs::OpenOptions::new().write(true).open(directory.join(FORMAT_FILE));
    let lock = lock.map_err(|source| OpenError::Directory { path: path.clone(), source })?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse { path }),
        Err(fs::TryLockError::Error(source)) => Err(OpenError::Directory { path, source }),
    }
}

fn begin(directory: &Path) -> io::Result<()> {
    let unfinished = directory.join(UNFINISHED);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(FORMAT.as_bytes())?;
    file.sync_all()?;
    fs::rename(unfinished, directory.join(FORMAT_FILE))?;
    fs::File::open(directory)?.sync_all()
}
