//! The server on sockets.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tracing::debug;

use crate::{ApiServer, Identity, auth, body, respond};

/// A client opens one connection and hundreds of watches on it.
const STREAMS: u32 = 4096;
/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often a silent HTTP/2 connection is asked whether it lives.
const PING: Duration = Duration::from_secs(30);
/// How long connections may finish what they began.
const DRAIN: Duration = Duration::from_secs(2);

impl ApiServer {
    /// Serves TLS connections until `stop` is ready, then lets what runs finish for a moment.
    pub async fn serve_tls(
        self: &Arc<Self>,
        listener: TcpListener,
        config: Arc<ServerConfig>,
        stop: impl Future<Output = ()> + Send,
    ) {
        let acceptor = TlsAcceptor::from(config);
        let graceful = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let stream = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of descriptors, most likely: others must close first.
                        debug!(%error, "accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let (server, acceptor, watcher) = (self.clone(), acceptor.clone(), graceful.watcher());
            tokio::spawn(async move {
                let Some((stream, certificate)) = shake_hands(acceptor, stream).await else { return };
                server.connection(stream, certificate, watcher).await;
            });
        }
        tokio::select! {
            () = graceful.shutdown() => {}
            () = tokio::time::sleep(DRAIN) => {}
        }
    }

    async fn connection<S>(
        self: Arc<Self>,
        stream: S,
        certificate: Option<Identity>,
        watcher: hyper_util::server::graceful::Watcher,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, certificate) = (self.clone(), certificate.clone());
            async move { Ok::<_, Infallible>(server.outside(request, certificate).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(60));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .keep_alive_interval(PING)
            .adaptive_window(true);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection.into_owned()).await {
            debug!(error = %error, "a connection ended");
        }
    }

    /// Answers a request from outside, whose sender is to be found out.
    async fn outside(
        self: &Arc<Self>,
        request: Request<Incoming>,
        certificate: Option<Identity>,
    ) -> http::Response<body::Body> {
        match self.config.authority.authenticate(request.headers(), certificate) {
            Ok(identity) => self.handle(request.map(body::wrap), identity).await,
            Err(status) => respond::failure(&status),
        }
    }
}

/// TLS, and whom the client's certificate names. `None` when it fails: that is the client's affair.
async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
) -> Option<(tokio_rustls::server::TlsStream<TcpStream>, Option<Identity>)> {
    // Small answers must not wait for more.
    stream.set_nodelay(true).ok()?;
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await.ok()?.ok()?;
    let certificates = stream.get_ref().1.peer_certificates();
    let identity = certificates.and_then(|c| c.first()).and_then(|leaf| auth::identity_of_certificate(leaf));
    Some((stream, identity))
}
