//! Thin safe wrappers around system calls that no crate wraps.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

mod bpf;
mod mount;
mod process;
mod program;
mod quota;

pub(crate) use bpf::{attach_device_program, device_program};
pub(crate) use mount::{
    Filesystem, MountAttributes, clone_tree, detached, map_ids, move_mount, open_in_root, pivot_root_here,
    set_attributes,
};
pub(crate) use process::{
    PidExit, boot_id, capset, default_signals, drop_from_bounding, exit_of, exited_child, has_exited, ignore_children,
    is_child, new_session_keyring, pidfd_open, pidfd_signal, process_start_ticks, program_signals, reap, set_filter,
    set_no_new_privileges,
};
pub(crate) use program::{birth, execute, pause, run_sealed};
pub(crate) use quota::{SET_PROJECT, is_unused, limits_projects, project, set_limit, set_project};

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

/// A new terminal from the `/dev/pts` of the current root: the controlling side and the program's side. What a container
/// may have put in its place is refused.
pub(crate) fn open_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::fcntl::{OFlag, open};
    use nix::sys::stat::Mode;
    const CONTROL: libc::dev_t = libc::makedev(5, 2);
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let control = open("/dev/pts/ptmx", flags, Mode::empty())?;
    let stat = nix::sys::stat::fstat(&control)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != CONTROL {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "/dev/pts/ptmx is no terminal multiplexer"));
    }
    nix::fcntl::fcntl(&control, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_RDWR))?;
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which lives across the call.
    checked(unsafe { libc::ioctl(control.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) }.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // Not by its name below `/dev/pts`, which may lead elsewhere.
    // SAFETY: TIOCGPTPEER takes plain numbers and answers with a new descriptor.
    let program = owned(unsafe { libc::ioctl(control.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())?;
    Ok((control, program))
}

/// Receives one packet that is there, and the last descriptor that came with it.
pub(crate) fn receive(socket: BorrowedFd<'_>, packet: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let mut slices = [io::IoSliceMut::new(packet)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    let mut received = None;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            // SAFETY: the kernel has just installed these descriptors for us; nobody else knows them.
            received = fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).next_back().or(received);
        }
    }
    Ok((message.bytes, received))
}

/// Takes a descriptor out of an epoll set, by its number alone.
pub(crate) fn epoll_forget(epoll: BorrowedFd<'_>, fd: RawFd) -> io::Result<()> {
    let nothing = std::ptr::null_mut::<libc::epoll_event>();
    // SAFETY: takes plain numbers; a number that is not in the set is an error and nothing else.
    checked(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, nothing) }.into()).map(drop)
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
        // What the child remembers of its parent is nobody's business.
        let child = || nix::sys::prctl::set_dumpable(false).map_or(71, |()| child());
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

/// In a forked child: puts these descriptors at 0, 1, 2 and so on, and closes every other one. The first `inherited`
/// stay open when a program is executed. What the parent calls its own numbers must not be used any more.
pub(crate) fn keep_only(fds: &[BorrowedFd<'_>], inherited: usize) -> io::Result<Vec<OwnedFd>> {
    // Behind every place, so that none is taken before its time.
    let behind = RawFd::try_from(fds.len()).map_err(io::Error::other)?;
    let aside: Vec<RawFd> = fds
        .iter()
        .map(|fd| nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(behind)))
        .collect::<nix::Result<_>>()?;
    let mut kept = Vec::with_capacity(fds.len());
    for (place, fd) in (0..).zip(aside) {
        let inherited = usize::try_from(place).is_ok_and(|place| place < inherited);
        let flags = if inherited { 0 } else { libc::O_CLOEXEC };
        // SAFETY: takes plain numbers. What was at `place` belongs to code of the parent that never runs here again.
        kept.push(owned(unsafe { libc::dup3(fd, place, flags) }.into())?);
    }
    close_from(behind)?;
    Ok(kept)
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
