//! Services and slices as they are kept while nothing happens to them: what the network reads of them, as compact bytes.
//! Every one there is stays in memory, and as typed objects they are ten times as large.

use std::marker::PhantomData;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use knoll_api::Key;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

/// Label of a slice: its Service.
const OF_SERVICE: &str = "kubernetes.io/service-name";

/// An object as compact bytes. A copy shares them.
#[derive(Debug)]
pub struct Compact<T> {
    bytes: Arc<[u8]>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Compact<T> {
    fn clone(&self) -> Self {
        Self { bytes: Arc::clone(&self.bytes), of: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned> Compact<T> {
    fn new(object: &T) -> Self {
        let bytes = serde_json::to_vec(object).expect("typed objects have string keys and finite numbers only");
        Self { bytes: bytes.into(), of: PhantomData }
    }

    /// The object again.
    pub fn read(&self) -> T {
        serde_json::from_slice(&self.bytes).expect("what was written from a typed object reads as one")
    }
}

/// A Service with its name, its age and what the network and the pods' environments read of it.
#[derive(Clone, Debug)]
pub struct LeanService {
    /// Its key.
    pub key: Key,
    /// Itself.
    pub object: Compact<Service>,
}

impl From<Service> for LeanService {
    fn from(service: Service) -> Self {
        let ObjectMeta { namespace, name, creation_timestamp, .. } = service.metadata;
        let key = Key::new(namespace.clone().unwrap_or_default(), name.clone().unwrap_or_default());
        let metadata = ObjectMeta { namespace, name, creation_timestamp, ..ObjectMeta::default() };
        let spec = service.spec.map(|spec| ServiceSpec {
            cluster_ip: spec.cluster_ip,
            cluster_ips: spec.cluster_ips,
            external_ips: spec.external_ips,
            external_name: spec.external_name,
            ports: spec.ports.map(|ports| ports.into_iter().map(lean_port).collect()),
            publish_not_ready_addresses: spec.publish_not_ready_addresses,
            session_affinity: spec.session_affinity,
            type_: spec.type_,
            ..ServiceSpec::default()
        });
        Self { key, object: Compact::new(&Service { metadata, spec, status: None }) }
    }
}

fn lean_port(port: ServicePort) -> ServicePort {
    let ServicePort { name, node_port, port, protocol, .. } = port;
    ServicePort { name, node_port, port, protocol, ..ServicePort::default() }
}

/// A slice of a Service, without metadata.
#[derive(Clone, Debug)]
pub struct LeanSlice {
    /// Namespace and name of its Service; nothing when it belongs to none.
    pub of: Option<Key>,
    /// Its name.
    pub name: String,
    /// Itself.
    pub object: Compact<EndpointSlice>,
}

impl From<EndpointSlice> for LeanSlice {
    fn from(slice: EndpointSlice) -> Self {
        let meta = slice.metadata;
        let service = meta.labels.as_ref().and_then(|labels| labels.get(OF_SERVICE));
        let of = service.map(|service| Key::new(meta.namespace.clone().unwrap_or_default(), service.clone()));
        let endpoints = slice.endpoints.into_iter().map(|endpoint| {
            let Endpoint { addresses, conditions, hostname, .. } = endpoint;
            Endpoint { addresses, conditions, hostname, ..Endpoint::default() }
        });
        let slice = EndpointSlice { metadata: ObjectMeta::default(), endpoints: endpoints.collect(), ..slice };
        Self { of, name: meta.name.unwrap_or_default(), object: Compact::new(&slice) }
    }
}

impl<'de> Deserialize<'de> for LeanService {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Service::deserialize(deserializer).map(Self::from)
    }
}

impl<'de> Deserialize<'de> for LeanSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        EndpointSlice::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_that_is_kept_is_what_the_network_reads_of_it() {
        let whole = json!({
            "metadata": {"name": "hello-00001-private", "namespace": "default", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"serving.knative.dev/revision": "hello-00001"}, "annotations": {"a": "b"}},
            "spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "type": "ClusterIP", "ipFamilies": ["IPv4"],
                "selector": {"serving.knative.dev/revisionUID": "u"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8012, "protocol": "TCP", "appProtocol": "http"}]},
            "status": {"loadBalancer": {}},
        });
        let lean: LeanService = serde_json::from_value(whole).expect("a Service");
        assert_eq!(lean.key, Key::new("default", "hello-00001-private"));
        let kept = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "hello-00001-private", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "type": "ClusterIP",
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        });
        assert_eq!(serde_json::to_value(lean.object.read()).expect("JSON"), kept);
    }
}
