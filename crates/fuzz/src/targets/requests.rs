//! Whole requests to an API server: whatever is sent, it answers, and nothing inside of it panics.

use std::{cell::RefCell, sync::Arc};

use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use knoll_apiserver::{
    ApiServer, Config, UserInfo,
    auth::{LocalAuthority, Pki, TokenKey},
    body,
    node_backend::NoNode,
};
use knoll_journal::MemoryDisk;
use knoll_store::{Options, Store};
use tokio::runtime::{Builder, Runtime};

use super::parts;
use crate::Target;

pub(super) const REQUESTS: Target = Target {
    name: "requests",
    cases: 600,
    words: &[
        "GET ",
        "POST ",
        "PUT ",
        "PATCH ",
        "DELETE ",
        "/api/v1/namespaces/default/",
        "pods",
        "/pods/p/status",
        "services",
        "configmaps",
        "secrets",
        "/apis/serving.knative.dev/v1/namespaces/default/services",
        "/apis/apps/v1/namespaces/default/deployments",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "?dryRun=All",
        "&fieldManager=m",
        "?limit=1",
        "&continue=",
        "labelSelector=a",
        "fieldSelector=status.phase%3DRunning",
        "application/json",
        "application/yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
        "application/vnd.kubernetes.protobuf",
        "\n",
        "\n---\n",
        "null",
        "{}",
        "\"metadata\":{\"name\":\"a\"}",
        "\"\"",
        "-1",
        "9223372036854775807",
    ],
    check: requests,
};

struct World {
    runtime: Runtime,
    server: Arc<ApiServer>,
    _pki: tempfile::TempDir,
    /// Inputs it has seen.
    age: u32,
}

impl World {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        let pki = Pki::open(&directory.path().join("pki"), Timestamp::now()).expect("opens");
        let tokens = TokenKey::from_pem(&pki.token_key_pem().expect("has a key"), "issuer").expect("is a key");
        let store = Store::open_on(Arc::new(MemoryDisk::default()), Options::default()).expect("opens");
        let config = Config {
            authority: Arc::new(LocalAuthority::new(store.clone(), tokens, Timestamp::now)),
            node: Arc::new(NoNode),
            root_ca: pki.ca_pem().to_owned(),
            advertise: ([169, 254, 77, 1], 6443).into(),
            machine: Arc::new(|| Ok(vec![[127, 0, 0, 1].into()])),
            pod_network: ([10, 244, 0, 0].into(), 16),
        };
        let server = runtime.block_on(async {
            let server = ApiServer::new(store, config);
            server.bootstrap().await.expect("the first objects");
            tokio::spawn(server.clone().tend(std::future::pending()));
            server
        });
        Self { runtime, server, _pki: directory, age: 0 }
    }
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Inputs after which a world begins anew, so that what they made does not pile up.
const LIFE: u32 = 2000;

/// Requests one after the other: `METHOD target media-type`, a line end, and the body.
fn requests(input: &[u8]) {
    WORLD.with_borrow_mut(|world| {
        if world.as_ref().is_some_and(|world| world.age >= LIFE) {
            *world = None;
        }
        let world = world.get_or_insert_with(World::new);
        world.age += 1;
        for part in parts(input).take(8) {
            send(world, part);
        }
    });
}

fn send(world: &World, part: &[u8]) {
    let end = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
    let Ok(line) = str::from_utf8(&part[..end]) else { return };
    let mut words = line.split(' ');
    let (method, target, media_type) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
        words.next().unwrap_or("application/json"),
    );
    let body = part.get(end + 1..).unwrap_or_default().to_vec();
    let built = Request::builder().method(method).uri(target).header("content-type", media_type).body(body::full(body));
    // Not what HTTP lets through, or what has no end.
    let Ok(request) = built.map_err(drop).and_then(|request| if lasts(&request) { Err(()) } else { Ok(request) })
    else {
        return;
    };
    let before = world.server.counters().panics.get();
    let status = world.runtime.block_on(async {
        let response = world.server.handle(request, UserInfo::admin()).await;
        let (parts, body) = response.into_parts();
        let whole = body.collect().await.unwrap_or_else(|error| panic!("an answer broke off: {line}: {error}"));
        // What kube-apiserver calls an internal error, too: an applied object that is not of its type.
        let typed = String::from_utf8_lossy(&whole.to_bytes()).contains("failed to create typed patch object");
        if typed { StatusCode::UNPROCESSABLE_ENTITY } else { parts.status }
    });
    assert_eq!(world.server.counters().panics.get(), before, "{line} panicked");
    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{line}");
}

fn lasts<B>(request: &Request<B>) -> bool {
    let uri = request.uri();
    let says = |word: &str| uri.query().is_some_and(|query| query.contains(word));
    uri.path().contains("watch") || says("watch") || says("%") && says("ch")
}
