//! What a namespace may hold at most.

use std::time::Duration;

use crate::support::{Harness, config_map, pod};
use serde_json::{Value, json};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn quota(spec: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": spec})
}

fn asking(name: &str, cpu: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
    pod
}

/// The quota, once what it counts is this.
async fn used(h: &Harness, wanted: Value) {
    let counts = async {
        loop {
            let quota = h.get(&format!("{QUOTAS}/q")).await.expect(200);
            if quota["status"]["used"] == wanted {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), counts).await.expect("the status follows");
}

#[tokio::test]
async fn pods_that_ask_for_too_much_are_refused() {
    let h = Harness::new().await;
    h.post(QUOTAS, quota(json!({"hard": {"cpu": "500m", "pods": "5"}}))).await.expect(201);
    used(&h, json!({"cpu": "0", "pods": "0"})).await;
    h.post(PODS, asking("a", "300m")).await.expect(201);
    used(&h, json!({"cpu": "300m", "pods": "1"})).await;
    assert_eq!(
        h.post(PODS, asking("b", "300m")).await.failure(403),
        r#"pods "b" is forbidden: exceeded quota: q, requested: cpu=300m, used: cpu=300m, limited: cpu=500m"#
    );
    assert_eq!(
        h.post(PODS, pod("c")).await.failure(403),
        r#"pods "c" is forbidden: failed quota: q: must specify cpu for: c"#
    );
    h.post(PODS, asking("d", "200m")).await.expect(201);
    h.send("DELETE", &format!("{PODS}/a?gracePeriodSeconds=0"), Value::Null).await.expect(200);
    used(&h, json!({"cpu": "200m", "pods": "1"})).await;
    h.post(PODS, asking("b", "300m")).await.expect(201);
}

#[tokio::test]
async fn a_quota_counts_as_soon_as_it_is_changed() {
    let h = Harness::new().await;
    h.post(QUOTAS, quota(json!({"hard": {"cpu": "500m"}}))).await.expect(201);
    h.post(PODS, asking("a", "400m")).await.expect(201);
    assert_eq!(h.post(PODS, asking("b", "400m")).await.code, 403);
    let set = async |cpu: &str| h.send("PATCH", &format!("{QUOTAS}/q"), json!({"spec": {"hard": {"cpu": cpu}}})).await;
    // Raised, the next pod has room at once, whatever the status says.
    set("800m").await.expect(200);
    h.post(PODS, asking("b", "400m")).await.expect(201);
    used(&h, json!({"cpu": "800m"})).await;
    // Lowered below what is used, it takes nothing away and lets nothing in.
    set("100m").await.expect(200);
    assert_eq!(h.get(PODS).await.expect(200)["items"].as_array().map(Vec::len), Some(2));
    let refused = h.post(PODS, asking("c", "1m")).await.failure(403);
    assert!(refused.ends_with("used: cpu=800m, limited: cpu=100m"), "{refused}");
    // What is counted anew is counted from the start.
    h.send("PATCH", &format!("{QUOTAS}/q"), json!({"spec": {"hard": {"cpu": null, "pods": "3"}}})).await.expect(200);
    used(&h, json!({"pods": "2"})).await;
    h.post(PODS, pod("c")).await.expect(201);
    assert_eq!(h.post(PODS, pod("d")).await.code, 403);
    h.send("DELETE", &format!("{QUOTAS}/q"), Value::Null).await.expect(200);
    h.post(PODS, pod("d")).await.expect(201);
}

#[tokio::test]
async fn pods_made_at_once_share_what_is_left() {
    let h = Harness::new().await;
    h.post(QUOTAS, quota(json!({"hard": {"requests.cpu": "500m"}}))).await.expect(201);
    let attempts = (0..8).map(|n| {
        let h = &h;
        async move { h.post(PODS, asking(&format!("p{n}"), "200m")).await.json()["kind"] == "Pod" }
    });
    let made = futures_util::future::join_all(attempts).await;
    assert_eq!(made.iter().filter(|made| **made).count(), 2);
}

#[tokio::test]
async fn objects_are_counted_and_scopes_respected() {
    let h = Harness::new().await;
    let before = h.get("/api/v1/namespaces/default/configmaps").await.expect(200)["items"].as_array().unwrap().len();
    let most = (before + 1).to_string();
    h.post(QUOTAS, quota(json!({"hard": {"count/configmaps": most}}))).await.expect(201);
    let maps = "/api/v1/namespaces/default/configmaps";
    h.post(maps, config_map("a", json!({}))).await.expect(201);
    let refused = h.post(maps, config_map("b", json!({}))).await.failure(403);
    assert!(refused.contains("exceeded quota: q, requested: count/configmaps=1"), "{refused}");
    let only = json!({"metadata": {"name": "best"}, "spec": {"hard": {"pods": "0"}, "scopes": ["BestEffort"]}});
    h.post(QUOTAS, only).await.expect(201);
    assert!(h.post(PODS, pod("free")).await.failure(403).contains("exceeded quota: best"));
    h.post(PODS, asking("paid", "1")).await.expect(201);
}

#[tokio::test]
async fn a_limit_range_fills_in_and_bounds_what_containers_ask_for() {
    let h = Harness::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let limits = json!([
        {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "min": {"cpu": "50m"},
         "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "5"}},
        {"type": "Pod", "max": {"cpu": "1500m"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
    ]);
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": limits}});
    h.post("/api/v1/namespaces/default/limitranges", range).await.expect(201);
    let made = h.post(pods, pod("p")).await.expect(201);
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    assert_eq!(made["status"]["qosClass"], "Burstable");
    let asking = |request: &str, limit: &str| {
        let mut pod = pod("q");
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
        pod
    };
    for (request, limit, why) in [
        ("20m", "60m", "minimum cpu usage per Container is 50m, but request is 20m"),
        (
            "1",
            "2",
            "[maximum cpu usage per Container is 1, but limit is 2, maximum cpu usage per Pod is 1500m, but limit is 2]",
        ),
        ("100m", "600m", "cpu max limit to request ratio per Container is 5, but provided ratio is 6.000000"),
    ] {
        let message = h.post(pods, asking(request, limit)).await.failure(403);
        assert_eq!(message, format!("pods \"q\" is forbidden: {why}"));
    }
    h.post(pods, asking("200m", "1")).await.expect(201);
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}});
    let message = h.post("/api/v1/namespaces/default/persistentvolumeclaims", claim).await.failure(403);
    assert!(
        message.ends_with("maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"),
        "{message}"
    );
    let odd = json!({"metadata": {"name": "o"}, "spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}});
    h.post("/api/v1/namespaces/default/limitranges", odd).await.expect(422);
}

#[tokio::test]
async fn a_quota_follows_its_own_change_and_pods_that_finish() {
    let h = Harness::new().await;
    let path = format!("{QUOTAS}/q");
    h.post(QUOTAS, quota(json!({"hard": {"requests.cpu": "500m", "pods": "1"}}))).await.expect(201);
    h.post(PODS, asking("a", "300m")).await.expect(201);
    used(&h, json!({"requests.cpu": "300m", "pods": "1"})).await;
    assert!(h.post(PODS, asking("b", "200m")).await.failure(403).contains("used: pods=1, limited: pods=1"));
    // What ran to its end no longer counts, though it is still there.
    let done = json!({"status": {"phase": "Succeeded"}});
    h.send("PATCH", &format!("{PODS}/a/status"), done).await.expect(200);
    used(&h, json!({"requests.cpu": "0", "pods": "0"})).await;
    h.post(PODS, asking("b", "200m")).await.expect(201);
    // More room lets more in, and less keeps what is there.
    h.send("PATCH", &path, json!({"spec": {"hard": {"pods": "2"}}})).await.expect(200);
    h.post(PODS, asking("c", "200m")).await.expect(201);
    h.send("PATCH", &path, json!({"spec": {"hard": {"pods": "1", "requests.cpu": null}}})).await.expect(200);
    used(&h, json!({"pods": "2"})).await;
    assert!(h.post(PODS, asking("d", "1m")).await.failure(403).contains("exceeded quota"));
    h.send("DELETE", &path, Value::Null).await.expect(200);
    h.post(PODS, asking("d", "1m")).await.expect(201);
}

#[tokio::test]
async fn scopes_choose_pods_by_their_deadline_and_priority() {
    let h = Harness::new().await;
    let class = json!({"metadata": {"name": "high"}, "value": 1000});
    h.post("/apis/scheduling.k8s.io/v1/priorityclasses", class).await.expect(201);
    let scoped = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let by_class = |operator: &str| json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": ["high"]}]});
    for (name, spec) in [
        ("ending", json!({"hard": {"pods": "1"}, "scopes": ["Terminating"]})),
        ("lasting", json!({"hard": {"pods": "2"}, "scopes": ["NotTerminating"]})),
        ("high", json!({"hard": {"pods": "1"}, "scopeSelector": by_class("In")})),
    ] {
        h.post(QUOTAS, scoped(name, spec)).await.expect(201);
    }
    let with = |name: &str, field: &str, value: Value| {
        let mut pod = pod(name);
        pod["spec"][field] = value;
        pod
    };
    h.post(PODS, with("a", "activeDeadlineSeconds", 60.into())).await.expect(201);
    let refused = h.post(PODS, with("b", "activeDeadlineSeconds", 60.into())).await.failure(403);
    assert!(refused.contains("exceeded quota: ending"), "{refused}");
    h.post(PODS, with("c", "priorityClassName", "high".into())).await.expect(201);
    let refused = h.post(PODS, with("d", "priorityClassName", "high".into())).await.failure(403);
    assert!(refused.contains("exceeded quota: high"), "{refused}");
    h.post(PODS, pod("e")).await.expect(201);
    assert!(h.post(PODS, pod("f")).await.failure(403).contains("exceeded quota: lasting"));
}

#[tokio::test]
async fn a_quota_that_cannot_be_kept_is_refused_by_its_field() {
    let h = Harness::new().await;
    for (spec, why) in [
        (json!({"hard": {"pods": "-1"}}), "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0"),
        (json!({"hard": {"pods": "500m"}}), "spec.hard[pods]: Invalid value: \"500m\": must be an integer"),
        (json!({"hard": {}, "scopes": ["Sometimes"]}), "spec.scopes[0]: Unsupported value: \"Sometimes\""),
        (json!({"hard": {}, "scopes": ["BestEffort", "NotBestEffort"]}), "conflicting scopes"),
        (
            json!({"hard": {}, "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}),
            "spec.scopeSelector.matchExpressions[0].values: Required value",
        ),
    ] {
        let message = h.post(QUOTAS, quota(spec)).await.failure(422);
        assert!(message.contains(why), "{message}");
    }
    h.post(QUOTAS, quota(json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]}))).await.expect(201);
    let moved = json!({"spec": {"scopes": ["NotBestEffort"]}});
    let message = h.send("PATCH", &format!("{QUOTAS}/q"), moved).await.failure(422);
    assert!(message.contains("spec.scopes: Invalid value") && message.contains("field is immutable"), "{message}");
}
