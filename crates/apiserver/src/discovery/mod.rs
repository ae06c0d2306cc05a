//! Documents about the server itself: what it serves, its version, its health, its schemas.

mod aggregated;
mod health;
mod legacy;
mod openapi;

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, header};
use serde_json::{Value, json};

use crate::{
    ApiServer, accept,
    body::{self, Body},
    query::Query,
    respond,
    status::Status,
};

/// Answers a request that names no object.
pub(crate) fn answer(
    server: &Arc<ApiServer>,
    request: &Request<Body>,
    query: &Query,
) -> Result<Response<Body>, Status> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed());
    }
    let path = request.uri().path().trim_end_matches('/');
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let registry = server.registry();
    match segments.as_slice() {
        [] => Ok(json(&json!({"paths": paths(server)}))),
        ["version"] => Ok(json(&version())),
        ["healthz" | "livez" | "readyz", ..] => Ok(health::answer(&segments, query)),
        ["api" | "apis"] if accept::negotiate(request.headers())?.aggregated => {
            let document = aggregated::document(&registry, segments[0] == "api");
            Ok(cached(request, aggregated::MEDIA_TYPE, document.to_string().into_bytes()))
        }
        ["api"] => Ok(json(&legacy::core_versions())),
        ["apis"] => Ok(json(&legacy::groups(&registry))),
        ["api", version] if registry.has_group("", Some(version)) => {
            Ok(json(&legacy::resources(&registry, "", version)))
        }
        ["apis", group] if registry.has_group(group, None) => Ok(json(&legacy::group(&registry, group))),
        ["apis", group, version] if registry.has_group(group, Some(version)) => {
            Ok(json(&legacy::resources(&registry, group, version)))
        }
        ["openapi", "v2"] => Ok(openapi::all_in_one(server, request)),
        ["openapi", "v3", rest @ ..] => openapi::answer(server, request, query, &rest.join("/")),
        [".well-known", "openid-configuration"] | ["openid", "v1", "jwks"] => {
            let document = server.config.authority.issuer_document(path);
            document.map(|d| json(&d)).ok_or_else(Status::no_such_resource)
        }
        _ => Ok(respond::text(404, "404 page not found\n")),
    }
}

fn json(value: &Value) -> Response<Body> {
    respond::bytes(200, value.to_string())
}

/// A document with an ETag; 304 for who has it.
fn cached(request: &Request<Body>, media_type: &'static str, document: Vec<u8>) -> Response<Body> {
    let tag = format!("\"{}\"", knoll_schema::openapi::hash(&document));
    tagged(request, media_type, document.into(), &tag)
}

/// A document under a known ETag.
fn tagged(request: &Request<Body>, media_type: &'static str, document: bytes::Bytes, tag: &str) -> Response<Body> {
    let known = request.headers().get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let same = known.is_some_and(|k| k.split(',').any(|t| t.trim() == tag || t.trim() == "*"));
    let mut response = if same {
        respond::with_type(304, media_type, body::empty())
    } else {
        respond::with_type(200, media_type, body::full(document))
    };
    if let Ok(value) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "35",
        "gitVersion": concat!("v1.35.0+knoll-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("linux/{}", architecture()),
    })
}

fn paths(server: &ApiServer) -> Vec<String> {
    let registry = server.registry();
    let mut paths: Vec<String> =
        ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis"].map(String::from).into();
    for (group, versions) in registry.groups().into_iter().filter(|(g, _)| !g.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
    }
    paths.extend(
        ["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"]
            .map(String::from),
    );
    paths
}

/// The machine, as container images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
