//! One instance a machine: addresses, cgroups and rules are the machine's.

use std::{
    fs,
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use knoll_cli::{
    Exit,
    instance::{process_is_going, process_start},
};
use nix::fcntl::OFlag;

use crate::{
    failure::Failure,
    paths::{Paths, RUNTIME},
    private,
};

/// How long a process that was killed may take to be gone: the kernel takes down its memory and sockets first.
const DYING: Duration = Duration::from_secs(30);
/// How long one that looks alive is waited for: a signal may be on its way.
const ALIVE: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_millis(1);

/// Roles that a machine has once, where they are processes of their own.
const ROLES: [&str; 4] = ["autoscaler", "gateway", "broker", "node"];

/// Makes this process the machine's instance, with every role. Waits for one that is going.
pub(crate) fn claim() -> Result<Vec<fs::File>, Failure> {
    let roles = ROLES.into_iter().map(claim_role);
    [claim_api()].into_iter().chain(roles).collect()
}

/// Makes this process the machine's API server.
pub(crate) fn claim_api() -> Result<fs::File, Failure> {
    claim_in_runtime(&Paths::lock())
}

/// Makes this process the one of the machine that takes on `role`.
pub(crate) fn claim_role(role: &str) -> Result<fs::File, Failure> {
    claim_in_runtime(&Path::new(RUNTIME).join(format!("{role}.lock")))
}

fn claim_in_runtime(path: &Path) -> Result<fs::File, Failure> {
    private::directory(RUNTIME.as_ref()).map_err(|e| Failure::io(format!("make {RUNTIME}"), &e))?;
    claim_at(path, DYING, ALIVE)
}

fn claim_at(path: &Path, dying: Duration, alive: Duration) -> Result<fs::File, Failure> {
    let failed = |what: &str, e: &std::io::Error| Failure::io(format!("{what} {}", path.display()), e);
    let mut options = fs::OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut lock = options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(path).map_err(|e| failed("open", &e))?;
    let start = Instant::now();
    let holder = loop {
        let holder = Holder::read(&mut lock);
        match lock.try_lock() {
            Ok(()) => break holder,
            Err(fs::TryLockError::WouldBlock) => {
                let patience = if holder.as_ref().is_some_and(Holder::is_alive) { alive } else { dying };
                if start.elapsed() > patience {
                    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
                    let text = match name {
                        role if ROLES.contains(&role) => {
                            format!("another {role} of knoll runs on this machine: stop it")
                        }
                        _ => "another instance of knoll runs on this machine: stop it with `knoll down`".to_owned(),
                    };
                    return Err(Failure::text(Exit::Unavailable, text));
                }
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed("lock", &error)),
        }
        thread::sleep(EVERY);
    };
    // Its lock goes before its last socket may.
    while let Some(holder) = &holder
        && !holder.is_gone()
        && start.elapsed() < dying
    {
        thread::sleep(EVERY);
    }
    Holder::this().write(&mut lock).map_err(|e| failed("write", &e))?;
    Ok(lock)
}

/// Who holds the lock, as it says of itself.
struct Holder {
    process: i32,
    /// When it started: tells it from a later one with the same number.
    started: u64,
}

impl Holder {
    fn this() -> Self {
        let process = i32::try_from(std::process::id()).expect("process numbers are small");
        Self { process, started: process_start(process).unwrap_or_default() }
    }

    fn read(lock: &mut fs::File) -> Option<Self> {
        let mut text = String::new();
        lock.rewind().ok()?;
        lock.take(64).read_to_string(&mut text).ok()?;
        let (process, started) = text.trim().split_once(' ')?;
        Some(Self { process: process.parse().ok()?, started: started.parse().ok()? })
    }

    fn write(&self, lock: &mut fs::File) -> std::io::Result<()> {
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{} {}", self.process, self.started)
    }

    fn is_alive(&self) -> bool {
        process_start(self.process) == Some(self.started) && !process_is_going(self.process)
    }

    /// Whether none of its threads is left: they hold its files together.
    fn is_gone(&self) -> bool {
        if self.process == Holder::this().process {
            return true;
        }
        match process_start(self.process) {
            Some(started) => started != self.started,
            // The first thread has ended; the others may not.
            None => fs::read_dir(format!("/proc/{}/task", self.process)).map_or(0, Iterator::count) <= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// A process that holds the lock, if told how it is called.
    fn holding(path: &Path, named: bool) -> Child {
        let mut child = Command::new("flock").arg(path).args(["sleep", "60"]).spawn().expect("flock starts");
        while fs::File::open(path).is_ok_and(|lock| lock.try_lock().is_ok()) || !path.exists() {
            assert!(child.try_wait().expect("is ours").is_none(), "it holds the lock until it is told to end");
            thread::sleep(EVERY);
        }
        if named {
            let process = i32::try_from(child.id()).expect("small");
            let holder = Holder { process, started: process_start(process).expect("runs") };
            holder.write(&mut fs::OpenOptions::new().write(true).open(path).expect("opens")).expect("writes");
        }
        child
    }

    #[test]
    fn an_instance_that_runs_is_refused_and_one_that_is_killed_is_waited_for() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("lock");
        let mut child = holding(&path, true);
        let refused = claim_at(&path, Duration::from_secs(60), Duration::from_millis(50)).expect_err("it runs");
        assert!(refused.to_string().contains("another instance"), "{refused}");
        let killed = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            // Its sleep holds the lock on when it goes.
            Command::new("pkill").args(["-9", "-P", &child.id().to_string()]).status().expect("pkill runs");
            child.kill().expect("is ours");
            child.wait().expect("is ours");
        });
        let lock = claim_at(&path, Duration::from_secs(60), Duration::from_secs(60)).expect("it goes");
        killed.join().expect("kills");
        assert_eq!(fs::read_to_string(&path).expect("reads").split(' ').next(), Some(&*std::process::id().to_string()));
        drop(lock);
    }

    #[test]
    fn the_lock_is_roots_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("lock");
        drop(claim_at(&path, ALIVE, ALIVE).expect("it is free"));
        assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(scratch.path().join("victim"), &link).expect("links");
        assert!(claim_at(&link, ALIVE, ALIVE).is_err() && !scratch.path().join("victim").exists());
    }
}
