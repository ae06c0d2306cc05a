//! `binding`: puts a pod on a node, once.

use std::sync::Arc;

use http::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    ApiServer,
    body::Body,
    call::Call,
    metadata, object, respond,
    status::{self, Status},
    verbs::write,
};

pub(super) async fn create(server: &Arc<ApiServer>, call: &mut Call) -> Result<Response<Body>, Status> {
    let options = call.write_options()?;
    let binding = call.read_object().await?;
    let node = object::text(&binding, "/target/name").to_owned();
    if node.is_empty() {
        return Err(Status::bad_request("target.name is required"));
    }
    let call = &*call;
    let mut change = |pod: &Value| bound(call, pod, &binding, &node);
    write::update(server, call, &options, &mut change).await?;
    let mut done = status::success();
    done["code"] = 201.into();
    Ok(respond::value(201, &done, call.accept.format))
}

fn bound(call: &Call, pod: &Value, binding: &Value, node: &str) -> Result<Value, Status> {
    let resource = &call.resource;
    let conflict =
        |why: &str| Status::conflict(&resource.group, &format!("{}/binding", resource.plural), &call.name, why);
    metadata::check_uid(resource, pod, object::uid(binding))?;
    if object::is_deleting(pod) {
        return Err(conflict(&format!("pod {} is being deleted, cannot be assigned to a host", call.name)));
    }
    let current = object::text(pod, "/spec/nodeName");
    if !current.is_empty() {
        return Err(conflict(&format!("pod {} is already assigned to node {current:?}", call.name)));
    }
    let mut new = pod.clone();
    new["spec"]["nodeName"] = node.into();
    let now = object::seconds(Timestamp::now());
    let condition = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now});
    let conditions = new["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let kept = conditions.into_iter().filter(|c| c["type"] != "PodScheduled");
    new["status"]["conditions"] = kept.chain([condition]).collect();
    Ok(new)
}
