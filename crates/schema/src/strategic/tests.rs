use serde_json::json;

use super::*;
use crate::lookup;

fn check(kind: (&str, &str), original: Value, patch: Value, wanted: Value) {
    let ty = lookup(kind.0, "v1", kind.1).unwrap();
    assert_eq!(strategic_merge(ty, &original, &patch).unwrap(), wanted);
}

fn check_pod(original: Value, patch: Value, wanted: Value) {
    check(("", "Pod"), json!({"spec": original}), json!({"spec": patch}), json!({"spec": wanted}));
}

#[test]
fn a_new_item_goes_before_those_only_the_server_has() {
    check_pod(
        json!({"containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}]}]}),
        json!({"containers": [{"name": "c", "env": [{"name": "B", "value": "2"}]}]}),
        json!({"containers": [{"name": "c", "image": "i", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}]}),
    );
}

#[test]
fn the_order_directive_says_where_items_go() {
    check_pod(
        json!({"containers": [{"name": "a"}, {"name": "server"}, {"name": "b"}]}),
        json!({
            "$setElementOrder/containers": [{"name": "b"}, {"name": "new"}, {"name": "a"}],
            "containers": [{"name": "new", "image": "n"}],
        }),
        json!({"containers": [{"name": "server"}, {"name": "b"}, {"name": "new", "image": "n"}, {"name": "a"}]}),
    );
}

#[test]
fn an_order_alone_changes_no_items() {
    check_pod(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
        json!({"containers": [{"name": "b"}, {"name": "a"}]}),
    );
}

#[test]
fn an_item_can_be_deleted_and_a_list_replaced() {
    check_pod(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        json!({"containers": [{"name": "b"}]}),
    );
    check_pod(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
        json!({"containers": [{"name": "c"}]}),
    );
}

#[test]
fn an_object_can_be_replaced_or_emptied() {
    let original = json!({"data": {"a": "1", "b": "2"}, "metadata": {"name": "m"}});
    check(
        ("", "ConfigMap"),
        original.clone(),
        json!({"data": {"$patch": "replace", "c": "3"}}),
        json!({"data": {"c": "3"}, "metadata": {"name": "m"}}),
    );
    check(
        ("", "ConfigMap"),
        original,
        json!({"data": {"$patch": "delete"}}),
        json!({"data": {}, "metadata": {"name": "m"}}),
    );
}

#[test]
fn retained_keys_clear_the_others() {
    check(
        ("apps", "Deployment"),
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    check_pod(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
    );
    let ty = lookup("apps", "v1", "Deployment").unwrap();
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    let error = strategic_merge(ty, &json!({"spec": {"strategy": {}}}), &patch).unwrap_err();
    assert_eq!(error, PatchError::NotRetained("rollingUpdate".into()));
}

#[test]
fn sets_of_values_unite_and_lose_items_by_directive() {
    check(
        ("", "ConfigMap"),
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]}}),
        json!({"metadata": {"finalizers": ["c", "b"]}}),
    );
    check(
        ("", "ConfigMap"),
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"finalizers": ["b", "c"]}}),
        json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
    );
}

#[test]
fn other_lists_are_replaced() {
    check_pod(
        json!({"containers": [{"name": "c", "args": ["a", "b"]}], "tolerations": [{"key": "a"}]}),
        json!({"containers": [{"name": "c", "args": ["c"]}], "tolerations": [{"key": "b"}]}),
        json!({"containers": [{"name": "c", "args": ["c"]}], "tolerations": [{"key": "b"}]}),
    );
}

#[test]
fn ports_of_services_meet_by_port_and_of_containers_by_container_port() {
    check(
        ("", "Service"),
        json!({"spec": {"ports": [{"port": 80, "nodePort": 30000}]}}),
        json!({"spec": {"ports": [{"port": 80, "name": "http"}]}}),
        json!({"spec": {"ports": [{"port": 80, "nodePort": 30000, "name": "http"}]}}),
    );
    check_pod(
        json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "protocol": "TCP"}]}]}),
        json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "name": "x"}]}]}),
        json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "protocol": "TCP", "name": "x"}]}]}),
    );
}

#[test]
fn null_removes_and_is_not_kept_in_what_is_new() {
    check(
        ("", "ConfigMap"),
        json!({"data": {"a": "1"}}),
        json!({"data": {"a": null, "b": null}, "metadata": {"labels": {"x": null, "y": "1"}}}),
        json!({"data": {}, "metadata": {"labels": {"y": "1"}}}),
    );
}

#[test]
fn an_item_without_its_key_is_refused() {
    let ty = lookup("", "v1", "Pod").unwrap();
    let error = strategic_merge(ty, &json!({}), &json!({"spec": {"containers": [{"image": "x"}]}})).unwrap_err();
    assert_eq!(error.to_string(), "map: {\"image\":\"x\"} does not contain declared merge key: name");
}

#[test]
fn a_selector_marked_for_replacement_is_replaced() {
    check(
        ("policy", "PodDisruptionBudget"),
        json!({"spec": {"selector": {"matchLabels": {"a": "1"}}}}),
        json!({"spec": {"selector": {"matchLabels": {"b": "2"}}}}),
        json!({"spec": {"selector": {"matchLabels": {"b": "2"}}}}),
    );
}

#[test]
fn a_hundred_thousand_fields_to_retain_are_looked_up_not_searched() {
    // Ten thousand million comparisons of names, were each field looked for in the list.
    let names: Vec<String> = (0..100_000).map(|n| format!("field-{n:08}")).collect();
    let fields: serde_json::Map<String, Value> = names.iter().map(|name| (name.clone(), json!("x"))).collect();
    let mut data = fields.clone();
    data.insert("$retainKeys".into(), json!(names));
    let ty = crate::lookup("", "v1", "ConfigMap").expect("it is built in");
    let old = json!({"data": {"gone": "1", "field-00000001": "old"}});
    let patched = strategic_merge(ty, &old, &json!({"data": data})).expect("it applies");
    assert_eq!(patched["data"], Value::Object(fields));
}
