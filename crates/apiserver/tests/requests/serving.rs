//! What users of Knative write wrong, and what tools write again and again: each with the answer that helps.

use crate::support::{Harness, config_map};
use serde_json::{Value, json};

const SERVICES: &str = "/apis/serving.knative.dev/v1/namespaces/default/services";
const AT: &str = "spec.template.metadata.annotations.autoscaling.knative.dev";

fn service(name: &str, annotations: Value, container: Value) -> Value {
    let mut container = container;
    container["image"] = "example/app".into();
    json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"template": {"metadata": {"annotations": annotations}, "spec": {"containers": [container]}}},
    })
}

fn scaling(pairs: &[(&str, Value)]) -> Value {
    pairs.iter().map(|(name, value)| (format!("autoscaling.knative.dev/{name}"), value.clone())).collect()
}

/// The findings of a refusal, each once.
async fn findings(h: &Harness, object: Value) -> String {
    let message = h.post(SERVICES, object).await.failure(400);
    let head = "admission webhook \"validation.webhook.serving.knative.dev\" denied the request: validation failed: ";
    message.strip_prefix(head).unwrap_or_else(|| panic!("{message}")).to_owned()
}

#[tokio::test]
async fn scaling_annotations_in_the_wrong_place_or_without_sense_are_named() {
    let h = Harness::new().await;
    let mut misplaced = service("s", json!({}), json!({}));
    misplaced["metadata"]["annotations"] = scaling(&[("min-scale", "1".into())]);
    assert_eq!(
        findings(&h, misplaced).await,
        "invalid key name \"autoscaling.knative.dev/min-scale\": metadata.annotations\n\
         autoscaling annotations must be put under \"spec.template.metadata.annotations\" to work"
    );
    let crossed = scaling(&[("min-scale", "5".into()), ("max-scale", "2".into())]);
    assert_eq!(
        findings(&h, service("s", crossed, json!({}))).await,
        format!("max-scale=2 is less than min-scale=5: {AT}/max-scale, {AT}/min-scale")
    );
    let odd = scaling(&[("min-scale", "1.5".into()), ("window", "2s".into()), ("metric", "cpu".into())]);
    assert_eq!(
        findings(&h, service("s", odd, json!({}))).await,
        format!(
            "expected 6s <= 2s <= 1h0m0s: {AT}/window\ninvalid value: 1.5: {AT}/min-scale\n\
             invalid value: cpu: {AT}/metric"
        )
    );
    let none = scaling(&[("initial-scale", "0".into())]);
    assert_eq!(
        findings(&h, service("s", none, json!({}))).await,
        format!("invalid value: 0: {AT}/initial-scale=0 not allowed by cluster")
    );
}

#[tokio::test]
async fn a_number_where_text_belongs_is_told_by_its_path() {
    let h = Harness::new().await;
    let unquoted = service("s", scaling(&[("min-scale", 1.into())]), json!({}));
    let message = h.post(SERVICES, unquoted).await.failure(422);
    assert!(message.contains(&format!("{AT}/min-scale in body must be of type string: \"integer\"")), "{message}");
    let number = service("s", json!({}), json!({"env": [{"name": "N", "value": 5}]}));
    let message = h.post(SERVICES, number).await.failure(422);
    let at = "spec.template.spec.containers[0].env[0].value";
    assert!(message.contains(&format!("{at} in body must be of type string: \"integer\"")), "{message}");
    // So it is in kinds that no schema describes to clients.
    let message = h.post("/api/v1/namespaces/default/configmaps", config_map("c", json!({"k": 5}))).await.failure(400);
    let told =
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: data.k: must be a string, not the number 5";
    assert_eq!(message, told);
}

#[tokio::test]
async fn names_that_cannot_be_hosts_are_refused_and_the_longest_that_can_is_not() {
    let h = Harness::new().await;
    let label = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                 character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
                 validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
    assert_eq!(
        findings(&h, service("3ddemo", json!({}), json!({}))).await,
        format!("not a DNS 1035 label: [{label}]: metadata.name")
    );
    let long = format!("{}wxyz", "abcdefghi-".repeat(6));
    assert_eq!(
        findings(&h, service(&long, json!({}), json!({}))).await,
        "not a DNS 1035 label: [must be no more than 63 characters]: metadata.name"
    );
    let refused = h.post(SERVICES, service("MyApp", json!({}), json!({}))).await.failure(422);
    assert!(refused.contains("metadata.name: Invalid value: \"MyApp\""), "{refused}");
    h.post(SERVICES, service(&long[..63], json!({}), json!({}))).await.expect(201);
}

#[tokio::test]
async fn the_same_manifest_again_is_no_other_generation() {
    let h = Harness::new().await;
    let manifest = service("s", json!({}), json!({"env": [{"name": "TARGET", "value": "one"}]}));
    let path = format!("{SERVICES}/s");
    let apply = async || {
        let by = format!("{path}?fieldManager=gitops");
        let who = knoll_apiserver::UserInfo::admin();
        h.send_as(who, "PATCH", &by, "application/apply-patch+yaml", manifest.clone()).await
    };
    let made = apply().await.expect(201);
    for again in [apply().await.expect(200), h.send("PATCH", &path, manifest.clone()).await.expect(200)] {
        assert_eq!(again["metadata"]["generation"], 1);
        assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    }
}

#[tokio::test]
async fn requests_above_limits_are_told_when_they_are_written() {
    let h = Harness::new().await;
    let greedy = json!({"resources": {"limits": {"cpu": "500m"}, "requests": {"cpu": "540m"}}});
    let told = findings(&h, service("s", json!({}), greedy)).await;
    let why = "Invalid value: \"540m\": must be less than or equal to cpu limit of 500m";
    assert_eq!(told, format!("{why}: spec.template.spec.containers[0].resources.requests"));
}
