use knoll_api::eventing::services::{BROKER_INGRESS_SECRET, CERTIFICATES, CHANNEL_DISPATCHER_SECRET};
use serde_json::{Value, json};
use tokio::task::yield_now;

use super::*;
use crate::components::events::fake_api::FakeApi;

const NAMESPACE: &str = "/api/v1/namespaces/knative-eventing";
/// The certificates of two transforms.
const FIRST: &str = "/api/v1/namespaces/ns/secrets/first-server-tls";
const SECOND: &str = "/api/v1/namespaces/ns/secrets/second-server-tls";

/// An API server, and what keeps the certificates in it until this is dropped.
struct World {
    fake: FakeApi,
    tasks: Tasks,
    begun: Instant,
    _directory: tempfile::TempDir,
}

impl World {
    /// Two transforms, and the feature.
    fn start(prepare: impl FnOnce(&FakeApi)) -> Self {
        let (fake, directory) = (FakeApi::default(), tempfile::tempdir().expect("a directory"));
        for name in ["first", "second"] {
            let path = Kind::EventTransform.object_path(&Key::new("ns", name));
            let metadata = json!({"namespace": "ns", "name": name});
            fake.put(&path, json!({"metadata": metadata, "spec": {"jsonata": {"expression": "a"}}}));
        }
        prepare(&fake);
        let pki = Arc::new(Pki::open(directory.path(), Timestamp::now()).expect("keys"));
        let mut tasks = Tasks::new();
        keep(&mut tasks, pki, fake.client(), &Names::default());
        let world = Self { fake, tasks, begun: Instant::now(), _directory: directory };
        world.feature(json!({"transport-encryption": "strict"}));
        world
    }

    fn feature(&self, data: Value) {
        let metadata = json!({"namespace": "knative-eventing", "name": FEATURES});
        self.fake.put(&format!("{NAMESPACE}/configmaps/{FEATURES}"), json!({"metadata": metadata, "data": data}));
    }

    fn has(&self, secret: &str) -> bool {
        self.fake.get(secret).is_some_and(|secret| secret["data"]["tls.crt"].is_string())
    }

    /// Waits until these are there, while nothing waits for its time.
    async fn until(&self, secrets: &[&str]) {
        for _ in 0..100_000 {
            if secrets.iter().all(|secret| self.has(secret)) {
                return;
            }
            yield_now().await;
        }
        panic!("of {secrets:?} there are {:?}", self.fake.paths());
    }

    /// Waits until what is due is done.
    async fn rest(&self) {
        for _ in 0..10_000 {
            yield_now().await;
        }
    }

    async fn stop(self) {
        self.tasks.leave(Duration::ZERO).await;
    }
}

fn service(secret: &str) -> String {
    format!("{NAMESPACE}/secrets/{secret}")
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_written_holds_up_no_other() {
    let world = World::start(|fake| {
        fake.refuse(BROKER_INGRESS_SECRET, Some(422));
        fake.refuse("/first-server-tls", Some(422));
        fake.refuse(CHANNEL_DISPATCHER_SECRET, Some(500));
    });
    let others: Vec<String> = CERTIFICATES[2..].iter().map(|(_, secret)| service(secret)).collect();
    world.until(&others.iter().map(String::as_str).chain([SECOND]).collect::<Vec<_>>()).await;
    let waiting = [service(BROKER_INGRESS_SECRET), service(CHANNEL_DISPATCHER_SECRET), FIRST.to_owned()];
    assert!(waiting.iter().all(|secret| !world.has(secret)), "{:?}", world.fake.paths());
    world.rest().await;
    // Those of Services are tried again, whatever it was, and a transform's when something changes.
    for end in [BROKER_INGRESS_SECRET, CHANNEL_DISPATCHER_SECRET, "/first-server-tls"] {
        world.fake.refuse(end, None);
    }
    sleep(AGAIN).await;
    world.until(&[&waiting[0], &waiting[1]]).await;
    assert!(!world.has(FIRST));
    sleep(EVERY).await;
    world.until(&[FIRST]).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_goes_is_made_again_at_once() {
    let world = World::start(|_| ());
    let ingress = service(BROKER_INGRESS_SECRET);
    world.until(&[&ingress, FIRST, SECOND]).await;
    for secret in [&*ingress, FIRST] {
        world.fake.remove(secret);
        world.until(&[secret]).await;
    }
    // Nor is one that lost a part left so.
    let mut broken = world.fake.get(SECOND).expect("it is there");
    broken["data"]["tls.key"].take();
    world.fake.put(SECOND, broken);
    for _ in 0..100_000 {
        let secret = world.fake.get(SECOND).expect("it is there");
        if secret["data"]["tls.key"].is_string() {
            break;
        }
        yield_now().await;
    }
    assert!(world.fake.get(SECOND).expect("it is there")["data"]["tls.key"].is_string());
    assert!(world.begun.elapsed() < AGAIN, "nothing waited");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_feature_says_what_it_said_while_its_map_is_gone_or_cannot_be_understood() {
    let world = World::start(|_| ());
    let ingress = service(BROKER_INGRESS_SECRET);
    world.until(&[&ingress, FIRST]).await;
    world.fake.remove(&format!("{NAMESPACE}/configmaps/{FEATURES}"));
    for secret in [&*ingress, FIRST] {
        world.fake.remove(secret);
        world.until(&[secret]).await;
    }
    world.feature(json!({"transport-encryption": "sometimes"}));
    world.fake.remove(FIRST);
    world.until(&[FIRST]).await;
    world.feature(json!({"transport-encryption": "disabled"}));
    world.rest().await;
    world.fake.remove(FIRST);
    world.rest().await;
    assert!(!world.has(FIRST), "nobody wants it");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_now_is_looked_at_again() {
    let world = World::start(|_| ());
    world.until(&[FIRST, SECOND]).await;
    world.rest().await;
    for path in [FEATURES, "/first-server-tls"] {
        world.fake.fail(path, 503);
        world.fake.remove(FIRST);
        world.rest().await;
        assert!(!world.has(FIRST), "{path}");
        sleep(AGAIN).await;
        world.until(&[FIRST]).await;
    }
    assert!(world.begun.elapsed() < EVERY);
    world.stop().await;
}
