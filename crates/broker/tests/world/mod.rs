//! A data plane over a real log in a directory, and subscribers on loopback.

#![allow(dead_code, reason = "each file of tests uses a part of it")]

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Request, Response, StatusCode, Uri,
    header::{CONTENT_TYPE, HeaderValue},
};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use knoll_broker::{
    Config, DataPlane, Hooks, Log, LogThread, Topology,
    delivery::{Backoff, BackoffPolicy, Delivery, Destination},
    topology::{Addressable, Kind, Name, Subscriber, Subscription},
};
use knoll_event::{
    Event, json,
    mode::{self, Format},
};
use knoll_journal::{Directory, Disk, MemoryDisk, events::EventOptions};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};

/// What a subscriber saw of one request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) event: Event,
    pub(crate) at: Instant,
}

/// What a subscriber does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Answers with this status.
    Status(u16),
    /// Answers with this status, these headers and this body.
    Say(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Answers with an event of this type and the id of the request's.
    Reply(&'static str),
    /// Waits so many milliseconds, then answers 202.
    Slow(u64),
    /// Waits so many milliseconds, then answers 202 and says how many requests it takes at a time.
    Takes(u64, &'static str),
    /// Never answers.
    Hang,
    /// Ends the connection.
    Close,
}

type Script = Arc<dyn Fn(&Seen, usize) -> Act + Send + Sync>;

/// Subscribers, told apart by the first part of their paths.
#[derive(Clone)]
pub(crate) struct Sinks {
    address: SocketAddr,
    seen: Arc<Mutex<HashMap<String, Vec<Seen>>>>,
    scripts: Arc<Mutex<HashMap<String, Script>>>,
    busiest: Arc<Mutex<HashMap<String, (usize, usize)>>>,
}

impl Sinks {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (seen, scripts, busiest) = Default::default();
        let sinks = Self { address, seen, scripts, busiest };
        let serving = sinks.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let sinks = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| sinks.clone().answer(request));
                    // A connection that ends on purpose fails.
                    drop(http1::Builder::new().max_headers(512).serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        sinks
    }

    pub(crate) fn uri(&self, name: &str) -> Uri {
        format!("http://{}/{name}", self.address).parse().expect("a URI")
    }

    pub(crate) fn at(&self, name: &str) -> Destination {
        Destination::new(self.uri(name))
    }

    /// What `name` answers from now on, by what it sees and how often it was asked before.
    pub(crate) fn on(&self, name: &str, script: impl Fn(&Seen, usize) -> Act + Send + Sync + 'static) {
        self.scripts.lock().unwrap().insert(name.to_owned(), Arc::new(script));
    }

    pub(crate) fn seen(&self, name: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().get(name).cloned().unwrap_or_default()
    }

    pub(crate) fn ids(&self, name: &str) -> Vec<String> {
        self.seen(name).iter().map(|seen| seen.event.id().to_owned()).collect()
    }

    /// Most requests that `name` had at a time.
    pub(crate) fn busiest(&self, name: &str) -> usize {
        self.busiest.lock().unwrap().get(name).map_or(0, |(_, most)| *most)
    }

    pub(crate) async fn wait(&self, name: &str, count: usize) -> Vec<Seen> {
        until(&format!("{count} at {name}"), || self.seen(name).len() >= count).await;
        self.seen(name)
    }

    fn enter(&self, name: &str) {
        let mut busiest = self.busiest.lock().unwrap();
        let (now, most) = busiest.entry(name.to_owned()).or_default();
        *now += 1;
        *most = (*most).max(*now);
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, &'static str> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| "the body broke off")?.to_bytes();
        let event = mode::read(&head.headers, body).map_err(|_| "no event was sent")?;
        let path = head.uri.path().to_owned();
        let name = path.split('/').nth(1).unwrap_or_default().to_owned();
        let seen = Seen { path, headers: head.headers, event, at: Instant::now() };
        let before = {
            let mut all = self.seen.lock().unwrap();
            let seen_before = all.entry(name.clone()).or_default();
            seen_before.push(seen.clone());
            seen_before.len() - 1
        };
        let script = self.scripts.lock().unwrap().get(&name).cloned();
        let act = script.map_or(Act::Status(202), |script| script(&seen, before));
        self.enter(&name);
        let answered = act_out(act, &seen).await;
        self.busiest.lock().unwrap().entry(name).or_default().0 -= 1;
        answered
    }
}

async fn act_out(act: Act, seen: &Seen) -> Result<Response<Full<Bytes>>, &'static str> {
    let (status, headers, body) = match act {
        Act::Status(status) => (status, HeaderMap::new(), Bytes::new()),
        Act::Say(status, headers, body) => {
            let lines = headers.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            (status, lines.collect::<HeaderMap>(), body.into())
        }
        Act::Reply(kind) => {
            let mut headers = HeaderMap::new();
            let reply = Event::new(seen.event.id(), "/reply", kind).expect("an event");
            let body = mode::write(&reply, Format::Binary, &mut headers);
            (200, headers, body)
        }
        Act::Slow(milliseconds) => {
            sleep(Duration::from_millis(milliseconds)).await;
            (202, HeaderMap::new(), Bytes::new())
        }
        Act::Takes(milliseconds, capacity) => {
            sleep(Duration::from_millis(milliseconds)).await;
            let says = (HeaderName::from_static("knoll-capacity"), HeaderValue::from_static(capacity));
            (202, [says].into_iter().collect(), Bytes::new())
        }
        Act::Hang => std::future::pending().await,
        Act::Close => return Err("on purpose"),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = headers;
    Ok(response)
}

/// Waits until something holds, a minute at most.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "waited for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn options() -> EventOptions {
    EventOptions {
        segment_bytes: 1 << 20,
        budget_bytes: 1 << 30,
        reserve_bytes: 64 << 10,
        run: b"run".to_vec(),
        ..EventOptions::default()
    }
}

