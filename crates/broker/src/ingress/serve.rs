//! Connections of senders: HTTP/1.1 and HTTP/2 on one port, their bounds, and their end.

use std::{convert::Infallible, future::Future, sync::Arc};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

use super::Ingress;

/// Header lines of a request: more than an event of as many extensions as it may have.
const MOST_HEADERS: usize = 512;
/// Requests at a time on one HTTP/2 connection.
const MOST_STREAMS: u32 = 250;
/// After a connection could not be accepted, for want of descriptors.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Serves senders that connect here, until `end`. Requests that began before are then answered within
/// [`Config::grace`](crate::Config::grace), and what is left is cut off; when this is dropped, at once.
pub async fn serve(ingress: Ingress, listener: TcpListener, end: impl Future<Output = ()>) {
    let config = &ingress.inner.config;
    let (graceful, places) = (GracefulShutdown::new(), Arc::new(Semaphore::new(config.max_connections)));
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
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (builder, watcher, ingress) = (builder.clone(), graceful.watcher(), ingress.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let ingress = ingress.clone();
            async move { Ok::<_, Infallible>(ingress.answer(request).await) }
        });
        connections.spawn(async move {
            if let Err(error) = watcher.watch(builder.serve_connection(TokioIo::new(stream), service)).await {
                tracing::debug!(%error, "a sender's connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    let left = tokio::time::timeout(config.grace, graceful.shutdown()).await;
    if left.is_err() {
        tracing::warn!(connections = connections.len(), "senders are cut off after the grace period");
    }
}
