//! What is not ready says why: in conditions, in events, and to the client that asks.

use knoll_e2e::{Cluster, Namespace, condition, get, until};
use serde_json::{Value, json};

const ACTOR: &str = "localhost:5000/e2e/actor:1";

fn service(name: &str, container: &Value) -> String {
    let annotations = json!({"serving.knative.dev/progress-deadline": "10s"});
    let template =
        json!({"metadata": {"annotations": annotations}, "spec": {"timeoutSeconds": 5, "containers": [container]}});
    json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name}, "spec": {"template": template}})
        .to_string()
}

/// Waits until a service has failed: what it says of its configuration, and the failure of its revision.
fn failed(space: &Namespace, name: &str) -> (Value, Value) {
    let service = space.service(name, "has failed", |service| {
        ["Ready", "ConfigurationsReady"].iter().all(|kind| condition(service, kind)["status"] == "False")
    });
    (
        condition(&service, "ConfigurationsReady"),
        condition(&space.object("revisions", &format!("{name}-00001")), "Ready"),
    )
}

/// Waits for an event with this reason whose message has this part.
fn event(space: &Namespace, reason: &str, part: &str) {
    let mut last = Vec::new();
    let found = knoll_e2e::found_within(knoll_e2e::PATIENCE, || {
        last = space.list("events");
        let right = |event: &Value| {
            event["reason"] == reason && event["message"].as_str().is_some_and(|text| text.contains(part))
        };
        last.iter().any(right).then_some(())
    });
    let shown: Vec<_> = last.iter().map(|event| format!("{} {}", event["reason"], event["message"])).collect();
    assert!(found.is_some(), "no event {reason} with {part:?} among {shown:#?}");
}

fn has(condition: &Value, part: &str) {
    assert!(
        condition["message"].as_str().is_some_and(|text| text.contains(part)),
        "{part:?} is missing in {condition:#}"
    );
}

#[test]
fn an_image_that_is_not_there() {
    let space = Namespace::new("missing");
    space.apply(&service("missing", &json!({"image": "localhost:5000/e2e/nowhere:1"})));
    let (service, revision) = failed(&space, "missing");
    assert_eq!(service["reason"], "RevisionFailed");
    has(
        &service,
        "Revision \"missing-00001\" failed with message: Unable to fetch image \"localhost:5000/e2e/nowhere:1\": ",
    );
    assert_eq!(revision["reason"], "ContainerMissing");
    has(&revision, "failed to resolve image to digest");
    has(&revision, "not found");
    // A pod of one's own, whose image nobody looks up before.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare"},
        "spec": {"containers": [{"name": "main", "image": "localhost:5000/e2e/nowhere:1"}]},
    });
    space.apply(&pod.to_string());
    event(&space, "Failed", "Failed to pull image \"localhost:5000/e2e/nowhere:1\"");
    event(&space, "BackOff", "Back-off pulling image \"localhost:5000/e2e/nowhere:1\"");
    until("the pod waits", || {
        let waiting = space.object("pods", "bare")["status"]["containerStatuses"][0]["state"]["waiting"].clone();
        (waiting["reason"] == "ImagePullBackOff" && waiting["message"].as_str()?.contains("not found")).then_some(())
    });
}

#[test]
fn a_container_that_ends() {
    let space = Namespace::new("crash");
    space.apply(&service("crash", &json!({"image": ACTOR, "env": [{"name": "ACTOR_EXIT", "value": "7"}]})));
    let (service, revision) = failed(&space, "crash");
    assert_eq!(service["reason"], "RevisionFailed");
    has(&service, "the configuration is nowhere to be found");
    assert_eq!(revision["reason"], "ExitCode7");
    has(&revision, "Container failed with: ");
    has(&revision, "actor: the configuration is nowhere to be found");
    event(&space, "BackOff", "Back-off restarting failed container user-container");
}