/// A data plane that runs.
pub(crate) struct World {
    pub(crate) plane: DataPlane,
    pub(crate) topology: watch::Sender<Option<Topology>>,
    thread: Option<LogThread>,
    delivering: JoinHandle<Result<(), knoll_broker::AskError>>,
    end: Option<oneshot::Sender<()>>,
}

impl World {
    pub(crate) fn start(directory: &std::path::Path, topology: Topology) -> Self {
        let config = Config { grace: Duration::from_secs(2), ..Config::default() };
        Self::start_with(directory, topology, options(), config, Hooks::default())
    }

    /// Whose subscribers are sent so many events at a time at most.
    pub(crate) fn start_narrow(directory: &std::path::Path, topology: Topology, most: u32) -> Self {
        let config = Config { grace: Duration::from_secs(2), max_concurrency: most, ..Config::default() };
        Self::start_with(directory, topology, options(), config, Hooks::default())
    }

    pub(crate) fn start_with(
        directory: &std::path::Path,
        topology: Topology,
        options: EventOptions,
        config: Config,
        hooks: Hooks,
    ) -> Self {
        let disk = Directory::make(directory).expect("a directory");
        Self::start_on(Arc::new(disk), topology, options, config, hooks)
    }

    pub(crate) fn start_on(
        disk: Arc<dyn Disk>,
        topology: Topology,
        options: EventOptions,
        config: Config,
        hooks: Hooks,
    ) -> Self {
        let (log, thread, recovery) = Log::open(disk, options).expect("opens");
        assert_eq!(recovery.damages, []);
        let topology = watch::Sender::new(Some(topology));
        let plane = DataPlane::new(log, topology.subscribe(), config, hooks).expect("settings");
        let (end, ended) = oneshot::channel::<()>();
        let delivering = plane.clone();
        let delivering = tokio::spawn(async move { delivering.deliver(Box::pin(async { drop(ended.await) })).await });
        Self { plane, topology, thread: Some(thread), delivering, end: Some(end) }
    }

    /// Waits until subscriptions get every event.
    pub(crate) async fn ready(&self, uids: &[&str]) {
        until("subscriptions", || uids.iter().all(|uid| self.plane.status(uid).is_some())).await;
    }

    pub(crate) fn change(&self, change: impl FnOnce(Topology) -> Topology) {
        self.topology.send_modify(|topology| *topology = topology.take().map(change));
    }

