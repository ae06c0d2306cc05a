//! Tarballs of images: what `docker save` writes, and OCI layouts.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use serde::Deserialize;
use serde_json::json;

use crate::{
    Digest, Entries, EntryKind, ImageStore, Limits, Reference, TarError, decompress,
    durable::{private_directory, private_file},
    holds::Hold,
    limits::{Bounded, has_room, read_bounded},
    local::StoreError,
    manifest::{Descriptor, Manifest, parse_manifest},
    pins::{Origin, Pin},
};

/// Why a tarball was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("read {path}")]
    Read {
        /// The tarball.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is no sound archive, or too large.
    #[error("read {path}")]
    Damaged {
        /// The tarball.
        path: String,
        /// What is wrong.
        source: TarError,
    },
    /// It is neither form.
    #[error("{path} is neither a `docker save` archive nor an OCI layout: it has no manifest.json and no index.json")]
    Neither {
        /// The tarball.
        path: String,
    },
    /// It has the form, but something is missing or wrong.
    #[error("{path}: {reason}")]
    Invalid {
        /// The tarball.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// An image has no name.
    #[error("{path} names no image: give it a name with --tag")]
    Unnamed {
        /// The tarball.
        path: String,
    },
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The files of a tarball: each in a file of its own below a temporary directory, found by its name in the tarball.
struct Files {
    path: String,
    limits: Limits,
    files: BTreeMap<PathBuf, PathBuf>,
    links: BTreeMap<PathBuf, PathBuf>,
    /// What was stored of it, until it has a name.
    hold: RefCell<Hold>,
    _scratch: Scratch,
}

/// A directory that goes with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> io::Result<Self> {
        let path = parent.join(uuid::Uuid::new_v4().to_string());
        private_directory(&path).map(|()| Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = knoll_tree::remove(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "what was loaded from cannot be removed");
        }
    }
}

/// What a configuration's bound is called.
const CONFIGURATION: &str = "bytes of an image's configuration";
/// Manifests that one index, and the indexes in it, may name.
const MANIFESTS: usize = 1000;
/// Files and links of a tarball.
const FILES: u64 = 100_000;

impl ImageStore {
    /// Loads the images of a tarball. `tag` names them where the tarball does not. Returns their references.
    ///
    /// # Errors
    /// When it is not an image archive, or is damaged.
    pub async fn load_tar(&self, path: &Path, tag: Option<&str>) -> Result<Vec<String>, LoadError> {
        let (store, path, tag) = (self.clone(), path.to_owned(), tag.map(str::to_owned));
        let work = move || store.load_blocking(&path, tag.as_deref());
        let joined = tokio::task::spawn_blocking(work).await;
        joined.map_err(|e| StoreError::Io { what: "load an archive".into(), source: io::Error::other(e) })?
    }

    fn load_blocking(&self, path: &Path, tag: Option<&str>) -> Result<Vec<String>, LoadError> {
        let name = path.display().to_string();
        let scratch = Scratch::new(&self.inner.root.join("unpacking"));
        let read = |source| LoadError::Read { path: name.clone(), source };
        let files = Files::extract(path, scratch.map_err(read)?, self)?;
        if files.has("index.json") {
            self.load_layout(&files, tag)
        } else if files.has("manifest.json") {
            self.load_saved(&files, tag)
        } else {
            Err(LoadError::Neither { path: name })
        }
    }

