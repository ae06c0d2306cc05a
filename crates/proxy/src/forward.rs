//! Sending a request to an instance.
//!
//! A request is sent again only when that is safe: none of it left (a connection could not be opened, or a kept
//! one was closed before the first byte), or a kept connection that had been idle broke without an answer and
//! the request has no body and no effect. Anything else is the client's to decide: 502.

use http::{Method, Request, Response};
use hyper::body::Incoming;
use knoll_api::table::Protocol;
use thiserror::Error;

use crate::body::Outbound;
use crate::fleet::Slot;
use crate::pool::{ConnectError, Lease};
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

/// Sends `request` to `slot` and waits for the head of the response.
pub(crate) async fn forward(
    thread: &Thread,
    slot: &Slot,
    protocol: Protocol,
    mut request: Request<Outbound>,
) -> Result<(Response<Incoming>, Lease), Unanswered> {
    let mut fresh = false;
    loop {
        let leased = if fresh && protocol == Protocol::Http1 {
            thread.pool.open_http1(slot).await
        } else {
            thread.pool.lease(slot, protocol).await
        };
        let mut lease = match leased {
            Ok(lease) => lease,
            Err(error) => return Err(Unanswered { error: error.into(), request: Some(request) }),
        };
        let copy = if lease.may_be_stale() { replica(&request) } else { None };
        let mut error = match lease.send(request).await {
            Ok(response) => {
                slot.trust();
                return Ok((response, lease));
            }
            Err(error) => error,
        };
        let again = error.take_message().or(copy).filter(|_| lease.is_used());
        match again {
            // Each turn uses up a kept connection or ends with a new one.
            Some(message) => request = message,
            None => return Err(Unanswered { error: error.into_error().into(), request: None }),
        }
        fresh = true;
    }
}

/// The same request again, if sending it twice does no harm.
fn replica(request: &Request<Outbound>) -> Option<Request<Outbound>> {
    let harmless = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    if !harmless || !http_body::Body::is_end_stream(request.body()) {
        return None;
    }
    let mut copy = Request::new(Outbound::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
