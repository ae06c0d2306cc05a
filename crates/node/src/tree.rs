//! Trees of files that a container's author has built: removed and measured by descriptor, without recursion.
//!
//! Nothing here follows a symbolic link or goes into another file system, whatever is exchanged meanwhile, and neither
//! depth nor number of files costs stack or descriptors in proportion. Blocking.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{FileStat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Names read at a time.
const BATCH: usize = 1024;
/// A path relative to a descriptor longer than this, in bytes, is replaced by a descriptor of its own.
const LONGEST_PATH: usize = 3000;
/// Directories that may wait to be measured.
const PENDING: usize = 1 << 20;
/// Files with several names that are remembered, to be counted once.
const LINKED: usize = 1 << 16;

/// Removes a directory and everything in it. Being absent is fine.
///
/// Directories are emptied one level at a time: what they hold moves up to the top first, so that the deepest tree is
/// flat before it is gone.
///
/// # Errors
/// When the file system refuses, or something in it is a mount; calling again goes on where it stopped.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let top = match open_directory(AT_FDCWD, path, ResolveFlag::empty()) {
        Err(Errno::ENOENT) => return Ok(()),
        top => top?,
    };
    empty(&top)?;
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn empty(top: &OwnedFd) -> io::Result<()> {
    let mut serial = 0u64;
    loop {
        let names = names(top, BATCH)?;
        if names.is_empty() {
            return Ok(());
        }
        let mut progress = false;
        for name in &names {
            progress |= clear(top, name, &mut serial)?;
        }
        if !progress {
            return Err(io::Error::from(io::ErrorKind::DirectoryNotEmpty));
        }
    }
}

/// Removes one entry of the top directory, or moves what it holds up. Whether anything changed.
fn clear(top: &OwnedFd, name: &CStr, serial: &mut u64) -> io::Result<bool> {
    if unlink(top, name)? {
        return Ok(true);
    }
    let flags = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let dir = match open_directory(top, name, flags) {
        // It has gone, or become something else: the next round sees it.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(true),
        dir => dir?,
    };
    let mut moved = false;
    loop {
        let names = names(&dir, BATCH)?;
        if names.is_empty() {
            break;
        }
        for inner in &names {
            moved |= unlink(&dir, inner)? || lift(&dir, inner, top, serial)?;
        }
        if !moved {
            return Ok(false);
        }
    }
    Ok(unlink(top, name)? || moved)
}

/// Removes a file or an empty directory; `false` when it is a directory that holds something.
fn unlink(dir: &OwnedFd, name: &CStr) -> io::Result<bool> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(true),
        Err(Errno::EISDIR) => {}
        Err(error) => return Err(named(name, error)),
    }
    match unlinkat(dir, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => Ok(false),
        Err(error) => Err(named(name, error)),
    }
}

/// Moves a directory up to the top, under a name that nothing there has.
fn lift(dir: &OwnedFd, name: &CStr, top: &OwnedFd, serial: &mut u64) -> io::Result<bool> {
    loop {
        *serial += 1;
        match renameat(dir, name, top, format!(".removed-{serial}").as_str()) {
            Ok(()) => return Ok(true),
            Err(Errno::ENOENT) => return Ok(true),
            Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
            Err(error) => return Err(named(name, error)),
        }
    }
}

fn named(name: &CStr, errno: Errno) -> io::Error {
    let error = io::Error::from(errno);
    io::Error::new(error.kind(), format!("{}: {error}", name.to_string_lossy()))
}

fn open_directory<P: ?Sized + nix::NixPath>(at: impl AsFd, path: &P, resolve: ResolveFlag) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    openat2(at, path, OpenHow::new().flags(flags).resolve(resolve))
}

