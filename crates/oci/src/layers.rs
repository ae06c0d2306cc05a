//! Unpacked layers: each unpacked once, trusted only once all of it is on disk.
//!
//! A layer's directory is trusted when its record stands beside it. The record is written last, after the file system
//! was synced, so a layer that a power cut tore has none, and is unpacked again. The record also names the blobs that
//! were seen to hold the layer: an image that names a layer's digest without having its content gets nothing by it.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use knoll_journal::{with_checksum, without_checksum};
use nix::unistd::syncfs;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    Digest, ImageStore, LayerError, Limits, StoreError,
    durable::{replace, sync_directory},
    layer,
};

/// Blobs remembered to hold one layer: compressed in different ways, it has several.
const BLOBS: usize = 64;

/// What is known of an unpacked layer.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Blobs that were seen to hold it.
    blobs: BTreeSet<String>,
    /// Bytes of its files.
    bytes: u64,
}

/// An unpacked layer.
pub(crate) struct UnpackedLayer {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// A layer that an image wants.
#[derive(Clone)]
pub(crate) struct WantedLayer {
    /// The image, for messages.
    pub(crate) image: String,
    /// What holds the layer.
    pub(crate) blob: Digest,
    /// Digest of its archive.
    pub(crate) diff_id: Digest,
    /// Bytes it may unpack to.
    pub(crate) budget: u64,
}

fn io<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { what: format!("{what} {}", path.display()), source }
}

impl ImageStore {
    fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.inner.root.join("layers").join(diff_id.hex())
    }

    fn record_path(&self, diff_id: &Digest) -> PathBuf {
        self.inner.root.join("unpacked").join(diff_id.hex())
    }

    fn record(&self, diff_id: &Digest) -> Option<Record> {
        let path = self.record_path(diff_id);
        let kept = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(without_checksum(&bytes)?)?));
        let told = |error: &io::Error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "a layer's record is damaged: it is unpacked again");
            }
        };
        let record = kept.inspect_err(told).ok()?;
        self.layer_path(diff_id).is_dir().then_some(record)
    }

    fn keep_record(&self, diff_id: &Digest, record: &Record) -> Result<(), StoreError> {
        let (path, json) = (self.record_path(diff_id), serde_json::to_vec(record).expect("plain fields serialize"));
        let content = with_checksum(json);
        replace(&path, &content, &self.inner.root.join("unpacking")).map_err(io("write", &path))
    }

    /// The unpacked layer if it is trusted, and known to be what the blob holds.
    fn trusted(&self, wanted: &WantedLayer) -> Option<UnpackedLayer> {
        let record = self.record(&wanted.diff_id).filter(|record| record.blobs.contains(&wanted.blob.to_string()))?;
        Some(UnpackedLayer { path: self.layer_path(&wanted.diff_id), bytes: record.bytes })
    }

    /// The directory of an unpacked layer.
    pub(crate) async fn unpacked_layer(&self, wanted: WantedLayer) -> Result<UnpackedLayer, StoreError> {
        let layer = match self.trusted(&wanted) {
            Some(layer) => layer,
            None => {
                let unpacking = self.lock_for(wanted.diff_id.hex()).lock_owned().await;
                let (store, wanted) = (self.clone(), wanted.clone());
                let unpack = move || {
                    // Held until the thread is done, whether anybody still waits for it or not.
                    let _unpacking = unpacking;
                    store.unpack_layer(&wanted)
                };
                let joined = tokio::task::spawn_blocking(unpack).await;
                joined.map_err(|e| StoreError::Io { what: "unpack a layer".into(), source: io::Error::other(e) })??
            }
        };
        if layer.bytes > wanted.budget {
            let reason = format!("its layers unpack to more than the {} bytes allowed", self.limits().image_bytes);
            return Err(StoreError::Invalid { image: wanted.image, reason });
        }
        Ok(layer)
    }

    fn unpack_layer(&self, wanted: &WantedLayer) -> Result<UnpackedLayer, StoreError> {
        if let Some(layer) = self.trusted(wanted) {
            return Ok(layer);
        }
        let outcome = match self.record(&wanted.diff_id) {
            Some(record) => self.check_layer(wanted, record),
            None => self.make_layer(wanted),
        };
        outcome.inspect_err(|_| self.drop_damaged(&wanted.blob))
    }

    /// Sees whether the blob holds the layer that is unpacked already.
    fn check_layer(&self, wanted: &WantedLayer, mut record: Record) -> Result<UnpackedLayer, StoreError> {
        let found = layer::diff_id(&self.blobs().path(&wanted.blob), self.limits());
        let found = found.map_err(|source| self.refused(wanted, source))?;
        if found != wanted.diff_id {
            return Err(self.refused(wanted, LayerError::Content { found }));
        }
        if record.blobs.len() >= BLOBS {
            record.blobs.clear();
        }
        record.blobs.insert(wanted.blob.to_string());
        self.keep_record(&wanted.diff_id, &record)?;
        Ok(UnpackedLayer { path: self.layer_path(&wanted.diff_id), bytes: record.bytes })
    }

    fn make_layer(&self, wanted: &WantedLayer) -> Result<UnpackedLayer, StoreError> {
        let scratch = self.inner.root.join("unpacking");
        let (temporary, path) = (scratch.join(uuid::Uuid::new_v4().to_string()), self.layer_path(&wanted.diff_id));
        // Whatever the umask: a root that its layer says nothing about is open to all users of the container. The
        // directories above it are not.
        let made = fs::create_dir(&temporary)
            .and_then(|()| fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)));
        made.map_err(io("make", &temporary))?;
        let limits = Limits { layer_bytes: self.limits().layer_bytes.min(wanted.budget), ..self.limits().clone() };
        let unpacked = layer::unpack(&self.blobs().path(&wanted.blob), &wanted.diff_id, &temporary, &limits);
        let unpacked = unpacked.inspect_err(|_| forget(&temporary)).map_err(|source| self.refused(wanted, source))?;
        if unpacked.skipped.first.is_some() {
            let (image, layer, skipped) = (&wanted.image, wanted.diff_id.to_string(), &unpacked.skipped);
            let (devices, attributes, first) = (skipped.devices, skipped.xattrs, skipped.first.as_deref());
            tracing::warn!(image, layer, devices, attributes, first, "parts of a layer were left out");
        }
        self.publish(&temporary, &path).inspect_err(|_| forget(&temporary)).map_err(io("keep", &path))?;
        let record = Record { blobs: [wanted.blob.to_string()].into(), bytes: unpacked.bytes };
        self.keep_record(&wanted.diff_id, &record)?;
        Ok(UnpackedLayer { path, bytes: record.bytes })
    }

    /// Moves a finished layer to its place once all of it is on disk.
    fn publish(&self, temporary: &Path, path: &Path) -> io::Result<()> {
        syncfs(fs::File::open(temporary)?)?;
        if path.exists() {
            // Torn, or of a version that kept no records. A container may still run from it: it is moved away, and
            // removed when the disk fills up.
            let aside = path.with_extension(uuid::Uuid::new_v4().to_string());
            fs::rename(path, &aside)?;
            tracing::warn!(layer = %path.display(), "a layer that is not known to be whole was unpacked again");
        }
        fs::rename(temporary, path)?;
        sync_directory(&self.inner.root.join("layers"))?;
        sync_directory(&self.inner.root.join("unpacking"))
    }

    fn refused(&self, wanted: &WantedLayer, source: LayerError) -> StoreError {
        StoreError::Layer { image: wanted.image.clone(), layer: wanted.diff_id.clone(), source }
    }

    /// Removes a blob that does not hold what its name says, so that it is fetched again.
    fn drop_damaged(&self, blob: &Digest) {
        let path = self.blobs().path(blob);
        match digest_of(&path) {
            Ok(found) if found != *blob => {
                tracing::warn!(%blob, "a damaged blob was removed: it is fetched again");
                if let Err(error) = self.blobs().remove(blob) {
                    tracing::warn!(%blob, %error, "a damaged blob cannot be removed");
                }
            }
            _ => {}
        }
    }
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut file = fs::File::open(path)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::finish(hasher)),
            count => hasher.update(&buffer[..count]),
        }
    }
}

