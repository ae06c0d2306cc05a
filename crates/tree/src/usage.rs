//! Measuring how much disk a tree takes.

use std::{
    collections::HashSet,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use nix::{
    dir::Dir,
    fcntl::{AtFlags, OFlag, open},
    sys::stat::{FileStat, Mode, fstatat},
};

use crate::{DIRECTORY, is_dots, open_beneath};

/// A path relative to a descriptor longer than this, in bytes, is replaced by a descriptor of its own.
const LONGEST_PATH: usize = 3000;
/// Directories that may wait to be measured.
const PENDING: usize = 1 << 20;
/// Files with several names that are remembered, to be counted once.
const LINKED: usize = 1 << 16;

/// What any file counts for, were it empty: a disk holds so many files only.
const LEAST: u64 = 4096;

/// Bytes of disk that the files below `dir` take, each at least 4,096; other file systems mounted below are not
/// counted, and a file with several names is counted once. A tree of more directories side by side than can be
/// measured takes more than anything else.
///
/// # Errors
/// When the directory cannot be read. What vanishes meanwhile is skipped.
pub fn usage(dir: &Path) -> io::Result<u64> {
    usage_within(dir, PENDING)
}

fn usage_within(dir: &Path, most: usize) -> io::Result<u64> {
    let top = Rc::new(open(dir, DIRECTORY.union(OFlag::O_NOFOLLOW), Mode::empty())?);
    let mut total = 0u64;
    let mut linked = HashSet::new();
    let mut pending = vec![(top, PathBuf::from("."))];
    while let Some((base, path)) = pending.pop() {
        let Ok(fd) = open_beneath(&*base, &path) else { continue };
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
                if pending.len() >= most {
                    tracing::warn!(dir = %dir.display(), most, "a tree holds more directories than can be measured");
                    return Ok(u64::MAX);
                }
                let name = OsStr::from_bytes(name.to_bytes());
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
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512).max(LEAST)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::symlink};

    use nix::sys::stat::mkdirat;

    use super::*;

    /// A chain of directories, deeper than any path can name.
    fn deep(top: &Path, depth: usize) {
        let mut at = open(top, DIRECTORY, Mode::empty()).expect("opens");
        for _ in 0..depth {
            mkdirat(&at, c"d", Mode::from_bits_truncate(0o755)).expect("makes");
            nix::fcntl::openat(&at, c"f", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::from_bits_truncate(0o644))
                .expect("makes");
            at = open_beneath(&at, c"d").expect("opens");
        }
        let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
        let last = nix::fcntl::openat(&at, c"last", flags, Mode::from_bits_truncate(0o644)).expect("makes");
        std::fs::File::from(last).write_all(&vec![1; 1 << 16]).expect("writes");
    }

    #[test]
    fn the_deepest_tree_is_measured_and_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).expect("makes");
        deep(&tree, 5000);
        assert!(usage(&tree).expect("measures") >= 1 << 16);
        crate::remove(&tree).expect("removes");
        assert!(!tree.exists());
    }

    #[test]
    fn what_has_more_directories_than_can_be_measured_takes_more_than_anything_else() {
        let dir = tempfile::tempdir().expect("a directory");
        for n in 0..9 {
            std::fs::create_dir(dir.path().join(n.to_string())).expect("makes");
        }
        assert_eq!(usage_within(dir.path(), 8).expect("measures"), u64::MAX);
        assert!(usage_within(dir.path(), 9).expect("measures") < 1 << 20);
    }

    #[test]
    fn an_empty_file_takes_a_block() {
        let dir = tempfile::tempdir().expect("a directory");
        for n in 0..100 {
            std::fs::write(dir.path().join(n.to_string()), b"").expect("writes");
        }
        assert_eq!(usage(dir.path()).expect("measures"), 100 * LEAST);
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
