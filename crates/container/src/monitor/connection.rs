//! Connections: frames in, answers and events out, everything bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{getsockopt, sockopt};

use super::{Monitor, Source};
use crate::protocol::{Answer, Call, ContainerEvent, MAX_CALL, MAX_FRAME, Message, Refusal, RefusalKind};
use crate::wire::{self, Inbox, Outbox};

/// The most clients at a time; more are turned away by closing.
const MAX_CONNECTIONS: usize = 64;
/// Unread bytes after which a client is taken for dead and its connection closed. It can connect and list again.
/// Answers never get there, because requests wait while [`wire::HIGH_WATER`] is exceeded; events may.
const MAX_UNREAD: usize = 48 * 1024 * 1024;
/// The most requests of a client that wait for their answer; further ones are not read meanwhile. There may be a wait
/// for every container, and as much again.
const MAX_OPEN: usize = 65_536;
/// Requests of a client that are handled before others get their turn.
const REQUESTS_A_TURN: usize = 64;
/// How long the monitor, at its end, waits for clients to read.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(1);

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) connection: u64,
    number: u64,
}

/// A client.
pub(super) struct Connection {
    stream: UnixStream,
    inbox: Inbox,
    outbox: Outbox,
    pub(super) greeted: bool,
    pub(super) subscribed: bool,
    /// Requests that wait for their answer.
    open: usize,
    /// Requests may lie in the inbox.
    stalled: bool,
    /// A request was taken from the inbox and is not handed on yet.
    in_hand: bool,
    /// What is watched for.
    interest: Interest,
}

/// What a connection is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interest {
    read: bool,
    write: bool,
}

impl Connection {
    /// Whether more requests may be handled now.
    fn takes_requests(&self) -> bool {
        self.open < MAX_OPEN && self.outbox.len() < wire::HIGH_WATER
    }
}

/// All clients, by their number in the epoll set, and those with requests that were put off.
#[derive(Default)]
pub(super) struct Connections(pub(super) BTreeMap<u64, Connection>, BTreeSet<u64>);

impl Connections {
    /// Whether requests were put off.
    pub(super) fn is_stalled(&self) -> bool {
        !self.1.is_empty()
    }

    /// Writes what is left before the end, for a moment at most.
    pub(super) fn flush_blocking(&mut self) {
        let begin = std::time::Instant::now();
        for connection in self.0.values_mut() {
            let polled = || {
                let mut fds = [nix::poll::PollFd::new(connection.stream.as_fd(), nix::poll::PollFlags::POLLOUT)];
                let left = LAST_WORDS.saturating_sub(begin.elapsed());
                let limit = nix::poll::PollTimeout::try_from(left).unwrap_or(nix::poll::PollTimeout::ZERO);
                nix::poll::poll(&mut fds, limit).is_ok_and(|n| n > 0)
            };
            while !connection.outbox.is_empty() && polled() {
                match connection.outbox.flush(connection.stream.as_fd()) {
                    Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
                    _ => {}
                }
            }
        }
    }
}

impl Monitor {
    /// Takes new clients.
    pub(super) fn accept(&mut self, listener: &UnixListener) {
        loop {
            match listener.accept() {
                Ok((stream, _)) => self.take_client(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A client that cannot be taken would wake the loop for ever.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                    if !self.turn_away(listener) {
                        return;
                    }
                }
                Err(error) => return tracing::warn!(%error, "cannot take a client"),
            }
        }
    }

    /// Takes a client with the descriptor that is kept for this, and lets go of both. `false` when nobody waits.
    fn turn_away(&mut self, listener: &UnixListener) -> bool {
        drop(self.spare.take());
        let waited = listener.accept().is_ok();
        self.spare = File::open("/dev/null").ok();
        if waited {
            tracing::warn!("too many open files; a client is turned away");
        }
        waited && self.spare.is_some()
    }

    fn take_client(&mut self, stream: UnixStream) {
        if self.connections.0.len() >= MAX_CONNECTIONS {
            return tracing::warn!("too many clients; one is turned away");
        }
        // The socket's mode says so already; this holds wherever it has been put.
        let user = getsockopt(&stream, sockopt::PeerCredentials).map(|peer| peer.uid());
        if user != Ok(nix::unistd::geteuid().as_raw()) {
            return tracing::warn!(?user, "a client of another user is turned away");
        }
        let watched = stream.set_nonblocking(true).and_then(|()| self.events.add(&stream, Source::Connection));
        match watched {
            Ok(token) => {
                let connection = Connection {
                    stream,
                    inbox: Inbox::new(MAX_CALL),
                    outbox: Outbox::default(),
                    greeted: false,
                    subscribed: false,
                    open: 0,
                    stalled: false,
                    in_hand: false,
                    interest: Interest { read: true, write: false },
                };
                self.connections.0.insert(token, connection);
            }
            Err(error) => tracing::warn!(%error, "cannot take a client"),
        }
    }

