//! The mount calls that work on descriptors.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::{c_path, checked, owned};

const OPEN_TREE_CLONE: libc::c_uint = 1;
const AT_RECURSIVE: libc::c_uint = 0x8000;
const AT_EMPTY_PATH: libc::c_uint = 0x1000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// What a mount allows. Names are the kernel's (`MOUNT_ATTR_…`).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MountAttributes {
    pub(crate) read_only: bool,
    pub(crate) no_suid: bool,
    pub(crate) no_dev: bool,
    pub(crate) no_exec: bool,
}

impl MountAttributes {
    fn bits(self) -> u64 {
        u64::from(self.read_only)
            | (u64::from(self.no_suid) << 1)
            | (u64::from(self.no_dev) << 2)
            | (u64::from(self.no_exec) << 3)
    }
}

/// A copy of the mount at a path, attached nowhere; with `recursive` everything below it too. A final symbolic link is
/// followed.
pub(crate) fn clone_tree(directory: Option<BorrowedFd<'_>>, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let at = directory.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    let path = c_path(path)?;
    let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned();
    if recursive {
        flags |= AT_RECURSIVE;
    }
    if path.is_empty() {
        flags |= AT_EMPTY_PATH;
    }
    // SAFETY: the path is a C string that lives across the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, at, path.as_ptr(), flags) })
}

/// Attaches a detached mount where a descriptor points.
pub(crate) fn move_mount(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let empty: &CStr = c"";
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let (from, to) = (tree.as_raw_fd(), target.as_raw_fd());
    // SAFETY: both paths are C strings that live across the call.
    checked(unsafe { libc::syscall(libc::SYS_move_mount, from, empty.as_ptr(), to, empty.as_ptr(), flags) }).map(drop)
}

/// Adds restrictions to a mount and, with `recursive`, to everything below; sets its propagation (`MS_PRIVATE`,
/// `MS_SLAVE`, `MS_SHARED`; 0 leaves it).
pub(crate) fn set_attributes(
    mount: BorrowedFd<'_>,
    add: MountAttributes,
    propagation: u64,
    recursive: bool,
) -> io::Result<()> {
    let request = libc::mount_attr { attr_set: add.bits(), attr_clr: 0, propagation, userns_fd: 0 };
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let (fd, size) = (mount.as_raw_fd(), size_of::<libc::mount_attr>());
    // SAFETY: the path is a C string and the request a mount_attr of the given size; both live across the call.
    checked(unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, &raw const request, size) })
        .map(drop)
}

/// Shows the owners of files in a mount that nobody uses yet, and with `recursive` in those below, as a user namespace
/// has them.
pub(crate) fn map_ids(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    const IDMAP: u64 = 0x0010_0000;
    let userns_fd = u64::from(user_namespace.as_raw_fd().cast_unsigned());
    let request = libc::mount_attr { attr_set: IDMAP, attr_clr: 0, propagation: 0, userns_fd };
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let (fd, size) = (mount.as_raw_fd(), size_of::<libc::mount_attr>());
    // SAFETY: the path is a C string and the request a mount_attr of the given size; both live across the call.
    checked(unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, &raw const request, size) })
        .map(drop)
}

/// A file system being configured.
pub(crate) struct Filesystem(OwnedFd);

impl Filesystem {
    /// Begins with a type, e.g. `overlay`.
    pub(crate) fn open(kind: &CStr) -> io::Result<Filesystem> {
        // SAFETY: the name is a C string that lives across the call.
        owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) }).map(Filesystem)
    }

    /// Sets an option with a value.
    pub(crate) fn set(&self, key: &CStr, value: &CStr) -> io::Result<()> {
        self.config(FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr())
    }

    /// Sets an option without one.
    pub(crate) fn flag(&self, key: &CStr) -> io::Result<()> {
        self.config(FSCONFIG_SET_FLAG, key.as_ptr(), ptr::null())
    }

    fn config(&self, command: libc::c_uint, key: *const libc::c_char, value: *const libc::c_char) -> io::Result<()> {
        // SAFETY: key and value are C strings (or null where the command takes none) of the callers above.
        checked(unsafe { libc::syscall(libc::SYS_fsconfig, self.0.as_raw_fd(), command, key, value, 0) }).map(drop)
    }

    /// A mount of it, attached nowhere.
    pub(crate) fn mount(self, attributes: MountAttributes) -> io::Result<OwnedFd> {
        self.config(FSCONFIG_CMD_CREATE, ptr::null(), ptr::null())?;
        // SAFETY: takes plain numbers.
        owned(unsafe { libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, attributes.bits()) })
    }
}

/// A mount of a file system with options, attached nowhere.
pub(crate) fn detached(kind: &CStr, options: &[(&CStr, &CStr)], attributes: MountAttributes) -> io::Result<OwnedFd> {
    let filesystem = Filesystem::open(kind)?;
    for (key, value) in options {
        filesystem.set(key, value)?;
    }
    filesystem.mount(attributes)
}

/// Opens a path as if `root` were the root directory, without following links of `/proc`.
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: libc::c_int) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::from_bits_retain(flags | libc::O_CLOEXEC))
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(knoll_tree::undisturbed(|| openat2(root, path, how))?)
}

/// Makes a mounted directory the root and lets go of the old one.
pub(crate) fn pivot_root_here(root: impl AsFd) -> io::Result<()> {
    nix::unistd::fchdir(root)?;
    nix::unistd::pivot_root(".", ".")?;
    nix::mount::umount2(".", nix::mount::MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    Ok(())
}
