//! `apps`.

use super::{Resource, SelectableField};
use crate::tables;

const REPLICAS_FIELDS: &[SelectableField] = &[("status.replicas", "/status/replicas", "0")];

pub(super) fn rows() -> Vec<Resource> {
    let row = |plural, kind| Resource::new("apps", "v1", plural, kind);
    vec![
        row("deployments", "Deployment")
            .short(&["deploy"])
            .category(&["all"])
            .status()
            .scaled("/spec/selector")
            .table(&tables::apps::DEPLOYMENT),
        row("replicasets", "ReplicaSet")
            .short(&["rs"])
            .category(&["all"])
            .relaxed()
            .status()
            .scaled("/spec/selector")
            .fields(REPLICAS_FIELDS)
            .table(&tables::apps::REPLICA_SET),
        row("statefulsets", "StatefulSet")
            .short(&["sts"])
            .category(&["all"])
            .status()
            .scaled("/spec/selector")
            .table(&tables::apps::STATEFUL_SET),
        row("daemonsets", "DaemonSet").short(&["ds"]).category(&["all"]).status().table(&tables::apps::DAEMON_SET),
        row("controllerrevisions", "ControllerRevision").no_generation().table(&tables::apps::CONTROLLER_REVISION),
    ]
}
