use std::time::Duration;

use knoll_api::Object;
use knoll_broker::{
    Adopted, EventTypes, Transport,
    topology::{Names, access::Guard},
};
use knoll_plan::{Change, Settings};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;

/// A World, the publisher over it, and the data plane that is told.
struct Bench {
    world: World,
    publisher: EventPublisher,
    snapshots: watch::Receiver<Option<Topology>>,
    now: Instant,
}

impl Bench {
    fn new(objects: &[(Kind, Value)]) -> Self {
        let (topology, snapshots) = watch::channel(None);
        let (event_types, _) = EventTypes::new();
        let links = EventLinks {
            topology,
            adopted: Adopted::default(),
            event_types,
            transport: Transport::default(),
            names: Names::default(),
        };
        let publisher = EventPublisher::new(links, Arc::default());
        let mut bench = Self { world: World::new(Settings::default()), publisher, snapshots, now: Instant::now() };
        objects.iter().for_each(|(kind, object)| bench.put(*kind, object.clone()));
        bench
    }

    fn apply(&mut self, change: Change) {
        for changed in self.world.apply(change) {
            self.publisher.changed(&changed, &self.world);
        }
    }

    fn put(&mut self, kind: Kind, object: Value) {
        self.apply(Change::Put(Object::from_json(kind, object).expect("an object")));
    }

    fn remove(&mut self, kind: Kind, name: &str) {
        self.apply(Change::Gone(kind, Key::new("ns", name)));
    }

    /// Hands over what is due, and tells what was told at once.
    fn publish(&mut self) -> Vec<String> {
        let told = told(self.publisher.publish(&self.world, self.now));
        // The next one is due by then, and the first at once.
        self.now += Duration::from_secs(60);
        told
    }

    /// Whether there is a snapshot that was not looked at yet, and what it holds: subscriptions by broker or channel.
    fn snapshot(&mut self) -> Option<Vec<String>> {
        if !self.snapshots.has_changed().expect("the publisher is there") {
            return None;
        }
        let snapshot = self.snapshots.borrow_and_update().clone().expect("it is one");
        let shown = snapshot.addressables().map(|addressable| {
            let names: Vec<&str> = addressable.subscribed().map(|one| &*one.subscription.name).collect();
            format!("{}: {}", addressable.name().name, names.join(" "))
        });
        Some(shown.collect())
    }

    /// Those of the newest snapshot.
    fn addressables(&self) -> Vec<Arc<Addressable>> {
        self.snapshots.borrow().iter().flat_map(Topology::addressables).cloned().collect()
    }

    fn adopt(&mut self, addressables: &[Arc<Addressable>]) -> Vec<String> {
        told(self.publisher.adopted(addressables))
    }
}

fn told(observation: Option<Observation>) -> Vec<String> {
    let Some(Observation::Carries(objects)) = observation else { return Vec::new() };
    let said = objects.into_iter().map(|((kind, key), carried)| match carried {
        Some(carried) => format!("{} {} {}", kind.kind(), key.name, carried.generation),
        None => format!("{} {} no more", kind.kind(), key.name),
    });
    said.collect()
}

fn broker(name: &str) -> (Kind, Value) {
    let annotations = json!({"eventing.knative.dev/broker.class": "MTChannelBasedBroker"});
    let object = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": format!("{name}-1"), "generation": 1, "annotations": annotations},
        "spec": {},
        "status": {"observedGeneration": 1, "address": {"url": "http://x"}},
    });
    (Kind::Broker, object)
}

fn trigger(name: &str, broker: &str, generation: i64) -> (Kind, Value) {
    let object = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": format!("{name}-1"), "generation": generation},
        "spec": {"broker": broker, "subscriber": {"uri": "http://s/"}},
        "status": {"observedGeneration": generation, "subscriberUri": "http://s/"},
    });
    (Kind::Trigger, object)
}

fn channel(subscribers: &[&str]) -> (Kind, Value) {
    let subscribers: Vec<Value> =
        subscribers.iter().map(|name| json!({"uid": name, "name": name, "subscriberUri": "http://s/"})).collect();
    let object = json!({
        "metadata": {"name": "c", "namespace": "ns", "uid": "c-1", "generation": 3},
        "spec": {"subscribers": subscribers},
        "status": {"observedGeneration": 3, "address": {"url": "http://x"}},
    });
    (Kind::InMemoryChannel, object)
}

