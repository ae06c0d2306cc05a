//! The four kinds of patches.

use crate::support::{Answer, Harness, config_map, deployment};
use knoll_apiserver::UserInfo;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn patch(h: &Harness, path: &str, media_type: &str, body: Value) -> Answer {
    h.send_as(UserInfo::admin(), "PATCH", path, media_type, body).await
}

#[tokio::test]
async fn json_patches_apply_or_are_refused_as_a_whole() {
    let h = Harness::new().await;
    h.post(MAPS, config_map("a", json!({"k": "v"}))).await.expect(201);
    let path = format!("{MAPS}/a");
    let good =
        json!([{"op": "replace", "path": "/data/k", "value": "w"}, {"op": "add", "path": "/data/l", "value": "x"}]);
    assert_eq!(h.send("PATCH", &path, good).await.expect(200)["data"], json!({"k": "w", "l": "x"}));
    let bad = json!([{"op": "test", "path": "/data/k", "value": "v"}, {"op": "remove", "path": "/data/k"}]);
    let message = h.send("PATCH", &path, bad).await.failure(422);
    assert_eq!(message, "the server rejected our request due to an error in our request");
    patch(&h, &path, "application/json", json!({})).await.expect(415);
}

#[tokio::test]
async fn strategic_patches_know_lists_by_key_and_are_not_for_custom_resources() {
    let h = Harness::new().await;
    h.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    let body = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    let media_type = "application/strategic-merge-patch+json";
    let patched = patch(&h, &format!("{DEPLOYMENTS}/d"), media_type, body).await.expect(200);
    let container = &patched["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&container["image"], &container["imagePullPolicy"]), (&json!("i:2"), &json!("IfNotPresent")));
    let routes = "/apis/serving.knative.dev/v1/namespaces/default/routes/r";
    patch(&h, routes, media_type, json!({})).await.expect(415);
}

#[tokio::test]
async fn apply_creates_owns_and_conflicts() {
    let h = Harness::new().await;
    let media_type = "application/apply-patch+yaml";
    let path = |manager: &str| format!("{MAPS}/a?fieldManager={manager}");
    let config = config_map("a", json!({"k": "1"}));
    let made = patch(&h, &path("one"), media_type, config.clone()).await.expect(201);
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "one");
    let same = patch(&h, &path("one"), media_type, config).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let other = config_map("a", json!({"k": "2"}));
    let conflict = patch(&h, &path("two"), media_type, other.clone()).await.expect(409);
    assert_eq!(conflict["details"]["causes"][0]["reason"], "FieldManagerConflict");
    assert_eq!(conflict["details"]["causes"][0]["message"], "conflict with \"one\"");
    let forced = patch(&h, &format!("{}&force=true", path("two")), media_type, other).await.expect(200);
    assert_eq!(forced["data"]["k"], "2");
    patch(&h, &format!("{MAPS}/a"), media_type, config_map("a", json!({}))).await.expect(422);
}

#[tokio::test]
async fn unknown_fields_warn_or_are_refused() {
    let h = Harness::new().await;
    let mut object = config_map("a", json!({}));
    object["dataa"] = json!({"k": "v"});
    let message = h.post(&format!("{MAPS}?fieldValidation=Strict"), object.clone()).await.failure(400);
    assert!(message.contains("strict decoding error: unknown field \"dataa\""), "{message}");
    let twice = r#"{"metadata": {"name": "b"}, "data": {"k": "1", "k": "2"}}"#;
    let message = h.send_text("POST", &format!("{MAPS}?fieldValidation=Strict"), twice).await.failure(400);
    assert!(message.contains("duplicate field \"data.k\""), "{message}");
    let answer = h.post(MAPS, object).await;
    assert_eq!(answer.warnings(), [r#"299 - "unknown field \"dataa\"""#]);
    assert!(answer.expect(201).get("dataa").is_none());
}
