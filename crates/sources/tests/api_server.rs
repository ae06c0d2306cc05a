//! ApiServerSource, over a real API server.

mod world;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use http_body_util::BodyExt as _;
use jiff::Timestamp;
use knoll_api::Kind;
use knoll_apiserver::{
    ApiServer, Config as ServerConfig, UserInfo,
    auth::{LocalAuthority, Pki, TokenKey},
    body,
    node_backend::NoNode,
};
use knoll_broker::delivery::Destination;
use knoll_event::filter::Filter;
use knoll_sources::{Clients, Config, Hooks, Id, Source, Sources, Work};
use knoll_store::{Options, Store};
use serde_json::{Value, json};

use self::world::{Seen, Sinks, World, api_server, at_generation, config, id, until};

/// An API server over a fresh store.
#[derive(Clone)]
struct Api {
    server: Arc<ApiServer>,
    _directory: Arc<tempfile::TempDir>,
}

impl Api {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), Options::default()).unwrap();
        let pki = Pki::open(&directory.path().join("pki"), Timestamp::now()).unwrap();
        let tokens = TokenKey::from_pem(&pki.token_key_pem().unwrap(), "https://kubernetes.default.svc").unwrap();
        let config = ServerConfig {
            authority: Arc::new(LocalAuthority::new(store.clone(), tokens, Timestamp::now).with_clients(pki.clients())),
            node: Arc::new(NoNode),
            root_ca: pki.ca_pem().to_owned(),
            advertise: "169.254.77.1:6443".parse().unwrap(),
            machine: Arc::new(|| Ok(vec!["127.0.0.1".parse().unwrap()])),
            pod_network: ("10.244.0.0".parse().unwrap(), 16),
        };
        let server = ApiServer::new(store, config);
        server.bootstrap().await.unwrap();
        tokio::spawn(server.clone().tend(std::future::pending()));
        let api = Self { server, _directory: Arc::new(directory) };
        for namespace in ["ns", "other"] {
            api.post("/api/v1/namespaces", json!({"metadata": {"name": namespace}})).await;
        }
        api.post(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            json!({
            "metadata": {"name": "sees-all"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "namespace": "ns", "name": "sees-all"}]}),
        )
        .await;
        api
    }

    async fn send(&self, method: &str, path: &str, value: Value) -> Value {
        let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let text = if value.is_null() { String::new() } else { value.to_string() };
        let request = http::Request::builder().method(method).uri(path).header("content-type", content_type);
        let request = request.body(body::full(text)).unwrap();
        let (parts, body) = self.server.handle(request, UserInfo::admin()).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert!(parts.status.is_success(), "{method} {path}: {}", String::from_utf8_lossy(&bytes));
        serde_json::from_slice(&bytes).unwrap()
    }

    async fn post(&self, path: &str, value: Value) -> Value {
        self.send("POST", path, value).await
    }

    /// A ConfigMap with these labels.
    async fn map(&self, namespace: &str, name: &str, labels: Value) -> Value {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        self.post(&path, json!({"metadata": {"name": name, "labels": labels}, "data": {"a": "1"}})).await
    }

    async fn change(&self, name: &str) {
        self.send("PATCH", &format!("/api/v1/namespaces/ns/configmaps/{name}"), json!({"data": {"a": "2"}})).await;
    }

    async fn delete(&self, name: &str) {
        self.send("DELETE", &format!("/api/v1/namespaces/ns/configmaps/{name}"), Value::Null).await;
    }

    fn hooks(&self) -> Hooks {
        let server = self.server.clone();
        let clients: Clients = Arc::new(move |namespace, account| {
            let server = server.clone();
            Box::pin(async move { Ok(server.client(UserInfo::service_account(&namespace, &account))) })
        });
        Hooks { clients: Some(clients), ..Hooks::default() }
    }

    /// Clients that are of namespace "ns", whoever they are for.
    fn hooks_of_one(&self) -> Hooks {
        let clients = self.hooks().clients.expect("clients");
        Hooks { clients: Some(Arc::new(move |_, account| clients("ns".into(), account))), ..Hooks::default() }
    }
}

