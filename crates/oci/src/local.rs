//! The images on this machine.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{Digest, ImageConfig, LayerError, Reference, blobs::Blobs, layer, pull::Remote};

/// How the store is set up.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Hosts under which the embedded registry is known, the canonical one first (`localhost:5000`). Images
    /// of these hosts are read from the store itself.
    pub registry_hosts: Vec<String>,
    /// Registries spoken to over plain http. Loopback hosts always are.
    pub insecure_registries: Vec<String>,
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
    #[error(transparent)]
    Layer(#[from] LayerError),
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
        for part in ["layers", "refs", "unpacking"] {
            fs::create_dir_all(root.join(part)).map_err(fail)?;
        }
        for leftover in fs::read_dir(root.join("unpacking")).map_err(fail)? {
            fs::remove_dir_all(leftover.map_err(fail)?.path()).map_err(fail)?;
        }
        let blobs = Blobs::open(root).map_err(fail)?;
        let remote = Remote::new(&config);
        let (busy, pins) = (Mutex::default(), tokio::sync::RwLock::default());
        Ok(Self { inner: Arc::new(Inner { root: root.to_owned(), blobs, config, remote, busy, pins }) })
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
        let temporary = self.inner.root.join("unpacking").join(format!("{}.ref", uuid::Uuid::new_v4()));
        fs::write(&temporary, serde_json::to_vec(pin).map_err(io::Error::other)?)?;
        fs::File::open(&temporary)?.sync_all()?;
        fs::rename(temporary, path)
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
        let bytes = self.blobs().read(digest).map_err(|_| StoreError::Unknown(format!("manifest {digest}")))?;
        serde_json::from_slice(&bytes)
            .map_err(|e| StoreError::Invalid { image: digest.to_string(), reason: e.to_string() })
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
        let json = self.blobs().read(&config_digest);
        let json = json.map_err(|_| StoreError::Unknown(format!("configuration {config_digest}")))?;
        let config = ImageConfig::parse(&json).map_err(invalid)?;
        if config.diff_ids.len() != manifest.layers.len() {
            let counts = (manifest.layers.len(), config.diff_ids.len());
            return Err(invalid(format!("{} layers but {} diff ids", counts.0, counts.1)));
        }
        let mut layers = Vec::new();
        for (descriptor, diff_id) in manifest.layers.iter().zip(&config.diff_ids) {
            layers.push(self.unpacked(&parse_digest(digest, &descriptor.digest)?, diff_id).await?);
        }
        let size = manifest.layers.iter().map(|layer| layer.size).sum();
        Ok(Image { name: format!("{name}@{digest}"), digest: digest.clone(), config, layers, size })
    }

    /// The directory of an unpacked layer.
    async fn unpacked(&self, blob: &Digest, diff_id: &Digest) -> Result<PathBuf, StoreError> {
        let target = self.inner.root.join("layers").join(diff_id.hex());
        if target.exists() {
            return Ok(target);
        }
        let lock = self.lock_for(diff_id.hex());
        let _unpacking = lock.lock().await;
        if target.exists() {
            return Ok(target);
        }
        let temporary = self.inner.root.join("unpacking").join(uuid::Uuid::new_v4().to_string());
        let (path, diff_id, done) = (self.blobs().path(blob), diff_id.clone(), target.clone());
        let work = move || -> Result<(), StoreError> {
            let io = |what: &str| {
                let what = format!("{what} {}", temporary.display());
                move |source| StoreError::Io { what, source }
            };
            fs::create_dir_all(&temporary).map_err(io("make"))?;
            layer::unpack(&path, &diff_id, &temporary).inspect_err(|_| {
                fs::remove_dir_all(&temporary).ok();
            })?;
            fs::rename(&temporary, done).map_err(io("move"))
        };
        let joined = tokio::task::spawn_blocking(work).await;
        joined.map_err(|e| StoreError::Io { what: "unpack a layer".into(), source: io::Error::other(e) })??;
        Ok(target)
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
