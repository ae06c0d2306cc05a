//! The controllers over a socket, against an API server that brings no others.

use std::{net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use knoll_apiserver::{
    ApiServer,
    auth::{LocalAuthority, Pki, ServingCertificate, TokenKey, kubeconfig},
};
use knoll_client::{Client, JSON};
use knoll_drive::{Links, ResolveDigest, Resolving, Role, run};
use knoll_plan::{DigestRequest, Settings};
use knoll_store::Store;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{kubeconfig::Source, remote::Remote};
use crate::components::local_node::LocalNode;

/// Knows every image.
struct Registry;

impl ResolveDigest for Registry {
    fn resolve<'a>(&'a self, request: &'a DigestRequest) -> Resolving<'a> {
        Box::pin(async move { Ok(format!("{}@sha256:{}", request.image, "0".repeat(64))) })
    }
}

/// An API server on a socket of its own; where it is, and who may do everything there.
async fn api_server(directory: &Path) -> Source {
    let now = Timestamp::now();
    let pki = Pki::open(&directory.join("pki"), now).expect("keys");
    let store = Store::open(&directory.join("store"), knoll_store::Options::default()).expect("a store");
    let key = TokenKey::from_pem(&pki.token_key_pem().expect("a key"), "https://issuer").expect("a key");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let config = knoll_apiserver::Config {
        authority: Arc::new(LocalAuthority::new(store.clone(), key, Timestamp::now).with_clients(pki.clients())),
        node: Arc::new(LocalNode::default()),
        root_ca: pki.ca_pem().to_owned(),
        advertise: address,
        machine: Arc::new(|| Ok(Vec::new())),
        pod_network: (Ipv4Addr::new(10, 244, 0, 0), 16),
    };
    let server = ApiServer::new(store, config);
    server.bootstrap().await.expect("bootstrap");
    let serving = ServingCertificate::new(&pki, &["127.0.0.1".to_owned()], now).expect("a certificate");
    let tls = Arc::new(serving.tls(&pki).expect("a certificate"));
    tokio::spawn(async move { server.serve_tls(listener, tls, std::future::pending()).await });
    let (certificate, key) = pki.client("admin", "system:masters", now).expect("a certificate");
    let path = directory.join("kubeconfig");
    let text = kubeconfig(&format!("https://{address}"), pki.ca_pem(), "admin", &certificate, &key);
    std::fs::write(&path, text).expect("a file");
    Source::File(path)
}

async fn ask(client: &Client, method: &str, path: &str, body: &Value) -> Value {
    let body = (!body.is_null()).then(|| (JSON, body.to_string().into_bytes()));
    let answer = client.call(method.parse().expect("a method"), path, JSON, body).await.unwrap_or_default();
    serde_json::from_slice(&answer).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controllers_run_over_a_socket_without_the_built_in_ones() {
    let directory = tempfile::tempdir().expect("a directory");
    let remote = Remote::new(api_server(directory.path()).await).expect("a client");
    let client = remote.client();
    let settings = Settings { standalone: false, ..Settings::default() };
    let role = Role::controller(settings, "test");
    let links = Links { resolver: Some(Arc::new(Registry)), ..Links::default() };
    let running = tokio::spawn(run(remote.client(), role, links, std::future::pending()));

    let service = json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "hello"},
        "spec": {"template": {"spec": {"containers": [{"image": "example.com/hello"}]}}}});
    ask(&client, "POST", "/apis/serving.knative.dev/v1/namespaces/default/services", &service).await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let made = async {
        while ask(&client, "GET", deployments, &Value::Null).await["items"].as_array().is_none_or(Vec::is_empty) {
            assert!(!running.is_finished(), "the controllers ended");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), made).await.expect("a Deployment for the Revision");
    let route = ask(&client, "GET", "/apis/serving.knative.dev/v1/namespaces/default/routes/hello", &Value::Null).await;
    assert_eq!(route["metadata"]["name"], "hello");
    let sets = ask(&client, "GET", "/apis/apps/v1/namespaces/default/replicasets", &Value::Null).await;
    assert_eq!(sets["items"], json!([]), "nobody here makes ReplicaSets");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/knative-serving/leases/knoll-controller";
    assert_eq!(ask(&client, "GET", lease, &Value::Null).await["spec"]["holderIdentity"], "test");
    running.abort();
}
