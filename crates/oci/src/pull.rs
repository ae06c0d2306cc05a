//! From a reference to an image on this machine.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};

use crate::{
    Digest, Image, ImageStore, Keychain, LimitError, Reference, ReferenceError, StoreError,
    holds::Hold,
    manifest::{Descriptor, Manifest, parse_digest, parse_manifest, pick_platform},
    pins::{Origin, Pin},
    remote::Session,
};

/// Layers of one image that are fetched at a time.
const PARALLEL: usize = 3;

/// When a registry is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always for a tag, unless the image was given to this machine.
    Always,
    /// When the image is not here.
    IfNotPresent,
    /// Not at all.
    Never,
}

/// How far an image has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of layers that are here.
    pub done: u64,
    /// Bytes of all layers, as they are packed.
    pub total: u64,
}

/// Counts what comes of one image, and tells.
struct Tally<'a> {
    done: AtomicU64,
    total: u64,
    tell: &'a (dyn Fn(Progress) + Send + Sync),
}

impl Tally<'_> {
    fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        (self.tell)(Progress { done, total: self.total });
    }
}

/// Why an image is not here.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The reference is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The policy forbids to ask a registry, and the image is not here.
    #[error("{0} is not present with pull policy of Never")]
    Absent(Reference),
    /// The image is here, but nothing shows that whoever asks may have it, and the policy forbids to ask the registry.
    #[error("{0} is present with pull policy of Never but does not have the proper credentials to access the image")]
    NotAllowed(Reference),
    /// The registry knows no such image.
    #[error("{0}: not found")]
    NotFound(Reference),
    /// The registry wants other credentials.
    #[error("{image}: not authorized: {reason}: check the imagePullSecrets and the registry's permissions")]
    Unauthorized {
        /// The image.
        image: Reference,
        /// What the registry says.
        reason: Box<str>,
    },
    /// The registry does not answer as it should.
    #[error("{image}: {reason}")]
    Registry {
        /// The image.
        image: Reference,
        /// What went wrong.
        reason: Box<str>,
    },
    /// The image arrived but cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What this machine holds for a reference.
struct Held {
    digest: Digest,
    /// Its tag was given to this machine: this machine's word is final, and it is for everybody.
    given: bool,
}

/// What is asked of a registry first; the login that gets an answer is kept for the rest.
#[derive(Clone, Copy)]
enum First {
    Digest,
    Manifest,
}

impl ImageStore {
    /// What this machine holds for `reference`, without asking anybody.
    fn held(&self, reference: &Reference) -> Option<Held> {
        let reference = self.canonical(reference);
        let held = match &reference.digest {
            Some(digest) => Held { digest: digest.clone(), given: false },
            None => {
                let name = format!("{}:{}", reference.name(), reference.tag.as_deref().unwrap_or("latest"));
                let pins = self.pins();
                let pin = pins.get(&name)?;
                Held { digest: pin.digest.parse().ok()?, given: pin.origin == Origin::Given }
            }
        };
        self.is_whole(&held.digest).then_some(held)
    }

    /// Whether every blob of the image is here.
    fn is_whole(&self, digest: &Digest) -> bool {
        let Ok(manifest) = self.platform_manifest(digest) else { return false };
        let mut blobs = manifest.config.iter().chain(&manifest.layers);
        blobs.all(|blob| blob.digest.parse().is_ok_and(|digest| self.blobs().has(&digest)))
    }

