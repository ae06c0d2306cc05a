//! The core group.

use super::{Resource, SelectableField, Subresource};
use crate::tables;

const V1: &str = "v1";

const POD_FIELDS: &[SelectableField] = &[
    ("spec.nodeName", "/spec/nodeName", ""),
    ("spec.restartPolicy", "/spec/restartPolicy", "Always"),
    ("spec.schedulerName", "/spec/schedulerName", "default-scheduler"),
    ("spec.serviceAccountName", "/spec/serviceAccountName", ""),
    ("spec.hostNetwork", "/spec/hostNetwork", "false"),
    ("status.phase", "/status/phase", "Pending"),
    ("status.podIP", "/status/podIP", ""),
    ("status.nominatedNodeName", "/status/nominatedNodeName", ""),
];

const NAMESPACE_FIELDS: &[SelectableField] = &[("status.phase", "/status/phase", "Active")];
const NODE_FIELDS: &[SelectableField] = &[("spec.unschedulable", "/spec/unschedulable", "false")];
const SECRET_FIELDS: &[SelectableField] = &[("type", "/type", "Opaque")];
const SERVICE_FIELDS: &[SelectableField] =
    &[("spec.clusterIP", "/spec/clusterIP", ""), ("spec.type", "/spec/type", "ClusterIP")];
const REPLICAS_FIELDS: &[SelectableField] = &[("status.replicas", "/status/replicas", "0")];

pub(super) fn rows() -> Vec<Resource> {
    let row = |plural, kind| Resource::new("", V1, plural, kind);
    vec![
        row("namespaces", "Namespace")
            .cluster()
            .short(&["ns"])
            .sub(&[Subresource::Status, Subresource::Finalize])
            .no_generation()
            .answers_with_object()
            .fields(NAMESPACE_FIELDS)
            .table(&tables::core::NAMESPACE),
        row("nodes", "Node")
            .cluster()
            .short(&["no"])
            .status()
            .no_generation()
            .fields(NODE_FIELDS)
            .table(&tables::core::NODE),
        row("pods", "Pod")
            .short(&["po"])
            .category(&["all"])
            .sub(&[
                Subresource::Status,
                Subresource::Binding,
                Subresource::Eviction,
                Subresource::Log,
                Subresource::Exec,
                Subresource::Attach,
                Subresource::PortForward,
                Subresource::EphemeralContainers,
                Subresource::Resize,
            ])
            .relaxed()
            .answers_with_object()
            .fields(POD_FIELDS)
            .table(&tables::pod::POD),
        row("services", "Service")
            .short(&["svc"])
            .category(&["all"])
            .status()
            .no_generation()
            .create_on_update()
            .answers_with_object()
            .fields(SERVICE_FIELDS)
            .table(&tables::core::SERVICE),
        row("endpoints", "Endpoints")
            .short(&["ep"])
            .relaxed()
            .no_generation()
            .create_on_update()
            .table(&tables::core::ENDPOINTS),
        row("configmaps", "ConfigMap").short(&["cm"]).no_generation().table(&tables::core::CONFIG_MAP),
        row("secrets", "Secret").no_generation().fields(SECRET_FIELDS).table(&tables::core::SECRET),
        row("serviceaccounts", "ServiceAccount")
            .short(&["sa"])
            .sub(&[Subresource::Token])
            .no_generation()
            .answers_with_object(),
        row("persistentvolumeclaims", "PersistentVolumeClaim")
            .short(&["pvc"])
            .status()
            .no_generation()
            .answers_with_object()
            .table(&tables::storage::CLAIM),
        row("persistentvolumes", "PersistentVolume")
            .cluster()
            .short(&["pv"])
            .status()
            .no_generation()
            .answers_with_object()
            .table(&tables::storage::VOLUME),
        row("replicationcontrollers", "ReplicationController")
            .short(&["rc"])
            .category(&["all"])
            .status()
            .scaled("/spec/selector")
            .fields(REPLICAS_FIELDS)
            .table(&tables::apps::REPLICATION_CONTROLLER),
        row("podtemplates", "PodTemplate").answers_with_object(),
        row("limitranges", "LimitRange").short(&["limits"]).no_generation().create_on_update(),
        row("resourcequotas", "ResourceQuota").short(&["quota"]).status().no_generation().answers_with_object(),
        row("bindings", "Binding").computed(),
    ]
}
