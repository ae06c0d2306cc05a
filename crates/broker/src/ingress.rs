//! Where senders post events: upstream's checks in upstream's order, and 202 once the events are on disk.
//!
//! | answer | when |
//! |---|---|
//! | 202 | every event of the message is on disk |
//! | 200 | `OPTIONS`: anybody may post, as often as they like (WebHook validation) |
//! | 400 | no event, or one that breaks a rule; an address of the wrong form; an event without hops left |
//! | 401, 403 | what the [`Authorize`] in use says |
//! | 404 | no such broker or channel, or none of the host |
//! | 405 | another method |
//! | 408 | the body did not arrive in time |
//! | 413 | more bytes than an event may have |
//! | 500 | a panic, which costs this request |
//! | 503 | no room, no time or no snapshot yet; `Retry-After` says when to try again |
//!
//! What RequestReplies answer besides is said in `request_reply`, and what JobSinks do in `job_sink`. An IntegrationSink
//! answers 202 once its events stand in the log.
//!
//! A message is read before its address is looked up, so that what is no event is a 400 wherever it goes, as upstream. A
//! batch is taken whole, where upstream takes none. What refuses a message says why in the body.

mod job_sink;
mod request_reply;
mod serve;

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HOST, RETRY_AFTER},
};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use knoll_event::{
    Event, ReadError, json,
    mode::{self, Format, Mode},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::{
    Config,
    delivery::headers,
    intake::{From, Intake, Refused},
    record::Record,
    request_reply::Waiting,
    sinks::Sinks,
    topology::{Addressable, Asked, Found, NotFound, Snapshots, Topology, access::Guard},
};

pub use self::serve::serve;

/// Bytes that one permit stands for.
const GRAIN: usize = 1 << 10;
const ALLOWED: HeaderValue = HeaderValue::from_static("POST, OPTIONS");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");
const ANY: HeaderValue = HeaderValue::from_static("*");
/// Why a message of several events is refused by a RequestReply.
const ONE_REQUEST: &str = "a request is one event, and so is its answer: send them one by one";

/// Why a sender may not post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// 401, 403 or 500.
    pub status: StatusCode,
    /// Why.
    pub reason: String,
}

/// Decides whether a sender may post these events to what this guards, from the headers of its request. Without an event,
/// whether it may ask what became of those it sent.
pub type Authorize =
    Arc<dyn Fn(Guard, HeaderMap, Arc<[Event]>) -> BoxFuture<'static, Result<(), Denied>> + Send + Sync>;

/// Answers senders.
#[derive(Clone)]
pub struct Ingress {
    inner: Arc<Inner>,
}

struct Inner {
    intake: Intake,
    snapshots: Snapshots,
    sinks: Sinks,
    config: Config,
    /// For [`Config::max_bytes_in_flight`].
    bytes: Arc<Semaphore>,
    /// For [`Config::max_requests`].
    requests: Semaphore,
    waiting: Waiting,
}

/// An answer that refuses.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) reason: String,
}

pub(crate) fn refusal(status: StatusCode, reason: impl ToString) -> Answer {
    Answer { status, reason: reason.to_string() }
}

impl Ingress {
    pub(crate) fn new(intake: Intake, snapshots: Snapshots, sinks: Sinks, config: Config, waiting: Waiting) -> Self {
        let bytes = Arc::new(Semaphore::new((config.max_bytes_in_flight / GRAIN).min(Semaphore::MAX_PERMITS)));
        let requests = Semaphore::new(config.max_requests);
        Self { inner: Arc::new(Inner { intake, snapshots, sinks, config, bytes, requests, waiting }) }
    }

    /// Answers a request. What it cost is counted and bounded whoever serves the connection.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
    {
        let metrics = &self.inner.intake.metrics;
        let entered = metrics.requests.enter();
        let answered = knoll_faults::caught(self.inner.answer(request)).await;
        let answered = answered.unwrap_or_else(|said| {
            metrics.panics.count();
            tracing::error!(panic = said, "a request to a broker or channel panicked");
            Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, "the request failed inside the broker"))
        });
        let mut response = answered.unwrap_or_else(|answer| self.inner.refused(answer));
        response.headers_mut().entry(ALLOW).or_insert(ALLOWED);
        metrics.answered(response.status());
        drop(entered);
        response
    }
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

