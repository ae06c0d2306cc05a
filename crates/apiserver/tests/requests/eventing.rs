//! Eventing's kinds through the API: what is filled in, refused, converted and shown.

use crate::{
    definitions::{DEFINITIONS, THINGS, definition},
    support::Harness,
};
use knoll_apiserver::UserInfo;
use serde_json::{Value, json};

const BROKERS: &str = "/apis/eventing.knative.dev/v1/namespaces/default/brokers";
const TRIGGERS: &str = "/apis/eventing.knative.dev/v1/namespaces/default/triggers";
const FEATURES: &str = "/api/v1/namespaces/knative-eventing/configmaps/config-features";

fn trigger(name: &str, more: &str) -> Value {
    let mut spec: Value = serde_json::from_str(more).expect("JSON");
    if spec.get("broker").is_none() && spec.get("brokerRef").is_none() {
        spec["broker"] = "default".into();
    }
    spec["subscriber"] = json!({"uri": "http://example.com"});
    json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Trigger", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_broker_is_what_the_shipped_configuration_says() {
    let h = Harness::new().await;
    let made = h.post(BROKERS, json!({"metadata": {"name": "default"}})).await.expect(201);
    assert_eq!(made["metadata"]["annotations"]["eventing.knative.dev/broker.class"], "MTChannelBasedBroker");
    assert_eq!(made["spec"]["config"]["namespace"], "knative-eventing");
    assert_eq!(
        made["spec"]["delivery"],
        json!({"retry": 10, "backoffPolicy": "exponential", "backoffDelay": "PT0.2S"})
    );
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = h.get_as(&format!("{BROKERS}/default"), accept).await.expect(200);
    let names: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "URL", "Age", "Ready", "Reason", "Class"]);
    assert_eq!(table["columnDefinitions"][5]["priority"], 1);
    assert_eq!(table["rows"][0]["cells"][5], "MTChannelBasedBroker");
    let class = json!({"metadata": {"annotations": {"eventing.knative.dev/broker.class": "Other"}}});
    let refused = h.send("PATCH", &format!("{BROKERS}/default"), class).await.failure(400);
    let head = "admission webhook \"validation.webhook.eventing.knative.dev\" denied the request: validation failed: ";
    assert!(refused.starts_with(&format!("{head}Immutable annotations changed")), "{refused}");
}

