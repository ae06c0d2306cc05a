//! A thread's connections to instances.
//!
//! HTTP/1.1 connections wait in a stack an instance, newest on top, so that a burst's extra connections grow
//! old and are closed. One is kept as long as its instance promised with `Keep-Alive`, or else for a set time.
//! HTTP/2 connections are shared up to a number of streams. Only one is opened at a time to an instance; others
//! wait for it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use knoll_api::table::Protocol;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::body::Outbound;
use crate::contain::contained;
use crate::endpoint::Endpoint;
use crate::headers::KEEP_ALIVE;
use crate::metrics::{Metrics, ThreadCounters};
use crate::thread::LocalExecutor;
use crate::wire::Wire;

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
    /// The connection that another request was opening for both did not come about.
    #[error("dial tcp {0}: it failed for another request that waited for it, too")]
    Shared(SocketAddr),
}

/// A connection that one request opens and others wait for.
#[derive(Debug, Default)]
struct Awaited {
    done: Notify,
    failed: Cell<bool>,
}

/// Bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionPoolConfig {
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_per_instance: usize,
    pub(crate) idle_timeout: Duration,
    pub(crate) streams_per_connection: usize,
}

/// A thread's connections.
#[derive(Debug)]
pub(crate) struct ConnectionPool {
    config: ConnectionPoolConfig,
    metrics: Arc<Metrics>,
    thread: usize,
    by_endpoint: RefCell<HashMap<u64, Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    idle: Vec<Idle>,
    shared: Vec<Shared>,
    opening: Option<Rc<Awaited>>,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<Outbound>,
    wire: Wire,
    until: Instant,
}

#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<Outbound>,
    wire: Wire,
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
pub(crate) struct PooledConnection {
    sender: Sender,
    wire: Wire,
    connections: Rc<ConnectionPool>,
    endpoint: u64,
    /// Whether the connection has carried requests before.
    used: bool,
    /// How long it may stay idle once its response has ended.
    keep: Duration,
}

/// How sure one must be that a kept connection still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The request can be sent again if not.
    Kept,
    /// The request can be sent once: what is kept is looked at first.
    Seen,
}

impl ConnectionPool {
    /// The connections of the thread numbered `thread`.
    pub(crate) fn new(config: ConnectionPoolConfig, thread: usize, metrics: Arc<Metrics>) -> Rc<Self> {
        Rc::new(Self { config, metrics, thread, by_endpoint: RefCell::default() })
    }

    fn counters(&self) -> &ThreadCounters {
        &self.metrics.threads[self.thread]
    }

    /// A kept connection to `endpoint`, or a new one.
    pub(crate) async fn checkout(
        self: &Rc<Self>,
        endpoint: &Endpoint,
        protocol: Protocol,
        trust: Trust,
    ) -> Result<PooledConnection, ConnectError> {
        match protocol {
            Protocol::Http1 => match self.take_idle(endpoint.id, trust) {
                Some(pooled) => Ok(pooled),
                None => self.open_http1(endpoint).await,
            },
            Protocol::H2c => self.checkout_http2(endpoint, trust).await,
        }
    }

