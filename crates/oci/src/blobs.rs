//! Blobs on disk, by digest.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::{
    Digest,
    durable::{private_file, sync_directory},
    limits::{has_room, read_bounded},
};

/// Bytes written between two looks at how full the disk is.
const LOOK: u64 = 16 << 20;

/// A directory of blobs. A blob is there whole, with the right content, or not at all.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    root: PathBuf,
    incoming: PathBuf,
}

/// A blob on its way in. Dropped without [`Incoming::commit`], it leaves nothing.
pub(crate) struct Incoming {
    blobs: Blobs,
    path: PathBuf,
    file: fs::File,
    hasher: Sha256,
    length: u64,
    since_look: u64,
}

impl Blobs {
    /// Of the store in `root`, whose directories are there.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.join("blobs/sha256"), incoming: root.join("incoming") }
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.hex())
    }

    pub(crate) fn length(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.path(digest)).ok().map(|meta| meta.len())
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.length(digest).is_some()
    }

    /// The blob's content, refused when longer than `limit`. One that does not hold what its name says goes, so that it
    /// can come again.
    pub(crate) fn read(&self, digest: &Digest, what: &'static str, limit: u64) -> io::Result<Vec<u8>> {
        let path = self.path(digest);
        let bytes = read_bounded(&path, what, limit)?;
        if Digest::of(&bytes) == *digest {
            return Ok(bytes);
        }
        self.remove(digest)?;
        let text = format!("{} was damaged and is removed: pull or load the image again", path.display());
        tracing::warn!("{text}");
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }

    pub(crate) fn remove(&self, digest: &Digest) -> io::Result<()> {
        fs::remove_file(self.path(digest))
    }

    pub(crate) fn list(&self) -> io::Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            if let Ok(digest) = format!("sha256:{}", name.to_string_lossy()).parse() {
                digests.push(digest);
            }
        }
        Ok(digests)
    }

    pub(crate) fn begin(&self) -> io::Result<Incoming> {
        let path = self.incoming.join(uuid::Uuid::new_v4().to_string());
        has_room(&self.root)?;
        let file = private_file(&path)?;
        Ok(Incoming { blobs: self.clone(), path, file, hasher: Sha256::new(), length: 0, since_look: 0 })
    }

    /// Stores `bytes` and returns their digest.
    pub(crate) fn put(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has(&digest) {
            let mut incoming = self.begin()?;
            incoming.append(bytes)?;
            incoming.commit(&digest)?;
        }
        Ok(digest)
    }
}

impl Incoming {
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        self.since_look += bytes.len() as u64;
        if self.since_look >= LOOK {
            self.since_look = 0;
            has_room(&self.blobs.root)?;
        }
        Ok(())
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Makes the blob visible if it is what `expected` says.
    pub(crate) fn commit(self, expected: &Digest) -> io::Result<()> {
        let found = Digest::finish(self.hasher.clone());
        if found != *expected {
            let text = format!("content has digest {found}, not {expected}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.file.sync_data()?;
        fs::rename(&self.path, self.blobs.path(expected))?;
        sync_directory(&self.blobs.root)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // After a commit the file has moved away and this finds nothing.
        fs::remove_file(&self.path).ok();
    }
}
