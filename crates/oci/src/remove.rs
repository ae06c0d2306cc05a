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

/// Removes whatever is at `path`; nothing there is fine.
pub(crate) fn tree(path: &Path) -> io::Result<()> {
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
    let top = openat(parent, name, DIRECTORY, Mode::empty())?;
    let mut moved = 0;
    // Each turn removes the first level; what is deeper is moved up to it.
    loop {
        let directories = empty_of_files(&top)?;
        if directories.is_empty() {
            break;
        }
        for directory in directories {
            flatten(&top, &directory, &mut moved)?;
        }
    }
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
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

/// Empties the directory `name` of `top`, its own directories going to `top`, and removes it.
fn flatten(top: &OwnedFd, name: &CString, moved: &mut u64) -> io::Result<()> {
    let directory = openat(top, name.as_c_str(), DIRECTORY, Mode::empty())?;
    for inner in empty_of_files(&directory)? {
        if unlinkat(&directory, inner.as_c_str(), UnlinkatFlags::RemoveDir).is_ok() {
            continue;
        }
        loop {
            *moved += 1;
            let up = format!(".removing-{moved}");
            match renameat(&directory, inner.as_c_str(), top, OsStr::from_bytes(up.as_bytes())) {
                Ok(()) => break,
                // A name that the tree itself had.
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(unlinkat(top, name.as_c_str(), UnlinkatFlags::RemoveDir)?)
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
        fs::write(tree_path.join(".removing-1/file"), b"").expect("writes");
        symlink(&victim, tree_path.join("link")).expect("links");
        let mut at = open(&tree_path, DIRECTORY, Mode::empty()).expect("opens");
        for _ in 0..5_000 {
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
