//! A panic costs one request: it is counted, told to the log with a number, and the client gets that number.

use std::{any::Any, collections::BTreeMap, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use tokio::time::Instant;

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

/// Panics of one key in a row after which it is left alone until it changes.
const PATIENCE: u32 = 3;

/// How soon a step that panicked is tried again, whatever else happens meanwhile.
const AGAIN: Duration = Duration::from_secs(1);

/// The keys whose steps panicked the last time: how often in a row, and when they are tried again.
#[derive(Default)]
pub(crate) struct Panicked(BTreeMap<String, (u32, Instant)>);

impl Panicked {
    /// Notes how a key's step ended. Whether it is tried again unasked: not when it went well, nor when it keeps panicking.
    pub(crate) fn again(&mut self, key: &str, panicked: bool, now: Instant) -> bool {
        if !panicked {
            self.forget(key);
            return false;
        }
        let (times, next) = self.0.entry(key.to_owned()).or_insert((0, now));
        *times = times.saturating_add(1);
        *next = now + AGAIN;
        if *times == PATIENCE {
            tracing::error!(key, times, "it keeps panicking, and is left alone until it changes");
        }
        *times < PATIENCE
    }

    /// Whether it is too early to try a key again.
    pub(crate) fn rests(&self, key: &str, now: Instant) -> bool {
        self.0.get(key).is_some_and(|(_, next)| now < *next)
    }

    /// Drops what is known of a key that is gone: the next of its name has all its tries.
    pub(crate) fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Drops what is known of all keys but some.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.0.retain(|key, _| is_kept(key));
    }
}

/// Does a step of work that nobody asked for. `None` when it panicked: that costs the step.
pub(crate) async fn contain<T>(counters: &Counters, doing: &str, step: impl Future<Output = T>) -> Option<T> {
    let step = async {
        tracing::trace!(doing, "a step begins");
        step.await
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_panicked_rests_before_each_try_and_has_all_its_tries_again_once_it_was_gone() {
        let mut panicked = Panicked::default();
        let mut now = Instant::now();
        for _ in 0..2 {
            for times in 1..=PATIENCE {
                assert!(!panicked.rests("a", now));
                assert_eq!(panicked.again("a", true, now), times < PATIENCE, "{times}");
                assert!(panicked.rests("a", now) && !panicked.rests("b", now));
                now += AGAIN;
            }
            panicked.forget("a");
        }
        panicked.again("a", true, now);
        panicked.again("b", true, now);
        panicked.retain(|key| key == "b");
        assert!(!panicked.rests("a", now) && panicked.rests("b", now));
    }
}
