//! A directory that nothing reached through it can leave.
//!
//! Paths of an archive are resolved by the kernel, which takes this directory for the root (`openat2` with
//! `RESOLVE_IN_ROOT`): absolute links, `..` and links to links all end inside. The last part of a path is never
//! followed: it is only given to calls that work on the name in its open parent.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat},
    sys::stat::{FileStat, Mode, SFlag, fstatat, makedev, mkdirat, mknodat},
    unistd::{UnlinkatFlags, unlinkat},
};

/// Dangling links followed while directories are made.
const LINKS: usize = 40;

/// A directory that nothing reached through it can leave.
pub(super) struct Root(OwnedFd);

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?))
    }

    /// The directory that `path` leads to inside.
    pub(super) fn directory(&self, path: &Path) -> nix::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        knoll_tree::undisturbed(|| openat2(&self.0, path, how))
    }

    /// The directory that `path` leads to inside, made where it is missing.
    pub(super) fn make_directories(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut links = 0;
        self.make(path, &mut links)
    }

    fn make(&self, path: &Path, links: &mut usize) -> io::Result<OwnedFd> {
        match self.directory(path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            outcome => return Ok(outcome?),
        }
        let mut so_far = PathBuf::new();
        let mut parent = self.directory(&so_far)?;
        for part in path.components() {
            let name = match part {
                Component::Normal(name) => name,
                Component::ParentDir => OsStr::new(".."),
                _ => continue,
            };
            let before = so_far.clone();
            so_far.push(name);
            parent = match self.directory(&so_far) {
                Ok(directory) => directory,
                Err(Errno::ENOENT) => match mkdirat(&parent, name, Mode::empty()) {
                    Ok(()) => fresh(&parent, name)?,
                    Err(Errno::EEXIST) => self.make(&self.behind(&parent, &before, name, links)?, links)?,
                    Err(error) => return Err(error.into()),
                },
                // A directory in the place of one that lower layers have: what they have stays hidden.
                Err(Errno::ENOTDIR) if is_whiteout(&parent, name)? => {
                    unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?;
                    mkdirat(&parent, name, Mode::empty())?;
                    let directory = fresh(&parent, name)?;
                    make_opaque(&directory)?;
                    directory
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(parent)
    }

    /// Where a dangling link called `name` in the directory `before` leads.
    fn behind(&self, parent: &OwnedFd, before: &Path, name: &OsStr, links: &mut usize) -> io::Result<PathBuf> {
        *links += 1;
        if *links > LINKS {
            return Err(Errno::ELOOP.into());
        }
        let target = PathBuf::from(readlinkat(parent, name)?);
        Ok(if target.is_absolute() { target } else { before.join(target) })
    }
}

/// A directory just made, with the rights that directories nobody described get.
fn fresh(parent: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let directory = open_directory(parent, name)?;
    directory.set_permissions(std::fs::Permissions::from_mode(0o755))?;
    Ok(directory.into())
}

/// Opens the directory `name` of `parent` itself, never what a link leads to.
pub(super) fn open_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(File::from(openat(parent, name, flags, Mode::empty())?))
}

/// What stands under `name` in `parent`.
pub(super) fn status(parent: &OwnedFd, name: &OsStr) -> io::Result<Option<FileStat>> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn kind_of(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits())
}

pub(super) fn is_directory(status: &FileStat) -> bool {
    kind_of(status) == SFlag::S_IFDIR
}

/// Whether `name` says that lower layers' `name` is gone.
pub(super) fn is_whiteout(parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    Ok(status(parent, name)?.is_some_and(|status| kind_of(&status) == SFlag::S_IFCHR && status.st_rdev == 0))
}

/// Says that lower layers' `name` is gone. What this layer itself has under the name stays.
pub(super) fn white_out(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match status(parent, name)? {
        None => Ok(mknodat(parent, name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?),
        Some(status) if is_directory(&status) => make_opaque(&open_directory(parent, name)?.into()),
        // It hides what is below already.
        Some(_) => Ok(()),
    }
}

/// Says that nothing of lower layers shows in a directory.
pub(super) fn make_opaque(directory: &OwnedFd) -> io::Result<()> {
    use xattr::FileExt as _;
    let directory = open_directory(directory, OsStr::new("."))?;
    directory.set_xattr("trusted.overlay.opaque", b"y")
}

/// Makes room for something else under `name`.
pub(super) fn clear(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match status(parent, name)? {
        None => Ok(()),
        Some(status) if is_directory(&status) => knoll_tree::remove_at(parent, name),
        Some(_) => Ok(unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?),
    }
}

/// A path of `/proc` that means exactly what `descriptor` holds open, whatever happens to names.
pub(super) fn magic(descriptor: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd()).into()
}
