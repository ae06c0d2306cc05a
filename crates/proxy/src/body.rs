//! Bodies on their way through: what the client sends on, and what it gets back.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::client::Client;
use crate::connection_pool::PooledConnection;
use crate::endpoint_pool::Permit;
use crate::errors::TIMEOUT;
use crate::meter::InFlight;
use crate::responses::ResponseInFlight;
use crate::timeouts::Timeouts;

/// Why a body broke off.
#[derive(Debug, Error)]
pub(crate) enum BodyError {
    /// The other side broke it off.
    #[error("body broke off")]
    Peer(#[from] hyper::Error),
    /// Its time was up, and its announced length left no room to say so.
    #[error("{TIMEOUT}")]
    Timeout,
    /// It was longer than allowed.
    #[error("request body is too large")]
    TooLarge,
}

/// Everything a request holds while its response is on the way; dropped, or finished, at its end.
#[derive(Debug)]
pub(crate) struct Transit {
    pub(crate) pooled: PooledConnection,
    pub(crate) permit: Permit,
    pub(crate) in_flight: InFlight,
}

impl Transit {
    /// Ends a request whose response has ended well: its connection may carry another.
    pub(crate) fn finish(self) {
        let Self { pooled, permit, in_flight } = self;
        pooled.finish();
        drop(permit);
        drop(in_flight);
    }
}

/// The body of a response to a client.
pub(crate) enum Body {
    /// Nothing.
    Empty,
    /// Text of the gateway itself.
    Text(Option<Bytes>),
    /// What an instance sends.
    Proxied(Proxied),
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::Empty
    }

    pub(crate) fn text(text: Bytes) -> Self {
        Self::Text(Some(text))
    }
}

/// The body of an instance's response, under its clocks. What the request holds is kept by the client's connection,
/// which takes it back at the deadline even while the client does not read.
pub(crate) struct Proxied {
    client: Rc<Client>,
    /// Its place among the connection's responses; `None` once it has ended, well or not.
    at: Option<usize>,
    timeouts: Timeouts,
    last_write: Option<Instant>,
    /// Made when the instance first lets us wait.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether anything was sent.
    begun: bool,
    /// Whether the response announced its length.
    sized: bool,
}

impl Proxied {
    pub(crate) fn new(client: Rc<Client>, inner: Incoming, transit: Transit, timeouts: Timeouts) -> Self {
        let sized = inner.size_hint().exact().is_some();
        let last_write = timeouts.watches_writes().then(Instant::now);
        if inner.is_end_stream() {
            transit.finish();
            return Self { client, at: None, timeouts, last_write, sleep: None, begun: true, sized };
        }
        let at = Some(client.responses.begin(ResponseInFlight { inner, transit, deadline: timeouts.total() }));
        Self { client, at, timeouts, last_write, sleep: None, begun: false, sized }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(at) = self.at else { return Poll::Ready(None) };
        // An instance that never lets us wait would outrun the timer.
        if self.begun && self.timeouts.total().is_some_and(|total| total <= Instant::now()) {
            return self.expire();
        }
        match self.client.responses.poll_frame(at, cx) {
            None => self.expire(),
            Some(Poll::Ready(Some(Ok(frame)))) => {
                self.begun = true;
                if self.timeouts.watches_writes() {
                    self.last_write = Some(Instant::now());
                }
                if self.client.responses.is_end(at) {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Poll::Ready(Some(Err(error)))) => {
                self.give_up();
                Poll::Ready(Some(Err(error.into())))
            }
            Some(Poll::Ready(None)) => {
                self.finish();
                Poll::Ready(None)
            }
            Some(Poll::Pending) => self.poll_clocks(cx),
        }
    }

    fn poll_clocks(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let last_write = self.last_write;
        let Some(deadline) = self.timeouts.after_write(|| last_write.unwrap_or_else(Instant::now)) else {
            return Poll::Pending;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.expire()
    }

    /// The head has left: the text can only follow what was sent.
    fn expire(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.give_up() {
            self.client.thread.counters().expired.count();
        }
        if self.sized {
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(TIMEOUT.as_bytes())))))
    }

    /// Drops what the request holds, which closes the connection to the instance. Whether there was anything.
    fn give_up(&mut self) -> bool {
        self.sleep = None;
        self.at.take().and_then(|at| self.client.responses.end(at)).is_some()
    }

    fn finish(&mut self) {
        self.sleep = None;
        if let Some(flow) = self.at.take().and_then(|at| self.client.responses.end(at)) {
            flow.transit.finish();
        }
    }
}

impl Drop for Proxied {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Proxied(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Text(text) => text.is_none(),
            Self::Proxied(body) => body.at.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Proxied(body) => {
                body.at.map_or_else(|| SizeHint::with_exact(0), |at| body.client.responses.size_hint(at))
            }
        }
    }
}

/// The body of a request on its way to an instance.
#[derive(Debug)]
pub(crate) struct Outbound {
    inner: Option<Incoming>,
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    left: u64,
    exceeded: Rc<Cell<bool>>,
}

impl Outbound {
    /// Passes `inner` on.
    pub(crate) fn new(inner: Incoming) -> Self {
        Self { inner: Some(inner), limit: None }
    }

    /// Passes `inner` on up to `most` bytes; beyond that it breaks off and `exceeded` is set.
    pub(crate) fn limited(inner: Incoming, most: u64, exceeded: Rc<Cell<bool>>) -> Self {
        Self { inner: Some(inner), limit: Some(Limit { left: most, exceeded }) }
    }

    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self { inner: None, limit: None }
    }
}

impl HttpBody for Outbound {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let frame = match std::task::ready!(Pin::new(inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        if let (Some(limit), Some(data)) = (&mut this.limit, frame.data_ref()) {
            match limit.left.checked_sub(data.len() as u64) {
                Some(left) => limit.left = left,
                None => {
                    limit.exceeded.set(true);
                    return Poll::Ready(Some(Err(BodyError::TooLarge)));
                }
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}
