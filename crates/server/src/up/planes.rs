//! Assembly: the parts of an instance, started in the order they need each other, stopped in the reverse.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use knoll_api::{
    Key,
    labels::serving,
    metrics::{Metric, MetricKind},
    table::{Instance, Table},
};
use knoll_apiserver::{
    ApiServer, Identity,
    auth::{CONTROLLER, LocalAuthority, Pki, TokenKey, node_identity},
    authority::Authority,
};
use knoll_cli::{Exit, UpArguments};
use knoll_container::{
    network::{self, HostNetwork},
    protocol::GATEWAY,
};
use knoll_drive::{Counters, Inspect, Links, Role};
use knoll_node::{Callbacks, InstanceEvent, Node};
use knoll_plan::{Gateway as GatewayPlace, Settings};
use knoll_proxy::{EndpointHints, EndpointPoolView, EndpointView, Gateway, Visibility};
use knoll_store::Store;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch};

use super::{
    backend::Backend,
    monitor::Finder,
    objects::{self, Places},
    proxies, registry,
    resolver::Resolver,
};
use crate::{
    admin::{Admin, Sources},
    failure::{Failure, chain},
    paths::{Paths, RUNTIME},
    ports::{PodPorts, Ports},
    store,
    supervise::{Restarts, Tasks},
};

/// Addresses of pods.
pub(super) const PODS: (std::net::Ipv4Addr, u8) = (std::net::Ipv4Addr::new(10, 244, 0, 0), 16);
/// Addresses of Services.
pub(super) const SERVICES: (std::net::Ipv4Addr, u8) = (std::net::Ipv4Addr::new(10, 96, 0, 0), 12);
/// The name of our nftables table.
const TABLE: &str = "knoll";

/// The parts that are stopped in an order.
pub(crate) struct Planes {
    store: Store,
    gateway: Gateway,
    finder: Finder,
}

/// The machine's side of the pods' network.
pub(crate) fn network_config() -> network::Config {
    network::Config {
        table: TABLE.into(),
        pods: PODS,
        services: SERVICES,
        gateway: GATEWAY,
        cables: super::monitor::CABLES.into(),
    }
}

fn system<E: std::error::Error + 'static>(error: E) -> Failure {
    Failure::new(Exit::System, &error)
}

/// Where the machine keeps its own registry credentials.
pub(crate) fn docker_config() -> Option<PathBuf> {
    let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    Some(directory.or_else(home)?.join("config.json"))
}

