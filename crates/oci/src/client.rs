//! The HTTP client that registries are asked with: through proxies where the environment names some, over TLS by what this
//! machine trusts, and on to where they lead as far as they may. Every step is bounded in time.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{self, AUTHORIZATION, LOCATION, PROXY_AUTHORIZATION, USER_AGENT},
    uri::Scheme,
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::{
        legacy::{
            Client as Pool,
            connect::{Connected, Connection, HttpConnector, proxy::Tunnel},
        },
        proxy::matcher::Matcher,
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;
use tower::{Service, service_fn};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(15);
/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a connection is silent before the other side is asked whether it is there, and between two such questions.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Redirects followed.
const REDIRECTS: usize = 5;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("knoll/", env!("CARGO_PKG_VERSION")));

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// There is nobody to trust.
    #[error("{0}does this machine have CA certificates (package ca-certificates)?")]
    Certificates(String),
    /// A variable names no proxy that is spoken to.
    #[error("{0} names no proxy at an http or https address")]
    Proxy(&'static str),
    /// TLS cannot be set up.
    #[error("set TLS up")]
    Tls(#[from] rustls::Error),
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// It took too long.
    #[error("nothing came for {} s, or not everything in time", SILENCE.as_secs())]
    Late,
    /// The exchange failed.
    #[error("send the request")]
    Exchange(#[from] hyper_util::client::legacy::Error),
    /// The answer broke off.
    #[error("read the answer")]
    Answer(#[from] hyper::Error),
    /// It is none.
    #[error("make the request")]
    Request(#[from] http::Error),
    /// A redirect to where it may not go, or one too many.
    #[error("the registry leads where it may not")]
    Led,
    /// A redirect to no address.
    #[error("the registry leads to {0:?}, which is no address")]
    Nowhere(String),
}

/// The proxies that the environment names.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    pub(crate) all: Option<String>,
    pub(crate) http: Option<String>,
    pub(crate) https: Option<String>,
    /// Hosts that are asked without.
    pub(crate) none: Option<String>,
}

impl Proxies {
    pub(crate) fn of_environment() -> Proxies {
        let variable = |upper: &str, lower: &str| {
            let set = std::env::var(upper).or_else(|_| std::env::var(lower)).ok();
            set.filter(|value| !value.is_empty())
        };
        Proxies {
            all: variable("ALL_PROXY", "all_proxy"),
            http: variable("HTTP_PROXY", "http_proxy"),
            https: variable("HTTPS_PROXY", "https_proxy"),
            none: variable("NO_PROXY", "no_proxy"),
        }
    }

    fn matcher(self) -> Result<Matcher, ClientError> {
        for (name, proxy) in [("ALL_PROXY", &self.all), ("HTTP_PROXY", &self.http), ("HTTPS_PROXY", &self.https)] {
            let Some(proxy) = proxy else { continue };
            let found = Matcher::builder().all(proxy.clone()).build().intercept(&Uri::from_static("http://a.test/"));
            if !found.is_some_and(|found| matches!(found.uri().scheme_str(), Some("http" | "https"))) {
                return Err(ClientError::Proxy(name));
            }
        }
        // A registry on this machine is nothing that a proxy could reach.
        let own = "localhost,127.0.0.0/8,::1".to_owned();
        let none = self.none.into_iter().chain([own]).collect::<Vec<_>>().join(",");
        let [all, http, https] = [self.all, self.http, self.https].map(Option::unwrap_or_default);
        Ok(Matcher::builder().all(all).http(http).https(https).no(none).build())
    }
}

/// See the module. Connections are kept for who asks next.
pub(crate) struct Client {
    pool: Pool<Connector, Full<Bytes>>,
    proxies: Arc<Matcher>,
}

/// What is asked.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) to: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// How long all of the answer may take; without it, each part of it.
    pub(crate) within: Option<Duration>,
}

/// An answer, of which the body is still to come.
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Who answered.
    pub(crate) from: Uri,
    body: Incoming,
    until: Option<Instant>,
}

impl Response {
    /// The next piece of the body; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, AskError> {
        while let Some(frame) = bounded(self.until, self.body.frame()).await? {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

impl Client {
    pub(crate) fn new(proxies: Proxies) -> Result<Client, ClientError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let errors: String = found.errors.iter().take(1).map(|error| format!("{error}: ")).collect();
            return Err(ClientError::Certificates(errors));
        }
        let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        let proxies = Arc::new(proxies.matcher()?);
        let connector = Connector { tcp, tls: TlsConnector::from(Arc::new(tls)), proxies: proxies.clone() };
        let pool = Pool::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Client { pool, proxies })
    }

    /// Asks, and asks where the answer leads.
    pub(crate) fn send(&self, ask: Ask) -> BoxFuture<'_, Result<Response, AskError>> {
        // Boxed, all of the exchange is compiled here and not where images are asked for.
        Box::pin(self.ask(ask))
    }

    async fn ask(&self, mut ask: Ask) -> Result<Response, AskError> {
        let (first, until) = (ask.to.clone(), ask.within.map(|within| Instant::now() + within));
        for _ in 0..=REDIRECTS {
            let answer = bounded(until, self.pool.request(self.request(&ask)?)).await??;
            let (head, body) = answer.into_parts();
            let Some(location) = location(head.status, &head.headers) else {
                return Ok(Response { status: head.status, headers: head.headers, from: ask.to, body, until });
            };
            let to = resolve(&ask.to, location).ok_or_else(|| AskError::Nowhere(location.to_owned()))?;
            if !may_lead(&first, &to) {
                return Err(AskError::Led);
            }
            ask.lead(head.status, to);
        }
        Err(AskError::Led)
    }

    fn request(&self, ask: &Ask) -> Result<Request<Full<Bytes>>, AskError> {
        let mut request = Request::builder().method(ask.method.clone()).uri(ask.to.clone());
        request = request.header(USER_AGENT, AGENT);
        let mut request = request.body(Full::new(ask.body.clone()))?;
        request.headers_mut().extend(ask.headers.clone());
        // Over TLS the proxy is told while the connection is made.
        let proxy = self.proxies.intercept(&ask.to).filter(|_| ask.to.scheme() == Some(&Scheme::HTTP));
        if let Some(authorization) = proxy.as_ref().and_then(|proxy| proxy.basic_auth()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }
}

