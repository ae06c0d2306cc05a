//! Tarballs of images: what `docker save` writes, and OCI layouts.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::json;

use crate::{
    Digest, ImageStore, Reference,
    local::{Descriptor, Manifest, Origin, Pin, StoreError},
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

/// The files of a tarball, extracted below a temporary directory by their names in it.
struct Files {
    path: String,
    directory: tempdir::Scratch,
    links: BTreeMap<PathBuf, PathBuf>,
}

mod tempdir {
    use std::{fs, io, path::PathBuf};

    /// A directory that goes with its owner.
    pub(super) struct Scratch(pub(super) PathBuf);

    impl Scratch {
        pub(super) fn new(parent: PathBuf) -> io::Result<Self> {
            let path = parent.join(uuid::Uuid::new_v4().to_string());
            fs::create_dir_all(&path).map(|()| Self(path))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }
}

impl ImageStore {
    /// Loads the images of a tarball. `tag` names them where the tarball does not. Returns their references.
    ///
    /// # Errors
    /// When it is not an image archive, or is damaged.
    pub async fn load_tar(&self, path: &Path, tag: Option<&str>) -> Result<Vec<String>, LoadError> {
        let _not_collecting = self.inner.pins.read().await;
        let (store, path, tag) = (self.clone(), path.to_owned(), tag.map(str::to_owned));
        let work = move || store.load_blocking(&path, tag.as_deref());
        let joined = tokio::task::spawn_blocking(work).await;
        joined.map_err(|e| StoreError::Io { what: "load an archive".into(), source: io::Error::other(e) })?
    }

    fn load_blocking(&self, path: &Path, tag: Option<&str>) -> Result<Vec<String>, LoadError> {
        let name = path.display().to_string();
        let scratch = tempdir::Scratch::new(self.inner.root.join("unpacking"));
        let read = |source| LoadError::Read { path: name.clone(), source };
        let files = Files::extract(path, scratch.map_err(read)?).map_err(read)?;
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
            let config = files.bytes(&image.config)?;
            let config_digest = self.keep(&config)?;
            let mut layers = Vec::new();
            for layer in &image.layers {
                let (digest, size) = self.keep_file(&files.at(layer)?, None)?;
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
            let digest = self.keep(manifest.to_string().as_bytes())?;
            let names = image.repo_tags.filter(|tags| !tags.is_empty());
            let names = tag.map(|tag| vec![tag.to_owned()]).or(names);
            let names = names.ok_or_else(|| LoadError::Unnamed { path: files.path.clone() })?;
            for name in names {
                let media_type = "application/vnd.oci.image.manifest.v1+json";
                loaded.push(self.give(files, &name, &digest, media_type)?);
            }
        }
        Ok(loaded)
    }

    fn load_layout(&self, files: &Files, tag: Option<&str>) -> Result<Vec<String>, LoadError> {
        let index: Manifest = files.json("index.json")?;
        let mut loaded = Vec::new();
        for descriptor in &index.manifests {
            let digest = self.keep_tree(files, descriptor)?;
            let annotation = |key: &str| descriptor.annotations.get(key).cloned();
            let name = tag
                .map(str::to_owned)
                .or_else(|| annotation("io.containerd.image.name"))
                .or_else(|| annotation("org.opencontainers.image.ref.name"));
            let name = name.ok_or_else(|| LoadError::Unnamed { path: files.path.clone() })?;
            loaded.push(self.give(files, &name, &digest, &descriptor.media_type)?);
        }
        Ok(loaded)
    }

    /// Stores a manifest or index of an OCI layout with all it names.
    fn keep_tree(&self, files: &Files, descriptor: &Descriptor) -> Result<Digest, LoadError> {
        let digest = files.digest(&descriptor.digest)?;
        let bytes = files.bytes(&format!("blobs/sha256/{}", digest.hex()))?;
        if self.keep(&bytes)? != digest {
            return Err(files.invalid(format!("blob {digest} has other content")));
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| files.invalid(e.to_string()))?;
        for child in &manifest.manifests {
            // A layout may leave out the images of other platforms.
            if files.has(&format!("blobs/sha256/{}", files.digest(&child.digest)?.hex())) {
                self.keep_tree(files, child)?;
            }
        }
        for blob in manifest.config.iter().chain(&manifest.layers) {
            let expected = files.digest(&blob.digest)?;
            self.keep_file(&files.at(&format!("blobs/sha256/{}", expected.hex()))?, Some(&expected))?;
        }
        Ok(digest)
    }

    fn give(&self, files: &Files, name: &str, digest: &Digest, media_type: &str) -> Result<String, LoadError> {
        let reference: Reference = name.parse().map_err(|e| files.invalid(format!("{e}")))?;
        let reference = self.canonical(&reference);
        let pin = Pin { digest: digest.to_string(), origin: Origin::Given, media_type: media_type.to_owned() };
        let tag = reference.tag.as_deref().unwrap_or("latest");
        self.pin(&reference.name(), tag, &pin)
            .map_err(|source| StoreError::Io { what: "remember a tag".into(), source })?;
        Ok(reference.to_string())
    }

    fn keep(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.blobs().put(bytes).map_err(|source| StoreError::Io { what: "store a blob".into(), source })
    }

    fn keep_file(&self, path: &Path, expected: Option<&Digest>) -> Result<(Digest, u64), StoreError> {
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
        incoming.commit(&digest).map_err(io)?;
        Ok((digest, size))
    }
}

impl Files {
    /// Unpacks regular files; symbolic links (`docker save` of old writes them) are followed when read.
    fn extract(path: &Path, directory: tempdir::Scratch) -> io::Result<Self> {
        let mut archive = tar::Archive::new(crate::layer::decompressed(path)?);
        let mut links = BTreeMap::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = entry.path()?.into_owned();
            if entry.header().entry_type().is_symlink() {
                if let Some(target) = entry.link_name()? {
                    links.insert(name.clone(), name.parent().unwrap_or(Path::new("")).join(target));
                }
            } else if entry.header().entry_type().is_file() || entry.header().entry_type().is_dir() {
                entry.unpack_in(&directory.0)?;
            }
        }
        Ok(Self { path: path.display().to_string(), directory, links })
    }

    fn resolve(&self, name: &str) -> PathBuf {
        let target = self.links.get(Path::new(name)).cloned().unwrap_or_else(|| PathBuf::from(name));
        let mut path = self.directory.0.clone();
        for part in target.components() {
            match part {
                std::path::Component::Normal(part) => path.push(part),
                std::path::Component::ParentDir if path != self.directory.0 => drop(path.pop()),
                _ => {}
            }
        }
        path
    }

    fn has(&self, name: &str) -> bool {
        self.resolve(name).is_file()
    }

    fn at(&self, name: &str) -> Result<PathBuf, LoadError> {
        let path = self.resolve(name);
        if path.is_file() { Ok(path) } else { Err(self.invalid(format!("it names {name}, which is not in it"))) }
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, LoadError> {
        fs::read(self.at(name)?).map_err(|source| LoadError::Read { path: self.path.clone(), source })
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, LoadError> {
        serde_json::from_slice(&self.bytes(name)?).map_err(|e| self.invalid(format!("{name}: {e}")))
    }

    fn digest(&self, text: &str) -> Result<Digest, LoadError> {
        text.parse().map_err(|e| self.invalid(format!("{e}")))
    }

    fn invalid(&self, reason: String) -> LoadError {
        LoadError::Invalid { path: self.path.clone(), reason }
    }
}
