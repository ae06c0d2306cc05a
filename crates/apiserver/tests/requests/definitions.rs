//! Definitions of resources come and go with everything of theirs.

use std::time::Duration;

use crate::support::Harness;
use knoll_store::{Durability, Expect};
use serde_json::{Value, json};

pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(crate) const THINGS: &str = "/apis/example.com/v1/namespaces/default/things";

pub(crate) fn definition() -> Value {
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
        "type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing"}, "versions": [version]}})
}

async fn until_gone(h: &Harness, path: &str) {
    let gone = async {
        while h.get(path).await.code != 404 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("gone in time");
}

#[tokio::test]
async fn a_definition_goes_after_its_objects_and_makes_room_for_another() {
    let h = Harness::new().await;
    h.post(DEFINITIONS, definition()).await.expect(201);
    for name in ["a", "b"] {
        h.post(THINGS, json!({"metadata": {"name": name}})).await.expect(201);
    }
    let path = format!("{DEFINITIONS}/things.example.com");
    h.send("DELETE", &path, Value::Null).await.expect(200);
    until_gone(&h, &path).await;
    assert_eq!(h.get(THINGS).await.code, 404);
    h.post(DEFINITIONS, definition()).await.expect(201);
    let list = h.get(THINGS).await.expect(200);
    assert_eq!(list["items"], json!([]), "nothing of the old one");
}

#[tokio::test]
async fn a_custom_resource_is_held_for_the_collector_as_others_are() {
    let h = Harness::new().await;
    h.post(DEFINITIONS, definition()).await.expect(201);
    let path = format!("{THINGS}/a");
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        let made = h.post(THINGS, json!({"metadata": {"name": "a"}})).await.expect(201);
        let answer = h.send("DELETE", &path, json!({"propagationPolicy": policy})).await;
        assert!(answer.warnings().is_empty(), "{policy}");
        assert_eq!(answer.expect(200)["metadata"]["finalizers"], json!([finalizer]));
        // What the collector does once nothing is left to do.
        let mut patch = json!({"metadata": {"finalizers": [], "uid": "another"}});
        h.send("PATCH", &path, patch.clone()).await.expect(409);
        patch["metadata"]["uid"] = made["metadata"]["uid"].clone();
        h.send("PATCH", &path, patch).await.expect(200);
        h.get(&path).await.expect(404);
    }
    h.post(THINGS, json!({"metadata": {"name": "a"}})).await.expect(201);
    h.send("DELETE", &path, json!({"propagationPolicy": "Background"})).await.expect(200);
    h.get(&path).await.expect(404);
}