    /// A connection to `endpoint` that has carried no request.
    pub(crate) async fn open_http1(self: &Rc<Self>, endpoint: &Endpoint) -> Result<PooledConnection, ConnectError> {
        let address = endpoint.instance.address;
        let wire = Wire::new(self.dial(address).await?);
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(wire.clone()))
            .await
            .map_err(|source| ConnectError::Handshake { address, source })?;
        self.run(address, connection.with_upgrades());
        Ok(self.pooled(Sender::Http1(sender), wire, endpoint.id, false))
    }

    fn pooled(self: &Rc<Self>, sender: Sender, wire: Wire, endpoint: u64, used: bool) -> PooledConnection {
        PooledConnection { sender, wire, connections: self.clone(), endpoint, used, keep: self.config.idle_timeout }
    }

    fn take_idle(self: &Rc<Self>, endpoint: u64, trust: Trust) -> Option<PooledConnection> {
        let mut by_endpoint = self.by_endpoint.borrow_mut();
        let idle = &mut by_endpoint.get_mut(&endpoint)?.idle;
        let now = Instant::now();
        idle.retain(|kept| !kept.sender.is_closed() && now < kept.until);
        loop {
            // The newest one is nearly always ready; one that still has to hear that its last request ended is
            // left for later.
            let at = idle.iter().rposition(|kept| kept.sender.is_ready())?;
            let Idle { sender, wire, .. } = idle.swap_remove(at);
            if trust == Trust::Kept || !wire.is_spoilt() {
                self.counters().reused.count();
                return Some(self.pooled(Sender::Http1(sender), wire, endpoint, true));
            }
            self.counters().spoilt.count();
        }
    }

    async fn checkout_http2(
        self: &Rc<Self>,
        endpoint: &Endpoint,
        trust: Trust,
    ) -> Result<PooledConnection, ConnectError> {
        loop {
            if let Some(pooled) = self.take_stream(endpoint.id, trust) {
                return Ok(pooled);
            }
            let opening = self.by_endpoint.borrow().get(&endpoint.id).and_then(|kept| kept.opening.clone());
            match opening {
                Some(opening) => {
                    opening.done.notified().await;
                    // One that was given up is opened again; one that failed would only fail once more, for each in turn.
                    if opening.failed.get() {
                        return Err(ConnectError::Shared(endpoint.instance.address));
                    }
                }
                None => return self.open_http2(endpoint).await,
            }
        }
    }

    fn take_stream(self: &Rc<Self>, endpoint: u64, trust: Trust) -> Option<PooledConnection> {
        let mut by_endpoint = self.by_endpoint.borrow_mut();
        let shared = &mut by_endpoint.get_mut(&endpoint)?.shared;
        shared.retain(|connection| !connection.sender.is_closed());
        let most = self.config.streams_per_connection;
        let usable = |connection: &&Shared| {
            connection.streams.get() < most && (trust == Trust::Kept || !connection.wire.is_closed())
        };
        let connection = shared.iter().find(usable)?;
        connection.used.set(Instant::now());
        self.counters().reused.count();
        let sender = Sender::Http2 { sender: connection.sender.clone(), _stream: Stream::of(connection) };
        Some(self.pooled(sender, connection.wire.clone(), endpoint, true))
    }

    async fn open_http2(self: &Rc<Self>, endpoint: &Endpoint) -> Result<PooledConnection, ConnectError> {
        let opening = Opening::begin(self, endpoint.id);
        let made = self.dial_http2(endpoint).await;
        opening.ends(made.is_err());
        made
    }

    async fn dial_http2(self: &Rc<Self>, endpoint: &Endpoint) -> Result<PooledConnection, ConnectError> {
        let address = endpoint.instance.address;
        let wire = Wire::new(self.dial(address).await?);
        let handshake = http2::Builder::new(LocalExecutor(self.metrics.clone()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .handshake(TokioIo::new(wire.clone()))
            .await;
        let (sender, connection) = handshake.map_err(|source| ConnectError::Handshake { address, source })?;
        self.run(address, connection);
        let used = Cell::new(Instant::now());
        let shared = Shared { sender: sender.clone(), wire: wire.clone(), streams: Rc::default(), used };
        let sender = Sender::Http2 { sender, _stream: Stream::of(&shared) };
        self.by_endpoint.borrow_mut().entry(endpoint.id).or_default().shared.push(shared);
        Ok(self.pooled(sender, wire, endpoint.id, false))
    }

    fn run(&self, address: SocketAddr, connection: impl Future<Output = Result<(), hyper::Error>> + 'static) {
        let metrics = self.metrics.clone();
        tokio::task::spawn_local(async move {
            if let Some(Err(error)) = contained(&metrics, "a connection to an instance", connection).await {
                tracing::debug!(%address, %error, "connection to an instance ended");
            }
        });
    }

    async fn dial(&self, address: SocketAddr) -> Result<TcpStream, ConnectError> {
        let dialled = timeout(self.config.connect_timeout, TcpStream::connect(address))
            .await
            .map_err(|_| ConnectError::Timeout(address))
            .and_then(|dialled| dialled.map_err(|source| ConnectError::Dial { address, source }));
        let counters = self.counters();
        match &dialled {
            Ok(_) => counters.dialled.count(),
            Err(_) => counters.dial_failures.count(),
        }
        let stream = dialled?;
        // Without it small requests wait for acknowledgements; a socket that cannot say so still works.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "cannot turn Nagle's algorithm off");
        }
        Ok(stream)
    }

    /// Closes what has been idle for too long.
    pub(crate) fn reap(&self) {
        let most = self.config.idle_timeout;
        let now = Instant::now();
        self.by_endpoint.borrow_mut().retain(|_, kept| {
            kept.idle.retain(|idle| !idle.sender.is_closed() && now < idle.until);
            kept.shared.retain(|connection| {
                let quiet = connection.streams.get() == 0 && connection.used.get().elapsed() >= most;
                !(connection.sender.is_closed() || quiet)
            });
            !(kept.idle.is_empty() && kept.shared.is_empty() && kept.opening.is_none())
        });
    }

    fn keep(&self, endpoint: u64, sender: http1::SendRequest<Outbound>, wire: Wire, keep: Duration) {
        let mut by_endpoint = self.by_endpoint.borrow_mut();
        let idle = &mut by_endpoint.entry(endpoint).or_default().idle;
        if idle.len() < self.config.idle_per_instance {
            idle.push(Idle { sender, wire, until: Instant::now() + keep });
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
    connections: &'a ConnectionPool,
    endpoint: u64,
}

impl<'a> Opening<'a> {
    fn begin(connections: &'a ConnectionPool, endpoint: u64) -> Self {
        connections.by_endpoint.borrow_mut().entry(endpoint).or_default().opening = Some(Rc::default());
        Self { connections, endpoint }
    }

    /// Tells those who wait how it went.
    fn ends(self, failed: bool) {
        let by_endpoint = self.connections.by_endpoint.borrow();
        if let Some(opening) = by_endpoint.get(&self.endpoint).and_then(|kept| kept.opening.as_ref()) {
            opening.failed.set(failed);
        }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut by_endpoint = self.connections.by_endpoint.borrow_mut();
        if let Some(opening) = by_endpoint.get_mut(&self.endpoint).and_then(|kept| kept.opening.take()) {
            opening.done.notify_waiters();
        }
    }
}

impl PooledConnection {
    /// Whether the connection has carried requests before.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    /// Notes how long the instance promises to keep the connection open.
    pub(crate) fn heed(&mut self, headers: &HeaderMap) {
        if let Some(promised) = headers.get(&KEEP_ALIVE).and_then(|value| promised(value.to_str().ok()?)) {
            self.keep = promised;
        }
    }

    /// Sends a request. An error holds the request when none of it was sent.
    #[allow(
        clippy::result_large_err,
        reason = "it is hyper's, with the request; only newer compilers see it in an async fn"
    )]
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
            && !self.keep.is_zero()
        {
            self.connections.keep(self.endpoint, sender, self.wire, self.keep);
        }
    }
}

