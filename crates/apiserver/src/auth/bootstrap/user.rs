//! Roles of users: `cluster-admin`, and `admin`, `edit` and `view` for a namespace, as Kubernetes has them.
//!
//! `view` reads what leads to no further rights. `edit` adds Secrets, commands in pods and acting as the namespace's
//! ServiceAccounts, and writes workloads; it writes no `status`, no Endpoints and nothing that controllers keep for
//! themselves. `admin` adds roles and bindings, within what it holds.

use serde_json::{Value, json};

use super::{ALL, READ, WRITE, aggregated, aggregated_to, cluster_role, rule};

/// Read by everybody who may look.
const VIEWED: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "bindings",
            "configmaps",
            "endpoints",
            "events",
            "limitranges",
            "namespaces",
            "namespaces/status",
            "persistentvolumeclaims",
            "persistentvolumeclaims/status",
            "pods",
            "pods/log",
            "pods/status",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "replicationcontrollers/status",
            "resourcequotas",
            "resourcequotas/status",
            "serviceaccounts",
            "services",
            "services/status",
        ],
    ),
    ("discovery.k8s.io", &["endpointslices"]),
    (
        "apps",
        &[
            "controllerrevisions",
            "daemonsets",
            "daemonsets/status",
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
            "statefulsets",
            "statefulsets/scale",
            "statefulsets/status",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
    ("batch", &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
    ("policy", &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
    ("networking.k8s.io", &["ingresses", "ingresses/status", "networkpolicies"]),
];

/// Written by who works in the namespace.
const EDITED: &[(&str, &[&str])] = &[
    ("", &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]),
    (
        "",
        &[
            "configmaps",
            "events",
            "persistentvolumeclaims",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "secrets",
            "serviceaccounts",
            "services",
            "services/proxy",
        ],
    ),
    (
        "apps",
        &[
            "daemonsets",
            "deployments",
            "deployments/rollback",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
    ),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("policy", &["poddisruptionbudgets"]),
    ("networking.k8s.io", &["ingresses", "networkpolicies"]),
];

pub(super) fn roles() -> Vec<Value> {
    let rules = |lists: &[(&str, &[&str])], verbs| -> Vec<Value> {
        lists.iter().map(|(group, resources)| rule(&[group], resources, verbs)).collect()
    };
    let mut edited = vec![
        rule(&[""], &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"], READ),
        rule(&[""], &["serviceaccounts"], &["impersonate"]),
        rule(&[""], &["pods/eviction", "serviceaccounts/token"], &["create"]),
        rule(&["coordination.k8s.io"], &["leases"], ALL),
    ];
    edited.extend(rules(EDITED, WRITE));
    let administered = vec![
        rule(&["rbac.authorization.k8s.io"], &["rolebindings", "roles"], ALL),
        rule(&["authorization.k8s.io"], &["localsubjectaccessreviews"], &["create"]),
    ];
    vec![
        cluster_role(
            "cluster-admin",
            json!({}),
            vec![rule(&["*"], &["*"], &["*"]), json!({"nonResourceURLs": ["*"], "verbs": ["*"]})],
        ),
        aggregated("admin", json!({})),
        aggregated("edit", aggregated_to("admin")),
        aggregated("view", aggregated_to("edit")),
        cluster_role("system:aggregate-to-view", aggregated_to("view"), rules(VIEWED, READ)),
        cluster_role("system:aggregate-to-edit", aggregated_to("edit"), edited),
        cluster_role("system:aggregate-to-admin", aggregated_to("admin"), administered),
    ]
}
