//! One attempt to deliver one event: to the subscriber, and what follows from its answer up to where the event is done
//! with, or to be tried again.
//!
//! Only attempts at the subscriber are made again by the worker, from the log. A reply and a dead letter are in memory
//! alone, so the attempt stays under way, and keeps its place among those under way, until they are taken.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header::AUTHORIZATION};
use knoll_bounds::Turn;
use knoll_event::{Event, Value, knative, mode::Format};
use knoll_journal::events::{ReadError, StreamId};
use tokio::time::{sleep, timeout};

use super::{Context, limit::Capacity};
use crate::{
    budget::From,
    client::{Answer, Message, failure, timed_out, told},
    delivery::{
        Delivery, Destination, dead_letter, headers,
        reply::{Meaning, Reading, meaning},
        retry::{self, Cause, Failure, Next},
        retry_after::retry_after,
    },
    intake::Refused,
    record::Record,
    sender,
    sinks::NotLogged,
    topology::{Addressable, Asked, Kind, NotFound, Subscribed, Subscriber, Subscription, Topology},
};

/// An attempt that was made.
#[derive(Debug)]
pub(crate) struct Made {
    /// What it came to.
    pub(crate) ended: Ended,
    /// What its subscriber says of how much it takes.
    pub(crate) capacity: Capacity,
}

/// What an attempt came to.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The event is done with.
    Done {
        /// Whether its subscriber took it.
        delivered: bool,
        /// Whether that showed that it is sent too much.
        overloaded: bool,
    },
    /// The event could not be read, and may be later: nothing was tried.
    Unread,
    /// Where it goes there is no room for it: it is to be tried again, and this was no attempt.
    Held {
        /// When.
        wait: std::time::Duration,
    },
    /// It is to be tried again.
    Retry {
        /// When.
        wait: std::time::Duration,
        /// Whether the failure showed that it is sent too much.
        overloaded: bool,
    },
}

/// One attempt.
pub(crate) struct Attempt {
    pub(crate) context: Arc<Context>,
    pub(crate) addressable: Arc<Addressable>,
    pub(crate) subscribed: Arc<Subscribed>,
    pub(crate) stream: StreamId,
    pub(crate) offset: u64,
    /// Attempts that failed before.
    pub(crate) failed: u32,
    /// The event, where it is at hand.
    pub(crate) record: Option<Arc<Record>>,
}

/// Which part of a delivery something is sent for.
#[derive(Clone, Copy, Debug)]
enum Leg {
    /// The event, to its subscriber, whose answer is read so.
    Subscriber(Reading),
    /// The event, to where replies go, as there is no subscriber.
    Forward,
    /// What a delivery makes: a reply, or a dead letter.
    Made,
}

impl Leg {
    /// Whose it is in a broker or channel here.
    fn from(self) -> From {
        match self {
            Self::Subscriber(_) | Self::Forward => From::Forward,
            Self::Made => From::Delivery,
        }
    }
}

/// What is to be sent on.
struct Reply {
    event: Event,
    format: Format,
    /// What travels beside it.
    beside: HeaderMap,
    /// What it takes of the room for replies.
    room: Option<Turn>,
}

impl Attempt {
    /// Makes it once it has its place among those that may be under way.
    pub(crate) async fn run(self) -> Made {
        let waiting = self.context.metrics.waiting.enter();
        let _place = self.context.under_way.attempts.take(self.namespace(), 1).await;
        drop(waiting);
        let _entered = self.context.metrics.in_flight.enter();
        let mut capacity = Capacity::Unknown;
        // Those that wait are many more, and small.
        let ended = Box::pin(self.made(&mut capacity)).await;
        Made { ended, capacity }
    }

    async fn made(&self, capacity: &mut Capacity) -> Ended {
        if self.failed > 0 {
            self.context.metrics.retried.count();
        }
        let (record, room) = match self.record().await {
            Ok(read) => read,
            Err(ended) => return ended,
        };
        let ended = self.made_of(&record, capacity).await;
        if room.is_some() {
            // It was read for this one alone.
            record.forget_outgoing();
        }
        ended
    }