impl Inner {
    async fn answer<B>(&self, request: Request<B>) -> Result<Response<Full<Bytes>>, Answer>
    where
        B: Body<Data = Bytes>,
    {
        let (head, body) = request.into_parts();
        let host = head.uri.host().or_else(|| head.headers.get(HOST).and_then(|host| host.to_str().ok()));
        let host = host.unwrap_or_default();
        if self.snapshots.borrow().as_ref().is_some_and(|topology| topology.is_of_job_sinks(host)) {
            return Ok(self.answer_for_job_sinks(&head, body).await);
        }
        if head.method == Method::OPTIONS {
            let mut response = empty(StatusCode::OK);
            response.headers_mut().extend([(ALLOWED_ORIGIN, ANY), (ALLOWED_RATE, ANY)]);
            return Ok(response);
        }
        let topology = self.topology()?;
        if head.method != Method::POST {
            return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "events are posted"));
        }
        let place = self.place()?;
        // What names nothing whoever is there is told apart from what is not there (yet).
        let target = target(&head);
        addressed(topology.look_up(host, target))?;
        let mut held = None;
        let body = self.body(body, &mut held).await?;
        let events = read(&head.headers, body)?;
        // Whatever it was when the request began, it is now that the events are taken.
        let topology = self.topology()?;
        match topology.look_up(host, target).map_err(not_found)? {
            Found::RequestReply(Asked::Reply(of)) => self.reply(&of, one(events, ONE_REQUEST)?.0),
            Found::RequestReply(Asked::Request(of)) => {
                let request = self.request(&of, one(events, ONE_REQUEST)?, &head.headers, &topology).await?;
                // Who waits takes nobody's place.
                drop((place, held));
                Ok(self.answer_to(&of, request).await)
            }
            Found::LogSink(sink) => {
                let events: Vec<Event> = events.into_iter().map(|(event, _)| event).collect();
                self.sinks.log(&sink, &head.headers, &events).await?;
                Ok(empty(StatusCode::ACCEPTED))
            }
            Found::Addressable(into) => {
                if self.sinks.authorize.is_some() {
                    let values: Vec<Event> = events.iter().map(|(event, _)| event.clone()).collect();
                    self.authorized(&into, &head.headers, &values).await?;
                }
                self.take(&into, events, &head.headers).await?;
                Ok(empty(StatusCode::ACCEPTED))
            }
        }
    }

    /// A place among the requests that are answered at a time.
    fn place(&self) -> Result<SemaphorePermit<'_>, Answer> {
        self.requests.try_acquire().map_err(|_| self.busy("as many requests are answered as may be"))
    }

    async fn authorized(&self, into: &Addressable, headers: &HeaderMap, events: &[Event]) -> Result<(), Answer> {
        self.sinks.authorized(into.guard(), headers, events).await
    }

    async fn take(
        &self,
        into: &Arc<Addressable>,
        events: Vec<(Event, Format)>,
        headers: &HeaderMap,
    ) -> Result<(), Answer> {
        let beside = headers::passing(headers);
        let records = events.into_iter().map(|(event, format)| Record::new(event, format, beside.clone())).collect();
        self.intake.take(into, records, From::Sender).await.map_err(|refused| {
            let status = match refused {
                Refused::OutOfHops(_) | Refused::Invalid(_) => StatusCode::BAD_REQUEST,
                Refused::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
                Refused::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            refusal(status, refused)
        })
    }

    fn topology(&self) -> Result<Topology, Answer> {
        self.snapshots.borrow().clone().ok_or_else(|| self.busy("brokers and channels are not known yet"))
    }

    fn busy(&self, reason: &str) -> Answer {
        refusal(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}: send it again later"))
    }

    /// Reads a body within its bounds: of one event, of all together, and of time. What is held goes with `held`.
    async fn body<B>(&self, body: B, held: &mut Option<OwnedSemaphorePermit>) -> Result<Bytes, Answer>
    where
        B: Body<Data = Bytes>,
    {
        let reading = tokio::time::timeout(self.config.body_read_timeout, self.frames(body, held));
        let late = |_| {
            let seconds = self.config.body_read_timeout.as_secs();
            refusal(StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive within {seconds} seconds"))
        };
        reading.await.map_err(late)?
    }

    async fn frames<B>(&self, body: B, held: &mut Option<OwnedSemaphorePermit>) -> Result<Bytes, Answer>
    where
        B: Body<Data = Bytes>,
    {
        let most = self.config.max_event_bytes;
        let too_large =
            || refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("more than {most} bytes: keep the data elsewhere"));
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > most {
            return Err(too_large());
        }
        let mut body = std::pin::pin!(body);
        let (mut first, mut all) = (Bytes::new(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(refusal(StatusCode::BAD_REQUEST, "the body broke off"));
            };
            let Ok(data) = frame.into_data() else { continue };
            let length = first.len() + all.len() + data.len();
            if length > most {
                return Err(too_large());
            }
            self.hold(length, held)?;
            if first.is_empty() && all.is_empty() {
                first = data;
                continue;
            }
            if !first.is_empty() {
                all.reserve(announced.max(length));
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }

    /// Holds as many permits as `length` bytes need.
    fn hold(&self, length: usize, held: &mut Option<OwnedSemaphorePermit>) -> Result<(), Answer> {
        let needed = length.div_ceil(GRAIN) - held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let needed = u32::try_from(needed).unwrap_or(u32::MAX);
        let more = self.bytes.clone().try_acquire_many_owned(needed);
        let more = more.map_err(|_| self.busy("as many bytes are taken in as may be"))?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }

    fn refused(&self, Answer { status, reason }: Answer) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(reason + "\n"));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(self.config.retry_after)));
        }
        response
    }
}

