//! The images on this machine.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    Digest, ImageConfig, LayerError, LimitError, Limits, Reference,
    blobs::Blobs,
    durable::{private_directory, replace},
    layers::WantedLayer,
    pull::Remote,
    remove,
};

/// How the store is set up.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Hosts under which the embedded registry is known, the canonical one first (`localhost:5000`). Images
    /// of these hosts are read from the store itself.
    pub registry_hosts: Vec<String>,
    /// Registries spoken to over plain http. Loopback hosts always are.
    pub insecure_registries: Vec<String>,
    /// What an image may cost.
    pub limits: Limits,
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("open image store {path}")]
pub struct OpenError {
    /// Its directory.
    pub path: String,
    /// What the system said.
    pub source: io::Error,
}

/// Why an image of the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing is known under this reference or digest.
    #[error("{0}: not found")]
    Unknown(String),
    /// A manifest or configuration that cannot be used.
    #[error("{image}: {reason}")]
    Invalid {
        /// The image.
        image: String,
        /// What is wrong.
        reason: String,
    },
    /// A blob cannot be read or written.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A layer cannot be unpacked.
    #[error("{image}: layer {layer}")]
    Layer {
        /// The image.
        image: String,
        /// The layer.
        layer: Digest,
        /// Why not.
        source: LayerError,
    },
}

/// An image ready to run.
#[derive(Clone, Debug)]
pub struct Image {
    /// `registry/repository@digest` it was taken from.
    pub name: String,
    /// Digest the reference stood for: of an index where there is one, else of the manifest.
    pub digest: Digest,
    /// How it wants to run.
    pub config: ImageConfig,
    /// Unpacked layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// Bytes of its compressed layers.
    pub size: u64,
}

/// Where a reference's image came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// From a registry, where it may change.
    Pulled,
    /// Given to this machine by tarball or push: this machine's word is final.
    Given,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pin {
    pub(crate) digest: String,
    pub(crate) origin: Origin,
    pub(crate) media_type: String,
}

/// The parts of a manifest or index that matter here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    #[serde(default)]
    pub(crate) media_type: Option<String>,
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(default)]
    pub(crate) config: Option<Descriptor>,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) media_type: String,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
}

pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) blobs: Blobs,
    pub(crate) config: Config,
    pub(crate) remote: Remote,
    /// One unpacking of a layer, and one download of a blob, at a time.
    pub(crate) busy: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Held while references change, and while unreferenced blobs are removed.
    pub(crate) pins: tokio::sync::RwLock<()>,
}

/// The images on this machine. Cheap to clone.
#[derive(Clone)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

