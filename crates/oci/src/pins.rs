//! What tags stand for on this machine: on disk, and in memory by name and by digest.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use knoll_journal::{with_checksum, without_checksum};
use serde::{Deserialize, Serialize};

use crate::durable::replace;

/// Names kept at most.
const NAMES: usize = 100_000;

/// Where a reference's image came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// From a registry, where it may change.
    Pulled,
    /// Given to this machine by tarball or push: this machine's word is final, and it is for everybody here.
    Given,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pin {
    pub(crate) digest: String,
    pub(crate) origin: Origin,
    pub(crate) media_type: String,
}

/// The names on disk, a file each.
pub(crate) struct PinFiles {
    directory: PathBuf,
    scratch: PathBuf,
}

impl PinFiles {
    /// Of the store in `root`, whose directories are there.
    pub(crate) fn new(root: &Path) -> Self {
        Self { directory: root.join("refs"), scratch: root.join("unpacking") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name.replace('%', "%25").replace('/', "%2F"))
    }

    fn read(&self) -> io::Result<Vec<(String, Pin)>> {
        let mut pins = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().replace("%2F", "/").replace("%25", "%");
            let kept = fs::read(entry.path())?;
            match without_checksum(&kept).and_then(|json| Ok(serde_json::from_slice(json)?)) {
                Ok(pin) => pins.push((name, pin)),
                Err(error) => tracing::warn!(name, %error, "the name of an image cannot be read: it is unknown now"),
            }
        }
        Ok(pins)
    }

    pub(crate) fn write(&self, name: &str, pin: &Pin) -> io::Result<()> {
        let content = with_checksum(serde_json::to_vec(pin).map_err(io::Error::other)?);
        replace(&self.path(name), &content, &self.scratch)
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }
}

/// Every name with what it stands for.
#[derive(Default)]
pub(crate) struct Pins(BTreeMap<String, Pin>);

impl Pins {
    /// Reads the names on disk.
    pub(crate) fn open(files: &PinFiles) -> io::Result<Self> {
        Ok(Self(files.read()?.into_iter().collect()))
    }

    /// Whether `name` may stand for `pin`; `false` when it does already.
    pub(crate) fn is_news(&self, name: &str, pin: &Pin) -> io::Result<bool> {
        match self.0.get(name) {
            Some(kept) => Ok(kept != pin),
            None if self.0.len() < NAMES => Ok(true),
            None => {
                let text = format!("{NAMES} images have names already: remove some");
                Err(io::Error::new(io::ErrorKind::QuotaExceeded, text))
            }
        }
    }

    pub(crate) fn set(&mut self, name: String, pin: Pin) {
        self.0.insert(name, pin);
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Pin> {
        self.0.get(name)
    }

    /// Names that begin with `prefix`, with what follows it.
    pub(crate) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Pin)> {
        let from = self.0.range(prefix.to_owned()..);
        from.map_while(move |(name, pin)| Some((name.strip_prefix(prefix)?, pin)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_as_they_are_and_found_by_their_beginning() {
        let scratch = tempfile::tempdir().expect("a directory");
        for part in ["refs", "unpacking"] {
            fs::create_dir_all(scratch.path().join(part)).expect("makes");
        }
        let pin = |origin| Pin { digest: "sha256:0".into(), origin, media_type: String::new() };
        let files = PinFiles::new(scratch.path());
        for (name, origin) in [("reg/a%2F:1", Origin::Given), ("reg/a:2", Origin::Given), ("reg/b:1", Origin::Pulled)] {
            files.write(name, &pin(origin)).expect("writes");
        }
        let pins = Pins::open(&files).expect("opens");
        assert_eq!(pins.under("reg/a").map(|(rest, _)| rest).collect::<Vec<_>>(), ["%2F:1", ":2"]);
        assert!(!pins.is_news("reg/a:2", &pin(Origin::Given)).expect("has room"));
        assert!(pins.is_news("reg/a:2", &pin(Origin::Pulled)).expect("has room"));
        files.remove("reg/a:2").expect("goes");
        files.remove("reg/a:2").expect_err("is gone");
    }
}
