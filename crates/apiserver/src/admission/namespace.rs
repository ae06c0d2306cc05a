//! Namespaces: nothing is made in one that is missing or on its way out, and a new one comes with what pods need.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Admission, Companion};
use crate::{
    object,
    status::{Cause, Status},
    view::View,
};

/// Refuses a new object in a namespace that is missing or terminating.
pub(crate) fn lifecycle(admission: &Admission<'_>, object: &Value) -> Result<(), Status> {
    if !admission.resource.namespaced {
        return Ok(());
    }
    match admission.view.namespace_state(admission.namespace) {
        Some(true) => Ok(()),
        None => Err(Status::not_found("", "namespaces", admission.namespace)),
        Some(false) => {
            let namespace = admission.namespace;
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            let mut status = admission.resource.forbidden(object::name(object), &why);
            let message = format!("namespace {namespace} is being terminated");
            status.cause(Cause::other("NamespaceTerminating", "metadata.namespace", message));
            Err(status)
        }
    }
}

/// The ServiceAccount and the certificate that pods of a new namespace use.
pub(crate) fn companions(view: View<'_>, namespace: &Value) -> Vec<Companion> {
    let meta = |name: &str| {
        json!({
            "name": name,
            "namespace": object::name(namespace),
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": object::seconds(Timestamp::now()),
        })
    };
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("default")});
    let mut root_ca = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("kube-root-ca.crt")});
    root_ca["metadata"]["annotations"] = json!({
        "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
    });
    root_ca["data"] = json!({"ca.crt": view.root_ca()});
    vec![Companion { plural: "serviceaccounts", object: account }, Companion { plural: "configmaps", object: root_ca }]
}
