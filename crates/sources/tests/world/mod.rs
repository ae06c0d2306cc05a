//! Sources that run, and sinks on loopback.

#![allow(dead_code, reason = "each file of tests uses a part of it")]

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use knoll_api::Kind;
use knoll_broker::{Sender, Tokens, delivery::Destination};
use knoll_event::{Event, mode};
use knoll_sources::{Adapters, Clock, Config, Hooks, Id, Source, Sources};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};

/// What a sink saw of one request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) headers: HeaderMap,
    pub(crate) event: Event,
}

impl Seen {
    pub(crate) fn attribute(&self, name: &str) -> String {
        self.event.attribute(name).map(|value| value.into_text().into_owned()).unwrap_or_default()
    }

    pub(crate) fn data(&self) -> String {
        let data = self.event.data().map(|data| data.bytes().to_vec()).unwrap_or_default();
        String::from_utf8(data).expect("text")
    }
}

type Script = Arc<dyn Fn(usize) -> Option<u16> + Send + Sync>;

/// Sinks, told apart by their paths.
#[derive(Clone)]
pub(crate) struct Sinks {
    address: SocketAddr,
    seen: Arc<Mutex<HashMap<String, Vec<Seen>>>>,
    scripts: Arc<Mutex<HashMap<String, Script>>>,
}

impl Sinks {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let sinks = Self { address, seen: Arc::default(), scripts: Arc::default() };
        let serving = sinks.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let sinks = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| sinks.clone().answer(request));
                    // Clients break connections off.
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        sinks
    }

    pub(crate) fn uri(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// What `name` answers, by how often it was asked before; nothing at all, for ever, where it says nothing.
    pub(crate) fn on(&self, name: &str, script: impl Fn(usize) -> Option<u16> + Send + Sync + 'static) {
        self.scripts.lock().unwrap().insert(name.to_owned(), Arc::new(script));
    }

    pub(crate) fn seen(&self, name: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().get(name).cloned().unwrap_or_default()
    }

    pub(crate) async fn wait(&self, name: &str, count: usize) -> Vec<Seen> {
        until(&format!("{count} at {name}"), || self.seen(name).len() >= count).await;
        self.seen(name)
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, &'static str> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| "the body broke off")?.to_bytes();
        let event = mode::read(&head.headers, body).map_err(|_| "no event was sent")?;
        let name = head.uri.path().trim_matches('/').to_owned();
        let before = {
            let mut all = self.seen.lock().unwrap();
            let seen = all.entry(name.clone()).or_default();
            seen.push(Seen { headers: head.headers, event });
            seen.len() - 1
        };
        let script = self.scripts.lock().unwrap().get(&name).cloned();
        let status = script.map_or(Some(202), |script| script(before));
        let Some(status) = status else { return std::future::pending().await };
        let mut response = Response::new(Empty::new());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok(response)
    }
}

/// Waits until something holds; real time counts, whatever the clock of the test does.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < end, "waited for {what}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// A wall clock that the test sets, and that runs as the test's time does.
#[derive(Clone)]
pub(crate) struct Wall {
    begun: Instant,
    at: Arc<Mutex<Timestamp>>,
    pub(crate) looks: Arc<AtomicU64>,
}

impl Wall {
    pub(crate) fn at(time: &str) -> Self {
        let at = Arc::new(Mutex::new(time.parse().expect("a time")));
        Self { begun: Instant::now(), at, looks: Arc::default() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        *self.at.lock().unwrap() + self.begun.elapsed()
    }

    /// Sets it by so many seconds.
    pub(crate) fn set(&self, seconds: i64) {
        *self.at.lock().unwrap() += SignedDuration::from_secs(seconds);
    }

    pub(crate) fn clock(&self) -> Clock {
        let wall = self.clone();
        Arc::new(move || {
            wall.looks.fetch_add(1, Relaxed);
            wall.now()
        })
    }
}

pub(crate) fn config() -> Config {
    Config { jitter: Duration::ZERO, ..Config::default() }
}

pub(crate) fn sender(tokens: Option<Tokens>) -> Sender {
    Sender::new(&knoll_broker::Config::default(), knoll_broker::Hooks { tokens, ..knoll_broker::Hooks::default() })
}

/// Sources that run.
pub(crate) struct World {
    pub(crate) adapters: Adapters,
    pub(crate) sources: watch::Sender<Option<Sources>>,
    running: JoinHandle<()>,
    end: Option<oneshot::Sender<()>>,
}

impl World {
    pub(crate) fn start(sources: Sources, config: Config, hooks: Hooks) -> Self {
        Self::start_with(sources, config, hooks, None)
    }

