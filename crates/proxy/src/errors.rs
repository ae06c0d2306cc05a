//! Answers the gateway gives itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use thiserror::Error;

use crate::body::Body;

/// Why a request got no instance.
#[derive(Clone, Debug, Error)]
pub(crate) enum Refusal {
    /// Too many wait already.
    #[error("pending request queue full")]
    QueueFull,
    /// The revision failed; no instance will ever come.
    #[error("{0}")]
    Failed(Arc<str>),
    /// The Service has no endpoints and nobody to make one.
    #[error("no healthy endpoints")]
    NoEndpoints,
    /// The table changed while the request was on its way.
    #[error("revision is gone")]
    Gone,
    /// No instance came in time.
    #[error("{TIMEOUT}")]
    Timeout,
}

/// What a client reads when its time is up.
pub(crate) const TIMEOUT: &str = "activator request timeout";

/// Answers `status` with a line of text.
pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::text(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// Answers 503 and when to come back.
pub(crate) fn unavailable(reason: String, retry_after: Duration) -> Response<Body> {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, reason);
    let seconds = retry_after.as_secs().max(1);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Answers for a request that got no instance.
pub(crate) fn refused(refusal: &Refusal, retry_after: Duration) -> Response<Body> {
    match refusal {
        Refusal::Timeout => text(StatusCode::GATEWAY_TIMEOUT, TIMEOUT),
        _ => unavailable(refusal.to_string(), retry_after),
    }
}

/// Answers for a host nobody claims.
pub(crate) fn unknown_host(host: &str) -> Response<Body> {
    let shown: String = host.chars().filter(|c| !c.is_control()).take(253).collect();
    text(
        StatusCode::NOT_FOUND,
        format!(
            "no service answers for host \"{shown}\"\n\
             The host of a request chooses the service. `kubectl get ksvc,domainmapping -A` lists what is known.\n"
        ),
    )
}

/// Sends the client to https.
pub(crate) fn to_https(host: &str, path: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    match HeaderValue::try_from(format!("https://{host}{path}")) {
        Ok(location) => {
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        Err(_) => text(StatusCode::BAD_REQUEST, "bad host"),
    }
}
