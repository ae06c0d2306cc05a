//! Roles that everybody who asks has, and those of the machine's own parts.

use serde_json::{Value, json};

use super::{READ, WRITE, cluster_role, paths, rule};

/// Roles that everybody who asks, with or without a name, has; and those that others are given.
pub(super) fn public() -> Vec<Value> {
    let health = ["/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*"];
    vec![
        cluster_role(
            "system:public-info-viewer",
            json!({}),
            vec![paths(&["/healthz", "/livez", "/readyz", "/version", "/version/"])],
        ),
        cluster_role(
            "system:discovery",
            json!({}),
            vec![paths(&[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ])],
        ),
        cluster_role(
            "system:basic-user",
            json!({}),
            vec![
                rule(&["authorization.k8s.io"], &["selfsubjectaccessreviews", "selfsubjectrulesreviews"], &["create"]),
                rule(&["authentication.k8s.io"], &["selfsubjectreviews"], &["create"]),
            ],
        ),
        cluster_role(
            "system:service-account-issuer-discovery",
            json!({}),
            vec![paths(&[
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/",
            ])],
        ),
        cluster_role(
            "system:auth-delegator",
            json!({}),
            vec![
                rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
                rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
            ],
        ),
        cluster_role(
            "system:monitoring",
            json!({}),
            vec![paths(&[&["/metrics", "/metrics/slis"][..], &health].concat())],
        ),
    ]
}

/// What a node does: it is itself, runs the pods that are on it, and reads what they use.
///
/// Which Node and which pods are its own is decided at each write (see `admission::node`). It follows Secrets and
/// ConfigMaps of all namespaces, to bring volumes up to date; Kubernetes' nodes follow each alone.
pub(super) fn node() -> Value {
    cluster_role(
        "system:node",
        json!({}),
        vec![
            rule(&[""], &["nodes"], &["get", "list", "watch", "create", "update", "patch"]),
            rule(&[""], &["nodes/status", "pods/status"], &["get", "update", "patch"]),
            rule(&[""], &["pods"], &["get", "list", "watch", "create", "delete"]),
            rule(&[""], &["configmaps", "secrets", "services"], READ),
            rule(&[""], &["persistentvolumeclaims", "persistentvolumes"], &["get"]),
            rule(&[""], &["serviceaccounts/token"], &["create"]),
            rule(&["", "events.k8s.io"], &["events"], &["create", "update", "patch"]),
            rule(&["discovery.k8s.io"], &["endpointslices"], READ),
            rule(&["coordination.k8s.io"], &["leases"], &["get", "create", "update", "patch", "delete"]),
            rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
            rule(&["authorization.k8s.io"], &["localsubjectaccessreviews", "subjectaccessreviews"], &["create"]),
        ],
    )
}

/// What kube-controller-manager and kube-scheduler do on a cluster, our own controllers do here.
pub(super) fn controllers() -> Value {
    let every = [READ, WRITE].concat();
    cluster_role(
        "system:kube-controller-manager",
        json!({}),
        vec![rule(&["*"], &["*"], &["*"]), json!({"nonResourceURLs": ["*"], "verbs": every})],
    )
}
