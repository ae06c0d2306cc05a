//! Subresources that are read and written as the whole object, of which only they change.

use std::sync::Arc;

use crate::{
    ApiServer,
    body::Body,
    call::Call,
    respond,
    route::Verb,
    status::Status,
    verbs::{get, patch, update, write},
};
use http::Response;

pub(super) async fn run(server: &Arc<ApiServer>, call: &mut Call) -> Result<Response<Body>, Status> {
    match call.verb {
        Verb::Get => get::get(server, call).await,
        Verb::Patch => patch::patch(server, call).await,
        _ => replace(server, call).await,
    }
}

async fn replace(server: &Arc<ApiServer>, call: &mut Call) -> Result<Response<Body>, Status> {
    let options = call.write_options()?;
    let mut wanted = call.read_object().await?;
    update::check_name(call, &mut wanted)?;
    // What of it is written is narrowed down where every write of the subresource passes.
    let done = write::update(server, call, &options, &mut |_| Ok(wanted.clone())).await?;
    Ok(respond::object(call, 200, &done.object, &done.warnings))
}
