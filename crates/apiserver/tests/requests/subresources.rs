//! Writes of a subresource: of their type, and of nothing else.

use crate::support::{Harness, deployment, pod};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const KNATIVE: &str = "/apis/serving.knative.dev/v1/namespaces/default/services";

async fn account(h: &Harness) {
    let path = "/api/v1/namespaces/default/serviceaccounts";
    if h.get(&format!("{path}/default")).await.code == 404 {
        h.post(path, json!({"metadata": {"name": "default"}})).await.expect(201);
    }
}

#[tokio::test]
async fn junk_in_a_status_is_refused() {
    let h = Harness::new().await;
    account(&h).await;
    h.post(PODS, pod("p")).await.expect(201);
    let path = format!("{PODS}/p/status");
    for status in
        [json!({"phase": 5}), json!({"conditions": {"a": 1}}), json!({"containerStatuses": [{"restartCount": "x"}]})]
    {
        let message = h.send("PATCH", &path, json!({"status": status})).await.failure(400);
        assert!(message.contains("cannot be handled as a Pod"), "{message}");
    }
    let service = json!({"metadata": {"name": "s"}, "spec": {"template": {"spec": {"containers": [{"image": "example.com/app"}]}}}});
    h.post(KNATIVE, service).await.expect(201);
    let refused = h.send("PATCH", &format!("{KNATIVE}/s/status"), json!({"status": {"conditions": 1}})).await;
    let message = refused.failure(422);
    assert!(message.contains("status.conditions in body must be of type array"), "{message}");
}

#[tokio::test]
async fn a_status_leaves_the_spec_alone_and_the_object_its_status() {
    let h = Harness::new().await;
    h.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d");
    let both = json!({"spec": {"replicas": 5}, "status": {"replicas": 3},
        "metadata": {"labels": {"l": "x"}, "annotations": {"a": "x"}, "finalizers": ["example.com/f"]}});
    let changed = h.send("PATCH", &format!("{path}/status"), both.clone()).await.expect(200);
    assert_eq!((&changed["spec"]["replicas"], &changed["status"]["replicas"]), (&json!(1), &json!(3)));
    assert_eq!(changed["metadata"]["annotations"], json!({"a": "x"}));
    assert!(changed["metadata"].get("labels").is_none() && changed["metadata"].get("finalizers").is_none());
    assert_eq!(changed["metadata"]["generation"], 1);
    let changed = h.send("PATCH", &path, json!({"status": {"replicas": 9}})).await.expect(200);
    assert_eq!(changed["status"]["replicas"], 3);
}

#[tokio::test]
async fn a_scale_is_of_its_type() {
    let h = Harness::new().await;
    h.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d/scale");
    for replicas in [json!("3"), json!(5_000_000_000_i64), json!({})] {
        let message = h.send("PATCH", &path, json!({"spec": {"replicas": replicas}})).await.failure(400);
        assert!(message.contains("cannot be handled as a Scale"), "{message}");
    }
    assert_eq!(h.get(&path).await.expect(200)["spec"]["replicas"], 1);
    let scaled = h.send("PATCH", &path, json!({"spec": {"replicas": 4}})).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 4);
    assert_eq!(h.get(&format!("{DEPLOYMENTS}/d")).await.expect(200)["metadata"]["generation"], 2);
}

#[tokio::test]
async fn ephemeral_containers_bring_nothing_else_along() {
    let h = Harness::new().await;
    account(&h).await;
    h.post(PODS, pod("p")).await.expect(201);
    let patch = json!({"metadata": {"labels": {"stolen": "yes"}}, "spec": {"hostNetwork": true,
        "containers": [{"name": "c", "image": "evil"}], "ephemeralContainers": [{"name": "e", "image": "b"}]}});
    let changed = h.send("PATCH", &format!("{PODS}/p/ephemeralcontainers"), patch).await.expect(200);
    assert_eq!(changed["spec"]["ephemeralContainers"][0]["name"], "e");
    assert_eq!(changed["spec"]["containers"][0]["image"], "i:1");
    assert!(changed["spec"].get("hostNetwork").is_none() && changed["metadata"].get("labels").is_none());
}

