//! The responses a client's connection has under way, and when each must have ended.
//!
//! A body is asked for more only when its client has taken what came before, so its own clock stands still while the
//! client does not read. The connection looks at the clocks instead: at a response's deadline what it holds (the
//! place in the instance, the connection to it, the count of requests in flight) is given back, whatever the client
//! does. A connection that carries one response at a time is closed when its client has not taken the rest of an
//! expired one a while later.
//!
//! A response costs a comparison; the timer is set once for the earliest deadline and looked at again when it fires.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::body::Transit;

/// A response on its way, with all it holds.
#[derive(Debug)]
pub(crate) struct ResponseInFlight {
    pub(crate) inner: Incoming,
    pub(crate) transit: Transit,
    /// When it must have ended.
    pub(crate) deadline: Option<Instant>,
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    Free,
    Open(ResponseInFlight),
    /// Given up at its deadline; its client has not heard yet.
    Expired {
        since: Instant,
    },
}

/// The responses of a connection.
#[derive(Debug)]
pub(crate) struct Responses {
    places: RefCell<Vec<Place>>,
    free: RefCell<Vec<usize>>,
    /// No later than the earliest deadline.
    due: Cell<Option<Instant>>,
    /// How long an expired response may stay untaken before the connection ends; `None` when other responses share
    /// the connection.
    patience: Option<Duration>,
}

impl Responses {
    pub(crate) fn new(patience: Option<Duration>) -> Self {
        let (places, free, due) = Default::default();
        Self { places, free, due, patience }
    }

    /// Begins a response; returns its place.
    pub(crate) fn begin(&self, flow: ResponseInFlight) -> usize {
        self.look_by(flow.deadline);
        let mut places = self.places.borrow_mut();
        match self.free.borrow_mut().pop() {
            Some(at) => {
                places[at] = Place::Open(flow);
                at
            }
            None => {
                places.push(Place::Open(flow));
                places.len() - 1
            }
        }
    }

    /// Ends a response; returns what it still holds.
    pub(crate) fn end(&self, at: usize) -> Option<ResponseInFlight> {
        let ended = std::mem::take(&mut self.places.borrow_mut()[at]);
        self.free.borrow_mut().push(at);
        match ended {
            Place::Open(flow) => Some(flow),
            Place::Expired { .. } | Place::Free => None,
        }
    }

    /// What the instance sends next; `None` when the response has expired.
    pub(crate) fn poll_frame(&self, at: usize, cx: &mut Context<'_>) -> Option<Poll<NextFrame>> {
        self.with(at, |inner| Pin::new(inner).poll_frame(cx))
    }

    /// Whether the instance has sent everything.
    pub(crate) fn is_end(&self, at: usize) -> bool {
        self.with(at, |inner| inner.is_end_stream()).unwrap_or(true)
    }

    /// What is known of the length of what is still to come.
    pub(crate) fn size_hint(&self, at: usize) -> SizeHint {
        self.with(at, |inner| inner.size_hint()).unwrap_or_default()
    }

    fn with<T>(&self, at: usize, use_it: impl FnOnce(&mut Incoming) -> T) -> Option<T> {
        match &mut self.places.borrow_mut()[at] {
            Place::Open(flow) => Some(use_it(&mut flow.inner)),
            Place::Expired { .. } | Place::Free => None,
        }
    }

    fn look_by(&self, deadline: Option<Instant>) {
        if let Some(deadline) = deadline
            && self.due.get().is_none_or(|due| deadline < due)
        {
            self.due.set(Some(deadline));
        }
    }

    /// Looks at the clocks when it is time, with `sleep` as the connection's timer.
    pub(crate) fn poll_late(&self, cx: &mut Context<'_>, sleep: &mut Option<Pin<Box<Sleep>>>) -> Poll<Late> {
        let Some(due) = self.due.get() else { return Poll::Pending };
        let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if due < sleep.deadline() || sleep.is_elapsed() {
            sleep.as_mut().reset(due);
        }
        std::task::ready!(sleep.as_mut().poll(cx));
        Poll::Ready(self.look(Instant::now()))
    }

    fn look(&self, now: Instant) -> Late {
        let mut late = Late { expired: 0, hopeless: false };
        self.due.set(None);
        let mut expired = Vec::new();
        for place in self.places.borrow_mut().iter_mut() {
            if let Place::Open(flow) = place {
                if flow.deadline.is_none_or(|deadline| now < deadline) {
                    self.look_by(flow.deadline);
                    continue;
                }
                expired.push(std::mem::replace(place, Place::Expired { since: now }));
            }
            if let (Place::Expired { since }, Some(patience)) = (&*place, self.patience) {
                late.hopeless |= *since + patience <= now;
                self.look_by(Some(*since + patience));
            }
        }
        late.expired = expired.len();
        // Dropped outside of the borrow: giving back a place wakes whoever waits for it.
        drop(expired);
        late
    }
}

/// What an instance sends next; `None` at the end.
pub(crate) type NextFrame = Option<Result<Frame<Bytes>, hyper::Error>>;

/// What a look at the clocks found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Late {
    /// Responses given up just now.
    pub(crate) expired: usize,
    /// Whether the client of an expired response has not taken it for so long that the connection should end.
    pub(crate) hopeless: bool,
}
