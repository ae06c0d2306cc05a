//! OpenAPI v3 at its addresses: an index, and a document a group and version. And v2: one document.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, header};
use knoll_schema::openapi;

use crate::{
    ApiServer,
    body::{self, Body},
    documents::Form,
    query::Query,
    respond,
    status::Status,
};

/// The media type of v2 in protobuf. Clients write `@v1.0` when they ask for it, which is no media type.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v2`, in the form that is asked for.
pub(super) fn all_in_one(server: &Arc<ApiServer>, request: &Request<Body>) -> Response<Body> {
    let accepted = request.headers().get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = accepted.flat_map(|list| list.split(',')).map(|one| one.split(';').next().unwrap_or_default());
    let protobuf = types.any(|one| one.trim().replace('@', ".") == PROTOBUF);
    let (form, media_type) = if protobuf { (Form::Protobuf, PROTOBUF) } else { (Form::Json, "application/json") };
    let (hash, document) = server.documents.all_in_one(&server.registry(), form);
    super::tagged(request, media_type, document, &format!("\"{hash}\""))
}

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
