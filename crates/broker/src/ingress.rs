//! Where senders post events: upstream's checks in upstream's order, and 202 once the events are on disk.
//!
//! | answer | when |
//! |---|---|
//! | 202 | every event of the message is on disk |
//! | 200 | `OPTIONS`: anybody may post, as often as they like (WebHook validation) |
//! | 400 | no event, or one that breaks a rule; an address of the wrong form; an event without hops left |
//! | 401, 403 | what the [`Authorize`] in use says |
//! | 404 | no such broker or channel, or none of the host; http where only https is answered, and the reverse |
//! | 405 | another method |
//! | 408 | the body did not arrive in time |
//! | 413 | more bytes than an event may have, or a batch with what travels beside each of its events |
//! | 431 | more beside an event than may travel with it |
//! | 500 | a panic, which costs this request |
//! | 503 | no room, no time or no snapshot yet; `Retry-After` says when to try again |
//!
//! What RequestReplies answer besides is said in `request_reply`, and what JobSinks do in `job_sink`. An IntegrationSink
//! answers 204 once its events stand in the log, as upstream's connector does.
//!
//! A message is read before its address is looked up, so that what is no event is a 400 wherever it goes, as upstream. A
//! batch is taken whole, where upstream takes none. What refuses a message says why in the body.

mod activity;
mod job_sink;
mod request_reply;
mod serve;

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ALLOW, CONTENT_TYPE, HOST, RETRY_AFTER},
    request::Parts,
};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use knoll_bounds::{Share, Shares};
use knoll_event::{
    Event, ReadError, json,
    mode::{self, Format, Mode},
};
use tokio::time::{Instant, sleep};

use crate::{
    Config,
    budget::From,
    delivery::headers,
    intake::Intake,
    record::Record,
    request_reply::Waiting,
    sinks::Sinks,
    topology::{Addressable, Asked, Found, NotFound, Snapshots, Topology, access::Guard},
    transport::{Transport, Wire},
};

use self::serve::Peer;
pub use self::serve::{serve, serve_tls};

/// Bytes that one unit of [`Config::max_bytes_in_flight`] stands for.
const GRAIN: usize = 1 << 10;
/// Between two looks whether there is room for an answer.
const FULL_PAUSE: Duration = Duration::from_millis(20);
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

/// Decides whether a sender may post these events to what this guards, which not everybody may post to, from the headers of
/// its request. Without an event, whether it may ask what became of those it sent.
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
    bytes: Arc<Shares<Peer>>,
    /// For [`Config::max_requests`].
    requests: Arc<Shares<Peer>>,
    /// For [`Config::max_connections`].
    connections: Arc<Shares<Peer>>,
    waiting: Waiting,
    transport: Transport,
}

/// What a request holds of the bytes that are taken in: those of its head, and more as they come.
struct Held {
    share: Share<Peer>,
    head: usize,
}

impl Held {
    /// Holds what `length` bytes beside the head need. Whether there is room.
    fn hold(&mut self, length: usize) -> bool {
        self.share.grow((self.head + length).div_ceil(GRAIN))
    }
}

/// The events of a request, what of its head travels beside each, and what they hold.
struct Message {
    events: Vec<(Event, Format)>,
    beside: HeaderMap,
    held: Held,
}

/// Bytes of an answer, with what they hold of those that are taken in until they are written.
struct Counted {
    bytes: Bytes,
    _share: Share<Peer>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
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
    pub(crate) fn new(
        intake: Intake,
        snapshots: Snapshots,
        sinks: Sinks,
        config: Config,
        waiting: Waiting,
        transport: Transport,
    ) -> Self {
        let shares = |all: usize| Shares::new(all, config.part(all));
        let bytes = shares(config.max_bytes_in_flight / GRAIN);
        let (requests, connections) = (shares(config.max_requests), shares(config.max_connections));
        let inner = Inner { intake, snapshots, sinks, config, bytes, requests, connections, waiting, transport };
        Self { inner: Arc::new(inner) }
    }

    /// Answers a request. What it cost is counted and bounded whoever serves the connection.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
    {
        self.counted(self.inner.answer(request)).await
    }

