//! Senders of events: each posts over a connection of its own, and waits for the answer before it posts again.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::figures::Spread;

/// Bytes of an event's data.
pub(crate) const SIZE: usize = 1024;
/// The type of every event.
pub(crate) const KIND: &str = "com.example.bench";

/// What is posted, but for the event's id.
#[derive(Clone)]
pub(crate) struct Post {
    host: String,
    path: String,
    /// Events of one request; of more than one a batch is made.
    pub(crate) events: usize,
    body: Bytes,
}

impl Post {
    /// A request of so many events of 1 KB: one in binary mode, or a batch.
    pub(crate) fn new(host: &str, path: &str, events: usize) -> Self {
        let data = "x".repeat(SIZE);
        let body = if events == 1 {
            data
        } else {
            let event = |id| json!({"specversion": "1.0", "id": id, "source": "/bench", "type": KIND, "data": data});
            serde_json::Value::from((0..events).map(|id| event(id.to_string())).collect::<Vec<_>>()).to_string()
        };
        Self { host: host.to_owned(), path: path.to_owned(), events, body: body.into() }
    }

    fn request(&self, id: &str) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let request = Request::post(&self.path).header("host", &self.host);
        let request = if self.events > 1 {
            request.header("content-type", "application/cloudevents-batch+json")
        } else {
            let request = request.header("ce-specversion", "1.0").header("ce-id", id).header("ce-source", "/bench");
            request.header("ce-type", KIND).header("content-type", "text/plain")
        };
        request.body(Full::new(self.body.clone()))
    }
}

/// One sender.
pub(crate) struct Sender {
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sender {
    /// Connects. Must be called inside a runtime.
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // How it ends shows in the requests.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, task })
    }

    /// Posts once, and waits until it is accepted.
    pub(crate) async fn post(&mut self, post: &Post, id: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.sender.ready().await?;
        let answer = self.sender.send_request(post.request(id)?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status != StatusCode::ACCEPTED {
            return Err(format!("{}: {status}: {}", post.path, String::from_utf8_lossy(&body).trim()).into());
        }
        Ok(())
    }
}

/// Has so many senders post for so long. Microseconds until each request was accepted.
pub(crate) async fn flood(
    address: SocketAddr,
    post: &Post,
    senders: usize,
    length: Duration,
) -> Result<Spread, Box<dyn Error>> {
    let until = Instant::now() + length;
    run(address, post, senders, move |_| Instant::now() < until).await
}

/// Has so many senders post `requests` times together. Microseconds until each request was accepted.
pub(crate) async fn send(
    address: SocketAddr,
    post: &Post,
    senders: usize,
    requests: usize,
) -> Result<Spread, Box<dyn Error>> {
    let each = requests.div_ceil(senders);
    run(address, post, senders, move |sent| sent < each).await
}

/// Each sender goes on while `goes_on` says so of how often it has posted.
async fn run(
    address: SocketAddr,
    post: &Post,
    senders: usize,
    goes_on: impl Fn(usize) -> bool + Clone + Send + 'static,
) -> Result<Spread, Box<dyn Error>> {
    let mut tasks = Vec::new();
    for number in 0..senders {
        let (mut sender, post, goes_on) =
            (Sender::connect(address).await.map_err(|error| error.to_string())?, post.clone(), goes_on.clone());
        tasks.push(tokio::spawn(async move {
            let mut waits = Vec::new();
            while goes_on(waits.len()) {
                let (asked, id) = (Instant::now(), format!("{number}-{}", waits.len()));
                sender.post(&post, &id).await.map_err(|error| error.to_string())?;
                waits.push(asked.elapsed().as_secs_f64() * 1e6);
            }
            Ok::<_, String>(waits)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(Spread::of(&all))
}