    /// Reads requests and writes answers.
    pub(super) fn serve_connection(&mut self, token: u64, flags: EpollFlags) {
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.flush(token);
        }
        let Some(connection) = self.connections.0.get_mut(&token) else { return };
        let gone = flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        if gone && !connection.interest.read {
            return self.close(token);
        }
        if (gone || flags.contains(EpollFlags::EPOLLIN)) && connection.interest.read {
            match connection.inbox.fill(connection.stream.as_fd()) {
                Ok(0) => return self.close(token),
                Ok(_) => connection.stalled = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::debug!(%error, "a client is lost");
                    return self.close(token);
                }
            }
        }
        self.serve_requests(token);
    }

    /// Handles requests that have come in, as many as make a turn.
    pub(super) fn serve_requests(&mut self, token: u64) {
        tracing::trace!(token, "requests are looked for");
        for _ in 0..REQUESTS_A_TURN {
            let Some(connection) = self.connections.0.get_mut(&token) else { return };
            if !connection.stalled || !connection.takes_requests() {
                return self.watch(token);
            }
            let call = connection.inbox.next::<Call>().and_then(|call| match call {
                Some(call) => connection.inbox.take_fds(call.fds).map(|fds| Some((call, fds))),
                None => Ok(None),
            });
            match call {
                Ok(Some((call, fds))) => {
                    connection.open += 1;
                    connection.in_hand = true;
                    let ticket = Ticket { connection: token, number: call.number };
                    self.handle(ticket, call.request, fds);
                    if let Some(connection) = self.connections.0.get_mut(&token) {
                        connection.in_hand = false;
                    }
                }
                Ok(None) => connection.stalled = false,
                Err(error) => {
                    tracing::warn!(%error, "a client does not speak the protocol");
                    return self.close(token);
                }
            }
        }
        self.connections.1.insert(token);
        self.watch(token);
    }

    /// Handles what was put off for the sake of others.
    pub(super) fn serve_stalled(&mut self) {
        let tokens = std::mem::take(&mut self.connections.1);
        tokens.into_iter().for_each(|token| self.guard(token, |monitor| monitor.serve_requests(token)));
    }

    /// Goes on with a client over whom a panic came: what was read waits for its turn and makes no event. A request that
    /// may never be answered is one that its client would wait for, so it had better hear that it is lost.
    pub(super) fn go_on_with(&mut self, token: u64) {
        match self.connections.0.get(&token) {
            Some(connection) if connection.in_hand => {
                tracing::error!("a request cannot be answered; its client is closed");
                self.close(token);
            }
            Some(_) => drop(self.connections.1.insert(token)),
            None => {}
        }
    }

    /// Watches a client for what is of use now.
    fn watch(&mut self, token: u64) {
        let Some(connection) = self.connections.0.get_mut(&token) else { return };
        let wanted = Interest { read: !connection.stalled, write: !connection.outbox.is_empty() };
        if wanted == connection.interest {
            return;
        }
        connection.interest = wanted;
        if let Err(error) = self.events.watch_for(&connection.stream, token, wanted.read, wanted.write) {
            tracing::warn!(%error, "cannot wait for a client");
            self.close(token);
        }
    }

    /// Forgets a client. What runs goes on.
    pub(super) fn close(&mut self, token: u64) {
        if let Some(connection) = self.connections.0.remove(&token) {
            self.events.remove(&connection.stream, token);
            self.forget_client(token);
        }
    }

    pub(super) fn reply(&mut self, ticket: Ticket, result: Result<Answer, Refusal>) {
        self.reply_with(ticket, result, Vec::new());
    }

    /// Answers, with descriptors.
    pub(super) fn reply_with(&mut self, ticket: Ticket, result: Result<Answer, Refusal>, fds: Vec<OwnedFd>) {
        tracing::trace!(ticket.connection, "an answer is written");
        let message = Message::Reply { number: ticket.number, fds: fds.len(), result };
        if let Some(connection) = self.connections.0.get_mut(&ticket.connection) {
            connection.open = connection.open.saturating_sub(1);
        }
        match wire::encode(&message, MAX_FRAME) {
            Ok(frame) => self.send(ticket.connection, frame, fds),
            Err(error) => {
                let refusal = Refusal { kind: RefusalKind::Internal, message: error.to_string() };
                let message = Message::Reply { number: ticket.number, fds: 0, result: Err(refusal) };
                if let Ok(frame) = wire::encode(&message, MAX_FRAME) {
                    self.send(ticket.connection, frame, Vec::new());
                }
            }
        }
    }

    /// Tells every subscriber.
    pub(super) fn publish(&mut self, event: &ContainerEvent) {
        let Ok(frame) = wire::encode(&Message::Event(event.clone()), MAX_FRAME) else { return };
        let subscribed = self.connections.0.iter().filter(|(_, c)| c.subscribed).map(|(token, _)| *token);
        let tokens: Vec<u64> = subscribed.collect();
        tokens.into_iter().for_each(|token| self.send(token, frame.clone(), Vec::new()));
    }

    fn send(&mut self, token: u64, frame: Vec<u8>, fds: Vec<OwnedFd>) {
        let Some(connection) = self.connections.0.get_mut(&token) else { return };
        connection.outbox.push(frame, fds);
        if connection.outbox.len() > MAX_UNREAD {
            tracing::warn!("a client does not read; it is closed");
            return self.close(token);
        }
        self.flush(token);
    }

    fn flush(&mut self, token: u64) {
        let Some(connection) = self.connections.0.get_mut(&token) else { return };
        match connection.outbox.flush(connection.stream.as_fd()) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                tracing::debug!(%error, "a client is lost");
                return self.close(token);
            }
            _ => {}
        }
        if connection.stalled && connection.takes_requests() {
            self.connections.1.insert(token);
        }
        self.watch(token);
    }
}
