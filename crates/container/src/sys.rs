//! Thin safe wrappers around system calls that no crate wraps.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

mod mount;
mod process;

pub(crate) use mount::{
    Filesystem, MountAttributes, clone_tree, detached, move_mount, open_in_root, pivot_root_here, set_attributes,
};
pub(crate) use process::{
    PidExit, boot_id, capset, default_signals, drop_from_bounding, exit_of, new_session_keyring, pidfd_open,
    pidfd_signal, process_start_ticks, program_signals, set_filter, set_no_new_privileges,
};

/// The result of a call that answers -1 and sets errno.
fn checked(outcome: libc::c_long) -> io::Result<libc::c_long> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(outcome) }
}

/// A new descriptor from a call's result.
fn owned(outcome: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(checked(outcome)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A path as the kernel wants it.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Sets the size of a terminal, in characters.
pub(crate) fn set_terminal_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives across the call.
    let outcome = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    checked(outcome.into()).map(drop)
}

/// A new terminal from the `/dev/ptmx` of the current root: the controlling side and the program's side, which becomes
/// the controlling terminal of this session.
pub(crate) fn open_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let control = open("/dev/ptmx", flags, Mode::empty())?;
    let mut number: libc::c_uint = 0;
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which lives across the call.
    checked(unsafe { libc::ioctl(control.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) }.into())?;
    // SAFETY: TIOCGPTN writes one unsigned int, which lives across the call.
    checked(unsafe { libc::ioctl(control.as_raw_fd(), libc::TIOCGPTN, &raw mut number) }.into())?;
    let program = open(format!("/dev/pts/{number}").as_str(), flags, Mode::empty())?;
    // SAFETY: TIOCSCTTY takes a plain number.
    checked(unsafe { libc::ioctl(program.as_raw_fd(), libc::TIOCSCTTY, 0) }.into())?;
    Ok((control, program))
}

/// A child made by [`spawn`].
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: libc::pid_t,
    pub(crate) pidfd: OwnedFd,
}

/// Forks into new namespaces (`CLONE_NEW…` flags) and optionally straight into a cgroup of the unified hierarchy. The
/// child runs `child` and ends with the number that returns, so nothing of the caller's stack is unwound twice.
///
/// Only for a process with one thread: the child inherits every lock as it is.
pub(crate) fn spawn(
    flags: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> i32,
) -> io::Result<Spawned> {
    let mut pidfd: RawFd = -1;
    let mut request = CloneArgs {
        flags: u64::from((flags | libc::CLONE_PIDFD).cast_unsigned()),
        pidfd: (&raw mut pidfd).addr() as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        request.flags |= CLONE_INTO_CGROUP;
        request.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of memory and stack. `request` and `pidfd`
    // live across the call.
    let outcome = unsafe { libc::syscall(libc::SYS_clone3, &raw mut request, size_of::<CloneArgs>()) };
    if outcome == 0 {
        let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(70);
        // SAFETY: ends this process at once, without the parent's exit handlers.
        unsafe { libc::_exit(code) }
    }
    let pid = libc::pid_t::try_from(checked(outcome)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has stored a new descriptor there, which nobody else knows.
    Ok(Spawned { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Replaces this process. Returns only on failure.
pub(crate) fn execve(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    match nix::unistd::execve(program, args, env) {
        Err(errno) => errno.into(),
    }
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: RawFd) -> io::Result<()> {
    // SAFETY: the caller is a forked child that uses none of these any more and will not drop their owners.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) }).map(drop)
}

/// The limits a process may be given, by their names in Kubernetes and `ulimit`.
pub(crate) fn set_rlimit(name: &str, soft: u64, hard: u64) -> io::Result<()> {
    let resource = match name.trim_start_matches("RLIMIT_").to_ascii_lowercase().as_str() {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such limit")),
    };
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: reads one rlimit, which lives across the call.
    checked(unsafe { libc::setrlimit(resource, &raw const limit) }.into()).map(drop)
}
