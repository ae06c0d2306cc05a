//! Removing trees that strangers made: without recursion, without following a link, in a bounded number of open
//! files however deep they are.

use std::{
    ffi::{CString, OsStr},
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::Path,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat, renameat},
    sys::stat::{Mode, SFlag, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Directories open at a time.
const OPEN: usize = 64;

/// Removes whatever is at `path`; nothing there is fine.
///
/// # Errors
/// When something below cannot be removed.
pub fn tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} has no name", path.display())));
    };
    match open(parent, DIRECTORY.difference(OFlag::O_NOFOLLOW), Mode::empty()) {
        Ok(parent) => tree_at(&parent, name),
        Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes whatever is called `name` in `parent`; nothing there is fine.
pub(crate) fn tree_at(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = Level::open(parent, name.as_bytes())?;
    let (mut open, mut moved) = (vec![top], 0);
    while let Some(level) = open.last_mut() {
        let Some(name) = level.directories.pop() else {
            let emptied = open.pop().map(|level| level.name).unwrap_or_default();
            let above = open.last().map_or(parent, |level| &level.directory);
            unlinkat(above, emptied.as_c_str(), UnlinkatFlags::RemoveDir)?;
            continue;
        };
        if unlinkat(&level.directory, name.as_c_str(), UnlinkatFlags::RemoveDir).is_ok() {
            continue;
        }
        if open.len() < OPEN {
            let inner = Level::open(&open[open.len() - 1].directory, name.as_bytes())?;
            open.push(inner);
        } else {
            // Too deep to go on: it becomes one of the first level, which is done last.
            let up = move_up(&open[open.len() - 1].directory, &name, &open[0].directory, &mut moved)?;
            open[0].directories.push(up);
        }
    }
    Ok(())
}

/// A directory that holds nothing but directories any more.
struct Level {
    name: CString,
    directory: OwnedFd,
    directories: Vec<CString>,
}

impl Level {
    fn open(parent: &OwnedFd, name: &[u8]) -> io::Result<Self> {
        let name = CString::new(name)?;
        let directory = openat(parent, name.as_c_str(), DIRECTORY, Mode::empty())?;
        let directories = empty_of_files(&directory)?;
        Ok(Self { name, directory, directories })
    }
}

/// Moves the directory `name` of `from` into `top`, under a name that is free there.
fn move_up(from: &OwnedFd, name: &CString, top: &OwnedFd, moved: &mut u64) -> io::Result<CString> {
    loop {
        *moved += 1;
        let up = CString::new(format!(".removing-{moved}"))?;
        match renameat(from, name.as_c_str(), top, up.as_c_str()) {
            Ok(()) => return Ok(up),
            // A name that the tree itself has.
            Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes all but directories from a directory and names those.
fn empty_of_files(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut listed = Dir::from_fd(openat(directory, ".", DIRECTORY, Mode::empty())?)?;
    let mut directories = Vec::new();
    for entry in listed.iter() {
        let name = entry?.file_name().to_owned();
        if matches!(name.as_bytes(), b"." | b"..") {
            continue;
        }
        let status = fstatat(directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR {
            directories.push(name);
        } else {
            unlinkat(directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
        }
    }
    Ok(directories)
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
            at = openat(&at, "d", DIRECTORY, Mode::empty()).expect("opens");
            nix::unistd::symlinkat(&victim, &at, "link").expect("links");
        }
        tree(&tree_path).expect("goes");
        assert!(!tree_path.exists());
        assert_eq!(fs::read(victim.join("file")).expect("stays"), b"mine");
        tree(&tree_path).expect("nothing there is fine");
        symlink(&victim, &tree_path).expect("links");
        tree(&tree_path).expect("a link goes itself");
        assert!(victim.join("file").exists());
    }
}