    async fn made_of(&self, record: &Record, capacity: &mut Capacity) -> Ended {
        match self.to_subscriber(record, capacity).await {
            Ok(None) => self.delivered(),
            Ok(Some(Reply { event, format, beside, room: _room })) => {
                let reply = Record { hops: record.hops, ..Record::new(event, format, beside) };
                match self.reply(record, reply).await {
                    Ok(()) => self.delivered(),
                    Err(failure) => {
                        self.dead_letter(record, &failure).await;
                        Ended::Done { delivered: true, overloaded: false }
                    }
                }
            }
            Err(failure) => self.failed(record, &failure).await,
        }
    }

    fn delivered(&self) -> Ended {
        self.context.metrics.delivered.count();
        Ended::Done { delivered: true, overloaded: false }
    }

    /// Whose part of everything it takes.
    fn namespace(&self) -> &Arc<str> {
        &self.subscribed.subscription.namespace
    }

    /// The event, read again unless it is at hand, and what it takes of the room for those that are.
    async fn record(&self) -> Result<(Arc<Record>, Option<Turn>), Ended> {
        if let Some(record) = &self.record {
            return Ok((record.clone(), None));
        }
        let nothing = Ended::Done { delivered: false, overloaded: false };
        let waiting = self.context.metrics.waiting.enter();
        // How long it is is known once it is read.
        let longest = self.context.config.max_event_bytes;
        let mut room = self.context.under_way.events.take_bytes(self.namespace(), longest).await;
        drop(waiting);
        let found = self.context.log.read(self.stream, self.offset, 1, 0).await;
        let found = found.map(|read| read.events.into_iter().find(|event| event.offset == self.offset));
        let record = match found {
            Ok(Some(event)) => {
                room.shrink_to_bytes(event.payload.len());
                Record::of(&event).map_err(|error| error.to_string())
            }
            Ok(None) => Err("it is not there any more".to_owned()),
            // Its broker or channel is being deleted.
            Err(ReadError::NoStream) => return Err(nothing),
            Err(error @ ReadError::Io { .. }) => {
                let (error, offset) = (knoll_faults::chain(&error), self.offset);
                tracing::error!(error, offset, "an event cannot be read now; it is tried again");
                return Err(Ended::Unread);
            }
        };
        record.map(|record| (record, Some(room))).map_err(|error| {
            self.context.lost(&self.addressable, self.offset, &error);
            nothing
        })
    }

    fn delivery(&self) -> &Delivery {
        &self.subscribed.delivery
    }

    /// Sends the event to the subscriber. What it replies, and says of how much it takes.
    async fn to_subscriber(&self, record: &Record, capacity: &mut Capacity) -> Result<Option<Reply>, Failure> {
        let subscription = &self.subscribed.subscription;
        let to = match &subscription.subscriber {
            Subscriber::Nobody => {
                let (event, format, beside) = (record.event.clone(), record.format, record.headers.clone());
                return Ok(Some(Reply { event, format, beside, room: None }));
            }
            Subscriber::Unresolved => {
                let data = Bytes::from_static(b"the subscriber's address is not known");
                return Err(Failure { destination: "".into(), cause: Cause::Unresolved, data, retry_after: None });
            }
            Subscriber::At(to) => to,
        };
        let reading = match (self.addressable.name().kind, &subscription.reply) {
            (Kind::Broker, _) => Reading::Trigger,
            (Kind::Channel, Some(_)) => Reading::Subscription,
            (Kind::Channel, None) => Reading::StatusOnly,
        };
        let answer = self.send(to, record, Leg::Subscriber(reading)).await?;
        *capacity = headers::capacity(&answer.headers).map_or(Capacity::Unsaid, Capacity::Of);
        match meaning(reading, answer.status, &answer.headers, &answer.body) {
            Meaning::Delivered => Ok(None),
            Meaning::Reply(event, format) => {
                headers::bounded(&answer.headers).map_err(|error| failure(to, Cause::NoEvent, error.to_string()))?;
                let beside = headers::beside_reply(&answer.headers, &record.headers);
                Ok(Some(Reply { event: *event, format, beside, room: answer.room }))
            }
            Meaning::Failed(cause) => Err(refused(to, cause, &answer)),
        }
    }

