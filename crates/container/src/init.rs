//! What happens in a forked child before the program of a container, or of an exec, takes over.
//!
//! The child tells its parent over a packet socket: one packet when everything is ready for the program, then either
//! nothing (the socket closes as the program is executed) or a refusal.
//!
//! A program that starts where others run already, which is an exec, or a container in a process-id namespace that
//! several share, could be looked at by them before it is one: with `SYS_PTRACE` they would see the monitor's memory.
//! So the child that prepares stays in the monitor's process-id namespace, and at its end becomes a program of a few
//! instructions ([`sys::birth`]) without any memory of ours, whose sibling is born among the others and becomes theirs.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libc::sock_filter;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

use self::descriptors::Kept;
use crate::capability::CapabilitySet;
use crate::cgroup::{Cgroups, Devices};
use crate::protocol::{ContainerSpec, ExecSpec, IdRange, Refusal, RefusalKind, Security};
use crate::sys;

mod descriptors;
mod device;
mod pause;
mod program;
mod rootfs;
mod target;
pub(crate) mod user;
mod volume;

pub(crate) use pause::{Pause, pause};

/// A packet that says: the program is executed next.
pub(crate) const READY: u8 = b'R';

/// How a program begins among processes that are there already.
pub(crate) struct Birth<'a> {
    /// What [`sys::birth`] gives.
    pub(crate) program: BorrowedFd<'a>,
    /// A process of the process-id namespace it is born in.
    pub(crate) namespace: BorrowedFd<'a>,
}

/// A user namespace and the ids behind it.
#[derive(Clone, Copy)]
pub(crate) struct Mapping<'a> {
    pub(crate) namespace: BorrowedFd<'a>,
    pub(crate) ids: IdRange,
}

impl Mapping<'_> {
    /// The machine's id behind one inside.
    fn outside(&self, id: u32) -> Result<u32, Failure> {
        let IdRange { first, length } = self.ids;
        if id < length {
            return Ok(first + id);
        }
        Err(Failure::start(format!("user or group {id} is none of the {length} that a user namespace has")))
    }
}

/// What a child says.
#[derive(Debug)]
pub(crate) enum Word {
    /// The program is executed next.
    Ready,
    /// The process that becomes the program is this one.
    Born(i32),
    /// The program cannot be executed, for this reason.
    Failed(io::Error),
    /// A step before that failed.
    Refused(Refusal),
}

impl Word {
    /// Reads a packet, which is not empty.
    pub(crate) fn read(packet: &[u8]) -> Word {
        if packet == [READY] {
            return Word::Ready;
        }
        if let Ok(number) = <[u8; 8]>::try_from(packet) {
            let number = i32::try_from(i64::from_le_bytes(number)).unwrap_or(-libc::EINVAL);
            return if number > 0 { Word::Born(number) } else { Word::Failed(io::Error::from_raw_os_error(-number)) };
        }
        Word::Refused(serde_json::from_slice(packet).unwrap_or_else(|error| Refusal {
            kind: RefusalKind::Internal,
            message: format!("the child's report cannot be understood: {error}"),
        }))
    }
}

/// The refusal for a program that cannot be executed.
pub(crate) fn not_executed(program: &str, error: &io::Error) -> Refusal {
    Refusal { kind: RefusalKind::Start, message: format!("exec {program}: {}", describe(error)) }
}

/// What a program may do.
pub(crate) struct Privileges<'a> {
    /// Its capabilities, at most what the monitor has.
    pub(crate) capabilities: CapabilitySet,
    /// What the monitor has.
    pub(crate) bounding: CapabilitySet,
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
    /// With a process-id namespace of several containers: how it begins there.
    pub(crate) birth: Option<Birth<'a>>,
    /// With such a namespace, where its `/proc` is mounted.
    pub(crate) proc: Option<&'a Path>,
    /// How devices are kept from those that are not privileged.
    pub(crate) devices: Option<&'a Devices>,
    /// The sandbox's user namespace, if it has one.
    pub(crate) ids: Option<Mapping<'a>>,
}

