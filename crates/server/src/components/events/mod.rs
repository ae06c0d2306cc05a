//! The data plane of Eventing: its log, its socket, its Services in the API, and what an operator sees of it.

mod certificates;
mod event_types;
#[cfg(test)]
mod fake_api;
pub(crate) mod graph;
mod jobs;
mod operations;
mod senders;
mod tokens;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use knoll_api::metrics::MetricFamily;
use knoll_apiserver::auth::Pki;
use knoll_broker::{
    Adopted, Config, DataPlane, EventTypes, Here, Hooks, Ingress, Log, LogThread, Resolve, Sender, Topology, Transport,
    resolve_as_the_machine_does, serve, serve_tls, topology::Names,
};
use knoll_client::Client;
use knoll_container::protocol::GATEWAY;
use knoll_drive::EventLinks;
use knoll_journal::{Directory, events::EventOptions};
use knoll_node::network::dns::lookup;
use knoll_plan::Settings;
use nix::sys::statvfs::statvfs;
use tokio::{net::TcpListener, sync::watch};

use self::jobs::ApiJobs;
use self::tokens::tokens;
use super::{
    api::machine_addresses,
    objects::{self, EventPlaces},
    port_of,
};
use crate::{
    admin::Sources,
    failure::{Failure, chain},
    ports::EventPorts,
    supervise::{Stop, Tasks},
    up::open_files,
};

/// What the kernel draws anew at each start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Where pods ask for names.
const DNS: (std::net::Ipv4Addr, u16) = (GATEWAY, 53);
/// Of the files that the process may open, so much is for senders' connections, and as much for deliveries': one in so many.
const FILES_SHARE: u64 = 8;
/// The same of the disk, for the event log.
const DISK_SHARE: u64 = 4;
/// How long requests and deliveries under way may take, and then the log's thread to write what it was asked for, when the data
/// plane ends. Together less than the process waits for its tasks, 10 seconds.
const GRACE: Duration = Duration::from_secs(6);
const CLOSE: Duration = Duration::from_secs(2);

/// Keeps the certificates that Eventing presents valid until the tasks are told to stop: its Services', and those of pods that
/// are made for it.
pub(crate) fn keep_certificates(tasks: &mut Tasks, pki: Arc<Pki>, client: Client, names: &Names) {
    certificates::keep(tasks, pki, client, names);
}

/// The data plane as others see it: nothing while its log is not open.
#[derive(Clone, Default)]
pub(crate) struct Running {
    plane: Arc<Mutex<Option<DataPlane>>>,
    /// What of it answers senders.
    ingress: watch::Sender<Option<Ingress>>,
    event_types: Option<Arc<EventTypes>>,
}

impl Running {
    /// The data plane, while it runs.
    pub(crate) fn get(&self) -> Option<DataPlane> {
        self.plane.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What takes events in this process, while it does.
    fn here(&self) -> Here {
        self.ingress.subscribe()
    }

    fn set(&self, plane: Option<DataPlane>) {
        self.ingress.send_replace(plane.as_ref().map(DataPlane::ingress));
        *self.plane.lock().unwrap_or_else(PoisonError::into_inner) = plane;
    }

    /// Shows the data plane until what this returns is dropped.
    fn show(&self, plane: DataPlane) -> Shown<'_> {
        self.set(Some(plane));
        Shown(self)
    }

    /// Shows itself to an operator, and does what one asks.
    pub(crate) fn attend(self, sources: &mut Sources, names: Names) {
        let (counting, checked) = (self.clone(), self.clone());
        sources.metrics(move || counting.metrics());
        sources
            .check("events", move || checked.get().map(|_| ()).ok_or_else(|| "the event log is not open".to_owned()));
        sources
            .operate("events", move |operation| Box::pin(operations::operate(self.clone(), names.clone(), operation)));
    }

    fn metrics(&self) -> Vec<MetricFamily> {
        let mut families = self.get().map(|plane| plane.metrics()).unwrap_or_default();
        families.extend(self.event_types.iter().flat_map(|types| types.metrics()));
        families
    }
}

