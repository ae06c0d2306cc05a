//! What an operator asks of brokers and channels, below `/events` of the admin endpoint.
//!
//! | | |
//! |---|---|
//! | `GET /events?namespace=NAME&most=N&after=KIND/NAMESPACE/NAME` | brokers and channels, with who listens and how that goes; `next` is where to go on |
//! | `POST /events/<kind>/<namespace>/<name>` | an event is taken, as by its address |
//! | `GET …/history?offset=N` or `?since=TIME`, `&most=N` | events that are kept |
//! | `POST …/replay?subscription=NAME&offset=N` or `&since=TIME` | they are delivered once more to one of those who listen |
//! | `GET …/dead-letters?offset=N&most=N` | what nobody took |
//! | `POST …/redrive`, `POST …/drop` | dead letters whose offsets are in the body, a JSON list, are delivered again, or dropped |
//! | `POST …/redrive?undeliverable=stays` | the same, but those that cannot be stay, and are counted, where the first of them is the answer else |
//!
//! Kinds are `broker` and `channel`, the latter for InMemoryChannels; times are RFC 3339.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::HOST};
use http_body_util::Full;
use jiff::Timestamp;
use knoll_broker::{
    AskError, DataPlane, Kept, OperationError, Start, Undeliverable,
    topology::{Addressable, Kind, Name, Names},
};
use knoll_event::{Event, json as event_json};
use serde_json::{Value, json};

use super::Running;
use crate::admin::Operation;

/// Brokers, events or dead letters in one answer, when nothing is said, and at most; and dead letters in one request.
const MOST: usize = 100;
const MOST_AT_ALL: usize = 1000;
/// Those who listen in one answer, of one broker or channel all of them.
const LISTENERS: usize = 1000;

/// An answer that refuses: its status, and why.
pub(super) type Refused = (StatusCode, String);

/// Does what is asked.
pub(super) async fn operate(running: Running, names: Names, operation: Operation) -> Response<Full<Bytes>> {
    let Some(plane) = running.get() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the event log is not open\n".to_owned());
    };
    match act(&plane, &names, operation).await {
        Ok(response) => response,
        Err((status, why)) => plain(status, why + "\n"),
    }
}

async fn act(plane: &DataPlane, names: &Names, operation: Operation) -> Result<Response<Full<Bytes>>, Refused> {
    let parts: Vec<&str> = operation.path.split('/').filter(|part| !part.is_empty()).collect();
    let asked = Asked::of(operation.query.as_deref().unwrap_or_default());
    let [kind, namespace, name, verb @ ..] = &parts[..] else {
        return match (&operation.method, &parts[..]) {
            (&Method::GET, []) => listed(plane, &asked),
            _ => Err(unknown()),
        };
    };
    let of = named(kind, namespace, name)?;
    match (&operation.method, verb) {
        (&Method::POST, []) => send(plane, names, &of, operation).await,
        (&Method::GET, ["history"]) => {
            let (start, most) = (asked.start()?, asked.most(MOST, MOST_AT_ALL)?);
            let history = plane.history(&of, start, most).await.map_err(refused)?;
            let missing = history.missing.iter().map(|(first, last)| json!([first, last]));
            Ok(document(&json!({
                "events": history.events.iter().map(kept).collect::<Vec<_>>(),
                "missing": missing.collect::<Vec<_>>(),
                "next": history.next,
            })))
        }
        (&Method::POST, ["replay"]) => {
            let wanted = asked.value("subscription").ok_or_else(|| bad("subscription: say which"))?;
            let uid = subscription(plane, &of, &wanted)?;
            let count = plane.replay(&of, &uid, asked.start()?).await.map_err(refused)?;
            Ok(document(&json!({"replayed": count})))
        }
        (&Method::GET, ["dead-letters"]) => letters(plane, &of, &asked).await,
        (&Method::POST, ["redrive"]) => {
            let redriven =
                plane.redrive(&of, offsets(&operation.body)?, asked.undeliverable()?).await.map_err(refused)?;
            Ok(document(&json!({
                "redriven": redriven.count, "orphans": redriven.orphans, "missing": redriven.missing,
            })))
        }
        (&Method::POST, ["drop"]) => {
            let offsets = offsets(&operation.body)?;
            plane.drop_dead_letters(&of, &offsets).await.map_err(refused)?;
            Ok(document(&json!({"dropped": offsets.len()})))
        }
        _ => Err(unknown()),
    }
}