#[test]
fn the_first_snapshot_is_of_all_there_is_and_told_once_it_is_acted_on() {
    let mut bench = Bench::new(&[broker("a"), trigger("t", "a", 2), trigger("lost", "nowhere", 1), channel(&["s"])]);
    assert_eq!(bench.snapshot(), None);
    assert_eq!(bench.publish(), ["Trigger lost no more"]);
    assert_eq!(bench.snapshot().expect("one"), ["a: t", "c: s"]);
    let handed = bench.addressables();
    assert_eq!(bench.adopt(&handed), ["Broker a 1", "Trigger t 2", "InMemoryChannel c 3"]);
    assert_eq!(bench.adopt(&handed), [""; 0]);
}

#[test]
fn without_anything_there_is_a_snapshot_of_nothing() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.publish(), [""; 0]);
    assert_eq!(bench.snapshot().expect("one"), [""; 0]);
    assert!(bench.publisher.due().is_none());
}

#[test]
fn what_means_the_same_is_told_and_not_handed_over_again() {
    let mut bench = Bench::new(&[broker("a"), trigger("t", "a", 1)]);
    bench.publish();
    let handed = bench.addressables();
    // While the first is not acted on, the news waits with it.
    let (kind, mut object) = broker("a");
    object["metadata"]["generation"] = 2.into();
    object["status"]["observedGeneration"] = 2.into();
    bench.put(kind, object.clone());
    bench.snapshot();
    assert_eq!(bench.publish(), [""; 0]);
    assert_eq!(bench.snapshot(), None);
    assert_eq!(bench.adopt(&handed), ["Broker a 2", "Trigger t 1"]);
    // And later it is told at once.
    object["metadata"]["generation"] = 3.into();
    object["status"]["observedGeneration"] = 3.into();
    bench.put(kind, object);
    assert_eq!(bench.publish(), ["Broker a 3"]);
    assert_eq!(bench.snapshot(), None);
}

#[test]
fn an_older_one_that_is_acted_on_says_nothing_of_what_came_since() {
    let mut bench = Bench::new(&[broker("a"), trigger("t", "a", 1)]);
    bench.publish();
    let old = bench.addressables();
    let (kind, mut object) = trigger("t", "a", 2);
    object["status"]["subscriberUri"] = "http://other/".into();
    bench.put(kind, object);
    bench.publish();
    assert_eq!(bench.adopt(&old), [""; 0]);
    let new = bench.addressables();
    assert_eq!(bench.adopt(&new), ["Broker a 1", "Trigger t 2"]);
}

#[test]
fn a_broker_that_goes_takes_its_triggers_and_one_that_comes_finds_them() {
    let mut bench = Bench::new(&[broker("a"), trigger("t", "a", 1)]);
    bench.publish();
    bench.snapshot();
    let handed = bench.addressables();
    bench.adopt(&handed);
    bench.remove(Kind::Broker, "a");
    assert_eq!(bench.publish(), ["Broker a no more", "Trigger t no more"]);
    assert_eq!(bench.snapshot().expect("one"), [""; 0]);
    let (kind, object) = broker("a");
    bench.put(kind, object);
    assert_eq!(bench.publish(), [""; 0]);
    assert_eq!(bench.snapshot().expect("one"), ["a: t"]);
    let handed = bench.addressables();
    assert_eq!(bench.adopt(&handed), ["Broker a 1", "Trigger t 1"]);
}

#[test]
fn a_trigger_that_goes_is_no_more_once_nobody_acts_on_it() {
    let mut bench = Bench::new(&[broker("a"), trigger("t", "a", 1), trigger("u", "a", 1)]);
    bench.publish();
    bench.snapshot();
    let handed = bench.addressables();
    bench.adopt(&handed);
    bench.remove(Kind::Trigger, "t");
    assert_eq!(bench.publish(), [""; 0]);
    assert_eq!(bench.snapshot().expect("one"), ["a: u"]);
    let handed = bench.addressables();
    assert_eq!(bench.adopt(&handed), ["Trigger t no more"]);
}

