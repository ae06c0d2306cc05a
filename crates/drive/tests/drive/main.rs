//! The loop over an API server in memory, on a paused clock.

mod absence;
mod access;
mod applied;
mod dates;
mod events;
mod fake;
mod garbage;
mod idle;
mod leases;
mod listing;
mod panics;
mod rush;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use fake::{Fake, key_of};
use http::Method;
use knoll_api::{Key, Kind, stats::RevisionStat, table::RoutingTable};
use knoll_broker::{Adopted, EventTypes, Topology, Transport, topology::Names};
use knoll_client::rush::Rush;
use knoll_drive::{
    Clocks, Counters, DriveError, EventLinks, Inspect, Links, ResolveDigest, Resolving, Role, SourceLinks, clocks, run,
};
use knoll_plan::{DigestRequest, Settings};
use knoll_sources::Sources;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

/// Knows every image.
struct Registry;

impl ResolveDigest for Registry {
    fn resolve<'a>(&'a self, request: &'a DigestRequest) -> Resolving<'a> {
        Box::pin(async move { Ok(format!("{}@sha256:{}", request.image, "0".repeat(64))) })
    }
}

/// A running loop and what a gateway would hold of it.
struct Running {
    task: JoinHandle<Result<(), DriveError>>,
    stop: oneshot::Sender<()>,
    counters: Arc<Counters>,
    inspect: Inspect,
    table: watch::Receiver<Option<Arc<RoutingTable>>>,
    wakes: mpsc::Sender<Key>,
    stats: mpsc::Sender<Vec<RevisionStat>>,
    topology: watch::Receiver<Option<Topology>>,
    sources: watch::Receiver<Option<Sources>>,
    adopted: Adopted,
}

fn start(fake: &Fake) -> Running {
    start_with(fake, Role::everything(Settings::default()), Arc::new(Registry), |_| {})
}

/// By these clocks.
fn start_by(fake: &Fake, clocks: Clocks) -> Running {
    begin(fake, Role::everything(Settings::default()), Arc::new(Registry), |_| {}, clocks)
}

/// `at_poll` is called whenever the loop looks whether it is to end.
fn start_with(
    fake: &Fake,
    role: Role,
    resolver: Arc<dyn ResolveDigest>,
    at_poll: impl Fn(&Counters) + Send + 'static,
) -> Running {
    begin(fake, role, resolver, at_poll, clocks())
}

fn begin(
    fake: &Fake,
    role: Role,
    resolver: Arc<dyn ResolveDigest>,
    at_poll: impl Fn(&Counters) + Send + 'static,
    clocks: Clocks,
) -> Running {
    let (table_in, table) = watch::channel(None);
    let (stats, stats_out) = mpsc::channel(16);
    let (wakes, wakes_out) = mpsc::channel(16);
    let (topology_in, topology) = watch::channel(None);
    let (sources_in, sources) = watch::channel(None);
    let adopted = Adopted::default();
    let (stop, stopped) = oneshot::channel();
    let (counters, inspect) = (Arc::new(Counters::default()), Inspect::default());
    let links = Links {
        applied: table_in.subscribe(),
        table: table_in,
        stats: stats_out,
        wakes: wakes_out,
        events: Some(EventLinks {
            topology: topology_in,
            adopted: adopted.clone(),
            event_types: EventTypes::new().0,
            transport: Transport::default(),
            names: Names::default(),
        }),
        sources: Some(SourceLinks { snapshots: sources_in, applied: watch::channel(Default::default()).1 }),
        rush: Rush::default(),
        resolver: Some(resolver),
        counters: counters.clone(),
        inspect: inspect.clone(),
        clocks,
    };
    let (mut stopped, polled) = (stopped, counters.clone());
    let shutdown = std::future::poll_fn(move |context| {
        at_poll(&polled);
        // A dropped sender is a test that ended.
        std::pin::Pin::new(&mut stopped).poll(context).map(drop)
    });
    let task = tokio::spawn(run(fake.client(), role, links, shutdown));
    Running { task, stop, counters, inspect, table, wakes, stats, topology, sources, adopted }
}

/// A namespace and a node.
fn cluster() -> Fake {
    let fake = Fake::default();
    fake.put(Kind::Namespace, json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}}));
    fake.put(Kind::Node, json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "4"}}}));
    fake
}