impl Ask {
    /// Changes it to what is asked after a redirect. Credentials stay with who they were meant for.
    fn lead(&mut self, status: StatusCode, to: Uri) {
        if origin(&self.to) != origin(&to) {
            self.headers.remove(AUTHORIZATION);
        }
        let keeps = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        if !keeps && self.method == Method::POST {
            (self.method, self.body) = (Method::GET, Bytes::new());
            self.headers.remove(header::CONTENT_TYPE);
        }
        self.to = to;
    }
}

/// Waits until something comes, or all was to be there.
async fn bounded<T>(until: Option<Instant>, work: impl Future<Output = T>) -> Result<T, AskError> {
    let silent = Instant::now() + SILENCE;
    let at = until.map_or(silent, |until| until.min(silent));
    timeout_at(at, work).await.map_err(|_| AskError::Late)
}

/// Scheme, host and port of an address.
pub(crate) fn origin(uri: &Uri) -> (&str, String, u16) {
    let scheme = uri.scheme_str().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    (scheme, uri.host().unwrap_or_default().to_ascii_lowercase(), port)
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|ip| ip.is_loopback())
}

/// Whether a registry that was reached at `from` may send us, or our credentials, on to `to`: never from an encrypted
/// to a plain connection, and never to this machine's own services.
pub(crate) fn may_lead(from: &Uri, to: &Uri) -> bool {
    let ((was_scheme, was, _), (is_scheme, is, _)) = (origin(from), origin(to));
    (is_scheme == "https" || was_scheme == "http" && is_scheme == "http") && (is_loopback(&was) || !is_loopback(&is))
}

/// Where an answer leads, if it does.
fn location(status: StatusCode, headers: &HeaderMap) -> Option<&str> {
    let leads = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    headers.get(LOCATION).filter(|_| leads)?.to_str().ok()
}

/// An address of a host.
pub(crate) fn address(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    (is_http && uri.host().is_some_and(|host| !host.is_empty())).then_some(uri)
}

