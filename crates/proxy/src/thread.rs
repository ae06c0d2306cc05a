//! A data thread: a single-threaded runtime with the connections it was dealt.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use knoll_api::Key;
use knoll_api::table::{Backend, RoutingTable};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use crate::client;
use crate::connection_pool::{ConnectionPool, ConnectionPoolConfig};
use crate::contain::{contained, contained_now};
use crate::drain::Parked;
use crate::gateway::{Shared, Visibility};
use crate::meter::{Count, Meters};
use crate::metrics::{Metrics, ThreadCounters};
use crate::route::{Match, Target};
use crate::routes::{How, Lookup, Routes};

/// What a data thread is told.
pub(crate) enum Command {
    /// Serve a client.
    Serve(std::net::TcpStream, SocketAddr, Visibility),
    /// End the reporting period.
    Report(oneshot::Sender<Vec<Count>>),
    /// Finish connections after their present request.
    Drain,
    /// Drop everything.
    Stop,
}

/// Runs the streams of an HTTP/2 connection on the thread that spawns them.
#[derive(Clone, Debug)]
pub(crate) struct LocalExecutor(pub(crate) Arc<Metrics>);

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        let metrics = self.0.clone();
        tokio::task::spawn_local(async move { contained(&metrics, "an HTTP/2 stream", future).await });
    }
}

/// State of a data thread.
pub(crate) struct Thread {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) connections: Rc<ConnectionPool>,
    pub(crate) parked: Parked,
    meters: Rc<Meters>,
    generation: Cell<u64>,
    table: RefCell<Arc<RoutingTable>>,
    external: RefCell<Routes>,
    local: RefCell<Routes>,
    period_start: Cell<Instant>,
}

/// Why a request found no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// Nobody claims the host.
    Host,
    /// The host has no such path.
    Path,
}

/// Starts a data thread; it ends with [`Command::Stop`] or when `commands` is closed.
pub(crate) fn spawn(
    index: usize,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let spawned = std::thread::Builder::new().name(format!("gateway-{index}"));
    spawned.spawn(move || match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime.block_on(Thread::new(index, shared).run(commands)),
        Err(error) => tracing::error!(%error, index, "gateway thread has no runtime"),
    })
}

impl Thread {
    fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let config = &shared.config;
        let connections = ConnectionPoolConfig {
            connect_timeout: config.connect_timeout,
            idle_per_instance: config.idle_per_instance,
            idle_timeout: config.idle_timeout,
            streams_per_connection: config.streams_per_connection,
        };
        let connections = ConnectionPool::new(connections, index, shared.metrics.clone());
        let now = Instant::now();
        let most_requests = config.max_requests / config.threads;
        Rc::new(Self {
            index,
            connections,
            parked: Parked::default(),
            meters: Meters::new(index, most_requests, shared.metrics.clone()),
            shared,
            generation: Cell::default(),
            table: RefCell::default(),
            external: RefCell::new(Routes::new(Visibility::External, now)),
            local: RefCell::new(Routes::new(Visibility::ClusterLocal, now)),
            period_start: Cell::new(now),
        })
    }

    async fn run(self: Rc<Self>, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.recv().await {
            if matches!(command, Command::Stop) {
                break;
            }
            contained_now(&self.shared.metrics, "a data thread's turn", || self.obey(command));
        }
        self.meters.close();
    }

    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Serve(stream, peer, visibility) => client::serve(self, stream, peer, visibility),
            Command::Report(answer) => {
                // Nobody asks any more when the gateway is being dropped.
                drop(answer.send(self.report()));
                self.connections.reap();
            }
            Command::Drain => self.parked.drain(),
            Command::Stop => {}
        }
    }

    /// What this thread counts.
    pub(crate) fn counters(&self) -> &ThreadCounters {
        &self.shared.metrics.threads[self.index]
    }

    /// Milliseconds of the gateway's life.
    pub(crate) fn now_millis(&self) -> u64 {
        self.shared.now_millis()
    }

    /// Finds where a request goes, by the newest table.
    pub(crate) fn route(
        &self,
        visibility: Visibility,
        host: &str,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Match, NoRoute> {
        self.refresh();
        let mut found = self.find(visibility, host, path, headers)?;
        // A mapped domain leads to another host of ours; four is more than any chain of names needs.
        for _ in 0..4 {
            let unknown = found.split().is_none_or(|split| split.target.is_none());
            let Some(next) = found.path().rewrite_name.as_deref().filter(|_| unknown) else { break };
            let next = next.to_owned();
            match self.find(Visibility::ClusterLocal, &next, path, headers) {
                Ok(further) => found = further.by_mapping(),
                Err(_) => break,
            }
        }
        Ok(found)
    }

    fn find(&self, visibility: Visibility, host: &str, path: &str, headers: &HeaderMap) -> Result<Match, NoRoute> {
        let routes = match visibility {
            Visibility::External => &self.external,
            Visibility::ClusterLocal => &self.local,
        };
        let table = self.table.borrow();
        let lookup = Lookup {
            table: &table,
            generation: self.generation.get(),
            cluster_domain: &self.shared.config.cluster_domain,
            target: &mut |service| self.target(service, table.backends.get(service)?),
        };
        let (route, how) = routes.borrow_mut().find(host, lookup).ok_or(NoRoute::Host)?;
        match how {
            How::Ready => {}
            How::Confirmed => self.counters().confirmed.count(),
            How::Prepared => self.counters().prepared.count(),
        }
        route.find(path, headers).ok_or(NoRoute::Path)
    }

    fn refresh(&self) {
        if self.generation.get() != self.shared.generation() {
            let (generation, table) = self.shared.table();
            self.generation.set(generation);
            self.table.replace(table);
        }
    }

    fn target(&self, service: &Key, backend: &Backend) -> Option<Target> {
        let pool = self.shared.pool(service, backend)?;
        let meter = self.meters.of(pool, Instant::now());
        Some(Target { protocol: backend.protocol, policy: backend.revision.clone(), meter })
    }

    fn report(&self) -> Vec<Count> {
        let now = Instant::now();
        let period = now.saturating_duration_since(self.period_start.replace(now)).max(Duration::from_nanos(1));
        for routes in [&self.external, &self.local] {
            routes.borrow_mut().turn(now);
        }
        self.meters.collect(now, period.as_nanos() as f64)
    }
}
