//! What the server says about itself.

use crate::support::Harness;
use serde_json::json;

#[tokio::test]
async fn both_forms_of_discovery_name_every_resource() {
    let h = Harness::new().await;
    let core = h.get("/api/v1").await.expect(200);
    let has = |name: &str| core["resources"].as_array().unwrap().iter().any(|r| r["name"] == name);
    assert!(has("pods") && has("pods/log") && has("namespaces/finalize"));
    let groups = h.get("/apis").await.expect(200);
    assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == "serving.knative.dev"));
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let aggregated = h.get_as("/apis", accept).await;
    assert_eq!(aggregated.headers["content-type"], accept);
    assert!(aggregated.headers.contains_key("etag"));
    let apps = aggregated.json()["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|g| g["metadata"]["name"] == "apps")
        .cloned()
        .unwrap();
    assert_eq!(apps["versions"][0]["version"], "v1");
}

#[tokio::test]
async fn unknown_groups_and_resources_are_told_apart() {
    let h = Harness::new().await;
    let group = h.get("/apis/nope.example/v1/things").await;
    assert_eq!((group.code, group.text.as_str()), (404, "404 page not found\n"));
    assert_eq!(h.get("/api/v1/things").await.failure(404), "the server could not find the requested resource");
    assert_eq!(h.post("/api/v1/namespaces/default/pods/x", json!({})).await.code, 405);
}

#[tokio::test]
async fn schemas_version_and_health_are_there() {
    let h = Harness::new().await;
    let index = h.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = h.get(&url).await.expect(200);
    assert!(document["components"]["schemas"].as_object().unwrap().len() > 50);
    assert_eq!(h.get("/openapi/v3/api/v1?hash=other").await.code, 301);
    let all = h.get("/openapi/v2").await.expect(200);
    assert_eq!(all["swagger"], "2.0");
    let kind = json!([{"group": "serving.knative.dev", "version": "v1", "kind": "Service"}]);
    assert_eq!(all["definitions"]["dev.knative.serving.v1.Service"]["x-kubernetes-group-version-kind"], kind);
    assert!(all["definitions"].as_object().unwrap().len() > 300);
    assert!(h.get("/version").await.expect(200)["gitVersion"].as_str().unwrap().starts_with("v1.35."));
    assert_eq!(h.get("/readyz").await.text, "ok");
}