/// The address that is meant by a reference from another (RFC 3986, 5.2).
fn resolve(from: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next()?;
    let (scheme, authority, path) = (from.scheme_str()?, from.authority()?, from.path());
    let path_end = reference.find(['/', '?']).unwrap_or(reference.len());
    if reference[..path_end].contains(':') {
        return address(reference);
    }
    address(&match reference.as_bytes() {
        [b'/', b'/', ..] => format!("{scheme}:{reference}"),
        [b'/', ..] => format!("{scheme}://{authority}{reference}"),
        [] | [b'?', ..] => format!("{scheme}://{authority}{path}{reference}"),
        _ => {
            let (relative, query) = reference.split_at(reference.find('?').unwrap_or(reference.len()));
            let mut parts: Vec<&str> = path.split('/').skip(1).collect();
            parts.pop();
            for part in relative.split('/') {
                match part {
                    "." => {}
                    ".." => drop(parts.pop()),
                    part => parts.push(part),
                }
            }
            format!("{scheme}://{authority}/{}{query}", parts.join("/"))
        }
    })
}

/// Bytes both ways.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection: of one type, whatever it goes through.
struct Stream {
    bytes: Box<dyn Duplex>,
    /// Whether a proxy reads the requests.
    is_proxied: bool,
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.bytes).poll_read(cx, into)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(cx)
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.is_proxied)
    }
}

/// Makes connections.
#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    tls: TlsConnector,
    proxies: Arc<Matcher>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let made = timeout(CONNECT, connector.connect(to)).await;
            let stream = made.map_err(|_| format!("no connection within {} s", CONNECT.as_secs()))??;
            Ok(TokioIo::new(stream))
        })
    }
}

impl Connector {
    async fn connect(self, to: Uri) -> Result<Stream, BoxError> {
        let Some(proxy) = self.proxies.intercept(&to) else {
            return Ok(Stream { bytes: self.dial(&to).await?, is_proxied: false });
        };
        if to.scheme() != Some(&Scheme::HTTPS) {
            return Ok(Stream { bytes: self.dial(proxy.uri()).await?, is_proxied: true });
        }
        let dialer = self.clone();
        let mut tunnel = Tunnel::new(
            proxy.uri().clone(),
            service_fn(move |proxy: Uri| {
                let dialer = dialer.clone();
                async move { dialer.dial(&proxy).await.map(TokioIo::new) }
            }),
        );
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let through = tunnel.call(to.clone()).await?.into_inner();
        Ok(Stream { bytes: self.secure(&to, through).await?, is_proxied: false })
    }

    /// A connection to a host, over TLS where its address says so.
    async fn dial(&self, to: &Uri) -> Result<Box<dyn Duplex>, BoxError> {
        let tcp = self.tcp.clone().call(to.clone()).await?.into_inner();
        if to.scheme() == Some(&Scheme::HTTPS) { self.secure(to, Box::new(tcp)).await } else { Ok(Box::new(tcp)) }
    }

