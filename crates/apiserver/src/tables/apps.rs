//! `apps`, and replication controllers.

use super::{Table, age, containers, count, name, number, pairs, selector, text, wide};
use crate::object;

/// Deployments.
pub(crate) static DEPLOYMENT: Table = Table {
    columns: &[
        text("Name"),
        text("Ready"),
        number("Up-to-date"),
        number("Available"),
        text("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |o, now| {
        let (names, images) = containers(o, "/spec/template/spec/containers");
        let ready = format!("{}/{}", count(o, "/status/readyReplicas"), count(o, "/spec/replicas"));
        vec![
            name(o),
            ready.into(),
            count(o, "/status/updatedReplicas"),
            count(o, "/status/availableReplicas"),
            age(o, now),
            names,
            images,
            selector(&o["spec"]["selector"]),
        ]
    },
};

const REPLICA_COLUMNS: &[super::Column] = &[
    text("Name"),
    number("Desired"),
    number("Current"),
    number("Ready"),
    text("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

/// ReplicaSets.
pub(crate) static REPLICA_SET: Table =
    Table { columns: REPLICA_COLUMNS, cells: |o, now| replicas(o, now, selector(&o["spec"]["selector"])) };

/// ReplicationControllers.
pub(crate) static REPLICATION_CONTROLLER: Table =
    Table { columns: REPLICA_COLUMNS, cells: |o, now| replicas(o, now, pairs(&o["spec"]["selector"])) };

fn replicas(o: &serde_json::Value, now: jiff::Timestamp, selector: serde_json::Value) -> Vec<serde_json::Value> {
    let (names, images) = containers(o, "/spec/template/spec/containers");
    vec![
        name(o),
        count(o, "/spec/replicas"),
        count(o, "/status/replicas"),
        count(o, "/status/readyReplicas"),
        age(o, now),
        names,
        images,
        selector,
    ]
}

/// StatefulSets.
pub(crate) static STATEFUL_SET: Table = Table {
    columns: &[text("Name"), text("Ready"), text("Age"), wide("Containers"), wide("Images")],
    cells: |o, now| {
        let (names, images) = containers(o, "/spec/template/spec/containers");
        let ready = format!("{}/{}", count(o, "/status/readyReplicas"), count(o, "/spec/replicas"));
        vec![name(o), ready.into(), age(o, now), names, images]
    },
};

/// DaemonSets.
pub(crate) static DAEMON_SET: Table = Table {
    columns: &[
        text("Name"),
        number("Desired"),
        number("Current"),
        number("Ready"),
        number("Up-to-date"),
        number("Available"),
        text("Node Selector"),
        text("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |o, now| {
        let (names, images) = containers(o, "/spec/template/spec/containers");
        vec![
            name(o),
            count(o, "/status/desiredNumberScheduled"),
            count(o, "/status/currentNumberScheduled"),
            count(o, "/status/numberReady"),
            count(o, "/status/updatedNumberScheduled"),
            count(o, "/status/numberAvailable"),
            pairs(&o["spec"]["template"]["spec"]["nodeSelector"]),
            age(o, now),
            names,
            images,
            selector(&o["spec"]["selector"]),
        ]
    },
};

/// ControllerRevisions.
pub(crate) static CONTROLLER_REVISION: Table = Table {
    columns: &[text("Name"), text("Controller"), number("Revision"), text("Age")],
    cells: |o, now| {
        let owner = object::list(o, "/metadata/ownerReferences").iter().find(|r| r["controller"] == true);
        let controller = owner.map_or_else(
            || "<none>".to_owned(),
            |r| format!("{}/{}", object::text(r, "/kind").to_lowercase(), object::text(r, "/name")),
        );
        vec![name(o), controller.into(), count(o, "/revision"), age(o, now)]
    },
};
