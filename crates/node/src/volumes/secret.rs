//! Files from a Secret.

use k8s_openapi::api::core::v1::{KeyToPath, Secret};

use super::{Payload, VolumeError, select};

/// The files of a Secret: all of its keys, or those that `items` name.
///
/// # Errors
/// When it or a key does not exist, unless it is optional.
pub(super) fn payload(
    name: &str,
    secret: Option<&Secret>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
) -> Result<Payload, VolumeError> {
    let Some(secret) = secret else {
        return if optional { Ok(Payload::new()) } else { Err(VolumeError::NoSecret(name.to_owned())) };
    };
    let data = secret.data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice()));
    select(data.collect(), items, optional, mode, |key| VolumeError::NoSecretKey(key.to_owned()))
}
