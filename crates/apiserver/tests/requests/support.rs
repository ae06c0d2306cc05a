//! A server over a fresh store, and requests to it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use knoll_apiserver::{
    ApiServer, Body, Config, UserInfo,
    auth::{LocalAuthority, Pki, ServingCertificate, TokenKey},
    body,
    node_backend::{NoNode, NodeBackend},
};
use knoll_store::{Options, Store};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Lists the machine's own addresses.
pub(crate) type Machine = dyn Fn() -> io::Result<Vec<IpAddr>> + Send + Sync;

/// A server and its directory.
pub(crate) struct Harness {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) store: Store,
    pub(crate) pki: Pki,
    _directory: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// Panics unless the code is `code`; the body.
    pub(crate) fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        self.json()
    }

    /// The message of a failure with this code.
    pub(crate) fn failure(self, code: u16) -> String {
        let status = self.expect(code);
        assert_eq!(status["status"], "Failure");
        status["message"].as_str().unwrap_or_default().to_owned()
    }

    /// All warnings.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.headers.get_all("warning").iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    }
}

impl Harness {
    /// A server with its bootstrap objects.
    pub(crate) async fn new() -> Self {
        Self::with_node(Arc::new(NoNode)).await
    }

    /// The same, with a machine.
    pub(crate) async fn with_node(node: Arc<dyn NodeBackend>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), Options::default()).unwrap();
        Self::with(directory, store, node).await
    }

    /// Another server over a store.
    pub(crate) async fn over(store: Store) -> Self {
        Self::with(tempfile::tempdir().unwrap(), store, Arc::new(NoNode)).await
    }

    /// A server that is told this of the machine's own addresses.
    pub(crate) async fn with_machine(machine: Arc<Machine>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), Options::default()).unwrap();
        Self::build(directory, store, Arc::new(NoNode), machine).await
    }

    /// A server over this store.
    pub(crate) async fn with(directory: tempfile::TempDir, store: Store, node: Arc<dyn NodeBackend>) -> Self {
        let machine = || Ok(vec!["127.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap()]);
        Self::build(directory, store, node, Arc::new(machine)).await
    }

    async fn build(
        directory: tempfile::TempDir,
        store: Store,
        node: Arc<dyn NodeBackend>,
        machine: Arc<Machine>,
    ) -> Self {
        let pki = Pki::open(&directory.path().join("pki"), Timestamp::now()).unwrap();
        let tokens = TokenKey::from_pem(&pki.token_key_pem().unwrap(), "https://kubernetes.default.svc").unwrap();
        let config = Config {
            authority: Arc::new(LocalAuthority::new(store.clone(), tokens, Timestamp::now).with_clients(pki.clients())),
            node,
            root_ca: pki.ca_pem().to_owned(),
            advertise: "169.254.77.1:6443".parse().unwrap(),
            machine,
            pod_network: ("10.244.0.0".parse().unwrap(), 16),
        };
        let server = ApiServer::new(store.clone(), config);
        server.bootstrap().await.unwrap();
        tokio::spawn(server.clone().tend(std::future::pending()));
        Self { server, store, pki, _directory: directory }
    }

    /// Sends a request as the administrator.
    pub(crate) async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        let media_type = match (method, &body) {
            ("PATCH", Value::Array(_)) => "application/json-patch+json",
            ("PATCH", _) => "application/merge-patch+json",
            _ => "application/json",
        };
        self.send_as(UserInfo::admin(), method, path, media_type, body).await
    }

    /// Sends a request.
    pub(crate) async fn send_as(
        &self,
        identity: UserInfo,
        method: &str,
        path: &str,
        media_type: &str,
        body: Value,
    ) -> Answer {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.request(identity, method, path, media_type, text).await
    }

    /// Sends JSON text as it is.
    pub(crate) async fn send_text(&self, method: &str, path: &str, text: &str) -> Answer {
        self.request(UserInfo::admin(), method, path, "application/json", text.to_owned()).await
    }

    /// Sends text as it is.
    pub(crate) async fn send_raw(
        &self,
        identity: UserInfo,
        method: &str,
        path: &str,
        media_type: &str,
        text: String,
    ) -> Answer {
        self.request(identity, method, path, media_type, text).await
    }

    async fn request(&self, identity: UserInfo, method: &str, path: &str, media_type: &str, bytes: String) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media_type)
            .body(body::full(bytes))
            .unwrap();
        let response = self.server.handle(request, identity).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, Value::Null).await
    }

    /// GET with an `Accept` header.
    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        let request = Request::builder().uri(path).header("accept", accept).body(body::empty()).unwrap();
        let (parts, body) = self.server.handle(request, UserInfo::admin()).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, body).await
    }

    /// A watch; its events come one by one.
    pub(crate) async fn watch(&self, path: &str) -> Events {
        let request = Request::builder().uri(path).body(body::empty()).unwrap();
        let response: Response<Body> = self.server.handle(request, UserInfo::admin()).await;
        assert_eq!(response.status(), 200);
        Events { body: response.into_body(), buffer: Vec::new() }
    }
}

/// The events of a watch.
pub(crate) struct Events {
    body: Body,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        self.next_within(Duration::from_secs(10)).await
    }

    /// The same, for a watch on which it may take longer.
    pub(crate) async fn next_within(&mut self, limit: Duration) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(limit, self.body.frame()).await.expect("an event in time");
            self.buffer.extend_from_slice(&frame?.unwrap().into_data().unwrap());
        }
    }

    /// Type and name of the next event.
    pub(crate) async fn brief(&mut self) -> String {
        let event = self.next().await.expect("an event");
        format!("{} {}", event["type"].as_str().unwrap(), event["object"]["metadata"]["name"].as_str().unwrap_or("-"))
    }
}

/// A ConfigMap.
pub(crate) fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// A Deployment.
pub(crate) fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
        },
    })
}

/// A Pod.
pub(crate) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

/// The names in a list.
pub(crate) fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect()
}

/// Serves the harness on a socket of its own.
pub(crate) async fn listen(h: &Harness) -> SocketAddr {
    let serving = ServingCertificate::new(&h.pki, &["127.0.0.1".into()], Timestamp::now()).unwrap();
    let tls = serving.tls(&h.pki).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = h.server.clone();
    tokio::spawn(async move { server.serve_tls(listener, Arc::new(tls), std::future::pending()).await });
    address
}

/// A connection to it, with a client certificate and its key where they are given.
pub(crate) async fn dial(
    h: &Harness,
    address: SocketAddr,
    client: Option<&(String, String)>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(h.pki.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let config = match client {
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await
}
