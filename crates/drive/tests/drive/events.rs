//! What the data plane of events is told, and what is made of what it says.

use std::sync::atomic::Ordering::SeqCst;

use knoll_api::{Key, Kind, Object};
use knoll_broker::Topology;
use knoll_sources::{Id, Sources};
use serde_json::{Value, json};

use super::{Fake, Running, absence::without, bound_pods, cluster, deployment, start};

const NAMESPACE: &str = "a";
const SYSTEM: &str = "knative-eventing";
const CONFIG: &str = "config-br-default-channel";

/// Waits for what no object shows.
async fn reached(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(3600), waiting).await;
    assert!(waited.is_ok(), "never: {what}");
}

fn broker() -> Value {
    json!({
        "metadata": {
            "namespace": NAMESPACE, "name": "b", "generation": 1,
            "annotations": {"eventing.knative.dev/broker.class": "MTChannelBasedBroker"},
        },
        "spec": {"config": {"apiVersion": "v1", "kind": "ConfigMap", "namespace": SYSTEM, "name": CONFIG}},
    })
}

fn trigger() -> Value {
    json!({
        "metadata": {"namespace": NAMESPACE, "name": "t", "generation": 1},
        "spec": {"broker": "b", "subscriber": {"uri": "http://subscriber.example/"}},
    })
}

fn is_ready(fake: &Fake, kind: Kind, name: &str) -> bool {
    let object = fake.get(kind, &Key::new(NAMESPACE, name)).unwrap_or_default();
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Acts on whatever is handed over.
fn adopt(running: &mut Running) {
    let mut topology = running.topology.clone();
    let adopted = running.adopted.clone();
    tokio::spawn(async move {
        loop {
            let now = topology.borrow_and_update().clone();
            now.iter().flat_map(|now| now.addressables()).for_each(|addressable| adopted.note(addressable));
            if topology.changed().await.is_err() {
                return;
            }
        }
    });
}

#[tokio::test(start_paused = true)]
async fn brokers_and_triggers_are_ready_once_the_data_plane_acts_on_them() {
    let fake = cluster();
    let template = "apiVersion: messaging.knative.dev/v1\nkind: InMemoryChannel\n";
    let data = json!({"channel-template-spec": template});
    fake.put(Kind::ConfigMap, json!({"metadata": {"namespace": SYSTEM, "name": CONFIG}, "data": data}));
    fake.put(Kind::Broker, broker());
    fake.put(Kind::Trigger, trigger());
    let mut running = start(&fake);
    let handed = running.topology.wait_for(|topology| topology.is_some()).await.expect("it runs").clone();
    let first = handed.expect("a snapshot");
    assert_eq!((names(&first), first.is_complete()), (vec!["t".to_owned()], true), "it is of all there is");
    fake.until("the broker has an address", |fake| {
        fake.get(Kind::Broker, &Key::new(NAMESPACE, "b")).is_some_and(|broker| broker["status"]["address"].is_object())
    })
    .await;
    assert!(!is_ready(&fake, Kind::Broker, "b"), "nobody acts on it");
    adopt(&mut running);
    fake.until("both are ready", |fake| is_ready(fake, Kind::Broker, "b") && is_ready(fake, Kind::Trigger, "t")).await;
    fake.lose(Kind::Broker, &Key::new(NAMESPACE, "b"));
    running
        .topology
        .wait_for(|topology| topology.as_ref().is_some_and(|now| now.addressables().next().is_none()))
        .await
        .expect("it runs");
    fake.until("its trigger is not", |fake| !is_ready(fake, Kind::Trigger, "t")).await;
    drop(running.stop);
}

/// What the data plane is not told of, it deletes.
#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_served_says_nothing_of_the_events_there_are() {
    let fake = cluster();
    let absent = without(&fake, &["brokers"]);
    fake.put(Kind::Broker, broker());
    let mut running = start(&fake);
    fake.put(Kind::Deployment, deployment(1));
    fake.until("others are looked after", |fake| bound_pods(fake) == 1).await;
    assert!(running.topology.borrow().is_none(), "there is no snapshot of nothing");
    absent.store(false, SeqCst);
    let handed = running.topology.wait_for(|topology| topology.is_some()).await.expect("it runs").clone();
    assert_eq!(handed.map_or(0, |first| first.addressables().count()), 1);
    drop(running.stop);
}

