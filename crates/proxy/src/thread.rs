//! A data thread: a single-threaded runtime with the connections it was dealt.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use knoll_api::Key;
use knoll_api::table::{Backend, Table};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use crate::client;
use crate::drain::Parked;
use crate::gateway::{Shared, Side};
use crate::pool::{Pool, PoolConfig};
use crate::route::{self, HostRoute, Match, Target};
use crate::station::Station;
use crate::stats::{Count, Desk};

/// Most hosts a thread keeps prepared for each side; beyond that it starts over.
const MAX_HOSTS: usize = 8192;

/// What a data thread is told.
pub(crate) enum Command {
    /// Serve a client.
    Serve(std::net::TcpStream, SocketAddr, Side),
    /// End the reporting period.
    Report(oneshot::Sender<Vec<Count>>),
    /// Finish connections after their present request.
    Drain,
    /// Drop everything.
    Stop,
}

/// Runs futures on the thread that spawns them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// State of a data thread.
pub(crate) struct Thread {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Rc<Pool>,
    pub(crate) parked: Parked,
    desks: RefCell<HashMap<u64, Rc<Desk>>>,
    routes: RefCell<Routes>,
    period_start: Cell<Instant>,
}

/// Hosts prepared from one table.
#[derive(Default)]
struct Routes {
    generation: u64,
    table: Arc<Table>,
    external: HashMap<Box<str>, Rc<HostRoute>>,
    local: HashMap<Box<str>, Rc<HostRoute>>,
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
        let pool = Pool::new(PoolConfig {
            connect_timeout: config.connect_timeout,
            idle_per_instance: config.idle_per_instance,
            idle_timeout: config.idle_timeout,
            streams_per_connection: config.streams_per_connection,
        });
        let (parked, desks, routes) = Default::default();
        Rc::new(Self { index, shared, pool, parked, desks, routes, period_start: Cell::new(Instant::now()) })
    }

    async fn run(self: Rc<Self>, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Serve(stream, peer, side) => client::serve(&self, stream, peer, side),
                Command::Report(answer) => {
                    // Nobody asks any more when the gateway is being dropped.
                    drop(answer.send(self.report()));
                    self.pool.reap();
                }
                Command::Drain => self.parked.drain(),
                Command::Stop => return,
            }
        }
    }

    /// Milliseconds of the gateway's life.
    pub(crate) fn now_millis(&self) -> u64 {
        self.shared.now_millis()
    }

    /// Finds where a request goes, by the newest table.
    pub(crate) fn route(&self, side: Side, host: &str, path: &str, headers: &HeaderMap) -> Result<Match, NoRoute> {
        self.refresh();
        let mut found = self.find(side, host, path, headers)?;
        // A mapped domain leads to another host of ours; four is more than any chain of names needs.
        for _ in 0..4 {
            let unknown = found.split().is_none_or(|split| split.target.is_none());
            let Some(next) = found.path().rewrite_name.as_deref().filter(|_| unknown) else { break };
            let next = next.to_owned();
            match self.find(Side::Local, &next, path, headers) {
                Ok(further) => found = further.by_mapping(),
                Err(_) => break,
            }
        }
        Ok(found)
    }

    fn find(&self, side: Side, host: &str, path: &str, headers: &HeaderMap) -> Result<Match, NoRoute> {
        let known = self.routes.borrow().of(side).get(host).cloned();
        let route = match known {
            Some(route) => route,
            None => self.prepare(side, host).ok_or(NoRoute::Host)?,
        };
        route.find(path, headers).ok_or(NoRoute::Path)
    }

    fn refresh(&self) {
        let generation = self.shared.generation();
        if self.routes.borrow().generation != generation {
            let (generation, table) = self.shared.table();
            let (external, local) = Default::default();
            self.routes.replace(Routes { generation, table, external, local });
        }
    }

    /// Prepares a host this thread has not met in the present table.
    fn prepare(&self, side: Side, host: &str) -> Option<Rc<HostRoute>> {
        let name = route::normalize(host);
        let table = self.routes.borrow().table.clone();
        let listed = match side {
            Side::External => table.external.get(&name).cloned(),
            Side::Local => table.local.get(&name).or_else(|| table.external.get(&name)).cloned().or_else(|| {
                let service = route::service_of(&name, &self.shared.config.cluster_domain)?;
                route::service_host(&table, service).map(Arc::new)
            }),
        }?;
        let mut target = |service: &Key| self.target(service, table.backends.get(service)?);
        let route = Rc::new(HostRoute::new(&listed, &mut target));
        let mut routes = self.routes.borrow_mut();
        let hosts = routes.of_mut(side);
        if hosts.len() >= MAX_HOSTS {
            hosts.clear();
        }
        hosts.insert(host.into(), route.clone());
        Some(route)
    }

    fn target(&self, service: &Key, backend: &Arc<Backend>) -> Option<Target> {
        let station = self.shared.station(service, backend)?;
        Some(Target { backend: backend.clone(), desk: self.desk(station) })
    }

    fn desk(&self, station: Arc<Station>) -> Rc<Desk> {
        let mut desks = self.desks.borrow_mut();
        desks.entry(station.id).or_insert_with(|| Rc::new(Desk::new(station, Instant::now()))).clone()
    }

    fn report(&self) -> Vec<Count> {
        let now = Instant::now();
        let period = now.saturating_duration_since(self.period_start.replace(now)).max(Duration::from_nanos(1));
        // Routes of an old table keep desks of revisions that are gone.
        self.refresh();
        let mut counts = Vec::new();
        self.desks.borrow_mut().retain(|_, desk| {
            let count = desk.collect(now, period.as_nanos() as f64);
            let quiet = count.is_none() && desk.is_quiet() && Rc::strong_count(desk) == 1;
            counts.extend(count);
            !quiet
        });
        counts
    }
}

impl Routes {
    fn of(&self, side: Side) -> &HashMap<Box<str>, Rc<HostRoute>> {
        match side {
            Side::External => &self.external,
            Side::Local => &self.local,
        }
    }

    fn of_mut(&mut self, side: Side) -> &mut HashMap<Box<str>, Rc<HostRoute>> {
        match side {
            Side::External => &mut self.external,
            Side::Local => &mut self.local,
        }
    }
}