/// However a life of the data plane ends, nobody is handed it any more.
struct Shown<'a>(&'a Running);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// What every life of the data plane needs.
struct Parts {
    directory: PathBuf,
    snapshots: watch::Receiver<Option<Topology>>,
    adopted: Adopted,
    config: Config,
    sender: Sender,
    http: std::net::TcpListener,
    https: std::net::TcpListener,
    transport: Transport,
    client: Client,
    event_types: Arc<EventTypes>,
    running: Running,
    /// The log's, of the life that is or was last.
    thread: Mutex<Option<LogThread>>,
}

impl Parts {
    /// Waits until an earlier life's log is closed, so that nobody writes its files any more.
    async fn closed(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || thread.join()).await {
            tracing::warn!(error = chain(&error), "the event log closed with an error");
        }
    }
}

/// Attempts of deliveries at a time.
pub(super) fn max_attempts() -> usize {
    Config::default().max_attempts.min(files())
}

/// The part of the files that the process may open that is for senders' connections, and the same for deliveries'.
fn files() -> usize {
    usize::try_from(open_files() / FILES_SHARE).unwrap_or(usize::MAX).max(1)
}

/// The data plane's settings: who may say where events go is not trusted with the machine, and senders and deliveries leave
/// files for the rest of the process. At the machine's own addresses everybody may ask the gateway, on `open_ports`.
fn config(open_ports: Vec<u16>) -> Config {
    let default = Config::default();
    Config {
        loopback: false,
        gateway: Some(GATEWAY.into()),
        open_ports,
        max_connections: default.max_connections.min(files()),
        max_attempts: max_attempts(),
        grace: GRACE,
        ..default
    }
}

/// What sends events, all that this process sends: names of this domain are found as pods find them, and `client` asks for
/// tokens.
fn sender(config: &Config, domain: &str, client: Client, transport: Transport) -> Sender {
    let hooks = Hooks {
        resolve: resolve(domain),
        machine: Some(Arc::new(machine_addresses)),
        tokens: Some(tokens(client)),
        transport,
        ..Hooks::default()
    };
    Sender::new(config, hooks)
}

/// What addresses of brokers and channels are made of.
pub(crate) fn names(settings: &Settings) -> Names {
    Names {
        system_namespace: settings.eventing_namespace.as_str().into(),
        cluster_domain: settings.cluster_domain.as_str().into(),
    }
}

/// Where pods find these sockets of the gateway's address.
pub(crate) fn places(ports: &EventPorts) -> Result<EventPlaces, Failure> {
    Ok(EventPlaces { address: GATEWAY.into(), http: port_of(&ports.http)?, https: port_of(&ports.https)? })
}

/// Publishes the Services that brokers and channels are reached by, beside what else starts: nobody's first answer waits for
/// them.
pub(crate) fn publish(tasks: &mut Tasks, client: Client, at: EventPlaces) {
    tasks.restartable("the Services of brokers and channels", move || {
        let client = client.clone();
        async move { objects::publish_ingresses(&client, at).await.map_err(|e| chain(&e)) }
    });
}

/// Takes events from these sockets and delivers them, until the process ends. A log that fails is opened again: nothing
/// was acknowledged that it does not hold. `client` asks for tokens, and whose those of senders are, and makes Jobs. Of the
/// machine's own addresses `open_ports` may be sent to. The other end of the links is the control loop's, and the sender is for
/// whoever else sends events: what goes to brokers, channels and sinks of this process it hands over to them.
pub(crate) fn start(
    tasks: &mut Tasks,
    directory: PathBuf,
    names: &Names,
    client: Client,
    ports: EventPorts,
    open_ports: Vec<u16>,
) -> Result<(EventLinks, Running, Sender), Failure> {
    let (topology, snapshots) = watch::channel(None);
    let adopted = Adopted::default();
    let kept = |listener: TcpListener| listener.into_std().map_err(|e| Failure::io("hand a socket over", &e));
    let transport = Transport::new(names.clone());
    let event_types = event_types::make(tasks, client.clone());
    let running = Running { event_types: Some(event_types.clone()), ..Running::default() };
    let config = config(open_ports);
    let sender = sender(&config, &names.cluster_domain, client.clone(), transport.clone());
    let parts = Parts {
        directory,
        snapshots,
        adopted: adopted.clone(),
        config,
        sender: sender.clone(),
        http: kept(ports.http)?,
        https: kept(ports.https)?,
        transport: transport.clone(),
        client,
        event_types: event_types.clone(),
        running: running.clone(),
        thread: Mutex::default(),
    };
    let (parts, stop) = (Arc::new(parts), tasks.stop());
    tasks.restartable("events", move || live(parts.clone(), stop.clone()));
    let sender = sender.beside(running.here());
    Ok((EventLinks { topology, adopted, event_types, transport, names: names.clone() }, running, sender))
}