    /// Asks for a tag or digest of an image as each of the logins that match it, until one is accepted.
    async fn ask<'a>(
        &'a self,
        image: &'a Reference,
        keychain: &'a Keychain,
        wanted: &str,
        first: First,
    ) -> Result<(Session<'a>, Vec<u8>, Digest), PullError> {
        let candidates = keychain.candidates(image);
        let mut tries: Vec<_> = candidates.into_iter().map(Some).collect();
        if tries.is_empty() {
            tries.push(None);
        }
        let mut refused = None;
        for candidate in tries {
            let session = self.inner.remote.session(image, candidate)?;
            let answer = match first {
                First::Digest => session.digest(wanted).await.map(|digest| (Vec::new(), digest)),
                First::Manifest => session.manifest(wanted).await,
            };
            match answer {
                Ok((bytes, digest)) => return Ok((session, bytes, digest)),
                // Some registries say of what they hide that it is not there.
                Err(error @ (PullError::Unauthorized { .. } | PullError::NotFound(_))) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or_else(|| PullError::NotFound(image.clone())))
    }

    /// The digest that a reference stands for now.
    ///
    /// # Errors
    /// When nobody knows it.
    pub async fn resolve_digest(&self, reference: &str, keychain: &Keychain) -> Result<Digest, PullError> {
        let reference: Reference = reference.parse()?;
        if let Some(digest) = reference.digest {
            return Ok(digest);
        }
        match self.held(&reference) {
            Some(Held { digest, given: true }) => return Ok(digest),
            _ if self.is_embedded(&reference) => return Err(PullError::NotFound(reference)),
            _ => {}
        }
        let (_, _, digest) = self.ask(&reference, keychain, &wanted(&reference), First::Digest).await?;
        Ok(digest)
    }

    /// Whether nothing newer than what is here can be asked for, even under [`PullPolicy::Always`].
    ///
    /// Blocking, for a few file accesses.
    pub fn is_settled(&self, reference: &str) -> bool {
        let Ok(reference) = reference.parse::<Reference>() else { return false };
        self.held(&reference).is_some_and(|held| held.given || reference.digest.is_some())
    }

    /// Opens an image that is here, whoever may run it.
    ///
    /// # Errors
    /// When it is not here, or is damaged.
    pub async fn find(&self, reference: &str) -> Result<Image, PullError> {
        let reference: Reference = reference.parse()?;
        let Some(held) = self.held(&reference) else { return Err(PullError::Absent(reference)) };
        Ok(self.open_image(&self.canonical(&reference).name(), &held.digest).await?)
    }

    /// Brings an image here, unpacked, for whoever holds the credentials. One that is here already is given out if it
    /// is open to everybody or if these credentials were accepted for it before; if not, its registry is asked.
    ///
    /// # Errors
    /// When it cannot be had under the policy, or is damaged.
    pub async fn pull(
        &self,
        reference: &str,
        policy: PullPolicy,
        keychain: &Keychain,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Image, PullError> {
        let reference: Reference = reference.parse()?;
        let name = self.canonical(&reference).name();
        let held = self.held(&reference);
        let allowed = held.as_ref().is_some_and(|held| {
            // What a digest names never changes: there is nothing newer to ask for.
            let settled = policy != PullPolicy::Always || reference.digest.is_some();
            held.given || settled && self.is_for(&held.digest, &name, &keychain.candidates(&reference))
        });
        let digest = match (held, policy) {
            (Some(held), _) if allowed => held.digest,
            (None, PullPolicy::Never) => return Err(PullError::Absent(reference)),
            (Some(_), PullPolicy::Never) => return Err(PullError::NotAllowed(reference)),
            _ if self.is_embedded(&reference) => return Err(PullError::NotFound(reference)),
            (Some(held), PullPolicy::IfNotPresent) => self.prove(&reference, held.digest, keychain, progress).await?,
            (_, PullPolicy::IfNotPresent | PullPolicy::Always) => self.fetch(&reference, keychain, progress).await?,
        };
        Ok(self.open_image(&name, &digest).await?)
    }

    /// Lets the registry decide whether these credentials open an image that is here.
    async fn prove(
        &self,
        reference: &Reference,
        digest: Digest,
        keychain: &Keychain,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Digest, PullError> {
        match self.ask(reference, keychain, &digest.to_string(), First::Digest).await {
            Ok((session, _, _)) if self.was_seen(&digest, &reference.registry) => {
                self.grant(&session, &digest, reference)?;
                Ok(digest)
            }
            // Anybody's registry can say that it has what another's gave: whoever has it can hand it over.
            Ok(_) => {
                let exactly = Reference { digest: Some(digest), ..reference.clone() };
                self.fetch(&exactly, keychain, progress).await
            }
            // The registry has forgotten what the tag stood for here; what it stands for there counts.
            Err(PullError::NotFound(_)) if reference.digest.is_none() => {
                self.fetch(reference, keychain, progress).await
            }
            Err(error) => Err(error),
        }
    }

    /// Whether all of an image that is here was handed over by a registry, or is everybody's.
    fn was_seen(&self, digest: &Digest, registry: &str) -> bool {
        let seen = |digest: &Digest| self.inner.access.may_reuse(digest, registry);
        let named = |descriptor: &Descriptor| descriptor.digest.parse().ok();
        let Ok(first) = self.manifest(digest) else { return false };
        let chosen = pick_platform(&first.manifests).map(named);
        let Ok(manifest) = self.platform_manifest(digest) else { return false };
        let blobs = manifest.config.iter().chain(&manifest.layers).map(named);
        seen(digest) && blobs.chain(chosen).all(|digest| digest.is_some_and(|digest| seen(&digest)))
    }

    fn grant(&self, session: &Session<'_>, digest: &Digest, image: &Reference) -> Result<(), PullError> {
        let granted = self.inner.access.grant(digest, &image.name(), &session.proof());
        Ok(granted.map_err(|source| io("remember who may use an image", source))?)
    }

    /// Downloads what is missing of an image and remembers its tag.
    async fn fetch(
        &self,
        reference: &Reference,
        keychain: &Keychain,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Digest, PullError> {
        let (session, bytes, digest) = self.ask(reference, keychain, &wanted(reference), First::Manifest).await?;
        let mut hold = self.inner.holds.hold([digest.clone()]);
        let manifest = self.keep_manifest(&session, reference, &digest, &bytes)?;
        let media_type = manifest.media_type.clone().unwrap_or_default();
        let (manifest, chosen) = match pick_platform(&manifest.manifests) {
            None => (manifest, None),
            Some(chosen) => {
                let (digest, manifest) = self.fetch_platform(&session, reference, chosen, &mut hold).await?;
                (manifest, Some(digest))
            }
        };
        self.fetch_blobs(&session, reference, &manifest, &mut hold, progress).await?;
        // Only now: a registry that names what it cannot hand over opens nothing.
        for digest in [Some(&digest), chosen.as_ref()].into_iter().flatten() {
            self.grant(&session, digest, reference)?;
        }
        if let Some(tag) = &reference.tag {
            let pin = Pin { digest: digest.to_string(), origin: Origin::Pulled, media_type };
            self.pin(&reference.name(), tag, pin).map_err(|source| io("remember a tag", source))?;
        }
        Ok(digest)
    }

    fn keep_manifest(
        &self,
        session: &Session<'_>,
        image: &Reference,
        digest: &Digest,
        bytes: &[u8],
    ) -> Result<Manifest, PullError> {
        let invalid = |reason| StoreError::Invalid { image: digest.to_string(), reason };
        let manifest = parse_manifest(bytes).map_err(invalid)?;
        let kept = self.blobs().put(bytes);
        let kept = kept.and_then(|_| self.inner.access.saw(digest, &image.registry, &session.proof()));
        kept.map_err(|source| io("store a manifest", source))?;
        Ok(manifest)
    }

    async fn fetch_platform(
        &self,
        session: &Session<'_>,
        image: &Reference,
        chosen: &Descriptor,
        hold: &mut Hold,
    ) -> Result<(Digest, Manifest), PullError> {
        let digest: Digest = chosen
            .digest
            .parse()
            .map_err(|e| PullError::Registry { image: image.clone(), reason: format!("{e}").into() })?;
        hold.add([digest.clone()]);
        let manifest = if self.blobs().has(&digest) && self.inner.access.may_reuse(&digest, &image.registry) {
            self.manifest(&digest)?
        } else {
            let (bytes, _) = session.manifest(&digest.to_string()).await?;
            self.keep_manifest(session, image, &digest, &bytes)?
        };
        Ok((digest, manifest))
    }

    async fn fetch_blobs(
        &self,
        session: &Session<'_>,
        image: &Reference,
        manifest: &Manifest,
        hold: &mut Hold,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), PullError> {
        let too_many = |reason| PullError::Store(StoreError::Invalid { image: image.to_string(), reason });
        let (named, limit) = (manifest.layers.len(), self.limits().layers);
        if named > limit {
            return Err(too_many(format!("{named} layers: more than the {limit} allowed")));
        }
        let blobs: Vec<&Descriptor> = manifest.config.iter().chain(&manifest.layers).collect();
        let total = blobs.iter().fold(0u64, |sum, blob| sum.saturating_add(blob.size));
        let tally = Tally { done: AtomicU64::new(0), total, tell: progress };
        // Boxed, so that the future is known to be Send whatever the lifetimes in it.
        let mut fetches: Vec<BoxFuture<'_, Result<(), PullError>>> = Vec::new();
        for descriptor in blobs {
            let digest = parse_digest(&Digest::of(b""), &descriptor.digest)?;
            hold.add([digest.clone()]);
            fetches.push(Box::pin(self.fetch_blob(session, image, digest, descriptor.size, &tally)));
        }
        stream::iter(fetches).buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    async fn fetch_blob(
        &self,
        session: &Session<'_>,
        image: &Reference,
        digest: Digest,
        size: u64,
        tally: &Tally<'_>,
    ) -> Result<(), PullError> {
        // By registry, too: a slow one must not hold up who gets the same from another.
        let fetching = self.lock_for(&format!("{} {digest}", image.registry)).lock_owned().await;
        let access = &self.inner.access;
        if self.blobs().has(&digest) && access.may_reuse(&digest, &image.registry) {
            tally.add(size);
            return Ok(());
        }
        let limit = if size > 0 { size.min(self.limits().blob_bytes) } else { self.limits().blob_bytes };
        let failed =
            |reason| PullError::Registry { image: image.clone(), reason: format!("blob {digest}: {reason}").into() };
        let mut blob = session.blob(&digest).await?;
        let mut incoming = self.blobs().begin().map_err(|source| io("store a layer", source))?;
        while let Some(chunk) = blob.chunk().await.map_err(failed)? {
            LimitError::check("bytes of a blob", incoming.length() + chunk.len() as u64, limit)
                .map_err(|error| failed(error.to_string()))?;
            // Blocking, but a page-cache write of one network chunk.
            incoming.append(&chunk).map_err(|source| io("store a layer", source))?;
            tally.add(chunk.len() as u64);
        }
        let (store, registry, proof) = (self.clone(), image.registry.clone(), session.proof());
        let keep = move || {
            // Held until it is kept, whether anybody still waits for it or not.
            let _fetching = fetching;
            incoming.commit(&digest)?;
            store.inner.access.saw(&digest, &registry, &proof)
        };
        let kept = tokio::task::spawn_blocking(keep).await.map_err(std::io::Error::other).and_then(|done| done);
        Ok(kept.map_err(|source| io("store a layer", source))?)
    }
}

/// What an image is asked for by.
fn wanted(reference: &Reference) -> String {
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.clone().unwrap_or_else(|| "latest".into()),
    }
}

fn io(what: &str, source: std::io::Error) -> StoreError {
    StoreError::Io { what: what.to_owned(), source }
}
