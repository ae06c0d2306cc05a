//! The gateway as others see it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use knoll_api::Key;
use knoll_api::metrics::MetricFamily;
use knoll_api::stats::RevisionStat;
use knoll_api::table::{Backend, Instance, RoutingTable};
use knoll_bounds::network;
use thiserror::Error;
use tokio::sync::{Notify, mpsc, watch};

use crate::config::{Config, ConfigError};
use crate::control::{self, Control};
use crate::drain::Drained;
use crate::endpoint_pool::{Common, EndpointPool};
use crate::endpoint_pools::EndpointPools;
use crate::errors::Own;
use crate::metrics::Metrics;
use crate::thread::{self, Command};

/// Commands that may wait for a data thread; the acceptor waits when there are more.
const COMMANDS: usize = 256;

/// Which hosts a listener answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// For the world: external hosts alone.
    External,
    /// For pods: local and external hosts, and names of Services.
    ClusterLocal,
}

/// What a gateway tells others.
#[derive(Debug)]
pub struct Feeds {
    /// What each revision carried in the last period; also zeros, for revisions that have instances.
    pub stats: mpsc::Receiver<Vec<RevisionStat>>,
    /// Revisions with a waiting request and no instance; each once until it has had one, and again every
    /// period while the request waits.
    pub wakes: mpsc::Receiver<Key>,
}

/// An endpoint pool as an operator looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPoolView {
    /// The Revision, or another Service.
    pub key: Key,
    /// Most requests in flight at one endpoint; 0 is unlimited.
    pub limit: u32,
    /// Who takes requests.
    pub endpoints: Vec<EndpointView>,
    /// Requests in line.
    pub waiting: usize,
    /// Whether an instance was called for and has not come yet.
    pub called: bool,
    /// Why no instance will ever come.
    pub failure: Option<String>,
}

/// An endpoint as an operator looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointView {
    /// Where it is.
    pub instance: Instance,
    /// Requests in flight.
    pub in_flight: u32,
    /// Whether it could not be reached when last tried.
    pub suspect: bool,
}

/// Why a gateway cannot start or listen.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// A setting makes no sense.
    #[error("gateway configuration is invalid")]
    Config(#[from] ConfigError),
    /// A thread or socket was refused.
    #[error("gateway cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The gateway is shutting down.
    #[error("gateway is shutting down")]
    Stopped,
}

/// A running gateway. Dropping it cuts off all its connections; [`Gateway::shutdown`] does not.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    control: mpsc::Sender<Control>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Tells a gateway of instances ahead of its table. Cheap to clone; outlives the gateway harmlessly.
#[derive(Clone, Debug)]
pub struct EndpointHints {
    shared: Arc<Shared>,
}

impl EndpointHints {
    /// Sends requests to an instance from now on, ahead of the table.
    ///
    /// It is used until a table lists it (which then decides), until [`EndpointHints::instance_down`], or until it
    /// cannot be reached.
    pub fn instance_up(&self, revision: Key, instance: Instance) {
        let now = self.shared.now_millis();
        self.shared.pools().instance_up(revision, instance, now);
    }

    /// Sends no further request to an instance, ahead of the table. Those in flight go on.
    pub fn instance_down(&self, revision: &Key, instance: &Instance) {
        let now = self.shared.now_millis();
        self.shared.pools().instance_down(revision, instance, now);
    }
}

impl EndpointHints {
    /// See [`Gateway::metrics`].
    pub fn metrics(&self) -> Vec<MetricFamily> {
        let shared = &self.shared;
        let mut all = shared.metrics.read();
        let early = shared.early.load(Ordering::Relaxed);
        let pools = "Revisions and other Services that routes may lead to";
        let gauges = [
            ("gateway_connections", "Client connections", shared.connections()),
            ("gateway_clients", "Addresses with a client connection", lock(&shared.by_address).len()),
            ("gateway_requests_early", "Requests that wait for the first table", early),
            ("gateway_endpoint_pools", pools, shared.pools().len()),
            ("gateway_endpoint_pools_populated", "Those of them that have an instance", shared.populated().len()),
        ];
        all.extend(gauges.map(|(name, help, value)| MetricFamily::gauge(name, help, value as u64)));
        all
    }

    /// Every endpoint pool that has an endpoint or somebody in line. Looks at each pool there is.
    pub fn endpoint_pools(&self) -> Vec<EndpointPoolView> {
        self.shared.pools().view()
    }

    /// Ends once no request is in flight at an instance that was said to be down. Never ends while a connection
    /// that was upgraded (a WebSocket) stays open: bound it.
    pub async fn drained(&self, revision: &Key, instance: &Instance) {
        let leaving = self.shared.pools().leaving(revision, instance);
        for endpoint in leaving {
            endpoint.idle().await;
        }
    }
}