    /// Sends, within the time that an attempt has, wherever it goes and whatever it waits for.
    async fn send(&self, to: &Destination, record: &Record, leg: Leg) -> Result<Answer, Failure> {
        let most = self.delivery().timeout.unwrap_or(self.context.config.attempt_timeout);
        timeout(most, self.send_until_taken(to, record, leg)).await.unwrap_or_else(|_| Err(timed_out(to, most)))
    }

    /// Sends, with a token where one is asked for; once more with another where that is not taken: it may have been revoked.
    async fn send_until_taken(&self, to: &Destination, record: &Record, leg: Leg) -> Result<Answer, Failure> {
        let token = self.token(to, None).await?;
        let answer = self.send_with(to, record, leg, token.clone()).await?;
        if answer.status != StatusCode::UNAUTHORIZED || token.is_none() {
            return Ok(answer);
        }
        match self.token(to, token.clone()).await {
            Ok(another) if another != token => self.send_with(to, record, leg, another).await,
            Ok(_) | Err(_) => Ok(answer),
        }
    }

    async fn token(&self, to: &Destination, refused: Option<HeaderValue>) -> Result<Option<HeaderValue>, Failure> {
        let Subscription { namespace, service_account, .. } = &self.subscribed.subscription;
        sender::token(&self.context.tokens, to, namespace, service_account.as_ref(), refused).await
    }

    /// Sends once: into a broker or channel of ours without a detour, or over HTTP.
    async fn send_with(
        &self,
        to: &Destination,
        record: &Record,
        leg: Leg,
        token: Option<HeaderValue>,
    ) -> Result<Answer, Failure> {
        let format = match leg {
            Leg::Subscriber(_) => self.delivery().format.unwrap_or(record.format),
            Leg::Forward | Leg::Made => record.format,
        };
        if let Some(answered) = self.send_within(to, record, (format, leg.from()), token.as_ref()).await {
            return answered;
        }
        let (mut headers, body) = record.outgoing(format);
        headers.extend(token.map(|token| (AUTHORIZATION, token)));
        let namespace = match self.addressable.name().kind {
            Kind::Broker => &self.subscribed.subscription.namespace,
            Kind::Channel => &self.addressable.name().namespace,
        };
        let wants_reply = matches!(leg, Leg::Subscriber(_));
        let reads_reply = matches!(leg, Leg::Subscriber(Reading::Trigger | Reading::Subscription));
        let message = Message { headers, body, namespace, wants_reply, reads_reply };
        self.context.client.send(to, message).await
    }