    /// Posts a message as `serve` would get it.
    pub(crate) async fn post(&self, uri: &Uri, headers: HeaderMap, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
        let mut request = Request::post(uri.clone()).body(Full::from(body.into())).expect("a request");
        request.headers_mut().extend(headers);
        self.plane.ingress().answer(request).await
    }

    /// Posts an event in binary mode.
    pub(crate) async fn send(&self, to: &Name, event: &Event) -> StatusCode {
        let mut headers = HeaderMap::new();
        let body = mode::write(event, Format::Binary, &mut headers);
        let address = Topology::default().address(to).expect("an address");
        self.post(&address, headers, body).await.status()
    }

    /// Posts a numbered event of this type.
    pub(crate) async fn number(&self, to: &Name, number: usize, kind: &str) {
        let event = Event::new(&number.to_string(), "/sender", kind).expect("an event");
        assert_eq!(self.send(to, &event).await, StatusCode::ACCEPTED);
    }

    /// Posts numbered events of this type, all at once.
    pub(crate) async fn numbers(&self, to: &Name, numbers: std::ops::Range<usize>, kind: &str) {
        let events: Vec<Event> =
            numbers.map(|number| Event::new(&number.to_string(), "/sender", kind).expect("an event")).collect();
        self.batch(to, &events).await;
    }

    /// Posts events, all at once.
    pub(crate) async fn batch(&self, to: &Name, events: &[Event]) {
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/cloudevents-batch+json"))];
        let address = Topology::default().address(to).expect("an address");
        let answer = self.post(&address, headers.into_iter().collect(), json::write_batch(events)).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        let family = self.plane.metrics().into_iter().find(|family| family.name == name);
        family.unwrap_or_else(|| panic!("no metric {name}")).samples[0].value as u64
    }

    /// Ends in good order.
    pub(crate) async fn finish(mut self) {
        drop(self.end.take());
        (&mut self.delivering).await.expect("no panic").expect("the log goes on");
        self.close().await;
    }

    /// Ends as if it were killed, but for what the operating system was given.
    pub(crate) async fn kill(mut self) {
        self.delivering.abort();
        drop((&mut self.delivering).await);
        self.close().await;
    }

    async fn close(&mut self) {
        let thread = self.thread.take().expect("it runs");
        let (topology, _) = watch::channel(None);
        // Whoever holds the log must go before its thread does.
        self.topology = topology;
        let (log, other, _) = Log::open(Arc::new(MemoryDisk::default()), options()).expect("opens");
        let plane = DataPlane::new(log, self.topology.subscribe(), Config::default(), Hooks::default()).unwrap();
        drop(std::mem::replace(&mut self.plane, plane));
        tokio::task::spawn_blocking(move || thread.join().expect("closes")).await.expect("no panic");
        drop(other);
    }
}

pub(crate) fn broker(name: &str) -> Name {
    Name::new(Kind::Broker, "ns", name)
}

pub(crate) fn channel(name: &str) -> Name {
    Name::new(Kind::Channel, "ns", name)
}

/// A trigger, or a subscription, whose uid is its name.
pub(crate) fn to(sinks: &Sinks, name: &str) -> Subscription {
    Subscription::new("ns", name, name, Subscriber::At(sinks.at(name)))
}

pub(crate) fn with(topology: Topology, name: &Name, subscriptions: Vec<Subscription>) -> Topology {
    let uid = format!("uid-{}", name.name);
    topology.with(Addressable::new(name.clone(), &uid, None, subscriptions))
}

/// So many retries, so many milliseconds apart.
pub(crate) fn retries(retry: u32, milliseconds: u64) -> Delivery {
    let backoff = Backoff { policy: BackoffPolicy::Exponential, delay: Duration::from_millis(milliseconds) };
    Delivery { retry, backoff: (milliseconds > 0).then_some(backoff), ..Delivery::default() }
}

pub(crate) fn text(event: &Event, name: &str) -> Option<String> {
    event.attribute(name).map(|value| value.into_text().into_owned())
}

pub(crate) fn structured(members: &str) -> Bytes {
    let body = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t"{members}}}"#);
    json::write(&json::read(&body.into()).expect("an event"))
}
