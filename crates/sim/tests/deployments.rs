//! Deployments under harm: never more pods than asked for, and the right ones in the end.

use jiff::Timestamp;
use knoll_api::{Key, Kind, Object, Resource};
use knoll_plan::Propagation;
use knoll_sim::{Cluster, Seed, Simulation, each_seed};
use serde_json::{Value, json};

/// Seeds that once showed a fault: 18 ran old and new pods of a `Recreate` together.
const BAD: &[u64] = &[18];

fn strategy(seed: &mut Seed) -> Value {
    match seed.below(4) {
        0 => json!({"type": "Recreate"}),
        1 => json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
        2 => json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
        _ => json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "50%", "maxUnavailable": "50%"}}),
    }
}

fn begin(cluster: &mut Cluster, seed: &mut Seed, now: Timestamp) {
    for name in ["one", "two"] {
        let template =
            json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i0"}]}});
        let spec = json!({
            "replicas": seed.below(5), "strategy": strategy(seed), "template": template,
            "selector": {"matchLabels": {"app": name}},
        });
        cluster.put(Kind::Deployment, json!({"metadata": {"namespace": "a", "name": name}, "spec": spec}), now);
        let spec = json!({"selector": {"app": name}, "ports": [{"port": 80}]});
        cluster.put(Kind::CoreService, json!({"metadata": {"namespace": "a", "name": name}, "spec": spec}), now);
    }
}

fn edit(cluster: &mut Cluster, seed: &mut Seed, now: Timestamp) {
    let key = Key::new("a", if seed.once_in(2) { "one" } else { "two" });
    match seed.below(5) {
        0 | 1 => cluster.edit(Kind::Deployment, &key, now, |d| d["spec"]["replicas"] = seed.below(6).into()),
        2 => cluster.edit(Kind::Deployment, &key, now, |d| {
            d["spec"]["template"]["spec"]["containers"][0]["image"] = format!("i{}", seed.below(4)).into();
        }),
        3 => cluster.edit(Kind::Deployment, &key, now, |d| d["spec"]["strategy"] = strategy(seed)),
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
    for object in simulation.cluster.all(Kind::Deployment) {
        let Object::Deployment(deployment) = object else { continue };
        let spec = deployment.spec.as_ref().expect("a spec");
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).expect("not negative");
        let image = &spec.template.spec.as_ref().expect("a pod").containers[0].image;
        let pods: Vec<_> = simulation
            .cluster
            .all(Kind::Pod)
            .filter_map(|object| match object {
                Object::Pod(pod) if pod.label("app") == Some(deployment.name()) => pod.spec.clone(),
                _ => None,
            })
            .collect();
        assert_eq!(pods.len(), wanted, "seed {number}: pods of {}", deployment.name());
        assert!(pods.iter().all(|pod| pod.containers[0].image == *image), "seed {number}: {pods:?}");
        let Some(Object::Endpoints(endpoints)) = simulation.cluster.get(Kind::Endpoints, &deployment.key()) else {
            panic!("seed {number}: no endpoints of {}", deployment.name())
        };
        let ready: usize = endpoints.subsets.iter().flatten().map(|s| s.addresses.as_ref().map_or(0, Vec::len)).sum();
        assert_eq!(ready, wanted, "seed {number}: addresses of {}", deployment.name());
    }
}

#[test]
fn deployments_survive_harm() {
    each_seed(400, BAD, check);
}
