//! Objects of the instance's own: the Services of the gateway, and of the data plane of events.

use std::net::{IpAddr, SocketAddr};

use knoll_api::{
    Key, Kind,
    eventing::services::{BROKER_INGRESS, CHANNEL_DISPATCHER, INTEGRATION_SINK, JOB_SINK, REQUEST_REPLY},
    labels,
};
use knoll_client::{Client, Result};
use knoll_plan::GatewayAddresses;
use serde_json::{Value, json};

use super::typed::{merge, post};

/// The Service of what holds requests back until there are instances. Here that is the gateway.
const ACTIVATOR: &str = "activator-service";

/// The Services of what takes the events of brokers, channels, RequestReplies and sinks. Here that is one.
const EVENT_INGRESSES: [&str; 5] = [BROKER_INGRESS, CHANNEL_DISPATCHER, REQUEST_REPLY, JOB_SINK, INTEGRATION_SINK];

/// Where the gateway is.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    /// Address and port of its sockets for callers from outside.
    pub(crate) outside: SocketAddr,
    /// Where its Service for callers from outside leads.
    pub(crate) public: SocketAddr,
    /// Where pods reach it.
    pub(crate) local: SocketAddr,
}

/// Publishes the gateway: as a Service of type LoadBalancer and one for callers inside, as an ingress of a cluster
/// would be, and as the activator, whose addresses callers compare with those of a revision's public Service.
///
/// The load balancer's address is the one the gateway listens on, where that is one address and means the same to
/// everybody. Loopback addresses mean the pod itself to a pod, so then it is the Service's own.
pub(crate) async fn publish_gateway(client: &Client, gateway: &GatewayAddresses, places: &Places) -> Result<()> {
    let Places { outside, public, local } = places;
    let GatewayAddresses { service, local_service, .. } = gateway;
    let at = [("http2", outside.port(), public.port())];
    let published = publish(client, service, "gateway", "LoadBalancer", &at, public.ip()).await?;
    let at = [("http2", 80, local.port())];
    publish(client, local_service, "gateway", "ClusterIP", &at, local.ip()).await?;
    let activator = service.sibling(ACTIVATOR);
    let at = [("http", 80, local.port()), ("http2", 81, local.port())];
    publish(client, &activator, "activator", "ClusterIP", &at, local.ip()).await?;
    let everybodys = !outside.ip().is_loopback() && !outside.ip().is_unspecified();
    let own = published["spec"]["clusterIP"].as_str().map(str::to_owned);
    let address = own.filter(|_| !everybodys).unwrap_or_else(|| outside.ip().to_string());
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
    merge(client, &(Kind::CoreService.object_path(service) + "/status"), &status).await?;
    Ok(())
}

/// Where brokers, channels and sinks take events.
#[derive(Clone, Copy)]
pub(crate) struct EventPlaces {
    pub(crate) address: IpAddr,
    pub(crate) http: u16,
    pub(crate) https: u16,
}

/// Publishes where brokers, channels and sinks take events. Whether both are answered is a feature.
pub(crate) async fn publish_ingresses(client: &Client, to: EventPlaces) -> Result<()> {
    let at = [("http", 80, to.http), ("https", 443, to.https)];
    for name in EVENT_INGRESSES {
        let key = Key::new(labels::EVENTING_SYSTEM_NAMESPACE, name);
        publish(client, &key, name, "ClusterIP", &at, to.address).await?;
    }
    Ok(())
}

/// Makes a Service without selector, and Endpoints that lead its ports, each given with the one it leads to, `to` one
/// address; or brings what is there up to date.
async fn publish(
    client: &Client,
    key: &Key,
    component: &str,
    kind: &str,
    ports: &[(&str, u16, u16)],
    to: IpAddr,
) -> Result<Value> {
    let leading = |(name, port, target): &(&str, u16, u16)| json!({"name": name, "port": port, "protocol": "TCP", "targetPort": target});
    let end = |(name, _, target): &(&str, u16, u16)| json!({"name": name, "port": target, "protocol": "TCP"});
    let spec = json!({"type": kind, "ports": ports.iter().map(leading).collect::<Vec<_>>()});
    let ends: Vec<Value> = ports.iter().map(end).collect();
    let subsets = json!([{"addresses": [{"ip": to}], "ports": ends}]);
    let labels = json!({"app.kubernetes.io/name": key.namespace, "app.kubernetes.io/component": component});
    let metadata = json!({"name": key.name, "namespace": key.namespace, "labels": labels});
    let path = Kind::CoreService.object_path(key);
    let service = if client.get(&path).await?.is_none() {
        let wanted = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec});
        post(client, &Kind::CoreService.collection_path(Some(&key.namespace)), &wanted).await?
    } else {
        merge(client, &path, &json!({"spec": {"ports": spec["ports"]}})).await?
    };
    let path = Kind::Endpoints.object_path(key);
    if client.get(&path).await?.is_none() {
        let metadata = json!({"name": key.name, "namespace": key.namespace});
        let wanted = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets});
        post(client, &Kind::Endpoints.collection_path(Some(&key.namespace)), &wanted).await?;
    } else {
        merge(client, &path, &json!({"subsets": subsets})).await?;
    }
    Ok(service)
}
