//! The images on this machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Digest, ImageConfig, LayerError, LimitError, Limits, Reference,
    access::Access,
    blobs::Blobs,
    durable::private_directory,
    holds::{Holds, ImageHold},
    keychain::Candidate,
    layers::WantedLayer,
    manifest::{Manifest, architecture, parse_digest, parse_manifest, pick_platform},
    pins::{Origin, Pin, PinFiles, Pins},
    remote::{Proof, Remote},
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
    /// Whether every pod of this machine may run it, whatever credentials it has.
    pub is_for_everybody: bool,
    /// Keeps its blobs and layers from being collected.
    pub hold: ImageHold,
}

pub(crate) struct Inner {
    /// Held for as long as the store is open.
    _alone: File,
    pub(crate) root: PathBuf,
    pub(crate) blobs: Blobs,
    pub(crate) config: Config,
    pub(crate) remote: Remote,
    pub(crate) access: Access,
    pub(crate) holds: Holds,
    /// One unpacking of a layer, and one download of a blob, at a time.
    pub(crate) busy: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    pins: RwLock<Pins>,
    pin_files: PinFiles,
    /// Held while a name changes, on disk and in memory.
    naming: Mutex<()>,
}

/// What the store's directory holds.
const DIRECTORIES: [&str; 10] = [
    "layers",
    "refs",
    "unpacked",
    "unpacking",
    "incoming",
    "blobs",
    "blobs/sha256",
    "access",
    "access/images",
    "access/blobs",
];

/// How long a process that has just ended, or was killed, may still be about to let go of the store.
const ENDING: Duration = Duration::from_secs(5);

