//! What is derived is what the store says, whoever wrote it and whether or not they are still there.

use std::{
    pin::pin,
    task::{Context, Waker},
};

use futures_util::FutureExt as _;
use http::Request;
use jiff::Timestamp;
use knoll_store::Options;
use serde_json::json;

use super::*;
use crate::{
    ApiServer, Config, UserInfo,
    auth::{LocalAuthority, Pki, TokenKey},
    body,
    node_backend::NoNode,
};

pub(crate) fn server(store: &Store, pki: &Pki) -> Arc<ApiServer> {
    let tokens = TokenKey::from_pem(&pki.token_key_pem().unwrap(), "https://kubernetes.default.svc").unwrap();
    let config = Config {
        authority: Arc::new(LocalAuthority::new(store.clone(), tokens, Timestamp::now)),
        node: Arc::new(NoNode),
        root_ca: pki.ca_pem().to_owned(),
        advertise: "127.0.0.1:6443".parse().unwrap(),
        machine: Arc::new(|| Ok(Vec::new())),
        pod_network: ("10.244.0.0".parse().unwrap(), 16),
    };
    ApiServer::new(store.clone(), config)
}

/// Everything derived, in a form that can be compared.
fn picture(server: &ApiServer) -> (Vec<String>, String, String) {
    let registry = server.registry();
    let rows = registry.rows().map(|row| {
        let uid = row.custom.as_ref().map(|custom| (custom.uid.clone(), custom.terminating));
        format!("{} {} {} {uid:?}", row.group, row.version, row.plural)
    });
    (rows.collect(), format!("{:?}", server.derived.knative()), server.derived.addresses.to_string())
}

/// Numbers that look random, the same ones for a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// One write of something from which something follows.
fn write(random: &mut Random) -> (&'static str, String, Value) {
    let at = random.below(12);
    let gone = random.below(3) == 0;
    match random.below(6) {
        0 if gone => ("DELETE", format!("/api/v1/namespaces/default/services/s{at}"), Value::Null),
        0 => {
            let kind = if random.below(2) == 0 { "ClusterIP" } else { "NodePort" };
            let body = json!({"metadata": {"name": format!("s{at}")}, "spec": {"type": kind, "ports": [{"port": 80}]}});
            ("POST", "/api/v1/namespaces/default/services".into(), body)
        }
        1 => {
            let domain = format!("d{at}.example.com");
            let data = if gone { Value::Null } else { json!({domain: ""}) };
            let path = "/api/v1/namespaces/knative-serving/configmaps/config-domain";
            ("PATCH", path.into(), json!({"data": data}))
        }
        2 if gone => ("DELETE", format!("/api/v1/namespaces/n{at}"), Value::Null),
        2 => ("POST", "/api/v1/namespaces".into(), json!({"metadata": {"name": format!("n{at}")}})),
        3 => {
            let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": format!("192.0.2.{at}")}]}}});
            ("PATCH", format!("/api/v1/namespaces/default/services/s{at}/status"), status)
        }
        4 => {
            let ports = json!([{"port": 80, "nodePort": if gone { 0 } else { 30_000 + at }}]);
            ("PATCH", format!("/api/v1/namespaces/default/services/s{at}"), json!({"spec": {"ports": ports}}))
        }
        _ if gone => {
            let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
            ("DELETE", format!("{path}/k{at}s.example.com"), Value::Null)
        }
        _ => {
            let names = json!({"plural": format!("k{at}s"), "singular": format!("k{at}"), "kind": format!("K{at}")});
            let schema = json!({"openAPIV3Schema": {"type": "object"}});
            let version = json!({"name": "v1", "served": true, "storage": true, "schema": schema});
            let spec = json!({"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]});
            let body = json!({"metadata": {"name": format!("k{at}s.example.com")}, "spec": spec});
            ("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions".into(), body)
        }
    }
}

/// Sends a request and goes away: after it was polled a few times, or a moment later.
async fn send_and_leave(server: &Arc<ApiServer>, random: &mut Random) {
    let (method, path, body) = write(random);
    let media_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let request = Request::builder().method(method).uri(path).header("content-type", media_type);
    let request = request.body(body::full(text)).unwrap();
    let mut answer = pin!(server.handle(request, UserInfo::admin()));
    for _ in 0..random.below(4) {
        let mut context = Context::from_waker(Waker::noop());
        if answer.as_mut().poll_unpin(&mut context).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
    if random.below(4) == 0 {
        let _left = tokio::time::timeout(std::time::Duration::from_micros(random.below(2000)), answer).await;
    }
}

/// Waits until nothing is written any more.
async fn settle(server: &Arc<ApiServer>) {
    let mut quiet = 0;
    let mut last = server.store.revision();
    while quiet < 20 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        let now = server.store.revision();
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_writes_whose_callers_went_away_leave_what_the_store_says() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store"), Options::default()).unwrap();
    let pki = Pki::open(&directory.path().join("pki"), Timestamp::now()).unwrap();
    let server = server(&store, &pki);
    server.bootstrap().await.unwrap();
    tokio::spawn(server.clone().tend(std::future::pending()));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..1000 {
        send_and_leave(&server, &mut random).await;
    }
    settle(&server).await;
    let rebuilt = self::server(&store, &pki);
    assert_eq!(picture(&server), picture(&rebuilt));
    assert!(server.derived.addresses.to_string().contains("allocated []"), "{}", server.derived.addresses);
    assert_eq!(server.counters.panics.get(), 0);
}

#[tokio::test]
async fn what_somebody_else_wrote_is_seen_by_the_next_reader() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store"), Options::default()).unwrap();
    let pki = Pki::open(&directory.path().join("pki"), Timestamp::now()).unwrap();
    let server = server(&store, &pki);
    let definition = json!({"metadata": {"name": "xs.example.com", "uid": "1"}, "spec": {"group": "example.com",
        "names": {"plural": "xs", "kind": "X"}, "versions": [{"name": "v1", "served": true}]}});
    let key = format!("{DEFINITIONS}/xs.example.com");
    let put = |value| store.put(key.clone(), value, knoll_store::Expect::Any, knoll_store::Durability::Relaxed);
    put(crate::objects::encode(&definition)).await.unwrap();
    assert!(server.registry().get("example.com", "v1", "xs").is_some());
    let generation = server.registry().generation;
    store.delete(&key, knoll_store::Expect::Any, knoll_store::Durability::Relaxed).await.unwrap();
    assert!(server.registry().get("example.com", "v1", "xs").is_none());
    assert!(server.registry().generation > generation, "discovery's caches notice");
}