    /// The answer of a broker, channel or sink of ours; nothing when the address is nobody's here. Hops are counted on, so that
    /// those that deliver to each other come to an end: brokers' in the event, as upstream, and all beside it. A channel changes
    /// nothing, so it is given none of a broker's.
    async fn send_within(
        &self,
        to: &Destination,
        record: &Record,
        (format, from): (Format, From),
        token: Option<&HeaderValue>,
    ) -> Option<Result<Answer, Failure>> {
        let topology = self.context.snapshots.borrow().clone()?;
        let target = to.uri.path_and_query().map_or("/", |target| target.as_str());
        if !topology.may_have(to.uri.host()?) {
            return None;
        }
        let mut headers = record.headers.clone();
        headers.extend(token.map(|token| (AUTHORIZATION, token.clone())));
        if let Some(Ok(Asked::Reply(of))) = topology.find_request_reply(to.uri.host()?, target) {
            let mut event = record.event.clone();
            event.remove(knative::TTL);
            // What answers another RequestReply of the same broker is none of this one's, and no failure.
            let _ = self.context.waiting.answer(&of, event);
            return Some(Ok(said(StatusCode::ACCEPTED, &"")));
        }
        if let Some(answered) = self.send_to_sink(&topology, to, target, record, &headers).await {
            return Some(answered);
        }
        let into = match topology.find(to.uri.host()?, target) {
            Ok(into) => into.clone(),
            Err(NotFound::Elsewhere) => return None,
            Err(error @ NotFound::Malformed) => return Some(Ok(said(StatusCode::BAD_REQUEST, &error))),
            Err(error @ NotFound::Unknown) => return Some(Ok(said(StatusCode::NOT_FOUND, &error))),
            Err(error @ NotFound::NotYet) => return Some(Ok(said(StatusCode::SERVICE_UNAVAILABLE, &error))),
        };
        let mut event = record.event.clone();
        if into.name().kind == Kind::Channel {
            event.remove(knative::TTL);
        }
        if let Err(denied) = self.context.sinks.authorized(into.guard(), &headers, std::slice::from_ref(&event)).await {
            return Some(Ok(said(denied.status, &denied.reason)));
        }
        let beside = headers::passing(&headers);
        let sent = Record { hops: record.hops.saturating_add(1), ..Record::new(event, format, beside) };
        Some(match self.context.intake.take(&into, vec![sent], from).await {
            Ok(()) => Ok(said(StatusCode::ACCEPTED, &"")),
            Err(Refused::NoRoom(no_room)) => Err(failure(to, Cause::NoRoom, no_room.to_string())),
            Err(refused) => Ok(said(refused.status(), &refused)),
        })
    }

    /// The answer of a sink of ours; nothing when the address is that of none.
    async fn send_to_sink(
        &self,
        topology: &Topology,
        to: &Destination,
        target: &str,
        record: &Record,
        headers: &HeaderMap,
    ) -> Option<Result<Answer, Failure>> {
        let host = to.uri.host()?;
        let mut event = record.event.clone();
        event.remove(knative::TTL);
        let sinks = &self.context.sinks;
        let taken = if topology.is_of_job_sinks(host) {
            match topology.job_sink_at(target) {
                Ok(sink) => sinks.make_job(sink, headers, event).await,
                Err(error @ NotFound::NotYet) => return Some(Ok(said(StatusCode::SERVICE_UNAVAILABLE, &error))),
                Err(error) => return Some(Ok(said(StatusCode::BAD_REQUEST, &error))),
            }
        } else {
            match topology.find_log_sink(host, target)? {
                Ok(sink) => match sinks.log(&sink, headers, &[event]).await {
                    Ok(()) => Ok(()),
                    Err(NotLogged::Refused(refused)) => Err(refused),
                    Err(NotLogged::NoRoom(full)) => return Some(Err(failure(to, Cause::NoRoom, full.reason))),
                },
                Err(error @ NotFound::Unknown) => return Some(Ok(said(StatusCode::NOT_FOUND, &error))),
                Err(error @ NotFound::NotYet) => return Some(Ok(said(StatusCode::SERVICE_UNAVAILABLE, &error))),
                Err(error) => return Some(Ok(said(StatusCode::BAD_REQUEST, &error))),
            }
        };
        Some(Ok(match taken {
            Ok(()) => said(StatusCode::ACCEPTED, &""),
            Err(refused) => said(refused.status, &refused.reason),
        }))
    }

    /// Sends where only the status counts, and again as the delivery says.
    async fn send_on(&self, to: &Destination, record: &Record, leg: Leg) -> Result<(), Failure> {
        let mut made = 0;
        loop {
            let failed = match self.send(to, record, leg).await {
                Ok(answer) => match meaning(Reading::StatusOnly, answer.status, &answer.headers, &answer.body) {
                    Meaning::Failed(cause) => refused(to, cause, &answer),
                    Meaning::Delivered | Meaning::Reply(..) => return Ok(()),
                },
                Err(failure) => failure,
            };
            let next = retry::next(self.delivery(), made + 1, &failed);
            self.count(next);
            match next {
                Next::Hold(wait) => sleep(wait).await,
                Next::Retry(wait) => {
                    made += 1;
                    sleep(wait).await;
                }
                Next::DeadLetter => return Err(failed),
            }
        }
    }