/// Has the ingress answer, as if the event had come by the address.
async fn send(
    plane: &DataPlane,
    names: &Names,
    of: &Name,
    operation: Operation,
) -> Result<Response<Full<Bytes>>, Refused> {
    let (host, path) = match of.kind {
        Kind::Broker => (names.broker_host(), format!("/{}/{}", of.namespace, of.name)),
        Kind::Channel => (names.channel_host(&of.namespace, &of.name), "/".to_owned()),
    };
    let no_name = || bad("namespace and name are no names");
    let mut request = Request::post(path).body(Full::new(operation.body)).map_err(|_| no_name())?;
    *request.headers_mut() = operation.headers;
    request.headers_mut().insert(HOST, host.parse().map_err(|_| no_name())?);
    Ok(plane.ingress().answer(request).await)
}

fn named(kind: &str, namespace: &str, name: &str) -> Result<Name, Refused> {
    let kind = match kind {
        "broker" => Kind::Broker,
        "channel" => Kind::Channel,
        other => return Err(bad(format!("{other:?} is neither broker nor channel"))),
    };
    Ok(Name::new(kind, namespace, name))
}

/// A page of brokers and channels.
fn listed(plane: &DataPlane, asked: &Asked) -> Result<Response<Full<Bytes>>, Refused> {
    let after = asked.value("after").map(|after| match after.split('/').collect::<Vec<_>>()[..] {
        [kind, namespace, name] => named(kind, namespace, name),
        _ => Err(bad(format!("after: {after:?} is not of the form KIND/NAMESPACE/NAME"))),
    });
    let (after, most, namespace) = (after.transpose()?, asked.most(MOST, MOST_AT_ALL)?, asked.value("namespace"));
    let (mut items, mut listeners, mut next) = (Vec::new(), 0, None);
    let mut found = plane.addressables(namespace.as_deref(), after.as_ref(), most + 1).into_iter().peekable();
    while let Some(addressable) = found.next() {
        items.push(shown(plane, &addressable));
        listeners += addressable.subscribed().count();
        if (items.len() == most || listeners >= LISTENERS) && found.peek().is_some() {
            let Name { kind, namespace, name } = addressable.name();
            next = Some(format!("{}/{namespace}/{name}", kind.as_str()));
            break;
        }
    }
    Ok(document(&json!({"items": items, "next": next})))
}

fn shown(plane: &DataPlane, addressable: &Addressable) -> Value {
    let Name { kind, namespace, name } = addressable.name();
    let subscriptions = addressable.subscribed().map(|subscribed| {
        let of = &subscribed.subscription;
        let status = plane.status(&of.uid).unwrap_or_default();
        json!({
            "namespace": of.namespace, "name": of.name, "inFlight": status.in_flight, "lag": status.lag,
            "concurrency": status.concurrency, "delivered": status.delivered, "failedAttempts": status.failed_attempts,
            "deadLetters": status.dead_letters,
        })
    });
    json!({
        "kind": kind.as_str(), "namespace": namespace, "name": name, "deadLetters": plane.dead_letter_count(addressable.name()),
        "subscriptions": subscriptions.collect::<Vec<_>>(),
    })
}

async fn letters(plane: &DataPlane, of: &Name, asked: &Asked) -> Result<Response<Full<Bytes>>, Refused> {
    let page =
        plane.dead_letters(of, asked.offset()?.unwrap_or(0), asked.most(MOST, MOST_AT_ALL)?).await.map_err(refused)?;
    let subscriptions = addressable(plane, of)?;
    let named = |uid: &str| {
        let mut all = subscriptions.subscribed().map(|subscribed| &subscribed.subscription);
        all.find(|of| *of.uid == *uid).map(|of| of.name.clone())
    };
    let letters = page.letters.iter().map(|letter| {
        json!({
            "offset": letter.offset, "time": time(letter.time), "subscription": named(&letter.subscription),
            "subscriptionUid": letter.subscription, "event": event(&letter.event),
        })
    });
    Ok(document(&json!({
        "deadLetters": letters.collect::<Vec<_>>(), "unreadable": page.unreadable, "next": page.next,
    })))
}

