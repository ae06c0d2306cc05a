//! What a request may bring, and what it may become.

use crate::support::{Harness, config_map, deployment};
use knoll_apiserver::UserInfo;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const KNATIVE: &str = "/apis/serving.knative.dev/v1/namespaces/default/services";

async fn send(h: &Harness, method: &str, path: &str, media_type: &str, text: String) -> (u16, String) {
    let answer = h.send_raw(UserInfo::admin(), method, path, media_type, text).await;
    let code = answer.code;
    (code, answer.json()["message"].as_str().unwrap_or_default().to_owned())
}

fn nested(depth: usize) -> String {
    format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth))
}

#[tokio::test]
async fn twenty_copies_do_not_become_gigabytes() {
    let h = Harness::new().await;
    h.post(MAPS, config_map("a", json!({"k": "x".repeat(1000)}))).await.expect(201);
    let copies: Vec<Value> =
        (0..20).map(|at| json!({"op": "copy", "from": "/data", "path": format!("/data/a{at}")})).collect();
    let message = h.send("PATCH", &format!("{MAPS}/a"), Value::Array(copies)).await.failure(413);
    assert!(message.contains("copies of a JSON patch"), "{message}");
    assert_eq!(h.get(&format!("{MAPS}/a")).await.expect(200)["data"].as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn no_body_is_deeper_than_what_can_be_read_again() {
    let h = Harness::new().await;
    let service = |affinity: &str| {
        format!(
            r#"{{"metadata": {{"name": "s"}}, "spec": {{"template": {{"spec": {{"affinity": {affinity}, "containers": [{{"image": "i"}}]}}}}}}}}"#
        )
    };
    let (code, message) = send(&h, "POST", KNATIVE, "application/json", service(&nested(120))).await;
    assert_eq!(code, 400);
    assert!(message.contains("nests deeper than 100 levels"), "{message}");
    for media_type in ["application/yaml", "application/apply-patch+yaml"] {
        let (method, path) = if media_type == "application/yaml" {
            ("POST", KNATIVE.to_owned())
        } else {
            ("PATCH", format!("{KNATIVE}/s?fieldManager=m"))
        };
        assert_eq!(send(&h, method, &path, media_type, service(&nested(120))).await.0, 400, "{media_type}");
    }
    h.post(MAPS, config_map("a", json!({}))).await.expect(201);
    for media_type in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
        let text = format!(r#"{{"metadata": {{"annotations": {}}}}}"#, nested(120));
        assert_eq!(send(&h, "PATCH", &format!("{MAPS}/a"), media_type, text).await.0, 400, "{media_type}");
    }
    // What is stored reads back, whatever stands around it.
    h.get("/apis/serving.knative.dev/v1/services").await.expect(200);
}

#[tokio::test]
async fn an_object_is_as_long_as_a_cluster_takes_it() {
    let h = Harness::new().await;
    let long = |name: &str, length: usize| {
        let mut object = deployment(name);
        object["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["x".repeat(length)]);
        object
    };
    h.post(DEPLOYMENTS, long("small", 1_500_000)).await.expect(201);
    let message = h.post(DEPLOYMENTS, long("large", 1_600_000)).await.failure(413);
    assert!(message.starts_with("etcdserver: request is too large"), "{message}");
    let grown = json!({"metadata": {"annotations": {"a": "y".repeat(200_000)}}});
    let message = h.send("PATCH", &format!("{DEPLOYMENTS}/small"), grown).await.failure(413);
    assert!(message.starts_with("etcdserver: request is too large"), "{message}");
    let text = long("huge", 3 << 20).to_string();
    let (code, message) = send(&h, "POST", DEPLOYMENTS, "application/json", text).await;
    assert_eq!((code, message.as_str()), (413, "Request entity too large: limit is 3145728"));
}

#[tokio::test]
async fn small_text_does_not_become_much_memory() {
    let h = Harness::new().await;
    let text = format!(r#"{{"metadata": {{"name": "a"}}, "data": [{}{{}}]}}"#, r#"{"a":1},"#.repeat(200_000));
    let (code, message) = send(&h, "POST", MAPS, "application/json", text).await;
    assert_eq!(code, 400);
    assert!(message.contains("more memory"), "{message}");
}
