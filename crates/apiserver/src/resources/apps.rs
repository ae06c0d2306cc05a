//! `apps`.

use super::{Resource, SelectableField};
use crate::{defaults, tables, validation};

const REPLICAS_FIELDS: &[SelectableField] = &[("status.replicas", "/status/replicas", "0")];

pub(super) fn rows() -> Vec<Resource> {
    let row = |plural, kind| Resource::new("apps", "v1", plural, kind);
    vec![
        row("deployments", "Deployment")
            .short(&["deploy"])
            .category(&["all"])
            .status()
            .scaled("/spec/selector")
            .table(&tables::apps::DEPLOYMENT)
            .default_with(defaults::deployment::default)
            .validate_with(validation::apps::deployment),
        row("replicasets", "ReplicaSet")
            .short(&["rs"])
            .category(&["all"])
            .relaxed()
            .status()
            .scaled("/spec/selector")
            .fields(REPLICAS_FIELDS)
            .table(&tables::apps::REPLICA_SET)
            .default_with(defaults::replica_set::default)
            .validate_with(validation::apps::with_selector),
        row("statefulsets", "StatefulSet")
            .short(&["sts"])
            .category(&["all"])
            .status()
            .scaled("/spec/selector")
            .table(&tables::apps::STATEFUL_SET)
            .default_with(defaults::stateful_set::default)
            .validate_with(validation::apps::with_selector),
        row("daemonsets", "DaemonSet")
            .short(&["ds"])
            .category(&["all"])
            .status()
            .table(&tables::apps::DAEMON_SET)
            .default_with(defaults::daemon_set::default)
            .validate_with(validation::apps::with_selector),
        row("controllerrevisions", "ControllerRevision").no_generation().table(&tables::apps::CONTROLLER_REVISION),
    ]
}
