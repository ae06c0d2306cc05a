//! Files and directories for root alone: made so, written so that a crash leaves the old or the new, and mended where
//! an older version left them open.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    sys::stat::{Mode, umask},
};

use crate::paths::{OURS, Paths, RUNTIME};

const DIRECTORY: u32 = 0o700;
const FILE: u32 = 0o600;

/// From here on whatever this process makes is its owner's, unless it says otherwise.
pub(crate) fn by_default() {
    umask(Mode::from_bits_truncate(0o077));
}

/// Makes a directory that is ours alone, and closes one that is there to others. It is no link that somebody put there.
pub(crate) fn directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(DIRECTORY).create(path)?;
    let mut options = fs::OpenOptions::new();
    let flags = OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY;
    options.read(true).custom_flags(flags.bits()).open(path)?.set_permissions(fs::Permissions::from_mode(DIRECTORY))
}

/// Opens a file to append to. It is no link that somebody put there.
pub(crate) fn append(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    let file = options.create(true).append(true).mode(FILE).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(FILE))?;
    Ok(file)
}

/// Writes a file anew, so that a crash leaves the old or the new.
pub(crate) fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(FILE).custom_flags(OFlag::O_NOFOLLOW.bits());
    let written = options.open(&temporary).and_then(|mut file| {
        file.set_permissions(fs::Permissions::from_mode(FILE))?;
        file.write_all(text)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    match path.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Writes over a file in place, for which a full disk has room. A crash may leave neither the old nor the new.
pub(crate) fn overwrite(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
    file.write_all(text)?;
    file.set_len(text.len() as u64)
}

/// A path that others may look into.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooOpen {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    pub(crate) wanted: u32,
}

/// What of an instance's places others may look into. Images and volumes have owners of their own.
pub(crate) fn too_open(paths: &Paths) -> io::Result<Vec<TooOpen>> {
    let mut found = Vec::new();
    look(Path::new(RUNTIME), DIRECTORY, &mut found)?;
    look(&Paths::lock(), FILE, &mut found)?;
    if holds_only_ours(&paths.data)? {
        look(&paths.data, DIRECTORY, &mut found)?;
    }
    for path in [paths.kubeconfig(), paths.log(), paths.instance()] {
        look(&path, FILE, &mut found)?;
    }
    for directory in [paths.store(), paths.events(), paths.pki()] {
        look(&directory, DIRECTORY, &mut found)?;
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            look(&entry?.path(), FILE, &mut found)?;
        }
    }
    Ok(found)
}

/// Whether nothing of others is in a data directory: where something is, it is theirs to close.
fn holds_only_ours(data: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(data) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        if !OURS.iter().any(|ours| name == **ours) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn look(path: &Path, wanted: u32, found: &mut Vec<TooOpen>) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mode = meta.permissions().mode() & 0o7777;
    // A link's own mode says nothing.
    if !meta.is_symlink() && mode & 0o077 != 0 {
        found.push(TooOpen { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

/// Closes them.
pub(crate) fn mend(paths: &Paths) -> io::Result<()> {
    for TooOpen { path, mode, wanted } in too_open(paths)? {
        tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "others could look into this; closed");
        fs::set_permissions(path, fs::Permissions::from_mode(wanted))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_version_left_open_is_found_and_closed() {
        let scratch = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(&scratch.path().join("data"));
        for directory in [paths.store(), paths.pki()] {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(&directory).expect("makes it");
        }
        let files = [paths.log(), paths.kubeconfig(), paths.store().join("wal-1.log"), paths.pki().join("ca.key")];
        for file in &files {
            fs::write(file, "x").expect("writes");
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("is ours");
        }
        for directory in [&paths.data, &paths.store(), &paths.pki()] {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("is ours");
        }
        std::os::unix::fs::symlink("/etc/hostname", paths.store().join("link")).expect("links");
        let ours =
            |found: Vec<TooOpen>| found.into_iter().filter(|f| f.path.starts_with(&paths.data)).collect::<Vec<_>>();
        assert_eq!(ours(too_open(&paths).expect("looks")).len(), files.len() + 3);
        mend(&paths).expect("closes");
        assert_eq!(ours(too_open(&paths).expect("looks")), []);
        fs::write(paths.data.join("notes.txt"), "theirs").expect("writes");
        fs::set_permissions(&paths.data, fs::Permissions::from_mode(0o755)).expect("is ours");
        assert_eq!(ours(too_open(&paths).expect("looks")), [], "a directory that others use is theirs to close");
        fs::remove_file(paths.data.join("notes.txt")).expect("removes");
        mend(&paths).expect("closes");
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!([mode(&paths.data), mode(&files[0]), mode(&files[2])], [0o700, 0o600, 0o600]);
    }

    #[test]
    fn what_is_written_is_roots_alone_whatever_was_there() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("secret");
        fs::write(&path, "old").expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("is ours");
        write(&path, b"new").expect("writes");
        assert_eq!(fs::read_to_string(&path).expect("reads"), "new");
        assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o777, FILE);
        let elsewhere = scratch.path().join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, scratch.path().join("log")).expect("links");
        assert!(append(&scratch.path().join("log")).is_err() && !elsewhere.exists(), "links are not followed");
    }
}
