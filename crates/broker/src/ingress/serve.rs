//! Connections of senders: HTTP/1.1 and HTTP/2 on one port, their bounds, and their end.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use knoll_bounds::{Lingering, Patient, network};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Ingress,
    activity::{Activity, Answering, Patience, Written},
};
use crate::{Config, transport::Wire};

/// Header lines of a request: more than an event of as many extensions as it may have.
const MOST_HEADERS: usize = 512;
/// Requests at a time on one HTTP/2 connection.
const MOST_STREAMS: u32 = 250;
/// Most time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After a connection could not be accepted, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a connection on which nothing goes on may take to end in good order.
const LEAVE: Duration = Duration::from_secs(5);

/// Who sends a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    /// An address, of those that share one, whoever they are.
    Address(IpAddr),
    /// A namespace for which this process sends: all that it sends comes from one address.
    Namespace(Arc<str>),
}

impl Peer {
    /// Whoever hands over requests without a connection.
    pub(super) const NOBODY: Self = Self::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

    fn of(address: IpAddr) -> Self {
        Self::Address(network(address))
    }
}

/// Serves senders that connect here over http, until `end`. Requests that began before are then answered within
/// [`Config::grace`], and what is left is cut off; when this is dropped, at once.
//
// Boxed on both sides, or all that a request passes through would be made anew where this is called, as little optimized as
// that is.
pub fn serve(ingress: Ingress, listener: TcpListener, end: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
    Box::pin(connections(Connections { ingress, acceptor: None }, listener, end))
}

/// Serves senders that connect here over https, in the same way, and within the same bounds together with [`serve`]. They
/// are presented the certificates of the data plane's [`Transport`](crate::Transport); without one their handshakes fail.
pub fn serve_tls(ingress: Ingress, listener: TcpListener, end: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
    let acceptor = Some(ingress.inner.transport.acceptor());
    Box::pin(connections(Connections { ingress, acceptor }, listener, end))
}

/// What every connection needs.
#[derive(Clone)]
struct Connections {
    ingress: Ingress,
    acceptor: Option<TlsAcceptor>,
}

async fn connections(all: Connections, listener: TcpListener, mut end: BoxFuture<'static, ()>) {
    let inner = &all.ingress.inner;
    let (ending, builder) = (watch::Sender::new(false), builder(&inner.config));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut end => break,
        };
        let (stream, peer) = match accepted {
            Ok((stream, address)) => (stream, Peer::of(address.ip())),
            Err(error) => {
                tracing::warn!(%error, "accept a sender's connection");
                sleep(PAUSE).await;
                continue;
            }
        };
        // One too many is closed at once, which its client sees before it has sent anything.
        let Some(place) = inner.connections.take(peer.clone()) else { continue };
        let (all, builder, ending) = (all.clone(), builder.clone(), ending.subscribe());
        connections.spawn(async move {
            all.serve(builder, stream, peer, ending).await;
            drop(place);
        });
    }
    drop(listener);
    ending.send_replace(true);
    let left = async { while connections.join_next().await.is_some() {} };
    if timeout(inner.config.grace, left).await.is_err() {
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
    /// Serves one connection, which is secured first where it has to be.
    async fn serve(
        self,
        builder: auto::Builder<TokioExecutor>,
        stream: TcpStream,
        peer: Peer,
        ending: watch::Receiver<bool>,
    ) {
        let Self { ingress, acceptor } = self;
        let stream = Lingering::new(stream);
        let Some(acceptor) = acceptor else {
            return requests(ingress, Wire::Plain, builder, stream, peer, ending).await;
        };
        match timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => requests(ingress, Wire::Tls, builder, stream, peer, ending).await,
            Ok(Err(error)) => tracing::debug!(%error, "a sender's TLS handshake failed"),
            Err(_) => tracing::debug!("a sender's TLS handshake took too long"),
        }
    }
}

/// Answers the requests of one connection until its client ends it, nothing goes on on it for too long, or all end.
async fn requests(
    ingress: Ingress,
    wire: Wire,
    builder: auto::Builder<TokioExecutor>,
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    peer: Peer,
    mut ending: watch::Receiver<bool>,
) {
    let config = &ingress.inner.config;
    let patience = Patience { idle: config.header_read_timeout, writing: config.body_read_timeout };
    // Of the two that see that nothing is read, the one that closes the connection comes first: after a write that failed, the
    // other side may still be listened to.
    let (activity, stream) = (Activity::begin(), TokioIo::new(Patient::new(stream, patience.writing + LEAVE)));
    let service = service_fn(|mut request: Request<Incoming>| {
        let (ingress, answering, peer) = (ingress.clone(), activity.answer(), peer.clone());
        async move {
            request.extensions_mut().insert(peer);
            Ok::<_, Infallible>(written(ingress.answer_by(wire, request).await, answering).await)
        }
    });
    let mut serving = pin!(builder.serve_connection(stream, service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = activity.over(patience) => {
            serving.as_mut().graceful_shutdown();
            timeout(LEAVE, serving.as_mut()).await.unwrap_or_else(|_| Err("it does nothing for too long".into()))
        }
        () = ended(&mut ending) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a sender's connection ended");
    }
}

/// Waits for the end of all.
async fn ended(ending: &mut watch::Receiver<bool>) {
    // When nobody says it any more, all are dropped, this among them.
    drop(ending.wait_for(|ending| *ending).await);
}

/// An answer as it is written to its connection.
async fn written(answer: Response<Full<Bytes>>, answering: Answering) -> Response<Written> {
    let (head, body) = answer.into_parts();
    // It is whole already.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_else(|never| match never {});
    Response::from_parts(head, answering.write(body))
}
