//! Objects: their metadata, their versions, their end.

use std::sync::Arc;

use crate::support::{Harness, config_map, deployment, names, pod};
use knoll_apiserver::node_backend::NoNode;
use knoll_journal::MemoryDisk;
use knoll_store::{Options, Store};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test]
async fn a_new_object_has_identity_and_a_second_one_of_its_name_is_refused() {
    let h = Harness::new().await;
    let made = h.post(MAPS, config_map("a", json!({"k": "v"}))).await.expect(201);
    assert_eq!(made["metadata"]["namespace"], "default");
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(made["metadata"][field].is_string(), "{field}");
    }
    assert_eq!(h.get(&format!("{MAPS}/a")).await.expect(200), made);
    let again = h.post(MAPS, config_map("a", json!({}))).await;
    assert_eq!(again.failure(409), r#"configmaps "a" already exists"#);
    assert_eq!(h.get(&format!("{MAPS}/b")).await.failure(404), r#"configmaps "b" not found"#);
}

#[tokio::test]
async fn names_can_be_generated() {
    let h = Harness::new().await;
    let object = json!({"metadata": {"generateName": "x-"}});
    let made = h.post(MAPS, object).await.expect(201);
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");
}

#[tokio::test]
async fn an_update_of_an_older_version_is_a_conflict_and_a_no_op_changes_nothing() {
    let h = Harness::new().await;
    let first = h.post(MAPS, config_map("a", json!({"k": "1"}))).await.expect(201);
    let path = format!("{MAPS}/a");
    let same = h.send("PUT", &path, first.clone()).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let mut second = first.clone();
    second["data"]["k"] = "2".into();
    h.send("PUT", &path, second.clone()).await.expect(200);
    second["data"]["k"] = "3".into();
    let message = h.send("PUT", &path, second).await.failure(409);
    assert!(message.starts_with(r#"Operation cannot be fulfilled on configmaps "a": the object has been modified"#));
    let mut blind = first;
    blind["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    h.send("PUT", &path, blind).await.expect(200);
}

#[tokio::test]
async fn what_is_wanted_and_what_is_seen_are_written_apart() {
    let h = Harness::new().await;
    let mut object = deployment("d");
    object["status"] = json!({"replicas": 9});
    let made = h.post(DEPLOYMENTS, object).await.expect(201);
    assert!(made["status"].get("replicas").is_none());
    assert_eq!(made["metadata"]["generation"], 1);
    let path = format!("{DEPLOYMENTS}/d");
    let patch = json!({"metadata": {"labels": {"l": "1"}}, "spec": {"replicas": 5}, "status": {"replicas": 2}});
    let seen = h.send("PATCH", &format!("{path}/status"), patch).await.expect(200);
    assert_eq!((&seen["status"]["replicas"], &seen["spec"]["replicas"]), (&json!(2), &json!(1)));
    assert!(seen["metadata"].get("labels").is_none());
    let wanted = h.send("PATCH", &path, json!({"spec": {"replicas": 3}, "status": {"replicas": 7}})).await.expect(200);
    assert_eq!((&wanted["status"]["replicas"], &wanted["metadata"]["generation"]), (&json!(2), &json!(2)));
}

#[tokio::test]
async fn scale_reads_and_writes_the_count() {
    let h = Harness::new().await;
    h.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d/scale");
    let scale = h.get(&path).await.expect(200);
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!(scale["status"]["selector"], "app=d");
    let scaled = h.send("PATCH", &path, json!({"spec": {"replicas": 4}})).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 4);
    let mut whole = scaled;
    whole["spec"]["replicas"] = 0.into();
    h.send("PUT", &path, whole).await.expect(200);
    let object = h.get(&format!("{DEPLOYMENTS}/d")).await.expect(200);
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(0), &json!(3)));
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let h = Harness::new().await;
    let mut object = config_map("a", json!({}));
    object["metadata"]["finalizers"] = json!(["example.com/f"]);
    h.post(MAPS, object).await.expect(201);
    let path = format!("{MAPS}/a");
    let held = h.send("DELETE", &path, Value::Null).await.expect(200);
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let again = h.send("DELETE", &path, Value::Null).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], held["metadata"]["resourceVersion"]);
    h.send("PATCH", &path, json!({"metadata": {"finalizers": ["example.com/f", "example.com/g"]}})).await.expect(422);
    h.send("PATCH", &path, json!({"metadata": {"finalizers": null}})).await.expect(200);
    h.get(&path).await.expect(404);
}