/// A life of the data plane. One that breaks off leaves its log to the next, which waits for the last of its writes.
async fn live(parts: Arc<Parts>, stop: Stop) -> Result<(), String> {
    tokio::select! {
        () = parts.closed() => {}
        () = stop.clone().wait() => return Ok(()),
    }
    let directory = parts.directory.clone();
    let opened = tokio::task::spawn_blocking(move || open(directory)).await.map_err(|e| chain(&e))?;
    let (log, thread) = opened?;
    *parts.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    let hooks = Hooks {
        authorize: Some(senders::authorize(parts.client.clone())),
        jobs: Some(Arc::new(ApiJobs::new(parts.client.clone()))),
        adopted: parts.adopted.clone(),
        taken: Some(parts.event_types.taken()),
        transport: parts.transport.clone(),
        sender: Some(parts.sender.clone()),
        ..Hooks::default()
    };
    let plane = DataPlane::new(log, parts.snapshots.clone(), parts.config.clone(), hooks).map_err(|e| chain(&e))?;
    let listen = |kept: &std::net::TcpListener| kept.try_clone().and_then(TcpListener::from_std).map_err(|e| chain(&e));
    let sockets = (listen(&parts.http)?, listen(&parts.https)?);
    let shown = parts.running.show(plane.clone());
    let ended = run(&plane, sockets, stop).await;
    drop((shown, plane));
    // What takes longer is waited for by the next life, or ends with the process.
    if tokio::time::timeout(CLOSE, parts.closed()).await.is_err() {
        tracing::warn!("the event log takes long to close");
    }
    ended
}

/// Takes events and delivers them until `stop`, and then what is under way, within the grace period: neither senders nor
/// subscribers are cut off because the others are through.
async fn run(plane: &DataPlane, (http, https): (TcpListener, TcpListener), stop: Stop) -> Result<(), String> {
    let plain = serve(plane.ingress(), http, Box::pin(stop.clone().wait()));
    let secure = serve_tls(plane.ingress(), https, Box::pin(stop.clone().wait()));
    let serving = async { tokio::join!(plain, secure) };
    let delivering = plane.deliver(Box::pin(stop.wait()));
    let (mut serving, mut delivering) = (pin!(serving), delivering);
    let delivered = tokio::select! {
        delivered = &mut delivering => {
            // Where the log has stopped nobody is answered any more.
            if delivered.is_ok() {
                serving.await;
            }
            delivered
        }
        ((), ()) = &mut serving => delivering.await,
    };
    delivered.map_err(|e| chain(&e))
}

/// Opens the log and tells what of it is damaged. Blocks.
fn open(directory: PathBuf) -> Result<(Log, LogThread), String> {
    let run = fs::read(BOOT_ID).unwrap_or_default();
    let disk = Directory::make(&directory).map_err(|e| chain(&e))?;
    let default = EventOptions::default();
    let budget_bytes = default.budget_bytes.min(capacity(&directory).map_err(|e| chain(&e))? / DISK_SHARE);
    let options = EventOptions { run, budget_bytes, ..default };
    let (log, thread, recovery) = Log::open(Arc::new(disk), options).map_err(|e| chain(&e))?;
    for damage in &recovery.damages {
        tracing::error!(?damage, "a place of the event log is no more what was written; the rest is served");
    }
    for lost in &recovery.lost {
        tracing::error!(?lost, "events are lost by it");
    }
    Ok((log, thread))
}

/// Bytes of the disk that a directory is on.
fn capacity(directory: &Path) -> io::Result<u64> {
    let disk = statvfs(directory)?;
    Ok(disk.blocks() * disk.fragment_size())
}