#[tokio::test]
async fn options_of_a_deletion_are_of_their_type() {
    let h = Harness::new().await;
    h.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    h.send("DELETE", &format!("{DEPLOYMENTS}/d"), json!({"gracePeriodSeconds": "0"})).await.failure(400);
    h.send("DELETE", &format!("{DEPLOYMENTS}/d"), json!({"preconditions": {"uid": 3}})).await.failure(400);
    assert_eq!(h.get(&format!("{DEPLOYMENTS}/d")).await.code, 200);
}

#[tokio::test]
async fn finalizers_of_a_namespace_are_names() {
    let h = Harness::new().await;
    let path = "/api/v1/namespaces/default/finalize";
    let answer = h.send("PUT", path, json!({"metadata": {"name": "default"}, "spec": {"finalizers": [1]}})).await;
    answer.failure(400);
    let kept = h.get("/api/v1/namespaces/default").await.expect(200);
    assert_eq!(kept["spec"]["finalizers"], json!(["kubernetes"]));
}

#[tokio::test]
async fn applying_the_same_again_changes_nothing() {
    let h = Harness::new().await;
    let service = json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"template": {"spec": {"containers": [{"image": "example.com/app", "env": [{"name": "A", "value": "b"}]}]}}}});
    let made = h.post(KNATIVE, service.clone()).await.expect(201);
    // What kubectl sends where the list of containers is one value.
    let patch =
        json!({"spec": {"template": {"spec": {"containers": service["spec"]["template"]["spec"]["containers"]}}}});
    for path in [format!("{KNATIVE}/s?dryRun=All"), format!("{KNATIVE}/s")] {
        let same = h.send("PATCH", &path, patch.clone()).await.expect(200);
        assert_eq!(same["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"], "{path}");
        assert_eq!(same["metadata"]["generation"], 1);
        assert_eq!(same, made);
    }
    let apply = |path: String| {
        let identity = knoll_apiserver::UserInfo::admin();
        let (h, service) = (&h, service.clone());
        async move { h.send_as(identity, "PATCH", &path, "application/apply-patch+yaml", service).await.expect(200) }
    };
    let first = apply(format!("{KNATIVE}/s?fieldManager=gitops&force=true")).await;
    for query in ["", "&dryRun=All"] {
        let again = apply(format!("{KNATIVE}/s?fieldManager=gitops{query}")).await;
        assert_eq!(again["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        assert_eq!(again["metadata"]["generation"], 1);
    }
    let changed = json!({"spec": {"template": {"spec": {"containers": [{"image": "example.com/other"}]}}}});
    assert_eq!(h.send("PATCH", &format!("{KNATIVE}/s"), changed).await.expect(200)["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_wrong_type_is_told_by_its_path() {
    let h = Harness::new().await;
    let service = |annotation: Value, value: Value| {
        json!({"metadata": {"name": "s"}, "spec": {"template": {"metadata": {"annotations": {"autoscaling.knative.dev/min-scale": annotation}},
            "spec": {"containers": [{"image": "example.com/app", "env": [{"name": "N", "value": value}]}]}}}})
    };
    let message = h.post(KNATIVE, service(json!(1), json!("5"))).await.failure(422);
    let at = "spec.template.metadata.annotations.autoscaling.knative.dev/min-scale";
    let wanted = format!(
        "Service.serving.knative.dev \"s\" is invalid: {at}: Invalid value: \"integer\": {at} in body must be of type string: \"integer\""
    );
    assert_eq!(message, wanted);
    let message = h.post(KNATIVE, service(json!("1"), json!(5))).await.failure(422);
    assert!(
        message.contains("spec.template.spec.containers[0].env[0].value in body must be of type string: \"integer\""),
        "{message}"
    );
}