/// What all threads of a gateway share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) deal: Vec<mpsc::Sender<Command>>,
    born: Instant,
    pub(crate) metrics: Arc<Metrics>,
    common: Arc<Common>,
    /// 0 before the first table.
    generation: AtomicU64,
    table: Mutex<Arc<RoutingTable>>,
    pub(crate) applied: watch::Sender<Option<Arc<RoutingTable>>>,
    pools: Mutex<EndpointPools>,
    connections: Vec<AtomicUsize>,
    /// Client connections by address.
    by_address: Mutex<HashMap<IpAddr, usize>>,
    /// Requests that wait for the first table.
    early: AtomicUsize,
    pub(crate) all_ended: Notify,
    pub(crate) draining: AtomicBool,
}

impl Gateway {
    /// Starts the threads of a gateway that routes by the newest value of `table`. Until there is one, requests wait:
    /// a gateway that has just started does not know that a host is unknown.
    pub fn new(
        config: Config,
        table: watch::Receiver<Option<Arc<RoutingTable>>>,
    ) -> Result<(Self, Feeds), GatewayError> {
        config.validate()?;
        let (stats_sender, stats) = mpsc::channel(config.stats_capacity);
        let (wake_sender, wakes) = mpsc::channel(config.wake_capacity);
        let (deal, commands): (Vec<_>, Vec<_>) = (0..config.threads).map(|_| mpsc::channel(COMMANDS)).unzip();
        let shared = Arc::new(Shared::new(config, deal, wake_sender));
        let first = table.borrow().clone();
        if let Some(first) = &first {
            shared.apply(first);
        }
        let mut threads = Vec::with_capacity(commands.len() + 1);
        for (index, commands) in commands.into_iter().enumerate() {
            threads.push(thread::spawn(index, shared.clone(), commands).map_err(starting)?);
        }
        let (control, orders) = mpsc::channel(16);
        let inputs = control::Inputs { shared: shared.clone(), orders, table, stats: stats_sender };
        threads.push(control::spawn(inputs).map_err(starting)?);
        Ok((Self { shared, control, threads }, Feeds { stats, wakes }))
    }

    /// Answers clients of `listener`. Returns at once.
    ///
    /// The socket may be shared with another process: after [`Gateway::shutdown`] has begun, connections in its
    /// backlog are left to whoever else holds it.
    pub fn serve(&self, listener: TcpListener, visibility: Visibility) -> Result<(), GatewayError> {
        listener.set_nonblocking(true).map_err(|source| GatewayError::Io { action: "watch a listener", source })?;
        self.control.try_send(Control::Listen(listener, visibility)).map_err(|_| GatewayError::Stopped)
    }

    /// For whoever hears of instances before the table does.
    pub fn hints(&self) -> EndpointHints {
        EndpointHints { shared: self.shared.clone() }
    }

    /// See [`EndpointHints::instance_up`].
    pub fn instance_up(&self, revision: Key, instance: Instance) {
        self.hints().instance_up(revision, instance);
    }

    /// See [`EndpointHints::instance_down`].
    pub fn instance_down(&self, revision: &Key, instance: &Instance) {
        self.hints().instance_down(revision, instance);
    }

    /// The table in force: every request that begins after a value was seen here is routed by it or a newer one.
    pub fn applied(&self) -> watch::Receiver<Option<Arc<RoutingTable>>> {
        self.shared.applied.subscribe()
    }

    /// Every number the gateway has about itself, for whoever exports them.
    pub fn metrics(&self) -> Vec<MetricFamily> {
        self.hints().metrics()
    }

    /// Client connections at the moment.
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// Stops listening, lets every connection finish its present requests for at most `grace`, then ends.
    pub async fn shutdown(mut self, grace: Duration) -> Drained {
        self.shared.draining.store(true, Ordering::Release);
        // A control thread that is gone listens to nothing any more.
        drop(self.control.send(Control::StopListening).await);
        for deal in &self.shared.deal {
            drop(deal.send(Command::Drain).await);
        }
        let clean = tokio::time::timeout(grace, self.shared.wait_until_ended()).await.is_ok();
        let left = self.shared.connections();
        self.stop();
        for thread in std::mem::take(&mut self.threads) {
            // The threads end at once, but not on this task's time.
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("a gateway thread panicked");
            }
        }
        if clean { Drained::Clean } else { Drained::Cut(left) }
    }

    fn stop(&self) {
        // Full or closed: the thread sees the channel close when the gateway is gone.
        drop(self.control.try_send(Control::Stop));
        for deal in &self.shared.deal {
            drop(deal.try_send(Command::Stop));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop();
    }
}

fn starting(source: std::io::Error) -> GatewayError {
    GatewayError::Io { action: "start a thread", source }
}

