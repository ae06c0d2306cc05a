//! What tests of Eventing's controllers begin with.

use std::{collections::BTreeMap, sync::Arc};

use knoll_api::{
    Key, Kind,
    config::{Data, eventing::EventingFeatures},
};
use serde_json::Value;

use crate::{
    Carried, Observation, Plan, Row, Want,
    check::{Cluster, planned},
};

/// Configuration of Brokers: the one that comes with Eventing, one of another kind of channel, and one that says nothing.
pub(super) const CONFIG: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: config-br-default-channel, namespace: knative-eventing}
data: {channel-template-spec: "{apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel}"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kafka, namespace: knative-eventing}
data: {channel-template-spec: "{apiVersion: messaging.knative.dev/v1beta1, kind: KafkaChannel}"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: empty, namespace: knative-eventing}
"#;

/// A cluster of these objects, of which the data plane carries out those that are named.
#[track_caller]
pub(super) fn cluster(fixtures: &[&str], carried: &[(Kind, &str)]) -> Cluster {
    let mut cluster = Cluster::of(CONFIG);
    fixtures.iter().for_each(|fixture| cluster.add(fixture));
    carried.iter().for_each(|(kind, name)| carry(&mut cluster, *kind, name));
    cluster
}

/// The data plane carries the object out as it is now.
#[track_caller]
pub(super) fn carry(cluster: &mut Cluster, kind: Kind, name: &str) {
    let key = Key::new("default", name);
    let meta = cluster.world.meta(kind, &key).expect("what is carried out is there");
    let carried = Carried {
        uid: meta.uid.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
        problem: None,
    };
    tell(cluster, kind, key, carried);
}

/// The data plane does not carry the object out as it is now, and says why.
#[track_caller]
pub(super) fn refuse(cluster: &mut Cluster, kind: Kind, name: &str, why: &str) {
    let key = Key::new("default", name);
    carry(cluster, kind, name);
    let carried = cluster.world.observed.carried[&(kind, key.clone())].clone();
    tell(cluster, kind, key, Carried { problem: Some(why.to_owned()), ..carried });
}

fn tell(cluster: &mut Cluster, kind: Kind, key: Key, carried: Carried) {
    let changed = cluster.world.observe(Observation::Carries(BTreeMap::from([((kind, key), Some(carried))])));
    cluster.changes.extend(changed);
}

/// Sets a feature, beside those that are set.
pub(super) fn feature(cluster: &mut Cluster, key: &str, value: &str) {
    let mut bundle = cluster.world.eventing.as_ref().clone();
    let one = EventingFeatures::parse(&Data::from([(key.to_owned(), value.to_owned())])).expect("a feature");
    let set = &mut bundle.features;
    match key {
        "transport-encryption" => set.transport_encryption = one.transport_encryption,
        "authentication-oidc" => set.oidc_authentication = one.oidc_authentication,
        "cross-namespace-event-links" => set.cross_namespace_event_links = one.cross_namespace_event_links,
        "kreference-mapping" => set.kreference_mapping = one.kreference_mapping,
        "kreference-group" => set.kreference_group = one.kreference_group,
        _ => panic!("no test needs {key}"),
    }
    cluster.world.eventing = Arc::new(bundle);
}

/// The status that a plan writes.
#[track_caller]
pub(super) fn status(plan: &Plan) -> Value {
    let found = plan.wants.iter().find_map(|want| match want {
        Want::Status(object) => Some(object.to_json()["status"].clone()),
        _ => None,
    });
    found.expect("the plan writes a status")
}

/// Conditions that a plan writes and that do not hold, a line each.
#[track_caller]
pub(super) fn unhappy(row: &Row, key: &str, cluster: &Cluster) -> String {
    let status = status(&planned(row, key, cluster));
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let lines = conditions.iter().filter(|condition| condition["status"] != "True").map(|condition| {
        let (type_, status) = (text(condition, "type"), text(condition, "status"));
        let line = format!("{type_}={status} {} {}", text(condition, "reason"), text(condition, "message"));
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}
