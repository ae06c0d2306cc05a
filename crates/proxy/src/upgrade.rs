//! Connections that leave HTTP: WebSockets and their like.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use crate::body::{Body, Transit};
use crate::client::Client;
use crate::contain::contained;
use crate::timeouts::Timeouts;

/// A client's request to upgrade.
pub(crate) struct UpgradeRequest {
    pub(crate) protocol: HeaderValue,
    pub(crate) client: OnUpgrade,
}

impl UpgradeRequest {
    /// Takes the client's side of the connection to come.
    pub(crate) fn new(protocol: HeaderValue, request: &mut Request<Incoming>) -> Self {
        Self { protocol, client: hyper::upgrade::on(request) }
    }
}

/// Joins both sides once the instance has agreed. The place in the instance is held until either side ends, or the
/// clocks of the request cut both off.
pub(crate) fn join(
    client: &Client,
    upgrade: UpgradeRequest,
    mut response: Response<Incoming>,
    transit: Transit,
    timeouts: Timeouts,
) -> Response<Body> {
    let instance = hyper::upgrade::on(&mut response);
    let (live, metrics) = (client.live.clone(), client.thread.shared.metrics.clone());
    client.upgraded.store(true, Ordering::Relaxed);
    client.thread.counters().upgrades.count();
    tokio::task::spawn_local(async move {
        metrics.upgraded.enter();
        contained(&metrics, "an upgraded connection", until_over(upgrade.client, instance, timeouts)).await;
        metrics.upgraded.leave();
        drop((transit, live));
    });
    let (mut parts, _) = response.into_parts();
    let protocol = parts.headers.remove(header::UPGRADE).unwrap_or(upgrade.protocol);
    crate::headers::to_client(&mut parts.headers);
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    parts.headers.insert(header::UPGRADE, protocol);
    parts.status = StatusCode::SWITCHING_PROTOCOLS;
    Response::from_parts(parts, Body::empty())
}

async fn until_over(client: OnUpgrade, instance: OnUpgrade, timeouts: Timeouts) {
    let last_write = Cell::new(Instant::now());
    tokio::select! {
        joined = copy(client, instance, &last_write) => if let Err(error) = joined {
            tracing::debug!(%error, "upgraded connection ended");
        },
        () = run_out(timeouts, &last_write) => tracing::debug!("an upgraded connection's time is up"),
    }
}

async fn copy(
    client: OnUpgrade,
    instance: OnUpgrade,
    last_write: &Cell<Instant>,
) -> Result<(), Box<dyn std::error::Error>> {
    let (client, instance) = futures_util::future::try_join(client, instance).await?;
    let mut client = TokioIo::new(client);
    let mut instance = Watched { inner: TokioIo::new(instance), last_write };
    tokio::io::copy_bidirectional(&mut client, &mut instance).await?;
    Ok(())
}

/// Ends when the time of an exchange whose last write is noted in `last_write` is up.
async fn run_out(timeouts: Timeouts, last_write: &Cell<Instant>) {
    loop {
        let Some(deadline) = timeouts.after_write(|| last_write.get()) else { return std::future::pending().await };
        if deadline <= Instant::now() {
            return;
        }
        sleep_until(deadline).await;
    }
}

/// An instance's side, noting when it last said something.
struct Watched<'a> {
    inner: TokioIo<Upgraded>,
    last_write: &'a Cell<Instant>,
}

impl AsyncRead for Watched<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        self.last_write.set(Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