/// What a request asks for, as it stands there.
fn target(head: &http::request::Parts) -> &str {
    head.uri.path_and_query().map_or("/", |target| target.as_str())
}

/// The one event of a message; what is said of several.
fn one(mut events: Vec<(Event, Format)>, otherwise: &str) -> Result<(Event, Format), Answer> {
    match (events.pop(), events.is_empty()) {
        (Some(event), true) => Ok(event),
        _ => Err(refusal(StatusCode::BAD_REQUEST, otherwise)),
    }
}

/// Rounded up: a client that comes back sooner is refused again.
fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// What is not there is looked for again once the message was read.
fn addressed<T>(found: Result<T, NotFound>) -> Result<(), Answer> {
    match found {
        Err(error @ (NotFound::Malformed | NotFound::Elsewhere)) => Err(not_found(error)),
        Ok(_) | Err(NotFound::Unknown) => Ok(()),
    }
}

fn not_found(error: NotFound) -> Answer {
    let status = match error {
        NotFound::Malformed => StatusCode::BAD_REQUEST,
        NotFound::Elsewhere | NotFound::Unknown => StatusCode::NOT_FOUND,
    };
    refusal(status, error)
}

/// The events of a message, each with the form in which it came.
fn read(headers: &HeaderMap, body: Bytes) -> Result<Vec<(Event, Format)>, Answer> {
    let events = match Mode::of(headers) {
        Some(Mode::Batched) => {
            json::read_batch(&body).map(|events| events.into_iter().map(|event| (event, Format::Json)).collect())
        }
        Some(Mode::Structured) => mode::read(headers, body).map(|event| vec![(event, Format::Json)]),
        Some(Mode::Binary) | None => mode::read(headers, body).map(|event| vec![(event, Format::Binary)]),
    };
    events.map_err(|error: ReadError| refusal(StatusCode::BAD_REQUEST, error))
}
