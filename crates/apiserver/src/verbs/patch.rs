//! PATCH of one object.

use std::sync::Arc;

use http::Response;
use serde_json::Value;

use super::write::{self, Done};
use crate::{
    ApiServer,
    body::Body,
    call::{Call, WriteOptions},
    object, patches, respond,
    status::Status,
};

/// Changes an object as the patch says; an apply patch makes it when it is absent.
pub(crate) async fn patch(server: &Arc<ApiServer>, call: &mut Call) -> Result<Response<Body>, Status> {
    let options = call.write_options()?;
    let (code, done) = run(server, call, &options).await?;
    Ok(respond::object(call, code, &done.object, &done.warnings))
}

/// Does the patch; the code to answer with, and the state.
pub(crate) async fn run(
    server: &Arc<ApiServer>,
    call: &mut Call,
    options: &WriteOptions,
) -> Result<(u16, Done), Status> {
    let patch = patches::Patch::read(call).await?;
    if patch.is_apply() {
        return apply(server, call, options, patch).await;
    }
    let call = &*call;
    let mut change = |old: &Value| patched(call, &patch, old);
    Ok((200, write::update(server, call, options, &mut change).await?))
}

fn patched(call: &Call, patch: &patches::Patch, old: &Value) -> Result<Value, Status> {
    let mut new = patch.apply(&call.resource, old)?;
    super::update::check_name(call, &mut new)?;
    if object::is_empty(new.get("kind")) || !new.is_object() {
        return Err(Status::unprocessable());
    }
    object::strip_nulls(&mut new);
    Ok(new)
}

async fn apply(
    server: &Arc<ApiServer>,
    call: &Call,
    options: &WriteOptions,
    patch: patches::Patch,
) -> Result<(u16, Done), Status> {
    let config = patch.into_config();
    let options = &WriteOptions { applied: true, ..options.clone() };
    patches::check_apply(call, options, &config)?;
    if server.store.get(&call.key()).is_none() && call.subresource.is_none() {
        server.authorize(&call.identity, &call.attributes_of_create())?;
        let created = patches::apply(call, options, None, &config)?;
        match write::create(server, call, options, created).await {
            Err(status) if status.reason == "AlreadyExists" => {}
            result => return Ok((201, result?)),
        }
    }
    let mut change = |old: &Value| patches::apply(call, options, Some(old), &config);
    Ok((200, write::update(server, call, options, &mut change).await?))
}
