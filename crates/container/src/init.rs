//! What happens in a forked child before the program of a container, or of an exec, takes over.
//!
//! The child tells its parent over a packet socket: one packet when everything is ready for the program, then either
//! nothing (the socket closes as the program is executed) or a refusal.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libc::sock_filter;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

use crate::capability::Set;
use crate::cgroup::Cgroups;
use crate::protocol::{ContainerSpec, ExecSpec, Refusal, RefusalKind, Security};
use crate::sys;

mod device;
mod program;
mod rootfs;
mod target;
mod user;
mod volume;

/// A packet that says: the program is executed next.
pub(crate) const READY: u8 = b'R';

/// What a program may do.
pub(crate) struct Privileges<'a> {
    /// Its capabilities, at most what the monitor has.
    pub(crate) capabilities: Set,
    /// What the monitor has.
    pub(crate) bounding: Set,
    /// Its system call filter, if any.
    pub(crate) filter: Option<&'a [sock_filter]>,
}

/// Everything the first process of a container needs.
pub(crate) struct Container<'a> {
    pub(crate) spec: &'a ContainerSpec,
    pub(crate) privileges: Privileges<'a>,
    pub(crate) cgroups: &'a Cgroups,
    pub(crate) group: &'a str,
    /// Namespaces to join, in this order.
    pub(crate) namespaces: Vec<(BorrowedFd<'a>, CloneFlags)>,
    /// An empty directory to mount the root file system on, and beside it those for the writable layer.
    pub(crate) directory: &'a Path,
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    pub(crate) status: BorrowedFd<'a>,
}

/// Everything an exec needs.
pub(crate) struct Exec<'a> {
    pub(crate) spec: &'a ExecSpec,
    /// The container it runs in.
    pub(crate) container: &'a ContainerSpec,
    pub(crate) privileges: Privileges<'a>,
    pub(crate) cgroups: &'a Cgroups,
    pub(crate) group: &'a str,
    /// The container's first process.
    pub(crate) process: BorrowedFd<'a>,
    /// Without a terminal: stdin, stdout and stderr.
    pub(crate) stdio: Option<[BorrowedFd<'a>; 3]>,
    pub(crate) status: BorrowedFd<'a>,
}

/// A step that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: RefusalKind,
    message: String,
}

impl Failure {
    /// The spec or the image is at fault.
    fn start(message: impl Into<String>) -> Failure {
        Failure { kind: RefusalKind::Start, message: message.into() }
    }
}

/// An errno as people know it, lower case.
fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// Names the step of a failed call.
trait Step<T> {
    /// The machine is at fault.
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
    /// The spec or the image is at fault.
    fn blame_spec(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            kind: RefusalKind::Internal,
            message: format!("{}: {}", what(), describe(&error.into())),
        })
    }

    fn blame_spec(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::start(format!("{}: {}", what(), describe(&error.into()))))
    }
}

/// Becomes a container's program, or reports why not and gives the child's exit code.
pub(crate) fn container(container: &Container<'_>) -> i32 {
    report(container.status, run_container(container))
}

/// Becomes an exec's program, or reports why not and gives the child's exit code.
pub(crate) fn exec(exec: &Exec<'_>) -> i32 {
    report(exec.status, run_exec(exec))
}

fn report(status: BorrowedFd<'_>, outcome: Result<Infallible, Failure>) -> i32 {
    let Err(failure) = outcome;
    let refusal = Refusal { kind: failure.kind, message: failure.message };
    let text = serde_json::to_vec(&refusal).unwrap_or_default();
    if let Err(error) = nix::sys::socket::send(status.as_raw_fd(), &text, MsgFlags::MSG_NOSIGNAL) {
        tracing::debug!(%error, "the monitor is not there to be told");
    }
    125
}

/// Tells the parent that the program comes next, and hands over a terminal's controlling side.
fn ready(status: BorrowedFd<'_>, terminal: Option<&OwnedFd>) -> Result<(), Failure> {
    let fds: Vec<i32> = terminal.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let packet = [IoSlice::new(&[READY])];
    sendmsg::<UnixAddr>(status.as_raw_fd(), &packet, control, MsgFlags::MSG_NOSIGNAL, None)
        .step(|| "cannot report".into())?;
    Ok(())
}

fn run_container(c: &Container<'_>) -> Result<Infallible, Failure> {
    c.cgroups.join(c.group).step(|| format!("cannot join cgroup {}", c.group))?;
    for (fd, kind) in &c.namespaces {
        setns(fd, *kind).step(|| format!("cannot join the sandbox's namespaces ({kind:?})"))?;
    }
    fresh_process()?;
    if let Some(score) = c.spec.oom_score_adj {
        adjust_oom_score(score);
    }
    unshare(CloneFlags::CLONE_NEWCGROUP).step(|| "cannot unshare the cgroup namespace".into())?;
    rootfs::enter(c)?;
    stdio(&c.stdio)?;
    for (name, limit) in &c.spec.rlimits {
        set_rlimit(name, *limit)?;
    }
    let user = user::resolve_here(&c.spec.security.user)?;
    own_stdio(user.uid);
    let env = program::environment(&c.spec.env, &user)?;
    finish(&c.spec.security, &c.privileges, &user, &c.spec.cwd, &c.spec.args, &env, &|| ready(c.status, None))
}

