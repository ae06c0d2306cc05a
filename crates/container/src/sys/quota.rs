//! Project quotas: which project a directory belongs to, and what a project may use.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::checked;

/// `FS_IOC_FSGETXATTR`.
const GET_ATTRIBUTES: libc::Ioctl = 0x801c_581f_u32 as libc::Ioctl;
/// `FS_IOC_FSSETXATTR`.
const SET_ATTRIBUTES: libc::Ioctl = SET_PROJECT as libc::Ioctl;
/// `FS_IOC_FSSETXATTR` as the kernel reads it.
pub(crate) const SET_PROJECT: u32 = 0x401c_5820;
/// `FS_XFLAG_PROJINHERIT`: what is made in a directory belongs to its project.
const INHERIT: u32 = 0x200;

/// `PRJQUOTA`.
const OF_PROJECTS: libc::c_int = 2;
/// `Q_XGETQUOTA`, `Q_XSETQLIM`, `Q_XGETQSTAT`: of XFS by name, and by now of every file system with quotas.
const GET: libc::c_int = 0x5803;
const SET: libc::c_int = 0x5804;
const STATE: libc::c_int = 0x5805;
/// `FS_QUOTA_PDQ_ENFD`: limits of projects are enforced.
const ENFORCED: u16 = 1 << 5;
/// `FS_DQUOT_VERSION`, `FS_PROJ_QUOTA`, and `FS_DQ_BHARD`: the hard limit of blocks is given.
const VERSION: i8 = 1;
const PROJECT: i8 = 2;
const HARD_BLOCKS: u16 = 1 << 3;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copied_extent_size: u32,
    padding: [u8; 8],
}

/// `struct fs_quota_stat`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct State {
    version: i8,
    flags: u16,
    padding: i8,
    files: [u64; 6],
    rest: [u64; 3],
}

/// `struct fs_disk_quota`. Limits of blocks are in units of 512 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Quota {
    version: i8,
    flags: i8,
    fields: u16,
    id: u32,
    hard_blocks: u64,
    soft_blocks: u64,
    hard_files: u64,
    soft_files: u64,
    blocks: u64,
    files: u64,
    rest: [u64; 7],
}

/// The project of a file or directory.
pub(crate) fn project(file: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(attributes(file)?.project)
}

/// Has a directory, and what is made in it from now on, belong to a project.
pub(crate) fn set_project(directory: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let before = attributes(directory)?;
    let after = Attributes { project, flags: before.flags | INHERIT, ..before };
    // SAFETY: FS_IOC_FSSETXATTR reads one `struct fsxattr`, which lives across the call.
    let outcome = unsafe { libc::ioctl(directory.as_raw_fd(), SET_ATTRIBUTES, &raw const after) };
    checked(outcome.into()).map(drop)
}

fn attributes(file: BorrowedFd<'_>) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: FS_IOC_FSGETXATTR writes one `struct fsxattr`, which lives across the call.
    let outcome = unsafe { libc::ioctl(file.as_raw_fd(), GET_ATTRIBUTES, &raw mut attributes) };
    checked(outcome.into()).map(|_| attributes)
}

/// Whether the file system that a file lies on enforces limits of projects.
pub(crate) fn limits_projects(file: BorrowedFd<'_>) -> io::Result<bool> {
    let mut state = State::default();
    control(file, STATE, 0, &mut state)?;
    Ok(state.flags & ENFORCED != 0)
}

/// Whether nothing belongs to a project and nothing limits it.
pub(crate) fn is_unused(file: BorrowedFd<'_>, project: u32) -> io::Result<bool> {
    let mut quota = Quota::default();
    match control(file, GET, project, &mut quota) {
        // XFS has no record of it.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(true),
        asked => asked?,
    }
    let limits = [quota.hard_blocks, quota.soft_blocks, quota.hard_files, quota.soft_files];
    Ok(quota.blocks == 0 && quota.files == 0 && limits == [0; 4])
}

/// Limits the blocks of a project, in units of 512 bytes; 0 is no limit.
pub(crate) fn set_limit(file: BorrowedFd<'_>, project: u32, blocks: u64) -> io::Result<()> {
    let mut quota = Quota {
        version: VERSION,
        flags: PROJECT,
        fields: HARD_BLOCKS,
        id: project,
        hard_blocks: blocks,
        ..Quota::default()
    };
    control(file, SET, project, &mut quota)
}

/// What the kernel reads or writes for a request about quotas.
trait Answer {}
impl Answer for State {}
impl Answer for Quota {}

fn control<T: Answer>(file: BorrowedFd<'_>, request: libc::c_int, project: u32, answer: &mut T) -> io::Result<()> {
    let command = libc::QCMD(request, OF_PROJECTS);
    let answer = std::ptr::from_mut(answer);
    // SAFETY: the answer is the structure that this file's callers give with their request, laid out as the kernel's,
    // and lives across the call.
    checked(unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), command, project, answer) }).map(drop)
}

// The kernel's sizes: it reads and writes as much, whatever lies there.
const _: () = assert!(size_of::<Attributes>() == 28 && size_of::<State>() == 80 && size_of::<Quota>() == 112);
