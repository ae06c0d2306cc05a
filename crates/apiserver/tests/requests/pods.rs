//! Pods are checked before a node has to live with them.

use crate::support::{Harness, deployment, pod};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A pod with these fields in its spec.
fn with(fields: Value) -> Value {
    let mut pod = pod("p");
    for (key, value) in fields.as_object().expect("fields") {
        pod["spec"][key] = value.clone();
    }
    pod
}

/// A pod with one container with these fields.
fn container(fields: Value) -> Value {
    let mut pod = pod("p");
    for (key, value) in fields.as_object().expect("fields") {
        pod["spec"]["containers"][0][key] = value.clone();
    }
    pod
}

async fn refused(h: &Harness, pod: Value, why: &str) {
    let message = h.post(&format!("{PODS}?dryRun=All"), pod).await.failure(422);
    assert!(message.contains(why), "expected {why:?} in {message:?}");
}

#[tokio::test]
async fn what_would_panic_or_stall_a_node_is_refused() {
    let h = Harness::new().await;
    let forty = "é".repeat(40);
    refused(&h, with(json!({"hostname": forty})), "spec.hostname: Invalid value").await;
    refused(&h, with(json!({"subdomain": "Up"})), "spec.subdomain: Invalid value").await;
    for grace in [-1, i64::MAX] {
        let pod = with(json!({"terminationGracePeriodSeconds": grace}));
        refused(&h, pod, "spec.terminationGracePeriodSeconds: Invalid value").await;
    }
    refused(&h, with(json!({"activeDeadlineSeconds": 0})), "must be between 1 and 2147483647, inclusive").await;
    let up =
        json!({"volumes": [{"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "../../etc"}]}}]});
    refused(
        &h,
        with(up),
        "spec.volumes[0].configMap.items[0].path: Invalid value: \"../../etc\": must not contain '..'",
    )
    .await;
    let mounted = json!({"volumeMounts": [{"name": "none", "mountPath": "/a", "subPath": "../b"}]});
    refused(&h, container(mounted.clone()), "volumeMounts[0].name: Not found: \"none\"").await;
    refused(&h, container(mounted), "subPath: Invalid value: \"../b\": must not contain '..'").await;
    let probe = json!({"livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": -3, "failureThreshold": 4_000_000_000_i64}});
    let message = h.post(PODS, container(probe)).await;
    assert!(matches!(message.code, 400 | 422), "{}", message.text);
    refused(&h, with(json!({"securityContext": {"runAsUser": -1}})), "must be between 0 and 2147483647, inclusive")
        .await;
    refused(
        &h,
        with(json!({"securityContext": {"sysctls": [{"name": "../../kernel"}]}})),
        "sysctls[0].name: Invalid value",
    )
    .await;
}

#[tokio::test]
async fn findings_are_in_the_words_of_kubernetes() {
    let h = Harness::new().await;
    let resources = json!({"resources": {"limits": {"cpu": "500m"}, "requests": {"cpu": "540m"}}});
    refused(
        &h,
        container(resources),
        "spec.containers[0].resources.requests: Invalid value: \"540m\": must be less than or equal to cpu limit of 500m",
    )
    .await;
    for (pod, why) in [
        (container(json!({"env": [{"name": "a=b", "value": "1"}]})), "env[0].name: Invalid value: \"a=b\""),
        (
            container(
                json!({"env": [{"name": "a", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            ),
            "may not be specified when `value` is not empty",
        ),
        (
            container(json!({"env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "spec.secret"}}}]})),
            "fieldPath: Unsupported value: \"spec.secret\"",
        ),
        (container(json!({"ports": [{"containerPort": 80, "name": "-x"}]})), "must not begin or end with a hyphen"),
        (container(json!({"ports": [{"containerPort": 80, "protocol": "X"}]})), "ports[0].protocol: Unsupported value"),
        (
            container(json!({"readinessProbe": {"periodSeconds": 1}})),
            "readinessProbe: Required value: must specify a handler type",
        ),
        (
            container(json!({"livenessProbe": {"tcpSocket": {"port": 80}, "successThreshold": 2}})),
            "livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            container(json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false}})),
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
        (
            container(json!({"securityContext": {"procMount": "Unmasked"}})),
            "`hostUsers` must be false to use `Unmasked`",
        ),
        (with(json!({"volumes": [{"name": "v"}]})), ""),
        (
            with(json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]})),
            "may not specify more than 1 volume type",
        ),
        (with(json!({"volumes": [{"name": "v", "hostPath": {"path": "/a/../b"}}]})), "must not contain '..'"),
        (
            with(json!({"tolerations": [{"operator": "Equal", "value": "x"}]})),
            "operator must be Exists when `key` is empty",
        ),
        (
            with(
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}),
            ),
            "must have at least one node selector term",
        ),
        (with(json!({"dnsPolicy": "None"})), "must provide at least one DNS nameserver when `dnsPolicy` is None"),
        (with(json!({"hostAliases": [{"ip": "x", "hostnames": ["a"]}]})), "hostAliases[0].ip: Invalid value"),
        (
            with(json!({"hostUsers": false, "hostNetwork": true})),
            "spec.hostNetwork: Forbidden: when `hostUsers` is false",
        ),
        (
            with(json!({"initContainers": [{"name": "i", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}}}]})),
            "may not be set for init containers without restartPolicy=Always",
        ),
    ] {
        if why.is_empty() {
            // A volume without a source is scratch space, by default.
            h.post(&format!("{PODS}?dryRun=All"), pod).await.expect(201);
            continue;
        }
        refused(&h, pod, why).await;
    }
}

#[tokio::test]
async fn templates_are_checked_as_pods_are() {
    let h = Harness::new().await;
    let mut bad = deployment("d");
    bad["spec"]["template"]["spec"]["hostname"] = "not a label".into();
    let message = h.post("/apis/apps/v1/namespaces/default/deployments", bad).await.failure(422);
    assert!(message.contains("spec.template.spec.hostname: Invalid value"), "{message}");
    let template =
        json!({"metadata": {"name": "t"}, "template": {"spec": {"containers": [{"name": "c", "image": " "}]}}});
    h.post("/api/v1/namespaces/default/podtemplates", template).await.expect(422);
    let services = "/apis/serving.knative.dev/v1/namespaces/default/services";
    let container =
        json!({"image": "example/i", "resources": {"limits": {"cpu": "500m"}, "requests": {"cpu": "540m"}}});
    let service = json!({"metadata": {"name": "s"}, "spec": {"template": {"spec": {"containers": [container]}}}});
    let message = h.post(services, service).await.failure(400);
    assert!(message.contains("Invalid value: \"540m\": must be less than or equal to cpu limit of 500m"), "{message}");
}

#[tokio::test]
async fn of_a_stored_pod_little_changes() {
    let h = Harness::new().await;
    let mut made = with(json!({"tolerations": [{"key": "a", "operator": "Exists"}], "activeDeadlineSeconds": 100}));
    made["spec"]["terminationGracePeriodSeconds"] = 5.into();
    h.post(PODS, made).await.expect(201);
    let path = format!("{PODS}/p");
    let patch = async |spec: Value| h.send("PATCH", &path, json!({"spec": spec})).await;
    patch(json!({"hostname": "other"})).await.expect(422);
    patch(json!({"terminationGracePeriodSeconds": 6})).await.expect(422);
    patch(json!({"activeDeadlineSeconds": 101})).await.expect(422);
    let before = h.get(&path).await.text;
    let after = patch(json!({"activeDeadlineSeconds": 99})).await;
    assert_eq!(after.code, 200, "{before}\n{after:?}");
    let message = patch(json!({"tolerations": [{"key": "b", "operator": "Exists"}]})).await.failure(422);
    assert!(message.contains("existing toleration can not be modified except its tolerationSeconds"), "{message}");
    patch(json!({"ephemeralContainers": [{"name": "e", "image": "i"}]})).await.expect(422);
    let resources = json!([{"op": "add", "path": "/spec/containers/0/resources", "value": {"limits": {"cpu": "1"}}}]);
    h.send("PATCH", &path, resources).await.expect(422);
    let debug = json!({"metadata": {"name": "p"}, "spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}});
    let answer = h.send("PUT", &format!("{path}/ephemeralcontainers"), debug).await;
    assert!(
        answer.warnings().iter().any(|w| w.contains("ephemeralContainers is kept, but not acted on")),
        "{answer:?}"
    );
    answer.expect(200);
}

#[tokio::test]
async fn a_runtime_class_must_be_there() {
    let h = Harness::new().await;
    let named = with(json!({"runtimeClassName": "gvisor"}));
    let message = h.post(PODS, named.clone()).await.failure(403);
    assert_eq!(message, "pods \"p\" is forbidden: pod rejected: RuntimeClass \"gvisor\" not found");
    h.post("/apis/node.k8s.io/v1/runtimeclasses", json!({"metadata": {"name": "gvisor"}, "handler": "x"}))
        .await
        .expect(201);
    h.post(PODS, named).await.expect(201);
}

#[tokio::test]
async fn only_pods_of_the_system_are_of_its_classes() {
    let h = Harness::new().await;
    for class in ["system-node-critical", "system-cluster-critical"] {
        let pod = with(json!({"priorityClassName": class}));
        let message = h.post(PODS, pod).await.failure(403);
        let why = format!("pods with {class} priorityClass is not permitted in default namespace");
        assert!(message.contains(&why), "{message}");
    }
}