#[tokio::test]
async fn a_deletion_is_answered_with_a_status_and_honours_its_conditions() {
    let h = Harness::new().await;
    let made = h.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let path = format!("{MAPS}/a");
    let other = json!({"preconditions": {"uid": "other"}});
    assert!(
        h.send("DELETE", &path, other).await.failure(409).contains("Precondition failed: UID in precondition: other")
    );
    h.send("DELETE", &format!("{path}?dryRun=All"), Value::Null).await.expect(200);
    let status = h.send("DELETE", &path, Value::Null).await.expect(200);
    assert_eq!((&status["status"], &status["details"]["kind"]), (&json!("Success"), &json!("configmaps")));
    assert_eq!(status["details"]["uid"], made["metadata"]["uid"]);
}

#[tokio::test]
async fn deleting_in_the_foreground_leaves_the_object_for_the_collector() {
    let h = Harness::new().await;
    h.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    let held =
        h.send("DELETE", &format!("{DEPLOYMENTS}/d"), json!({"propagationPolicy": "Foreground"})).await.expect(200);
    assert_eq!(held["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert_eq!(held["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_pod_on_a_node_stays_until_the_node_is_done() {
    let h = Harness::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    h.post(pods, pod("free")).await.expect(201);
    h.send("DELETE", &format!("{pods}/free"), Value::Null).await.expect(200);
    h.get(&format!("{pods}/free")).await.expect(404);
    let made = h.post(pods, pod("bound")).await.expect(201);
    let target = json!({"target": {"kind": "Node", "name": "n"}});
    h.post(&format!("{pods}/bound/binding"), target.clone()).await.expect(201);
    h.post(&format!("{pods}/bound/binding"), target).await.expect(409);
    let going = h.send("DELETE", &format!("{pods}/bound"), Value::Null).await.expect(200);
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    let now = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": made["metadata"]["uid"]}});
    h.send("DELETE", &format!("{pods}/bound"), now).await.expect(200);
    h.get(&format!("{pods}/bound")).await.expect(404);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let h = Harness::new().await;
    h.post(&format!("{MAPS}?dryRun=All"), config_map("a", json!({}))).await.expect(201);
    h.get(&format!("{MAPS}/a")).await.expect(404);
    h.post(MAPS, config_map("a", json!({}))).await.expect(201);
    h.post(&format!("{MAPS}?dryRun=All"), config_map("a", json!({}))).await.expect(409);
    let dry = h.send("PATCH", &format!("{MAPS}/a?dryRun=All"), json!({"data": {"k": "v"}})).await.expect(200);
    assert_eq!(dry["data"]["k"], "v");
    assert!(h.get(&format!("{MAPS}/a")).await.expect(200).get("data").is_none());
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let h = Harness::new().await;
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut object = config_map(name, json!({}));
        object["metadata"]["labels"] = json!({"tier": tier});
        h.post(MAPS, object).await.expect(201);
    }
    h.send("DELETE", &format!("{MAPS}?labelSelector=tier%3Dx"), Value::Null).await.expect(200);
    let left = h.get(&format!("{MAPS}?labelSelector=tier")).await.expect(200);
    assert_eq!(names(&left), ["b"]);
}

#[tokio::test]
async fn a_full_disk_is_answered_507_and_writes_go_on_when_there_is_room() {
    let disk = MemoryDisk::default();
    let mut options = Options::default();
    options.log.room_bytes = 0;
    let store = Store::open_on(Arc::new(disk.clone()), options).unwrap();
    let h = Harness::with(tempfile::tempdir().unwrap(), store, Arc::new(NoNode)).await;
    h.post(MAPS, config_map("before", json!({"k": "v"}))).await.expect(201);
    disk.set_capacity(Some(disk.used() + 10));
    let status = h.post(MAPS, config_map("full", json!({"k": "v"}))).await.expect(507);
    assert_eq!(
        (&status["reason"], &status["details"]["retryAfterSeconds"]),
        (&json!("InsufficientStorage"), &json!(5))
    );
    let patch = json!({"data": {"k": "w"}});
    assert_eq!(h.send("PATCH", &format!("{MAPS}/before"), patch.clone()).await.code, 507);
    assert_eq!(h.send("DELETE", &format!("{MAPS}/before"), Value::Null).await.code, 507);
    assert_eq!(h.get(&format!("{MAPS}/before")).await.expect(200)["data"]["k"], "v", "what was there is still read");
    assert_eq!(h.get(&format!("{MAPS}/full")).await.code, 404);
    disk.set_capacity(None);
    assert_eq!(h.send("PATCH", &format!("{MAPS}/before"), patch).await.expect(200)["data"]["k"], "w");
    h.post(MAPS, config_map("full", json!({"k": "v"}))).await.expect(201);
}
