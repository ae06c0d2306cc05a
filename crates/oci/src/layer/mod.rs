//! A layer's tar stream, unpacked in the form overlayfs stacks.
//!
//! Whiteouts become what overlayfs reads: `.wh.name` a character device 0/0 called `name`, `.wh..wh..opq` the
//! xattr `trusted.overlay.opaque` on its directory. Ownership, modes, times, hard links and extended attributes are
//! kept; of devices only those that every container has. An entry cannot leave the directory it is unpacked into,
//! and a layer cannot be larger than [`Limits`] say.

mod apply;
mod root;

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use apply::{Refused, Tree};
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::{
    Digest,
    limits::{Bounded, LimitError, Limits},
    tarfile::{Entries, Entry, TarError},
};

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// An entry or the stream cannot be read or written.
    #[error("unpack {what}")]
    Io {
        /// What was being unpacked.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The stream is no sound archive.
    #[error(transparent)]
    Archive(#[from] TarError),
    /// An entry's path leads out of the layer.
    #[error("entry {path:?} leads out of the layer")]
    Escape {
        /// The path.
        path: PathBuf,
    },
    /// A whiteout that hides no name of a directory.
    #[error("entry {path:?} hides nothing that can be hidden")]
    Whiteout {
        /// The path.
        path: PathBuf,
    },
    /// The content is not what the configuration names.
    #[error("its content is {found}: the image is damaged")]
    Content {
        /// What was found.
        found: Digest,
    },
}

impl LayerError {
    fn io(what: impl Into<String>, source: io::Error) -> Self {
        match LimitError::in_io(&source) {
            Some(limit) => TarError::Limit(limit.clone()).into(),
            None => Self::Io { what: what.into(), source },
        }
    }
}

/// What a layer turned out to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of its archive.
    pub archive_bytes: u64,
    /// What was left out.
    pub skipped: Skipped,
}

/// What was left out of a layer because it would mean something outside of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Devices that not every container has.
    pub devices: u64,
    /// Extended attributes that speak to the host.
    pub xattrs: u64,
    /// The first of them.
    pub first: Option<String>,
}

impl Skipped {
    fn note(&mut self, text: impl FnOnce() -> String) {
        self.first.get_or_insert_with(text);
    }

    fn device(&mut self, entry: &Entry) {
        self.devices += 1;
        let (major, minor) = entry.device;
        self.note(|| format!("device {major}:{minor} {}", entry.path.display()));
    }

    fn xattr(&mut self, entry: &Entry, name: &std::ffi::OsStr) {
        self.xattrs += 1;
        self.note(|| format!("attribute {} of {}", name.display(), entry.path.display()));
    }
}

/// Reads through, hashing.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    count: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}

/// Takes gzip or zstd off a stream, by what its first bytes say.
///
/// # Errors
/// When the stream cannot be read.
pub fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = io::BufReader::with_capacity(256 << 10, reader);
    Ok(match io::BufRead::fill_buf(&mut reader)? {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
            // 128 MiB: what the command line tool takes, too. A frame may ask for terabytes.
            decoder.window_log_max(27)?;
            Box::new(decoder)
        }
        _ => Box::new(reader),
    })
}

fn opened<'a>(blob: impl Read + 'a, limits: &Limits) -> Result<Hashing<Bounded<Box<dyn Read + 'a>>>, LayerError> {
    let reader = decompress(blob).map_err(|source| LayerError::io("the compressed stream", source))?;
    let inner = Bounded::new(reader, "bytes of an unpacked layer", limits.layer_bytes);
    Ok(Hashing { inner, hasher: Sha256::new(), count: 0 })
}

/// Unpacks the layer that `blob` gives, compressed or not, into the empty directory `target`. Returns what it held and
/// the digest of its archive.
///
/// # Errors
/// When it is damaged, leads out of `target`, or is larger than `limits` allow.
pub fn unpack_layer(blob: impl Read, target: &Path, limits: &Limits) -> Result<(Unpacked, Digest), LayerError> {
    let mut entries = Entries::new(opened(blob, limits)?, limits.clone());
    let mut tree = Tree::open(target, limits).map_err(|source| LayerError::io(target.display().to_string(), source))?;
    while let Some(entry) = entries.next_entry()? {
        tree.apply(&entry, &mut entries).map_err(|refused| match refused {
            Refused::Escape => LayerError::Escape { path: entry.path.clone() },
            Refused::Whiteout => LayerError::Whiteout { path: entry.path.clone() },
            Refused::Io(source) => LayerError::io(format!("entry {:?}", entry.path), source),
        })?;
    }
    tree.finish().map_err(|refused| match refused {
        Refused::Io(source) => LayerError::io("its directories", source),
        Refused::Escape | Refused::Whiteout => LayerError::Escape { path: PathBuf::new() },
    })?;
    let (archive_bytes, digest) = drain(entries.into_inner())?;
    Ok((Unpacked { bytes: tree.bytes, archive_bytes, skipped: tree.skipped }, digest))
}

/// Reads a layer to its end. Returns its length and digest.
fn drain<R: Read>(mut layer: Hashing<R>) -> Result<(u64, Digest), LayerError> {
    io::copy(&mut layer, &mut io::sink()).map_err(|source| LayerError::io("the end of the archive", source))?;
    Ok((layer.count, Digest::finish(layer.hasher)))
}

/// Digest of the archive in the blob at `path`.
pub(crate) fn diff_id(path: &Path, limits: &Limits) -> Result<Digest, LayerError> {
    let file = fs::File::open(path).map_err(|source| LayerError::io("a blob", source))?;
    drain(opened(file, limits)?).map(|(_, digest)| digest)
}

/// Unpacks the blob at `path` into the empty directory `target`, and checks that it is the layer `diff_id`.
pub(crate) fn unpack(path: &Path, diff_id: &Digest, target: &Path, limits: &Limits) -> Result<Unpacked, LayerError> {
    let file = fs::File::open(path).map_err(|source| LayerError::io("a blob", source))?;
    let (unpacked, found) = unpack_layer(file, target, limits)?;
    if found == *diff_id { Ok(unpacked) } else { Err(LayerError::Content { found }) }
}
