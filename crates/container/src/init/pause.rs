//! The first process of a process-id namespace that several containers share. They can look at it, and with
//! `SYS_PTRACE` take it over; so there is nothing in it: no file system, no file, no capability, no memory of ours, no
//! system calls but those it makes, and no namespace that is not the sandbox's.

use std::convert::Infallible;
use std::ffi::CString;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

use super::{Failure, READY, Step, report, target};
use crate::capability::CapabilitySet;
use crate::cgroup::{Cgroups, Devices};
use crate::sys::{self, MountAttributes};

/// Who it runs as; nobody else should, as in other runtimes.
const USER: u32 = 65_535;
/// What it does: executes its program, and the calls of [`sys::pause`].
const CALLS: [libc::c_long; 3] = [libc::SYS_execveat, libc::SYS_prctl, PAUSE];
#[cfg(target_arch = "x86_64")]
const PAUSE: libc::c_long = libc::SYS_pause;
#[cfg(target_arch = "aarch64")]
const PAUSE: libc::c_long = libc::SYS_ppoll;

/// Everything it needs. It must be born in a new process-id namespace and a new mount namespace.
pub(crate) struct Pause<'a> {
    /// What [`sys::pause`] gives.
    pub(crate) program: BorrowedFd<'a>,
    pub(crate) cgroups: &'a Cgroups,
    pub(crate) devices: Option<&'a Devices>,
    pub(crate) group: &'a str,
    /// The sandbox's namespaces, in the order to be joined.
    pub(crate) namespaces: &'a [(BorrowedFd<'a>, CloneFlags)],
    /// Any directory, to mount the empty root on.
    pub(crate) directory: &'a Path,
    pub(crate) status: BorrowedFd<'a>,
}

/// Becomes the program, or reports why not and gives the child's exit code. With the report that it is ready comes the
/// `/proc` of the new namespace, mounted nowhere.
pub(crate) fn pause(pause: &Pause<'_>) -> i32 {
    let mut all = vec![pause.status, pause.program];
    all.extend(pause.namespaces.iter().map(|(fd, _)| *fd));
    match sys::keep_only(&all, 0).step(|| "cannot close the monitor's files".into()) {
        Ok(kept) => {
            let outcome = run(pause, &kept);
            kept.first().map_or(125, |status| report(status.as_fd(), outcome))
        }
        Err(failure) => report(pause.status, Err(failure)),
    }
}

fn run(pause: &Pause<'_>, kept: &[OwnedFd]) -> Result<Infallible, Failure> {
    let [status, program, namespaces @ ..] = kept else { return Err(Failure::start("too few descriptors")) };
    pause.cgroups.join(pause.group).step(|| format!("cannot join cgroup {}", pause.group))?;
    if let Some(devices) = pause.devices {
        devices.confine_self().step(|| "cannot keep devices from the pause process".into())?;
    }
    let attributes = MountAttributes { no_suid: true, no_dev: true, no_exec: true, ..MountAttributes::default() };
    let proc = sys::detached(c"proc", &[], attributes).step(|| "cannot mount /proc".into())?;
    for (fd, (_, kind)) in namespaces.iter().zip(pause.namespaces).filter(|(_, (_, kind))| !is_user(*kind)) {
        setns(fd, *kind).step(|| format!("cannot join the sandbox's namespaces ({kind:?})"))?;
    }
    unshare(CloneFlags::CLONE_NEWCGROUP).step(|| "cannot unshare the cgroup namespace".into())?;
    empty_root(pause.directory)?;
    for (fd, (_, kind)) in namespaces.iter().zip(pause.namespaces).filter(|(_, (_, kind))| is_user(*kind)) {
        setns(fd, *kind).step(|| "cannot join the sandbox's user namespace".into())?;
    }
    nix::unistd::setsid().step(|| "cannot make a session".into())?;
    sys::program_signals().step(|| "cannot reset signals".into())?;
    sys::ignore_children().step(|| "cannot ignore children".into())?;
    drop(sys::new_session_keyring());
    become_nobody()?;
    let rights = [proc.as_raw_fd()];
    let packet = [IoSlice::new(&[READY])];
    let control = [ControlMessage::ScmRights(&rights)];
    sendmsg::<UnixAddr>(status.as_raw_fd(), &packet, &control, MsgFlags::MSG_NOSIGNAL, None)
        .step(|| "cannot report".into())?;
    sys::set_filter(&crate::seccomp::only(&CALLS)).step(|| "cannot install the system call filter".into())?;
    let error = sys::execute(program.as_fd(), &[CString::from(c"pause")], &[]);
    Err(Failure::start(format!("cannot execute the pause program: {error}")))
}

fn is_user(kind: CloneFlags) -> bool {
    kind == CloneFlags::CLONE_NEWUSER
}

/// Makes an empty file system that cannot be written the root, and lets go of everything else.
fn empty_root(directory: &Path) -> Result<(), Failure> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).step(|| "cannot make mounts private".into())?;
    let attributes = MountAttributes { read_only: true, no_suid: true, no_dev: true, no_exec: true };
    let options = [(c"mode", c"555"), (c"size", c"4096"), (c"nr_inodes", c"1")];
    let tree = sys::detached(c"tmpfs", &options, attributes).step(|| "cannot make an empty root".into())?;
    let at = target::open(directory).step(|| format!("cannot open {}", directory.display()))?;
    sys::move_mount(tree.as_fd(), at.as_fd()).step(|| "cannot mount an empty root".into())?;
    sys::pivot_root_here(&tree).step(|| "cannot change the root directory".into())
}

/// Gives up every privilege there is.
fn become_nobody() -> Result<(), Failure> {
    for capability in CapabilitySet::all().numbers() {
        // The kernel may know fewer.
        drop(sys::drop_from_bounding(capability));
    }
    nix::unistd::setgroups(&[]).step(|| "cannot leave groups".into())?;
    nix::unistd::setresgid(USER.into(), USER.into(), USER.into()).step(|| "cannot set the group".into())?;
    nix::unistd::setresuid(USER.into(), USER.into(), USER.into()).step(|| "cannot set the user".into())?;
    sys::capset(0).step(|| "cannot drop capabilities".into())?;
    sys::set_no_new_privileges().step(|| "cannot set no_new_privs".into())
}
