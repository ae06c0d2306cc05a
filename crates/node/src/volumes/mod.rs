//! A pod's volumes: what they hold, where they lie, how containers see them.
//!
//! Volumes with files from the API ([`Content`]) are written whole and at once ([`atomic`]), below the runtime
//! directory, which is memory on most machines; scratch space lies below the data directory.

pub mod atomic;
mod config_map;
mod downward_api;
mod empty_dir;
mod host_path;
mod mounts;
mod projected;
mod secret;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, Pod, Secret, Volume};

pub use atomic::{File, Payload};
pub use mounts::{MountError, mounts};
pub use projected::TokenRequest;

use crate::env::{EnvError, Inputs};
use knoll_api::quantity::Quantity;

/// Permission bits of files when nothing says so.
const DEFAULT_MODE: i32 = 0o644;

/// Most bytes of a pod's files from the API: they lie in memory, and one ConfigMap may be mounted many times.
const MOST_CONTENT: usize = 64 << 20;

/// Why a volume cannot be filled. The event that tells it is `FailedMount`.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A ConfigMap that must exist does not.
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    /// A Secret that must exist does not.
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    /// A ConfigMap lacks a key.
    #[error("configmap references non-existent config key: {0}")]
    NoConfigMapKey(String),
    /// A Secret lacks a key.
    #[error("references non-existent secret key: {0}")]
    NoSecretKey(String),
    /// A token that the API server did not give.
    #[error("failed to fetch token")]
    NoToken,
    /// A field that cannot be told.
    #[error(transparent)]
    Field(#[from] EnvError),
    /// A path of the machine that is not what it should be.
    #[error("{0}")]
    HostPath(String),
    /// A kind of volume that this node does not have.
    #[error("volumes of type {0} are not supported on this node yet")]
    Unsupported(&'static str),
    /// A size that cannot be read.
    #[error("invalid sizeLimit {0:?}")]
    Size(String),
    /// More files from the API than a pod may have.
    #[error("the pod's ConfigMaps, Secrets and projected volumes hold more than {max} MiB together", max = MOST_CONTENT >> 20)]
    Content,
    /// The file system refused.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// Where a pod's volumes lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Scratch space, on disk.
    pub scratch: PathBuf,
    /// Files from the API, in memory.
    pub content: PathBuf,
}

/// What volumes are filled from.
pub struct Content<'a> {
    /// The pod, the machine, ConfigMaps and Secrets.
    pub inputs: &'a Inputs<'a>,
    /// Tokens that [`tokens`] asked for.
    pub tokens: &'a BTreeMap<TokenRequest, String>,
    /// The group that owns the pod's volumes.
    pub group: Option<u32>,
}

impl Content<'_> {
    fn config_map(&self, name: &str) -> Option<&ConfigMap> {
        self.inputs.sources.config_maps.get(name)?.as_deref()
    }

    fn secret(&self, name: &str) -> Option<&Secret> {
        self.inputs.sources.secrets.get(name)?.as_deref()
    }
}

/// Names of the ConfigMaps and Secrets that a pod's volumes refer to.
pub fn references(pod: &Pod) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for volume in volumes(pod) {
        config_maps.extend(volume.config_map.iter().map(|s| s.name.clone()));
        secrets.extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            config_maps.extend(source.config_map.iter().map(|s| s.name.clone()));
            secrets.extend(source.secret.iter().map(|s| s.name.clone()));
        }
    }
    for list in [&mut config_maps, &mut secrets] {
        list.sort();
        list.dedup();
    }
    (config_maps, secrets)
}

/// The tokens that a pod's volumes need, each once.
pub fn tokens(pod: &Pod) -> Vec<TokenRequest> {
    let mut list: Vec<_> =
        volumes(pod).iter().filter_map(|v| v.projected.as_ref()).flat_map(projected::tokens).collect();
    list.sort();
    list.dedup();
    list
}

/// The files of a volume that comes from the API; `None` for any other volume.
///
/// # Errors
/// When something it refers to does not exist, unless it is optional.
pub fn payload(volume: &Volume, content: &Content<'_>) -> Result<Option<Payload>, VolumeError> {
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let map = content.config_map(&source.name);
        let optional = source.optional.unwrap_or(false);
        return config_map::payload(&source.name, map, source.items.as_deref(), optional, mode).map(Some);
    }
    if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let name = source.secret_name.as_deref().unwrap_or_default();
        let optional = source.optional.unwrap_or(false);
        return secret::payload(name, content.secret(name), source.items.as_deref(), optional, mode).map(Some);
    }
    if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        return downward_api::payload(source.items.as_deref().unwrap_or_default(), mode, content.inputs).map(Some);
    }
    if let Some(source) = &volume.projected {
        return projected::payload(source, content).map(Some);
    }
    Ok(None)
}

/// What has to be done on disk for one volume. Made from the API's objects, carried out by [`prepare`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The volume.
    pub name: String,
    step: WorkStep,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum WorkStep {
    Files(Payload),
    Scratch { memory: bool, size: Option<u64> },
    HostPath { path: String, kind: String },
}

/// What has to be done for each volume of a pod.
///
/// # Errors
/// The first volume that cannot be filled, by name.
pub fn work(pod: &Pod, content: &Content<'_>) -> Result<Vec<Work>, (String, VolumeError)> {
    let mut bytes = 0;
    let all = volumes(pod).iter().map(|volume| {
        let failed = |error| (volume.name.clone(), error);
        let step = step(volume, content).map_err(failed)?;
        if let WorkStep::Files(payload) = &step {
            bytes += payload.values().map(|file| file.bytes.len()).sum::<usize>();
            if bytes > MOST_CONTENT {
                return Err(failed(VolumeError::Content));
            }
        }
        Ok(Work { name: volume.name.clone(), step })
    });
    all.collect()
}

