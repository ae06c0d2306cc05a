//! What the server adds to objects, and what it refuses.

use crate::support::{Harness, config_map, deployment, names, pod};
use knoll_apiserver::UserInfo;
use serde_json::{Value, json};

#[tokio::test]
async fn a_namespace_comes_with_what_pods_need_and_takes_nothing_once_it_goes() {
    let h = Harness::new().await;
    let namespace = h.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await.expect(201);
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
    h.get("/api/v1/namespaces/n/serviceaccounts/default").await.expect(200);
    let root = h.get("/api/v1/namespaces/n/configmaps/kube-root-ca.crt").await.expect(200);
    assert_eq!(root["data"]["ca.crt"], h.pki.ca_pem());
    let missing = h.post("/api/v1/namespaces/nope/configmaps", config_map("a", json!({}))).await;
    assert_eq!(missing.failure(404), r#"namespaces "nope" not found"#);
    let going = h.send("DELETE", "/api/v1/namespaces/n", Value::Null).await.expect(200);
    assert_eq!(going["status"]["phase"], "Terminating");
    let refused = h.post("/api/v1/namespaces/n/configmaps", config_map("a", json!({}))).await.expect(403);
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut done = going;
    done["spec"] = json!({});
    h.send("PUT", "/api/v1/namespaces/n/finalize", done).await.expect(200);
    h.get("/api/v1/namespaces/n").await.expect(404);
    h.send("DELETE", "/api/v1/namespaces/default", Value::Null).await.expect(403);
}

#[tokio::test]
async fn a_pod_gets_defaults_and_the_token_of_its_account() {
    let h = Harness::new().await;
    let made = h.post("/api/v1/namespaces/default/pods", pod("p")).await.expect(201);
    let spec = &made["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["restartPolicy"]), (&json!("default"), &json!("Always")));
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-"));
    let mount = &spec["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(made["status"]["phase"], "Pending");
    let mut other = pod("q");
    other["spec"]["serviceAccountName"] = "nope".into();
    let message = h.post("/api/v1/namespaces/default/pods", other).await.failure(403);
    assert_eq!(
        message,
        r#"pods "q" is forbidden: error looking up service account default/nope: serviceaccount "nope" not found"#
    );
}

#[tokio::test]
async fn a_service_gets_an_address_of_its_own() {
    let h = Harness::new().await;
    let kubernetes = h.get("/api/v1/namespaces/default/services/kubernetes").await.expect(200);
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
    let services = "/api/v1/namespaces/default/services";
    let service =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let a = h.post(services, service("a")).await.expect(201);
    let b = h.post(services, service("b")).await.expect(201);
    assert_ne!(a["spec"]["clusterIP"], b["spec"]["clusterIP"]);
    assert_eq!(a["spec"]["ports"][0]["targetPort"], 80);
    let port = a["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30000..=32767).contains(&port));
    let mut taken = service("c");
    taken["spec"]["clusterIP"] = a["spec"]["clusterIP"].clone();
    assert!(h.post(services, taken.clone()).await.failure(422).contains("provided IP is already allocated"));
    h.send("DELETE", &format!("{services}/a"), Value::Null).await.expect(200);
    h.post(services, taken).await.expect(201);
    let mut update = b.clone();
    update["spec"].as_object_mut().unwrap().remove("clusterIP");
    update["spec"].as_object_mut().unwrap().remove("clusterIPs");
    update["spec"]["ports"][0]["port"] = 81.into();
    let updated = h.send("PUT", &format!("{services}/b"), update).await.expect(200);
    assert_eq!(updated["spec"]["clusterIP"], b["spec"]["clusterIP"]);
}

#[tokio::test]
async fn a_bad_deployment_is_refused_with_every_finding() {
    let h = Harness::new().await;
    let mut bad = deployment("d");
    bad["spec"]["template"]["metadata"]["labels"]["app"] = "other".into();
    bad["spec"]["template"]["spec"]["containers"][0]["image"] = "".into();
    let status = h.post("/apis/apps/v1/namespaces/default/deployments", bad).await.expect(422);
    assert_eq!((&status["reason"], &status["details"]["kind"]), (&json!("Invalid"), &json!("Deployment")));
    let message = status["message"].as_str().unwrap();
    assert!(message.starts_with(r#"Deployment.apps "d" is invalid: ["#), "{message}");
    assert!(message.contains("`selector` does not match template `labels`"), "{message}");
    assert!(message.contains("spec.template.spec.containers[0].image: Required value"), "{message}");
}

#[tokio::test]
async fn knative_objects_are_checked_in_the_webhooks_words() {
    let h = Harness::new().await;
    let services = "/apis/serving.knative.dev/v1/namespaces/default/services";
    let good =
        json!({"metadata": {"name": "s"}, "spec": {"template": {"spec": {"containers": [{"image": "example/app"}]}}}});
    let made = h.post(services, good).await.expect(201);
    assert_eq!(made["metadata"]["annotations"]["serving.knative.dev/creator"], "kubernetes-admin");
    assert_eq!(made["spec"]["template"]["spec"]["timeoutSeconds"], 300);
    let bad = json!({"metadata": {"name": "t"}, "spec": {"template": {"spec": {"containers": [{"image": ""}]}}}});
    let message = h.post(services, bad).await.failure(400);
    let head = "admission webhook \"validation.webhook.serving.knative.dev\" denied the request: validation failed: missing field(s): spec.template.spec.containers[0].image";
    assert!(message.starts_with(head), "{message}");
    let mut unversioned = made;
    unversioned["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let status = h.send("PUT", &format!("{services}/s"), unversioned).await.expect(422);
    assert_eq!(
        status["message"],
        r#"services.serving.knative.dev "s" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"#
    );
}

#[tokio::test]
async fn a_dry_run_tells_that_the_pods_would_be_refused() {
    let h = Harness::new().await;
    let services = "/apis/serving.knative.dev/v1/namespaces/default/services";
    let service = |name: &str| {
        let container = json!({"name": name, "image": "example/app"});
        json!({"metadata": {"name": "s"}, "spec": {"template": {"spec": {"containers": [container]}}}})
    };
    let dry = format!("{services}?dryRun=All");
    h.post(&dry, service("good")).await.expect(201);
    let refused = h.post(&dry, service("&Bad")).await.failure(400);
    let head = "admission webhook \"validation.webhook.serving.knative.dev\" denied the request: \
                validation callback failed: dry run failed with Pod \"dry-run-validation";
    assert!(refused.starts_with(head), "{refused}");
    assert!(refused.contains("spec.containers[0].name: Invalid value: \"&Bad\""), "{refused}");
    assert!(refused.ends_with(": spec.template"), "{refused}");
    // Where it is not asked for, only the rules of the webhook count.
    h.post(services, service("&Bad")).await.expect(201);
}

#[tokio::test]
async fn what_is_going_may_go_though_it_would_not_be_allowed_today() {
    let h = Harness::new().await;
    let features = "/api/v1/namespaces/knative-serving/configmaps/config-features";
    let feature = |state: &str| json!({"data": {"kubernetes.podspec-init-containers": state}});
    h.send("PATCH", features, feature("Enabled")).await.expect(200);
    let services = "/apis/serving.knative.dev/v1/namespaces/default/services";
    let service = json!({
        "metadata": {"name": "s", "finalizers": ["example.org/wait"]},
        "spec": {"template": {"spec": {
            "initContainers": [{"name": "first", "image": "example/first"}],
            "containers": [{"image": "example/app"}],
        }}},
    });
    h.post(services, service).await.expect(201);
    h.send("DELETE", &format!("{services}/s"), Value::Null).await.expect(200);
    h.send("PATCH", features, feature("Disabled")).await.expect(200);
    let other = json!({"spec": {"template": {"spec": {"timeoutSeconds": 5}}}});
    let refused = h.send("PATCH", &format!("{services}/s"), other).await.failure(400);
    assert!(refused.contains("must not set the field(s): spec.template.spec.initContainers"), "{refused}");
    h.send("PATCH", &format!("{services}/s"), json!({"metadata": {"finalizers": null}})).await.expect(200);
    h.get(&format!("{services}/s")).await.expect(404);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read_is_refused() {
    let h = Harness::new().await;
    let path = "/api/v1/namespaces/knative-serving/configmaps/config-autoscaler";
    let bad = json!({"data": {"stable-window": "soon"}});
    assert!(
        h.send("PATCH", path, bad)
            .await
            .failure(400)
            .starts_with("admission webhook \"config.webhook.serving.knative.dev\" denied the request")
    );
    h.send("PATCH", path, json!({"data": {"stable-window": "40s"}})).await.expect(200);
}

#[tokio::test]
async fn every_configuration_can_be_edited_as_it_stands() {
    let h = Harness::new().await;
    for name in knoll_api::config::NAMES {
        let path = format!("/api/v1/namespaces/knative-serving/configmaps/{name}");
        h.send("PATCH", &path, json!({"metadata": {"annotations": {"note": "mine"}}})).await.expect(200);
    }
}

#[tokio::test]
async fn definitions_are_there_and_new_ones_are_served_at_once() {
    let h = Harness::new().await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert!(names(&h.get(definitions).await.expect(200)).contains(&"services.serving.knative.dev"));
    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
                    "n": {"type": "integer", "minimum": 0}, "m": {"type": "string", "default": "d"}}}}}}}],
        },
    });
    let made = h.post(definitions, definition).await.expect(201);
    assert_eq!(made["status"]["conditions"][1]["type"], "Established");
    let things = "/apis/example.com/v1/namespaces/default/things";
    let thing = h
        .post(
            things,
            json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"n": 1}}),
        )
        .await
        .expect(201);
    assert_eq!(thing["spec"], json!({"n": 1, "m": "d"}));
    let bad =
        json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "u"}, "spec": {"n": -1, "x": 1}});
    let message = h.post(things, bad).await.failure(422);
    assert!(message.contains("spec.n in body should be greater than or equal to 0"), "{message}");
    let resources = h.get("/apis/example.com/v1").await.expect(200);
    assert_eq!(resources["resources"][0]["shortNames"], json!(["th"]));
    h.send("DELETE", &format!("{definitions}/things.example.com"), Value::Null).await.expect(200);
    while h.get(things).await.code != 404 {
        tokio::task::yield_now().await;
    }
    assert_eq!(h.store.snapshot().count("/example.com/things/"), 0);
}

