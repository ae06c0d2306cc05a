//! A file or directory of the machine.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::VolumeError;

/// Checks that the path is what the volume says, making it where the volume asks for that.
///
/// # Errors
/// When it is something else, or cannot be made.
pub(super) fn prepare(path: &str, kind: &str) -> Result<PathBuf, VolumeError> {
    let at = Path::new(path);
    let unlike = |what: &str| Err(VolumeError::HostPath(format!("hostPath type check failed: {path} is not {what}")));
    if !at.is_absolute() {
        return Err(VolumeError::HostPath(format!("hostPath {path} is not absolute")));
    }
    let io = |source| VolumeError::Io { what: format!("prepare {path}"), source };
    match kind {
        "DirectoryOrCreate" if !at.exists() => fs::create_dir_all(at).map_err(io)?,
        "FileOrCreate" if !at.exists() => drop(fs::File::create(at).map_err(io)?),
        // Without a type a missing path is made as a directory, so that there is something to mount.
        "" if !at.exists() => fs::create_dir_all(at).map_err(io)?,
        _ => {}
    }
    let found = fs::metadata(at).map(|m| m.file_type());
    let is = |check: fn(&fs::FileType) -> bool| found.as_ref().is_ok_and(check);
    match kind {
        "" => {}
        "Directory" | "DirectoryOrCreate" if !is(fs::FileType::is_dir) => return unlike("a directory"),
        "File" | "FileOrCreate" if !is(fs::FileType::is_file) => return unlike("a file"),
        "Socket" if !is(FileTypeExt::is_socket) => return unlike("a socket file"),
        "CharDevice" if !is(FileTypeExt::is_char_device) => return unlike("a character device"),
        "BlockDevice" if !is(FileTypeExt::is_block_device) => return unlike("a block device"),
        "Directory" | "DirectoryOrCreate" | "File" | "FileOrCreate" | "Socket" | "CharDevice" | "BlockDevice" => {}
        other => return Err(VolumeError::HostPath(format!("hostPath type {other} is unknown"))),
    }
    Ok(at.to_owned())
}
