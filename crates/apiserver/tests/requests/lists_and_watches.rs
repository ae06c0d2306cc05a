//! Many objects: lists, pages, selectors, and changes as they happen.

use crate::support::{Harness, config_map, names};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn labelled(h: &Harness, name: &str, tier: &str) -> Value {
    let mut object = config_map(name, json!({}));
    object["metadata"]["labels"] = json!({"tier": tier});
    h.post(MAPS, object).await.expect(201)
}

#[tokio::test]
async fn pages_show_the_state_of_the_first_one() {
    let h = Harness::new().await;
    for name in ["a", "b", "c", "d"] {
        h.post(MAPS, config_map(name, json!({}))).await.expect(201);
    }
    let first = h.get(&format!("{MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    h.send("DELETE", &format!("{MAPS}/c"), Value::Null).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = h.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = h.get(&format!("{MAPS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&last), ["kube-root-ca.crt"]);
    assert!(last["metadata"].get("continue").is_none());
}

#[tokio::test]
async fn selectors_choose_and_unknown_fields_are_refused() {
    let h = Harness::new().await;
    labelled(&h, "a", "web").await;
    labelled(&h, "b", "db").await;
    let list = h.get(&format!("{MAPS}?labelSelector=tier+in+(web)")).await.expect(200);
    assert_eq!(names(&list), ["a"]);
    let list = h.get(&format!("{MAPS}?fieldSelector=metadata.name%3Db")).await.expect(200);
    assert_eq!(names(&list), ["b"]);
    let message = h.get(&format!("{MAPS}?fieldSelector=data.a%3Db")).await.failure(400);
    assert_eq!(message, r#""data.a" is not a known field selector: only "metadata.name", "metadata.namespace""#);
}

#[tokio::test]
async fn a_revision_of_the_future_is_a_retryable_timeout() {
    let h = Harness::new().await;
    let status = h.get(&format!("{MAPS}?resourceVersion=999999")).await.expect(504);
    assert!(status["message"].as_str().unwrap().starts_with("Timeout: Too large resource version: 999999, current: "));
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    h.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await.expect(422);
    h.get(&format!("{MAPS}?resourceVersion=x")).await.expect(400);
}

#[tokio::test]
async fn a_watch_from_a_revision_shows_what_came_after_with_true_types() {
    let h = Harness::new().await;
    let first = h.post(MAPS, config_map("a", json!({}))).await.expect(201);
    h.send("PATCH", &format!("{MAPS}/a"), json!({"data": {"k": "v"}})).await.expect(200);
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut events = h.watch(&format!("{MAPS}?watch=true&resourceVersion={version}")).await;
    assert_eq!(events.brief().await, "MODIFIED a");
    h.post(MAPS, config_map("b", json!({}))).await.expect(201);
    assert_eq!(events.brief().await, "ADDED b");
    h.send("DELETE", &format!("{MAPS}/a"), Value::Null).await.expect(200);
    let gone = events.next().await.unwrap();
    assert_eq!((&gone["type"], &gone["object"]["data"]["k"]), (&json!("DELETED"), &json!("v")));
    let of = |v: &Value| v["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(of(&gone["object"]) > of(&first));
}

#[tokio::test]
async fn a_watch_list_ends_its_first_part_with_a_marked_bookmark() {
    let h = Harness::new().await;
    h.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let path =
        format!("{MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let mut events = h.watch(&path).await;
    assert_eq!(events.brief().await, "ADDED a");
    assert_eq!(events.brief().await, "ADDED kube-root-ca.crt");
    let mark = events.next().await.unwrap();
    assert_eq!((&mark["type"], &mark["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    h.get(&format!("{MAPS}?watch=true&sendInitialEvents=true")).await.expect(422);
}

#[tokio::test]
async fn objects_enter_and_leave_a_selected_watch() {
    let h = Harness::new().await;
    let start = labelled(&h, "a", "web").await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let path = format!("{MAPS}?watch=true&resourceVersion={start}&labelSelector=tier%3Dweb");
    let mut events = h.watch(&path).await;
    h.send("PATCH", &format!("{MAPS}/a"), json!({"metadata": {"labels": {"tier": "db"}}})).await.expect(200);
    let left = events.next().await.unwrap();
    assert_eq!((&left["type"], &left["object"]["metadata"]["labels"]["tier"]), (&json!("DELETED"), &json!("web")));
    h.send("PATCH", &format!("{MAPS}/a"), json!({"metadata": {"labels": {"tier": "web"}}})).await.expect(200);
    assert_eq!(events.brief().await, "ADDED a");
}

#[tokio::test]
async fn a_watch_ends_on_time_with_a_bookmark() {
    let h = Harness::new().await;
    tokio::time::pause();
    let path =
        format!("{MAPS}?watch=true&resourceVersion={}&allowWatchBookmarks=true&timeoutSeconds=5", h.store.revision());
    let mut events = h.watch(&path).await;
    assert_eq!(events.next().await.unwrap()["type"], "BOOKMARK");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn tables_have_columns_rows_and_metadata() {
    let h = Harness::new().await;
    h.post(MAPS, config_map("a", json!({"x": "1", "y": "2"}))).await.expect(201);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = h.get_as(MAPS, accept).await.expect(200);
    assert_eq!((&table["kind"], &table["columnDefinitions"][1]["name"]), (&json!("Table"), &json!("Data")));
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..2], [json!("a"), json!(2)]);
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = h.get_as(MAPS, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await.expect(200);
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert!(partial["items"][0].get("data").is_none());
}
