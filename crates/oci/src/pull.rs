//! From a reference to an image on this machine.

use std::{
    error::Error,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use oci_client::{
    client::{ClientConfig, ClientProtocol},
    errors::OciDistributionError,
};

use crate::{
    Digest, Image, ImageStore, Keychain, Reference, ReferenceError, StoreError,
    local::{Config, Descriptor, Manifest, Origin, Pin, parse_digest, pick_platform},
};

/// Layers of one image that are fetched at a time.
const PARALLEL: usize = 3;
/// Manifest media types we take.
const ACCEPT: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// When a registry is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
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
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
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
    /// The registry knows no such image.
    #[error("{0}: not found")]
    NotFound(Reference),
    /// The registry wants other credentials.
    #[error("{0}: not authorized: check the imagePullSecrets and the registry's permissions")]
    Unauthorized(Reference),
    /// The registry does not answer as it should.
    #[error("{image}: {reason}")]
    Registry {
        /// The image.
        image: Reference,
        /// What went wrong.
        reason: String,
    },
    /// The image arrived but cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The client side of registries. Clients are made when first needed: one cannot be made on a machine without CA
/// certificates, which may never pull anything, or get them later.
pub(crate) struct Remote {
    https: OnceLock<oci_client::Client>,
    http: OnceLock<oci_client::Client>,
    insecure: Vec<String>,
}

impl Remote {
    pub(crate) fn new(config: &Config) -> Self {
        // A process has one provider; whoever came first chose the same.
        rustls::crypto::ring::default_provider().install_default().ok();
        let insecure = config.insecure_registries.clone();
        Self { https: OnceLock::new(), http: OnceLock::new(), insecure }
    }

    /// The client for an image's registry: plain http on loopback and where it was asked for.
    fn client(&self, image: &Reference) -> Result<&oci_client::Client, PullError> {
        let registry = &image.registry;
        let host = registry.rsplit_once(':').map_or(registry.as_str(), |(host, _)| host);
        let loopback = host == "localhost"
            || host.ends_with(".localhost")
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let plain = loopback || self.insecure.contains(registry);
        let (kept, protocol) =
            if plain { (&self.http, ClientProtocol::Http) } else { (&self.https, ClientProtocol::Https) };
        if let Some(client) = kept.get() {
            return Ok(client);
        }
        let client = oci_client::Client::try_from(settings(protocol)).map_err(|error| {
            let reason =
                format!("{}: does this machine have CA certificates (package ca-certificates)?", chain(&error));
            PullError::Registry { image: image.clone(), reason }
        })?;
        Ok(kept.get_or_init(|| client))
    }
}

fn settings(protocol: ClientProtocol) -> ClientConfig {
    let variable = |upper: &str, lower: &str| std::env::var(upper).or_else(|_| std::env::var(lower)).ok();
    ClientConfig {
        protocol,
        connect_timeout: Some(Duration::from_secs(15)),
        read_timeout: Some(Duration::from_secs(60)),
        user_agent: concat!("knoll/", env!("CARGO_PKG_VERSION")),
        https_proxy: variable("HTTPS_PROXY", "https_proxy"),
        http_proxy: variable("HTTP_PROXY", "http_proxy"),
        no_proxy: Some(no_proxy(variable("NO_PROXY", "no_proxy"))),
        ..ClientConfig::default()
    }
}

/// A registry on this machine is nothing that a proxy could reach.
fn no_proxy(given: Option<String>) -> String {
    let own = "localhost,127.0.0.0/8,::1".to_owned();
    given.into_iter().filter(|names| !names.is_empty()).chain([own]).collect::<Vec<_>>().join(",")
}

fn explain(image: &Reference, error: &OciDistributionError) -> PullError {
    use OciDistributionError as E;
    let not_found = |status: u16| status == 404;
    match error {
        E::ImageManifestNotFoundError(_) => PullError::NotFound(image.clone()),
        E::ServerError { code, .. } if not_found(*code) => PullError::NotFound(image.clone()),
        E::UnauthorizedError { .. } | E::AuthenticationFailure(_) => PullError::Unauthorized(image.clone()),
        E::RegistryError { envelope, .. }
            if envelope.errors.iter().any(|e| {
                let code = format!("{:?}", e.code);
                code == "ManifestUnknown" || code == "NameUnknown" || code == "NotFound"
            }) =>
        {
            PullError::NotFound(image.clone())
        }
        other => PullError::Registry { image: image.clone(), reason: chain(other) },
    }
}

/// An error with all that led to it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl ImageStore {
    /// What this machine holds for `reference`, without asking anybody.
    fn here(&self, reference: &Reference) -> Option<(Digest, Origin)> {
        let reference = self.canonical(reference);
        if let Some(digest) = &reference.digest {
            return self.is_whole(digest).then(|| (digest.clone(), Origin::Given));
        }
        let pin = self.pinned(&reference.name(), reference.tag.as_deref().unwrap_or("latest"))?;
        let digest: Digest = pin.digest.parse().ok()?;
        self.is_whole(&digest).then_some((digest, pin.origin))
    }

    /// Whether every blob of the image is here.
    fn is_whole(&self, digest: &Digest) -> bool {
        let Ok(manifest) = self.platform_manifest(digest) else { return false };
        manifest
            .config
            .iter()
            .chain(&manifest.layers)
            .all(|d| d.digest.parse().is_ok_and(|digest| self.blobs().has(&digest)))
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
        match self.here(&reference) {
            Some((digest, Origin::Given)) => return Ok(digest),
            _ if self.is_embedded(&reference) => return Err(PullError::NotFound(reference)),
            _ => {}
        }
        let auth = keychain.for_image(&reference);
        let client = self.inner.remote.client(&reference)?;
        let digest = client.fetch_manifest_digest(&reference.to_remote(), &auth).await;
        let digest = digest.map_err(|e| explain(&reference, &e))?;
        digest.parse().map_err(|e| PullError::Registry { image: reference, reason: format!("{e}") })
    }

    /// Brings an image here, unpacked.
    ///
    /// # Errors
    /// When it cannot be had under the policy, or is damaged.
    pub async fn pull(
        &self,
        reference: &str,
        policy: Policy,
        keychain: &Keychain,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Image, PullError> {
        let reference: Reference = reference.parse()?;
        let here = self.here(&reference);
        let digest = match (here, policy) {
            (Some((digest, Origin::Given)), _) | (Some((digest, _)), Policy::IfNotPresent | Policy::Never) => digest,
            (None, Policy::Never) => return Err(PullError::Absent(reference)),
            (None, _) if self.is_embedded(&reference) => return Err(PullError::NotFound(reference)),
            _ => self.fetch(&reference, keychain, progress).await?,
        };
        let name = self.canonical(&reference).name();
        Ok(self.open_image(&name, &digest).await?)
    }

    /// Downloads what is missing of an image and remembers its tag.
    async fn fetch(
        &self,
        reference: &Reference,
        keychain: &Keychain,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Digest, PullError> {
        // Shared with other downloads; the collector waits for it, so that it cannot remove what just came.
        let _not_collecting = self.inner.pins.read().await;
        let auth = keychain.for_image(reference);
        let client = self.inner.remote.client(reference)?;
        let remote = reference.to_remote();
        let pulled = client.pull_manifest_raw(&remote, &auth, ACCEPT).await;
        let (bytes, digest) = pulled.map_err(|e| explain(reference, &e))?;
        let digest = self.keep_manifest(reference, &bytes, &digest)?;
        let manifest = self.manifest(&digest)?;
        let media_type = manifest.media_type.clone().unwrap_or_default();
        let manifest = match pick_platform(&manifest.manifests) {
            None => manifest,
            Some(chosen) => self.fetch_platform(reference, chosen, &auth).await?,
        };
        let blobs: Vec<&Descriptor> = manifest.config.iter().chain(&manifest.layers).collect();
        let tally = Tally { done: AtomicU64::new(0), total: blobs.iter().map(|blob| blob.size).sum(), tell: progress };
        // Boxed, so that the future is known to be Send whatever the lifetimes in it.
        let mut fetches: Vec<BoxFuture<'_, Result<(), PullError>>> = Vec::new();
        for descriptor in blobs {
            fetches.push(Box::pin(self.fetch_blob(reference, descriptor, &tally)));
        }
        stream::iter(fetches).buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await?;
        if let Some(tag) = &reference.tag {
            let pin = Pin { digest: digest.to_string(), origin: Origin::Pulled, media_type };
            self.pin(&reference.name(), tag, &pin).map_err(|source| io("remember a tag", source))?;
        }
        Ok(digest)
    }

    fn keep_manifest(&self, image: &Reference, bytes: &[u8], digest: &str) -> Result<Digest, PullError> {
        let stored = self.blobs().put(bytes).map_err(|source| io("store a manifest", source))?;
        if stored.to_string() == digest {
            return Ok(stored);
        }
        let reason = format!("the manifest has digest {stored}, the registry says {digest}");
        Err(PullError::Registry { image: image.clone(), reason })
    }

    async fn fetch_platform(
        &self,
        image: &Reference,
        chosen: &Descriptor,
        auth: &oci_client::secrets::RegistryAuth,
    ) -> Result<Manifest, PullError> {
        let digest: Digest =
            chosen.digest.parse().map_err(|e| PullError::Registry { image: image.clone(), reason: format!("{e}") })?;
        if !self.blobs().has(&digest) {
            let of_platform = Reference { tag: None, digest: Some(digest.clone()), ..image.clone() };
            let client = self.inner.remote.client(image)?;
            let pulled = client.pull_manifest_raw(&of_platform.to_remote(), auth, ACCEPT).await;
            let (bytes, found) = pulled.map_err(|e| explain(image, &e))?;
            self.keep_manifest(image, &bytes, &found)?;
        }
        Ok(self.manifest(&digest)?)
    }

    async fn fetch_blob(&self, image: &Reference, descriptor: &Descriptor, tally: &Tally<'_>) -> Result<(), PullError> {
        let digest = parse_digest(&Digest::of(b""), &descriptor.digest)?;
        let lock: Arc<_> = self.lock_for(digest.hex());
        let _fetching = lock.lock().await;
        if self.blobs().has(&digest) {
            tally.add(descriptor.size);
            return Ok(());
        }
        let client = self.inner.remote.client(image)?;
        let stream = client.pull_blob_stream(&image.to_remote(), descriptor.digest.as_str()).await;
        let mut stream = stream.map_err(|e| explain(image, &e))?.stream;
        let mut incoming = self.blobs().begin().map_err(|source| io("store a layer", source))?;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| PullError::Registry { image: image.clone(), reason: e.to_string() })?;
            // Blocking, but a page-cache write of one network chunk.
            incoming.append(&chunk).map_err(|source| io("store a layer", source))?;
            if descriptor.size > 0 && incoming.length() > descriptor.size {
                let reason = format!("layer {digest} is longer than the {} bytes announced", descriptor.size);
                return Err(PullError::Registry { image: image.clone(), reason });
            }
            tally.add(chunk.len() as u64);
        }
        let commit = tokio::task::spawn_blocking(move || incoming.commit(&digest)).await;
        commit
            .map_err(std::io::Error::other)
            .and_then(|done| done)
            .map_err(|source| io("store a layer", source))
            .map_err(PullError::from)
    }
}

fn io(what: &str, source: std::io::Error) -> StoreError {
    StoreError::Io { what: what.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Where no certificates are.
    const NOWHERE: &str = "/nowhere";

    #[test]
    fn without_ca_certificates_a_pull_fails_and_nothing_else() {
        // What a process trusts is in its environment, so this looks from one of its own.
        if std::env::var("SSL_CERT_FILE").as_deref() != Ok(NOWHERE) {
            let name = "pull::tests::without_ca_certificates_a_pull_fails_and_nothing_else";
            let mut same = Command::new(std::env::current_exe().expect("this program"));
            same.args(["--exact", name]).env("SSL_CERT_FILE", NOWHERE).env("SSL_CERT_DIR", NOWHERE);
            let output = same.output().expect("it runs");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let remote = Remote::new(&Config::default());
        let image: Reference = "registry.example/app:v1".parse().expect("a reference");
        let error = remote.client(&image).map(|_| ()).expect_err("nobody could be trusted");
        assert!(
            error.to_string().ends_with("does this machine have CA certificates (package ca-certificates)?"),
            "{error}"
        );
    }
}