fn forget(temporary: &Path) {
    if let Err(error) = knoll_tree::remove(temporary) {
        tracing::warn!(path = %temporary.display(), %error, "what was unpacked in vain cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;
    use crate::Config;

    #[tokio::test]
    async fn a_layer_is_unpacked_by_one_at_a_time_though_who_waited_for_it_is_gone() {
        let scratch = tempfile::tempdir().expect("a directory");
        let store = ImageStore::open(&scratch.path().join("images"), Config::default()).expect("opens");
        let (blob, diff_id) = (Digest::of(b"blob"), Digest::of(b"layer"));
        // Whoever unpacks it waits for what comes through the pipe.
        let path = store.blobs().path(&blob);
        mkfifo(&path, Mode::S_IRWXU).expect("makes a pipe");
        let wanted = WantedLayer { image: "i".into(), blob, diff_id: diff_id.clone(), budget: u64::MAX };
        let held = store.clone();
        let waiting = tokio::spawn(async move { held.unpacked_layer(wanted).await.map(|layer| layer.bytes) });
        let pipe = path.clone();
        let opened = tokio::task::spawn_blocking(move || fs::OpenOptions::new().write(true).open(pipe));
        let writer = opened.await.expect("no panic").expect("somebody reads");
        waiting.abort();
        assert!(waiting.await.expect_err("is given up").is_cancelled());
        let lock = store.lock_for(diff_id.hex());
        let is_held = lock.try_lock().is_err();
        fs::remove_file(path).expect("is there");
        drop(writer);
        assert!(is_held, "it is being unpacked");
        drop(lock.lock().await);
    }
}
