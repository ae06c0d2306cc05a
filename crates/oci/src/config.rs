//! What an image says about how it wants to run.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Digest;

/// The part of an image's configuration that a runtime needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// First words of the command line.
    pub entrypoint: Vec<String>,
    /// Rest of the command line, replaced by a container's `args`.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `user[:group]`, each a name or a number; empty is root.
    pub user: String,
    /// Directory to start in; empty is `/`.
    pub working_dir: String,
    /// `port[/protocol]`.
    pub exposed_ports: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Signal that asks it to stop; `SIGTERM` where unset.
    pub stop_signal: Option<String>,
    /// Digests of the unpacked layers, lowest first.
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    config: Option<Section>,
    #[serde(default)]
    rootfs: RootFs,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase")]
struct Section {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RootFs {
    diff_ids: Vec<String>,
}

impl ImageConfig {
    /// Reads a configuration blob.
    ///
    /// # Errors
    /// A text that says what is wrong with it.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let file: File = serde_json::from_slice(json).map_err(|e| format!("image configuration: {e}"))?;
        let section = file.config.unwrap_or_default();
        let diff_ids = file.rootfs.diff_ids.iter().map(|id| id.parse().map_err(|e| format!("diff id: {e}")));
        Ok(Self {
            entrypoint: section.entrypoint.unwrap_or_default(),
            cmd: section.cmd.unwrap_or_default(),
            env: section.env.unwrap_or_default(),
            user: section.user.unwrap_or_default(),
            working_dir: section.working_dir.unwrap_or_default(),
            exposed_ports: section.exposed_ports.unwrap_or_default().into_keys().collect(),
            labels: section.labels.unwrap_or_default(),
            stop_signal: section.stop_signal.filter(|signal| !signal.is_empty()),
            diff_ids: diff_ids.collect::<Result<_, _>>()?,
        })
    }
}
