//! Records on disk: written whole beside the old one and renamed over it, with a checksum. They need to survive a
//! monitor, not the machine, so only which addresses were given is synced. One that is not what was written is set aside, for whoever wants to
//! know, and what it told of is nobody's any more. One that cannot be read now ends the start instead: what it tells of
//! goes on, and the next start may read it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use knoll_journal::{with_checksum, without_checksum};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Monitor;
use crate::protocol::{Configuration, ContainerId, ContainerStatus, SandboxId, SandboxStatus};

/// Where records lie that are not what was written.
pub(super) const DAMAGED: &str = "damaged";
/// Where the address stands that may have been given last.
const LAST_ADDRESS: &str = "last-address.json";
/// The most of them; older ones go.
const MOST_DAMAGED: usize = 64;

/// What is kept of a sandbox.
#[derive(Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub(super) status: SandboxStatus,
    /// The holder of a shared process-id namespace: its pid and start time.
    pub(super) pause: Option<(i32, u64)>,
}

impl Monitor {
    /// Records a sandbox as it stands.
    pub(super) fn save_sandbox(&self, id: &SandboxId) -> io::Result<()> {
        let Some(sandbox) = self.sandboxes.get(id) else { return Ok(()) };
        let pause = sandbox.pause.as_ref().map(|pause| (pause.spawned.pid, pause.start_ticks));
        write(&self.sandbox_file(id), &SandboxRecord { status: sandbox.status.clone(), pause })
    }

    /// Records a container as it stands.
    pub(super) fn save_container(&self, id: &ContainerId) -> io::Result<()> {
        match self.containers.get(id).and_then(|container| container.status()) {
            Some(status) => write(&self.container_file(id), &status),
            None => Ok(()),
        }
    }

    /// Records the configuration.
    pub(super) fn save_configuration(&self) {
        if let Err(error) = write(&self.options.state_dir.join("configuration.json"), &self.configuration()) {
            tracing::error!(%error, "the configuration is not recorded");
        }
    }

    pub(super) fn saved_configuration(&self) -> io::Result<Option<Configuration>> {
        self.read(&self.options.state_dir.join("configuration.json"))
    }

    /// Records which address, by its offset in the network, may have been given last. It stays when everything else goes,
    /// the machine's run included: what knows pods by their addresses outlives the pods.
    pub(super) fn save_last_address(&self, offset: u32) -> io::Result<()> {
        replace(&self.options.state_dir.join(LAST_ADDRESS), &offset, fs::File::sync_all)?;
        fs::File::open(&self.options.state_dir)?.sync_all()
    }

    /// Which address may have been given last; nothing when that was never recorded, or the record is damaged.
    pub(super) fn saved_last_address(&self) -> io::Result<Option<u32>> {
        self.read(&self.options.state_dir.join(LAST_ADDRESS))
    }

    fn container_file(&self, id: &ContainerId) -> PathBuf {
        self.options.state_dir.join("containers").join(id.as_str()).join("status.json")
    }

    /// All recorded sandboxes.
    pub(super) fn saved_sandboxes(&self) -> io::Result<Vec<SandboxRecord>> {
        let files = entries(&self.options.state_dir.join("sandboxes"))?;
        let (records, begun): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|path| path.extension().is_some_and(|extension| extension == "json"));
        // What a monitor had only begun to write when it was killed is no record.
        begun.iter().for_each(|path| drop(fs::remove_file(path)));
        records.iter().filter_map(|path| self.read(path).transpose()).collect()
    }

    /// The directories of all containers, each with its record if it has one.
    pub(super) fn saved_containers(&self) -> io::Result<Vec<(PathBuf, Option<ContainerStatus>)>> {
        let directories = entries(&self.options.state_dir.join("containers"))?;
        let read = |path: PathBuf| Ok((path.clone(), self.read(&path.join("status.json"))?));
        directories.into_iter().map(read).collect()
    }

    /// `None` when there is no record or it is damaged, which is said in the log; it is then set aside.
    fn read<T: DeserializeOwned>(&self, path: &Path) -> io::Result<Option<T>> {
        let read = fs::read(path).and_then(|bytes| Ok(serde_json::from_slice(without_checksum(&bytes)?)?));
        let error = match read {
            Ok(value) => return Ok(Some(value)),
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) if is_damage(&error) => error,
            Err(error) => return Err(at(path, &error)),
        };
        let name = path.strip_prefix(&self.options.state_dir).unwrap_or(path).to_string_lossy().replace('/', "-");
        let aside = self.options.state_dir.join(DAMAGED).join(&name);
        let moved = fs::create_dir_all(self.options.state_dir.join(DAMAGED)).and_then(|()| fs::rename(path, &aside));
        tracing::error!(%error, path = %path.display(), aside = %aside.display(), "a record is damaged and set aside");
        if let Err(error) = moved {
            tracing::warn!(%error, path = %path.display(), "a damaged record cannot be set aside");
        }
        keep_newest(&self.options.state_dir.join(DAMAGED), MOST_DAMAGED);
        Ok(None)
    }
}

/// What is at no path is no record, and nor is what lies in no directory.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether a record was read, or can never be.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, IsADirectory, UnexpectedEof};
    matches!(error.kind(), InvalidData | UnexpectedEof | IsADirectory)
}

/// Whether a call failed for want of what may be there again: descriptors, memory, a disk that answers.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN | libc::EINTR | libc::EIO)
    )
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Deletes what was put into a directory longest ago.
fn keep_newest(directory: &Path, most: usize) {
    let mut files: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.metadata().ok().map(|found| (found.ctime(), found.ctime_nsec(), entry.path())))
        .collect();
    files.sort();
    for (_, _, path) in files.iter().take(files.len().saturating_sub(most)) {
        if let Err(error) = knoll_tree::remove(path) {
            tracing::warn!(%error, path = %path.display(), "cannot delete");
        }
    }
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let read = || fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    match read() {
        Ok(mut paths) => {
            paths.sort();
            Ok(paths)
        }
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        Err(error) => Err(at(directory, &error)),
    }
}

fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    replace(path, value, |_| Ok(()))
}

/// Writes a record beside the old one, which it takes the place of once `settle` is done with it.
fn replace(path: &Path, value: &impl Serialize, settle: fn(&fs::File) -> io::Result<()>) -> io::Result<()> {
    let bytes = with_checksum(serde_json::to_vec(value)?);
    let beside = path.with_extension("new");
    let replace = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&bytes)?;
        settle(&file)?;
        fs::rename(&beside, path)
    };
    // On a full disk a part of a record would only take room.
    replace().inspect_err(|_| drop(fs::remove_file(&beside)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_set_aside_the_newest_stay() {
        let scratch = tempfile::tempdir().unwrap();
        for number in 0..5 {
            fs::write(scratch.path().join(number.to_string()), "").unwrap();
        }
        keep_newest(scratch.path(), 2);
        let left = entries(scratch.path()).unwrap();
        assert_eq!(left, [scratch.path().join("3"), scratch.path().join("4")]);
    }
}
