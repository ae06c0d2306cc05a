//! Scratch space that lives as long as its pod, on disk or in memory.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Makes the directory. With `memory` it is a file system of its own in memory, of at most `size` bytes.
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
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}

/// Unmounts the directory if it is a file system of its own.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn release(dir: &Path) -> io::Result<()> {
    if dir.exists() && is_mounted(dir)? {
        umount2(dir, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

/// Bytes that the files below `dir` use, links not followed; file systems mounted below are not counted.
///
/// # Errors
/// When the directory itself cannot be read; what vanishes meanwhile is skipped.
pub fn usage(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(dir)?.dev();
    let mut total = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        let Ok(entries) = fs::read_dir(&at) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != device {
                continue;
            }
            total += meta.blocks() * 512;
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(total)
}

fn is_mounted(dir: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let parent = dir.parent().unwrap_or(dir);
    Ok(fs::metadata(dir)?.dev() != fs::metadata(parent)?.dev())
}
