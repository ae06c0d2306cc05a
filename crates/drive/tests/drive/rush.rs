//! What a waiting request waits for goes first.

use std::time::Duration;

use knoll_api::{Key, Kind};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    Running, bound_pods, cluster, deployment,
    fake::{Fake, key_of},
    is_ready, service_at_zero, start,
};

/// A service without instances, in the middle of being woken: its pod is bound, and its node has not started it yet.
async fn waking() -> (Fake, Running, Vec<String>) {
    let fake = cluster();
    let running = start(&fake);
    service_at_zero(&fake);
    fake.until("the service is ready at zero", |fake| is_ready(fake, Kind::Service, "hello")).await;
    // What is still to be done is done.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = fake.requests().len();
    running.wakes.send(Key::new("a", "hello-00001")).await.expect("it listens");
    fake.until("an instance is bound", |fake| bound_pods(fake) == 1).await;
    let requests = fake.requests().split_off(before);
    (fake, running, requests)
}

fn is_reported(fake: &Fake) -> bool {
    let deployments = fake.all(Kind::Deployment);
    deployments.iter().any(|deployment| deployment["status"]["replicas"] == 1)
}

fn events_of(fake: &Fake, reason: &str) -> usize {
    fake.events().iter().filter(|event| event["reason"] == reason).count()
}

#[tokio::test(start_paused = true)]
async fn until_an_instance_is_there_only_its_chain_is_written() {
    let (fake, _running, requests) = waking().await;
    let writes: Vec<&String> = requests.iter().filter(|request| !request.starts_with("GET ")).collect();
    assert_eq!(writes.len(), 4, "scale, replica set, pod, binding: {writes:#?}");

    fake.put(Kind::Deployment, deployment(1));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!is_reported(&fake) && events_of(&fake, "SuccessfulCreate") == 0);
    assert_eq!(fake.all(Kind::ReplicaSet).len(), 1, "another Deployment has time");

    let before = Instant::now();
    let pod = key_of(&fake.all(Kind::Pod)[0]);
    fake.edit(Kind::Pod, &pod, |pod| {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        pod["status"] = json!({"phase": "Running", "podIP": "10.244.0.2", "conditions": ready});
    });
    fake.until("the rest is done", |fake| {
        let events = ["ScalingReplicaSet", "SuccessfulCreate", "Scheduled"];
        is_reported(fake)
            && fake.all(Kind::ReplicaSet).len() == 2
            && events.iter().all(|reason| events_of(fake, reason) > 0)
    })
    .await;
    assert_eq!(before.elapsed(), Duration::ZERO, "as soon as the instance was there");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_does_not_come_holds_others_up_for_seconds_at_most() {
    let (fake, running, _) = waking().await;
    let before = Instant::now();
    fake.put(Kind::Deployment, deployment(1));
    // The request goes on waiting, and its gateway on asking.
    let asking = tokio::spawn(async move {
        loop {
            running.wakes.send(Key::new("a", "hello-00001")).await.expect("it listens");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    fake.until("the other Deployment has its pod", |fake| bound_pods(fake) == 2).await;
    assert!(before.elapsed() <= Duration::from_secs(3), "after {:?}", before.elapsed());
    fake.until("what was done is reported", |fake| is_reported(fake) && events_of(fake, "SuccessfulCreate") > 1).await;
    assert!(before.elapsed() <= Duration::from_secs(10), "after {:?}", before.elapsed());
    asking.abort();
}