    fn load_saved(&self, files: &Files, tag: Option<&str>) -> Result<Vec<String>, LoadError> {
        let saved: Vec<Saved> = files.json("manifest.json")?;
        let mut loaded = Vec::new();
        for image in saved {
            let config = files.bytes(&image.config, CONFIGURATION, self.limits().config_bytes)?;
            let config_digest = self.keep(files, &config)?;
            let mut layers = Vec::new();
            for layer in &image.layers {
                let (digest, size) = self.keep_file(files, &files.at(layer)?, None)?;
                let media_type = "application/vnd.oci.image.layer.v1.tar";
                layers.push(json!({"mediaType": media_type, "digest": digest.to_string(), "size": size}));
            }
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": config_digest.to_string(),
                    "size": config.len(),
                },
                "layers": layers,
            });
            let digest = self.keep(files, manifest.to_string().as_bytes())?;
            let names = image.repo_tags.filter(|tags| !tags.is_empty());
            let names = tag.map(|tag| vec![tag.to_owned()]).or(names);
            let names = names.ok_or_else(|| LoadError::Unnamed { path: files.path.clone() })?;
            for name in names {
                let media_type = "application/vnd.oci.image.manifest.v1+json";
                loaded.push(self.name_image(files, &name, std::slice::from_ref(&digest), media_type)?);
            }
        }
        Ok(loaded)
    }

    fn load_layout(&self, files: &Files, tag: Option<&str>) -> Result<Vec<String>, LoadError> {
        let index: Manifest = files.json("index.json")?;
        let mut loaded = Vec::new();
        for descriptor in &index.manifests {
            let manifests = self.keep_tree(files, descriptor)?;
            let annotation = |key: &str| descriptor.annotations.get(key).cloned();
            let name = tag
                .map(str::to_owned)
                .or_else(|| annotation("io.containerd.image.name"))
                .or_else(|| annotation("org.opencontainers.image.ref.name"));
            let name = name.ok_or_else(|| LoadError::Unnamed { path: files.path.clone() })?;
            loaded.push(self.name_image(files, &name, &manifests, &descriptor.media_type)?);
        }
        Ok(loaded)
    }

    /// Stores a manifest or index of an OCI layout with all it names. Returns the manifests, the named one first.
    fn keep_tree(&self, files: &Files, descriptor: &Descriptor) -> Result<Vec<Digest>, LoadError> {
        let top = files.digest(&descriptor.digest)?;
        let (mut open, mut seen, mut kept) = (vec![top.clone()], BTreeSet::new(), Vec::new());
        while let Some(digest) = open.pop() {
            if !seen.insert(digest.clone()) {
                continue;
            }
            if seen.len() > MANIFESTS {
                return Err(files.invalid(format!("index {top} names more than the {MANIFESTS} manifests allowed")));
            }
            let manifest = self.keep_manifest_of(files, &digest)?;
            for child in &manifest.manifests {
                let child = files.digest(&child.digest)?;
                // A layout may leave out the images of other platforms.
                if files.has(&blob_name(&child)) {
                    open.push(child);
                }
            }
            kept.push(digest);
        }
        Ok(kept)
    }

    /// Stores one manifest of an OCI layout, its configuration and its layers.
    fn keep_manifest_of(&self, files: &Files, digest: &Digest) -> Result<Manifest, LoadError> {
        let bytes = files.bytes(&blob_name(digest), "bytes of a manifest", self.limits().manifest_bytes)?;
        if self.keep(files, &bytes)? != *digest {
            return Err(files.invalid(format!("blob {digest} has other content")));
        }
        let manifest = parse_manifest(&bytes).map_err(|reason| files.invalid(reason))?;
        for blob in manifest.config.iter().chain(&manifest.layers) {
            let expected = files.digest(&blob.digest)?;
            self.keep_file(files, &files.at(&blob_name(&expected))?, Some(&expected))?;
        }
        Ok(manifest)
    }

    fn name_image(
        &self,
        files: &Files,
        name: &str,
        manifests: &[Digest],
        media_type: &str,
    ) -> Result<String, LoadError> {
        let reference: Reference = name.parse().map_err(|e| files.invalid(format!("{e}")))?;
        let reference = self.canonical(&reference);
        let digest = manifests.first().ok_or_else(|| files.invalid(format!("{name} has no manifest")))?;
        let pin = Pin { digest: digest.to_string(), origin: Origin::Given, media_type: media_type.to_owned() };
        let (name, tag) = (reference.name(), reference.tag.as_deref().unwrap_or("latest"));
        let named = self.give(manifests, &name).and_then(|()| self.pin(&name, tag, pin));
        named.map_err(|source| StoreError::Io { what: "remember an image".into(), source })?;
        Ok(reference.to_string())
    }

    fn keep(&self, files: &Files, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        files.hold.borrow_mut().add([digest.clone()]);
        let kept = self.blobs().put(bytes).and_then(|_| self.inner.access.open_up(&digest));
        kept.map(|()| digest).map_err(|source| StoreError::Io { what: "store a blob".into(), source })
    }

    fn keep_file(&self, files: &Files, path: &Path, expected: Option<&Digest>) -> Result<(Digest, u64), StoreError> {
        let io = |source| StoreError::Io { what: format!("store {}", path.display()), source };
        let mut file = fs::File::open(path).map_err(io)?;
        let mut incoming = self.blobs().begin().map_err(io)?;
        let mut hasher = <sha2::Sha256 as sha2::Digest>::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = file.read(&mut buffer).map_err(io)?;
            if count == 0 {
                break;
            }
            sha2::Digest::update(&mut hasher, &buffer[..count]);
            incoming.append(&buffer[..count]).map_err(io)?;
        }
        let size = incoming.length();
        let digest = expected.cloned().unwrap_or_else(|| Digest::finish(hasher));
        files.hold.borrow_mut().add([digest.clone()]);
        incoming.commit(&digest).and_then(|()| self.inner.access.open_up(&digest)).map_err(io)?;
        Ok((digest, size))
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A name without what means nothing in it. Climbing leads no higher than the top, and nowhere on any disk.
fn plain(name: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::ParentDir => drop(plain.pop()),
            _ => {}
        }
    }
    plain
}