    async fn secure(&self, to: &Uri, bytes: Box<dyn Duplex>) -> Result<Box<dyn Duplex>, BoxError> {
        let host = to.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())?;
        Ok(Box::new(self.tls.connect(name, bytes).await?))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().expect("an address")
    }

    #[test]
    fn a_registry_leads_neither_to_plain_connections_nor_to_this_machine() {
        let may = |from: &str, to: &str| may_lead(&uri(from), &uri(to));
        assert!(may("https://reg.io/v2/", "https://cdn.example/blob"));
        assert!(may("http://localhost:5000/v2/", "http://127.0.0.1:5001/token"));
        assert!(!may("https://reg.io/v2/", "http://reg.io/token"));
        assert!(!may("https://reg.io/v2/", "https://127.0.0.1:6443/"));
        assert!(!may("https://reg.io/v2/", "https://LocalHost/"));
        assert!(!may("http://reg.io/v2/", "http://[::1]:6443/"));
        assert!(!may("http://reg.io/v2/", "ftp://reg.io/passwd"));
        assert!(address("file:///etc/passwd").is_none() && address("reg.io/token").is_none());
    }

    #[test]
    fn where_a_redirect_leads_is_read_from_where_it_stands() {
        let from = uri("https://reg.io:5000/v2/a/blobs/x?y=1");
        for (reference, to) in [
            ("https://cdn.example/b?c=d#e", "https://cdn.example/b?c=d"),
            ("//cdn.example/b", "https://cdn.example/b"),
            ("/b?c=%20", "https://reg.io:5000/b?c=%20"),
            ("?z", "https://reg.io:5000/v2/a/blobs/x?z"),
            ("z?at=12:30", "https://reg.io:5000/v2/a/blobs/z?at=12:30"),
            ("../uploads/./z", "https://reg.io:5000/v2/a/uploads/z"),
        ] {
            assert_eq!(resolve(&from, reference).map(|uri| uri.to_string()).as_deref(), Some(to), "{reference}");
        }
        for reference in ["file:///etc/passwd", "mailto:a@b", "/with space"] {
            assert!(resolve(&from, reference).is_none(), "{reference}");
        }
    }

    #[test]
    fn credentials_and_bodies_stay_where_they_were_meant_for() {
        let headers = || HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer x"))]);
        let led = |status: u16, to: &str| {
            let (method, from) = (Method::POST, uri("https://reg.io/token"));
            let mut ask = Ask { method, to: from, headers: headers(), body: "b".into(), within: None };
            ask.lead(StatusCode::from_u16(status).expect("a status"), uri(to));
            (ask.method, ask.headers.contains_key(AUTHORIZATION), ask.body.len())
        };
        assert_eq!(led(307, "https://REG.io:443/other"), (Method::POST, true, 1));
        assert_eq!(led(302, "https://reg.io/other"), (Method::GET, true, 0));
        assert_eq!(led(308, "https://cdn.io/other"), (Method::POST, false, 1));
    }

    /// Takes one connection, answers its first request so, and says what that was.
    async fn server(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("a request"));
            }
            stream.write_all(answer.as_bytes()).await.expect("it listens");
            String::from_utf8(head).expect("text")
        });
        (port, asked)
    }

    async fn ask(proxies: Proxies, to: &str) -> Result<Response, AskError> {
        let client = Client::new(proxies).expect("a client");
        let ask = Ask { method: Method::GET, to: uri(to), headers: HeaderMap::new(), body: Bytes::new(), within: None };
        client.send(ask).await
    }

    #[tokio::test]
    async fn proxies_are_asked_for_what_is_not_on_this_machine() {
        let proxy = |port: u16| Some(format!("http://me:secret@127.0.0.1:{port}"));
        let (port, asked) = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
        let mut answer =
            ask(Proxies { http: proxy(port), ..Proxies::default() }, "http://reg.test/v2/").await.expect("an answer");
        assert_eq!(answer.chunk().await.expect("a body").as_deref(), Some(&b"hi"[..]));
        let said = asked.await.expect("it was asked");
        assert!(said.starts_with("GET http://reg.test/v2/ HTTP/1.1\r\n"), "{said}");
        assert!(said.contains("proxy-authorization: Basic bWU6c2VjcmV0\r\n"), "{said}");

        let (port, asked) = server("HTTP/1.1 403 Forbidden\r\n\r\n").await;
        let refused = ask(Proxies { https: proxy(port), ..Proxies::default() }, "https://reg.test/v2/").await;
        assert!(refused.is_err(), "the proxy refuses");
        let said = asked.await.expect("it was asked");
        assert!(said.starts_with("CONNECT reg.test:443 HTTP/1.1\r\n") && said.contains("bWU6c2VjcmV0"), "{said}");

        let (port, asked) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let here = format!("http://127.0.0.1:{port}/v2/");
        ask(Proxies { all: proxy(9), ..Proxies::default() }, &here).await.expect("an answer");
        assert!(asked.await.expect("it was asked").starts_with("GET /v2/ HTTP/1.1\r\n"));
        for odd in ["socks5://127.0.0.1:1", "ftp://a", "http://"] {
            let made = Client::new(Proxies { all: Some(odd.to_owned()), ..Proxies::default() });
            assert!(matches!(made, Err(ClientError::Proxy("ALL_PROXY"))), "{odd}");
        }
    }

    #[tokio::test]
    async fn a_registry_that_leads_in_circles_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = format!("http://{}/a", listener.local_addr().expect("an address"));
        let asked = tokio::spawn(async move {
            for number in 0.. {
                let Ok((mut stream, _)) = listener.accept().await else { return number };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return number,
                    }
                }
                let answer = "HTTP/1.1 302 Found\r\nlocation: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.expect("it listens");
            }
            0
        });
        let led = ask(Proxies::default(), &at).await;
        assert!(matches!(led, Err(AskError::Led)));
        asked.abort();
    }
}
