//! Knative's controllers over a real kube-apiserver without the controllers that a cluster brings along.
//!
//! The tests play those others by writing status: the Deployment controller, the autoscaler, the gateway. Nothing collects
//! what a deleted owner leaves behind.

use std::collections::BTreeMap;

use knoll_e2e::{Controller, Kubernetes, Namespace, condition, until};
use serde_json::{Value, json};

/// Every kind in which the controllers write something for a Service.
const KINDS: [&str; 8] =
    ["ksvc", "configurations", "revisions", "routes", "deployments", "podautoscalers", "ingresses", "services"];

fn service(name: &str, image: &str) -> String {
    let spec = json!({"template": {"spec": {"containers": [{"image": image}]}}});
    json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

/// An object, once it is there and as wanted.
fn object_when(space: &Namespace, kind: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until(&format!("{kind} {name}"), || {
        let object = space.object(kind, name);
        (!object.is_null() && wanted(&object)).then_some(object)
    })
}

fn object(space: &Namespace, kind: &str, name: &str) -> Value {
    object_when(space, kind, name, |_| true)
}

/// The object's controller: kind and name.
fn owner(object: &Value) -> String {
    let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    let owner = owners.iter().find(|owner| owner["controller"] == true).cloned().unwrap_or_default();
    assert_eq!(owner["blockOwnerDeletion"], true, "{object:#}");
    format!("{} {}", owner["kind"].as_str().unwrap_or_default(), owner["name"].as_str().unwrap_or_default())
}

/// Writes a status as somebody else's controller would.
fn report(space: &Namespace, kind: &str, name: &str, mut status: Value) {
    let of = object(space, kind, name);
    status["observedGeneration"] = of["metadata"]["generation"].clone();
    let status = json!({ "status": status }).to_string();
    let kind = match kind {
        "ingresses" => "ingresses.networking.internal.knative.dev",
        other => other,
    };
    space.kubectl(&["patch", kind, name, "--subresource=status", "--type=merge", "-p", &status]);
}

fn true_conditions(names: &[&str]) -> Value {
    names
        .iter()
        .map(|name| json!({"type": name, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}))
        .collect()
}

/// What the Deployment controller and the autoscaler say about a revision that runs.
fn runs(space: &Namespace, revision: &str) {
    report(
        space,
        "deployments",
        &format!("{revision}-deployment"),
        json!({"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
            "conditions": true_conditions(&["Available", "Progressing"])}),
    );
    let status = json!({"serviceName": revision, "metricsServiceName": format!("{revision}-private"),
        "desiredScale": 1, "actualScale": 1,
        "conditions": true_conditions(&["Ready", "Active", "ScaleTargetInitialized", "SKSReady"])});
    report(space, "podautoscalers", revision, status);
}

/// What the gateway says about an Ingress that it routes.
fn routed(space: &Namespace, name: &str) {
    let at = |name: &str| json!({"ingress": [{"domainInternal": format!("{name}.knative-serving.svc.cluster.local")}]});
    let conditions = true_conditions(&["Ready", "NetworkConfigured", "LoadBalancerReady"]);
    let status = json!({
        "conditions": conditions, "publicLoadBalancer": at("gateway"), "privateLoadBalancer": at("local-gateway")});
    report(space, "ingresses", name, status);
}

/// Makes a Service and plays the others until it is ready.
fn serves(space: &Namespace, name: &str) -> Value {
    space.apply(&service(name, "dev.local/hello:1"));
    let revision = format!("{name}-00001");
    runs(space, &revision);
    object_when(space, "revisions", &revision, |revision| condition(revision, "Ready")["status"] == "True");
    routed(space, name);
    space.ready(name)
}

fn what_a_service_needs_is_made_and_owned(space: &Namespace) {
    let ready = serves(space, "hello");
    for (kind, name, by) in [
        ("configurations", "hello", "Service hello"),
        ("routes", "hello", "Service hello"),
        ("revisions", "hello-00001", "Configuration hello"),
        ("deployments", "hello-00001-deployment", "Revision hello-00001"),
        ("podautoscalers", "hello-00001", "Revision hello-00001"),
        ("images", "hello-00001-cache-user-container", "Revision hello-00001"),
        ("ingresses", "hello", "Route hello"),
        ("services", "hello", "Route hello"),
    ] {
        let made = object(space, kind, name);
        assert_eq!(owner(&made), by, "{made:#}");
    }
    let placeholder = object(space, "services", "hello");
    assert_eq!(placeholder["spec"]["externalName"], "local-gateway.knative-serving.svc.cluster.local");
    for one in ["Ready", "ConfigurationsReady", "RoutesReady"] {
        assert_eq!(condition(&ready, one)["status"], "True", "{ready:#}");
    }
    assert_eq!(ready["status"]["observedGeneration"], ready["metadata"]["generation"]);
    let url = format!("http://hello.{}.svc.cluster.local", space.name);
    assert_eq!(ready["status"]["url"], url.as_str());
    let deployment = object(space, "deployments", "hello-00001-deployment");
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().cloned().unwrap_or_default();
    let names: Vec<_> = containers.iter().map(|container| container["name"].clone()).collect();
    assert_eq!(names, ["user-container", "queue-proxy"]);
}

/// The autoscaler's ServerlessService, and what becomes of it.
fn a_serverless_service_gets_its_services(space: &Namespace) {
    let revision = object(space, "podautoscalers", "hello-00001");
    let sks = json!({
        "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ServerlessService",
        "metadata": {
            "name": "hello-00001", "labels": revision["metadata"]["labels"],
            "ownerReferences": [{
                "apiVersion": revision["apiVersion"], "kind": revision["kind"], "name": "hello-00001", "controller": true,
                "blockOwnerDeletion": true, "uid": revision["metadata"]["uid"]}],
        },
        "spec": {
            "mode": "Serve", "protocolType": "http1", "numActivators": 2,
            "objectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "hello-00001-deployment"}},
    });
    space.apply(&sks.to_string());
    for name in ["hello-00001", "hello-00001-private"] {
        assert_eq!(owner(&object(space, "services", name)), "ServerlessService hello-00001");
    }
    let status = |sks: &Value| sks["status"]["privateServiceName"] == "hello-00001-private";
    object_when(space, "serverlessservices", "hello-00001", status);
}

fn versions(space: &Namespace) -> BTreeMap<String, Value> {
    let all = KINDS.iter().flat_map(|kind| space.list(kind).into_iter().map(move |object| (kind, object)));
    all.map(|(kind, object)| {
        (format!("{kind} {}", object["metadata"]["name"]), object["metadata"]["resourceVersion"].clone())
    })
    .collect()
}

fn lease(space: &Namespace) -> Value {
    let path = "/apis/coordination.k8s.io/v1/namespaces/knative-serving/leases/knoll-controller";
    space.cluster.read(path)["spec"].take()
}

/// Waits until the holder has renewed its lease as often as said.
fn renewed(space: &Namespace, times: usize) {
    let mut last = lease(space);
    for _ in 0..times {
        last = until("the lease is renewed", || Some(lease(space)).filter(|now| *now != last));
    }
}

/// Server and controllers agree: nothing is written once everything is as wanted.
fn nothing_is_written_at_rest(space: &Namespace) {
    let before = until("everything is as wanted", || {
        let before = versions(space);
        renewed(space, 1);
        (versions(space) == before).then_some(before)
    });
    renewed(space, 3);
    assert_eq!(versions(space), before);
    // What others write on the controllers' objects stays.
    space.kubectl(&["annotate", "deployment", "hello-00001-deployment", "touched=yes"]);
    let touched = object(space, "deployments", "hello-00001-deployment");
    renewed(space, 3);
    assert_eq!(object(space, "deployments", "hello-00001-deployment"), touched);
}

fn an_edit_makes_the_next_revision(space: &Namespace) {
    space.apply(&service("hello", "dev.local/hello:2"));
    runs(space, "hello-00002");
    let newest = |service: &Value| service["status"]["latestReadyRevisionName"] == "hello-00002";
    space.service("hello", "has a second revision", newest);
    routed(space, "hello");
    let ready = space.ready("hello");
    assert_eq!(ready["status"]["traffic"][0]["revisionName"], "hello-00002");
}

fn is_held_by(lease: &Value, controller: &Controller) -> bool {
    controller.holder().is_some_and(|holder| lease["holderIdentity"] == holder.as_str())
}

fn leads(space: &Namespace, controller: &Controller) -> Value {
    until("it leads", || Some(lease(space)).filter(|lease| is_held_by(lease, controller)))
}

fn mapping(name: &str, to: &str) -> String {
    json!({
        "apiVersion": "serving.knative.dev/v1beta1", "kind": "DomainMapping", "metadata": {"name": name},
        "spec": {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": to}},
    })
    .to_string()
}

fn a_deletion_waits_for_what_is_to_be_done(space: &Namespace) {
    let claim = json!({
        "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ClusterDomainClaim",
        "metadata": {"name": "mapped.example.test"}, "spec": {"namespace": space.name}});
    space.apply(&claim.to_string());
    space.apply(&mapping("mapped.example.test", "hello"));
    let path =
        format!("/apis/serving.knative.dev/v1beta1/namespaces/{}/domainmappings/mapped.example.test", space.name);
    let held = until("it is held", || {
        let mapping = space.cluster.read(&path);
        (mapping["metadata"]["finalizers"][0].is_string() && condition(&mapping, "DomainClaimed")["status"] == "True")
            .then_some(mapping)
    });
    assert_eq!(
        owner(&object(space, "ingresses", "mapped.example.test")),
        "DomainMapping mapped.example.test",
        "{held:#}"
    );
    space.kubectl(&["delete", "domainmapping", "mapped.example.test", "--timeout=120s"]);
    assert!(space.cluster.read(&path).is_null());
}

fn a_definition_that_goes_rests_its_controllers_alone(
    kubernetes: &Kubernetes,
    controller: &Controller,
    space: &Namespace,
) {
    let rests = |log: &str| log.matches("a controller rests").count();
    let before = rests(&controller.log());
    kubernetes.cluster.kubectl(&["delete", "crd", "domainmappings.serving.knative.dev", "--timeout=120s"]);
    until("its controller rests", || (rests(&controller.log()) > before).then_some(()));
    serves(space, "meanwhile");
    kubernetes.define();
    space.apply(&mapping("again.example.test", "meanwhile"));
    let path = format!("/apis/serving.knative.dev/v1beta1/namespaces/{}/domainmappings/again.example.test", space.name);
    until("it is looked at again", || {
        let mapping = space.cluster.read(&path);
        (mapping["status"]["observedGeneration"] == 1).then_some(())
    });
}

#[test]
#[ignore = "starts an API server of its own: scripts/kube-apiserver runs it"]
fn knatives_controllers_run_over_a_real_api_server() {
    let mut kubernetes = Kubernetes::up();
    let first = kubernetes.controller("first");
    let space = Namespace::within(kubernetes.cluster.clone(), "real");
    let space = std::mem::ManuallyDrop::new(space);
    leads(&space, &first);
    what_a_service_needs_is_made_and_owned(&space);
    a_serverless_service_gets_its_services(&space);
    nothing_is_written_at_rest(&space);
    an_edit_makes_the_next_revision(&space);
    a_deletion_waits_for_what_is_to_be_done(&space);

    // Another waits while the first holds the lease, and goes on where that was killed.
    let second = kubernetes.controller("second");
    renewed(&space, 3);
    assert!(is_held_by(&lease(&space), &first), "a second controller waits");
    drop(first);
    let taken = leads(&space, &second);
    assert_eq!(taken["leaseTransitions"], 1, "{taken}");
    serves(&space, "second");

    a_definition_that_goes_rests_its_controllers_alone(&kubernetes, &second, &space);

    // Its account may do all it has to.
    silent_of(&second, &["cannot read an object", "panicked", "orbidden"]);

    // After the server's restart no watch of before can go on.
    kubernetes.restart();
    serves(&space, "third");
    silent_of(&second, &["cannot read an object", "panicked"]);
}

fn silent_of(controller: &Controller, words: &[&str]) {
    let log = controller.log();
    assert!(!words.iter().any(|word| log.contains(word)), "{log}");
}