fn run_exec(e: &Exec<'_>) -> Result<Infallible, Failure> {
    e.cgroups.join(e.group).step(|| format!("cannot join cgroup {}", e.group))?;
    if let Some(score) = e.container.oom_score_adj {
        adjust_oom_score(score);
    }
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    setns(e.process, all).step(|| "cannot join the container's namespaces".into())?;
    fresh_process()?;
    let terminal = match e.stdio {
        Some(fds) => {
            stdio(&fds)?;
            None
        }
        None => {
            let (control, program) = sys::open_terminal().step(|| "cannot make a terminal".into())?;
            stdio(&[program.as_fd(), program.as_fd(), program.as_fd()])?;
            Some(control)
        }
    };
    let user = user::resolve_here(e.spec.user.as_ref().unwrap_or(&e.container.security.user))?;
    if terminal.is_some() {
        own_stdio(user.uid);
    }
    let both: Vec<String> = e.container.env.iter().chain(&e.spec.env).cloned().collect();
    let env = program::environment(&both, &user)?;
    let cwd = e.spec.cwd.as_deref().unwrap_or(&e.container.cwd);
    let tell = || ready(e.status, terminal.as_ref());
    finish(&e.container.security, &e.privileges, &user, cwd, &e.spec.args, &env, &tell)
}

/// A session of its own, default signals, no keys of the host.
fn fresh_process() -> Result<(), Failure> {
    nix::unistd::setsid().step(|| "cannot make a session".into())?;
    sys::program_signals().step(|| "cannot reset signals".into())?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // Kernels without keys have none to leave behind; a full quota is no reason not to run.
    drop(sys::new_session_keyring());
    Ok(())
}

/// Best effort: lowering needs a capability that the monitor itself may lack.
fn adjust_oom_score(score: i32) {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", score.to_string()) {
        tracing::debug!(%error, score, "the out-of-memory score stays as it is");
    }
}

/// Best effort upwards: raising a hard limit needs a capability that the monitor itself may lack.
fn set_rlimit(name: &str, limit: crate::protocol::Rlimit) -> Result<(), Failure> {
    match sys::set_rlimit(name, limit.soft, limit.hard) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::debug!(%error, name, "a process limit stays as it is");
            Ok(())
        }
        outcome => outcome.blame_spec(|| format!("cannot set limit {name:?}")),
    }
}

fn stdio(fds: &[BorrowedFd<'_>; 3]) -> Result<(), Failure> {
    let [input, output, errors] = fds;
    nix::unistd::dup2_stdin(input).step(|| "cannot set stdin".into())?;
    nix::unistd::dup2_stdout(output).step(|| "cannot set stdout".into())?;
    nix::unistd::dup2_stderr(errors).step(|| "cannot set stderr".into())
}

/// Lets the user reopen `/dev/stdout` and its like, as programs do that log to a file name.
fn own_stdio(uid: u32) {
    for fd in [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()] {
        let shared = nix::sys::stat::fstat(fd)
            .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFCHR && nix::sys::stat::major(stat.st_rdev) == 1);
        // A stream of a kind that has no owner keeps what it has.
        if !shared && let Err(error) = nix::unistd::fchown(fd, Some(uid.into()), None) {
            tracing::debug!(%error, "a stream keeps its owner");
        }
    }
}

/// The last steps: working directory, program, privileges, execution.
fn finish(
    security: &Security,
    privileges: &Privileges<'_>,
    user: &user::Identity,
    cwd: &Path,
    args: &[String],
    env: &[CString],
    tell: &dyn Fn() -> Result<(), Failure>,
) -> Result<Infallible, Failure> {
    let entered = program::enter_directory(cwd)?;
    let argv = program::arguments(args)?;
    confine(security, privileges, user)?;
    if !entered {
        program::enter_directory_as_user(cwd)?;
    }
    let program = program::find(args, env)?;
    tell()?;
    if security.no_new_privileges
        && let Some(filter) = privileges.filter
    {
        sys::set_filter(filter).step(|| "cannot install the system call filter".into())?;
    }
    let error = sys::execve(&program, &argv, env);
    Err(Failure::start(format!("exec {}: {}", program.to_string_lossy(), describe(&error))))
}

fn confine(security: &Security, privileges: &Privileges<'_>, user: &user::Identity) -> Result<(), Failure> {
    for capability in privileges.bounding.without(privileges.capabilities).numbers() {
        sys::drop_from_bounding(capability).step(|| "cannot drop a capability".into())?;
    }
    if security.no_new_privileges {
        sys::set_no_new_privileges().step(|| "cannot set no_new_privs".into())?;
    } else if let Some(filter) = privileges.filter {
        sys::set_filter(filter).step(|| "cannot install the system call filter".into())?;
    }
    let groups: Vec<nix::unistd::Gid> = user.groups.iter().map(|gid| (*gid).into()).collect();
    let (uid, gid) = (user.uid.into(), user.gid.into());
    nix::unistd::setgroups(&groups).step(|| "cannot set groups".into())?;
    nix::unistd::setresgid(gid, gid, gid).step(|| "cannot set the group".into())?;
    nix::unistd::setresuid(uid, uid, uid).step(|| "cannot set the user".into())?;
    let kept = if user.uid == 0 { privileges.capabilities.bits() } else { 0 };
    sys::capset(kept).step(|| "cannot set capabilities".into())
}
