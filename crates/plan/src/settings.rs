//! What the process was started with, as far as plans depend on it. Fixed for its lifetime.

use std::net::IpAddr;

use knoll_api::Key;

/// Where requests are counted, limited and queued for a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueuePlacement {
    /// In the gateway: pods have no queue container, and a revision's public Service always points at the gateway.
    Gateway,
    /// In a queue container beside the user's.
    Sidecar,
}

/// The gateway, as the rest of the world sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayAddresses {
    /// Its Kubernetes Service for callers from outside.
    pub service: Key,
    /// Its Kubernetes Service for callers inside, who reach what is visible to them alone, too.
    pub local_service: Key,
    /// Where pods reach it.
    pub address: IpAddr,
    /// Port at `address` that takes plain http from pods.
    pub local_port: u16,
    /// Port that callers from outside use for http. URLs show it unless it is 80.
    pub http_port: u16,
    /// Port that callers from outside use for https. URLs show it unless it is 443.
    pub https_port: u16,
}

/// Inputs of every plan that never change while the process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// See [`QueuePlacement`].
    pub queue_placement: QueuePlacement,
    /// Whether Knoll is its own cluster: adds the controllers in [`crate::kube`].
    pub standalone: bool,
    /// Suffix of in-cluster names.
    pub cluster_domain: String,
    /// Domain of services' names while `config-domain` has no rule for every route.
    pub default_domain: String,
    /// PEM of the authority that signed the API server's certificate; empty when pods need none.
    pub cluster_ca: String,
    /// Namespace of the control plane, and of Serving's ConfigMaps.
    pub system_namespace: String,
    /// Namespace of Eventing's ConfigMaps.
    pub eventing_namespace: String,
    /// The gateway.
    pub gateway: GatewayAddresses,
    /// Ingress class that this process serves; an Ingress of another class is left alone.
    pub ingress_class: String,
    /// Name of this machine's Node.
    pub node_name: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue_placement: QueuePlacement::Gateway,
            standalone: true,
            cluster_domain: "cluster.local".into(),
            default_domain: "svc.cluster.local".into(),
            cluster_ca: String::new(),
            system_namespace: knoll_api::labels::SYSTEM_NAMESPACE.into(),
            eventing_namespace: knoll_api::labels::EVENTING_SYSTEM_NAMESPACE.into(),
            gateway: GatewayAddresses {
                service: Key::new(knoll_api::labels::SYSTEM_NAMESPACE, "knoll-gateway"),
                local_service: Key::new(knoll_api::labels::SYSTEM_NAMESPACE, "knoll-local-gateway"),
                address: IpAddr::from([169, 254, 77, 1]),
                local_port: 80,
                http_port: 80,
                https_port: 443,
            },
            ingress_class: "knoll.ingress.networking.knative.dev".into(),
            node_name: "knoll".into(),
        }
    }
}
