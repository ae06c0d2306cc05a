//! Files from a ConfigMap.

use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath};

use super::{Payload, VolumeError, select};

/// The files of a ConfigMap: all of its keys, or those that `items` name.
///
/// # Errors
/// When it or a key does not exist, unless it is optional.
pub(super) fn payload(
    name: &str,
    map: Option<&ConfigMap>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
) -> Result<Payload, VolumeError> {
    let Some(map) = map else {
        return if optional { Ok(Payload::new()) } else { Err(VolumeError::NoConfigMap(name.to_owned())) };
    };
    let text = map.data.iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice()));
    let missing = |key: &str| VolumeError::NoConfigMapKey(key.to_owned());
    select(text.chain(binary).collect(), items, optional, mode, missing)
}
