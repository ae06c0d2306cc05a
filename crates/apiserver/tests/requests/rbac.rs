//! Who may do what, and that nobody gives away what they do not hold.

use crate::support::{Answer, Harness, config_map};
use knoll_apiserver::{UserInfo, auth};
use serde_json::{Value, json};

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const CLUSTER_BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

fn user(name: &str) -> UserInfo {
    UserInfo::new(name, &["system:authenticated"])
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "User", "name": user}],
    })
}

fn role(name: &str, rules: Value) -> Value {
    json!({"metadata": {"name": name}, "rules": rules})
}

/// Grants `user` a ClusterRole in the namespace `default`.
async fn grant(h: &Harness, user: &str, role: &str) {
    h.post(BINDINGS, binding(&format!("{user}-{role}"), "ClusterRole", role, user)).await.expect(201);
}

async fn send(h: &Harness, who: &str, method: &str, path: &str, body: Value) -> Answer {
    let media_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    h.send_as(user(who), method, path, media_type, body).await
}

#[tokio::test]
async fn a_namespace_admin_grants_what_they_hold_and_nothing_else() {
    let h = Harness::new().await;
    grant(&h, "ann", "admin").await;
    let own = role("own", json!([{"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["get", "list"]}]));
    send(&h, "ann", "POST", ROLES, own).await.expect(201);
    let more = role("more", json!([{"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get"]}]));
    assert_eq!(
        send(&h, "ann", "POST", ROLES, more).await.failure(403),
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"ann\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}"
    );
    // By a change, as well.
    let all = json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    send(&h, "ann", "PATCH", &format!("{ROLES}/own"), all).await.expect(403);
    // Every way leads through the same question: a PUT that makes the role, too.
    let made =
        json!({"metadata": {"name": "put"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    send(&h, "ann", "PUT", &format!("{ROLES}/put"), made).await.expect(403);

    let escalate = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["escalate"]}]);
    h.post(ROLES, role("escalate", escalate)).await.expect(201);
    h.post(BINDINGS, binding("ann-escalate", "Role", "escalate", "ann")).await.expect(201);
    let more = role("more", json!([{"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get"]}]));
    send(&h, "ann", "POST", ROLES, more).await.expect(201);
}

#[tokio::test]
async fn a_binding_gives_away_no_role_that_its_writer_does_not_hold() {
    let h = Harness::new().await;
    grant(&h, "ann", "admin").await;
    send(&h, "ann", "POST", BINDINGS, binding("view", "ClusterRole", "view", "bob")).await.expect(201);
    send(&h, "ann", "POST", BINDINGS, binding("self", "ClusterRole", "admin", "bob")).await.expect(201);
    let message =
        send(&h, "ann", "POST", BINDINGS, binding("all", "ClusterRole", "cluster-admin", "ann")).await.failure(403);
    assert!(
        message.ends_with(
            "{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}\n{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}"
        ),
        "{message}"
    );
    let message = send(&h, "ann", "POST", BINDINGS, binding("none", "Role", "missing", "ann")).await.failure(404);
    assert_eq!(message, "roles.rbac.authorization.k8s.io \"missing\" not found");
    // Outside the namespace it may do nothing at all.
    send(&h, "ann", "POST", CLUSTER_BINDINGS, binding("c", "ClusterRole", "view", "ann")).await.expect(403);

    let bind = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
        "resourceNames": ["system:node"], "verbs": ["bind"]}]);
    h.post(ROLES, role("bind", bind)).await.expect(201);
    h.post(BINDINGS, binding("ann-bind", "Role", "bind", "ann")).await.expect(201);
    send(&h, "ann", "POST", BINDINGS, binding("node", "ClusterRole", "system:node", "bob")).await.expect(201);
    send(&h, "ann", "POST", BINDINGS, binding("all", "ClusterRole", "cluster-admin", "ann")).await.expect(403);
}

