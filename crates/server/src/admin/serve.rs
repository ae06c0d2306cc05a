//! The endpoint's sockets.

use std::{convert::Infallible, io, net, os::unix, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use knoll_apiserver::auth::user_of_certificate;
use knoll_bounds::Lingering;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Admin,
    answer::{self, Caller},
};

/// Connections at a time on one socket: those who scrape and look are few. More wait in the socket's own queue.
const CONNECTIONS: usize = 32;
/// Longest life of a connection, whatever it does: a slow one must not keep its place.
const LIFE: Duration = Duration::from_secs(30);
/// Pause after a connection could not be accepted: others must close first.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves both sockets until the process ends.
pub(super) async fn run(
    admin: Arc<Admin>,
    local: unix::net::UnixListener,
    outside: Option<(net::TcpListener, Arc<rustls::ServerConfig>)>,
) {
    let local = serve_local(admin.clone(), local);
    let outside = async {
        match outside {
            Some((listener, tls)) => serve_outside(admin, listener, tls).await,
            None => Ok(()),
        }
    };
    let (local, outside) = tokio::join!(local, outside);
    for error in [local.err(), outside.err()].into_iter().flatten() {
        tracing::error!(%error, "the admin endpoint");
    }
}

async fn serve_local(admin: Arc<Admin>, listener: unix::net::UnixListener) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned().await.expect("never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(admin.clone(), stream, Caller::Root, place));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn serve_outside(
    admin: Arc<Admin>,
    listener: net::TcpListener,
    tls: Arc<rustls::ServerConfig>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned().await.expect("never closed");
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (admin, acceptor) = (admin.clone(), acceptor.clone());
        tokio::spawn(async move {
            let Ok(Ok(stream)) = tokio::time::timeout(LIFE, acceptor.accept(stream)).await else { return };
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let caller = Caller::Stranger(certificate.and_then(|leaf| user_of_certificate(leaf)));
            connection(admin, stream, caller, place).await;
        });
    }
}

pub(super) async fn connection<S>(admin: Arc<Admin>, stream: S, caller: Caller, place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let (admin, caller) = (&admin, &caller);
        async move { Ok::<Response<Full<Bytes>>, Infallible>(answer::to(admin, caller, request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(LIFE);
    // How a connection ends is its client's affair.
    tokio::time::timeout(LIFE, server.serve_connection(TokioIo::new(Lingering::new(stream)), service)).await.ok();
    drop(place);
}
