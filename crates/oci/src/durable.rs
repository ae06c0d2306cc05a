//! Files that are on disk, whole, before anything trusts them.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// Makes a directory that only its owner enters, or mends the one that is there.
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Creates a file that only its owner reads.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Puts a file called by its content's last name in place of what was there: all of it, or nothing of it, even if the
/// power goes. `scratch` is a directory of the same file system.
pub(crate) fn replace(path: &Path, content: &[u8], scratch: &Path) -> io::Result<()> {
    let temporary = scratch.join(uuid::Uuid::new_v4().to_string());
    let mut file = private_file(&temporary)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        fs::remove_file(&temporary).ok();
    }
    written?;
    path.parent().map_or(Ok(()), sync_directory)
}
