//! `networking.k8s.io`.

use super::Resource;
use crate::tables;

pub(super) fn rows() -> Vec<Resource> {
    let row = |plural, kind| Resource::new("networking.k8s.io", "v1", plural, kind);
    vec![
        row("ingresses", "Ingress").short(&["ing"]).status().table(&tables::networking::INGRESS),
        row("ingressclasses", "IngressClass").cluster().table(&tables::networking::INGRESS_CLASS),
        row("networkpolicies", "NetworkPolicy").short(&["netpol"]).table(&tables::networking::NETWORK_POLICY),
    ]
}