/// Finds names inside the cluster as pods do, and others as the machine does.
fn resolve(domain: &str) -> Resolve {
    let (outside, suffix) = (resolve_as_the_machine_does(), format!(".{domain}"));
    Arc::new(move |host| {
        if !is_inside(&host, &suffix) {
            return outside(host);
        }
        Box::pin(async move {
            let found: io::Result<Vec<_>> = lookup(DNS.into(), &host).await;
            Ok(found?.into_iter().map(|address| SocketAddr::new(address, 0)).collect())
        })
    })
}

fn is_inside(host: &str, suffix: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.len() > suffix.len() && host.is_char_boundary(host.len() - suffix.len()) && {
        host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use bytes::Bytes;
    use http::{Request, Response, StatusCode};
    use http_body_util::{BodyExt, Full};
    use hyper::{body::Incoming, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use knoll_broker::{
        Start,
        delivery::Destination,
        topology::{Addressable, Kind, Name, Subscriber, Subscription},
    };
    use tokio::{task::JoinHandle, time::sleep};

    use super::*;

    async fn until(what: &str, holds: impl Fn() -> bool) {
        let holds = async {
            while !holds() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), holds).await.unwrap_or_else(|_| panic!("waited for {what}"));
    }

    /// A sink that takes a while over each request: its address, and how many there were.
    async fn slow_sink() -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, requests) = (listener.local_addr().expect("an address"), Arc::new(AtomicUsize::new(0)));
        let counted = requests.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counted = counted.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let counted = counted.clone();
                    async move {
                        drop(request.into_body().collect().await);
                        counted.fetch_add(1, Relaxed);
                        sleep(Duration::from_millis(200)).await;
                        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        (address, requests)
    }

    fn broker() -> Name {
        Name::new(Kind::Broker, "ns", "b")
    }

    async fn post(plane: &DataPlane, id: &str) -> StatusCode {
        let address = Topology::default().address(&broker()).expect("an address");
        let event = [("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "/s"), ("ce-type", "t")];
        let request =
            event.into_iter().fold(Request::post(address), |request, (name, value)| request.header(name, value));
        plane.ingress().answer(request.body(Full::<Bytes>::default()).expect("a request")).await.status()
    }

    async fn bound() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.expect("a port")
    }

    struct Life {
        plane: DataPlane,
        thread: LogThread,
        tasks: Tasks,
        running: JoinHandle<Result<(), String>>,
    }

    impl Life {
        async fn begin(directory: &Path, topology: &watch::Sender<Option<Topology>>) -> Self {
            let (log, thread) = open(directory.to_owned()).expect("opens");
            let plane = DataPlane::new(log, topology.subscribe(), Config::default(), Hooks::default()).expect("starts");
            let sockets = (bound().await, bound().await);
            let (tasks, running) = (Tasks::new(), plane.clone());
            let stop = tasks.stop();
            let running = tokio::spawn(async move { run(&running, sockets, stop).await });
            until("the trigger", || plane.status("t").is_some()).await;
            Self { plane, thread, tasks, running }
        }

        async fn stop(self) {
            self.tasks.leave(Duration::ZERO).await;
            self.running.await.expect("no panic").expect("no failure");
            drop(self.plane);
            let joined = tokio::task::spawn_blocking(|| self.thread.join()).await;
            joined.expect("no panic").expect("closes");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stop_lets_deliveries_under_way_end_and_they_do_not_come_again() {
        let (directory, (sink, requests)) = (tempfile::tempdir().expect("a directory"), slow_sink().await);
        let to = Subscriber::At(Destination::new(format!("http://{sink}/").parse().expect("a URI")));
        let trigger = Subscription::new("ns", "t", "t", to);
        let topology = Topology::default().with(Addressable::new(broker(), "uid", None, vec![trigger]));
        let topology = watch::Sender::new(Some(topology));
        let life = Life::begin(directory.path(), &topology).await;
        assert_eq!(post(&life.plane, "1").await, StatusCode::ACCEPTED);
        until("a delivery is under way", || requests.load(Relaxed) == 1).await;
        life.stop().await;
        let life = Life::begin(directory.path(), &topology).await;
        assert_eq!(post(&life.plane, "2").await, StatusCode::ACCEPTED);
        let plane = life.plane.clone();
        until("all is delivered", || {
            plane.status("t").is_some_and(|status| status.lag == 0) && requests.load(Relaxed) >= 2
        })
        .await;
        drop(plane);
        life.stop().await;
        assert_eq!(requests.load(Relaxed), 2);
    }

    #[test]
    fn the_cluster_is_asked_for_its_own_names_only() {
        for (host, inside) in [
            ("app.default.svc.cluster.local", true),
            ("App.default.svc.Cluster.Local.", true),
            ("cluster.local", false),
            ("notcluster.local", false),
            ("example.com", false),
            ("éé.example", false),
        ] {
            assert_eq!(is_inside(host, ".cluster.local"), inside, "{host}");
        }
    }

    /// What a life of the data plane needs, in this directory.
    async fn parts(directory: &Path, topology: Topology) -> (Arc<Parts>, watch::Sender<Option<Topology>>) {
        let topology = watch::Sender::new(Some(topology));
        let nobody = Client::new(|_| async { Ok::<_, Infallible>(Response::new(knoll_client::whole(""))) });
        let socket = async || bound().await.into_std().expect("a socket");
        let parts = Parts {
            directory: directory.to_owned(),
            snapshots: topology.subscribe(),
            adopted: Adopted::default(),
            config: config(Vec::new()),
            sender: Sender::new(&config(Vec::new()), Hooks::default()),
            http: socket().await,
            https: socket().await,
            transport: Transport::default(),
            client: nobody,
            event_types: EventTypes::new().0,
            running: Running::default(),
            thread: Mutex::default(),
        };
        (Arc::new(parts), topology)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_life_that_breaks_off_under_load_hands_its_log_over_to_the_next() {
        let directory = tempfile::tempdir().expect("a directory");
        let topology = Topology::default().with(Addressable::new(broker(), "uid", None, Vec::new()));
        let (parts, _topology) = parts(directory.path(), topology).await;
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let senders: Vec<JoinHandle<()>> = (0..8)
            .map(|sender| {
                let (running, accepted) = (parts.running.clone(), accepted.clone());
                tokio::spawn(async move {
                    for number in 0..u64::MAX {
                        let Some(plane) = running.get() else {
                            sleep(Duration::from_millis(1)).await;
                            continue;
                        };
                        let id = format!("{sender}-{number}");
                        if post(&plane, &id).await == StatusCode::ACCEPTED {
                            accepted.lock().expect("no panic").push(id);
                        }
                    }
                })
            })
            .collect();
        let count = || accepted.lock().expect("no panic").len();
        let tasks = Tasks::new();
        for _ in 0..5 {
            let life = tokio::spawn(live(parts.clone(), tasks.stop()));
            let before = count();
            until("events are taken", || count() > before + 50 || life.is_finished()).await;
            // As a panic ends it: everything that it has is dropped.
            life.abort();
            let ended = life.await;
            assert!(ended.as_ref().is_err_and(tokio::task::JoinError::is_cancelled), "{ended:?}");
            assert!(parts.running.get().is_none(), "nobody is handed what has ended");
        }
        senders.iter().for_each(JoinHandle::abort);
        for sender in senders {
            drop(sender.await);
        }
        let life = tokio::spawn(live(parts.clone(), tasks.stop()));
        until("it runs again", || parts.running.get().is_some()).await;
        let plane = parts.running.get().expect("it runs");
        until("the broker", || plane.addressables(None, None, 2).len() == 1).await;
        let (mut kept, mut next) = (BTreeSet::new(), 0);
        loop {
            let page = plane.history(&broker(), Start::Offset(next), 1000).await.expect("is read");
            kept.extend(page.events.into_iter().map(|kept| kept.event.id().to_owned()));
            if page.next == next {
                break;
            }
            next = page.next;
        }
        let accepted = accepted.lock().expect("no panic").clone();
        assert!(accepted.iter().all(|id| kept.contains(id)), "of {} accepted {} are kept", accepted.len(), kept.len());
        drop(plane);
        tasks.leave(Duration::ZERO).await;
        life.await.expect("no panic").expect("no failure");
    }
}
