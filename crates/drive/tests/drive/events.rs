//! What the data plane of events is told, and what is made of what it says.

use std::sync::atomic::Ordering::SeqCst;

use knoll_api::{Key, Kind};
use serde_json::{Value, json};

use super::{Fake, Running, absence::without, bound_pods, cluster, deployment, start};

const NAMESPACE: &str = "a";
const SYSTEM: &str = "knative-eventing";
const CONFIG: &str = "config-br-default-channel";

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
    let names: Vec<_> = first.addressables().flat_map(|of| of.subscribed()).map(|of| &*of.subscription.name).collect();
    assert_eq!(names, ["t"], "the first snapshot is of all there is");
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
