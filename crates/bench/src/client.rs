//! A client of the Kubernetes API that does as little as a client can: one HTTP/1.1 connection over TLS.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// Where the API is, and who asks.
#[derive(Clone)]
pub(crate) struct Credentials {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Credentials {
    /// What a kubeconfig with one cluster and one user says.
    pub(crate) fn read(kubeconfig: &Path, server: &str) -> Result<Self, Box<dyn Error>> {
        let config: Value = serde_saphyr::from_str(&fs::read_to_string(kubeconfig)?)?;
        let data = |value: &Value| STANDARD.decode(value.as_str().unwrap_or_default());
        let user = &config["users"][0]["user"];
        let mut roots = RootCertStore::empty();
        let authority = data(&config["clusters"][0]["cluster"]["certificate-authority-data"])?;
        roots.add(CertificateDer::from_pem_slice(&authority)?)?;
        let certificate = CertificateDer::from_pem_slice(&data(&user["client-certificate-data"])?)?;
        let key = PrivateKeyDer::from_pem_slice(&data(&user["client-key-data"])?)?;
        let tls =
            ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(vec![certificate], key)?;
        let address = server.strip_prefix("https://").ok_or("the API is not at an https URL")?.parse()?;
        Ok(Self { address, tls: Arc::new(tls) })
    }

    /// A connection. Must be called inside a runtime.
    pub(crate) async fn connect(&self) -> Result<Connection, Box<dyn Error>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // How it ends shows in the requests.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, task, host: self.address.to_string() })
    }
}

/// One connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
    host: String,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    /// Reads `path`.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Bytes, Box<dyn Error>> {
        self.send(Method::GET, path, "", Bytes::new()).await
    }

    /// Creates an object in the collection `path`.
    pub(crate) async fn create(&mut self, path: &str, object: &Value) -> Result<Bytes, Box<dyn Error>> {
        self.send(Method::POST, path, "application/json", object.to_string().into()).await
    }

    /// Changes the object at `path` by a merge patch.
    pub(crate) async fn merge(&mut self, path: &str, patch: &Value) -> Result<Bytes, Box<dyn Error>> {
        self.send(Method::PATCH, path, "application/merge-patch+json", patch.to_string().into()).await
    }

    /// Sends a request whose answer must be a success, and gives back its body.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Bytes, Box<dyn Error>> {
        let mut request = Request::builder().method(method.clone()).uri(path).header("host", &self.host);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        self.sender.ready().await?;
        let answer = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status != StatusCode::OK && status != StatusCode::CREATED {
            let text = String::from_utf8_lossy(&body);
            return Err(format!("{method} {path}: {status}: {}", text.trim()).into());
        }
        Ok(body)
    }
}
