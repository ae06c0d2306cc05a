//! What tools rely on that apply the same files again and again, and what users are told when a file is wrong.

use std::{fs, path::PathBuf};

use knoll_e2e::{Namespace, condition};
use serde_json::{Value, json};

const ACTOR: &str = "localhost:5000/e2e/actor:1";
const MIN_SCALE: &str = "autoscaling.knative.dev/min-scale";

fn service(name: &str, template: Value) -> String {
    json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"template": template},
    })
    .to_string()
}

fn containers() -> Value {
    json!({"spec": {"containers": [{"image": ACTOR, "env": [{"name": "TARGET", "value": "one"}]}]}})
}

/// A manifest on disk, as such tools have it.
fn file(space: &Namespace, text: &str) -> (PathBuf, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(format!("{}.json", space.name));
    fs::write(&path, text).expect("written");
    (path, directory)
}

#[test]
fn applying_the_same_file_again_changes_nothing() {
    let space = Namespace::new("gitops");
    let (path, _directory) = file(&space, &service("same", containers()));
    let path = path.to_str().expect("a plain path");
    space.kubectl(&["apply", "-f", path]);
    let before = space.ready("same");
    space.kubectl(&["diff", "-f", path]);
    space.kubectl(&["apply", "-f", path]);
    let after = space.object("ksvc", "same");
    assert_eq!(after["metadata"]["generation"], 1);
    assert_eq!(after["spec"], before["spec"]);
}

#[test]
fn applying_the_same_file_again_on_the_server_changes_nothing() {
    let space = Namespace::new("gitops");
    let (path, _directory) = file(&space, &service("same", containers()));
    let path = path.to_str().expect("a plain path");
    let apply = ["apply", "--server-side", "--field-manager=gitops", "-f", path];
    for _ in 0..3 {
        space.kubectl(&apply);
    }
    space.ready("same");
    space.kubectl(&apply);
    space.kubectl(&["diff", "--server-side", "--field-manager=gitops", "-f", path]);
    assert_eq!(space.object("ksvc", "same")["metadata"]["generation"], 1);
}

#[test]
fn a_value_of_the_wrong_type_is_told_by_its_path() {
    let space = Namespace::new("types");
    let template = json!({"metadata": {"annotations": {MIN_SCALE: 1}}, "spec": containers()["spec"]});
    let refused = space.kubectl_refused(&["apply", "-f", "-"], &service("wrong", template));
    let at = format!("spec.template.metadata.annotations.{MIN_SCALE}");
    let wanted = format!("{at}: Invalid value: \"integer\": {at} in body must be of type string: \"integer\"");
    assert!(refused.contains(&wanted), "{refused}");
    let mut template = containers();
    template["spec"]["containers"][0]["env"][0]["value"] = 5.into();
    let refused = space.kubectl_refused(&["apply", "-f", "-"], &service("wrong", template));
    let wanted = "spec.template.spec.containers[0].env[0].value in body must be of type string: \"integer\"";
    assert!(refused.contains(wanted), "{refused}");
}

#[test]
fn a_tag_that_makes_a_host_too_long_is_told_once() {
    let space = Namespace::new("long");
    let name = "abcdefghi-abcdefghi-abcdefghi-abcdefghi-abcdefghi-abcdefghi-xyz";
    space.apply(&service(name, containers()));
    space.ready(name);
    let host = space.host(name);
    let traffic = r#"{"spec":{"traffic":[{"latestRevision":true,"percent":100,"tag":"canary"}]}}"#;
    space.kubectl(&["patch", "ksvc", name, "--type", "merge", "-p", traffic]);
    let told =
        space.service(name, "tells of the host", |service| condition(service, "RoutesReady")["status"] == "False");
    let condition = condition(&told, "RoutesReady");
    assert_eq!(condition["reason"], "ErrorConfig");
    let wanted = format!(
        "domain name error: invalid domain name \"canary-{host}\": url: Invalid value: \"canary-{name}\": must be no more than 63 characters"
    );
    assert_eq!(condition["message"], wanted);
    assert_eq!(space.ask(name).status, 200, "the name without the tag goes on serving");
}
