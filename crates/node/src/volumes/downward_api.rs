//! Files that tell a pod about itself.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, DownwardAPIVolumeFile};

use super::{File, Payload, VolumeError, bits};
use crate::env::{Inputs, field, resource_field};

/// One file an item.
///
/// # Errors
/// When an item names something that cannot be told.
pub(super) fn payload(items: &[DownwardAPIVolumeFile], mode: i32, inputs: &Inputs<'_>) -> Result<Payload, VolumeError> {
    let nobody = Container::default();
    items
        .iter()
        .map(|item| {
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(reference), _) => field(&reference.field_path, inputs)?,
                (None, Some(reference)) => resource_field(reference, &nobody, inputs)?,
                (None, None) => String::new(),
            };
            let file = File { bytes: text.into_bytes(), mode: bits(item.mode.unwrap_or(mode)), owner: None };
            Ok((PathBuf::from(&item.path), file))
        })
        .collect()
}
