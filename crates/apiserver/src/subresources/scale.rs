//! `scale`: how many, as `autoscaling/v1` Scale whatever the kind.

use std::sync::Arc;

use http::Response;
use serde_json::{Value, json};

use crate::{
    ApiServer,
    body::Body,
    call::{self, Call},
    label_selector, object, patches,
    resources::ScalePaths,
    respond,
    route::Verb,
    status::{Cause, Status},
    verbs::write,
};

pub(super) async fn run(server: &Arc<ApiServer>, call: &mut Call) -> Result<Response<Body>, Status> {
    let paths = call.resource.scale.clone().ok_or_else(Status::no_such_resource)?;
    if call.verb == Verb::Get {
        let entry = server.store.get(&call.key()).ok_or_else(|| call.not_found())?;
        let stored = server.trees.stored(&call.resource, &entry).await?;
        return Ok(respond::object(call, 200, &scale(&paths, &stored.object), &[]));
    }
    let options = call.write_options()?;
    let patch = if call.verb == Verb::Patch { Some(patches::Patch::read(call).await?) } else { None };
    let body = if patch.is_none() { call.read_object().await? } else { Value::Null };
    let call = &*call;
    let mut change = |old: &Value| {
        let mut wanted = match &patch {
            Some(patch) => patch.apply_to("autoscaling", "v1", "Scale", &scale(&paths, old))?,
            None => body.clone(),
        };
        call::check_fields(("autoscaling", "v1", "Scale"), &mut wanted)?;
        scaled(call, &paths, old, &wanted)
    };
    let done = write::update(server, call, &options, &mut change).await?;
    Ok(respond::object(call, 200, &scale(&paths, &done.object), &done.warnings))
}

/// The object with the count that a Scale wants; the Scale's version and uid stay conditions.
fn scaled(call: &Call, paths: &ScalePaths, old: &Value, wanted: &Value) -> Result<Value, Status> {
    let count = object::integer(wanted, "/spec/replicas").unwrap_or(0);
    if count < 0 {
        let cause = Cause::invalid("spec.replicas", &count.into(), "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", &call.name, vec![cause]));
    }
    let mut new = old.clone();
    set(&mut new, &paths.spec, count.into());
    let meta = object::meta_mut(&mut new);
    match object::resource_version(wanted) {
        "" => meta.remove("resourceVersion"),
        version => meta.insert("resourceVersion".into(), version.into()),
    };
    if !object::uid(wanted).is_empty() {
        meta.insert("uid".into(), object::uid(wanted).into());
    }
    Ok(new)
}

/// Sets the value at a JSON pointer of maps, making those that are missing.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for name in pointer.split('/').filter(|s| !s.is_empty()) {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[name];
    }
    *at = value;
}

fn scale(paths: &ScalePaths, object: &Value) -> Value {
    let meta = &object["metadata"];
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta.get(field) {
            metadata[field] = value.clone();
        }
    }
    let mut status = json!({"replicas": object::integer(object, &paths.status).unwrap_or(0)});
    let selector = match object.pointer(&paths.selector) {
        Some(Value::String(text)) => text.clone(),
        Some(map) if map.get("matchLabels").is_some() || map.get("matchExpressions").is_some() => {
            label_selector::format(map)
        }
        Some(plain) => label_selector::format(&json!({"matchLabels": plain})),
        None => String::new(),
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": object::integer(object, &paths.spec).unwrap_or(0)},
        "status": status,
    })
}
