//! The node's settings, the machine's side of the pods' network, and whom the node tells of its instances.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use knoll_api::{
    Key,
    labels::serving,
    table::{Instance, RoutingTable},
};
use knoll_client::rush::Rush;
use knoll_container::{
    network::{self, HostNetwork},
    protocol::GATEWAY,
};
use knoll_node::{Callbacks, InstanceEvent};
use tokio::sync::watch;

use super::{
    PODS, SERVICES, docker_config,
    monitor::{Finder, VETHS},
    proxies, system,
};
use crate::{
    failure::{Failure, chain},
    links::instances::Hints,
    paths::{Paths, RUNTIME},
};

/// The name of our nftables table.
const TABLE: &str = "knoll";

/// The machine's side of the pods' network.
pub(crate) fn network_config() -> network::Config {
    network::Config { table: TABLE.into(), pods: PODS, services: SERVICES, gateway: GATEWAY, veth_prefix: VETHS.into() }
}

/// Makes the machine's side of the pods' network, or finds it.
pub(crate) async fn set_network_up() -> Result<HostNetwork, Failure> {
    let network = tokio::task::spawn_blocking(|| network::setup(network_config()));
    network.await.map_err(system)?.map_err(system)
}

/// Ends the containers, and takes the machine's side of the pods' network down.
pub(crate) async fn take_down(finder: &Finder) {
    finder.end().await;
    let torn = tokio::task::spawn_blocking(|| network::teardown(&network_config())).await;
    if let Ok(Err(error)) = torn {
        tracing::warn!(error = chain(&error), "take the network down");
    }
}

/// The settings of the node of this name; `address` is the machine's for others, where it has one.
pub(crate) fn config(name: &str, address: Option<Ipv4Addr>, paths: &Paths) -> knoll_node::Config {
    let address = address.filter(|address| !address.is_unspecified() && !address.is_loopback());
    let runtime = PathBuf::from(RUNTIME).join("node");
    let mut config = knoll_node::Config::new(name, address.unwrap_or(GATEWAY), paths.node(), runtime);
    config.pod_network = PODS;
    config.docker_config = docker_config();
    config.containers_dir = Some(paths.monitor().state_dir.join("containers"));
    config.extra_env = proxies::for_containers(|name| std::env::var(name).ok());
    config
}

/// Whom the node tells of its instances, and what it asks for beside the API.
pub(crate) fn callbacks(
    gateway: Hints,
    table: watch::Receiver<Option<Arc<RoutingTable>>>,
    finder: Finder,
    network: HostNetwork,
    rush: Rush,
) -> Callbacks {
    let (network, over) = (Mutex::new(network), rush.clone());
    let draining = gateway.clone();
    Callbacks {
        drained: Arc::new(move |event| {
            let (revision, instance) = instance_of(&event)?;
            let gateway = draining.clone();
            Some(Box::pin(async move { gateway.drained(&revision, &instance).await }))
        }),
        on_instance: Arc::new(move |event| tell(&gateway, &over, &event)),
        rush,
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
fn serves(table: &RoutingTable, host: &str, namespace: &str) -> bool {
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

/// Tells the gateway of an instance; with the first one nobody waits for the revision any more.
fn tell(gateway: &Hints, rush: &Rush, event: &InstanceEvent) {
    match instance_of(event) {
        Some((revision, instance)) if event.up => {
            let name = revision.to_string();
            gateway.up(revision, instance);
            rush.end(&name);
        }
        Some((revision, instance)) => gateway.down(&revision, &instance),
        None => {}
    }
}