/// What is left of a promised time when a request is on its way to the instance: a second less, since the
/// promise is in whole seconds and begins before we hear of it.
const MARGIN: Duration = Duration::from_secs(1);
/// Longest promise that is believed: a connection idle for longer costs more than a new one.
const LONGEST: Duration = Duration::from_secs(60);

/// How long a connection is kept after a response with this `Keep-Alive`, e.g. `timeout=5, max=100`; `None` when
/// it promises nothing.
fn promised(keep_alive: &str) -> Option<Duration> {
    let number = |wanted: &str| {
        let pairs = keep_alive.split(',').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
            .find_map(|(_, value)| value.trim().parse().ok())
    };
    if number("max") == Some(0) {
        return Some(Duration::ZERO);
    }
    number("timeout").map(|seconds: u64| Duration::from_secs(seconds).saturating_sub(MARGIN).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_kept_to_with_a_second_to_spare() {
        let seconds = |value| promised(value).map(|length| length.as_secs());
        assert_eq!(seconds("timeout=5"), Some(4));
        assert_eq!(seconds("Timeout = 5, max=100"), Some(4));
        assert_eq!(seconds("timeout=1"), Some(0));
        assert_eq!(seconds("timeout=0"), Some(0));
        assert_eq!(seconds("timeout=100000000000000000"), Some(60));
        assert_eq!(seconds("timeout=5, max=0"), Some(0), "the last request over this connection");
        for nothing in ["", "timeout", "timeout=soon", "max=3", "=", ","] {
            assert_eq!(promised(nothing), None, "{nothing}");
        }
    }
}