fn maps(more: Value) -> Value {
    let mut spec = json!({"serviceAccountName": "sees-all", "resources": [{"apiVersion": "v1", "kind": "ConfigMap"}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn source_id() -> Id {
    id(Kind::ApiServerSource, "s")
}

async fn ready(world: &World, generation: i64) {
    until("it is carried out", || world.carried(&source_id()) == Some(Ok(generation))).await;
}

async fn start(api: &Api, source: Source) -> World {
    let world = World::start(Sources::default().with(source), config(), api.hooks());
    ready(&world, 1).await;
    world
}

/// What happened to which object.
fn told(seen: &[Seen]) -> Vec<String> {
    let word = |seen: &Seen| seen.attribute("type").rsplit('.').next().unwrap_or_default().to_owned();
    seen.iter()
        .map(|seen| format!("{} {}/{}", word(seen), seen.attribute("namespace"), seen.attribute("name")))
        .collect()
}

#[tokio::test]
async fn once_it_is_carried_out_each_change_is_one_event_and_what_there_was_is_none() {
    let (sinks, api) = (Sinks::start().await, Api::start().await);
    api.map("ns", "before", json!({})).await;
    let world = start(&api, api_server(&sinks, "s", &["ns"], maps(json!({"mode": "Resource"})))).await;
    let made = api.map("ns", "a", json!({})).await;
    api.change("a").await;
    api.change("before").await;
    api.map("other", "elsewhere", json!({})).await;
    api.delete("a").await;
    let seen = sinks.wait("s", 4).await;
    assert_eq!(told(&seen), ["add ns/a", "update ns/a", "update ns/before", "delete ns/a"]);
    let names = ["type", "source", "subject", "kind", "apiversion", "datacontenttype"];
    assert_eq!(
        names.map(|name| seen[0].attribute(name)),
        [
            "dev.knative.apiserver.resource.add",
            "https://10.96.0.1:443",
            "/apis/v1/namespaces/ns/configmaps/a",
            "ConfigMap",
            "v1",
            "application/json",
        ]
    );
    assert_eq!(seen[0].headers["kn-namespace"], "ns");
    let data: Value = serde_json::from_str(&seen[0].data()).unwrap();
    assert_eq!(data, made, "the whole object, who manages which field too");
    let last: Value = serde_json::from_str(&seen[3].data()).unwrap();
    assert_eq!(last["data"]["a"], "2", "a deleted one as it was last");
    world.finish().await;
    assert_eq!(sinks.seen("s").len(), 4);
}

#[tokio::test]
async fn labels_owners_and_filters_say_of_which_objects() {
    let (sinks, api) = (Sinks::start().await, Api::start().await);
    let selector =
        json!({"matchLabels": {"app": "x"}, "matchExpressions": [{"key": "no", "operator": "DoesNotExist"}]});
    let resources = json!([{"apiVersion": "v1", "kind": "ConfigMap", "selector": selector}]);
    let mut source = api_server(&sinks, "s", &["ns"], maps(json!({"resources": resources})));
    let Ok(Work::ApiServer(work)) = &mut source.work else { panic!("{:?}", source.work) };
    work.filter = Some(Filter::not(Filter::exact([("name", "filtered")])).unwrap());
    let world = start(&api, source).await;
    api.map("ns", "other", json!({"app": "y"})).await;
    api.map("ns", "filtered", json!({"app": "x"})).await;
    api.map("ns", "no", json!({"app": "x", "no": "1"})).await;
    api.map("ns", "a", json!({"app": "x"})).await;
    let seen = sinks.wait("s", 1).await;
    assert_eq!(told(&seen), ["add ns/a"]);
    assert_eq!(seen[0].attribute("type"), "dev.knative.apiserver.ref.add");
    let owned = maps(json!({"owner": {"apiVersion": "v1", "kind": "Pod"}}));
    world.change(|sources| sources.with(at_generation(api_server(&sinks, "s", &["ns"], owned), 2)));
    ready(&world, 2).await;
    api.map("ns", "free", json!({})).await;
    api.post(
        "/api/v1/namespaces/ns/configmaps",
        json!({"metadata": {"name": "owned", "ownerReferences": [
        {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]}}),
    )
    .await;
    assert_eq!(told(&sinks.wait("s", 2).await)[1..], ["add ns/owned"]);
    world.finish().await;
}

#[tokio::test]
async fn namespaces_come_and_go_without_a_gap_for_the_others() {
    let (sinks, api) = (Sinks::start().await, Api::start().await);
    let world = start(&api, api_server(&sinks, "s", &["ns"], maps(json!({})))).await;
    assert_eq!(world.metric("sources_watches"), 1);
    let both = api_server(&sinks, "s", &["ns", "other"], maps(json!({})));
    world.change(|sources| sources.with(at_generation(both, 2)));
    ready(&world, 2).await;
    assert_eq!(world.metric("sources_watches"), 2);
    api.map("other", "b", json!({})).await;
    sinks.wait("s", 1).await;
    let everywhere = api_server(&sinks, "s", &[], maps(json!({"namespaceSelector": {}})));
    world.change(|sources| sources.with(at_generation(everywhere, 3)));
    ready(&world, 3).await;
    until("one watch", || world.metric("sources_watches") == 1).await;
    api.map("default", "c", json!({})).await;
    assert_eq!(told(&sinks.wait("s", 2).await), ["add other/b", "add default/c"]);
    assert_eq!(world.metric("sources_watch_gaps"), 0);
    world.finish().await;
}

#[tokio::test]
async fn a_changed_sink_or_mode_interrupts_no_watch() {
    let (sinks, api) = (Sinks::start().await, Api::start().await);
    let world = start(&api, api_server(&sinks, "s", &["ns"], maps(json!({})))).await;
    for number in 0..20 {
        api.map("ns", &format!("m{number}"), json!({})).await;
        let mode = if number % 2 == 0 { "Resource" } else { "Reference" };
        let changed = api_server(&sinks, "s", &["ns"], maps(json!({"mode": mode})));
        world.change(|sources| sources.with(at_generation(changed, number + 2)));
    }
    let wanted: Vec<String> = (0..20).map(|number| format!("add ns/m{number}")).collect();
    assert_eq!(told(&sinks.wait("s", 20).await), wanted);
    world.finish().await;
}

#[tokio::test]
async fn objects_of_users_own_kinds_and_of_none_are_watched_too() {
    let (sinks, api) = (Sinks::start().await, Api::start().await);
    let resources =
        json!([{"apiVersion": "v1", "kind": "Namespace"}, {"apiVersion": "example.com/v1", "kind": "Sheep"}]);
    let source = api_server(&sinks, "s", &["ns", "other"], maps(json!({"resources": resources})));
    let world = World::start(Sources::default().with(source), config(), api.hooks());
    let missing = || matches!(world.carried(&source_id()), Some(Err(why)) if why == "example.com/v1 is not served");
    until("the kind is missed", missing).await;
    api.post(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        json!({
        "metadata": {"name": "sheep.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "sheep", "kind": "Sheep"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}),
    )
    .await;
    ready(&world, 1).await;
    // Of a kind without namespaces there is one watch, however many namespaces are named.
    assert_eq!(world.metric("sources_watches"), 3);
    api.post("/api/v1/namespaces", json!({"metadata": {"name": "third"}})).await;
    let seen = sinks.wait("s", 1).await;
    assert_eq!(seen[0].attribute("subject"), "/apis/v1/namespaces//namespaces/third");
    api.post(
        "/apis/example.com/v1/namespaces/other/sheep",
        json!({
        "apiVersion": "example.com/v1", "kind": "Sheep", "metadata": {"name": "dolly"}}),
    )
    .await;
    until("a sheep", || sinks.seen("s").iter().any(|seen| seen.attribute("kind") == "Sheep")).await;
    let seen = sinks.seen("s");
    let sheep = seen.iter().find(|seen| seen.attribute("kind") == "Sheep").expect("it is there");
    assert_eq!(sheep.attribute("subject"), "/apis/example.com/v1/namespaces/other/sheeps/dolly");
    world.finish().await;
}

#[tokio::test]
async fn what_is_watched_again_may_have_missed_something_and_that_is_counted() {
    let (sinks, api) = (Sinks::start().await, Api::start().await);
    let resources = json!([{"apiVersion": "v1", "kind": "ConfigMap"}, {"apiVersion": "v1", "kind": "Secret"}]);
    let spec = maps(json!({"resources": resources}));
    let world = start(&api, api_server(&sinks, "s", &["ns"], spec.clone())).await;
    assert_eq!(world.metric("sources_watch_gaps"), 0);
    // As another account, in the same namespaces: both.
    let mut binding = json!({"roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "ns", "name": "another"}]});
    binding["metadata"] = json!({"name": "sees-all-too"});
    api.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    let mut other = spec.clone();
    other["serviceAccountName"] = "another".into();
    world.change(|sources| sources.with(at_generation(api_server(&sinks, "s", &["ns"], other.clone()), 2)));
    ready(&world, 2).await;
    assert_eq!(world.metric("sources_watch_gaps"), 2);
    // It had no sink for a moment.
    world.change(|sources| sources.without(&source_id()));
    until("it ended", || world.metric("sources_watches") == 0).await;
    world.change(|sources| sources.with(at_generation(api_server(&sinks, "s", &["ns"], other.clone()), 3)));
    ready(&world, 3).await;
    assert_eq!(world.metric("sources_watch_gaps"), 4);
    // A namespace that is added, and one that was taken out meanwhile, miss nothing.
    for (generation, namespaces) in [(4, &["ns", "other"][..]), (5, &["ns"]), (6, &["ns", "other"])] {
        let changed = at_generation(api_server(&sinks, "s", namespaces, other.clone()), generation);
        world.change(|sources| sources.with(changed));
        ready(&world, generation).await;
    }
    assert_eq!(world.metric("sources_watch_gaps"), 4);
    world.finish().await;
}

#[tokio::test]
async fn who_may_not_watch_is_not_carried_out_until_it_may() {
    let (sinks, api) = (Sinks::start().await, Api::start().await);
    let source = api_server(&sinks, "s", &["ns"], maps(json!({"serviceAccountName": "nobody"})));
    let world = World::start(Sources::default().with(source), config(), api.hooks());
    until("it may not", || matches!(world.carried(&source_id()), Some(Err(why)) if why.contains("cannot list"))).await;
    let as_other = api_server(&sinks, "s", &["ns"], maps(json!({})));
    world.change(|sources| sources.with(at_generation(as_other, 2)));
    ready(&world, 2).await;
    world.change(|sources| sources.without(&source_id()));
    until("no watch", || world.metric("sources_watches") == 0).await;
    assert_eq!(world.carried(&source_id()), None);
    world.finish().await;
}

#[tokio::test]
async fn a_sink_that_is_slow_holds_the_watch_up_and_no_change_is_lost() {
    let (sinks, api) = (Sinks::start().await, Api::start().await);
    // Each event is taken at the second attempt, a tenth of a second later.
    sinks.on("s", |before| Some(if before % 2 == 0 { 503 } else { 202 }));
    let world = start(&api, api_server(&sinks, "s", &["ns"], maps(json!({})))).await;
    for number in 0..15 {
        api.map("ns", &format!("m{number:02}"), json!({})).await;
    }
    let seen = sinks.wait("s", 30).await;
    let taken: Vec<Seen> = seen.into_iter().skip(1).step_by(2).collect();
    let wanted: Vec<String> = (0..15).map(|number| format!("add ns/m{number:02}")).collect();
    assert_eq!(told(&taken), wanted);
    world.finish().await;
}

#[tokio::test]
async fn a_panic_costs_one_source_a_moment() {
    let (sinks, api) = (Sinks::start().await, Api::start().await);
    let calls = Arc::new(AtomicU64::new(0));
    let (counted, inner) = (calls.clone(), api.hooks().clients.expect("clients"));
    let clients: Clients = Arc::new(move |namespace, account| {
        assert!(&*account != "breaks" || counted.fetch_add(1, Relaxed) >= 2, "no client");
        inner(namespace, account)
    });
    let mut breaks = api_server(&sinks, "breaks", &["ns"], maps(json!({"serviceAccountName": "breaks"})));
    breaks.id = id(Kind::ApiServerSource, "breaks");
    let breaks_id = breaks.id.clone();
    let sources = Sources::default().with(breaks).with(api_server(&sinks, "s", &["ns"], maps(json!({}))));
    let world = World::start(sources, config(), Hooks { clients: Some(clients), ..Hooks::default() });
    ready(&world, 1).await;
    until("it says why", || matches!(world.carried(&breaks_id), Some(Err(_)))).await;
    let why = world.carried(&breaks_id).expect("told").expect_err("a problem");
    assert_eq!(why, "no client for the ServiceAccount breaks: it panicked: no client");
    api.map("ns", "a", json!({})).await;
    sinks.wait("s", 1).await;
    until("it is tried again", || calls.load(Relaxed) > 2).await;
    assert_eq!(world.metric("sources_panics"), 2);
    world.finish().await;
}

#[tokio::test]
async fn more_watches_than_there_may_be_are_refused_by_number() {
    let (sinks, api) = (Sinks::start().await, Api::start().await);
    let source = api_server(&sinks, "s", &["ns", "other"], maps(json!({})));
    let bounded = Config { most_watches: 2, ..config() };
    let world = World::start(Sources::default().with(source), bounded, api.hooks());
    until("it says why", || matches!(world.carried(&source_id()), Some(Err(_)))).await;
    let why = world.carried(&source_id()).expect("told").expect_err("a problem");
    assert_eq!(why, "2 watches would be needed, of resources times namespaces; namespace ns may have 1 more");
    assert_eq!(world.metric("sources_watches"), 0);
    world.finish().await;
}

/// ConfigMaps by so many selectors, all of which match each.
fn many_selectors(count: usize) -> Value {
    let resource = |number| {
        let expressions = json!([{"key": format!("k{number}"), "operator": "DoesNotExist"}]);
        json!({"apiVersion": "v1", "kind": "ConfigMap", "selector": {"matchExpressions": expressions}})
    };
    maps(json!({"resources": (0..count).map(resource).collect::<Vec<_>>()}))
}

fn named(sinks: &Sinks, namespace: &str, name: &str, watched: &str, spec: Value) -> Source {
    let source = api_server(sinks, name, &[watched], spec);
    Source { id: Id::new(Kind::ApiServerSource, namespace, name), ..source }
}

#[tokio::test]
async fn a_namespace_whose_sinks_hang_has_its_part_of_what_is_sent_and_the_others_theirs() {
    let (sinks, api) = (Sinks::start().await, Api::start().await);
    sinks.on("hangs", |_| None);
    let evil = (0..4).map(|number| {
        let source = named(&sinks, "ns", &format!("hangs{number}"), "ns", many_selectors(10));
        Source { sink: Destination::new(sinks.uri("hangs").parse().expect("a URI")), ..source }
    });
    let sources = evil.fold(Sources::default(), Sources::with);
    let good = named(&sinks, "good", "good", "other", maps(json!({})));
    let good_id = good.id.clone();
    let bounded = Config { most_at_once: 16, most_of_namespace: 4, ..config() };
    let world = World::start(sources.with(good), bounded, api.hooks_of_one());
    until("all are watched", || world.metric("sources_watches") == 41).await;
    until("all are carried out", || world.metric("sources_carried") == 5).await;
    api.map("ns", "a", json!({})).await;
    until("each has its event", || {
        world.metric("sources_events_in_flight") + world.metric("sources_events_waiting") == 40
    })
    .await;
    assert_eq!(world.metric("sources_events_in_flight"), 5, "a part, and one");
    api.map("other", "a", json!({})).await;
    sinks.wait("good", 1).await;
    assert_eq!(world.carried(&good_id), Some(Ok(1)));
    assert_eq!(sinks.seen("hangs").len(), 5);
    assert_eq!(world.metric("sources_events_lost"), 0);
    world.change(|sources| {
        (0..4)
            .fold(sources, |sources, at| sources.without(&Id::new(Kind::ApiServerSource, "ns", &format!("hangs{at}"))))
    });
    until("what was not taken is counted", || world.metric("sources_events_lost") == 40).await;
    world.finish().await;
}

#[tokio::test]
async fn watches_of_one_namespace_leave_some_to_others_and_what_waits_has_what_comes_free() {
    let (sinks, api) = (Sinks::start().await, Api::start().await);
    let first = named(&sinks, "ns", "first", "ns", many_selectors(10));
    let second = named(&sinks, "ns", "second", "ns", many_selectors(10));
    let other = named(&sinks, "other", "third", "ns", many_selectors(5));
    let (first_id, second_id, other_id) = (first.id.clone(), second.id.clone(), other.id.clone());
    let bounded = Config { most_watches: 32, ..config() };
    let world = World::start(Sources::default().with(first), bounded, api.hooks_of_one());
    until("the first is carried out", || world.carried(&first_id) == Some(Ok(1))).await;
    world.change(|sources| sources.with(second));
    until(
        "there is no room",
        || matches!(world.carried(&second_id), Some(Err(why)) if why.contains("may have 6 more")),
    )
    .await;
    assert_eq!(world.metric("sources_watches"), 10);
    world.change(|sources| sources.with(other));
    until("others have room", || world.carried(&other_id) == Some(Ok(1))).await;
    world.change(|sources| sources.without(&first_id));
    until("it has what came free", || world.carried(&second_id) == Some(Ok(1))).await;
    world.finish().await;
}

#[tokio::test]
async fn what_may_not_be_watched_is_told_and_watched_once_it_may() {
    let (sinks, api) = (Sinks::start().await, Api::start().await);
    let source = api_server(&sinks, "s", &["ns", "other"], maps(json!({"serviceAccountName": "nobody"})));
    let world = World::start(Sources::default().with(source), config(), api.hooks());
    until("it may not", || matches!(world.carried(&source_id()), Some(Err(why)) if why.contains("cannot list"))).await;
    let binding = |namespace: &str| {
        (
            format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"),
            json!({"metadata": {"name": "sees"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"kind": "ServiceAccount", "namespace": "ns", "name": "nobody"}]}),
        )
    };
    let (path, object) = binding("ns");
    api.post(&path, object).await;
    let is_of_other =
        |world: &World| matches!(world.carried(&source_id()), Some(Err(why)) if why.contains("\"other\""));
    until("it may not in the other namespace", || is_of_other(&world)).await;
    let (path, object) = binding("other");
    api.post(&path, object).await;
    ready(&world, 1).await;
    api.map("other", "new", json!({})).await;
    assert_eq!(told(&sinks.wait("s", 1).await), ["add other/new"]);
    world.finish().await;
}