    /// Whether an address is of something that is answered here.
    pub(crate) fn is_at(&self, uri: &Uri) -> bool {
        let Some((host, topology)) = uri.host().zip(self.inner.snapshots.borrow().clone()) else { return false };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        topology.is_of_job_sinks(host) || !matches!(topology.look_up(host, target), Err(NotFound::Elsewhere))
    }

    /// Answers a request that this process makes for a namespace, which has its part of places and bytes, as an address has: all
    /// that the process sends would be one sender's otherwise.
    pub(crate) async fn answer_for(
        &self,
        namespace: Arc<str>,
        mut request: Request<Full<Bytes>>,
    ) -> Response<Full<Bytes>> {
        let wire = if request.uri().scheme_str() == Some("https") { Wire::Tls } else { Wire::Plain };
        request.extensions_mut().insert(Peer::Namespace(namespace));
        self.answer_by(wire, request).await
    }

    /// Answers a request that came so.
    async fn answer_by<B>(&self, wire: Wire, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
    {
        if self.inner.transport.answers(wire) {
            return self.answer(request).await;
        }
        // What senders try again, for their address may be of a moment ago.
        let reason = match wire {
            Wire::Plain => "events are taken over https alone: see status.address.url of where they go",
            Wire::Tls => "events are taken over http alone: see status.address.url of where they go",
        };
        self.counted(async { Err(refusal(StatusCode::NOT_FOUND, reason)) }).await
    }

    async fn counted(
        &self,
        answering: impl Future<Output = Result<Response<Full<Bytes>>, Answer>>,
    ) -> Response<Full<Bytes>> {
        let metrics = &self.inner.intake.metrics;
        let entered = metrics.requests.enter();
        let answered = knoll_faults::caught(answering).await;
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
        let before = self.snapshots.borrow().clone();
        if before.as_ref().is_some_and(|topology| topology.is_of_job_sinks(host)) {
            return Ok(self.answer_for_job_sinks(&head, body).await);
        }
        if head.method == Method::OPTIONS {
            let mut response = empty(StatusCode::OK);
            response.headers_mut().extend([(ALLOWED_ORIGIN, ANY), (ALLOWED_RATE, ANY)]);
            return Ok(response);
        }
        if head.method != Method::POST {
            return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "events are posted"));
        }
        let place = self.place(&head)?;
        let before = before.map_or_else(|| self.topology(), Ok)?;
        // What names nothing whoever is there is told apart from what is not there (yet).
        let target = target(&head);
        let found = before.look_up(host, target);
        addressed(&found)?;
        let Message { events, beside, held } = self.message(&head, body).await?;
        // Whatever it was when the request began, it is now that the events are taken.
        let topology = self.topology()?;
        let found = if topology.is(&before) { found } else { topology.look_up(host, target) };
        match found.map_err(not_found)? {
            Found::RequestReply(Asked::Reply(of)) => self.reply(&of, one(events, ONE_REQUEST)?.0),
            Found::RequestReply(Asked::Request(of)) => {
                let event = one(events, ONE_REQUEST)?;
                let request = self.request(&of, event, (&head.headers, beside), &topology).await?;
                // Who waits takes nobody's place.
                drop((place, held));
                self.answer_to(&of, request, peer(&head)).await
            }
            Found::LogSink(sink) => {
                let events: Vec<Event> = events.into_iter().map(|(event, _)| event).collect();
                self.sinks.log(&sink, &head.headers, &events).await?;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            Found::Addressable(into) => {
                if self.sinks.asks(into.guard()) {
                    let values: Vec<Event> = events.iter().map(|(event, _)| event.clone()).collect();
                    self.sinks.authorized(into.guard(), &head.headers, &values).await?;
                }
                self.take(&into, events, beside).await?;
                Ok(empty(StatusCode::ACCEPTED))
            }
        }
    }

    /// A place among the requests that are answered at a time.
    fn place(&self, head: &Parts) -> Result<Share<Peer>, Answer> {
        let place = self.requests.take(peer(head));
        place.ok_or_else(|| self.busy("as many requests are answered as may be"))
    }

