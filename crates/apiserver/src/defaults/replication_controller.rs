//! ReplicationControllers.

use serde_json::Value;

use super::pod;
use crate::object;

/// One replica; selector and labels are the template's where they are absent.
pub(crate) fn default(controller: &mut Value) {
    let labels = controller.pointer("/spec/template/metadata/labels").cloned().filter(|l| !object::is_empty(Some(l)));
    let spec = super::spec(controller);
    object::default(spec, "replicas", 1);
    if let Some(labels) = &labels
        && object::is_empty(spec.get("selector"))
    {
        spec.insert("selector".into(), labels.clone());
    }
    pod::template(spec);
    if let Some(labels) = labels
        && object::is_empty(controller["metadata"].get("labels"))
    {
        controller["metadata"]["labels"] = labels;
    }
}
