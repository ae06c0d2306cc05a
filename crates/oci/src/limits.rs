//! What an image may cost this machine, and the answer when it would cost more.

use std::{io, path::Path};

use nix::sys::statvfs::statvfs;

/// Bounds on what a stranger's archive, manifest or configuration may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that one layer may unpack to.
    pub layer_bytes: u64,
    /// Bytes that all layers of an image may unpack to.
    pub image_bytes: u64,
    /// Bytes of one blob as it is stored or sent.
    pub blob_bytes: u64,
    /// Bytes of a manifest or index.
    pub manifest_bytes: u64,
    /// Bytes of an image's configuration.
    pub config_bytes: u64,
    /// Layers of an image.
    pub layers: usize,
    /// Entries of one archive, headers that extend others included.
    pub entries: u64,
    /// Bytes of a path or of a link's target.
    pub path_bytes: usize,
    /// Directories on the way to an entry.
    pub path_depth: usize,
    /// Bytes of one header that extends another (GNU long names, PAX records).
    pub extension_bytes: u64,
    /// Stretches of data in a sparse file.
    pub sparse_segments: usize,
    /// Bytes of an entry's extended attributes, names included.
    pub xattr_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_bytes: 32 << 30,
            image_bytes: 64 << 30,
            blob_bytes: 32 << 30,
            manifest_bytes: 4 << 20,
            config_bytes: 4 << 20,
            // What Docker and containers/storage can stack.
            layers: 127,
            entries: 1_000_000,
            // PATH_MAX without its final zero.
            path_bytes: 4095,
            path_depth: 256,
            extension_bytes: 1 << 20,
            sparse_segments: 100_000,
            // The kernel takes no longer value.
            xattr_bytes: 64 << 10,
        }
    }
}

/// More was asked for than [`Limits`] grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: more than the {limit} allowed")]
pub struct LimitError {
    /// What there is too much of, with its unit.
    pub what: &'static str,
    /// How much may be.
    pub limit: u64,
}

impl LimitError {
    /// Refuses when `amount` is more than `limit`.
    pub(crate) fn check(what: &'static str, amount: u64, limit: u64) -> Result<(), Self> {
        if amount > limit { Err(Self { what, limit }) } else { Ok(()) }
    }

    /// The bound that an I/O error carries, if it is one.
    pub(crate) fn in_io(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}

impl From<LimitError> for io::Error {
    fn from(error: LimitError) -> Self {
        io::Error::other(error)
    }
}

/// A reader that refuses to give more than a number of bytes.
pub(crate) struct Bounded<R> {
    inner: R,
    what: &'static str,
    limit: u64,
    left: u64,
}

impl<R: io::Read> Bounded<R> {
    pub(crate) fn new(inner: R, what: &'static str, limit: u64) -> Self {
        Self { inner, what, limit, left: limit }
    }
}

impl<R: io::Read> io::Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or(LimitError { what: self.what, limit: self.limit })?;
        Ok(count)
    }
}

/// A file's content when it is no longer than `limit`.
pub(crate) fn read_bounded(path: &Path, what: &'static str, limit: u64) -> io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    LimitError::check(what, file.metadata()?.len(), limit)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut Bounded::new(file, what, limit), &mut bytes)?;
    Ok(bytes)
}

/// Most bytes of a disk that images leave to others.
const RESERVE: u64 = 1 << 30;

/// Whether images may still grow below `path`: a twentieth of the disk, at most a GiB, is left to others.
///
/// # Errors
/// [`io::ErrorKind::StorageFull`] when not.
pub(crate) fn has_room(path: &Path) -> io::Result<()> {
    let disk = statvfs(path)?;
    let unit = disk.fragment_size();
    let (total, available) = (disk.blocks().saturating_mul(unit), disk.blocks_available().saturating_mul(unit));
    let reserve = (total / 20).min(RESERVE);
    if available >= reserve {
        return Ok(());
    }
    let text = format!("the disk of {} has {available} bytes left of {total}: free some space", path.display());
    Err(io::Error::new(io::ErrorKind::StorageFull, text))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_bounded_reader_gives_what_is_allowed_and_names_the_bound_after_it() {
        let mut exact = Bounded::new(&b"1234"[..], "bytes of it", 4);
        let mut text = String::new();
        exact.read_to_string(&mut text).expect("four are allowed");
        let error = Bounded::new(&b"12345"[..], "bytes of it", 4).read_to_string(&mut text).expect_err("five are not");
        assert_eq!(LimitError::in_io(&error), Some(&LimitError { what: "bytes of it", limit: 4 }));
        assert_eq!(error.to_string(), "bytes of it: more than the 4 allowed");
    }

    #[test]
    fn a_twentieth_of_the_disk_is_left_to_others() {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};
        let scratch = tempfile::tempdir().expect("a directory");
        let disk = scratch.path();
        // The mount is of this thread alone, and goes with it.
        let fill = || {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).expect("mounts of its own, as root");
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                .expect("private");
            mount(Some("tmpfs"), disk, Some("tmpfs"), MsFlags::empty(), Some("size=10m,huge=never")).expect("mounts");
            has_room(disk).expect("is empty");
            std::fs::write(disk.join("most"), vec![0; 9 << 20]).expect("writes");
            has_room(disk).expect("has a tenth left");
            std::fs::write(disk.join("more"), vec![0; 768 << 10]).expect("writes");
            let error = has_room(disk).expect_err("has a fortieth left");
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            let named = format!("the disk of {} has 262144 bytes left of 10485760", disk.display());
            assert!(error.to_string().contains(&named), "{error}");
            has_room(&disk.join("absent")).expect_err("nothing is known of it");
        };
        std::thread::scope(|threads| threads.spawn(fill).join()).expect("as told");
    }
}
