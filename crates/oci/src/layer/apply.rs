//! One entry of an archive becomes a file, beneath the layer's root.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read, Seek as _, SeekFrom, Write as _},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    fcntl::{AtFlags, OFlag, openat},
    sys::{
        stat::{Mode, SFlag, UtimensatFlags, futimens, makedev, mkdirat, mknodat, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchownat, linkat, symlinkat},
};

use super::{
    Skipped,
    root::{Root, clear, is_directory, is_whiteout, magic, make_opaque, open_directory, status, white_out},
};
use crate::{
    limits::{LimitError, Limits, has_room},
    tarfile::{Entries, Entry, EntryKind},
};

/// Bytes written between two looks at how full the disk is.
const LOOK: u64 = 16 << 20;
/// Bytes of directories' paths remembered until their times can be set.
const REMEMBERED: u64 = 128 << 20;

/// Character devices that every container has: the only ones a layer may bring.
const DEVICES: [(u32, u32); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];

/// Why an entry was not applied.
#[derive(Debug)]
pub(super) enum Refused {
    /// Its path leads above the root.
    Escape,
    /// It hides nothing that can be hidden.
    Whiteout,
    /// What the system or the archive said.
    Io(io::Error),
}

impl<E: Into<io::Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Refused::Io(error.into())
    }
}

/// A layer being unpacked.
pub(super) struct Tree {
    root: Root,
    path: PathBuf,
    depth: usize,
    /// Times of directories, which are set last: what is made in a directory changes it.
    times: BTreeMap<PathBuf, (i64, u32)>,
    remembered: u64,
    since_look: u64,
    pub(super) bytes: u64,
    pub(super) skipped: Skipped,
}

/// The path below the root that `path` names; `None` when it goes above.
fn clean(path: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => inside.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir => {
                if !inside.pop() {
                    return None;
                }
            }
            Component::Prefix(_) => return None,
        }
    }
    Some(inside)
}

impl Tree {
    pub(super) fn open(path: &Path, limits: &Limits) -> io::Result<Self> {
        Ok(Self {
            root: Root::open(path)?,
            path: path.to_owned(),
            depth: limits.path_depth,
            times: BTreeMap::new(),
            remembered: 0,
            since_look: 0,
            bytes: 0,
            skipped: Skipped::default(),
        })
    }

