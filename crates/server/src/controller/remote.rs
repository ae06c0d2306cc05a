//! An API server over the network: one HTTP/2 connection with TLS that every request and watch shares, made again when it
//! ends.

use std::{sync::Arc, time::Duration};

use http::{
    HeaderValue, Request, Response, Uri,
    header::{AUTHORIZATION, HOST},
    uri::{Authority, Scheme},
};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::Body;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{net::TcpStream, sync::Mutex};
use tokio_rustls::TlsConnector;

use super::kubeconfig::{Access, User};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How often a connection is asked whether it lives, and how long it may take to answer.
const ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Why a request had no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RemoteError {
    /// The server cannot be reached.
    #[error("connect to {0}")]
    Connect(String, #[source] std::io::Error),
    /// It took too long.
    #[error("{0} does not answer")]
    Silent(String),
    /// It speaks another protocol.
    #[error("{0} does not speak HTTP/2")]
    Protocol(String),
    /// The exchange broke.
    #[error("speak to {0}")]
    Exchange(String, #[source] hyper::Error),
    /// The token cannot be read.
    #[error("read the token")]
    Token(#[source] std::io::Error),
    /// Something in the kubeconfig cannot be used.
    #[error("the kubeconfig's {0} cannot be used")]
    Unusable(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
}

fn unusable<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> RemoteError {
    move |error| RemoteError::Unusable(what, Box::new(error))
}

/// The server.
pub(super) struct Remote {
    access: Access,
    name: ServerName<'static>,
    authority: Authority,
    tls: TlsConnector,
    connection: Mutex<Option<http2::SendRequest<Body>>>,
}

impl Remote {
    pub(super) fn new(access: Access) -> Result<Arc<Remote>, RemoteError> {
        let name = ServerName::try_from(access.host.clone()).map_err(unusable("server"))?;
        let literal = if access.host.contains(':') { format!("[{}]", access.host) } else { access.host.clone() };
        let authority = Authority::try_from(format!("{literal}:{}", access.port)).map_err(unusable("server"))?;
        let tls = TlsConnector::from(Arc::new(tls(&access)?));
        Ok(Arc::new(Remote { access, name, authority, tls, connection: Mutex::new(None) }))
    }

    /// A client that asks it.
    pub(super) fn client(self: &Arc<Self>) -> kube::Client {
        let remote = self.clone();
        let service = tower::service_fn(move |request| {
            let remote = remote.clone();
            async move { remote.send(request).await }
        });
        kube::Client::new(service, "default")
    }

    async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, RemoteError> {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        (parts.scheme, parts.authority) = (Some(Scheme::HTTPS), Some(self.authority.clone()));
        *request.uri_mut() = Uri::from_parts(parts).map_err(unusable("server"))?;
        request.headers_mut().remove(HOST);
        if let Some(token) = self.token().await? {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(unusable("token"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let mut sender = self.connected().await?;
        let failed = |error| RemoteError::Exchange(self.authority.to_string(), error);
        sender.ready().await.map_err(failed)?;
        sender.send_request(request).await.map_err(failed)
    }

    /// The token to show; files are read each time, for they change.
    async fn token(&self) -> Result<Option<String>, RemoteError> {
        Ok(match &self.access.user {
            User::Certificate(..) => None,
            User::Token(token) => Some(token.clone()),
            User::TokenFile(path) => {
                let text = tokio::fs::read_to_string(path).await.map_err(RemoteError::Token)?;
                Some(text.trim().to_owned())
            }
        })
    }

    async fn connected(&self) -> Result<http2::SendRequest<Body>, RemoteError> {
        let mut connection = self.connection.lock().await;
        if let Some(sender) = connection.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let silent = |_| RemoteError::Silent(self.authority.to_string());
        let sender = tokio::time::timeout(CONNECT, self.connect()).await.map_err(silent)??;
        *connection = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self) -> Result<http2::SendRequest<Body>, RemoteError> {
        let place = self.authority.to_string();
        let failed = |error| RemoteError::Connect(place.clone(), error);
        let tcp = TcpStream::connect((self.access.host.as_str(), self.access.port)).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let tls = self.tls.connect(self.name.clone(), tcp).await.map_err(failed)?;
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(RemoteError::Protocol(place));
        }
        let made = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(ALIVE.0)
            .keep_alive_timeout(ALIVE.1)
            .handshake(TokioIo::new(tls))
            .await;
        let (sender, connection) = made.map_err(|error| RemoteError::Exchange(place.clone(), error))?;
        // Ends with the connection, which every request that is waiting then hears.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%place, %error, "the connection to the API server broke");
            }
        });
        Ok(sender)
    }
}

fn tls(access: &Access) -> Result<ClientConfig, RemoteError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&access.authority) {
        let certificate = certificate.map_err(unusable("certificate-authority"))?;
        roots.add(certificate).map_err(unusable("certificate-authority"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable("certificate-authority"))?
        .with_root_certificates(roots);
    let mut config = match &access.user {
        User::Certificate(certificate, key) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
            let chain = chain.map_err(unusable("client-certificate"))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(unusable("client-key"))?;
            builder.with_client_auth_cert(chain, key).map_err(unusable("client-certificate"))?
        }
        User::Token(_) | User::TokenFile(_) => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
