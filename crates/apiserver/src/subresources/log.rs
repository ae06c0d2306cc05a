//! `log`: a container's output.

use std::sync::Arc;

use futures_util::StreamExt as _;
use http::Response;
use serde_json::Value;

use crate::{
    ApiServer,
    body::{self, Body, BodyError},
    call::Call,
    node_backend::{ContainerRef, LogRequest},
    object, respond,
    status::Status,
};

pub(super) async fn get(server: &Arc<ApiServer>, call: &Call) -> Result<Response<Body>, Status> {
    let pod = server.core_object("pods", &call.namespace, &call.name).ok_or_else(|| call.not_found())?;
    let container = container(&pod, call.query.get("container"))?;
    if object::text(&pod, "/spec/nodeName").is_empty() {
        // Not on a node yet: there is nothing to read, and nobody to ask.
        return Ok(respond::text(200, ""));
    }
    let query = &call.query;
    let since_time = match query.get("sinceTime") {
        "" => None,
        text => Some(text.parse().map_err(|e| Status::bad_request(format!("sinceTime: {e}")))?),
    };
    let request = LogRequest {
        target: ContainerRef {
            namespace: call.namespace.clone(),
            pod: call.name.clone(),
            uid: object::uid(&pod).to_owned(),
            container,
        },
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines: query.number("tailLines")?,
        since_seconds: query.number("sinceSeconds")?,
        since_time,
        limit_bytes: query.number("limitBytes")?,
        stream: query.get("stream").into(),
    };
    let lines = server.config.node.logs(request).await?;
    let lines = lines.map(|item| item.map_err(BodyError::from));
    Ok(respond::with_type(200, "text/plain", body::stream(lines)))
}

/// The container that is meant: the one named, else the default one, else the only one.
///
/// # Errors
/// 400 when there is no such container or no one is meant.
pub(super) fn container(pod: &Value, wanted: &str) -> Result<String, Status> {
    let names = |list: &str| -> Vec<String> {
        object::list(pod, &format!("/spec/{list}")).iter().map(|c| object::name_of(c).to_owned()).collect()
    };
    let (containers, init) = (names("containers"), names("initContainers"));
    let pod_name = object::name(pod);
    if !wanted.is_empty() {
        let known = containers.iter().chain(&init).chain(&names("ephemeralContainers")).any(|n| n == wanted);
        return if known {
            Ok(wanted.to_owned())
        } else {
            Err(Status::bad_request(format!("container {wanted} is not valid for pod {pod_name}")))
        };
    }
    let default = object::annotation(pod, "kubectl.kubernetes.io/default-container");
    if let Some(default) = default.filter(|d| containers.iter().any(|n| n == d)) {
        return Ok(default.to_owned());
    }
    if let [only] = containers.as_slice() {
        return Ok(only.clone());
    }
    let mut message =
        format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", containers.join(" "));
    if !init.is_empty() {
        message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    Err(Status::bad_request(message))
}
