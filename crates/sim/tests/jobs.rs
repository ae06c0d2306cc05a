//! Jobs under harm: never more pods at a time than asked for, each counted once, and an end.

use jiff::Timestamp;
use knoll_api::{Key, Kind, Object, Resource, k8s_openapi::api::core::v1::Pod, labels::batch};
use knoll_plan::Propagation;
use knoll_sim::{Cluster, Seed, Simulation, each_seed};
use serde_json::json;

const NAMES: [&str; 3] = ["plain", "indexed", "each"];

fn begin(cluster: &mut Cluster, seed: &mut Seed, now: Timestamp) {
    for name in NAMES {
        let labels = json!({"job": name});
        let mut spec = json!({
            "completions": 1 + seed.below(5), "parallelism": 1 + seed.below(3), "backoffLimit": 1000,
            "completionMode": "NonIndexed", "manualSelector": true, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]},
            },
        });
        if name != "plain" {
            spec["completionMode"] = "Indexed".into();
        }
        if name == "each" {
            spec["backoffLimitPerIndex"] = 2.into();
        }
        cluster.put(Kind::Job, json!({"metadata": {"namespace": "a", "name": name}, "spec": spec}), now);
    }
}

fn edit(cluster: &mut Cluster, seed: &mut Seed, now: Timestamp) {
    let key = Key::new("a", *seed.pick(&NAMES).expect("there are some"));
    match seed.below(4) {
        0 => cluster.edit(Kind::Job, &key, now, |job| job["spec"]["parallelism"] = (1 + seed.below(3)).into()),
        1 => cluster.edit(Kind::Job, &key, now, |job| job["spec"]["suspend"] = seed.once_in(3).into()),
        _ => {
            // What has not ended: what has is the tests' own count.
            let running =
                cluster.all(Kind::Pod).filter(|pod| matches!(pod, Object::Pod(pod) if phase(pod) == "Running"));
            let running: Vec<Key> = running.map(Object::key).collect();
            if let Some(pod) = seed.pick(&running) {
                cluster.delete(Kind::Pod, pod, Propagation::Background, now);
            }
        }
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn check(number: u64) {
    let mut simulation = Simulation::new(number, begin, edit);
    simulation.run(1500);
    for object in simulation.cluster.all(Kind::Job) {
        let Object::Job(job) = object else { continue };
        let (spec, status) = (job.spec.as_ref().expect("a spec"), job.status.clone().unwrap_or_default());
        let of = format!("seed {number}: {} {status:?}", job.name());
        let pods = simulation.cluster.all(Kind::Pod).filter_map(|object| match object {
            Object::Pod(pod) if pod.is_controlled_by(job.as_ref()) => Some(pod.clone()),
            _ => None,
        });
        let pods: Vec<_> = pods.collect();
        let ended = |word: &str| pods.iter().filter(|pod| phase(pod) == word).count();
        let held = || {
            pods.iter().filter(|pod| {
                pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == batch::JOB_TRACKING)
            })
        };
        let is = |type_: &str| {
            status.conditions.iter().flatten().any(|condition| condition.type_ == type_ && condition.status == "True")
        };
        // None is counted twice. One that is let go because too many run, or none is to, is not counted at all, even if it
        // succeeds because a crash came before its deletion (seed 148): its work is done again.
        let succeeded = usize::try_from(status.succeeded.unwrap_or_default()).expect("a count");
        assert!(succeeded <= ended("Succeeded"), "{of}");
        // The last that failed for an index waits for the next to know of it.
        let failed = usize::try_from(status.failed.unwrap_or_default()).expect("a count");
        assert!(failed + held().count() >= ended("Failed"), "{of}");
        assert_eq!(status.active, None, "{of}");
        if spec.suspend == Some(true) && !is("Complete") && !is("Failed") {
            assert!(is("Suspended"), "{of}");
            continue;
        }
        assert!(is("Complete") != is("Failed"), "{of}");
        assert_eq!(is("Complete"), status.succeeded == spec.completions, "{of}");
        assert!(!is("Failed") || job.name() == "each", "{of}");
        assert_eq!(held().count(), 0, "{of}");
    }
}

#[test]
fn jobs_survive_harm() {
    each_seed(100, &[102, 148], check);
}