impl Planes {
    pub(crate) async fn start(
        arguments: &UpArguments,
        paths: &Paths,
        mut ports: Ports,
        pki: &Pki,
        certificate: Arc<rustls::ServerConfig>,
        admin: &Admin,
        tasks: &mut Tasks,
    ) -> Result<Self, Failure> {
        let (http_port, api_port) = (ports.http_port(), port_of(&ports.api)?);
        let registry_port = port_of(&ports.registry)?;
        let outside = ports.http_addresses().first().copied().unwrap_or(SocketAddr::from(([127, 0, 0, 1], http_port)));

        // The store is read and the network set up while the monitor starts.
        let finder = Finder::new(paths, PODS, arguments.sandbox_pool)?;
        let connecting = tokio::spawn({
            let finder = finder.clone();
            async move { finder.connect().await }
        });
        let network = tokio::task::spawn_blocking(|| network::setup(network_config()));
        let network = network.await.map_err(system)?.map_err(system)?;
        let pod_ports = PodPorts::bind(&mut ports.kept, api_port, registry_port)?;
        let store = open_store(paths)?;
        let images = registry::open_images(arguments, paths, registry_port)?;

        let backend = Backend::default();
        let authority = authority(&store, pki)?;
        let advertise = SocketAddr::from((GATEWAY, api_port));
        let server = api_server(&store, pki, authority.clone(), &backend, advertise);
        server.bootstrap().await.map_err(system)?;

        let api_counters = server.counters().clone();
        let (tending, stop) = (server.clone(), tasks.stop());
        tasks.critical("tending", async move { tending.tend(stop.wait()).await.map_err(|e| chain(&e)) });
        let (roles, stop) = (server.clone(), tasks.stop());
        tasks.restartable("role aggregation", move || {
            let (roles, stop) = (roles.clone(), stop.clone());
            async move { roles.aggregate_roles(stop.wait()).await.map_err(|e| chain(&e)) }
        });

        let (table_in, table) = watch::channel(None);
        let proxy_config =
            knoll_proxy::Config { trusted_hops: arguments.trusted_hops, ..knoll_proxy::Config::default() };
        let (gateway, feeds) = Gateway::new(proxy_config, table.clone()).map_err(system)?;

        let place = GatewayPlace { address: GATEWAY.into(), local_port: 80, http_port, ..Settings::default().gateway };
        let controller = Identity::service_account(knoll_api::labels::SYSTEM_NAMESPACE, CONTROLLER);
        let controllers = server.client(controller);
        let places = Places {
            outside,
            public: SocketAddr::from((GATEWAY, port_of(&pod_ports.outside)?)),
            local: SocketAddr::from((GATEWAY, 80)),
        };
        objects::publish_gateway(&controllers, &place, &places).await.map_err(system)?;
        let settings = Settings {
            cluster_ca: pki.ca_pem().to_owned(),
            default_domain: arguments.domain.clone(),
            node_name: arguments.node_name.clone(),
            gateway: place,
            ..Settings::default()
        };
        let resolver = Resolver { images: images.clone(), client: controllers.clone(), docker_config: docker_config() };
        let (counters, inspect) = (Arc::new(Counters::default()), Inspect::default());
        let links = Links {
            table: table_in,
            applied: gateway.applied(),
            stats: feeds.stats,
            wakes: feeds.wakes,
            resolver: Arc::new(resolver),
            counters: counters.clone(),
            inspect: inspect.clone(),
        };
        let stop = tasks.stop();
        tasks.critical("controllers", async move {
            knoll_drive::run(controllers, Role::everything(settings), links, stop.wait()).await.map_err(|e| chain(&e))
        });

        let monitor = connecting.await.map_err(system)?.map_err(system)?;
        ports.kept.hand_over(&monitor).await.map_err(system)?;
        let node = Node::new(
            node_config(arguments, paths),
            server.client(node_identity(&arguments.node_name)),
            monitor,
            images.clone(),
            callbacks(gateway.hints(), table, finder.clone(), network),
        )
        .map_err(system)?;
        backend.set(node.clone());
        let counted = node.clone();
        let stop = tasks.stop();
        tasks.critical("node", async move { node.run(stop.channel()).await.map_err(|e| chain(&e)) });

        for listener in ports.http.into_iter().chain([pod_ports.outside]) {
            gateway.serve(blocking(listener)?, Visibility::External).map_err(system)?;
        }
        gateway.serve(blocking(pod_ports.http)?, Visibility::ClusterLocal).map_err(system)?;
        for listener in [ports.api, pod_ports.api] {
            let (server, certificate, stop) = (server.clone(), certificate.clone(), tasks.stop());
            tasks.critical("API server", async move {
                server.serve_tls(listener, certificate, stop.wait()).await;
                Ok(())
            });
        }
        let sockets = registry::Sockets { machine: ports.registry, pods: pod_ports.registry };
        let image_registry = registry::serve(tasks, arguments, paths, &images, authority.clone(), sockets)?;
        let mut sources = sources(counters, inspect, &gateway, tasks.restarts());
        store::tell(&store, &mut sources);
        sources.metrics(move || counted.counts().metrics());
        sources.metrics(move || api_counters.metrics());
        sources.metrics(move || registry::metrics(image_registry.counts()));
        admin.attend(sources, authority);
        Ok(Self { store, gateway, finder })
    }

    /// Stops: no new requests, those under way finish, then everything else, the store last.
    pub(crate) async fn stop(self, tasks: Tasks, everything: bool, drain: Duration) {
        let drained = self.gateway.shutdown(drain).await;
        tracing::info!(?drained, "the gateway has stopped");
        tasks.leave(Duration::from_secs(10)).await;
        if everything {
            self.finder.end().await;
            let torn = tokio::task::spawn_blocking(|| network::teardown(&network_config())).await;
            if let Ok(Err(error)) = torn {
                tracing::warn!(error = chain(&error), "take the network down");
            }
        }
        self.store.close().await;
    }
}

/// What the admin endpoint reads.
fn sources(counters: Arc<Counters>, inspect: Inspect, gateway: &Gateway, restarts: Restarts) -> Sources {
    let mut sources = Sources::default();
    let (numbers, pools, table) = (gateway.hints(), gateway.hints(), gateway.applied());
    sources.metrics(move || numbers.metrics());
    let counted = counters.clone();
    sources.metrics(move || counters.read().metrics());
    let loops = inspect.clone();
    sources.metrics(move || loops.metrics());
    sources.dump("controllers", move || inspect.dump());
    sources.metrics(move || {
        let each = restarts.read().map(|(task, count)| (task.to_owned(), count));
        vec![Metric::by("task_restarts", "Tasks started again after a failure", MetricKind::Counter, "task", each)]
    });
    sources.check("controllers", move || match counted.read().published {
        0 => Err("the gateway has no table yet".to_owned()),
        _ => Ok(()),
    });
    sources.dump("endpoint_pools", move || pools.endpoint_pools().iter().map(shown).collect());
    sources.dump("hosts", move || {
        let table = table.borrow().clone().unwrap_or_default();
        json!({
            "external": table.external.keys().collect::<Vec<_>>(),
            "local": table.local.keys().collect::<Vec<_>>(),
        })
    });
    sources
}

