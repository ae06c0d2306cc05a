//! What a writer may leave out: one file a kind. Each fills in the same values twice over without change.

pub(crate) mod cron_job;
pub(crate) mod custom_resource_definition;
pub(crate) mod daemon_set;
pub(crate) mod deployment;
pub(crate) mod endpoints;
pub(crate) mod horizontal_pod_autoscaler;
pub(crate) mod job;
pub(crate) mod namespace;
pub(crate) mod network_policy;
pub(crate) mod pod;
pub(crate) mod priority_class;
pub(crate) mod rbac;
pub(crate) mod replica_set;
pub(crate) mod replication_controller;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod stateful_set;
pub(crate) mod storage;
pub(crate) mod webhook;

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
