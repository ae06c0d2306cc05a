//! Removing: what lies deep moves up to the top first, so that memory does not grow with the tree either.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::fd::OwnedFd,
    path::Path,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{open, renameat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, unlinkat},
};

use crate::{DIRECTORY, is_dots, open_beneath};

/// Names read at a time.
const BATCH: usize = 1024;

/// Removes whatever is at `path`; nothing there is fine.
///
/// # Errors
/// When something below cannot be removed, or is a mount; calling again goes on where it stopped.
pub fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} has no name", path.display())));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match open(parent, DIRECTORY, Mode::empty()) {
        Ok(parent) => remove_at(&parent, name),
        Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes whatever is called `name` in `parent`; nothing there is fine.
///
/// Directories are emptied one level at a time: what they hold moves up to the top first, so that the deepest tree is
/// flat before it is gone.
///
/// # Errors
/// When something below cannot be removed, or is a mount; calling again goes on where it stopped.
pub fn remove_at(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    match open_beneath(parent, name) {
        Err(Errno::ENOENT) => return Ok(()),
        top => empty(&top?)?,
    }
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
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
    let dir = match open_beneath(top, name) {
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
        match renameat(dir, name, top, format!(".removing-{serial}").as_str()) {
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

/// Up to `most` names of a directory, from its beginning.
fn names(dir: &OwnedFd, most: usize) -> io::Result<Vec<CString>> {
    let mut entries = Dir::from_fd(open_beneath(dir, c".")?)?;
    let named = entries.iter().filter(|e| !e.as_ref().is_ok_and(|e| is_dots(e.file_name()))).take(most);
    Ok(named.map(|entry| entry.map(|e| e.file_name().to_owned())).collect::<nix::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use nix::sys::stat::mkdirat;

    use super::*;

    #[test]
    fn a_tree_deeper_than_any_path_goes_and_what_its_links_lead_to_stays() {
        let scratch = tempfile::tempdir().expect("a directory");
        let victim = scratch.path().join("victim");
        fs::create_dir(&victim).expect("makes");
        fs::write(victim.join("file"), b"mine").expect("writes");
        let tree_path = scratch.path().join("tree");
        fs::create_dir(&tree_path).expect("makes");
        fs::create_dir(tree_path.join(".removing-1")).expect("makes");
        fs::write(tree_path.join(".removing-2"), b"").expect("writes");
        fs::write(tree_path.join(".removing-1/file"), b"").expect("writes");
        symlink(&victim, tree_path.join("link")).expect("links");
        let mut at = open(&tree_path, DIRECTORY, Mode::empty()).expect("opens");
        for _ in 0..2_500 {
            mkdirat(&at, "d", Mode::from_bits_truncate(0o700)).expect("makes");
            at = open_beneath(&at, "d").expect("opens");
            nix::unistd::symlinkat(&victim, &at, "link").expect("links");
        }
        remove(&tree_path).expect("goes");
        assert!(!tree_path.exists());
        assert_eq!(fs::read(victim.join("file")).expect("stays"), b"mine");
        remove(&tree_path).expect("nothing there is fine");
        symlink(&victim, &tree_path).expect("links");
        remove(&tree_path).expect("a link goes itself");
        assert!(victim.join("file").exists());
    }

    #[test]
    fn many_files_and_hostile_names_are_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let tree_path = dir.path().join("tree");
        for name in [".removing-1", ".removing-2/x", "a/b/c", "a/.removing-3"] {
            fs::create_dir_all(tree_path.join(name)).expect("makes");
        }
        for number in 0..3 * BATCH {
            fs::write(tree_path.join(format!("a/b/{number}")), b"").expect("writes");
        }
        remove(&tree_path).expect("removes");
        assert!(!tree_path.exists());
    }
}
