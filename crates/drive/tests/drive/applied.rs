//! What kubectl applied last is not kept twice, and not lost.

use knoll_api::{Key, Kind};
use serde_json::json;

use crate::{cluster, start};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[tokio::test(start_paused = true)]
async fn an_object_that_is_replaced_keeps_what_kubectl_applied_last() {
    let fake = cluster();
    let _running = start(&fake);
    let text = r#"{"spec":{"replicas":0}}"#;
    fake.put(
        Kind::Deployment,
        json!({"metadata": {"namespace": "a", "name": "d", "annotations": {LAST_APPLIED: text}}, "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
    );
    let annotations = |fake: &crate::Fake| {
        let deployment = fake.get(Kind::Deployment, &Key::new("a", "d")).unwrap_or_default();
        deployment["metadata"]["annotations"].clone()
    };
    fake.until("the controller has written its revision on it", |fake| {
        annotations(fake)["deployment.kubernetes.io/revision"].is_string()
    })
    .await;
    assert_eq!(annotations(&fake)[LAST_APPLIED], text);
    let sets = fake.all(Kind::ReplicaSet);
    assert!(sets[0]["metadata"]["annotations"][LAST_APPLIED].is_null(), "a child does not carry it");
}
