//! The roles and bindings every cluster starts with.
//!
//! The control plane's own parts act under ServiceAccounts with these roles, in process as well as on a
//! cluster, so that a right that is missing there is missing here too.

mod eventing;
mod knative;
mod system;
mod user;

use serde_json::{Value, json};

use crate::attributes::UserInfo;

/// ServiceAccount of the controllers, in the system namespace.
pub const CONTROLLER: &str = "controller";
/// ServiceAccount of the autoscaler where it is a process of its own, in the system namespace.
pub const AUTOSCALER: &str = "autoscaler";
/// ServiceAccount of the gateway, in the system namespace.
pub const GATEWAY: &str = "activator";
/// What is kept up to date at each start unless it says `false`.
pub(crate) const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

const SYSTEM: &str = knoll_api::labels::SYSTEM_NAMESPACE;
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];
const ALL: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// The user that a node is.
pub fn node_user(name: &str) -> UserInfo {
    UserInfo::new(format!("system:node:{name}"), &["system:nodes", "system:authenticated"])
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

fn paths(paths: &[&str]) -> Value {
    json!({"nonResourceURLs": paths, "verbs": ["get"]})
}

fn metadata(name: &str, labels: Value) -> Value {
    let mut metadata = json!({"name": name, "labels": labels, "annotations": {AUTO_UPDATE: "true"}});
    metadata["labels"]["kubernetes.io/bootstrapping"] = "rbac-defaults".into();
    metadata
}

fn cluster_role(name: &str, labels: Value, rules: Vec<Value>) -> Value {
    json!({"apiVersion": API_VERSION, "kind": "ClusterRole", "metadata": metadata(name, labels), "rules": rules})
}

/// The label by which a role becomes part of another.
fn aggregated_to(role: &str) -> Value {
    json!({format!("rbac.authorization.k8s.io/aggregate-to-{role}"): "true"})
}

fn aggregated(name: &str, labels: Value) -> Value {
    let mut role = cluster_role(name, labels, Vec::new());
    role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": aggregated_to(name)}]});
    role
}

fn binding(name: &str, role: &str, subjects: Value) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "ClusterRoleBinding", "metadata": metadata(name, json!({})),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    })
}

/// Binds a role of the system namespace to a subject, under the role's name.
fn namespaced_binding(role: &str, subjects: Value) -> Value {
    let mut metadata = metadata(role, json!({}));
    metadata["namespace"] = SYSTEM.into();
    json!({
        "apiVersion": API_VERSION, "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
        "subjects": subjects,
    })
}

/// A role in the system namespace.
fn namespaced_role(name: &str, rules: Vec<Value>) -> Value {
    let mut metadata = metadata(name, json!({}));
    metadata["namespace"] = SYSTEM.into();
    json!({"apiVersion": API_VERSION, "kind": "Role", "metadata": metadata, "rules": rules})
}

fn groups(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name})).collect()
}

/// Every role and binding to make where it is missing, and to keep up to date.
pub(crate) fn rbac_objects() -> Vec<Value> {
    let account = |name: &str| json!([{"kind": "ServiceAccount", "name": name, "namespace": SYSTEM}]);
    let everybody = ["system:authenticated", "system:unauthenticated"];
    let mut objects = user::roles();
    objects.extend(system::public());
    objects.extend([system::node(), system::controllers()]);
    objects.extend(knative::roles());
    objects.extend(knative::parts());
    objects.extend(eventing::roles());
    objects.extend([
        binding("cluster-admin", "cluster-admin", groups(&["system:masters"])),
        binding("system:discovery", "system:discovery", groups(&["system:authenticated"])),
        binding("system:basic-user", "system:basic-user", groups(&["system:authenticated"])),
        binding("system:public-info-viewer", "system:public-info-viewer", groups(&everybody)),
        binding(
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            groups(&["system:serviceaccounts"]),
        ),
        binding("system:monitoring", "system:monitoring", groups(&["system:monitoring"])),
        binding("system:node", "system:node", groups(&["system:nodes"])),
        binding("knative-serving-controller-admin", "knative-serving-admin", account(CONTROLLER)),
        binding(
            "knative-serving-controller-addressable-resolver",
            "knative-serving-aggregated-addressable-resolver",
            account(CONTROLLER),
        ),
        binding("knative-eventing-controller", "knative-eventing-controller", account(CONTROLLER)),
        binding("knative-eventing-controller-resolver", "addressable-resolver", account(CONTROLLER)),
        binding("knative-eventing-controller-manipulator", "channelable-manipulator", account(CONTROLLER)),
        binding("knative-eventing-controller-observer", "source-observer", account(CONTROLLER)),
        binding("knative-eventing-controller-podspecable", "podspecable-binding", account(CONTROLLER)),
        binding("knoll-kubernetes-controllers", "system:kube-controller-manager", account(CONTROLLER)),
        binding("knoll-autoscaler", "knoll-autoscaler", account(AUTOSCALER)),
        binding("knoll-gateway", "knoll-gateway", account(GATEWAY)),
        binding("knoll-gateway-routes", "knoll-routes", account(GATEWAY)),
        binding("knoll-node-routes", "knoll-routes", groups(&["system:nodes"])),
        namespaced_binding("knoll-gateway", account(GATEWAY)),
        namespaced_binding("knoll-autoscaler", account(AUTOSCALER)),
    ]);
    objects
}

/// The accounts of the control plane's own parts.
pub(crate) fn accounts() -> Vec<Value> {
    let account = |name: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": SYSTEM}});
    [CONTROLLER, AUTOSCALER, GATEWAY].map(account).into()
}
