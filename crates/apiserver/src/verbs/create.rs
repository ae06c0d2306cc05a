//! POST to a collection.

use std::sync::Arc;

use http::Response;

use super::write;
use crate::{ApiServer, body::Body, call::Call, respond, status::Status};

/// Makes an object; answers 201 with it.
pub(crate) async fn create(server: &Arc<ApiServer>, call: &mut Call) -> Result<Response<Body>, Status> {
    let object = call.read_object().await?;
    let options = call.write_options()?;
    let done = write::create(server, call, &options, object).await?;
    Ok(respond::object(call, 201, &done.object, &done.warnings))
}
