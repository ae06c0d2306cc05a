//! Whether a path answers with 200 to 399. Redirections are not followed: they are answers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use tokio::io::{AsyncRead, AsyncWrite};

use super::tcp::Way;
use super::{tcp, tls};

/// Who asks; also how gateways tell such requests apart.
const AGENT: &str = "kube-probe/1.35";

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    host: Option<String>,
    port: u16,
    path: String,
    tls: bool,
    headers: Vec<(String, String)>,
}

impl Get {
    /// The request of a probe or a hook.
    pub fn of(action: &HTTPGetAction, port: u16) -> Get {
        let path = action.path.as_deref().unwrap_or_default();
        Get {
            host: action.host.clone().filter(|h| !h.is_empty()),
            port,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            tls: action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
            headers: action.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
        }
    }

    fn url(&self, address: IpAddr) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let authority = match &self.host {
            Some(host) => format!("{host}:{}", self.port),
            None => SocketAddr::new(address, self.port).to_string(),
        };
        format!("{scheme}://{authority}{}", self.path)
    }

    fn request(&self, address: IpAddr) -> Result<http::Request<Empty<Bytes>>, http::Error> {
        let mut request = http::Request::get(&self.path).body(Empty::new())?;
        let headers = request.headers_mut();
        let authority = self
            .host
            .clone()
            .map_or_else(|| SocketAddr::new(address, self.port).to_string(), |host| format!("{host}:{}", self.port));
        headers.insert(HOST, HeaderValue::try_from(authority)?);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        // The probe's own headers overrule ours; of one name all values are sent.
        let mut replaced = Vec::new();
        for (name, value) in &self.headers {
            let (name, value) = (HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
            if !replaced.contains(&name) {
                headers.remove(&name);
                replaced.push(name.clone());
            }
            headers.append(name, value);
        }
        Ok(request)
    }
}

/// Asks once.
pub(super) async fn ask(get: &Get, way: &Way<'_>, timeout: Duration) -> Result<(), String> {
    let status = fetch(get, way, timeout).await?;
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
    }
}

/// Sends the request and returns the answer's status.
///
/// # Errors
/// When there is no answer, in the words that users know.
pub(crate) async fn fetch(get: &Get, way: &Way<'_>, timeout: Duration) -> Result<http::StatusCode, String> {
    let address = way.address;
    let late = || {
        format!(
            "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            get.url(address)
        )
    };
    let told = |why: String| format!("Get \"{}\": {why}", get.url(address));
    let exchange = async {
        let stream = tcp::connect(get.host.as_deref(), way, get.port, timeout).await?;
        let request = get.request(address).map_err(|error| error.to_string())?;
        if get.tls { send(tls::wrap(stream, address).await?, request).await } else { send(stream, request).await }
    };
    match tokio::time::timeout(timeout, exchange).await {
        Err(_) => Err(late()),
        Ok(Err(why)) => Err(told(why)),
        Ok(Ok(status)) => Ok(status),
    }
}

async fn send<S>(stream: S, request: http::Request<Empty<Bytes>>) -> Result<http::StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| words(&e))?;
    let answer = sender.send_request(request);
    let (mut connection, mut answer) = (std::pin::pin!(connection), std::pin::pin!(answer));
    // The connection moves only while it is asked; it ends with this function.
    tokio::select! {
        biased;
        answer = &mut answer => answer.map(|a| a.status()).map_err(|e| words(&e)),
        closed = &mut connection => match closed {
            Err(error) => Err(words(&error)),
            Ok(()) => answer.await.map(|a| a.status()).map_err(|e| words(&e)),
        },
    }
}

fn words(error: &hyper::Error) -> String {
    let io = std::error::Error::source(error).and_then(|s| s.downcast_ref::<std::io::Error>());
    if error.is_incomplete_message() || error.is_canceled() {
        "EOF".into()
    } else {
        io.map_or_else(|| error.to_string(), tcp::reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn answer(text: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") {
                seen.push(stream.read_u8().await.expect("reads"));
            }
            stream.write_all(text.as_bytes()).await.expect("writes");
            String::from_utf8(seen).expect("text")
        });
        (port, served)
    }

    fn here() -> Way<'static> {
        Way { address: Ipv4Addr::LOCALHOST.into(), loopback: None, on_host: true }
    }

    fn get(port: u16) -> Get {
        let action = serde_json::json!({"path": "/healthz?x=1", "port": 1, "httpHeaders": [
            {"name": "Host", "value": "app.test"}, {"name": "X-A", "value": "1"}, {"name": "X-A", "value": "2"}]});
        Get::of(&serde_json::from_value(action).expect("an action"), port)
    }

    async fn outcome(text: &'static str) -> Result<(), String> {
        let (port, served) = answer(text).await;
        let outcome = ask(&get(port), &here(), Duration::from_secs(5)).await;
        drop(served.await.expect("served"));
        outcome
    }

    #[tokio::test]
    async fn success_and_redirections_are_yes() {
        assert_eq!(outcome("HTTP/1.1 204 No Content\r\n\r\n").await, Ok(()));
        assert_eq!(outcome("HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n").await, Ok(()));
        assert_eq!(
            outcome("HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n").await,
            Err("HTTP probe failed with statuscode: 503".into())
        );
    }

    #[tokio::test]
    async fn the_probes_headers_overrule_ours() {
        let (port, served) = answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        ask(&get(port), &here(), Duration::from_secs(5)).await.expect("yes");
        let seen = served.await.expect("served").to_lowercase();
        assert!(seen.starts_with("get /healthz?x=1 http/1.1\r\n"), "{seen}");
        for header in ["host: app.test", "x-a: 1", "x-a: 2", "user-agent: kube-probe/1.35", "connection: close"] {
            assert!(seen.contains(&format!("{header}\r\n")), "{header} in {seen}");
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_told() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let why = ask(&get(port), &here(), Duration::from_secs(5)).await.expect_err("nobody");
        assert_eq!(
            why,
            format!(
                "Get \"http://127.0.0.1:{port}/healthz?x=1\": dial tcp 127.0.0.1:{port}: connect: connection refused"
            )
        );
    }
}
