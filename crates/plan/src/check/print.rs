//! Plans as text: what a reader of a test needs to see, a line each.

use knoll_api::Object;
use serde_json::Value;

use crate::{Plan, Want, World};

/// A plan, a want a line; details of a want are indented below it.
pub(super) fn plan(world: &World, plan: &Plan) -> String {
    let mut text: String = plan.wants.iter().map(|want| one(world, want)).collect();
    if let Some(delay) = plan.recheck {
        text += &format!("recheck after {delay:?}\n");
    }
    text
}

fn one(world: &World, want: &Want) -> String {
    match want {
        Want::Create(object) => create(object),
        Want::Update(object) => {
            format!("update {} {}\n{}", object.kind().kind(), object.key(), changes(world, object, "/"))
        }
        Want::Status(object) => format!("status {} {}\n{}", object.kind().kind(), object.key(), status(object)),
        Want::Scale { kind, key, replicas } => format!("scale {} {key} to {replicas}\n", kind.kind()),
        Want::Delete { kind, key, .. } => format!("delete {} {key}\n", kind.kind()),
        Want::Collect { object, .. } => format!("collect {}\n", object.path),
        Want::Shrink { object, list, without, .. } => {
            format!("{} of {} without {without:?}\n", list.field(), object.path)
        }
        Want::Patch { path, patch } => format!("patch {path} with {patch}\n"),
        Want::DeleteContent { namespace } => format!("delete content of {namespace}\n"),
        Want::Bind { pod, node, .. } => format!("bind {pod} to {node}\n"),
        Want::Finalize(object) => format!("finalize {}\n", object.key()),
        Want::RecordEvent(note) => format!("note {}: {}\n", note.reason, note.message),
        Want::ReviewAccess { request, .. } => {
            let resources: Vec<String> =
                request.resources.iter().map(|(group, plural)| format!("{plural}.{group}")).collect();
            let (verbs, places) = (request.verbs.join(","), request.namespaces.join(","));
            format!("ask whether {} may {verbs} {} in {places}\n", request.account, resources.join(","))
        }
        Want::IssueToken(order) => format!("issue a token of {} for {}\n", order.account, order.audience),
        Want::ResolveDigest { request, .. } => format!("resolve {}\n", request.image),
    }
}

fn create(object: &Object) -> String {
    let value = object.to_json();
    let mut text = format!("create {} {}\n", object.kind().kind(), object.key());
    for part in ["labels", "annotations"] {
        if let Some(map) = value["metadata"][part].as_object() {
            let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
            text += &format!("  {part} {}\n", pairs.join(" "));
        }
    }
    if let Some(spec) = value.get("spec").and_then(Value::as_object) {
        spec.iter().for_each(|(field, value)| text += &format!("  {field} {value}\n"));
    }
    if let Some(subsets) = value.get("subsets") {
        text += &format!("  subsets {subsets}\n");
    }
    text
}

fn status(object: &Object) -> String {
    let value = object.to_json();
    let mut text = String::new();
    for (field, value) in value["status"].as_object().into_iter().flatten() {
        if field != "conditions" {
            text += &format!("  {field} {value}\n");
        }
    }
    for condition in value["status"]["conditions"].as_array().into_iter().flatten() {
        let word = |field: &str| condition[field].as_str().unwrap_or_default();
        let line = format!("  {}={} {} {}", word("type"), word("status"), word("reason"), word("message"));
        text += line.trim_end();
        text += "\n";
    }
    text
}

fn changes(world: &World, after: &Object, root: &str) -> String {
    let before = world.object(after.kind(), &after.key()).map(|object| object.to_json()).unwrap_or_default();
    let mut lines = Vec::new();
    compare(root, &before, &after.to_json(), &mut lines);
    lines.concat()
}

fn compare(path: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Value::Object(was), Value::Object(is)) => {
            for field in was.keys().chain(is.keys().filter(|field| !was.contains_key(*field))) {
                let side = |map: &serde_json::Map<String, Value>| map.get(field).cloned().unwrap_or_default();
                compare(&format!("{path}{field}/"), &side(was), &side(is), lines);
            }
        }
        _ => lines.push(format!("  {} {before} -> {after}\n", path.trim_matches('/'))),
    }
}