/// Everything an exec needs.
pub(crate) struct Exec<'a> {
    pub(crate) spec: &'a ExecSpec,
    /// The container it runs in.
    pub(crate) container: &'a ContainerSpec,
    pub(crate) privileges: Privileges<'a>,
    pub(crate) cgroups: &'a Cgroups,
    pub(crate) group: &'a str,
    /// How it begins beside the container's first process, whose namespaces it joins.
    pub(crate) birth: Birth<'a>,
    /// Whether the container has a user namespace of its own.
    pub(crate) in_user_namespace: bool,
    /// How devices are kept from those that are not privileged.
    pub(crate) devices: Option<&'a Devices>,
    /// Without a terminal: stdin, stdout and stderr.
    pub(crate) stdio: Option<[BorrowedFd<'a>; 3]>,
    pub(crate) status: BorrowedFd<'a>,
}

/// A step that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: RefusalKind,
    pub(crate) message: String,
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
    match Kept::of_container(container) {
        Ok(mut kept) => {
            let outcome = run_container(container, &mut kept);
            report(kept.status.as_fd(), outcome)
        }
        Err(failure) => report(container.status, Err(failure)),
    }
}

/// Becomes an exec's program, or reports why not and gives the child's exit code.
pub(crate) fn exec(exec: &Exec<'_>) -> i32 {
    match Kept::of_exec(exec) {
        Ok(mut kept) => {
            let outcome = run_exec(exec, &mut kept);
            report(kept.status.as_fd(), outcome)
        }
        Err(failure) => report(exec.status, Err(failure)),
    }
}

fn report(status: BorrowedFd<'_>, outcome: Result<Infallible, Failure>) -> i32 {
    let Err(failure) = outcome;
    let refusal = Refusal { kind: failure.kind, message: failure.message };
    let text = serde_json::to_vec(&refusal).unwrap_or_default();
    // A monitor that is not there any more cannot be told.
    nix::sys::socket::send(status.as_raw_fd(), &text, MsgFlags::MSG_NOSIGNAL).ok();
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

fn run_container(c: &Container<'_>, kept: &mut Kept) -> Result<Infallible, Failure> {
    c.cgroups.join(c.group).step(|| format!("cannot join cgroup {}", c.group))?;
    keep_devices(c.devices, &c.spec.security)?;
    adjust_oom_score(c.spec.oom_score_adj);
    kept.join()?;
    fresh_process()?;
    unshare(CloneFlags::CLONE_NEWCGROUP).step(|| "cannot unshare the cgroup namespace".into())?;
    rootfs::enter(c, kept.mapping(c).as_ref())?;
    for (name, limit) in &c.spec.rlimits {
        set_rlimit(name, *limit)?;
    }
    kept.close_others()?;
    let user = user::resolve_here(&c.spec.security.user)?;
    match kept.mapping(c) {
        Some(mapping) => own_stdio(mapping.outside(user.uid)?),
        None => own_stdio(user.uid),
    }
    kept.enter_user_namespace()?;
    let env = program::environment(&c.spec.env, &user)?;
    let program = Program { cwd: &c.spec.cwd, args: &c.spec.args, env: &env, user: &user };
    finish(&c.spec.security, &c.privileges, &program, kept, None)
}

fn run_exec(e: &Exec<'_>, kept: &mut Kept) -> Result<Infallible, Failure> {
    e.cgroups.join(e.group).step(|| format!("cannot join cgroup {}", e.group))?;
    keep_devices(e.devices, &e.container.security)?;
    adjust_oom_score(e.container.oom_score_adj);
    kept.join()?;
    if e.in_user_namespace {
        become_root_inside()?;
    }
    fresh_process()?;
    let terminal = if e.stdio.is_none() { Some(open_terminal()?) } else { None };
    let user = user::resolve_here(e.spec.user.as_ref().unwrap_or(&e.container.security.user))?;
    if terminal.is_some() {
        own_stdio(user.uid);
    }
    let both: Vec<String> = e.container.env.iter().chain(&e.spec.env).cloned().collect();
    let env = program::environment(&both, &user)?;
    let cwd = e.spec.cwd.as_deref().unwrap_or(&e.container.cwd);
    let program = Program { cwd, args: &e.spec.args, env: &env, user: &user };
    finish(&e.container.security, &e.privileges, &program, kept, terminal.as_ref())
}

/// In a user namespace that has just been entered: becomes its root, since whoever entered it is nobody there.
fn become_root_inside() -> Result<(), Failure> {
    let what = || "cannot become root of the user namespace".to_owned();
    nix::unistd::setgroups(&[]).step(what)?;
    nix::unistd::setresgid(0.into(), 0.into(), 0.into()).step(what)?;
    nix::unistd::setresuid(0.into(), 0.into(), 0.into()).step(what)
}

fn keep_devices(devices: Option<&Devices>, security: &Security) -> Result<(), Failure> {
    match devices.filter(|_| !security.privileged) {
        Some(devices) => devices.confine_self().step(|| "cannot keep devices from a container".into()),
        None => Ok(()),
    }
}

/// Makes a terminal, gives its program's side to the streams, and returns its controlling side.
fn open_terminal() -> Result<OwnedFd, Failure> {
    let (control, program) = sys::open_terminal().step(|| "cannot make a terminal".into())?;
    nix::unistd::dup2_stdin(&program).step(|| "cannot set stdin".into())?;
    nix::unistd::dup2_stdout(&program).step(|| "cannot set stdout".into())?;
    nix::unistd::dup2_stderr(&program).step(|| "cannot set stderr".into())?;
    Ok(control)
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

/// Never the monitor's own. As long as the capability is there, what is written is also the least that can be written
/// later without. Best effort: lowering needs it, and the monitor itself may lack it.
fn adjust_oom_score(score: Option<i32>) {
    drop(fs::write("/proc/self/oom_score_adj", score.unwrap_or(0).to_string()));
}

/// Best effort upwards: raising a hard limit needs a capability that the monitor itself may lack.
fn set_rlimit(name: &str, limit: crate::protocol::Rlimit) -> Result<(), Failure> {
    match sys::set_rlimit(name, limit.soft, limit.hard) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome.blame_spec(|| format!("cannot set limit {name:?}")),
    }
}

/// Lets the user reopen `/dev/stdout` and its like, as programs do that log to a file name.
fn own_stdio(uid: u32) {
    for fd in [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()] {
        let shared = nix::sys::stat::fstat(fd)
            .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFCHR && nix::sys::stat::major(stat.st_rdev) == 1);
        if !shared {
            // A stream of a kind that has no owner keeps what it has.
            nix::unistd::fchown(fd, Some(uid.into()), None).ok();
        }
    }
}

