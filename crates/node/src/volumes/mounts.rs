//! How a container sees its pod's volumes.

use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use knoll_container::protocol::{Mount, MountPropagation, MountSource};

use super::{Places, location, volumes};
use crate::env::expand;

/// Why a mount cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// It names a volume that the pod does not have.
    #[error("cannot find volume \"{volume}\" to mount into container \"{container}\"")]
    NoVolume {
        /// Which volume.
        volume: String,
        /// Which container.
        container: String,
    },
    /// A path below the volume that would leave it.
    #[error("unable to provision SubPath `{0}`: must not contain '..' and must be relative")]
    SubPath(String),
    /// A path below the volume that refers to variables the container lacks.
    #[error("failed to expand subPathExpr {0}")]
    Expression(String),
}

/// The mounts of a container, shorter destinations first.
///
/// # Errors
/// When a mount names no volume or leaves it.
pub fn mounts(
    pod: &Pod,
    container: &Container,
    places: &Places,
    environment: &[(String, String)],
) -> Result<Vec<Mount>, MountError> {
    let mut list = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes(pod)
            .iter()
            .find(|v| v.name == mount.name)
            .ok_or_else(|| MountError::NoVolume { volume: mount.name.clone(), container: container.name.clone() })?;
        let (path, only_read) = location(volume, places);
        let sub_path = match (mount.sub_path.as_deref(), mount.sub_path_expr.as_deref()) {
            (Some(path), _) if !path.is_empty() => Some(path.to_owned()),
            (_, Some(expression)) if !expression.is_empty() => Some(expand_path(expression, environment)?),
            _ => None,
        };
        list.push(Mount {
            destination: Path::new("/").join(&mount.mount_path),
            source: MountSource::Bind { path, sub_path: sub_path.map(inside).transpose()? },
            read_only: only_read || mount.read_only.unwrap_or(false),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => MountPropagation::HostToContainer,
                Some("Bidirectional") => MountPropagation::Bidirectional,
                _ => MountPropagation::Private,
            },
        });
    }
    list.sort_by_key(|m| m.destination.components().count());
    Ok(list)
}

fn inside(path: String) -> Result<PathBuf, MountError> {
    let legal = Path::new(&path).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if legal { Ok(PathBuf::from(path)) } else { Err(MountError::SubPath(path)) }
}

fn expand_path(expression: &str, environment: &[(String, String)]) -> Result<String, MountError> {
    let known = |name: &str| environment.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let missing = std::cell::Cell::new(false);
    let path = expand(expression, |name| {
        let value = known(name);
        missing.set(missing.get() || value.is_none());
        value
    });
    match path {
        Ok(path) if !missing.get() => Ok(path),
        _ => Err(MountError::Expression(expression.to_owned())),
    }
}