fn step(volume: &Volume, content: &Content<'_>) -> Result<WorkStep, VolumeError> {
    if let Some(files) = payload(volume, content)? {
        return Ok(WorkStep::Files(files));
    }
    if let Some(source) = &volume.host_path {
        return Ok(WorkStep::HostPath { path: source.path.clone(), kind: source.type_.clone().unwrap_or_default() });
    }
    if let Some(kind) = unsupported(volume) {
        return Err(VolumeError::Unsupported(kind));
    }
    // A volume without any source is scratch space too.
    let source = volume.empty_dir.clone().unwrap_or_default();
    let size = source
        .size_limit
        .as_ref()
        .map(|limit| Quantity::parse(&limit.0).map_err(|_| VolumeError::Size(limit.0.clone())));
    let size = size.transpose()?.and_then(|q| u64::try_from(q.units()).ok()).filter(|bytes| *bytes > 0);
    let medium = source.medium.unwrap_or_default();
    if medium.starts_with("HugePages") {
        return Err(VolumeError::Unsupported("emptyDir with huge pages"));
    }
    Ok(WorkStep::Scratch { memory: medium == "Memory", size })
}

fn unsupported(volume: &Volume) -> Option<&'static str> {
    [
        (volume.persistent_volume_claim.is_some(), "persistentVolumeClaim"),
        (volume.csi.is_some(), "csi"),
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.image.is_some(), "image"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.cinder.is_some(), "cinder"),
        (volume.fc.is_some(), "fc"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.flocker.is_some(), "flocker"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (volume.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.rbd.is_some(), "rbd"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.storageos.is_some(), "storageos"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
    ]
    .into_iter()
    .find_map(|(is, name)| is.then_some(name))
}

/// Carries out the work: afterwards every volume lies where [`location`] says. Blocking. `stamp` must differ from
/// call to call.
///
/// # Errors
/// The first volume that could not be filled, by name.
pub fn prepare(work: &[Work], places: &Places, group: Option<u32>, stamp: &str) -> Result<(), (String, VolumeError)> {
    for item in work {
        let failed = |error| (item.name.clone(), error);
        let io = |source| VolumeError::Io { what: format!("fill volume {:?}", item.name), source };
        match &item.step {
            WorkStep::Files(payload) => {
                let dir = places.content.join(&item.name);
                atomic::write(&dir, payload, group, stamp).map_err(io).map_err(failed)?;
            }
            WorkStep::Scratch { memory, size } => {
                let dir = places.scratch.join(&item.name);
                empty_dir::prepare(&dir, *memory, *size, group).map_err(io).map_err(failed)?;
            }
            WorkStep::HostPath { path, kind } => drop(host_path::prepare(path, kind).map_err(failed)?),
        }
    }
    Ok(())
}

/// Removes a pod's volumes, what they hold included; paths of the machine stay. Blocking.
///
/// # Errors
/// When the file system refuses; calling again goes on where it stopped.
pub fn release(places: &Places) -> Result<(), VolumeError> {
    for dir in [&places.scratch, &places.content] {
        let io = |source| VolumeError::Io { what: format!("remove {}", dir.display()), source };
        release_mounts(dir).and_then(|()| knoll_tree::remove(dir)).map_err(io)?;
    }
    Ok(())
}

/// Unmounts the volumes in `dir` and takes their limits away. Being absent is fine.
pub(crate) fn release_mounts(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        empty_dir::release(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("unmount {}: {error}", path.display())))?;
    }
    Ok(())
}

/// Where a volume lies on the machine, and whether containers may only read it.
pub fn location(volume: &Volume, places: &Places) -> (PathBuf, bool) {
    if let Some(source) = &volume.host_path {
        return (PathBuf::from(&source.path), false);
    }
    let from_api = volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some();
    if from_api { (places.content.join(&volume.name), true) } else { (places.scratch.join(&volume.name), false) }
}

/// The scratch volumes on disk of a pod that have a limit: name, place, bytes.
pub fn limited_scratch(pod: &Pod, places: &Places) -> Vec<(String, PathBuf, u64)> {
    let limit = |v: &Volume| {
        let source = v.empty_dir.as_ref().filter(|s| s.medium.as_deref().unwrap_or_default().is_empty())?;
        let bytes = Quantity::parse(&source.size_limit.as_ref()?.0).ok()?.units();
        u64::try_from(bytes).ok().filter(|b| *b > 0)
    };
    volumes(pod).iter().filter_map(|v| limit(v).map(|b| (v.name.clone(), places.scratch.join(&v.name), b))).collect()
}

fn volumes(pod: &Pod) -> &[Volume] {
    pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default()
}

/// Keys as files: all of them, or those that `items` name.
fn select(
    data: BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: i32,
    missing: impl Fn(&str) -> VolumeError,
) -> Result<Payload, VolumeError> {
    let file = |bytes: &[u8], mode: i32| File { bytes: bytes.to_vec(), mode: bits(mode), owner: None };
    let Some(items) = items.filter(|list| !list.is_empty()) else {
        return Ok(data.iter().map(|(key, bytes)| (PathBuf::from(key), file(bytes, mode))).collect());
    };
    let mut out = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(bytes) => drop(out.insert(clean(&item.path), file(bytes, item.mode.unwrap_or(mode)))),
            None if optional => {}
            None => return Err(missing(&item.key)),
        }
    }
    Ok(out)
}

/// A path without doubled slashes and dots.
fn clean(path: &str) -> PathBuf {
    Path::new(path).components().filter(|c| !matches!(c, std::path::Component::CurDir)).collect()
}

fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0) & 0o7777
}

#[cfg(test)]
mod quota_tests;
#[cfg(test)]
mod tests;