#[tokio::test]
async fn aggregation_is_for_who_holds_everything() {
    let h = Harness::new().await;
    let write = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["*"]}]);
    h.post(CLUSTER_ROLES, role("writer", write)).await.expect(201);
    h.post(CLUSTER_BINDINGS, binding("writer", "ClusterRole", "writer", "ann")).await.expect(201);
    let mut gathers = role("gathers", json!([]));
    gathers["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"part": "x"}}]});
    // `*` on its verbs holds `escalate`, too; without it aggregation is refused.
    let verbs = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
        "verbs": ["get", "create", "update", "patch"]}]);
    h.send("PATCH", &format!("{CLUSTER_ROLES}/writer"), json!({"rules": verbs})).await.expect(200);
    let message = send(&h, "ann", "POST", CLUSTER_ROLES, gathers.clone()).await.failure(403);
    assert!(message.ends_with("must have cluster-admin privileges to use the aggregationRule"), "{message}");
    h.post(CLUSTER_ROLES, gathers).await.expect(201);
    // What is gathered counts: also what a gathered role gathers.
    let mut outer = role("outer", json!([]));
    outer["aggregationRule"] =
        json!({"clusterRoleSelectors": [{"matchExpressions": [{"key": "outer", "operator": "Exists"}]}]});
    h.post(CLUSTER_ROLES, outer).await.expect(201);
    h.send("PATCH", &format!("{CLUSTER_ROLES}/gathers"), json!({"metadata": {"labels": {"outer": "yes"}}}))
        .await
        .expect(200);
    let mut part = role("part", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]));
    part["metadata"]["labels"] = json!({"part": "x"});
    h.post(CLUSTER_ROLES, part).await.expect(201);
    grant(&h, "bob", "outer").await;
    send(&h, "bob", "GET", "/api/v1/namespaces/default/configmaps/kube-root-ca.crt", Value::Null).await.expect(200);
    send(&h, "bob", "GET", "/api/v1/namespaces/default/secrets/x", Value::Null).await.expect(403);
}

#[tokio::test]
async fn the_default_roles_give_what_kubernetes_gives() {
    let h = Harness::new().await;
    for role in ["view", "edit", "admin"] {
        grant(&h, role, role).await;
    }
    let may = async |who: &str, verb: &str, group: &str, resource: &str, part: &str| {
        let review = json!({"spec": {"resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "subresource": part, "namespace": "default",
        }}});
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        send(&h, who, "POST", path, review).await.expect(201)["status"]["allowed"] == true
    };
    let ingresses = "networking.internal.knative.dev";
    for (verb, group, resource, part, who) in [
        ("get", "", "pods", "", "view edit admin"),
        ("get", "", "secrets", "", "edit admin"),
        ("create", "", "pods", "exec", "edit admin"),
        ("create", "", "serviceaccounts", "token", "edit admin"),
        ("impersonate", "", "serviceaccounts", "", "edit admin"),
        ("update", "", "pods", "status", ""),
        ("update", "", "services", "status", ""),
        ("create", "", "endpoints", "", ""),
        ("create", "discovery.k8s.io", "endpointslices", "", ""),
        ("create", "", "resourcequotas", "", ""),
        ("get", "serving.knative.dev", "services", "", "view edit admin"),
        ("create", "serving.knative.dev", "services", "", "edit admin"),
        ("update", "serving.knative.dev", "services", "status", "edit admin"),
        ("get", ingresses, "ingresses", "", "view edit admin"),
        ("create", ingresses, "ingresses", "", ""),
        ("update", "autoscaling.internal.knative.dev", "podautoscalers", "", ""),
        ("create", "rbac.authorization.k8s.io", "rolebindings", "", "admin"),
        ("create", "", "endpoints", "restricted", ""),
    ] {
        let mut allowed = Vec::new();
        for role in ["view", "edit", "admin"] {
            if may(role, verb, group, resource, part).await {
                allowed.push(role);
            }
        }
        assert_eq!(allowed.join(" "), who, "{verb} {group}/{resource}/{part}");
    }
}

