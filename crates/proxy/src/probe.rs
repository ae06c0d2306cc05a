//! Requests that ask about the network or the gateway, not about a user's container.

use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::body::Body;
use crate::errors::text;
use crate::headers::{NETWORK_HASH, NETWORK_PROBE};
use crate::route::Match;

/// Answers a kubelet's probe of the gateway.
pub(crate) fn kubelet(draining: bool) -> Response<Body> {
    if draining { text(StatusCode::SERVICE_UNAVAILABLE, "shutting down") } else { text(StatusCode::OK, "ok") }
}

/// Answers a `K-Network-Probe` that was routed to `found`.
pub(crate) fn network(headers: &HeaderMap, found: &Match, draining: bool) -> Response<Body> {
    match headers.get(&NETWORK_PROBE).map(HeaderValue::as_bytes) {
        Some(b"probe") => route(headers, found, draining),
        Some(b"activator") => text(StatusCode::OK, "activator"),
        Some(b"queue") => queue(found, draining),
        other => {
            let value = String::from_utf8_lossy(other.unwrap_or_default());
            text(StatusCode::BAD_REQUEST, format!("unexpected probe header value: {value}"))
        }
    }
}

/// Echoes the hash, so that the prober knows which configuration it reached.
fn route(headers: &HeaderMap, found: &Match, draining: bool) -> Response<Body> {
    let Some(hash) = headers.get(&NETWORK_HASH) else {
        return text(
            StatusCode::BAD_REQUEST,
            format!("a probe request must contain a non-empty {NETWORK_HASH} header"),
        );
    };
    if draining {
        return text(StatusCode::SERVICE_UNAVAILABLE, "shutting down");
    }
    let known = found.path().network_hash.as_ref().filter(|_| hash == "override");
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(NETWORK_HASH.clone(), known.unwrap_or(hash).clone());
    response
}

/// Whether the revision behind a route could take a request now.
fn queue(found: &Match, draining: bool) -> Response<Body> {
    if draining {
        return text(StatusCode::SERVICE_UNAVAILABLE, "shutting down");
    }
    let target = found.split().and_then(|split| split.target.as_ref());
    match target.map(|target| target.meter.with_endpoints(|set| !set.endpoints.is_empty())) {
        Some(true) => text(StatusCode::OK, "queue"),
        _ => text(StatusCode::SERVICE_UNAVAILABLE, ""),
    }
}
