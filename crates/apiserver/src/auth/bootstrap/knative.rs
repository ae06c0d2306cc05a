//! Roles that come with Knative Serving.
//!
//! Who edits a namespace writes `serving.knative.dev` and reads the kinds that Knative keeps for itself: what stands in
//! `networking.internal.knative.dev` and `autoscaling.internal.knative.dev` is the controllers' alone, since an Ingress
//! leads requests for any host name anywhere.

use serde_json::{Value, json};

use super::{ALL, READ, aggregated_to, cluster_role, namespaced_role, rule};

const SERVING: &str = "serving.knative.dev";
/// Kinds that Knative's controllers keep for themselves.
const INTERNAL: &[&str] =
    &["autoscaling.internal.knative.dev", "caching.internal.knative.dev", "networking.internal.knative.dev"];
/// Everything that Knative's controllers write.
const KNATIVE: &[&str] =
    &[SERVING, "autoscaling.internal.knative.dev", "caching.internal.knative.dev", "networking.internal.knative.dev"];

pub(super) fn roles() -> Vec<Value> {
    let read_all = || rule(KNATIVE, &["*"], READ);
    let mut addressable = cluster_role("knative-serving-aggregated-addressable-resolver", json!({}), Vec::new());
    addressable["aggregationRule"] =
        json!({"clusterRoleSelectors": [{"matchLabels": {"duck.knative.dev/addressable": "true"}}]});
    let mut admin = cluster_role("knative-serving-admin", json!({}), Vec::new());
    admin["aggregationRule"] =
        json!({"clusterRoleSelectors": [{"matchLabels": {"serving.knative.dev/controller": "true"}}]});
    vec![
        cluster_role(
            "knative-serving-namespaced-admin",
            aggregated_to("admin"),
            vec![rule(&[SERVING], &["*"], &["*"]), rule(INTERNAL, &["*"], READ)],
        ),
        cluster_role(
            "knative-serving-namespaced-edit",
            aggregated_to("edit"),
            vec![rule(&[SERVING], &["*"], &["create", "update", "patch", "delete"]), rule(INTERNAL, &["*"], READ)],
        ),
        cluster_role("knative-serving-namespaced-view", aggregated_to("view"), vec![read_all()]),
        admin,
        core(),
        addressable,
        cluster_role(
            "knative-serving-addressable-resolver",
            json!({"duck.knative.dev/addressable": "true"}),
            vec![rule(&[SERVING], &["routes", "routes/status", "services", "services/status"], READ)],
        ),
        cluster_role(
            "knative-serving-podspecable-binding",
            json!({"duck.knative.dev/podspecable": "true"}),
            vec![rule(&[SERVING], &["configurations", "services"], &["list", "watch", "patch"])],
        ),
    ]
}

/// What Knative's controllers do.
fn core() -> Value {
    let core = ["pods", "namespaces", "secrets", "configmaps", "endpoints", "services", "events", "serviceaccounts"];
    cluster_role(
        "knative-serving-core",
        json!({"serving.knative.dev/controller": "true"}),
        vec![
            rule(&[""], &core, ALL),
            // Addresses of the machine's own, which only they may publish.
            rule(&[""], &["endpoints/restricted"], &["create"]),
            rule(&["discovery.k8s.io"], &["endpointslices/restricted"], &["create"]),
            rule(&[""], &["namespaces/finalizers"], &["update"]),
            rule(&["discovery.k8s.io"], &["endpointslices"], ALL),
            rule(&["apps"], &["deployments", "deployments/finalizers"], ALL),
            rule(&["autoscaling"], &["horizontalpodautoscalers"], ALL),
            rule(&["coordination.k8s.io"], &["leases"], ALL),
            rule(&["*"], &["*/scale"], &["get", "update", "patch"]),
            rule(KNATIVE, &["*", "*/status", "*/finalizers"], ALL),
            rule(&["apiextensions.k8s.io"], &["customresourcedefinitions"], READ),
        ],
    )
}

/// What the parts do that may be processes of their own: each its own work and no other's.
pub(super) fn parts() -> Vec<Value> {
    let (scaling, routing) = ("autoscaling.internal.knative.dev", "networking.internal.knative.dev");
    let events = || rule(&[""], &["events"], &["create", "update", "patch"]);
    let change = ["update", "patch"];
    let routes = vec![
        rule(&[routing], &["ingresses", "serverlessservices"], READ),
        rule(&[SERVING], &["revisions"], READ),
        rule(&[scaling], &["podautoscalers"], READ),
        rule(&[""], &["pods", "services", "endpoints", "configmaps"], READ),
    ];
    let scale = vec![
        rule(&[scaling], &["podautoscalers"], READ),
        rule(&[scaling], &["podautoscalers/status", "metrics/status"], &change),
        rule(&[scaling], &["podautoscalers/finalizers"], &["update"]),
        rule(&[scaling], &["metrics"], ALL),
        rule(&[routing], &["serverlessservices"], ALL),
        rule(&["apps"], &["deployments", "replicasets"], READ),
        rule(&["apps"], &["deployments/scale"], &["get", "update", "patch"]),
        rule(&[""], &["pods", "endpoints", "configmaps"], READ),
        events(),
    ];
    // Its Services lead to addresses of the machine's own, which only few may publish.
    let places = vec![
        rule(&[""], &["services", "endpoints"], &["get", "create", "patch"]),
        rule(&[""], &["services/status"], &["patch"]),
        rule(&[""], &["endpoints/restricted"], &["create"]),
        rule(&["discovery.k8s.io"], &["endpointslices/restricted"], &["create"]),
    ];
    vec![
        cluster_role("knoll-routes", json!({}), routes),
        cluster_role("knoll-gateway", json!({}), vec![rule(&[routing], &["ingresses/status"], &change), events()]),
        namespaced_role("knoll-gateway", places),
        cluster_role("knoll-autoscaler", json!({}), scale),
        namespaced_role(
            "knoll-autoscaler",
            vec![rule(&["coordination.k8s.io"], &["leases"], &["get", "create", "update"])],
        ),
    ]
}
