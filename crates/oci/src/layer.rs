//! A layer's tar stream, unpacked in the form overlayfs stacks.
//!
//! Whiteouts become what overlayfs reads: `.wh.name` a character device 0/0 called `name`, `.wh..wh..opq` the
//! xattr `trusted.overlay.opaque` on its directory. Ownership, modes, times, hard links, devices and extended
//! attributes are kept. An entry cannot leave the directory it is unpacked into.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::{PermissionsExt as _, chown, lchown},
    path::{Component, Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use crate::Digest;

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// An entry or the stream cannot be read or written.
    #[error("unpack layer {layer}: {what}")]
    Io {
        /// The layer.
        layer: Digest,
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// An entry's path leads out of the layer.
    #[error("unpack layer {layer}: entry {path:?} leads out of the layer")]
    Escape {
        /// The layer.
        layer: Digest,
        /// The path.
        path: PathBuf,
    },
    /// The content is not what the configuration names.
    #[error("layer {layer} unpacks to {found}: the image is damaged")]
    Content {
        /// What the configuration names.
        layer: Digest,
        /// What was found.
        found: Digest,
    },
}

/// Reads through, hashing.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// Opens a blob, taking gzip or zstd off by what its first bytes say.
pub(crate) fn decompressed(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = io::BufReader::with_capacity(256 << 10, fs::File::open(path)?);
    let start = io::BufRead::fill_buf(&mut file)?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        _ => Box::new(file),
    })
}

/// Unpacks the blob at `path` into the empty directory `target`, and checks that it is the layer `diff_id`.
pub(crate) fn unpack(path: &Path, diff_id: &Digest, target: &Path) -> Result<(), LayerError> {
    let fail = |what: &str| {
        let (layer, what) = (diff_id.clone(), what.to_owned());
        move |source| LayerError::Io { layer, what, source }
    };
    let reader = decompressed(path).map_err(fail("open"))?;
    let mut archive = tar::Archive::new(Hashing { inner: reader, hasher: Sha256::new() });
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_preserve_mtime(true);
    archive.set_unpack_xattrs(true);
    archive.set_overwrite(true);
    for entry in archive.entries().map_err(fail("read the archive"))? {
        let mut entry = entry.map_err(fail("read an entry"))?;
        let path = entry.path().map_err(fail("read a path"))?.into_owned();
        let Some(inside) = clean(&path) else { return Err(LayerError::Escape { layer: diff_id.clone(), path }) };
        let done = unpack_entry(&mut entry, &inside, target);
        match done {
            Ok(true) => {}
            Ok(false) => return Err(LayerError::Escape { layer: diff_id.clone(), path }),
            Err(error) => return Err(fail(&path.display().to_string())(error)),
        }
    }
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(fail("read to the end"))?;
    let found = Digest::finish(rest.hasher);
    if found == *diff_id { Ok(()) } else { Err(LayerError::Content { layer: diff_id.clone(), found }) }
}

/// The path below the root that `path` names; `None` when it goes above.
fn clean(path: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => inside.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir => {
                if !inside.pop() {
                    return None;
                }
            }
            Component::Prefix(_) => return None,
        }
    }
    Some(inside)
}

/// Unpacks one entry. `Ok(false)` when it would leave `target`.
fn unpack_entry<R: Read>(entry: &mut tar::Entry<'_, R>, inside: &Path, target: &Path) -> io::Result<bool> {
    let Some(name) = inside.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
        // The layer's root directory itself.
        return apply_to_root(entry, target).map(|()| true);
    };
    let parent = target.join(inside.parent().unwrap_or(Path::new("")));
    if let Some(hidden) = name.strip_prefix(".wh.") {
        if !make_parents(&parent, target)? {
            return Ok(false);
        }
        if hidden == ".wh..opq" {
            xattr::set(&parent, "trusted.overlay.opaque", b"y")?;
        } else if !hidden.starts_with(".wh.") {
            white_out(&parent.join(hidden))?;
        }
        return Ok(true);
    }
    match entry.header().entry_type() {
        kind @ (EntryType::Char | EntryType::Block | EntryType::Fifo) => {
            if !make_parents(&parent, target)? {
                return Ok(false);
            }
            make_node(entry, kind, &parent.join(&name)).map(|()| true)
        }
        _ => entry.unpack_in(target),
    }
}

fn apply_to_root<R: Read>(entry: &tar::Entry<'_, R>, target: &Path) -> io::Result<()> {
    let header = entry.header();
    fs::set_permissions(target, fs::Permissions::from_mode(header.mode()?))?;
    chown(target, Some(id(header.uid()?)?), Some(id(header.gid()?)?))
}

fn id(number: u64) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "user or group id out of range"))
}

/// Makes the directories that lead to `parent`. `false` when one of them is a link out of `target`.
fn make_parents(parent: &Path, target: &Path) -> io::Result<bool> {
    let inside = parent.strip_prefix(target).map_err(io::Error::other)?;
    let mut at = target.to_owned();
    for part in inside.components() {
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Ok(fs::canonicalize(&at).is_ok_and(|real| real.starts_with(target) && real.is_dir())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&at)?,
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn white_out(path: &Path) -> io::Result<()> {
    remove_any(path)?;
    mknod(path, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).map_err(io::Error::from)
}

fn remove_any(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn make_node<R: Read>(entry: &tar::Entry<'_, R>, kind: EntryType, path: &Path) -> io::Result<()> {
    remove_any(path)?;
    let header = entry.header();
    let flag = match kind {
        EntryType::Char => SFlag::S_IFCHR,
        EntryType::Block => SFlag::S_IFBLK,
        _ => SFlag::S_IFIFO,
    };
    let (major, minor) = (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
    mknod(path, flag, Mode::from_bits_truncate(header.mode()?), makedev(major.into(), minor.into()))?;
    lchown(path, Some(id(header.uid()?)?), Some(id(header.gid()?)?))?;
    fs::set_permissions(path, fs::Permissions::from_mode(header.mode()?))
}
