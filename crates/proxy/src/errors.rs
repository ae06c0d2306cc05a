//! Answers the gateway gives itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use thiserror::Error;

use crate::body::Body;
use crate::metrics::Reason;

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

impl Refusal {
    fn reason(&self) -> Reason {
        match self {
            Self::QueueFull => Reason::QueueFull,
            Self::Failed(_) => Reason::RevisionFailed,
            Self::NoEndpoints => Reason::NoEndpoints,
            Self::Gone => Reason::RevisionGone,
            Self::Timeout => Reason::Timeout,
        }
    }
}

/// Why the gateway answers a request itself.
#[derive(Debug)]
pub(crate) enum Own {
    /// The request names no host.
    NoHost,
    /// A method that is not served.
    Connect,
    /// The request cannot be passed on as it is.
    Malformed(http::Error),
    /// Nobody claims the host.
    UnknownHost(String),
    /// The host has no such path.
    UnknownPath,
    /// The body is longer than allowed.
    TooLarge,
    /// The first table has not come.
    Starting,
    /// Too many requests are in the system.
    TooManyRequests,
    /// There is no place in an instance.
    Refused(Refusal),
    /// No instance could be reached, and why not.
    Unreachable(String),
    /// The instance broke off, or its answer was not HTTP, and how.
    Broken(String),
    /// A fault of ours.
    Panic,
}

impl Own {
    /// What it is counted as.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::NoHost | Self::Connect | Self::Malformed(_) => Reason::BadRequest,
            Self::UnknownHost(_) => Reason::UnknownHost,
            Self::UnknownPath => Reason::UnknownPath,
            Self::TooLarge => Reason::TooLarge,
            Self::Starting => Reason::Starting,
            Self::TooManyRequests => Reason::TooManyRequests,
            Self::Refused(refusal) => refusal.reason(),
            Self::Unreachable(_) => Reason::Unreachable,
            Self::Broken(_) => Reason::BrokenResponse,
            Self::Panic => Reason::Panic,
        }
    }

    /// The answer; a client that should come back is told when.
    pub(crate) fn answer(self, retry_after: Duration) -> Response<Body> {
        match self {
            Self::NoHost => text(StatusCode::BAD_REQUEST, "a request must name its host"),
            Self::Connect => text(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served"),
            Self::Malformed(error) => text(StatusCode::BAD_REQUEST, error.to_string()),
            Self::UnknownHost(host) => unknown_host(&host),
            Self::UnknownPath => text(StatusCode::NOT_FOUND, "no route leads to this path\n"),
            Self::TooLarge => text(StatusCode::PAYLOAD_TOO_LARGE, "request body is too large"),
            Self::Starting => unavailable("the gateway has just started and knows no routes yet".into(), retry_after),
            Self::TooManyRequests => unavailable("too many requests in flight".into(), retry_after),
            Self::Refused(Refusal::Timeout) => text(StatusCode::GATEWAY_TIMEOUT, TIMEOUT),
            Self::Refused(refusal) => unavailable(refusal.to_string(), retry_after),
            Self::Unreachable(why) | Self::Broken(why) => text(StatusCode::BAD_GATEWAY, why),
            Self::Panic => text(StatusCode::INTERNAL_SERVER_ERROR, "the gateway failed on this request"),
        }
    }
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
fn unavailable(reason: String, retry_after: Duration) -> Response<Body> {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, reason);
    let seconds = retry_after.as_secs().max(1);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Answers for a host nobody claims.
fn unknown_host(host: &str) -> Response<Body> {
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
