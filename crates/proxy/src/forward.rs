//! Sending a request to an instance.
//!
//! A request is sent once more, over a new connection, only when that is safe: none of it left (a connection could
//! not be opened, or a kept one was closed before the first byte), or a kept connection ended without an answer and
//! the request may be repeated. For a request that may not, a kept connection is looked at before it is used, so
//! that one the instance has closed is passed over. Anything else is the client's to decide: 502.

use http::{Method, Request, Response};
use hyper::body::Incoming;
use knoll_api::table::Protocol;
use thiserror::Error;

use crate::body::Outbound;
use crate::connection_pool::{ConnectError, PooledConnection, Trust};
use crate::endpoint::Endpoint;
use crate::thread::Thread;

/// Why an instance gave no response.
#[derive(Debug, Error)]
pub(crate) enum ForwardError {
    /// It could not be reached; the request is whole.
    #[error(transparent)]
    Unreachable(#[from] ConnectError),
    /// The connection broke after some of the request had left, or the answer was not HTTP.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// A request that was not answered; the request is there when it may be sent elsewhere.
pub(crate) struct Unanswered {
    pub(crate) error: ForwardError,
    pub(crate) request: Option<Request<Outbound>>,
}

/// Sends `request` to `endpoint` and waits for the head of the response.
#[allow(clippy::result_large_err, reason = "it holds the request; only newer compilers see it in an async fn")]
pub(crate) async fn forward(
    thread: &Thread,
    endpoint: &Endpoint,
    protocol: Protocol,
    mut request: Request<Outbound>,
) -> Result<(Response<Incoming>, PooledConnection), Unanswered> {
    let repeatable = may_be_repeated(&request);
    let trust = if repeatable { Trust::Kept } else { Trust::Seen };
    let mut fresh = false;
    loop {
        let pooled = if fresh && protocol == Protocol::Http1 {
            thread.connections.open_http1(endpoint).await
        } else {
            thread.connections.checkout(endpoint, protocol, trust).await
        };
        let mut pooled = match pooled {
            Ok(pooled) => pooled,
            Err(error) => return Err(Unanswered { error: error.into(), request: Some(request) }),
        };
        let copy = (repeatable && pooled.is_used()).then(|| replica(&request));
        let mut error = match pooled.send(request).await {
            Ok(response) => {
                endpoint.trust();
                pooled.heed(response.headers());
                return Ok((response, pooled));
            }
            Err(error) => error,
        };
        let again = error.take_message().or(copy).filter(|_| pooled.is_used());
        match again {
            // Each turn uses up a kept connection or ends with a new one.
            Some(message) => {
                thread.counters().repeated.count();
                request = message;
            }
            None => return Err(Unanswered { error: error.into_error().into(), request: None }),
        }
        fresh = true;
    }
}

/// Whether a request does no harm when it arrives twice: it has no body, and no effect or a key by which its effect
/// is known.
fn may_be_repeated(request: &Request<Outbound>) -> bool {
    let harmless = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    let keyed = || ["idempotency-key", "x-idempotency-key"].iter().any(|key| request.headers().contains_key(*key));
    http_body::Body::is_end_stream(request.body()) && (harmless || keyed())
}

/// The same request again; its body is empty.
fn replica(request: &Request<Outbound>) -> Request<Outbound> {
    let mut copy = Request::new(Outbound::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}
