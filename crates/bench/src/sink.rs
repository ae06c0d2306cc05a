//! A subscriber in this process: what it is sent it tells of, and answers 202 when it is let.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

/// The machine's address for pods: events are sent to no other of its own.
const MACHINE: &str = "169.254.77.1";

/// Is told of the id of each event when it has arrived whole, and when that was; the answer is given once this is done.
pub(crate) type Takes = Arc<dyn Fn(String, Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Takes events until it is dropped.
pub(crate) struct Sink {
    address: SocketAddr,
    task: AbortHandle,
}

impl Sink {
    /// Listens. Must be called inside a runtime, which serves it.
    pub(crate) async fn start(takes: Takes) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind("0.0.0.0:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, takes)).abort_handle();
        Ok(Self { address, task })
    }

    /// Its URL as a subscriber.
    pub(crate) fn url(&self) -> String {
        format!("http://{MACHINE}:{}/", self.address.port())
    }

    /// Where this process reaches it.
    pub(crate) fn local(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.address.port()))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, takes: Takes) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let takes = takes.clone();
        connections.spawn(async move {
            stream.set_nodelay(true).ok();
            let service = service_fn(|request| answer(request, &takes));
            // A client that hangs up is how every run ends.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(request: Request<Incoming>, takes: &Takes) -> Result<Response<Full<Bytes>>, Infallible> {
    let id = request.headers().get("ce-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    // What broke off comes again.
    if request.into_body().collect().await.is_ok() {
        takes(id, Instant::now()).await;
    }
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::ACCEPTED;
    Ok(answer)
}