/// Writes what `from` gives to a new file, as long as the disk has room.
fn save(from: &mut impl Read, to: &Path) -> io::Result<()> {
    let mut file = private_file(to)?;
    loop {
        has_room(to.parent().unwrap_or(to))?;
        if io::copy(&mut from.by_ref().take(16 << 20), &mut file)? == 0 {
            return Ok(());
        }
    }
}

impl Files {
    /// Takes regular files; symbolic links (`docker save` of old writes them) are followed when read.
    fn extract(path: &Path, scratch: Scratch, store: &ImageStore) -> Result<Self, LoadError> {
        let limits = store.limits();
        let name = path.display().to_string();
        let read = |source| LoadError::Read { path: name.clone(), source };
        let stream = decompress(fs::File::open(path).map_err(read)?).map_err(read)?;
        let stream = Bounded::new(stream, "bytes of an unpacked tarball", limits.image_bytes);
        let limits = Limits { entries: limits.entries.min(FILES), layer_bytes: limits.blob_bytes, ..limits.clone() };
        let mut entries = Entries::new(stream, limits.clone());
        let (mut files, mut links) = (BTreeMap::new(), BTreeMap::new());
        let damaged = |source| LoadError::Damaged { path: name.clone(), source };
        while let Some(entry) = entries.next_entry().map_err(damaged)? {
            let inside = plain(&entry.path);
            match entry.kind {
                EntryKind::Symlink => {
                    let target = plain(&inside.parent().unwrap_or(Path::new("")).join(&entry.target));
                    links.insert(inside, target);
                }
                // Nobody writes holes here; they would be read as missing.
                EntryKind::File if entry.segments.is_none() => {
                    let to = scratch.0.join(files.len().to_string());
                    save(&mut entries, &to).map_err(read)?;
                    files.insert(inside, to);
                }
                _ => {}
            }
        }
        let hold = RefCell::new(store.inner.holds.hold([]));
        Ok(Self { path: name, limits, files, links, hold, _scratch: scratch })
    }

    fn find(&self, name: &str) -> Option<&Path> {
        let name = plain(Path::new(name));
        let target = self.links.get(&name).unwrap_or(&name);
        self.files.get(target).map(PathBuf::as_path)
    }

    fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn at(&self, name: &str) -> Result<PathBuf, LoadError> {
        let found = self.find(name).map(Path::to_owned);
        found.ok_or_else(|| self.invalid(format!("it names {name}, which is not in it")))
    }

    fn bytes(&self, name: &str, what: &'static str, limit: u64) -> Result<Vec<u8>, LoadError> {
        let read = read_bounded(&self.at(name)?, what, limit);
        read.map_err(|source| LoadError::Read { path: format!("{name} of {}", self.path), source })
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, LoadError> {
        let bytes = self.bytes(name, "bytes of a manifest", self.limits.manifest_bytes)?;
        serde_json::from_slice(&bytes).map_err(|e| self.invalid(format!("{name}: {e}")))
    }

    fn digest(&self, text: &str) -> Result<Digest, LoadError> {
        text.parse().map_err(|e| self.invalid(format!("{e}")))
    }

    fn invalid(&self, reason: String) -> LoadError {
        LoadError::Invalid { path: self.path.clone(), reason }
    }
}
