//! Kinds that are not served, and controllers that wait for nobody else's.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use http::Method;
use knoll_api::{Key, Kind};
use serde_json::json;

use crate::{Fake, bound_pods, cluster, deployment, is_ready, kubelet, service_at_zero, start};

/// Not served: these kinds, while the flag is up.
pub(crate) fn without(fake: &Fake, plurals: &'static [&'static str]) -> Arc<AtomicBool> {
    let absent = Arc::new(AtomicBool::new(true));
    let flag = absent.clone();
    fake.set_fault(move |_, path, _| {
        let named = plurals.iter().any(|plural| path.contains(&format!("knative.dev/v1/{plural}")));
        (named && flag.load(SeqCst)).then_some((404, "NotFound"))
    });
    absent
}

#[tokio::test(start_paused = true)]
async fn an_absent_kind_turns_its_controllers_off_until_it_appears() {
    let fake = cluster();
    let absent = without(&fake, &["services", "routes"]);
    let running = start(&fake);
    let _kubelet = kubelet(&fake);
    fake.put(Kind::Deployment, deployment(2));
    fake.until("controllers of other kinds go on", |fake| bound_pods(fake) == 2).await;
    fake.edit(Kind::Deployment, &Key::new("a", "d"), |d| d["spec"]["replicas"] = 0.into());
    fake.until("none", |fake| fake.all(Kind::Pod).is_empty()).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let rests = |name: &str| {
        let dump = running.inspect.dump();
        let controllers = dump["controllers"].as_array().cloned().unwrap_or_default();
        controllers.into_iter().find(|one| one["name"] == name).map(|one| one["rests"].clone()).unwrap_or_default()
    };
    assert!(rests("service").as_str().is_some_and(|why| why.contains("is not served")), "{}", rests("service"));
    assert!(rests("deployment").is_null());

    service_at_zero(&fake);
    absent.store(false, SeqCst);
    fake.until("the service is ready once its kinds are there", |fake| is_ready(fake, Kind::Service, "hello")).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(rests("service").is_null());
}

#[tokio::test(start_paused = true)]
async fn a_controller_plans_once_its_own_kinds_are_listed() {
    let fake = cluster();
    fake.set_fault(|_, path, _| (path.contains("serving.knative.dev")).then_some((500, "InternalError")));
    let running = start(&fake);
    fake.put(
        Kind::Deployment,
        json!({"metadata": {"namespace": "a", "name": "d"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
    );
    fake.until("a bound pod, whatever other kinds do", |fake| bound_pods(fake) == 1).await;
    fake.set_fault(|_: &Method, _, _| None);
    service_at_zero(&fake);
    fake.until("the service is ready", |fake| is_ready(fake, Kind::Service, "hello")).await;
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_configuration_reaches_everybody_a_few_at_a_time() {
    let fake = cluster();
    let running = start(&fake);
    for at in 0..300 {
        fake.put(
            Kind::Ingress,
            json!({"metadata": {"namespace": "a", "name": format!("i{at}"), "annotations": {
                "networking.knative.dev/ingress.class": "knoll.ingress.networking.knative.dev"}}, "spec": {"rules": []}}),
        );
    }
    let ready = |fake: &Fake| (0..300).all(|at| is_ready(fake, Kind::Ingress, &format!("i{at}")));
    fake.until("every Ingress is ready", ready).await;
    let planned = running.counters.read().planned;
    fake.put(
        Kind::ConfigMap,
        json!({"metadata": {"namespace": "knative-serving", "name": "config-network"}, "data": {"http-protocol": "Redirected"}}),
    );
    let mut most = 0;
    while running.counters.read().planned < planned + 300 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        let metrics = running.inspect.metrics();
        let queued = metrics.iter().find(|metric| metric.name == "queue_keys").expect("it is shown");
        most = queued.samples.iter().map(|sample| sample.value as u64).max().unwrap_or_default().max(most);
    }
    assert!(most <= 128, "{most} keys in line at once");
}