fn kept(kept: &Kept) -> Value {
    json!({"offset": kept.offset, "time": time(kept.time), "event": event(&kept.event)})
}

/// An event in the JSON format of CloudEvents.
fn event(event: &Event) -> Value {
    serde_json::from_slice(&event_json::write(event)).unwrap_or_default()
}

fn time(milliseconds: u64) -> Option<String> {
    let milliseconds = i64::try_from(milliseconds).ok()?;
    Some(Timestamp::from_millisecond(milliseconds).ok()?.to_string())
}

fn addressable(plane: &DataPlane, of: &Name) -> Result<std::sync::Arc<Addressable>, Refused> {
    plane.addressable(of).ok_or_else(|| refused(OperationError::NoAddressable))
}

/// The uid of the Trigger or Subscription of this name.
fn subscription(plane: &DataPlane, of: &Name, wanted: &str) -> Result<std::sync::Arc<str>, Refused> {
    let addressable = addressable(plane, of)?;
    let mut all = addressable.subscribed().map(|subscribed| &subscribed.subscription);
    let found = all.find(|of| *of.name == *wanted).map(|of| of.uid.clone());
    found.ok_or_else(|| refused(OperationError::NoSubscription(wanted.into())))
}

/// What stands behind the question mark.
pub(super) struct Asked(Vec<(String, String)>);

