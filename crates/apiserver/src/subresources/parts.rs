//! Parts that are read and written as the whole object, of which only they change.

use std::sync::Arc;

use http::Response;
use serde_json::Value;

use crate::{
    ApiServer,
    body::Body,
    call::Call,
    metadata, object,
    resources::Subresource,
    respond,
    route::Verb,
    status::Status,
    verbs::{get, patch, update, write},
};

pub(super) async fn run(server: &Arc<ApiServer>, call: &mut Call) -> Result<Response<Body>, Status> {
    match call.verb {
        Verb::Get => get::get(server, call),
        Verb::Patch => patch::patch(server, call).await,
        _ => replace(server, call).await,
    }
}

async fn replace(server: &Arc<ApiServer>, call: &mut Call) -> Result<Response<Body>, Status> {
    let options = call.write_options()?;
    let mut wanted = call.read_object().await?;
    update::check_name(call, &mut wanted)?;
    let part = call.subresource;
    let mut change = |old: &Value| Ok(merged(part, old, &wanted));
    let done = write::update(server, call, &options, &mut change).await?;
    Ok(respond::object(call, 200, &done.object, &done.warnings))
}

/// The stored object with the part of the one that was sent; its version and uid stay conditions.
fn merged(part: Option<Subresource>, old: &Value, wanted: &Value) -> Value {
    let mut new = match part {
        Some(Subresource::EphemeralContainers) => {
            let mut new = old.clone();
            new["spec"]["ephemeralContainers"] = wanted["spec"]["ephemeralContainers"].clone();
            new
        }
        Some(Subresource::Resize) => {
            let mut new = old.clone();
            new["spec"]["containers"] = wanted["spec"]["containers"].clone();
            new
        }
        _ => metadata::only(old, wanted, &["status"]),
    };
    let meta = object::meta_mut(&mut new);
    for condition in ["resourceVersion", "uid"] {
        match wanted["metadata"].get(condition) {
            Some(value) if !object::is_empty(Some(value)) => {
                meta.insert(condition.into(), value.clone());
            }
            _ if condition == "resourceVersion" => {
                meta.remove(condition);
            }
            _ => {}
        }
    }
    new
}
