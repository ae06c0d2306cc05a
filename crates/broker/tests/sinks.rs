//! Sinks: events that become Jobs, and events that are written into the log.

mod world;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Once},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use knoll_api::{Resource, sinks};
use knoll_broker::{
    Authorize, Config, Denied, Hooks, Jobs, NoJob, Progress, Topology,
    delivery::{Delivery, Destination},
    serve,
    topology::{
        self, JobSink, LogSink, Subscription,
        access::{Access, Guard, Mode},
    },
};
use knoll_event::Event;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::yield_now,
};
use tracing::{Metadata, Subscriber, span};
use world::*;

type Runs = Result<(), Box<dyn std::error::Error>>;

/// By source and id of the event.
type JobsMade = BTreeMap<(String, String), (Event, Progress)>;

/// The Jobs there are; what the next one fails with.
#[derive(Clone, Default)]
struct Made {
    jobs: Arc<Mutex<JobsMade>>,
    fault: Arc<Mutex<Option<NoJob>>>,
}

impl Jobs for Made {
    fn make(&self, sink: Arc<sinks::JobSink>, event: Event) -> BoxFuture<'static, Result<(), NoJob>> {
        assert_eq!(sink.name(), "j");
        let made = self.clone();
        Box::pin(async move {
            if let Some(fault) = made.fault.lock().unwrap().take() {
                return Err(fault);
            }
            let name = (event.source().to_owned(), event.id().to_owned());
            made.jobs.lock().unwrap().entry(name).or_insert((event, Progress::Running));
            Ok(())
        })
    }

    fn progress(
        &self,
        _: Arc<sinks::JobSink>,
        source: String,
        id: String,
    ) -> BoxFuture<'static, Result<Progress, NoJob>> {
        let found = self.jobs.lock().unwrap().get(&(source, id)).map(|(_, progress)| *progress);
        let none = NoJob { status: StatusCode::INTERNAL_SERVER_ERROR, reason: "there is no Job".into() };
        Box::pin(async move { found.ok_or(none) })
    }
}

impl Made {
    fn ids(&self) -> Vec<String> {
        self.jobs.lock().unwrap().keys().map(|(_, id)| id.clone()).collect()
    }
}

/// Of something that not everybody may send to: whoever decides is asked.
fn guarded(namespace: Arc<str>) -> Guard {
    Guard::new(namespace).for_those_of(Access::Otherwise(Mode::DenyAll))
}

fn job_sink(topology: Topology) -> Topology {
    let object = json!({"metadata": {"namespace": "ns", "name": "j", "uid": "j-1"}, "spec": {"job": {}}});
    let object = Arc::new(serde_json::from_value(object).expect("a JobSink"));
    topology.with_job_sink(JobSink { object, guard: guarded("ns".into()).for_audience("jobs") })
}

fn log_sink(topology: Topology) -> Topology {
    log_sink_of(topology, "ns")
}

fn log_sink_of(topology: Topology, namespace: &str) -> Topology {
    let (namespace, log) = (namespace.into(), sinks::LogSink::default());
    let guard = guarded(Arc::clone(&namespace));
    topology.with_log_sink(LogSink { namespace, name: "l".into(), log, guard })
}

fn job_address() -> Uri {
    Topology::default().job_sink_address("ns", "j").expect("a URI")
}

fn log_address() -> Uri {
    log_address_of("ns")
}

fn log_address_of(namespace: &str) -> Uri {
    Topology::default().log_sink_address(namespace, "l").expect("a URI")
}

/// Where lines of every level are written to, and nobody reads them.
struct Unread;

