//! Objects of the instance's own: the Services of the gateway, and of the data plane of events.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Endpoints, Service};
use knoll_api::{
    Key,
    eventing::services::{BROKER_INGRESS, CHANNEL_DISPATCHER, INTEGRATION_SINK, JOB_SINK, REQUEST_REPLY},
    labels,
};
use knoll_plan::GatewayAddresses;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

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
pub(crate) async fn publish_gateway(
    client: &Client,
    gateway: &GatewayAddresses,
    places: &Places,
) -> Result<(), kube::Error> {
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
    let own = published.spec.and_then(|spec| spec.cluster_ip);
    let address = own.filter(|_| !everybodys).unwrap_or_else(|| outside.ip().to_string());
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
    let services: Api<Service> = Api::namespaced(client.clone(), &service.namespace);
    services.patch_status(&service.name, &PatchParams::default(), &Patch::Merge(status)).await?;
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
pub(crate) async fn publish_ingresses(client: &Client, to: EventPlaces) -> Result<(), kube::Error> {
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
) -> Result<Service, kube::Error> {
    let leading = |(name, port, target): &(&str, u16, u16)| json!({"name": name, "port": port, "protocol": "TCP", "targetPort": target});
    let end = |(name, _, target): &(&str, u16, u16)| json!({"name": name, "port": target, "protocol": "TCP"});
    let spec = json!({"type": kind, "ports": ports.iter().map(leading).collect::<Vec<_>>()});
    let ends: Vec<Value> = ports.iter().map(end).collect();
    let subsets = json!([{"addresses": [{"ip": to}], "ports": ends}]);
    let labels = json!({"app.kubernetes.io/name": key.namespace, "app.kubernetes.io/component": component});
    let metadata = json!({"name": key.name, "namespace": key.namespace, "labels": labels});
    let services: Api<Service> = Api::namespaced(client.clone(), &key.namespace);
    let service = if services.get_opt(&key.name).await?.is_none() {
        let wanted = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec});
        let wanted: Service = serde_json::from_value(wanted).expect("a Service by the book");
        services.create(&PostParams::default(), &wanted).await?
    } else {
        let ports = json!({"spec": {"ports": spec["ports"]}});
        services.patch(&key.name, &PatchParams::default(), &Patch::Merge(ports)).await?
    };
    let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), &key.namespace);
    if endpoints.get_opt(&key.name).await?.is_none() {
        let metadata = json!({"name": key.name, "namespace": key.namespace});
        let wanted = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets});
        let wanted: Endpoints = serde_json::from_value(wanted).expect("Endpoints by the book");
        endpoints.create(&PostParams::default(), &wanted).await?;
    } else {
        let subsets = json!({"subsets": subsets});
        endpoints.patch(&key.name, &PatchParams::default(), &Patch::Merge(subsets)).await?;
    }
    Ok(service)
}
