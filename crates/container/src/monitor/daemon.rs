//! Starting: the lock, the detachment, the socket, a cgroup of its own.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};

use super::{MonitorError, Setup};
use crate::cgroup::Cgroups;
use crate::launch::Options;
use crate::protocol::Resources;
use crate::sys;

/// A log longer than this is put aside when a monitor starts.
const LONGEST_LOG: u64 = 1 << 20;

/// Makes sure that this is the only monitor of its state directory. The lock lasts as long as the file is open.
pub(super) fn lock(state_dir: &Path) -> Result<File, MonitorError> {
    let path = state_dir.join("lock");
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).setup("open its lock")?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(MonitorError::Running(state_dir.display().to_string())),
        Err(fs::TryLockError::Error(source)) => Err(MonitorError::Setup { what: "take its lock", source }),
    }
}

/// Runs `serve` in a session of its own, in the background. Returns when it has called its argument, or has failed.
pub(super) fn detach(
    options: &Options,
    serve: impl FnOnce(Box<dyn FnOnce()>) -> Result<(), MonitorError>,
) -> Result<(), MonitorError> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).setup("make a pipe")?;
    let mut write = Some(write);
    let spawned = sys::spawn(0, None, || {
        let Some(write) = write.take() else { return 1 };
        let outcome = background(options).and_then(|()| {
            let mut answer = File::from(write.try_clone().setup("make a pipe")?);
            serve(Box::new(move || drop(answer.write_all(b"R"))))
        });
        match outcome {
            Ok(()) => 0,
            Err(error) => {
                let text = knoll_faults::chain(&error);
                tracing::error!(error = text, "the monitor ends");
                drop(File::from(write).write_all(text.as_bytes()));
                1
            }
        }
    });
    drop(spawned.setup("fork")?);
    drop(write);
    let mut answer = String::new();
    // The monitor keeps its end open, so one byte is all there is to wait for.
    let mut first = [0; 1];
    let mut read = File::from(read);
    match read.read(&mut first).setup("hear from the monitor")? {
        1 if first == *b"R" => Ok(()),
        _ => {
            drop(read.read_to_string(&mut answer));
            let text = format!("{}{answer}", String::from_utf8_lossy(&first).trim_matches('\0'));
            Err(MonitorError::Setup { what: "start in the background", source: io::Error::other(text) })
        }
    }
}

fn background(options: &Options) -> Result<(), MonitorError> {
    nix::unistd::setsid().setup("make a session")?;
    std::env::set_current_dir("/").setup("leave the working directory")?;
    let path = options.state_dir.join("monitor.log");
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LONGEST_LOG) {
        fs::rename(&path, path.with_extension("log.old")).setup("put its log aside")?;
    }
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).setup("open its log")?;
    let null = File::open("/dev/null").setup("open /dev/null")?;
    nix::unistd::dup2_stdin(&null).setup("detach from its terminal")?;
    nix::unistd::dup2_stdout(&log).setup("detach from its terminal")?;
    nix::unistd::dup2_stderr(&log).setup("detach from its terminal")
}

/// Makes its directories and groups, and moves itself out of whoever started it.
pub(super) fn prepare(options: &Options, cgroups: &Cgroups) -> Result<(), MonitorError> {
    let private =
        |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path).setup("make its directories");
    for name in ["containers", "sandboxes", "trash"] {
        private(&options.state_dir.join(name))?;
    }
    for name in ["containers", "net"] {
        private(&options.runtime_dir.join(name))?;
    }
    // Only root may look into either.
    for directory in [&options.state_dir, &options.runtime_dir] {
        fs::set_permissions(directory, Permissions::from_mode(0o700)).setup("close its directories")?;
    }
    let mut group = String::new();
    for part in options.cgroup_root.split('/').chain(["monitor"]).filter(|part| !part.is_empty()) {
        group = if group.is_empty() { part.to_owned() } else { format!("{group}/{part}") };
        cgroups.create(&group).setup("make its cgroup")?;
    }
    cgroups.enter(&group).setup("enter its cgroup")?;
    leave_processes(options, cgroups);
    private_mounts(&options.runtime_dir.join("net")).setup("mount its namespaces privately")
}

/// Containers together must not take every process the machine can have: who would stop them needs some, too.
fn leave_processes(options: &Options, cgroups: &Cgroups) {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let most = [number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max")];
    let Some(most) = most.into_iter().flatten().min() else { return };
    let limits = Resources { pids: Some(most - most / 10), ..Resources::default() };
    if let Err(error) = cgroups.limit(&options.cgroup_root, &limits, false) {
        tracing::warn!(%error, "containers together may have as many processes as the machine");
    }
}

/// Makes the directory of network namespaces a mount that tells nobody about mounts below it.
fn private_mounts(directory: &Path) -> io::Result<()> {
    let none = None::<&str>;
    let private = || mount(none, directory, none, MsFlags::MS_PRIVATE, none);
    match private() {
        // No mount yet. The kernel is asked and not a list of mounts, in which a covered one looks like one to use.
        Err(Errno::EINVAL) => {
            mount(Some(directory), directory, none, MsFlags::MS_BIND, none)?;
            Ok(private()?)
        }
        result => Ok(result?),
    }
}

/// Opens the socket for its owner alone, replacing one a dead monitor has left (the lock says it is dead).
pub(super) fn listen(path: &Path) -> Result<UnixListener, MonitorError> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent).setup("make its socket's directory")?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).setup("remove an old socket")?,
        _ => {}
    }
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path).setup("open its socket");
    nix::sys::stat::umask(before);
    let listener = listener?;
    listener.set_nonblocking(true).setup("open its socket")?;
    Ok(listener)
}

/// Opens one of a process's namespaces.
pub(super) fn namespace(pid: i32, kind: &str) -> io::Result<OwnedFd> {
    File::open(format!("/proc/{pid}/ns/{kind}")).map(OwnedFd::from)
}

/// Does something with another namespace of this kind and comes back. Not being able to come back ends the monitor,
/// since everything it would do next would happen in the wrong place.
pub(super) fn inside<T>(
    there: impl AsFd,
    home: impl AsFd,
    kind: nix::sched::CloneFlags,
    act: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    nix::sched::setns(there, kind)?;
    let outcome = act();
    if let Err(error) = nix::sched::setns(home, kind) {
        tracing::error!(%error, "cannot return to the monitor's namespaces");
        std::process::abort();
    }
    outcome
}
