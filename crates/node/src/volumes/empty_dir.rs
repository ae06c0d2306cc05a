//! Scratch space that lives as long as its pod, on disk or in memory.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use knoll_container::quota::{self, Limited};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Makes the directory. With `memory` it is a file system of its own in memory, of at most `size` bytes; on disk it can
/// hold no more than that where the file system has project quotas in force, and is measured in any case.
///
/// # Errors
/// When the file system refuses.
pub(super) fn prepare(dir: &Path, memory: bool, size: Option<u64>, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    if memory && !is_mounted(dir)? {
        let options = size.map_or_else(|| "mode=0777".to_owned(), |size| format!("mode=0777,size={size}"));
        mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))?;
    }
    let mut mode = 0o777;
    if let Some(group) = group {
        chown(dir, None, Some(group))?;
        mode |= 0o2000;
    }
    if let Some(size) = size.filter(|_| !memory) {
        limit(dir, size);
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}

/// A volume without the limit is measured like any other, so the pod runs.
fn limit(dir: &Path, size: u64) {
    match quota::limit(dir, size) {
        Ok(Limited::By(project)) => tracing::debug!(?dir, size, project, "a volume is limited by a project quota"),
        Ok(limited) => tracing::debug!(?dir, size, ?limited, "a volume has no quota and is only measured"),
        Err(error) => tracing::warn!(?dir, size, %error, "no quota can be set for a volume: it is only measured"),
    }
}

/// Unmounts whatever is mounted on a directory, and takes its limit away. To be called before it is removed.
///
/// # Errors
/// When the kernel refuses to unmount.
pub(super) fn release(dir: &Path) -> io::Result<()> {
    unmount(dir)?;
    if let Err(error) = quota::release(dir) {
        tracing::warn!(?dir, %error, "the quota of a volume cannot be taken away: its project stays in use");
    }
    Ok(())
}

fn unmount(dir: &Path) -> io::Result<()> {
    loop {
        match umount2(dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // Mounts may lie on each other.
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_mounted(dir: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let parent = dir.parent().unwrap_or(dir);
    Ok(fs::metadata(dir)?.dev() != fs::metadata(parent)?.dev())
}
