//! Eventing's kinds: one file a kind, and one a shape that several of them share.

pub(super) mod api_server_source;
mod aws;
pub(super) mod broker;
pub(super) mod channel;
pub(super) mod container_source;
mod delivery;
mod destination;
pub(super) mod event_policy;
pub(super) mod event_transform;
pub(super) mod event_type;
mod filter;
pub(super) mod in_memory_channel;
pub(super) mod integration_sink;
pub(super) mod integration_source;
pub(super) mod job_sink;
pub(super) mod parallel;
pub(super) mod ping_source;
mod reference;
pub(super) mod request_reply;
pub(super) mod sequence;
pub(super) mod sink_binding;
mod source;
pub(super) mod subscription;
mod template;
pub(super) mod trigger;

use serde_json::Value;

use super::json;

/// The namespace an object is in.
fn namespace(object: &Value) -> &str {
    json::text(json::member(object, "metadata"), "namespace")
}

/// Labels or annotations of an object, made when absent; nothing when they have another type.
fn of_metadata<'a>(object: &'a mut Value, part: &str) -> Option<&'a mut Value> {
    json::object_mut(object, "metadata").and_then(|metadata| json::object_mut(metadata, part))
}
