//! Connections of senders: HTTP/1.1 and HTTP/2 on one port, their bounds, and their end.

use std::{convert::Infallible, future::Future, time::Duration};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::Ingress;
use crate::{Config, transport::Wire};

/// Header lines of a request: more than an event of as many extensions as it may have.
const MOST_HEADERS: usize = 512;
/// Requests at a time on one HTTP/2 connection.
const MOST_STREAMS: u32 = 250;
/// Most time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After a connection could not be accepted, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves senders that connect here over http, until `end`. Requests that began before are then answered within
/// [`Config::grace`], and what is left is cut off; when this is dropped, at once.
pub async fn serve(ingress: Ingress, listener: TcpListener, end: impl Future<Output = ()>) {
    connections(Connections { ingress, acceptor: None }, listener, end).await;
}

/// Serves senders that connect here over https, in the same way, and within the same bounds together with [`serve`]. They
/// are presented the certificates of the data plane's [`Transport`](crate::Transport); without one their handshakes fail.
pub async fn serve_tls(ingress: Ingress, listener: TcpListener, end: impl Future<Output = ()>) {
    let acceptor = Some(ingress.inner.transport.acceptor());
    connections(Connections { ingress, acceptor }, listener, end).await;
}

/// What every connection needs.
#[derive(Clone)]
struct Connections {
    ingress: Ingress,
    acceptor: Option<TlsAcceptor>,
}

async fn connections(all: Connections, listener: TcpListener, end: impl Future<Output = ()>) {
    let inner = &all.ingress.inner;
    let (graceful, builder) = (GracefulShutdown::new(), builder(&inner.config));
    let mut connections = JoinSet::new();
    let mut end = std::pin::pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut end => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept a sender's connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // One too many is closed at once, which its client sees before it has sent anything.
        let Ok(place) = inner.connections.clone().try_acquire_owned() else { continue };
        let (all, builder, watcher) = (all.clone(), builder.clone(), graceful.watcher());
        connections.spawn(async move {
            all.serve(stream, builder, watcher).await;
            drop(place);
        });
    }
    drop(listener);
    let left = tokio::time::timeout(inner.config.grace, graceful.shutdown()).await;
    if left.is_err() {
        tracing::warn!(connections = connections.len(), "senders are cut off after the grace period");
    }
}

fn builder(config: &Config) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_read_timeout)
        .max_buf_size(config.max_header_bytes)
        .max_headers(MOST_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(config.header_read_timeout));
    builder
}

impl Connections {
    async fn serve(self, stream: TcpStream, builder: auto::Builder<TokioExecutor>, watcher: Watcher) {
        let Self { ingress, acceptor } = self;
        let Some(acceptor) = acceptor else { return requests(ingress, Wire::Plain, stream, builder, watcher).await };
        match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => requests(ingress, Wire::Tls, stream, builder, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, "a sender's TLS handshake failed"),
            Err(_) => tracing::debug!("a sender's TLS handshake took too long"),
        }
    }
}

async fn requests(
    ingress: Ingress,
    wire: Wire,
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    builder: auto::Builder<TokioExecutor>,
    watcher: Watcher,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let ingress = ingress.clone();
        async move { Ok::<_, Infallible>(ingress.answer_by(wire, request).await) }
    });
    if let Err(error) = watcher.watch(builder.serve_connection(TokioIo::new(stream), service)).await {
        tracing::debug!(%error, "a sender's connection ended");
    }
}
