//! One file a verb.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod delete_collection;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod patch;
pub(crate) mod update;
pub(crate) mod watch;
pub(crate) mod write;

use std::sync::Arc;

use http::Response;

use crate::{ApiServer, body::Body, call::Call, reviews, route::Verb, status::Status, subresources};

/// Does what an authorized request asks.
pub(crate) async fn run(server: &Arc<ApiServer>, mut call: Call) -> Result<Response<Body>, Status> {
    if call.resource.is_computed() {
        return reviews::run(server, call).await;
    }
    if call.subresource.is_some() {
        return subresources::run(server, call).await;
    }
    match call.verb {
        Verb::Create => create::create(server, &mut call).await,
        Verb::Get => get::get(server, &call),
        Verb::List => list::list(server, &call).await,
        Verb::Watch => watch::watch(server, &call).await,
        Verb::Update => update::update(server, &mut call).await,
        Verb::Patch => patch::patch(server, &mut call).await,
        Verb::Delete => delete::delete(server, &mut call).await,
        Verb::DeleteCollection => delete_collection::delete_collection(server, &mut call).await,
    }
}