/// Architecture as images name it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl ImageStore {
    /// Opens the store in `root`, making it where it is missing.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn open(root: &Path, config: Config) -> Result<Self, OpenError> {
        let fail = |source| OpenError { path: root.display().to_string(), source };
        private_directory(root).map_err(fail)?;
        // What an earlier process did not finish is of no use to this one.
        for scratch in ["unpacking", "incoming"] {
            remove::tree(&root.join(scratch)).map_err(fail)?;
        }
        for part in ["layers", "refs", "unpacked", "unpacking", "incoming", "blobs", "blobs/sha256"] {
            private_directory(&root.join(part)).map_err(fail)?;
        }
        let blobs = Blobs::new(root);
        let remote = Remote::new(&config);
        let (busy, pins) = (Mutex::default(), tokio::sync::RwLock::default());
        Ok(Self { inner: Arc::new(Inner { root: root.to_owned(), blobs, config, remote, busy, pins }) })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.inner.config.limits
    }

    pub(crate) fn blobs(&self) -> &Blobs {
        &self.inner.blobs
    }

    /// Whether the image's registry is the embedded one.
    pub fn is_embedded(&self, reference: &Reference) -> bool {
        self.inner.config.registry_hosts.contains(&reference.registry)
    }

    /// The reference under which the store keeps it: aliases of the embedded registry become one name.
    pub(crate) fn canonical(&self, reference: &Reference) -> Reference {
        let mut reference = reference.clone();
        if self.is_embedded(&reference) {
            reference.registry.clone_from(&self.inner.config.registry_hosts[0]);
        }
        reference
    }

    fn pin_path(&self, name: &str) -> PathBuf {
        self.inner.root.join("refs").join(name.replace('%', "%25").replace('/', "%2F"))
    }

    /// Names `tag` of `name` (`registry/repository`) as `digest`.
    pub(crate) fn pin(&self, name: &str, tag: &str, pin: &Pin) -> io::Result<()> {
        let path = self.pin_path(&format!("{name}:{tag}"));
        replace(&path, &serde_json::to_vec(pin).map_err(io::Error::other)?, &self.inner.root.join("unpacking"))
    }

    pub(crate) fn unpin(&self, name: &str, tag: &str) -> io::Result<()> {
        fs::remove_file(self.pin_path(&format!("{name}:{tag}")))
    }

    pub(crate) fn pinned(&self, name: &str, tag: &str) -> Option<Pin> {
        serde_json::from_slice(&fs::read(self.pin_path(&format!("{name}:{tag}"))).ok()?).ok()
    }

    /// All `registry/repository:tag` with what they stand for, sorted.
    pub(crate) fn pins(&self) -> io::Result<BTreeMap<String, Pin>> {
        let mut pins = BTreeMap::new();
        for entry in fs::read_dir(self.inner.root.join("refs"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().replace("%2F", "/").replace("%25", "%");
            if let Ok(pin) = serde_json::from_slice(&fs::read(entry.path())?) {
                pins.insert(name, pin);
            }
        }
        Ok(pins)
    }

    /// References known on this machine, with their digests.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn references(&self) -> io::Result<Vec<(String, String)>> {
        Ok(self.pins()?.into_iter().map(|(name, pin)| (name, pin.digest)).collect())
    }

    pub(crate) fn lock_for(&self, what: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.inner.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        busy.entry(what.to_owned()).or_default().clone()
    }

    pub(crate) fn manifest(&self, digest: &Digest) -> Result<Manifest, StoreError> {
        let bytes = self.blobs().read(digest, "bytes of a manifest", self.limits().manifest_bytes);
        let bytes = bytes.map_err(|source| unreadable(format!("manifest {digest}"), source))?;
        parse_manifest(&bytes).map_err(|reason| StoreError::Invalid { image: digest.to_string(), reason })
    }

    pub(crate) fn image_config(&self, digest: &Digest) -> Result<ImageConfig, StoreError> {
        let json = self.blobs().read(digest, "bytes of an image's configuration", self.limits().config_bytes);
        let json = json.map_err(|source| unreadable(format!("configuration {digest}"), source))?;
        ImageConfig::parse(&json).map_err(|reason| StoreError::Invalid { image: digest.to_string(), reason })
    }

    /// The image manifest that `digest` stands for on this machine, through an index where there is one.
    pub(crate) fn platform_manifest(&self, digest: &Digest) -> Result<Manifest, StoreError> {
        let manifest = self.manifest(digest)?;
        if manifest.manifests.is_empty() {
            return Ok(manifest);
        }
        let chosen = pick_platform(&manifest.manifests).ok_or_else(|| StoreError::Invalid {
            image: digest.to_string(),
            reason: format!("no image for linux/{} in the index", architecture()),
        })?;
        self.manifest(&parse_digest(digest, &chosen.digest)?)
    }

    /// Opens the image whose manifest or index is `digest`, unpacking layers that are not yet.
    pub(crate) async fn open_image(&self, name: &str, digest: &Digest) -> Result<Image, StoreError> {
        let manifest = self.platform_manifest(digest)?;
        let invalid = |reason: String| StoreError::Invalid { image: format!("{name}@{digest}"), reason };
        let descriptor = manifest.config.ok_or_else(|| invalid("the manifest names no configuration".into()))?;
        let config_digest = parse_digest(digest, &descriptor.digest)?;
        let config = self.image_config(&config_digest)?;
        if config.diff_ids.len() != manifest.layers.len() {
            let counts = (manifest.layers.len(), config.diff_ids.len());
            return Err(invalid(format!("{} layers but {} diff ids", counts.0, counts.1)));
        }
        let limits = self.limits();
        if config.diff_ids.len() > limits.layers {
            return Err(invalid(format!("{} layers: more than the {} allowed", config.diff_ids.len(), limits.layers)));
        }
        let (mut layers, mut budget) = (Vec::new(), limits.image_bytes);
        for (descriptor, diff_id) in manifest.layers.iter().zip(&config.diff_ids) {
            let blob = parse_digest(digest, &descriptor.digest)?;
            let (image, diff_id) = (format!("{name}@{digest}"), diff_id.clone());
            let layer = self.unpacked_layer(WantedLayer { image, blob, diff_id, budget }).await?;
            budget -= layer.bytes;
            layers.push(layer.path);
        }
        let size = manifest.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
        Ok(Image { name: format!("{name}@{digest}"), digest: digest.clone(), config, layers, size })
    }
}

/// Reads a manifest or an index.
///
/// # Errors
/// A text that says what is wrong with it.
pub(crate) fn parse_manifest(json: &[u8]) -> Result<Manifest, String> {
    serde_json::from_slice(json).map_err(|e| e.to_string())
}

/// Why a blob of an image gives nothing.
fn unreadable(what: String, source: io::Error) -> StoreError {
    match (source.kind(), LimitError::in_io(&source)) {
        (_, Some(limit)) => StoreError::Invalid { image: what, reason: limit.to_string() },
        (io::ErrorKind::NotFound, _) => StoreError::Unknown(what),
        _ => StoreError::Io { what: format!("read {what}"), source },
    }
}

pub(crate) fn parse_digest(image: &Digest, text: &str) -> Result<Digest, StoreError> {
    text.parse().map_err(|e| StoreError::Invalid { image: image.to_string(), reason: format!("{e}") })
}

/// The entry for this machine.
pub(crate) fn pick_platform(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let ours =
        |d: &&Descriptor| d.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture());
    manifests.iter().filter(|d| d.platform.is_some()).find(ours).or_else(|| manifests.iter().find(ours))
}
