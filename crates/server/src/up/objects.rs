//! Objects of the instance's own: the gateway's Service and the Namespace it lives in.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use knoll_api::Key;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

/// Publishes the gateway as a Service of type LoadBalancer, as an ingress of a cluster would be.
///
/// `outside` is where clients outside reach it, `endpoint` where pods do.
pub(crate) async fn publish_gateway(
    client: &Client,
    key: &Key,
    outside: IpAddr,
    endpoint: IpAddr,
    ports: (u16, u16),
) -> Result<(), kube::Error> {
    let services: Api<Service> = Api::namespaced(client.clone(), &key.namespace);
    let (http_port, local_port) = ports;
    let wanted: Service = serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": {"app.kubernetes.io/name": "knative-serving", "app.kubernetes.io/component": "gateway"},
        },
        "spec": {
            "type": "LoadBalancer",
            "ports": [{"name": "http2", "port": http_port, "targetPort": local_port, "protocol": "TCP"}],
        },
    }))
    .expect("a Service by the book");
    match services.get_opt(&key.name).await? {
        None => drop(services.create(&kube::api::PostParams::default(), &wanted).await?),
        Some(_) => {
            let ports = json!({"spec": {"ports": wanted.spec.and_then(|spec| spec.ports)}});
            services.patch(&key.name, &PatchParams::default(), &Patch::Merge(ports)).await?;
        }
    }
    let endpoints: Api<k8s_openapi::api::core::v1::Endpoints> = Api::namespaced(client.clone(), &key.namespace);
    let wanted = serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": key.name, "namespace": key.namespace},
        "subsets": [{
            "addresses": [{"ip": endpoint}],
            "ports": [{"name": "http2", "port": local_port, "protocol": "TCP"}],
        }],
    }))
    .expect("Endpoints by the book");
    match endpoints.get_opt(&key.name).await? {
        None => drop(endpoints.create(&kube::api::PostParams::default(), &wanted).await?),
        Some(_) => {
            let subsets = json!({ "subsets": wanted.subsets });
            endpoints.patch(&key.name, &PatchParams::default(), &Patch::Merge(subsets)).await?;
        }
    }
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": outside}]}}});
    services.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}