#[tokio::test]
async fn an_event_is_held_for_nobody() {
    let h = Harness::new().await;
    let events = "/api/v1/namespaces/default/events";
    h.post(
        events,
        json!({"metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"namespace": "default"}, "reason": "Tested"}),
    )
    .await
    .expect(201);
    h.send("DELETE", &format!("{events}/e"), json!({"propagationPolicy": "Foreground"})).await.expect(200);
    h.get(&format!("{events}/e")).await.expect(404);
}

#[tokio::test]
async fn a_deprecated_version_says_so_with_every_answer() {
    let h = Harness::new().await;
    let mut definition = definition();
    let mut old = definition["spec"]["versions"][0].clone();
    (old["name"], old["storage"], old["deprecated"]) = ("v1beta1".into(), false.into(), true.into());
    definition["spec"]["versions"].as_array_mut().unwrap().push(old.clone());
    (old["name"], old["deprecationWarning"]) = ("v1alpha1".into(), "leave it".into());
    definition["spec"]["versions"].as_array_mut().unwrap().push(old);
    h.post(DEFINITIONS, definition).await.expect(201);
    assert!(h.post(THINGS, json!({"metadata": {"name": "a"}})).await.warnings().is_empty());
    let old = h.get(&format!("{}/a", THINGS.replace("v1", "v1beta1"))).await;
    assert_eq!(old.warnings(), ["299 - \"example.com/v1beta1 Thing is deprecated\""]);
    let oldest = h.get(&THINGS.replace("v1", "v1alpha1")).await;
    assert_eq!(oldest.warnings(), ["299 - \"leave it\""]);
}

#[tokio::test]
async fn nothing_is_made_while_a_definition_goes_and_what_is_held_holds_it() {
    let h = Harness::new().await;
    h.post(DEFINITIONS, definition()).await.expect(201);
    h.post(THINGS, json!({"metadata": {"name": "a", "finalizers": ["example.com/f"]}})).await.expect(201);
    let path = format!("{DEFINITIONS}/things.example.com");
    h.send("DELETE", &path, Value::Null).await.expect(200);
    let message = h.post(THINGS, json!({"metadata": {"name": "b"}})).await.failure(405);
    assert_eq!(message, "create not allowed while custom resource definition is terminating");
    h.post(DEFINITIONS, definition()).await.expect(409);
    let held = h.get(&format!("{THINGS}/a")).await.expect(200);
    let marked = async {
        while h.get(&format!("{THINGS}/a")).await.expect(200)["metadata"].get("deletionTimestamp").is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), marked).await.expect("asked to go");
    assert!(held["metadata"]["uid"].is_string());
    h.send("PATCH", &format!("{THINGS}/a"), json!({"metadata": {"finalizers": []}})).await.expect(200);
    until_gone(&h, &path).await;
}

#[tokio::test]
async fn a_deletion_that_a_crash_cut_short_is_finished_at_the_next_start() {
    let h = Harness::new().await;
    h.post(DEFINITIONS, definition()).await.expect(201);
    h.post(THINGS, json!({"metadata": {"name": "a"}})).await.expect(201);
    // The state in which a crash leaves it: marked, and nobody at work.
    let key = "/apiextensions.k8s.io/customresourcedefinitions//things.example.com";
    let stored: Value = serde_json::from_slice(&h.store.get(key).unwrap().value).unwrap();
    let other = Harness::over(h.store.clone()).await;
    drop(h);
    let mut marked = stored;
    marked["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    marked["metadata"]["finalizers"] = json!(["customresourcecleanup.apiextensions.k8s.io"]);
    let text = marked.to_string();
    other.store.put(key, text.into_bytes().into(), Expect::Any, Durability::Durable).await.unwrap();
    until_gone(&other, &format!("{DEFINITIONS}/things.example.com")).await;
    assert!(other.store.get("/example.com/things/default/a").is_none());
}

/// One definition and one object, both as large as they may be, do not occupy the server.
#[tokio::test]
async fn what_a_schema_makes_of_an_object_is_bounded() {
    let h = Harness::new().await;
    let mut heavy = definition();
    let many: Vec<Value> = (0..20_000).map(|at| json!({"minimum": at, "type": "integer"})).collect();
    heavy["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({"type": "object", "properties": {
        "tried": {"type": "array", "items": {"anyOf": many}},
        "filled": {"type": "array", "items": {"type": "object", "properties": {
            "text": {"type": "string", "default": "x".repeat(200_000)}}}}}});
    h.post(DEFINITIONS, heavy).await.expect(201);
    let tried = json!({"metadata": {"name": "a"}, "tried": vec!["x"; 200_000]});
    let message = h.post(THINGS, tried).await.failure(422);
    assert!(message.contains("takes more than 10000000 steps"), "{message}");
    let filled = json!({"metadata": {"name": "a"}, "filled": vec![json!({}); 20_000]});
    let message = h.post(THINGS, filled).await.failure(413);
    assert!(message.contains("the object with the defaults of its schema would take more memory"), "{message}");
    h.post(THINGS, json!({"metadata": {"name": "a"}, "tried": [20_001], "filled": [{}]})).await.expect(201);
}
