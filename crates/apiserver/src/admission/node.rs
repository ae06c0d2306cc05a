//! What nodes write: themselves, and copies of the pods that only they know of.

use serde_json::Value;

use super::{Admission, Operation};
use crate::{auth, object, status::Status};

/// A node makes no Node but itself.
pub(crate) fn admit(admission: &mut Admission<'_>, node: &mut Value) -> Result<(), Status> {
    let Some(own) = auth::node_name(admission.identity) else { return Ok(()) };
    let name = object::name(node);
    if name == own {
        return Ok(());
    }
    Err(admission.resource.forbidden(name, &format!("node {own:?} is not allowed to modify node {name:?}")))
}

/// A node makes no pods but copies of its own static ones, which get at nothing that the API holds.
pub(super) fn pod(admission: &Admission<'_>, pod: &Value) -> Result<(), Status> {
    let Some(own) = auth::node_name(admission.identity) else { return Ok(()) };
    if admission.operation == Operation::Update {
        return Ok(());
    }
    let refuse = |why: String| Err(admission.resource.forbidden(object::name(pod), &why));
    if object::annotation(pod, "kubernetes.io/config.mirror").is_none() {
        return refuse(format!(
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node {own:?} can only create mirror pods"
        ));
    }
    if object::text(pod, "/spec/nodeName") != own {
        return refuse(format!("node {own:?} can only create pods with spec.nodeName set to itself"));
    }
    if !object::is_empty(pod.pointer("/spec/serviceAccountName")) {
        return refuse(format!("node {own:?} can not create pods that reference a service account"));
    }
    let from_api = ["configMap", "secret", "persistentVolumeClaim", "projected"];
    let volumes = object::list(pod, "/spec/volumes");
    if let Some(kind) = from_api.iter().find(|kind| volumes.iter().any(|v| !v[**kind].is_null())) {
        return refuse(format!("node {own:?} can not create pods that reference a {kind}"));
    }
    Ok(())
}