impl Subscriber for Unread {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Has what this process logs written from now on.
fn log_is_written() {
    static IS_SET: Once = Once::new();
    IS_SET.call_once(|| tracing::subscriber::set_global_default(Unread).expect("nobody else set one"));
}

fn hooks(made: &Made) -> Hooks {
    Hooks { jobs: Some(Arc::new(made.clone())), ..Hooks::default() }
}

fn headers(id: &str) -> HeaderMap {
    let lines = [("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "/s"), ("ce-type", "t")];
    lines.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

/// A world whose senders connect to a socket.
struct Served {
    world: World,
    address: std::net::SocketAddr,
    end: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Served {
    async fn start(topology: Topology, hooks: Hooks) -> Self {
        Self::start_with(topology, hooks, Config::default()).await
    }

    async fn start_with(topology: Topology, hooks: Hooks, config: Config) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let world = World::start_with(directory.path(), topology, options(), config, hooks);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (end, ended) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve(world.plane.ingress(), listener, Box::pin(async { drop(ended.await) })));
        Self { world, address, end, serving, _directory: directory }
    }

    async fn ask(&self, method: Method, uri: &Uri, headers: HeaderMap, body: impl Into<Bytes>) -> Response<Bytes> {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let mut request =
            Request::builder().method(method).uri(target).body(Full::new(body.into())).expect("a request");
        *request.headers_mut() = headers;
        request.headers_mut().insert("host", uri.host().expect("a host").parse().expect("a value"));
        let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
        Response::from_parts(head, body.collect().await.expect("it is whole").to_bytes())
    }

    async fn post(&self, uri: &Uri, id: &str) -> Response<Bytes> {
        self.ask(Method::POST, uri, headers(id), "").await
    }

    async fn get(&self, path: &str) -> Response<Bytes> {
        let uri = format!("http://{}{path}", job_address().host().expect("a host"));
        self.ask(Method::GET, &uri.parse().expect("a URI"), HeaderMap::new(), "").await
    }

    async fn finish(self) {
        drop(self.end);
        self.serving.await.expect("it ends in good order");
        self.world.finish().await;
    }
}

fn header<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_becomes_a_job_whose_end_can_be_asked_for() -> Runs {
    let made = Made::default();
    let served = Served::start(job_sink(Topology::default()), hooks(&made)).await;
    let answer = served.post(&job_address(), "a/b").await;
    let at = "/namespaces/ns/name/j/sources/%2Fs/ids/a%2Fb";
    assert_eq!((answer.status(), header(&answer, "location")), (StatusCode::ACCEPTED, at));
    assert_eq!(served.post(&job_address(), "a/b").await.status(), StatusCode::ACCEPTED);
    assert_eq!(made.ids(), ["a/b"]);
    for (progress, status, reason, location) in [
        (Progress::Running, 202, "", at),
        (Progress::Complete, 200, "Complete", ""),
        (Progress::Failed, 400, "Failed", ""),
    ] {
        made.jobs.lock().unwrap().values_mut().for_each(|(_, now)| *now = progress);
        let answer = served.get(at).await;
        let said = (answer.status().as_u16(), header(&answer, "reason"), header(&answer, "location"));
        assert_eq!(said, (status, reason, location));
    }
    assert_eq!(served.get(&at.replace("a%2Fb", "c")).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(served.world.metric("broker_job_sink_events"), 2);
    served.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_sink_does_not_take_is_refused_as_upstream_does() -> Runs {
    let made = Made::default();
    let served = Served::start(job_sink(Topology::default()), hooks(&made)).await;
    let at = |path: &str| format!("http://{}{path}", job_address().host().expect("a host")).parse::<Uri>();
    for path in ["/ns/other", "/other/j", "/ns", "/", "/ns/j/x"] {
        assert_eq!(served.post(&at(path)?, "1").await.status(), StatusCode::BAD_REQUEST, "{path}");
    }
    for method in [Method::OPTIONS, Method::PUT, Method::DELETE] {
        let answer = served.ask(method.clone(), &job_address(), HeaderMap::new(), "").await;
        assert_eq!((answer.status().as_u16(), header(&answer, "allow")), (400, "GET, POST"), "{method}");
    }
    assert_eq!(served.ask(Method::POST, &job_address(), HeaderMap::new(), "no event").await.status().as_u16(), 400);
    let two = event_json_batch();
    let batch = HeaderMap::from_iter([("content-type".parse()?, "application/cloudevents-batch+json".parse()?)]);
    let answer = served.ask(Method::POST, &job_address(), batch, two).await;
    assert_eq!(answer.status().as_u16(), 400, "{answer:?}");
    assert_eq!(served.get("/namespaces/ns/name/other/sources/s/ids/1").await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(served.get("/ns/j").await.status(), StatusCode::BAD_REQUEST);
    assert!(made.ids().is_empty());
    for (status, reason, retry) in [(500, "no quota", ""), (503, "", "1")] {
        *made.fault.lock().unwrap() = Some(NoJob { status: StatusCode::from_u16(status)?, reason: reason.into() });
        let answer = served.post(&job_address(), "1").await;
        let said = (answer.status().as_u16(), header(&answer, "reason"), header(&answer, "retry-after"));
        assert_eq!(said, (status, reason, retry));
    }
    assert_eq!(served.world.metric("broker_job_sink_events"), 0);
    served.world.change(|topology| topology.without_job_sink("ns", "j"));
    assert_eq!(served.post(&job_address(), "1").await.status(), StatusCode::BAD_REQUEST);
    served.finish().await;
    Ok(())
}

fn event_json_batch() -> &'static str {
    r#"[{"specversion":"1.0","id":"1","source":"/s","type":"t"},{"specversion":"1.0","id":"2","source":"/s","type":"t"}]"#
}

/// Lets in whoever says `good`, and lets `asker` ask.
fn authorize() -> Authorize {
    Arc::new(|guard, headers, events| {
        let status = match headers.get("authorization").map(|token| token.as_bytes()) {
            None => Some(StatusCode::UNAUTHORIZED),
            Some(b"Bearer asker") if events.is_empty() => None,
            Some(b"Bearer good") => None,
            Some(_) => Some(StatusCode::FORBIDDEN),
        };
        let reason = format!("{:?} {}", guard.audience(), guard.namespace());
        Box::pin(async move { status.map_or(Ok(()), |status| Err(Denied { status, reason })) })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_send_to_a_sink_may_not_ask_either() -> Runs {
    let made = Made::default();
    let hooks = Hooks { authorize: Some(authorize()), ..hooks(&made) };
    let served = Served::start(log_sink(job_sink(Topology::default())), hooks).await;
    let location: Uri =
        format!("http://{}/namespaces/ns/name/j/sources/%2Fs/ids/1", job_address().host().unwrap()).parse()?;
    for (token, post, get) in [
        (None, 401, 401),
        (Some("Bearer bad"), 403, 403),
        (Some("Bearer good"), 202, 202),
        (Some("Bearer asker"), 403, 202),
    ] {
        let mut headers = headers("1");
        headers.extend(token.map(|token| (http::header::AUTHORIZATION, token.parse().expect("a value"))));
        let posted = served.ask(Method::POST, &job_address(), headers.clone(), "").await;
        assert_eq!(posted.status().as_u16(), post, "{token:?}");
        if post == 401 {
            assert_eq!(&posted.body()[..], b"Some(\"jobs\") ns\n");
        }
        let logged = served.ask(Method::POST, &log_address(), headers.clone(), "").await.status().as_u16();
        assert_eq!(logged, if post == 202 { 204 } else { post }, "{token:?}");
        assert_eq!(served.ask(Method::GET, &location, headers, "").await.status().as_u16(), get, "{token:?}");
    }
    assert_eq!((made.ids(), served.world.metric("broker_log_sink_events")), (vec!["1".to_owned()], 1));
    served.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_delivers_to_sinks_and_again_until_there_is_a_job() -> Runs {
    let made = Made::default();
    *made.fault.lock().unwrap() = Some(NoJob { status: StatusCode::SERVICE_UNAVAILABLE, reason: "not now".into() });
    let to = |name: &str, uri: Uri| {
        let delivery = Some(retries(3, 5));
        Subscription {
            delivery,
            ..Subscription::new("ns", name, name, topology::Subscriber::At(Destination::new(uri)))
        }
    };
    let all = vec![to("job", job_address()), to("log", log_address())];
    let topology = log_sink(job_sink(with(Topology::default(), &broker("b"), all)));
    let served = Served::start(topology, hooks(&made)).await;
    served.world.ready(&["job", "log"]).await;
    served.world.number(&broker("b"), 1, "t").await;
    until("the Job is made", || made.ids() == ["1"]).await;
    until("it is logged", || served.world.metric("broker_log_sink_events") == 1).await;
    assert_eq!(served.world.metric("broker_attempts_failed"), 1);
    // What a broker counts by is none of the event's.
    let (event, _) = made.jobs.lock().unwrap().values().next().expect("one").clone();
    assert_eq!(text(&event, "knativebrokerttl"), None);
    assert_eq!(served.world.plane.dead_letter_count(&broker("b")), 0);
    served.finish().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_a_message_is_logged_and_a_service_of_such_a_name_is_left_alone() -> Runs {
    let served = Served::start(log_sink(Topology::default()), Hooks::default()).await;
    assert_eq!(served.post(&log_address(), "1").await.status(), StatusCode::NO_CONTENT);
    let batch = HeaderMap::from_iter([("content-type".parse()?, "application/cloudevents-batch+json".parse()?)]);
    let answer = served.ask(Method::POST, &log_address(), batch, event_json_batch()).await;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert_eq!(served.world.metric("broker_log_sink_events"), 3);
    let path: Uri = format!("{}x", log_address()).parse()?;
    assert_eq!(served.post(&path, "1").await.status(), StatusCode::BAD_REQUEST);
    let other = Topology::default().log_sink_address("ns", "m").expect("a URI");
    assert_eq!(served.post(&other, "1").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(served.ask(Method::GET, &log_address(), HeaderMap::new(), "").await.status().as_u16(), 405);
    served.finish().await;
    Ok(())
}

/// Jobs that are never made.
struct Hangs;

impl Jobs for Hangs {
    fn make(&self, _: Arc<sinks::JobSink>, _: Event) -> BoxFuture<'static, Result<(), NoJob>> {
        Box::pin(std::future::pending())
    }

    fn progress(&self, _: Arc<sinks::JobSink>, _: String, _: String) -> BoxFuture<'static, Result<Progress, NoJob>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_has_as_much_time_as_a_delivery_says_or_as_attempts_have() -> Runs {
    let short = std::time::Duration::from_millis(50);
    for (timeout, config) in
        [(Some(short), Config::default()), (None, Config { attempt_timeout: short, ..Config::default() })]
    {
        // One makes no Job, and the other is not told who may send.
        let hooks = Hooks {
            jobs: Some(Arc::new(Hangs)),
            authorize: Some(Arc::new(|guard, _, _| {
                let hangs = guard.audience().is_none();
                Box::pin(async move { if hangs { std::future::pending().await } else { Ok(()) } })
            })),
            ..Hooks::default()
        };
        let to = |name: &str, uri: Uri| {
            let delivery = Some(Delivery { timeout, ..retries(0, 0) });
            let at = topology::Subscriber::At(Destination::new(uri));
            Subscription { delivery, ..Subscription::new("ns", name, name, at) }
        };
        let all = vec![to("job", job_address()), to("log", log_address())];
        let topology = log_sink(job_sink(with(Topology::default(), &broker("b"), all)));
        let served = Served::start_with(topology, hooks, config).await;
        served.world.ready(&["job", "log"]).await;
        served.world.number(&broker("b"), 1, "t").await;
        until("both are dead letters", || served.world.plane.dead_letter_count(&broker("b")) == 2).await;
        for letter in served.world.plane.dead_letters(&broker("b"), 0, 9).await?.letters {
            assert_eq!(text(&letter.event, "knativeerrorcode").as_deref(), Some("500"), "{letter:?}");
        }
        served.finish().await;
    }
    Ok(())
}

/// A message of so many events with so many bytes of data each.
fn batch(events: usize, bytes: usize) -> (HeaderMap, String) {
    let event = |id| json!({"specversion": "1.0", "id": format!("{id}"), "source": "/s", "type": "t", "data": "x".repeat(bytes)});
    let kind =
        ("content-type".parse().expect("a name"), "application/cloudevents-batch+json".parse().expect("a value"));
    (HeaderMap::from_iter([kind]), json!((0..events).map(event).collect::<Vec<_>>()).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_writes_its_part_into_the_log_and_others_theirs() -> Runs {
    log_is_written();
    let delivery = Some(retries(0, 0));
    let to_log = Subscription {
        delivery,
        ..Subscription::new("ns", "t", "t", topology::Subscriber::At(Destination::new(log_address())))
    };
    let topology = with(log_sink_of(log_sink(Topology::default()), "other"), &broker("b"), vec![to_log]);
    let config = Config { max_log_bytes: 40_000, parts: 4, ..Config::default() };
    let served = Served::start_with(topology, Hooks::default(), config).await;
    served.world.ready(&["t"]).await;
    let log = async |namespace: &str, events: usize| {
        let (headers, body) = batch(events, 2000);
        served.ask(Method::POST, &log_address_of(namespace), headers, body).await
    };
    let mut taken = 0;
    let refused = loop {
        let answer = log("ns", 1).await;
        if answer.status() != StatusCode::NO_CONTENT {
            break answer;
        }
        taken += 1;
        assert!(taken < 20, "there is no end to it");
    };
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (503, "1"));
    let why = String::from_utf8(refused.body().to_vec())?;
    assert!(why.starts_with("IntegrationSinks of ns have written as much as they may into the log: send"), "{why}");
    assert!(taken >= 4, "{taken}");
    assert_eq!(log("other", 3).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(log("other", 10).await.status(), StatusCode::PAYLOAD_TOO_LARGE, "whatever there is room for");
    // What is delivered waits, and uses none of its retries.
    let (_, body) = batch(1, 2000);
    let mut event = Event::new("1", "/s", "t")?;
    event.set_data("text/plain", body)?;
    assert_eq!(served.world.send(&broker("b"), &event).await, StatusCode::ACCEPTED);
    until("it waits", || served.world.metric("broker_deliveries_held_back") > 0).await;
    assert_eq!(served.world.plane.dead_letter_count(&broker("b")), 0);
    assert_eq!(served.world.metric("broker_log_sink_events"), taken + 3);
    assert!(served.world.metric("broker_log_sink_over_part") >= 2);
    drop(served.end);
    served.serving.await?;
    served.world.kill().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_large_message_is_written_others_have_the_thread() -> Runs {
    log_is_written();
    let directory = tempfile::tempdir()?;
    let config = Config { max_log_bytes: 8 << 20, parts: 1, ..Config::default() };
    let topology = log_sink(Topology::default());
    let world = World::start_with(directory.path(), topology, options(), config, Hooks::default());
    let (headers, body) = batch(500, 2000);
    let mut request = Request::post(log_address()).body(Full::new(Bytes::from(body)))?;
    *request.headers_mut() = headers;
    let mut turns = 0;
    let answer = {
        let ingress = world.plane.ingress();
        let mut answering = std::pin::pin!(ingress.answer(request));
        loop {
            tokio::select! {
                biased;
                answer = &mut answering => break answer,
                () = yield_now() => turns += 1,
            }
        }
    };
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert!(turns > 8, "{turns} turns for a megabyte");
    world.finish().await;
    Ok(())
}
