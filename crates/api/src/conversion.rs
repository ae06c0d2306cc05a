//! Kinds that are served in several versions: the form that is stored, and the others.
//!
//! All works on the JSON tree. Whatever has a type it should not have is left out, for the schema has refused it.

mod event_type;

use serde_json::Value;

use crate::Kind;

/// The versions of a kind besides the one that is stored, newest first.
pub fn other_versions(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::EventType => &["v1beta3", "v1beta1"],
        Kind::PingSource => &["v1beta2"],
        _ => &[],
    }
}

/// Whether the objects of a version have the form that is stored, but for the version's name.
pub fn is_stored_form(kind: Kind, version: &str) -> bool {
    version == kind.version() || !matches!(kind, Kind::EventType)
}

/// Brings a stored object into the form of another version. A version that there is not leaves it alone.
pub fn read(kind: Kind, version: &str, object: &mut Value) {
    match (kind, version) {
        (Kind::EventType, "v1beta1") => event_type::to_v1beta1(object),
        (Kind::EventType, "v1beta3") => event_type::to_v1beta3(object),
        // The others differ in name alone.
        _ => {}
    }
    stamp(object, &format!("{}/{version}", kind.group()));
}

/// Brings an object of another version into the form that is stored.
pub fn write(kind: Kind, version: &str, object: &mut Value) {
    match (kind, version) {
        (Kind::EventType, "v1beta1") => event_type::from_v1beta1(object),
        (Kind::EventType, "v1beta3") => event_type::from_v1beta3(object),
        _ => {}
    }
    stamp(object, &kind.api_version());
}

fn stamp(object: &mut Value, api_version: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), api_version.into());
    }
}
