//! Places to mount on, found and made inside the current root, which by now is the container's.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

use super::{Failure, Step};
use crate::sys;

/// What is needed at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Directory,
    File,
}

/// Opens a path just to point at it.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, Mode::empty())?)
}

/// Reads a file of the current root, at most `limit` bytes of it; an absent one is empty. It must be a regular file of a
/// real file system: others may never end, never begin, or tell about whoever reads them.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let root = open(Path::new("/"))?;
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match sys::open_in_root(root.as_fd(), path, flags) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(Vec::new()),
        outcome => File::from(outcome?),
    };
    let of_kernel = nix::sys::statfs::fstatfs(&file)?.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC;
    if of_kernel || !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut content = Vec::new();
    if file.take(limit + 1).read_to_end(&mut content)? as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {limit} bytes")));
    }
    Ok(content)
}

/// Makes a directory that must not be a link, since the kernel's own file systems are mounted there.
pub(super) fn own_directory(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Failure::start(format!("the image's {} is not a directory", path.display()))),
        Err(_) => fs::create_dir(path).step(|| format!("cannot make {}", path.display())),
    }
}

/// Finds or makes a place below `root`, following links as if `root` were the root directory. A place that is there is
/// taken whatever its kind; the mount itself refuses a file on a directory.
/// What is made belongs to `owner`, if not to who makes it.
pub(super) fn find_or_make(
    root: BorrowedFd<'_>,
    path: &Path,
    kind: FileKind,
    mode: Mode,
    owner: Option<u32>,
) -> io::Result<OwnedFd> {
    match sys::open_in_root(root, path, libc::O_PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(root, path, kind, mode, owner),
        outcome => outcome,
    }
}

fn make(root: BorrowedFd<'_>, path: &Path, kind: FileKind, mode: Mode, owner: Option<u32>) -> io::Result<OwnedFd> {
    let mut so_far = PathBuf::new();
    let mut parent = root.try_clone_to_owned()?;
    let parts: Vec<_> =
        path.components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir)).collect();
    for (index, part) in parts.iter().enumerate() {
        so_far.push(part);
        let last = index + 1 == parts.len();
        parent = match sys::open_in_root(root, &so_far, libc::O_PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name = Path::new(part);
                make_one(parent.as_fd(), name, if last { kind } else { FileKind::Directory }, mode)?;
                if owner.is_some() {
                    let (user, group) = (owner.map(Into::into), owner.map(Into::into));
                    nix::unistd::fchownat(&parent, name, user, group, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?;
                }
                sys::open_in_root(root, &so_far, libc::O_PATH)?
            }
            outcome => outcome?,
        };
    }
    Ok(parent)
}

fn make_one(parent: BorrowedFd<'_>, name: &Path, kind: FileKind, mode: Mode) -> io::Result<()> {
    match kind {
        FileKind::Directory => Ok(mkdirat(parent, name, mode)?),
        FileKind::File => {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_WRONLY;
            let file = openat(parent, name, flags, Mode::from_bits_truncate(0o644))?;
            drop(File::from(file));
            Ok(())
        }
    }
}
