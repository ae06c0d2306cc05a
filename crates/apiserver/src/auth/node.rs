//! What a node may do beyond its role: only what is its own.
//!
//! The role `system:node` says which kinds a node writes. Which of their objects are its own depends on them: its Node
//! and its lease by their name, a pod by where it runs.

use knoll_store::Store;
use serde::Deserialize;

use crate::attributes::{Attributes, UserInfo};

/// Namespace of the leases by which nodes say that they live.
const LEASES: &str = "kube-node-lease";

/// The node that somebody is.
pub(crate) fn name(identity: &UserInfo) -> Option<&str> {
    let name = identity.user.strip_prefix("system:node:")?;
    identity.groups.iter().any(|group| group == "system:nodes").then_some(name)
}

/// Why a node may not do what its role allows.
///
/// # Errors
/// The reason, for the refusal.
pub(super) fn restrict(store: &Store, identity: &UserInfo, wanted: &Attributes) -> Result<(), String> {
    let Some(node) = name(identity) else { return Ok(()) };
    if matches!(wanted.verb.as_str(), "get" | "list" | "watch") || wanted.name.is_empty() {
        return Ok(());
    }
    match (wanted.group.as_str(), wanted.resource.as_str()) {
        ("", "nodes") if wanted.name != node => {
            Err(format!("node {node:?} is not allowed to modify node {:?}", wanted.name))
        }
        ("coordination.k8s.io", "leases") if wanted.name != node || wanted.namespace != LEASES => {
            Err(format!("node {node:?} can only access its own lease in the namespace {LEASES:?}"))
        }
        ("", "pods") if !runs(store, node, &wanted.namespace, &wanted.name) => {
            Err(format!("node {node:?} can only change pods with spec.nodeName set to itself"))
        }
        _ => Ok(()),
    }
}

/// Whether a pod is on a node. One that is gone belongs to nobody, and to say so is no secret.
fn runs(store: &Store, node: &str, namespace: &str, pod: &str) -> bool {
    let Some(entry) = store.get(&format!("/core/pods/{namespace}/{pod}")) else { return true };
    serde_json::from_slice(&entry.value).is_ok_and(|pod: Bound| pod.spec.node_name == node)
}

/// What of a pod says where it runs: a node asks often, and the rest need not be taken apart for it.
#[derive(Deserialize)]
struct Bound {
    #[serde(default)]
    spec: BoundSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct BoundSpec {
    node_name: String,
}
