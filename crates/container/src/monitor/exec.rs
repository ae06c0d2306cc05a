//! Further programs in running containers.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::child::Progress;
use super::connection::Ticket;
use super::container::exit;
use super::deadline::{self, Start};
use super::request::{Internal, Outcome, refuse};
use super::{Monitor, Source};
use crate::init::{self, Birth};
use crate::protocol::{Answer, ExecId, ExecSpec, ExitStatus, Refusal, RefusalKind};
use crate::sys::{self, Spawned};

/// The most at a time.
const MAX_EXECS: usize = 1024;

/// A further program.
pub(super) struct Exec {
    /// As asked for.
    program: String,
    pub(super) spawned: Spawned,
    token: Option<u64>,
    status: OwnedFd,
    status_token: Option<u64>,
    /// Who started it; answered when the program runs.
    pub(super) ticket: Ticket,
    pub(super) answered: bool,
    /// It did not start in time.
    pub(super) given_up: bool,
    pub(super) progress: Progress,
    terminal: Option<OwnedFd>,
    exit: Option<ExitStatus>,
    waiter: Option<Ticket>,
    /// Whoever started it has gone, so nobody will ask.
    pub(super) orphan: bool,
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
        let of = &self.running(&spec.container)?.spec;
        let (security, sandbox) = (of.security.clone(), of.sandbox.clone());
        let confinement = self.confinement(&security, &sandbox)?;
        let in_user_namespace = self.sandboxes.get(&sandbox).is_some_and(|sandbox| sandbox.status.ids.is_some());
        let (status, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .internal("make a socket")?;
        let container = &*self.running(&spec.container)?;
        let group = container.group.clone();
        // By a handle, never by the pid: it may be somebody else's by now.
        let process = container.process.as_ref().map(|(process, _)| process.try_clone());
        let gone = || refuse(RefusalKind::State, format!("container {} does not run", spec.container));
        let process = process.ok_or_else(gone)?.internal("open a container's process")?;
        let of = container.spec.clone();
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
            birth: Birth { program: self.programs.birth.as_fd(), namespace: process.as_fd() },
            in_user_namespace,
            devices: self.devices.as_ref(),
            stdio,
            status: theirs.as_fd(),
        };
        let spawned = sys::spawn(0, birthplace.as_ref().map(AsFd::as_fd), || init::exec(&exec)).internal("fork")?;
        drop((theirs, fds));
        let id = ExecId(self.next_serial());
        let watched = self.events.add(&status, Source::ExecStatus(id)).and_then(|token| {
            let process = self.events.add(&spawned.pidfd, Source::ExecProcess(id));
            process.inspect_err(|_| self.events.remove(&status, token)).map(|process| (token, process))
        });
        let (status_token, token) = match watched {
            Ok(tokens) => tokens,
            Err(error) => {
                self.dismiss(spawned);
                return Err(error).internal("watch a child");
            }
        };
        let exec = Exec {
            program: spec.args.first().cloned().unwrap_or_default(),
            spawned,
            token: Some(token),
            status,
            status_token: Some(status_token),
            ticket,
            answered: false,
            given_up: false,
            progress: Progress { by_sibling: true, ..Progress::default() },
            terminal: None,
            exit: None,
            waiter: None,
            orphan: false,
        };
        self.execs.insert(id, exec);
        let within = spec.start_timeout_ms.map_or(deadline::EXEC, std::time::Duration::from_millis);
        self.expect(Start::Exec(id), within.min(deadline::CONTAINER));
        Ok(None)
    }

    /// The child has something to say, or has become its program. What `ended` has not said by now it will not say.
    pub(super) fn exec_says(&mut self, id: ExecId, ended: Option<i32>) {
        loop {
            let Some(exec) = self.execs.get_mut(&id) else { return };
            match exec.receive() {
                Ok(Some(packet)) => {
                    if let Some(pid) = exec.progress.take(&packet, &exec.program) {
                        self.exec_born(id, pid);
                    }
                }
                Err(()) if ended != Some(exec.spawned.pid) => return,
                Err(()) | Ok(None) => break,
            }
        }
        let Some(exec) = self.execs.get_mut(&id) else { return };
        if let Some(token) = exec.status_token.take() {
            self.events.remove(&exec.status, token);
        }
        if exec.progress.executed() && !exec.answered {
            exec.answered = true;
            let (ticket, terminal) = (exec.ticket, exec.terminal.take());
            self.reply_with(ticket, Ok(Answer::Exec(id)), terminal.into_iter().collect());
        }
    }

    /// A sibling of the child that prepared everything becomes the program.
    fn exec_born(&mut self, id: ExecId, pid: i32) {
        let watched = self.sibling(pid).and_then(|sibling| {
            let token = self.events.add(&sibling.pidfd, Source::ExecProcess(id)).internal("watch a child")?;
            Ok((sibling, token))
        });
        let Some(exec) = self.execs.get_mut(&id) else { return };
        match watched {
            Ok((sibling, token)) => {
                if exec.given_up {
                    drop(sys::pidfd_signal(sibling.pidfd.as_fd(), libc::SIGKILL));
                }
                let parent = std::mem::replace(&mut exec.spawned, sibling);
                if let Some(token) = exec.token.replace(token) {
                    self.events.remove(&parent.pidfd, token);
                }
                self.reap_later(parent);
            }
            Err(refusal) => {
                tracing::error!(error = refusal.message, "an exec's process is lost");
                exec.progress.failure = Some(refusal);
            }
        }
    }

    pub(super) fn exec_exited(&mut self, id: ExecId) {
        let Some(exec) = self.execs.get(&id) else { return };
        let (before, ended) = (exec.spawned.pid, sys::has_exited(exec.spawned.pidfd.as_fd()));
        self.exec_says(id, ended.then_some(before));
        let Some(exec) = self.execs.get_mut(&id) else { return };
        if !ended || exec.spawned.pid != before {
            return;
        }
        let Some(ended) = sys::exit_of(exec.spawned.pid, exec.spawned.pidfd.as_fd()) else { return };
        if let Some(token) = exec.token.take() {
            self.events.remove(&exec.spawned.pidfd, token);
        }
        if !exec.answered {
            let died = || refuse(RefusalKind::Start, "the exec was killed before its program ran");
            let (ticket, refusal) = (exec.ticket, exec.progress.failure.take().unwrap_or_else(died));
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
    /// Its process, as long as that has not been reaped; 0 afterwards.
    pub(super) fn pid(&self) -> i32 {
        if self.token.is_some() { self.spawned.pid } else { 0 }
    }

    /// Takes one packet: `Ok(None)` at the end, `Err` when there is none yet.
    fn receive(&mut self) -> Result<Option<Vec<u8>>, ()> {
        let mut packet = vec![0; 16 * 1024];
        let (length, fd) = match sys::receive(self.status.as_fd(), &mut packet) {
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {
                return Err(());
            }
            Err(_) | Ok((0, _)) => return Ok(None),
            Ok(received) => received,
        };
        self.terminal = fd.or(self.terminal.take());
        packet.truncate(length);
        Ok(Some(packet))
    }
}

fn absent() -> Refusal {
    refuse(RefusalKind::NotFound, "there is no such exec")
}
