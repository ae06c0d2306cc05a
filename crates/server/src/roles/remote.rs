//! An API server over the network: one HTTP/2 connection with TLS that every request and watch shares, made again when it
//! ends or the server no longer knows who this is: certificates are renewed while processes run.

use std::{sync::Arc, time::Duration};

use http::{
    HeaderValue, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, HOST},
    uri::{Authority, Scheme},
};
use http_body_util::BodyExt as _;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use knoll_client::{Body, Client};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    net::TcpStream,
    sync::{Mutex, Semaphore},
};
use tokio_rustls::TlsConnector;

use super::kubeconfig::{Access, NoAccess, Source, User};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// Writes that wait for their answers: fewer than the API server takes from one client.
const WRITES: usize = 40;
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
    /// Nobody says which server, or who to be there.
    #[error(transparent)]
    Access(#[from] NoAccess),
    /// Something in the kubeconfig cannot be used.
    #[error("the kubeconfig's {0} cannot be used")]
    Unusable(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
}

fn unusable<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> RemoteError {
    move |error| RemoteError::Unusable(what, Box::new(error))
}

/// The server.
pub(super) struct Remote {
    source: Source,
    /// PEM of its authority, when the process started.
    certificate_authority: String,
    connection: Mutex<Option<Connection>>,
    writes: Semaphore,
}

/// A connection, and what it was made with.
#[derive(Clone)]
struct Connection {
    sender: http2::SendRequest<Body>,
    authority: Authority,
    user: User,
}

impl Remote {
    /// The server that `source` names. Nothing is asked of it yet, but what is said of it must be usable.
    pub(super) fn new(source: Source) -> Result<Arc<Remote>, RemoteError> {
        let access = source.read()?;
        place(&access)?;
        tls(&access)?;
        let certificate_authority = String::from_utf8_lossy(&access.authority).into_owned();
        let (connection, writes) = (Mutex::new(None), Semaphore::new(WRITES));
        Ok(Arc::new(Remote { source, certificate_authority, connection, writes }))
    }

    /// PEM of the authority that signs the server's certificate.
    pub(super) fn certificate_authority(&self) -> String {
        self.certificate_authority.clone()
    }

    /// A client that asks it.
    pub(super) fn client(self: &Arc<Self>) -> Client {
        let remote = self.clone();
        Client::new(move |request| {
            let remote = remote.clone();
            async move { remote.send(request).await }
        })
    }

    async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, RemoteError> {
        // The semaphore is never closed.
        let _turn = if request.method().is_safe() { None } else { self.writes.acquire().await.ok() };
        let Connection { mut sender, authority, user } = self.connected().await?;
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        (parts.scheme, parts.authority) = (Some(Scheme::HTTPS), Some(authority.clone()));
        *request.uri_mut() = Uri::from_parts(parts).map_err(unusable("server"))?;
        request.headers_mut().remove(HOST);
        if let Some(token) = token(&user).await? {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(unusable("token"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let failed = |error| RemoteError::Exchange(authority.to_string(), error);
        sender.ready().await.map_err(failed)?;
        let response = sender.send_request(request).await.map_err(failed)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // The next request is sent as whoever the file then says.
            *self.connection.lock().await = None;
        }
        Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
    }

    async fn connected(&self) -> Result<Connection, RemoteError> {
        let mut connection = self.connection.lock().await;
        if let Some(known) = connection.as_ref().filter(|known| !known.sender.is_closed()) {
            return Ok(known.clone());
        }
        let access = self.source.read()?;
        let silent = |_| RemoteError::Silent(access.host.clone());
        let made = tokio::time::timeout(CONNECT, connect(&access)).await.map_err(silent)??;
        *connection = Some(made.clone());
        Ok(made)
    }
}

/// The token to show; files are read each time, for they change.
async fn token(user: &User) -> Result<Option<String>, RemoteError> {
    Ok(match user {
        User::Certificate(..) => None,
        User::Token(token) => Some(token.clone()),
        User::TokenFile(path) => {
            let text = tokio::fs::read_to_string(path).await.map_err(RemoteError::Token)?;
            Some(text.trim().to_owned())
        }
    })
}

/// The server's name for TLS, and as requests say it.
fn place(access: &Access) -> Result<(ServerName<'static>, Authority), RemoteError> {
    let name = ServerName::try_from(access.host.clone()).map_err(unusable("server"))?;
    let literal = if access.host.contains(':') { format!("[{}]", access.host) } else { access.host.clone() };
    let authority = Authority::try_from(format!("{literal}:{}", access.port)).map_err(unusable("server"))?;
    Ok((name, authority))
}

async fn connect(access: &Access) -> Result<Connection, RemoteError> {
    let (name, authority) = place(access)?;
    let place = authority.to_string();
    let failed = |error| RemoteError::Connect(place.clone(), error);
    let tcp = TcpStream::connect((access.host.as_str(), access.port)).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    let tls = TlsConnector::from(Arc::new(tls(access)?));
    let tls = tls.connect(name, tcp).await.map_err(failed)?;
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
    Ok(Connection { sender, authority, user: access.user.clone() })
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
