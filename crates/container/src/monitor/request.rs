//! From requests to what is done about them.

use std::ops::Bound::{Excluded, Unbounded};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::connection::Ticket;
use super::{Ending, Monitor, daemon};
use crate::protocol::{
    Answer, Cursor, Listing, MonitorInfo, Refusal, RefusalKind, Request, SandboxId, Stats, Usage, VERSION,
};

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
        let outcome = catch_unwind(AssertUnwindSafe(|| self.act(ticket, request, fds)));
        let failed = |panic: Box<dyn std::any::Any + Send>| {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason");
            tracing::error!(said, "a request could not be handled");
            Err(refuse(RefusalKind::Internal, format!("the monitor failed at this request, which is a bug: {said}")))
        };
        match outcome.unwrap_or_else(failed) {
            Ok(Some(answer)) => self.reply(ticket, Ok(answer)),
            Ok(None) => {}
            Err(refusal) => self.reply(ticket, Err(refusal)),
        }
    }

    fn act(&mut self, ticket: Ticket, request: Request, fds: Vec<OwnedFd>) -> Outcome {
        tracing::trace!(ticket.connection, "a request came");
        if let Request::Hello { .. } = request {
            return Ok(Some(self.hello(ticket)));
        }
        if !self.connections.0.get(&ticket.connection).is_some_and(|connection| connection.greeted) {
            return Err(refuse(RefusalKind::Invalid, "say hello first"));
        }
        match request {
            Request::Hello { .. } => Ok(None),
            Request::Configure(configuration) => self.configure(configuration).map(|()| Some(Answer::Done)),
            Request::ExpectSandboxes { more } => {
                self.expect_sandboxes(more);
                Ok(Some(Answer::Done))
            }
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
            Request::List { after } => Ok(Some(Answer::Listing(self.listing(after.as_ref())))),
            Request::Stats { sandbox } => self.stats(&sandbox),
            Request::Update { container, resources } => self.update(&container, resources),
            Request::Freeze { sandbox, frozen } => self.freeze(&sandbox, frozen),
            Request::Reclaim { sandbox } => self.reclaim(ticket, &sandbox),
            Request::Socket { sandbox } => self.socket(ticket, &sandbox),
            Request::KeepListeners { names } => self.keep_listeners(names, fds),
            Request::Listeners => self.give_listeners(ticket),
            Request::DropListeners { names } => self.drop_listeners(&names),
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
            state_dir: self.options.state_dir.clone(),
        })
    }

    /// What follows a place in the order of sandboxes, then containers, until the part is large enough.
    fn listing(&self, after: Option<&Cursor>) -> Listing {
        let mut listing = Listing { pooled: self.pool.ready(), ..Listing::default() };
        let mut size = 0;
        let (sandboxes, containers) = match after {
            None => (Some(Unbounded), Unbounded),
            Some(Cursor::Sandbox(last)) => (Some(Excluded(last)), Unbounded),
            Some(Cursor::Container(last)) => (None, Excluded(last)),
        };
        for sandbox in sandboxes.into_iter().flat_map(|from| self.sandboxes.range((from, Unbounded))) {
            let (id, status) = (sandbox.0, &sandbox.1.status);
            size += weight(status);
            listing.sandboxes.push(status.clone());
            if size > LARGE_LISTING {
                listing.next = Some(Cursor::Sandbox(id.clone()));
                return listing;
            }
        }
        for (id, container) in self.containers.range((containers, Unbounded)) {
            let Some(status) = container.status() else { continue };
            size += weight(&status);
            listing.containers.push(status);
            if size > LARGE_LISTING {
                listing.next = Some(Cursor::Container(id.clone()));
                return listing;
            }
        }
        listing
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
        self.close_listeners();
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

/// A part of a listing ends when it is longer than this, in bytes. What it ends with is at most a little longer than
/// the call that made it, so that the whole fits a frame.
const LARGE_LISTING: usize = 8 * 1024 * 1024;

/// How long something is in an answer.
fn weight(value: &impl serde::Serialize) -> usize {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, value) {
        Ok(()) => counter.0,
        // What cannot be written cannot be sent either, and is said then.
        Err(_) => 0,
    }
}

/// There is no such sandbox.
pub(super) fn absent_sandbox(sandbox: &SandboxId) -> Refusal {
    refuse(RefusalKind::NotFound, format!("there is no sandbox {sandbox}"))
}
