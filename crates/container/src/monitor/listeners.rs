//! Sockets that a server leaves here, so that connections wait while it restarts instead of being refused.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use nix::sys::socket::{SockType, getsockopt, sockopt};

use super::Monitor;
use super::connection::Ticket;
use super::request::{Internal, Outcome, refuse};
use crate::protocol::{Answer, ListenerName, MAX_LISTENERS, Refusal, RefusalKind};

/// Sockets by name.
#[derive(Default)]
pub(super) struct Listeners(BTreeMap<ListenerName, OwnedFd>);

impl Monitor {
    /// Keeps sockets; each replaces the one of its name. All or none.
    pub(super) fn keep_listeners(&mut self, names: Vec<ListenerName>, fds: Vec<OwnedFd>) -> Outcome {
        if self.ending.is_some() {
            return Err(refuse(RefusalKind::State, "the monitor is ending"));
        }
        if names.len() != fds.len() {
            return Err(refuse(RefusalKind::Invalid, "every listener needs its name and its socket"));
        }
        let new = names.iter().filter(|name| !self.listeners.0.contains_key(name)).count();
        if self.listeners.0.len() + new > MAX_LISTENERS {
            return Err(refuse(RefusalKind::Exhausted, format!("more than {MAX_LISTENERS} listeners are not kept")));
        }
        names.iter().zip(&fds).try_for_each(|(name, fd)| check(name, fd))?;
        self.listeners.0.extend(names.into_iter().zip(fds));
        Ok(Some(Answer::Done))
    }

    /// Lets go of sockets; those that are not kept are fine.
    pub(super) fn drop_listeners(&mut self, names: &[ListenerName]) -> Outcome {
        names.iter().for_each(|name| drop(self.listeners.0.remove(name)));
        Ok(Some(Answer::Done))
    }

    /// Gives a duplicate of every socket.
    pub(super) fn give_listeners(&mut self, ticket: Ticket) -> Outcome {
        let names = self.listeners.0.keys().cloned().collect();
        let fds: Result<Vec<OwnedFd>, _> = self.listeners.0.values().map(OwnedFd::try_clone).collect();
        self.reply_with(ticket, Ok(Answer::Listeners(names)), fds.internal("duplicate a listener")?);
        Ok(None)
    }

    /// Lets go of all of them: nobody is to come back for them.
    pub(super) fn close_listeners(&mut self) {
        self.listeners.0.clear();
    }
}

/// Only what connections or datagrams arrive at is kept: anything else would hold something open that nobody knows of.
fn check(name: &ListenerName, fd: &OwnedFd) -> Result<(), Refusal> {
    let listens = match getsockopt(fd, sockopt::SockType) {
        Ok(SockType::Datagram) => true,
        Ok(_) => getsockopt(fd, sockopt::AcceptConn).is_ok_and(|accepts| accepts),
        Err(_) => false,
    };
    if listens { Ok(()) } else { Err(refuse(RefusalKind::Invalid, format!("{name} is no listening socket"))) }
}
