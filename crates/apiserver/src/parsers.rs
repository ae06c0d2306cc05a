//! What reads strangers' bytes without a request around it: for the fuzz targets, which need nothing else of a server.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    auth::TokenKey,
    authority::TokenOrder,
    label_selector as label,
    patches::json,
    resources::ResourceRegistry,
    selectors::field,
    status::Status,
    streams::web_socket::{Message, Reader, Writer},
    tables::json_path,
};

/// Whether a label selector matches a map of labels (or null).
///
/// # Errors
/// 400 when the text is none.
pub fn selects_labels(text: &str, labels: &Value) -> Result<bool, Status> {
    label::LabelSelector::parse(text).map(|selector| selector.matches(labels))
}

/// What a `LabelSelector` object is as text, and whether it matches a map of labels (or null); `None` when it is none.
pub fn label_selector(object: &Value, labels: &Value) -> Option<(String, bool)> {
    label::LabelSelector::from_object(object).map(|selector| (label::format(object), selector.matches(labels)))
}

/// Whether a field selector for Pods matches an object.
///
/// # Errors
/// 400 when the text is none, or names a field that Pods do not offer.
pub fn selects_fields(text: &str, pod: &Value) -> Result<bool, Status> {
    let registry = ResourceRegistry::built_in();
    let pods = registry.get("", "v1", "pods").ok_or_else(Status::no_such_resource)?;
    field::FieldSelector::parse(text, pods).map(|selector| selector.matches(pod))
}

/// An object with the operations of a JSON patch carried out.
///
/// # Errors
/// When the patch is malformed, does not fit or exceeds a bound.
pub fn json_patch(operations: Value, object: &Value) -> Result<Value, Status> {
    let patch = json::read(operations)?;
    let mut patched = object.clone();
    json::apply(&mut patched, &patch)?;
    Ok(patched)
}

/// What a printer column's path finds first.
pub fn json_path<'a>(path: &str, object: &'a Value) -> Option<&'a Value> {
    json_path::Path::parse(path).first(object)
}

/// The name of the ServiceAccount that a bearer token speaks for.
pub fn token_holder(key: &TokenKey, token: &str, now: Timestamp) -> Option<String> {
    key.read(token, now).map(|bearer| bearer.identity.user)
}

/// A token for a ServiceAccount.
pub fn token(key: &TokenKey, order: &TokenOrder, now: Timestamp) -> Option<String> {
    key.issue(order, now, "id").map(|token| token.token)
}

/// The messages that a client's bytes hold, up to where it closes or breaks the rules; of a ping, what it carries.
pub async fn web_socket_messages(bytes: &[u8]) -> Vec<Bytes> {
    let mut reader = Reader::new(bytes);
    let mut messages = Vec::new();
    while let Some(Message::Data(bytes) | Message::Ping(bytes)) = reader.next().await {
        messages.push(bytes);
    }
    messages
}

/// A message on a channel, as it is sent.
pub async fn web_socket_frame(channel: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    // Memory takes everything.
    if Writer::new(&mut frame).channel(channel, data).await.is_err() {
        frame.clear();
    }
    frame
}