#[test]
fn a_trigger_may_come_to_another_broker() {
    let mut bench = Bench::new(&[broker("a"), broker("b"), trigger("t", "a", 1)]);
    bench.publish();
    bench.snapshot();
    let handed = bench.addressables();
    bench.adopt(&handed);
    // A new one of its name.
    let (kind, mut object) = trigger("t", "b", 1);
    object["metadata"]["uid"] = "t-2".into();
    bench.put(kind, object);
    bench.publish();
    assert_eq!(bench.snapshot().expect("one"), ["a: ", "b: t"]);
    let handed = bench.addressables();
    let told = bench.adopt(&handed);
    assert_eq!(told, ["Trigger t 1"]);
}

/// Whoever may write a status may not choose whose tokens are sent, nor has a channel's namespace anything to do with it.
#[test]
fn events_are_sent_as_the_account_of_the_trigger_or_subscription_in_its_own_namespace() {
    let auth = json!({"serviceAccountName": "deployer"});
    let (_, mut object) = trigger("t", "a", 1);
    object["status"]["auth"] = auth.clone();
    let (_, mut channel) = channel(&["s", "by-hand"]);
    channel["spec"]["subscribers"].as_array_mut().expect("some").iter_mut().for_each(|one| one["auth"] = auth.clone());
    let far = json!({
        "metadata": {"name": "s", "namespace": "far", "uid": "s", "generation": 1},
        "spec": {"channel": {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel", "name": "c", "namespace": "ns"},
            "subscriber": {"uri": "http://s/"}},
        "status": {"auth": auth, "physicalSubscription": {"subscriberUri": "http://s/"}},
    });
    let feature = json!({
        "metadata": {"namespace": "knative-eventing", "name": "config-features"},
        "data": {"authentication-oidc": "enabled", "cross-namespace-event-links": "enabled"},
    });
    let accounts = |far: &Value| -> Vec<String> {
        let mut bench = Bench::new(&[
            broker("a"),
            (Kind::Trigger, object.clone()),
            (Kind::Subscription, far.clone()),
            (Kind::InMemoryChannel, channel.clone()),
            (Kind::ConfigMap, feature.clone()),
        ]);
        bench.publish();
        let addressables = bench.addressables();
        let subscribed = addressables.iter().flat_map(|addressable| addressable.subscribed());
        let account = subscribed.map(|subscribed| {
            let of = &subscribed.subscription;
            format!("{} {}", of.namespace, of.service_account.as_deref().unwrap_or("nobody"))
        });
        account.collect()
    };
    let expected =
        ["ns t-oidc-eventing.knative.dev-trigger", "ns nobody", "far s-oidc-messaging.knative.dev-subscription"];
    assert_eq!(accounts(&far), expected);
    // Who makes the channel leads its events to somebody else, or asks for a token that is somebody else's to take.
    for (field, elsewhere) in
        [("subscriberUri", "http://mine/"), ("subscriberAudience", "theirs"), ("replyUri", "http://mine/")]
    {
        let mut said = far.clone();
        said["status"]["physicalSubscription"][field] = elsewhere.into();
        assert_eq!(accounts(&said)[2], "ns nobody", "{field}");
    }
}

#[test]
fn who_may_send_follows_the_feature_and_the_policies() {
    let may_send = |bench: &Bench| {
        let event = knoll_event::Event::new("1", "/s", "t").expect("an event");
        bench.addressables()[0].access().of("system:serviceaccount:other:me", "ns").has(&event).0
    };
    let (kind, mut object) = broker("a");
    object["status"]["policies"] = json!([{"name": "p", "apiVersion": "eventing.knative.dev/v1alpha1"}]);
    let mut bench = Bench::new(&[(kind, object)]);
    bench.publish();
    assert!(may_send(&bench), "nobody has to say who they are");
    let feature = json!({
        "metadata": {"namespace": "knative-eventing", "name": "config-features"},
        "data": {"authentication-oidc": "enabled"},
    });
    bench.put(Kind::ConfigMap, feature);
    bench.publish();
    assert!(!may_send(&bench), "the policy is not there, so that its own namespace may");
    let policy = |from: &str| {
        json!({
            "metadata": {"namespace": "ns", "name": "p", "uid": "p-1"},
            "spec": {"from": [{"sub": from}]}, "status": {"from": [from]},
        })
    };
    bench.put(Kind::EventPolicy, policy("somebody"));
    bench.publish();
    assert!(!may_send(&bench));
    bench.put(Kind::EventPolicy, policy("system:serviceaccount:other:*"));
    bench.publish();
    assert!(may_send(&bench), "the policy says so");
}

#[test]
fn brokers_of_others_are_nobodys() {
    let (kind, mut object) = broker("a");
    object["metadata"]["annotations"]["eventing.knative.dev/broker.class"] = "Kafka".into();
    let mut bench = Bench::new(&[(kind, object), trigger("t", "a", 1)]);
    bench.publish();
    assert_eq!(bench.snapshot().expect("one"), [""; 0]);
}

#[test]
fn a_channel_follows_its_spec() {
    let mut bench = Bench::new(&[channel(&["s", "t"])]);
    bench.publish();
    bench.snapshot();
    let (kind, object) = channel(&["t"]);
    bench.put(kind, object);
    bench.publish();
    assert_eq!(bench.snapshot().expect("one"), ["c: t"]);
    // Whoever goes takes nobody along, wherever they stood, and whoever moves stays.
    let lists: [&[&str]; 9] = [
        &["s", "t", "u", "v"],
        &["t", "u", "v"],
        &["v", "t", "u"],
        &["w", "u", "v", "x"],
        &["x", "w"],
        &["a", "b", "c", "d", "e"],
        &["e", "b", "c", "a"],
        &[],
        &["b"],
    ];
    for list in lists {
        let (kind, object) = channel(list);
        bench.put(kind, object);
        bench.publish();
        let mut sorted = list.to_vec();
        sorted.sort_unstable();
        let held = bench.addressables();
        let held: Vec<&str> = held[0].subscribed().map(|one| &*one.subscription.name).collect();
        assert_eq!(held, sorted);
    }
    bench.snapshot();
    bench.remove(Kind::InMemoryChannel, "c");
    assert_eq!(bench.publish(), ["InMemoryChannel c no more"]);
    assert_eq!(bench.snapshot().expect("one"), [""; 0]);
    assert!(bench.publisher.entries.is_empty(), "nothing is kept of what is gone");
}

fn job_sink() -> (Kind, Value) {
    let object = json!({
        "metadata": {"name": "j", "namespace": "ns", "uid": "j-1", "generation": 2},
        "spec": {"job": {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}}},
        "status": {"observedGeneration": 2, "address": {"url": "http://x", "audience": "jobs"}},
    });
    (Kind::JobSink, object)
}