#[tokio::test]
async fn filters_are_known_however_deep_and_mistakes_are_told_by_their_path() {
    let h = Harness::new().await;
    let strict = format!("{TRIGGERS}?fieldValidation=Strict");
    let deep = r#"{"filters": [{"not": {"any": [{"all": [{"exact": {"type": "a"}}]}]}}]}"#;
    let made = h.post(&strict, trigger("fine", deep)).await.expect(201);
    assert_eq!(made["spec"]["filters"][0]["not"]["any"][0]["all"][0]["exact"]["type"], "a");
    let refused = h.post(&strict, trigger("t", r#"{"filters": [{"and": [{"exact": {"type": "a"}}]}]}"#)).await;
    assert!(refused.failure(400).contains("unknown field \"spec.filters[0].and\""));
    let refused = h.post(&strict, trigger("t", r#"{"filters": [{"any": [{"and": []}]}]}"#)).await;
    assert!(refused.failure(400).contains("unknown field \"spec.filters[0].any[0].and\""));
    let refused = h.post(TRIGGERS, trigger("t", r#"{"filters": [{"not": [{"exact": {"type": "a"}}]}]}"#)).await;
    assert!(refused.failure(422).contains("spec.filters[0].not in body must be of type object"));
    let refused = h.post(TRIGGERS, trigger("t", r#"{"delivery": {"timeout": "PT0S"}}"#)).await.failure(400);
    assert!(refused.ends_with("invalid value: PT0S: spec.delivery.timeout"), "{refused}");
}

/// Nobody's events are let go of while an object is there that cannot be read.
#[tokio::test]
async fn what_knoll_could_not_read_is_refused_by_its_field_in_statuses_too() {
    let h = Harness::new().await;
    h.post(TRIGGERS, trigger("t", "{}")).await.expect(201);
    let condition = json!({"type": "Ready", "status": "True", "lastTransitionTime": "x"});
    let refused = h
        .send("PATCH", &format!("{TRIGGERS}/t/status"), json!({"status": {"conditions": [condition]}}))
        .await
        .failure(422);
    assert!(refused.contains("status.conditions[0].lastTransitionTime: Invalid value: \"x\""), "{refused}");
    let channels = "/apis/messaging.knative.dev/v1/namespaces/default/inmemorychannels";
    let subscriber = json!({"uid": "x", "subscriberUri": "http://x", "delivery": {"backoffPolicy": "x"}});
    let channel = json!({"metadata": {"name": "c"}, "spec": {"subscribers": [subscriber]}});
    let refused = h.post(channels, channel).await.failure(422);
    assert!(refused.contains("spec.subscribers[0].delivery.backoffPolicy"), "{refused}");
    // In an older version, too.
    let pings = "/apis/sources.knative.dev/v1beta2/namespaces/default/pingsources";
    h.post(pings, json!({"metadata": {"name": "p"}, "spec": {"sink": {"uri": "http://example.com"}}}))
        .await
        .expect(201);
    let refused = h
        .send("PATCH", &format!("{pings}/p/status"), json!({"status": {"conditions": [condition]}}))
        .await
        .failure(422);
    assert!(refused.contains("lastTransitionTime"), "{refused}");
}

#[tokio::test]
async fn a_type_of_events_is_one_object_in_three_versions() {
    let h = Harness::new().await;
    let at = |version: &str| format!("/apis/eventing.knative.dev/{version}/namespaces/default/eventtypes");
    let old = json!({"metadata": {"name": "t"}, "spec": {"type": "a.b", "source": "/s", "broker": "b"}});
    let made = h.post(&at("v1beta1"), old).await.expect(201);
    assert_eq!(made["apiVersion"], "eventing.knative.dev/v1beta1");
    let stored = h.get(&format!("{}/t", at("v1beta2"))).await.expect(200);
    assert_eq!(stored["spec"]["reference"]["name"], "b");
    let list = h.get(&at("v1beta3")).await.expect(200);
    let newest = &list["items"][0];
    assert_eq!(newest["apiVersion"], "eventing.knative.dev/v1beta3");
    let value = |name: &str| {
        let attributes = newest["spec"]["attributes"].as_array().unwrap();
        attributes.iter().find(|a| a["name"] == name).map(|a| a["value"].clone())
    };
    assert_eq!((value("type"), value("source")), (Some("a.b".into()), Some("/s".into())));
    // What one version wrote, another changes.
    let described = json!({"spec": {"description": "d"}});
    h.send("PATCH", &format!("{}/t", at("v1beta3")), described).await.expect(200);
    let stored = h.get(&format!("{}/t", at("v1beta2"))).await.expect(200);
    assert_eq!((&stored["spec"]["description"], &stored["spec"]["type"]), (&json!("d"), &json!("a.b")));
    let pings = |version: &str| format!("/apis/sources.knative.dev/{version}/namespaces/default/pingsources");
    let ping = json!({"metadata": {"name": "p"}, "spec": {"sink": {"uri": "http://example.com"}}});
    h.post(&pings("v1beta2"), ping).await.expect(201);
    let read = h.get(&format!("{}/p", pings("v1"))).await.expect(200);
    assert_eq!(
        (&read["apiVersion"], &read["spec"]["schedule"]),
        (&json!("sources.knative.dev/v1"), &json!("* * * * *"))
    );
    let answer = h.get(&pings("v1beta2")).await;
    let deprecated =
        "299 - \"sources.knative.dev/v1beta2 PingSource is deprecated; use sources.knative.dev/v1 PingSource\"";
    assert_eq!(answer.warnings(), [deprecated]);
    assert_eq!(answer.expect(200)["items"][0]["apiVersion"], "sources.knative.dev/v1beta2");
    assert!(h.get(&pings("v1")).await.warnings().is_empty());
    assert!(h.get(&at("v1beta3")).await.warnings().is_empty());
}

#[tokio::test]
async fn configuration_of_eventing_counts_at_once_and_bad_one_is_refused() {
    let h = Harness::new().await;
    let delivery = r#"{"delivery": {"retryAfterMax": "PT1S"}}"#;
    let refused = h.post(TRIGGERS, trigger("t", delivery)).await.failure(400);
    assert!(refused.ends_with("must not set the field(s): spec.delivery.retryAfterMax"), "{refused}");
    h.send("PATCH", FEATURES, json!({"data": {"delivery-retryafter": "enabled"}})).await.expect(200);
    h.post(TRIGGERS, trigger("t", delivery)).await.expect(201);
    let refused = h.send("PATCH", FEATURES, json!({"data": {"transport-encryption": "maybe"}})).await.failure(400);
    assert_eq!(
        refused,
        "admission webhook \"config.webhook.eventing.knative.dev\" denied the request: validation failed: failed to parse \
         \"transport-encryption\": \"maybe\" is none of disabled, permissive, strict"
    );
}

#[tokio::test]
async fn events_of_another_namespace_are_taken_by_right_alone() {
    let h = Harness::new().await;
    h.send("PATCH", FEATURES, json!({"data": {"cross-namespace-event-links": "enabled"}})).await.expect(200);
    let role = json!({"metadata": {"name": "triggers"}, "rules": [
        {"apiGroups": ["eventing.knative.dev"], "resources": ["triggers"], "verbs": ["create"]}]});
    h.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.expect(201);
    let bind = |name: &str, role: &str| {
        json!({"metadata": {"name": name}, "subjects": [{"kind": "User", "name": "alice"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}})
    };
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    h.post(bindings, bind("a", "triggers")).await.expect(201);
    let far = r#"{"brokerRef": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "b", "namespace": "kube-public"}}"#;
    let post = async |spec: &str| {
        let alice = UserInfo::new("alice".to_owned(), &["system:authenticated"]);
        h.send_as(alice, "POST", TRIGGERS, "application/json", trigger("t", spec)).await
    };
    let refused = post(far).await.failure(400);
    assert!(
        refused.ends_with(
            "user alice is not authorized to get target resource in namespace: kube-public: spec.BrokerNamespace"
        ),
        "{refused}"
    );
    // The right to a channel is none to the broker of its name, whatever the reference calls itself.
    let channels = json!({"metadata": {"name": "channels"}, "rules": [
        {"apiGroups": ["messaging.knative.dev"], "resources": ["channels"], "verbs": ["knsubscribe"]}]});
    h.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", channels).await.expect(201);
    h.post(bindings, bind("c", "channels")).await.expect(201);
    let called = far.replace("eventing.knative.dev", "messaging.knative.dev").replace("\"Broker\"", "\"Channel\"");
    post(&called).await.failure(400);
    h.post(bindings, bind("b", "crossnamespace-subscriber")).await.expect(201);
    post(far).await.expect(201);
}

#[tokio::test]
async fn a_job_sink_whose_jobs_would_be_refused_is_refused() {
    let h = Harness::new().await;
    let path = "/apis/sinks.knative.dev/v1alpha1/namespaces/default/jobsinks";
    let sink = |policy: &str| {
        let pod = json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]});
        json!({"metadata": {"name": "s"}, "spec": {"job": {"spec": {"template": {"spec": pod}}}}})
    };
    let refused = h.post(path, sink("Always")).await.failure(400);
    let head = "admission webhook \"validation.webhook.eventing.knative.dev\" denied the request: validation failed: Job.batch";
    assert!(refused.starts_with(head) && refused.ends_with(": spec.job"), "{refused}");
    let made = h.post(path, sink("Never")).await.expect(201);
    let env = &made["spec"]["job"]["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(env[0], json!({"name": "K_EXECUTION_MODE", "value": "batch"}));
    let jobs = h.get("/apis/batch/v1/namespaces/default/jobs").await.expect(200);
    assert_eq!(jobs["items"], json!([]), "none was made");
}

#[tokio::test]
async fn templates_of_pods_are_checked_in_sources() {
    let h = Harness::new().await;
    let path = "/apis/sources.knative.dev/v1/namespaces/default/containersources?fieldValidation=Strict";
    let source = |container: Value| {
        json!({"metadata": {"name": "s"}, "spec": {
            "sink": {"uri": "http://example.com"}, "template": {"spec": {"containers": [container]}}}})
    };
    let refused = h.post(path, source(json!({"image": "i", "imagge": "j"}))).await.failure(400);
    assert!(refused.contains("unknown field \"spec.template.spec.containers[0].imagge\""), "{refused}");
    let refused = h.post(path, source(json!({"image": 5}))).await.failure(422);
    assert!(refused.contains("spec.template.spec.containers[0].image in body must be of type string"), "{refused}");
    let made = h.post(path, source(json!({"image": "i"}))).await.expect(201);
    assert_eq!(made["spec"]["template"]["spec"]["containers"][0]["name"], "s-0");
}

#[tokio::test]
async fn tools_find_kinds_by_labels_and_roles() {
    let h = Harness::new().await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let channels =
        h.get(&format!("{definitions}?labelSelector=messaging.knative.dev/subscribable%3Dtrue")).await.expect(200);
    assert_eq!(
        crate::support::names(&channels),
        ["channels.messaging.knative.dev", "inmemorychannels.messaging.knative.dev"]
    );
    assert!(channels["items"][0]["spec"]["names"]["categories"].as_array().unwrap().contains(&"channel".into()));
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    for role in [
        "addressable-resolver",
        "channelable-manipulator",
        "source-observer",
        "podspecable-binding",
        "crossnamespace-subscriber",
    ] {
        let found = h.get(&format!("{roles}/{role}")).await.expect(200);
        assert!(found["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"].is_object(), "{role}");
    }
    let group = h.get("/apis/messaging.knative.dev/v1").await.expect(200);
    let channel = group["resources"].as_array().unwrap().iter().find(|r| r["name"] == "inmemorychannels").unwrap();
    assert_eq!(channel["shortNames"], json!(["imc"]));
}

#[tokio::test]
async fn a_policy_for_a_request_reply_says_whose_counts() {
    let h = Harness::new().await;
    let on = json!({"data": {"authentication-oidc": "enabled"}});
    h.send("PATCH", FEATURES, on).await.expect(200);
    let path = "/apis/eventing.knative.dev/v1alpha1/namespaces/default/eventpolicies";
    for (kind, is_told) in [("requestReply", true), ("Broker", false)] {
        let to = json!([{"ref": {"apiVersion": "eventing.knative.dev/v1alpha1", "kind": kind, "name": "x"}}]);
        let policy = json!({"metadata": {"generateName": "p"}, "spec": {"to": to, "from": [{"sub": "me"}]}});
        let answer = h.post(path, policy).await;
        let told = answer.warnings();
        assert_eq!(
            told.iter().any(|w| w.contains("spec.to[].ref.kind is kept, but not acted on")),
            is_told,
            "{told:?}"
        );
        answer.expect(201);
    }
}

const BINDINGS: &str = "/apis/sources.knative.dev/v1/namespaces/default/sinkbindings";

async fn binding(h: &Harness, name: &str, subject: Value) {
    let spec = json!({"sink": {"uri": "http://sink"}, "subject": subject});
    h.post(BINDINGS, json!({"metadata": {"name": name}, "spec": spec})).await.expect(201);
}

/// Where a binding leads, as its controller says.
async fn leads(h: &Harness, name: &str, uri: &str) {
    let status = json!({"status": {"sinkUri": uri, "observedGeneration": 1}});
    h.send("PATCH", &format!("{BINDINGS}/{name}/status"), status).await.expect(200);
}

fn sink(pod: &Value) -> String {
    let env = pod["containers"][0]["env"].as_array().cloned().unwrap_or_default();
    let found = env.iter().find(|variable| variable["name"] == "K_SINK");
    found.map_or_else(|| "none".to_owned(), |found| found["value"].as_str().unwrap_or_default().to_owned())
}

fn with_pod(name: &str, mut object: Value) -> Value {
    let pod = json!({"containers": [{"name": "c", "image": "i", "env": [{"name": "X", "value": "y"}]}]});
    object["metadata"] = json!({"name": name, "labels": {"app": "x"}});
    object["spec"]["template"]["spec"] = pod;
    object
}

#[tokio::test]
async fn a_job_is_bound_when_it_is_made_and_stays_so() {
    let h = Harness::new().await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let job = |name: &str| {
        let mut job = with_pod(name, json!({"spec": {}}));
        job["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
        job
    };
    binding(&h, "b", json!({"apiVersion": "batch/v1", "kind": "Job", "selector": {"matchLabels": {"app": "x"}}})).await;
    // It waits for where its binding leads.
    let (made, ()) = tokio::join!(h.post(jobs, job("j")), leads(&h, "b", "http://sink"));
    let made = made.expect(201);
    assert_eq!(sink(&made["spec"]["template"]["spec"]), "http://sink");
    assert_eq!(made["spec"]["template"]["spec"]["containers"][0]["env"][0]["name"], "X");

    leads(&h, "b", "http://other").await;
    let mut again = job("j");
    again["metadata"]["annotations"] = json!({"a": "b"});
    let applied = h.send("PUT", &format!("{jobs}/j"), again).await.expect(200);
    assert_eq!(sink(&applied["spec"]["template"]["spec"]), "http://sink", "templates do not change");
    let next = h.post(jobs, job("next")).await.expect(201);
    assert_eq!(sink(&next["spec"]["template"]["spec"]), "http://other");
}

#[tokio::test]
async fn whatever_makes_pods_is_bound_by_the_oldest_binding_of_it() {
    let h = Harness::new().await;
    let apps = "/apis/apps/v1/namespaces/default";
    for (plural, kind) in [("statefulsets", "StatefulSet"), ("daemonsets", "DaemonSet"), ("deployments", "Deployment")]
    {
        let subject = json!({"apiVersion": "apps/v1", "kind": kind, "name": "it"});
        let (first, second) = (format!("a-{plural}"), format!("b-{plural}"));
        binding(&h, &first, subject.clone()).await;
        binding(&h, &second, subject).await;
        leads(&h, &first, "http://sink").await;
        leads(&h, &second, "http://other").await;
        let with_labels = |name: &str| {
            let labels = json!({"app": "x"});
            let spec = json!({"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}});
            with_pod(name, json!({"spec": spec}))
        };
        let path = format!("{apps}/{plural}");
        let made = h.post(&path, with_labels("it")).await.expect(201);
        assert_eq!(sink(&made["spec"]["template"]["spec"]), "http://sink", "{kind}");
        let other = h.post(&path, with_labels("another")).await.expect(201);
        assert_eq!(sink(&other["spec"]["template"]["spec"]), "none", "{kind}");
        // Nor is what Knoll makes of something else. Another's controller writes what it means again and again.
        for (api_version, owner, bound) in [("apps/v1", "Deployment", "none"), ("x/v1", "X", "http://sink")] {
            let mut made = with_labels("it");
            made["metadata"]["ownerReferences"] =
                json!([{"apiVersion": api_version, "kind": owner, "name": "x", "uid": "x", "controller": true}]);
            h.send("DELETE", &format!("{path}/it"), json!({})).await.expect(200);
            let made = h.post(&path, made).await.expect(201);
            assert_eq!(sink(&made["spec"]["template"]["spec"]), bound, "{kind} of {owner}");
        }
    }
}

#[tokio::test]
async fn custom_resources_with_a_template_of_pods_are_bound_as_others_are() {
    let h = Harness::new().await;
    h.post(DEFINITIONS, definition()).await.expect(201);
    binding(&h, "b", json!({"apiVersion": "example.com/v1", "kind": "Thing", "name": "it"})).await;
    leads(&h, "b", "http://sink").await;
    let mut thing = with_pod("it", json!({"spec": {"template": {}}}));
    thing["spec"]["template"]["spec"]["containers"][0]["mine"] = 1.into();
    let made = h.post(THINGS, thing).await.expect(201);
    let pod = &made["spec"]["template"]["spec"];
    assert_eq!((sink(pod).as_str(), &pod["containers"][0]["mine"]), ("http://sink", &json!(1)));
    let other = h.post(THINGS, with_pod("other", json!({"spec": {"template": {}}}))).await.expect(201);
    assert_eq!(sink(&other["spec"]["template"]["spec"]), "none");
    h.send("DELETE", &format!("{THINGS}/it"), Value::Null).await.expect(200);
    let plain =
        h.post(THINGS, json!({"metadata": {"name": "it"}, "spec": {"template": {"spec": 7}}})).await.expect(201);
    assert_eq!(plain["spec"]["template"]["spec"], 7, "it is of another shape");
}