impl Asked {
    pub(super) fn of(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    pub(super) fn value(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    fn offset(&self) -> Result<Option<u64>, Refused> {
        let given =
            self.value("offset").map(|text| text.parse().map_err(|_| bad(format!("offset: {text} is no number"))));
        given.transpose()
    }

    fn start(&self) -> Result<Start, Refused> {
        if let Some(offset) = self.offset()? {
            return Ok(Start::Offset(offset));
        }
        let since = self.value("since").ok_or_else(|| bad("say offset or since"))?;
        let since: Timestamp = since.parse().map_err(|e| bad(format!("since: {since} is no time: {e}")))?;
        Ok(Start::Time(u64::try_from(since.as_millisecond()).unwrap_or(0)))
    }

    fn undeliverable(&self) -> Result<Undeliverable, Refused> {
        match self.value("undeliverable").as_deref() {
            None | Some("stops") => Ok(Undeliverable::Stops),
            Some("stays") => Ok(Undeliverable::Stays),
            Some(other) => Err(bad(format!("undeliverable: {other:?} is neither stops nor stays"))),
        }
    }

    /// How many are asked for: `usual` when nothing is said, and at most `at_all`.
    pub(super) fn most(&self, usual: usize, at_all: usize) -> Result<usize, Refused> {
        let Some(text) = self.value("most") else { return Ok(usual) };
        let most = text.parse().ok().filter(|most| (1..=at_all).contains(most));
        most.ok_or_else(|| bad(format!("most: {text} is no number from 1 to {at_all}")))
    }
}

fn offsets(body: &Bytes) -> Result<Vec<u64>, Refused> {
    let offsets: Vec<u64> =
        serde_json::from_slice(body).map_err(|e| bad(format!("the body is no JSON list of offsets: {e}")))?;
    match offsets.len() {
        ..=MOST_AT_ALL => Ok(offsets),
        many => Err(bad(format!("{many} offsets are more than {MOST_AT_ALL}: send them in several requests"))),
    }
}

fn bad(why: impl Into<String>) -> Refused {
    (StatusCode::BAD_REQUEST, why.into())
}

fn unknown() -> Refused {
    let paths =
        "GET /events, POST /events/KIND/NAMESPACE/NAME, and below that history, replay, dead-letters, redrive, drop";
    (StatusCode::NOT_FOUND, format!("there is: {paths}"))
}

fn refused(error: OperationError) -> Refused {
    let status = match &error {
        OperationError::NoAddressable | OperationError::NoSubscription(_) | OperationError::NoLetter(_) => {
            StatusCode::NOT_FOUND
        }
        OperationError::Orphan { .. } | OperationError::Unreadable(_) => StatusCode::CONFLICT,
        OperationError::Log(AskError::NoRoom(_)) => StatusCode::SERVICE_UNAVAILABLE,
        OperationError::Log(_) | OperationError::Read(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}

pub(super) fn document(value: &Value) -> Response<Full<Bytes>> {
    plain(StatusCode::OK, format!("{value}\n"))
}

pub(super) fn plain(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;
    use knoll_broker::{
        Config, Hooks, Log, Topology,
        topology::{Subscriber, Subscription},
    };
    use knoll_journal::{MemoryDisk, events::EventOptions};

    use super::*;

    /// A page of a data plane of three brokers, of which the second has many Triggers, and of a channel there and two elsewhere:
    /// the names, and where to go on.
    async fn page(query: &str) -> Result<(Vec<String>, Option<String>), Refused> {
        let (log, _thread, _) = Log::open(Arc::new(MemoryDisk::default()), EventOptions::default()).expect("opens");
        let trigger = |at: usize| Subscription::new("ns", "t", &at.to_string(), Subscriber::Unresolved);
        let topology = ["a", "b", "c"].into_iter().fold(Topology::default(), |topology, name| {
            let triggers = if name == "b" { (0..LISTENERS).map(trigger).collect() } else { Vec::new() };
            topology.with(Addressable::new(Name::new(Kind::Broker, "ns", name), name, None, triggers))
        });
        let topology =
            [("ms", "x"), ("ns", "y"), ("nt", "z")].into_iter().fold(topology, |topology, (namespace, name)| {
                topology.with(Addressable::new(Name::new(Kind::Channel, namespace, name), name, None, Vec::new()))
            });
        let snapshots = tokio::sync::watch::Sender::new(Some(topology));
        let plane = DataPlane::new(log, snapshots.subscribe(), Config::default(), Hooks::default()).expect("starts");
        let answer = listed(&plane, &Asked::of(query))?.into_body().collect().await.expect("a body").to_bytes();
        let page: Value = serde_json::from_slice(&answer).expect("JSON");
        let items = page["items"].as_array().expect("a list").iter();
        let names = items.map(|item| item["name"].as_str().expect("a name").to_owned()).collect();
        Ok((names, page["next"].as_str().map(str::to_owned)))
    }

    #[tokio::test]
    async fn brokers_are_listed_a_page_at_a_time() {
        let is = |names: &[&str], next: Option<&str>| {
            Ok((names.iter().map(|name| (*name).to_owned()).collect(), next.map(str::to_owned)))
        };
        assert_eq!(page("").await, is(&["a", "b"], Some("broker/ns/b")), "so many listen");
        assert_eq!(page("after=broker/ns/b").await, is(&["c", "x", "y", "z"], None));
        assert_eq!(page("most=1").await, is(&["a"], Some("broker/ns/a")));
        assert_eq!(page("after=broker/ns/aa&most=1").await, is(&["b"], Some("broker/ns/b")));
        assert_eq!(page("after=channel/ns/a").await, is(&["y", "z"], None));
        for (query, names, next) in [
            ("namespace=ns&most=1", &["a"][..], Some("broker/ns/a")),
            ("namespace=ns&after=broker/ns/b", &["c", "y"], None),
            ("namespace=ns&after=channel/ns/x", &["y"], None),
            ("namespace=nt", &["z"], None),
            ("namespace=n", &[], None),
        ] {
            assert_eq!(page(query).await, is(names, next), "{query}");
        }
        for query in ["after=b", "after=queue/ns/a", "most=0", "most=1001"] {
            assert_eq!(page(query).await.map_err(|(status, _)| status), Err(StatusCode::BAD_REQUEST), "{query}");
        }
    }

    #[test]
    fn so_many_dead_letters_are_asked_for_at_a_time() {
        let asked = |many: usize| offsets(&Bytes::from(format!("{:?}", (0..many as u64).collect::<Vec<_>>())));
        assert_eq!(asked(MOST_AT_ALL).map(|offsets| offsets.len()), Ok(MOST_AT_ALL));
        assert_eq!(asked(MOST_AT_ALL + 1).map_err(|(status, _)| status), Err(StatusCode::BAD_REQUEST));
    }
}
