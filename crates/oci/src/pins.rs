//! What tags stand for on this machine: on disk, and in memory by name and by digest.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Digest, durable::replace};

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

struct Kept {
    pin: Pin,
    /// The manifest or index, and the manifests that it names, of an image that was given.
    given: Vec<Digest>,
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
            match serde_json::from_slice(&fs::read(entry.path())?) {
                Ok(pin) => pins.push((name, pin)),
                Err(error) => tracing::warn!(name, %error, "the name of an image cannot be read: it is unknown now"),
            }
        }
        Ok(pins)
    }

    pub(crate) fn write(&self, name: &str, pin: &Pin) -> io::Result<()> {
        let content = serde_json::to_vec(pin).map_err(io::Error::other)?;
        replace(&self.path(name), &content, &self.scratch)
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }
}

/// Every name with what it stands for.
#[derive(Default)]
pub(crate) struct Pins {
    kept: BTreeMap<String, Kept>,
    /// By how many names each manifest was given.
    given: BTreeMap<Digest, usize>,
}

impl Pins {
    /// Reads the names on disk. `children` gives the manifests that an index names.
    pub(crate) fn open(files: &PinFiles, children: impl Fn(&Digest) -> Vec<Digest>) -> io::Result<Self> {
        let mut pins = Self::default();
        for (name, pin) in files.read()? {
            pins.set(name, pin, &children);
        }
        Ok(pins)
    }

    /// Whether `name` may stand for `pin`; `false` when it does already.
    pub(crate) fn is_news(&self, name: &str, pin: &Pin) -> io::Result<bool> {
        match self.kept.get(name) {
            Some(kept) => Ok(kept.pin != *pin),
            None if self.kept.len() < NAMES => Ok(true),
            None => {
                let text = format!("{NAMES} images have names already: remove some");
                Err(io::Error::new(io::ErrorKind::QuotaExceeded, text))
            }
        }
    }

    pub(crate) fn set(&mut self, name: String, pin: Pin, children: impl Fn(&Digest) -> Vec<Digest>) {
        self.remove(&name);
        let mut given = Vec::new();
        if let (Origin::Given, Ok(digest)) = (pin.origin, pin.digest.parse::<Digest>()) {
            given = children(&digest);
            given.push(digest);
        }
        for digest in &given {
            *self.given.entry(digest.clone()).or_default() += 1;
        }
        self.kept.insert(name, Kept { pin, given });
    }

    pub(crate) fn remove(&mut self, name: &str) {
        for digest in self.kept.remove(name).into_iter().flat_map(|kept| kept.given) {
            if let Some(count) = self.given.get_mut(&digest) {
                *count -= 1;
                if *count == 0 {
                    self.given.remove(&digest);
                }
            }
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Pin> {
        self.kept.get(name).map(|kept| &kept.pin)
    }

    /// Whether a manifest belongs to an image that was given to this machine.
    pub(crate) fn is_given(&self, digest: &Digest) -> bool {
        self.given.contains_key(digest)
    }

    /// Every manifest of an image that was given to this machine.
    pub(crate) fn given(&self) -> impl Iterator<Item = &Digest> {
        self.given.keys()
    }

    /// Names that begin with `prefix`, with what follows it.
    pub(crate) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Pin)> {
        let from = self.kept.range(prefix.to_owned()..);
        from.map_while(move |(name, kept)| Some((name.strip_prefix(prefix)?, &kept.pin)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_image_and_its_platforms_are_known_by_digest_until_the_last_name_goes() {
        let scratch = tempfile::tempdir().expect("a directory");
        for part in ["refs", "unpacking"] {
            fs::create_dir_all(scratch.path().join(part)).expect("makes");
        }
        let (index, child) = (Digest::of(b"index"), Digest::of(b"child"));
        let children = |digest: &Digest| if *digest == index { vec![child.clone()] } else { Vec::new() };
        let pin = |origin| Pin { digest: index.to_string(), origin, media_type: String::new() };
        let files = PinFiles::new(scratch.path());
        for (name, origin) in [("reg/a%2F:1", Origin::Given), ("reg/a:2", Origin::Given), ("reg/b:1", Origin::Pulled)] {
            files.write(name, &pin(origin)).expect("writes");
        }
        let mut pins = Pins::open(&files, children).expect("opens");
        assert_eq!(pins.under("reg/a").map(|(rest, _)| rest).collect::<Vec<_>>(), ["%2F:1", ":2"]);
        assert!(pins.is_given(&index) && pins.is_given(&child));
        pins.remove("reg/a%2F:1");
        assert!(pins.is_given(&child));
        assert!(pins.is_news("reg/a:2", &pin(Origin::Pulled)).expect("has room"));
        pins.set("reg/a:2".into(), pin(Origin::Pulled), children);
        assert!(!pins.is_given(&index) && !pins.is_given(&child));
    }
}
