//! The roles and bindings every cluster starts with.
//!
//! The control plane's own parts act under ServiceAccounts with these roles, in process as well as on a
//! cluster, so that a right that is missing there is missing here too.

use serde_json::{Value, json};

use crate::attributes::Identity;

/// ServiceAccount of the controllers, in the system namespace.
pub const CONTROLLER: &str = "controller";
/// ServiceAccount of the gateway, in the system namespace.
pub const GATEWAY: &str = "activator";

const SYSTEM: &str = knoll_api::labels::SYSTEM_NAMESPACE;

/// The identity of a node.
pub fn node_identity(name: &str) -> Identity {
    Identity::new(format!("system:node:{name}"), &["system:nodes", "system:authenticated"])
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

fn paths(paths: &[&str]) -> Value {
    json!({"nonResourceURLs": paths, "verbs": ["get"]})
}

fn cluster_role(name: &str, labels: Value, rules: Vec<Value>) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": name, "labels": labels},
        "rules": rules,
    })
}

fn aggregated(name: &str, labels: Value) -> Value {
    let mut role = cluster_role(name, labels, Vec::new());
    let label = format!("rbac.authorization.k8s.io/aggregate-to-{name}");
    role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    role
}

fn binding(name: &str, role: &str, subjects: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    })
}

fn group(name: &str) -> Value {
    json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name}])
}

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];
const ALL: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
const KNATIVE: &[&str] = &[
    "serving.knative.dev",
    "autoscaling.internal.knative.dev",
    "networking.internal.knative.dev",
    "caching.internal.knative.dev",
];
/// What users of a namespace work with.
const WORKLOADS: &[&str] = &[
    "pods",
    "pods/log",
    "pods/status",
    "services",
    "services/status",
    "endpoints",
    "configmaps",
    "events",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "serviceaccounts",
    "resourcequotas",
    "limitranges",
    "bindings",
    "namespaces",
];

/// Roles of users: `cluster-admin`, and `admin`, `edit` and `view` for a namespace.
fn user_roles() -> Vec<Value> {
    let to = |name: &str| json!({format!("rbac.authorization.k8s.io/aggregate-to-{name}"): "true"});
    let groups = &["apps", "batch", "autoscaling", "networking.k8s.io", "policy", "discovery.k8s.io", "events.k8s.io"];
    let mut served: Vec<&str> = groups.to_vec();
    served.extend(KNATIVE);
    vec![
        cluster_role(
            "cluster-admin",
            json!({}),
            vec![rule(&["*"], &["*"], &["*"]), json!({"nonResourceURLs": ["*"], "verbs": ["*"]})],
        ),
        aggregated("admin", json!({})),
        aggregated("edit", to("admin")),
        aggregated("view", to("edit")),
        cluster_role(
            "system:aggregate-to-view",
            to("view"),
            vec![rule(&[""], WORKLOADS, READ), rule(&served, &["*"], READ)],
        ),
        cluster_role(
            "system:aggregate-to-edit",
            json!({
                "rbac.authorization.k8s.io/aggregate-to-edit": "true",
                "rbac.authorization.k8s.io/aggregate-to-admin": "true",
            }),
            vec![
                rule(
                    &[""],
                    &[
                        "pods",
                        "services",
                        "endpoints",
                        "configmaps",
                        "events",
                        "persistentvolumeclaims",
                        "replicationcontrollers",
                        "replicationcontrollers/scale",
                        "serviceaccounts",
                    ],
                    WRITE,
                ),
                rule(&[""], &["secrets"], ALL),
                rule(
                    &[""],
                    &["pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "services/proxy"],
                    &["get", "create"],
                ),
                rule(&[""], &["pods/eviction", "serviceaccounts/token"], &["create"]),
                rule(&[""], &["serviceaccounts"], &["impersonate"]),
                rule(&served, &["*"], WRITE),
            ],
        ),
        cluster_role(
            "system:aggregate-to-admin",
            to("admin"),
            vec![
                rule(&["rbac.authorization.k8s.io"], &["roles", "rolebindings"], ALL),
                rule(&["authorization.k8s.io"], &["localsubjectaccessreviews"], &["create"]),
            ],
        ),
    ]
}

/// Roles that everybody who asks, with or without a name, has.
fn public_roles() -> Vec<Value> {
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
                "/",
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
        cluster_role("system:monitoring", json!({}), vec![paths(&["/metrics", "/healthz", "/livez", "/readyz"])]),
    ]
}

