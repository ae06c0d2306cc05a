//! The first process of a process-id namespace that the containers of a sandbox share.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::child::Progress;
use super::connection::Ticket;
use super::request::{Internal, refuse};
use super::{Monitor, Source};
use crate::init;
use crate::protocol::{Answer, Refusal, RefusalKind, SandboxId};
use crate::sys::{self, Spawned};

/// A process that does nothing but hold a namespace.
pub(super) struct Pause {
    pub(super) spawned: Spawned,
    pub(super) token: u64,
    pub(super) start_ticks: u64,
    /// Until its program runs, no container may join it: it has not yet left everything of ours behind.
    pub(super) starting: Option<Starting>,
}

/// A process that is not yet its program.
pub(super) struct Starting {
    ticket: Ticket,
    status: OwnedFd,
    token: u64,
    progress: Progress,
    /// The namespace's `/proc`, mounted nowhere.
    proc: Option<OwnedFd>,
}

impl Monitor {
    /// Where the `/proc` of a sandbox's shared process-id namespace is mounted: only a process inside could mount one.
    pub(super) fn shared_proc(&self, group: &str) -> PathBuf {
        let name = group.rsplit('/').next().unwrap_or_default();
        self.options.runtime_dir.join("net").join(format!("{name}-proc"))
    }

    /// Starts one. The sandbox is answered for when its program runs.
    pub(super) fn start_pause(&mut self, id: &SandboxId, ticket: Ticket) -> Result<(), Refusal> {
        let sandbox = self.sandboxes.get(id).ok_or_else(|| super::request::absent_sandbox(id))?;
        let group = format!("{}/pause", sandbox.status.cgroup);
        self.cgroups.create(&group).internal("make a cgroup")?;
        let birthplace = self.cgroups.birthplace(&group).internal("open a cgroup")?;
        let (status, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .internal("make a socket")?;
        let mut namespaces = Vec::new();
        if let Some(own) = &sandbox.namespaces {
            namespaces.push((own.net.as_fd(), CloneFlags::CLONE_NEWNET));
            namespaces.push((own.uts.as_fd(), CloneFlags::CLONE_NEWUTS));
            namespaces.push((own.ipc.as_fd(), CloneFlags::CLONE_NEWIPC));
            namespaces.extend(own.user.as_ref().map(|user| (user.as_fd(), CloneFlags::CLONE_NEWUSER)));
        }
        let directory = self.options.runtime_dir.join("net");
        let pause = init::Pause {
            program: self.programs.pause.as_fd(),
            cgroups: &self.cgroups,
            devices: self.devices.as_ref(),
            group: &group,
            namespaces: &namespaces,
            directory: &directory,
            status: theirs.as_fd(),
        };
        let mut flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
        if namespaces.is_empty() {
            flags |= libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
        }
        let spawned = sys::spawn(flags, birthplace.as_ref().map(AsFd::as_fd), || init::pause(&pause));
        let spawned = spawned.internal("fork")?;
        match self.watch_pause(id, ticket, &spawned, status) {
            Ok((token, starting)) => {
                let start_ticks = sys::process_start_ticks(spawned.pid).unwrap_or(0);
                if let Some(sandbox) = self.sandboxes.get_mut(id) {
                    sandbox.pause = Some(Pause { spawned, token, start_ticks, starting: Some(starting) });
                }
                Ok(())
            }
            Err(error) => {
                self.dismiss(spawned);
                Err(error).internal("watch a child")
            }
        }
    }

    fn watch_pause(
        &mut self,
        id: &SandboxId,
        ticket: Ticket,
        spawned: &Spawned,
        status: OwnedFd,
    ) -> io::Result<(u64, Starting)> {
        let token = self.events.add(&status, Source::PauseStatus(id.clone()))?;
        match self.events.add(&spawned.pidfd, Source::Pause(id.clone())) {
            Ok(process) => Ok((process, Starting { ticket, status, token, progress: Progress::default(), proc: None })),
            Err(error) => {
                self.events.remove(&status, token);
                Err(error)
            }
        }
    }

    /// It has something to say, or has become its program.
    pub(super) fn pause_says(&mut self, id: &SandboxId) {
        let Some(pause) = self.sandboxes.get_mut(id).and_then(|sandbox| sandbox.pause.as_mut()) else { return };
        let Some(starting) = &mut pause.starting else { return };
        loop {
            let mut packet = vec![0; 16 * 1024];
            match sys::receive(starting.status.as_fd(), &mut packet) {
                Ok((length @ 1.., fd)) => {
                    starting.proc = fd.or(starting.proc.take());
                    starting.progress.take(&packet[..length], "pause");
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return,
                Ok(_) | Err(_) => break,
            }
        }
        let Some(starting) = pause.starting.take() else { return };
        self.events.remove(&starting.status, starting.token);
        let Starting { ticket, progress, proc, .. } = starting;
        let outcome = match progress.failure {
            Some(refusal) => Err(refusal),
            None if progress.ready => self.shared_sandbox_made(id, proc),
            None => Err(refuse(RefusalKind::Internal, "the pause process has died")),
        };
        if outcome.is_err() {
            self.begin_removal(id, None);
        }
        self.reply(ticket, outcome);
    }

    fn shared_sandbox_made(&mut self, id: &SandboxId, proc: Option<OwnedFd>) -> Result<Answer, Refusal> {
        let sandbox = self.sandboxes.get(id).ok_or_else(|| super::request::absent_sandbox(id))?;
        let status = sandbox.status.clone();
        if sandbox.removing.is_some() {
            return Err(refuse(RefusalKind::State, format!("sandbox {id} is being removed")));
        }
        let place = self.shared_proc(&status.cgroup);
        let attach = || {
            let proc = proc.ok_or(io::ErrorKind::NotFound)?;
            DirBuilder::new().mode(0o700).create(&place)?;
            let at = nix::fcntl::open(&place, nix::fcntl::OFlag::O_PATH, nix::sys::stat::Mode::empty())?;
            sys::move_mount(proc.as_fd(), at.as_fd())
        };
        attach().internal("mount the /proc of a shared process-id namespace")?;
        self.save_sandbox(id).internal("record a sandbox")?;
        Ok(Answer::Sandbox(Box::new(status)))
    }

    /// The holder of a shared process-id namespace has gone, and everything in the namespace with it.
    pub(super) fn pause_exited(&mut self, id: &SandboxId) {
        self.pause_says(id);
        let Some(sandbox) = self.sandboxes.get_mut(id) else { return };
        let Some(pause) = sandbox.pause.take() else { return };
        if sys::exit_of(pause.spawned.pid, pause.spawned.pidfd.as_fd()).is_none() {
            sandbox.pause = Some(pause);
            return;
        }
        self.events.remove(&pause.spawned.pidfd, pause.token);
        self.finish_removal(id);
    }
}
