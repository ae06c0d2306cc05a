//! Namespaces.

use serde_json::{Value, json};

use crate::object;

/// The finalizer of its contents, its phase and the label with its name.
pub(crate) fn default(namespace: &mut Value) {
    let name = object::name(namespace).to_owned();
    let deleting = object::is_deleting(namespace);
    let spec = super::spec(namespace);
    if !deleting {
        spec.entry("finalizers").or_insert_with(|| json!(["kubernetes"]));
    }
    let status = object::map_at(namespace, "status");
    object::default(status, "phase", if deleting { "Terminating" } else { "Active" });
    if !name.is_empty() {
        let labels = object::map_at(&mut namespace["metadata"], "labels");
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
    }
}
