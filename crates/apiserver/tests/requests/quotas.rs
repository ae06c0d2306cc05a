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