/// Roles of our own parts.
fn system_roles() -> Vec<Value> {
    vec![
        cluster_role(
            "system:node",
            json!({}),
            vec![
                rule(&[""], &["nodes"], &["get", "list", "watch", "create", "update", "patch"]),
                rule(&[""], &["nodes/status", "pods/status"], &["get", "update", "patch"]),
                rule(&[""], &["pods"], &["get", "list", "watch", "create", "delete"]),
                rule(
                    &[""],
                    &[
                        "services",
                        "endpoints",
                        "configmaps",
                        "secrets",
                        "serviceaccounts",
                        "namespaces",
                        "persistentvolumeclaims",
                    ],
                    READ,
                ),
                rule(&[""], &["serviceaccounts/token"], &["create"]),
                rule(&["", "events.k8s.io"], &["events"], &["create", "update", "patch"]),
                rule(&["discovery.k8s.io"], &["endpointslices"], READ),
                rule(&["coordination.k8s.io"], &["leases"], &["get", "create", "update", "patch"]),
                rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
                rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
            ],
        ),
        cluster_role(
            "knative-serving-core",
            json!({"serving.knative.dev/controller": "true"}),
            vec![
                rule(
                    &[""],
                    &[
                        "pods",
                        "namespaces",
                        "secrets",
                        "configmaps",
                        "endpoints",
                        "services",
                        "events",
                        "serviceaccounts",
                    ],
                    ALL,
                ),
                rule(&[""], &["endpoints/restricted", "namespaces/finalizers"], &["create", "update"]),
                rule(&["discovery.k8s.io"], &["endpointslices", "endpointslices/restricted"], ALL),
                rule(&["apps"], &["deployments", "deployments/finalizers"], ALL),
                rule(&["coordination.k8s.io"], &["leases"], ALL),
                rule(&["*"], &["*/scale"], &["get", "update", "patch"]),
                rule(KNATIVE, &["*", "*/status", "*/finalizers"], ALL),
                rule(&["apiextensions.k8s.io"], &["customresourcedefinitions"], READ),
            ],
        ),
        // What kube-controller-manager and kube-scheduler do on a cluster, our own controllers do here.
        cluster_role(
            "system:kube-controller-manager",
            json!({}),
            vec![rule(&["*"], &["*"], &["*"]), json!({"nonResourceURLs": ["*"], "verbs": ["*"]})],
        ),
    ]
}

/// Every role and binding to make where it is missing.
pub fn bootstrap_objects() -> Vec<Value> {
    let account = |name: &str| json!([{"kind": "ServiceAccount", "name": name, "namespace": SYSTEM}]);
    let mut objects = user_roles();
    objects.extend(public_roles());
    objects.extend(system_roles());
    objects.extend([
        binding("cluster-admin", "cluster-admin", group("system:masters")),
        binding("system:discovery", "system:discovery", group("system:authenticated")),
        binding("system:basic-user", "system:basic-user", group("system:authenticated")),
        binding(
            "system:public-info-viewer",
            "system:public-info-viewer",
            json!([
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:authenticated"},
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated"},
            ]),
        ),
        binding(
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            group("system:serviceaccounts"),
        ),
        binding("system:monitoring", "system:monitoring", group("system:monitoring")),
        binding("system:node", "system:node", group("system:nodes")),
        binding("knative-serving-controller", "knative-serving-core", account(CONTROLLER)),
        binding("knoll-kubernetes-controllers", "system:kube-controller-manager", account(CONTROLLER)),
    ]);
    objects.extend([CONTROLLER, GATEWAY].map(
        |name| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": SYSTEM}}),
    ));
    objects
}
