//! Removing what no reference leads to.

use std::{collections::BTreeSet, fs, io};

use crate::{Digest, ImageStore, remove};

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
    /// running containers. Pulled tags for which `forget` says so are forgotten first.
    ///
    /// # Errors
    /// When a file cannot be read or removed.
    pub async fn collect(
        &self,
        in_use: &BTreeSet<Digest>,
        forget: impl Fn(&str) -> bool,
    ) -> Result<Collected, io::Error> {
        let _alone = self.inner.pins.write().await;
        let mut roots = in_use.clone();
        for (name, pin) in self.pins()? {
            let digest: Option<Digest> = pin.digest.parse().ok();
            let given = pin.origin == crate::local::Origin::Given;
            let kept = given || digest.as_ref().is_some_and(|d| in_use.contains(d)) || !forget(&name);
            match (kept, name.rsplit_once(':')) {
                (false, Some((repository, tag))) => self.unpin(repository, tag)?,
                _ => roots.extend(digest),
            }
        }
        let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
        for root in roots {
            self.reach(&root, &mut blobs, &mut layers);
        }
        self.sweep(&blobs, &layers)
    }

    fn reach(&self, digest: &Digest, blobs: &mut BTreeSet<Digest>, layers: &mut BTreeSet<Digest>) {
        if !blobs.insert(digest.clone()) {
            return;
        }
        let Ok(manifest) = self.manifest(digest) else { return };
        let parse = |text: &str| text.parse::<Digest>().ok();
        for child in &manifest.manifests {
            if let Some(child) = parse(&child.digest) {
                self.reach(&child, blobs, layers);
            }
        }
        if let Some(config) = manifest.config.as_ref().and_then(|d| parse(&d.digest)) {
            let parsed = self.image_config(&config).ok();
            layers.extend(parsed.into_iter().flat_map(|config| config.diff_ids));
            blobs.insert(config);
        }
        blobs.extend(manifest.layers.iter().filter_map(|d| parse(&d.digest)));
    }

    fn sweep(&self, blobs: &BTreeSet<Digest>, layers: &BTreeSet<Digest>) -> Result<Collected, io::Error> {
        let mut collected = Collected::default();
        for blob in self.blobs().list()? {
            if !blobs.contains(&blob) {
                self.blobs().remove(&blob)?;
                collected.blobs += 1;
            }
        }
        for entry in fs::read_dir(self.inner.root.join("layers"))? {
            let entry = entry?;
            let digest: Option<Digest> = format!("sha256:{}", entry.file_name().to_string_lossy()).parse().ok();
            if digest.is_none_or(|digest| !layers.contains(&digest)) {
                // The record first: without it, what a crash leaves of the directory is not trusted.
                let record = self.inner.root.join("unpacked").join(entry.file_name());
                match fs::remove_file(record) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => remove::tree(&entry.path())?,
                }
                collected.layers += 1;
            }
        }
        Ok(collected)
    }
}
