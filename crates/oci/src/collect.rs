//! Removing what no reference leads to.

use std::{collections::BTreeSet, fs, io, path::PathBuf};

use crate::{Digest, ImageStore, holds::Collecting, pins::Origin};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs.
    pub blobs: usize,
    /// Unpacked layers.
    pub layers: usize,
}

impl ImageStore {
    /// Removes blobs and unpacked layers that belong to no reference and to none of `in_use`, the manifests of
    /// running containers; the unpacked layers among `stood_on`, directories, stay too. Pulled tags for which `forget` says so are forgotten first.
    ///
    /// What is on its way in or in somebody's hands stays. Does nothing while another collection goes on.
    ///
    /// # Errors
    /// When a file cannot be read or removed.
    pub async fn collect(
        &self,
        in_use: &BTreeSet<Digest>,
        stood_on: &BTreeSet<PathBuf>,
        forget: impl Fn(&str) -> bool,
    ) -> Result<Collected, io::Error> {
        let Some(collecting) = self.inner.holds.collect() else { return Ok(Collected::default()) };
        let (mut roots, mut names) = (in_use.clone(), Vec::new());
        for (name, pin) in self.pins().under("") {
            let digest: Option<Digest> = pin.digest.parse().ok();
            let given = pin.origin == Origin::Given;
            if given || digest.as_ref().is_some_and(|d| in_use.contains(d)) || !forget(name) {
                roots.extend(digest);
            } else {
                names.push(name.to_owned());
            }
        }
        let (store, stood_on) = (self.clone(), self.layers_among(stood_on));
        let work = move || {
            for name in names {
                store.unpin(&name)?;
            }
            let (mut blobs, mut layers) = (BTreeSet::new(), stood_on);
            for root in roots {
                store.reach(&root, &mut blobs, &mut layers);
            }
            store.remove_unused(&collecting, &blobs, &layers)
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }

    /// Which unpacked layers these directories are.
    fn layers_among(&self, directories: &BTreeSet<PathBuf>) -> BTreeSet<Digest> {
        let ours = self.inner.root.join("layers");
        let names = directories.iter().filter(|path| path.parent() == Some(&ours)).filter_map(|path| path.file_name());
        names.filter_map(|name| format!("sha256:{}", name.to_str()?).parse().ok()).collect()
    }

    pub(crate) fn reach(&self, root: &Digest, blobs: &mut BTreeSet<Digest>, layers: &mut BTreeSet<Digest>) {
        let parse = |text: &str| text.parse::<Digest>().ok();
        let mut open = vec![root.clone()];
        while let Some(digest) = open.pop() {
            if !blobs.insert(digest.clone()) {
                continue;
            }
            let Ok(manifest) = self.manifest(&digest) else { continue };
            open.extend(manifest.manifests.iter().filter_map(|child| parse(&child.digest)));
            if let Some(config) = manifest.config.as_ref().and_then(|d| parse(&d.digest)) {
                let parsed = self.image_config(&config).ok();
                layers.extend(parsed.into_iter().flat_map(|config| config.diff_ids));
                blobs.insert(config);
            }
            blobs.extend(manifest.layers.iter().filter_map(|d| parse(&d.digest)));
        }
    }

    fn remove_unused(
        &self,
        collecting: &Collecting,
        blobs: &BTreeSet<Digest>,
        layers: &BTreeSet<Digest>,
    ) -> Result<Collected, io::Error> {
        let mut collected = Collected::default();
        for blob in self.blobs().list()? {
            let remove = || self.blobs().remove(&blob).and_then(|()| self.inner.access.forget(&blob));
            if !blobs.contains(&blob) && collecting.remove(&blob, remove)? {
                collected.blobs += 1;
            }
        }
        let trash = self.inner.root.join("unpacking");
        for entry in fs::read_dir(self.inner.root.join("layers"))? {
            let entry = entry?;
            let digest: Option<Digest> = format!("sha256:{}", entry.file_name().to_string_lossy()).parse().ok();
            if digest.as_ref().is_some_and(|digest| layers.contains(digest)) {
                continue;
            }
            let aside = trash.join(uuid::Uuid::new_v4().to_string());
            let move_away = || {
                // The record first: without it, what a crash leaves of the directory is not trusted.
                match fs::remove_file(self.inner.root.join("unpacked").join(entry.file_name())) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => fs::rename(entry.path(), &aside),
                }
            };
            let gone = match &digest {
                Some(digest) => collecting.remove(digest, move_away)?,
                None => move_away().map(|()| true)?,
            };
            if gone {
                knoll_tree::remove(&aside)?;
                collected.layers += 1;
            }
        }
        Ok(collected)
    }
}
