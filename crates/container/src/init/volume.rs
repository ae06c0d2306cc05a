//! What the spec mounts.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use nix::sys::stat::Mode;

use super::rootfs::map_ids;
use super::target::{FileKind, find_or_make};
use super::{Failure, Mapping, Step, target};
use crate::protocol::{Mount, MountPropagation, MountSource};
use crate::sys::{self, MountAttributes};

/// A mount picked up and ready to be put in place.
pub(super) struct Volume {
    destination: PathBuf,
    tree: OwnedFd,
    kind: FileKind,
    attributes: MountAttributes,
    propagation: u64,
    /// Who owns mount points that have to be made, if not root.
    owner: Option<u32>,
}

/// Picks up everything a spec mounts, in order.
pub(super) fn collect(mounts: &[Mount], privileged: bool, ids: Option<&Mapping<'_>>) -> Result<Vec<Volume>, Failure> {
    mounts.iter().map(|mount| collect_one(mount, privileged, ids)).collect()
}

fn collect_one(mount: &Mount, privileged: bool, ids: Option<&Mapping<'_>>) -> Result<Volume, Failure> {
    let owner = ids.map(|mapping| mapping.ids.first);
    let destination = mount.destination.clone();
    if !destination.is_absolute() {
        return Err(Failure::start(format!("mount destination {destination:?} is not absolute")));
    }
    let (tree, kind) = match &mount.source {
        MountSource::Bind { path, sub_path } => {
            let what = || format!("cannot mount {path:?} at {destination:?}");
            let (tree, kind) = bind(path, sub_path.as_deref()).blame_spec(what)?;
            if let Some(mapping) = ids {
                map_ids(&tree, mapping, path)?;
            }
            (tree, kind)
        }
        MountSource::Tmpfs { size, mode } => (
            tmpfs(*size, *mode, owner.unwrap_or(0)).step(|| format!("cannot mount a tmpfs at {destination:?}"))?,
            FileKind::Directory,
        ),
    };
    let attributes = MountAttributes { read_only: mount.read_only, no_dev: !privileged, ..MountAttributes::default() };
    let propagation = match mount.propagation {
        MountPropagation::Private => MsFlags::MS_PRIVATE.bits(),
        MountPropagation::HostToContainer => MsFlags::MS_SLAVE.bits(),
        MountPropagation::Bidirectional => 0,
    };
    Ok(Volume { destination, tree, kind, attributes, propagation, owner })
}

fn bind(path: &Path, sub_path: Option<&Path>) -> io::Result<(OwnedFd, FileKind)> {
    let mut place = target::open(path)?;
    if let Some(sub_path) = sub_path {
        if sub_path.is_absolute() || sub_path.components().any(|part| part == std::path::Component::ParentDir) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the sub path must stay below the volume"));
        }
        place = find_or_make(place.as_fd(), sub_path, FileKind::Directory, Mode::from_bits_truncate(0o755), None)?;
    }
    let kind = match fs::metadata(format!("/proc/self/fd/{}", place.as_raw_fd()))?.is_dir() {
        true => FileKind::Directory,
        false => FileKind::File,
    };
    Ok((sys::clone_tree(Some(place.as_fd()), Path::new(""), true)?, kind))
}

fn tmpfs(size: Option<u64>, mode: u32, owner: u32) -> io::Result<OwnedFd> {
    let number = |text: String| std::ffi::CString::new(text).map_err(io::Error::other);
    let mode = number(format!("{:o}", mode & 0o7777))?;
    let attributes = MountAttributes { no_suid: true, no_dev: true, ..MountAttributes::default() };
    let (size, owner) = (size.map(|size| number(size.to_string())).transpose()?, number(owner.to_string())?);
    let mut options = vec![(c"mode", mode.as_c_str()), (c"uid", owner.as_c_str()), (c"gid", owner.as_c_str())];
    options.extend(size.as_ref().map(|size| (c"size", size.as_c_str())));
    sys::detached(c"tmpfs", &options, attributes)
}

/// Puts volumes in place, in order, in the current root.
pub(super) fn place(volumes: Vec<Volume>) -> Result<(), Failure> {
    for volume in volumes {
        place_one(&volume).blame_spec(|| format!("cannot mount at {:?}", volume.destination))?;
    }
    Ok(())
}

fn place_one(volume: &Volume) -> io::Result<()> {
    let root = target::open(Path::new("/"))?;
    let mode = Mode::from_bits_truncate(0o755);
    let at = find_or_make(root.as_fd(), &volume.destination, volume.kind, mode, volume.owner)?;
    sys::set_attributes(volume.tree.as_fd(), volume.attributes, volume.propagation, true)?;
    sys::move_mount(volume.tree.as_fd(), at.as_fd())
}
