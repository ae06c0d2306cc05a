use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::env::{Allocatable, Sources};

fn pod(volumes: Value, containers: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "labels": {"l": "1"}},
        "spec": {"volumes": volumes, "containers": containers}}))
    .expect("a pod")
}

fn with_content<T>(pod: &Pod, act: impl FnOnce(&Content<'_>) -> T) -> T {
    let mut sources = Sources::default();
    let map = json!({"metadata": {"name": "cm"}, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}});
    sources.config_maps.insert("cm".into(), Some(Arc::new(serde_json::from_value(map).expect("a map"))));
    let secret = json!({"metadata": {"name": "s"}, "data": {"k": "djE="}});
    sources.secrets.insert("s".into(), Some(Arc::new(serde_json::from_value(secret).expect("a secret"))));
    let inputs = Inputs {
        pod,
        host_ip: "192.0.2.1",
        pod_ip: "10.244.0.5",
        allocatable: Allocatable::default(),
        sources: &sources,
        services: &[],
        node_name: "n1",
    };
    let token = TokenRequest { audience: "aud".into(), expiration_seconds: 600 };
    let tokens = BTreeMap::from([(token, "tok".to_owned())]);
    act(&Content { inputs: &inputs, tokens: &tokens, group: None })
}

fn files(volume: Value) -> Result<Vec<(String, String, u32)>, String> {
    let pod = pod(json!([volume]), json!([{"name": "c"}]));
    let payload = with_content(&pod, |content| payload(&volumes(&pod)[0], content)).map_err(|e| e.to_string())?;
    let show = |(path, file): (PathBuf, File)| {
        (path.display().to_string(), String::from_utf8_lossy(&file.bytes).into_owned(), file.mode)
    };
    Ok(payload.expect("from the API").into_iter().map(show).collect())
}

fn shown(path: &str, text: &str, mode: u32) -> (String, String, u32) {
    (path.to_owned(), text.to_owned(), mode)
}

#[test]
fn all_keys_become_files_or_those_that_are_named() {
    assert_eq!(
        files(json!({"name": "v", "configMap": {"name": "cm"}})),
        Ok(vec![shown("a", "1", 0o644), shown("b", "2", 0o644), shown("c", "\0\u{1}", 0o644)])
    );
    assert_eq!(
        files(json!({"name": "v", "configMap": {"name": "cm", "defaultMode": 256,
            "items": [{"key": "a", "path": "x/./y", "mode": 511}, {"key": "b", "path": "z"}]}})),
        Ok(vec![shown("x/y", "1", 0o777), shown("z", "2", 0o400)])
    );
}

#[test]
fn missing_sources_fail_unless_optional() {
    for (volume, text) in [
        (json!({"name": "v", "configMap": {"name": "no"}}), "configmap \"no\" not found"),
        (json!({"name": "v", "secret": {"secretName": "no"}}), "secret \"no\" not found"),
        (
            json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "q", "path": "q"}]}}),
            "configmap references non-existent config key: q",
        ),
        (
            json!({"name": "v", "secret": {"secretName": "s", "items": [{"key": "q", "path": "q"}]}}),
            "references non-existent secret key: q",
        ),
    ] {
        assert_eq!(files(volume), Err(text.to_owned()));
    }
    assert_eq!(files(json!({"name": "v", "secret": {"secretName": "no", "optional": true}})), Ok(vec![]));
}

#[test]
fn projections_join_their_sources() {
    let volume = json!({"name": "v", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "audience": "aud", "expirationSeconds": 600}},
        {"configMap": {"name": "cm", "items": [{"key": "a", "path": "ca.crt"}]}},
        {"secret": {"name": "s"}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}});
    assert_eq!(
        files(volume),
        Ok(vec![
            shown("ca.crt", "1", 0o644),
            shown("k", "v1", 0o644),
            shown("labels", "l=\"1\"", 0o644),
            shown("token", "tok", 0o644)
        ])
    );
}

