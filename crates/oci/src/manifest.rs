//! Manifests and indexes: the parts of them that matter here.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Digest, StoreError};

/// A manifest, or an index of manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Its own media type, where it tells.
    #[serde(default)]
    pub media_type: Option<String>,
    /// Manifests that an index names.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// The image's configuration.
    #[serde(default)]
    pub config: Option<Descriptor>,
    /// The image's layers, lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
}

/// What names a blob or a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Its digest, not checked yet.
    pub digest: String,
    /// Its media type.
    #[serde(default)]
    pub media_type: String,
    /// Its bytes.
    #[serde(default)]
    pub size: u64,
    /// What it runs on.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// Annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// What an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Operating system.
    pub os: String,
    /// Processor.
    pub architecture: String,
}

/// Reads a manifest or an index.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn parse_manifest(json: &[u8]) -> Result<Manifest, String> {
    serde_json::from_slice(json).map_err(|e| e.to_string())
}

pub(crate) fn parse_digest(image: &Digest, text: &str) -> Result<Digest, StoreError> {
    text.parse().map_err(|e| StoreError::Invalid { image: image.to_string(), reason: format!("{e}") })
}

/// Architecture as images name it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The entry for this machine.
pub(crate) fn pick_platform(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let ours =
        |d: &&Descriptor| d.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture());
    manifests.iter().filter(|d| d.platform.is_some()).find(ours).or_else(|| manifests.iter().find(ours))
}