    pub(crate) fn start_with(sources: Sources, config: Config, hooks: Hooks, tokens: Option<Tokens>) -> Self {
        let sources = watch::Sender::new(Some(sources));
        let adapters = Adapters::new(sources.subscribe(), sender(tokens), config, hooks).expect("settings");
        let (end, ended) = oneshot::channel::<()>();
        let running = adapters.clone();
        let running = tokio::spawn(async move { running.run(async { drop(ended.await) }).await });
        Self { adapters, sources, running, end: Some(end) }
    }

    /// Runs as this wall clock says.
    pub(crate) fn by(wall: &Wall, sources: Sources) -> Self {
        Self::start(sources, config(), Hooks { clock: wall.clock(), clients: None })
    }

    pub(crate) fn change(&self, change: impl FnOnce(Sources) -> Sources) {
        self.sources.send_modify(|sources| *sources = sources.take().map(change));
    }

    /// The newest generation of a source that is carried out, or why it is not; nothing before either is known.
    pub(crate) fn carried(&self, id: &Id) -> Option<Result<i64, String>> {
        let applied = self.adapters.applied();
        let applied = applied.borrow();
        let carrying = applied.get(id)?;
        Some(match &carrying.problem {
            None => Ok(carrying.generation),
            Some(why) => Err(why.to_string()),
        })
    }

    /// The sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let family = self.adapters.metrics().into_iter().find(|family| family.name == name);
        let family = family.unwrap_or_else(|| panic!("no metric {name}"));
        family.samples.iter().map(|sample| sample.value as u64).sum()
    }

    /// Ends in good order.
    pub(crate) async fn finish(mut self) {
        drop(self.end.take());
        (&mut self.running).await.expect("no panic");
    }

    /// Ends at once.
    pub(crate) async fn kill(mut self) {
        self.running.abort();
        drop((&mut self.running).await);
    }
}

pub(crate) fn id(kind: Kind, name: &str) -> Id {
    Id::new(kind, "ns", name)
}

fn object(name: &str, sink: &str, mut spec: Value) -> Value {
    spec["sink"] = json!({"uri": sink});
    json!({"metadata": {"namespace": "ns", "name": name, "uid": format!("uid-{name}")}, "spec": spec,
        "status": {"observedGeneration": 1, "sinkUri": sink}})
}

/// A PingSource that sends to the sink of its name.
pub(crate) fn ping(sinks: &Sinks, name: &str, spec: Value) -> Source {
    let object = object(name, &sinks.uri(name), spec);
    Source::of_ping(&serde_json::from_value(object).expect("a PingSource")).expect("it has a sink")
}

/// An IntegrationSource with this timer that sends to the sink of its name.
pub(crate) fn timer(sinks: &Sinks, name: &str, timer: Value) -> Source {
    let object = object(name, &sinks.uri(name), json!({"timer": timer}));
    Source::of_timer(&serde_json::from_value(object).expect("an IntegrationSource")).expect("it has a sink")
}

/// An ApiServerSource that watches these namespaces, and sends to the sink of its name.
pub(crate) fn api_server(sinks: &Sinks, name: &str, namespaces: &[&str], spec: Value) -> Source {
    let mut object = object(name, &sinks.uri(name), spec);
    object["status"]["namespaces"] = json!(namespaces);
    let object = serde_json::from_value(object).expect("an ApiServerSource");
    Source::of_api_server(&object, None, "https://10.96.0.1:443").expect("it has a sink")
}

/// The same at another generation.
pub(crate) fn at_generation(mut source: Source, generation: i64) -> Source {
    source.generation = generation;
    source
}

/// The same with a sink that wants a token for this audience.
pub(crate) fn for_audience(mut source: Source, audience: &str) -> Source {
    source.sink = Destination { audience: Some(audience.into()), ..source.sink };
    source.service_account = Some("sa".into());
    source
}
