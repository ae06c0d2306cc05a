//! Limits of what a directory may hold, by the file system's project quotas.
//!
//! A limited directory is a project of its own, and what is made in it belongs to that; a write beyond the limit fails
//! at once. Nothing is kept beside it: the directory itself knows its project, and a project that nothing belongs to and
//! that nothing limits is free. So a crash at any point leaves a directory that the next call completes or releases.
//!
//! File systems without quotas, mounted without them, or whose directory is in another's project already are left as
//! they are, which is told and is no error. Root's own processes (`CAP_SYS_RESOURCE`) may write beyond limits on ext4.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::sys;

/// Our projects: the lowest of these bits follow the directory's inode, so that whoever else looks for one, in another
/// process, begins elsewhere.
const FIRST: u32 = 1 << 30;
const COUNT: u32 = 1 << 30;
/// Projects looked at until a free one is found.
const TRIES: u32 = 1024;
/// Most bytes read of a file that names projects.
const MOST_NAMES: u64 = 1 << 20;
/// Where an administrator's projects are named, and in which field of a line (projid(5), projects(5)).
const NAMED: [(&str, usize); 2] = [("/etc/projid", 1), ("/etc/projects", 0)];

/// Held from looking for a free project to having it: then it is in use, and seen to be.
static TAKING: Mutex<()> = Mutex::new(());

/// What became of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// The directory is this project, which may not grow beyond the limit.
    By(u32),
    /// The file system has no project quotas in force.
    Unsupported,
    /// The directory is part of this project of somebody else's, whose limits stay as they are.
    Foreign(u32),
}

/// Limits what a directory may hold. Doing so again sets the limit again.
///
/// # Errors
/// When the directory cannot be opened, the kernel refuses, or no project is free.
pub fn limit(directory: &Path, bytes: u64) -> io::Result<Limited> {
    let dir = open(directory)?;
    if !in_force(&dir)? {
        return Ok(Limited::Unsupported);
    }
    let around = match directory.parent() {
        Some(parent) => sys::project(open(parent)?.as_fd())?,
        None => 0,
    };
    let project = match sys::project(dir.as_fd())? {
        // What is around it gave it on: it is not this directory's own.
        project if around != 0 || (project != 0 && !is_ours(project)) => return Ok(Limited::Foreign(project)),
        0 => take(&dir)?,
        project => project,
    };
    sys::set_limit(dir.as_fd(), project, bytes.div_ceil(512).max(1))?;
    Ok(Limited::By(project))
}

/// Takes a directory's limit away, and tells whether it had one; its project is free when the directory is gone. To be
/// called before the directory is removed.
///
/// # Errors
/// When the directory cannot be opened or the kernel refuses. Being absent, or no directory, is fine.
pub fn release(directory: &Path) -> io::Result<bool> {
    let dir = match open(directory) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => {
            return Ok(false);
        }
        opened => opened?,
    };
    if !in_force(&dir)? {
        return Ok(false);
    }
    let project = sys::project(dir.as_fd())?;
    let around = directory.parent().map_or(Ok(0), |parent| sys::project(open(parent)?.as_fd()))?;
    let own = around == 0 && is_ours(project);
    if own {
        sys::set_limit(dir.as_fd(), project, 0)?;
    }
    Ok(own)
}

fn is_ours(project: u32) -> bool {
    project.checked_sub(FIRST).is_some_and(|n| n < COUNT)
}

fn open(directory: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(directory)
}

fn in_force(dir: &File) -> io::Result<bool> {
    match sys::limits_projects(dir.as_fd()) {
        // No file system with quotas, none of projects, none switched on, or not ours to see.
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOSYS | libc::EINVAL | libc::ESRCH | libc::EOPNOTSUPP | libc::ENOTTY | libc::EPERM) => {
                Ok(false)
            }
            _ => Err(error),
        },
        answer => answer,
    }
}

/// Has a directory be a project that nobody uses.
fn take(dir: &File) -> io::Result<u32> {
    let named = NAMED.iter().flat_map(|(path, field)| named(path, *field)).collect::<Vec<_>>();
    let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let start = u32::try_from(dir.metadata()?.ino() % u64::from(COUNT)).unwrap_or_default();
    for n in 0..TRIES {
        let project = FIRST + (start + n) % COUNT;
        if !named.contains(&project) && sys::is_unused(dir.as_fd(), project)? {
            sys::set_project(dir.as_fd(), project)?;
            return Ok(project);
        }
    }
    Err(io::Error::other(format!("{TRIES} projects from {} on are all in use", FIRST + start)))
}

/// The projects in a file of lines with colons; without the file, none.
fn named(path: &str, field: usize) -> Vec<u32> {
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(MOST_NAMES).read_to_string(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    numbers(&text, field)
}

fn numbers(text: &str, field: usize) -> Vec<u32> {
    text.lines().filter_map(|line| line.split(':').nth(field)?.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_projects_are_read_from_either_file() {
        assert_eq!(numbers("# mine\nweb:1073741830\nbad:x\n\nlog: 7 \n", 1), [1_073_741_830, 7]);
        assert_eq!(numbers("11:/var/log\nx:/y\n1073741831:/srv\n", 0), [11, 1_073_741_831]);
    }

    #[test]
    fn a_file_system_without_quotas_is_left_as_it_is() {
        // Memory has no quotas of projects on any kernel.
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
        assert_eq!(limit(dir.path(), 1 << 20).expect("asks"), Limited::Unsupported);
        assert!(!release(dir.path()).expect("asks"));
        assert!(!release(&dir.path().join("absent")).expect("asks"));
    }
}
