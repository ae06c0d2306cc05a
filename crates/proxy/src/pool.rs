//! A thread's connections to instances.
//!
//! HTTP/1.1 connections wait in a stack an instance, newest on top, so that a burst's extra connections grow
//! old and are closed. HTTP/2 connections are shared up to a number of streams. Only one is opened at a time to
//! an instance; others wait for it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use knoll_api::table::Protocol;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::body::Outbound;
use crate::fleet::Slot;
use crate::thread::LocalExecutor;

/// Why no connection could be opened.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    /// The address refused or failed.
    #[error("dial tcp {address}")]
    Dial {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The address did not answer in time.
    #[error("dial tcp {0}: i/o timeout")]
    Timeout(SocketAddr),
    /// It answered, but not as HTTP.
    #[error("http handshake with {address}")]
    Handshake {
        /// Who.
        address: SocketAddr,
        /// Why.
        source: hyper::Error,
    },
}

/// Bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolConfig {
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_per_instance: usize,
    pub(crate) idle_timeout: Duration,
    pub(crate) streams_per_connection: usize,
}

/// A thread's connections.
#[derive(Debug)]
pub(crate) struct Pool {
    config: PoolConfig,
    by_slot: RefCell<HashMap<u64, Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    idle: Vec<Idle>,
    shared: Vec<Shared>,
    opening: Option<Rc<Notify>>,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<Outbound>,
    since: Instant,
}

#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<Outbound>,
    streams: Rc<Cell<usize>>,
    used: Cell<Instant>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Outbound>),
    Http2 {
        sender: http2::SendRequest<Outbound>,
        /// Held for its drop.
        _stream: Stream,
    },
}

