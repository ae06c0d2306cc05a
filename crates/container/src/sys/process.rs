//! Process identity, signals and privileges.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{checked, owned};

/// A handle on a process, whoever's child it is.
pub(crate) fn pidfd_open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: takes plain numbers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends a signal to the process behind a handle.
pub(crate) fn pidfd_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let (fd, info) = (process.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: takes plain numbers and a null pointer, which means the default.
    checked(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) }).map(drop)
}

/// Whether a process is a child of this one, ended or not, that has not been reaped; so its number is its own.
pub(crate) fn is_child(pid: libc::pid_t) -> bool {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(nix::unistd::Pid::from_raw(pid)), flags).is_ok()
}

/// A child that has exited and has not been reaped, if there is one.
pub(crate) fn exited_child() -> Option<libc::pid_t> {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
    waitid(Id::All, flags).ok()?.pid().map(nix::unistd::Pid::as_raw)
}

/// Reaps a child that has exited.
pub(crate) fn reap(pid: libc::pid_t) {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    // It was there a moment ago, and nobody else reaps.
    waitid(Id::Pid(nix::unistd::Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG).ok();
}

/// Whether the process behind a handle has exited, reaped or not.
pub(crate) fn has_exited(pidfd: BorrowedFd<'_>) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PidExit {
    Code(i32),
    Signal(i32),
    /// It has, but nobody knows how.
    Unknown,
}

impl PidExit {
    fn of_status(status: i32) -> PidExit {
        if libc::WIFSIGNALED(status) {
            PidExit::Signal(libc::WTERMSIG(status))
        } else {
            PidExit::Code(libc::WEXITSTATUS(status))
        }
    }
}

/// Reaps an exited process, or finds out how it ended when it is somebody else's child. `None` while it runs.
pub(crate) fn exit_of(pid: libc::pid_t, pidfd: BorrowedFd<'_>) -> Option<PidExit> {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    match waitid(Id::PIDFd(pidfd), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
        Ok(WaitStatus::Exited(_, code)) => Some(PidExit::Code(code)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(PidExit::Signal(signal as i32)),
        Ok(_) | Err(nix::errno::Errno::EINTR) => None,
        Err(_) if pidfd_signal(pidfd, 0).is_ok() && !is_zombie(pid) => None,
        Err(_) => Some(exit_of_stranger(pid, pidfd)),
    }
}

fn is_zombie(pid: libc::pid_t) -> bool {
    stat_fields(pid).is_ok_and(|fields| fields.first().is_some_and(|state| state == "Z" || state == "X"))
}

/// A zombie's status stands in `/proc`; once it has been reaped, newer kernels tell it through the handle.
fn exit_of_stranger(pid: libc::pid_t, pidfd: BorrowedFd<'_>) -> PidExit {
    let from_proc = || {
        let fields = stat_fields(pid).ok().filter(|fields| fields.first().is_some_and(|state| state == "Z"))?;
        fields.last()?.parse().ok().map(PidExit::of_status)
    };
    exit_info(pidfd).or_else(from_proc).or_else(|| exit_info(pidfd)).unwrap_or(PidExit::Unknown)
}

/// `struct pidfd_info` as of Linux 6.15.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

fn exit_info(pidfd: BorrowedFd<'_>) -> Option<PidExit> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // _IOWR(0xFF, 11, struct pidfd_info)
    let request = (3u64 << 30) | ((size_of::<PidfdInfo>() as u64) << 16) | (0xFF << 8) | 11;
    let request = libc::Ioctl::try_from(request).ok()?;
    // SAFETY: the request carries the size of the struct, which lives across the call.
    let outcome = unsafe { libc::ioctl(pidfd.as_raw_fd(), request, &raw mut info) };
    (outcome == 0 && info.mask & PIDFD_INFO_EXIT != 0).then(|| PidExit::of_status(info.exit_code))
}

/// The fields of `/proc/<pid>/stat` after the name; the first is the state.
fn stat_fields(pid: libc::pid_t) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').ok_or(io::ErrorKind::InvalidData)?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

/// When a process began, in clock ticks since boot. With the boot id and the pid it names a process for good.
pub(crate) fn process_start_ticks(pid: libc::pid_t) -> io::Result<u64> {
    let fields = stat_fields(pid)?;
    let field = fields.get(19).ok_or(io::ErrorKind::InvalidData)?;
    field.parse().map_err(io::Error::other)
}

/// This boot's id.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Sets the permitted and effective capabilities, one bit each; nothing is inheritable.
pub(crate) fn capset(bits: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION_3, 0];
    let low = bits as u32;
    let high = (bits >> 32) as u32;
    // effective, permitted, inheritable; low words, then high words
    let data: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: version 3 reads a header of two words and data of six; both live across the call.
    checked(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

/// From here on no program gains privileges.
pub(crate) fn set_no_new_privileges() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs().map_err(io::Error::from)
}

/// Installs a system call filter for good.
pub(crate) fn set_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions of the slice, which lives across the call, and changes none.
    checked(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program) }).map(drop)
}

/// Gives up a capability for good, for this process and all it executes.
pub(crate) fn drop_from_bounding(capability: u32) -> io::Result<()> {
    // SAFETY: takes plain numbers.
    checked(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) }.into()).map(drop)
}

/// Leaves the keys of whoever started us behind.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let name = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for a fresh anonymous keyring.
    checked(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) }).map(drop)
}

/// Gives every signal its default meaning, except that writing to nobody is an error and not the end.
pub(crate) fn default_signals() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    for which in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        let handler = if which == Signal::SIGPIPE { SigHandler::SigIgn } else { SigHandler::SigDfl };
        // SAFETY: neither the default action nor ignoring runs code of ours.
        unsafe { signal(which, handler) }?;
    }
    Ok(())
}

/// Has the kernel reap children that exit, in a program executed next, too.
pub(crate) fn ignore_children() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: ignoring runs no code of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
    Ok(())
}

/// After [`default_signals`] and a fork: gives the remaining signal its default meaning and blocks none, which is what
/// a fresh program expects.
pub(crate) fn program_signals() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
    // SAFETY: the default action runs no code of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}
