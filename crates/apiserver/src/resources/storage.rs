//! `storage.k8s.io`.

use super::Resource;
use crate::tables;

pub(super) fn rows() -> Vec<Resource> {
    let row = |plural, kind| Resource::new("storage.k8s.io", "v1", plural, kind).cluster().no_generation();
    vec![
        row("storageclasses", "StorageClass").short(&["sc"]).answers_with_object().table(&tables::storage::CLASS),
        row("volumeattachments", "VolumeAttachment").status(),
        row("csidrivers", "CSIDriver"),
        row("csinodes", "CSINode"),
    ]
}