/// Up to `most` names of a directory, from its beginning.
fn names(dir: &OwnedFd, most: usize) -> io::Result<Vec<CString>> {
    let mut entries = Dir::from_fd(open_directory(dir, c".", ResolveFlag::empty())?)?;
    let named = entries.iter().filter(|e| !e.as_ref().is_ok_and(|e| is_dots(e.file_name()))).take(most);
    Ok(named.map(|entry| entry.map(|e| e.file_name().to_owned())).collect::<nix::Result<_>>()?)
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// Bytes of disk that the files below `dir` take; other file systems mounted below are not counted, and a file with
/// several names is counted once.
///
/// # Errors
/// When the directory cannot be read, or holds more directories side by side than can be measured. What vanishes
/// meanwhile is skipped.
pub(crate) fn usage(dir: &Path) -> io::Result<u64> {
    let top = Rc::new(open_directory(AT_FDCWD, dir, ResolveFlag::empty())?);
    let mut total = 0u64;
    let mut linked = HashSet::new();
    let mut pending = vec![(top, PathBuf::from("."))];
    let flags = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS;
    while let Some((base, path)) = pending.pop() {
        let Ok(fd) = open_directory(&*base, &path, flags) else { continue };
        let handle = Rc::new(fd);
        let mut entries = Dir::from_fd(handle.try_clone()?)?;
        for entry in entries.iter().flatten() {
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            let Ok(stat) = fstatat(&*handle, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
            let is_directory = stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR;
            let counted = is_directory || stat.st_nlink < 2 || linked.len() >= LINKED || linked.insert(stat.st_ino);
            if counted {
                total = total.saturating_add(blocks(&stat));
            }
            if is_directory {
                if pending.len() >= PENDING {
                    return Err(io::Error::other(format!(
                        "{} holds more directories than can be measured",
                        dir.display()
                    )));
                }
                let name = std::ffi::OsStr::from_bytes(name.to_bytes());
                let long = path.as_os_str().len() + name.len() > LONGEST_PATH;
                pending.push(if long {
                    (Rc::clone(&handle), name.into())
                } else {
                    (Rc::clone(&base), path.join(name))
                });
            }
        }
    }
    Ok(total)
}

fn blocks(stat: &FileStat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::{Mode, mkdirat};

    use super::*;

    /// A chain of directories, deeper than any path can name.
    fn deep(top: &Path, depth: usize) {
        let mut at = open_directory(AT_FDCWD, top, ResolveFlag::empty()).expect("opens");
        for _ in 0..depth {
            mkdirat(&at, c"d", Mode::from_bits_truncate(0o755)).expect("makes");
            nix::fcntl::openat(&at, c"f", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::from_bits_truncate(0o644))
                .expect("makes");
            at = open_directory(&at, c"d", ResolveFlag::empty()).expect("opens");
        }
        let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
        let last = nix::fcntl::openat(&at, c"last", flags, Mode::from_bits_truncate(0o644)).expect("makes");
        std::fs::File::from(last).write_all(&vec![1; 1 << 16]).expect("writes");
    }

    #[test]
    fn the_deepest_tree_is_removed_and_measured() {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).expect("makes");
        deep(&tree, 5000);
        assert!(usage(&tree).expect("measures") >= 1 << 16);
        remove(&tree).expect("removes");
        assert!(!tree.exists());
        remove(&tree).expect("being absent is fine");
    }

    #[test]
    fn many_files_and_hostile_names_are_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = dir.path().join("tree");
        for name in [".removed-1", ".removed-2/x", "a/b/c", "a/.removed-3"] {
            std::fs::create_dir_all(tree.join(name)).expect("makes");
        }
        for number in 0..3 * BATCH {
            std::fs::write(tree.join(format!("a/b/{number}")), b"").expect("writes");
        }
        remove(&tree).expect("removes");
        assert!(!tree.exists());
    }

    #[test]
    fn links_lead_nowhere() {
        let dir = tempfile::tempdir().expect("a directory");
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        std::fs::create_dir_all(tree.join("sub")).expect("makes");
        std::fs::create_dir(&outside).expect("makes");
        std::fs::write(outside.join("kept"), vec![1; 1 << 20]).expect("writes");
        symlink(&outside, tree.join("link")).expect("links");
        symlink(outside.join("kept"), tree.join("sub/link")).expect("links");
        assert!(usage(&tree).expect("measures") < 1 << 20);
        remove(&tree).expect("removes");
        assert!(!tree.exists() && outside.join("kept").exists());
        symlink(&outside, &tree).expect("links");
        assert!(remove(&tree).is_err() && outside.join("kept").exists());
    }

    #[test]
    fn a_file_of_several_names_counts_once() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("a"), vec![1; 1 << 16]).expect("writes");
        let once = usage(dir.path()).expect("measures");
        std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).expect("links");
        assert_eq!(usage(dir.path()).expect("measures"), once);
    }
}
