//! Requests that are answered by events: a RequestReply's data plane.
//!
//! Who posts an event to a RequestReply waits. The event goes into its Broker with a correlation id; whoever handles it sends
//! an event with that id in another attribute, and the first such event is the answer. What upstream does is done, with its
//! status codes:
//!
//! | answer | to a request | to an event at `/reply` |
//! |---|---|---|
//! | 200 | the event that answers; an empty body when none came in time | |
//! | 202 | | it is taken, or nobody waits for it any more |
//! | 400 | no event, or one that breaks a rule | the same, and one without a correlation id of ours |
//! | 404 | no such RequestReply | the same |
//! | 500 | its Broker is not there | |
//! | 503 | as many requests wait as may, or the broker takes none | |
//!
//! Requests that wait are in memory alone: they end with their connections. How many wait has a bound
//! ([`Config::max_waiting`](crate::Config::max_waiting)), apart from that of requests that are being taken, and each namespace
//! has a part of it.

mod correlation;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use knoll_bounds::{Share, Shares};
use knoll_event::{Event, Invalid};
use ring::error::Unspecified;
use tokio::sync::oneshot;

use self::correlation::Seal;
use crate::{metrics::Metrics, topology::RequestReply};

/// Requests that wait, in one process.
#[derive(Clone)]
pub(crate) struct Waiting {
    inner: Arc<Inner>,
}

struct Inner {
    seal: Seal,
    /// By namespace.
    places: Arc<Shares<Arc<str>>>,
    metrics: Arc<Metrics>,
    /// By their correlation ids.
    requests: Mutex<HashMap<Box<str>, oneshot::Sender<Event>>>,
}

/// A request that waits until this is dropped.
pub(crate) struct Request {
    waiting: Waiting,
    id: Box<str>,
    answer: oneshot::Receiver<Event>,
    _place: Share<Arc<str>>,
}

/// Why a request cannot wait.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotWait {
    #[error("as many requests wait for an answer as may")]
    TooMany,
    #[error("the correlation id finds no place in the event: {0}")]
    Invalid(#[from] Invalid),
    #[error("no correlation id can be made")]
    Seal,
}

/// What becomes of an event that may be an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// A request has its answer.
    Now,
    /// Nobody waits for it any more.
    Late,
    /// It has no correlation id of this RequestReply.
    NotOurs,
}

impl Waiting {
    /// None wait yet, and at most `most` will, of one namespace at most `each`.
    pub(crate) fn new(most: usize, each: usize, metrics: Arc<Metrics>) -> Self {
        let inner = Inner { seal: Seal::new(), places: Shares::new(most, each), metrics, requests: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Marks an event as a request, which waits from now on.
    pub(crate) fn begin(&self, of: &RequestReply, event: &mut Event) -> Result<Request, CannotWait> {
        let place = self.inner.places.take(of.broker.namespace.clone()).ok_or(CannotWait::TooMany)?;
        let id = self.inner.seal.id(&of.uid, event.id()).map_err(|Unspecified| CannotWait::Seal)?;
        event.set(&of.correlation_attribute, &*id)?;
        let (answers, answer) = oneshot::channel();
        let id: Box<str> = id.into();
        self.requests().insert(id.clone(), answers);
        Ok(Request { waiting: self.clone(), id, answer, _place: place })
    }

    /// Gives an event to the request that it answers.
    pub(crate) fn answer(&self, of: &RequestReply, event: Event) -> Answered {
        let id = event.attribute(&of.reply_attribute).map(|value| value.into_text().into_owned());
        let Some(id) = id.filter(|id| self.inner.seal.is_ours(&of.uid, id)) else { return Answered::NotOurs };
        let request = self.requests().remove(&*id);
        if request.is_some_and(|request| request.send(event).is_ok()) {
            Answered::Now
        } else {
            self.inner.metrics.answers_late.count();
            Answered::Late
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.inner.places.used() as u64
    }

    fn requests(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, oneshot::Sender<Event>>> {
        self.inner.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Request {
    /// Waits for the answer; nothing when none comes in time. Counted here and not where the answer is handed over, so that
    /// whoever has the answer finds it counted.
    pub(crate) async fn answered(mut self, of: &RequestReply) -> Option<Event> {
        let answer = tokio::time::timeout(of.timeout, &mut self.answer).await;
        let answer = answer.ok().and_then(Result::ok);
        let metrics = &self.waiting.inner.metrics;
        if answer.is_some() { &metrics.requests_answered } else { &metrics.requests_unanswered }.count();
        answer
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.waiting.requests().remove(&self.id);
        // Handed over, and the request ended before it looked.
        if self.answer.try_recv().is_ok() {
            self.waiting.inner.metrics.answers_late.count();
        }
    }
}
