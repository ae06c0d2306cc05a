//! A gateway on loopback with instances behind it, and clients in front.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use knoll_api::Key;
use knoll_api::table::{Backend, Host, Instance, Path, Protocol, RevisionPolicy, RoutingTable, Split};
use knoll_proxy::{Config, Feeds, Gateway, Visibility};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Fails the test when `future` takes too long.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("took too long")
}

/// Waits until `state` holds.
pub async fn until(mut state: impl FnMut() -> bool) {
    soon(async {
        while !state() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

pub fn empty() -> Body {
    Empty::new().boxed_unsync()
}

/// A body of frames that come when they come.
pub fn frames<S>(frames: S) -> Body
where
    S: futures_util::Stream<Item = Result<http_body::Frame<Bytes>, Infallible>> + Send + 'static,
{
    BodyExt::boxed_unsync(http_body_util::StreamBody::new(frames))
}

/// An instance that answers with `answer`, HTTP/1.1 and HTTP/2. Lives until the test ends.
pub async fn instance<F, A>(answer: F) -> Instance
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let answer = answer.clone();
                    async move { Ok::<_, Infallible>(answer(request).await) }
                });
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                drop(builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await);
            });
        }
    });
    Instance { address, pod: format!("pod-{}", address.port()) }
}

/// An instance that says `text`.
pub async fn saying(text: &'static str) -> Instance {
    instance(move |_| async move { Response::new(full(text)) }).await
}

/// An instance whose sockets are handled by `handle`.
pub async fn raw_instance<F, A>(handle: F) -> Instance
where
    F: Fn(TcpStream) -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(stream));
        }
    });
    Instance { address, pod: format!("pod-{}", address.port()) }
}

/// Reads one request's head from a socket; `None` at its end.
pub async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// An address nobody listens at.
pub async fn nobody() -> Instance {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("address");
    Instance { address, pod: "nobody".into() }
}

/// A revision to put into a table.
#[derive(Clone)]
pub struct Revision {
    pub name: &'static str,
    pub limit: u32,
    pub protocol: Protocol,
    pub timeout: Duration,
    pub response_start: Option<Duration>,
    pub idle: Option<Duration>,
    pub failure: Option<String>,
    pub instances: Vec<Instance>,
}

pub fn revision(name: &'static str, instances: &[Instance]) -> Revision {
    Revision {
        name,
        limit: 0,
        protocol: Protocol::Http1,
        timeout: Duration::from_secs(300),
        response_start: None,
        idle: None,
        failure: None,
        instances: instances.to_vec(),
    }
}

pub fn key(name: &str) -> Key {
    Key::new("ns", name)
}

impl Revision {
    pub fn backend(self) -> Arc<Backend> {
        let mut instances = self.instances;
        instances.sort();
        Arc::new(Backend {
            protocol: self.protocol,
            revision: Some(Arc::new(RevisionPolicy {
                revision: key(self.name),
                uid: format!("uid-{}", self.name),
                service: "hello".into(),
                configuration: "hello".into(),
                container_concurrency: self.limit,
                timeout: self.timeout,
                response_start_timeout: self.response_start,
                idle_timeout: self.idle,
            })),
            instances,
            failure: self.failure,
        })
    }
}

/// A host that sends shares to revisions.
pub fn host(splits: &[(&str, u32)]) -> Arc<Host> {
    let splits = splits
        .iter()
        .map(|&(name, percent)| Split { percent, service: key(name), append_headers: Vec::new() })
        .collect();
    Arc::new(Host { redirect_to_https: false, paths: vec![Path { prefix: "/".into(), splits, ..Path::default() }] })
}

/// A table with `hello.test` outside, leading to the first revision.
pub fn table(revisions: Vec<Revision>) -> RoutingTable {
    let first = revisions.first().map(|revision| revision.name).unwrap_or_default();
    RoutingTable {
        external: [("hello.test".to_owned(), host(&[(first, 100)]))].into_iter().collect(),
        local: Default::default(),
        backends: revisions.into_iter().map(|revision| (key(revision.name), revision.backend())).collect(),
    }
}

/// A running gateway.
pub struct World {
    pub gateway: Gateway,
    pub feeds: Feeds,
    pub tables: watch::Sender<Option<Arc<RoutingTable>>>,
    pub external: SocketAddr,
    pub local: SocketAddr,
}

pub fn config() -> Config {
    Config { threads: 2, stats_period: Duration::from_millis(100), ..Config::default() }
}

pub fn world(table: RoutingTable) -> World {
    world_with(config(), table)
}

pub fn world_with(config: Config, table: RoutingTable) -> World {
    begin(config, Some(table))
}

/// A gateway that has its first table, or waits for it.
pub fn begin(config: Config, table: Option<RoutingTable>) -> World {
    let (tables, receiver) = watch::channel(table.map(Arc::new));
    let (gateway, feeds) = Gateway::new(config, receiver).expect("gateway starts");
    let listen = |side| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("address");
        gateway.serve(listener, side).expect("gateway listens");
        address
    };
    let (external, local) = (listen(Visibility::External), listen(Visibility::ClusterLocal));
    World { gateway, feeds, tables, external, local }
}

impl World {
    /// Publishes a table and waits until it is in force.
    pub async fn publish(&self, table: RoutingTable) {
        let table = Arc::new(table);
        let mut applied = self.gateway.applied();
        self.tables.send_replace(Some(table.clone()));
        soon(applied.wait_for(|seen| seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &table))))
            .await
            .expect("gateway lives");
    }

    /// A connection to the outside of the gateway.
    pub async fn http1(&self) -> Client1 {
        Client1::open(self.external).await
    }

    /// `GET /` over a connection of its own.
    pub async fn get(&self) -> Answer {
        self.http1().await.get("/").await
    }
}

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = soon(body.collect()).await.expect("body is whole");
        let trailers = body.trailers().cloned();
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        Self { status: parts.status, headers: parts.headers, body, trailers }
    }
}

pub fn request(path: &str) -> Request<Body> {
    Request::builder().uri(path).header("host", "hello.test").body(empty()).expect("request")
}

/// An HTTP/1.1 client connection.
pub struct Client1(pub hyper::client::conn::http1::SendRequest<Body>);

impl Client1 {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("gateway listens");
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("handshake");
        tokio::spawn(connection.with_upgrades());
        Self(sender)
    }

    pub async fn send(&mut self, request: Request<Body>) -> Response<Incoming> {
        soon(self.0.ready()).await.expect("connection lives");
        soon(self.0.send_request(request)).await.expect("an answer")
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        Answer::read(self.send(request(path)).await).await
    }
}

/// An HTTP/2 client connection with prior knowledge.
pub async fn http2(address: SocketAddr) -> hyper::client::conn::http2::SendRequest<Body> {
    let stream = TcpStream::connect(address).await.expect("gateway listens");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("handshake");
    tokio::spawn(connection);
    sender
}

/// Writes `request` to a socket and reads until it is closed.
pub async fn talk(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("gateway listens");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.expect("read");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A number of the gateway about itself; of several with one name, the one with this label's value.
pub fn number(gateway: &Gateway, name: &str, label: Option<&str>) -> f64 {
    let metric = gateway.metrics().into_iter().find(|metric| metric.name == name).expect("a metric of that name");
    let wanted = |labels: &[(&str, String)]| label.is_none_or(|wanted| labels.iter().any(|(_, of)| of == wanted));
    metric.samples.iter().find(|sample| wanted(&sample.labels)).expect("a sample with that label").value
}
