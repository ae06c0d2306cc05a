//! Further programs in running containers.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sched::CloneFlags;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, socketpair,
};

use super::connection::Ticket;
use super::container::{exit, refusal_of};
use super::request::{Internal, Outcome, refuse};
use super::{Monitor, Source, daemon};
use crate::init::{self, READY};
use crate::protocol::{Answer, ExecId, ExecSpec, Exit, Refusal, RefusalKind};
use crate::sys::{self, Spawned};

/// The most at a time.
const MAX_EXECS: usize = 1024;

/// A further program.
pub(super) struct Exec {
    spawned: Spawned,
    token: Option<u64>,
    status: OwnedFd,
    status_token: Option<u64>,
    /// Who started it; answered when the program runs.
    ticket: Ticket,
    answered: bool,
    ready: bool,
    failure: Option<Refusal>,
    terminal: Option<OwnedFd>,
    exit: Option<Exit>,
    waiter: Option<Ticket>,
    /// Whoever started it has gone, so nobody will ask.
    orphan: bool,
}

impl Monitor {
    pub(super) fn exec(&mut self, ticket: Ticket, spec: ExecSpec, fds: Vec<OwnedFd>) -> Outcome {
        if spec.args.is_empty() {
            return Err(refuse(RefusalKind::Invalid, "an exec needs a program"));
        }
        if fds.len() != if spec.tty { 0 } else { 3 } {
            return Err(refuse(RefusalKind::Invalid, "an exec without a terminal takes stdin, stdout and stderr"));
        }
        if self.execs.len() >= MAX_EXECS {
            return Err(refuse(RefusalKind::Exhausted, format!("there are {MAX_EXECS} execs already")));
        }
        let security = self.running(&spec.container)?.spec.security.clone();
        let confinement = self.confinement(&security)?;
        let (status, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .internal("make a socket")?;
        let container = self.running(&spec.container)?;
        let (group, pid) = (container.group.clone(), container.pid);
        let container = &*container;
        let process = container.process.as_ref().map(|(process, _)| process.try_clone());
        let gone = || refuse(RefusalKind::State, format!("container {} does not run", spec.container));
        let process = process.ok_or_else(gone)?.internal("open a container's process")?;
        let of = container.spec.clone();
        let pid_namespace = daemon::namespace(pid, "pid").internal("open a container's process-id namespace")?;
        let birthplace = self.cgroups.birthplace(&group).internal("open a container's cgroup")?;
        let stdio = match fds.as_slice() {
            [input, output, errors] => Some([input.as_fd(), output.as_fd(), errors.as_fd()]),
            _ => None,
        };
        let exec = init::Exec {
            spec: &spec,
            container: &of,
            privileges: confinement.privileges(),
            cgroups: &self.cgroups,
            group: &group,
            process: process.as_fd(),
            stdio,
            status: theirs.as_fd(),
        };
        let fork = || sys::spawn(0, birthplace.as_ref().map(AsFd::as_fd), || init::exec(&exec));
        let spawned =
            daemon::inside(&pid_namespace, &self.home.pid, CloneFlags::CLONE_NEWPID, fork).internal("fork")?;
        drop((theirs, fds));
        let id = ExecId(self.next_serial());
        let status_token = self.events.add(&status, Source::ExecStatus(id)).internal("watch a child")?;
        let token = self.events.add(&spawned.pidfd, Source::ExecProcess(id)).internal("watch a child")?;
        let exec = Exec {
            spawned,
            token: Some(token),
            status,
            status_token: Some(status_token),
            ticket,
            answered: false,
            ready: false,
            failure: None,
            terminal: None,
            exit: None,
            waiter: None,
            orphan: false,
        };
        self.execs.insert(id, exec);
        Ok(None)
    }

    /// The child has something to say, or has become its program.
    pub(super) fn exec_says(&mut self, id: ExecId) {
        let Some(exec) = self.execs.get_mut(&id) else { return };
        loop {
            match exec.receive() {
                Ok(true) => {}
                Ok(false) => break,
                Err(()) => return,
            }
        }
        if let Some(token) = exec.status_token.take() {
            self.events.remove(&exec.status, token);
        }
        if exec.ready && exec.failure.is_none() && !exec.answered {
            exec.answered = true;
            let (ticket, terminal) = (exec.ticket, exec.terminal.take());
            self.reply_with(ticket, Ok(Answer::Exec(id)), terminal.into_iter().collect());
        }
    }

    pub(super) fn exec_exited(&mut self, id: ExecId) {
        self.exec_says(id);
        let Some(exec) = self.execs.get_mut(&id) else { return };
        let Some(ended) = sys::exit_of(exec.spawned.pid, exec.spawned.pidfd.as_fd()) else { return };
        if let Some(token) = exec.token.take() {
            self.events.remove(&exec.spawned.pidfd, token);
        }
        if !exec.answered {
            let died = || refuse(RefusalKind::Start, "the exec was killed before its program ran");
            let (ticket, refusal) = (exec.ticket, exec.failure.take().unwrap_or_else(died));
            self.execs.remove(&id);
            return self.reply(ticket, Err(refusal));
        }
        let exit = exit(ended, false);
        exec.exit = Some(exit.clone());
        let waiter = exec.waiter.take();
        if waiter.is_some() || exec.orphan {
            self.execs.remove(&id);
        }
        if let Some(ticket) = waiter {
            self.reply(ticket, Ok(Answer::Exit(exit)));
        }
    }

    pub(super) fn wait_exec(&mut self, ticket: Ticket, id: ExecId) -> Outcome {
        let exec = self.execs.get_mut(&id).ok_or_else(absent)?;
        if exec.waiter.is_some() {
            return Err(refuse(RefusalKind::State, "somebody waits for this exec already"));
        }
        match exec.exit.take() {
            Some(exit) => {
                self.execs.remove(&id);
                Ok(Some(Answer::Exit(exit)))
            }
            None => {
                exec.waiter = Some(ticket);
                Ok(None)
            }
        }
    }

    pub(super) fn signal_exec(&mut self, id: ExecId, signal: i32) -> Outcome {
        let exec = self.execs.get(&id).ok_or_else(absent)?;
        if !(1..=64).contains(&signal) {
            return Err(refuse(RefusalKind::Invalid, format!("there is no signal {signal}")));
        }
        match sys::pidfd_signal(exec.spawned.pidfd.as_fd(), signal) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error).internal("send a signal")?,
            _ => {}
        }
        Ok(Some(Answer::Done))
    }

    /// A client has gone: nobody asks for its execs any more.
    pub(super) fn forget_client(&mut self, connection: u64) {
        self.execs.retain(|_, exec| {
            exec.orphan |= exec.ticket.connection == connection;
            !(exec.orphan && exec.exit.is_some())
        });
    }
}

impl Exec {
    /// Takes one packet: `Ok(false)` at the end, `Err` when there is none yet.
    fn receive(&mut self) -> Result<bool, ()> {
        let mut packet = vec![0; 16 * 1024];
        let mut control = cmsg_space!([RawFd; 1]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let mut slices = [IoSliceMut::new(&mut packet)];
        let length = match recvmsg::<UnixAddr>(self.status.as_raw_fd(), &mut slices, Some(&mut control), flags) {
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Err(()),
            Err(_) => return Ok(false),
            Ok(message) => {
                for part in message.cmsgs().into_iter().flatten() {
                    if let ControlMessageOwned::ScmRights(fds) = part {
                        // SAFETY: the kernel has just installed these descriptors for us; nobody else knows them.
                        self.terminal = fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).next_back();
                    }
                }
                message.bytes
            }
        };
        match &packet[..length] {
            [] => return Ok(false),
            [READY] => self.ready = true,
            text => self.failure = Some(refusal_of(text)),
        }
        Ok(true)
    }
}

fn absent() -> Refusal {
    refuse(RefusalKind::NotFound, "there is no such exec")
}