/// A stream of a shared connection.
#[derive(Debug)]
struct Stream(Rc<Cell<usize>>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The right to send one request over a connection. Dropping it gives the connection up, which for HTTP/1.1
/// closes it.
#[derive(Debug)]
pub(crate) struct Lease {
    sender: Sender,
    pool: Rc<Pool>,
    slot: u64,
    /// How long the connection was idle; `None` for a new one.
    idle: Option<Duration>,
}

impl Pool {
    pub(crate) fn new(config: PoolConfig) -> Rc<Self> {
        Rc::new(Self { config, by_slot: RefCell::default() })
    }

    /// A kept connection to `slot`, or a new one.
    pub(crate) async fn lease(self: &Rc<Self>, slot: &Slot, protocol: Protocol) -> Result<Lease, ConnectError> {
        match protocol {
            Protocol::Http1 => match self.take_idle(slot.id) {
                Some(lease) => Ok(lease),
                None => self.open_http1(slot).await,
            },
            Protocol::H2c => self.lease_http2(slot).await,
        }
    }

    /// A connection to `slot` that has carried no request.
    pub(crate) async fn open_http1(self: &Rc<Self>, slot: &Slot) -> Result<Lease, ConnectError> {
        let address = slot.instance.address;
        let stream = self.dial(address).await?;
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ConnectError::Handshake { address, source })?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%address, %error, "connection to an instance ended");
            }
        });
        Ok(Lease { sender: Sender::Http1(sender), pool: self.clone(), slot: slot.id, idle: None })
    }

    fn take_idle(self: &Rc<Self>, slot: u64) -> Option<Lease> {
        let mut by_slot = self.by_slot.borrow_mut();
        let idle = &mut by_slot.get_mut(&slot)?.idle;
        idle.retain(|kept| !kept.sender.is_closed());
        // The newest one is nearly always ready; one that still has to hear that its last request ended is
        // left for later.
        let at = idle.iter().rposition(|kept| kept.sender.is_ready())?;
        let Idle { sender, since } = idle.swap_remove(at);
        Some(Lease { sender: Sender::Http1(sender), pool: self.clone(), slot, idle: Some(since.elapsed()) })
    }

    async fn lease_http2(self: &Rc<Self>, slot: &Slot) -> Result<Lease, ConnectError> {
        loop {
            if let Some(lease) = self.take_stream(slot.id) {
                return Ok(lease);
            }
            let opening = self.by_slot.borrow().get(&slot.id).and_then(|kept| kept.opening.clone());
            match opening {
                Some(opening) => opening.notified().await,
                None => return self.open_http2(slot).await,
            }
        }
    }

    fn take_stream(self: &Rc<Self>, slot: u64) -> Option<Lease> {
        let mut by_slot = self.by_slot.borrow_mut();
        let shared = &mut by_slot.get_mut(&slot)?.shared;
        shared.retain(|connection| !connection.sender.is_closed());
        let most = self.config.streams_per_connection;
        let connection = shared.iter().find(|connection| connection.streams.get() < most)?;
        let idle = Some(connection.used.replace(Instant::now()).elapsed());
        let sender = Sender::Http2 { sender: connection.sender.clone(), _stream: Stream::of(connection) };
        Some(Lease { sender, pool: self.clone(), slot, idle })
    }

    async fn open_http2(self: &Rc<Self>, slot: &Slot) -> Result<Lease, ConnectError> {
        let opening = Opening::begin(self, slot.id);
        let address = slot.instance.address;
        let stream = self.dial(address).await?;
        let handshake = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = handshake.map_err(|source| ConnectError::Handshake { address, source })?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "connection to an instance ended");
            }
        });
        let shared = Shared { sender: sender.clone(), streams: Rc::default(), used: Cell::new(Instant::now()) };
        let sender = Sender::Http2 { sender, _stream: Stream::of(&shared) };
        self.by_slot.borrow_mut().entry(slot.id).or_default().shared.push(shared);
        drop(opening);
        Ok(Lease { sender, pool: self.clone(), slot: slot.id, idle: None })
    }

    async fn dial(&self, address: SocketAddr) -> Result<TcpStream, ConnectError> {
        let stream = timeout(self.config.connect_timeout, TcpStream::connect(address))
            .await
            .map_err(|_| ConnectError::Timeout(address))?
            .map_err(|source| ConnectError::Dial { address, source })?;
        // Without it small requests wait for acknowledgements; a socket that cannot say so still works.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "cannot turn Nagle's algorithm off");
        }
        Ok(stream)
    }

    /// Closes what has been idle for too long.
    pub(crate) fn reap(&self) {
        let most = self.config.idle_timeout;
        self.by_slot.borrow_mut().retain(|_, kept| {
            kept.idle.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < most);
            kept.shared.retain(|connection| {
                let quiet = connection.streams.get() == 0 && connection.used.get().elapsed() >= most;
                !(connection.sender.is_closed() || quiet)
            });
            !(kept.idle.is_empty() && kept.shared.is_empty() && kept.opening.is_none())
        });
    }

    fn keep(&self, slot: u64, sender: http1::SendRequest<Outbound>) {
        let mut by_slot = self.by_slot.borrow_mut();
        let idle = &mut by_slot.entry(slot).or_default().idle;
        if idle.len() < self.config.idle_per_instance {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }
}

impl Stream {
    fn of(connection: &Shared) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self(connection.streams.clone())
    }
}

/// Tells others to wait while a connection is opened; wakes them when dropped, whatever came of it.
struct Opening<'a> {
    pool: &'a Pool,
    slot: u64,
}

impl<'a> Opening<'a> {
    fn begin(pool: &'a Pool, slot: u64) -> Self {
        pool.by_slot.borrow_mut().entry(slot).or_default().opening = Some(Rc::default());
        Self { pool, slot }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut by_slot = self.pool.by_slot.borrow_mut();
        if let Some(opening) = by_slot.get_mut(&self.slot).and_then(|kept| kept.opening.take()) {
            opening.notify_waiters();
        }
    }
}

impl Lease {
    /// Whether the connection has carried requests before.
    pub(crate) fn is_used(&self) -> bool {
        self.idle.is_some()
    }

    /// Whether the connection was idle for so long that its other end may just be closing it.
    pub(crate) fn may_be_stale(&self) -> bool {
        self.idle.is_some_and(|idle| idle >= Duration::from_millis(200))
    }

    /// Sends a request. An error holds the request when none of it was sent.
    pub(crate) async fn send(
        &mut self,
        request: Request<Outbound>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outbound>>> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2 { sender, .. } => sender.try_send_request(request).await,
        }
    }

    /// Returns the connection after a whole response.
    pub(crate) fn finish(self) {
        if let Sender::Http1(sender) = self.sender
            && !sender.is_closed()
        {
            self.pool.keep(self.slot, sender);
        }
    }
}