/// What is executed in the end.
struct Program<'a> {
    cwd: &'a Path,
    args: &'a [String],
    env: &'a [CString],
    user: &'a user::ExecUser,
}

/// The last steps: working directory, program, privileges, execution.
fn finish(
    security: &Security,
    privileges: &Privileges<'_>,
    program: &Program<'_>,
    kept: &Kept,
    terminal: Option<&OwnedFd>,
) -> Result<Infallible, Failure> {
    let entered = program::enter_directory(program.cwd)?;
    let mut argv = program::arguments(program.args)?;
    confine(security, privileges, program.user)?;
    if !entered {
        program::enter_directory_as_user(program.cwd)?;
    }
    let file = program::find(program.args, program.env)?;
    ready(kept.status.as_fd(), terminal)?;
    if security.no_new_privileges
        && let Some(filter) = privileges.filter
    {
        sys::set_filter(filter).step(|| "cannot install the system call filter".into())?;
    }
    let error = match &kept.birth {
        Some(birth) => {
            argv.insert(0, file.clone());
            let inherit = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
            nix::fcntl::fcntl(&kept.status, inherit).step(|| "cannot hand the report on".into())?;
            sys::execute(birth.as_fd(), &argv, program.env)
        }
        None => sys::execve(&file, &argv, program.env),
    };
    let refusal = not_executed(&file.to_string_lossy(), &error);
    Err(Failure { kind: refusal.kind, message: refusal.message })
}

fn confine(security: &Security, privileges: &Privileges<'_>, user: &user::ExecUser) -> Result<(), Failure> {
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