/// An endpoint pool of the gateway, as the admin endpoint shows it.
fn shown(pool: &EndpointPoolView) -> serde_json::Value {
    let endpoint = |endpoint: &EndpointView| {
        json!({
            "address": endpoint.instance.address.to_string(),
            "pod": endpoint.instance.pod,
            "inFlight": endpoint.in_flight,
            "suspect": endpoint.suspect,
        })
    };
    json!({
        "key": pool.key.to_string(),
        "limit": pool.limit,
        "waiting": pool.waiting,
        "called": pool.called,
        "failure": pool.failure,
        "endpoints": pool.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

fn port_of(listener: &TcpListener) -> Result<u16, Failure> {
    listener.local_addr().map(|address| address.port()).map_err(|e| Failure::io("find the address of a socket", &e))
}

fn blocking(listener: TcpListener) -> Result<std::net::TcpListener, Failure> {
    listener.into_std().map_err(|e| Failure::io("hand a socket over", &e))
}

fn open_store(paths: &Paths) -> Result<Store, Failure> {
    Store::open(&paths.store(), knoll_store::Options::default())
        .map_err(|error| Failure::new(store::exit_of(&error), &error))
}

fn authority(store: &Store, pki: &Pki) -> Result<Arc<dyn Authority>, Failure> {
    let key = pki.token_key_pem().map_err(system)?;
    let issuer = "https://kubernetes.default.svc.cluster.local";
    let tokens = TokenKey::from_pem(&key, issuer).map_err(system)?;
    Ok(Arc::new(LocalAuthority::new(store.clone(), tokens, Timestamp::now).with_clients(pki.clients())))
}

fn api_server(
    store: &Store,
    pki: &Pki,
    authority: Arc<dyn Authority>,
    backend: &Backend,
    advertise: SocketAddr,
) -> Arc<ApiServer> {
    let config = knoll_apiserver::Config {
        authority,
        node: Arc::new(backend.clone()),
        root_ca: pki.ca_pem().to_owned(),
        advertise,
        machine: Arc::new(super::machine_addresses),
        pod_network: PODS,
    };
    ApiServer::new(store.clone(), config)
}

fn node_config(arguments: &UpArguments, paths: &Paths) -> knoll_node::Config {
    let address = match arguments.api_addr.ip() {
        IpAddr::V4(address) if !address.is_unspecified() && !address.is_loopback() => address,
        _ => GATEWAY,
    };
    let runtime = PathBuf::from(RUNTIME).join("node");
    let mut config = knoll_node::Config::new(&arguments.node_name, address, paths.node(), runtime);
    config.pod_network = PODS;
    config.docker_config = docker_config();
    config.containers_dir = Some(paths.monitor().state_dir.join("containers"));
    config.extra_env = proxies::for_containers(|name| std::env::var(name).ok());
    config
}

fn callbacks(
    gateway: EndpointHints,
    table: watch::Receiver<Option<Arc<Table>>>,
    finder: Finder,
    network: HostNetwork,
) -> Callbacks {
    let network = Mutex::new(network);
    let draining = gateway.clone();
    Callbacks {
        drained: Arc::new(move |event| {
            let (revision, instance) = instance_of(&event)?;
            let gateway = draining.clone();
            Some(Box::pin(async move { gateway.drained(&revision, &instance).await }))
        }),
        on_instance: Arc::new(move |event| tell(&gateway, &event)),
        change_services: Arc::new(move |changes| {
            let mut network = network.lock().unwrap_or_else(PoisonError::into_inner);
            network.change_services(&changes).map_err(|e| chain(&e))
        }),
        reconnect: Arc::new(move || {
            let finder = finder.clone();
            Box::pin(async move { finder.connect().await })
        }),
        gateway_serves: Arc::new(move |host, namespace| {
            table.borrow().as_ref().is_some_and(|table| serves(table, host, namespace))
        }),
    }
}

/// Whether a host inside the cluster is served by Services of a namespace alone: whoever has the gateway serve a host
/// of another namespace gets no requests of others by its name.
fn serves(table: &Table, host: &str, namespace: &str) -> bool {
    let host = table.local.get(host);
    host.is_some_and(|host| host.paths.iter().flat_map(|path| &path.splits).all(|s| s.service.namespace == namespace))
}

/// The revision and the instance that an event is about, if its pod belongs to a revision.
fn instance_of(event: &InstanceEvent) -> Option<(Key, Instance)> {
    let revision = event.pod.metadata.labels.as_ref()?.get(serving::REVISION)?;
    let port = u16::try_from(knoll_plan::user_port(&event.pod)?).ok()?;
    let pod = Key::of(&event.pod.metadata);
    let revision = pod.sibling(revision);
    Some((revision, Instance { address: SocketAddr::new(event.address, port), pod: pod.name }))
}

/// Tells the gateway of an instance.
fn tell(gateway: &EndpointHints, event: &InstanceEvent) {
    match instance_of(event) {
        Some((revision, instance)) if event.up => gateway.instance_up(revision, instance),
        Some((revision, instance)) => gateway.instance_down(&revision, &instance),
        None => {}
    }
}