#[test]
fn references_and_tokens_are_each_named_once() {
    let pod = pod(
        json!([{"name": "a", "configMap": {"name": "cm"}}, {"name": "b", "projected": {"sources": [
            {"configMap": {"name": "cm"}}, {"secret": {"name": "s"}}, {"serviceAccountToken": {"path": "t"}},
            {"serviceAccountToken": {"path": "u"}}]}}]),
        json!([{"name": "c"}]),
    );
    assert_eq!(references(&pod), (vec!["cm".to_owned()], vec!["s".to_owned()]));
    assert_eq!(tokens(&pod), [TokenRequest { audience: String::new(), expiration_seconds: 3600 }]);
}

#[test]
fn volumes_are_made_mounted_and_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let places = Places { scratch: dir.path().join("s"), content: dir.path().join("c") };
    let host = dir.path().join("host");
    let pod = pod(
        json!([{"name": "cfg", "configMap": {"name": "cm"}}, {"name": "tmp", "emptyDir": {}},
            {"name": "h", "hostPath": {"path": host.to_str(), "type": "DirectoryOrCreate"}}]),
        json!([{"name": "c", "volumeMounts": [
            {"name": "tmp", "mountPath": "/deep/er", "subPathExpr": "$(POD)/x"},
            {"name": "cfg", "mountPath": "/etc/cfg"},
            {"name": "h", "mountPath": "/h", "readOnly": true}]}]),
    );
    let work = with_content(&pod, |content| work(&pod, content)).expect("can be filled");
    prepare(&work, &places, None, "g1").expect("fills");
    assert_eq!(std::fs::read_to_string(dir.path().join("c/cfg/a")).expect("reads"), "1");
    assert!(dir.path().join("s/tmp").is_dir() && host.is_dir());

    let environment = [("POD".to_owned(), "p".to_owned())];
    let container = &pod.spec.as_ref().expect("spec").containers[0];
    let list = mounts(&pod, container, &places, &environment).expect("mounts");
    let seen: Vec<_> = list.iter().map(|m| (m.destination.to_str().expect("text"), m.read_only)).collect();
    assert_eq!(seen, [("/h", true), ("/deep/er", false), ("/etc/cfg", true)]);
    let below = |m: &knoll_container::protocol::Mount| match &m.source {
        knoll_container::protocol::MountSource::Bind { sub_path, .. } => sub_path.clone(),
        knoll_container::protocol::MountSource::Tmpfs { .. } => None,
    };
    assert_eq!(below(&list[1]), Some(PathBuf::from("p/x")));
    assert_eq!(mounts(&pod, container, &places, &[]), Err(MountError::Expression("$(POD)/x".into())));

    release(&places).expect("releases");
    assert!(!places.scratch.exists() && !places.content.exists() && host.is_dir());
}

#[test]
fn what_this_node_cannot_mount_is_said() {
    let pod = pod(json!([{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}]), json!([{"name": "c"}]));
    let (name, error) = with_content(&pod, |content| work(&pod, content)).expect_err("unsupported");
    assert_eq!(name, "v");
    assert_eq!(error.to_string(), "volumes of type persistentVolumeClaim are not supported on this node yet");
}

#[test]
fn one_map_mounted_over_and_over_does_not_fill_memory() {
    let mut sources = Sources::default();
    let map = json!({"metadata": {"name": "cm"}, "data": {"a": "x".repeat(1 << 20)}});
    sources.config_maps.insert("cm".into(), Some(Arc::new(serde_json::from_value(map).expect("a map"))));
    let volumes: Vec<_> = (0..65).map(|n| json!({"name": format!("v{n}"), "configMap": {"name": "cm"}})).collect();
    let pod = pod(json!(volumes), json!([{"name": "c"}]));
    let inputs = Inputs {
        pod: &pod,
        host_ip: "",
        pod_ip: "",
        allocatable: Allocatable::default(),
        sources: &sources,
        services: &[],
        node_name: "n1",
    };
    let (name, error) =
        work(&pod, &Content { inputs: &inputs, tokens: &BTreeMap::new(), group: None }).expect_err("too much");
    assert_eq!(name, "v64");
    assert!(error.to_string().ends_with("hold more than 64 MiB together"), "{error}");
}