#[tokio::test]
async fn default_roles_are_brought_up_to_date_and_keep_what_was_added() {
    let h = Harness::new().await;
    let edit = format!("{CLUSTER_ROLES}/system:aggregate-to-edit");
    let extra = json!({"apiGroups": ["acme.example"], "resources": ["things"], "verbs": ["get"]});
    h.send("PATCH", &edit, json!({"rules": [extra]})).await.expect(200);
    h.server.bootstrap().await.expect("starts again");
    let rules = h.get(&edit).await.expect(200)["rules"].as_array().expect("rules").clone();
    assert!(rules.len() > 5 && rules.contains(&extra), "{rules:#?}");
    let frozen = json!({"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}, "rules": [extra]});
    h.send("PATCH", &edit, frozen).await.expect(200);
    h.server.bootstrap().await.expect("starts again");
    assert_eq!(h.get(&edit).await.expect(200)["rules"], json!([extra]));
    // One of a version before this was kept becomes what it is now.
    h.send("PATCH", &edit, json!({"metadata": {"annotations": null}})).await.expect(200);
    h.server.bootstrap().await.expect("starts again");
    let rules = h.get(&edit).await.expect(200)["rules"].as_array().expect("rules").clone();
    assert!(!rules.contains(&extra), "{rules:#?}");
}

#[tokio::test]
async fn a_write_that_makes_the_object_needs_the_right_to_create_it() {
    let h = Harness::new().await;
    let change = json!([{"apiGroups": [""], "resources": ["services"], "verbs": ["get", "update", "patch"]}]);
    h.post(ROLES, role("change", change)).await.expect(201);
    h.post(BINDINGS, binding("change", "Role", "change", "ann")).await.expect(201);
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let path = "/api/v1/namespaces/default/services/s";
    let message = send(&h, "ann", "PUT", path, service.clone()).await.failure(403);
    assert!(message.contains(r#"cannot create resource "services""#), "{message}");
    let apply = format!("{path}?fieldManager=x");
    let answer = h.send_as(user("ann"), "PATCH", &apply, "application/apply-patch+yaml", service.clone()).await;
    assert!(answer.failure(403).contains("cannot create"), "apply makes it as well");
    h.post("/api/v1/namespaces/default/services", service.clone()).await.expect(201);
    h.send_as(user("ann"), "PATCH", &apply, "application/apply-patch+yaml", service).await.expect(200);
}

#[tokio::test]
async fn a_node_writes_what_is_its_own() {
    let h = Harness::new().await;
    let node = |name: &str| json!({"metadata": {"name": name}});
    let own = auth::node_user("one");
    let as_node = async |method: &str, path: &str, body: Value| {
        h.send_as(own.clone(), method, path, "application/json", body).await
    };
    as_node("POST", "/api/v1/nodes", node("one")).await.expect(201);
    let message = as_node("POST", "/api/v1/nodes", node("two")).await.failure(403);
    assert_eq!(message, r#"nodes "two" is forbidden: node "one" is not allowed to modify node "two""#);
    h.post("/api/v1/nodes", node("two")).await.expect(201);
    as_node("PUT", "/api/v1/nodes/two/status", node("two")).await.expect(403);

    let pods = "/api/v1/namespaces/default/pods";
    let mut pod = crate::support::pod("p");
    pod["spec"]["nodeName"] = "two".into();
    let pod = h.post(pods, pod).await.expect(201);
    as_node("DELETE", &format!("{pods}/p"), Value::Null).await.expect(403);
    as_node("PUT", &format!("{pods}/p/status"), pod.clone()).await.expect(403);
    as_node("POST", pods, crate::support::pod("q")).await.expect(403);
    let bound = json!({"spec": {"boundObjectRef": {"kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]}}});
    let token = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let message = as_node("POST", token, bound).await.failure(403);
    assert!(message.ends_with("node requested token bound to a pod scheduled on a different node"), "{message}");
    as_node("POST", token, json!({"spec": {}})).await.expect(403);
    // It reads no more than it works with.
    as_node("POST", "/api/v1/namespaces/default/configmaps", config_map("c", json!({}))).await.expect(403);
    as_node("GET", "/api/v1/namespaces/default/serviceaccounts/default", Value::Null).await.expect(403);
}

#[tokio::test]
async fn roles_and_bindings_say_something_that_can_be_held() {
    let h = Harness::new().await;
    let paths = role("r", json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]));
    let message = h.post(ROLES, paths).await.failure(422);
    assert!(message.contains("namespaced rules cannot apply to non-resource URLs"), "{message}");
    let message = h.post(ROLES, role("r", json!([{"apiGroups": [""], "resources": ["pods"]}]))).await.failure(422);
    assert!(message.contains("rules[0].verbs: Required value: verbs must contain at least one value"), "{message}");
    let mut odd = binding("b", "ClusterRole", "view", "x");
    odd["subjects"][0]["kind"] = "Robot".into();
    assert!(h.post(BINDINGS, odd).await.failure(422).contains("subjects[0].kind: Unsupported value"));
    h.post(BINDINGS, binding("b", "ClusterRole", "view", "x")).await.expect(201);
    let changed = json!({"roleRef": {"name": "edit"}});
    let message = h.send("PATCH", &format!("{BINDINGS}/b"), changed).await.failure(422);
    assert!(message.contains("cannot change roleRef"), "{message}");
}

#[tokio::test]
async fn roles_that_gather_others_show_what_they_gathered() {
    let h = Harness::new().await;
    let task = tokio::spawn(h.server.clone().aggregate_roles(std::future::pending()));
    let shown = async |role: &str| h.get(&format!("{CLUSTER_ROLES}/{role}")).await.expect(200)["rules"].to_string();
    let until = async |role: &str, what: &str, there: bool| {
        let look = async {
            while shown(role).await.contains(what) != there {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), look).await.expect("is shown in time");
    };
    // Through three roles: view is part of edit, edit of admin.
    until("admin", "rolebindings", true).await;
    until("admin", "endpointslices", true).await;
    let mut part = role("mine", json!([{"apiGroups": ["acme.example"], "resources": ["things"], "verbs": ["get"]}]));
    part["metadata"]["labels"] = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
    h.post(CLUSTER_ROLES, part).await.expect(201);
    until("admin", "acme.example", true).await;
    h.send("DELETE", &format!("{CLUSTER_ROLES}/mine"), Value::Null).await.expect(200);
    until("admin", "acme.example", false).await;
    task.abort();
}

#[tokio::test]
async fn who_may_only_read_commands_runs_none() {
    let h = Harness::new().await;
    h.post("/api/v1/namespaces/default/pods", crate::support::pod("p")).await.expect(201);
    for (user, verbs) in [("reader", json!(["get"])), ("runner", json!(["get", "create"]))] {
        let parts = json!(["pods/exec", "pods/attach"]);
        h.post(ROLES, role(user, json!([{"apiGroups": [""], "resources": parts, "verbs": verbs}]))).await.expect(201);
        h.post(BINDINGS, binding(user, "Role", user, user)).await.expect(201);
    }
    for part in ["exec", "attach"] {
        let path = format!("/api/v1/namespaces/default/pods/p/{part}?command=x");
        let refused = send(&h, "reader", "GET", &path, Value::Null).await.failure(403);
        assert!(refused.contains(&format!("cannot create resource \"pods/{part}\"")), "{refused}");
        // Only the change of protocol is missing.
        let refused = send(&h, "runner", "GET", &path, Value::Null).await.failure(400);
        assert!(refused.contains("Upgrade"), "{refused}");
    }
}
