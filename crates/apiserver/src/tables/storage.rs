//! Claims, volumes and classes.

use serde_json::Value;

use super::{Table, age, name, text, wide};
use crate::object;

fn modes(modes: &[Value]) -> Value {
    let short = modes.iter().filter_map(Value::as_str).map(|mode| match mode {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        other => other,
    });
    short.collect::<Vec<_>>().join(",").into()
}

/// PersistentVolumeClaims.
pub(crate) static CLAIM: Table = Table {
    columns: &[
        text("Name"),
        text("Status"),
        text("Volume"),
        text("Capacity"),
        text("Access Modes"),
        text("StorageClass"),
        text("VolumeAttributesClass"),
        text("Age"),
        wide("VolumeMode"),
    ],
    cells: |o, now| {
        let phase = if object::is_deleting(o) { "Terminating" } else { object::text(o, "/status/phase") };
        let field = |pointer: &str| object::text(o, pointer).into();
        vec![
            name(o),
            phase.into(),
            field("/spec/volumeName"),
            field("/status/capacity/storage"),
            modes(object::list(o, "/status/accessModes")),
            field("/spec/storageClassName"),
            super::none_if_empty(object::text(o, "/spec/volumeAttributesClassName")),
            age(o, now),
            field("/spec/volumeMode"),
        ]
    },
};

/// PersistentVolumes.
pub(crate) static VOLUME: Table = Table {
    columns: &[
        text("Name"),
        text("Capacity"),
        text("Access Modes"),
        text("Reclaim Policy"),
        text("Status"),
        text("Claim"),
        text("StorageClass"),
        text("VolumeAttributesClass"),
        text("Reason"),
        text("Age"),
        wide("VolumeMode"),
    ],
    cells: |o, now| {
        let phase = if object::is_deleting(o) { "Terminating" } else { object::text(o, "/status/phase") };
        let field = |pointer: &str| object::text(o, pointer).into();
        let claim = match object::text(o, "/spec/claimRef/name") {
            "" => String::new(),
            claim => format!("{}/{claim}", object::text(o, "/spec/claimRef/namespace")),
        };
        vec![
            name(o),
            field("/spec/capacity/storage"),
            modes(object::list(o, "/spec/accessModes")),
            field("/spec/persistentVolumeReclaimPolicy"),
            phase.into(),
            claim.into(),
            field("/spec/storageClassName"),
            super::none_if_empty(object::text(o, "/spec/volumeAttributesClassName")),
            field("/status/reason"),
            age(o, now),
            field("/spec/volumeMode"),
        ]
    },
};

/// StorageClasses.
pub(crate) static CLASS: Table = Table {
    columns: &[
        text("Name"),
        text("Provisioner"),
        text("ReclaimPolicy"),
        text("VolumeBindingMode"),
        text("AllowVolumeExpansion"),
        text("Age"),
    ],
    cells: |o, now| {
        let default = object::annotation(o, "storageclass.kubernetes.io/is-default-class") == Some("true");
        let shown = if default { format!("{} (default)", object::name(o)) } else { object::name(o).to_owned() };
        let field = |pointer: &str| object::text(o, pointer).into();
        vec![
            shown.into(),
            field("/provisioner"),
            field("/reclaimPolicy"),
            field("/volumeBindingMode"),
            (o["allowVolumeExpansion"] == true).to_string().into(),
            age(o, now),
        ]
    },
};