fn integration_sink(spec: Value) -> (Kind, Value) {
    let object = json!({
        "metadata": {"name": "i", "namespace": "ns", "uid": "i-1", "generation": 3}, "spec": spec,
        "status": {"observedGeneration": 3, "address": {"url": "http://x"}},
    });
    (Kind::IntegrationSink, object)
}

#[test]
fn sinks_are_handed_over_and_told_at_once() {
    let mut bench = Bench::new(&[job_sink(), integration_sink(json!({"log": {"level": "WARN"}}))]);
    assert_eq!(bench.publish(), ["JobSink j 2", "IntegrationSink i 3"]);
    let now = |bench: &Bench| bench.snapshots.borrow().clone().expect("one");
    let handed = now(&bench);
    let jobs = handed.job_sink("ns", "j").expect("there");
    assert_eq!((jobs.object.uid(), jobs.guard.audience()), ("j-1", Some("jobs")));
    assert_eq!(handed.log_sink("ns", "i").expect("there").log.level.as_deref(), Some("WARN"));
    // One into a cloud is nobody's, and neither is one that is going.
    let (kind, object) = integration_sink(json!({"aws": {"s3": {"arn": "a", "region": "r"}}}));
    bench.put(kind, object);
    let (kind, mut object) = job_sink();
    object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    bench.put(kind, object);
    assert_eq!(bench.publish(), ["JobSink j no more", "IntegrationSink i no more"]);
    assert!(now(&bench).job_sink("ns", "j").is_none() && now(&bench).log_sink("ns", "i").is_none());
    bench.remove(Kind::JobSink, "j");
    assert_eq!(bench.publish(), ["JobSink j no more"]);
}