/// Keeps other processes off the store for as long as the file is open: what one fetches or pins, another does not know of.
fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < ENDING => thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::WouldBlock) => {
                let text = "another process uses it: give each its own --data-dir";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// The manifests that an index names; none where `digest` is no index.
fn children(blobs: &Blobs, limits: &Limits, digest: &Digest) -> Vec<Digest> {
    let bytes = blobs.read(digest, "bytes of a manifest", limits.manifest_bytes);
    let manifest = bytes.ok().and_then(|bytes| parse_manifest(&bytes).ok());
    let children = manifest.into_iter().flat_map(|manifest| manifest.manifests);
    children.filter_map(|child| child.digest.parse().ok()).collect()
}

/// The images on this machine. Cheap to clone.
#[derive(Clone)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

impl ImageStore {
    /// Opens the store in `root`, making it where it is missing.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn open(root: &Path, config: Config) -> Result<Self, OpenError> {
        let fail = |source| OpenError { path: root.display().to_string(), source };
        private_directory(root).map_err(fail)?;
        let alone = lock(&root.join("lock")).map_err(fail)?;
        // What an earlier process did not finish is of no use to this one.
        for scratch in ["unpacking", "incoming"] {
            knoll_tree::remove(&root.join(scratch)).map_err(fail)?;
        }
        for part in DIRECTORIES {
            private_directory(&root.join(part)).map_err(fail)?;
        }
        let (blobs, remote, pin_files) = (Blobs::new(root), Remote::new(&config), PinFiles::new(root));
        let access = Access::open(root).map_err(fail)?;
        let pins = RwLock::new(Pins::open(&pin_files).map_err(fail)?);
        let (busy, naming, holds) = (Mutex::default(), Mutex::default(), Holds::default());
        let root = root.to_owned();
        let store = Self {
            inner: Arc::new(Inner {
                root,
                blobs,
                config,
                remote,
                access,
                holds,
                busy,
                pins,
                pin_files,
                naming,
                _alone: alone,
            }),
        };
        store.open_up_given().map_err(fail)?;
        Ok(store)
    }

    /// Remembers of what was given before there were such records that it is for everybody.
    fn open_up_given(&self) -> io::Result<()> {
        let given: Vec<(String, Pin)> =
            self.pins().under("").map(|(name, pin)| (name.to_owned(), pin.clone())).collect();
        for (name, pin) in given.into_iter().filter(|(_, pin)| pin.origin == Origin::Given) {
            let (Some((repository, _)), Ok(digest)) = (name.rsplit_once(':'), pin.digest.parse()) else { continue };
            if self.inner.access.allows(&digest, repository, &[]) || !self.blobs().has(&digest) {
                continue;
            }
            let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
            self.reach(&digest, &mut blobs, &mut layers);
            blobs.iter().try_for_each(|blob| self.inner.access.open_up(blob))?;
            let mut manifests = children(self.blobs(), self.limits(), &digest);
            manifests.retain(|child| self.blobs().has(child));
            // The one asked for last: it says that the others are done.
            self.give(manifests.iter().chain([&digest]), repository)?;
        }
        Ok(())
    }

    /// Remembers that manifests are for everybody in a repository. What they name must be open to everybody already.
    pub(crate) fn give<'a>(&self, manifests: impl IntoIterator<Item = &'a Digest>, repository: &str) -> io::Result<()> {
        let mut manifests = manifests.into_iter();
        manifests.try_for_each(|manifest| self.inner.access.grant(manifest, repository, &Proof::Everybody))
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

    /// What tags stand for now.
    pub(crate) fn pins(&self) -> RwLockReadGuard<'_, Pins> {
        self.inner.pins.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names `tag` of `name` (`registry/repository`) as `pin`. Waits for the disk.
    pub(crate) fn pin(&self, name: &str, tag: &str, pin: Pin) -> io::Result<()> {
        let name = format!("{name}:{tag}");
        let _alone = self.inner.naming.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.pins().is_news(&name, &pin)? {
            return Ok(());
        }
        self.inner.pin_files.write(&name, &pin)?;
        self.inner.pins.write().unwrap_or_else(PoisonError::into_inner).set(name, pin);
        Ok(())
    }

    /// Takes the name `registry/repository:tag` away. Waits for the disk.
    pub(crate) fn unpin(&self, name: &str) -> io::Result<()> {
        let _alone = self.inner.naming.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.pin_files.remove(name)?;
        self.inner.pins.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    /// References known on this machine, with their digests.
    pub fn references(&self) -> Vec<(String, String)> {
        self.pins().under("").map(|(name, pin)| (name.to_owned(), pin.digest.clone())).collect()
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
    pub(crate) async fn open_image(&self, repository: &str, digest: &Digest) -> Result<Image, StoreError> {
        let name = format!("{repository}@{digest}");
        let mut hold = self.inner.holds.hold([digest.clone()]);
        let manifest = self.platform_manifest(digest)?;
        let invalid = |reason: String| StoreError::Invalid { image: name.clone(), reason };
        let descriptor = manifest.config.ok_or_else(|| invalid("the manifest names no configuration".into()))?;
        let config_digest = parse_digest(digest, &descriptor.digest)?;
        hold.add([config_digest.clone()]);
        let config = self.image_config(&config_digest)?;
        let (have, named, limits) = (manifest.layers.len(), config.diff_ids.len(), self.limits());
        if have != named {
            return Err(invalid(format!("{have} layers but {named} diff ids")));
        }
        if named > limits.layers {
            return Err(invalid(format!("{named} layers: more than the {} allowed", limits.layers)));
        }
        let (mut layers, mut budget) = (Vec::new(), limits.image_bytes);
        for (descriptor, diff_id) in manifest.layers.iter().zip(&config.diff_ids) {
            let blob = parse_digest(digest, &descriptor.digest)?;
            hold.add([blob.clone(), diff_id.clone()]);
            let wanted = WantedLayer { image: name.clone(), blob, diff_id: diff_id.clone(), budget };
            let layer = self.unpacked_layer(wanted).await?;
            budget -= layer.bytes;
            layers.push(layer.path);
        }
        let size = manifest.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
        let is_for_everybody = self.is_for(digest, repository, &[]);
        Ok(Image { name, digest: digest.clone(), config, layers, size, is_for_everybody, hold: hold.into() })
    }

    /// Whether an image that is here may be run by whoever has these logins.
    pub(crate) fn is_for(&self, digest: &Digest, repository: &str, candidates: &[Candidate<'_>]) -> bool {
        self.inner.access.allows(digest, repository, candidates)
    }
}

/// Why a blob of an image gives nothing.
fn unreadable(what: String, source: io::Error) -> StoreError {
    match (source.kind(), LimitError::in_io(&source)) {
        (_, Some(limit)) => StoreError::Invalid { image: what, reason: limit.to_string() },
        (io::ErrorKind::NotFound, _) => StoreError::Unknown(what),
        _ => StoreError::Io { what: format!("read {what}"), source },
    }
}
