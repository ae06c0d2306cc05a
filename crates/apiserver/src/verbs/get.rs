//! GET of one object.

use std::sync::Arc;

use http::Response;

use crate::{
    ApiServer,
    accept::{Format, Representation},
    body::Body,
    call::Call,
    objects, respond,
    status::Status,
};

/// Answers with the object. The common form is copied from the store without parsing.
pub(crate) async fn get(server: &Arc<ApiServer>, call: &Call) -> Result<Response<Body>, Status> {
    let entry = server.store.get(&call.key()).ok_or_else(|| call.not_found())?;
    if call.accept.view == Representation::Plain
        && call.accept.format == Format::Json
        && !objects::converts(&call.resource)
    {
        let mut out = Vec::with_capacity(entry.value.len() + 48);
        objects::write_stamped(&mut out, &entry.value, entry.revision);
        return Ok(respond::bytes(200, out));
    }
    let stored = server.trees.stored(&call.resource, &entry).await?;
    Ok(respond::object(call, 200, &stored.object, &[]))
}