#[test]
fn who_may_send_to_a_sink_follows_the_feature_and_the_policies() {
    let policies = json!([{"name": "p", "apiVersion": "eventing.knative.dev/v1alpha1"}]);
    let with_policies = |(kind, mut object): (Kind, Value)| {
        object["status"]["policies"] = policies.clone();
        (kind, object)
    };
    let mut bench = Bench::new(&[with_policies(job_sink()), with_policies(integration_sink(json!({"log": {}})))]);
    let may_send_to = |bench: &Bench| {
        let now = bench.snapshots.borrow().clone().expect("one");
        let guards = [&now.job_sink("ns", "j").expect("it").guard, &now.log_sink("ns", "i").expect("it").guard];
        let event = knoll_event::Event::new("1", "/s", "t").expect("an event");
        let may_send =
            |guard: &Guard| guard.access().of("system:serviceaccount:other:me", guard.namespace()).has(&event).0;
        guards.map(may_send)
    };
    bench.publish();
    assert_eq!(may_send_to(&bench), [true; 2], "nobody has to say who they are");
    let feature = json!({
        "metadata": {"namespace": "knative-eventing", "name": "config-features"},
        "data": {"authentication-oidc": "enabled"},
    });
    bench.put(Kind::ConfigMap, feature);
    bench.publish();
    assert_eq!(may_send_to(&bench), [false; 2], "the policy is not there, so that its own namespace may");
    let from = "system:serviceaccount:other:*";
    let policy = json!({
        "metadata": {"namespace": "ns", "name": "p", "uid": "p-1"},
        "spec": {"from": [{"sub": from}]}, "status": {"from": [from]},
    });
    bench.put(Kind::EventPolicy, policy);
    bench.publish();
    assert_eq!(may_send_to(&bench), [true; 2], "the policy says so");
}

#[test]
fn what_concerns_everything_is_looked_at_a_few_at_a_time_and_after_what_changed() {
    let brokers = |more: &str| (0..200).map(|at| broker(&format!("{more}{at:03}"))).collect::<Vec<_>>();
    let mut bench = Bench::new(&brokers("b"));
    bench.publish();
    let handed = bench.addressables();
    bench.adopt(&handed);
    let features = |data: Value| {
        (
            Kind::ConfigMap,
            json!({"metadata": {"name": "config-features", "namespace": "knative-eventing"}, "data": data}),
        )
    };
    let (kind, map) = features(json!({"authentication-oidc": "enabled"}));
    bench.put(kind, map);
    let (kind, object) = broker("changed");
    bench.put(kind, object);
    let mut seen = Vec::new();
    while bench.publisher.due().is_some() {
        let before = bench.addressables();
        bench.publish();
        let after = bench.addressables();
        let is_as_before = |one: &Arc<Addressable>| before.iter().any(|other| Arc::ptr_eq(one, other));
        seen.push(after.iter().filter(|one| !is_as_before(one)).count());
        let has_changed = after.iter().any(|one| &*one.name().name == "changed");
        assert!(has_changed, "what changed comes first");
    }
    assert_eq!(seen, [TOGETHER, TOGETHER, TOGETHER, 201 - 3 * TOGETHER]);
}

#[test]
fn a_snapshot_says_whether_it_misses_something() {
    let is_complete = |bench: &Bench| bench.snapshots.borrow().as_ref().map(Topology::is_complete);
    let strange = Key::new("ns", "strange");
    let mut bench = Bench::new(&[broker("a")]);
    bench.world.note_unreadable(Kind::Trigger, strange.clone());
    bench.publish();
    assert_eq!(is_complete(&bench), Some(false));
    bench.apply(Change::Gone(Kind::Trigger, strange));
    bench.publish();
    assert_eq!((is_complete(&bench), bench.publisher.due()), (Some(true), None));
    // Until the configuration can be used, it may be what a Trigger is missing for.
    let data = json!({"authentication-oidc": "perhaps"});
    bench.put(
        Kind::ConfigMap,
        json!({"metadata": {"name": "config-features", "namespace": "knative-eventing"}, "data": data}),
    );
    bench.publish();
    assert_eq!(is_complete(&bench), Some(false));
}