/// A source that was stopped begins anew, and has missed what happened meanwhile.
#[tokio::test(start_paused = true)]
async fn a_source_whose_kind_is_not_served_for_a_moment_goes_on() {
    let fake = cluster();
    fake.put(
        Kind::PingSource,
        json!({
            "metadata": {"namespace": NAMESPACE, "name": "p", "uid": "u", "generation": 1},
            "spec": {"schedule": "* * * * *", "sink": {"uri": "http://sink.example/"}},
        }),
    );
    let absent = without(&fake, &["pingsources"]);
    absent.store(false, SeqCst);
    let mut running = start(&fake);
    let id = Id::new(Kind::PingSource, NAMESPACE, "p");
    let of = |sources: &Option<Sources>| sources.as_ref().and_then(|sources| sources.get(&id).cloned());
    let first = running.sources.wait_for(|sources| of(sources).is_some()).await.expect("it runs").clone();
    absent.store(true, SeqCst);
    fake.hang_up();
    let counters = running.counters.clone();
    reached("that it is not served is known", || counters.read().absent > 0).await;
    fake.put(Kind::Deployment, deployment(1));
    fake.until("others are looked after", |fake| bound_pods(fake) == 1).await;
    assert!(of(&running.sources.borrow()).is_some(), "it goes on");
    let listed = counters.read().listed;
    absent.store(false, SeqCst);
    reached("it is served again", || counters.read().listed > listed).await;
    fake.edit(Kind::Deployment, &Key::new(NAMESPACE, "d"), |d| d["spec"]["replicas"] = 2.into());
    fake.until("the loop went on", |fake| bound_pods(fake) == 2).await;
    let (first, last) = (of(&first).expect("it was there"), of(&running.sources.borrow()).expect("it is there"));
    assert!(std::sync::Arc::ptr_eq(&first, &last), "nothing of it was told again");
    drop(running.stop);
}