impl Shared {
    fn new(config: Config, deal: Vec<mpsc::Sender<Command>>, wakes: mpsc::Sender<Key>) -> Self {
        let metrics = Arc::new(Metrics::new(config.threads));
        let common = Common::new(config.threads, config.queue_depth, wakes, metrics.clone());
        Self {
            metrics,
            pools: Mutex::new(EndpointPools::new(common.clone())),
            common,
            born: Instant::now(),
            generation: AtomicU64::new(0),
            table: Mutex::default(),
            applied: watch::Sender::new(None),
            connections: (0..config.threads).map(|_| AtomicUsize::new(0)).collect(),
            by_address: Mutex::default(),
            early: AtomicUsize::new(0),
            all_ended: Notify::new(),
            draining: AtomicBool::new(false),
            deal,
            config,
        }
    }

    /// Milliseconds since the gateway was made; never 0.
    pub(crate) fn now_millis(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Whether the first table has come.
    pub(crate) fn has_table(&self) -> bool {
        self.generation() > 0
    }

    /// Waits until there is a table, for a bounded time and among a bounded number.
    pub(crate) async fn wait_for_table(&self) -> Result<(), Own> {
        if self.has_table() {
            return Ok(());
        }
        let _early = Early::enter(self).ok_or(Own::Starting)?;
        let mut applied = self.applied.subscribe();
        let first = applied.wait_for(Option::is_some);
        match tokio::time::timeout(self.config.early_timeout, first).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Own::Starting),
        }
    }

    /// Endpoint pools that have instances.
    pub(crate) fn populated(&self) -> Vec<Arc<EndpointPool>> {
        self.common.populated()
    }

    /// Changes with each table; 0 before the first.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The table in force, and its generation.
    pub(crate) fn table(&self) -> (u64, Arc<RoutingTable>) {
        let table = lock(&self.table);
        (self.generation(), table.clone())
    }

    /// Puts `table` in force: first what it adds, then the table, then what it no longer has.
    pub(crate) fn apply(&self, table: &Arc<RoutingTable>) {
        let now = self.now_millis();
        let lonely = self.pools().apply(table, now);
        {
            let mut current = lock(&self.table);
            *current = table.clone();
            self.generation.fetch_add(1, Ordering::Release);
        }
        self.pools().forget(lonely);
        self.metrics.tables.count();
        self.applied.send_replace(Some(table.clone()));
    }

    /// The endpoint pool behind a Service of the table in force.
    pub(crate) fn pool(&self, service: &Key, backend: &Backend) -> Option<Arc<EndpointPool>> {
        self.pools().pool(service, backend)
    }

    pub(crate) fn pools(&self) -> MutexGuard<'_, EndpointPools> {
        lock(&self.pools)
    }

    /// Counts a connection in for the thread with the fewest; `None` when there are too many of all or of its
    /// address.
    pub(crate) fn admit_connection(&self, address: IpAddr) -> Option<usize> {
        if self.connections() >= self.config.max_connections {
            self.metrics.refused_total.count();
            return None;
        }
        let (thread, count) =
            self.connections.iter().enumerate().min_by_key(|(_, count)| count.load(Ordering::Relaxed))?;
        {
            let mut by_address = lock(&self.by_address);
            let of_address = by_address.entry(network(address)).or_default();
            if *of_address >= self.config.max_connections_per_address {
                self.metrics.refused_address.count();
                return None;
            }
            *of_address += 1;
        }
        self.metrics.accepted.count();
        count.fetch_add(1, Ordering::Relaxed);
        Some(thread)
    }

    /// Counts a connection of `thread` out.
    pub(crate) fn connection_ended(&self, thread: usize, address: IpAddr) {
        if let Entry::Occupied(mut of_address) = lock(&self.by_address).entry(network(address)) {
            match of_address.get() {
                0 | 1 => drop(of_address.remove()),
                more => *of_address.get_mut() = more - 1,
            }
        }
        self.connections[thread].fetch_sub(1, Ordering::AcqRel);
        if self.draining.load(Ordering::Acquire) {
            self.all_ended.notify_waiters();
        }
    }

    fn connections(&self) -> usize {
        self.connections.iter().map(|count| count.load(Ordering::Acquire)).sum()
    }

    async fn wait_until_ended(&self) {
        loop {
            let ended = self.all_ended.notified();
            if self.connections() == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// A request among those that wait for the first table.
struct Early<'a>(&'a Shared);

impl<'a> Early<'a> {
    fn enter(shared: &'a Shared) -> Option<Self> {
        let early = Self(shared);
        (shared.early.fetch_add(1, Ordering::Relaxed) < shared.config.early_requests).then_some(early)
    }
}

impl Drop for Early<'_> {
    fn drop(&mut self) {
        self.0.early.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is replaced whole, so a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
