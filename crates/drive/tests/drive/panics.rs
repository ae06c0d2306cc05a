//! A panic costs what it happened in: each part panics twice, and the rest goes on.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use http::Method;
use knoll_api::{Key, Kind, Object, Resource, k8s_openapi::api::core::v1::Secret};
use knoll_drive::{ResolveDigest, Resolving, Role};
use knoll_plan::{Absence, DigestRequest, Plan, Row, Rows, Settings, World};
use serde_json::json;

use crate::{
    Registry, bound_pods, cluster, deployment,
    fake::{Fake, PANIC},
    start, start_with,
};

/// Copies each Secret's name into a ConfigMap, and fails on those that say so.
const FRAGILE: Row = Row {
    name: "fragile",
    of: Kind::Secret,
    wakes: &[(Kind::Pod, fragile_mapper)],
    configs: &[],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

fn plan(world: &World, key: &Key, _: knoll_api::Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(secret) = world.secrets.get(key) else { return plan };
    assert!(!is_marked(&secret), "it fell over");
    if world.config_maps.get(key).is_none() {
        let value = json!({"metadata": {"namespace": key.namespace, "name": key.name}});
        plan.create(Object::from_json(Kind::ConfigMap, value).expect("an object"));
    }
    plan
}

fn is_marked(secret: &Secret) -> bool {
    secret.annotation("bad").is_some()
}

fn fragile_mapper(_: &World, object: &Object, _: Kind) -> Vec<Key> {
    panic!("no mapping for {}", object.key())
}

fn with_fragile() -> Role {
    let settings = Settings::default();
    let mut rows = knoll_plan::rows(&settings).all().to_vec();
    rows.insert(0, FRAGILE);
    Role { rows: Rows::new(rows), ..Role::everything(settings) }
}

fn secret(name: &str, bad: bool) -> serde_json::Value {
    let annotations = if bad { json!({"bad": "yes"}) } else { json!({}) };
    json!({"metadata": {"namespace": "a", "name": name, "annotations": annotations}})
}

fn copied(fake: &Fake, name: &str) -> bool {
    fake.get(Kind::ConfigMap, &Key::new("a", name)).is_some()
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_panics_costs_one_key_until_its_object_changes() {
    let fake = cluster();
    let running = start_with(&fake, with_fragile(), Arc::new(Registry), |_| {});
    fake.put(Kind::Secret, secret("bad", true));
    fake.put(Kind::Secret, secret("good", false));
    fake.until("the other key is carried out", |fake| copied(fake, "good")).await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let counted = running.counters.read();
    assert_eq!((counted.plan_panics, counted.quarantined), (3, 1), "tried again, and then left alone");
    let events = fake.events();
    let told = events.iter().any(|event| {
        event["reason"] == "ControllerPanicked"
            && event["involvedObject"]["name"] == "bad"
            && event["message"].as_str().is_some_and(|text| text.contains("it fell over"))
    });
    assert!(told, "{events:#?}");

    fake.edit(Kind::Secret, &Key::new("a", "bad"), |secret| secret["metadata"]["annotations"] = json!({}));
    fake.until("it is planned once it changed", |fake| copied(fake, "bad")).await;
}

#[tokio::test(start_paused = true)]
async fn a_mapping_that_panics_leaves_the_other_controllers_alone() {
    let fake = cluster();
    let running = start_with(&fake, with_fragile(), Arc::new(Registry), |_| {});
    fake.put(Kind::Deployment, deployment(2));
    fake.until("two bound pods", |fake| bound_pods(fake) == 2).await;
    assert!(running.counters.read().plan_panics >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_panics_is_tried_again() {
    let fake = cluster();
    let left = AtomicUsize::new(2);
    fake.set_fault(move |method, path, _| {
        let create = *method == Method::POST && path.ends_with("/pods");
        let hit = create && left.try_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok();
        hit.then_some((PANIC, "the connection fell over"))
    });
    let running = start(&fake);
    fake.put(Kind::Deployment, deployment(1));
    fake.until("a bound pod", |fake| bound_pods(fake) == 1).await;
    assert_eq!(running.counters.read().plan_panics, 2);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_panics_lists_again() {
    let fake = cluster();
    let left = AtomicUsize::new(2);
    fake.set_fault(move |_, path, _| {
        let hit = path.ends_with("/deployments") && left.try_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok();
        hit.then_some((PANIC, "the watch fell over"))
    });
    let running = start(&fake);
    fake.put(Kind::Deployment, deployment(1));
    fake.until("a bound pod", |fake| bound_pods(fake) == 1).await;
    assert_eq!(running.counters.read().task_panics, 2);
}

#[tokio::test(start_paused = true)]
async fn an_event_recorder_that_panics_loses_that_event_alone() {
    let fake = cluster();
    let left = AtomicUsize::new(2);
    fake.set_fault(move |_, path, _| {
        let hit = path.ends_with("/events") && left.try_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok();
        hit.then_some((PANIC, "the recorder fell over"))
    });
    let running = start(&fake);
    fake.put(Kind::Deployment, deployment(3));
    fake.until("events come", |fake| fake.events().iter().any(|event| event["reason"] == "Scheduled")).await;
    assert_eq!(running.counters.read().task_panics, 2);
}

/// Falls over at some images, and knows every other.
struct Fragile;

impl ResolveDigest for Fragile {
    fn resolve<'a>(&'a self, request: &'a DigestRequest) -> Resolving<'a> {
        assert!(!request.image.ends_with("bad"), "the registry fell over");
        Registry.resolve(request)
    }
}

#[tokio::test(start_paused = true)]
async fn asking_for_a_digest_that_panics_costs_that_image_alone() {
    let fake = cluster();
    let running = start_with(&fake, Role::everything(Settings::default()), Arc::new(Fragile), |_| {});
    let digest = |fake: &Fake, name: &str| {
        let revision = fake.get(Kind::Revision, &Key::new("a", name)).unwrap_or_default();
        revision["status"]["containerStatuses"][0]["imageDigest"].as_str().map(str::to_owned)
    };
    for name in ["a-bad", "b-bad", "c-good"] {
        fake.put(
            Kind::Revision,
            json!({"metadata": {"namespace": "a", "name": name, "labels": {"serving.knative.dev/configuration": "c"}},
                   "spec": {"containers": [{"name": "user-container", "image": format!("example.com/{name}")}]}}),
        );
    }
    fake.until("the digest of the good image is known", |fake| digest(fake, "c-good").is_some()).await;
    fake.until("the bad ones say why", |fake| {
        let revisions = fake.all(Kind::Revision);
        let told = |revision: &&serde_json::Value| revision.to_string().contains("the registry fell over");
        revisions.iter().filter(told).count() == 2
    })
    .await;
    assert!(running.counters.read().task_panics >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_panics_begins_again_with_everything_listed() {
    let fake = cluster();
    let armed = Arc::new(AtomicBool::new(false));
    let bomb = armed.clone();
    let at_poll = move |_: &knoll_drive::Counters| assert!(!bomb.swap(false, SeqCst), "the loop fell over");
    let running = start_with(&fake, Role::everything(Settings::default()), Arc::new(Registry), at_poll);
    fake.put(Kind::Deployment, deployment(1));
    fake.until("a bound pod", |fake| bound_pods(fake) == 1).await;
    for replicas in [2, 3] {
        armed.store(true, SeqCst);
        fake.edit(Kind::Deployment, &Key::new("a", "d"), |d| d["spec"]["replicas"] = replicas.into());
        fake.until("as many bound pods as asked for", |fake| bound_pods(fake) == replicas).await;
        assert!(!armed.load(SeqCst), "it did fall over");
    }
    assert_eq!(running.counters.read().task_panics, 2);
    running.stop.send(()).expect("it runs");
    running.task.await.expect("no panic gets out").expect("no error");
}
