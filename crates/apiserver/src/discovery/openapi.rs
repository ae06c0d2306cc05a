//! OpenAPI v3 at its addresses: an index, and a document a group and version.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, header};
use knoll_schema::openapi;

use crate::{
    ApiServer,
    body::{self, Body},
    query::Query,
    respond,
    status::Status,
};

/// `/openapi/v3` and what lies below it.
pub(super) fn answer(
    server: &Arc<ApiServer>,
    request: &Request<Body>,
    query: &Query,
    location: &str,
) -> Result<Response<Body>, Status> {
    let documents = server.documents.all(&server.registry());
    if location.is_empty() {
        let index = openapi::index(documents.iter().map(|(location, (hash, _))| (location.as_str(), hash.as_str())));
        return Ok(super::cached(request, "application/json", index.to_string().into_bytes()));
    }
    let Some((hash, document)) = documents.get(location) else {
        return Ok(respond::text(404, "404 page not found\n"));
    };
    let asked = query.get("hash");
    if !asked.is_empty() && asked != hash {
        let mut response = respond::with_type(301, "application/json", body::empty());
        if let Ok(value) = HeaderValue::from_str(&format!("/openapi/v3/{location}?hash={hash}")) {
            response.headers_mut().insert(header::LOCATION, value);
        }
        return Ok(response);
    }
    let mut response = super::tagged(request, "application/json", document.clone(), &format!("\"{hash}\""));
    if asked == hash {
        // The address names the content, so it never changes.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    Ok(response)
}