    /// Sends a reply where it goes. The event it replies to lends it its hops.
    async fn reply(&self, record: &Record, mut reply: Record) -> Result<(), Failure> {
        let to = match self.addressable.name().kind {
            Kind::Broker => {
                let to = self.own_address()?;
                if let Some(hops) = record.event.extension(knative::TTL).map(Value::text) {
                    let full = |_| failure(&to, Cause::NoEvent, "the reply has no room for its hops".to_owned());
                    reply.event.set(knative::TTL, &*hops).map_err(full)?;
                }
                to
            }
            Kind::Channel => match &self.subscribed.subscription.reply {
                Some(to) => to.clone(),
                None => return Ok(()),
            },
        };
        let leg = match self.subscribed.subscription.subscriber {
            // It was nobody's yet.
            Subscriber::Nobody => Leg::Forward,
            Subscriber::At(_) | Subscriber::Unresolved => Leg::Made,
        };
        self.send_on(&to, &reply, leg).await?;
        self.context.metrics.replies.count();
        Ok(())
    }

    /// Where a Trigger's replies go.
    fn own_address(&self) -> Result<Destination, Failure> {
        let topology = self.context.snapshots.borrow().clone().unwrap_or_default();
        let address = topology.address(self.addressable.name()).ok_or_else(|| Failure {
            destination: self.addressable.name().name.as_ref().into(),
            cause: Cause::Unsendable,
            data: Bytes::from_static(b"the broker's name is none of a URI"),
            retry_after: None,
        })?;
        Ok(Destination { audience: self.addressable.audience().map(Into::into), ..Destination::new(address) })
    }

    /// Counts something that was sent and not taken.
    fn count(&self, next: Next) {
        let metrics = &self.context.metrics;
        let counter = if matches!(next, Next::Hold(_)) { &metrics.held_back } else { &metrics.failed };
        counter.count();
    }

    /// What follows from a failed attempt.
    async fn failed(&self, record: &Record, failure: &Failure) -> Ended {
        let overloaded = failure.cause.is_overload();
        let next = retry::next(self.delivery(), self.failed.min(self.delivery().retry) + 1, failure);
        self.count(next);
        match next {
            Next::Retry(wait) => Ended::Retry { wait, overloaded },
            Next::Hold(wait) => Ended::Held { wait },
            Next::DeadLetter => {
                self.dead_letter(record, failure).await;
                Ended::Done { delivered: false, overloaded }
            }
        }
    }

    /// Hands an event to the dead letter sink, or keeps it where there is none that takes it.
    async fn dead_letter(&self, record: &Record, failure: &Failure) {
        let mut letter = record.clone();
        dead_letter::explain(&mut letter.event, failure);
        self.context.dead_letter(&self.subscribed);
        if let Some(sink) = &self.delivery().dead_letter_sink {
            match self.send_on(sink, &letter, Leg::Made).await {
                Ok(()) => return self.context.metrics.dead_letters.count(),
                Err(failure) => {
                    let (code, destination) = (failure.cause.code(), &*failure.destination);
                    let subscription = &*self.subscribed.subscription.name;
                    tracing::warn!(
                        code,
                        destination,
                        subscription,
                        "a dead letter sink does not take an event; it is kept"
                    );
                }
            }
        }
        letter.subscription = Some(self.subscribed.subscription.uid.as_ref().into());
        self.context.letters.keep(&self.addressable, &letter).await;
        self.context.metrics.kept_dead_letters.count();
    }
}

/// An attempt that was answered, and not as it should.
fn refused(to: &Destination, cause: Cause, answer: &Answer) -> Failure {
    let retry_after = retry_after(answer.status, &answer.headers, SystemTime::now());
    Failure { destination: to.to_string().into(), cause, data: told(&answer.body), retry_after }
}

/// An answer of our own.
fn said(status: StatusCode, reason: &dyn std::fmt::Display) -> Answer {
    Answer { status, headers: HeaderMap::new(), body: reason.to_string().into(), room: None }
}