    pub(super) fn apply<R: Read>(&mut self, entry: &Entry, data: &mut Entries<R>) -> Result<(), Refused> {
        let inside = clean(&entry.path).ok_or(Refused::Escape)?;
        LimitError::check("directories on the way to an entry", inside.components().count() as u64, self.depth as u64)?;
        let Some(name) = inside.file_name() else {
            return if entry.kind == EntryKind::Directory { self.describe_root(entry) } else { Err(Refused::Escape) };
        };
        let parent = self.root.make_directories(inside.parent().unwrap_or(Path::new("")))?;
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return hide(&parent, OsStr::from_bytes(hidden));
        }
        self.make(entry, &parent, name, data)?;
        if entry.kind == EntryKind::Directory {
            self.remember(inside, entry.mtime)?;
        }
        Ok(())
    }

    fn describe_root(&mut self, entry: &Entry) -> Result<(), Refused> {
        let root = self.root.directory(Path::new(""))?;
        self.describe(&open_directory(&root, OsStr::new("."))?, entry)?;
        self.remember(PathBuf::new(), entry.mtime)
    }

    fn remember(&mut self, directory: PathBuf, time: (i64, u32)) -> Result<(), Refused> {
        self.remembered += directory.as_os_str().len() as u64;
        LimitError::check("bytes of all directories' paths", self.remembered, REMEMBERED)?;
        self.times.insert(directory, time);
        Ok(())
    }

    fn make<R: Read>(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &OsStr,
        data: &mut Entries<R>,
    ) -> Result<(), Refused> {
        match entry.kind {
            EntryKind::Directory => self.directory(entry, parent, name),
            EntryKind::File => self.file(entry, parent, name, data),
            EntryKind::Symlink => self.symlink(entry, parent, name),
            EntryKind::HardLink => self.hard_link(entry, parent, name),
            EntryKind::Fifo => node(entry, parent, name, SFlag::S_IFIFO),
            EntryKind::Char if DEVICES.contains(&entry.device) => node(entry, parent, name, SFlag::S_IFCHR),
            EntryKind::Char | EntryKind::Block => {
                self.skipped.device(entry);
                Ok(())
            }
        }
    }

    fn directory(&mut self, entry: &Entry, parent: &OwnedFd, name: &OsStr) -> Result<(), Refused> {
        let there = status(parent, name)?.is_some_and(|status| is_directory(&status));
        if !there {
            let hides = is_whiteout(parent, name)?;
            clear(parent, name)?;
            mkdirat(parent, name, Mode::from_bits_truncate(0o700))?;
            if hides {
                make_opaque(&open_directory(parent, name)?.into())?;
            }
        }
        self.describe(&open_directory(parent, name)?, entry)
    }

    fn file<R: Read>(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &OsStr,
        data: &mut Entries<R>,
    ) -> Result<(), Refused> {
        clear(parent, name)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(parent, name, flags, Mode::from_bits_truncate(0o600))?);
        for segment in entry.segments.iter().flatten() {
            file.seek(SeekFrom::Start(segment.offset))?;
            self.copy(&mut data.by_ref().take(segment.length), &mut file)?;
        }
        if entry.segments.is_none() {
            self.copy(data, &mut file)?;
        }
        // Holes at a sparse file's end.
        file.set_len(entry.size)?;
        self.describe(&file, entry)?;
        set_times(&file, entry.mtime)
    }

    fn copy(&mut self, from: &mut impl Read, to: &mut File) -> Result<(), Refused> {
        let mut buffer = [0; 64 << 10];
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            to.write_all(&buffer[..count])?;
            self.bytes += count as u64;
            self.since_look += count as u64;
            if self.since_look >= LOOK {
                self.since_look = 0;
                has_room(&self.path)?;
            }
        }
    }

    fn symlink(&mut self, entry: &Entry, parent: &OwnedFd, name: &OsStr) -> Result<(), Refused> {
        clear(parent, name)?;
        symlinkat(&entry.target, parent, name)?;
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        for (attribute, _) in &entry.xattrs {
            self.skipped.xattr(entry, attribute);
        }
        let time = TimeSpec::new(entry.mtime.0, entry.mtime.1.into());
        Ok(utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)?)
    }

    fn hard_link(&mut self, entry: &Entry, parent: &OwnedFd, name: &OsStr) -> Result<(), Refused> {
        let target = clean(&entry.target).ok_or(Refused::Escape)?;
        let target_name = target.file_name().ok_or(Refused::Escape)?;
        let target_parent = self.root.directory(target.parent().unwrap_or(Path::new("")))?;
        let same = |one: &nix::sys::stat::FileStat, other: &nix::sys::stat::FileStat| {
            (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
        };
        let Some(existing) = status(&target_parent, target_name)? else {
            let text = format!("it links to {}, which is not in the layer", entry.target.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, text).into());
        };
        if status(parent, name)?.is_some_and(|status| same(&status, &existing)) {
            return Ok(());
        }
        clear(parent, name)?;
        // Without AT_SYMLINK_FOLLOW, a link to a link is that link.
        Ok(linkat(&target_parent, target_name, parent, name, AtFlags::empty())?)
    }

    /// Owner, mode and extended attributes of something open. The order matters: a change of owner takes set-uid
    /// bits and capabilities away.
    fn describe(&mut self, file: &File, entry: &Entry) -> Result<(), Refused> {
        use xattr::FileExt as _;
        std::os::unix::fs::fchown(file, Some(entry.uid), Some(entry.gid))?;
        file.set_permissions(fs::Permissions::from_mode(entry.mode))?;
        for (name, value) in &entry.xattrs {
            match may_set(name).then(|| file.set_xattr(name, value)) {
                Some(Ok(())) => {}
                // Not one for a layer, or none that this file system knows.
                None => self.skipped.xattr(entry, name),
                Some(Err(error)) if error.raw_os_error() == Some(nix::libc::ENOTSUP) => self.skipped.xattr(entry, name),
                Some(Err(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// What can only be done when all entries are there.
    pub(super) fn finish(&mut self) -> Result<(), Refused> {
        for (path, time) in std::mem::take(&mut self.times) {
            // It may have been replaced since by something else.
            let Ok(parent) = self.root.directory(path.parent().unwrap_or(Path::new(""))) else { continue };
            let name: OsString = path.file_name().unwrap_or(OsStr::new(".")).to_owned();
            if let Ok(directory) = open_directory(&parent, &name) {
                set_times(&directory, time)?;
            }
        }
        has_room(&self.path)?;
        Ok(())
    }
}

/// Attributes that mean something inside a container only. Others would speak to the host: `trusted.overlay.*` to the
/// file system that stacks layers, `security.*` to its security modules.
fn may_set(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let is_acl = name == b"system.posix_acl_access" || name == b"system.posix_acl_default";
    let is_users = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    name == b"security.capability" || is_acl || is_users
}

fn hide(parent: &OwnedFd, hidden: &OsStr) -> Result<(), Refused> {
    match hidden.as_bytes() {
        b".wh..opq" => Ok(make_opaque(parent)?),
        // What AUFS kept for itself.
        name if name.starts_with(b".wh.") => Ok(()),
        b"" | b"." | b".." => Err(Refused::Whiteout),
        _ => Ok(white_out(parent, hidden)?),
    }
}

fn set_times(file: &File, (seconds, nanoseconds): (i64, u32)) -> Result<(), Refused> {
    let time = TimeSpec::new(seconds, nanoseconds.into());
    Ok(futimens(file, &time, &time)?)
}

fn node(entry: &Entry, parent: &OwnedFd, name: &OsStr, kind: SFlag) -> Result<(), Refused> {
    clear(parent, name)?;
    let (major, minor) = entry.device;
    mknodat(parent, name, kind, Mode::empty(), makedev(major.into(), minor.into()))?;
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    // Opened without touching the device; the kernel changes exactly what is held open.
    let held = openat(parent, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    fs::set_permissions(magic(&held), fs::Permissions::from_mode(entry.mode))?;
    let time = TimeSpec::new(entry.mtime.0, entry.mtime.1.into());
    Ok(utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)?)
}
