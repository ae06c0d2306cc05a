//! Connections: frames in, answers and events out, everything bounded.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::epoll::EpollFlags;

use super::{Monitor, Source};
use crate::protocol::{Answer, Call, Event, Message, Refusal, RefusalKind};
use crate::wire::{self, Inbox, Outbox};

/// The most clients at a time; more are turned away by closing.
const MAX_CONNECTIONS: usize = 64;
/// Unread bytes after which a client is taken for dead and its connection closed. It can connect and list again.
const MAX_UNREAD: usize = 48 * 1024 * 1024;

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
    writing: bool,
}

/// All clients, by their number in the epoll set.
#[derive(Default)]
pub(super) struct Connections(pub(super) BTreeMap<u64, Connection>);

impl Connections {
    /// Writes what is left before the end.
    pub(super) fn flush_blocking(&mut self) {
        for connection in self.0.values_mut() {
            let patience = Some(std::time::Duration::from_secs(1));
            let polled = || {
                let mut fds = [nix::poll::PollFd::new(connection.stream.as_fd(), nix::poll::PollFlags::POLLOUT)];
                let limit = patience.and_then(|p| nix::poll::PollTimeout::try_from(p).ok());
                nix::poll::poll(&mut fds, limit.unwrap_or(nix::poll::PollTimeout::ZERO)).is_ok_and(|n| n > 0)
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
        while let Ok((stream, _)) = listener.accept() {
            if self.connections.0.len() >= MAX_CONNECTIONS {
                tracing::warn!("too many clients; one is turned away");
                continue;
            }
            let watched = stream.set_nonblocking(true).and_then(|()| self.events.add(&stream, Source::Connection));
            match watched {
                Ok(token) => {
                    let connection = Connection {
                        stream,
                        inbox: Inbox::default(),
                        outbox: Outbox::default(),
                        greeted: false,
                        subscribed: false,
                        writing: false,
                    };
                    self.connections.0.insert(token, connection);
                }
                Err(error) => tracing::warn!(%error, "cannot take a client"),
            }
        }
    }

    /// Reads requests and writes answers.
    pub(super) fn serve_connection(&mut self, token: u64, flags: EpollFlags) {
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.flush(token);
        }
        if !flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            return;
        }
        let Some(connection) = self.connections.0.get_mut(&token) else { return };
        match connection.inbox.fill(connection.stream.as_fd()) {
            Ok(0) => return self.close(token),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(error) => {
                tracing::debug!(%error, "a client is lost");
                return self.close(token);
            }
        }
        while let Some(connection) = self.connections.0.get_mut(&token) {
            let call = connection.inbox.next::<Call>().and_then(|call| match call {
                Some(call) => connection.inbox.take_fds(call.fds).map(|fds| Some((call, fds))),
                None => Ok(None),
            });
            match call {
                Ok(Some((call, fds))) => {
                    let ticket = Ticket { connection: token, number: call.number };
                    self.handle(ticket, call.request, fds);
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "a client does not speak the protocol");
                    self.close(token);
                }
            }
        }
    }

    /// Forgets a client. What runs goes on.
    fn close(&mut self, token: u64) {
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
        let message = Message::Reply { number: ticket.number, fds: fds.len(), result };
        let frame = wire::encode(&message).or_else(|error| {
            let refusal = Refusal { kind: RefusalKind::Internal, message: error.to_string() };
            wire::encode(&Message::Reply { number: ticket.number, fds: 0, result: Err(refusal) })
        });
        if let Ok(frame) = frame {
            self.send(ticket.connection, frame, fds);
        }
    }

    /// Tells every subscriber.
    pub(super) fn publish(&mut self, event: &Event) {
        let Ok(frame) = wire::encode(&Message::Event(event.clone())) else { return };
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
        let left = match connection.outbox.flush(connection.stream.as_fd()) {
            Ok(()) => false,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => true,
            Err(error) => {
                tracing::debug!(%error, "a client is lost");
                return self.close(token);
            }
        };
        if left != connection.writing {
            connection.writing = left;
            if let Err(error) = self.events.want_write(&connection.stream, token, left) {
                tracing::warn!(%error, "cannot wait for a client");
                self.close(token);
            }
        }
    }
}
