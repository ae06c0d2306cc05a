//! Subresources: what has a path of its own below its object's. One file each.

mod binding;
mod eviction;
mod exec;
mod finalize;
mod log;
mod narrowed;
mod scale;
mod token;

pub(crate) use self::eviction::BUDGETS;

use std::sync::Arc;

use http::Response;

use crate::{ApiServer, body::Body, call::Call, resources::Subresource, status::Status};

/// Does what an authorized request asks of a part.
pub(crate) async fn run(server: &Arc<ApiServer>, mut call: Call) -> Result<Response<Body>, Status> {
    match call.subresource {
        Some(Subresource::Scale) => scale::run(server, &mut call).await,
        Some(Subresource::Binding) => binding::create(server, &mut call).await,
        Some(Subresource::Eviction) => eviction::create(server, &mut call).await,
        Some(Subresource::Log) => log::get(server, &call).await,
        Some(Subresource::Finalize) => finalize::update(server, &mut call).await,
        Some(Subresource::Token) => token::create(server, &mut call).await,
        Some(Subresource::Exec | Subresource::Attach) => exec::open(server, &mut call).await,
        Some(Subresource::PortForward) => Err(Status::bad_request("port forwarding is not served")),
        Some(Subresource::Status | Subresource::EphemeralContainers | Subresource::Resize | Subresource::Approval)
        | None => narrowed::run(server, &mut call).await,
    }
}
