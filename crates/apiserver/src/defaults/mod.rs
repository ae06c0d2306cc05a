//! What a writer may leave out: one file a kind. Each fills in the same values twice over without change.

pub mod cron_job;
pub mod custom_resource_definition;
pub mod daemon_set;
pub mod deployment;
pub mod endpoints;
pub mod horizontal_pod_autoscaler;
pub mod job;
pub mod namespace;
pub mod network_policy;
pub mod pod;
pub mod priority_class;
pub mod rbac;
pub mod replica_set;
pub mod replication_controller;
pub mod secret;
pub mod service;
pub mod stateful_set;
pub mod storage;
pub mod webhook;

use serde_json::{Map, Value};

/// The map under `spec`, made when absent.
fn spec(object: &mut Value) -> &mut Map<String, Value> {
    crate::object::map_at(object, "spec")
}

/// The elements of a list, to change.
fn each<'a>(map: &'a mut Map<String, Value>, key: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// A map that is there, to change.
fn inner<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(key).and_then(Value::as_object_mut)
}