#[tokio::test]
async fn strangers_are_told_what_they_may_not_do() {
    let h = Harness::new().await;
    let bob = UserInfo::new("bob", &["system:authenticated"]);
    let answer = h.send_as(bob.clone(), "GET", "/api/v1/namespaces/default/pods/x", "", Value::Null).await;
    let expected =
        r#"pods "x" is forbidden: User "bob" cannot get resource "pods" in API group "" in the namespace "default""#;
    assert_eq!(answer.failure(403), expected);
    let review = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = h.send_as(bob, "POST", path, "application/json", review.clone()).await.expect(201);
    assert_eq!(answer["status"]["allowed"], false);
    assert_eq!(h.post(path, review).await.expect(201)["status"]["allowed"], true);
}

#[tokio::test]
async fn an_account_gets_tokens_that_say_who_it_is() {
    let h = Harness::new().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let made = h.post(path, json!({"spec": {"expirationSeconds": 3600}})).await.expect(201);
    let token = made["status"]["token"].as_str().unwrap();
    let review = json!({"spec": {"token": token}});
    let review = h.post("/apis/authentication.k8s.io/v1/tokenreviews", review).await.expect(201);
    assert_eq!(review["status"]["user"]["username"], "system:serviceaccount:default:default");
    h.post(path, json!({"spec": {"expirationSeconds": 60}})).await.expect(422);
}