/// What the controller of a channel does not find it takes away, and so does the collector of what has no owner.
#[tokio::test(start_paused = true)]
async fn kinds_that_are_not_served_take_neither_subscribers_nor_channels_with_them() {
    for kinds in [&["subscriptions"][..], &["channels"]] {
        let fake = cluster();
        let channel = Key::new(NAMESPACE, "c");
        let subscribers =
            json!([{"name": "s", "uid": "u", "generation": 1, "subscriberUri": "http://subscriber.example/"}]);
        fake.put(
            Kind::InMemoryChannel,
            json!({
                "metadata": {"namespace": NAMESPACE, "name": "c", "ownerReferences": [{
                    "apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": "c", "uid": "of-the-channel"}]},
                "spec": {"subscribers": subscribers},
            }),
        );
        fake.put(
            Kind::Channel,
            json!({
                "metadata": {"namespace": NAMESPACE, "name": "c", "uid": "of-the-channel", "generation": 1},
                "spec": {"channelTemplate": {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel"}},
                "status": {"channel": {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel", "name": "c",
                    "namespace": NAMESPACE}},
            }),
        );
        fake.put(
            Kind::Subscription,
            json!({
                "metadata": {"namespace": NAMESPACE, "name": "s", "uid": "u", "generation": 1},
                "spec": {"channel": {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": "c"},
                    "subscriber": {"uri": "http://subscriber.example/"}},
            }),
        );
        let absent = without(&fake, kinds);
        let running = start(&fake);
        fake.put(Kind::Deployment, deployment(1));
        fake.until("others are looked after", |fake| bound_pods(fake) == 1).await;
        // Nothing is left to be done by then: the clock stands still while there is.
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        let there = fake.get(Kind::InMemoryChannel, &channel);
        assert_eq!(there.map(|there| there["spec"]["subscribers"].clone()), Some(subscribers), "{kinds:?}");
        absent.store(false, SeqCst);
        fake.until("the channel is looked after", |fake| {
            fake.get(Kind::InMemoryChannel, &channel).is_some_and(|there| there["status"]["address"].is_object())
        })
        .await;
        let there = fake.get(Kind::InMemoryChannel, &channel).unwrap_or_default();
        assert_eq!(there["spec"]["subscribers"][0]["uid"], "u", "{kinds:?}");
        drop(running.stop);
    }
}

/// A Trigger loses its address by what is known, and not by what is not.
#[tokio::test(start_paused = true)]
async fn a_subscriber_whose_kind_is_not_served_for_a_moment_stays_where_it_was() {
    let fake = cluster();
    let template = "apiVersion: messaging.knative.dev/v1\nkind: InMemoryChannel\n";
    let data = json!({"channel-template-spec": template});
    fake.put(Kind::ConfigMap, json!({"metadata": {"namespace": SYSTEM, "name": CONFIG}, "data": data}));
    fake.put(Kind::Broker, broker());
    fake.put(Kind::CoreService, json!({"metadata": {"namespace": NAMESPACE, "name": "s"}, "spec": {}}));
    let mut trigger = trigger();
    trigger["spec"]["subscriber"] = json!({"ref": {"apiVersion": "v1", "kind": "Service", "name": "s"}});
    fake.put(Kind::Trigger, trigger);
    let mut running = start(&fake);
    adopt(&mut running);
    let status = |fake: &Fake| fake.get(Kind::Trigger, &Key::new(NAMESPACE, "t")).unwrap_or_default()["status"].clone();
    fake.until("it is ready", |fake| is_ready(fake, Kind::Trigger, "t")).await;
    let before = status(&fake);
    assert_eq!(before["subscriberUri"], "http://s.a.svc.cluster.local");

    fake.set_fault(|_, path, _| (path == "/api/v1/services").then_some((404, "NotFound")));
    fake.lose(Kind::CoreService, &Key::new(NAMESPACE, "s"));
    // It is asked for again after ten seconds.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert!(running.counters.read().absent > 0);
    assert_eq!(status(&fake), before);
    fake.set_fault(|_, _, _| None);
    fake.until("it is known that there is none", |fake| status(fake)["subscriberUri"].is_null()).await;
    drop(running.stop);
}

fn names(topology: &Topology) -> Vec<String> {
    topology.addressables().flat_map(|of| of.subscribed()).map(|of| of.subscription.name.to_string()).collect()
}

/// As a later version writes one, which this one cannot read.
fn strange(kind: Kind, name: &str) -> Value {
    let object = json!({"metadata": {"namespace": NAMESPACE, "name": name, "generation": 1}, "spec": 7});
    assert!(Object::from_json(kind, object.clone()).is_err());
    object
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_not_gone() {
    let fake = cluster();
    fake.put(Kind::Broker, broker());
    fake.put(Kind::Trigger, trigger());
    for (kind, name) in [(Kind::Trigger, "strange"), (Kind::Broker, "strange"), (Kind::InMemoryChannel, "strange")] {
        fake.put(kind, strange(kind, name));
    }
    let mut running = start(&fake);
    let first = running.topology.wait_for(|topology| topology.is_some()).await.expect("it runs").clone();
    let first = first.expect("a snapshot");
    assert_eq!((names(&first), first.is_complete()), (vec!["t".to_owned()], false));

    // What was known stays as it was, also where everything is listed again.
    let t = Key::new(NAMESPACE, "t");
    fake.edit(Kind::Trigger, &t, |trigger| trigger["spec"] = 7.into());
    fake.delete(Kind::Broker, &Key::new(NAMESPACE, "strange"));
    fake.lose(Kind::InMemoryChannel, &Key::new(NAMESPACE, "strange"));
    fake.edit(Kind::Trigger, &Key::new(NAMESPACE, "strange"), |it| it["spec"] = trigger()["spec"].clone());
    let both = |topology: &Option<Topology>| topology.as_ref().is_some_and(|now| names(now).len() == 2);
    let now = running.topology.wait_for(both).await.expect("it runs").clone();
    assert!(now.is_some_and(|now| !now.is_complete()), "one is still as nobody can read it");
    fake.delete(Kind::Trigger, &t);
    let rest = |topology: &Option<Topology>| {
        topology.as_ref().is_some_and(|now| now.is_complete() && names(now) == ["strange"])
    };
    running.topology.wait_for(rest).await.expect("it runs");
    drop(running.stop);
}

#[tokio::test(start_paused = true)]
async fn who_is_subscribed_stays_so_while_the_subscription_cannot_be_read() {
    let fake = cluster();
    let (channel, subscription) = (Key::new(NAMESPACE, "c"), Key::new(NAMESPACE, "s"));
    let subscribers =
        json!([{"name": "s", "uid": "u", "generation": 1, "subscriberUri": "http://subscriber.example/"}]);
    let object = json!({"metadata": {"namespace": NAMESPACE, "name": "c"}, "spec": {"subscribers": subscribers}});
    fake.put(Kind::InMemoryChannel, object);
    fake.put(Kind::Subscription, strange(Kind::Subscription, "s"));
    let running = start(&fake);
    let there = |fake: &Fake| fake.get(Kind::InMemoryChannel, &channel).unwrap_or_default();
    fake.until("the channel is looked after", |fake| there(fake)["status"]["address"].is_object()).await;
    assert_eq!(there(&fake)["spec"]["subscribers"], subscribers);
    fake.delete(Kind::Subscription, &subscription);
    fake.until("nobody is subscribed", |fake| there(fake)["spec"]["subscribers"].as_array().is_none_or(Vec::is_empty))
        .await;
    drop(running.stop);
}

/// Custom resources that say in their status where they take events are sinks as any other.
#[tokio::test(start_paused = true)]
async fn a_custom_resource_with_an_address_is_sent_to() {
    let fake = cluster();
    let to = json!({"ref": {"apiVersion": "example.com/v1", "kind": "Thing", "name": "x"}, "uri": "/in"});
    let source = |sink: &Value| {
        json!({"metadata": {"namespace": NAMESPACE, "name": "p", "generation": 1},
               "spec": {"schedule": "* * * * *", "sink": sink}})
    };
    fake.put(Kind::PingSource, source(&to));
    let running = start(&fake);
    let sink = |fake: &Fake| {
        let source = fake.get(Kind::PingSource, &Key::new(NAMESPACE, "p")).unwrap_or_default();
        let conditions = source["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let provided = conditions.into_iter().find(|one| one["type"] == "SinkProvided").unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&source["status"]["sinkUri"]), text(&provided["message"]))
    };
    fake.until("nobody serves it", |fake| sink(fake).1.contains("example.com/v1 is not served")).await;
    fake.serve("things", "Thing");
    fake.until("it is not there", |fake| sink(fake).1.contains("things.example.com \"x\" not found")).await;
    let thing = |status: Value| json!({"metadata": {"namespace": NAMESPACE, "name": "x"}, "status": status});
    fake.put_custom("things", thing(json!({"conditions": []})));
    fake.until("it has no address", |fake| sink(fake).1.contains("address not set for Kind = Thing")).await;
    for url in ["http://one.example", "http://other.example"] {
        fake.put_custom("things", thing(json!({"address": {"url": url}})));
        fake.until("it is sent to", |fake| sink(fake).0 == format!("{url}/in")).await;
    }
    // Nobody follows what nobody refers to any more, but for the garbage collector.
    fake.put(Kind::PingSource, source(&json!({"uri": "http://elsewhere.example"})));
    fake.until("it goes elsewhere", |fake| sink(fake).0 == "http://elsewhere.example").await;
    let mut left = 100;
    while fake.watching_customs("things") > 1 {
        assert!(left > 0, "it is watched");
        left -= 1;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        fake.put_custom("things", thing(json!({})));
    }
    drop(running.stop);
}
