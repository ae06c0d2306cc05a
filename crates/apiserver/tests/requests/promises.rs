//! Nothing is accepted in silence that is not carried out, and what a namespace's labels ask of pods is.

use crate::support::{Harness, deployment, pod};
use knoll_apiserver::Identity;
use serde_json::{Value, json};

async fn warnings(h: &Harness, path: &str, object: Value) -> Vec<String> {
    let answer = h.post(path, object).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    answer.warnings()
}

#[tokio::test]
async fn kinds_that_nothing_acts_on_say_so() {
    let h = Harness::new().await;
    let policy = json!({"metadata": {"name": "n"}, "spec": {"podSelector": {}}});
    let told = warnings(&h, "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", policy).await;
    assert_eq!(
        told,
        ["299 - \"NetworkPolicy is kept, but not acted on: traffic is not filtered: every pod reaches every other\""]
    );
    let hooks = json!({"metadata": {"name": "w"}, "webhooks": []});
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    assert_eq!(
        warnings(&h, path, hooks).await,
        ["299 - \"ValidatingWebhookConfiguration is kept, but not acted on: webhooks are not called\""]
    );
    // Once is enough: a change that leaves it so is not told again.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert!(h.send("PATCH", &format!("{path}/w"), label).await.warnings().is_empty());
}

#[tokio::test]
async fn fields_that_nothing_acts_on_say_so() {
    let h = Harness::new().await;
    let service = json!({"metadata": {"name": "s"}, "spec": {
        "type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"], "ports": [{"port": 80}],
    }});
    let told = warnings(&h, "/api/v1/namespaces/default/services", service).await.join("\n");
    assert!(told.contains("spec.loadBalancerSourceRanges is kept, but not acted on"), "{told}");
    assert!(told.contains("spec.type is kept, but not acted on: no load balancer gives it an address"), "{told}");
    let mut made = deployment("d");
    made["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let told = warnings(&h, path, made).await;
    assert!(told[0].contains("spec.template.spec.containers[].ports[].hostPort is kept"), "{told:?}");
    // The controllers only carry on what its writer was told of.
    let mut carried = pod("p");
    carried["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
    let controller = Identity::service_account("knative-serving", "controller");
    let path = "/api/v1/namespaces/default/pods";
    let answer = h.send_as(controller, "POST", path, "application/json", carried).await;
    assert!(answer.warnings().is_empty(), "{answer:?}");
    answer.expect(201);
}

#[tokio::test]
async fn a_definition_with_rules_and_conversion_says_what_is_not_evaluated() {
    let h = Harness::new().await;
    let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object", "x-kubernetes-validations": [{"rule": "self.a > 0"}], "properties": {"a": {"type": "integer"}},
    }}});
    let definition = json!({"metadata": {"name": "things.acme.example"}, "spec": {
        "group": "acme.example", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"]}},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
    }});
    let answer = h.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    let values = answer.headers.get_all("warning").iter();
    let told: Vec<String> = values.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect();
    assert!(told.iter().any(|w| w.contains("rules in CEL are not evaluated")), "{told:?}");
    assert!(told.iter().any(|w| w.contains("conversion webhooks are not called")), "{told:?}");
    answer.expect(201);
}

fn labelled(name: &str, labels: &[(&str, &str)]) -> Value {
    let mut namespace = json!({"metadata": {"name": name, "labels": {}}});
    for (mode, level) in labels {
        namespace["metadata"]["labels"][format!("pod-security.kubernetes.io/{mode}")] = (*level).into();
    }
    namespace
}

#[tokio::test]
async fn a_namespace_refuses_pods_that_break_its_standard() {
    let h = Harness::new().await;
    h.post("/api/v1/namespaces", labelled("strict", &[("enforce", "restricted")])).await.expect(201);
    let pods = "/api/v1/namespaces/strict/pods";
    let message = h.post(pods, pod("p")).await.failure(403);
    assert!(
        message.starts_with(
            "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false \
             (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities"
        ),
        "{message}"
    );
    let mut careful = pod("p");
    careful["spec"]["securityContext"] = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    careful["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    h.post(pods, careful).await.expect(201);
    // A container that is added later is looked at, too.
    let debug = json!({"metadata": {"name": "p"}, "spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}});
    h.send("PUT", &format!("{pods}/p/ephemeralcontainers"), debug).await.expect(403);
    // Who makes what makes pods is told; so is who makes a Knative Service.
    let told = warnings(&h, "/apis/apps/v1/namespaces/strict/deployments", deployment("d")).await;
    assert!(told[0].contains("would violate PodSecurity \\\"restricted:latest\\\""), "{told:?}");
    let service =
        json!({"metadata": {"name": "s"}, "spec": {"template": {"spec": {"containers": [{"image": "example/i"}]}}}});
    let told = warnings(&h, "/apis/serving.knative.dev/v1/namespaces/strict/services", service).await.join("\n");
    assert!(told.contains("would violate PodSecurity"), "{told}");
}

#[tokio::test]
async fn a_namespace_that_becomes_strict_names_the_pods_that_are_not() {
    let h = Harness::new().await;
    h.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await.expect(201);
    for name in ["b", "a"] {
        let mut pod = pod(name);
        pod["spec"]["hostNetwork"] = true.into();
        h.post("/api/v1/namespaces/n/pods", pod).await.expect(201);
    }
    let strict = json!({"metadata": labelled("n", &[("enforce", "baseline")])["metadata"]});
    let answer = h.send("PATCH", "/api/v1/namespaces/n", strict).await;
    assert_eq!(
        answer.warnings(),
        [
            "299 - \"existing pods in namespace \\\"n\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\"\"",
            "299 - \"a (and 1 other pod): host namespaces\"",
        ]
    );
    let message = h.post("/api/v1/namespaces", labelled("m", &[("enforce", "strict")])).await.failure(422);
    assert!(message.contains("must be one of privileged, baseline, restricted"), "{message}");
}
