//! Assembly: every component in one process, started in the order they need each other, stopped in the reverse.

use std::{net::IpAddr, sync::Arc, time::Duration};

use knoll_apiserver::{
    UserInfo,
    auth::{CONTROLLER, Pki, node_user},
};
use knoll_cli::UpArguments;
use knoll_client::rush::Rush;
use knoll_drive::{Counters, Inspect, Links, Role};
use knoll_node::Node;
use knoll_plan::Settings;
use knoll_proxy::Gateway;
use knoll_sources::Clients;
use knoll_store::Store;
use tokio::sync::watch;

use crate::{
    admin::Admin,
    components::{
        PODS, api::Api, docker_config, events, gateway, local_node::LocalNode, monitor::Finder, node, port_of,
        registry, resolver::Resolver, sources, system,
    },
    failure::{Failure, chain},
    kept::Kept,
    links::instances::Hints,
    paths::Paths,
    ports::{self, ApiPorts, EventPorts, PodAddress, PodApiPorts, PodGatewayPorts},
    store,
    supervise::Tasks,
    up::open_files,
};

/// The sockets of an instance.
pub(crate) struct Ports {
    pub(crate) api: ApiPorts,
    /// The gateway for the outside; the first is the one URLs speak of.
    pub(crate) http: Vec<tokio::net::TcpListener>,
    /// What an earlier instance left, and what this one leaves.
    pub(crate) kept: Kept,
}

/// The components that are stopped in an order.
pub(crate) struct Planes {
    store: Store,
    gateway: Gateway,
    finder: Finder,
}

impl Planes {
    pub(crate) async fn start(
        arguments: &UpArguments,
        paths: &Paths,
        mut ports: Ports,
        pki: &Arc<Pki>,
        certificate: Arc<rustls::ServerConfig>,
        admin: &Admin,
        tasks: &mut Tasks,
    ) -> Result<Self, Failure> {
        let outside = ports::addresses(&ports.http);
        let http_port = outside.first().map_or(80, std::net::SocketAddr::port);
        let (api_port, registry_port) = (port_of(&ports.api.api)?, port_of(&ports.api.registry)?);

        // The store is read and the network set up while the monitor starts.
        let finder = Finder::new(paths, PODS, arguments.sandbox_pool)?;
        let connecting = tokio::spawn({
            let finder = finder.clone();
            async move { finder.connect().await }
        });
        let network = node::set_network_up().await?;
        tracing::debug!("the pods' network is set up");
        let pods_api = PodApiPorts::bind(PodAddress::Present, &mut ports.kept, api_port, registry_port)?;
        let pods_gateway = PodGatewayPorts::bind(PodAddress::Present, &mut ports.kept)?;
        let event_ports = EventPorts::bind(PodAddress::Present, &mut ports.kept)?;
        let backend = LocalNode::default();
        let api = Api::start(paths, pki, Arc::new(backend.clone()), api_port, tasks).await?;
        tracing::debug!("the store is read");
        let images = registry::open_images(&arguments.images, paths, registry_port)?;

        let (table_in, table) = watch::channel(None);
        let trusted_hops = arguments.gateway.trusted_hops;
        let proxy_config = knoll_proxy::Config { trusted_hops, ..knoll_proxy::Config::within(open_files()) };
        let (gateway, feeds) = Gateway::new(proxy_config, table.clone()).map_err(system)?;

        let controller = UserInfo::service_account(knoll_api::labels::SYSTEM_NAMESPACE, CONTROLLER);
        let controllers = api.server.client(controller);
        gateway::publish(&controllers, &gateway::places(&outside, &pods_gateway)?).await.map_err(system)?;
        events::publish(tasks, controllers.clone(), events::places(&event_ports)?);
        tracing::debug!("the gateway is published");
        let settings = Settings {
            cluster_ca: pki.ca_pem().to_owned(),
            default_domain: arguments.domain.clone(),
            node_name: arguments.node.node_name.clone(),
            gateway: gateway::place(http_port),
            ..Settings::default()
        };
        let resolver = Resolver { images: images.clone(), client: controllers.clone(), docker_config: docker_config() };
        let (counters, inspect) = (Arc::new(Counters::default()), Inspect::default());
        let rush = Rush::default();
        let event_names = events::names(&settings);
        events::keep_certificates(tasks, pki.clone(), controllers.clone(), &event_names);
        let open_ports: Vec<u16> = outside.iter().map(std::net::SocketAddr::port).collect();
        let (event_links, events, sender) =
            events::start(tasks, paths.events(), &event_names, controllers.clone(), event_ports, open_ports)?;
        let accounts = api.server.clone();
        let clients: Clients = Arc::new(move |namespace, name| {
            let client = accounts.bounded_client(UserInfo::service_account(&namespace, &name));
            Box::pin(async move { Ok(client) })
        });
        let (source_links, adapters) = sources::start(tasks, sender, Some(clients))?;
        let links = Links {
            table: table_in,
            applied: gateway.applied(),
            stats: feeds.stats,
            wakes: feeds.wakes,
            events: Some(event_links),
            sources: Some(source_links),
            rush: rush.clone(),
            resolver: Some(Arc::new(resolver)),
            counters: counters.clone(),
            inspect: inspect.clone(),
            clocks: knoll_drive::clocks(),
        };
        let stop = tasks.stop();
        tasks.critical("controllers", async move {
            knoll_drive::run(controllers, Role::everything(settings), links, stop.wait()).await.map_err(|e| chain(&e))
        });

        let monitor = connecting.await.map_err(system)?.map_err(system)?;
        tracing::debug!("the monitor runs");
        finder.keep(ports.kept.wanted(), &monitor).await.map_err(system)?;
        let address = match arguments.api.api_addr.ip() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        };
        let name = &arguments.node.node_name;
        let node = Node::new(
            node::config(name, address, paths),
            api.server.client(node_user(name)),
            monitor,
            images.clone(),
            node::callbacks(Hints::Here(gateway.hints()), table, finder.clone(), network, rush),
        )
        .map_err(system)?;
        backend.set(node.clone());
        let counted = node.clone();
        let stop = tasks.stop();
        tasks.critical("node", async move { node.run(stop.channel()).await.map_err(|e| chain(&e)) });

        tracing::debug!("clients are answered");
        gateway::serve(&gateway, ports.http, pods_gateway)?;
        api.serve([ports.api.api, pods_api.api], &certificate, tasks);
        let sockets = registry::Sockets { machine: ports.api.registry, pods: pods_api.registry };
        let names = &arguments.api.api_names;
        let image_registry = registry::serve(tasks, names, paths, &images, api.authority.clone(), sockets)?;
        let mut sources = gateway::sources(counters, inspect, &gateway, tasks.restarts());
        store::tell(&api.store, &mut sources);
        sources.metrics(move || counted.counts().metrics());
        events.attend(&mut sources, event_names);
        sources::attend(adapters, &mut sources);
        let api_counters = api.server.counters().clone();
        sources.metrics(move || api_counters.metrics());
        sources.metrics(move || registry::metrics(image_registry.counts()));
        admin.attend(sources);
        admin.obey(api.authority);
        Ok(Self { store: api.store, gateway, finder })
    }

    /// Stops: no new requests, those under way finish, then everything else, the store last.
    pub(crate) async fn stop(self, tasks: Tasks, everything: bool, drain: Duration) {
        let drained = self.gateway.shutdown(drain).await;
        tracing::info!(?drained, "the gateway has stopped");
        tasks.leave(Duration::from_secs(10)).await;
        if everything {
            node::take_down(&self.finder).await;
        }
        self.store.close().await;
    }
}
