//! Knative Services under harm: traffic always adds up, and in the end every service is ready, or says which Revision is missing.

use jiff::Timestamp;
use knoll_api::{Key, Kind, Object};
use knoll_plan::Propagation;
use knoll_sim::{Cluster, Fault, Seed, Simulation, each_seed};
use serde_json::{Value, json};

fn service(name: &str, image: usize) -> Value {
    let container =
        json!({"name": "user-container", "image": format!("example.com/i{image}"), "ports": [{"containerPort": 8080}]});
    json!({"metadata": {"namespace": "a", "name": name}, "spec": {
        "template": {"metadata": {}, "spec": {
            "containerConcurrency": 0, "timeoutSeconds": 300, "containers": [container]}},
        "traffic": [{"latestRevision": true, "percent": 100}]}})
}

fn begin(cluster: &mut Cluster, _: &mut Seed, now: Timestamp) {
    cluster.put(Kind::Service, service("hello", 0), now);
}

fn edit(cluster: &mut Cluster, seed: &mut Seed, now: Timestamp) {
    let hello = Key::new("a", "hello");
    match seed.below(6) {
        0..2 => cluster.edit(Kind::Service, &hello, now, |service| {
            let image = format!("example.com/i{}", seed.below(3));
            let template = &mut service["spec"]["template"]["spec"];
            template["containers"][0]["image"] = image.into();
            template["containerConcurrency"] = seed.pick(&[0, 60, 200]).copied().into();
        }),
        2 => cluster.edit(Kind::Service, &hello, now, |service| {
            service["spec"]["traffic"] = json!([
                {"revisionName": "hello-00001", "percent": 30, "tag": "old"},
                {"latestRevision": true, "percent": 70},
            ]);
        }),
        3 => cluster.edit(Kind::Service, &hello, now, |service| {
            service["spec"]["traffic"] = json!([{"latestRevision": true, "percent": 100}]);
        }),
        4 => {
            let other = Key::new("a", "other");
            if cluster.get(Kind::Service, &other).is_some() {
                let propagation = if seed.once_in(2) { Propagation::Foreground } else { Propagation::Background };
                cluster.delete(Kind::Service, &other, propagation, now);
            } else {
                cluster.put(Kind::Service, service("other", 1), now);
            }
        }
        _ => {
            let pods: Vec<Key> = cluster.all(Kind::Pod).map(Object::key).collect();
            if let Some(pod) = seed.pick(&pods) {
                cluster.delete(Kind::Pod, pod, Propagation::Background, now);
            }
        }
    }
}

fn check(number: u64) {
    let mut simulation = Simulation::new(number, begin, edit);
    simulation.run(1500);
    for object in simulation.cluster.all(Kind::Service) {
        let value = object.to_json();
        let conditions = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().find(|c| c["type"] == "Ready").expect("a condition");
        // A generation that was edited again before it was seen has no Revision, and users may name it all the same.
        let there = |name: &str| simulation.cluster.get(Kind::Revision, &Key::new("a", name)).is_some();
        let targets = value["spec"]["traffic"].as_array().into_iter().flatten();
        let whole = targets.filter_map(|target| target["revisionName"].as_str()).all(there);
        let (status, reason) = if whole { ("True", &Value::Null) } else { ("False", &json!("RevisionMissing")) };
        let as_due = ready["status"] == status && &ready["reason"] == reason;
        assert!(as_due, "seed {number}: {} has {conditions:#?}", object.key());
    }
    let owned = |object: &Object| object.meta().owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
    let services: Vec<Key> = simulation.cluster.all(Kind::Service).map(Object::key).collect();
    for object in simulation.cluster.all(Kind::Route).filter(|route| owned(route)) {
        assert!(services.contains(&object.key()), "seed {number}: {} outlived its service", object.key());
    }
}

#[test]
fn services_survive_harm() {
    each_seed(400, &[], check);
}

/// Whether a run of one of the first seeds finds the fault, and says so.
fn finds(fault: Fault, words: &str) -> bool {
    (0..40).any(|number| {
        let run = || Simulation::with(fault, number, begin, edit).run(1500);
        let caught = std::panic::catch_unwind(run);
        let message = caught.err().and_then(|payload| payload.downcast::<String>().ok());
        message.is_some_and(|text| text.contains(words))
    })
}

/// What finds nothing proves nothing.
#[test]
fn a_planted_lost_wake_up_is_found() {
    assert!(finds(Fault::LostWake, "not at rest"), "40 seeds came to rest although wake-ups were lost");
}

#[test]
fn a_planted_shrinking_in_panic_is_found() {
    assert!(finds(Fault::ShrinksInPanic, "panics with"), "40 seeds did not see a revision shrink while it panics");
}
