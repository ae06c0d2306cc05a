//! A panic costs one request: it is counted, told to the log with a number, and the client gets that number.

use std::{any::Any, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Method, Request, Response};

use crate::{body::Body, counters::Counters, respond, status::Status};

/// The header under which a request's number travels.
const NUMBER: HeaderName = HeaderName::from_static("audit-id");

/// What was asked for, as far as the log names it.
pub(crate) struct Asked {
    method: Method,
    path: String,
}

impl Asked {
    pub(crate) fn of(request: &Request<Body>) -> Self {
        Self { method: request.method().clone(), path: request.uri().path().to_owned() }
    }

    /// 500 for a request that panicked.
    pub(crate) fn panicked(&self, counters: &Counters, panic: &(dyn Any + Send)) -> Response<Body> {
        let id = uuid::Uuid::new_v4().to_string();
        note(counters, panic, &id, &format!("{} {}", self.method, self.path));
        let mut answer = respond::failure(&Status::internal(format!(
            "this request failed unexpectedly: the server's log has it as {id}"
        )));
        if let Ok(id) = HeaderValue::from_str(&id) {
            answer.headers_mut().insert(NUMBER, id);
        }
        answer
    }
}

/// Does a step of work that nobody asked for. `None` when it panicked: that costs the step.
pub(crate) async fn contain<T>(counters: &Counters, doing: &str, step: impl Future<Output = T>) -> Option<T> {
    let panic = match AssertUnwindSafe(step).catch_unwind().await {
        Ok(done) => return Some(done),
        Err(panic) => panic,
    };
    note(counters, &*panic, "", doing);
    None
}

/// Counts a panic and tells the log what it said.
pub(crate) fn note(counters: &Counters, panic: &(dyn Any + Send), id: &str, doing: &str) {
    counters.panics.add();
    tracing::error!(id, doing, panic = knoll_faults::said(panic), "a panic; only this request fails");
}
