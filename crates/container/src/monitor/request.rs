//! From requests to what is done about them.

use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::connection::Ticket;
use super::{Ending, Monitor, daemon};
use crate::protocol::{Answer, Listing, MonitorInfo, Refusal, RefusalKind, Request, SandboxId, Stats, Usage, VERSION};

/// An answer, or `None` when it comes later.
pub(super) type Outcome = Result<Option<Answer>, Refusal>;

/// A refusal.
pub(super) fn refuse(kind: RefusalKind, message: impl Into<String>) -> Refusal {
    Refusal { kind, message: message.into() }
}

/// Turns a failed call into a refusal that names the step.
pub(super) trait Internal<T> {
    fn internal(self, what: &str) -> Result<T, Refusal>;
}

impl<T, E: std::fmt::Display> Internal<T> for Result<T, E> {
    fn internal(self, what: &str) -> Result<T, Refusal> {
        self.map_err(|error| refuse(RefusalKind::Internal, format!("cannot {what}: {error}")))
    }
}

impl Monitor {
    /// Handles a request and answers it, now or later.
    pub(super) fn handle(&mut self, ticket: Ticket, request: Request, fds: Vec<OwnedFd>) {
        match self.act(ticket, request, fds) {
            Ok(Some(answer)) => self.reply(ticket, Ok(answer)),
            Ok(None) => {}
            Err(refusal) => self.reply(ticket, Err(refusal)),
        }
    }

    fn act(&mut self, ticket: Ticket, request: Request, fds: Vec<OwnedFd>) -> Outcome {
        if let Request::Hello { .. } = request {
            return Ok(Some(self.hello(ticket)));
        }
        if !self.connections.0.get(&ticket.connection).is_some_and(|connection| connection.greeted) {
            return Err(refuse(RefusalKind::Invalid, "say hello first"));
        }
        match request {
            Request::Hello { .. } => Ok(None),
            Request::Configure(configuration) => self.configure(configuration).map(|()| Some(Answer::Done)),
            Request::PrepareSandbox(spec) => self.prepare_sandbox(ticket, spec),
            Request::RemoveSandbox { sandbox } => self.remove_sandbox(ticket, &sandbox),
            Request::StartContainer(spec) => self.start_container(ticket, *spec),
            Request::Signal { container, signal } => self.signal(&container, signal),
            Request::Kill { container } => self.kill(&container),
            Request::Wait { container } => self.wait(ticket, &container),
            Request::RemoveContainer { container } => self.remove_container(&container),
            Request::Exec(spec) => self.exec(ticket, spec, fds),
            Request::WaitExec { exec } => self.wait_exec(ticket, exec),
            Request::SignalExec { exec, signal } => self.signal_exec(exec, signal),
            Request::List => Ok(Some(Answer::Listing(self.listing()))),
            Request::Stats { sandbox } => self.stats(&sandbox),
            Request::Update { container, resources } => self.update(&container, resources),
            Request::Freeze { sandbox, frozen } => self.freeze(&sandbox, frozen),
            Request::Reclaim { sandbox } => self.reclaim(ticket, &sandbox),
            Request::Socket { sandbox } => self.socket(ticket, &sandbox),
            Request::Subscribe => {
                if let Some(connection) = self.connections.0.get_mut(&ticket.connection) {
                    connection.subscribed = true;
                }
                Ok(Some(Answer::Done))
            }
            Request::Shutdown { remove } => Ok(self.shut_down(ticket, remove)),
        }
    }

    /// The client compares versions: it knows better what it can do without.
    fn hello(&mut self, ticket: Ticket) -> Answer {
        if let Some(connection) = self.connections.0.get_mut(&ticket.connection) {
            connection.greeted = true;
        }
        Answer::Hello(MonitorInfo {
            version: VERSION,
            pid: std::process::id(),
            boot_id: self.boot_id.clone(),
            started_at: self.started_at,
        })
    }

    fn listing(&self) -> Listing {
        Listing {
            sandboxes: self.sandboxes.values().map(|sandbox| sandbox.status.clone()).collect(),
            containers: self.containers.values().filter_map(|container| container.status()).collect(),
            pooled: self.pool.ready(),
        }
    }

    fn stats(&self, sandbox: &SandboxId) -> Outcome {
        let found = self.sandboxes.get(sandbox).ok_or_else(|| absent_sandbox(sandbox))?;
        let containers = self.containers.values().filter(|container| container.spec.sandbox == *sandbox);
        let containers = containers.map(|c| (c.spec.id.clone(), self.cgroups.usage(&c.group))).collect();
        let total: Usage = self.cgroups.usage(&found.status.cgroup);
        Ok(Some(Answer::Stats(Stats { total, containers })))
    }

    fn socket(&mut self, ticket: Ticket, sandbox: &SandboxId) -> Outcome {
        let found = self.sandboxes.get(sandbox).ok_or_else(|| absent_sandbox(sandbox))?;
        let make = || {
            Ok(socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?)
        };
        let made = match found.net() {
            Some(net) => daemon::inside(net, &self.home.net, CloneFlags::CLONE_NEWNET, make),
            None => make(),
        };
        self.reply_with(ticket, Ok(Answer::Socket), vec![made.internal("make a socket in the sandbox")?]);
        Ok(None)
    }

    fn shut_down(&mut self, ticket: Ticket, remove: bool) -> Option<Answer> {
        if !remove {
            self.ending = Some(Ending::Now);
            self.withdraw();
            return Some(Answer::Done);
        }
        self.ending = Some(Ending::Removing(ticket));
        self.pool.close();
        let all: Vec<SandboxId> = self.sandboxes.keys().cloned().collect();
        all.iter().for_each(|sandbox| self.begin_removal(sandbox, None));
        None
    }
}

/// There is no such sandbox.
pub(super) fn absent_sandbox(sandbox: &SandboxId) -> Refusal {
    refuse(RefusalKind::NotFound, format!("there is no sandbox {sandbox}"))
}