    /// Reads the message that goes with this head, and holds what it becomes.
    async fn message<B>(&self, head: &Parts, body: B) -> Result<Message, Answer>
    where
        B: Body<Data = Bytes>,
    {
        let beside = headers::bounded(&head.headers);
        let (beside, each) = beside.map_err(|error| refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, error))?;
        let mut held = self.held(head)?;
        let body = self.body(body, &mut held).await?;
        let length = body.len();
        let events = read(&head.headers, body)?;
        self.hold_batch(length, events.len(), each, &mut held)?;
        Ok(Message { events, beside, held })
    }

    async fn take(
        &self,
        into: &Arc<Addressable>,
        events: Vec<(Event, Format)>,
        beside: HeaderMap,
    ) -> Result<(), Answer> {
        let records = events.into_iter().map(|(event, format)| Record::new(event, format, beside.clone())).collect();
        let taken = self.intake.take(into, records, From::Sender).await;
        taken.map_err(|refused| refusal(refused.status(), refused))
    }

    fn topology(&self) -> Result<Topology, Answer> {
        self.snapshots.borrow().clone().ok_or_else(|| self.busy("brokers and channels are not known yet"))
    }

    fn busy(&self, reason: &str) -> Answer {
        refusal(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}: send it again later"))
    }

    /// Reads a body within its bounds: of one event, of all together, and of time. What is held goes with `held`.
    async fn body<B>(&self, body: B, held: &mut Held) -> Result<Bytes, Answer>
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

    async fn frames<B>(&self, body: B, held: &mut Held) -> Result<Bytes, Answer>
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

    /// Holds what a message of `length` bytes becomes: each of its events is kept with `each` bytes beside it.
    fn hold_batch(&self, length: usize, events: usize, each: usize, held: &mut Held) -> Result<(), Answer> {
        let (all, most) = (length.saturating_add(events.saturating_mul(each)), self.config.max_event_bytes);
        if events > 1 && all > most {
            let why = format!("{events} events with {each} bytes of headers beside each are more than {most} bytes");
            return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, why + ": send fewer at a time"));
        }
        self.hold(all, held)
    }

    /// What a request with this head holds.
    fn held(&self, head: &Parts) -> Result<Held, Answer> {
        let bytes = headers::bytes(&head.headers);
        let share = self.bytes.take_many(peer(head), bytes.div_ceil(GRAIN)).ok_or_else(|| self.full())?;
        Ok(Held { share, head: bytes })
    }

    fn hold(&self, length: usize, held: &mut Held) -> Result<(), Answer> {
        held.hold(length).then_some(()).ok_or_else(|| self.full())
    }

    /// The bytes of an answer. They hold room until they are written, and wait a while for it: whoever sent them holds them,
    /// too, until it is told that they are taken.
    async fn counted(&self, bytes: Bytes, peer: Peer) -> Result<Bytes, Answer> {
        let (units, until) = (bytes.len().div_ceil(GRAIN), Instant::now() + self.config.body_read_timeout);
        loop {
            if let Some(share) = self.bytes.take_many(peer.clone(), units) {
                return Ok(Bytes::from_owner(Counted { bytes, _share: share }));
            }
            if Instant::now() >= until {
                return Err(self.full());
            }
            sleep(FULL_PAUSE).await;
        }
    }

    fn full(&self) -> Answer {
        self.busy("as many bytes are taken in as may be")
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

/// Who sends a request.
fn peer(head: &Parts) -> Peer {
    head.extensions.get().cloned().unwrap_or(Peer::NOBODY)
}

/// What a request asks for, as it stands there.
fn target(head: &Parts) -> &str {
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
fn addressed<T>(found: &Result<T, NotFound>) -> Result<(), Answer> {
    match found {
        Err(error @ (NotFound::Malformed | NotFound::Elsewhere)) => Err(not_found(*error)),
        Ok(_) | Err(NotFound::Unknown | NotFound::NotYet) => Ok(()),
    }
}

fn not_found(error: NotFound) -> Answer {
    let status = match error {
        NotFound::Malformed => StatusCode::BAD_REQUEST,
        NotFound::Elsewhere | NotFound::Unknown => StatusCode::NOT_FOUND,
        NotFound::NotYet => StatusCode::SERVICE_UNAVAILABLE,
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