fn deployment(replicas: i32) -> Value {
    json!({"metadata": {"namespace": "a", "name": "d"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn bound_pods(fake: &Fake) -> usize {
    fake.all(Kind::Pod).iter().filter(|pod| pod["spec"]["nodeName"] == "n").count()
}

fn deployment_condition(fake: &Fake, type_: &str) -> Option<String> {
    let deployment = fake.get(Kind::Deployment, &Key::new("a", "d"))?;
    let conditions = deployment["status"]["conditions"].as_array()?.clone();
    Some(conditions.iter().find(|c| c["type"] == type_)?["reason"].as_str()?.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_deployment_becomes_bound_pods_and_follows_its_scale() {
    let fake = cluster();
    let running = start(&fake);
    fake.put(Kind::Deployment, deployment(3));
    fake.until("three bound pods", |fake| bound_pods(fake) == 3).await;
    fake.edit(Kind::Deployment, &Key::new("a", "d"), |d| d["spec"]["replicas"] = 1.into());
    fake.until("one pod", |fake| fake.all(Kind::Pod).len() == 1).await;
    fake.put(Kind::Deployment, json!({"metadata": {"namespace": "a", "name": "other"}}));
    running.stop.send(()).expect("it runs");
    running.task.await.expect("no panic").expect("no error");
}

#[tokio::test(start_paused = true)]
async fn what_vanished_while_nobody_watched_is_made_again() {
    let fake = cluster();
    let running = start(&fake);
    fake.put(Kind::Deployment, deployment(2));
    fake.until("two bound pods", |fake| bound_pods(fake) == 2).await;
    let lost = key_of(&fake.all(Kind::Pod)[0]);
    fake.lose(Kind::Pod, &lost);
    fake.until("two bound pods again", |fake| bound_pods(fake) == 2).await;
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_goes_on_where_it_ended() {
    let fake = cluster();
    let running = start(&fake);
    fake.put(Kind::Deployment, deployment(1));
    fake.until("a bound pod", |fake| bound_pods(fake) == 1).await;
    let listed = running.counters.read().listed;
    fake.hang_up();
    fake.edit(Kind::Deployment, &Key::new("a", "d"), |d| d["spec"]["replicas"] = 2.into());
    fake.until("two bound pods", |fake| bound_pods(fake) == 2).await;
    assert_eq!(running.counters.read().listed, listed, "no listing was needed");
}

#[tokio::test(start_paused = true)]
async fn after_an_idle_hour_a_change_is_seen_at_once() {
    let fake = cluster();
    let running = start(&fake);
    fake.put(Kind::Deployment, deployment(1));
    fake.until("a bound pod", |fake| bound_pods(fake) == 1).await;
    let listed = running.counters.read().listed;
    // Each watch lasts its five minutes, and nothing happens in it.
    for _ in 0..12 {
        tokio::time::sleep(std::time::Duration::from_secs(300)).await;
        fake.hang_up();
    }
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    assert_eq!(fake.watching(), Kind::ALL.len(), "every kind is watched again at once, not after a pause");
    assert_eq!(running.counters.read().listed, listed, "no listing was needed");
}

#[tokio::test(start_paused = true)]
async fn conflicts_are_planned_again() {
    let fake = cluster();
    let left = AtomicUsize::new(7);
    fake.set_fault(move |method, _, _| {
        let writes = *method == Method::PUT || *method == Method::POST;
        let hit = writes && left.try_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok();
        hit.then_some((409, "Conflict"))
    });
    let running = start(&fake);
    fake.put(Kind::Deployment, deployment(2));
    fake.until("two bound pods", |fake| bound_pods(fake) == 2).await;
    assert!(running.counters.read().conflicts >= 7);
}

#[tokio::test(start_paused = true)]
async fn refused_pods_are_reported_and_tried_again_ever_more_slowly() {
    let fake = cluster();
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = refused.clone();
    fake.set_fault(move |method, path, _| {
        let create = *method == Method::POST && path.ends_with("/pods");
        if create {
            counted.fetch_add(1, SeqCst);
        }
        create.then_some((403, "Forbidden"))
    });
    let running = start(&fake);
    fake.put(Kind::Deployment, deployment(1));
    fake.until("the failure is reported", |fake| {
        deployment_condition(fake, "ReplicaFailure").as_deref() == Some("FailedCreate")
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let attempts = refused.load(SeqCst);
    assert!((8..=25).contains(&attempts), "{attempts} attempts in a minute");
    fake.set_fault(|_, _, _| None);
    fake.until("a bound pod", |fake| bound_pods(fake) == 1).await;
    fake.until("the failure is over", |fake| deployment_condition(fake, "ReplicaFailure").is_none()).await;
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_namespace_empties_and_goes() {
    let fake = cluster();
    let running = start(&fake);
    fake.put(Kind::Deployment, deployment(2));
    fake.until("two bound pods and the default account", |fake| {
        bound_pods(fake) == 2 && fake.get(Kind::ServiceAccount, &Key::new("a", "default")).is_some()
    })
    .await;
    // As the API server does once the namespace is being deleted.
    fake.set_fault(|method, path, _| {
        (*method == Method::POST && path.starts_with("/api/v1/namespaces/a/")).then_some((403, "Forbidden"))
    });
    fake.edit(Kind::Namespace, &Key::new("", "a"), |namespace| {
        namespace["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    });
    fake.until("the namespace is gone", |fake| fake.get(Kind::Namespace, &Key::new("", "a")).is_none()).await;
    for kind in [Kind::Pod, Kind::ReplicaSet, Kind::Deployment, Kind::ServiceAccount] {
        assert!(fake.all(kind).is_empty(), "{kind:?}");
    }
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn what_loses_its_owner_goes_but_only_once_the_server_agrees() {
    let fake = cluster();
    let running = start(&fake);
    let owned = |name: &str, owner: &str| {
        json!({"metadata": {"namespace": "a", "name": name, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Secret", "name": owner, "uid": format!("Secret/a/{owner}")}]}})
    };
    fake.put(Kind::Secret, json!({"metadata": {"namespace": "a", "name": "owner"}}));
    fake.put(Kind::ConfigMap, owned("kept", "owner"));
    fake.put(Kind::ConfigMap, owned("stray", "nobody"));
    let stray = Key::new("a", "stray");
    fake.until("the stray is gone", |fake| fake.get(Kind::ConfigMap, &stray).is_none()).await;
    assert!(fake.requests().contains(&"GET /api/v1/namespaces/a/secrets/nobody".to_owned()), "it was asked for");
    assert!(fake.get(Kind::ConfigMap, &Key::new("a", "kept")).is_some());
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn the_gateway_gets_a_table_before_anything_else_happens() {
    let fake = cluster();
    let mut running = start(&fake);
    running.table.changed().await.expect("it runs");
    assert_eq!(running.counters.read().published, 1);
    running.stats.send(Vec::new()).await.expect("it listens");
    running.wakes.send(Key::new("a", "unknown")).await.expect("it listens");
}

/// Reports pods as a node would: bound ones run and are ready after a moment.
fn kubelet(fake: &Fake) -> JoinHandle<()> {
    let fake = fake.clone();
    tokio::spawn(async move {
        loop {
            let waits = |pod: &Value| pod["spec"]["nodeName"] == "n" && pod["status"]["phase"] != "Running";
            fake.until("a pod to start", |fake| fake.all(Kind::Pod).iter().any(waits)).await;
            for pod in fake.all(Kind::Pod).into_iter().filter(waits) {
                fake.edit(Kind::Pod, &key_of(&pod), |pod| {
                    pod["status"] = json!({
                        "phase": "Running", "podIP": "10.244.0.2",
                        "conditions": [{"type": "Ready", "status": "True"}],
                    });
                });
            }
        }
    })
}

fn service_at_zero(fake: &Fake) {
    fake.put(
        Kind::ConfigMap,
        json!({"metadata": {"namespace": "knative-serving", "name": "config-autoscaler"},
               "data": {"allow-zero-initial-scale": "true"}}),
    );
    fake.put(
        Kind::Service,
        json!({"metadata": {"namespace": "a", "name": "hello"}, "spec": {
            "template": {
                "metadata": {"annotations": {"autoscaling.knative.dev/initial-scale": "0"}},
                "spec": {"containerConcurrency": 0, "timeoutSeconds": 300, "containers": [
                    {"name": "user-container", "image": "example.com/hello", "ports": [{"containerPort": 8080}]}]}},
            "traffic": [{"latestRevision": true, "percent": 100}]}}),
    );
}

fn is_ready(fake: &Fake, kind: Kind, name: &str) -> bool {
    let conditions = fake.get(kind, &Key::new("a", name)).map(|object| object["status"]["conditions"].clone());
    let conditions = conditions.unwrap_or_default();
    let ready = conditions.as_array().and_then(|list| list.iter().find(|c| c["type"] == "Ready").cloned());
    ready.is_some_and(|ready| ready["status"] == "True")
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_starts_an_instance_without_a_tick() {
    let fake = cluster();
    let running = start(&fake);
    service_at_zero(&fake);
    let _kubelet = kubelet(&fake);
    fake.until("the service is ready at zero", |fake| is_ready(fake, Kind::Service, "hello")).await;
    assert!(fake.all(Kind::Pod).is_empty());

    let before = tokio::time::Instant::now();
    running.wakes.send(Key::new("a", "hello-00001")).await.expect("it listens");
    fake.until("an instance is bound", |fake| bound_pods(fake) == 1).await;
    assert_eq!(before.elapsed(), std::time::Duration::ZERO, "nothing waited for a clock");
    assert!(running.counters.read().hurried >= 4, "autoscaler, deployment, replica set and pod");

    let mut table = running.table.clone();
    let serves = |table: &Option<Arc<RoutingTable>>| {
        table.iter().any(|table| table.backends.values().any(|backend| !backend.instances.is_empty()))
    };
    table.wait_for(serves).await.expect("it runs");
}
