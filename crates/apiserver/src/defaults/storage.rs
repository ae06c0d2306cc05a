//! Claims, volumes, classes.

use serde_json::Value;

use crate::object::{self, default as set};

/// A file system; pending at first.
pub(crate) fn claim(claim: &mut Value) {
    set(super::spec(claim), "volumeMode", "Filesystem");
    set(object::map_at(claim, "status"), "phase", "Pending");
}

/// A file system that is kept; pending at first.
pub(crate) fn volume(volume: &mut Value) {
    let spec = super::spec(volume);
    set(spec, "volumeMode", "Filesystem");
    set(spec, "persistentVolumeReclaimPolicy", "Retain");
    set(object::map_at(volume, "status"), "phase", "Pending");
}

/// Deleted with their claims, bound at once.
pub(crate) fn class(class: &mut Value) {
    let Some(map) = class.as_object_mut() else { return };
    set(map, "reclaimPolicy", "Delete");
    set(map, "volumeBindingMode", "Immediate");
}
