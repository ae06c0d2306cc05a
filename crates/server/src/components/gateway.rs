//! The gateway's sockets, its Services in the API, and what an operator sees of it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use knoll_api::metrics::{MetricFamily, MetricKind};
use knoll_client::Client;
use knoll_container::protocol::GATEWAY;
use knoll_drive::{Counters, Inspect};
use knoll_plan::{GatewayAddresses, Settings};
use knoll_proxy::{EndpointPoolView, EndpointView, Gateway, Visibility};
use serde_json::json;
use tokio::net::TcpListener;

use super::{
    events,
    objects::{self, Places},
    port_of, system,
};
use crate::{admin::Sources, failure::Failure, ports::PodGatewayPorts, supervise::Restarts};

/// Where pods and, by URLs, others find the gateway of this machine.
pub(crate) fn place(http_port: u16) -> GatewayAddresses {
    GatewayAddresses { address: GATEWAY.into(), local_port: 80, http_port, ..Settings::default().gateway }
}

/// Where the gateway is that listens on these.
pub(crate) fn places(outside: &[SocketAddr], pods: &PodGatewayPorts) -> Result<Places, Failure> {
    let public = SocketAddr::from((GATEWAY, port_of(&pods.outside)?));
    let outside = outside.first().copied().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
    Ok(Places { outside, public, local: SocketAddr::from((GATEWAY, 80)) })
}

/// Publishes the gateway in the API.
pub(crate) async fn publish(client: &Client, places: &Places) -> knoll_client::Result<()> {
    objects::publish_gateway(client, &place(places.outside.port()), places).await
}

/// Answers clients of these sockets.
pub(crate) fn serve(gateway: &Gateway, outside: Vec<TcpListener>, pods: PodGatewayPorts) -> Result<(), Failure> {
    for listener in outside.into_iter().chain([pods.outside]) {
        gateway.serve(blocking(listener)?, Visibility::External).map_err(system)?;
    }
    gateway.serve(blocking(pods.http)?, Visibility::ClusterLocal).map_err(system)
}

fn blocking(listener: TcpListener) -> Result<std::net::TcpListener, Failure> {
    listener.into_std().map_err(|e| Failure::io("hand a socket over", &e))
}

/// What the admin endpoint reads of a loop of controllers and of the tasks of its process.
pub(crate) fn loop_sources(counters: Arc<Counters>, inspect: Inspect, restarts: Restarts) -> Sources {
    let mut sources = Sources::default();
    sources.metrics(move || counters.read().metrics());
    let loops = inspect.clone();
    sources.metrics(move || loops.metrics());
    events::graph::attend(&mut sources, inspect.clone());
    sources.dump("controllers", move || inspect.dump());
    sources.metrics(move || restarted(&restarts));
    sources
}

/// What the admin endpoint reads of the loop and the gateway of this process.
pub(crate) fn sources(counters: Arc<Counters>, inspect: Inspect, gateway: &Gateway, restarts: Restarts) -> Sources {
    let mut sources = loop_sources(counters.clone(), inspect, restarts);
    let (numbers, pools, table) = (gateway.hints(), gateway.hints(), gateway.applied());
    sources.metrics(move || numbers.metrics());
    sources.check("controllers", move || match counters.read().published {
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

/// How often tasks were started again.
pub(crate) fn restarted(restarts: &Restarts) -> Vec<MetricFamily> {
    let each = restarts.read().map(|(task, count)| (task.to_owned(), count));
    vec![MetricFamily::by("task_restarts", "Tasks started again after a failure", MetricKind::Counter, "task", each)]
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