#[test]
fn a_probe_that_fails() {
    let space = Namespace::new("probe");
    let probe = json!({"httpGet": {"path": "/file?/nowhere"}, "periodSeconds": 1});
    space.apply(&service("probe", &json!({"image": ACTOR, "readinessProbe": probe})));
    event(&space, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 500");
    let (service, revision) = failed(&space, "probe");
    assert_eq!(
        (&service["reason"], &revision["reason"]),
        (&json!("RevisionFailed"), &json!("ProgressDeadlineExceeded"))
    );
    has(&revision, "HTTP probe failed with statuscode: 500");
    has(&service, "HTTP probe failed with statuscode: 500");
}

#[test]
fn a_port_nobody_listens_on() {
    let space = Namespace::new("deaf");
    space.apply(&service("deaf", &json!({"image": ACTOR, "env": [{"name": "ACTOR_DEAF", "value": "1"}]})));
    event(&space, "Unhealthy", "connection refused");
    let (service, revision) = failed(&space, "deaf");
    assert_eq!(
        (&service["reason"], &revision["reason"]),
        (&json!("RevisionFailed"), &json!("ProgressDeadlineExceeded"))
    );
    has(&revision, "connection refused");
    has(&service, "connection refused");
}

#[test]
fn a_client_is_told_why_a_revision_cannot_start() {
    let space = Namespace::new("told");
    space.kubectl(&["create", "configmap", "settings", "--from-literal=greeting=hi"]);
    let key = |name: &str, key: &str| json!({"name": name, "valueFrom": {"configMapKeyRef": {"name": "settings", "key": key, "optional": true}}});
    space.apply(&service(
        "told",
        &json!({"image": ACTOR, "env": [key("TARGET", "greeting"), key("ACTOR_EXIT", "exit")]}),
    ));
    space.ready("told");
    assert_eq!(space.ask("told").body, "actor hi\n");
    let host = space.host("told");
    // From now on it ends as soon as it starts.
    space.kubectl(&["patch", "configmap", "settings", "--type=merge", "-p", r#"{"data":{"exit":"7"}}"#]);
    space.kubectl(&["delete", "pods", "--all", "--wait=false"]);
    // On a slow machine the client may give up before the reason is known.
    let answer = until("it is refused", || {
        let answer = get(&space.cluster.gateway, &host, "/").expect("the gateway answers");
        (![200, 504].contains(&answer.status)).then_some(answer)
    });
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("ExitCode7"), "{}", answer.body);
    assert!(answer.body.contains("the configuration is nowhere to be found"), "{}", answer.body);
    assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{:?}", answer.headers);
    // And once it can, it is served again.
    space.kubectl(&["patch", "configmap", "settings", "--type=merge", "-p", r#"{"data":{"exit":null}}"#]);
    space.kubectl(&["delete", "pods", "--all", "--wait=false"]);
    until("it is served again", || {
        let answer = get(&space.cluster.gateway, &host, "/").expect("the gateway answers");
        (answer.status == 200).then_some(())
    });
}

#[test]
fn every_number_that_is_exported_has_a_meaning_a_kind_and_its_unit() {
    let cluster = Cluster::from_environment();
    let mut text = cluster.succeed(&cluster.knoll, &["admin", "metrics"], "");
    // Of roles that are processes of their own, each tells its part.
    for role in ["controller", "autoscaler", "gateway", "node"] {
        let told = cluster.run(&cluster.knoll, &["admin", "--role", role, "metrics"], "");
        if told.status.success() {
            text += &String::from_utf8(told.stdout).expect("text");
        }
    }
    let told = |what: &str, name: &str| {
        let start = format!("# {what} {name} ");
        text.lines().find_map(|line| line.strip_prefix(start.as_str())).map(str::to_owned)
    };
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let mut parts = std::collections::BTreeSet::new();
    for sample in samples {
        let name = sample.split(['{', ' ']).next().expect("a name");
        let name = name.strip_suffix("_total").unwrap_or(name);
        assert!(told("HELP", name).is_some_and(|help| help.len() > 3), "{name} has no meaning");
        let kind = told("TYPE", name).unwrap_or_default();
        assert!(["counter", "gauge"].contains(&kind.as_str()), "{name} is {kind:?}");
        let unit = ["bytes", "seconds"].into_iter().find(|unit| name.ends_with(&format!("_{unit}")));
        assert_eq!(told("UNIT", name).as_deref(), unit, "{name}");
        parts.insert(name.split('_').nth(usize::from(name.starts_with("knoll_"))).unwrap_or_default());
    }
    for part in ["apiserver", "controllers", "gateway", "node", "process", "registry", "store"] {
        assert!(parts.contains(part), "{part} tells nothing: {parts:?}");
    }
}
