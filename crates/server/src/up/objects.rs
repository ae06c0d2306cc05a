//! Objects of the instance's own: the gateway's Services.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use knoll_api::Key;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// The Service of what holds requests back until there are instances. Here that is the gateway.
const ACTIVATOR: &str = "activator-service";

/// Publishes the gateway as a Service of type LoadBalancer, as an ingress of a cluster would be, and as the
/// activator, whose addresses callers compare with those of a revision's public Service.
///
/// `outside` is where clients outside reach it, `endpoint` where pods do.
pub(crate) async fn publish_gateway(
    client: &Client,
    key: &Key,
    outside: IpAddr,
    endpoint: IpAddr,
    ports: (u16, u16),
) -> Result<(), kube::Error> {
    let (http_port, local_port) = ports;
    let http2 = json!({"name": "http2", "port": http_port, "targetPort": local_port, "protocol": "TCP"});
    publish(client, key, "gateway", json!({"type": "LoadBalancer", "ports": [http2]}), endpoint).await?;
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": local_port, "protocol": "TCP"});
    let activator = json!({"type": "ClusterIP", "ports": [port("http", 80), port("http2", 81)]});
    publish(client, &key.sibling(ACTIVATOR), "activator", activator, endpoint).await?;
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": outside}]}}});
    let services: Api<Service> = Api::namespaced(client.clone(), &key.namespace);
    services.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// Makes a Service without selector and its Endpoints, or brings what is there up to date.
async fn publish(
    client: &Client,
    key: &Key,
    component: &str,
    spec: Value,
    endpoint: IpAddr,
) -> Result<(), kube::Error> {
    let labels = json!({"app.kubernetes.io/name": "knative-serving", "app.kubernetes.io/component": component});
    let ports = spec["ports"].as_array().into_iter().flatten();
    let ports: Vec<Value> =
        ports.map(|port| json!({"name": port["name"], "port": port["targetPort"], "protocol": "TCP"})).collect();
    let subsets = json!([{"addresses": [{"ip": endpoint}], "ports": ports}]);
    let metadata = json!({"name": key.name, "namespace": key.namespace, "labels": labels});
    let services: Api<Service> = Api::namespaced(client.clone(), &key.namespace);
    if services.get_opt(&key.name).await?.is_none() {
        let wanted = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec});
        let wanted: Service = serde_json::from_value(wanted).expect("a Service by the book");
        services.create(&PostParams::default(), &wanted).await?;
    } else {
        let ports = json!({"spec": {"ports": spec["ports"]}});
        services.patch(&key.name, &PatchParams::default(), &Patch::Merge(ports)).await?;
    }
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
    Ok(())
}
